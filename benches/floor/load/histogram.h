/* A log-linear histogram of nanoseconds: exact to 64, then 64 steps to each doubling,
 * so a value read back is within 0.8 % of the truth. The maximum is kept exactly. */
#pragma once
#include <stdint.h>

enum { HISTOGRAM_STEPS = 64, HISTOGRAM_BUCKETS = 59 * HISTOGRAM_STEPS };

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total, max;
};

static inline void histogram_add(struct histogram *histogram, uint64_t value) {
    /* How often the value is halved to fall below 128; it then is 64..127, unless it was below 64. */
    unsigned shift = 57 - __builtin_clzll(value | HISTOGRAM_STEPS);
    histogram->counts[shift * HISTOGRAM_STEPS + (value >> shift)]++;
    histogram->total++;
    if (value > histogram->max) histogram->max = value;
}

static double histogram_quantile(const struct histogram *histogram, double quantile) {
    uint64_t rank = (uint64_t)(quantile * histogram->total), seen = 0;
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen <= rank) continue;
        if (bucket < 2 * HISTOGRAM_STEPS) return bucket;
        unsigned shift = bucket / HISTOGRAM_STEPS - 1;
        double width = (double)(1ull << shift);
        double middle = (bucket - shift * HISTOGRAM_STEPS) * width + width / 2;
        return middle < histogram->max ? middle : histogram->max;
    }
    return histogram->max;
}
