/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Sources that show in residuals only: galshape_cnn.infer.residuals.sources tells what is computed.
 *
 * Significances everywhere come from the middle of the source alone.  Places that may be highest within the
 * error of that are computed again from all pixels.
 */

enum { SOURCES = 3, ROW = 9 + 3 * SOURCES };

/* Share of the source's square beyond its middle, for its products and for those of its square; error of the
 * significance that this makes, and as a share of it, which is larger in wings of other sources. */
static const double BEYOND = 3e-4, BEYOND_SQUARED = 1e-3, ERROR = 0.06, SHARE = 0.05;

typedef struct {
    double ridge, significant, worth, places, seen, most, most_close, noise;
} SourceLimits;

typedef struct {
    double inner, outside, half, wide; /* radii; half the window of a maximum, pixels; spread of the noise */
} SourceScales;

typedef struct {
    const float *params, *point;    /* of the galaxy; image of the source */
    const double *least;            /* shifts of five parameters that matter */
    const SourceLimits *limits;
    SourceScales scales;
    int size, top[2], reach, count; /* the source's highest pixel and its middle; sources that are found */
    size_t area;
    float *columns, *light, *root, *residual, *rest;    /* (8 + 3 count, area), then (area) */
    float *rough, *exact, *over, *weighted; /* significance, nearly and in truth; by what products become that */
    float *taps, *lines;
    int32_t *places;
    double products[ROW * ROW], inverse[ROW * ROW];     /* of columns; the last row: of the residual */
} Search;

/* Numbers that a search needs; laid out from an address, if there is one. */
static size_t search_memory(Search *s, int size, float *start) {
    size_t area = (size_t)size * size + 2 * VL, side = 2 * size + 2 * LINES;
    size_t wide = rounded_up(size, 2 * VL) + side, high = size + LINES + side;
    float *at = start;
    float **planes[] = {&s->light, &s->root, &s->residual, &s->rest, &s->rough, &s->exact, &s->over,
                       &s->weighted};
    for (int i = 0; i < 8; i++) *planes[i] = taken(&at, area);
    s->columns = taken(&at, (ROW + 2) * area); /* whole fours */
    s->places = (int32_t *)taken(&at, area);
    s->taps = taken(&at, side * side);
    s->lines = taken(&at, wide * high);
    return at - start;
}

/* Find half the side of the square about the highest pixel beyond which there is a share of the source's square,
 * and make taps of the source in it, or of its square. */
static void take_middle(Search *s, double share, int squared) {
    float *rings = s->weighted;
    double total = 0, beyond = 0;
    memset(rings, 0, 4 * s->size);
    for (int y = 0; y < s->size; y++)
        for (int x = 0; x < s->size; x++) {
            int dy = abs(y - s->top[0]), dx = abs(x - s->top[1]);
            float one = s->point[(size_t)y * s->size + x];
            rings[dy > dx ? dy : dx] += one * one;
        }
    for (int i = 0; i < s->size; i++) total += rings[i];
    for (s->reach = s->size - 1; s->reach > 0 && beyond + rings[s->reach] < share * total; s->reach--)
        beyond += rings[s->reach];
    int side = 2 * s->reach + 1, y0 = s->top[0] - s->reach, x0 = s->top[1] - s->reach;
    memset(s->taps, 0, 4 * (size_t)(side + 2 * LINES - 2) * side);
    for (int y = y0 > 0 ? y0 : 0; y < y0 + side && y < s->size; y++)
        for (int x = x0 > 0 ? x0 : 0; x < x0 + side && x < s->size; x++) {
            float one = s->point[(size_t)y * s->size + x];
            s->taps[(size_t)(y - y0 + LINES - 1) * side + x - x0] = squared ? one * one : one;
        }
}

/* Products of an image with the middle of the source at each place. */
static void with_middle(const Search *s, const float *image, float *out) {
    correlated(image, s->size, s->taps, s->reach, s->reach, 2 * s->reach + 1, s->lines, out);
}

