/* A libFuzzer target on the network layer: fragments in every order and shape, questions about groups while sockets
 * join and leave them, tags, redirects, and datagrams of any size going out.
 *
 * The input is a program: each step is a byte that names it, and its arguments. After each step the stack's invariants
 * are looked over (invariants.h); what is held for reassembly stays within its bound; at the end all must be given
 * back. seeds_ip.py writes programs; `make fuzz` builds and runs. */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/ip/groupset.h"
#include "tests/fuzz/invariants.h"

#define FRAME_MAX 2048
#define SOCKETS 4
#define STEPS_MAX 600

enum step { RAW, TIME, FRAGMENT, QUERY, REPORT, MEMBERSHIP, SEND, RECV, REDIRECT, OPTION, ADDRESS, STEPS };

static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 2}, peer_mac[6] = {2, 0, 0, 0, 0, 1};
static const uint64_t waits[] = {0, 1, 100, 500, 1000, 5000, 10000, 31000, 61000, 130000, 300000};

struct input {
    const uint8_t *at, *end;
};

struct world {
    struct stack *s;
    struct link *l;
    uint64_t now;
    int64_t socks[SOCKETS]; /* two of each family */
    struct input in;
    uint8_t frame[FRAME_MAX], big[70000];
    uint32_t len;
};

static unsigned u8(struct world *w) { return w->in.at < w->in.end ? *w->in.at++ : 0; }
static unsigned u16(struct world *w)
{
    unsigned high = u8(w) << 8;
    return high | u8(w);
}

/* One of a few of each kind, so that they meet each other. */
static struct addr peer(bool v4, unsigned n)
{
    struct addr a = {.b = {0xfd, [15] = (uint8_t)(1 + (n & 3))}};
    return v4 ? addr_from4((const uint8_t[]){10, 0, 0, (uint8_t)(n & 3 ? 2 + (n & 3) : 1)}) : a;
}
static struct addr ours(bool v4)
{
    struct addr a = {.b = {0xfd, [15] = 9}};
    return v4 ? addr_from4((const uint8_t[]){10, 0, 0, 9}) : a;
}
static struct addr group(bool v4, unsigned n)
{
    struct addr a = {.b = {0xff, (n & 4) ? 2 : 0x15, [15] = (uint8_t)(n & 3)}};
    return v4 ? addr_from4((const uint8_t[]){(n & 4) ? 224 : 239, 0, 0, (uint8_t)(n & 3)}) : a;
}

static void pass(struct world *w, uint64_t ns)
{
    unsigned gso;
    uint64_t until = w->now + ns;
    for (unsigned i = 0; i < 256; i++) {
        uint64_t next = stack_run(w->s, w->now);
        for (int64_t n; (n = link_drain(w->l, w->big, sizeof w->big, &gso));)
            must(n >= 14 && n <= 1500 + 14 + 8);
        if (next > until)
            break;
        w->now = next > w->now ? next : w->now + 1;
    }
    w->now = until;
}

/* --- frames --- */

static void begin(struct world *w, unsigned tag)
{
    memcpy(w->frame + ETH_DST, our_mac, 6);
    memcpy(w->frame + ETH_SRC, peer_mac, 6);
    w->len = ETH_TYPE;
    if (tag & 0x20) {
        put16(w->frame + w->len, ETHERTYPE_VLAN);
        put16(w->frame + w->len + 2, tag & 0x10 ? 5 : tag & 7);
        w->len += VLAN_HLEN;
    }
}

static uint8_t *put(struct world *w, uint32_t n)
{
    uint8_t *at = w->frame + w->len;
    must(w->len + n <= FRAME_MAX);
    memset(at, 0, n);
    w->len += n;
    return at;
}

/* An IP header for `len` bytes to come. alert: with a router alert. Where those bytes start. */
static uint8_t *put_ip(struct world *w, bool v4, unsigned proto, unsigned hops, const struct addr *src,
                       const struct addr *dst, uint32_t len, bool alert)
{
    uint32_t extra = !alert ? 0 : v4 ? 4 : 8;
    put16(put(w, 2), v4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6);
    uint8_t *ip = put(w, (v4 ? IP4_HLEN : IP6_HLEN) + extra);
    if (v4) {
        ip[IP4_VIHL] = (uint8_t)(0x45 + extra / 4);
        put16(ip + IP4_TOTAL, IP4_HLEN + extra + len);
        ip[IP4_TTL] = (uint8_t)hops;
        ip[IP4_PROTO] = (uint8_t)proto;
        memcpy(ip + IP4_SRC, addr_v4(src), 4);
        memcpy(ip + IP4_DST, addr_v4(dst), 4);
        if (alert)
            put32(ip + IP4_HLEN, 0x94040000);
    } else {
        ip[0] = 0x60;
        put16(ip + IP6_PLEN, extra + len);
        ip[IP6_NEXT] = (uint8_t)(alert ? PROTO_HOPOPTS : proto);
        ip[IP6_HOPS] = (uint8_t)hops;
        memcpy(ip + IP6_SRC, src->b, 16);
        memcpy(ip + IP6_DST, dst->b, 16);
        if (alert)
            memcpy(ip + IP6_HLEN, (const uint8_t[]){(uint8_t)proto, 0, 5, 2, 0, 0, 1, 0}, 8);
    }
    return put(w, len);
}

