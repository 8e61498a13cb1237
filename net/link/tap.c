/* `tap`: a Linux TAP device with IFF_VNET_HDR: each frame carries a virtio_net_hdr (linux/virtio_net.h, 10 bytes) that
 * says which checksum is still to be filled in and into which segments the frame is to be cut, both ways. So 64 KiB go
 * through one read or write, and no checksum is computed on this side.
 *
 * Buffers to receive into are as large as the largest frame. Small frames are copied out of them, so that a
 * queue of small frames costs small buffers and the large ones stay few and warm in the cache. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/link/link.h"
#include "net/core/wire.h"

#define VNET_HLEN 10
#define VNET_NEEDS_CSUM 1
#define VNET_DATA_VALID 2
#define VNET_GSO_NONE 0
#define VNET_GSO_TCP4 1
#define VNET_GSO_TCP6 4
#define VNET_GSO_ECN 0x80

#define COPY_BELOW 2048
#define RX_DEPTH 64
#define TX_QUEUE 4096
#define RETRY_AFTER 1000000 /* ns */

struct tap {
    struct link link; /* first */
    struct channel channel;
    struct reactor *reactor;
    struct pbuf *spare; /* a receive buffer that came back empty */
    struct pbuf_queue out;
    uint64_t retry; /* when to try again to send them */
};

static struct tap *tap_of(struct channel *c) { return (struct tap *)((char *)c - offsetof(struct tap, channel)); }

static void *tap_alloc(struct channel *c, size_t *len, void **cookie)
{
    struct tap *t = tap_of(c);
    uint32_t room = link_frame_max(&t->link);
    struct pbuf *p = t->spare;
    t->spare = NULL;
    if (!p)
        p = pbuf_alloc(t->link.pool, PBUF_HEADROOM, room);
    if (!p) {
        t->link.stats.rx_dropped++;
        return NULL;
    }
    *cookie = p;
    *len = VNET_HLEN + room;
    return p->base + PBUF_HEADROOM - VNET_HLEN;
}

static void recycle(struct tap *t, struct pbuf *p)
{
    if (t->spare)
        pbuf_free(t->link.pool, p);
    else
        t->spare = p;
}

static uint16_t host16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

static void tap_received(struct channel *c, void *cookie, int len)
{
    struct tap *t = tap_of(c);
    struct pbuf *p = cookie;
    if (len < VNET_HLEN + ETH_HLEN) {
        if (len >= 0)
            t->link.stats.rx_dropped++;
        recycle(t, p);
        return;
    }
    const uint8_t *vnet = p->base + PBUF_HEADROOM - VNET_HLEN;
    uint8_t flags = vnet[0] & (VNET_NEEDS_CSUM | VNET_DATA_VALID) ? PBUF_CSUM_OK : 0;
    uint16_t gso = (vnet[1] & ~VNET_GSO_ECN) != VNET_GSO_NONE ? host16(vnet + 4) : 0;
    p->off = PBUF_HEADROOM;
    p->len = (uint32_t)len - VNET_HLEN;
    if (p->len <= COPY_BELOW) {
        struct pbuf *small = pbuf_alloc(t->link.pool, PBUF_HEADROOM, p->len);
        if (small) {
            memcpy(pbuf_data(small), pbuf_data(p), p->len);
            small->len = p->len;
            recycle(t, p);
            p = small;
        }
    }
    p->flags = flags;
    p->gso_size = gso;
    if (vnet[0] & VNET_NEEDS_CSUM) {
        p->csum_start = host16(vnet + 6);
        p->csum_offset = host16(vnet + 8);
    }
    link_deliver(&t->link, p, reactor_now(t->reactor));
}

static void tap_sent(struct channel *c, void *cookie, int rc)
{
    struct tap *t = tap_of(c);
    if (rc < 0)
        t->link.stats.tx_dropped++;
    pbuf_free(t->link.pool, cookie);
}

static const struct channel_ops tap_channel_ops = {tap_alloc, tap_received, tap_sent};

static void put_vnet(struct pbuf *p)
{
    uint8_t h[VNET_HLEN] = {0};
    if (p->flags & PBUF_CSUM_PARTIAL) {
        h[0] = VNET_NEEDS_CSUM;
        memcpy(h + 6, &p->csum_start, 2);
        memcpy(h + 8, &p->csum_offset, 2);
    }
    if (p->gso_size) {
        const uint8_t *frame = pbuf_data(p);
        uint16_t hdr = (uint16_t)(p->csum_start + (frame[p->csum_start + TCP_OFF] >> 4) * 4);
        h[1] = get16(frame + ETH_TYPE) == ETHERTYPE_IP4 ? VNET_GSO_TCP4 : VNET_GSO_TCP6;
        if (frame[p->csum_start + TCP_FLAGS] & TH_CWR) /* on the first of its segments only */
            h[1] |= VNET_GSO_ECN;
        memcpy(h + 2, &hdr, 2);
        memcpy(h + 4, &p->gso_size, 2);
    }
    memcpy(pbuf_push(p, VNET_HLEN), h, VNET_HLEN);
}

/* -ENOBUFS: not now. */
static int send_frame(struct tap *t, struct pbuf *p)
{
    struct iovec iov[CHANNEL_IOV_MAX];
    unsigned n = 0;
    for (struct pbuf *f = p; f; f = f->frag) {
        if (n == CHANNEL_IOV_MAX)
            return -EMSGSIZE;
        iov[n++] = (struct iovec){pbuf_data(f), f->len};
    }
    return channel_send(&t->channel, iov, n, p);
}

static void send_queued(struct tap *t)
{
    while (t->out.head) {
        int rc = send_frame(t, t->out.head);
        if (rc == -ENOBUFS)
            return;
        struct pbuf *p = queue_pop(&t->out);
        if (rc < 0)
            link_drop_tx(&t->link, p);
    }
}

static void tap_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    struct tap *t = (struct tap *)l;
    (void)now;
    if (t->out.count >= TX_QUEUE) {
        link_drop_tx(l, p);
        return;
    }
    put_vnet(p);
    queue_push(&t->out, p);
    if (t->out.count == 1)
        send_queued(t);
}

static void tap_run(struct link *l, uint64_t now)
{
    struct tap *t = (struct tap *)l;
    send_queued(t);
    t->retry = now + RETRY_AFTER;
}

/* Completions wake the reactor, and with it tap_run(); this is for a descriptor that stays full. */
static uint64_t tap_due(const struct link *l)
{
    const struct tap *t = (const struct tap *)l;
    return t->out.head ? t->retry : REACTOR_NEVER;
}

static int tap_start(struct link *l)
{
    struct tap *t = (struct tap *)l;
    return channel_open(t->reactor, &t->channel, RX_DEPTH);
}

static void tap_free(struct link *l)
{
    struct tap *t = (struct tap *)l;
    if (t->channel.reactor)
        channel_close(&t->channel);
    if (l->pool) {
        pbuf_free(l->pool, t->spare);
        queue_clear(l->pool, &t->out);
    }
    close(t->channel.fd);
    free(t);
}

static const struct link_ops tap_ops = {tap_xmit, tap_run, tap_due, tap_start, tap_free};

int link_new_tap(struct link **out, struct reactor *r, int fd, unsigned mtu, unsigned caps, const uint8_t *mac)
{
    struct tap *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    link_init(&t->link, &tap_ops, mtu, caps, mac);
    t->channel.ops = &tap_channel_ops;
    t->channel.fd = fd;
    t->reactor = r;
    *out = &t->link;
    return 0;
}
