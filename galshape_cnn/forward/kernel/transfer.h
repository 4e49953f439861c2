/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Transfer functions of PSF arrays, from sums and differences of samples on either side of the middle. */

/* Waves (modes, padded half) or turned (padded half, modes) at samples 0, 1, ... from the middle. */
static void sample_waves(const float *k, int modes, int half, double step, float *cos_, float *sin_, int by_mode,
                         int by_sample) {
    for (int i = 0; i < modes; i++)
        for (int j = 0; j <= half; j++) {
            double phase = (double)k[i] * j * step;
            cos_[(size_t)i * by_mode + (size_t)j * by_sample] = cos(phase);
            sin_[(size_t)i * by_mode + (size_t)j * by_sample] = sin(phase);
        }
}

/* Transfer functions (count, 2 modes, modes) of arrays (count, ny, nx), odd, on the modes of a plan. */
int32_t ENTRY(transfer)(const Plan *p, int64_t count, int32_t ny, int32_t nx, int32_t oversampling,
                        const float *psf, float *out) {
    int modes = p->modes, columns = rounded_up(modes, VL), rows = rounded_up(modes, 4);
    int hy = ny / 2, hx = nx / 2, sy = rounded_up(hy + 1, 4), sx = hx + 1;
    size_t waves_x = (size_t)sx * columns, waves_y = (size_t)rows * sy, samples = (size_t)sy * sx,
           sums = (size_t)sy * columns, plane = (size_t)rows * columns;
    float *memory = calloc(2 * waves_x + 2 * waves_y + 4 * samples + 4 * sums + 4 * plane + VL, 4);
    if (!memory) return 0;
    float *cos_x = memory, *sin_x = cos_x + waves_x, *cos_y = sin_x + waves_x, *sin_y = cos_y + waves_y;
    float *part = sin_y + waves_y, *sum = part + 4 * samples, *mode = sum + 4 * sums;
    sample_waves(p->kx, modes, hx, 1.0 / oversampling, cos_x, sin_x, 1, columns);
    sample_waves(p->kx, modes, hy, 1.0 / oversampling, cos_y, sin_y, sy, 1);
    for (int64_t n = 0; n < count; n++, psf += (size_t)ny * nx) {
        for (int y = 0; y <= hy; y++) {
            const float *up = psf + (size_t)(hy + y) * nx + hx, *low = psf + (size_t)(hy - y) * nx + hx;
            float twice = y ? 1 : 0.5f, *to = part + (size_t)y * sx;
            for (int x = 0; x <= hx; x++) {
                float scale = x ? twice : 0.5f * twice;
                float even_right = up[x] + low[x], even_left = up[-x] + low[-x];
                float odd_right = up[x] - low[x], odd_left = up[-x] - low[-x];
                to[x] = scale * (even_right + even_left);
                to[samples + x] = scale * (even_right - even_left);
                to[2 * samples + x] = scale * (odd_right + odd_left);
                to[3 * samples + x] = scale * (odd_right - odd_left);
            }
        }
        for (int parity = 0; parity < 4; parity++) {
            product(part + parity * samples, sx, parity & 1 ? sin_x : cos_x, columns, sx, sum + parity * sums,
                    columns, sy, columns);
            product(parity & 2 ? sin_y : cos_y, sy, sum + parity * sums, columns, sy, mode + parity * plane,
                    columns, rows, columns);
        }
        for (int y = 0; y < modes; y++) {
            float *up = out + 2 * ((size_t)(n * 2 * modes + y) * modes), *low = up + 2 * (size_t)modes * modes;
            const float *ee = mode + (size_t)y * columns, *eo = ee + plane, *oe = eo + plane, *oo = oe + plane;
            for (int x = 0; x < modes; x++) {
                up[2 * x] = ee[x] - oo[x];
                up[2 * x + 1] = -(eo[x] + oe[x]);
                low[2 * x] = ee[x] + oo[x];
                low[2 * x + 1] = oe[x] - eo[x];
            }
        }
    }
    free(memory);
    return 1;
}