static void arrive(struct world *w, uint8_t *ip, bool v4)
{
    if (v4) {
        put16(ip + IP4_CSUM, 0);
        put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, (ip[0] & 15) * 4u)));
    }
    link_inject(w->l, w->frame, w->len, w->now);
}

static void raw(struct world *w)
{
    unsigned n = u16(w) % FRAME_MAX;
    if (n > (size_t)(w->in.end - w->in.at))
        n = (unsigned)(w->in.end - w->in.at);
    memcpy(w->frame, w->in.at, n);
    w->in.at += n;
    link_inject(w->l, w->frame, n, w->now);
}

/* Offsets and sizes are small numbers mostly, so that pieces touch, overlap, and complete each other. */
static void fragment(struct world *w)
{
    unsigned kind = u8(w), who = u8(w), id = u8(w) & 3, place = u8(w), size = u8(w), byte = u8(w);
    bool v4 = kind & 1, more = kind & 2;
    uint32_t off = (place < 0xf0 ? place : u16(w) & 0x1fff) * 8u;
    uint32_t len = size < 0xc0 ? (size & 0x3f) * 8 : size < 0xe0 ? size & 31 : 1400;
    struct addr src = peer(v4, who), dst = who & 0x40 ? group(v4, who >> 2) : ours(v4);
    begin(w, who & 0x80 ? kind >> 2 : 0);
    uint32_t ip_at = w->len + 2;
    uint8_t *d = put_ip(w, v4, v4 ? PROTO_UDP : PROTO_FRAGMENT, 64, &src, &dst, len + (v4 ? 0 : IP6_FRAG_HLEN), false);
    uint8_t *ip = w->frame + ip_at;
    if (v4) {
        put16(ip + IP4_ID, id);
        put16(ip + IP4_FRAG, (off / 8 & IP4_OFFMASK) | (more ? IP4_MF : 0));
        ip[IP4_TOS] = (uint8_t)(byte >> 6);
    } else {
        d[IP6_FRAG_NEXT] = kind & 4 ? PROTO_DSTOPTS : PROTO_UDP;
        put16(d + IP6_FRAG_OFF, (off & 0xfff8) | more);
        put32(d + IP6_FRAG_ID, id);
        d += IP6_FRAG_HLEN;
    }
    memset(d, byte & 1, len);
    if (off == 0 && len >= UDP_HLEN && !(kind & 4)) {
        put16(d + UDP_SPORT, 9);
        put16(d + UDP_DPORT, 7);
        put16(d + UDP_LEN, kind & 8 ? 16 : 1024);
    }
    arrive(w, ip, v4);
}

static void group_message(struct world *w, bool report)
{
    unsigned kind = u8(w), which = u8(w), n = u8(w);
    bool v4 = kind & 1, old = kind & 2, general = kind & 4;
    unsigned width = v4 ? 4 : 16, sources = old || report ? 0 : n & 7, fixed = v4 ? 8 : 24;
    struct addr g = group(v4, which), none = {.zone = 0}, ll = {.b = {0xfe, 0x80, [15] = 1}}, src = v4 ? peer(true, 0) : ll;
    struct addr all = v4 ? addr_from4((const uint8_t[]){224, 0, 0, 1}) : (struct addr){.b = {0xff, 2, [15] = 1}};
    const struct addr *about = general && !report ? &none : &g, *dst = general && !report ? &all : &g;
    uint32_t len = fixed + (old || report ? 0 : 4 + sources * width);
    begin(w, 0);
    uint32_t ip_at = w->len + 2;
    uint8_t *d = put_ip(w, v4, v4 ? PROTO_IGMP : PROTO_ICMP6, 1, &src, dst, len, !(kind & 0x80));
    d[0] = v4 ? report ? 0x16 : 0x11 : report ? ICMP6_MLD1_REPORT : ICMP6_MLD_QUERY;
    if (v4)
        d[1] = kind & 8 ? 0 : (uint8_t)(n * 5);
    else
        put16(d + 4, n * 40);
    memcpy(d + (v4 ? 4 : 8), v4 && !addr_is_any(about) ? addr_v4(about) : about->b, width);
    if (len > fixed) {
        d[fixed] = (uint8_t)(n >> 4 & 7);
        d[fixed + 1] = 125;
        put16(d + fixed + 2, kind & 0x10 ? n : sources);
        for (unsigned i = 0; i < sources; i++) {
            struct addr a = peer(v4, i);
            memcpy(d + fixed + 4 + i * width, v4 ? addr_v4(&a) : a.b, width);
        }
    }
    uint16_t sum = csum_finish(csum_add(v4 ? 0 : csum_pseudo(&src, dst, PROTO_ICMP6, len), d, len));
    put16(d + 2, sum);
    arrive(w, w->frame + ip_at, v4);
}

