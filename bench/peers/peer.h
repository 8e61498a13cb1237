/* What the C peers share: dying aloud, one cpu, a listening socket, the announcement to the harness.
 *
 * Every peer is one thread on one cpu, speaks IPv4, and ends with a message on stderr and status 1 when anything is
 * not as it should be: a figure from a run with an error in it is not a figure. */
#ifndef LIBOS_BENCH_PEER_H
#define LIBOS_BENCH_PEER_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define die(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), exit(1))
#define die_errno(what) die("%s: %s", what, strerror(errno))

/* cpu < 0: wherever the scheduler likes. Dies with the harness, however that ends. */
static inline void peer_start(int cpu)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set) < 0)
            die_errno("sched_setaffinity");
    }
}

static inline void set_option(int fd, int level, int name, int value)
{
    if (setsockopt(fd, level, name, &value, sizeof value) < 0)
        die_errno("setsockopt");
}

/* The same congestion control and no Nagle on every kernel socket; accepted ones inherit both. */
static inline void tune(int fd, const char *congestion)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, strlen(congestion)) < 0)
        die("TCP_CONGESTION=%s: %s", congestion, strerror(errno));
}

static inline struct sockaddr_in ipv4(const char *address, unsigned port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, address, &in.sin_addr) != 1)
        die("not an IPv4 address: %s", address);
    return in;
}

static inline int listen_on(const char *address, const char *congestion, int flags)
{
    struct sockaddr_in in = ipv4(address, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0)
        die_errno("socket");
    tune(fd, congestion);
    if (bind(fd, (struct sockaddr *)&in, sizeof in) < 0)
        die_errno("bind");
    if (listen(fd, 1024) < 0)
        die_errno("listen");
    return fd;
}

/* One line tells the harness that connections are welcome, and on which port. */
static inline void announce(int fd)
{
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    if (getsockname(fd, (struct sockaddr *)&in, &len) < 0)
        die_errno("getsockname");
    printf("{\"port\": %u}\n", ntohs(in.sin_port));
    fflush(stdout);
}

#endif
