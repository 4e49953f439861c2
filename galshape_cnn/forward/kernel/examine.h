/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* What the pixels say of a measured galaxy: galshape_cnn.infer.residuals.examination tells what the numbers are. */

enum { COLUMNS = 11, MOST_ROWS = 17, SCALES = 4, SMOOTHERS = 5, RESULTS = 97 }; /* MOST_ROWS: rows of a Fisher matrix */

static double dot(const float *a, const float *b, size_t n) {
    double total = 0;
    size_t whole = n / VL * VL;
    for (size_t from = 0; from < whole; from += CHUNK) {
        V sum = {0};
        size_t to = from + CHUNK < whole ? from + CHUNK : whole;
        for (size_t i = from; i < to; i += VL) sum += load(a + i) * load(b + i);
        total += sum_of(sum);
    }
    for (size_t i = whole; i < n; i++) total += a[i] * b[i];
    return total;
}

/* Inverse of a scaled Fisher matrix with a ridge; the parameter `sky` may be known.  False if there is none. */
static int inverted(const double *fisher, int stride, int n, int sky, int fit_sky, double ridge, double *out) {
    double a[MOST_ROWS][2 * MOST_ROWS] = {{0}}, scale[MOST_ROWS];
    for (int i = 0; i < n; i++) {
        double d = fisher[i * stride + i];
        scale[i] = i == sky && !fit_sky ? 0 : 1 / sqrt(d > 1e-30 ? d : 1e-30);
    }
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) a[i][j] = fisher[i * stride + j] * scale[i] * scale[j];
        a[i][i] += ridge + (i == sky && !fit_sky);
        a[i][n + i] = 1;
    }
    for (int k = 0; k < n; k++) {
        int best = k;
        for (int i = k + 1; i < n; i++)
            if (fabs(a[i][k]) > fabs(a[best][k])) best = i;
        if (!(fabs(a[best][k]) > 0)) return 0;
        for (int j = 0; j < 2 * n; j++) {
            double other = a[k][j];
            a[k][j] = a[best][j], a[best][j] = other;
        }
        double over = 1 / a[k][k];
        for (int j = 0; j < 2 * n; j++) a[k][j] *= over;
        for (int i = 0; i < n; i++) {
            double times = a[i][k];
            if (i == k || times == 0) continue;
            for (int j = 0; j < 2 * n; j++) a[i][j] -= times * a[k][j];
        }
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) out[i * n + j] = a[i][n + j] * scale[i] * scale[j];
    return 1;
}

/* Second differences of an image along x, along y and across, times the weights. */
static void second_derivatives(const float *light, const float *root, int size, float *xx, float *yy, float *xy) {
    for (int y = 0; y < size; y++) {
        const float *here = light + (size_t)y * size;
        const float *below = y ? here - size : here, *above = y < size - 1 ? here + size : here;
        size_t at = (size_t)y * size;
        for (int x = 1; x < size - 1; x++) {
            xx[at + x] = (here[x + 1] + here[x - 1] - 2 * here[x]) * root[at + x];
            yy[at + x] = (above[x] + below[x] - 2 * here[x]) * root[at + x];
            xy[at + x] = (above[x + 1] + below[x - 1] - above[x - 1] - below[x + 1]) * 0.25f * root[at + x];
        }
        for (int x = 0; x < size; x += size - 1) {
            int left = x ? x - 1 : 0, right = x < size - 1 ? x + 1 : x;
            xx[at + x] = (here[right] + here[left] - 2 * here[x]) * root[at + x];
            yy[at + x] = (above[x] + below[x] - 2 * here[x]) * root[at + x];
            xy[at + x] = (above[right] + below[left] - above[left] - below[right]) * 0.25f * root[at + x];
        }
    }
}

/* Highest and lowest pixel, and the distance of the first of the highest from a centre. */
static void extremes_of(const float *image, int size, const float *center, double *high, double *low,
                        double *distance) {
    size_t area = (size_t)size * size, whole = area / VL * VL, at = 0;
    V high_ = splat(-INFINITY), low_ = splat(INFINITY);
    for (size_t i = 0; i < whole; i += VL) high_ = larger(load(image + i), high_), low_ = smaller(load(image + i), low_);
    float most = high_[0], least = low_[0];
    for (int i = 1; i < VL; i++) most = high_[i] > most ? high_[i] : most, least = low_[i] < least ? low_[i] : least;
    for (size_t i = whole; i < area; i++) {
        most = image[i] > most ? image[i] : most;
        least = image[i] < least ? image[i] : least;
    }
    while (at < area - 1 && image[at] != most) at++;
    *high = most, *low = least;
    *distance = hypot((double)(at % size) - center[0], (double)(at / size) - center[1]);
}

