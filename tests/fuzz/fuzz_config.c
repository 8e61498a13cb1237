/* A libFuzzer target on what configures an interface: router advertisements with any options, claims and questions of
 * neighbours about addresses that are being checked, and time.
 *
 * The input is a script of steps: a byte that names it, and its arguments. Frames are right up to ICMP; from there on
 * the input says what is in them. After each step lists are bounded and agree with each other. */
#include <errno.h>
#include <sys/socket.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/ip/netif.h"
#include "tests/fuzz/invariants.h"

enum step { ADVERTISE, SOLICITATION, ADVERTISEMENT, ARP, TIME, ADDRESS, SEND, STEPS };

static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 2};
static const uint64_t waits[] = {1, 50, 1000, 2000, 5000, 30000, 7200000, 90000000};

struct world {
    struct stack *s;
    struct link *l;
    struct netif *nif;
    uint64_t now;
    const uint8_t *at, *end;
    int64_t udp;
    uint8_t frame[1600], scratch[2000];
};

static unsigned u8(struct world *w) { return w->at < w->end ? *w->at++ : 0; }

static void pass(struct world *w, uint64_t ns)
{
    uint64_t until = w->now + ns;
    for (unsigned i = 0; i < 64 && w->now <= until; i++) {
        uint64_t next = stack_run(w->s, w->now);
        unsigned gso;
        while (link_drain(w->l, w->scratch, sizeof w->scratch, &gso) > 0)
            ;
        if (next > until)
            break;
        w->now = next > w->now ? next : w->now + 1;
    }
    w->now = until > w->now ? until : w->now;
}

/* One of our own addresses, whatever its state, or one that is near. */
static struct addr target(struct world *w, bool v4)
{
    static const uint8_t near4[4] = {10, 0, 0, 7}, near6[16] = {0xfd, [15] = 7};
    unsigned which = u8(w);
    for (unsigned i = 0; i < w->nif->naddrs; i++) {
        const struct addr *a = &w->nif->addrs[(which + i) % w->nif->naddrs].addr;
        if (addr_is4(a) == v4 && which < 0xc0)
            return *a;
    }
    return v4 ? addr_from4(near4) : addr_from(near6);
}

static struct addr router(struct world *w)
{
    struct addr a = {{0xfe, 0x80, [15] = (uint8_t)(u8(w) % 12 + 1)}};
    return a;
}

static void arrive6(struct world *w, const struct addr *src, const struct addr *dst, uint32_t len)
{
    uint8_t *f = w->frame, *ip = f + ETH_HLEN, *icmp = ip + IP6_HLEN;
    memset(f, 0, ETH_HLEN + IP6_HLEN);
    memcpy(f + ETH_DST, our_mac, 6);
    f[ETH_SRC] = 2;
    f[ETH_SRC + 5] = src->b[15];
    put16(f + ETH_TYPE, ETHERTYPE_IP6);
    ip[0] = 0x60;
    put16(ip + IP6_PLEN, len);
    ip[IP6_NEXT] = PROTO_ICMP6;
    ip[IP6_HOPS] = 255;
    memcpy(ip + IP6_SRC, src->b, 16);
    memcpy(ip + IP6_DST, dst->b, 16);
    put16(icmp + ICMP_CSUM, 0);
    put16(icmp + ICMP_CSUM, csum_finish(csum_add(csum_pseudo(src, dst, PROTO_ICMP6, len), icmp, len)));
    link_inject(w->l, f, ETH_HLEN + IP6_HLEN + len, w->now);
}

/* Options as they come; most of the time their lengths fit. Where they end. */
static uint32_t options(struct world *w, uint32_t at)
{
    uint8_t *icmp = w->frame + ETH_HLEN + IP6_HLEN;
    static const uint8_t kinds[] = {ND_OPT_SLLA, ND_OPT_TLLA, ND_OPT_PREFIX, ND_OPT_MTU, ND_OPT_NONCE, ND_OPT_ROUTE, ND_OPT_RDNSS,
                                    ND_OPT_DNSSL};
    for (unsigned n = u8(w) % 6; n > 0; n--) {
        unsigned kind = u8(w), units = u8(w) % 6;
        icmp[at] = kind < 0x80 ? kinds[kind % sizeof kinds] : (uint8_t)kind;
        if (icmp[at] == ND_OPT_PREFIX && kind < 0x60)
            units = 4;
        icmp[at + 1] = (uint8_t)units;
        for (uint32_t i = 2; i < 8 * (units ? units : 1); i++)
            icmp[at + i] = (uint8_t)u8(w);
        at += 8 * (units ? units : 1);
    }
    return at;
}

static void advertise(struct world *w)
{
    static const struct addr all_nodes = {{0xff, 2, [15] = 1}};
    uint8_t *icmp = w->frame + ETH_HLEN + IP6_HLEN;
    struct addr from = router(w);
    memset(icmp, 0, RA_OPTIONS);
    icmp[ICMP_TYPE] = ICMP6_RA;
    icmp[RA_HOPS] = (uint8_t)u8(w);
    icmp[RA_FLAGS] = (uint8_t)u8(w);
    icmp[RA_LIFETIME + 1] = (uint8_t)u8(w);
    icmp[RA_REACHABLE + 2] = (uint8_t)u8(w);
    icmp[RA_RETRANS + 3] = (uint8_t)u8(w);
    arrive6(w, &from, &all_nodes, options(w, RA_OPTIONS));
}

