/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Light of periodic copies at Chebyshev nodes, as galshape_cnn.forward.folding has it. */

typedef struct {
    float n, hlr, g1, g2, b, b_n, ln_norm, ln_norm_n;
} Profile;

static Profile profile_of(const Plan *p, const float *params) {
    double n = params[1], at = (log(n) - p->ln_n0) / p->ln_n_step, base = floor(at);
    base = base < 1 ? 1 : base > p->n_knots - 3 ? p->n_knots - 3 : base;
    double t = at - base, u = 1 - t;
    double c[4] = {u * u * u, 3 * t * t * t - 6 * t * t + 4, 3 * u * u * u - 6 * u * u + 4, t * t * t};
    double d[4] = {-3 * u * u, 9 * t * t - 12 * t, -(9 * u * u - 12 * u), 3 * t * t};
    double found[4] = {0};
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 2; i++) {
            double knot = p->profile[2 * ((int)base - 1 + j) + i];
            found[i] += c[j] / 6 * knot;
            found[2 + i] += d[j] / (6 * p->ln_n_step * n) * knot;
        }
    return (Profile){params[1], params[2], params[3], params[4], found[0], found[2], found[1], found[3]};
}

/* The profile and, where they are wanted, its six derivatives, added at a vector of offsets. */
INLINE void add_light(const int slopes, const Profile *q, V dx, V dy, V *sum) {
    float norm = 1 - q->g1 * q->g1 - q->g2 * q->g2, over = 1 / q->n;
    V xx = dx * dx, yy = dy * dy, total = xx + yy, plus = xx - yy, cross = 2.0f * dx * dy;
    V form = larger((2 - norm) * total - 2.0f * (q->g1 * plus + q->g2 * cross), splat(1e-12f));
    V ln_r2 = log_of(form * (1 / (norm * q->hlr * q->hlr)));
    V power = exp_of(ln_r2 * (0.5f * over));
    V value = exp_of(q->ln_norm - q->b * power) * (1 / (q->hlr * q->hlr));
    sum[0] += value;
    if (!slopes) return;
    V scale = 2.0f / form, radial_ = power * (-0.5f * q->b * over), weighted = value * radial_;
    sum[1] += value * (q->ln_norm_n - q->b_n * power - radial_ * ln_r2 * over);
    sum[2] += -2.0f * (value + weighted);
    sum[3] += weighted * (scale * (q->g1 * total - plus) + 2 * q->g1 / norm);
    sum[4] += weighted * (scale * (q->g2 * total - cross) + 2 * q->g2 / norm);
    sum[5] += weighted * (-scale) * ((2 - norm) * dx - 2.0f * (q->g1 * dx + q->g2 * dy));
    sum[6] += weighted * (-scale) * ((2 - norm) * dy - 2.0f * (q->g2 * dx - q->g1 * dy));
}

/* Light of one ring, or of the rings beyond it, at count x count nodes: (7, count, 16). */
INLINE void light_at(const int slopes, const Plan *p, const Profile *q, const float *params, int inner,
                     int outer, int count, const float *nodes, float *out) {
    float side = p->fft_size, x[16] = {0};
    memcpy(x, nodes, 4 * count);
    for (int i = count; i < 16; i++) x[i] = nodes[count - 1];
    for (int row = 0; row < count; row++)
        for (int at = 0; at < count; at += VL) {
            V sum[7] = {{0}}, here = load(x + at) - params[5];
            float there = nodes[row] - params[6];
            for (int j = -outer; j <= outer; j++)
                for (int i = -outer; i <= outer; i++) {
                    if (abs(i) < inner && abs(j) < inner) continue;
                    add_light(slopes, q, here - i * side, splat(there - j * side), sum);
                }
            for (int one = 0; one < (slopes ? 7 : 1); one++)
                store(out + ((size_t)one * count + row) * 16 + at, sum[one]);
        }
}

