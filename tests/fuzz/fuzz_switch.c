/* A libFuzzer target on the switch, and on a wire that is changed while it runs: one port is the wire's end, the others
 * are held by nothing but a pool.
 *
 * The input is a program. Frames may be of any kind, large ones with marks for devices among them. What comes out of a
 * port is as large as the port takes; each line's accounts balance after every step, and at the end all is given back.
 * seeds_switch.py writes programs. */
#include <stdlib.h>

#include "net/core/wire.h"
#include "net/link/line.h"
#include "net/link/switch.h"
#include "tests/fuzz/invariants.h"

#define PORTS 5
#define STEPS_MAX 600
#define LARGEST 6000

enum step { FRAME, RAW, TIME, UNPLUG, IMPAIR, BLOCK, CLOG, DOWN, FROM_WIRE, STEPS };

static const unsigned caps[PORTS] = {LINK_CSUM | LINK_TSO | LINK_LRO, 0, LINK_CSUM, 0, LINK_CSUM | LINK_TSO | LINK_LRO};
static const unsigned mtus[PORTS] = {1500, 1500, 600, 1500, 65520};

struct world {
    struct ether_switch *sw;
    struct link *ports[PORTS]; /* the first is the wire's */
    struct pbuf_pool pool;
    struct wire *wire;
    struct link *end; /* the wire's other one */
    uint64_t now;
    const uint8_t *at, *last;
    uint8_t frame[LARGEST], big[70000];
};

static unsigned u8(struct world *w) { return w->at < w->last ? *w->at++ : 0; }
static unsigned u16(struct world *w)
{
    unsigned high = u8(w) << 8;
    return high | u8(w);
}

static void mac(unsigned n, uint8_t *to)
{
    static const uint8_t odd[4][6] = {{255, 255, 255, 255, 255, 255}, {1, 0x80, 0xc2}, {1, 0, 0x5e}, {0}};
    memcpy(to, n >= 0xfc ? odd[n & 3] : (const uint8_t[]){2, 0, 0, 0, 0, (uint8_t)n}, 6);
}

static void received(struct link *l, struct pbuf *p, uint64_t now)
{
    struct world *w = l->upper;
    (void)now;
    must(!p->frag && p->len >= ETH_HLEN);
    must(!p->gso_size || l->caps & LINK_LRO);
    must(p->gso_size || p->len <= l->mtu + ETH_HLEN + VLAN_HLEN);
    pbuf_free(&w->pool, p);
}

static void plug(struct world *w, unsigned n)
{
    static const uint8_t none[6] = {2};
    must(switch_plug(w->sw, &w->ports[n], mtus[n], caps[n], none, 16) >= 0);
    if (n)
        must(link_bind(w->ports[n], NULL, &w->pool, received, w) == 0);
}

static void run(struct world *w)
{
    unsigned gso;
    for (unsigned i = 1; i < PORTS; i++)
        w->ports[i]->ops->run(w->ports[i], w->now);
    wire_run(w->wire, w->now);
    while (link_drain(w->end, w->big, sizeof w->big, &gso) > 0)
        ;
}

/* TCP in IP, right as far as anybody looks, or as the input says. */
static struct pbuf *make(struct world *w, struct pbuf_pool *pool)
{
    unsigned kind = u8(w), dst = u8(w), src = u8(w), size = u16(w) % (LARGEST - 100), gso = u8(w), byte = u8(w);
    bool v4 = kind & 1;
    uint8_t *f = w->frame, *ip = f + ETH_HLEN + (kind & 8 ? VLAN_HLEN : 0), *tcp = ip + (v4 ? IP4_HLEN : IP6_HLEN);
    uint32_t head = (uint32_t)(tcp - f) + TCP_HLEN;
    memset(f, (int)byte, head + size);
    mac(dst, f + ETH_DST);
    mac(src, f + ETH_SRC);
    if (kind & 8)
        put16(f + ETH_TYPE, ETHERTYPE_VLAN);
    put16(ip - 2, kind & 0x10 ? byte : v4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6);
    ip[0] = v4 ? 0x45 : 0x60;
    if (v4)
        ip[IP4_PROTO] = PROTO_TCP;
    else
        ip[IP6_NEXT] = PROTO_TCP;
    tcp[TCP_OFF] = kind & 0x20 ? (uint8_t)byte : 0x50;
    struct pbuf *p = pbuf_alloc(pool, PBUF_HEADROOM, head + size);
    if (!p)
        return NULL;
    memcpy(pbuf_data(p), f, head + size);
    p->len = head + size;
    if (kind & 2) {
        p->flags = kind & 0x80 ? PBUF_CSUM_OK : PBUF_CSUM_PARTIAL;
        p->csum_start = (uint16_t)(kind & 0x40 ? byte : head - TCP_HLEN);
        p->csum_offset = TCP_CSUM;
        if (p->csum_start + TCP_CSUM + 2u > p->len) /* who fills it in would not be told so by any device */
            p->csum_start = (uint16_t)(head - TCP_HLEN);
    }
    if (kind & 4)
        p->gso_size = (uint16_t)(gso ? 8 * gso : 1);
    return p;
}

