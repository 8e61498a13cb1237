/* The reactor: one turn of a machine's loop, whichever back end it waits in.
 *
 * A turn goes round in C until there is something for Python, the time is up, or a signal came:
 *
 *     pollers run (timers, then the output of what was written since) -> wait -> frames in -> events out
 *
 * What Python wrote leaves before the wait. Frames that arrive raise events, and these go up before the pollers run
 * again: so Python's answers carry the acknowledgements, and a bare ACK goes out only when there is no answer.
 *
 * Ownership: see reactor.h. Nothing here is static; a reactor is used by one thread at a time.
 *
 * Forks. A child inherits the ring and the epoll instance, and both are the parent's too: whatever the child did to them
 * would happen to the parent. So in a child a reactor is dead: it lets go of its descriptors when it is first touched,
 * does nothing more, and is freed as usual. It knows by a page that the kernel wipes in children (MADV_WIPEONFORK), for
 * a byte is cheaper to ask than getpid(2). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "sched/backend.h"

#define POLLER_SHIFT 56 /* in an event: the poller's number (1 to 255), 40 bits of socket id, 16 of mask */
#define POLLERS_MAX 255
#define HOME_SIZE 1 /* a page */

int reactor_init(struct reactor *r, const struct backend *ops, uint64_t clock_offset)
{
    r->ops = ops;
    r->clock_offset = clock_offset;
    int rc = watch_set_init(&r->set);
    if (rc < 0)
        return rc;
    unsigned char *home = mmap(NULL, HOME_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (home == MAP_FAILED) {
        watch_set_free(&r->set);
        return -ENOMEM;
    }
    madvise(home, HOME_SIZE, MADV_WIPEONFORK); /* refused before Linux 4.14 */
    *home = 1;
    r->home = home;
    return 0;
}

bool reactor_disowned(struct reactor *r)
{
    if (!r->home || *r->home)
        return false;
    if (r->set.epfd >= 0) {
        r->ops->disown(r);
        close(r->set.epfd);
        r->set.epfd = -1;
    }
    return true;
}

void reactor_free(struct reactor *r)
{
    reactor_disowned(r);
    reactor_unembed(r);
    r->ops->free(r); /* the sockets of the host are gone before */
    watch_set_free(&r->set);
    if (r->home)
        munmap((void *)r->home, HOME_SIZE);
    free(r);
}

uint64_t reactor_now(struct reactor *r)
{
    if (r->ops->now)
        return r->ops->now(r);
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec + r->clock_offset;
}

void reactor_set_spin(struct reactor *r, uint64_t ns) { r->spin_ns = ns; }

const char *reactor_kind(struct reactor *r) { return r->ops->kind; }

void reactor_counters(struct reactor *r, uint64_t *out)
{
    out[0] = r->turns;
    out[1] = r->blocked;
    out[2] = r->completions + r->set.frames;
    out[3] = r->submissions;
    out[4] = r->events;
    out[5] = r->restarts;
    out[6] = r->overflows;
}

int reactor_inherited(struct reactor *r) { return reactor_disowned(r); }

int reactor_watch(struct reactor *r, int fd, unsigned mask)
{
    if (reactor_disowned(r) && mask)
        return -ESTALE;
    if (r->set.epfd < 0)
        return mask ? -EOPNOTSUPP : 0;
    return watch_set_change(&r->set, fd, mask);
}

int reactor_attach(struct reactor *r, struct poller *p)
{
    if (p->reactor)
        return -EBUSY;
    /* The list is in the order of numbers; take the first gap. */
    struct poller **at = &r->pollers;
    unsigned number = 1;
    while (*at && (*at)->base >> POLLER_SHIFT == number) {
        at = &(*at)->next;
        number++;
    }
    if (number > POLLERS_MAX)
        return -ENOSPC;
    p->reactor = r;
    p->base = (uint64_t)number << POLLER_SHIFT;
    p->next = *at;
    *at = p;
    if (r->ops->wake)
        r->ops->wake(r); /* its deadline is not known yet */
    return (int)number;
}

void reactor_set_asleep(struct reactor *r, bool asleep)
{
    for (struct poller *p = r->pollers; p; p = p->next)
        p->asleep = asleep;
}

int reactor_detach(struct reactor *r, struct poller *p)
{
    struct poller **at = &r->pollers;
    while (*at && *at != p)
        at = &(*at)->next;
    if (!*at)
        return -ENOENT;
    *at = p->next;
    p->next = NULL;
    p->asleep = 0;
    p->reactor = NULL;
    return 0;
}

static unsigned collect(struct reactor *r, uint64_t *events, unsigned max)
{
    unsigned n = 0;
    for (struct poller *p = r->pollers; p && n < max; p = p->next)
        n += p->events(p, events + n, max - n);
    return n;
}

/* One pass; when anyone has to run next. */
static uint64_t run(struct reactor *r, uint64_t now)
{
    uint64_t deadline = REACTOR_NEVER;
    for (struct poller *p = r->pollers; p; p = p->next) {
        p->kicked = 0;
        deadline = min_u64(deadline, p->run(p, now));
    }
    for (struct poller *p = r->pollers; p; p = p->next)
        if (p->kicked)
            return now;
    return deadline;
}

int reactor_turn(struct reactor *r, uint64_t timeout, uint64_t *events, unsigned max)
{
    if (max < 2)
        return -EINVAL;
    if (reactor_disowned(r))
        return timeout ? -ESTALE : 0;
    /* Watched descriptors have the front of the array to themselves, so that neither side can starve the other. */
    unsigned front = max / 4 + 1;
    if (front > WATCH_BATCH)
        front = WATCH_BATCH;
    uint64_t now = reactor_now(r);
    uint64_t end = timeout > REACTOR_NEVER - now ? REACTOR_NEVER : now + timeout;
    r->turns++;
    for (;;) {
        r->deadline = run(r, now);
        uint64_t deadline = min_u64(end, r->deadline);
        unsigned n = collect(r, events + front, max - front);
        uint64_t ns = deadline == REACTOR_NEVER ? REACTOR_NEVER : deadline > now ? deadline - now : 0;
        if (n || r->refused)
            ns = 0;
        r->refused = false;

        int rc = r->ops->wait(r, ns, now, events, front);
        if (rc < 0 && rc != -EINTR)
            return rc;
        unsigned host = rc < 0 ? 0 : (unsigned)rc;
        if (n) { /* pending since before the wait: asking again could name a socket twice */
            for (unsigned i = 0; host < front && i < n; i++)
                events[host + i] = events[front + i];
        } else {
            n = collect(r, events + host, max - host);
        }
        n += host;
        now = reactor_now(r);
        if (n || now >= end || rc == -EINTR) {
            r->events += n;
            return (int)n;
        }
    }
}

const struct turn_ops *reactor_turn_ops(void)
{
    static const struct turn_ops ops = {.turn = reactor_turn, .poll = reactor_poll, .now = reactor_now};
    return &ops;
}

/* --- channels ---------------------------------------------------------------------------------------------------- */

int channel_open(struct reactor *r, struct channel *c, unsigned depth)
{
    if (depth == 0 || depth > 32768 || (depth & (depth - 1)))
        return -EINVAL;
    if (reactor_disowned(r))
        return -ESTALE;
    c->reactor = r;
    c->impl = NULL;
    int rc = r->ops->open(r, c, depth);
    if (rc < 0)
        c->reactor = NULL;
    return rc;
}

int channel_send(struct channel *c, const struct iovec *iov, unsigned n, void *cookie)
{
    if (n == 0 || n > CHANNEL_IOV_MAX)
        return -EINVAL;
    if (reactor_disowned(c->reactor))
        return -ESTALE;
    int rc = c->reactor->ops->send(c, iov, n, cookie);
    if (rc == -ENOBUFS)
        c->reactor->refused = true;
    else if (rc == 0)
        c->reactor->submissions++;
    return rc;
}

void channel_close(struct channel *c)
{
    if (!c->reactor)
        return;
    reactor_disowned(c->reactor);
    c->reactor->ops->close(c);
    c->reactor = NULL;
    c->impl = NULL;
}
