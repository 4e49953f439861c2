/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Inputs of the network: galshape_cnn.infer.network.features tells what they are. */

enum { SIDE = 64, PATCH = 4, WINDOWS = 4, TEMPLATES = 6 };

/* Weights of one stamp in units of their mean, and pixels in units of the noise; returns the noise. */
static float scaled_stamp(const float *data, const float *ivar, float *scaled, float *weight, double *valid) {
    int area = SIDE * SIDE, count = 0;
    double total = 0;
    for (int y = 0; y < SIDE; y++) {
        float row = 0;
        for (int x = 0; x < SIDE; x++) row += ivar[y * SIDE + x], count += ivar[y * SIDE + x] > 0;
        total += row;
    }
    double mean = total / (count ? count : 1);
    if (!(mean > 0)) mean = 1;
    float root = sqrt(mean), over = 1 / mean;
    for (int i = 0; i < area; i++) {
        scaled[i] = data[i] * root;
        weight[i] = ivar[i] * over;
    }
    *valid = (double)count / area;
    return 1 / sqrt(mean);
}

/* Sums over pixels of weighted data, and of weights, times templates that are products of functions of x and
 * y: for each window g (4 x 64): g, t g, t^2 g, and squares of g. */
static void window_sums(const float *scaled, const float *weight, const float *along, double *out, double *norm) {
    double sums[WINDOWS][TEMPLATES] = {{0}}, squares[WINDOWS] = {0};
    for (int y = 0; y < SIDE; y++) {
        float product_[SIDE];
        const float *s = scaled + y * SIDE, *w = weight + y * SIDE;
        for (int x = 0; x < SIDE; x++) product_[x] = s[x] * w[x];
        for (int one = 0; one < WINDOWS; one++) {
            const float *g = along + one * 4 * SIDE, *g1 = g + SIDE, *g2 = g1 + SIDE, *gg = g2 + SIDE;
            V a = {0}, b = {0}, c = {0}, d = {0};
            for (int x = 0; x < SIDE; x += VL) {
                V p = load(product_ + x);
                a += p * load(g + x), b += p * load(g1 + x), c += p * load(g2 + x);
                d += load(w + x) * load(gg + x);
            }
            double m0 = sum_of(a), m1 = sum_of(b), m2 = sum_of(c), g_y = g[y], u_y = g1[y], v_y = g2[y];
            double *sum = sums[one];
            sum[0] += g_y * m0;
            sum[1] += g_y * m1;
            sum[2] += u_y * m0;
            sum[3] += g_y * m2 + v_y * m0;
            sum[4] += g_y * m2 - v_y * m0;
            sum[5] += 2 * u_y * m1;
            squares[one] += gg[y] * (double)sum_of(d);
        }
    }
    for (int one = 0; one < WINDOWS; one++) {
        norm[one] = squares[one] > 1e-12 ? squares[one] : 1e-12;
        memcpy(out + one * TEMPLATES, sums[one], sizeof sums[one]);
    }
}

/* Logarithm of x + sqrt(x^2 + 1), of either sign. */
INLINE V arcsinh_of(V x) {
    V size = larger(x, -x), small = x * x;
    V bounded = smaller(size, splat(1e18f));
    V large = log_of(bounded + root_of(bounded * bounded + 1.0f));
    V tiny = size - size * small * (1 / 6.0f) + size * small * small * (3 / 40.0f);
    V value = select_(size < splat(0.125f), tiny - size * small * small * small * (15 / 336.0f), large);
    return select_(x < splat(0.0f), -value, value);
}

/* Three channels of each pixel, pixels of a patch one after the other. */
static void channels(const float *scaled, const float *weight, float unit, float *out) {
    float over = 1 / unit;
    for (int y = 0; y < SIDE; y++) {
        float linear[SIDE], arcsinh[SIDE], relative[SIDE];
        for (int x = 0; x < SIDE; x += VL) {
            V s = load(scaled + y * SIDE + x), w = load(weight + y * SIDE + x), root = root_of(w);
            V lit = select_(w > splat(0.0f), s * over, splat(0.0f));
            store(linear + x, smaller(larger(lit, splat(-5.0f)), splat(20.0f)));
            store(arcsinh + x, arcsinh_of(s * root));
            store(relative + x, smaller(root, splat(3.0f)));
        }
        float *row = out + (size_t)(y / PATCH) * (SIDE / PATCH) * PATCH * PATCH * 3 + (y % PATCH) * PATCH * 3;
        for (int x = 0; x < SIDE; x++) {
            float *to = row + (x / PATCH) * PATCH * PATCH * 3 + (x % PATCH) * 3;
            to[0] = linear[x], to[1] = arcsinh[x], to[2] = relative[x];
        }
    }
}

