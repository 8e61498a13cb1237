/* What a segment costs in the stack itself: two stacks on a `pair`, one connection, no system call and no Python.
 *
 *   echo SIZE    SIZE bytes there and back, COUNT times: two segments of data each time, each with its ACK on board
 *   bulk         64 KiB writes one way until COUNT segments have gone; ACKs come back
 *
 * Links of 1,500 bytes without offloads, so every checksum is computed and verified. Prints ns for each segment that
 * carried data, from the call that wrote it to the call that read it, both stacks' work together. */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "net/api.h"

#define MSS 1448

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void need(int64_t rc, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror((int)-rc));
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: segment_libos echo SIZE COUNT | bulk COUNT\n");
        return 1;
    }
    int echo = !strcmp(argv[1], "echo");
    size_t size = echo ? (size_t)atol(argv[2]) : 65536;
    long count = atol(argv[echo ? 3 : 2]);
    static const uint8_t mac_a[6] = {2, 0, 0, 0, 0, 1}, mac_b[6] = {2, 0, 0, 0, 0, 2};
    static const uint8_t addr_a[16] = {[10] = 0xff, 0xff, 10, 0, 0, 1}, addr_b[16] = {[10] = 0xff, 0xff, 10, 0, 0, 2};
    static uint8_t data[65536], got[1 << 18];
    struct stack *a, *b;
    struct link *la, *lb;
    uint64_t now = 1000000000;
    struct stack_config config = {.seed = {1, 2}, .memory = 64 << 20, .sockets = 16, .rcvbuf = 1 << 20, .sndbuf = 1 << 20,
                                  .rcvbuf_max = 1 << 20, .sndbuf_max = 1 << 20};
    need(stack_new(&a, &config, now), "stack_new");
    config.seed[0] = 3;
    need(stack_new(&b, &config, now), "stack_new");
    need(link_new_pair(&la, &lb, 1500, 0, mac_a, mac_b, 4096), "link_new_pair");
    need(stack_add_link(a, la), "stack_add_link");
    need(stack_add_link(b, lb), "stack_add_link");
    need(stack_add_address(a, 2, addr_a, 24), "stack_add_address");
    need(stack_add_address(b, 2, addr_b, 24), "stack_add_address");
    int64_t listener = sock_open(b, SOCK_STREAM, AF_INET), c = sock_open(a, SOCK_STREAM, AF_INET), s = -1;
    need(sock_bind(b, listener, addr_b, 80), "sock_bind");
    need(sock_listen(b, listener, 1, 0), "sock_listen");
    need(sock_connect(a, c, addr_b, 80), "sock_connect");
    for (int i = 0; i < 1000 && s < 0; i++, now += 1000000) {
        stack_run(a, now);
        stack_run(b, now);
        s = sock_accept(b, listener);
    }
    need(s, "sock_accept");
    need(sock_setopt(a, c, 6, 1, 1), "TCP_NODELAY");
    need(sock_setopt(b, s, 6, 1, 1), "TCP_NODELAY");

    uint64_t start = 0, moved = 0;
    long warm = count / 10, segments = -warm;
    while (segments < count) {
        if (!start && segments >= 0) {
            start = now_ns();
            moved = 0;
            segments = 0;
        }
        int64_t n = 0, r;
        now += 10000;
        sock_send(a, c, data, size);
        stack_run(a, now);
        stack_run(b, now);
        while ((r = sock_recv(b, s, got, sizeof got)) > 0)
            n += r;
        if (echo && (n != (int64_t)size || memcmp(got, data, size)))
            need(-EIO, "what came is not what was sent");
        if (echo)
            need(sock_send(b, s, got, (size_t)n), "sock_send");
        stack_run(b, now);
        stack_run(a, now);
        if (echo && sock_recv(a, c, got, sizeof got) != (int64_t)size)
            need(-EIO, "what came back is not what was sent");
        moved += (uint64_t)n;
        segments = echo ? segments + 2 : start ? (long)(moved / MSS) : (long)(moved / MSS) - warm;
    }
    printf("%.1f\n", (double)(now_ns() - start) / (double)segments);
    return 0;
}
