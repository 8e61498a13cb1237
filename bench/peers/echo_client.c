/* The measuring end: a closed-loop TCP echo client, one thread, level-triggered epoll.
 *
 * Each of N connections sends a message of S bytes, waits for all S to come back, and at once sends the next. After a
 * warm-up the measured interval begins; then every connection gets its last answer and is closed. Reported for the
 * interval, as one line of JSON:
 *
 *   requests          answers that were complete within it
 *   seconds           its length
 *   p50_ns, p99_ns    send to last byte of the answer; from a log-linear histogram of 64 steps an octave (error < 1.6 %)
 *   client_ns         CPU time of this process, kernel work on its behalf included (CLOCK_PROCESS_CPUTIME_ID)
 *   server_ns         CPU time of the server's process, all threads, read at the same two instants
 *
 * The first eight bytes of a message number it and every answer is checked for its number; during the warm-up (at least
 * one message a connection) all bytes are compared. A wrong byte, a lost connection, or no answer for 5 s ends the
 * program with status 1 and no figure. */

#include "peer.h"
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <time.h>

#define STALL_MS 5000
#define OCTAVE 64 /* histogram steps per doubling */
#define OCTAVES 42

struct conn {
    int fd;
    int blocked; /* part of the message is unsent: EPOLLOUT is wanted */
    size_t sent, received;
    uint64_t number, started;
    int checked; /* one whole answer was compared */
};

struct client {
    int epoll;
    size_t size;
    struct conn *conns;
    unsigned count, draining; /* connections that have had their last answer */
    uint8_t *message, *answer;
    int warm, stop;
    uint64_t next, now, requests;
    uint64_t histogram[OCTAVES * OCTAVE];
};

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    if (clock_gettime(id, &t) < 0)
        die_errno("clock_gettime");
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The CPU clock of a process, as clock_getcpuclockid(3) gives it. */
static clockid_t cpu_clock(pid_t pid)
{
    clockid_t id;
    if ((errno = clock_getcpuclockid(pid, &id)))
        die_errno("clock_getcpuclockid");
    return id;
}

/* Below 64 ns one step a nanosecond, then 64 steps for each doubling. */
static unsigned bucket_of(uint64_t ns)
{
    if (ns < OCTAVE)
        return (unsigned)ns;
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - 6;
    unsigned bucket = (shift + 1) * OCTAVE + (unsigned)((ns >> shift) - OCTAVE);
    return bucket < OCTAVES * OCTAVE ? bucket : OCTAVES * OCTAVE - 1;
}

static uint64_t middle_of(unsigned bucket)
{
    if (bucket < OCTAVE)
        return bucket;
    unsigned shift = bucket / OCTAVE - 1;
    return ((uint64_t)(OCTAVE + bucket % OCTAVE) << shift) + ((1ull << shift) >> 1);
}

static uint64_t percentile(const struct client *c, double share)
{
    uint64_t seen = 0, rank = (uint64_t)(share * (double)c->requests);
    for (unsigned i = 0; i < OCTAVES * OCTAVE; i++)
        if ((seen += c->histogram[i]) > rank)
            return middle_of(i);
    return 0;
}

static void want(struct client *c, struct conn *conn, int op, int blocked)
{
    struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = conn};
    conn->blocked = blocked;
    if (epoll_ctl(c->epoll, op, conn->fd, &event) < 0)
        die_errno("epoll_ctl");
}

