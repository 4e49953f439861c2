/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Small matrix products: rows of A, read a number at a time, by vectors of rows of B. */

/* C (rows x nv vectors) = start + A (rows x n) B (n x nv vectors); lda, ldb, lds, ldc: numbers from row to row.
 * No start is zero, and lds = 0 gives all rows the same. */
INLINE void tile_from(const int rows, const int nv, const float *a, int lda, const float *b, int ldb, int n,
                      const float *start, int lds, float *c, int ldc) {
    V sum[4][4] = {{{0}}};
    if (start) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) sum[r][v] = load(start + (size_t)r * lds + v * VL);
    }
    for (int k = 0; k < n; k++) {
        V column[4];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) column[v] = load(b + (size_t)k * ldb + v * VL);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            V one = splat(a[(size_t)r * lda + k]);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) sum[r][v] += one * column[v];
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) store(c + (size_t)r * ldc + v * VL, sum[r][v]);
}

INLINE void tile(const int rows, const int nv, const float *a, int lda, const float *b, int ldb, int n,
                 float *c, int ldc) {
    tile_from(rows, nv, a, lda, b, ldb, n, NULL, 0, c, ldc);
}

/* C (rows x columns) = A (rows x n) B (n x columns); rows are a multiple of 4, columns of VL. */
static void product(const float *a, int lda, const float *b, int ldb, int n, float *c, int ldc, int rows,
                    int columns) {
    int at = 0;
    for (; at + 3 * VL <= columns; at += 3 * VL)
        for (int r = 0; r < rows; r += 4)
            tile(4, 3, a + (size_t)r * lda, lda, b + at, ldb, n, c + (size_t)r * ldc + at, ldc);
    if (columns - at == 2 * VL)
        for (int r = 0; r < rows; r += 4)
            tile(4, 2, a + (size_t)r * lda, lda, b + at, ldb, n, c + (size_t)r * ldc + at, ldc);
    if (columns - at == VL)
        for (int r = 0; r < rows; r += 4)
            tile(4, 1, a + (size_t)r * lda, lda, b + at, ldb, n, c + (size_t)r * ldc + at, ldc);
}
