/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* What Python calls, once for each set of instructions; each returns whether there was memory for it. */

/* The transfer function of a row: its own, or that of all. */
INLINE const float *psf_of(const Plan *p, const float *transfer, int64_t shared, int64_t row) {
    return transfer + (shared ? 0 : row) * 4 * (size_t)p->modes * p->modes;
}

/* Split a transfer function, unless it is the last one again. */
INLINE void use_psf(Work *w, const float *transfer, const float **last) {
    if (transfer != *last) split_psf(w, transfer);
    *last = transfer;
}

/* Whether a row of several arrays, of so many numbers each, is the first again, as in batches that are filled
 * up: what was found for the first is then copied. */
static int is_first(int64_t row, int arrays, const float *const *array, const size_t *each) {
    if (!row) return 0;
    for (int i = 0; i < arrays; i++)
        if (each[i] && memcmp(array[i], array[i] + row * each[i], 4 * each[i])) return 0;
    return 1;
}

int32_t ENTRY(render)(const Plan *p, int32_t what, int64_t count, const float *params, const float *transfer,
                      int64_t shared, float *out) {
    Work *w = new_work(p, what, 0);
    if (!w) return 0;
    const float *last = NULL;
    size_t area = (size_t)p->size * p->size, each = area * w->images;
    for (int64_t i = 0; i < count; i++, out += each) {
        use_psf(w, psf_of(p, transfer, shared, i), &last);
        if (sound(w, params + 8 * i)) {
            render(w, params + 8 * i);
            memcpy(out, w->image, 4 * each);
        } else
            for (size_t k = 0; k < each; k++) out[k] = NAN;
    }
    free(w);
    return 1;
}

int32_t ENTRY(normal)(const Plan *p, int64_t count, const float *params, const int64_t *rows, const float *data,
                      const float *ivar, const float *transfer, int64_t shared, const float *inverse_gain,
                      double *chi2, double *score, double *fisher) {
    Work *w = new_work(p, SLOPES, 0);
    if (!w) return 0;
    const float *last = NULL;
    size_t area = (size_t)p->size * p->size;
    const float *inputs[] = {params, inverse_gain, data, ivar, transfer};
    const size_t each[] = {8, 1, area, area, shared ? 0 : 4 * (size_t)p->modes * p->modes};
    for (int64_t i = 0; i < count; i++) {
        const float *one = params + 8 * i;
        size_t row = rows[i];
        if (is_first(i, 2, inputs, each) && !rows[0] && is_first(row, 3, inputs + 2, each + 2)) {
            chi2[i] = chi2[0];
            memcpy(score + 8 * i, score, 8 * sizeof *score);
            memcpy(fisher + 64 * i, fisher, 64 * sizeof *fisher);
            continue;
        }
        if (!sound(w, one)) {
            fill(chi2 + i, 1), fill(score + 8 * i, 8), fill(fisher + 64 * i, 64);
            continue;
        }
        use_psf(w, psf_of(p, transfer, shared, row), &last);
        render(w, one);
        normal_equations(w, one, data + row * area, ivar + row * area, inverse_gain[i], chi2 + i, score + 8 * i,
                         fisher + 64 * i);
    }
    free(w);
    return 1;
}

int32_t ENTRY(linear)(const Plan *p, int64_t count, const float *params, const int64_t *rows, const float *data,
                      const float *ivar, const float *transfer, int64_t shared, double *chi2, double *gradient,
                      double *fisher) {
    Work *w = new_work(p, UNIT, 0);
    if (!w) return 0;
    const float *last = NULL;
    size_t area = (size_t)p->size * p->size;
    for (int64_t i = 0; i < count; i++) {
        size_t row = rows[i];
        if (!sound(w, params + 8 * i)) {
            fill(chi2 + i, 1), fill(gradient + 2 * i, 2), fill(fisher + 4 * i, 4);
            continue;
        }
        use_psf(w, psf_of(p, transfer, shared, row), &last);
        render(w, params + 8 * i);
        linear_equations(w, params + 8 * i, data + row * area, ivar + row * area, chi2 + i, gradient + 2 * i,
                         fisher + 4 * i);
    }
    free(w);
    return 1;
}

