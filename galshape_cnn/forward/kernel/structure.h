/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Structure of a galaxy and of its sky: galshape_cnn.infer.residuals.structure tells what is computed. */

/* Columns by rows that a clump is the sum of: as few and as many; rounds that find them; numbers of a result. */
enum { FEW = 8, MOST_TERMS = 24, ROUNDS = 2, STRUCTURED = 4 * 64 + 5 };

typedef struct {                    /* as galshape_cnn.infer.residuals.structure lists them */
    double ridge, faint;            /* of examinations */
    double alike, smooth, apart;    /* of noise: correlation's squares; variances, smoothed and of differences */
    double median, sigmas, error;   /* of squares; of the variance of white noise */
    double width, halo;             /* of the sky's smoothing; correlation of opposite sides of one */
    double least, significant;      /* standard deviations */
    double smoothing, conserved, cut, lost, beside; /* of clumps */
} StructureLimits;

typedef struct {
    int size, reach;                /* pixels; those that the smoothers of the sky reach */
    int count, places, wide;        /* places of the sky's structure; padded to 4, and to vectors */
    float *bands, *along, *turned;  /* smoothers of the sky, packed; roots (places, size), (size, wide) */
    float *columns, *light, *root, *residual, *rest, *memory;   /* of a galaxy; `rest` and two more of its size */
    double *sums;                   /* (2, size) */
    int32_t *keys;                  /* two for each pixel */
} Closer;

/* Sum of products of 8 images, and ones, all times an image unless that is NULL: lower triangle. */
static void products_of_nine(const float *images, size_t apart, const float *times, size_t count, double *sums) {
    float chunk[9 * CHUNK];
    memset(sums, 0, WIDEST * WIDEST * sizeof *sums);
    for (size_t from = 0; from < count; from += CHUNK) {
        size_t used = count - from < CHUNK ? count - from : CHUNK;
        for (size_t i = 0; i < used; i += VL) {
            V one = times ? load_some(times + from + i, used - i) : splat(1.0f);
            for (int k = 0; k < 8; k++)
                store(chunk + k * CHUNK + i, load_some(images + k * apart + from + i, used - i) * one);
            store(chunk + 8 * CHUNK + i, one);
        }
        add_products(chunk, 9, rounded_up((int)used, VL), sums);
    }
}

/* Symmetric (8, 8) of such sums; and A B A. */
static void symmetric(const double *sums, double *out) {
    for (int i = 0; i < 8; i++)
        for (int j = 0; j <= i; j++) out[8 * i + j] = out[8 * j + i] = sums[i * WIDEST + j];
}

static void between(const double *a, const double *b, double *out) {
    double half[64] = {0};
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < 8; k++) half[i] += b[i / 8 * 8 + k] * a[8 * k + i % 8];
    for (int i = 0; i < 64; i++) {
        out[i] = 0;
        for (int k = 0; k < 8; k++) out[i] += a[i / 8 * 8 + k] * half[8 * k + i % 8];
    }
}

/* Squared differences of adjacent pixels of a line, as keys, the largest where one of both is none of the sky's;
 * returns the number of the others. */
static int keys_of_line(const float *rest, const float *outside, int apart, int count, int32_t *keys) {
    int used = 0;
    for (int x = 0; x < count; x++) {
        float step = rest[x] - rest[x - apart];
        int both = (outside[x] > 0) & (outside[x - apart] > 0), key = key_of(step * step);
        keys[x] = both ? key : INT32_MAX, used += both;
    }
    return used;
}

