/* A line: one way of a bad wire. Frames go in, and come out later, fewer, twice, damaged or in another order.
 *
 * Each line has its own stream of choices, drawn from its seed in the order in which frames go in and by nothing else:
 * what happens to the n-th frame that is not shut out depends on the seed and on n, not on the time or on the other
 * direction. How the line is may change while it runs: that holds for what goes in from then on, and what is under way
 * keeps its time. Three more things can be done to it:
 *
 *   blocked  a partition: nothing goes in; what is under way has passed, and arrives
 *   down     a pulled cable: nothing goes in, and what is under way is lost
 *   clogged  nothing comes out before a time, or before it is cleared; then all that is due by then, in its order
 *
 * The digest (net/core/digest.h) is over every frame: when it went in, its bytes, what became of it and when it was to
 * come out; and over every change.
 *
 * Ownership: a line owns the frames that it holds and takes over those that are put in; the pool is its user's. */
#ifndef LIBOS_LINE_H
#define LIBOS_LINE_H

#include <stdbool.h>

#include "net/core/rng.h"
#include "net/link/link.h"

struct held {
    uint64_t due, order;
    struct pbuf *p;
};

struct line {
    struct impairment how;
    struct rng rng;
    bool losing;         /* within a run of losses */
    bool blocked, down;
    uint64_t clogged;    /* until then nothing comes out */
    uint64_t line_free;  /* when the last bit of what is before has left the sender */
    uint64_t last_due;   /* of the frames that keep their order */
    struct held *heap;   /* by time of release; of equals, in the order of arrival */
    unsigned count, room;
    uint64_t bytes;      /* of the frames held */
    uint64_t order;
    uint64_t digest;
    struct line_stats stats;
};

/* salt: the two directions of a wire have one seed and are not alike. */
void line_init(struct line *d, const struct impairment *how, uint64_t salt);
void line_free(struct line *d, struct pbuf_pool *pool); /* pool NULL: it has never held a frame */
/* From now on; the stream of choices goes on. */
void line_change(struct line *d, const struct impairment *how);
void line_block(struct line *d, bool blocked);
void line_set_down(struct line *d, struct pbuf_pool *pool, bool down);
void line_clog(struct line *d, uint64_t until); /* not after now: clear it */
/* Takes p. How many frames found no room (line_stats.dropped grows by as many). */
unsigned line_put(struct line *d, struct pbuf_pool *pool, struct pbuf *p, uint64_t now);
struct pbuf *line_take(struct line *d, uint64_t now); /* the next frame that is due, NULL: none */
void line_stats_of(const struct line *d, struct line_stats *out);

static inline uint64_t line_due(const struct line *d)
{
    if (!d->count)
        return REACTOR_NEVER;
    return d->heap[0].due > d->clogged ? d->heap[0].due : d->clogged;
}

#endif
