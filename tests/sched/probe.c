#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sched/ring.h"
#include "tests/sched/probe.h"

struct slot {
    uint8_t *data;
    int state; /* 0 free, 1 given out, 2 holds a frame */
    int len;
};

struct probe {
    struct poller poller;
    struct channel channel;
    struct reactor *reactor;
    unsigned buffers, size, granted, to_send;
    struct slot *slots;
    unsigned *order; /* slots with a frame, oldest first */
    uint64_t deadline;
    int event_on_frame;
    unsigned next_event;
    struct probe_counts counts;
};

static struct probe *of(struct channel *c) { return (struct probe *)((char *)c - offsetof(struct probe, channel)); }

static void *probe_alloc(struct channel *c, size_t *len, void **cookie)
{
    struct probe *p = of(c);
    for (unsigned i = 0; p->counts.out < p->granted && i < p->buffers; i++)
        if (p->slots[i].state == 0) {
            p->slots[i].state = 1;
            p->counts.out++;
            *len = p->size;
            *cookie = &p->slots[i];
            return p->slots[i].data;
        }
    return NULL;
}

static void probe_received(struct channel *c, void *cookie, int len)
{
    struct probe *p = of(c);
    struct slot *s = cookie;
    if (s->state != 1)
        abort();
    p->counts.out--;
    if (len < 0) {
        s->state = 0;
        p->counts.returned++;
        p->counts.error = len;
        return;
    }
    s->state = 2;
    s->len = len;
    p->order[p->counts.pending_frames++] = (unsigned)(s - p->slots);
    p->counts.raised += p->event_on_frame != 0;
}

static void probe_sent(struct channel *c, void *cookie, int rc)
{
    struct probe *p = of(c);
    free(cookie);
    p->counts.unanswered--;
    if (rc < 0)
        p->counts.lost++;
    else
        p->counts.sent++;
}

static const struct channel_ops ops = {probe_alloc, probe_received, probe_sent};

static uint64_t probe_run(struct poller *poller, uint64_t now)
{
    struct probe *p = (struct probe *)poller;
    p->counts.runs++;
    p->counts.last_run = now;
    while (p->to_send && probe_send(p, (const uint8_t *)"x", 1, 1) == 0)
        p->to_send--;
    return p->deadline;
}

static unsigned probe_events(struct poller *poller, uint64_t *out, unsigned max)
{
    struct probe *p = (struct probe *)poller;
    unsigned n = 0;
    for (; n < max && p->counts.raised; n++, p->counts.raised--)
        out[n] = poller->base | (uint64_t)(p->event_on_frame ? 7 : p->next_event++) << 16 | EV_READ;
    return n;
}

int probe_new(struct probe **out, struct reactor *r, int fd, unsigned depth, unsigned buffers, unsigned size)
{
    struct probe *p = calloc(1, sizeof *p);
    p->reactor = r;
    p->buffers = p->granted = buffers;
    p->size = size;
    p->slots = calloc(buffers, sizeof *p->slots);
    p->order = calloc(buffers, sizeof *p->order);
    for (unsigned i = 0; i < buffers; i++)
        p->slots[i].data = malloc(size);
    p->deadline = REACTOR_NEVER;
    p->poller.run = probe_run;
    p->poller.events = probe_events;
    p->channel.ops = &ops;
    p->channel.fd = fd;
    int rc = fd >= 0 ? channel_open(r, &p->channel, depth) : 0;
    if (rc >= 0)
        rc = reactor_attach(r, &p->poller);
    *out = p;
    return rc;
}

void probe_close(struct probe *p)
{
    if (p->poller.reactor)
        reactor_detach(p->reactor, &p->poller);
    channel_close(&p->channel);
}

void probe_free(struct probe *p)
{
    for (unsigned i = 0; i < p->buffers; i++)
        free(p->slots[i].data);
    free(p->slots);
    free(p->order);
    free(p);
}

void probe_grant(struct probe *p, unsigned buffers) { p->granted = buffers; }

int probe_send(struct probe *p, const uint8_t *data, unsigned len, unsigned pieces)
{
    uint8_t *copy = malloc(len ? len : 1);
    struct iovec iov[CHANNEL_IOV_MAX + 1];
    memcpy(copy, data, len);
    for (unsigned i = 0, at = 0; i < pieces; i++) {
        unsigned piece = i + 1 == pieces ? len - at : len / pieces;
        iov[i] = (struct iovec){copy + at, piece};
        at += piece;
    }
    int rc = channel_send(&p->channel, iov, pieces, copy);
    if (rc == 0)
        p->counts.unanswered++;
    else
        free(copy);
    return rc;
}

void probe_send_in_run(struct probe *p, unsigned frames) { p->to_send = frames; }

int probe_take(struct probe *p, uint8_t *out, unsigned cap)
{
    if (!p->counts.pending_frames)
        return -EAGAIN;
    struct slot *s = &p->slots[p->order[0]];
    memmove(p->order, p->order + 1, --p->counts.pending_frames * sizeof *p->order);
    unsigned len = (unsigned)s->len < cap ? (unsigned)s->len : cap;
    memcpy(out, s->data, len);
    s->state = 0;
    return s->len;
}

void probe_deadline(struct probe *p, uint64_t at) { p->deadline = at; }
void probe_raise(struct probe *p, unsigned events) { p->counts.raised = events; }
void probe_event_on_frame(struct probe *p, int on) { p->event_on_frame = on; }
void probe_counts(struct probe *p, struct probe_counts *out) { *out = p->counts; }
void probe_without_multishot(struct reactor *r) { ((struct ring_reactor *)r)->multishot = false; }
void probe_without_multishot_receive(struct reactor *r) { ((struct ring_reactor *)r)->recv_multishot = false; }
void probe_without_shared_buffers(struct reactor *r) { ((struct ring_reactor *)r)->incremental = false; }
