/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* PSF arrays, in double precision: galshape_cnn.forward.psf tells what is found. */

enum { LANES = 8 }; /* sums side by side, so that the compiler makes vectors of them */

INLINE double all_of(const double *part) {
    return (part[0] + part[4]) + (part[1] + part[5]) + ((part[2] + part[6]) + (part[3] + part[7]));
}

/* Largest value, sum, and sum of squares of each array of `area` samples. */
int32_t ENTRY(psf_sums)(int64_t count, int64_t area, const double *psf, double *out) {
    for (int64_t n = 0; n < count; n++, psf += area, out += 3) {
        double most[LANES], sum[LANES] = {0}, square[LANES] = {0};
        for (int k = 0; k < LANES; k++) most[k] = psf[0];
        int64_t i = 0;
        for (; i + LANES <= area; i += LANES)
            for (int k = 0; k < LANES; k++) {
                double one = psf[i + k];
                most[k] = one > most[k] ? one : most[k];
                sum[k] += one;
                square[k] += one * one;
            }
        for (; i < area; i++) {
            most[0] = psf[i] > most[0] ? psf[i] : most[0];
            sum[0] += psf[i];
            square[0] += psf[i] * psf[i];
        }
        out[0] = most[0];
        for (int k = 1; k < LANES; k++) out[0] = most[k] > out[0] ? most[k] : out[0];
        out[1] = all_of(sum);
        out[2] = all_of(square);
    }
    return 1;
}

/* Medians of the samples of each array on its rim and on a ring, and of the distance of the first from their median,
 * in single precision. */
int32_t ENTRY(psf_rings)(int64_t count, int64_t area, const double *psf, int64_t on_rim, const int64_t *rim,
                         int64_t on_ring, const int64_t *ring, double *out) {
    int32_t *keys = room_for_keys(on_rim > on_ring ? on_rim : on_ring);
    if (!keys) return 0;
    for (int64_t n = 0; n < count; n++, psf += area, out += 3) {
        for (int64_t i = 0; i < on_ring; i++) keys[i] = key_of((float)psf[ring[i]]);
        out[1] = median_of(keys, on_ring, 1);
        for (int64_t i = 0; i < on_rim; i++) keys[i] = key_of((float)psf[rim[i]]);
        float middle = median_of(keys, on_rim, 1);
        for (int64_t i = 0; i < on_rim; i++) keys[i] = key_of(fabsf((float)psf[rim[i]] - middle));
        out[0] = middle, out[2] = median_of(keys, on_rim, 1);
    }
    free(keys);
    return 1;
}

static double dot_of(const double *a, const double *b, int number) {
    double sum[LANES] = {0};
    int i = 0;
    for (; i + LANES <= number; i += LANES)
        for (int k = 0; k < LANES; k++) sum[k] += a[i + k] * b[i + k];
    for (; i < number; i++) sum[0] += a[i] * b[i];
    return all_of(sum);
}

/* Gaussian window along an axis from sample `first` on, and the same times the distance, and their sums. */
static void centroid_window(int first, int number, double at, double over, double *window, double *moved,
                            double *total) {
    total[0] = total[1] = 0;
    for (int i = 0; i < number; i++) {
        double distance = first + i - at;
        window[i] = exp(-0.5 * distance * distance * over);
        moved[i] = distance * window[i];
        total[0] += window[i], total[1] += moved[i];
    }
}

/* Centroids (count, 2), x, y from the middle sample, above `level` in a window that follows them.  `limits`: share
 * of the peak that the first guess sees, reach and step of the window, rounds, and the step that ends them. */
