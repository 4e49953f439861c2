/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* The two networks: galshape_cnn.infer.network.architecture tells what they are.
 *
 * Every output is a sum in the order of its inputs, so it does not depend on how many galaxies there are.
 */

enum { ROWS = 4, PANEL = 3, TOGETHER = 16, PIXELS = 48, FIRST = 16, NEAREST = 192 };

/* Vectors of a panel, whose rows `pack` puts one after the other. */
static int panel_of(int columns, int at) { return columns - at >= PANEL * VL ? PANEL : (columns - at) / VL; }

/* Where the rows of a layer lie: groups of four, `across` of them beside each other, in `down` lines. */
typedef struct {
    int many, down, across;             /* galaxies, lines, groups in a line */
    size_t a_each, a_down, a_across;    /* numbers from one to the next in A */
    int lda, segments, jump;            /* from row to row; segments of a row */
    size_t c_each, c_down, c_across;
    int ldc;
} Places;

/* Columns at a time, and so few inputs that their part of the panel stays in the nearest cache. */
static void layer(const Dense *d, const Places *p, const float *a, float *c) {
    int columns = rounded_up(d->width, VL), n = d->inputs / p->segments;
    const float *b = d->weights;
    for (int at = 0, nv; at < columns; at += nv * VL) {
        nv = panel_of(columns, at);
        for (int s = 0; s < p->segments; s++)
            for (int k = 0, few; k < n; k += few, b += (size_t)few * nv * VL) {
                few = n - k < NEAREST ? n - k : NEAREST;
                int begins = !s && !k;
                for (int g = 0; g < p->many; g++)
                    for (int y = 0; y < p->down; y++)
                        for (int x = 0; x < p->across; x++) {
                            const float *from = a + g * p->a_each + y * p->a_down + x * p->a_across +
                                                (size_t)s * p->jump + k;
                            float *to = c + g * p->c_each + y * p->c_down + x * p->c_across + at;
                            const float *start = begins ? d->bias + at : to;
                            int lds = begins ? 0 : p->ldc;
                            if (nv == 3)
                                tile_from(ROWS, 3, from, p->lda, b, 3 * VL, few, start, lds, to, p->ldc);
                            else if (nv == 2)
                                tile_from(ROWS, 2, from, p->lda, b, 2 * VL, few, start, lds, to, p->ldc);
                            else
                                tile_from(ROWS, 1, from, p->lda, b, VL, few, start, lds, to, p->ldc);
                        }
            }
    }
}

/* Vectors of galaxies, `rows` a multiple of four, through a layer. */
static void dense(const Dense *d, int rows, const float *a, int lda, float *c, int ldc) {
    Places p = {1, 1, rows / ROWS, 0, 0, ROWS * (size_t)lda, lda, 1, 0, 0, 0, ROWS * (size_t)ldc, ldc};
    layer(d, &p, a, c);
}

/* Fours of neighbouring pixels of maps (2 side, 2 side, width) to one. */
static void halved(const Dense *d, int many, int side, int width, const float *a, float *c, int ldc) {
    size_t line = (size_t)2 * side * width;
    Places p = {many, side, side / ROWS, 2 * side * line, 2 * line, 2 * ROWS * (size_t)width, 2 * width, 2,
                (int)line, side * side * (size_t)ldc, side * (size_t)ldc, ROWS * (size_t)ldc, ldc};
    layer(d, &p, a, c);
}

/* Convolution by 3 x 3 of maps with a border of zeros, (side + 2, side + 2, width). */
static void convolved(const Dense *d, int many, int side, int width, const float *a, float *c, int ldc) {
    size_t line = (size_t)(side + 2) * width;
    Places p = {many, side, side / ROWS, (side + 2) * line, line, ROWS * (size_t)width, width, 3, (int)line,
                side * side * (size_t)ldc, side * (size_t)ldc, ROWS * (size_t)ldc, ldc};
    layer(d, &p, a, c);
}

