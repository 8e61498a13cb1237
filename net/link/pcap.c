/* `pcap`: a wrapper that writes what passes, both ways, to a capture file (libpcap's format with nanosecond times:
 * magic a1b23c4d, link type 1, Ethernet).
 *
 * Records gather in a buffer that is written when it is full and whenever the stack runs; the descriptor is
 * non-blocking, and what a slow reader cannot take is dropped and counted (rx_dropped of the wrapper), never waited
 * for.
 *
 * One that is not live writes only when its buffer is full and at its end. It never asks to run, so a simulation does the
 * same with it and without it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/link/link.h"

#define BUFFER_BYTES (1 << 20)
#define RECORD_HEADER 16
#define FLUSH_AFTER 100000000 /* ns: who reads along should not wait for traffic */

struct pcap {
    struct wrapper w; /* first */
    int fd;
    uint64_t epoch_offset; /* what makes a link's time a time of day */
    unsigned snaplen;
    bool live;
    size_t used;
    uint64_t oldest; /* when the first record in the buffer was made */
    uint8_t buffer[BUFFER_BYTES];
};

static void flush(struct pcap *c)
{
    size_t done = 0;
    while (done < c->used) {
        ssize_t n = write(c->fd, c->buffer + done, c->used - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    memmove(c->buffer, c->buffer + done, c->used - done);
    c->used -= done;
}

static void put_host32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }

static void record(struct pcap *c, const struct pbuf *p, uint64_t now)
{
    uint32_t len = pbuf_total(p), keep = len < c->snaplen ? len : c->snaplen;
    if (c->used + RECORD_HEADER + keep > BUFFER_BYTES)
        flush(c);
    if (c->used + RECORD_HEADER + keep > BUFFER_BYTES) {
        c->w.link.stats.rx_dropped++;
        return;
    }
    uint8_t *h = c->buffer + c->used;
    if (!c->used)
        c->oldest = now;
    uint64_t wall = now + c->epoch_offset;
    put_host32(h, (uint32_t)(wall / 1000000000));
    put_host32(h + 4, (uint32_t)(wall % 1000000000));
    put_host32(h + 8, keep);
    put_host32(h + 12, len);
    pbuf_copy(p, 0, h + RECORD_HEADER, keep);
    c->used += RECORD_HEADER + keep;
}

static void pcap_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    struct pcap *c = (struct pcap *)l;
    record(c, p, now);
    link_xmit(c->w.inner, p, now);
}

static void pcap_deliver(struct link *inner, struct pbuf *p, uint64_t now)
{
    struct pcap *c = inner->upper;
    record(c, p, now);
    link_deliver(&c->w.link, p, now);
}

static void pcap_run(struct link *l, uint64_t now)
{
    struct pcap *c = (struct pcap *)l;
    c->w.inner->ops->run(c->w.inner, now);
    if (c->used && c->live)
        flush(c);
}

static uint64_t pcap_due(const struct link *l)
{
    const struct pcap *c = (const struct pcap *)l;
    uint64_t due = c->w.inner->ops->due(c->w.inner);
    uint64_t flush_due = c->used && c->live ? c->oldest + FLUSH_AFTER : REACTOR_NEVER;
    return due < flush_due ? due : flush_due;
}

static int pcap_start(struct link *l)
{
    struct pcap *c = (struct pcap *)l;
    return wrapper_start(&c->w, pcap_deliver);
}

static void pcap_free(struct link *l)
{
    struct pcap *c = (struct pcap *)l;
    link_free(c->w.inner);
    flush(c);
    close(c->fd);
    free(c);
}

static const struct link_ops pcap_ops = {pcap_xmit, pcap_run, pcap_due, pcap_start, pcap_free};

int link_new_pcap(struct link **out, struct link *inner, int fd, uint64_t epoch_offset, unsigned snaplen, int live)
{
    struct pcap *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    wrapper_init(&c->w, &pcap_ops, inner);
    c->fd = fd;
    c->epoch_offset = epoch_offset;
    c->snaplen = snaplen;
    c->live = live;
    put_host32(c->buffer, 0xa1b23c4d);
    put_host32(c->buffer + 4, 4 << 16 | 2); /* version 2.4: two 16-bit words, the major first */
    put_host32(c->buffer + 16, snaplen);
    put_host32(c->buffer + 20, 1);
    c->used = 24;
    *out = &c->w.link;
    return 0;
}
