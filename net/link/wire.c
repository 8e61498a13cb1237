/* A wire: two links joined; what arrives on one leaves by the other, each way through a line of its own (line.h).
 *
 * It is a poller, like a stack: attached to a reactor it runs in real time without any Python, and by hand (wire_run)
 * on a virtual clock. Frames pass as they are, with the offload notes that their senders gave them; what a TAP left to
 * the device to sum up reaches the other TAP with the same request.
 *
 * Ownership: the wire owns both links and the one pool that frames live in. Bounded: by the pool, and by each line. */
#include <errno.h>
#include <stdlib.h>

#include "net/link/line.h"
#include "net/link/link.h"

struct wire {
    struct poller poller; /* first */
    struct pbuf_pool pool;
    struct link *ends[2];
    struct line lines[2]; /* [i]: from end i to the other */
};

static void wire_deliver(struct link *from, struct pbuf *p, uint64_t now)
{
    struct wire *w = from->upper;
    link_unfilled_csum(p);
    line_put(&w->lines[from == w->ends[1]], &w->pool, p, now);
    w->poller.kicked = 1; /* what is not held must leave at once */
}

uint64_t wire_run(struct wire *w, uint64_t now)
{
    uint64_t next = REACTOR_NEVER;
    for (int i = 0; i < 2; i++)
        w->ends[i]->ops->run(w->ends[i], now);
    for (int i = 0; i < 2; i++)
        for (struct pbuf *p; (p = line_take(&w->lines[i], now));)
            link_xmit(w->ends[!i], p, now);
    for (int i = 0; i < 2; i++) {
        uint64_t held = line_due(&w->lines[i]), link = w->ends[i]->ops->due(w->ends[i]);
        if (held < next)
            next = held;
        if (link < next)
            next = link;
    }
    return next;
}

static uint64_t poller_run(struct poller *p, uint64_t now) { return wire_run((struct wire *)p, now); }

static unsigned poller_events(struct poller *p, uint64_t *out, unsigned max)
{
    (void)p, (void)out, (void)max;
    return 0;
}

static uint64_t poller_digest(const struct poller *p)
{
    const struct wire *w = (const struct wire *)p;
    return w->lines[0].digest ^ (w->lines[1].digest << 32 | w->lines[1].digest >> 32);
}

static void free_rest(struct wire *w)
{
    for (int i = 0; i < 2; i++)
        line_free(&w->lines[i], w->pool.map ? &w->pool : NULL);
    pbuf_pool_free(&w->pool);
    free(w);
}

int wire_new(struct wire **out, struct link *a, struct link *b, const struct impairment *a_to_b,
             const struct impairment *b_to_a, uint64_t memory)
{
    struct wire *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->poller.run = poller_run;
    w->poller.events = poller_events;
    w->poller.digest = poller_digest;
    w->ends[0] = a;
    w->ends[1] = b;
    line_init(&w->lines[0], a_to_b, 0);
    line_init(&w->lines[1], b_to_a, 1);
    int rc = pbuf_pool_init(&w->pool, memory);
    if (rc < 0) {
        free_rest(w);
        return rc;
    }
    *out = w;
    return 0;
}

int wire_start(struct wire *w)
{
    for (int i = 0; i < 2; i++) {
        int rc = link_bind(w->ends[i], &w->poller, &w->pool, wire_deliver, w);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int wire_replug(struct wire *w, int end, struct link *l)
{
    link_free(w->ends[end]); /* with what waited there */
    w->ends[end] = l;
    return link_bind(l, &w->poller, &w->pool, wire_deliver, w);
}

void wire_free(struct wire *w)
{
    for (int i = 0; i < 2; i++)
        link_free(w->ends[i]);
    free_rest(w);
}

struct poller *wire_poller(struct wire *w) { return &w->poller; }

void wire_stats(struct wire *w, int from, struct line_stats *out)
{
    line_stats_of(&w->lines[from], out);
    out->refused = w->ends[!from]->stats.tx_dropped + w->ends[from]->stats.rx_dropped;
}

/* --- while it runs --- */

/* When it must run again may be another time now. */
static void kick(struct wire *w)
{
    w->poller.kicked = 1;
    poller_wake(&w->poller);
}

void wire_impair(struct wire *w, int from, const struct impairment *how) { line_change(&w->lines[from], how); }

void wire_block(struct wire *w, int from, int blocked) { line_block(&w->lines[from], blocked); }

void wire_clog(struct wire *w, int from, uint64_t until)
{
    line_clog(&w->lines[from], until);
    kick(w);
}

void wire_set_down(struct wire *w, int down)
{
    for (int i = 0; i < 2; i++)
        line_set_down(&w->lines[i], &w->pool, down);
    kick(w);
}