/* Variance of the white noise, from the median of squared differences of adjacent pixels. */
static double white_variance(const Closer *c, const StructureLimits *l, const float *outside) {
    int size = c->size;
    size_t area = (size_t)size * size;
    int32_t *keys = c->keys;
    int64_t number = 0, used = 0, padded = 0;
    for (size_t i = 0; i < area; i++) number += outside[i] > 0;
    for (size_t y = 0; y < area; y += size, padded += size - 1)
        used += keys_of_line(c->rest + y + 1, outside + y + 1, 1, size - 1, keys + padded);
    for (size_t y = size; y < area; y += size, padded += size)
        used += keys_of_line(c->rest + y, outside + y, size, size, keys + padded);
    if (used < 2) return 1;
    for (; padded % AT_ONCE; padded++) keys[padded] = INT32_MAX;
    double variance = number_of(of_rank(keys, padded, used / 2)) / (2 * l->median * l->apart);
    return variance - 1 > l->sigmas * l->error * sqrt(l->alike / (number > 1 ? number : 1)) ? variance : 1;
}

/* Correlation of the smoothed residuals of the sky with the same turned about the galaxy. */
static double symmetry(const float *smooth, int line, const float *outside, int size, const float *centre,
                       double least) {
    double x = rint(centre[0]), y = rint(centre[1]), half = x < y ? x : y, both = 0, square = 0;
    if (size - 1 - x < half) half = size - 1 - x;
    if (size - 1 - y < half) half = size - 1 - y;
    if (half < least) return 0;
    for (int dy = -half; dy <= half; dy++)
        for (int dx = -half; dx <= half; dx++) {
            int here = y + dy, there = y - dy, at = x + dx, turned = x - dx;
            if (!(outside[here * size + at] > 0 && outside[there * size + turned] > 0)) continue;
            float one = smooth[(size_t)here * line + at], other = smooth[(size_t)there * line + turned];
            both += one * other, square += one * one;
        }
    return both / (square > 1e-20 ? square : 1e-20);
}

/* Pixels that some places of the sky's structure reach. */
static void reached(const float *along, int size, int first, int last, int *from, int *to) {
    *from = size, *to = 0;
    for (int p = last < first ? first : last; p >= first; p--) {
        const float *row = along + (size_t)p * size;
        for (int x = size - 1; x >= *to; x--)
            if (row[x] != 0) *to = x + 1;
        for (int x = 0; x < *from; x++)
            if (row[x] != 0) *from = x;
    }
}

/* Covariance of the score for structure of the sky of unit variance. */
static void sky_spread(const Closer *c, double *spread) {
    int size = c->size, count = c->count, line = rounded_up(size, 2 * VL), from, to;
    size_t area = (size_t)size * size, plane = (size_t)c->places * c->wide;
    float *half = c->memory, *seen = half + (size_t)c->places * line;
    double sums[WIDEST * WIDEST];
    for (int k = 0; k < 8; k++, seen += plane) {
        for (int p = 0; p < c->places; p += 4) {
            reached(c->along, size, p, p + 3 < count ? p + 3 : count - 1, &from, &to);
            for (int x = 0; x < size; x += 2 * VL)
                tile(4, 2, c->along + (size_t)p * size + from, size,
                     c->columns + k * area + (size_t)from * size + x, size, to > from ? to - from : 0,
                     half + (size_t)p * line + x, line);
        }
        for (int q = 0; q < c->wide; q += 2 * VL) {
            reached(c->along, size, q, (q + 2 * VL < count ? q + 2 * VL : count) - 1, &from, &to);
            for (int p = 0; p < c->places; p += 4)
                tile(4, 2, half + (size_t)p * line + from, line, c->turned + (size_t)from * c->wide + q, c->wide,
                     to > from ? to - from : 0, seen + (size_t)p * c->wide + q, c->wide);
        }
    }
    products_of_nine(seen - 8 * plane, plane, NULL, plane, sums);
    symmetric(sums, spread);
}

typedef struct {
    int radius, side, line, terms;  /* pixels; those of a line, padded; columns by rows */
    float *along_x, *along_y;       /* (terms, line); (4, (side + 3) terms): for four rows, one below the other */
} Taps;

