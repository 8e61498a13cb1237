/* `impair`: a wrapper that makes a wire worse, both ways alike: loss, delay with jitter, reordering, duplication, damage, and a
 * rate. Every choice comes from the seed, so a run can be had again.
 *
 * A frame passes in this order: lost? twice? damaged? then it waits its delay (a reordered one goes ahead of those that wait) in a
 * heap by time of release, with the order of arrival between equals. Bounded: what finds the heap full is dropped and counted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/link/link.h"
#include "net/core/rng.h"

struct held {
    uint64_t due, order;
    struct pbuf *p;
};

struct direction {
    struct held *heap;
    unsigned count;
    uint64_t order;
    uint64_t line_free; /* when the line has sent what is before */
};

struct impair {
    struct wrapper w; /* first */
    struct impairment how;
    struct rng rng;
    struct direction out, in;
};

static int earlier(const struct held *a, const struct held *b)
{
    return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void hold(struct direction *d, struct held h)
{
    unsigned i = d->count++;
    for (; i && earlier(&h, &d->heap[(i - 1) / 2]); i = (i - 1) / 2)
        d->heap[i] = d->heap[(i - 1) / 2];
    d->heap[i] = h;
}

static struct pbuf *release(struct direction *d)
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
    return p;
}

static int chance(struct impair *m, uint32_t ppm) { return ppm && rng_below(&m->rng, 1000000) < ppm; }

/* A copy of its own, whatever p shares. */
static struct pbuf *copy_of(struct impair *m, struct pbuf *p)
{
    uint32_t len = pbuf_total(p);
    struct pbuf *c = pbuf_alloc(m->w.link.pool, PBUF_HEADROOM, len);
    if (!c)
        return NULL;
    pbuf_copy(p, 0, pbuf_data(c), len);
    c->len = len;
    c->flags = p->flags;
    c->gso_size = p->gso_size;
    c->csum_start = p->csum_start;
    c->csum_offset = p->csum_offset;
    return c;
}

static void put(struct impair *m, struct direction *d, struct pbuf *p, uint64_t now)
{
    if (d->count >= m->how.queue) {
        m->w.link.stats.tx_dropped += d == &m->out;
        m->w.link.stats.rx_dropped += d == &m->in;
        pbuf_free(m->w.link.pool, p);
        return;
    }
    uint64_t due = now;
    if (m->how.rate_bps) {
        uint64_t start = d->line_free > now ? d->line_free : now;
        due = d->line_free = start + (uint64_t)pbuf_total(p) * 8000000000u / m->how.rate_bps;
    }
    /* A reordered frame skips the delay, as netem does it: it overtakes those that wait. */
    if (!chance(m, m->how.reorder_ppm)) {
        due += m->how.delay_ns;
        if (m->how.jitter_ns)
            due += rng_next(&m->rng) % m->how.jitter_ns;
    }
    hold(d, (struct held){due, d->order++, p});
}

static void pass(struct impair *m, struct direction *d, struct pbuf *p, uint64_t now)
{
    if (chance(m, m->how.loss_ppm)) {
        pbuf_free(m->w.link.pool, p);
        return;
    }
    if (chance(m, m->how.duplicate_ppm)) {
        struct pbuf *twin = copy_of(m, p);
        if (twin)
            put(m, d, twin, now);
    }
    if (chance(m, m->how.corrupt_ppm)) {
        struct pbuf *damaged = copy_of(m, p);
        if (damaged) {
            link_complete_csum(damaged);
            pbuf_data(damaged)[rng_below(&m->rng, damaged->len)] ^= (uint8_t)(1u << rng_below(&m->rng, 8));
            damaged->flags = 0;
            pbuf_free(m->w.link.pool, p);
            p = damaged;
        }
    }
    put(m, d, p, now);
}

static void impair_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    struct impair *m = (struct impair *)l;
    pass(m, &m->out, p, now);
}

static void impair_deliver(struct link *inner, struct pbuf *p, uint64_t now)
{
    struct impair *m = inner->upper;
    pass(m, &m->in, p, now);
}

static void impair_run(struct link *l, uint64_t now)
{
    struct impair *m = (struct impair *)l;
    m->w.inner->ops->run(m->w.inner, now);
    while (m->out.count && m->out.heap[0].due <= now)
        link_xmit(m->w.inner, release(&m->out), now);
    while (m->in.count && m->in.heap[0].due <= now)
        link_deliver(l, release(&m->in), now);
}

static uint64_t impair_due(const struct link *l)
{
    const struct impair *m = (const struct impair *)l;
    uint64_t due = m->w.inner->ops->due(m->w.inner);
    if (m->out.count && m->out.heap[0].due < due)
        due = m->out.heap[0].due;
    if (m->in.count && m->in.heap[0].due < due)
        due = m->in.heap[0].due;
    return due;
}

static int impair_start(struct link *l)
{
    struct impair *m = (struct impair *)l;
    return wrapper_start(&m->w, impair_deliver);
}

static void impair_free(struct link *l)
{
    struct impair *m = (struct impair *)l;
    struct pbuf_pool *pool = l->pool;
    while (pool && m->out.count)
        pbuf_free(pool, release(&m->out));
    while (pool && m->in.count)
        pbuf_free(pool, release(&m->in));
    link_free(m->w.inner);
    free(m->out.heap);
    free(m->in.heap);
    free(m);
}

static const struct link_ops impair_ops = {impair_xmit, impair_run, impair_due, impair_start, impair_free};

int link_new_impair(struct link **out, struct link *inner, const struct impairment *how)
{
    struct impair *m = calloc(1, sizeof *m);
    if (!m)
        return -ENOMEM;
    wrapper_init(&m->w, &impair_ops, inner);
    m->how = *how;
    if (m->how.queue == 0)
        m->how.queue = 1000;
    m->rng.state = how->seed[0] ^ how->seed[1];
    m->out.heap = calloc(m->how.queue, sizeof *m->out.heap);
    m->in.heap = calloc(m->how.queue, sizeof *m->in.heap);
    if (!m->out.heap || !m->in.heap) {
        free(m->out.heap);
        free(m->in.heap);
        free(m);
        return -ENOMEM;
    }
    *out = &m->w.link;
    return 0;
}
