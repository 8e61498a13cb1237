/* The back end that works everywhere: waits in the watch set, reads frames when they are there, writes them at once.
 *
 * sent() is called in the next wait and never from within channel_send(), as with the ring: the owner of a frame has
 * noted that it is under way before it hears that it is gone. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/uio.h>

#include "sched/host.h"

struct epoll_channel {
    struct reader reader; /* first: the set's list of readers is our list of channels */
    unsigned done;
    struct {
        void *cookie;
        int rc;
    } writes[CHANNEL_WRITES];
};

static void report_sent(struct channel *c)
{
    struct epoll_channel *ec = c->impl;
    for (unsigned i = 0; i < ec->done; i++) /* sent() may send more */
        c->ops->sent(c, ec->writes[i].cookie, ec->writes[i].rc);
    ec->done = 0;
}

static int epoll_backend_wait(struct reactor *r, uint64_t ns, uint64_t now, uint64_t *events, unsigned max)
{
    for (struct reader *reader = r->set.readers; reader; reader = reader->next)
        report_sent(reader->channel);
    if (r->set.paused)
        ns = watch_set_resume(&r->set, ns, now);
    uint64_t frames = r->set.frames;
    /* Asks first and blocks only for an answer of none: it is what spinning needs, and a wait that can be had without
     * blocking is no wait. */
    for (uint64_t spun = 0; ns && spun < r->spin_ns; ) {
        int n = watch_set_wait(&r->set, 0, now, events, max);
        if (n || r->set.frames != frames)
            return n;
        spun = reactor_now(r) - now;
        if (spun >= ns)
            return 0;
        if (spun >= r->spin_ns)
            ns -= spun;
    }
    if (ns)
        r->blocked++;
    return watch_set_wait(&r->set, ns, now, events, max);
}

static int epoll_backend_open(struct reactor *r, struct channel *c, unsigned depth)
{
    struct epoll_channel *ec = calloc(1, sizeof *ec);
    if (!ec)
        return -ENOMEM;
    int rc = reader_open(&r->set, &ec->reader, c);
    if (rc < 0)
        free(ec);
    else
        c->impl = ec;
    return rc;
}

static int epoll_backend_send(struct channel *c, const struct iovec *iov, unsigned n, void *cookie)
{
    struct epoll_channel *ec = c->impl;
    if (ec->done == CHANNEL_WRITES)
        return -ENOBUFS;
    ssize_t rc;
    do
        rc = writev(c->fd, iov, (int)n);
    while (rc < 0 && errno == EINTR);
    ec->writes[ec->done].cookie = cookie;
    ec->writes[ec->done++].rc = rc < 0 ? -errno : (int)rc;
    return 0;
}

static void epoll_backend_close(struct channel *c)
{
    struct epoll_channel *ec = c->impl;
    report_sent(c);
    reader_close(&c->reactor->set, &ec->reader);
    free(ec);
}

static void epoll_backend_disown(struct reactor *r) {}
static uint64_t epoll_backend_due(struct reactor *r, uint64_t now) { return watch_set_due(&r->set, now); }
static const struct host_backend *epoll_backend_hosts(struct reactor *r) { return &host_poll_backend; }

static void epoll_backend_free(struct reactor *r) {}

int reactor_new_epoll(struct reactor **out, uint64_t clock_offset)
{
    static const struct backend backend = {
        .kind = "epoll",
        .wait = epoll_backend_wait,
        .open = epoll_backend_open,
        .send = epoll_backend_send,
        .close = epoll_backend_close,
        .disown = epoll_backend_disown,
        .hosts = epoll_backend_hosts,
        .free = epoll_backend_free,
        .due = epoll_backend_due,
    };
    struct reactor *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    int rc = reactor_init(r, &backend, clock_offset);
    if (rc < 0) {
        free(r);
        return rc;
    }
    *out = r;
    return 0;
}
