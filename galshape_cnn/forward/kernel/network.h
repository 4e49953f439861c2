/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* The two networks: galshape_cnn.infer.network.architecture tells what they are.
 *
 * Every output is a sum in the order of its inputs, so it does not depend on how many galaxies there are.
 *
 * Numbers have one slot, or several: the value, and its derivatives along some directions.  All galaxies of a
 * slot lie one after the other, and a layer takes the slots as more galaxies, the derivatives without its bias.
 */

enum { ROWS = 4, PANEL = 3, TOGETHER = 16, MOVED = 4, PIXELS = 48, FIRST = 16, NEAREST = 192 };

/* Vectors of a panel, whose rows `pack` puts one after the other. */
static int panel_of(int columns, int at) { return columns - at >= PANEL * VL ? PANEL : (columns - at) / VL; }

/* Where the rows of a layer lie: groups of four, `across` of them beside each other, in `down` lines. */
typedef struct {
    int many, biased, down, across;     /* galaxies, those with the bias, lines, groups in a line */
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
                            const float *start = !begins ? to : g < p->biased ? d->bias + at : NULL;
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

/* Vectors of galaxies, `rows` a multiple of four in each slot, through a layer. */
static void dense(const Dense *d, int slots, int rows, const float *a, int lda, float *c, int ldc) {
    Places p = {slots, 1, 1, rows / ROWS, rows * (size_t)lda, 0, ROWS * (size_t)lda, lda, 1, 0,
                rows * (size_t)ldc, 0, ROWS * (size_t)ldc, ldc};
    layer(d, &p, a, c);
}

/* Fours of neighbouring pixels of maps (2 side, 2 side, width) to one. */
static void halved(const Dense *d, int slots, int side, int width, const float *a, float *c, int ldc) {
    size_t line = (size_t)2 * side * width;
    Places p = {slots, 1, side, side / ROWS, 2 * side * line, 2 * line, 2 * ROWS * (size_t)width, 2 * width, 2,
                (int)line, side * side * (size_t)ldc, side * (size_t)ldc, ROWS * (size_t)ldc, ldc};
    layer(d, &p, a, c);
}

/* Convolution by 3 x 3 of maps with a border of zeros, (side + 2, side + 2, width). */
static void convolved(const Dense *d, int slots, int many, int side, int width, const float *a, float *c, int ldc) {
    size_t line = (size_t)(side + 2) * width;
    Places p = {slots * many, many, side, side / ROWS, (side + 2) * line, line, ROWS * (size_t)width, width, 3,
                (int)line, side * side * (size_t)ldc, side * (size_t)ldc, ROWS * (size_t)ldc, ldc};
    layer(d, &p, a, c);
}

/* x Phi(x) and its slope; the error function to 1.5e-7 (Abramowitz & Stegun 1964, 7.1.26). */
INLINE V gelu_of(V x, V *slope) {
    V size = larger(x, -x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * size), bell = exp_of(-size * size);
    V p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = (p * t + 0.254829592f) * t * bell;
    V upper = 1.0f - 0.5f * p, phi = select_(x < splat(0.0f), 0.5f * p, upper);
    *slope = phi + x * bell * 0.39894228f;
    return x * phi;
}

/* Activate numbers, `each` from slot to slot. */
INLINE void gelu(const int slots, float *x, size_t each, size_t count) {
    for (size_t i = 0; i < count; i += VL) {
        V slope, value = gelu_of(load(x + i), &slope);
        for (int s = 1; s < slots; s++) store(x + s * each + i, slope * load(x + s * each + i));
        store(x + i, value);
    }
}

/* Scale and shift maps by the context and activate them; terms: scales, then shifts, of `width` each. */
INLINE void film(const int slots, float *x, size_t each, int pixels, int width, const float *terms,
                 size_t terms_each) {
    for (int i = 0; i < pixels; i++, x += width)
        for (int k = 0; k < width; k += VL) {
            V one = load(x + k), scale = load(terms + k), slope;
            V value = gelu_of(one + one * scale + load(terms + width + k), &slope);
            for (int s = 1; s < slots; s++) {
                const float *t = terms + s * terms_each + k;
                V moved = load(x + s * each + k);
                moved += moved * scale + one * load(t) + load(t + width);
                store(x + s * each + k, slope * moved);
            }
            store(x + k, value);
        }
}

/* Features of a pixel with mean 0 and variance 1, scaled and shifted (Ba et al. 2016, arXiv:1607.06450). */
INLINE void normalized(const int slots, const float *x, size_t each, int width, const float *scale,
                       const float *shift, float *out, size_t out_each) {
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
    for (int s = 1; s < slots; s++) {
        const float *d = x + s * each;
        V moved = {0}, along = {0};
        for (int k = 0; k < width; k += VL) {
            moved += load(d + k);
            along += load(d + k) * (load(x + k) - mean);
        }
        float shifted = sum_of(moved) / width, turned = sum_of(along) / width * over * over;
        for (int k = 0; k < width; k += VL)
            store(out + s * out_each + k,
                  (load(d + k) - shifted - (load(x + k) - mean) * turned) * over * load(scale + k));
    }
}

/* Normalised maps (side, side, width) in the middle of maps with a border. */
INLINE void bordered(const int slots, const float *x, size_t each, int side, int width, const float *const *norm,
                     float *out, size_t out_each) {
    for (int y = 0; y < side; y++)
        for (int i = 0; i < side; i++)
            normalized(slots, x + ((size_t)y * side + i) * width, each, width, norm[0], norm[1],
                       out + ((size_t)(y + 1) * (side + 2) + i + 1) * width, out_each);
}

/* Numbers that a residual block works with for one galaxy: maps with a border, and without. */
static size_t block_memory(int side, int width) {
    return (size_t)width * ((side + 2) * (side + 2) + 2 * side * side);
}

/* Residual block of maps x (slots, many, side, side, width), in place: a 3 x 3 convolution and one of 1 x 1;
 * terms are those of each galaxy, `each` numbers from one to the next and `slot` from slot to slot. */
INLINE void residual(const int slots, const Dense *d, const float *const *norm, int many, int side, int width,
                     const float *terms, size_t each, size_t slot, float *x, float *memory) {
    size_t area = (size_t)side * side * width, wide = (size_t)(side + 2) * (side + 2) * width;
    size_t all = slots * many * area;
    float *around = memory, *inside = around + slots * many * wide, *out = inside + all;
    memset(around, 0, 4 * slots * many * wide);
    for (int g = 0; g < many; g++)
        bordered(slots, x + g * area, many * area, side, width, norm, around + g * wide, many * wide);
    convolved(d, slots, many, side, width, around, inside, width);
    for (int g = 0; g < many; g++)
        film(slots, inside + g * area, many * area, side * side, width, terms + g * each, slot);
    dense(d + 1, slots, many * side * side, inside, width, out, width);
    for (size_t i = 0; i < all; i += VL) store(x + i, load(x + i) + load(out + i));
}

/* Layers with an activation, from vectors (slots, rows, ld) into others, and back; returns where the last are. */
INLINE float *activated(const int slots, const Dense *d, int count, int rows, float *from, int ld, float *other) {
    for (int i = 0; i < count; i++) {
        float *to = i % 2 ? from : other;
        dense(d + i, slots, rows, i % 2 ? other : from, ld, to, ld);
        for (int r = 0; r < rows; r++)
            gelu(slots, to + (size_t)r * ld, rows * (size_t)ld, rounded_up(d[i].width, VL));
    }
    return count % 2 ? other : from;
}

/* Standardised vectors; of derivatives only the scale changes. */
static void standardised(const Net *net, int moved, const float *x, float *out) {
    for (int k = 0; k < net->context; k++) out[k] = (moved ? x[k] : x[k] - net->mean[k]) * net->over[k];
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
            standardised(net, 0, inputs + (start + g) * size, memory + (size_t)g * ld);
        float *x = activated(1, d, net->joints, rows, memory, ld, other), *to = x == memory ? other : memory;
        dense(last, 1, rows, x, ld, to, ld);
        for (int g = 0; g < many; g++)
            memcpy(out + (start + g) * last->width, to + (size_t)g * ld, 4 * last->width);
    }
    free(memory);
    return 1;
}

