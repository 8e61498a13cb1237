/* What all links share. See link.h. */
#include "net/link/link.h"

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/link/segment.h"

int link_bind(struct link *l, struct poller *poller, struct pbuf_pool *pool,
              void (*deliver)(struct link *, struct pbuf *, uint64_t), void *upper)
{
    l->poller = poller;
    l->pool = pool;
    l->deliver = deliver;
    l->upper = upper;
    return l->ops->start(l);
}

static void xmit_segments(struct link *l, struct pbuf *p, uint64_t now)
{
    struct pbuf_queue cut = {0};
    if (segment_cut(l->pool, p, &cut) < 0) {
        link_drop_tx(l, p);
        return;
    }
    pbuf_free(l->pool, p);
    while (cut.head)
        link_xmit(l, queue_pop(&cut), now);
}

void link_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    if (p->gso_size && !(l->caps & LINK_TSO)) { /* it came from a link that can do what this one cannot */
        xmit_segments(l, p, now);
        return;
    }
    if (!(l->caps & LINK_CSUM))
        link_complete_csum(p);
    l->stats.tx_packets++;
    l->stats.tx_bytes += pbuf_total(p);
    l->ops->xmit(l, p, now);
}

void link_deliver(struct link *l, struct pbuf *p, uint64_t now)
{
    l->stats.rx_packets++;
    l->stats.rx_bytes += p->len;
    l->deliver(l, p, now);
}

void link_drop_tx(struct link *l, struct pbuf *p)
{
    l->stats.tx_dropped++;
    pbuf_free(l->pool, p);
}

void link_complete_csum(struct pbuf *p)
{
    if (!(p->flags & PBUF_CSUM_PARTIAL))
        return;
    uint8_t *field = pbuf_data(p) + p->csum_start + p->csum_offset;
    uint16_t csum = csum_finish(csum_pbuf(0, p, p->csum_start));
    /* In UDP zero means "none" (RFC 768); in TCP ffff and 0 are the same sum, so this is right for both. */
    put16(field, csum ? csum : 0xffff);
    p->flags &= (uint8_t)~PBUF_CSUM_PARTIAL;
}

struct pbuf *link_carry(struct pbuf_pool *pool, const struct pbuf *p)
{
    struct pbuf *copy = pbuf_duplicate(pool, p);
    if (copy) /* A partial checksum never left this process: nothing can have damaged what it covers. */
        copy->flags = p->flags & PBUF_CSUM_PARTIAL ? PBUF_CSUM_OK : 0;
    return copy;
}

void link_unfilled_csum(struct pbuf *p)
{
    if (p->flags & PBUF_CSUM_OK && p->csum_start)
        p->flags = (uint8_t)((p->flags & ~PBUF_CSUM_OK) | PBUF_CSUM_PARTIAL);
}

uint64_t link_never_due(const struct link *l)
{
    (void)l;
    return REACTOR_NEVER;
}

void link_free(struct link *l) { l->ops->free(l); }

void link_stats(struct link *l, struct link_stats *out) { *out = l->stats; }

unsigned link_mtu(struct link *l) { return l->mtu; }

void wrapper_init(struct wrapper *w, const struct link_ops *ops, struct link *inner)
{
    link_init(&w->link, ops, inner->mtu, inner->caps, inner->mac);
    w->inner = inner;
}

int wrapper_start(struct wrapper *w, void (*deliver)(struct link *, struct pbuf *, uint64_t))
{
    return link_bind(w->inner, w->link.poller, w->link.pool, deliver, w);
}