/* Make lines of numbers orthonormal; twice, since what is left of nearly dependent ones is so but roughly. */
static void orthonormal(float *lines, int count, int line) {
    for (int t = 0; t < count; t++) {
        float *one = lines + t * line;
        double before = dot(one, one, line);
        for (int twice = 0; twice < 2; twice++) {
            for (int s = 0; s < t; s++) {
                float along = dot(one, lines + s * line, line);
                for (int i = 0; i < line; i++) one[i] -= along * lines[s * line + i];
            }
            double left = dot(one, one, line);
            float scale = left > 1e-12 * before ? 1 / sqrt(left) : 0;
            for (int i = 0; i < line; i++) one[i] *= scale;
        }
    }
}

/* The first singular vectors of a kernel (side, line), roughly, by iteration, and the kernel times these; returns
 * the share of its square that lies beside them. */
static double singular_vectors(const float *kernel, int side, int line, int terms, float *basis, float *other) {
    double within = 0;
    for (int t = 0; t < terms; t++) memcpy(basis + t * line, kernel + (side / 2 + t) % side * line, 4 * line);
    memset(other, 0, 4 * terms * line);
    for (int round = 0;; round++) {
        orthonormal(basis, terms, line);
        for (int t = 0; t < terms; t++)
            for (int y = 0; y < side; y++) other[t * line + y] = dot(kernel + y * line, basis + t * line, line);
        if (round == ROUNDS) break;
        orthonormal(other, terms, line);
        memset(basis, 0, 4 * terms * line);
        for (int t = 0; t < terms; t++)
            for (int y = 0; y < side; y++)
                for (int x = 0; x < line; x++) basis[t * line + x] += other[t * line + y] * kernel[y * line + x];
    }
    for (int t = 0; t < terms; t++) within += dot(other + t * line, other + t * line, line);
    return 1 - within / dot(kernel, kernel, (size_t)side * line);
}

/* Split a kernel (side, line) into as many terms as leave out no more than a share of its square. */
static Taps split_kernel(const float *kernel, int side, double share, float **memory) {
    int line = rounded_up(side, VL);
    Taps k = {side / 2, side, line, FEW};
    k.along_x = taken(memory, MOST_TERMS * line), k.along_y = taken(memory, 4 * MOST_TERMS * (side + 3));
    float *other = taken(memory, MOST_TERMS * line);
    while (singular_vectors(kernel, side, line, k.terms, k.along_x, other) > share && k.terms < MOST_TERMS)
        k.terms += 4;
    memset(k.along_y, 0, 16 * (size_t)k.terms * (side + 3));
    for (int r = 0; r < 4; r++)
        for (int y = 0; y < side; y++)
            for (int t = 0; t < k.terms; t++)
                k.along_y[((size_t)r * (side + 3) + r + y) * k.terms + t] = other[t * line + y];
    return k;
}

/* Some vectors of columns of such a correlation, see below. */
INLINE void correlated_columns(const int nv, const Taps *k, const float *image, int line, int rows, float *half,
                               float *out, int wide) {
    int w = nv * VL, n = (k->side + 3) * k->terms;
    for (int y = 0; y < rows + 2 * k->radius; y++)
        for (int t = 0; t < k->terms; t += 4)
            tile(4, nv, k->along_x + t * k->line, k->line, image + (size_t)y * line, 1, k->side,
                 half + ((size_t)y * k->terms + t) * w, w);
    for (int y = 0; y < rows; y += 4)
        tile(4, nv, k->along_y, n, half + (size_t)y * k->terms * w, w, n, out + (size_t)y * wide, wide);
}

/* Sums over d of K(d) image(u + d), for rows (a multiple of 4) and columns (of VL) of u; the image begins a
 * radius before, and its lines end a radius behind. */
static void correlated_with(const Taps *k, const float *image, int rows, int wide, float *half, float *out) {
    int line = wide + 2 * k->radius, x = 0;
    for (; x + 3 * VL <= wide; x += 3 * VL) correlated_columns(3, k, image + x, line, rows, half, out + x, wide);
    if (wide - x == 2 * VL) correlated_columns(2, k, image + x, line, rows, half, out + x, wide);
    if (wide - x == VL) correlated_columns(1, k, image + x, line, rows, half, out + x, wide);
}

