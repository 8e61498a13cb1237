/* A link: a network device as the stack sees it. Frames go out through xmit and come up through deliver; both hand the
 * packet over. Wrappers (pcap, impair) are links around another link, so that any device can be traced or made worse.
 *
 * Ownership: the stack owns its outermost link, a wrapper the link inside it; ops->free frees inward. A link allocates
 * received frames from the pool of the stack it is bound to, and frees sent ones into it. */
#ifndef LIBOS_LINK_H
#define LIBOS_LINK_H

#include <stddef.h>
#include <stdint.h>

#include "net/api.h"
#include "net/core/pbuf.h"
#include "sched/reactor.h"

#define LINK_LOOPBACK 0x8000 /* a capability that only loopback has: no neighbours on it */
#define LINK_NOARP 0x4000    /* point to point: whoever has the address, the link knows the way (IFF_NOARP) */

struct link_ops {
    /* Takes p, one frame. */
    void (*xmit)(struct link *l, struct pbuf *p, uint64_t now);
    /* What became due: held frames, queues that had been full. */
    void (*run)(struct link *l, uint64_t now);
    /* When it must run again at the latest, or REACTOR_NEVER. Asked after everything that a run of the stack sends. */
    uint64_t (*due)(const struct link *l);
    /* The link has got its stack (pool, deliver): receiving may begin. 0 or -errno. */
    int (*start)(struct link *l);
    /* Stop; the frames it holds and the link itself are freed. */
    void (*free)(struct link *l);
};

struct link {
    const struct link_ops *ops;
    void (*deliver)(struct link *l, struct pbuf *p, uint64_t now); /* up; takes p */
    void *upper;                                                   /* whose deliver it is */
    struct poller *poller; /* to kick when frames come in from the side */
    struct pbuf_pool *pool;
    unsigned mtu, caps;
    uint8_t mac[6];
    struct link_stats stats;
};

static inline void link_init(struct link *l, const struct link_ops *ops, unsigned mtu, unsigned caps, const uint8_t *mac)
{
    *l = (struct link){.ops = ops, .mtu = mtu, .caps = caps};
    for (int i = 0; i < 6; i++)
        l->mac[i] = mac[i];
}
uint64_t link_never_due(const struct link *l); /* for ops->due of a link that holds nothing */
/* Room that a received frame needs at most. */
static inline uint32_t link_frame_max(const struct link *l)
{
    return l->caps & LINK_LRO ? 65535 + 14 + 4 : l->mtu + 14 + 4;
}

/* Give the link its upper side and let it start. */
int link_bind(struct link *l, struct poller *poller, struct pbuf_pool *pool,
              void (*deliver)(struct link *, struct pbuf *, uint64_t), void *upper);
/* Counted hand-over in either direction. What was left to a device is done here for a link that cannot: a frame
 * that stands for several leaves as these (LINK_TSO), and with its sum (LINK_CSUM). */
void link_xmit(struct link *l, struct pbuf *p, uint64_t now);
void link_deliver(struct link *l, struct pbuf *p, uint64_t now);
/* A frame that could not be sent. */
void link_drop_tx(struct link *l, struct pbuf *p);
/* Fill in a partial checksum, for a link that cannot. */
void link_complete_csum(struct pbuf *p);

/* p, as it arrives from a device without a wire, in the pool of another stack. NULL: there is no room. */
struct pbuf *link_carry(struct pbuf_pool *pool, const struct pbuf *p);

/* A received frame is to be sent on: what its sender left to the device is still to be done (pbuf.h, csum_start). */
void link_unfilled_csum(struct pbuf *p);

/* The link that every stack has to itself. */
int link_new_loopback(struct link **out, unsigned queue);

/* What a wrapper has in common: the same shape as the link inside it. */
struct wrapper {
    struct link link; /* first */
    struct link *inner;
};
void wrapper_init(struct wrapper *w, const struct link_ops *ops, struct link *inner);
int wrapper_start(struct wrapper *w, void (*deliver)(struct link *, struct pbuf *, uint64_t));

#endif
