/* `pair`: two link ends in memory; and `loopback`: one end plugged into itself. A frame sent on one end is copied into
 * the other's pool (machines share no memory) and waits, in order, until the other's stack runs.
 *
 * Each end belongs to its own stack. When one goes, the other stays and its frames are dropped, as on a pulled cable.
 * The ends must be driven by one thread. */
#include <errno.h>
#include <stdlib.h>

#include "net/link/link.h"

struct end {
    struct link link; /* first */
    struct end *peer; /* NULL: pulled */
    struct pbuf_queue in;
    unsigned limit;
};

static void end_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    struct end *e = (struct end *)l, *to = e->peer;
    (void)now;
    struct pbuf *copy = to && to->link.pool && to->in.count < to->limit ? link_carry(to->link.pool, p) : NULL;
    if (!copy) {
        link_drop_tx(l, p);
        return;
    }
    pbuf_free(l->pool, p);
    queue_push(&to->in, copy);
    if (to->link.poller) {
        to->link.poller->kicked = 1;
        poller_wake(to->link.poller); /* of another machine, perhaps */
    }
}

static void end_run(struct link *l, uint64_t now)
{
    struct end *e = (struct end *)l;
    /* Only what is here now: what the deliveries provoke has its turn in the next run. */
    for (uint32_t n = e->in.count; n; n--)
        link_deliver(l, queue_pop(&e->in), now);
}

static uint64_t end_due(const struct link *l) { return ((const struct end *)l)->in.count ? 0 : REACTOR_NEVER; }

static int end_start(struct link *l)
{
    (void)l;
    return 0;
}

static void end_free(struct link *l)
{
    struct end *e = (struct end *)l;
    if (e->peer && e->peer != e)
        e->peer->peer = NULL;
    if (l->pool)
        queue_clear(l->pool, &e->in);
    free(e);
}

static const struct link_ops end_ops = {end_xmit, end_run, end_due, end_start, end_free};

int link_new_pair(struct link **a, struct link **b, unsigned mtu, unsigned caps, const uint8_t *mac_a,
                  const uint8_t *mac_b, unsigned queue)
{
    struct end *x = calloc(1, sizeof *x), *y = calloc(1, sizeof *y);
    if (!x || !y) {
        free(x);
        free(y);
        return -ENOMEM;
    }
    link_init(&x->link, &end_ops, mtu, caps, mac_a);
    link_init(&y->link, &end_ops, mtu, caps, mac_b);
    x->peer = y;
    y->peer = x;
    x->limit = y->limit = queue;
    *a = &x->link;
    *b = &y->link;
    return 0;
}

int link_new_loopback(struct link **out, unsigned queue)
{
    static const uint8_t mac[6];
    struct end *e = calloc(1, sizeof *e);
    if (!e)
        return -ENOMEM;
    link_init(&e->link, &end_ops, 65535, LINK_CSUM | LINK_TSO | LINK_LRO | LINK_LOOPBACK, mac);
    e->peer = e;
    e->limit = queue;
    *out = &e->link;
    return 0;
}
