/* Host sockets by readiness: the watch set says when, recv(2) and send(2) do it at once.
 *
 * Reading goes straight to where the reader wants it. A reader that asks first how much there is (readable) is answered
 * by reading into the set's scratch buffer, from which recv() then copies; another socket's turn moves what was left
 * there to memory of its own. A copy of a little costs less than to ask the kernel (FIONREAD), of much it costs more:
 * what a socket gave last decides. What the kernel does not take is refused, and EV_WRITE tells when it takes more. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "sched/host.h"

#define LARGE 8192

static int poll_open(struct host_sockets *h)
{
    h->scratch = malloc(HOST_UNREAD_MAX); /* touched as far as it is filled */
    return h->scratch ? 0 : -ENOMEM;
}

static void poll_prepare(struct host_sockets *h) {}

static bool poll_work(struct host_sockets *h, struct host_socket *s)
{
    if (s->closing)
        return true;
    unsigned mask = s->want & (s->ended ? EV_WRITE : EV_READ | EV_WRITE);
    if (s->error)
        mask = 0; /* epoll would report that for ever */
    if (s->listening && !host_accept_wanted(s))
        mask = 0;
    if (mask == s->watched)
        return true;
    int rc = watch_set_socket(&h->reactor->set, s->fd, s->id, s->watched, mask);
    if (rc < 0 && mask)
        host_end(h, s, -rc);
    s->watched = rc < 0 ? 0 : (uint8_t)mask;
    return true;
}

static int64_t take(struct host_sockets *h, struct host_socket *s, uint8_t *data, size_t len)
{
    ssize_t n;
    do
        n = recv(s->fd, data, len, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        h->received += (uint64_t)n;
        s->large = n >= LARGE;
        return n;
    }
    int error = n < 0 ? errno : 0;
    if (error == EAGAIN || (n == 0 && len == 0))
        return -error;
    host_end(h, s, error);
    return -error;
}

static int64_t poll_recv(struct host_sockets *h, struct host_socket *s, uint8_t *data, size_t len)
{
    return take(h, s, data, len);
}

static int64_t poll_pull(struct host_sockets *h, struct host_socket *s)
{
    if (h->scratch_of && h->scratch_of->in_bytes)
        host_keep(h, h->scratch_of);
    h->scratch_of = NULL;
    int size;
    if (s->large && ioctl(s->fd, FIONREAD, &size) == 0 && size > 0)
        return min_u64((uint64_t)size, HOST_UNREAD_MAX);
    struct host_piece *piece = host_piece_new(h, h->scratch, 0, PIECE_SCRATCH);
    if (!piece)
        return -ENOMEM;
    int64_t n = take(h, s, h->scratch, HOST_UNREAD_MAX);
    if (n <= 0) {
        host_piece_free(h, piece);
        return n;
    }
    piece->len = (uint32_t)n;
    host_append(h, s, piece);
    host_raise(h, s); /* for as long as it is not read */
    h->scratch_of = s;
    return n;
}

static int64_t poll_send(struct host_sockets *h, struct host_socket *s, const uint8_t *data, size_t len)
{
    ssize_t n;
    do
        n = send(s->fd, data, len, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    h->sends++;
    if (n >= 0) {
        h->sent += (uint64_t)n;
        return n;
    }
    int error = errno;
    if (error != EAGAIN && error != ENOBUFS && error != ENOMEM)
        host_fail(h, s, error);
    return error == EAGAIN ? -EAGAIN : -error;
}

static int poll_accept(struct host_sockets *h, struct host_socket *s)
{
    int rc = host_accept_take(h, s);
    if (rc != -EAGAIN || s->ended || s->accepted->resume_at)
        return rc;
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 || errno == EAGAIN)
        return fd >= 0 ? fd : -EAGAIN;
    host_accept_put(h, s, -errno);
    return host_accept_take(h, s);
}

static void poll_close(struct host_sockets *h, struct host_socket *s)
{
    if (s->watched)
        watch_set_socket(&h->reactor->set, s->fd, s->id, s->watched, 0);
    s->watched = 0;
}

static void poll_finish(struct host_sockets *h) {}

const struct host_backend host_poll_backend = {
    .open = poll_open,
    .work = poll_work,
    .prepare = poll_prepare,
    .pull = poll_pull,
    .recv = poll_recv,
    .send = poll_send,
    .accept = poll_accept,
    .close = poll_close,
    .finish = poll_finish,
};