/* Flux beyond the rings, spread evenly, and its derivatives. */
static void levels_beyond(Work *w, const float *params, float *out) {
    const Plan *p = w->plan;
    double n = params[1], at = (log(n) - p->ln_n0) / p->ln_n_step, base = floor(at);
    base = base < 1 ? 1 : base > p->n_knots - 3 ? p->n_knots - 3 : base;
    double t = at - base, u = 1 - t, by = 1 / (p->ln_n_step * n);
    double c[4] = {u * u * u, 3 * t * t * t - 6 * t * t + 4, 3 * u * u * u - 6 * u * u + 4, t * t * t};
    double d[4] = {-3 * u * u, 9 * t * t - 12 * t, -(9 * u * u - 12 * u), 3 * t * t};
    double g1 = params[3], g2 = params[4], norm = 1 - g1 * g1 - g2 * g2, sum[5] = {0};
    double half_side = (RINGS + 0.5) * p->fft_size;
    for (int i = 0; i < 12; i++) {
        double co = cos(M_PI * (i + 0.5) / 12), si = sin(M_PI * (i + 0.5) / 12);
        double a = (1 + g1) * co + g2 * si, b = g2 * co + (1 - g1) * si, reach, by_g1, by_g2;
        if (fabs(a) > fabs(b)) reach = fabs(a), by_g1 = a < 0 ? -co : co, by_g2 = a < 0 ? -si : si;
        else reach = fabs(b), by_g1 = b < 0 ? si : -si, by_g2 = b < 0 ? -co : co;
        double ln_r = log(half_side * sqrt(norm) / (reach * params[2]));
        double place = (ln_r - p->ln_k0) / p->ln_k_step, last = p->k_knots - 2;
        int clipped = !(place > 1 && place < last);
        place = place > 1 ? (place < last ? place : last) : 1;
        int index = place < last - 1 ? (int)place : (int)(last - 1);
        double v = place - index, m = 1 - v;
        double e[4] = {m * m * m / 6, v * v * v / 2 - v * v + 2 / 3., m * m * m / 2 - m * m + 2 / 3.,
                       v * v * v / 6};
        double s[4] = {-0.5 * m * m, 1.5 * v * v - 2 * v, -(1.5 * m * m - 2 * m), 0.5 * v * v};
        double value = 0, by_n = 0, by_r = 0;
        for (int j = 0; j < 4; j++) {
            const float *row = p->outside + (size_t)((int)base - 1 + j) * p->k_knots + index - 1;
            double along = e[0] * row[0] + e[1] * row[1] + e[2] * row[2] + e[3] * row[3];
            value += c[j] / 6 * along;
            by_n += d[j] / 6 * by * along;
            if (!clipped)
                by_r += c[j] / 6 * (s[0] * row[0] + s[1] * row[1] + s[2] * row[2] + s[3] * row[3]);
        }
        by_r /= p->ln_k_step;
        sum[0] += value;
        sum[1] += by_n;
        sum[2] -= by_r;
        sum[3] += by_r * (-g1 / norm - by_g1 / reach);
        sum[4] += by_r * (-g2 / norm - by_g2 / reach);
    }
    for (int i = 0; i < 5; i++) out[i] = sum[i] / (12.0 * p->fft_size * p->fft_size);
    out[5] = out[6] = 0;
}

/* Add light from far nodes, and a level, to that at near ones. */
static void add_far(const Plan *p, const float *far, float level, float *near) {
    for (int y = 0; y < NEAR; y++) {
        float row[FAR] = {0};
        for (int j = 0; j < FAR; j++)
            for (int i = 0; i < FAR; i++) row[i] += p->between[y * FAR + j] * far[j * 16 + i];
        for (int x = 0; x < NEAR; x++) {
            const float *at = p->between + x * FAR;
            near[y * 16 + x] += level + at[0] * row[0] + at[1] * row[1] + at[2] * row[2] + at[3] * row[3];
        }
    }
}

typedef float Nodes __attribute__((vector_size(4 * NODES)));

/* Write minus the folded light as the nodes' columns of the sums along y of one image. */
static void fold_one(Work *w, const float *near, float light, float *sums) {
    const Plan *p = w->plan;
    for (int parity = 0; parity < 4; parity++) {
        float sign_y = parity & 2 ? -1 : 1, sign_x = parity & 1 ? -1 : 1;
        Nodes part[HALF_NODES] = {{0}};
        const float *weights = parity & 2 ? p->odd : p->even;
        for (int j = 0; j < HALF_NODES; j++)
            for (int i = 0; i < HALF_NODES; i++) {
                const float *top = near + j * 16, *bottom = near + (NEAR - 1 - j) * 16;
                float right = top[i] + sign_y * bottom[i];
                float left = top[NEAR - 1 - i] + sign_y * bottom[NEAR - 1 - i];
                part[j][i] = -light * (right + sign_x * left);
            }
        for (int y = 0; y < w->half; y++) {
            float *row = sums + ((size_t)parity * w->rows + y) * w->along;
            Nodes total = {0};
#pragma GCC unroll 7
            for (int j = 0; j < HALF_NODES; j++) total += weights[y * NEAR + j] * part[j];
            memcpy(row, &total, sizeof total); /* the last is kx = 0, which `sum_axis` writes */
        }
    }
}

INLINE void fold(const int slopes, Work *w, const float *params, float light) {
    const Plan *p = w->plan;
    Profile q = profile_of(p, params);
    float level[7];
    light_at(slopes, p, &q, params, 1, 1, NEAR, p->near, w->near);
    light_at(slopes, p, &q, params, 2, RINGS, FAR, p->far, w->far);
    levels_beyond(w, params, level);
    for (int one = 0; one < (slopes ? 7 : 1); one++) {
        float *near = w->near + (size_t)one * NEAR * 16;
        add_far(p, w->far + (size_t)one * FAR * 16, level[one], near);
        fold_one(w, near, light, w->sums + (size_t)4 * one * w->rows * w->along);
    }
}
