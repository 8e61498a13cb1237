/* The reactor as C below Python sees it: pollers that run once a turn, and channels that carry frames.
 *
 * Ownership: a poller and a channel belong to whoever embeds them; the reactor only links them between attach/open and
 * detach/close, and after close returns it holds no pointer to them and the kernel none to their buffers. */
#ifndef LIBOS_REACTOR_H
#define LIBOS_REACTOR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "sched/api.h"

/* Something that is driven once a turn: a stack with its links. Nothing here may block or call Python. */
struct poller {
    /* Timers up to now, then output. Returns when it must run again at the latest, or REACTOR_NEVER. */
    uint64_t (*run)(struct poller *p, uint64_t now);
    /* Move up to max pending events, as base | socket id << 16 | mask, into out. What is left stays pending. */
    unsigned (*events)(struct poller *p, uint64_t *out, unsigned max);
    struct reactor *reactor; /* while attached */
    uint64_t base;           /* number << 56: the token's high byte, as it stands in an event word */
    uint8_t kicked;          /* set by anyone who gave it work: run it once more before blocking */
    uint8_t asleep;          /* its reactor sleeps (embedded, or in virtual time): who gives it work from outside a turn
                                wakes it */
    uint64_t (*digest)(const struct poller *p); /* of all that passed it; NULL: it keeps none */
    struct poller *next;
};

/* Out of its sleep, if it is embedded (embed.c) or in virtual time (sim.c). The time now. */
uint64_t reactor_wake(struct reactor *r);
static inline void poller_wake(struct poller *p)
{
    if (p->asleep)
        reactor_wake(p->reactor);
}

/* What a loop outside this extension calls: libos._loop, which is given the table's address (reactor_turn_ops). */
struct turn_ops {
    int (*turn)(struct reactor *r, uint64_t timeout, uint64_t *events, unsigned max);
    int (*poll)(struct reactor *r, uint64_t *events, unsigned max);
    uint64_t (*now)(struct reactor *r);
    void (*want)(struct reactor *r, uint64_t when); /* its loop must run by then; virtual time alone asks (sim.c) */
};

/* A descriptor on which one read is one frame and one write is one frame (TAP; packet and datagram sockets). */
struct channel;
struct channel_ops {
    /* A buffer for a frame to come: its address, its length in *len, a name for it in *cookie. NULL: none now. */
    void *(*alloc)(struct channel *c, size_t *len, void **cookie);
    /* A frame of len bytes came, or (len < 0) the buffer comes back unused: -errno. The owner has the buffer again. */
    void (*received)(struct channel *c, void *cookie, int len);
    /* The frame handed to channel_send() is with the kernel (rc >= 0) or lost (-errno). */
    void (*sent)(struct channel *c, void *cookie, int rc);
};
struct channel {
    const struct channel_ops *ops;
    int fd; /* non-blocking */
    struct reactor *reactor;
    void *impl; /* the reactor's own record */
};

/* depth: buffers kept ready for reading (a power of two). */
int channel_open(struct reactor *r, struct channel *c, unsigned depth);
/* iov is copied; the bytes it points to must stay until sent(), which is never called from within. -ENOBUFS: too many
 * are under way, ask again in the next run(). */
int channel_send(struct channel *c, const struct iovec *iov, unsigned n, void *cookie);
/* Waits until the kernel has let go of every buffer; received()/sent() are called for each. */
void channel_close(struct channel *c);

#define CHANNEL_IOV_MAX 36

#endif
