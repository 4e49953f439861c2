/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Sources that hide in a galaxy's light: galshape_cnn.infer.residuals.companions tells what is computed. */

enum { STRIP = 8 };  /* rows at a time: they stay in the first cache */

typedef struct {
    int first[2], sides[2];         /* y, x in the stamp */
    size_t wide, plane;             /* lines of whole vectors */
    const float *images, *weight;   /* (8, plane): weighted derivatives, then the residuals; (plane) */
    const float *point;             /* lines with nx zeros before and behind */
    int top[2];                     /* its highest pixel */
} Window;

/* The nearest number within limits; of none the lower one. */
static int within(double a, int low, int high) { return a > low ? a < high ? (int)a : high : low; }

/* Sums over the window of the source, its highest pixel moved to a place, times each image and, squared, times
 * the weights. */
static void moved_products(const Window *at, int y0, int x0, double *out) {
    int dy = y0 - at->top[0], dx = x0 - at->top[1], ny = at->sides[0], nx = at->sides[1];
    size_t line = at->wide + 2 * nx;
    for (int i = 0; i < 10; i++) out[i] = 0;
    int last = ny + dy < ny ? ny + dy : ny;
    for (int from = dy > 0 ? dy : 0; from < last; from += STRIP) {
        V sum[10] = {{0}};
        for (int y = from; y < from + STRIP && y < last; y++) {
            const float *source = at->point + (y - dy) * line + nx - dx, *here = at->images + y * at->wide;
            for (size_t x = 0; x < at->wide; x += VL) {
                V light = load(source + x);
#pragma GCC unroll 9
                for (int i = 0; i < 9; i++) sum[i] += light * load(here + i * at->plane + x);
                sum[9] += light * light * load(at->weight + y * at->wide + x);
            }
        }
        for (int i = 0; i < 10; i++) out[i] += sum_of(sum[i]);
    }
}

/* Cut the window out of whitened columns, residuals and the point source. */
static Window window_of(int size, const float *params, double half_, const float *columns, const float *rest,
                        const float *root, const float *point, float *memory) {
    Window at;
    size_t area = (size_t)size * size;
    int half = (int)ceil(half_);
    for (int axis = 0; axis < 2; axis++) {
        int middle = within(rint(params[6 - axis]), 0, size - 1), first = middle > half ? middle - half : 0;
        at.first[axis] = first;
        at.sides[axis] = (middle + half + 1 < size ? middle + half + 1 : size) - first;
    }
    int ny = at.sides[0], nx = at.sides[1];
    at.wide = rounded_up(nx, VL), at.plane = ny * at.wide;
    float *images = memory, *weight = images + 9 * at.plane, *lines = weight + at.plane, most = -INFINITY;
    size_t line = at.wide + 2 * nx;
    memset(memory, 0, 4 * (10 * at.plane + ny * line));
    for (int y = 0; y < ny; y++)
        for (int x = 0; x < nx; x++) {
            size_t i = (size_t)(at.first[0] + y) * size + at.first[1] + x, to = y * at.wide + x;
            for (int k = 0; k < 8; k++) images[k * at.plane + to] = columns[k * area + i] * root[i];
            images[8 * at.plane + to] = rest[i] * root[i];
            weight[to] = root[i] * root[i];
            lines[y * line + nx + x] = point[i];
            if (point[i] > most) most = point[i], at.top[0] = y, at.top[1] = x;
        }
    at.images = images, at.weight = weight, at.point = lines;
    return at;
}

/* Squares that are left where the galaxy is bright, beyond those of noise, and their standard deviation. */
static void left_in(const float *rest, const float *light, const float *root, size_t area, double *out) {
    double left = 0, square = 0;
    for (size_t i = 0; i < area; i++) {
        float bright = light[i] > 0 ? light[i] * root[i] : 0, share = bright * bright / (1 + bright * bright);
        left += share * (rest[i] * rest[i] - 1), square += share * share;
    }
    out[0] = left, out[1] = sqrt(2 * square);
}

/* The source that lowers chi-square most: what it moves five parameters by, the decrease, that of the deepest
 * dip, squares left and their spread.  `limits`: ridge; radius and half the window in widths; visible. */
static void companion(Work *w, const Work *point, const float *params, double width, const float *data,
                      const float *ivar, float inverse_gain, int fit_sky, const double *limits, double *out) {
    int size = w->plan->size;
    size_t area = (size_t)size * size, padded = area + 2 * VL;
    float *columns = w->more, *light = columns + COLUMNS * area + VL, *root = light + padded, *rest = root + padded;
    double products[WIDEST * WIDEST], inverse[64], times[8] = {0}, reach = limits[1] * width;
    whiten(w, params, data, ivar, inverse_gain, light, root, rest, columns);
    all_products(columns, rest, area, products);
    if (!inverted(products, WIDEST, 8, 7, fit_sky, limits[0], inverse)) return;
    for (int k = 0; k < 8; k++)
        for (int j = 0; j < 8; j++) times[k] += inverse[8 * k + j] * products[COLUMNS * WIDEST + j];
    subtract(columns, times, 8, area, rest);
    Window at = window_of(size, params, limits[2] * width, columns, rest, root, point->image, rest + padded);
    for (int y = 0; y < at.sides[0]; y++)
        for (int x = 0; x < at.sides[1]; x++) {
            double dx = at.first[1] + x - params[5], dy = at.first[0] + y - params[6], seen[10], explained[8] = {0};
            if (dx * dx + dy * dy >= reach * reach) continue;
            moved_products(&at, y, x, seen);
            double square = seen[9];
            for (int i = 0; i < 8; i++) {
                for (int j = 0; j < 8; j++) explained[i] += inverse[8 * i + j] * seen[j];
                square -= seen[i] * explained[i];
            }
            if (!(square > limits[3] * seen[9])) continue;
            double flux = seen[8] / square, gained = flux * seen[8];
            if (flux < 0 && gained > out[6]) out[6] = gained;
            if (flux > 0 && gained > out[5]) {
                out[5] = gained;
                for (int i = 0; i < 5; i++) out[i] = flux * explained[i];
            }
        }
    left_in(rest, light, root, area, out + 7);
}

int32_t ENTRY(companions)(const Plan *p, int64_t count, const float *params, const float *data, const float *ivar,
                          const float *transfer, int64_t shared, const float *inverse_gain, int32_t fit_sky,
                          const double *width, const double *limits, double *out) {
    size_t side = rounded_up(p->size, VL), area = (size_t)p->size * p->size + 2 * VL;
    Work *w = new_work(p, SLOPES, (COLUMNS + 4) * area + 14 * side * side), *point = new_work(p, SPOT, 0);
    const float *last = NULL;
    for (int64_t i = 0; i < count && w && point; i++, out += 9) {
        const float *one = params + 8 * i, *psf = psf_of(p, transfer, shared, i);
        for (int k = 0; k < 9; k++) out[k] = 0;
        if (!sound(w, one)) continue;
        if (psf != last) split_psf(w, psf), split_psf(point, psf);
        last = psf;
        render(w, one), render(point, one);
        size_t at = i * (size_t)p->size * p->size;
        companion(w, point, one, width[i], data + at, ivar + at, inverse_gain[i], fit_sky, limits, out);
    }
    int done = w && point;
    free(w), free(point);
    return done;
}
