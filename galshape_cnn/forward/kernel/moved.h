/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Products of images with a point source moved to many places. */

enum { IMAGES = 9, STRIP = 8 };  /* rows at a time: they stay in the first cache */

/* For each place the sums over pixels of the moved point source times each image (IMAGES), and of its square
 * times the weights.  `moves`: (places, 2) of y, x in pixels; beyond its own window the source is zero. */
int32_t ENTRY(moved)(int32_t ny, int32_t nx, int64_t places, const float *images, const float *weight,
                     const float *point, const int32_t *moves, double *out) {
    size_t wide = rounded_up(nx, VL), plane = ny * wide, row = wide + 2 * nx;
    float *rows = calloc((IMAGES + 1) * plane + ny * row, 4), *source = rows + (IMAGES + 1) * plane;
    if (!rows) return 0;
    for (int y = 0; y < ny; y++) {
        for (int i = 0; i <= IMAGES; i++)
            memcpy(rows + i * plane + y * wide, (i < IMAGES ? images + i * ny * nx : weight) + y * nx, 4 * nx);
        memcpy(source + y * row + nx, point + y * nx, 4 * nx);
    }
    for (int64_t i = 0; i < places * (IMAGES + 1); i++) out[i] = 0;
    for (int first = 0; first < ny; first += STRIP)
        for (int64_t k = 0; k < places; k++) {
            int dy = moves[2 * k], dx = moves[2 * k + 1];
            int from = first > dy ? first : dy, to = first + STRIP < ny ? first + STRIP : ny;
            if (to > ny + dy) to = ny + dy;
            if (dx <= -nx || dx >= nx) continue;
            V sum[IMAGES + 1] = {{0}};
            for (int y = from; y < to; y++) {
                const float *line = source + (y - dy) * row + nx - dx, *here = rows + y * wide;
                for (size_t x = 0; x < wide; x += VL) {
                    V light = load(line + x);
#pragma GCC unroll 9
                    for (int i = 0; i < IMAGES; i++) sum[i] += light * load(here + i * plane + x);
                    sum[IMAGES] += light * light * load(here + IMAGES * plane + x);
                }
            }
            for (int i = 0; i <= IMAGES; i++) out[k * (IMAGES + 1) + i] += sum_of(sum[i]);
        }
    free(rows);
    return 1;
}
