/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Sources of stamps and their pixels: galshape_cnn.observe.detect.segmentation tells what they are. */

enum { TARGET = 1, UNMODELLED = 255, MOST_NEIGHBOURS = UNMODELLED - TARGET - 1, STEPS = 24 };

typedef struct {
    double segment_height, segment_pixels, least_peak, most_peaks, fewest_clumps, extent, share, ground;
} SceneLimits;

typedef struct {
    float value;
    int32_t age, pixel;
} Flooded;

typedef struct {
    int ny, nx;
    const float *amplitude;
    float *significance, *light;
    int32_t *segments, *pixels, *stack;  /* the second and what follows: one number for each segment, or pixel */
    uint8_t *shows, *divided, *owner, *labels;
    int16_t *markers;
    Flooded *heap;
    double (*radius)[2];
} Scene;

static int nearest_pixel(double a, int side) { return within(rint(a), 0, side - 1); }

static size_t pixel_of(const Scene *s, const double *xy) {
    return (size_t)nearest_pixel(xy[1], s->ny) * s->nx + nearest_pixel(xy[0], s->nx);
}

/* Lowest value along the line between two pixels. */
static float lowest_along(const Scene *s, const double *from, const double *to) {
    float lowest = INFINITY;
    for (int k = 0; k < STEPS; k++) {
        double part = k == STEPS - 1 ? 1 : k * (1.0 / (STEPS - 1));
        double at[2] = {from[0] + part * (to[0] - from[0]), from[1] + part * (to[1] - from[1])};
        float one = s->amplitude[pixel_of(s, at)];
        lowest = one < lowest ? one : lowest;
    }
    return lowest;
}

/* Pixels beside one, those that touch at an edge first; returns their number. */
static int beside(const Scene *s, int32_t pixel, int32_t *out) {
    static const int steps[8][2] = {{-1, 0}, {0, -1}, {0, 1}, {1, 0}, {-1, -1}, {-1, 1}, {1, -1}, {1, 1}};
    int y = pixel / s->nx, x = pixel % s->nx, count = 0;
    for (int k = 0; k < 8; k++) {
        int to_y = y + steps[k][0], to_x = x + steps[k][1];
        if (to_y >= 0 && to_y < s->ny && to_x >= 0 && to_x < s->nx) out[count++] = to_y * s->nx + to_x;
    }
    return count;
}

/* Number the connected pixels above the height; their pixels, and whether a high one is among them. */
static int segments_of(Scene *s, const SceneLimits *limits) {
    int32_t area = s->ny * s->nx, near[8];
    int count = 0;
    memset(s->segments, 0, sizeof(int32_t) * area);
    for (int32_t first = 0; first < area; first++) {
        if (s->segments[first] || !(s->significance[first] > limits->segment_height)) continue;
        int32_t waiting = 1;
        s->segments[first] = ++count, s->pixels[count] = 0, s->shows[count] = 0, s->stack[0] = first;
        while (waiting) {
            int32_t pixel = s->stack[--waiting];
            s->pixels[count]++;
            if (s->significance[pixel] > limits->least_peak) s->shows[count] = 1;
            for (int k = beside(s, pixel, near) - 1; k >= 0; k--)
                if (!s->segments[near[k]] && s->significance[near[k]] > limits->segment_height)
                    s->segments[near[k]] = count, s->stack[waiting++] = near[k];
        }
    }
    return count;
}

static int sooner(Flooded a, Flooded b) { return a.value != b.value ? a.value > b.value : a.age < b.age; }