/* A clump about the origin, the flux of which, but for a share, is that of the whole: (side, line). */
static int cut_clump(const float *image, int size, double cut, float *kernel, double *rings) {
    int middle = size / 2, radius = middle - 1;
    double total = 0, beyond = 0;
    memset(rings, 0, (middle + 1) * sizeof *rings);
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            int dx = abs(x - middle), dy = abs(y - middle);
            rings[dx > dy ? dx : dy] += image[(size_t)y * size + x];
        }
    for (int i = 0; i <= middle; i++) total += rings[i];
    for (beyond = rings[middle]; radius > 1 && fabs(beyond + rings[radius]) < cut * total; radius--)
        beyond += rings[radius];
    int side = 2 * radius + 1, line = rounded_up(side, VL);
    float scale = total / (total - beyond);
    memset(kernel, 0, 4 * (size_t)side * line);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            kernel[y * line + x] = scale * image[(size_t)(middle - radius + y) * size + middle - radius + x];
    return side;
}

/* Smooth a PSF that has been split with a Gaussian. */
static void smooth_psf(Work *w, double width) {
    for (int x = 0; x < w->modes - 1; x++) w->phase[x] = exp(-0.5 * width * width * w->kx[x] * w->kx[x]);
    for (int row = 0; row < 2 * w->modes; row++) {
        double ky = width * w->ky[row % w->modes], down = exp(-0.5 * ky * ky);
        size_t at = (size_t)row * w->inner, axis = row / w->modes * w->height + row % w->modes;
        w->psf0_r[axis] *= down, w->psf0_i[axis] *= down;
        for (int x = 0; x < w->modes - 1; x++) {
            float times = down * w->phase[x];
            w->psf_r[at + x] *= times, w->psf_i[at + x] *= times;
        }
    }
}

/* Part of a stamp, beside which little of the light is; its rows and columns padded to 4 and to vectors. */
typedef struct {
    int first[2], sides[2], rows, wide;
} Box;

/* Leave out what is less than a limit at either end. */
static void trim(const double *sums, int size, double limit, int *first, int *side) {
    double low = 0, high = 0;
    int last = size - 1;
    for (*first = 0; *first < last && (low += sums[*first]) < limit; (*first)++);
    for (; last > *first && (high += sums[last]) < limit; last--);
    *side = last + 1 - *first;
}

static Box box_of(const float *light, int size, double lost, double *sums) {
    Box box;
    double total = 0;
    memset(sums, 0, 2 * size * sizeof *sums);
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            float one = light[(size_t)y * size + x];
            sums[y] += one, sums[size + x] += one, total += one;
        }
    for (int axis = 0; axis < 2; axis++)
        trim(sums + axis * size, size, lost * total, box.first + axis, box.sides + axis);
    box.rows = rounded_up(box.sides[0], 4), box.wide = rounded_up(box.sides[1], VL);
    return box;
}

/* Product of two images of a stamp in a box and a radius around it; zero beyond both. */
static void cut_out(const Box *box, int radius, const float *a, const float *b, int size, float *out) {
    int line = box->wide + 2 * radius, left = box->first[1] - radius, low = box->first[0] - radius;
    int from = left > 0 ? left : 0, to = left + box->sides[1] + 2 * radius, up = low + box->sides[0] + 2 * radius;
    memset(out, 0, 4 * (size_t)line * (box->rows + 2 * radius));
    for (int y = low > 0 ? low : 0; y < up && y < size; y++)
        for (int x = from; x < to && x < size; x++) {
            size_t i = (size_t)y * size + x;
            out[(size_t)(y - low) * line + x - left] = a[i] * b[i];
        }
}

typedef struct {
    Taps taps, squares;             /* of a clump and its square */
    Box box;                        /* places of clumps */
    float *part, *half, *images;    /* room for a correlation; images of the box */
} Clumps;

