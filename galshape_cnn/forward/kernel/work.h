/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Memory of one call, and the matrices of its grid laid out for products. */

enum { NODES = 8 };             /* columns of the sums along y that hold nodes, and kx = 0 in the last */
enum { UNIT, POINT, SLOPES, SPOT };  /* what is rendered; a spot is a point source without derivatives */

typedef struct {
    const Plan *plan;
    int what, parts, images;            /* kinds of modes, and of images */
    int half, rows, columns;            /* size / 2; padded to 4; padded to 2 VL */
    int modes, inner, along, height;    /* K; K - 1 padded; row of the sums along y; K padded */
    float *cos_y, *sin_y, *turned_cos_y, *turned_sin_y;         /* (rows, K) */
    float *cos_t, *sin_t, *turned_cos_t, *turned_sin_t;         /* (K, columns) */
    float *even_x, *odd_x;                                      /* (NODES + inner, columns) */
    float *kx, *ky;                                             /* (inner) without 0, (height) */
    float *values, *by_n;                                       /* (k_knots): the tables at one n */
    float *psf_r, *psf_i, *psf0_r, *psf0_i;                     /* (2, K, inner), (2, height) */
    float *phase;                                               /* cos, sin of x: inner each; of y: height */
    float *waves, *axis;                                        /* modes: (parts, 4, K, inner); of kx = 0 */
    float *axis_sums;                                           /* (4 parts + 8, columns) */
    float *sums;                                                /* (images, 4, rows, along) */
    float *near, *far;                                          /* light at nodes */
    float *image;                                               /* (images, size, size) */
    float *more;                                                /* of whoever uses the images */
} Work;

static float *taken(float **free_, size_t count) {
    float *here = *free_;
    *free_ += (count + 31) / 32 * 32;
    return here;
}

/* Lay out the arrays from an address; returns how many numbers they are. */
static size_t laid_out(Work *w, float *start, size_t more) {
    const Plan *p = w->plan;
    size_t K = w->modes, area = (size_t)p->size * p->size;
    float *at = start;
    w->cos_y = taken(&at, 4 * w->rows * K);
    w->sin_y = w->cos_y + w->rows * K;
    w->turned_cos_y = w->sin_y + w->rows * K;
    w->turned_sin_y = w->turned_cos_y + w->rows * K;
    w->cos_t = taken(&at, 4 * K * w->columns);
    w->sin_t = w->cos_t + K * w->columns;
    w->turned_cos_t = w->sin_t + K * w->columns;
    w->turned_sin_t = w->turned_cos_t + K * w->columns;
    w->even_x = taken(&at, (size_t)w->along * w->columns);
    w->odd_x = taken(&at, (size_t)w->along * w->columns);
    w->kx = taken(&at, w->inner);
    w->ky = taken(&at, w->height);
    w->values = taken(&at, p->k_knots + 4);
    w->by_n = taken(&at, p->k_knots + 4);
    w->psf_r = taken(&at, 2 * K * w->inner);
    w->psf_i = taken(&at, 2 * K * w->inner);
    w->psf0_r = taken(&at, 2 * w->height);
    w->psf0_i = taken(&at, 2 * w->height);
    w->phase = taken(&at, 2 * w->inner + 2 * w->height);
    w->waves = taken(&at, 4 * w->parts * K * w->inner);
    w->axis = taken(&at, (size_t)(4 * w->parts + 8) * w->height);
    w->axis_sums = taken(&at, (size_t)(4 * w->parts + 8) * w->columns);
    w->sums = taken(&at, (size_t)4 * w->images * w->rows * w->along);
    w->near = taken(&at, 7 * NEAR * 16);
    w->far = taken(&at, 7 * FAR * 16);
    w->image = taken(&at, w->images * area + 32);
    w->more = taken(&at, more);
    return at - start;
}

/* Pack the waves: as the plan has them, turned by a quarter for derivatives, and the nodes. */
static void packed(Work *w) {
    const Plan *p = w->plan;
    int K = w->modes, half = w->half;
    for (int k = 1; k < K; k++) w->kx[k - 1] = p->kx[k];
    for (int k = 0; k < K; k++) w->ky[k] = p->kx[k];
    for (int y = 0; y < half; y++)
        for (int k = 0; k < K; k++) {
            float c = p->cos_y[y * K + k], s = p->sin_y[y * K + k], t = p->kx[k];
            w->cos_y[y * K + k] = w->cos_t[k * w->columns + y] = c;
            w->sin_y[y * K + k] = w->sin_t[k * w->columns + y] = s;
            w->turned_cos_y[y * K + k] = w->turned_cos_t[k * w->columns + y] = -c * t;
            w->turned_sin_y[y * K + k] = w->turned_sin_t[k * w->columns + y] = s * t;
        }
    for (int k = 0; k < K; k++) {
        memcpy(w->even_x + (size_t)(NODES - 1 + k) * w->columns, p->cos_x + k * half, 4 * half);
        memcpy(w->odd_x + (size_t)(NODES - 1 + k) * w->columns, p->sin_x + k * half, 4 * half);
    }
    for (int i = 0; i < HALF_NODES; i++)
        for (int x = 0; x < half; x++) {
            w->even_x[i * w->columns + x] = p->even[x * NEAR + i];
            w->odd_x[i * w->columns + x] = p->odd[x * NEAR + i];
        }
}

/* Memory for images of a kind and `more` numbers; NULL where there is none. */
static Work *new_work(const Plan *plan, int what, size_t more) {
    Work shape = {.plan = plan, .what = what}, *w;
    shape.parts = what == SLOPES ? 5 : 1;
    shape.images = what == SLOPES ? 7 : what == POINT ? 3 : 1;
    shape.half = plan->size / 2;
    shape.rows = rounded_up(shape.half, 4);
    shape.columns = rounded_up(shape.half, 2 * VL);
    shape.modes = plan->modes;
    shape.inner = rounded_up(plan->modes - 1, VL);
    shape.along = NODES + shape.inner;
    shape.height = rounded_up(plan->modes, VL);
    size_t count = laid_out(&shape, NULL, more);
    char *memory = calloc(sizeof(Work) + 4 * count + 256, 1);
    if (!memory) return NULL;
    w = (Work *)memory;
    *w = shape;
    laid_out(w, (float *)(((uintptr_t)memory + sizeof(Work) + 127) / 128 * 128), more);
    packed(w);
    return w;
}
