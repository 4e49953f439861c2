/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Vectors of VL floats, with the few functions that the kernel needs of them.
 *
 * These are the vector types of GCC and Clang, which exist for every processor; the file that includes this
 * one has chosen VL and the instructions.  No function of a library is called on vectors, so that the numbers
 * depend on the processor alone.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef float V __attribute__((vector_size(4 * VL)));
typedef int32_t VI __attribute__((vector_size(4 * VL)));
typedef float VU __attribute__((vector_size(4 * VL), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE V load(const float *p) { return *(const VU *)p; }
INLINE void store(float *p, V v) { *(VU *)p = v; }
INLINE V splat(float x) { return (V){0} + x; }
INLINE V select_(VI mask, V yes, V no) { return (V)((mask & (VI)yes) | (~mask & (VI)no)); }
INLINE V larger(V a, V b) { return select_(a > b, a, b); }
INLINE V smaller(V a, V b) { return select_(a < b, a, b); }
INLINE int rounded_up(int n, int step) { return (n + step - 1) / step * step; }

INLINE V gather(const float *p, VI at) {
    V out;
    for (int i = 0; i < VL; i++) out[i] = p[at[i]];
    return out;
}

INLINE float sum_of(V v) {
    float total = 0;
    for (int i = 0; i < VL; i++) total += v[i];
    return total;
}

INLINE V reversed(V v) {
#if VL == 4
    return __builtin_shufflevector(v, v, 3, 2, 1, 0);
#elif VL == 8
    return __builtin_shufflevector(v, v, 7, 6, 5, 4, 3, 2, 1, 0);
#else
    return __builtin_shufflevector(v, v, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#endif
}

/* Square root of vectors; the compiler makes one instruction of it. */
INLINE V root_of(V v) {
    V out;
    for (int i = 0; i < VL; i++) out[i] = __builtin_sqrtf(v[i]);
    return out;
}

/* Logarithm of positive normal numbers, to 1e-7; the polynomial is that of the Cephes library. */
INLINE V log_of(V x) {
    VI bits = (VI)x, e = (bits - 0x3f3504f3) >> 23;
    V f = (V)(bits - (e << 23)) - 1.0f, power = __builtin_convertvector(e, V), z = f * f;
    V p = f * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    p = p * f * z + power * -2.12194440e-4f - 0.5f * z;
    return f + p + power * 0.693359375f;
}

/* Exponential function, zero below exp(-87). */
INLINE V exp_of(V x) {
    V bounded = smaller(larger(x, splat(-87.0f)), splat(88.0f));
    V shifted = bounded * 1.44269504f + 12582912.0f;
    VI n = (VI)shifted - 0x4b400000;
    V count = shifted - 12582912.0f;
    V r = bounded - count * 0.693359375f;
    r = r + count * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (V)((VI)(V)((VI)p + (n << 23)) & (x >= splat(-87.0f)));
}

/* Names of functions differ between the sets of instructions. */
#define JOINED(a, b) a##_##b
#define NAMED(a, b) JOINED(a, b)
#define ENTRY(name) NAMED(galshape_##name, VARIANT)

static void fill(double *out, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = NAN;
}
