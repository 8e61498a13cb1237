/* The watch set: one epoll instance with the host's descriptors and the readers of channels.
 *
 * Contract: an event is reported as long as its condition holds and is wanted (level-triggered, as epoll is by itself).
 * Users close descriptors without asking us. Then the kernel forgets them, and a new file under the same number is
 * added afresh; epoll_event.data carries the number and the generation in which it was added. The exception is a file
 * that lives on elsewhere (a child that was forked): epoll goes on to report it, and can no longer be told not to. When
 * an event of such a file shows up, the whole set is built anew.
 *
 * Ownership: the table belongs to the set; readers to their channels. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sched/host.h"

#define READER_BIT (1ull << 63) /* in epoll_event.data: the rest is a struct reader * */
#define SOCKET_BIT (1ull << 62) /* the rest is the id of a host socket */
#define READER_BURST 64         /* frames read before other descriptors get their turn */

static uint32_t to_epoll(unsigned mask)
{
    return (mask & EV_READ ? EPOLLIN : 0) | (mask & EV_WRITE ? EPOLLOUT : 0);
}

/* A hang-up or an error is for whoever looks: both directions find out, as with CPython's selectors. */
static unsigned to_mask(uint32_t events)
{
    return (events & ~(uint32_t)EPOLLOUT ? EV_READ : 0) | (events & ~(uint32_t)EPOLLIN ? EV_WRITE : 0);
}

static int add(struct watch_set *set, int fd, unsigned mask)
{
    set->generation = (set->generation + 1) & 0x3fffffff;
    struct epoll_event e = {.events = to_epoll(mask), .data.u64 = (uint64_t)set->generation << 32 | (uint32_t)fd};
    int rc = epoll_ctl(set->epfd, EPOLL_CTL_ADD, fd, &e);
    if (rc < 0 && errno == EEXIST)
        rc = epoll_ctl(set->epfd, EPOLL_CTL_MOD, fd, &e);
    if (rc < 0)
        return -errno;
    set->table[fd] = (struct watch){.generation = set->generation, .mask = mask};
    return 0;
}

static void reader_enter(struct watch_set *set, struct reader *reader)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = READER_BIT | (uintptr_t)reader};
    if (epoll_ctl(set->epfd, EPOLL_CTL_ADD, reader->channel->fd, &e) == 0) {
        reader->in_set = true;
        set->paused--;
    }
}

/* Out of the set and not merely deaf: epoll reports a hang-up whether it is wanted or not. */
static void reader_pause(struct watch_set *set, struct reader *reader, uint64_t until)
{
    epoll_ctl(set->epfd, EPOLL_CTL_DEL, reader->channel->fd, NULL);
    reader->in_set = false;
    reader->resume_at = until;
    set->paused++;
}

int watch_set_init(struct watch_set *set)
{
    memset(set, 0, sizeof *set);
    set->epfd = epoll_create1(EPOLL_CLOEXEC);
    return set->epfd < 0 ? -errno : 0;
}

void watch_set_free(struct watch_set *set)
{
    if (set->epfd >= 0)
        close(set->epfd);
    set->epfd = -1;
    free(set->table);
    set->table = NULL;
}

static int rebuild(struct watch_set *set)
{
    int fresh = epoll_create1(EPOLL_CLOEXEC);
    if (fresh < 0)
        return -errno;
    /* Under the old number: a ring may have it. */
    if (dup3(fresh, set->epfd, O_CLOEXEC) < 0) {
        int rc = -errno;
        close(fresh);
        return rc;
    }
    close(fresh);
    set->rebuilt++;
    for (unsigned fd = 0; fd < set->size; fd++)
        if (set->table[fd].mask)
            add(set, fd, set->table[fd].mask);
    for (struct reader *reader = set->readers; reader; reader = reader->next)
        if (reader->in_set) {
            set->paused++;
            reader_enter(set, reader);
        }
    if (set->hosts) {
        set->sockets = 0;
        host_watch_again(set->hosts);
    }
    return 0;
}

int watch_set_change(struct watch_set *set, int fd, unsigned mask)
{
    if (fd < 0)
        return -EBADF;
    if (mask & ~(EV_READ | EV_WRITE))
        return -EINVAL;
    if ((unsigned)fd >= set->size) {
        unsigned size = set->size ? set->size : 64;
        while (size <= (unsigned)fd)
            size *= 2;
        struct watch *table = realloc(set->table, size * sizeof *table);
        if (!table)
            return -ENOMEM;
        memset(table + set->size, 0, (size - set->size) * sizeof *table);
        set->table = table;
        set->size = size;
    }
    struct watch *watch = &set->table[fd];
    if (!mask) {
        if (watch->mask) {
            epoll_ctl(set->epfd, EPOLL_CTL_DEL, fd, NULL); /* it may be closed already */
            watch->mask = 0;
            set->count--;
        }
        return 0;
    }
    if (!watch->mask) {
        int rc = add(set, fd, mask);
        set->count += rc == 0;
        return rc;
    }
    struct epoll_event e = {.events = to_epoll(mask), .data.u64 = (uint64_t)watch->generation << 32 | fd};
    if (epoll_ctl(set->epfd, EPOLL_CTL_MOD, fd, &e) == 0) {
        watch->mask = mask;
        return 0;
    }
    return errno == ENOENT ? add(set, fd, mask) : -errno; /* ENOENT: closed and opened again behind our back */
}