/* out = A B, where B (size, padded) is a band of a reach about the diagonal. */
static void banded_right(const float *a, int lda, const float *band, int padded, int size, int rows, int reach,
                         float *out) {
    for (int x = 0; x < padded; x += 2 * VL) {
        int from = x - reach > 0 ? x - reach : 0, to = x + 2 * VL + reach < size ? x + 2 * VL + reach : size;
        for (int y = 0; y < rows; y += 4)
            tile(4, 2, a + (size_t)y * lda + from, lda, band + (size_t)from * padded + x, padded,
                 to > from ? to - from : 0, out + (size_t)y * padded + x, padded);
    }
}

/* out = A B, where A (rows, padded) is such a band. */
static void banded_left(const float *band, int padded, const float *b, int size, int rows, int reach, float *out) {
    for (int y = 0; y < rows; y += 4) {
        int from = y - reach > 0 ? y - reach : 0, to = y + 4 + reach < size ? y + 4 + reach : size;
        for (int x = 0; x < padded; x += 2 * VL)
            tile(4, 2, band + (size_t)y * padded + from, padded, b + (size_t)from * padded + x, padded,
                 to > from ? to - from : 0, out + (size_t)y * padded + x, padded);
    }
}

/* Smoothing matrices laid out for products, both ways: (count, 2, padded, padded). */
static void packed_smoothers(const float *smoothers, int count, int size, float *out) {
    int padded = rounded_up(size, 2 * VL);
    size_t plane = (size_t)padded * padded;
    for (int s = 0; s < count; s++, out += 2 * plane)
        for (int y = 0; y < size; y++)
            for (int x = 0; x < size; x++) {
                float one = smoothers[((size_t)s * size + y) * size + x];
                out[(size_t)y * padded + x] = out[plane + (size_t)x * padded + y] = one;
            }
}

/* An image (size, size) at the beginning of lines of whole vectors, zeros behind it. */
static void padded_image(const float *image, int size, float *out) {
    int padded = rounded_up(size, 2 * VL);
    memset(out, 0, 4 * (size_t)padded * padded);
    for (int y = 0; y < size; y++) memcpy(out + (size_t)y * padded, image + (size_t)y * size, 4 * size);
}

/* Extremes of the residuals smoothed at each scale. */
static void smoothed_extremes(const float *rest, const float *smoothers, const int *reach, int size,
                              const float *center, float *memory, double *high, double *low, double *distance) {
    int padded = rounded_up(size, 2 * VL), rows = rounded_up(size, 4);
    size_t plane = (size_t)padded * padded;
    float *source = memory, *half = source + plane, *whole = half + plane;
    extremes_of(rest, size, center, high, low, distance);
    padded_image(rest, size, source);
    for (int s = 0; s < SCALES - 1; s++, smoothers += 2 * plane) {
        banded_right(source, padded, smoothers + plane, padded, size, rows, reach[s], half);
        banded_left(smoothers, padded, half, size, rows, reach[s], whole);
        if (padded != size)
            for (int y = 0; y < size; y++) memmove(whole + (size_t)y * size, whole + (size_t)y * padded, 4 * size);
        extremes_of(whole, size, center, high + s + 1, low + s + 1, distance + s + 1);
    }
}

/* Numbers that `examined` needs beside the images. */
static size_t examination_memory(int size) {
    size_t padded = rounded_up(size, 2 * VL) + 4;
    return (COLUMNS + 6) * ((size_t)size * size + 2 * VL) + (2 * SMOOTHERS + 3) * padded * padded;
}

