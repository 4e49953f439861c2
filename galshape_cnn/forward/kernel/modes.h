/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Fourier modes of a galaxy, its derivatives, or a point source: pairs of opposite ky. */

typedef struct {
    float g1, g2, two_less, over_norm, first, per_log, last, per_step;
    const float *values, *by_n;
} Shape;

/* The tables at one n, and what the modes need of the shape. */
static Shape shape_of(Work *w, const float *params) {
    const Plan *p = w->plan;
    double n = params[1], at = (log(n) - p->ln_n0) / p->ln_n_step;
    double base = floor(at);
    base = base < 1 ? 1 : base > p->n_knots - 3 ? p->n_knots - 3 : base;
    double t = at - base, u = 1 - t;
    float c[4] = {u * u * u / 6, (3 * t * t * t - 6 * t * t + 4) / 6, (3 * u * u * u - 6 * u * u + 4) / 6,
                  t * t * t / 6};
    double by = 1 / (6 * p->ln_n_step * n);
    float d[4] = {-3 * u * u * by, (9 * t * t - 12 * t) * by, -(9 * u * u - 12 * u) * by, 3 * t * t * by};
    const float *row = p->transform + (size_t)((int)base - 1) * p->k_knots;
    int count = p->k_knots;
    for (int k = 0; k < count; k++) {
        float a = row[k], b = row[k + count], e = row[k + 2 * count], f = row[k + 3 * count];
        w->values[k] = c[0] * a + c[1] * b + c[2] * e + c[3] * f;
        w->by_n[k] = d[0] * a + d[1] * b + d[2] * e + d[3] * f;
    }
    double g1 = params[3], g2 = params[4], norm = 1 - g1 * g1 - g2 * g2;
    Shape s = {g1, g2, 2 - norm, 1 / norm};
    s.first = (log(params[2]) - 0.5 * log(norm) - p->ln_k0) / p->ln_k_step;
    s.per_log = 0.5 / p->ln_k_step;
    s.last = p->k_knots - 2;
    s.per_step = 1 / p->ln_k_step;
    s.values = w->values;
    s.by_n = w->by_n;
    return s;
}

/* F and, where they are wanted, its derivatives by n and ln k. */
INLINE void looked_up(const int slopes, const Shape *s, V form, V *f, V *f_n, V *f_k) {
    V at = log_of(form) * s->per_log + s->first;
    at = smaller(larger(at, splat(1.0f)), splat(s->last));
    VI index = __builtin_convertvector(smaller(at, splat(s->last - 1)), VI);
    V t = at - __builtin_convertvector(index, V), u = 1.0f - t, tt = t * t, uu = u * u;
    V w0 = uu * u * (1 / 6.0f), w3 = tt * t * (1 / 6.0f);
    V w1 = 0.5f * tt * t - tt + 2 / 3.0f, w2 = 0.5f * uu * u - uu + 2 / 3.0f;
    V a[4];
    gather_four(s->values - 1, index, a);
    *f = w0 * a[0] + w1 * a[1] + w2 * a[2] + w3 * a[3];
    if (!slopes) return;
    *f_k = (0.5f * (tt * a[3] - uu * a[0]) + (1.5f * tt - 2.0f * t) * a[1] - (1.5f * uu - 2.0f * u) * a[2]) *
           s->per_step;
    gather_four(s->by_n - 1, index, a);
    *f_n = w0 * a[0] + w1 * a[1] + w2 * a[2] + w3 * a[3];
}

/* Radial functions of each part at modes of one sign of ky. */
INLINE void radial(const int what, const Shape *s, V total, V plus, V cross, V *out) {
    if (what == POINT) {
        out[0] = splat(1.0f);
        return;
    }
    V form = s->two_less * total + 2.0f * (s->g1 * plus + s->g2 * cross);
    form = larger(form, splat(1e-12f));
    V f_k;
    looked_up(what == SLOPES, s, form, out, out + 1, &f_k);
    if (what != SLOPES) return;
    V over = 1.0f / form;
    out[2] = f_k;
    out[3] = (s->g1 * s->over_norm + (s->g1 * total + plus) * over) * f_k;
    out[4] = (s->g2 * s->over_norm + (s->g2 * total + cross) * over) * f_k;
}

