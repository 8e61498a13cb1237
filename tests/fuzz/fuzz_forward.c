/* A libFuzzer target on forwarding: a router with three links of different abilities and sizes, and packets of any kind
 * for others, with whatever a sender may have left to devices.
 *
 * The input is a program: each step is a byte that names it, and its arguments. What leaves must fit its link, and be
 * what it says it is; after each step the stack's invariants are looked over, at the end all must be given back. */
#include <sys/socket.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "tests/fuzz/invariants.h"

#define LINKS 3
#define FRAME_MAX 9000
#define STEPS_MAX 400

enum step { RAW, TIME, PACKET, NEIGHBOUR, ROUTE, STEPS };

static const unsigned caps[LINKS] = {LINK_CSUM | LINK_TSO | LINK_LRO, 0, LINK_CSUM}, mtus[LINKS] = {1500, 1280, 600};
static const uint64_t waits[] = {0, 1, 500, 1000, 3000, 10000, 61000};

struct world {
    struct stack *s;
    struct link *l[LINKS];
    uint64_t now;
    const uint8_t *at, *end;
    uint8_t frame[FRAME_MAX], big[70000];
};

static unsigned u8(struct world *w) { return w->at < w->end ? *w->at++ : 0; }
static unsigned u16(struct world *w)
{
    unsigned high = u8(w) << 8;
    return high | u8(w);
}

static void mac_of(unsigned link, bool ours, uint8_t *mac)
{
    memcpy(mac, (const uint8_t[]){2, 0, 0, 0, (uint8_t)link, ours ? 1 : 9}, 6);
}

/* Host n of the network on that link; 1 is us, and some are nobody that could be. */
static struct addr host(bool v4, unsigned link, unsigned n)
{
    struct addr a = {.b = {0xfd, (uint8_t)link, [15] = (uint8_t)n}};
    if (n >= 0xf0 && v4) {
        static const uint8_t odd[][4] = {{0, 0, 0, 0},   {127, 0, 0, 1},         {169, 254, 1, 1}, {224, 0, 0, 1},
                                         {240, 0, 0, 1}, {255, 255, 255, 255}, {10, 0, 1, 255},  {192, 0, 2, 7}};
        return addr_from4(odd[n & 7]);
    }
    if (n >= 0xf0) {
        static const uint8_t first[8][2] = {{0xfe, 0x80}, {0xff, 2},    {0xff, 0x0e}, {0, 0},
                                            {0x20, 1},    {0xfe, 0xbf}, {0xfd, 1},    {0xfc, 0}};
        memcpy(a.b, first[n & 7], 2);
        return a;
    }
    return v4 ? addr_from4((const uint8_t[]){10, 0, (uint8_t)link, (uint8_t)n}) : a;
}

/* A packet that leaves: whole, no larger than the link takes, and with a header sum that is right. */
static void look_at(unsigned link, const uint8_t *frame, uint32_t len, unsigned gso)
{
    must(len >= ETH_HLEN && (!gso || caps[link] & LINK_TSO));
    const uint8_t *ip = frame + ETH_HLEN;
    unsigned type = get16(frame + ETH_TYPE);
    uint32_t size = len - ETH_HLEN;
    if (!gso && type != ETHERTYPE_ARP)
        must(size <= (type == ETHERTYPE_IP6 && mtus[link] < IP6_MIN_MTU ? IP6_MIN_MTU : mtus[link]));
    if (type == ETHERTYPE_IP4) {
        uint32_t hlen = (ip[IP4_VIHL] & 15) * 4u;
        must(size >= hlen && hlen >= IP4_HLEN && get16(ip + IP4_TOTAL) == size);
        must(csum_finish(csum_add(0, ip, hlen)) == 0 && ip[IP4_TTL] > 0);
    } else if (type == ETHERTYPE_IP6) {
        must(size == IP6_HLEN + (uint32_t)get16(ip + IP6_PLEN) && ip[IP6_HOPS] > 0);
    }
}

