/* A binary heap with back pointers. See timer.h. */
#include "net/core/timer.h"

#include <errno.h>
#include <stdlib.h>

int timer_reserve(struct timer_heap *h, uint32_t timers)
{
    if (timers <= h->cap)
        return 0;
    uint32_t cap = h->cap ? h->cap : 64;
    while (cap < timers)
        cap *= 2;
    struct timer **heap = realloc(h->heap, cap * sizeof *heap);
    if (!heap)
        return -ENOMEM;
    h->heap = heap;
    h->cap = cap;
    return 0;
}

static void place(struct timer_heap *h, uint32_t i, struct timer *t)
{
    h->heap[i] = t;
    t->place = i;
}

static void up(struct timer_heap *h, uint32_t i, struct timer *t)
{
    for (; i && t->due < h->heap[(i - 1) / 2]->due; i = (i - 1) / 2)
        place(h, i, h->heap[(i - 1) / 2]);
    place(h, i, t);
}

static void down(struct timer_heap *h, uint32_t i, struct timer *t)
{
    for (uint32_t child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && h->heap[child + 1]->due < h->heap[child]->due)
            child++;
        if (h->heap[child]->due >= t->due)
            break;
        place(h, i, h->heap[child]);
    }
    place(h, i, t);
}

void timer_at(struct timer_heap *h, struct timer *t, uint64_t due)
{
    if (t->place == TIMER_IDLE) {
        t->due = due;
        up(h, h->count++, t);
    } else if (due < t->due) {
        t->due = due;
        up(h, t->place, t);
    }
}

void timer_cancel(struct timer_heap *h, struct timer *t)
{
    uint32_t i = t->place;
    if (i == TIMER_IDLE)
        return;
    t->place = TIMER_IDLE;
    struct timer *last = h->heap[--h->count];
    if (last == t)
        return;
    if (i && last->due < h->heap[(i - 1) / 2]->due)
        up(h, i, last);
    else
        down(h, i, last);
}

void timer_run(struct timer_heap *h, void *stack, uint64_t now)
{
    while (h->count && h->heap[0]->due <= now) {
        struct timer *t = h->heap[0];
        timer_cancel(h, t);
        t->fire(t, stack, now);
    }
}