static void push(Flooded *heap, int32_t count, Flooded one) {
    int32_t at = count;
    for (; at && sooner(one, heap[(at - 1) / 2]); at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = one;
}

static Flooded pop(Flooded *heap, int32_t count) {
    Flooded first = heap[0], last = heap[count - 1];
    int32_t at = 0;
    for (int32_t child; (child = 2 * at + 1) < count - 1; at = child) {
        child += child + 1 < count - 1 && sooner(heap[child + 1], heap[child]);
        if (!sooner(heap[child], last)) break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return first;
}

/* The pixels of one segment to the marker from which they are reached downhill, as scikit-image has it. */
static void flood(Scene *s, int segment) {
    int32_t area = s->ny * s->nx, count = 0, age = 0, near[8];
    for (int32_t i = 0; i < area; i++) {
        if (s->segments[i] != segment) continue;
        s->labels[i] = s->markers[i];
        if (s->markers[i]) {
            Flooded one = {s->significance[i], 0, i};
            push(s->heap, count++, one);
        }
    }
    while (count) {
        int32_t from = pop(s->heap, count--).pixel;
        int number = beside(s, from, near);
        for (int k = 0; k < number; k++) {
            if (s->segments[near[k]] != segment || s->labels[near[k]]) continue;
            Flooded one = {s->significance[near[k]], ++age, near[k]};
            s->labels[near[k]] = s->labels[from];
            push(s->heap, count++, one);
        }
    }
}

/* Segments, divided among the peaks in them. */
static void labelled(Scene *s, int count, const double *center, const double *peaks, int number,
                     const SceneLimits *limits) {
    int32_t area = s->ny * s->nx;
    memset(s->markers, 0, sizeof(int16_t) * area);
    for (int k = 0; k <= number; k++) s->markers[pixel_of(s, k ? peaks + 2 * (k - 1) : center)] = TARGET + k;
    for (int i = 0; i <= count; i++) s->owner[i] = i && s->shows[i] ? UNMODELLED : 0, s->divided[i] = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k <= number; k++) {
            size_t at = pixel_of(s, k ? peaks + 2 * (k - 1) : center);
            if (!pass) s->owner[s->segments[at]] = s->markers[at];
            else if (s->owner[s->segments[at]] != s->markers[at]) s->divided[s->segments[at]] = 1;
        }
    for (int i = 0; i <= count; i++)
        if (!i || s->divided[i] || s->pixels[i] < limits->segment_pixels) s->owner[i] = 0;
    for (int32_t i = 0; i < area; i++) s->labels[i] = s->owner[s->segments[i]];
    for (int i = 1; i <= count; i++)
        if (s->divided[i] && s->pixels[i] >= limits->segment_pixels) flood(s, i);
}

static int by_first(const void *a, const void *b) {
    double one = *(const double *)a, other = *(const double *)b;
    return (one > other) - (one < other);
}

/* Which peaks are clumps of the galaxy; returns their number, zero where they are too few. */
static int own_clumps(Scene *s, const double *center, const double *peaks, int number, const SceneLimits *limits,
                     uint8_t *own) {
    int32_t area = s->ny * s->nx, lit = 0;
    double flux[UNMODELLED] = {0}, total = 0, grown = 0, half = 0;
    uint8_t is_body[UNMODELLED + 1] = {0}, grounded[UNMODELLED] = {0};
    if (number < limits->fewest_clumps || number + 2 > UNMODELLED) return 0;
    double middle[2] = {rint(center[0]), rint(center[1])};
    is_body[TARGET] = 1;
    for (int k = 0; k < number; k++) {
        double at[2] = {rint(peaks[2 * k]), rint(peaks[2 * k + 1])};
        float height = s->amplitude[pixel_of(s, at)];
        grounded[k] = lowest_along(s, at, middle) > (float)limits->ground * height;
        is_body[TARGET + 1 + k] = grounded[k];
    }
    for (int32_t i = 0; i < area; i++) {
        double light = s->amplitude[i] > 0 ? s->amplitude[i] : 0;
        if (s->labels[i] < UNMODELLED) flux[s->labels[i]] += light;
        if (!is_body[s->labels[i]]) continue;
        s->radius[lit][0] = hypot(i % s->nx - center[0], i / s->nx - center[1]), s->radius[lit++][1] = light;
    }
    if (!lit) return 0;
    qsort(s->radius, lit, sizeof *s->radius, by_first);
    for (int32_t i = 0; i < lit; i++) total += s->radius[i][1];
    if (!(total > 0)) return 0;
    for (int32_t i = 0; i < lit && !(grown >= total / 2); i++) grown += s->radius[i][1], half = s->radius[i][0];
    int found = 0;
    for (int k = 0; k < number; k++) {
        double distance = hypot(peaks[2 * k] - center[0], peaks[2 * k + 1] - center[1]);
        own[k] = distance < limits->extent * half && flux[TARGET + 1 + k] < limits->share * total && grounded[k];
        found += own[k];
    }
    return found >= limits->fewest_clumps ? found : 0;
}

/* Of the peaks that were found, the highest first, those that stand apart from each other; their number. */
static int accepted(const Scene *s, const int64_t *found, const float *threshold, int64_t count, int most,
                    double *peaks) {
    int number = 0;
    for (int64_t i = 0; i < count && i < most; i++) {
        double at[2] = {found[2 * i], found[2 * i + 1]};
        float height = s->amplitude[pixel_of(s, at)];
        int stands = 1;
        for (int k = 0; k < number && stands; k++)
            stands = height - lowest_along(s, at, peaks + 2 * k) > threshold[i];
        if (stands) peaks[2 * number] = at[0], peaks[2 * number++ + 1] = at[1];
    }
    return number;
}

/* The same with galaxies that are listed in the stamp, show, and are none of them. */
static int with_listed(const Scene *s, const double *listed, int64_t count, const double *center, double apart,
                       const SceneLimits *limits, int number, double *peaks) {
    for (int64_t i = 0; i < count; i++, listed += 2) {
        double x = rint(listed[0]), y = rint(listed[1]);
        if (!(x >= 0 && x < s->nx && y >= 0 && y < s->ny)) continue;
        if (!(s->significance[(size_t)y * s->nx + (size_t)x] >= limits->segment_height)) continue;
        int is_new = hypot(center[0] - listed[0], center[1] - listed[1]) > apart;
        for (int k = 0; k < number; k++)
            is_new &= hypot(peaks[2 * k] - listed[0], peaks[2 * k + 1] - listed[1]) > apart;
        if (is_new) peaks[2 * number] = listed[0], peaks[2 * number++ + 1] = listed[1];
    }
    return number;
}

/* The nearest first; of equally near ones the first. */
static void sorted_peaks(const double *center, int number, double *peaks) {
    for (int i = 1; i < number; i++) {
        double one[2] = {peaks[2 * i], peaks[2 * i + 1]}, distance = hypot(one[0] - center[0], one[1] - center[1]);
        int to = i;
        for (; to && hypot(peaks[2 * to - 2] - center[0], peaks[2 * to - 1] - center[1]) > distance; to--)
            memcpy(peaks + 2 * to, peaks + 2 * to - 2, 2 * sizeof(double));
        memcpy(peaks + 2 * to, one, sizeof one);
    }
}

/* The peaks but for clumps of the galaxy; what the user listed is another galaxy.  Their number. */
static int without_clumps(Scene *s, const double *center, const int64_t *found, int64_t count, int number,
                          const SceneLimits *limits, double *peaks) {
    uint8_t own[UNMODELLED] = {0};
    int kept = 0;
    if (!own_clumps(s, center, peaks, number, limits, own)) return number;
    for (int k = 0; k < number; k++) {
        int is_found = 0;
        for (int64_t i = 0; i < count && own[k]; i++)
            is_found |= peaks[2 * k] == found[2 * i] && peaks[2 * k + 1] == found[2 * i + 1];
        if (!is_found) peaks[2 * kept] = peaks[2 * k], peaks[2 * kept++ + 1] = peaks[2 * k + 1];
    }
    return kept;
}

static Scene *new_scene(int ny, int nx) {
    size_t area = (size_t)ny * nx, bytes = area + 1;
    Scene *s = malloc(sizeof *s + bytes * (sizeof(double[2]) + sizeof(Flooded) + 4 + 12 + 2 + 3));
    if (!s) return NULL;
    s->ny = ny, s->nx = nx;
    s->radius = (double(*)[2])(s + 1), s->heap = (Flooded *)(s->radius + bytes);
    s->significance = (float *)(s->heap + bytes), s->segments = (int32_t *)(s->significance + area);
    s->pixels = s->segments + area, s->stack = s->pixels + bytes;
    s->markers = (int16_t *)(s->stack + area), s->shows = (uint8_t *)(s->markers + area);
    s->divided = s->shows + bytes, s->owner = s->divided + bytes;
    return s;
}

/* Labels of the pixels and peaks of neighbours (count, most, 2) of each stamp, and their numbers.  `found` and
 * `listed`, x and y, are those from one of `first` to the next; the former the highest first. */
int32_t ENTRY(scenes)(int64_t count, int32_t ny, int32_t nx, const float *amplitude, const float *noise,
                      const double *center, const int64_t *found, const float *threshold,
                      const int64_t *first_found, const double *listed, const int64_t *first_listed,
                      const double *apart, const double *limits_,
                      int64_t most, uint8_t *labels, double *peaks, int64_t *numbers) {
    SceneLimits limits;
    memcpy(&limits, limits_, sizeof limits);
    size_t area = (size_t)ny * nx;
    Scene *s = new_scene(ny, nx);
    if (!s) return 0;
    for (int64_t i = 0; i < count; i++, amplitude += area, noise += area, center += 2, labels += area) {
        const int64_t *own = found + 2 * first_found[i];
        int64_t number = first_found[i + 1] - first_found[i];
        s->amplitude = amplitude, s->labels = labels;
        for (size_t k = 0; k < area; k++) s->significance[k] = noise[k] < INFINITY ? amplitude[k] / noise[k] : 0;
        int k = accepted(s, own, threshold + first_found[i], number, (int)limits.most_peaks, peaks);
        k = with_listed(s, listed + 2 * first_listed[i], first_listed[i + 1] - first_listed[i], center, apart[i],
                        &limits, k, peaks);
        sorted_peaks(center, k, peaks);
        k = k < MOST_NEIGHBOURS ? k : MOST_NEIGHBOURS;
        int segments = segments_of(s, &limits);
        labelled(s, segments, center, peaks, k, &limits);
        int kept = without_clumps(s, center, own, number, k, &limits, peaks);
        if (kept < k) labelled(s, segments, center, peaks, kept, &limits);
        numbers[i] = kept, peaks += 2 * most;
    }
    free(s);
    return 1;
}

/* Pixels within a radius of those marked by one, row by row, then across; `along` has room for them. */
static void grow(uint8_t *mask, int ny, int nx, double radius, uint8_t *along) {
    int most = (int)radius;
    most = most < 254 ? most : 254;
    for (int y = 0; y < ny; y++) {
        const uint8_t *line = mask + (size_t)y * nx;
        uint8_t *out = along + (size_t)y * nx;
        for (int x = 0, last = most + 1; x < nx; x++) {
            last = line[x] ? 0 : last <= most ? last + 1 : most + 1;
            out[x] = last;
        }
        for (int x = nx - 1, last = most + 1; x >= 0; x--) {
            last = line[x] ? 0 : last <= most ? last + 1 : most + 1;
            out[x] = last < out[x] ? last : out[x];
        }
    }
    memset(mask, 0, (size_t)ny * nx);
    for (int y = 0; y < ny; y++)
        for (int from = y > most ? y - most : 0; from < ny && from <= y + most; from++) {
            double half = sqrt(radius * radius - (double)(from - y) * (from - y));
            uint8_t reach = half < most ? (uint8_t)half : most;
            uint8_t *out = mask + (size_t)y * nx;
            const uint8_t *line = along + (size_t)from * nx;
            for (int x = 0; x < nx; x++) out[x] |= line[x] <= reach;
        }
}

/* Pixels of sources that are not wanted, (count, 256) for each label, with a margin, but for those that are and
 * the core of the galaxy. */
int32_t ENTRY(masks)(int64_t count, int32_t ny, int32_t nx, const uint8_t *labels, const uint8_t *wanted,
                     const double *center, const double *margin, double core, uint8_t *out) {
    size_t area = (size_t)ny * nx;
    uint8_t *along = malloc(area);
    if (!along) return 0;
    for (int64_t i = 0; i < count; i++, labels += area, wanted += UNMODELLED + 1, center += 2, out += area) {
        int any = 0;
        for (size_t k = 0; k < area; k++) any |= out[k] = labels[k] > 0 && !wanted[labels[k]];
        if (!any) continue;
        grow(out, ny, nx, margin[i], along);
        for (int y = 0; y < ny; y++)
            for (int x = 0; x < nx; x++) {
                size_t k = (size_t)y * nx + x;
                out[k] &= !wanted[labels[k]] && !(hypot(x - center[0], y - center[1]) <= core);
            }
    }
    free(along);
    return 1;
}

/* Light of a galaxy of unit flux in its stamp, and the part of it on some pixels. */
int32_t ENTRY(light)(const Plan *p, int64_t count, const float *params, const float *transfer, int64_t shared,
                     const uint8_t *pixels, double *out) {
    size_t area = (size_t)p->size * p->size;
    Work *w = new_work(p, UNIT, 0);
    const float *last = NULL;
    for (int64_t i = 0; i < count && w; i++, pixels += area, out += 2) {
        out[0] = out[1] = NAN;
        if (!sound(w, params + 8 * i)) continue;
        use_psf(w, psf_of(p, transfer, shared, i), &last);
        render(w, params + 8 * i);
        out[0] = out[1] = 0;
        for (size_t k = 0; k < area; k++) out[0] += w->image[k], out[1] += pixels[k] ? w->image[k] : 0;
    }
    free(w);
    return w != NULL;
}
