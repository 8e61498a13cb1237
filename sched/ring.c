/* The io_uring back end: frames are read and written by the ring, and one system call a turn does all of it.
 *
 * Threads. The ring is made for one thread (SINGLE_ISSUER, DEFER_TASKRUN: completions are worked off when we
 * enter, not whenever the kernel likes). It is created disabled, so that the thread that turns the reactor first owns
 * it and not the one that built the machine. When another thread takes the reactor over, the kernel refuses it
 * (EEXIST); we let go of the ring and start one for the new thread. The buffers stay with their channels.
 *
 * Waiting. Writes to a non-blocking descriptor complete while they are submitted. To wait for one completion more than
 * there are writes is therefore to wait for something new, and output and waiting are one call. Should a kernel
 * ever complete one later, we notice and from then on wait for any completion (late_writes).
 *
 * Spinning looks at the completion queue in shared memory, and at the flag that the kernel sets there when it has work
 * for us (TASKRUN_FLAG): no system call until there is something to fetch.
 *
 * Without channels nothing is under way in the ring, and the wait is one epoll_pwait2() on the watch set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "sched/host.h"
#include "sched/ring.h"

#define BATCH 64         /* completions looked at together */
#define BATCHES 8        /* of these before the pollers run again */
#define LOOKS 16         /* at the completion queue, without entering the ring */
#define WAIT_MAX 3600000000000ull

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static bool reap(struct ring_reactor *rr);

/* --- the ring's life --------------------------------------------------------------------------------------------- */

static int ring_init(struct ring_reactor *rr)
{
    /* Linux 6.1; 5.19; 5.11 (the last that we can use: it has timeouts for waits). */
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED |
            IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        IORING_SETUP_CQSIZE,
    };
    int rc = -EINVAL;
    for (unsigned i = 0; rc == -EINVAL && i < sizeof flags / sizeof *flags; i++) {
        /* liburing writes all of it; zeroed so that a newer one finds what it has not asked for empty. */
        memset(rr->ring, 0, sizeof rr->ring);
        struct io_uring_params p = {.flags = flags[i], .cq_entries = rr->entries * 8};
        rc = rr->queue_init_params(rr->entries, rr->ring, &p);
        rr->disabled = flags[i] & IORING_SETUP_R_DISABLED;
        rr->recv_multishot = flags[i] & IORING_SETUP_DEFER_TASKRUN; /* Linux 6.1; it is there from 6.0 on */
        if (rc == 0 && !(p.features & IORING_FEAT_EXT_ARG)) {
            rr->queue_exit(rr->ring);
            return -ENOSYS;
        }
    }
    return rc < 0 ? rc : 0;
}

int ring_start(struct ring_reactor *rr)
{
    int rc = ring_init(rr);
    if (rc < 0)
        return rc;
    rr->alive = true;
    rr->settling = false;
    rr->reactor.generation++;
    rr->set_armed = false;
    rr->queued = 0;

    struct {
        struct io_uring_probe probe;
        struct io_uring_probe_op ops[OP_READ_MULTISHOT + 1];
    } p = {0};
    rr->multishot = rr->register_probe(rr->ring, &p.probe, OP_READ_MULTISHOT + 1) == 0 &&
                    p.probe.last_op >= OP_READ_MULTISHOT && p.ops[OP_READ_MULTISHOT].flags & IO_URING_OP_SUPPORTED;
    rr->files = rr->register_files_sparse(rr->ring, RING_FILES) == 0;
    rr->free_files = ~0ull;
    for (struct ring_channel *ch = rr->channels; rc == 0 && ch; ch = ring_channel_next(ch))
        rc = ring_channel_register(ch);
    if (rc == 0 && rr->reactor.hosts)
        rc = host_ring_register(rr->reactor.hosts);
    if (rc < 0)
        ring_abandon(rr);
    return rc;
}

