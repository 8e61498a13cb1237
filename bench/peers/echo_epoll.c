/* The native reference: a TCP echo server in C on the kernel's stack, one thread, level-triggered epoll.
 *
 * Measured: what a plain, well-made C server costs for each request: one recv, one send, and its share of an
 * epoll_wait. What a socket does not take at once is kept, and that connection is not read until it has gone. */

#include "peer.h"
#include <sys/epoll.h>

#define CHUNK 65536

struct conn {
    int fd;
    size_t from, upto; /* what is left to send of `kept` */
    uint8_t *kept;     /* NULL: nothing is */
};

static void want(int epoll, struct conn *conn, int op, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};
    if (epoll_ctl(epoll, op, conn->fd, &event) < 0)
        die_errno("epoll_ctl");
}

static void greet(int epoll, int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *conn = calloc(1, sizeof *conn);
        if (!conn)
            die("out of memory");
        conn->fd = fd;
        want(epoll, conn, EPOLL_CTL_ADD, EPOLLIN);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die_errno("accept");
}

static void bye(struct conn *conn)
{
    close(conn->fd); /* leaves the epoll set with it */
    free(conn->kept);
    free(conn);
}

static void flush(int epoll, struct conn *conn)
{
    ssize_t n = send(conn->fd, conn->kept + conn->from, conn->upto - conn->from, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        bye(conn);
        return;
    }
    conn->from += n > 0 ? (size_t)n : 0;
    if (conn->from < conn->upto)
        return;
    free(conn->kept);
    conn->kept = NULL;
    want(epoll, conn, EPOLL_CTL_MOD, EPOLLIN);
}

static void echo(int epoll, struct conn *conn)
{
    static uint8_t buffer[CHUNK];
    ssize_t n = recv(conn->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        bye(conn);
        return;
    }
    ssize_t taken = send(conn->fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (taken == n)
        return;
    if (taken < 0 && errno != EAGAIN) {
        bye(conn);
        return;
    }
    conn->from = taken > 0 ? (size_t)taken : 0;
    conn->upto = (size_t)n;
    if (!(conn->kept = malloc((size_t)n)))
        die("out of memory");
    memcpy(conn->kept, buffer, (size_t)n);
    want(epoll, conn, EPOLL_CTL_MOD, EPOLLOUT);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        die("usage: echo_epoll ADDRESS CPU CONGESTION");
    peer_start(atoi(argv[2]));
    struct conn listener = {.fd = listen_on(argv[1], argv[3], SOCK_NONBLOCK)};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die_errno("epoll_create1");
    want(epoll, &listener, EPOLL_CTL_ADD, EPOLLIN);
    announce(listener.fd);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, -1);
        if (n < 0 && errno != EINTR)
            die_errno("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn == &listener)
                greet(epoll, listener.fd);
            else if (conn->kept)
                flush(epoll, conn);
            else
                echo(epoll, conn);
        }
    }
}
