/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Fits in correlated noise: galshape_cnn.infer.likelihood.sandwich tells what the numbers are. */

enum { LINES = 4 }; /* of the image that share what is loaded */

/* The correlation, one half of it, its middle halved: with its own reflection it is the whole.  Zeros before and
 * behind let each of the lines read what another needs. */
static void half_taps(const float *correlation, int ky, int kx, float *taps) {
    int reach = ky / 2, middle = kx / 2;
    memset(taps, 0, 4 * (size_t)(reach + 2 * LINES - 1) * kx);
    float *first = taps + (size_t)(LINES - 1) * kx;
    memcpy(first, correlation + (size_t)reach * kx, 4 * (size_t)(reach + 1) * kx);
    for (int x = 0; x < middle; x++) first[x] = 0;
    first[middle] *= 0.5f;
}

/* An image correlated with taps, of which so many lines are above and below a pixel; `lines` has memory for the
 * image with kx more columns and above + below more lines. */
static void correlated(const float *image, int size, const float *taps, int above, int below, int kx, float *lines,
                       float *out) {
    int reach = above + below, wide = rounded_up(size, 2 * VL) + kx, high = rounded_up(size, LINES) + reach;
    memset(lines, 0, 4 * (size_t)wide * high);
    float *first = lines + (size_t)above * wide + kx / 2;
    for (int y = 0; y < size; y++) memcpy(first + (size_t)y * wide, image + (size_t)y * size, 4 * size);
    for (int y = 0; y < size; y += LINES)
        for (int x = 0; x < size; x += 2 * VL) {
            V sum[LINES][2] = {{{0}}};
            for (int j = 0; j < reach + LINES; j++) {
                const float *line = lines + (size_t)(y + j) * wide + x;
                const float *tap = taps + (size_t)(j + LINES - 1) * kx;
                for (int d = 0; d < kx; d++) {
                    V left = load(line + d), right = load(line + d + VL);
#pragma GCC unroll 4
                    for (int r = 0; r < LINES; r++) {
                        V one = splat(tap[d - r * kx]);
                        sum[r][0] += one * left, sum[r][1] += one * right;
                    }
                }
            }
            for (int r = 0; r < LINES && y + r < size; r++)
                for (int v = 0; v < 2 && x + v * VL < size; v++)
                    store_some(out + (size_t)(y + r) * size + x + v * VL, sum[r][v], size - x - v * VL);
        }
}

/* A correlation: lags (ky, kx) about the middle, and the products of a line of `wide` lags with itself. */
typedef struct {
    int ky, kx, wide;
    float *taps, *along, *across, *lines, *seen, *again, *more; /* of the lags; of the line, along x and along y */
} Lags;

/* Numbers that `Lags` need; laid out from an address, if there is one. */
static size_t lags_memory(Lags *l, int size, float *start) {
    size_t wide = rounded_up(size, 2 * VL) + (l->kx > l->wide ? l->kx : l->wide), area = (size_t)size * size + 2 * VL;
    size_t high = rounded_up(size, LINES) + (l->ky > l->wide ? l->ky : l->wide) / 2;
    float *at = start;
    l->taps = taken(&at, (size_t)(l->ky / 2 + 2 * LINES) * l->kx);
    l->along = taken(&at, 2 * (size_t)LINES * l->wide);
    l->across = taken(&at, (size_t)(l->wide / 2 + 2 * LINES));
    l->lines = taken(&at, wide * high);
    l->seen = taken(&at, area), l->again = taken(&at, area), l->more = taken(&at, area);
    return at - start;
}

static void take_lags(Lags *l, const float *correlation, const float *line) {
    half_taps(correlation, l->ky, l->kx, l->taps);
    if (!l->wide) return;
    memset(l->along, 0, 4 * 2 * (size_t)LINES * l->wide);
    memcpy(l->along + (size_t)(LINES - 1) * l->wide, line, 4 * (size_t)l->wide);
    half_taps(line, l->wide, 1, l->across);
}

/* Half of an image's correlation with noise: with the reflection of that it is the whole. */
static void half_correlated(const Lags *l, const float *image, int size, float *out) {
    correlated(image, size, l->taps, 0, l->ky / 2, l->kx, l->lines, out);
    if (!l->wide) return;
    correlated(image, size, l->along, 0, 0, l->wide, l->lines, l->again);
    correlated(l->again, size, l->across, 0, l->wide / 2, 1, l->lines, l->more);
    for (size_t i = 0; i < (size_t)size * size; i++) out[i] += l->more[i];
}

/* Covariance (8, 8) of the products of whitened columns with correlated noise. */
static void in_correlated_noise(const float *columns, int size, const Lags *l, double *out) {
    size_t area = (size_t)size * size;
    double half[8][8];
    for (int k = 0; k < 8; k++) {
        half_correlated(l, columns + k * area, size, l->seen);
        for (int i = 0; i < 8; i++) half[i][k] = dot(columns + i * area, l->seen, area);
    }
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 8; k++) out[8 * i + k] = half[i][k] + half[k][i];
}

/* The same with the Fisher matrix for independent noise, of a galaxy that has been rendered with SLOPES. */
static void correlated_products(const Work *w, const float *params, const float *ivar, float inverse_gain,
                                const Lags *l, float *columns, double *fisher, double *actual) {
    int size = w->plan->size;
    size_t area = (size_t)size * size, padded = area + 2 * VL;
    float *light = columns + COLUMNS * padded, *root = light + padded, *residual = root + padded;
    whiten(w, params, ivar, ivar, inverse_gain, light, root, residual, columns); /* of no data: no residual is used */
    for (int i = 0; i < 8; i++)
        for (int k = 0; k <= i; k++)
            fisher[8 * i + k] = fisher[8 * k + i] = dot(columns + i * area, columns + k * area, area);
    in_correlated_noise(columns, size, l, actual);
}