/* x Phi(x); the error function to 1.5e-7 (Abramowitz & Stegun 1964, 7.1.26). */
INLINE V gelu_of(V x) {
    V size = larger(x, -x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * size);
    V p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = (p * t + 0.254829592f) * t * exp_of(-size * size);
    V upper = 1.0f - 0.5f * p, phi = select_(x < splat(0.0f), 0.5f * p, upper);
    return x * phi;
}

static void gelu(float *x, size_t count) {
    for (size_t i = 0; i < count; i += VL) store(x + i, gelu_of(load(x + i)));
}

/* Scale and shift maps by the context and activate them; terms: scales, then shifts, of `width` each. */
static void film(float *x, int pixels, int width, const float *terms) {
    for (int i = 0; i < pixels; i++, x += width)
        for (int k = 0; k < width; k += VL) {
            V one = load(x + k);
            store(x + k, gelu_of(one + one * load(terms + k) + load(terms + width + k)));
        }
}

/* Features of a pixel with mean 0 and variance 1, scaled and shifted (Ba et al. 2016, arXiv:1607.06450). */
static void normalized(const float *x, int width, const float *scale, const float *shift, float *out) {
    V total = {0}, squares = {0};
    for (int k = 0; k < width; k += VL) total += load(x + k);
    float mean = sum_of(total) / width;
    for (int k = 0; k < width; k += VL) {
        V one = load(x + k) - mean;
        squares += one * one;
    }
    float over = 1 / sqrtf(sum_of(squares) / width + 1e-3f);
    for (int k = 0; k < width; k += VL)
        store(out + k, (load(x + k) - mean) * over * load(scale + k) + load(shift + k));
}

/* Normalised maps (side, side, width) in the middle of maps with a border. */
static void bordered(const float *x, int side, int width, const float *scale, const float *shift, float *out) {
    for (int y = 0; y < side; y++)
        for (int i = 0; i < side; i++)
            normalized(x + ((size_t)y * side + i) * width, width, scale, shift,
                       out + ((size_t)(y + 1) * (side + 2) + i + 1) * width);
}

/* Numbers that a residual block works with for one galaxy: maps with a border, and without. */
static size_t block_memory(int side, int width) {
    return (size_t)width * ((side + 2) * (side + 2) + 2 * side * side);
}

/* Residual block of maps x (many, side, side, width), in place: a 3 x 3 convolution and one of 1 x 1; terms
 * are those of each galaxy, `each` numbers from one to the next. */
static void residual(const Dense *d, const float *const *norm, int many, int side, int width, const float *terms,
                     size_t each, float *x, float *memory) {
    size_t area = (size_t)side * side * width, wide = (size_t)(side + 2) * (side + 2) * width;
    float *around = memory, *inside = around + many * wide, *out = inside + many * area;
    memset(around, 0, 4 * many * wide);
    for (int g = 0; g < many; g++) bordered(x + g * area, side, width, norm[0], norm[1], around + g * wide);
    convolved(d, many, side, width, around, inside, width);
    for (int g = 0; g < many; g++) film(inside + g * area, side * side, width, terms + g * each);
    dense(d + 1, many * side * side, inside, width, out, width);
    for (size_t i = 0; i < many * area; i += VL) store(x + i, load(x + i) + load(out + i));
}

/* Layers with an activation, from vectors (rows, ld) into others, and back; returns where the last are. */
static float *activated(const Dense *d, int count, int rows, float *from, int ld, float *other, int other_ld) {
    for (int i = 0; i < count; i++) {
        float *to = i % 2 ? from : other;
        int to_ld = i % 2 ? ld : other_ld;
        dense(d + i, rows, i % 2 ? other : from, i % 2 ? other_ld : ld, to, to_ld);
        for (int r = 0; r < rows; r++) gelu(to + (size_t)r * to_ld, rounded_up(d[i].width, VL));
    }
    return count % 2 ? other : from;
}

