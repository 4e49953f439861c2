/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* From modes to images of unit flux: sums along y, sums along x, four quadrants. */

INLINE float *sums_of(Work *w, int image, int parity) {
    return w->sums + (size_t)(4 * image + parity) * w->rows * w->along;
}

/* Sums along y of the modes of kx > 0. */
static void sum_along_y(Work *w) {
    int K = w->modes, moving = w->images > 1;
    size_t plane = (size_t)K * w->inner;
    for (int part = 0; part < w->parts; part++)
        for (int parity = 0; parity < 4; parity++)
            product(parity & 2 ? w->sin_y : w->cos_y, K, w->waves + (4 * part + parity) * plane, w->inner, K,
                    sums_of(w, part, parity) + NODES, w->along, w->rows, w->inner);
    if (!moving) return;
    int by_x = w->parts, by_y = by_x + 1;
    for (int parity = 0; parity < 4; parity++) {
        product(parity & 2 ? w->turned_sin_y : w->turned_cos_y, K, w->waves + (parity ^ 2) * plane, w->inner,
                K, sums_of(w, by_y, parity) + NODES, w->along, w->rows, w->inner);
        const float *from = sums_of(w, 0, parity ^ 1) + NODES;
        float *to = sums_of(w, by_x, parity) + NODES, sign = parity & 1 ? 1 : -1;
        for (int y = 0; y < w->half; y++)
            for (int k = 0; k < w->inner; k++)
                to[(size_t)y * w->along + k] = sign * w->kx[k] * from[(size_t)y * w->along + k];
    }
}

/* The same of kx = 0, which is the last column of the nodes. */
static void sum_axis(Work *w) {
    int K = w->modes, count = 4 * w->parts, columns = w->columns, moving = w->images > 1;
    const float *waves[4] = {w->cos_t, w->cos_t, w->sin_t, w->sin_t};
    for (int part = 0; part < w->parts; part++)
        for (int trig = 0; trig < 2; trig++)
            product(w->axis + (size_t)(4 * part + 2 * trig) * w->height, w->height, waves[2 * trig], columns,
                    K, w->axis_sums + (size_t)(4 * part + 2 * trig) * columns, columns, 4, columns);
    for (int i = 0; i < count; i++) {
        float *to = sums_of(w, i / 4, i % 4) + NODES - 1;
        for (int y = 0; y < w->half; y++) to[(size_t)y * w->along] = w->axis_sums[(size_t)i * columns + y];
    }
    if (!moving) return;
    for (int trig = 0; trig < 2; trig++) {
        product(w->axis + (size_t)2 * (1 - trig) * w->height, w->height,
                trig ? w->turned_sin_t : w->turned_cos_t, columns, K, w->axis_sums, columns, 4, columns);
        for (int i = 0; i < 2; i++) {
            float *to = sums_of(w, w->parts + 1, 2 * trig + i) + NODES - 1;
            float *none = sums_of(w, w->parts, 2 * trig + i) + NODES - 1;
            for (int y = 0; y < w->half; y++) {
                to[(size_t)y * w->along] = w->axis_sums[(size_t)i * columns + y];
                none[(size_t)y * w->along] = 0;
            }
        }
    }
}

/* Put a vector of columns, counted from the middle, of two rows into an image. */
INLINE void put(float *image, int size, int half, int y, int x, V up_right, V up_left, V low_right,
                V low_left) {
    float *up = image + (size_t)(half + y) * size + half, *low = image + (size_t)(half - 1 - y) * size + half;
    if (x + VL <= half) {
        store(up + x, up_right);
        store(low + x, low_right);
        store(up - x - VL, reversed(up_left));
        store(low - x - VL, reversed(low_left));
        return;
    }
    for (int i = 0; x + i < half; i++) {
        up[x + i] = up_right[i];
        low[x + i] = low_right[i];
        up[-1 - x - i] = up_left[i];
        low[-1 - x - i] = low_left[i];
    }
}

/* Sums along x of one image, four rows and two vectors of columns at a time. */
static void sum_along_x(Work *w, int which) {
    int size = w->plan->size, half = w->half;
    float *image = w->image + (size_t)which * size * size, part[4][4][2 * VL];
    for (int y = 0; y < w->rows; y += 4)
        for (int x = 0; x < half; x += 2 * VL) {
            for (int parity = 0; parity < 4; parity++)
                tile(4, 2, sums_of(w, which, parity) + (size_t)y * w->along, w->along,
                     (parity & 1 ? w->odd_x : w->even_x) + x, w->columns, w->along, part[parity][0], 2 * VL);
            for (int r = 0; r < 4 && y + r < half; r++)
                for (int v = 0; v < 2 && x + v * VL < half; v++) {
                    V ee = load(part[0][r] + v * VL), eo = load(part[1][r] + v * VL);
                    V oe = load(part[2][r] + v * VL), oo = load(part[3][r] + v * VL);
                    V right = ee + eo, left = ee - eo, odd_right = oe + oo, odd_left = oe - oo;
                    put(image, size, half, y + r, x + v * VL, right + odd_right, left + odd_left,
                        right - odd_right, left - odd_left);
                }
        }
}

/* Whether parameters can be rendered at all. */
static int sound(const Work *w, const float *params) {
    for (int i = 0; i < 8; i++)
        if (!isfinite(params[i])) return 0;
    if (w->what == POINT || w->what == SPOT) return 1;
    return params[1] > 0 && params[2] > 0 && params[3] * params[3] + params[4] * params[4] < 1;
}

/* Images of unit flux of one galaxy, without sky; `split_psf` has been called. */
static void render(Work *w, const float *params) {
    if (w->what == SLOPES) fill_modes(SLOPES, w, params);
    else if (w->what == POINT || w->what == SPOT) fill_modes(POINT, w, params);
    else fill_modes(UNIT, w, params);
    sum_along_y(w);
    float light = w->psf0_r[0];
    if (w->what == SLOPES) fold(1, w, params, light);
    else if (w->what == UNIT) fold(0, w, params, light);
    sum_axis(w);
    for (int i = 0; i < w->images; i++) sum_along_x(w, i);
}