/* Pixels (count, 16, 16, 48), the 32 entries of the context behind the PSF's, and the unit of flux. */
int32_t ENTRY(features)(int64_t count, const float *data, const float *ivar, const float *along,
                        const float *fit_sky, const float *poisson, float *pixels, float *context,
                        float *amplitude) {
    int area = SIDE * SIDE;
    float *memory = calloc(2 * area, 4), *scaled = memory, *weight = memory + area;
    if (!memory) return 0;
    const float *inputs[] = {data, ivar, fit_sky, poisson}, *first = context;
    const size_t each[] = {area, area, 1, 1};
    for (int64_t n = 0; n < count; n++, context += WINDOWS * (TEMPLATES + 1) + 4) {
        if (is_first(n, 4, inputs, each)) {
            memcpy(pixels + n * area * 3, pixels, 12 * area);
            memcpy(context, first, 4 * (WINDOWS * (TEMPLATES + 1) + 4));
            amplitude[n] = amplitude[0];
            continue;
        }
        double sums[WINDOWS * TEMPLATES], norm[WINDOWS], valid;
        float sigma = scaled_stamp(data + n * area, ivar + n * area, scaled, weight, &valid);
        window_sums(scaled, weight, along, sums, norm);
        double error = 1 / sqrt(norm[1]), second = sums[TEMPLATES] / norm[1];
        second = second > 0 ? second : 0;
        double unit = sqrt(second * second + 9 * error * error);
        channels(scaled, weight, unit, pixels + n * area * 3);
        for (int i = 0; i < WINDOWS * TEMPLATES; i++) {
            double value = sums[i] / norm[i / TEMPLATES] / unit;
            context[i] = value < -20 ? -20 : value > 20 ? 20 : value;
        }
        float *rest = context + WINDOWS * TEMPLATES;
        for (int i = 0; i < WINDOWS; i++) rest[i] = asinh(sums[i * TEMPLATES] / sqrt(norm[i]));
        rest[WINDOWS] = log(unit / error);
        rest[WINDOWS + 1] = fit_sky[n];
        rest[WINDOWS + 2] = log1p(100.0 * poisson[n]);
        rest[WINDOWS + 3] = valid;
        amplitude[n] = unit * sigma;
    }
    free(memory);
    return 1;
}

/* How the channels move with pixels that move by `moved`, in units of the noise, and their unit by a fraction. */
static void moved_channels(const float *scaled, const float *weight, const float *moved, float unit, float growth,
                           float *out) {
    float over = 1 / unit;
    for (int y = 0; y < SIDE; y++) {
        float linear[SIDE], arcsinh[SIDE];
        for (int x = 0; x < SIDE; x += VL) {
            V s = load(scaled + y * SIDE + x), w = load(weight + y * SIDE + x), d = load(moved + y * SIDE + x);
            V lit = s * over, root = root_of(w), zero = splat(0.0f), bright = s * root;
            VI free_ = (w > zero) & (lit > splat(-5.0f)) & (lit < splat(20.0f));
            store(linear + x, select_(free_, d * over - lit * growth, zero));
            store(arcsinh + x, d * root / root_of(bright * bright + 1.0f));
        }
        float *row = out + (size_t)(y / PATCH) * (SIDE / PATCH) * PATCH * PATCH * 3 + (y % PATCH) * PATCH * 3;
        for (int x = 0; x < SIDE; x++) {
            float *to = row + (x / PATCH) * PATCH * PATCH * 3 + (x % PATCH) * 3;
            to[0] = linear[x], to[1] = arcsinh[x], to[2] = 0;
        }
    }
}

/* Derivatives of `features` along images, of pixels, context, and the logarithm of the unit of flux; the pixels
 * of a galaxy come after a place for those of `features`. */
int32_t ENTRY(moved_features)(int64_t count, int64_t directions, const float *data, const float *ivar,
                              const float *along, const float *moved, float *pixels, float *context,
                              float *growth) {
    int area = SIDE * SIDE, each = WINDOWS * (TEMPLATES + 1) + 4;
    float *memory = calloc(3 * area, 4), *scaled = memory, *weight = memory + area, *one = weight + area;
    if (!memory) return 0;
    for (int64_t n = 0; n < count; n++) {
        double sums[WINDOWS * TEMPLATES], norm[WINDOWS], valid;
        float sigma = scaled_stamp(data + n * area, ivar + n * area, scaled, weight, &valid);
        window_sums(scaled, weight, along, sums, norm);
        double error2 = 1 / norm[1], second = sums[TEMPLATES] / norm[1];
        second = second > 0 ? second : 0;
        double unit = sqrt(second * second + 9 * error2);
        pixels += 3 * area;
        for (int64_t k = 0; k < directions; k++, moved += area, pixels += 3 * area, context += each, growth++) {
            double slopes[WINDOWS * TEMPLATES], unused[WINDOWS];
            for (int i = 0; i < area; i++) one[i] = moved[i] / sigma;
            window_sums(one, weight, along, slopes, unused);
            double relative = second * slopes[TEMPLATES] / norm[1] / (unit * unit);
            moved_channels(scaled, weight, one, unit, relative, pixels);
            for (int i = 0; i < WINDOWS * TEMPLATES; i++) {
                double value = sums[i] / norm[i / TEMPLATES] / unit;
                double slope = slopes[i] / norm[i / TEMPLATES] / unit - value * relative;
                context[i] = value > -20 && value < 20 ? slope : 0;
            }
            float *rest = context + WINDOWS * TEMPLATES;
            for (int i = 0; i < WINDOWS; i++) {
                double total = sums[i * TEMPLATES];
                rest[i] = slopes[i * TEMPLATES] / sqrt(norm[i] + total * total);
            }
            rest[WINDOWS] = relative;
            for (int i = 1; i < 4; i++) rest[WINDOWS + i] = 0;
            *growth = relative;
        }
    }
    free(memory);
    return 1;
}
