/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* What Python hands to the kernel for a grid: galshape_cnn.forward.kernel fills it. */
#ifndef GALSHAPE_PLAN
#define GALSHAPE_PLAN
#include <stdint.h>

enum { NEAR = 14, FAR = 4, RINGS = 3, HALF_NODES = NEAR / 2 };

typedef struct {
    int32_t size, modes, fft_size;         /* pixels, K, side of the periodic image */
    int32_t n_knots, k_knots;              /* of the Sersic tables */
    const float *kx;                       /* (K) */
    const float *cos_y, *sin_y;            /* (size / 2, K) */
    const float *cos_x, *sin_x;            /* (K, size / 2) */
    const float *even, *odd;               /* (size / 2, NEAR): interpolation from nodes */
    const float *between;                  /* (NEAR, FAR): from far nodes to near ones */
    const float *near, *far;               /* (NEAR), (FAR): nodes in pixels */
    const float *transform, *outside;      /* (n_knots, k_knots) */
    const double *profile;                 /* (n_knots, 2) */
    double ln_n0, ln_n_step, ln_k0, ln_k_step;
} Plan;

/* A layer: (inputs, width), packed for the set of instructions; the bias padded to whole vectors. */
typedef struct {
    const float *weights, *bias;
    int32_t inputs, width;
} Dense;

/* A network.  Layers one after the other: those of the context; the one of each scaling of maps; patches,
 * halving, two of each block, halving, two of each block; joints, and the last.  A chain has joints and a last
 * one only. */
typedef struct {
    int32_t context, contexts;              /* size, and layers, of the context */
    int32_t patch, middle, deep;            /* widths of the maps, multiples of 16 */
    int32_t middle_blocks, deep_blocks, joints, all;
    const float *mean, *over;               /* (context): standardisation */
    const Dense *layers;                    /* (all) */
    const float *const *norms;              /* scale and shift of each block, and before the joints */
} Net;
#endif
