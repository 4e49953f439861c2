/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Normal equations of all parameters, and of flux and sky alone, from images of unit flux. */

enum { CHUNK = 512, WIDEST = 12 };  /* pixels whitened at a time: they stay in the first cache */

/* Add products of whitened columns (count, CHUNK) to a (count, count) lower triangle. */
INLINE void add_products(const float *columns, int count, int used, double *sums) {
    for (int i = 0; i < count; i += 3)
        for (int j = 0; j <= i; j += 3) {
            V sum[3][3] = {{{0}}};
            for (int at = 0; at < used; at += VL) {
                V a[3], b[3];
#pragma GCC unroll 3
                for (int k = 0; k < 3; k++) {
                    a[k] = load(columns + (i + k) * CHUNK + at);
                    b[k] = load(columns + (j + k) * CHUNK + at);
                }
#pragma GCC unroll 3
                for (int k = 0; k < 3; k++)
#pragma GCC unroll 3
                    for (int l = 0; l < 3; l++) sum[k][l] += a[k] * b[l];
            }
            for (int k = 0; k < 3; k++)
                for (int l = 0; l < 3; l++) sums[(i + k) * WIDEST + j + l] += sum_of(sum[k][l]);
        }
}

/* Light of the model, and the root of the weights, with the light's own noise, by which columns are whitened. */
INLINE V weighed(V unit, V ivar, float flux, float inverse_gain, V *light) {
    *light = flux * unit;
    return root_of(ivar / (1.0f + ivar * (larger(*light, splat(0.0f)) * inverse_gain)));
}

/* Whitened columns of a chunk: the first `images` as rendered, sky, residual; zero beyond the stamp. */
INLINE int whitened(const Work *w, const int images, const float *params, const float *data, const float *ivar,
                    float inverse_gain, size_t from, float *columns) {
    size_t area = (size_t)w->plan->size * w->plan->size;
    int used = area - from < CHUNK ? (int)(area - from) : CHUNK, padded = rounded_up(used, VL);
    const float *unit = w->image + from;
    for (int i = 0; i < padded; i += VL) {
        size_t some = used - i;
        V light, root = weighed(load_some(unit + i, some), load_some(ivar + from + i, some), params[0],
                                inverse_gain, &light);
#pragma GCC unroll 7
        for (int one = 0; one < images; one++)
            store(columns + one * CHUNK + i, load_some(unit + one * area + i, some) * root);
        store(columns + images * CHUNK + i, root);
        store(columns + (images + 1) * CHUNK + i,
              (load_some(data + from + i, some) - (light + params[7])) * root);
    }
    return padded;
}

static void scales_of(const float *params, double *scale) {
    for (int i = 0; i < 8; i++) scale[i] = params[0];
    scale[0] = scale[7] = 1;
    scale[2] = (double)params[0] / params[2];
}

/* Chi-square, score (8) and Fisher matrix (8, 8) of a galaxy that has been rendered with SLOPES. */
static void normal_equations(const Work *w, const float *params, const float *data, const float *ivar,
                             float inverse_gain, double *chi2, double *score, double *fisher) {
    size_t area = (size_t)w->plan->size * w->plan->size;
    double sums[WIDEST * WIDEST] = {0}, scale[8];
    float columns[9 * CHUNK];
    for (size_t from = 0; from < area; from += CHUNK) {
        int used = whitened(w, 7, params, data, ivar, inverse_gain, from, columns);
        add_products(columns, 9, used, sums);
    }
    scales_of(params, scale);
    *chi2 = sums[8 * WIDEST + 8];
    for (int i = 0; i < 8; i++) {
        score[i] = sums[8 * WIDEST + i] * scale[i];
        for (int j = 0; j <= i; j++)
            fisher[8 * i + j] = fisher[8 * j + i] = sums[i * WIDEST + j] * scale[i] * scale[j];
    }
}

/* Chi-square, and gradient (2) and Fisher matrix (2, 2) of flux and sky. */
static void linear_equations(const Work *w, const float *params, const float *data, const float *ivar,
                             double *chi2, double *gradient, double *fisher) {
    size_t area = (size_t)w->plan->size * w->plan->size, whole = area / VL * VL;
    float flux = params[0], sky = params[7];
    double total[6] = {0};
    for (size_t from = 0; from < whole; from += CHUNK) {
        V sum[6] = {{0}};
        size_t to = from + CHUNK < whole ? from + CHUNK : whole;
        for (size_t i = from; i < to; i += VL) {
            V unit = load(w->image + i), weight = load(ivar + i);
            V residual = load(data + i) - flux * unit - sky, pull = residual * weight, lit = unit * weight;
            sum[0] += residual * pull;
            sum[1] += unit * pull;
            sum[2] += pull;
            sum[3] += unit * lit;
            sum[4] += lit;
            sum[5] += weight;
        }
        for (int k = 0; k < 6; k++) total[k] += sum_of(sum[k]);
    }
    for (size_t i = whole; i < area; i++) {
        double unit = w->image[i], weight = ivar[i], residual = data[i] - flux * unit - sky;
        double terms[6] = {residual * residual * weight, unit * residual * weight, residual * weight,
                           unit * unit * weight, unit * weight, weight};
        for (int k = 0; k < 6; k++) total[k] += terms[k];
    }
    *chi2 = total[0];
    gradient[0] = total[1], gradient[1] = total[2];
    fisher[0] = total[3], fisher[1] = fisher[2] = total[4], fisher[3] = total[5];
}
