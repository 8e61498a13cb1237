/* A libFuzzer target on TCP's states: two stacks, a wire between them that the input rules, owners who do what owners
 * do, and somebody who forges segments with numbers near the real ones.
 *
 * The input is a program: each step is a byte that names it, and its arguments. What holds is checked after every one,
 * from the inside (invariants.h, and watch() below, which remembers how each connection stood before). Bytes are a
 * function of their place in the stream, and forgers keep to it: so what is read is known, whatever happened to it. If
 * nothing was forged, what the wire lost must arrive once it loses no more. At the end all must be given back.
 *
 * seeds_tcp.py writes programs of whole conversations; `make fuzz` builds and runs.
 *
 * It drives the stacks as anybody may from outside (net/drive.h), and looks inside with their private headers. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/drive.h"
#include "tests/fuzz/invariants.h"

#define SIDES 2
#define FDS_MAX 12
#define SLOTS_MAX 64
#define WIRE_MAX 64
#define PACKET_MAX 1700
#define STEPS_MAX 600
#define HEAL_ROUNDS 3000

enum step { CALL, SEND, RECV, TIME, DELIVER, DROP, DUPLICATE, SWAP, FORGE, MANGLE, SETTLE, STEPS };

struct packet {
    unsigned len;
    uint8_t data[PACKET_MAX];
};

/* What left a side and has not arrived at the other. */
struct wire {
    struct packet packets[WIRE_MAX];
    unsigned first, count;
};

struct owned {
    int fd;
    bool listens, v4;
    uint64_t written, read;
};

/* How a connection stood after the last step. */
struct before {
    int64_t id;
    uint8_t state;
    seq_t snd_una, snd_max, rcv_nxt, rcv_adv, edge; /* edge: furthest that its peer ever let it send */
    uint32_t cwnd, flight, out_bytes;
};

struct side {
    struct drive *d;
    struct stack *s;
    struct wire wire;
    struct owned owned[FDS_MAX];
    unsigned count;
    struct before before[SLOTS_MAX];
};

struct world {
    struct side sides[SIDES];
    uint64_t now;
    bool forged;  /* somebody else has spoken: nobody need get through */
    bool mangled; /* and perhaps with other bytes */
    const uint8_t *at, *end;
    uint8_t scratch[1 << 17];
};

static const uint64_t waits[] = {0, 1, 10, 40, 200, 500, 1000, 3000, 10000, 60000, 130000};
static const char *const addresses[SIDES][2] = {{"10.0.0.1/24", "fd00::1/64"}, {"10.0.0.2/24", "fd00::2/64"}};

static unsigned u8(struct world *w) { return w->at < w->end ? *w->at++ : 0; }
static unsigned u16(struct world *w)
{
    unsigned high = u8(w) << 8;
    return high | u8(w);
}
/* A small number mostly; now and then any. */
static int32_t near(struct world *w)
{
    unsigned b = u8(w);
    return b < 0x80 ? (int32_t)b - 8 : b < 0xf0 ? (int32_t)(int16_t)u16(w) : (int32_t)(u16(w) << 16 | u16(w));
}

/* The byte at a place of any stream. */
static uint8_t byte_at(uint64_t place) { return (uint8_t)(place * 31 + (place >> 8)); }

/* --- what must hold from one step to the next --- */

static void watch_one(struct before *b, const struct tcp *t)
{
    seq_t edge = seq_add(t->snd_una, t->snd_wnd);
    bool synchronized = t->state != SYN_SENT && t->state != SYN_RECV && t->state != CLOSED && t->state != LISTEN;
    if (b->id != t->k.id || !synchronized || b->state == SYN_SENT || b->state == SYN_RECV) {
        *b = (struct before){.id = t->k.id, .edge = edge};
    } else {
        must(seq_ge(t->snd_una, b->snd_una) && seq_ge(t->snd_max, b->snd_max));
        must(seq_ge(t->rcv_nxt, b->rcv_nxt) && seq_ge(t->rcv_adv, b->rcv_adv)); /* 3.8.6: never taken back */
        b->edge = seq_max(b->edge, edge);
        must(seq_le(t->snd_max, seq_add(b->edge, 1))); /* but for a FIN */
        must(t->out_bytes <= t->out_limit || t->out_bytes <= b->out_bytes); /* the owner may have made it smaller */
        uint32_t room = t->cwnd > b->cwnd ? t->cwnd : b->cwnd;
        if (room < b->flight) /* the window has become less than what was under way */
            room = b->flight;
        if (seq_gt(t->snd_max, b->snd_max)) /* a tail probe and limited transmit go beyond it */
            must(tcp_in_flight(t) <= room + 3u * t->mss + 1);
    }
    b->state = t->state;
    b->snd_una = t->snd_una;
    b->snd_max = t->snd_max;
    b->rcv_nxt = t->rcv_nxt;
    b->rcv_adv = t->rcv_adv;
    b->cwnd = t->cwnd;
    b->flight = tcp_in_flight(t);
    b->out_bytes = t->out_bytes;
}

