/* The same as segment_libos.c for lwIP, by its raw API: two interfaces of one lwIP, joined in memory by copies of
 * packets, on one thread that holds lwIP's lock. Packets change their addresses on the way (10.0.2.1 -> 10.0.0.2
 * becomes 10.0.1.2 -> 10.0.1.1, and back), so that neither end is taken for local; the sum of the addresses stays, so
 * checksums hold. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lwip/init.h>
#include <lwip/ip.h>
#include <lwip/netif.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/tcp.h>
#include <lwip/tcpip.h>

#define MSS 1460
#define QUEUE 4096

static struct {
    struct pbuf *p[QUEUE];
    struct netif *to[QUEUE];
    unsigned head, tail;
} wire;
static struct netif a, b;
static uint8_t data[65536];
static size_t size, came_back, taken;
static int echo;

static void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static err_t output(struct netif *from, struct pbuf *p, const ip4_addr_t *to)
{
    struct pbuf *copy = pbuf_alloc(PBUF_LINK, p->tot_len, PBUF_RAM);
    (void)to;
    if (!copy || pbuf_copy(copy, p) != ERR_OK || wire.tail - wire.head == QUEUE)
        die("no room on the wire");
    uint8_t *ip = copy->payload;
    static const uint8_t to_b[8] = {10, 0, 1, 2, 10, 0, 1, 1}, to_a[8] = {10, 0, 0, 2, 10, 0, 2, 1};
    memcpy(ip + 12, from == &a ? to_b : to_a, 8);
    wire.p[wire.tail % QUEUE] = copy;
    wire.to[wire.tail++ % QUEUE] = from == &a ? &b : &a;
    return ERR_OK;
}

static void deliver(void)
{
    while (wire.head != wire.tail) {
        unsigned i = wire.head++ % QUEUE;
        if (wire.to[i]->input(wire.p[i], wire.to[i]) != ERR_OK)
            die("a packet was refused");
    }
}

static err_t plug(struct netif *n)
{
    n->mtu = 1500;
    n->output = output;
    n->flags |= NETIF_FLAG_UP | NETIF_FLAG_LINK_UP;
    return ERR_OK;
}

static err_t server_got(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
    (void)arg;
    if (!p || err != ERR_OK)
        return ERR_OK;
    static uint8_t got[65536];
    uint16_t n = pbuf_copy_partial(p, got, sizeof got - 1, 0);
    taken += n;
    tcp_recved(pcb, n);
    pbuf_free(p);
    if (echo) {
        tcp_write(pcb, got, n, TCP_WRITE_FLAG_COPY);
        tcp_output(pcb);
    }
    return ERR_OK;
}

static err_t client_got(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
    (void)arg;
    if (!p || err != ERR_OK)
        return ERR_OK;
    static uint8_t got[65536];
    came_back += pbuf_copy_partial(p, got, sizeof got - 1, 0);
    tcp_recved(pcb, p->tot_len);
    pbuf_free(p);
    return ERR_OK;
}

static err_t accepted(void *arg, struct tcp_pcb *pcb, err_t err)
{
    (void)arg;
    (void)err;
    tcp_nagle_disable(pcb);
    tcp_recv(pcb, server_got);
    return ERR_OK;
}

static err_t connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
    (void)err;
    *(int *)arg = 1;
    tcp_nagle_disable(pcb);
    return ERR_OK;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        die("usage: segment_lwip echo SIZE COUNT | bulk COUNT");
    echo = !strcmp(argv[1], "echo");
    size = echo ? (size_t)atol(argv[2]) : 32768;
    long count = atol(argv[echo ? 3 : 2]);
    ip4_addr_t ip, mask, gw;
    int up = 0;
    tcpip_init(NULL, NULL);
    LOCK_TCPIP_CORE();
    IP4_ADDR(&gw, 0, 0, 0, 0);
    IP4_ADDR(&ip, 10, 0, 2, 1);
    IP4_ADDR(&mask, 255, 255, 255, 0);
    netif_add(&a, &ip, &mask, &gw, NULL, plug, ip_input);
    IP4_ADDR(&ip, 10, 0, 1, 1);
    netif_add(&b, &ip, &mask, &gw, NULL, plug, ip_input);
    netif_set_default(&a);
    struct tcp_pcb *listener = tcp_new(), *c = tcp_new();
    tcp_bind(listener, netif_ip_addr4(&b), 80);
    listener = tcp_listen(listener);
    tcp_accept(listener, accepted);
    tcp_arg(c, &up);
    tcp_recv(c, client_got);
    ip_addr_t to;
    IP_ADDR4(&to, 10, 0, 0, 2);
    tcp_bind(c, netif_ip_addr4(&a), 0);
    if (tcp_connect(c, &to, 80, connected) != ERR_OK)
        die("tcp_connect");
    for (int i = 0; i < 10; i++)
        deliver();
    if (!up)
        die("no connection");

    uint64_t start = 0;
    long warm = count / 10, segments = -warm;
    while (segments < count) {
        if (!start && segments >= 0) {
            start = now_ns();
            segments = 0;
            taken = 0;
        }
        came_back = 0;
        size_t n = size < tcp_sndbuf(c) ? size : tcp_sndbuf(c);
        if (n)
            tcp_write(c, data, (uint16_t)n, TCP_WRITE_FLAG_COPY);
        tcp_output(c);
        deliver();
        if (echo && came_back != size)
            die("what came back is not what was sent");
        if (!echo && wire.head == wire.tail && !n)
            tcp_tmr(); /* a delayed ACK is waited for */
        segments = echo ? segments + 2 : (long)(taken / MSS) - (start ? 0 : warm);
    }
    printf("%.1f\n", (double)(now_ns() - start) / (double)segments);
    fflush(stdout);
    _Exit(0); /* lwIP's thread waits for a lock that is never given back */
}