static Clumps clumps_of(const Closer *c, const StructureLimits *l, const float *image, int image_size) {
    Clumps k;
    float *memory = c->memory;
    k.box = box_of(c->light, c->size, l->lost, c->sums);
    float *kernel = taken(&memory, (size_t)image_size * (image_size + VL));
    int side = cut_clump(image, image_size, l->cut, kernel, c->sums);
    k.taps = split_kernel(kernel, side, l->beside, &memory);
    for (int i = 0; i < side * rounded_up(side, VL); i++) kernel[i] *= kernel[i];
    k.squares = split_kernel(kernel, side, l->beside, &memory);
    k.part = taken(&memory, (size_t)(k.box.rows + side) * (k.box.wide + side));
    k.half = taken(&memory, (size_t)(k.box.rows + side) * MOST_TERMS * 3 * VL);
    k.images = memory;
    return k;
}

/* Correlation of the product of two images of the stamp with a clump. */
static void seen_by(const Clumps *k, const Taps *taps, const float *a, const float *b, int size, float *out) {
    cut_out(&k->box, taps->radius, a, b, size, k->part);
    correlated_with(taps, k->part, k->box.rows, k->box.wide, k->half, out);
}

/* Covariance of the score for clumps of unit flux.  Returns light at their places, times what a clump does to the
 * score less a part of the mean of all: (8, places), and the light itself. */
static float *clump_spread(const Closer *c, const Clumps *k, double conserved, double *spread) {
    size_t n = (size_t)k->box.rows * k->box.wide, area = (size_t)c->size * c->size;
    float *memory = k->images, *root = taken(&memory, n), *seen = taken(&memory, 9 * n), *light = seen + 8 * n;
    double sums[WIDEST * WIDEST], mean[8];
    memset(light, 0, 4 * n);
    for (int y = 0; y < k->box.sides[0]; y++)
        memcpy(light + (size_t)y * k->box.wide,
               c->light + (size_t)(k->box.first[0] + y) * c->size + k->box.first[1], 4 * k->box.sides[1]);
    for (size_t i = 0; i < n; i++) root[i] = __builtin_sqrtf(light[i]);
    for (int i = 0; i < 8; i++) seen_by(k, &k->taps, c->columns + i * area, c->root, c->size, seen + i * n);
    products_of_nine(seen, n, root, n, sums);
    symmetric(sums, spread);
    double total = sums[8 * WIDEST + 8];
    for (int i = 0; i < 8; i++) mean[i] = sums[8 * WIDEST + i] / (total > 1e-20 ? total : 1e-20);
    for (int i = 0; i < 64; i++) spread[i] -= conserved * total * mean[i / 8] * mean[i % 8];
    for (int i = 0; i < 8; i++) {
        float least = conserved * mean[i];
        for (size_t u = 0; u < n; u++) seen[i * n + u] = light[u] * (seen[i * n + u] - least);
    }
    return seen;
}

/* Flux of a clump, and the covariance of the score for clumps of unit flux, of a galaxy that leaves an excess;
 * `image` is that of a clump.  What clumps do to residuals is summed at their places, not at pixels. */
static double clump_flux(const Closer *c, const StructureLimits *l, const float *image, int image_size,
                         const double *inverse, double excess, double *spread) {
    size_t area = (size_t)c->size * c->size;
    float *light = c->light, *pull = c->residual, *share = c->rest;
    double sums[WIDEST * WIDEST], covariance[64], weights[64], square = 0;
    for (size_t i = 0; i < area; i++) {
        light[i] = light[i] > 0 ? light[i] : 0;
        float bright = light[i] * c->root[i], weight = bright * bright / (1 + bright * bright);
        pull[i] = weight * c->root[i], share[i] = __builtin_sqrtf(weight);
    }
    Clumps k = clumps_of(c, l, image, image_size);
    size_t n = (size_t)k.box.rows * k.box.wide;
    float *lit = clump_spread(c, &k, l->conserved, spread), *seen = k.images;
    for (int i = 0; i < 8; i++) {
        seen_by(&k, &k.taps, c->columns + i * area, pull, c->size, seen);
        for (int j = 0; j < 8; j++) square -= 2 * inverse[8 * j + i] * dot(seen, lit + j * n, n);
    }
    seen_by(&k, &k.squares, pull, c->root, c->size, seen);
    square += dot(seen, lit + 8 * n, n);
    products_of_nine(c->columns, area, share, area, sums);
    between(inverse, spread, covariance);
    symmetric(sums, weights);
    for (int i = 0; i < 64; i++) square += covariance[i] * weights[i];
    return excess / (square > 1e-20 ? square : 1e-20);
}