static void watch(struct world *w)
{
    for (struct side *side = w->sides; side < w->sides + SIDES; side++) {
        look_over(side->s);
        for (uint32_t i = 0; i < side->s->socks->cap && i < SLOTS_MAX; i++)
            if (side->s->socks->slots[i])
                watch_one(&side->before[i], tcp_of(side->s->socks->slots[i]));
    }
}

/* --- the wire --- */

static struct side *other(struct world *w, struct side *side) { return &w->sides[side == w->sides]; }

static void take(struct world *w)
{
    uint64_t at;
    for (struct side *side = w->sides; side < w->sides + SIDES; side++) {
        struct wire *wire = &side->wire;
        struct packet lost, *p;
        for (;;) {
            p = wire->count < WIRE_MAX ? &wire->packets[(wire->first + wire->count) % WIRE_MAX] : &lost;
            int64_t n = drive_take(side->d, &at, p->data, sizeof p->data);
            if (!n)
                break;
            must(n > 0 && at <= w->now);
            p->len = (unsigned)n;
            wire->count += p != &lost;
        }
    }
}

/* The first packet on the side's wire arrives at the other; keep: and stays. */
static void deliver(struct world *w, struct side *side, bool keep)
{
    struct wire *wire = &side->wire;
    if (!wire->count)
        return;
    struct packet p = wire->packets[wire->first];
    if (!keep) {
        wire->first = (wire->first + 1) % WIRE_MAX;
        wire->count--;
    }
    int rc = drive_inject(other(w, side)->d, w->now, p.data, p.len);
    must(rc == 0 || rc == -ENOBUFS || w->mangled);
    take(w);
    watch(w);
}

static void swap(struct side *side, unsigned n)
{
    struct wire *wire = &side->wire;
    if (wire->count < 2)
        return;
    struct packet *a = &wire->packets[wire->first];
    struct packet *b = &wire->packets[(wire->first + 1 + n % (wire->count - 1)) % WIRE_MAX];
    struct packet held = *a;
    *a = *b;
    *b = held;
}

static void advance(struct world *w, uint64_t ns)
{
    w->now += ns;
    for (struct side *side = w->sides; side < w->sides + SIDES; side++)
        must(drive_advance(side->d, w->now) == 0);
    take(w);
}

/* All that is on the wire arrives, in order, and what answers it; a bounded number. */
static void settle(struct world *w, unsigned most)
{
    while (most-- && (w->sides[0].wire.count || w->sides[1].wire.count)) {
        deliver(w, &w->sides[0], false);
        deliver(w, &w->sides[1], false);
    }
}

/* Lengths and sums of a packet are right again. */
static void make_right(struct packet *p)
{
    uint8_t *ip = p->data;
    bool v4 = ip[0] >> 4 == 4;
    unsigned header = v4 ? IP4_HLEN : IP6_HLEN;
    struct addr src = v4 ? addr_from4(ip + IP4_SRC) : addr_from(ip + IP6_SRC);
    struct addr dst = v4 ? addr_from4(ip + IP4_DST) : addr_from(ip + IP6_DST);
    if (v4) {
        put16(ip + IP4_TOTAL, p->len);
        put16(ip + IP4_CSUM, 0);
        put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, IP4_HLEN)));
    } else {
        put16(ip + IP6_PLEN, p->len - header);
    }
    uint32_t len = p->len - header;
    put16(ip + header + TCP_CSUM, 0);
    uint64_t sum = csum_add(csum_pseudo(&src, &dst, PROTO_TCP, len), ip + header, len);
    put16(ip + header + TCP_CSUM, csum_finish(sum));
}

/* Something in the header of a packet under way changes. */
static void mangle(struct world *w, struct side *side)
{
    struct wire *wire = &side->wire;
    if (!wire->count)
        return;
    struct packet *p = &wire->packets[wire->first];
    unsigned header = p->data[0] >> 4 == 4 ? IP4_HLEN : IP6_HLEN, at = u8(w), with = u8(w);
    if (p->len < header + TCP_HLEN)
        return;
    p->data[header + at % (p->len - header < 60 ? p->len - header : 60)] ^= (uint8_t)with;
    make_right(p);
    w->forged = w->mangled = true;
}