/* A vector of pairs of modes: P_r, -P_i, -Q_i, -Q_r of each part, `apart` numbers from each other. */
INLINE void pairs(const int what, const Shape *s, V kx, V ky, V cos_x, V sin_x, V cos_y, V sin_y,
                  const V *psf_r, const V *psf_i, float *out, size_t apart) {
    V total = kx * kx + ky * ky, plus = kx * kx - ky * ky, cross = 2.0f * kx * ky;
    V one[5], two[5];
    radial(what, s, total, plus, cross, one);
    radial(what, s, total, plus, -cross, two);
    V cc = cos_x * cos_y, ss = sin_x * sin_y, sc = sin_x * cos_y, cs = cos_x * sin_y;
    V c1 = cc - ss, s1 = sc + cs, c2 = cc + ss, s2 = sc - cs;
    V r1 = psf_r[0] * c1 + psf_i[0] * s1, i1 = psf_i[0] * c1 - psf_r[0] * s1;
    V r2 = psf_r[1] * c2 + psf_i[1] * s2, i2 = psf_i[1] * c2 - psf_r[1] * s2;
    const int parts = what == SLOPES ? 5 : 1;
#pragma GCC unroll 5
    for (int part = 0; part < parts; part++) {
        float *here = out + 4 * part * apart;
        V pr = one[part] * r1, qr = two[part] * r2, pi = one[part] * i1, qi = two[part] * i2;
        store(here, pr + qr);
        store(here + apart, -(pi + qi));
        store(here + 2 * apart, qi - pi);
        store(here + 3 * apart, qr - pr);
    }
}

/* Real and imaginary parts of a transfer function apart, the modes of kx = 0 by themselves. */
static void split_psf(Work *w, const float *transfer) {
    int K = w->modes;
    for (int sign = 0; sign < 2; sign++)
        for (int k = 0; k < K; k++) {
            const float *row = transfer + 2 * (size_t)(sign * K + k) * K;
            float *r = w->psf_r + (size_t)(sign * K + k) * w->inner;
            float *i = w->psf_i + (size_t)(sign * K + k) * w->inner;
            w->psf0_r[sign * w->height + k] = row[0];
            w->psf0_i[sign * w->height + k] = row[1];
            for (int x = 1; x < K; x++) r[x - 1] = row[2 * x], i[x - 1] = row[2 * x + 1];
        }
}

/* cos and sin of the phases of a centre; in double precision, by the theorem of addition. */
static void phases(const Plan *p, double offset, int first, int count, float *cos_, float *sin_) {
    double step = p->kx[1] * offset, c1 = cos(step), s1 = sin(step), c = 1, s = 0;
    if (first) c = c1, s = s1;
    for (int k = 0; k < count; k++) {
        cos_[k] = c;
        sin_[k] = s;
        double next = c * c1 - s * s1;
        s = s * c1 + c * s1;
        c = next;
    }
}

INLINE void fill_modes(const int what, Work *w, const float *params) {
    int K = w->modes, inner = w->inner, height = w->height;
    double middle = (w->plan->size - 1) * 0.5;
    float *cos_x = w->phase, *sin_x = cos_x + inner, *cos_y = sin_x + inner, *sin_y = cos_y + height;
    phases(w->plan, params[5] - middle, 1, K - 1, cos_x, sin_x);
    phases(w->plan, params[6] - middle, 0, K, cos_y, sin_y);
    Shape s = {0};
    if (what != POINT) s = shape_of(w, params);
    size_t plane = (size_t)K * inner;
    for (int k = 0; k < K; k++) {
        V ky = splat(w->ky[k]), cy = splat(cos_y[k]), sy = splat(sin_y[k]);
        for (int x = 0; x < inner; x += VL) {
            size_t up = (size_t)k * inner + x, down = up + plane;
            V r[2] = {load(w->psf_r + up), load(w->psf_r + down)};
            V i[2] = {load(w->psf_i + up), load(w->psf_i + down)};
            pairs(what, &s, load(w->kx + x), ky, load(cos_x + x), load(sin_x + x), cy, sy, r, i,
                  w->waves + up, plane);
        }
    }
    for (int k = 0; k < height; k += VL) {
        V r[2] = {load(w->psf0_r + k), load(w->psf0_r + height + k)};
        V i[2] = {load(w->psf0_i + k), load(w->psf0_i + height + k)};
        pairs(what, &s, splat(0.0f), load(w->ky + k), splat(1.0f), splat(0.0f), load(cos_y + k),
              load(sin_y + k), r, i, w->axis + k, height);
    }
}
