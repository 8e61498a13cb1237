/* One way of a bad wire. See line.h.
 *
 * A frame passes in this order: lost? twice? damaged? Then it waits for the line (rate), travels (delay with jitter; a
 * reordered one takes no time to travel, and so overtakes, as netem has it) and is held in a heap until it is due.
 *
 * Two bounds, and what meets one is dropped and counted: `queue`, the frames held at all, under way included; and
 * `buffer_ns`, what waits for the line, in time: the buffer of a bottleneck, which drops at its tail. */
#include "net/link/line.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>


#define MILLION 1000000
#define QUEUE_DEFAULT 1000

int line_init(struct line *d, const struct impairment *how, uint64_t salt)
{
    *d = (struct line){.how = *how};
    if (d->how.queue == 0)
        d->how.queue = QUEUE_DEFAULT;
    d->rng.state = how->seed[0] ^ how->seed[1];
    for (; salt; salt--)
        d->rng.state = rng_next(&d->rng);
    d->heap = calloc(d->how.queue, sizeof *d->heap);
    return d->heap ? 0 : -ENOMEM;
}

void line_free(struct line *d, struct pbuf_pool *pool)
{
    for (struct pbuf *p; pool && (p = line_take(d, REACTOR_NEVER));)
        pbuf_free(pool, p);
    free(d->heap);
}

/* --- the heap ---------------------------------------------------------------------------------------------------- */

static int earlier(const struct held *a, const struct held *b)
{
    return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void hold(struct line *d, struct held h)
{
    unsigned i = d->count++;
    for (; i && earlier(&h, &d->heap[(i - 1) / 2]); i = (i - 1) / 2)
        d->heap[i] = d->heap[(i - 1) / 2];
    d->heap[i] = h;
}

struct pbuf *line_take(struct line *d, uint64_t now)
{
    if (!d->count || d->heap[0].due > now)
        return NULL;
    struct pbuf *p = d->heap[0].p;
    uint64_t late = now - d->heap[0].due;
    struct held last = d->heap[--d->count];
    unsigned i = 0;
    for (unsigned child; (child = 2 * i + 1) < d->count; i = child) {
        if (child + 1 < d->count && earlier(&d->heap[child + 1], &d->heap[child]))
            child++;
        if (!earlier(&d->heap[child], &last))
            break;
        d->heap[i] = d->heap[child];
    }
    d->heap[i] = last;
    d->stats.late_ns += late;
    if (late > d->stats.latest_ns)
        d->stats.latest_ns = late;
    d->stats.out_packets++;
    d->stats.out_bytes += pbuf_total(p);
    return p;
}

/* --- choices ----------------------------------------------------------------------------------------------------- */

static int chance(struct line *d, uint32_t ppm) { return ppm && rng_below(&d->rng, MILLION) < ppm; }

/* Independent losses; or, with `burst`, the two states of Gilbert (1960): runs of losses of that mean length, so far
 * apart that the share of lost frames is the same. */
static int lost(struct line *d)
{
    const struct impairment *how = &d->how;
    if (!how->burst || !how->loss_ppm)
        return chance(d, how->loss_ppm);
    uint64_t leave = MILLION / how->burst, all = how->loss_ppm >= MILLION;
    uint64_t enter = all ? MILLION : leave * how->loss_ppm / (MILLION - how->loss_ppm);
    uint64_t draw = rng_below(&d->rng, MILLION);
    d->losing = d->losing ? all || draw >= leave : draw < enter;
    return d->losing;
}

/* A copy of its own, whatever p shares. */
static struct pbuf *copy_of(struct pbuf_pool *pool, struct pbuf *p)
{
    uint32_t len = pbuf_total(p);
    struct pbuf *c = pbuf_alloc(pool, PBUF_HEADROOM, len);
    if (!c)
        return NULL;
    pbuf_copy(p, 0, pbuf_data(c), len);
    c->len = len;
    pbuf_copy_offloads(c, p);
    return c;
}

/* One bit, anywhere in the frame; what its sender left to the device is filled in before, so that a sum can find it. */
static struct pbuf *damaged(struct line *d, struct pbuf_pool *pool, struct pbuf *p)
{
    struct pbuf *c = copy_of(pool, p);
    uint32_t where = rng_below(&d->rng, pbuf_total(p));
    uint8_t bit = (uint8_t)(1u << rng_below(&d->rng, 8));
    if (!c)
        return p;
    pbuf_free(pool, p);
    link_unfilled_csum(c);
    link_complete_csum(c);
    pbuf_data(c)[where] ^= bit;
    c->flags = 0;
    d->stats.corrupted++;
    return c;
}

/* --- a frame's way ------------------------------------------------------------------------------------------------ */

/* When its last bit has left. The line may have saved up credit while it was idle: a token bucket of bucket_ns. */
static uint64_t through_line(struct line *d, uint32_t bytes, uint64_t now)
{
    uint64_t earliest = now - (now < d->how.bucket_ns ? now : d->how.bucket_ns);
    uint64_t start = d->line_free > earliest ? d->line_free : earliest;
    d->line_free = start + (uint64_t)bytes * 8000000000u / d->how.rate_bps;
    return d->line_free > now ? d->line_free : now;
}

static unsigned pass(struct line *d, struct pbuf_pool *pool, struct pbuf *p, uint64_t now)
{
    const struct impairment *how = &d->how;
    int overtakes = chance(d, how->reorder_ppm);
    uint64_t travel = how->delay_ns + (how->jitter_ns ? rng_next(&d->rng) % how->jitter_ns : 0);
    int full = how->rate_bps && how->buffer_ns && d->line_free > now && d->line_free - now > how->buffer_ns;
    if (full || d->count >= how->queue) {
        d->stats.dropped++;
        pbuf_free(pool, p);
        return 1;
    }
    uint64_t due = how->rate_bps ? through_line(d, pbuf_total(p), now) : now;
    if (overtakes) {
        d->stats.reordered++;
    } else {
        due += travel;
        if (how->flags & IMPAIR_KEEP_ORDER && due < d->last_due)
            due = d->last_due;
        d->last_due = due;
    }
    hold(d, (struct held){due, d->order++, p});
    return 0;
}

unsigned line_put(struct line *d, struct pbuf_pool *pool, struct pbuf *p, uint64_t now)
{
    unsigned dropped = 0;
    d->stats.in_packets++;
    d->stats.in_bytes += pbuf_total(p);
    if (lost(d)) {
        d->stats.lost++;
        pbuf_free(pool, p);
        return 0;
    }
    struct pbuf *twin = chance(d, d->how.duplicate_ppm) ? copy_of(pool, p) : NULL;
    if (twin) {
        d->stats.duplicated++;
        dropped += pass(d, pool, twin, now);
    }
    if (chance(d, d->how.corrupt_ppm))
        p = damaged(d, pool, p);
    return dropped + pass(d, pool, p, now);
}