/* --- forged segments --- */

static struct tcp *some_connection(struct side *side, unsigned n)
{
    struct tcp *found = NULL;
    for (uint32_t i = 0; i < side->s->socks->cap; i++) {
        struct sock *k = side->s->socks->slots[i];
        if (!k || !k->rport || tcp_of(k)->state == CLOSED || tcp_of(k)->state == LISTEN)
            continue;
        found = tcp_of(k);
        if (!n--)
            break;
    }
    return found;
}

static uint8_t *put(struct packet *p, unsigned n)
{
    uint8_t *at = p->data + p->len;
    must(p->len + n <= PACKET_MAX);
    memset(at, 0, n);
    p->len += n;
    return at;
}

static void put_sack(struct world *w, struct packet *p, const struct tcp *t, unsigned blocks)
{
    uint8_t *o = put(p, 4 + 8 * blocks);
    o[0] = o[1] = TCPOPT_NOP;
    o[2] = TCPOPT_SACK;
    o[3] = (uint8_t)(2 + 8 * blocks);
    for (unsigned i = 0; i < blocks; i++) {
        unsigned how = u8(w);
        uint32_t left = t->snd_una.v + (how & 0x80 ? (uint32_t)near(w) : (how >> 3) * t->mss);
        put32(o + 4 + 8 * i, left);
        put32(o + 8 + 8 * i, left + (how & 0x40 ? (uint32_t)near(w) : (how & 7) * t->mss));
    }
}

static void put_options(struct world *w, struct packet *p, unsigned header, const struct tcp *t, unsigned flags)
{
    unsigned how = u8(w);
    if (flags & TH_SYN) {
        const uint8_t o[12] = {TCPOPT_MSS,    4, 5, 180, TCPOPT_NOP, TCPOPT_WSCALE, 3, (uint8_t)(how & 15),
                               TCPOPT_SACK_OK, 2, TCPOPT_NOP, TCPOPT_NOP};
        memcpy(put(p, 12), o, 12);
    }
    if (t->ts_ok && how < 0xf0) {
        uint8_t *o = put(p, 12);
        memcpy(o, (const uint8_t[]){TCPOPT_NOP, TCPOPT_NOP, TCPOPT_TS, 10}, 4);
        put32(o + 4, t->ts_recent + (how & 0x20 ? (uint32_t)near(w) : 0));
        put32(o + 8, tcp_timestamp(t, w->now) - (how & 0x10 ? (uint32_t)near(w) : 0));
    } else if (how >= 0xf8) { /* anything */
        unsigned n = 4 * (how & 7);
        for (uint8_t *o = put(p, n); n--; o++)
            *o = (uint8_t)u8(w);
    }
    if (how & 0x40 && p->len < header + TCP_HLEN + 16)
        put_sack(w, p, t, 1 + (how & 1) + (how >> 1 & 1));
    p->data[header + TCP_OFF] = (uint8_t)((p->len - header) / 4 << 4);
}

