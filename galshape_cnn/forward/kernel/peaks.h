/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Smoothed stamps and their peaks: galshape_cnn.observe.detect tells what they are. */

/* Sums of a line's neighbours at distances up to `reach` along `stride`, times weights, for some vectors of columns. */
INLINE void sum_of_neighbours(const int vectors, const float *line, int64_t stride, const float *weights, int from,
                              int to, float *out) {
    V sum[4] = {{0}};
    for (int t = from; t <= to; t++)
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) sum[i] += splat(weights[t]) * load(line + t * stride + i * VL);
    for (int i = 0; i < vectors; i++) store(out + i * VL, sum[i]);
}

/* The same for `wide` columns, whole vectors. */
static void weighted_sums(int wide, const float *line, int64_t stride, const float *weights, int from, int to,
                          float *out) {
    int x = 0;
    for (; x + 4 * VL <= wide; x += 4 * VL) sum_of_neighbours(4, line + x, stride, weights, from, to, out + x);
    if (x + 2 * VL <= wide) sum_of_neighbours(2, line + x, stride, weights, from, to, out + x), x += 2 * VL;
    if (x < wide) sum_of_neighbours(1, line + x, stride, weights, from, to, out + x);
}

/* Images smoothed along both axes with a Gaussian of unit sum and its own width each, or with its square. */
int32_t ENTRY(smooth)(int64_t count, int32_t ny, int32_t nx, const float *array, const double *sigma,
                      int32_t squared, double reach_, float *out) {
    double widest = 0;
    for (int64_t one = 0; one < count; one++) widest = sigma[one] > widest ? sigma[one] : widest;
    int most = (int)ceil(reach_ * widest), margin = rounded_up(most, VL), wide = rounded_up(nx, VL);
    size_t line = wide + 2 * margin;
    float *image = calloc((size_t)ny * wide + line + 2 * most + 1 + wide, 4), *row = image + (size_t)ny * wide;
    if (!image) return 0;
    float *weights = row + line + most, *end = weights + most + 1;
    for (int64_t one = 0; one < count; one++, array += (size_t)ny * nx) {
        int reach = (int)ceil(reach_ * sigma[one]);
        for (int t = -reach; t <= reach; t++) {
            double weight = exp(-0.5 * t * t / (sigma[one] * sigma[one])) / (2.5066282746310002 * sigma[one]);
            weights[t] = squared ? weight * weight : weight;
        }
        for (int y = 0; y < ny; y++) memcpy(image + (size_t)y * wide, array + (size_t)y * nx, 4 * nx);
        for (int y = 0; y < ny; y++, out += nx) {
            int from = y < reach ? -y : -reach, to = ny - 1 - y < reach ? ny - 1 - y : reach;
            weighted_sums(wide, image + (size_t)y * wide, wide, weights, from, to, row + margin);
            weighted_sums(wide, row + margin, 1, weights, -reach, reach, end);
            memcpy(out, end, 4 * nx);
        }
    }
    free(image);
    return 1;
}

/* Pixels above all their neighbours; of two equal ones along y the first. */
int32_t ENTRY(maxima)(int64_t count, int32_t ny, int32_t nx, const float *array, uint8_t *out) {
    size_t wide = nx + 2;
    float *lines = malloc(4 * wide * (ny + 2)), *line = lines + wide;
    if (!lines) return 0;
    for (size_t i = 0; i < wide * (ny + 2); i++) lines[i] = -INFINITY; /* beyond the edge is lower */
    for (int64_t one = 0; one < count; one++, array += (size_t)ny * nx) {
        for (int y = 0; y < ny; y++) memcpy(line + y * wide + 1, array + (size_t)y * nx, 4 * nx);
        for (int y = 0; y < ny; y++, out += nx) {
            const float *here = line + y * wide + 1, *up = here - wide, *down = here + wide;
            for (int x = 0; x < nx; x++) {
                float c = here[x];
                int beside = (c > here[x - 1]) & (c > here[x + 1]) & (c > up[x - 1]) & (c > up[x + 1]);
                out[x] = beside & (c > down[x - 1]) & (c > down[x + 1]) & (c > up[x]) & (c >= down[x]);
            }
        }
    }
    free(lines);
    return 1;
}

/* Pixel (x, y) of the highest maximum within a radius of each place, and of the highest value within a reach;
 * minus one where there is none. */
int32_t ENTRY(highest)(int64_t count, int32_t ny, int32_t nx, const float *array, const uint8_t *maxima,
                       const double *at, const double *radii, const double *reaches, int64_t *out) {
    for (int64_t one = 0; one < count; one++, array += (size_t)ny * nx, maxima += (size_t)ny * nx) {
        double radius = radii[one], reach = reaches[one], most = radius > reach ? radius : reach;
        float highest[2] = {-INFINITY, -INFINITY};
        double x0 = at[2 * one], y0 = at[2 * one + 1];
        int64_t *found = out + 4 * one;
        for (int i = 0; i < 4; i++) found[i] = -1;
        int first = y0 - most > 0 ? (int)(y0 - most) : 0;
        for (int y = first; y < ny && y <= y0 + most; y++) {
            double dy2 = (y - y0) * (y - y0), across = most * most - dy2;
            if (across < 0) continue;
            double half = sqrt(across) + 1;
            for (int x = x0 - half > 0 ? (int)(x0 - half) : 0; x < nx && x <= x0 + half; x++) {
                size_t i = (size_t)y * nx + x;
                double distance2 = dy2 + (x - x0) * (x - x0);
                if (maxima[i] && array[i] > highest[0] && distance2 <= radius * radius)
                    highest[0] = array[i], found[0] = x, found[1] = y;
                if (array[i] > highest[1] && distance2 <= reach * reach)
                    highest[1] = array[i], found[2] = x, found[3] = y;
            }
        }
    }
    return 1;
}