/* A covariance of the score times a number, and that of the parameters. */
static void both_covariances(const double *inverse, const double *spread, double times, double *of_score,
                             double *out) {
    for (int i = 0; i < 64; i++) of_score[i] = spread[i] * times;
    between(inverse, of_score, out);
}

/* Point sources on a coarse grid of a plan's, and on the galaxies' own, which is made when it is needed. */
typedef struct {
    const Plan *plans[2];
    const float *transfer[2];
    int64_t shared;
    Work *works[2];
} Points;

/* Width of the Gaussian that falls as a PSF's transfer function does at its first wave. */
static double width_of_psf(const Plan *p, const float *psf) {
    double share = hypot(psf[2], psf[3]) / hypot(psf[0], psf[1]), wave = 2 * M_PI / p->fft_size;
    return share > 0 ? share < 1 ? sqrt(-2 * log(share)) / wave : 0 : INFINITY;
}

/* The image of a clump in the middle of a stamp, on the grid in which it has room; NULL without memory. */
static const Work *clump_of(Points *p, int64_t row, double width) {
    double wide = hypot(width, width_of_psf(p->plans[0], psf_of(p->plans[0], p->transfer[0], p->shared, row)));
    int which = 16 * wide > p->plans[0]->size;
    Work *w = p->works[which] ? p->works[which] : new_work(p->plans[which], POINT, 0);
    p->works[which] = w;
    if (!w) return NULL;
    int middle = w->plan->size / 2;
    const float there[8] = {[5] = middle, [6] = middle};
    split_psf(w, psf_of(w->plan, p->transfer[which], p->shared, row));
    smooth_psf(w, width);
    render(w, there);
    return w;
}

/* Structure of a galaxy that has been rendered with SLOPES: four covariances, of parameters by galaxy and sky and
 * of the score by both, significances, flux of a clump, variance of the white noise, level of the sky's.  False
 * without memory. */
static int closer_look(Work *w, Points *points, int64_t row, const float *params, const float *data,
                       const float *ivar, float inverse_gain, int fit_sky, const Closer *c, const StructureLimits *l,
                       double *out) {
    int size = c->size, line = rounded_up(size, 2 * VL);
    size_t area = (size_t)size * size;
    double products[WIDEST * WIDEST], inverse[64], first[6], spread[64], *found = out + 256;
    const float *outside = c->rest + area + VL, *smooth = c->memory + 2 * (size_t)line * line; /* by `structure` */
    whiten(w, params, data, ivar, inverse_gain, c->light, c->root, c->residual, c->columns);
    all_products(c->columns, c->residual, area, products);
    if (!inverted(products, WIDEST, 8, 7, fit_sky, l->ridge, inverse)) return 1;
    structure(c->residual, c->light, c->root, c->columns, inverse, products + COLUMNS * WIDEST, c->bands, c->reach,
              l->faint, size, c->rest, c->memory, first);
    double white = white_variance(c, l, outside), total = white * sqrt(2 * l->alike * first[4]);
    double excess = first[3] - (white - 1) * first[5], noise = white * l->smooth;
    double patch = 2 * M_PI * l->width * l->width, level = first[1] > noise ? (first[1] - noise) / patch : 0;
    found[0] = total > 0 ? excess / total : 0;
    found[1] = (first[1] / noise - 1) * sqrt(first[2] / (2 * patch));
    found[3] = white;
    if (found[1] > l->significant && found[0] <= l->significant &&
        symmetry(smooth, line, outside, size, params + 5, l->width) < l->halo)
        found[4] = level;
    if (found[1] > l->least) {
        sky_spread(c, spread);
        both_covariances(inverse, spread, level, out + 192, out + 64);
    }
    if (!(found[0] > l->least)) return 1;
    const Work *clump = clump_of(points, row, l->smoothing * params[2]);
    if (!clump) return 0;
    found[2] = clump_flux(c, l, clump->image, clump->plan->size, inverse, excess, spread);
    both_covariances(inverse, spread, found[2] > 0 ? found[2] : 0, out + 128, out);
    return 1;
}