/* A segment that might be the peer's arrives at the side. */
static void forge(struct world *w, struct side *side)
{
    static const uint8_t kinds[16] = {TH_ACK,           TH_ACK,          TH_ACK,          TH_ACK | TH_PSH,
                                      TH_ACK | TH_FIN,  TH_RST,          TH_SYN,          TH_SYN | TH_ACK,
                                      TH_FIN,           TH_RST | TH_ACK, 0,               0xff,
                                      TH_ACK | TH_URG,  TH_ACK | TH_ECE, TH_ACK | TH_CWR, TH_SYN | TH_ECE | TH_CWR};
    static const uint16_t sizes[8] = {0, 0, 0, 1, 10, 500, 1000, 1400};
    struct tcp *t = some_connection(side, u8(w) & 7);
    if (!t)
        return;
    static struct packet packet;
    struct packet *p = &packet;
    unsigned kind = u8(w), flags = kinds[kind & 15], size = sizes[u8(w) & 7];
    bool v4 = addr_is4(&t->k.remote), syn_sent = t->state == SYN_SENT;
    p->len = 0;
    uint8_t *ip = put(p, v4 ? IP4_HLEN : IP6_HLEN);
    unsigned header = p->len;
    if (v4) {
        ip[IP4_VIHL] = 0x45;
        ip[IP4_TOS] = kind & 0x80 ? (uint8_t)(u8(w) & 3) : 0;
        ip[IP4_TTL] = 64;
        ip[IP4_PROTO] = PROTO_TCP;
        memcpy(ip + IP4_SRC, addr_v4(&t->k.remote), 4);
        memcpy(ip + IP4_DST, addr_v4(&t->k.local), 4);
    } else {
        ip[0] = 0x60;
        ip[IP6_NEXT] = PROTO_TCP;
        ip[IP6_HOPS] = 64;
        memcpy(ip + IP6_SRC, t->k.remote.b, 16);
        memcpy(ip + IP6_DST, t->k.local.b, 16);
    }
    seq_t seq = syn_sent ? (seq_t){0x12345678} : t->rcv_nxt, ack = kind & 0x40 ? t->snd_una : t->snd_max;
    if (kind & 0x10)
        seq = seq_add(seq, (uint32_t)near(w));
    if (kind & 0x20)
        ack = seq_add(ack, (uint32_t)near(w));
    uint8_t *h = put(p, TCP_HLEN);
    put16(h + TCP_SPORT, t->k.rport);
    put16(h + TCP_DPORT, t->k.lport);
    put32(h + TCP_SEQ, seq.v);
    put32(h + TCP_ACK, ack.v);
    h[TCP_FLAGS] = (uint8_t)flags;
    put16(h + TCP_WIN, kind & 0x80 ? u16(w) : 65535);
    put16(h + TCP_URG, flags & TH_URG ? u8(w) : 0);
    put_options(w, p, header, t, flags);
    uint32_t place = (uint32_t)seq_diff(seq, syn_sent ? seq : t->irs) - !(flags & TH_SYN);
    uint8_t *data = put(p, size);
    for (unsigned i = 0; i < size; i++)
        data[i] = byte_at(place + i);
    if (syn_sent && size) /* where its stream begins is not settled yet */
        w->mangled = true;
    make_right(p);
    w->forged = true;
    drive_inject(side->d, w->now, p->data, p->len);
    take(w);
}

/* --- the owners --- */