static void pass(struct world *w, uint64_t ns)
{
    uint64_t until = w->now + ns;
    for (unsigned i = 0; i < 256; i++) {
        uint64_t next = stack_run(w->s, w->now);
        for (unsigned l = 0; l < LINKS; l++) {
            unsigned gso;
            for (int64_t n; (n = link_drain(w->l[l], w->big, sizeof w->big, &gso));)
                look_at(l, w->big, (uint32_t)n, gso);
        }
        if (next > until)
            break;
        w->now = next > w->now ? next : w->now + 1;
    }
    w->now = until;
}

static void raw(struct world *w)
{
    unsigned link = u8(w) % LINKS, n = u16(w) % 1600;
    if (n > (size_t)(w->end - w->at))
        n = (unsigned)(w->end - w->at);
    memcpy(w->frame, w->at, n);
    w->at += n;
    link_inject(w->l[link], w->frame, n, w->now);
}

/* Right up to its header's sum, if the input does not say otherwise; with the marks of a link that has offloads. */
static void packet(struct world *w)
{
    unsigned kind = u8(w), from = u8(w) % LINKS, to = u8(w) % LINKS, src = u8(w), dst = u8(w), hops = u8(w);
    unsigned field = u16(w), size = u16(w) % 8000, offload = u8(w), byte = u8(w);
    bool v4 = kind & 1, tcp = kind & 2, options = kind & 4;
    struct addr a = host(v4, from, src), b = host(v4, to, dst);
    uint8_t *f = w->frame, *ip = f + ETH_HLEN;
    uint32_t hlen = v4 ? IP4_HLEN + (options ? 4 * (kind >> 4) % 44 : 0) : IP6_HLEN;
    unsigned proto = tcp ? PROTO_TCP : !(kind & 8) ? PROTO_UDP : v4 ? PROTO_ICMP : PROTO_ICMP6;
    uint32_t len = ETH_HLEN + hlen + size;
    memset(f, (int)byte, len);
    mac_of(from, true, f + ETH_DST);
    mac_of(from, false, f + ETH_SRC);
    put16(f + ETH_TYPE, v4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6);
    if (v4) {
        ip[IP4_VIHL] = (uint8_t)(0x40 | hlen / 4);
        put16(ip + IP4_TOTAL, hlen + size);
        put16(ip + IP4_FRAG, field);
        ip[IP4_TTL] = (uint8_t)hops;
        ip[IP4_PROTO] = (uint8_t)proto;
        memcpy(ip + IP4_SRC, addr_v4(&a), 4);
        memcpy(ip + IP4_DST, addr_v4(&b), 4);
        put16(ip + IP4_CSUM, 0);
        put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, hlen)));
    } else {
        put32(ip, 6u << 28 | field);
        put16(ip + IP6_PLEN, size);
        ip[IP6_NEXT] = (uint8_t)(options ? kind >> 4 : proto);
        ip[IP6_HOPS] = (uint8_t)hops;
        memcpy(ip + IP6_SRC, a.b, 16);
        memcpy(ip + IP6_DST, b.b, 16);
    }
    if (tcp && size >= TCP_HLEN)
        ip[hlen + TCP_OFF] = (uint8_t)(offload & 0x10 ? byte : 0x50);
    struct pbuf *p = pbuf_alloc(&w->s->pool, PBUF_HEADROOM, len);
    if (!p)
        return;
    memcpy(pbuf_data(p), f, len);
    p->len = len;
    if (offload & 1) {
        p->flags = PBUF_CSUM_OK;
        p->csum_start = (uint16_t)(offload & 0x20 ? field : ETH_HLEN + hlen);
        p->csum_offset = offload & 0x40 ? byte : tcp ? TCP_CSUM : UDP_CSUM;
    } else if (offload & 2) {
        p->flags = PBUF_CSUM_OK;
    }
    if (offload & 4)
        p->gso_size = (uint16_t)(offload & 0x80 ? byte : 536 + 4 * byte);
    link_deliver(w->l[from], p, w->now);
}

