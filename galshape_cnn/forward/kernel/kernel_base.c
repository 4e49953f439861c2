/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* For the instructions that every processor of an architecture has; and which set this one has. */
#define VL 4
#define VARIANT base
#include "kernel.h"

/* 0: base; 1: avx2; 2: avx512. */
int32_t galshape_instructions(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}