static void let_go(struct ring_reactor *rr, bool lost)
{
    rr->queue_exit(rr->ring);
    rr->alive = false;
    rr->reactor.restarts++;
    if (rr->reactor.hosts)
        host_ring_abandon(rr->reactor.hosts, lost);
    for (struct ring_channel *ch = rr->channels; ch; ch = ring_channel_next(ch))
        ring_channel_abandon(ch);
}

void ring_abandon(struct ring_reactor *rr)
{
    if (!rr->alive)
        return;
    struct host_sockets *hosts = rr->reactor.hosts;
    while (!reap(rr))
        ;
    bool lost = rr->cq_has_overflow(rr->ring); /* completions that nobody can fetch any more */
    if (hosts && !lost)
        host_ring_settle(hosts, ring_submitted(rr));
    let_go(rr, lost);
}

/* Not reaped first: the completion queue is shared memory, and what is in it is the parent's. */
static void ring_disown(struct reactor *r)
{
    struct ring_reactor *rr = (struct ring_reactor *)r;
    if (rr->alive)
        let_go(rr, false);
}

static void ring_free(struct reactor *r)
{
    struct ring_reactor *rr = (struct ring_reactor *)r;
    ring_abandon(rr);
    if (rr->library)
        dlclose(rr->library);
}

/* --- requests and completions ------------------------------------------------------------------------------------ */

struct io_uring_sqe *ring_sqe(struct ring_reactor *rr, const void *subject, unsigned kind)
{
    struct io_uring_sqe *sqe = rr->get_sqe(rr->ring);
    if (!sqe) {
        if (rr->disabled || rr->submit_and_get_events(rr->ring) < 0)
            return NULL;
        rr->queued = 0;
        sqe = rr->get_sqe(rr->ring);
        if (!sqe)
            return NULL;
    }
    memset(sqe, 0, sizeof *sqe);
    rr->sqes++;
    sqe->user_data = (uintptr_t)subject | kind;
    return sqe;
}

/* Handles what has completed, or a good part of it: the pollers want to run. Whether that was all. */
static bool reap(struct ring_reactor *rr)
{
    struct io_uring_cqe *cqes[BATCH];
    struct host_sockets *hosts = rr->reactor.hosts;
    for (unsigned i = 0; i < BATCHES; i++) {
        unsigned n = rr->peek_batch_cqe(rr->ring, cqes, BATCH);
        if (!n)
            return true;
        for (unsigned k = 0; k < n; k++) {
            void *subject = (void *)(uintptr_t)(cqes[k]->user_data & ~(uint64_t)FOR_BITS);
            switch (cqes[k]->user_data & FOR_BITS) {
            case FOR_READ:
                rr->woken = true;
                ring_channel_read(subject, cqes[k]->res, cqes[k]->flags);
                break;
            case FOR_WRITE:
                rr->writing--;
                ring_channel_written(subject, cqes[k]->res);
                break;
            case FOR_SET:
                rr->woken = rr->set_fired = true;
                rr->set_armed = false;
                break;
            case FOR_RECV:
                rr->woken = true;
                host_ring_received(hosts, subject, cqes[k]->res, cqes[k]->flags);
                break;
            case FOR_SEND:
                rr->woken = true;
                host_ring_sent(hosts, subject, cqes[k]->res, cqes[k]->flags);
                break;
            case FOR_ACCEPT:
                rr->woken = true;
                host_ring_accepted(hosts, subject, cqes[k]->res, cqes[k]->flags);
                break;
            case FOR_NOBODY:
                rr->woken = true;
                break;
            }
        }
        rr->cq_advance(rr->ring, n);
        rr->reactor.completions += n;
        rr->unseen -= rr->unseen < n ? rr->unseen : n;
        if (n < BATCH)
            return true;
    }
    return false;
}

uint32_t ring_submitted(const struct ring_reactor *rr)
{
    return rr->alive ? rr->sqes - rr->sq_ready(rr->ring) : rr->sqes;
}

static void settle(struct ring_reactor *rr)
{
    if (!rr->settling || rr->unseen)
        return;
    rr->settling = false;
    if (rr->reactor.hosts)
        host_ring_settle(rr->reactor.hosts, rr->settling_upto);
}