/* Lay out the arrays of a closer look from an address; returns how many numbers they are. */
static size_t laid_out_closer(Closer *c, float *start) {
    int size = c->size;
    size_t area = (size_t)size * size, line = rounded_up(size, 2 * VL), padded = area + 2 * VL;
    float *at = start;
    c->places = rounded_up(c->count, 4), c->wide = rounded_up(c->count, 2 * VL);
    c->bands = taken(&at, 4 * line * line);
    c->along = taken(&at, (size_t)c->places * size);
    c->turned = taken(&at, (size_t)size * c->wide);
    c->columns = taken(&at, COLUMNS * area + 2 * VL);
    c->light = taken(&at, padded), c->root = taken(&at, padded), c->residual = taken(&at, padded);
    c->rest = taken(&at, 3 * padded);
    size_t of_sky = c->places * line + 8 * (size_t)c->places * c->wide, widest = size + 2 * VL;
    size_t of_clumps = (1 + 4 + 10) * widest * widest + (64 + 6 * VL) * MOST_TERMS * (widest + 8);
    size_t most = of_sky > of_clumps ? of_sky : of_clumps;
    c->memory = taken(&at, most + 3 * line * line);
    c->sums = (double *)taken(&at, 4 * size), c->keys = (int32_t *)taken(&at, 2 * area + AT_ONCE);
    return at - start;
}

/* Small clumps are rendered on a coarse grid, with modes `few`. */
int32_t ENTRY(structure)(const Plan *p, int64_t count, const float *params, const float *data, const float *ivar,
                         const float *transfer, int64_t shared, const float *inverse_gain, int32_t fit_sky,
                         const float *smoothers, int32_t reach, int64_t places, const float *roots,
                         const StructureLimits *limits, const Plan *coarse, const float *few, double *out) {
    Closer c = {.size = p->size, .reach = reach, .count = (int)places};
    Points points = {{coarse, p}, {few, transfer}, shared, {NULL}};
    Work *w = new_work(p, SLOPES, laid_out_closer(&c, NULL));
    if (!w) return 0;
    laid_out_closer(&c, w->more);
    packed_smoothers(smoothers, 2, p->size, c.bands);
    memcpy(c.along, roots, 4 * (size_t)places * p->size);
    for (int y = 0; y < places; y++)
        for (int x = 0; x < p->size; x++) c.turned[(size_t)x * c.wide + y] = roots[(size_t)y * p->size + x];
    const float *last = NULL;
    int done = 1;
    size_t area = (size_t)p->size * p->size;
    for (int64_t i = 0; i < count && done; i++, out += STRUCTURED) {
        const float *one = params + 8 * i;
        memset(out, 0, STRUCTURED * sizeof *out);
        out[257] = NAN, out[259] = 1;
        if (!sound(w, one)) continue;
        use_psf(w, psf_of(p, transfer, shared, i), &last);
        render(w, one);
        done = closer_look(w, &points, i, one, data + i * area, ivar + i * area, inverse_gain[i], fit_sky, &c,
                           limits, out);
    }
    free(w), free(points.works[0]), free(points.works[1]);
    return done;
}