int32_t ENTRY(psf_offsets)(int64_t count, int32_t ny, int32_t nx, const double *psf, const double *level,
                           const double *peak, const double *limits, double *out) {
    int sides[2] = {nx, ny}, middle[2] = {nx / 2, ny / 2}, longest = nx > ny ? nx : ny;
    double *memory = malloc(8 * 6 * (size_t)longest);
    if (!memory) return 0;
    double *light[2] = {memory, memory + longest};
    double *window[2] = {memory + 2 * longest, memory + 3 * longest};
    double *moved[2] = {memory + 4 * longest, memory + 5 * longest};
    for (int64_t n = 0; n < count; n++, psf += (size_t)ny * nx, out += 2) {
        double height = peak[n] - level[n], least = limits[0] * (height > 0 ? height : 0), total = 0, width2 = 0;
        memset(memory, 0, 8 * 2 * (size_t)longest);
        for (int y = 0; y < ny; y++) {
            const double *row = psf + (size_t)y * nx;
            double most[LANES];
            for (int k = 0; k < LANES; k++) most[k] = row[0];
            int x = 0;
            for (; x + LANES <= nx; x += LANES)
                for (int k = 0; k < LANES; k++) most[k] = row[x + k] > most[k] ? row[x + k] : most[k];
            for (; x < nx; x++) most[0] = row[x] > most[0] ? row[x] : most[0];
            for (int k = 1; k < LANES; k++) most[0] = most[k] > most[0] ? most[k] : most[0];
            if (!(most[0] - level[n] > least)) continue;
            for (x = 0; x < nx; x++) {
                double one = row[x] - level[n];
                if (one > least) light[0][x] += one, light[1][y] += one, total += one;
            }
        }
        double at[2] = {0}, far = 0;
        for (int axis = 0; axis < 2; axis++) {
            for (int i = 0; i < sides[axis]; i++) {
                double distance = i - middle[axis];
                at[axis] += light[axis][i] * distance;
                width2 += light[axis][i] * distance * distance;
            }
            at[axis] /= total;
            far = fabs(at[axis]) > far ? fabs(at[axis]) : far;
        }
        width2 = width2 / total / 2 + 0.5;
        int first[2], number[2], half = middle[0] > middle[1] ? middle[0] : middle[1];
        double reach = ceil((limits[1] * sqrt(width2) + far) / limits[2]), all = ceil(half / limits[2]);
        half = (int)((reach < all ? reach : all) * limits[2]);
        for (int axis = 0; axis < 2; axis++) {
            int end = middle[axis] + half + 1;
            first[axis] = middle[axis] > half ? -half : -middle[axis];
            number[axis] = (end < sides[axis] ? end : sides[axis]) - (middle[axis] + first[axis]);
        }
        const double *corner = psf + (size_t)(middle[1] + first[1]) * nx + middle[0] + first[0];
        for (int round = 0; total > 0 && round < limits[3]; round++) {
            double sum = 0, along[2] = {0}, flat[2][2];
            for (int axis = 0; axis < 2; axis++)
                centroid_window(first[axis], number[axis], at[axis], 1 / width2, window[axis], moved[axis],
                                flat[axis]);
            for (int y = 0; y < number[1]; y++) {
                const double *row = corner + (size_t)y * nx;
                double seen = dot_of(row, window[0], number[0]) - level[n] * flat[0][0];
                sum += window[1][y] * seen;
                along[0] += window[1][y] * (dot_of(row, moved[0], number[0]) - level[n] * flat[0][1]);
                along[1] += moved[1][y] * seen;
            }
            int settled = 1;
            for (int axis = 0; axis < 2; axis++) {
                double step = 2 * along[axis] / (sum > 1e-30 ? sum : 1e-30);
                at[axis] += step;
                settled &= !(fabs(step) > limits[4]);
            }
            if (settled) break;
        }
        for (int axis = 0; axis < 2; axis++) out[axis] = total > 0 && isfinite(at[axis]) ? at[axis] : 0;
    }
    free(memory);
    return 1;
}

/* Sums and differences of samples on either side of the middle, side by side from there on. */
static void fold_samples(const double *along, int side, double *folded) {
    int half = side / 2;
    for (int i = 0; i <= half; i++) {
        folded[i] = along[half + i] + along[half - i];
        folded[half + 1 + i] = along[half + i] - along[half - i];
    }
    folded[0] /= 2;
}

/* Modulus of the transfer function along an axis, of folded samples. */
INLINE double modulus(const double *folded, int half, const double *cos_, const double *sin_) {
    double real = dot_of(folded, cos_, half + 1), imag = dot_of(folded + half + 1, sin_, half + 1);
    return sqrt(real * real + imag * imag);
}

/* For each array, odd, the first of `waves` wave numbers at which the modulus of its transfer function, mean of both
 * axes, is below half of that at zero; the last one if none is.  cos and sin from the middle sample on, (waves, half
 * a side), along y and x. */