/* Weights, residuals and whitened columns; returns the highest light. */
static float whiten(const Work *w, const float *params, const float *data, const float *ivar, float inverse_gain,
                    float *light, float *root, float *residual, float *columns) {
    int size = w->plan->size;
    size_t area = (size_t)size * size;
    float flux = params[0], factor[7] = {1, flux, flux / params[2], flux, flux, flux, flux}, highest = -INFINITY;
    V most = splat(-INFINITY);
    for (size_t i = 0; i < area; i += VL) {
        size_t some = area - i;
        V lit, one = weighed(load_some(w->image + i, some), load_some(ivar + i, some), flux, inverse_gain, &lit);
        store_some(light + i, lit, some);
        store_some(root + i, one, some);
        store_some(residual + i, (load_some(data + i, some) - (lit + params[7])) * one, some);
#pragma GCC unroll 7
        for (int k = 0; k < 7; k++)
            store_some(columns + k * area + i, factor[k] * load_some(w->image + k * area + i, some) * one, some);
        if (some >= VL) most = larger(lit, most);
        for (size_t k = 0; some < VL && k < some; k++) highest = lit[k] > highest ? lit[k] : highest;
    }
    for (int k = 0; k < VL; k++) highest = most[k] > highest ? most[k] : highest;
    memcpy(columns + 7 * area, root, 4 * area);
    second_derivatives(light, root, size, columns + 8 * area, columns + 9 * area, columns + 10 * area);
    return highest;
}

/* Take so many of the columns, times a number each, from an image. */
static void subtract(const float *columns, const double *times, int count, size_t area, float *image) {
    for (int k = 0; k < count; k++, columns += area) {
        float one = times[k];
        for (size_t i = 0; i < area; i++) image[i] -= one * columns[i];
    }
}

/* Products of the columns and the residual, the residual last: (12, 12) symmetric. */
static void all_products(const float *columns, const float *residual, size_t area, double *out) {
    double sums[WIDEST * WIDEST] = {0};
    float chunk[WIDEST * CHUNK];
    for (size_t from = 0; from < area; from += CHUNK) {
        int used = area - from < CHUNK ? (int)(area - from) : CHUNK, padded = rounded_up(used, VL);
        for (int i = 0; i < WIDEST; i++) {
            memcpy(chunk + i * CHUNK, (i < COLUMNS ? columns + i * area : residual) + from, 4 * used);
            for (int k = used; k < padded; k++) chunk[i * CHUNK + k] = 0;
        }
        add_products(chunk, WIDEST, padded, sums);
    }
    for (int i = 0; i < WIDEST; i++)
        for (int j = 0; j <= i; j++) out[i * WIDEST + j] = out[j * WIDEST + i] = sums[i * WIDEST + j];
}

/* Pixels of the model above a threshold; returns their number. */
static int64_t pixels_above(const float *light, float threshold, size_t area, int32_t *pixels) {
    int64_t count = 0;
    for (size_t i = 0; i < area; i++) {
        pixels[count] = i;
        count += light[i] > threshold;
    }
    return count;
}

/* Matched filter for the brightest part of the model, freed of what the columns explain: `products` are
 * theirs, and `along_rest` those with what is left. */
static double core_amplitude(const float *rest, const float *light, const float *root, float threshold,
                             const float *columns, const double *products, const double *inverse,
                             const double *along_rest, size_t area, const int32_t *pixels, int64_t count) {
    double square = 0, along[COLUMNS] = {0}, with_rest = 0, left = 0;
    for (int64_t n = 0; n < count; n++) {
        size_t i = pixels[n];
        double one = light[i] > threshold ? (light[i] - threshold) * root[i] : 0;
        square += one * one, with_rest += one * rest[i];
        for (int k = 0; k < COLUMNS; k++) along[k] += one * columns[k * area + i];
    }
    left = square;
    for (int k = 0; k < COLUMNS; k++) {
        double times = 0, ours = 0;
        for (int l = 0; l < COLUMNS; l++) times += inverse[k * COLUMNS + l] * along[l];
        for (int l = 0; l < COLUMNS; l++) {
            double other = 0;
            for (int m = 0; m < COLUMNS; m++) other += inverse[l * COLUMNS + m] * along[m];
            ours += products[k * WIDEST + l] * other;
        }
        left += times * (ours - 2 * along[k]);
        with_rest -= times * along_rest[k];
    }
    return left > 1e-4 * square && square > 1e-40 ? with_rest / sqrt(left) : 0;
}

