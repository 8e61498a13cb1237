/* A reactor inside somebody else's event loop: it never waits, and one descriptor says when it has something to do.
 *
 *     outer loop -> front (epoll) -> the watch set: host descriptors, frames that are read by readiness
 *                                 -> an eventfd: completions of the ring, and reactor_wake()
 *                                 -> a timerfd, at the deadline of whoever must run next
 *
 * Contract: reactor_poll() either returns events, and then its caller calls it again once these have been acted on, or
 * it returns 0 and the reactor sleeps: all output is out, and the front becomes readable as soon as there is more to do.
 * A call from Python that gives a sleeping stack work (sock_find() is where they all pass) wakes it: one write() for
 * all that an iteration of the outer loop does. Awake, or not embedded, that is a look at one flag.
 *
 * The ring's own descriptor would not do: with DEFER_TASKRUN a completion is task work at first, and that wakes nobody who
 * polls the ring (Linux 6.18). It does write to a registered eventfd. While the reactor is awake this is hushed, for its own
 * writes complete as they are submitted.
 *
 * The timer is lazy: it is not moved when the deadline moves later, as it does with every acknowledgement, but fires
 * once in vain and is set anew. Spinning makes no sense here and does not take place.
 *
 * Ownership: the embedding owns its three descriptors; the reactor owns the embedding. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "sched/backend.h"

#define ROUNDS 16 /* turns in a row without an event before the outer loop has its own again */

struct embedding {
    int front, timer, event;
    unsigned generation; /* of the watch set in the front, and of the ring that was told */
    uint64_t armed;      /* the timer; REACTOR_NEVER: it is not */
    bool asleep;
};

static void set_asleep(struct reactor *r, bool asleep)
{
    r->embedding->asleep = asleep;
    reactor_set_asleep(r, asleep);
}

static int put_in_front(struct embedding *e, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(e->front, EPOLL_CTL_ADD, fd, &event) < 0 && errno != EEXIST ? -errno : 0;
}

/* The ring may be a new one since, and so may the file behind the watch set's number. */
static int follow(struct reactor *r)
{
    struct embedding *e = r->embedding;
    unsigned generation = r->generation + r->set.rebuilt;
    if (e->generation == generation)
        return 0;
    int rc = put_in_front(e, r->set.epfd);
    if (rc == 0 && r->ops->tell)
        rc = r->ops->tell(r, e->event);
    if (rc == 0)
        e->generation = generation;
    return rc;
}

static void arm(struct reactor *r, uint64_t deadline)
{
    struct embedding *e = r->embedding;
    if (e->armed != REACTOR_NEVER && e->armed <= deadline && e->armed > reactor_now(r))
        return;
    if (e->armed == REACTOR_NEVER && deadline == REACTOR_NEVER)
        return;
    uint64_t at = deadline == REACTOR_NEVER ? 0 : deadline - r->clock_offset; /* 0 disarms */
    struct itimerspec when = {.it_value = {.tv_sec = (int64_t)(at / 1000000000), .tv_nsec = (int64_t)(at % 1000000000)}};
    timerfd_settime(e->timer, TFD_TIMER_ABSTIME, &when, NULL);
    e->armed = deadline;
}

/* 1: it does not, for something has completed meanwhile. */
static int sleep_until(struct reactor *r, uint64_t deadline)
{
    int rc = follow(r);
    if (rc < 0)
        return rc;
    if (r->ops->hush && !r->ops->hush(r, false)) {
        r->ops->hush(r, true);
        return 1;
    }
    arm(r, deadline);
    set_asleep(r, true);
    return 0;
}

static void wake(struct reactor *r)
{
    set_asleep(r, false);
    if (r->ops->hush)
        r->ops->hush(r, true);
}

uint64_t reactor_wake(struct reactor *r)
{
    struct embedding *e = r->embedding;
    if (r->ops->wake)
        r->ops->wake(r);
    if (e && e->asleep) {
        uint64_t one = 1;
        wake(r);
        (void)!write(e->event, &one, sizeof one); /* full: then it is readable */
    }
    return reactor_now(r);
}

int reactor_poll(struct reactor *r, uint64_t *events, unsigned max)
{
    struct embedding *e = r->embedding;
    if (!e)
        return -EINVAL;
    if (e->asleep)
        wake(r);
    uint64_t count;
    (void)!read(e->event, &count, sizeof count);
    uint64_t due = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t moved = r->completions + r->set.frames;
        int n = reactor_turn(r, 0, events, max);
        if (n)
            return n;
        bool still = moved == r->completions + r->set.frames && !r->refused;
        uint64_t now = reactor_now(r);
        if (still && i == 0 && !r->set.count && !r->set.readers && !r->set.sockets)
            watch_set_wait(&r->set, 0, now, events, max); /* woken by a file that only lives on elsewhere: see watch.c */
        due = min_u64(r->deadline, r->ops->due(r, now));
        if (still && due > now && (n = sleep_until(r, due)) <= 0)
            return n;
    }
    set_asleep(r, true);
    reactor_wake(r); /* there is more, after the outer loop's other business */
    return 0;
}

int reactor_embed(struct reactor *r)
{
    if (r->set.epfd < 0)
        return -EOPNOTSUPP;
    if (r->embedding)
        return -EBUSY;
    struct embedding *e = calloc(1, sizeof *e);
    if (!e)
        return -ENOMEM;
    e->armed = REACTOR_NEVER;
    e->generation = r->generation + r->set.rebuilt - 1;
    e->front = epoll_create1(EPOLL_CLOEXEC);
    e->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    e->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int rc = e->front < 0 || e->timer < 0 || e->event < 0 ? -errno : 0;
    r->embedding = e;
    if (rc == 0)
        rc = put_in_front(e, e->timer);
    if (rc == 0)
        rc = put_in_front(e, e->event);
    if (rc == 0)
        rc = follow(r);
    if (rc < 0) {
        reactor_unembed(r);
        return rc;
    }
    set_asleep(r, true);
    reactor_wake(r); /* there may be work from before */
    return e->front;
}

void reactor_unembed(struct reactor *r)
{
    struct embedding *e = r->embedding;
    if (!e)
        return;
    set_asleep(r, false);
    if (r->ops->tell)
        r->ops->tell(r, -1);
    r->embedding = NULL;
    if (e->front >= 0)
        close(e->front);
    if (e->timer >= 0)
        close(e->timer);
    if (e->event >= 0)
        close(e->event);
    free(e);
}