int watch_set_socket(struct watch_set *set, int fd, int64_t id, unsigned before, unsigned mask)
{
    struct epoll_event e = {.events = to_epoll(mask), .data.u64 = SOCKET_BIT | (uint64_t)id};
    int op = !mask ? EPOLL_CTL_DEL : before ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int rc = epoll_ctl(set->epfd, op, fd, &e) < 0 ? -errno : 0;
    set->sockets += (mask && rc == 0) - (before != 0);
    return rc;
}

/* --- readers ----------------------------------------------------------------------------------------------------- */

static void read_frames(struct watch_set *set, struct reader *reader, uint64_t now)
{
    struct channel *c = reader->channel;
    struct frame_buffer *spare = &reader->spare;
    for (unsigned i = 0; i < READER_BURST; i++) {
        if (!spare->data)
            spare->data = c->ops->alloc(c, &spare->len, &spare->cookie);
        if (!spare->data) {
            reader_pause(set, reader, now);
            return;
        }
        ssize_t n = read(c->fd, spare->data, spare->len);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        spare->data = NULL;
        if (n <= 0) { /* a device that is down, or an end of file: no frame is empty */
            reader_pause(set, reader, now + CHANNEL_PAUSE_NS);
            c->ops->received(c, spare->cookie, n < 0 ? -errno : -ENODATA);
            return;
        }
        set->frames++;
        c->ops->received(c, spare->cookie, (int)n);
    }
}

int reader_open(struct watch_set *set, struct reader *reader, struct channel *c)
{
    *reader = (struct reader){.channel = c};
    set->paused++;
    reader_enter(set, reader);
    if (!reader->in_set) {
        set->paused--;
        return -errno;
    }
    reader->next = set->readers;
    set->readers = reader;
    return 0;
}

void reader_close(struct watch_set *set, struct reader *reader)
{
    struct reader **p = &set->readers;
    while (*p != reader)
        p = &(*p)->next;
    *p = reader->next;
    if (reader->in_set)
        epoll_ctl(set->epfd, EPOLL_CTL_DEL, reader->channel->fd, NULL);
    else
        set->paused--;
    if (reader->spare.data)
        reader->channel->ops->received(reader->channel, reader->spare.cookie, -ECANCELED);
    reader->spare.data = NULL;
}

uint64_t watch_set_resume(struct watch_set *set, uint64_t ns, uint64_t now)
{
    for (struct reader *reader = set->readers; set->paused && reader; reader = reader->next) {
        if (reader->in_set)
            continue;
        struct frame_buffer *spare = &reader->spare;
        if (reader->resume_at > now) {
            ns = min_u64(ns, reader->resume_at - now);
            continue;
        }
        if (!spare->data)
            spare->data = reader->channel->ops->alloc(reader->channel, &spare->len, &spare->cookie);
        if (spare->data)
            reader_enter(set, reader);
        if (!reader->in_set)
            ns = min_u64(ns, CHANNEL_STARVED_NS);
    }
    return ns;
}

uint64_t watch_set_due(const struct watch_set *set, uint64_t now)
{
    uint64_t due = REACTOR_NEVER;
    for (const struct reader *reader = set->readers; set->paused && reader; reader = reader->next)
        if (!reader->in_set)
            due = min_u64(due, reader->resume_at > now ? reader->resume_at : now + CHANNEL_STARVED_NS);
    return due;
}

/* --- waiting ----------------------------------------------------------------------------------------------------- */

static int epoll_wait_ns(int epfd, struct epoll_event *ready, int max, uint64_t ns)
{
    if (ns == 0 || ns == REACTOR_NEVER)
        return epoll_wait(epfd, ready, max, ns ? -1 : 0);
    struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    int n = (int)syscall(SYS_epoll_pwait2, epfd, ready, max, &ts, NULL, 0);
    if (n < 0 && errno == ENOSYS) /* before Linux 5.11 */
        n = epoll_wait(epfd, ready, max, (int)min_u64((ns + 999999) / 1000000, 3600000));
    return n;
}

int watch_set_wait(struct watch_set *set, uint64_t ns, uint64_t now, uint64_t *events, unsigned max)
{
    struct epoll_event ready[WATCH_BATCH];
    int n = epoll_wait_ns(set->epfd, ready, max < WATCH_BATCH ? (int)max : WATCH_BATCH, ns);
    if (n < 0)
        return -errno;
    unsigned count = 0;
    bool stale = false;
    for (int i = 0; i < n; i++) {
        uint64_t data = ready[i].data.u64;
        if (data & READER_BIT) {
            struct reader *reader = (struct reader *)(uintptr_t)(data & ~READER_BIT);
            if (reader->in_set)
                read_frames(set, reader, now);
            continue;
        }
        unsigned mask = to_mask(ready[i].events);
        if (data & SOCKET_BIT) {
            if (!host_polled(set->hosts, (int64_t)(data & ~SOCKET_BIT), mask))
                stale = true;
            continue;
        }
        uint32_t fd = (uint32_t)data;
        struct watch *watch = &set->table[fd];
        if (!watch->mask || watch->generation != data >> 32) {
            stale = true;
            continue;
        }
        if (mask & watch->mask)
            events[count++] = (uint64_t)fd << 16 | (mask & watch->mask);
    }
    if (stale) {
        int rc = rebuild(set);
        if (rc < 0 && !count)
            return rc;
    }
    return (int)count;
}