static void query(struct world *w) { group_message(w, false); }
static void report(struct world *w) { group_message(w, true); }

static void redirect(struct world *w)
{
    unsigned kind = u8(w);
    bool v4 = kind & 1;
    struct addr src = peer(v4, kind >> 1), to = peer(v4, kind >> 3), far = addr_from4((const uint8_t[]){192, 0, 2, 1});
    if (!v4) {
        src = (struct addr){.b = {0xfe, 0x80, [15] = 1}};
        to = (struct addr){.b = {0xfe, 0x80, [15] = (uint8_t)(kind >> 3)}};
        far = (struct addr){.b = {0x20, 1, [15] = (uint8_t)u8(w)}};
    } else {
        far.b[15] = (uint8_t)u8(w);
    }
    struct addr dst = ours(v4);
    uint32_t len = v4 ? 8 + 28 : 40;
    begin(w, 0);
    uint32_t ip_at = w->len + 2;
    uint8_t *d = put_ip(w, v4, v4 ? PROTO_ICMP : PROTO_ICMP6, 255, &src, &dst, len, false);
    d[0] = v4 ? ICMP4_REDIRECT : ICMP6_REDIRECT;
    if (v4) {
        memcpy(d + 4, addr_v4(&to), 4);
        d[8] = 0x45;
        memcpy(d + 8 + IP4_DST, addr_v4(&far), 4);
    } else {
        memcpy(d + 8, to.b, 16);
        memcpy(d + 24, far.b, 16);
    }
    put16(d + 2, csum_finish(csum_add(v4 ? 0 : csum_pseudo(&src, &dst, PROTO_ICMP6, len), d, len)));
    arrive(w, w->frame + ip_at, v4);
}

/* --- the owner --- */

static void put_sockaddr(uint8_t *to, const struct addr *a)
{
    uint16_t family = addr_is4(a) ? AF_INET : AF_INET6;
    memcpy(to, &family, 2);
    memcpy(to + (addr_is4(a) ? 4 : 8), addr_is4(a) ? addr_v4(a) : a->b, addr_is4(a) ? 4 : 16);
}

/* struct group_req and group_source_req: MCAST_JOIN_GROUP (42) to MCAST_LEAVE_SOURCE_GROUP (47). */
static void membership(struct world *w)
{
    unsigned kind = u8(w), which = u8(w);
    bool v4 = kind & 1;
    uint8_t req[264] = {0};
    uint32_t index = which >> 6;
    struct addr g = group(v4, which), source = peer(v4, which >> 3);
    memcpy(req, &index, 4);
    put_sockaddr(req + 8, &g);
    put_sockaddr(req + 136, &source);
    sock_setsockopt(w->s, w->socks[kind >> 1 & 3], v4 ? IPPROTO_IP : IPPROTO_IPV6, 42 + (int)(kind >> 3) % 6, req,
                    kind & 0x80 ? kind : sizeof req);
}

static void transmit(struct world *w)
{
    unsigned kind = u8(w), size = u16(w);
    bool v4 = kind & 1;
    struct sock_name name = {.port = 7, .ifindex = kind >> 6};
    struct addr to = kind & 2 ? group(v4, kind >> 2) : peer(v4, kind >> 2);
    memcpy(name.addr, to.b, 16);
    int64_t n = sock_sendto(w->s, w->socks[kind >> 4 & 3], w->big, size, &name, NULL);
    must(n < 0 || n == (int64_t)size);
}

static void receive(struct world *w)
{
    struct sock_name from, to;
    sock_recvfrom(w->s, w->socks[u8(w) & 3], w->big, sizeof w->big, &from, &to);
}

static void option(struct world *w)
{
    unsigned kind = u8(w), name = u8(w), len = u8(w) & 31;
    uint8_t value[32];
    for (unsigned i = 0; i < len; i++)
        value[i] = (uint8_t)u8(w);
    int level = kind & 1 ? IPPROTO_IP : IPPROTO_IPV6;
    int64_t id = w->socks[kind >> 1 & 3];
    if (kind & 8)
        sock_setopt(w->s, id, level, (int)name, (int8_t)u8(w));
    else
        sock_setsockopt(w->s, id, level, (int)name, value, len);
    sock_getsockopt(w->s, id, level, (int)name, value, sizeof value);
}

