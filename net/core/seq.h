/* TCP sequence numbers: 32 bits that wrap, so they have an order only within half the space (RFC 9293 3.4). A type of
 * their own, so that no one compares two with < . */
#ifndef LIBOS_SEQ_H
#define LIBOS_SEQ_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t v;
} seq_t;

static inline seq_t seq(uint32_t v) { return (seq_t){v}; }
static inline seq_t seq_add(seq_t a, uint32_t n) { return (seq_t){a.v + n}; }
/* a - b, negative when a is before b. */
static inline int32_t seq_diff(seq_t a, seq_t b) { return (int32_t)(a.v - b.v); }
static inline bool seq_lt(seq_t a, seq_t b) { return seq_diff(a, b) < 0; }
static inline bool seq_le(seq_t a, seq_t b) { return seq_diff(a, b) <= 0; }
static inline bool seq_gt(seq_t a, seq_t b) { return seq_diff(a, b) > 0; }
static inline bool seq_ge(seq_t a, seq_t b) { return seq_diff(a, b) >= 0; }
static inline bool seq_eq(seq_t a, seq_t b) { return a.v == b.v; }
static inline seq_t seq_max(seq_t a, seq_t b) { return seq_lt(a, b) ? b : a; }

#endif