static unsigned address_of(unsigned side, bool v4, unsigned port, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (v4) {
        struct sockaddr_in *in = (struct sockaddr_in *)out;
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        in->sin_addr.s_addr = htonl(0x0a000001 + side);
        return sizeof *in;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    in6->sin6_addr.s6_addr[0] = 0xfd;
    in6->sin6_addr.s6_addr[15] = (uint8_t)(1 + side);
    return sizeof *in6;
}

static struct owned *own(struct side *side, int fd, bool listens, bool v4)
{
    if (fd < 0)
        return NULL;
    if (side->count == FDS_MAX) {
        drive_close(side->d, fd);
        return NULL;
    }
    struct owned *o = &side->owned[side->count++];
    *o = (struct owned){.fd = fd, .listens = listens, .v4 = v4};
    return o;
}

static void disown(struct side *side, struct owned *o) { *o = side->owned[--side->count]; }

static void open_listener(struct world *w, struct side *side, bool v4, unsigned backlog)
{
    struct sockaddr_storage addr;
    struct owned *o = own(side, drive_socket(side->d, v4 ? AF_INET : AF_INET6, SOCK_STREAM, 0), true, v4);
    if (!o)
        return;
    unsigned len = address_of((unsigned)(side - w->sides), v4, 80, &addr);
    if (drive_bind(side->d, o->fd, (struct sockaddr *)&addr, len) < 0 ||
        drive_listen(side->d, o->fd, (int)backlog) < 0) {
        drive_close(side->d, o->fd);
        disown(side, o);
    }
}

static void connect_to(struct world *w, struct side *side, bool v4, unsigned from, unsigned to)
{
    struct sockaddr_storage addr;
    unsigned here = (unsigned)(side - w->sides);
    struct owned *o = own(side, drive_socket(side->d, v4 ? AF_INET : AF_INET6, SOCK_STREAM, 0), false, v4);
    if (!o)
        return;
    unsigned len = address_of(here, v4, from, &addr);
    if (from)
        drive_bind(side->d, o->fd, (struct sockaddr *)&addr, len);
    len = address_of(!here, v4, to, &addr);
    drive_connect(side->d, o->fd, (struct sockaddr *)&addr, len);
}

static void accept_from(struct side *side, struct owned *l)
{
    bool v4 = l->v4;
    own(side, drive_accept(side->d, l->fd, NULL, NULL), false, v4);
}

static int64_t send_on(struct world *w, struct side *side, struct owned *o, unsigned n, int flags)
{
    if (n > sizeof w->scratch)
        n = sizeof w->scratch;
    for (unsigned i = 0; i < n; i++)
        w->scratch[i] = byte_at(o->written + i);
    int64_t done = drive_sendto(side->d, o->fd, w->scratch, n, flags, NULL, 0);
    if (done > 0)
        o->written += (uint64_t)done;
    return done;
}

static int64_t recv_on(struct world *w, struct side *side, struct owned *o, unsigned n)
{
    int64_t got = drive_recvfrom(side->d, o->fd, w->scratch, n < sizeof w->scratch ? n : sizeof w->scratch, 0, NULL, NULL);
    for (int64_t i = 0; i < got; i++)
        must(w->mangled || w->scratch[i] == byte_at(o->read + (uint64_t)i));
    if (got > 0)
        o->read += (uint64_t)got;
    return got;
}

static void set(struct side *side, struct owned *o, int level, int name, int value)
{
    drive_setsockopt(side->d, o->fd, level, name, &value, sizeof value);
}

static void call(struct world *w, struct side *side)
{
    unsigned kind = u8(w), more = u8(w);
    struct owned *o = side->count ? &side->owned[more % side->count] : NULL;
    bool v4 = kind & 0x80;
    uint8_t info[512];
    unsigned len = sizeof info;
    switch (kind & 15) {
    case 0:
        open_listener(w, side, v4, 1 + more % 8);
        return;
    case 1:
        connect_to(w, side, v4, 0, 80);
        return;
    case 2: /* both may do this, and meet */
        connect_to(w, side, v4, 5000 + more % 2, 5000 + more % 2);
        return;
    default:
        break;
    }
    if (!o)
        return;
    switch (kind & 15) {
    case 3:
    case 4:
        if (o->listens)
            accept_from(side, o);
        break;
    case 5:
        drive_shutdown(side->d, o->fd, kind >> 4 & 1 ? SHUT_RDWR : SHUT_WR);
        break;
    case 6:
        drive_close(side->d, o->fd);
        disown(side, o);
        break;
    case 7:
        sock_abort(side->s, drive_id(side->d, o->fd));
        drive_close(side->d, o->fd);
        disown(side, o);
        break;
    case 8:
        set(side, o, IPPROTO_TCP, TCP_NODELAY, kind >> 4 & 1);
        break;
    case 9:
        set(side, o, SOL_SOCKET, SO_KEEPALIVE, kind >> 4 & 1);
        set(side, o, IPPROTO_TCP, TCP_KEEPIDLE, 1 + (int)u8(w));
        break;
    case 10:
        set(side, o, SOL_SOCKET, kind & 0x10 ? SO_RCVBUF : SO_SNDBUF, (int)u16(w));
        break;
    case 11:
        drive_getsockopt(side->d, o->fd, IPPROTO_TCP, TCP_INFO, info, &len);
        must(drive_poll(side->d, o->fd) >= 0);
        break;
    case 12:
        set(side, o, IPPROTO_TCP, (int)u8(w), (int)(int16_t)u16(w));
        break;
    case 13:
        set(side, o, SOL_SOCKET, (int)u8(w), (int)(int16_t)u16(w));
        break;
    case 14:
        send_on(w, side, o, 1 + u8(w), MSG_OOB);
        sock_urgent(side->s, drive_id(side->d, o->fd));
        break;
    default:
        drive_listen(side->d, o->fd, 4);
    }
}

/* --- a world, from its birth to its end --- */

static void begin(struct world *w)
{
    static const uint32_t buffers[4] = {1 << 18, 4096, 20000, 65535};
    static const unsigned mtus[4] = {1500, 1500, 1280, 1600};
    unsigned how = u8(w), size = u8(w);
    w->now = 0;
    w->forged = w->mangled = false;
    for (unsigned i = 0; i < SIDES; i++) {
        struct side *side = &w->sides[i];
        struct stack_config config;
        drive_defaults(&config);
        config.seed[0] = how + i;
        config.memory = how & 1 ? 1 << 20 : 16 << 20;
        config.sockets = SLOTS_MAX;
        config.rcvbuf = buffers[size >> (2 * i) & 3];
        config.sndbuf = buffers[size >> (4 + 2 * i) & 3];
        if (how & 0x20) /* they stay as they are */
            config.rcvbuf_max = config.sndbuf_max = 0;
        config.ecn = how & 0x10 ? 1 : 2;
        must(drive_new(&side->d, &config, mtus[how >> (1 + 2 * i) & 3], 0) == 0);
        for (unsigned family = 0; family < 2; family++)
            must(drive_address(side->d, addresses[i][family]) == 0);
        side->s = drive_stack(side->d);
        side->count = 0;
        side->wire.count = side->wire.first = 0;
        memset(side->before, 0, sizeof side->before);
    }
    open_listener(w, &w->sides[0], how & 0x80, 8);
    connect_to(w, &w->sides[1], how & 0x80, 0, 80);
    take(w);
    if (!(how & 0x40)) { /* mostly, begin with a connection that there is */
        settle(w, 8);
        accept_from(&w->sides[0], &w->sides[0].owned[0]);
    }
}

/* The wire loses nothing any more, and everybody reads: what was written arrives. */
static void heal(struct world *w)
{
    for (unsigned round = 0; round < HEAL_ROUNDS; round++) {
        settle(w, 1000);
        bool quiet = true;
        for (struct side *side = w->sides; side < w->sides + SIDES; side++) {
            for (unsigned i = 0; i < side->count; i++) {
                struct owned *o = &side->owned[i];
                if (o->listens)
                    accept_from(side, o);
                else
                    while (recv_on(w, side, o, sizeof w->scratch) > 0)
                        continue;
            }
            for (uint32_t i = 0; i < side->s->socks->cap; i++) {
                struct sock *k = side->s->socks->slots[i];
                quiet &= !k || tcp_of(k)->state == CLOSED || !tcp_of(k)->out_bytes;
            }
        }
        take(w);
        watch(w);
        if (quiet && !w->sides[0].wire.count && !w->sides[1].wire.count)
            return;
        uint64_t due = drive_due(w->sides[0].d), due1 = drive_due(w->sides[1].d);
        due = due < due1 ? due : due1;
        take(w);
        if (!w->sides[0].wire.count && !w->sides[1].wire.count) {
            must(due != UINT64_MAX); /* something waits, and nobody for it */
            advance(w, due > w->now ? due - w->now : 0);
        }
    }
    must(!"the wire is whole again, and bytes do not arrive");
}

static void end(struct world *w)
{
    struct stack_memory memory;
    if (!w->forged)
        heal(w);
    for (struct side *side = w->sides; side < w->sides + SIDES; side++)
        while (side->count)
            drive_close(side->d, side->owned[--side->count].fd);
    for (unsigned i = 0; i < 40 && (w->sides[0].s->socks->count || w->sides[1].s->socks->count); i++) {
        settle(w, 200);
        advance(w, 130ull * SECOND);
        watch(w);
    }
    take(w);
    for (struct side *side = w->sides; side < w->sides + SIDES; side++) {
        stack_memory(side->s, &memory);
        must(memory.sockets == 0 && memory.buffers == 0 && memory.in_use == 0);
        drive_free(side->d);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    struct world *w = &world;
    w->at = data;
    w->end = data + size;
    begin(w);
    watch(w);
    for (unsigned n = 0; n < STEPS_MAX && w->at < w->end; n++) {
        unsigned step = u8(w);
        struct side *side = &w->sides[step >> 7];
        struct owned *o = side->count ? &side->owned[(step >> 5 & 3) % side->count] : NULL;
        switch ((step & 31) % STEPS) {
        case CALL:
            call(w, side);
            break;
        case SEND:
            if (o && !o->listens)
                send_on(w, side, o, step & 0x10 ? u16(w) * 4 : 1 + u8(w), 0);
            break;
        case RECV:
            if (o && !o->listens)
                recv_on(w, side, o, step & 0x10 ? sizeof w->scratch : 1 + u8(w));
            break;
        case TIME:
            advance(w, waits[u8(w) % (sizeof waits / sizeof *waits)] * MSEC);
            break;
        case DELIVER:
            for (unsigned i = 0; i <= (step >> 5 & 3); i++)
                deliver(w, side, false);
            break;
        case DROP:
            if (side->wire.count) {
                side->wire.first = (side->wire.first + 1) % WIRE_MAX;
                side->wire.count--;
            }
            break;
        case DUPLICATE:
            deliver(w, side, true);
            break;
        case SWAP:
            swap(side, step >> 5 & 3);
            break;
        case FORGE:
            forge(w, side);
            break;
        case MANGLE:
            mangle(w, side);
            break;
        case SETTLE:
            settle(w, 20);
            break;
        default:
            break;
        }
        take(w);
        watch(w);
    }
    end(w);
    return 0;
}