static void standardised(const float *mean, const float *over, int width, const float *x, float *out) {
    for (int k = 0; k < width; k++) out[k] = (x[k] - mean[k]) * over[k];
}

/* Widest of some layers, padded. */
static int widest(const Dense *d, int count, int least) {
    for (int i = 0; i < count; i++)
        if (d[i].width > least) least = d[i].width;
    return rounded_up(least, 2 * FIRST);
}

/* Outputs of a chain of layers, all but the last with an activation, of standardised vectors. */
int32_t ENTRY(chain)(const Net *net, int64_t count, const float *inputs, float *out) {
    const Dense *d = net->layers, *last = d + net->joints;
    int size = net->context, ld = widest(d, net->joints + 1, size);
    float *memory = calloc(2 * (size_t)TOGETHER * ld + VL, 4), *other = memory + (size_t)TOGETHER * ld;
    if (!memory) return 0;
    for (int64_t start = 0; start < count; start += TOGETHER) {
        int many = count - start < TOGETHER ? count - start : TOGETHER, rows = rounded_up(many, ROWS);
        for (int g = 0; g < many; g++)
            standardised(net->mean, net->over, size, inputs + (start + g) * size, memory + (size_t)g * ld);
        float *x = activated(d, net->joints, rows, memory, ld, other, ld), *to = x == memory ? other : memory;
        dense(last, rows, x, ld, to, ld);
        for (int g = 0; g < many; g++)
            memcpy(out + (start + g) * last->width, to + (size_t)g * ld, 4 * last->width);
    }
    free(memory);
    return 1;
}

/* Everything up to the maps of 4 x 4 pixels, of one galaxy. */
static void shallow(const Net *net, const Dense *d, const float *const *norms, const float *pixels,
                    const float *terms, float *deep, float *memory) {
    int first = net->patch, middle = net->middle;
    float *patches = memory, *maps = patches + FIRST * FIRST * first, *rest = maps + 64 * middle;
    dense(d, FIRST * FIRST, pixels, PIXELS, patches, first);
    film(patches, FIRST * FIRST, first, terms);
    halved(d + 1, 1, 8, first, patches, maps, middle);
    terms += 2 * first, d += 2;
    for (int i = 0; i < net->middle_blocks; i++, d += 2, norms += 2, terms += 2 * middle)
        residual(d, norms, 1, 8, middle, terms, 0, maps, rest);
    halved(d, 1, 4, middle, maps, deep, net->deep);
}

/* Numbers that `network` keeps of a galaxy. */
typedef struct {
    size_t terms, vector, standard, deep, joint;    /* of a galaxy */
    int ld;                                         /* of the last vectors */
} Widths;

static Widths widths_of(const Net *net) {
    Widths w;
    w.terms = 2 * (net->patch + (size_t)net->middle_blocks * net->middle + (size_t)net->deep_blocks * net->deep);
    w.vector = widest(net->layers, net->contexts, net->context);
    w.standard = rounded_up(net->context, FIRST);
    w.deep = 16 * (size_t)net->deep;
    w.joint = w.deep + net->layers[net->contexts - 1].width + net->context;
    w.joint = (w.joint + FIRST - 1) / FIRST * FIRST;
    w.ld = widest(net->layers + net->all - net->joints - 1, net->joints + 1, 0);
    return w;
}

