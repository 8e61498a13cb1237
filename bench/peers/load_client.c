/* The measuring end of loads that are no echo: one thread, blocking sockets for a stream, epoll for connections.
 *
 *   up        writes of SIZE bytes, as many as the connection takes; counted are the bytes that the peer acknowledged
 *   down      the server sends as much as it can; counted are the bytes received
 *   connect   CONNECTIONS at a time: connect, send SIZE bytes, wait for them to come back, close, and again from the
 *             start; counted are those that were answered
 *
 * After a warm-up the measured interval begins. Reported for it, as one line of JSON: `units` (bytes or connections),
 * `seconds`, `client_ns` and `server_ns` (CPU time of this process and of the server's, read at the same two instants).
 * A connection that breaks or stalls for 5 s ends the program with status 1 and no figure. */

#include "peer.h"
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <time.h>

#define STALL_S 5
#define RECEIVE (256 * 1024)

struct load {
    struct sockaddr_in to;
    const char *congestion;
    size_t size;
    unsigned count;
    uint8_t *buffer;
    uint64_t units, sent;
    int epoll;
};

struct conn {
    int fd;
    size_t received;
};

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    if (clock_gettime(id, &t) < 0)
        die_errno("clock_gettime");
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int new_socket(const struct load *l, int flags)
{
    struct timeval limit = {.tv_sec = STALL_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0)
        die_errno("socket");
    tune(fd, l->congestion);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static int dial(const struct load *l)
{
    int fd = new_socket(l, 0);
    if (connect(fd, (const struct sockaddr *)&l->to, sizeof l->to) < 0)
        die_errno("connect");
    return fd;
}

/* --- one stream --- */

static void send_until(struct load *l, int fd, uint64_t until)
{
    int queued;
    while (clock_ns(CLOCK_MONOTONIC) < until) {
        ssize_t n = send(fd, l->buffer, l->size, MSG_NOSIGNAL);
        if (n < 0)
            die_errno("send");
        l->sent += (uint64_t)n;
    }
    if (ioctl(fd, SIOCOUTQ, &queued) < 0) /* tcp(7): what is not acknowledged yet */
        die_errno("SIOCOUTQ");
    l->units = l->sent - (uint64_t)queued;
}

static void receive_until(struct load *l, int fd, uint64_t until)
{
    while (clock_ns(CLOCK_MONOTONIC) < until) {
        ssize_t n = recv(fd, l->buffer, RECEIVE, 0);
        if (n <= 0)
            die("recv: %s", n ? strerror(errno) : "the server closed the connection");
        l->units += (uint64_t)n;
    }
}

/* --- connections --- */

static void begin(struct load *l, struct conn *c)
{
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    c->fd = new_socket(l, SOCK_NONBLOCK);
    c->received = 0;
    if (connect(c->fd, (const struct sockaddr *)&l->to, sizeof l->to) < 0 && errno != EINPROGRESS)
        die_errno("connect");
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die_errno("epoll_ctl");
}

static void go_on(struct load *l, struct conn *c, unsigned events)
{
    if (events & EPOLLOUT) { /* connected */
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (send(c->fd, l->buffer, l->size, MSG_NOSIGNAL) != (ssize_t)l->size)
            die_errno("send");
        if (epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &event) < 0)
            die_errno("epoll_ctl");
        return;
    }
    ssize_t n = recv(c->fd, l->buffer + l->size, l->size, 0);
    if (n <= 0)
        die("recv: %s", n ? strerror(errno) : "the server closed a connection");
    c->received += (size_t)n;
    if (c->received < l->size)
        return;
    close(c->fd);
    l->units++;
    begin(l, c);
}

static void connect_until(struct load *l, uint64_t until)
{
    struct epoll_event events[256];
    while (clock_ns(CLOCK_MONOTONIC) < until) {
        int n = epoll_wait(l->epoll, events, 256, STALL_S * 1000);
        if (n < 0 && errno != EINTR)
            die_errno("epoll_wait");
        if (n == 0)
            die("no answer for %d s", STALL_S);
        for (int i = 0; i < n; i++)
            go_on(l, events[i].data.ptr, events[i].events);
    }
}

int main(int argc, char **argv)
{
    if (argc != 11)
        die("usage: load_client ADDRESS PORT MODE CONNECTIONS SIZE WARMUP SECONDS CPU SERVER_PID CONGESTION");
    const char *mode = argv[3];
    uint64_t warmup = (uint64_t)(atof(argv[6]) * 1e9), interval = (uint64_t)(atof(argv[7]) * 1e9);
    clockid_t server;
    if ((errno = clock_getcpuclockid(atoi(argv[9]), &server)))
        die_errno("clock_getcpuclockid");
    struct load l = {.to = ipv4(argv[1], (unsigned)atoi(argv[2])),
                     .congestion = argv[10],
                     .size = (size_t)atol(argv[5]),
                     .count = (unsigned)atoi(argv[4]),
                     .buffer = calloc(1, RECEIVE),
                     .epoll = epoll_create1(EPOLL_CLOEXEC)};
    if (!l.buffer || l.epoll < 0 || !l.size || 2 * l.size > RECEIVE)
        die("cannot start");
    peer_start(atoi(argv[8]));

    int up = !strcmp(mode, "up"), down = !strcmp(mode, "down"), fd = up || down ? dial(&l) : -1;
    struct conn *conns = calloc(l.count, sizeof *conns);
    for (unsigned i = 0; fd < 0 && i < l.count; i++)
        begin(&l, &conns[i]);
    uint64_t start = clock_ns(CLOCK_MONOTONIC), units[2], wall[2], client[2], served[2];
    for (int phase = 0; phase < 2; phase++) {
        uint64_t until = start + warmup + (phase ? interval : 0);
        up ? send_until(&l, fd, until) : down ? receive_until(&l, fd, until) : connect_until(&l, until);
        units[phase] = l.units;
        wall[phase] = clock_ns(CLOCK_MONOTONIC);
        client[phase] = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        served[phase] = clock_ns(server);
    }
    printf("{\"units\": %llu, \"seconds\": %.9f, \"client_ns\": %llu, \"server_ns\": %llu}\n",
           (unsigned long long)(units[1] - units[0]), (double)(wall[1] - wall[0]) / 1e9,
           (unsigned long long)(client[1] - client[0]), (unsigned long long)(served[1] - served[0]));
    return 0;
}