/* Somebody says where it is: what waits for it may leave. */
static void neighbour(struct world *w)
{
    unsigned link = u8(w) % LINKS, n = u8(w);
    struct addr a = host(true, link, n), us = host(true, link, 1);
    uint8_t *f = w->frame, *arp = f + ETH_HLEN;
    memset(f, 0, ETH_HLEN + ARP_LEN);
    mac_of(link, true, f + ETH_DST);
    mac_of(link, false, f + ETH_SRC);
    put16(f + ETH_TYPE, ETHERTYPE_ARP);
    memcpy(arp, (const uint8_t[]){0, 1, 8, 0, 6, 4, 0, ARP_REPLY}, 8);
    mac_of(link, false, arp + ARP_SHA);
    memcpy(arp + ARP_SPA, addr_v4(&a), 4);
    mac_of(link, true, arp + ARP_THA);
    memcpy(arp + ARP_TPA, addr_v4(&us), 4);
    link_inject(w->l[link], f, ETH_HLEN + ARP_LEN, w->now);
    struct addr a6 = host(false, link, n), us6 = host(false, link, 1);
    uint8_t *ip = f + ETH_HLEN, *d = ip + IP6_HLEN;
    memset(ip, 0, IP6_HLEN + 32);
    put16(f + ETH_TYPE, ETHERTYPE_IP6);
    ip[0] = 0x60;
    put16(ip + IP6_PLEN, 32);
    ip[IP6_NEXT] = PROTO_ICMP6;
    ip[IP6_HOPS] = 255;
    memcpy(ip + IP6_SRC, a6.b, 16);
    memcpy(ip + IP6_DST, us6.b, 16);
    d[0] = ICMP6_NA;
    put32(d + 4, ND_NA_SOLICITED | ND_NA_OVERRIDE);
    memcpy(d + ND_TARGET, a6.b, 16);
    d[24] = ND_OPT_TLLA;
    d[25] = 1;
    mac_of(link, false, d + 26);
    put16(d + 2, csum_finish(csum_add(csum_pseudo(&a6, &us6, PROTO_ICMP6, 32), d, 32)));
    link_inject(w->l[link], f, ETH_HLEN + IP6_HLEN + 32, w->now);
}

static void route(struct world *w)
{
    unsigned kind = u8(w), link = u8(w) % LINKS, n = u8(w), bits = u8(w) % 33;
    bool v4 = kind & 1;
    struct addr dest = host(v4, kind >> 2 & 3, n), gw = host(v4, link, kind >> 4);
    if (kind & 2)
        stack_add_route(w->s, 2 + (int)link, dest.b, bits, gw.b);
    else
        stack_remove_route(w->s, 2 + (int)link, dest.b, bits, gw.b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    struct world *w = &world;
    static void (*const steps[STEPS])(struct world *) = {
        [RAW] = raw, [PACKET] = packet, [NEIGHBOUR] = neighbour, [ROUTE] = route};
    w->at = data;
    w->end = data + size;
    w->now = SECOND;
    unsigned how = u8(w);
    struct stack_config config = {.seed = {1, how}, .memory = how & 1 ? 1 << 20 : 16 << 20, .sockets = 64,
                                  .rcvbuf = 1 << 16, .rcvbuf_max = 1 << 16, .sndbuf = 1 << 16, .sndbuf_max = 1 << 16,
                                  .flags = STACK_NO_REPORTS | STACK_FORWARD4 | STACK_FORWARD6};
    must(stack_new(&w->s, &config, w->now) == 0);
    for (unsigned i = 0; i < LINKS; i++) {
        uint8_t mac[6];
        mac_of(i, true, mac);
        struct addr a4 = host(true, i, 1), a6 = host(false, i, 1);
        must(link_new_manual(&w->l[i], mtus[i], caps[i], mac, 4096) == 0);
        must(stack_add_link(w->s, w->l[i]) == 2 + (int)i);
        must(stack_add_address(w->s, 2 + (int)i, a4.b, 24) == 0 && stack_add_address(w->s, 2 + (int)i, a6.b, 64) == 0);
    }
    for (unsigned n = 0; n < STEPS_MAX && w->at < w->end; n++) {
        unsigned step = u8(w);
        if (step % STEPS == TIME)
            pass(w, waits[u8(w) % (sizeof waits / sizeof *waits)] * MSEC);
        else
            steps[step % STEPS](w);
        if (!(step & 0x80))
            pass(w, 0);
        look_over(w->s);
    }
    pass(w, 100 * (uint64_t)SECOND);
    must(w->s->pool.buffers == 0 && w->s->pool.in_use == 0);
    stack_free(w->s);
    return 0;
}
