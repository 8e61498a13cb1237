/* Private to sched/: what a reactor is made of, and what a back end (ring.c, epoll.c) fills in.
 *
 * Host descriptors are level-triggered in both back ends, and in both they are the business of one epoll instance, the
 * watch set (watch.c). The epoll back end waits in it; the ring waits on its descriptor like on any other. So a
 * descriptor that its user closes is closed at once (a poll request of a ring would keep the file alive), and a number
 * that is used again is never mistaken for what it was before. */
#ifndef LIBOS_BACKEND_H
#define LIBOS_BACKEND_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "sched/reactor.h"

struct io_uring_sqe;

/* One buffer that a channel's owner gave for a frame to come. */
struct frame_buffer {
    void *data;
    size_t len;
    void *cookie;
};

/* Reads a channel's frames when its descriptor is ready: all of the epoll back end's, and the ring's where the kernel
 * has no multishot read (before Linux 6.7). Lives in the watch set beside the host's descriptors. */
struct reader {
    struct channel *channel;
    struct frame_buffer spare; /* data NULL: none */
    bool in_set;
    uint64_t resume_at; /* while not in the set */
    struct reader *next;
};

struct watch {
    uint32_t generation; /* of the set, when this number was last added */
    uint32_t mask;       /* EV_*; 0: not watched */
};

#define WATCH_BATCH 256 /* events taken from the kernel at once */

struct watch_set {
    int epfd;
    struct watch *table; /* by descriptor */
    unsigned size, count;
    uint32_t generation;
    struct reader *readers;
    unsigned paused;  /* readers not in the epoll set */
    unsigned sockets; /* host sockets in the epoll set: of a struct host_sockets, */
    struct host_sockets *hosts;
    uint64_t frames; /* read so far */
    unsigned rebuilt; /* counts the files that epfd has stood for */
};

int watch_set_init(struct watch_set *set);
void watch_set_free(struct watch_set *set);
int watch_set_change(struct watch_set *set, int fd, unsigned mask);
/* Waits at most ns, lets ready readers read, and stores at most max (1 at least) events of host descriptors. -errno. */
int watch_set_wait(struct watch_set *set, uint64_t ns, uint64_t now, uint64_t *events, unsigned max);
/* Puts paused readers back that may go on; what is left of ns before the others must be tried again. */
uint64_t watch_set_resume(struct watch_set *set, uint64_t ns, uint64_t now);
/* When watch_set_resume() is wanted next. */
uint64_t watch_set_due(const struct watch_set *set, uint64_t now);
/* Wants `mask` instead of `before` for a socket of set->hosts; 0: not in the set. It is open. */
int watch_set_socket(struct watch_set *set, int fd, int64_t id, unsigned before, unsigned mask);
int reader_open(struct watch_set *set, struct reader *reader, struct channel *c);
void reader_close(struct watch_set *set, struct reader *reader);

struct host_sockets;
struct host_backend;

struct backend {
    const char *kind;
    /* Output out, then wait at most ns (0: only look) for frames or descriptors, and store the events of descriptors.
     * Returns their number; -EINTR when the wait ended early for a reason that only Python can see to (a signal). */
    int (*wait)(struct reactor *r, uint64_t ns, uint64_t now, uint64_t *events, unsigned max);
    int (*open)(struct reactor *r, struct channel *c, unsigned depth);
    int (*send)(struct channel *c, const struct iovec *iov, unsigned n, void *cookie);
    void (*close)(struct channel *c);
    /* This process was forked from the reactor's: let go of what both share, without a word to the kernel about it. */
    void (*disown)(struct reactor *r);
    const struct host_backend *(*hosts)(struct reactor *r);
    void (*free)(struct reactor *r);
    /* When wait() must be called again although nothing came: a descriptor that rests, buffers that ran out. */
    uint64_t (*due)(struct reactor *r, uint64_t now);
    /* For what the watch set does not show: the kernel adds to this eventfd when something completes (-1: no more), unless
     * hushed. Loud again: false when there are completions already. NULL: the watch set shows all. */
    int (*tell)(struct reactor *r, int event);
    bool (*hush)(struct reactor *r, bool hush);
    /* Virtual time: its clock, and how it is woken. NULL: the host's. */
    uint64_t (*now)(struct reactor *r);
    void (*wake)(struct reactor *r);
};

struct reactor {
    const struct backend *ops;
    uint64_t clock_offset, spin_ns;
    struct poller *pollers;
    struct watch_set set;
    const volatile unsigned char *home; /* one page: 1 in the process that made the reactor, 0 in those forked from it */
    uint64_t deadline; /* of the pollers, as the last turn left it */
    struct embedding *embedding; /* NULL: the reactor waits by itself */
    unsigned generation; /* counts the rings that tell() must be called for, */
    struct host_sockets *hosts; /* NULL: none */
    bool refused; /* a channel had no room for a frame: its poller must run again soon */
    uint64_t turns, blocked, completions, submissions, events;
    uint64_t restarts, overflows; /* of a ring: made anew; turns in which its completion queue did not suffice */
};

/* The common part of both back ends; the caller has zeroed r. */
int reactor_init(struct reactor *r, const struct backend *ops, uint64_t clock_offset);
/* Whether this is a process that was forked from the reactor's own: see reactor.c. At every door to the kernel. */
bool reactor_disowned(struct reactor *r);
/* Tells the pollers that giving them work must wake the reactor, or need not any more. */
void reactor_set_asleep(struct reactor *r, bool asleep);

#define CHANNEL_WRITES 512              /* frames under way to the kernel, for each channel */
#define CHANNEL_PAUSE_NS 10000000ull    /* before a descriptor that failed is read again */
#define CHANNEL_STARVED_NS 1000000ull   /* before an owner that had no buffer is asked again */

static inline uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

#endif