static void about(struct world *w, unsigned type)
{
    uint8_t *icmp = w->frame + ETH_HLEN + IP6_HLEN;
    struct addr to = target(w, false), from = router(w), group = addr_solicited_node(&to);
    unsigned how = u8(w);
    memset(icmp, 0, ND_OPTIONS);
    icmp[ICMP_TYPE] = (uint8_t)type;
    icmp[ICMP_REST] = (uint8_t)(how << 5);
    if (how & 0x10)
        memset(&from, 0, sizeof from);
    if (how & 0x20)
        from = to;
    memcpy(icmp + ND_TARGET, (how & 0x40 ? &from : &to)->b, 16);
    arrive6(w, &from, &group, options(w, ND_OPTIONS));
}

static void arp(struct world *w)
{
    uint8_t *f = w->frame, *a = f + ETH_HLEN;
    struct addr one = target(w, true), other = target(w, true);
    unsigned how = u8(w);
    memset(f, 0, ETH_HLEN + ARP_LEN);
    memset(f + ETH_DST, 0xff, 6);
    put16(f + ETH_TYPE, ETHERTYPE_ARP);
    put16(a + ARP_HTYPE, 1);
    put16(a + ARP_PTYPE, ETHERTYPE_IP4);
    a[ARP_HLEN] = 6;
    a[ARP_PLEN] = 4;
    put16(a + ARP_OP, how & 1 ? ARP_REPLY : ARP_REQUEST);
    a[ARP_SHA] = 2;
    a[ARP_SHA + 5] = (uint8_t)(how >> 4);
    if (how & 2)
        memcpy(a + ARP_SPA, addr_v4(&one), 4);
    memcpy(a + ARP_TPA, addr_v4(&other), 4);
    link_inject(w->l, f, ETH_HLEN + ARP_LEN, w->now);
}

static void address(struct world *w)
{
    unsigned how = u8(w), host = u8(w) % 24;
    struct addr a = how & 1 ? addr_from4((uint8_t[]){10, 0, 0, (uint8_t)host}) : (struct addr){{0xfd, [15] = (uint8_t)host}};
    uint64_t until = how & 2 ? REACTOR_NEVER : w->now + (u8(w) + 1) * SECOND;
    if (how & 4)
        stack_remove_address(w->s, w->nif->index, a.b);
    else
        stack_set_address(w->s, w->nif->index, a.b, how & 1 ? 24 : 64, how >> 3, until, until);
}

static void look_over_config(struct world *w)
{
    unsigned on_link = 0, installed = 0;
    must(w->nif->naddrs <= NETIF_ADDRS_MAX && w->s->nroutes <= ROUTES_MAX);
    for (unsigned i = 0; i < w->nif->naddrs; i++) {
        const struct netif_addr *a = &w->nif->addrs[i];
        must(a->state <= ADDRESS_DUPLICATE && a->preferred_until <= a->valid_until && addr_is_unicast(&a->addr));
        must(netif_find(w->nif, &a->addr) == a);
        on_link += !(a->flags & ADDRESS_NO_ROUTE);
    }
    for (unsigned i = 0; i < w->s->nroutes; i++)
        installed += w->s->routes[i].nif == w->nif;
    must(installed >= on_link && installed <= on_link + 24);
    must(w->nif->hop_limit >= 32 && w->nif->mtu6 >= IP6_MIN_MTU && w->nif->mtu6 <= w->l->mtu);
    must(w->nif->reachable_time >= SECOND && w->nif->retrans_time >= 100 * MSEC);
    look_over(w->s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    struct world *w = &world;
    struct stack_config config = {.seed = {1, 2}, .memory = 8 << 20, .sockets = 16, .rcvbuf = 65536, .sndbuf = 65536};
    uint64_t events[16];
    *w = (struct world){.now = SECOND, .at = data, .end = data + size};
    must(stack_new(&w->s, &config, w->now) == 0);
    must(link_new_manual(&w->l, 1500, 0, our_mac, 1024) == 0);
    int index = stack_add_link(w->s, w->l);
    w->nif = netif_of(w->s, index);
    w->udp = sock_open(w->s, SOCK_DGRAM, AF_INET6);
    must(stack_autoconf(w->s, index, u8(w)) == 0);
    for (unsigned n = 0; n < 300 && w->at < w->end; n++) {
        switch (u8(w) % STEPS) {
        case ADVERTISE:
            advertise(w);
            break;
        case SOLICITATION:
            about(w, ICMP6_NS);
            break;
        case ADVERTISEMENT:
            about(w, ICMP6_NA);
            break;
        case ARP:
            arp(w);
            break;
        case TIME:
            pass(w, waits[u8(w) % (sizeof waits / sizeof *waits)] * MSEC);
            break;
        case ADDRESS:
            address(w);
            break;
        default: {
            struct sock_name to = {.family = AF_INET6, .port = 7};
            struct addr a = target(w, u8(w) & 1);
            a.b[15] ^= (uint8_t)u8(w);
            memcpy(to.addr, a.b, 16);
            sock_sendto(w->s, w->udp, data, size < 100 ? size : 100, &to, NULL);
        }
        }
        pass(w, 0);
        stack_events(w->s, events, 16);
        look_over_config(w);
    }
    sock_free(w->s, w->udp);
    pass(w, 30ull * SECOND);
    must(w->s->pool.buffers == 0);
    stack_free(w->s);
    return 0;
}
