/* A line: one way of a bad wire. Frames go in, and come out later, fewer, twice, damaged or in another order.
 *
 * Each line has its own stream of choices, drawn from its seed in the order in which frames go in and by nothing else:
 * what happens to the n-th frame depends on the seed and on n, not on the time or on the other direction.
 *
 * Ownership: a line owns the frames that it holds and takes over those that are put in; the pool is its user's. */
#ifndef LIBOS_LINE_H
#define LIBOS_LINE_H

#include "net/core/rng.h"
#include "net/link/link.h"

struct held {
    uint64_t due, order;
    struct pbuf *p;
};

struct line {
    struct impairment how;
    struct rng rng;
    uint8_t losing;      /* within a run of losses */
    uint64_t line_free;  /* when the last bit of what is before has left the sender */
    uint64_t last_due;   /* of the frames that keep their order */
    struct held *heap;   /* by time of release; of equals, in the order of arrival */
    unsigned count;
    uint64_t order;
    struct line_stats stats;
};

/* salt: the two directions of a wire have one seed and are not alike. -ENOMEM. */
int line_init(struct line *d, const struct impairment *how, uint64_t salt);
void line_free(struct line *d, struct pbuf_pool *pool); /* pool NULL: it has never held a frame */
/* Takes p. How many frames found no room (line_stats.dropped grows by as many). */
unsigned line_put(struct line *d, struct pbuf_pool *pool, struct pbuf *p, uint64_t now);
struct pbuf *line_take(struct line *d, uint64_t now); /* the next frame that is due, NULL: none */
static inline uint64_t line_due(const struct line *d) { return d->count ? d->heap[0].due : REACTOR_NEVER; }

#endif
