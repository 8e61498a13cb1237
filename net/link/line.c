/* One way of a bad wire. See line.h.
 *
 * A frame passes in this order: shut out? lost? twice? damaged? Then it waits for the line (rate), travels (latency.c; a
 * reordered one takes no time to travel, and so overtakes, as netem has it) and is held in a heap until it is due.
 *
 * Two bounds, and what meets one is dropped and counted: `queue` and `queue_bytes`, the frames held at all, under way
 * included; and `buffer_ns`, what waits for the line, in time: the buffer of a bottleneck, which drops at its tail. The
 * heap grows up to its bound as it is needed: a world has thousands of lines, and most of them hold little. */
#include "net/link/line.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/core/digest.h"
#include "net/link/latency.h"

#define MILLION 1000000
#define QUEUE_DEFAULT 1000
#define HEAP_FIRST 16

/* What the digest is told became of a frame, or of the line. */
enum fate { PASSED, LOST, BLOCKED, DOWN, QUEUE_FULL, BUFFER_FULL, LOST_UNDER_WAY, CHANGED, CLOGGED };

static void take_over(struct line *d, const struct impairment *how)
{
    d->how = *how;
    if (d->how.queue == 0)
        d->how.queue = QUEUE_DEFAULT;
}

void line_init(struct line *d, const struct impairment *how, uint64_t salt)
{
    *d = (struct line){.digest = salt};
    take_over(d, how);
    d->rng.state = how->seed[0] ^ how->seed[1];
    for (; salt; salt--)
        d->rng.state = rng_next(&d->rng);
}

static struct pbuf *pop(struct line *d);

void line_free(struct line *d, struct pbuf_pool *pool)
{
    while (pool && d->count)
        pbuf_free(pool, pop(d));
    free(d->heap);
}

/* --- the digest --------------------------------------------------------------------------------------------------- */

static void note(struct line *d, enum fate fate, uint64_t a, uint64_t b)
{
    d->digest = digest_words(digest_words(d->digest, fate, a), b, 0);
}

/* p went in, and is to come out at `due`, or never. */
static void note_frame(struct line *d, const struct pbuf *p, uint64_t now, enum fate fate, uint64_t due)
{
    uint8_t block[16 * DIGEST_BLOCK];
    note(d, fate, now, due);
    if (!p->frag) {
        d->digest = digest_bytes(d->digest ^ p->len, pbuf_data(p), p->len);
        return;
    }
    uint32_t n, off = 0; /* however it is cut up in memory */
    d->digest ^= pbuf_total(p);
    do {
        n = pbuf_copy(p, off, block, sizeof block);
        d->digest = digest_bytes(d->digest, block, n);
        off += n;
    } while (n == sizeof block);
}

void line_stats_of(const struct line *d, struct line_stats *out)
{
    *out = d->stats;
    out->held = d->count;
    out->held_bytes = d->bytes;
    out->digest = d->digest;
}

/* --- the heap ---------------------------------------------------------------------------------------------------- */

static int earlier(const struct held *a, const struct held *b)
{
    return a->due != b->due ? a->due < b->due : a->order < b->order;
}

/* Is there a place in the heap? */
static bool make_room(struct line *d)
{
    if (d->count < d->room)
        return true;
    unsigned room = d->room ? 2 * d->room : HEAP_FIRST;
    struct held *heap = realloc(d->heap, room * sizeof *heap);
    if (!heap)
        return false;
    d->heap = heap;
    d->room = room;
    return true;
}

static void hold(struct line *d, struct held h)
{
    d->bytes += pbuf_total(h.p);
    unsigned i = d->count++;
    for (; i && earlier(&h, &d->heap[(i - 1) / 2]); i = (i - 1) / 2)
        d->heap[i] = d->heap[(i - 1) / 2];
    d->heap[i] = h;
}

