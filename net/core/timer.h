/* Deadlines of one stack, earliest first: a binary heap of nodes that live in what they time.
 *
 * Lazy by design: a TCP socket has one node for all its timers. Moving a deadline later costs nothing (the node fires
 * early, finds nothing due and is set again); only moving it earlier touches the heap. */
#ifndef LIBOS_TIMER_H
#define LIBOS_TIMER_H

#include <stdint.h>

#define TIMER_IDLE 0xffffffffu

struct timer {
    uint64_t due;
    uint32_t place; /* in the heap, or TIMER_IDLE */
    void (*fire)(struct timer *t, void *stack, uint64_t now);
};

struct timer_heap {
    struct timer **heap;
    uint32_t count, cap;
};

static inline void timer_init(struct timer *t, void (*fire)(struct timer *, void *, uint64_t))
{
    t->due = 0;
    t->place = TIMER_IDLE;
    t->fire = fire;
}
/* Room for `timers` nodes, so that timer_at() cannot fail. 0 or -ENOMEM. */
int timer_reserve(struct timer_heap *h, uint32_t timers);
/* Fire at `due` at the latest: an earlier setting stays. */
void timer_at(struct timer_heap *h, struct timer *t, uint64_t due);
void timer_cancel(struct timer_heap *h, struct timer *t);
/* Fires all that is due. */
void timer_run(struct timer_heap *h, void *stack, uint64_t now);

#endif