/* The message's bytes are shared by all connections; only its number differs, and goes in just before sending. */
static void push(struct client *c, struct conn *conn)
{
    memcpy(c->message, &conn->number, sizeof conn->number);
    ssize_t n = send(conn->fd, c->message + conn->sent, c->size - conn->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        die_errno("send");
    conn->sent += n > 0 ? (size_t)n : 0;
    int blocked = conn->sent < c->size;
    if (blocked != conn->blocked)
        want(c, conn, EPOLL_CTL_MOD, blocked);
}

static void ask(struct client *c, struct conn *conn)
{
    conn->number = c->next++;
    conn->sent = conn->received = 0;
    conn->started = c->now;
    push(c, conn);
}

/* `answer` holds bytes from .. from+n of conn's answer. */
static void compare(struct client *c, struct conn *conn, size_t from, size_t n)
{
    size_t head = sizeof conn->number;
    memcpy(c->message, &conn->number, head);
    size_t upto = conn->checked && !c->warm ? head : c->size;
    if (from < upto && memcmp(c->answer, c->message + from, n < upto - from ? n : upto - from))
        die("an answer differs from its message (connection %u, message %llu)", (unsigned)(conn - c->conns),
            (unsigned long long)conn->number);
}

static void pull(struct client *c, struct conn *conn)
{
    /* One byte more than is due, so that a server that says too much is caught. */
    ssize_t n = recv(conn->fd, c->answer, c->size - conn->received + 1, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        die_errno("recv");
    if (n == 0)
        die("the server closed a connection");
    if (conn->received + (size_t)n > c->size || conn->received + (size_t)n > conn->sent)
        die("more bytes came back than were sent");
    compare(c, conn, conn->received, (size_t)n);
    conn->received += (size_t)n;
    if (conn->received < c->size)
        return;
    conn->checked = 1;
    c->now = clock_ns(CLOCK_MONOTONIC);
    if (c->stop) {
        c->draining++;
        return;
    }
    c->requests++;
    c->histogram[bucket_of(c->now - conn->started)]++;
    ask(c, conn);
}

/* Serve events until `until`, or until every connection has its last answer. */
static void run(struct client *c, uint64_t until)
{
    struct epoll_event events[256];
    while (c->stop ? c->draining < c->count : c->now < until) {
        int n = epoll_wait(c->epoll, events, 256, STALL_MS);
        if (n < 0 && errno != EINTR)
            die_errno("epoll_wait");
        if (n == 0)
            die("no answer for %d ms, %u connections waiting", STALL_MS, c->count - c->draining);
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                push(c, conn);
            if (events[i].events & ~(unsigned)EPOLLOUT)
                pull(c, conn);
        }
    }
}

static void dial(struct client *c, struct conn *conn, const struct sockaddr_in *to, const char *congestion)
{
    struct timeval limit = {.tv_sec = STALL_MS / 1000};
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (conn->fd < 0)
        die_errno("socket");
    tune(conn->fd, congestion);
    setsockopt(conn->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* connect(2) heeds it: socket(7) */
    if (connect(conn->fd, (const struct sockaddr *)to, sizeof *to) < 0)
        die("connect: %s", errno == EINPROGRESS ? "timed out" : strerror(errno));
    int on = 1;
    if (ioctl(conn->fd, FIONBIO, &on) < 0)
        die_errno("FIONBIO");
    want(c, conn, EPOLL_CTL_ADD, 0);
}

static int is_checked(const struct client *c)
{
    for (unsigned i = 0; i < c->count; i++)
        if (!c->conns[i].checked)
            return 0;
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 10)
        die("usage: echo_client ADDRESS PORT CONNECTIONS SIZE WARMUP SECONDS CPU SERVER_PID CONGESTION");
    struct sockaddr_in to = ipv4(argv[1], (unsigned)atoi(argv[2]));
    uint64_t warmup = (uint64_t)(atof(argv[5]) * 1e9), interval = (uint64_t)(atof(argv[6]) * 1e9);
    clockid_t server = cpu_clock(atoi(argv[8]));
    static struct client c;
    c.count = (unsigned)atoi(argv[3]);
    c.size = (size_t)atol(argv[4]);
    if (c.count < 1 || c.size < sizeof(uint64_t))
        die("at least one connection, and 8 bytes");
    peer_start(atoi(argv[7]));

    c.epoll = epoll_create1(EPOLL_CLOEXEC);
    c.conns = calloc(c.count, sizeof *c.conns);
    c.message = malloc(c.size);
    c.answer = malloc(c.size + 1);
    if (c.epoll < 0 || !c.conns || !c.message || !c.answer)
        die("cannot start");
    for (size_t i = 0; i < c.size; i++)
        c.message[i] = (uint8_t)(i * 167 + (i >> 8));
    for (unsigned i = 0; i < c.count; i++)
        dial(&c, &c.conns[i], &to, argv[9]);

    c.warm = 1;
    c.now = clock_ns(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < c.count; i++)
        ask(&c, &c.conns[i]);
    run(&c, c.now + warmup);
    for (uint64_t give_up = c.now + STALL_MS * 1000000ull; !is_checked(&c); run(&c, c.now + 1))
        if (c.now > give_up)
            die("a connection starved during the warm-up");

    c.warm = 0;
    c.requests = 0;
    memset(c.histogram, 0, sizeof c.histogram);
    uint64_t server_ns = clock_ns(server), client_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t start = c.now = clock_ns(CLOCK_MONOTONIC);
    run(&c, start + interval);
    uint64_t end = clock_ns(CLOCK_MONOTONIC);
    server_ns = clock_ns(server) - server_ns;
    client_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - client_ns;

    c.stop = 1;
    run(&c, 0);
    for (unsigned i = 0; i < c.count; i++)
        if (close(c.conns[i].fd) < 0)
            die_errno("close");
    printf("{\"requests\": %llu, \"seconds\": %.9f, \"p50_ns\": %llu, \"p99_ns\": %llu, \"client_ns\": %llu, "
           "\"server_ns\": %llu}\n",
           (unsigned long long)c.requests, (double)(end - start) / 1e9, (unsigned long long)percentile(&c, 0.50),
           (unsigned long long)percentile(&c, 0.99), (unsigned long long)client_ns, (unsigned long long)server_ns);
    return 0;
}
