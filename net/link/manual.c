/* `manual`: a link whose frames are moved by hand, for tests, fuzzing and whoever brings a wire of their own.
 * Frames sent wait, in order and bounded, until link_drain() takes them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/link/link.h"
#include "net/core/sanitize.h"

struct manual {
    struct link link; /* first */
    struct pbuf_queue out;
    unsigned limit;
};

static void manual_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    struct manual *m = (struct manual *)l;
    (void)now;
    if (m->out.count >= m->limit) {
        link_drop_tx(l, p);
        return;
    }
    queue_push(&m->out, p);
}

static void manual_run(struct link *l, uint64_t now)
{
    (void)l;
    (void)now;
}

static int manual_start(struct link *l)
{
    (void)l;
    return 0;
}

static void manual_free(struct link *l)
{
    struct manual *m = (struct manual *)l;
    if (l->pool)
        queue_clear(l->pool, &m->out);
    free(m);
}

static const struct link_ops manual_ops = {manual_xmit, manual_run, link_never_due, manual_start, manual_free};

int link_new_manual(struct link **out, unsigned mtu, unsigned caps, const uint8_t *mac, unsigned queue)
{
    struct manual *m = calloc(1, sizeof *m);
    if (!m)
        return -ENOMEM;
    link_init(&m->link, &manual_ops, mtu, caps, mac);
    m->limit = queue;
    *out = &m->link;
    return 0;
}

int link_inject(struct link *l, const uint8_t *frame, size_t len, uint64_t now)
{
    if (l->ops != &manual_ops)
        return -EINVAL;
    if (!l->deliver)
        return -ENOTCONN;
    if (len > PBUF_ROOM_MAX)
        return -EMSGSIZE;
    struct pbuf *p = pbuf_alloc(l->pool, PBUF_HEADROOM, (uint32_t)len);
    if (!p)
        return -ENOBUFS;
    memcpy(pbuf_data(p), frame, len);
    p->len = (uint32_t)len;
    /* Under the sanitizer a parser that reads past the frame is caught, though the buffer goes on. */
    memory_poison(p->base + p->off + p->len, p->size - p->off - p->len);
    link_deliver(l, p, now);
    return 0;
}

int64_t link_drain(struct link *l, uint8_t *frame, size_t cap, unsigned *gso)
{
    struct manual *m = (struct manual *)l;
    if (l->ops != &manual_ops)
        return -EINVAL;
    struct pbuf *p = queue_pop(&m->out);
    if (!p)
        return 0;
    uint32_t len = pbuf_total(p);
    *gso = p->gso_size;
    if (len <= cap)
        pbuf_copy(p, 0, frame, len);
    pbuf_free(l->pool, p);
    return len <= cap ? (int64_t)len : -EMSGSIZE;
}