static void frame(struct world *w)
{
    struct link *l = w->ports[1 + u8(w) % (PORTS - 1)];
    struct pbuf *p = make(w, &w->pool);
    if (p)
        link_xmit(l, p, w->now);
}

static void raw(struct world *w)
{
    struct link *l = w->ports[1 + u8(w) % (PORTS - 1)];
    unsigned n = u8(w);
    struct pbuf *p = pbuf_alloc(&w->pool, PBUF_HEADROOM, n);
    if (!p)
        return;
    for (; p->len < n; p->len++)
        pbuf_data(p)[p->len] = (uint8_t)u8(w);
    link_xmit(l, p, w->now);
}

static void from_wire(struct world *w)
{
    struct pbuf *p = w->end->pool ? make(w, w->end->pool) : NULL;
    if (p)
        link_deliver(w->end, p, w->now);
}

static void unplug(struct world *w)
{
    unsigned n = 1 + u8(w) % (PORTS - 1);
    link_free(w->ports[n]);
    plug(w, n);
}

static void impair(struct world *w)
{
    struct impairment how = {.queue = u8(w), .queue_bytes = u16(w), .flags = u8(w) & 1, .burst = u8(w) & 3,
                             .loss_ppm = u8(w) * 1000, .reorder_ppm = u8(w) * 1000, .duplicate_ppm = u8(w) * 1000,
                             .corrupt_ppm = u8(w) * 1000, .distribution = u8(w) & 3,
                             .delay_ns = u16(w) * 1000ull, .jitter_ns = u16(w) * 1000ull,
                             .rate_bps = u16(w) * 10000ull, .buffer_ns = u16(w) * 1000ull, .bucket_ns = u8(w) * 1000ull};
    wire_impair(w->wire, u8(w) & 1, &how);
}

static void block(struct world *w)
{
    unsigned kind = u8(w);
    wire_block(w->wire, kind & 1, kind & 2);
}

static void clog(struct world *w)
{
    unsigned kind = u8(w);
    wire_clog(w->wire, kind & 1, kind & 2 ? REACTOR_NEVER : kind & 4 ? w->now : w->now + u16(w) * 1000ull);
}

static void down(struct world *w) { wire_set_down(w->wire, u8(w) & 1); }

/* What went in came out, is held, or is accounted for. */
static void look_over_wire(struct world *w)
{
    for (int i = 0; i < 2; i++) {
        struct line_stats s;
        wire_stats(w->wire, i, &s);
        must(s.in_packets + s.duplicated == s.out_packets + s.held + s.lost + s.blocked + s.down + s.dropped);
        must(s.buffer_full <= s.dropped && (s.held || !s.held_bytes));
    }
    unsigned known = 0;
    for (unsigned i = 0; i < w->sw->nsets; i++)
        for (unsigned j = 0; j < SWITCH_WAYS; j++)
            if (w->sw->stations[i][j].seen) {
                known++;
                must(w->sw->ports[w->sw->stations[i][j].port].plugged && !(w->sw->stations[i][j].mac[0] & 1));
            }
    must(known <= w->sw->nsets * SWITCH_WAYS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    struct world *w = &world;
    static void (*const steps[STEPS])(struct world *) = {
        [FRAME] = frame, [RAW] = raw,   [UNPLUG] = unplug, [IMPAIR] = impair,
        [BLOCK] = block, [CLOG] = clog, [DOWN] = down,     [FROM_WIRE] = from_wire,
    };
    static const uint64_t seed[2] = {1, 2};
    static const uint8_t end_mac[6] = {2, 1};
    struct impairment how = {.seed = {1, 0}, .queue = 100};
    w->at = data;
    w->last = data + size;
    w->now = SECOND;
    must(pbuf_pool_init(&w->pool, 4 << 20) == 0);
    must(switch_new(&w->sw, PORTS, 8, SECOND, seed) == 0);
    for (unsigned i = 0; i < PORTS; i++)
        plug(w, i);
    must(link_new_manual(&w->end, 65520, LINK_CSUM | LINK_TSO | LINK_LRO, end_mac, 4096) == 0);
    must(wire_new(&w->wire, w->end, w->ports[0], &how, &how, 4 << 20) == 0 && wire_start(w->wire) == 0);
    for (unsigned n = 0; n < STEPS_MAX && w->at < w->last; n++) {
        unsigned step = u8(w);
        if (step % STEPS == TIME)
            w->now += u16(w) * 100000ull;
        else
            steps[step % STEPS](w);
        if (!(step & 0x80))
            run(w);
        look_over_wire(w);
    }
    run(w);
    switch_free(w->sw);
    wire_free(w->wire);
    for (unsigned i = 1; i < PORTS; i++)
        link_free(w->ports[i]);
    must(w->pool.buffers == 0 && w->pool.in_use == 0);
    pbuf_pool_free(&w->pool);
    return 0;
}
