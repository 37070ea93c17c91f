/* What connections send, and how an echo is checked.
 *
 * Every 8-byte word of every stream is different: word number `index` of the stream
 * `id` is a one-to-one mix of the two (an odd multiplier, then high half into low).
 * So a byte lost, doubled, moved, or come from another connection shows.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PATTERN_STEP 0x9E3779B97F4A7C15ull /* odd: multiplying by it loses nothing */
#define PATTERN_INDEX_BITS 38              /* 2 TB a stream, 67 million streams */

static inline uint64_t pattern_state(uint32_t id, uint64_t index) {
    return ((uint64_t)id << PATTERN_INDEX_BITS | index) * PATTERN_STEP;
}

static inline uint64_t pattern_mix(uint64_t state) { return state ^ state >> 32; }

static inline uint8_t pattern_byte(uint32_t id, uint64_t offset) {
    return pattern_mix(pattern_state(id, offset / 8)) >> offset % 8 * 8; /* little-endian, as on the wire below */
}

static void pattern_fill(uint32_t id, uint64_t offset, uint8_t *to, size_t length) {
    size_t at = 0;
    for (; at < length && (offset + at) % 8; at++) to[at] = pattern_byte(id, offset + at);
    uint64_t state = pattern_state(id, (offset + at) / 8);
    for (; at + 8 <= length; at += 8, state += PATTERN_STEP) {
        uint64_t word = pattern_mix(state);
        memcpy(to + at, &word, 8);
    }
    for (; at < length; at++) to[at] = pattern_byte(id, offset + at);
}

/* Where the first wrong byte is, or `length`. */
static size_t pattern_check(uint32_t id, uint64_t offset, const uint8_t *from, size_t length) {
    size_t at = 0;
    for (; at < length && (offset + at) % 8; at++) {
        if (from[at] != pattern_byte(id, offset + at)) return at;
    }
    uint64_t state = pattern_state(id, (offset + at) / 8);
    for (; at + 8 <= length; at += 8, state += PATTERN_STEP) {
        uint64_t word = pattern_mix(state);
        if (memcmp(from + at, &word, 8)) break;
    }
    for (; at < length; at++) {
        if (from[at] != pattern_byte(id, offset + at)) return at;
    }
    return length;
}
