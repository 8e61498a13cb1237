/* The stack driven from C, as a conformance suite of one's own would: a client whose packets are made here opens a
 * connection, is greeted, says good-bye. Each packet that leaves is printed with its time; nothing waits, no clock is
 * read, and the output is the same each time.
 *
 *   make libos-stack
 *   cc -Ibuild/libos-stack examples/drive.c -Lbuild/libos-stack -l:libos-stack.so -Wl,-rpath,$PWD/build/libos-stack
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libos-stack.h"

#define MS 1000000ull
#define CLIENT 0xc6336401u /* 198.51.100.1 */
#define SERVER 0xc0000202u /* 192.0.2.2 */
#define CLIENT_PORT 40000
#define SERVER_PORT 80

static void put16(uint8_t *p, unsigned v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16), put16(p + 2, v); }
static uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

static void must(int64_t rc, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror((int)-rc));
    exit(1);
}

/* An IPv4 packet with a TCP segment from the client. */
static void send_segment(struct drive *d, uint64_t at, unsigned flags, uint32_t seq, uint32_t ack)
{
    uint8_t ip[40] = {0}, *tcp = ip + 20, sum[12 + 20];
    put32(ip + 12, CLIENT);
    put32(ip + 16, SERVER);
    put16(tcp, CLIENT_PORT);
    put16(tcp + 2, SERVER_PORT);
    put32(tcp + 4, seq);
    put32(tcp + 8, ack);
    tcp[12] = 5 << 4;
    tcp[13] = (uint8_t)flags;
    put16(tcp + 14, 65535);
    memcpy(sum, ip + 12, 8); /* the pseudo header: addresses, protocol, length */
    put32(sum + 8, IPPROTO_TCP << 16 | 20);
    memcpy(sum + 12, tcp, 20);
    put16(tcp + 16, inet_checksum(sum, sizeof sum));
    ip[0] = 0x45;
    put16(ip + 2, 40);
    ip[8] = 64;
    ip[9] = IPPROTO_TCP;
    put16(ip + 10, inet_checksum(ip, 20));
    must(drive_inject(d, at, ip, 40), "inject");
}

/* Print what has left; the last segment's sequence number is what an answer acknowledges. */
static uint32_t show(struct drive *d)
{
    uint8_t packet[1500];
    uint64_t at;
    uint32_t last = 0;
    for (int64_t n; (n = drive_take(d, &at, packet, sizeof packet)) > 0;) {
        const uint8_t *tcp = packet + (packet[0] & 15) * 4;
        unsigned flags = tcp[13], length = (unsigned)(packet + n - tcp) - (tcp[12] >> 4) * 4u;
        printf("%6.3f %s%s%s%s%s %u bytes\n", (double)at / 1e9, flags & 2 ? "S" : "", flags & 1 ? "F" : "",
               flags & 4 ? "R" : "", flags & 8 ? "P" : "", flags & 16 ? "." : "", length);
        last = get32(tcp + 4) + length + !!(flags & 3);
    }
    return last;
}

int main(void)
{
    struct drive *d;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(SERVER_PORT)};
    struct tcp_info info;
    unsigned len = sizeof info;
    must(drive_new(&d, NULL, 1500, 0), "new");
    must(drive_address(d, "192.0.2.2/24"), "address");

    int listener = drive_socket(d, AF_INET, SOCK_STREAM, 0);
    must(listener, "socket");
    must(drive_bind(d, listener, (struct sockaddr *)&addr, sizeof addr), "bind");
    must(drive_listen(d, listener, 1), "listen");

    send_segment(d, 0 * MS, 2, 0, 0); /* SYN */
    uint32_t next = show(d);
    send_segment(d, 10 * MS, 16, 1, next);
    int fd = drive_accept(d, listener, NULL, NULL);
    must(fd, "accept");

    must(drive_sendto(d, fd, "hello", 5, 0, NULL, 0), "send");
    show(d);
    must(drive_advance(d, 500 * MS), "advance"); /* nobody answers: it is sent again */
    next = show(d);
    must(drive_getsockopt(d, fd, IPPROTO_TCP, TCP_INFO, &info, &len), "getsockopt");
    printf("rtt %u us, %u retransmissions\n", info.tcpi_rtt, info.tcpi_total_retrans);

    send_segment(d, 500 * MS, 16 | 1, 1, next); /* it has all, and closes */
    show(d);
    must(drive_close(d, fd), "close");
    next = show(d);
    send_segment(d, 600 * MS, 16, 2, next);
    must(drive_close(d, listener), "close");
    must(drive_advance(d, 1000 * MS), "advance");

    struct stack_memory memory;
    stack_memory(drive_stack(d), &memory);
    printf("%u sockets, %u buffers left\n", memory.sockets, memory.buffers);
    drive_free(d);
    return 0;
}