int ring_enter(struct ring_reactor *rr, uint64_t ns, unsigned count)
{
    int rc = 0;
    if (rr->disabled) {
        rc = rr->enable_rings(rr->ring);
        if (rc < 0)
            return rc;
        rr->disabled = false;
    }
    if (ns) {
        /* Never without a limit: given one, liburing comes back from a signal even if it has submitted something. */
        ns = min_u64(ns, WAIT_MAX);
        struct __kernel_timespec ts = {.tv_sec = (int64_t)(ns / 1000000000), .tv_nsec = (int64_t)(ns % 1000000000)};
        struct io_uring_cqe *first;
        rc = rr->submit_and_wait_timeout(rr->ring, &first, count, &ts, NULL);
    } else if (rr->sq_ready(rr->ring) || ++rr->looked == LOOKS) {
        /* Only entering tells that the ring has become another thread's. */
        rr->looked = 0;
        rc = rr->submit_and_get_events(rr->ring);
    }
    if (rr->sq_ready(rr->ring) == 0)
        rr->queued = 0;
    if (!rr->settling) {
        /* More than the queue can hold: the next entry fetches the rest. */
        bool overflow = rr->cq_has_overflow(rr->ring);
        rr->reactor.overflows += overflow;
        rr->settling = !overflow;
        rr->settling_upto = ring_submitted(rr);
        rr->unseen = rr->cq_ready(rr->ring);
    }
    /* All submitted and all reaped: the writes left are those that were queued while reaping, or late. */
    if (reap(rr) && rr->writing > rr->queued)
        rr->late_writes = true;
    settle(rr);
    return rc == -ETIME || rc == -EAGAIN || rc == -EBUSY ? 0 : rc;
}

/* --- the wait ---------------------------------------------------------------------------------------------------- */

/* -EINTR: nothing happened and the time is not up, so it was a signal. */
static int wait_for_more(struct ring_reactor *rr, uint64_t ns)
{
    struct reactor *r = &rr->reactor;
    int rc = 0;
    if (ns == 0 || r->spin_ns) {
        rc = ring_enter(rr, 0, 0);
        uint64_t spin = min_u64(ns, r->spin_ns);
        while (rc >= 0 && spin && !rr->woken && reactor_now(r) - rr->now < spin) {
            relax();
            reap(rr);
        }
        if (rc < 0 || rr->woken || ns <= r->spin_ns)
            return rc;
        uint64_t spun = reactor_now(r) - rr->now;
        if (spun >= ns)
            return 0;
        ns -= spun;
        rr->now += spun;
    }
    r->blocked++;
    rc = ring_enter(rr, ns, rr->late_writes ? 1 : rr->writing + 1);
    if (rc >= 0 && !rr->woken && reactor_now(r) - rr->now < ns)
        return -EINTR;
    return rc;
}

static int ring_wait(struct reactor *r, uint64_t ns, uint64_t now, uint64_t *events, unsigned max)
{
    struct ring_reactor *rr = (struct ring_reactor *)r;
    struct watch_set *set = &r->set;
    if (!rr->channels && !r->spin_ns && !(r->hosts && r->hosts->live)) {
        r->blocked += ns != 0;
        return watch_set_wait(set, ns, now, events, max);
    }
    int rc;
    bool look = false;
    do {
        if (!rr->alive) {
            if ((rc = ring_start(rr)) < 0)
                return rc;
            if (r->hosts) { /* they had nowhere to put their requests */
                uint64_t next = r->hosts->poller.run(&r->hosts->poller, now);
                ns = next > now ? min_u64(ns, next - now) : 0;
            }
        }
        rr->now = now;
        rr->woken = rr->set_fired = false;
        for (struct ring_channel *ch = rr->channels; ch; ch = ring_channel_next(ch))
            ns = ring_channel_prepare(ch, ns);
        if (set->paused)
            ns = watch_set_resume(set, ns, now);
        if ((set->count || set->sockets || set->readers) && !rr->set_armed) {
            struct io_uring_sqe *sqe = ns ? ring_sqe(rr, NULL, FOR_SET) : NULL;
            look = !sqe;
            if (sqe) {
                sqe->opcode = IORING_OP_POLL_ADD;
                sqe->fd = set->epfd;
                sqe->poll32_events = POLLIN;
                rr->set_armed = true;
            } else {
                ns = 0;
            }
        }
        rc = wait_for_more(rr, ns);
        if (rc == -EEXIST) /* the ring is another thread's */
            ring_abandon(rr);
    } while (rc == -EEXIST);
    if (rc < 0 && rc != -EINTR)
        return rc;
    if (look || rr->set_fired)
        return watch_set_wait(set, 0, now, events, max);
    return rc == -EINTR ? rc : 0;
}