static struct pbuf *pop(struct line *d)
{
    struct pbuf *p = d->heap[0].p;
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
    d->bytes -= pbuf_total(p);
    return p;
}

struct pbuf *line_take(struct line *d, uint64_t now)
{
    if (line_due(d) > now || !d->count)
        return NULL;
    uint64_t late = now - line_due(d);
    struct pbuf *p = pop(d);
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

/* One bit, anywhere in the frame; what its sender left to the device is filled in before, so that a sum can find it. */
static struct pbuf *damaged(struct line *d, struct pbuf_pool *pool, struct pbuf *p)
{
    struct pbuf *c = pbuf_duplicate(pool, p);
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

/* Where p finds no room, if it finds none. */
static enum fate room_for(struct line *d, const struct pbuf *p, uint64_t now)
{
    const struct impairment *how = &d->how;
    if (how->rate_bps && how->buffer_ns && d->line_free > now && d->line_free - now > how->buffer_ns)
        return BUFFER_FULL;
    if (d->count >= how->queue || (how->queue_bytes && d->bytes + pbuf_total(p) > how->queue_bytes) || !make_room(d))
        return QUEUE_FULL;
    return PASSED;
}

static unsigned pass(struct line *d, struct pbuf_pool *pool, struct pbuf *p, uint64_t now)
{
    const struct impairment *how = &d->how;
    bool overtakes = chance(d, how->reorder_ppm);
    uint64_t travel = latency_draw(how, &d->rng);
    enum fate fate = room_for(d, p, now);
    if (fate != PASSED) {
        note_frame(d, p, now, fate, 0);
        d->stats.buffer_full += fate == BUFFER_FULL;
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
    note_frame(d, p, now, PASSED, due);
    hold(d, (struct held){due, d->order++, p});
    return 0;
}

/* It is gone, and no choice was made about it unless it says so. */
static unsigned shut_out(struct line *d, struct pbuf_pool *pool, struct pbuf *p, uint64_t now, enum fate fate,
                         uint64_t *counter)
{
    note_frame(d, p, now, fate, 0);
    (*counter)++;
    pbuf_free(pool, p);
    return 0;
}

unsigned line_put(struct line *d, struct pbuf_pool *pool, struct pbuf *p, uint64_t now)
{
    unsigned dropped = 0;
    d->stats.in_packets++;
    d->stats.in_bytes += pbuf_total(p);
    if (d->down)
        return shut_out(d, pool, p, now, DOWN, &d->stats.down);
    if (d->blocked)
        return shut_out(d, pool, p, now, BLOCKED, &d->stats.blocked);
    if (lost(d))
        return shut_out(d, pool, p, now, LOST, &d->stats.lost);
    struct pbuf *twin = chance(d, d->how.duplicate_ppm) ? pbuf_duplicate(pool, p) : NULL;
    if (twin) {
        d->stats.duplicated++;
        dropped += pass(d, pool, twin, now);
    }
    if (chance(d, d->how.corrupt_ppm))
        p = damaged(d, pool, p);
    return dropped + pass(d, pool, p, now);
}

/* --- while it runs ------------------------------------------------------------------------------------------------ */

void line_change(struct line *d, const struct impairment *how)
{
    take_over(d, how);
    note(d, CHANGED, digest_bytes(0, (const uint8_t *)how, offsetof(struct impairment, seed)), 0);
}

void line_block(struct line *d, bool blocked)
{
    d->blocked = blocked;
    note(d, BLOCKED, blocked, 1);
}

void line_set_down(struct line *d, struct pbuf_pool *pool, bool down)
{
    d->down = down;
    note(d, DOWN, down, 1);
    for (; down && d->count; d->stats.down++) {
        note(d, LOST_UNDER_WAY, d->heap[0].due, d->heap[0].order);
        pbuf_free(pool, pop(d));
    }
}

void line_clog(struct line *d, uint64_t until)
{
    d->clogged = until;
    note(d, CLOGGED, until, 0);
}