static int is_near(const Search *s, int place, double radius) {
    double dx = place % s->size - (double)s->params[5], dy = place / s->size - (double)s->params[6];
    return dx * dx + dy * dy < radius * radius;
}

/* By what products become significances if nothing is explained; zero where no source is looked for. */
static void find_scale(Search *s) {
    float enough = s->limits->seen * dot(s->point, s->point, s->area), wide = s->scales.wide;
    take_middle(s, BEYOND_SQUARED, 1);
    for (size_t i = 0; i < s->area; i++) s->weighted[i] = s->root[i] > 0;
    with_middle(s, s->weighted, s->over);
    float low = INFINITY, high = 0;
    for (size_t i = 0; i < s->area; i++) {
        high = s->root[i] > high ? s->root[i] : high;
        low = s->root[i] > 0 && s->root[i] < low ? s->root[i] : low;
    }
    if (low < high) {
        for (size_t i = 0; i < s->area; i++) s->weighted[i] = s->root[i] * s->root[i];
        with_middle(s, s->weighted, s->rough);
    } else /* all weights are equal */
        for (size_t i = 0; i < s->area; i++) s->rough[i] = high * high * s->over[i];
    for (size_t i = 0; i < s->area; i++) {
        float one = 1 / (sqrtf(s->rough[i]) * wide);
        s->over[i] = s->over[i] > enough ? one : 0;
    }
    int first = within(s->params[6] - s->scales.inner, 0, s->size) * s->size;
    int last = within(s->params[6] + s->scales.inner + 1, 0, s->size) * s->size;
    for (int i = first; i < last; i++)
        if (is_near(s, i, s->scales.inner)) s->over[i] = 0;
    take_middle(s, BEYOND, 0);
}

/* The source with its highest pixel at a place. */
static void moved_to(const Search *s, int place, float *out) {
    int size = s->size, dy = place / size - s->top[0], dx = place % size - s->top[1];
    int left = dx > 0 ? dx : 0, right = dx < 0 ? size + dx : size;
    memset(out, 0, 4 * s->area);
    for (int y = dy > 0 ? dy : 0; y < size && y - dy < size; y++)
        memcpy(out + (size_t)y * size + left, s->point + (size_t)(y - dy) * size + left - dx, 4 * (right - left));
}

static void times_root(const Search *s, const float *image, float *out) {
    for (size_t i = 0; i < s->area; i++) out[i] = image[i] * s->root[i];
}

/* Put it there with its weights; returns its product with what is left. */
static double weighted_at(const Search *s, int place, double *square) {
    int size = s->size, dy = place / size - s->top[0], dx = place % size - s->top[1];
    for (int y = 0; y < size; y++) {
        int there = y >= dy && y - dy < size;
        int left = !there ? size : dx > 0 ? dx : 0, right = dx < 0 ? size + dx : size;
        float *out = s->weighted + (size_t)y * size;
        const float *light = s->point + (int64_t)(y - dy) * size - dx, *root = s->root + (size_t)y * size;
        memset(out, 0, 4 * left);
        for (int x = left; x < right; x++) out[x] = light[x] * root[x];
        for (int x = right; x < size; x++) out[x] = 0;
    }
    *square = dot(s->weighted, s->weighted, s->area);
    return dot(s->weighted, s->rest, s->area);
}

/* Add the products of it with four columns. */
static void products_of_four(const Search *s, const float *columns, double *out) {
    size_t area = s->area, whole = area / VL * VL;
    for (size_t from = 0; from < whole; from += CHUNK) {
        V sum[4] = {{0}};
        for (size_t at = from; at < from + CHUNK && at < whole; at += VL) {
            V one = load(s->weighted + at);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[i] += one * load(columns + i * area + at);
        }
        for (int i = 0; i < 4; i++) out[i] += sum_of(sum[i]);
    }
    for (size_t at = whole; at < area; at++)
        for (int i = 0; i < 4; i++) out[i] += s->weighted[at] * columns[i * area + at];
}