int32_t ENTRY(examine)(const Plan *p, int64_t count, const float *params, const float *data, const float *ivar,
                       const float *transfer, int64_t shared, const float *inverse_gain, int32_t fit_sky,
                       const float *smoothers, const int32_t *reach, const double *limits, int64_t ky, int64_t kx,
                       const float *correlation, int64_t wide, const float *line, double *out, double *actual) {
    size_t own = examination_memory(p->size);
    Lags lags = {ky, kx, wide};
    Work *w = new_work(p, SLOPES, own + lags_memory(&lags, p->size, NULL));
    if (!w) return 0;
    lags_memory(&lags, p->size, w->more + own);
    packed_smoothers(smoothers, SMOOTHERS, p->size, w->more);
    if (ky) take_lags(&lags, correlation, line);
    const float *last = NULL;
    size_t area = (size_t)p->size * p->size;
    const float *inputs[] = {params, inverse_gain, data, ivar, transfer};
    const size_t each[] = {8, 1, area, area, shared ? 0 : 4 * (size_t)p->modes * p->modes};
    for (int64_t i = 0; i < count; i++) {
        if (is_first(i, 5, inputs, each)) {
            memcpy(out + RESULTS * i, out, RESULTS * sizeof *out);
            if (ky) memcpy(actual + 64 * i, actual, 64 * sizeof *actual);
            continue;
        }
        if (!sound(w, params + 8 * i)) {
            fill(out + RESULTS * i, RESULTS), fill(actual + 64 * i, ky ? 64 : 0);
            continue;
        }
        use_psf(w, psf_of(p, transfer, shared, i), &last);
        render(w, params + 8 * i);
        examined(w, params + 8 * i, data + i * area, ivar + i * area, inverse_gain[i], fit_sky, reach, limits,
                 out + RESULTS * i);
        if (ky) in_correlated_noise(whitened_columns(w), p->size, &lags, actual + 64 * i);
    }
    free(w);
    return 1;
}

int32_t ENTRY(correlated)(const Plan *p, int64_t count, const float *params, const float *ivar,
                          const float *transfer, int64_t shared, const float *inverse_gain, int64_t ky, int64_t kx,
                          const float *correlation, int64_t wide, const float *line, double *fisher,
                          double *actual) {
    size_t area = (size_t)p->size * p->size, own = (COLUMNS + 3) * (area + 2 * VL);
    Lags lags = {ky, kx, wide};
    Work *w = new_work(p, SLOPES, own + lags_memory(&lags, p->size, NULL));
    if (!w) return 0;
    lags_memory(&lags, p->size, w->more + own);
    take_lags(&lags, correlation, line);
    const float *last = NULL;
    for (int64_t i = 0; i < count; i++, fisher += 64, actual += 64) {
        if (!sound(w, params + 8 * i)) {
            fill(fisher, 64), fill(actual, 64);
            continue;
        }
        use_psf(w, psf_of(p, transfer, shared, i), &last);
        render(w, params + 8 * i);
        correlated_products(w, params + 8 * i, ivar + i * area, inverse_gain[i], &lags, w->more, fisher, actual);
    }
    free(w);
    return 1;
}

int32_t ENTRY(point)(const Plan *p, int64_t count, const float *params, const float *data, const float *ivar,
                     const float *transfer, int64_t shared, const float *inverse_gain, int32_t fit_sky,
                     double ridge, double *out) {
    Work *w = new_work(p, POINT, 0);
    if (!w) return 0;
    const float *last = NULL;
    size_t area = (size_t)p->size * p->size;
    for (int64_t i = 0; i < count; i++) {
        out[i] = NAN;
        if (!sound(w, params + 8 * i)) continue;
        use_psf(w, psf_of(p, transfer, shared, i), &last);
        render(w, params + 8 * i);
        out[i] = point_chi2(w, params + 8 * i, data + i * area, ivar + i * area, inverse_gain[i], fit_sky, ridge);
    }
    free(w);
    return 1;
}