/* Sum of the products of two lines, and the number of pixels that are good in both. */
static double product_of_lines(const float *a, const float *b, const float *good_a, const float *good_b, int count,
                               int64_t *pairs) {
    V sum = {0};
    VI number = {0};
    int whole = count / VL * VL;
    for (int x = 0; x < whole; x += VL) {
        sum += load(a + x) * load(b + x);
        number -= (load(good_a + x) > 0.0f) & (load(good_b + x) > 0.0f);
    }
    double total = sum_of(sum);
    for (int x = whole; x < count; x++) total += a[x] * b[x], *pairs += (good_a[x] > 0) & (good_b[x] > 0);
    for (int i = 0; i < VL; i++) *pairs += number[i];
    return total;
}

static void lags_of(const float *rest, const float *root, int size, double *lags) {
    double along_x = 0, along_y = 0;
    int64_t pairs_x = 0, pairs_y = 0;
    for (int y = 0; y < size; y++) {
        const float *r = rest + (size_t)y * size, *g = root + (size_t)y * size;
        along_x += product_of_lines(r + 1, r, g + 1, g, size - 1, &pairs_x);
        if (y) along_y += product_of_lines(r, r - size, g, g - size, size, &pairs_y);
    }
    lags[0] = along_x / sqrt(pairs_x + 1.0);
    lags[1] = along_y / sqrt(pairs_y + 1.0);
}

/* Sum of squares where the galaxy is bright, as that of a number of pixels. */
static void inner_of(const float *rest, const float *light, const float *root, size_t area, double *out) {
    double total = 0, square = 0, weighted = 0;
    for (size_t from = 0; from < area; from += CHUNK) {
        size_t to = from + CHUNK < area ? from + CHUNK : area, whole = from + (to - from) / VL * VL;
        V a = {0}, b = {0}, c = {0};
        for (size_t i = from; i < whole; i += VL) {
            V bright = load(light + i) * load(root + i), r = load(rest + i);
            bright = bright * bright;
            V weight = bright / (1.0f + bright);
            a += weight, b += weight * weight, c += weight * r * r;
        }
        total += sum_of(a), square += sum_of(b), weighted += sum_of(c);
        for (size_t i = whole; i < to; i++) {
            float bright = light[i] * root[i], weight = bright * bright / (1 + bright * bright);
            total += weight, square += weight * weight, weighted += weight * rest[i] * rest[i];
        }
    }
    square = square > 1e-6 ? square : 1e-6;
    out[0] = weighted * total / square;
    out[1] = total * total / square;
}

/* How many of the brightest pixels of the core are equal. */
static double tied(const float *data, const float *root, float apart, const int32_t *pixels, int64_t number) {
    float most = -INFINITY;
    int64_t count = 0;
    for (int64_t n = 0; n < number; n++) {
        float one = data[pixels[n]] * root[pixels[n]];
        most = root[pixels[n]] > 0 && one > most ? one : most;
    }
    for (int64_t n = 0; n < number; n++)
        count += root[pixels[n]] > 0 && data[pixels[n]] * root[pixels[n]] > most - apart;
    return count;
}

/* Light that the model has not, over the model's, near the galaxy. */
static double residual_flux_fraction(const float *params, const float *residual, const float *light,
                                     const float *root, const double *limits, int size) {
    float hlr = params[2], g1 = params[3], g2 = params[4], norm = 1 - g1 * g1 - g2 * g2;
    float reach = limits[0] * hlr + limits[1], within = reach * reach * (norm > 1e-6f ? norm : 1e-6f);
    float mean = limits[2];
    double total = 0, all = 0;
    for (int row = 0; row < size; row++) {
        float y = row - params[6], sum = 0, lit = 0;
        for (int column = 0; column < size; column++) {
            size_t i = (size_t)row * size + column;
            float x = column - params[5], u = (1 - g1) * x - g2 * y, v = (1 + g1) * y - g2 * x;
            if (u * u + v * v < within && root[i] > 0) {
                sum += (__builtin_fabsf(residual[i]) - mean) / root[i];
                lit += light[i];
            }
        }
        total += sum, all += lit;
    }
    return total / (all > 1e-20 ? all : 1e-20);
}