typedef double VD __attribute__((vector_size(8 * VL)));

/* In double precision: sources that overlap with the galaxy, and with each other, differ by little. */
static double exact_dot(const float *a, const float *b, size_t n) {
    VD sum[2] = {{0}};
    double total = 0;
    size_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL)
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++)
            sum[k] += __builtin_convertvector(load(a + i + k * VL), VD) *
                      __builtin_convertvector(load(b + i + k * VL), VD);
    for (; i < n; i++) total += (double)a[i] * b[i];
    for (int k = 0; k < VL; k++) total += sum[0][k] + sum[1][k];
    return total;
}

/* Products of some of the columns with those before them and the residual. */
static void add_columns(Search *s, int from, int to) {
    for (int k = from; k < to; k++)
        for (int j = 0; j < ROW; j++) s->products[k * ROW + j] = s->products[(ROW - 1) * ROW + k] = 0;
    for (size_t at = 0; at < s->area; at += 4 * CHUNK)
        for (int k = from; k < to; k++) {
            size_t some = s->area - at < 4 * CHUNK ? s->area - at : 4 * CHUNK;
            const float *column = s->columns + k * s->area + at;
            for (int j = 0; j <= k; j++)
                s->products[k * ROW + j] += exact_dot(column, s->columns + j * s->area + at, some);
            s->products[(ROW - 1) * ROW + k] += exact_dot(column, s->residual + at, some);
        }
    for (int k = from; k < to; k++)
        for (int j = 0; j < k; j++) s->products[j * ROW + k] = s->products[k * ROW + j];
}

static void derivative(const float *line, int size, size_t stride, float *out) {
    for (int i = 0; i < size; i++) {
        int low = i ? i - 1 : 0, high = i < size - 1 ? i + 1 : i;
        out[i * stride] = (line[high * stride] - line[low * stride]) / (high - low);
    }
}

/* Put a source, and its derivatives along x and y, among the images and the columns. */
static void add_source(Search *s, int place, float *images) {
    float *image = images + 3 * s->count * s->area, *along_x = image + s->area, *along_y = along_x + s->area;
    moved_to(s, place, image);
    for (int i = 0; i < s->size; i++) {
        derivative(image + (size_t)i * s->size, s->size, 1, along_x + (size_t)i * s->size);
        derivative(image + i, s->size, s->size, along_y + i);
    }
    if (!s->count) add_columns(s, 0, 8);
    int from = 8 + 3 * s->count++;
    for (int k = 0; k < 3; k++) times_root(s, image + k * s->area, s->columns + (from + k) * s->area);
    add_columns(s, from, from + 3);
}

/* Best amplitudes of all columns; false if there are none. */
static int solved(Search *s, int fit_sky, double *times) {
    int n = 8 + 3 * s->count;
    const double *score = s->products + (ROW - 1) * ROW;
    memset(times, 0, n * sizeof *times);
    if (!inverted(s->products, ROW, n, 7, fit_sky, s->limits->ridge, s->inverse)) return 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) times[i] += s->inverse[i * n + j] * score[j];
    return 1;
}

/* Significance of a place from all pixels, if nothing is explained. */
static float exact_at(Search *s, int place) {
    double square;
    if (isnan(s->exact[place])) {
        s->exact[place] = weighted_at(s, place, &square);
        s->exact[place] /= sqrt(square) * s->scales.wide;
    }
    return s->exact[place];
}

/* Whether nothing within its window is higher than a place, by more than some error or in truth. */
static int is_top(Search *s, int place, float error, int in_truth) {
    int half = s->scales.half, y0 = place / s->size, x0 = place % s->size;
    for (int y = y0 > half ? y0 - half : 0; y < s->size && y <= y0 + half; y++)
        for (int x = x0 > half ? x0 - half : 0; x < s->size && x <= x0 + half; x++) {
            int other = y * s->size + x;
            float above = s->rough[other] - s->rough[place];
            if (above > error) return 0;
            if (in_truth && above > -error && exact_at(s, other) > s->exact[place]) return 0;
        }
    return 1;
}