static void address(struct world *w)
{
    unsigned kind = u8(w);
    struct addr a = ours(kind & 1);
    a.b[14] = (uint8_t)(kind >> 2 & 1);
    a.b[15] = (uint8_t)(20 + (kind >> 4 & 3));
    if (kind & 2)
        stack_add_address(w->s, 2, a.b, kind & 1 ? 24 : 64);
    else
        stack_remove_address(w->s, 2, a.b);
}

/* --- the whole --- */

static void look_over_groups(const struct netif *nif)
{
    unsigned n = 0;
    if (!nif->groups)
        return;
    for (const struct group *g = nif->groups->first; g; g = g->next, n++) {
        must(g->nif == nif && g->nsources <= GROUP_SOURCES_MAX && g->nasked <= GROUP_SOURCES_MAX);
        must(g->own || g->members || g->report_at != REACTOR_NEVER); /* else nobody needs it */
        for (const struct membership *m = g->members; m; m = m->sibling)
            must(m->group == g && m->nsources <= MEMBER_SOURCES_MAX && (m->exclude || m->nsources));
    }
    must(n == nif->groups->count && n <= GROUPS_MAX);
}

static void open_sockets(struct world *w)
{
    static const uint8_t any[16], any4[16] = {[10] = 0xff, 0xff};
    for (unsigned i = 0; i < SOCKETS; i++) {
        w->socks[i] = sock_open(w->s, SOCK_DGRAM, i & 1 ? AF_INET : AF_INET6);
        sock_setopt(w->s, w->socks[i], SOL_SOCKET, SO_REUSEADDR, 1);
        must(sock_bind(w->s, w->socks[i], i & 1 ? any4 : any, i < 2 ? 7 : 8) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    struct world *w = &world;
    uint64_t events[64];
    static void (*const steps[STEPS])(struct world *) = {
        [RAW] = raw,   [FRAGMENT] = fragment, [QUERY] = query,       [REPORT] = report, [MEMBERSHIP] = membership,
        [SEND] = transmit, [RECV] = receive,      [REDIRECT] = redirect, [OPTION] = option, [ADDRESS] = address,
    };
    w->in = (struct input){data, data + size};
    w->now = SECOND;
    unsigned how = u8(w);
    struct stack_config config = {.seed = {1, how}, .memory = how & 1 ? 1 << 20 : 16 << 20, .sockets = 64,
                                  .rcvbuf = 1 << 16, .rcvbuf_max = 1 << 16, .sndbuf = 1 << 16, .sndbuf_max = 1 << 16,
                                  .flags = STACK_ACCEPT_REDIRECTS | (how & 2 ? STACK_NO_REPORTS : 0)};
    must(stack_new(&w->s, &config, w->now) == 0);
    must(link_new_manual(&w->l, 1500, 0, our_mac, 4096) == 0);
    must(stack_add_link(w->s, w->l) == 2);
    struct addr a4 = ours(true), a6 = ours(false), gw4 = peer(true, 0), gw6 = {.b = {0xfe, 0x80, [15] = 1}};
    static const uint8_t any[16], any4[16] = {[10] = 0xff, 0xff};
    must(stack_add_address(w->s, 2, a4.b, 24) == 0 && stack_add_address(w->s, 2, a6.b, 64) == 0);
    must(stack_add_route(w->s, 2, any4, 0, gw4.b) == 0 && stack_add_route(w->s, 2, any, 0, gw6.b) == 0);
    must(stack_add_vlan(w->s, 2, 5) == 3);
    open_sockets(w);
    for (unsigned n = 0; n < STEPS_MAX && w->in.at < w->in.end; n++) {
        unsigned step = u8(w);
        if (step % STEPS == TIME)
            pass(w, waits[u8(w) % (sizeof waits / sizeof *waits)] * MSEC);
        else
            steps[step % STEPS](w);
        if (!(step & 0x80)) {
            pass(w, 0);
            stack_events(w->s, events, 64);
        }
        look_over(w->s);
        look_over_groups(&w->s->netifs[1]);
        look_over_groups(&w->s->netifs[2]);
    }
    for (unsigned i = 0; i < SOCKETS && !(how & 4); i++)
        sock_free(w->s, w->socks[i]);
    pass(w, 700 * (uint64_t)SECOND);
    if (!(how & 4))
        must(w->s->socks->count == 0 && w->s->pool.buffers == 0 && w->s->pool.in_use == 0);
    stack_free(w->s);
    return 0;
}