/* Sum of the squares of an image smoothed by a band, or of the smoothed image, where `outside` is one. */
static double smoothed_sum(const float *image, const float *outside, const float *band, int reach, int size,
                           int squares, float *memory) {
    int padded = rounded_up(size, 2 * VL), rows = rounded_up(size, 4);
    size_t plane = (size_t)padded * padded;
    float *source = memory, *half = source + plane, *whole = half + plane;
    double total = 0;
    padded_image(image, size, source);
    banded_right(source, padded, band + plane, padded, size, rows, reach, half);
    banded_left(band, padded, half, size, rows, reach, whole);
    for (int y = 0; y < size; y++) {
        const float *line = whole + (size_t)y * padded, *out = outside + (size_t)y * size;
        float sum = 0;
        for (int x = 0; x < size; x++) sum += out[x] * (squares ? line[x] * line[x] : line[x]);
        total += sum;
    }
    return total;
}

/* How much structure the residuals have that noise has not: galshape_cnn.infer.residuals.structure.  Squares
 * where the galaxy is bright, in standard deviations of those of noise; mean square of the smoothed residuals
 * of the sky, and the number of pixels that it is of; then sums: of the squares' excess, of the squares of the
 * weights, and of the weights of what the columns do not explain.  `bands`: those of the sky, where weights are
 * below `faint`. */
static void structure(const float *residual, const float *light, const float *root, const float *columns,
                      const double *inverse, const double *score, const float *bands, int reach, float faint,
                      int size, float *rest, float *memory, double *out) {
    size_t area = (size_t)size * size, plane = (size_t)rounded_up(size, 2 * VL) * rounded_up(size, 2 * VL);
    float matrix[64], times[8], chunk[11 * CHUNK], *outside = rest + area + VL, *good = outside + area + VL;
    double excess = 0, weights = 0, clear = 0;
    for (int i = 0; i < 8; i++) {
        double sum = 0;
        for (int j = 0; j < 8; j++) matrix[8 * i + j] = inverse[8 * i + j], sum += inverse[8 * i + j] * score[j];
        times[i] = sum;
    }
    for (size_t from = 0; from < area; from += CHUNK) {
        int used = area - from < CHUNK ? (int)(area - from) : CHUNK, padded = rounded_up(used, VL);
        for (int i = 0; i < 11; i++) {
            const float *one = i < 8 ? columns + i * area : i == 8 ? residual : i == 9 ? light : root;
            memcpy(chunk + i * CHUNK, one + from, 4 * used);
            for (int k = used; k < padded; k++) chunk[i * CHUNK + k] = 0;
        }
        V more = {0}, square = {0}, unknown = {0};
        for (int k = 0; k < padded; k += VL) {
            V column[8], r = load(chunk + 8 * CHUNK + k), g = load(chunk + 10 * CHUNK + k), known = {0};
            for (int i = 0; i < 8; i++) column[i] = load(chunk + i * CHUNK + k);
            for (int i = 0; i < 8; i++) {
                V sum = {0};
                for (int j = 0; j < 8; j++) sum += matrix[8 * i + j] * column[j];
                known += sum * column[i];
                r -= times[i] * column[i];
            }
            V bright = larger(load(chunk + 9 * CHUNK + k), splat(0.0f)) * g;
            bright = bright * bright;
            V weight = bright / (1.0f + bright);
            more += weight * (r * r - 1.0f + known);
            square += weight * weight;
            unknown += weight * (1.0f - known);
            V one = splat(1.0f), none = splat(0.0f);
            store(chunk + k, r);
            store(chunk + CHUNK + k, select_((weight < splat(faint)) & (g > none), one, none));
            store(chunk + 2 * CHUNK + k, select_(g > none, one, none));
        }
        excess += sum_of(more), weights += sum_of(square), clear += sum_of(unknown);
        memcpy(rest + from, chunk, 4 * used);
        memcpy(outside + from, chunk + CHUNK, 4 * used);
        memcpy(good + from, chunk + 2 * CHUNK, 4 * used);
    }
    double number = smoothed_sum(good, outside, bands + 2 * plane, reach, size, 0, memory);
    out[0] = weights > 0 ? excess / sqrt(2 * weights) : 0;
    out[2] = number > 1 ? number : 1;
    out[1] = smoothed_sum(rest, outside, bands, reach, size, 1, memory) / out[2];
    out[3] = excess, out[4] = weights, out[5] = clear;
}

/* Where `examined` leaves the whitened columns. */
static float *whitened_columns(const Work *w) {
    size_t padded = rounded_up(w->plan->size, 2 * VL);
    return w->more + 2 * SMOOTHERS * padded * padded;
}

/* All statistics of a galaxy that has been rendered with SLOPES; `limits`: ridge, core, bright, tie, three of
 * the residual flux fraction, and the weight below which pixels are the sky's. */
