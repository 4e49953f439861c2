/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Small matrix products: rows of A, read a number at a time, by vectors of rows of B. */

/* C (rows x nv vectors) = A (rows x n) B (n x nv vectors); lda, ldb, ldc: numbers from row to row. */
INLINE void tile(const int rows, const int nv, const float *a, int lda, const float *b, int ldb, int n,
                 float *c, int ldc) {
    V sum[4][4] = {{{0}}};
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
