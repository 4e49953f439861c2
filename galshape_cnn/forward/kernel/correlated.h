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

/* An image correlated with the taps; `lines` has the memory of `correlated_memory`. */
static void correlated(const float *image, int size, const float *taps, int ky, int kx, float *lines, float *out) {
    int reach = ky / 2, wide = rounded_up(size, 2 * VL) + kx, high = rounded_up(size, LINES) + reach;
    memset(lines, 0, 4 * (size_t)wide * high);
    for (int y = 0; y < size; y++) memcpy(lines + (size_t)y * wide + kx / 2, image + (size_t)y * size, 4 * size);
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

/* Numbers that `score_products` needs beside the images, the taps first. */
static size_t correlated_memory(int size, int ky, int kx) {
    size_t area = (size_t)size * size + 2 * VL;
    return (size_t)(ky / 2 + 2 * LINES) * kx + (COLUMNS + 4) * area +
           (size_t)(rounded_up(size, 2 * VL) + kx) * (rounded_up(size, LINES) + ky / 2) + 8 * VL;
}

/* Fisher matrix for independent noise, (8, 8), and covariance of its score with correlated noise, of a galaxy
 * that has been rendered with SLOPES. */
static void score_products(const Work *w, const float *params, const float *ivar, float inverse_gain, int ky, int kx,
                           double *fisher, double *actual) {
    int size = w->plan->size;
    size_t area = (size_t)size * size, padded = area + 2 * VL;
    float *taps = w->more, *columns = taps + (size_t)(ky / 2 + 2 * LINES) * kx, *light = columns + COLUMNS * padded;
    float *root = light + padded, *residual = root + padded, *seen = residual + padded, *lines = seen + padded;
    double half[8][8];
    whiten(w, params, ivar, ivar, inverse_gain, light, root, residual, columns); /* of no data: no residual is used */
    for (int k = 0; k < 8; k++) {
        correlated(columns + k * area, size, taps, ky, kx, lines, seen);
        for (int i = 0; i < 8; i++) half[i][k] = dot(columns + i * area, seen, area);
        for (int i = 0; i <= k; i++)
            fisher[8 * i + k] = fisher[8 * k + i] = dot(columns + i * area, columns + k * area, area);
    }
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 8; k++) actual[8 * i + k] = half[i][k] + half[k][i];
}

int32_t ENTRY(correlated)(const Plan *p, int64_t count, const float *params, const float *ivar,
                             const float *transfer, int64_t shared, const float *inverse_gain, int64_t ky,
                             int64_t kx, const float *correlation, double *fisher, double *actual) {
    Work *w = new_work(p, SLOPES, correlated_memory(p->size, ky, kx));
    if (!w) return 0;
    half_taps(correlation, ky, kx, w->more);
    const float *last = NULL;
    size_t area = (size_t)p->size * p->size;
    for (int64_t i = 0; i < count; i++, fisher += 64, actual += 64) {
        if (!sound(w, params + 8 * i)) {
            fill(fisher, 64), fill(actual, 64);
            continue;
        }
        use_psf(w, psf_of(p, transfer, shared, i), &last);
        render(w, params + 8 * i);
        score_products(w, params + 8 * i, ivar + i * area, inverse_gain[i], ky, kx, fisher, actual);
    }
    free(w);
    return 1;
}