static void examined(Work *w, const float *params, const float *data, const float *ivar, float inverse_gain,
                     int fit_sky, const int *reach, const double *limits, double *out) {
    int size = w->plan->size;
    size_t area = (size_t)size * size, padded = area + 2 * VL;
    size_t packed_ = (size_t)rounded_up(size, 2 * VL) * rounded_up(size, 2 * VL) * 2;
    float *smoothers = w->more, *columns = whitened_columns(w), *light = columns + COLUMNS * area + VL;
    float *root = light + padded, *residual = root + padded, *rest = residual + padded, *pattern = rest + padded;
    float *memory = pattern + 2 * padded;
    float highest = whiten(w, params, data, ivar, inverse_gain, light, root, residual, columns);
    double products[WIDEST * WIDEST], inverse[2][COLUMNS * COLUMNS], explained[2] = {0}, times[COLUMNS] = {0};
    double along_rest[COLUMNS], of_structure[6];
    all_products(columns, residual, area, products);
    const double *score = products + COLUMNS * WIDEST;
    for (int which = 0; which < 2; which++) {
        int n = which ? COLUMNS : 8;
        if (!inverted(products, WIDEST, n, 7, fit_sky, limits[0], inverse[which])) fill(out, RESULTS);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) explained[which] += score[i] * inverse[which][i * n + j] * score[j];
    }
    for (int i = 0; i < COLUMNS; i++)
        for (int j = 0; j < COLUMNS; j++) times[i] += inverse[1][i * COLUMNS + j] * score[j];
    for (int i = 0; i < COLUMNS; i++) {
        along_rest[i] = score[i];
        for (int j = 0; j < COLUMNS; j++) along_rest[i] -= products[i * WIDEST + j] * times[j];
    }
    memcpy(rest, residual, 4 * area);
    subtract(columns, times, COLUMNS, area, rest);
    *out++ = products[COLUMNS * WIDEST + COLUMNS];
    for (int i = 0; i < 8; i++) *out++ = score[i];
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) *out++ = products[i * WIDEST + j];
    *out++ = dot(rest, rest, area);
    inner_of(rest, light, root, area, out);
    lags_of(rest, root, size, out + 2);
    smoothed_extremes(rest, smoothers, reach, size, params + 5, memory, out + 4, out + 8, out + 12);
    out += 16;
    out[0] = explained[1] - explained[0];
    int32_t *bright = (int32_t *)memory;
    int64_t number = pixels_above(light, (limits[1] < limits[2] ? limits[1] : limits[2]) * highest, area, bright);
    out[1] = core_amplitude(rest, light, root, limits[1] * highest, columns, products, inverse[1], along_rest, area,
                            bright, number);
    number = pixels_above(light, limits[2] * highest, area, bright);
    out[2] = tied(data, root, limits[3], bright, number);
    out[3] = residual_flux_fraction(params, residual, light, root, limits + 4, size);
    structure(residual, light, root, columns, inverse[0], score, smoothers + (SCALES - 1) * packed_,
              reach[SCALES - 1], limits[7], size, rest, memory, of_structure);
    memcpy(out + 4, of_structure, 3 * sizeof *out);
}

/* Chi-square of the best point source near a galaxy that has been rendered with POINT. */
static double point_chi2(Work *w, const float *params, const float *data, const float *ivar, float inverse_gain,
                         int fit_sky, double ridge) {
    size_t area = (size_t)w->plan->size * w->plan->size;
    double sums[WIDEST * WIDEST] = {0}, fisher[16], inverse[16], score[4], explained = 0;
    float columns[6 * CHUNK] = {0};
    for (size_t from = 0; from < area; from += CHUNK) {
        int padded = whitened(w, 3, params, data, ivar, inverse_gain, from, columns);
        add_products(columns, 6, padded, sums);
    }
    for (int i = 0; i < 4; i++) {
        score[i] = sums[4 * WIDEST + i];
        for (int j = 0; j < 4; j++) fisher[4 * i + j] = sums[(i > j ? i : j) * WIDEST + (i > j ? j : i)];
    }
    if (!inverted(fisher, 4, 4, 3, fit_sky, ridge, inverse)) return NAN;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) explained += score[i] * inverse[4 * i + j] * score[j];
    return sums[4 * WIDEST + 4] - explained;
}
