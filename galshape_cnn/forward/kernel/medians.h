/* Licensed under a 3-clause BSD style license - see LICENSE.rst */
/* Medians of rows: galshape_cnn.forward.medians tells of what. */

/* Numbers as whole numbers of the same order. */
INLINE int32_t key_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

INLINE float number_of(int32_t key) {
    int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

enum { AT_ONCE = 4 * VL };

/* How many keys of a multiple of AT_ONCE are not above a limit. */
static int64_t up_to(const int32_t *keys, int64_t padded, int32_t limit) {
    VI count[4] = {{0}}, most = {0};
    most += limit;
    for (int64_t i = 0; i < padded; i += AT_ONCE)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) count[k] -= *(const VI *)(keys + i + k * VL) <= most;
    VI all = (count[0] + count[1]) + (count[2] + count[3]);
    int64_t total = 0;
    for (int i = 0; i < VL; i++) total += all[i];
    return total;
}

/* The lowest key above another. */
static int32_t next_of(const int32_t *keys, int64_t padded, int32_t key) {
    VI best = {0}, least = {0};
    best += INT32_MAX, least += key;
    for (int64_t i = 0; i < padded; i += VL) {
        VI some = *(const VI *)(keys + i), better = (some > least) & (some < best);
        best = (better & some) | (~better & best);
    }
    int32_t found = best[0];
    for (int i = 1; i < VL; i++) found = best[i] < found ? best[i] : found;
    return found;
}

/* The key of a rank among those padded with the largest: halving the range needs no branch for each, until there is
 * one key in it. */
static int32_t of_rank(const int32_t *keys, int64_t padded, int64_t rank) {
    int64_t low = INT32_MIN, high = INT32_MAX, below = 0, most = padded;
    while (low < high && most - below > 1) {
        int64_t middle = low + (high - low) / 2, count = up_to(keys, padded, (int32_t)middle);
        if (count > rank) high = middle, most = count;
        else low = middle + 1, below = count;
    }
    if (low == high) return (int32_t)low;
    return next_of(keys, padded, (int32_t)(low > INT32_MIN ? low - 1 : low));
}

/* Room for the keys of so many numbers. */
static int32_t *room_for_keys(int64_t number) {
    return aligned_alloc(sizeof(VI), (4 * (size_t)number / sizeof(VI) + 5) * sizeof(VI));
}

/* Median of keys, or of an even number of them the lower one in the middle unless the mean of both is wanted. */
static float median_of(int32_t *keys, int64_t used, int of_both) {
    int64_t padded = (used + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
    for (int64_t i = used; i < padded; i++) keys[i] = INT32_MAX;
    int32_t low = of_rank(keys, padded, (used - 1) / 2);
    if (!of_both || used % 2 || up_to(keys, padded, low) > used / 2) return number_of(low);
    return (number_of(low) + number_of(next_of(keys, padded, low))) / 2;
}

/* Of each row of `number` values the median; of those that are not all `good` the lower of the two in the middle,
 * and NaN for fewer than `fewest`. */
int32_t ENTRY(medians)(int64_t count, int64_t number, int64_t fewest, const float *values, const uint8_t *good,
                       float *out) {
    int32_t *keys = room_for_keys(number);
    if (!keys) return 0;
    for (int64_t n = 0; n < count; n++, values += number) {
        int64_t used = 0;
        if (good && memchr(good + n * number, 0, number))
            for (int64_t i = 0; i < number; i++)
                keys[used] = key_of(values[i]), used += good[n * number + i];
        else
            for (; used < number; used++) keys[used] = key_of(values[used]);
        int whole = used == number;
        out[n] = !used || (!whole && used < fewest) ? NAN : median_of(keys, used, whole);
    }
    free(keys);
    return 1;
}