int32_t ENTRY(psf_half_levels)(int64_t count, int32_t ny, int32_t nx, int32_t waves, const float *psf,
                               const double *cos_y, const double *sin_y, const double *cos_x, const double *sin_x,
                               int64_t *out) {
    int hy = ny / 2, hx = nx / 2;
    double *along_y = malloc(8 * 2 * ((size_t)ny + nx + 1)), *along_x = along_y + ny;
    double *folded_y = along_x + nx, *folded_x = folded_y + ny + 1;
    if (!along_y) return 0;
    for (int64_t n = 0; n < count; n++, psf += (size_t)ny * nx) {
        memset(along_x, 0, 8 * (size_t)nx);
        double total = 0;
        for (int y = 0; y < ny; y++) {
            const float *row = psf + (size_t)y * nx;
            double sum[LANES] = {0};
            int x = 0;
            for (; x + LANES <= nx; x += LANES)
                for (int k = 0; k < LANES; k++) {
                    along_x[x + k] += row[x + k];
                    sum[k] += row[x + k];
                }
            for (; x < nx; x++) along_x[x] += row[x], sum[0] += row[x];
            along_y[y] = all_of(sum);
            total += along_y[y];
        }
        fold_samples(along_y, ny, folded_y), fold_samples(along_x, nx, folded_x);
        double least = total > 1e-30 ? total : 1e-30;
        int64_t wave = 0;
        for (; wave < waves - 1; wave++) {
            size_t at_y = (size_t)wave * (hy + 1), at_x = (size_t)wave * (hx + 1);
            double level = modulus(folded_y, hy, cos_y + at_y, sin_y + at_y) +
                           modulus(folded_x, hx, cos_x + at_x, sin_x + at_x);
            if (level < least) break;
        }
        out[n] = wave;
    }
    free(along_y);
    return 1;
}

typedef double D8 __attribute__((vector_size(64)));
typedef double D8U __attribute__((vector_size(64), aligned(8), may_alias));
INLINE D8 eight(const double *p) { return *(const D8U *)p; }

/* Real and imaginary parts (16) of a row of samples at eight waves, from sums and differences of samples on either
 * side of the middle; waves from there on. */
static void along_row(const float *row, int nx, const double *waves, double *folded, double *out) {
    int half = nx / 2;
    double *even = folded, *odd = folded + half + 1;
    for (int x = 0; x <= half; x++) {
        double right = row[half + x], left = row[half - x];
        even[x] = right + left, odd[x] = right - left;
    }
    even[0] /= 2;
    D8 real[2] = {{0}}, imag[2] = {{0}};
    int x = 0;
    for (; x < half; x += 2)
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) { /* sums side by side, so that none waits for the other */
            real[k] += even[x + k] * eight(waves + 16 * (x + k));
            imag[k] += odd[x + k] * eight(waves + 16 * (x + k) + 8);
        }
    if (x == half) real[0] += even[x] * eight(waves + 16 * x), imag[0] += odd[x] * eight(waves + 16 * x + 8);
    D8 sum[2] = {real[0] + real[1], imag[0] + imag[1]};
    memcpy(out, sum, sizeof sum);
}

/* Fourier transforms (15, 8) of arrays, odd, at eight wave numbers along x and those of either sign along y; waves:
 * (samples, 16), real parts, then imaginary ones. */
int32_t ENTRY(psf_spectra)(int64_t count, int32_t ny, int32_t nx, const float *psf, const double *waves_y,
                           const double *waves_x, double *out) {
    double *rows = malloc(8 * (16 * (size_t)ny + nx + 1)), *folded = rows + 16 * (size_t)ny;
    if (!rows) return 0;
    waves_x += 16 * (nx / 2);
    for (int64_t n = 0; n < count; n++, psf += (size_t)ny * nx, out += 15 * 8 * 2) {
        int y;
        for (y = 0; y < ny; y++) along_row(psf + (size_t)y * nx, nx, waves_x, folded, rows + 16 * y);
        for (int k = 0; k < 8; k++) {
            D8 real = {0}, imag = {0}, turned_real = {0}, turned_imag = {0};
            for (y = 0; y < ny; y++) {
                D8 a = eight(rows + 16 * y), b = eight(rows + 16 * y + 8);
                double cos_ = waves_y[16 * y + k], sin_ = waves_y[16 * y + 8 + k];
                real += cos_ * a, imag += cos_ * b;
                turned_real += sin_ * b, turned_imag += sin_ * a;
            }
            double *positive = out + 2 * 8 * (7 + k), *negative = out + 2 * 8 * (7 - k);
            for (int i = 0; i < 8; i++) {
                negative[2 * i] = real[i] + turned_real[i], negative[2 * i + 1] = imag[i] - turned_imag[i];
                positive[2 * i] = real[i] - turned_real[i], positive[2 * i + 1] = imag[i] + turned_imag[i];
            }
        }
    }
    free(rows);
    return 1;
}