/* Bring the highest of some places to the front, the first of equal ones. */
static int32_t highest_first(const float *height, int32_t *places, int count) {
    int best = 0;
    for (int i = 1; i < count; i++) {
        float above = height[places[i]] - height[places[best]];
        if (above > 0 || (above == 0 && places[i] < places[best])) best = i;
    }
    int32_t place = places[best];
    places[best] = places[0];
    return places[0] = place;
}

/* Find places worth a closer look, the highest first; returns how many. */
static int find_places(Search *s) {
    float worth = s->limits->worth * s->limits->significant, lowest = INFINITY;
    int count = 0, found = 0;
    times_root(s, s->rest, s->weighted);
    with_middle(s, s->weighted, s->rough);
    for (size_t i = 0; i < s->area; i++) s->rough[i] *= s->over[i], s->exact[i] = NAN;
    for (size_t i = 0; i < s->area; i++) {
        float error = ERROR + SHARE * s->rough[i];
        if (s->rough[i] > worth - error && is_top(s, i, error, 0)) s->places[count++] = i;
    }
    for (int i = 0; i < count; i++) {
        int place = highest_first(s->rough, s->places + i, count - i);
        if (found >= s->limits->places && s->rough[place] * (1 + SHARE) + ERROR < lowest) break;
        float off = exact_at(s, place) - s->rough[place]; /* its neighbours are off by much the same */
        if (!(s->exact[place] > worth && is_top(s, place, fabsf(off) + ERROR, 1))) continue;
        if (found < s->limits->places && s->exact[place] < lowest) lowest = s->exact[place];
        s->places[found++] = place;
    }
    int wanted = found < s->limits->places ? found : (int)s->limits->places;
    for (int i = 0; i < wanted; i++) highest_first(s->exact, s->places + i, found - i);
    return wanted;
}

/* Significance of a source at a place; zero if it moves no parameter. */
static double significance(const Search *s, int place) {
    int n = 8 + 3 * s->count, moves = 0;
    double seen[ROW + 2] = {0}, taken_up[ROW] = {0}, square, product = weighted_at(s, place, &square);
    for (int i = 0; i < n; i += 4) products_of_four(s, s->columns + i * s->area, seen + i);
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) taken_up[i] += s->inverse[i * n + j] * seen[j];
        square -= seen[i] * taken_up[i];
    }
    square = square > 1e-20 ? square : 1e-20;
    for (int i = 0; i < 5; i++) moves |= fabs(product / square * taken_up[i]) > s->least[i];
    return moves ? product / sqrt(square) / s->scales.wide : 0;
}

/* The most significant source that matters; minus one without. */
static int best_place(Search *s) {
    int best = -1, count = find_places(s);
    double most = s->limits->significant, left[2] = {NAN}, wide = s->scales.wide;
    for (int i = 0; i < count; i++) {
        double one = significance(s, s->places[i]);
        if (!(one > most)) continue;
        if (is_near(s, s->places[i], s->scales.outside)) {
            if (isnan(left[0])) left_in(s->rest, s->light, s->root, s->area, left);
            if (!(left[0] / (wide * wide) - one * one < s->limits->noise * left[1])) continue;
        }
        most = one, best = s->places[i];
    }
    return best;
}

