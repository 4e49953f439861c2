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

/* Numbers that `in_correlated_noise` needs, the taps first. */
static size_t correlated_memory(int size, int ky, int kx) {
    size_t lines = (size_t)(rounded_up(size, 2 * VL) + kx) * (rounded_up(size, LINES) + ky / 2);
    return (size_t)(ky / 2 + 2 * LINES) * kx + (size_t)size * size + lines + 4 * VL;
}

/* Covariance (8, 8) of the products of whitened columns with noise that has the correlation of the taps. */
static void in_correlated_noise(const float *columns, int size, int ky, int kx, float *taps, double *out) {
    size_t area = (size_t)size * size;
    float *seen = taps + (size_t)(ky / 2 + 2 * LINES) * kx, *lines = seen + area + 2 * VL;
    double half[8][8];
    for (int k = 0; k < 8; k++) {
        correlated(columns + k * area, size, taps, 0, ky / 2, kx, lines, seen);
        for (int i = 0; i < 8; i++) half[i][k] = dot(columns + i * area, seen, area);
    }
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 8; k++) out[8 * i + k] = half[i][k] + half[k][i];
}

/* The same with the Fisher matrix for independent noise, of a galaxy that has been rendered with SLOPES; the
 * first of the memory are the taps. */
static void correlated_products(const Work *w, const float *params, const float *ivar, float inverse_gain, int ky,
                                int kx, double *fisher, double *actual) {
    int size = w->plan->size;
    size_t area = (size_t)size * size, padded = area + 2 * VL;
    float *columns = w->more + correlated_memory(size, ky, kx), *light = columns + COLUMNS * padded;
    float *root = light + padded, *residual = root + padded;
    whiten(w, params, ivar, ivar, inverse_gain, light, root, residual, columns); /* of no data: no residual is used */
    for (int i = 0; i < 8; i++)
        for (int k = 0; k <= i; k++)
            fisher[8 * i + k] = fisher[8 * k + i] = dot(columns + i * area, columns + k * area, area);
    in_correlated_noise(columns, size, ky, kx, w->more, actual);
}