/* --- inside another loop (embed.c) ------------------------------------------------------------------------------- */

static uint64_t ring_due(struct reactor *r, uint64_t now)
{
    uint64_t due = watch_set_due(&r->set, now);
    for (struct ring_channel *ch = ((struct ring_reactor *)r)->channels; ch; ch = ring_channel_next(ch))
        due = min_u64(due, ring_channel_due(ch, now));
    return due;
}

static int ring_tell(struct reactor *r, int event)
{
    struct ring_reactor *rr = (struct ring_reactor *)r;
    if (!rr->alive)
        return 0;
    rr->unregister_eventfd(rr->ring);
    int rc = event >= 0 ? rr->register_eventfd(rr->ring, event) : 0;
    if (rc == -EEXIST) { /* the ring is another thread's: the next turn starts one for this */
        ring_abandon(rr);
        rc = 0;
    }
    return rc;
}

static bool ring_hush(struct reactor *r, bool hush)
{
    struct ring_reactor *rr = (struct ring_reactor *)r;
    if (!rr->alive)
        return true;
    rr->cq_eventfd_toggle(rr->ring, !hush);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* what comes after is told, what came before is seen */
    struct io_uring_cqe *cqe;
    return hush || rr->peek_batch_cqe(rr->ring, &cqe, 1) == 0;
}

static const struct host_backend *ring_hosts(struct reactor *r)
{
    return ((struct ring_reactor *)r)->recv_multishot ? &host_ring_backend : &host_poll_backend;
}

/* --- making one -------------------------------------------------------------------------------------------------- */

static int bind_functions(struct ring_reactor *rr, const char *path)
{
    rr->library = dlopen(path, RTLD_NOLOAD | RTLD_NOW);
    if (!rr->library)
        return -ENOENT;
#define F(result, name, parameters)                                                                                   \
    if (!(*(void **)&rr->name = dlsym(rr->library, "io_uring_" #name)))                                               \
        return -ENOSYS;
    RING_FUNCTIONS(F)
#undef F
    return 0;
}

int reactor_new_ring(struct reactor **out, const char *liburing, unsigned entries, uint64_t clock_offset)
{
    static const struct backend backend = {
        .kind = "io_uring",
        .wait = ring_wait,
        .open = ring_channel_open,
        .send = ring_channel_send,
        .close = ring_channel_close,
        .disown = ring_disown,
        .hosts = ring_hosts,
        .free = ring_free,
        .due = ring_due,
        .tell = ring_tell,
        .hush = ring_hush,
    };
    struct ring_reactor *rr = aligned_alloc(_Alignof(struct ring_reactor), sizeof *rr);
    if (!rr)
        return -ENOMEM;
    memset(rr, 0, sizeof *rr);
    rr->entries = entries;
    rr->incremental = true;
    int rc = reactor_init(&rr->reactor, &backend, clock_offset);
    if (rc == 0)
        rc = bind_functions(rr, liburing);
    if (rc == 0)
        rc = ring_start(rr);
    if (rc < 0) {
        reactor_free(&rr->reactor);
        return rc;
    }
    *out = &rr->reactor;
    return 0;
}