/* Everything up to the maps of 4 x 4 pixels, of one galaxy; terms and deep maps as in `residual`. */
INLINE void shallow(const int slots, const Net *net, const Dense *d, const float *const *norms,
                    const float *pixels, const float *terms, size_t slot, float *deep, size_t deep_each,
                    float *memory) {
    int first = net->patch, middle = net->middle;
    size_t area = FIRST * FIRST * (size_t)first;
    float *patches = memory, *maps = patches + slots * area, *rest = maps + slots * 64 * (size_t)middle;
    dense(d, slots, FIRST * FIRST, pixels, PIXELS, patches, first);
    film(slots, patches, area, FIRST * FIRST, first, terms, slot);
    halved(d + 1, slots, 8, first, patches, maps, middle);
    terms += 2 * first, d += 2;
    for (int i = 0; i < net->middle_blocks; i++, d += 2, norms += 2, terms += 2 * middle)
        residual(slots, d, norms, 1, 8, middle, terms, 0, slot, maps, rest);
    halved(d, slots, 4, middle, maps, rest, net->deep);
    for (int s = 0; s < slots; s++)
        memcpy(deep + s * deep_each, rest + s * 16 * (size_t)net->deep, 64 * (size_t)net->deep);
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

/* Outputs of the convolutional network, `together` galaxies at a time: pixels (count, slots, 16, 16, 48),
 * context (count, slots, context), out (count, slots, width). */
INLINE int32_t outputs(const int slots, const int together, const Net *net, int64_t count, const float *pixels,
                       const float *context, float *out) {
    Widths w = widths_of(net);
    int films = 1 + net->middle_blocks + net->deep_blocks, size = net->context, depth = net->deep;
    const Dense *film_layers = net->layers + net->contexts, *stage = film_layers + films;
    const Dense *deep_layers = stage + 2 + 2 * net->middle_blocks + 1;
    const Dense *joint = net->layers + net->all - net->joints - 1, *last = joint + net->joints;
    int known = film_layers[-1].width;
    size_t halves = 16 * (size_t)depth, middle = block_memory(8, net->middle);
    size_t one = FIRST * FIRST * (size_t)net->patch + 64 * (size_t)net->middle + (halves > middle ? halves : middle);
    size_t blocks = together * block_memory(4, depth), much = slots * (one > blocks ? one : blocks);
    size_t each = 2 * w.vector + w.standard + w.terms + w.deep + w.joint + 2 * (size_t)w.ld;
    float *memory = calloc(much + slots * together * each + 64, 4);
    if (!memory) return 0;
    size_t most = (size_t)slots * together;
    float *standard = memory + much, *vector = standard + most * w.standard, *other = vector + most * w.vector;
    float *terms = other + most * w.vector, *deep = terms + most * w.terms, *joined = deep + most * w.deep;
    float *x = joined + most * w.joint, *y = x + most * w.ld;
    for (int64_t start = 0; start < count; start += together) {
        int many = count - start < together ? count - start : together, rows = rounded_up(many, ROWS);
        for (int s = 0; s < slots; s++)
            for (int g = 0; g < many; g++) {
                float *to = standard + (s * rows + g) * w.standard;
                standardised(net, s, context + ((start + g) * slots + s) * size, to);
                memcpy(vector + (s * rows + g) * w.vector, to, 4 * size);
            }
        const float *c = activated(slots, net->layers, net->contexts, rows, vector, w.vector, other), *from;
        size_t slot = rows * w.terms;
        float *at = terms;
        for (int i = 0; i < films; i++) {
            dense(film_layers + i, slots, rows, c, w.vector, at, w.terms);
            at += film_layers[i].width;
        }
        for (int g = 0; g < many; g++, pixels += (size_t)slots * FIRST * FIRST * PIXELS)
            shallow(slots, net, stage, net->norms, pixels, terms + g * w.terms, slot, deep + g * w.deep,
                    many * w.deep, memory);
        const float *const *norm = net->norms + 2 * net->middle_blocks;
        at = terms + 2 * (net->patch + net->middle_blocks * net->middle);
        for (int i = 0; i < net->deep_blocks; i++, norm += 2, at += 2 * depth)
            residual(slots, deep_layers + 2 * i, norm, many, 4, depth, at, w.terms, slot, deep, memory);
        for (int g = 0; g < many; g++) {
            for (int i = 0; i < 16; i++)
                normalized(slots, deep + g * w.deep + i * depth, many * w.deep, depth, norm[0], norm[1],
                           joined + g * w.joint + i * depth, rows * w.joint);
            for (int s = 0; s < slots; s++) {
                float *to = joined + (s * rows + g) * w.joint + w.deep;
                memcpy(to, c + (s * rows + g) * w.vector, 4 * known);
                memcpy(to + known, standard + (s * rows + g) * w.standard, 4 * size);
            }
        }
        dense(joint, slots, rows, joined, w.joint, x, w.ld);
        for (int r = 0; r < rows; r++)
            gelu(slots, x + (size_t)r * w.ld, rows * (size_t)w.ld, rounded_up(joint->width, VL));
        from = activated(slots, joint + 1, net->joints - 1, rows, x, w.ld, y);
        float *to = from == x ? y : x;
        dense(last, slots, rows, from, w.ld, to, w.ld);
        for (int g = 0; g < many; g++)
            for (int s = 0; s < slots; s++, out += last->width)
                memcpy(out, to + (s * rows + g) * (size_t)w.ld, 4 * last->width);
    }
    free(memory);
    return 1;
}

int32_t ENTRY(network)(const Net *net, int64_t count, const float *pixels, const float *context, float *out) {
    return outputs(1, TOGETHER, net, count, pixels, context, out);
}

/* The same with derivatives along three directions. */
int32_t ENTRY(moved_network)(const Net *net, int64_t count, const float *pixels, const float *context, float *out) {
    return outputs(MOVED, MOVED, net, count, pixels, context, out);
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