/* Outputs of the convolutional network: pixels (count, 16, 16, 48), context (count, context). */
int32_t ENTRY(network)(const Net *net, int64_t count, const float *pixels, const float *context, float *out) {
    Widths w = widths_of(net);
    int films = 1 + net->middle_blocks + net->deep_blocks, size = net->context, depth = net->deep;
    const Dense *film_layers = net->layers + net->contexts, *stage = film_layers + films;
    const Dense *deep_layers = stage + 2 + 2 * net->middle_blocks + 1;
    const Dense *joint = net->layers + net->all - net->joints - 1;
    int known = film_layers[-1].width;
    size_t one = FIRST * FIRST * (size_t)net->patch + 64 * (size_t)net->middle + block_memory(8, net->middle);
    size_t blocks = TOGETHER * block_memory(4, depth), much = one > blocks ? one : blocks;
    size_t each = w.standard + 2 * w.vector + w.terms + w.deep + w.joint + 2 * (size_t)w.ld;
    float *memory = calloc(much + TOGETHER * each + 64, 4);
    if (!memory) return 0;
    float *standard = memory + much, *vector = standard + TOGETHER * w.standard;
    float *other = vector + TOGETHER * w.vector, *terms = other + TOGETHER * w.vector;
    float *deep = terms + TOGETHER * w.terms, *together = deep + TOGETHER * w.deep;
    float *x = together + TOGETHER * w.joint, *y = x + (size_t)TOGETHER * w.ld;
    for (int64_t start = 0; start < count; start += TOGETHER, pixels += (size_t)TOGETHER * FIRST * FIRST * PIXELS) {
        int many = count - start < TOGETHER ? count - start : TOGETHER, rows = rounded_up(many, ROWS);
        for (int g = 0; g < many; g++) {
            float *to = standard + g * w.standard;
            standardised(net->mean, net->over, size, context + (start + g) * size, to);
            memcpy(vector + g * w.vector, to, 4 * size);
        }
        const float *c = activated(net->layers, net->contexts, rows, vector, w.vector, other, w.vector);
        float *at = terms;
        for (int i = 0; i < films; i++) {
            dense(film_layers + i, rows, c, w.vector, at, w.terms);
            at += film_layers[i].width;
        }
        for (int g = 0; g < many; g++)
            shallow(net, stage, net->norms, pixels + (size_t)g * FIRST * FIRST * PIXELS, terms + g * w.terms,
                    deep + g * w.deep, memory);
        const float *const *norm = net->norms + 2 * net->middle_blocks;
        at = terms + 2 * (net->patch + net->middle_blocks * net->middle);
        for (int i = 0; i < net->deep_blocks; i++, norm += 2, at += 2 * depth)
            residual(deep_layers + 2 * i, norm, many, 4, depth, at, w.terms, deep, memory);
        for (int g = 0; g < many; g++) {
            float *to = together + g * w.joint;
            for (int i = 0; i < 16; i++)
                normalized(deep + g * w.deep + i * depth, depth, norm[0], norm[1], to + i * depth);
            memcpy(to + w.deep, c + g * w.vector, 4 * known);
            memcpy(to + w.deep + known, standard + g * w.standard, 4 * size);
        }
        dense(joint, rows, together, w.joint, x, w.ld);
        for (int r = 0; r < rows; r++) gelu(x + (size_t)r * w.ld, rounded_up(joint->width, VL));
        float *z = activated(joint + 1, net->joints - 1, rows, x, w.ld, y, w.ld), *to = z == x ? y : x;
        const Dense *last = joint + net->joints;
        dense(last, rows, z, w.ld, to, w.ld);
        for (int g = 0; g < many; g++)
            memcpy(out + (start + g) * last->width, to + (size_t)g * w.ld, 4 * last->width);
    }
    free(memory);
    return 1;
}

/* A matrix (inputs, width) as `layer` reads it: panels of columns, padded with zeros to whole vectors. */
int32_t ENTRY(pack)(int64_t inputs, int64_t width, const float *matrix, float *out) {
    int columns = rounded_up(width, VL);
    for (int at = 0; at < columns;) {
        int lanes = panel_of(columns, at) * VL;
        for (int64_t k = 0; k < inputs; k++)
            for (int i = 0; i < lanes; i++) *out++ = at + i < width ? matrix[k * width + at + i] : 0;
        at += lanes;
    }
    return 1;
}