/* Number of sources, whether one is within the galaxy, and three amplitudes of each; their images. */
static void find_sources(Search *s, int fit_sky, double *out, float *images) {
    double times[ROW];
    int found[SOURCES], close = 0, place, most = s->limits->most;
    find_scale(s);
    while (s->count < most && solved(s, fit_sky, times)) {
        memcpy(s->rest, s->residual, 4 * s->area);
        subtract(s->columns, times, 8 + 3 * s->count, s->area, s->rest);
        if ((place = found[s->count] = best_place(s)) < 0) break;
        close += is_near(s, place, s->scales.outside);
        add_source(s, place, images);
    }
    if (close > s->limits->most_close) { /* a galaxy of clumps */
        int all = s->count;
        s->count = close = 0;
        for (int i = 0; i < all; i++)
            if (!is_near(s, found[i], s->scales.outside)) add_source(s, found[i], images);
        memset(images + 3 * s->count * s->area, 0, 12 * (all - s->count) * s->area);
    }
    if (!solved(s, fit_sky, times)) {
        memset(images, 0, 12 * s->count * s->area);
        return;
    }
    out[0] = s->count, out[1] = close > 0;
    memcpy(out + 2, times + 8, 3 * s->count * sizeof *times);
}

/* Whiten a galaxy that has been rendered with SLOPES, and find the top of the point source. */
static void begin(Search *s, const Work *w, const float *data, const float *ivar, float inverse_gain) {
    double products[WIDEST * WIDEST];
    whiten(w, s->params, data, ivar, inverse_gain, s->light, s->root, s->residual, s->columns);
    all_products(s->columns, s->residual, s->area, products);
    for (int i = 0; i < 9; i++)
        memcpy(s->products + (i < 8 ? i : ROW - 1) * ROW, products + (i < 8 ? i : COLUMNS) * WIDEST, 64);
    int top = 0;
    for (int i = 1; i < (int)s->area; i++) top = s->point[i] > s->point[top] ? i : top;
    s->top[0] = top / s->size, s->top[1] = top % s->size;
}

/* Variance of the product of the point source and correlated noise, over that of independent noise. */
static double product_variance(const Search *s, const Lags *lags) {
    half_correlated(lags, s->point, s->size, s->weighted);
    double over = 2 * dot(s->point, s->weighted, s->area) / dot(s->point, s->point, s->area);
    return over > 1 ? over : 1;
}

int32_t ENTRY(sources)(const Plan *p, int64_t count, const float *params, const float *data, const float *ivar,
                       const float *transfer, int64_t shared, const float *inverse_gain, int32_t fit_sky,
                       const SourceScales *scales, const double *least, const SourceLimits *limits, int64_t ky,
                       int64_t kx, const float *correlation, int64_t wide, const float *line, double *out,
                       float *images) {
    Lags lags = {ky, kx, wide};
    size_t of_noise = lags_memory(&lags, p->size, NULL);
    Search s = {.limits = limits, .size = p->size, .area = (size_t)p->size * p->size};
    size_t memory = of_noise + search_memory(&s, p->size, NULL);
    Work *w = new_work(p, SLOPES, memory), *point = new_work(p, SPOT, 0);
    const float *last = NULL;
    if (w && point && ky) lags_memory(&lags, p->size, w->more), take_lags(&lags, correlation, line);
    for (int64_t i = 0; i < count && w && point; i++, out += 2 + 3 * SOURCES, images += 3 * SOURCES * s.area) {
        const float *psf = psf_of(p, transfer, shared, i);
        if (!sound(w, params + 8 * i)) continue;
        if (psf != last) split_psf(w, psf), split_psf(point, psf);
        last = psf;
        render(w, params + 8 * i), render(point, params + 8 * i);
        search_memory(&s, p->size, w->more + of_noise);
        s.params = params + 8 * i, s.point = point->image, s.least = least + 5 * i;
        s.scales = scales[i], s.count = 0;
        begin(&s, w, data + i * s.area, ivar + i * s.area, inverse_gain[i]);
        if (ky) s.scales.wide *= sqrt(product_variance(&s, &lags));
        find_sources(&s, fit_sky, out, images);
    }
    int done = w && point;
    free(w), free(point);
    return done;
}
