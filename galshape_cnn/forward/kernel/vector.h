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
/* As many numbers as there are, up to a vector; zeros behind them. */
INLINE V load_some(const float *p, size_t count) {
    V out = {0};
    if (count >= VL) return load(p);
    memcpy(&out, p, 4 * count);
    return out;
}
INLINE void store_some(float *p, V v, size_t count) { memcpy(p, &v, count < VL ? 4 * count : sizeof v); }
INLINE V splat(float x) { return x - (V){0}; } /* unlike x + 0 it is x for -0 too, so nothing is added */
INLINE V select_(VI mask, V yes, V no) { return (V)((mask & (VI)yes) | (~mask & (VI)no)); }
INLINE V larger(V a, V b) { return select_(a > b, a, b); }
INLINE V smaller(V a, V b) { return select_(a < b, a, b); }
INLINE int rounded_up(int n, int step) { return (n + step - 1) / step * step; }

/* Elements of two vectors by their numbers, those of the second counted on. */
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLED(a, b, ...) __builtin_shuffle(a, b, (VI){__VA_ARGS__})
#endif

typedef float V4 __attribute__((vector_size(16)));
typedef float V4U __attribute__((vector_size(16), aligned(4), may_alias));

/* Rows of four from every fourth place, side by side. */
INLINE V four_of(const float *p, VI at, int i) {
#define ROW(j) (*(const V4U *)(p + at[4 * (j) + i]))
#if VL == 4
    return ROW(0);
#elif defined(__clang__) || __GNUC__ >= 12
#if VL == 8
    return __builtin_shufflevector(ROW(0), ROW(1), 0, 1, 2, 3, 4, 5, 6, 7);
#else
    typedef float V8 __attribute__((vector_size(32)));
    V8 low = __builtin_shufflevector(ROW(0), ROW(1), 0, 1, 2, 3, 4, 5, 6, 7);
    V8 high = __builtin_shufflevector(ROW(2), ROW(3), 0, 1, 2, 3, 4, 5, 6, 7);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#endif
#else
    V out;
    for (int j = 0; j < VL; j++) out[j] = p[at[4 * (j / 4) + i] + j % 4];
    return out;
#endif
#undef ROW
}

/* Four neighbours at each place of a table, the first of all in out[0] and so on: a transposition. */
INLINE void gather_four(const float *p, VI at, V *out) {
    V row[4];
    for (int i = 0; i < 4; i++) {
        row[i] = four_of(p, at, i);
    }
#if VL == 4
#define LOW(a, b) SHUFFLED(a, b, 0, 4, 1, 5)
#define HIGH(a, b) SHUFFLED(a, b, 2, 6, 3, 7)
#define FIRST(a, b) SHUFFLED(a, b, 0, 1, 4, 5)
#define SECOND(a, b) SHUFFLED(a, b, 2, 3, 6, 7)
#elif VL == 8
#define LOW(a, b) SHUFFLED(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH(a, b) SHUFFLED(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define FIRST(a, b) SHUFFLED(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define SECOND(a, b) SHUFFLED(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#else
#define LOW(a, b) SHUFFLED(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define HIGH(a, b) SHUFFLED(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define FIRST(a, b) SHUFFLED(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define SECOND(a, b) SHUFFLED(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#endif
    V low = LOW(row[0], row[1]), other_low = LOW(row[2], row[3]);
    V high = HIGH(row[0], row[1]), other_high = HIGH(row[2], row[3]);
    out[0] = FIRST(low, other_low);
    out[1] = SECOND(low, other_low);
    out[2] = FIRST(high, other_high);
    out[3] = SECOND(high, other_high);
}

INLINE float sum_of(V v) {
    float total = 0;
    for (int i = 0; i < VL; i++) total += v[i];
    return total;
}

INLINE V reversed(V v) {
#if VL == 4
    return SHUFFLED(v, v, 3, 2, 1, 0);
#elif VL == 8
    return SHUFFLED(v, v, 7, 6, 5, 4, 3, 2, 1, 0);
#else
    return SHUFFLED(v, v, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
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
