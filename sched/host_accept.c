/* Listeners: connections on their way from the kernel to host_accept().
 *
 * A connection that cannot be had for want of a descriptor or of memory is told to the caller once, and the listener
 * rests: the kernel keeps the connection, and trying at once would only fail again. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "sched/host.h"

int host_accept_open(struct host_socket *s)
{
    s->accepted = calloc(1, sizeof *s->accepted);
    s->listening = s->accepted != NULL;
    return s->accepted ? 0 : -ENOMEM;
}

static void stop_resting(struct host_sockets *h, struct host_socket *s)
{
    for (struct host_socket **at = &h->resting; *at; at = &(*at)->accepted->next_resting)
        if (*at == s) {
            *at = s->accepted->next_resting;
            break;
        }
}

void host_accept_close(struct host_sockets *h, struct host_socket *s)
{
    struct host_accepted *a = s->accepted;
    if (!a)
        return;
    stop_resting(h, s);
    for (unsigned i = a->first; i < a->count; i++)
        close(a->fds[i]);
    free(a->fds);
    free(a);
    s->accepted = NULL;
}

unsigned host_accept_ready(const struct host_socket *s)
{
    return s->accepted->first < s->accepted->count || s->accepted->error || s->ended ? EV_READ : 0;
}

bool host_accept_wanted(const struct host_socket *s)
{
    return s->want & EV_READ && !s->ended && !s->accepted->resume_at &&
           s->accepted->count - s->accepted->first < HOST_ACCEPTED_MAX;
}

int host_accept_take(struct host_sockets *h, struct host_socket *s)
{
    struct host_accepted *a = s->accepted;
    if (a->first < a->count) {
        int fd = a->fds[a->first++];
        if (a->first == a->count) {
            a->first = a->count = 0;
            host_mark_dirty(h, s);
        }
        return fd;
    }
    int rc = a->error ? a->error : s->ended ? -s->fate : -EAGAIN;
    a->error = 0;
    return rc;
}

static void rest(struct host_sockets *h, struct host_socket *s, int error)
{
    struct host_accepted *a = s->accepted;
    a->error = error;
    h->refused++;
    stop_resting(h, s);
    a->resume_at = h->now + HOST_ACCEPT_REST_NS;
    a->next_resting = h->resting;
    h->resting = s;
    host_mark_dirty(h, s);
}

uint64_t host_accept_resume(struct host_sockets *h, uint64_t now)
{
    uint64_t next = REACTOR_NEVER;
    for (struct host_socket **at = &h->resting, *s; (s = *at);) {
        if (s->accepted->resume_at > now) {
            next = min_u64(next, s->accepted->resume_at);
            at = &s->accepted->next_resting;
            continue;
        }
        s->accepted->resume_at = 0; /* or host_want() has cleared it */
        *at = s->accepted->next_resting;
        host_mark_dirty(h, s);
    }
    return next;
}

static bool store(struct host_accepted *a, int fd)
{
    if (a->count == a->cap) {
        unsigned cap = a->cap ? a->cap * 2 : 16;
        int *fds = realloc(a->fds, cap * sizeof *fds);
        if (!fds)
            return false;
        a->fds = fds;
        a->cap = cap;
    }
    a->fds[a->count++] = fd;
    return true;
}

void host_accept_put(struct host_sockets *h, struct host_socket *s, int fd)
{
    switch (fd < 0 ? -fd : 0) {
    case 0:
        if (!store(s->accepted, fd)) {
            close(fd);
            rest(h, s, -ENOMEM);
        }
        break;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        rest(h, s, fd);
        break;
    case EBADF:
    case EINVAL: /* it listens no more: shutdown(2) */
    case ENOTSOCK:
    case EOPNOTSUPP:
        host_end(h, s, -fd);
        break;
    default: /* of that one connection: accept(2) */
        host_mark_dirty(h, s);
        break;
    }
    host_raise(h, s);
}
