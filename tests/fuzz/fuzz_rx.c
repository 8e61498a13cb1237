/* A libFuzzer target on all that comes from a wire, while the owner of the sockets does what owners do.
 *
 * The input is a script: each step is a byte that names it, and its arguments. Steps make frames (as they are, or built
 * for a connection that exists, with numbers near those that it expects, so that they reach deep states), let time go
 * on, and call the socket interface. Checksums are put right at the end of the building, mostly. After each step the
 * stack's invariants are looked over from the inside (invariants.h); at the end all must be given back.
 *
 * seeds_rx.py writes scripts of whole conversations; `make fuzz` builds and runs. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "tests/fuzz/invariants.h"

#define FRAME_MAX 68000
#define SOCKETS_MAX 48
#define STEPS_MAX 400

enum step { RAW, TIME, SEGMENT, SYN, DATAGRAM, ECHO, ERROR, NEIGHBOUR, CALL, EXTENSION, STEPS };

static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 2}, peer_mac[6] = {2, 0, 0, 0, 0, 1};
static const uint8_t ours4[4] = {10, 0, 0, 2}, peer4[4] = {10, 0, 0, 1};
static const uint8_t ours6[16] = {0xfd, [15] = 2}, peer6[16] = {0xfd, [15] = 1};
static const uint64_t waits[] = {0, 1, 10, 40, 200, 500, 1000, 3000, 5000, 10000, 60000, 130000, 2000000000};

struct input {
    const uint8_t *at, *end;
};

struct world {
    struct stack *s;
    struct link *l;
    uint64_t now;
    bool dies_young; /* the stack is freed with all that it has */
    int64_t ids[SOCKETS_MAX];
    unsigned count;
    struct input in;
    uint8_t frame[FRAME_MAX], scratch[FRAME_MAX];
    uint32_t len, transport; /* of the frame; where its transport header starts */
};

static unsigned u8(struct world *w) { return w->in.at < w->in.end ? *w->in.at++ : 0; }
static unsigned u16(struct world *w)
{
    unsigned high = u8(w) << 8;
    return high | u8(w);
}
static uint32_t u32(struct world *w)
{
    uint32_t high = (uint32_t)u16(w) << 16;
    return high | u16(w);
}
/* A small number mostly; now and then any. */
static int32_t near(struct world *w)
{
    unsigned b = u8(w);
    return b < 0x80 ? (int32_t)b - 8 : b < 0xf0 ? (int32_t)(int16_t)u16(w) : (int32_t)u32(w);
}

/* --- time --- */

static void drain(struct world *w)
{
    unsigned gso;
    for (int64_t n; (n = link_drain(w->l, w->scratch, sizeof w->scratch, &gso));)
        must(n >= 14 && (gso || (w->l->caps & LINK_TSO) || n <= (int64_t)w->l->mtu + 14));
}

/* Deadlines are kept, a bounded number of them. */
static void pass(struct world *w, uint64_t ns)
{
    uint64_t until = w->now + ns;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t next = stack_run(w->s, w->now);
        drain(w);
        if (next > until)
            break;
        w->now = next > w->now ? next : w->now + 1;
    }
    w->now = until > w->now ? until : w->now;
    stack_run(w->s, w->now);
    drain(w);
}

/* --- frames --- */

static void begin(struct world *w, bool v4, unsigned proto, const struct addr *src, const struct addr *dst)
{
    uint8_t *f = w->frame, *ip = f + ETH_HLEN;
    memcpy(f + ETH_DST, our_mac, 6);
    memcpy(f + ETH_SRC, peer_mac, 6);
    put16(f + ETH_TYPE, v4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6);
    memset(ip, 0, IP6_HLEN);
    if (v4) {
        ip[IP4_VIHL] = 0x45;
        ip[IP4_TTL] = 64;
        ip[IP4_PROTO] = (uint8_t)proto;
        memcpy(ip + IP4_SRC, addr_v4(src), 4);
        memcpy(ip + IP4_DST, addr_v4(dst), 4);
    } else {
        ip[0] = 0x60;
        ip[IP6_NEXT] = (uint8_t)proto;
        ip[IP6_HOPS] = 255;
        memcpy(ip + IP6_SRC, src->b, 16);
        memcpy(ip + IP6_DST, dst->b, 16);
    }
    w->len = w->transport = ETH_HLEN + (v4 ? IP4_HLEN : IP6_HLEN);
}

static uint8_t *put(struct world *w, uint32_t n)
{
    uint8_t *at = w->frame + w->len;
    must(w->len + n <= FRAME_MAX);
    memset(at, 0, n);
    w->len += n;
    return at;
}

/* Lengths and sums; now and then, damage; then it arrives. csum: the field's place behind the transport header. */
static void arrive(struct world *w, unsigned csum)
{
    uint8_t *ip = w->frame + ETH_HLEN, *t = w->frame + w->transport;
    bool v4 = get16(w->frame + ETH_TYPE) == ETHERTYPE_IP4;
    unsigned damage = u8(w), proto = v4 ? ip[IP4_PROTO] : ip[IP6_NEXT];
    uint32_t len = w->len - w->transport;
    if ((damage & 0xf0) == 0xf0) /* in place, before the sums, so that these do not give it away */
        t[u16(w) % len] ^= (uint8_t)u8(w);
    if (v4) {
        put16(ip + IP4_TOTAL, w->len - ETH_HLEN);
        put16(ip + IP4_CSUM, 0);
        put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, IP4_HLEN)));
    } else {
        put16(ip + IP6_PLEN, w->len - ETH_HLEN - IP6_HLEN);
    }
    struct addr src = v4 ? addr_from4(ip + IP4_SRC) : addr_from(ip + IP6_SRC);
    struct addr dst = v4 ? addr_from4(ip + IP4_DST) : addr_from(ip + IP6_DST);
    if (csum + 2 <= len) {
        put16(t + csum, 0);
        put16(t + csum, csum_finish(csum_add(proto == PROTO_ICMP ? 0 : csum_pseudo(&src, &dst, proto, len), t, len)));
    }
    if ((damage & 0xf8) == 0xe8) /* cut short, or damaged where it shows */
        w->len -= u16(w) % w->len;
    else if ((damage & 0xf8) == 0xe0)
        w->frame[u16(w) % w->len] ^= (uint8_t)u8(w);
    else if (damage == 0xd0) /* to everybody */
        memset(w->frame, 0xff, 6);
    link_inject(w->l, w->frame, w->len, w->now);
}

static void raw(struct world *w)
{
    unsigned n = u16(w) % 2048;
    if (n > (size_t)(w->in.end - w->in.at))
        n = (unsigned)(w->in.end - w->in.at);
    memcpy(w->frame, w->in.at, n);
    w->in.at += n;
    link_inject(w->l, w->frame, n, w->now);
}

/* The n-th TCP socket that has a peer on the wire. */
static struct tcp *some_connection(struct world *w, unsigned n)
{
    struct tcp *found = NULL;
    for (uint32_t i = 0; i < w->s->socks->cap; i++) {
        struct sock *k = w->s->socks->slots[i];
        if (!k || k->type != SOCK_STREAM || !k->rport || tcp_of(k)->state == CLOSED || addr_is_loopback(&k->remote))
            continue;
        found = tcp_of(k);
        if (n-- == 0)
            break;
    }
    return found;
}

static uint8_t *put_tcp(struct world *w, unsigned sport, unsigned dport, seq_t seq, seq_t ack, unsigned flags)
{
    uint8_t *h = put(w, TCP_HLEN);
    put16(h + TCP_SPORT, sport);
    put16(h + TCP_DPORT, dport);
    put32(h + TCP_SEQ, seq.v);
    put32(h + TCP_ACK, ack.v);
    h[TCP_FLAGS] = (uint8_t)flags;
    return h;
}

/* Options as they should be, or any bytes; then the header's length. */
static void put_options(struct world *w, uint8_t *h, const struct tcp *t)
{
    unsigned how = u8(w);
    if (how < 0x20 && h[TCP_FLAGS] & TH_SYN) {
        uint8_t *o = put(w, 8);
        memcpy(o, (const uint8_t[]){TCPOPT_MSS, 4, 5, 180, TCPOPT_NOP, TCPOPT_WSCALE, 3, 7}, 8);
        o[7] = (uint8_t)(how & 15);
    }
    if (t ? t->ts_ok && how < 0xf0 : how & 0x40) {
        uint8_t *o = put(w, 12);
        memcpy(o, (const uint8_t[]){TCPOPT_NOP, TCPOPT_NOP, TCPOPT_TS, 10}, 4);
        put32(o + 4, t ? t->ts_recent + (uint32_t)near(w) + 8 : 1000);
        put32(o + 8, t ? tcp_timestamp(t, w->now) + (how & 1 ? (uint32_t)near(w) : 0) : 0);
    } else if (how >= 0xf0) {
        unsigned n = 4 * (how & 7);
        for (uint8_t *o = put(w, n); n--; o++)
            *o = (uint8_t)u8(w);
    }
    h[TCP_OFF] = (uint8_t)((w->len - w->transport) / 4 << 4);
}

static void put_payload(struct world *w)
{
    static const uint16_t sizes[16] = {0, 0, 0, 0, 1, 1, 2, 10, 100, 536, 1000, 1400, 1448, 4000, 20000, 60000};
    uint32_t n = sizes[u8(w) & 15];
    uint8_t *d = put(w, n);
    memset(d, (int)n, n);
}

static void segment(struct world *w)
{
    struct tcp *t = some_connection(w, u8(w) & 15);
    if (!t)
        return;
    static const uint8_t flags[16] = {
        TH_ACK, TH_ACK,          TH_ACK, TH_ACK | TH_PSH, TH_ACK | TH_FIN, TH_RST, TH_SYN,          TH_SYN | TH_ACK,
        TH_FIN, TH_RST | TH_ACK, 0,      0xff,            TH_ACK,          TH_ACK, TH_ACK | TH_FIN, TH_SYN | TH_ACK};
    unsigned kind = u8(w), f = flags[kind & 15];
    bool syn_sent = t->state == SYN_SENT;
    seq_t seq = syn_sent ? seq_add((seq_t){77}, 0) : t->rcv_nxt;
    seq_t ack = kind & 0x40 ? t->snd_una : t->snd_max;
    if (kind & 0x10)
        seq = seq_add(seq, (uint32_t)near(w));
    if (kind & 0x20)
        ack = seq_add(ack, (uint32_t)near(w));
    begin(w, addr_is4(&t->k.remote), PROTO_TCP, &t->k.remote, &t->k.local);
    uint8_t *h = put_tcp(w, t->k.rport, t->k.lport, seq, ack, f);
    put16(h + TCP_WIN, kind & 0x80 ? u16(w) : 65535);
    put_options(w, h, t);
    put_payload(w);
    arrive(w, TCP_CSUM);
}

static void addresses(bool v4, struct addr *peer, struct addr *our)
{
    *peer = v4 ? addr_from4(peer4) : addr_from(peer6);
    *our = v4 ? addr_from4(ours4) : addr_from(ours6);
}

static void syn(struct world *w)
{
    unsigned kind = u8(w);
    struct addr peer, our;
    addresses(kind & 1, &peer, &our);
    begin(w, kind & 1, PROTO_TCP, &peer, &our);
    uint8_t *h = put_tcp(w, 1024 + (kind >> 3), kind & 2 ? 80 : kind & 4 ? 81 : 82, seq(u16(w) << 16), seq(0), TH_SYN);
    put16(h + TCP_WIN, u16(w));
    put_options(w, h, NULL);
    arrive(w, TCP_CSUM);
}

static void datagram(struct world *w)
{
    unsigned kind = u8(w);
    struct addr peer, our;
    addresses(kind & 1, &peer, &our);
    begin(w, kind & 1, PROTO_UDP, &peer, &our);
    put(w, UDP_HLEN);
    put_payload(w);
    uint8_t *h = w->frame + w->transport;
    put16(h + UDP_SPORT, 53);
    put16(h + UDP_DPORT, kind & 2 ? 7 : 9);
    put16(h + UDP_LEN, kind >= 0xf8 ? u16(w) : w->len - w->transport);
    arrive(w, UDP_CSUM);
}

static void echo(struct world *w)
{
    unsigned kind = u8(w);
    struct addr peer, our;
    addresses(kind & 1, &peer, &our);
    begin(w, kind & 1, kind & 1 ? PROTO_ICMP : PROTO_ICMP6, &peer, &our);
    uint8_t *h = put(w, ICMP_HLEN);
    h[ICMP_TYPE] = kind < 0xe0 ? kind & 1 ? ICMP4_ECHO : ICMP6_ECHO : (uint8_t)u8(w);
    put_payload(w);
    arrive(w, ICMP_CSUM);
}

/* An ICMP error about what a connection has under way. */
static void icmp_about(struct world *w)
{
    struct tcp *t = some_connection(w, u8(w) & 15);
    if (!t)
        return;
    unsigned kind = u8(w);
    bool v4 = addr_is4(&t->k.remote);
    begin(w, v4, v4 ? PROTO_ICMP : PROTO_ICMP6, &t->k.remote, &t->k.local);
    uint8_t *h = put(w, ICMP_HLEN);
    h[ICMP_TYPE] = v4 ? kind & 1 ? ICMP4_UNREACH : ICMP4_TIME_EXCEEDED : 1 + (kind & 3);
    h[ICMP_CODE] = (uint8_t)(kind >> 2 & 7);
    put32(h + ICMP_REST, kind & 0x20 ? u32(w) : 1300);
    uint8_t *ip = put(w, v4 ? IP4_HLEN : IP6_HLEN);
    if (v4) {
        ip[IP4_VIHL] = kind & 0x80 ? (uint8_t)u8(w) : 0x45;
        ip[IP4_PROTO] = PROTO_TCP;
        memcpy(ip + IP4_SRC, addr_v4(&t->k.local), 4);
        memcpy(ip + IP4_DST, addr_v4(&t->k.remote), 4);
    } else {
        ip[0] = 0x60;
        ip[IP6_NEXT] = PROTO_TCP;
        memcpy(ip + IP6_SRC, t->k.local.b, 16);
        memcpy(ip + IP6_DST, t->k.remote.b, 16);
    }
    uint8_t *inner = put(w, 8);
    put16(inner + TCP_SPORT, t->k.lport);
    put16(inner + TCP_DPORT, t->k.rport);
    put32(inner + TCP_SEQ, t->snd_una.v + (kind & 0x40 ? (uint32_t)near(w) : 0));
    arrive(w, ICMP_CSUM);
}

/* The neighbour says where it is, asks where we are, or moves. */
static void neighbour(struct world *w)
{
    unsigned kind = u8(w);
    uint8_t mac[6];
    memcpy(mac, peer_mac, 6);
    if (kind & 4)
        mac[5] = (uint8_t)u8(w);
    if (kind & 1) {
        uint8_t *f = w->frame, *a = f + ETH_HLEN;
        memset(f, 0, ETH_HLEN + ARP_LEN);
        memcpy(f + ETH_DST, our_mac, 6);
        memcpy(f + ETH_SRC, mac, 6);
        put16(f + ETH_TYPE, ETHERTYPE_ARP);
        put16(a + ARP_HTYPE, 1);
        put16(a + ARP_PTYPE, ETHERTYPE_IP4);
        a[ARP_HLEN] = 6;
        a[ARP_PLEN] = 4;
        put16(a + ARP_OP, kind & 2 ? ARP_REPLY : ARP_REQUEST);
        memcpy(a + ARP_SHA, mac, 6);
        memcpy(a + ARP_SPA, peer4, 4);
        if (kind & 8)
            a[ARP_SPA + 3] = (uint8_t)u8(w);
        memcpy(a + ARP_TPA, ours4, 4);
        link_inject(w->l, f, ETH_HLEN + ARP_LEN, w->now);
        return;
    }
    struct addr peer, our;
    addresses(false, &peer, &our);
    if (kind & 8)
        peer.b[15] = (uint8_t)u8(w);
    begin(w, false, PROTO_ICMP6, &peer, &our);
    uint8_t *h = put(w, ND_OPTIONS + 8);
    h[ICMP_TYPE] = kind & 2 ? ICMP6_NA : ICMP6_NS;
    put32(h + ICMP_REST, kind & 2 ? (uint32_t)(kind & 0x70) << 25 : 0);
    memcpy(h + ND_TARGET, kind & 2 ? peer.b : our.b, 16);
    h[ND_OPTIONS] = kind & 2 ? ND_OPT_TLLA : ND_OPT_SLLA;
    h[ND_OPTIONS + 1] = kind & 0x80 ? (uint8_t)u8(w) : 1;
    memcpy(h + ND_OPTIONS + 2, mac, 6);
    arrive(w, ICMP_CSUM);
}

/* An echo behind extension headers of any kind. */
static void extension(struct world *w)
{
    static const uint8_t kinds[8] = {PROTO_HOPOPTS, PROTO_DSTOPTS, PROTO_ROUTING, PROTO_FRAGMENT, PROTO_DSTOPTS,
                                     PROTO_NONE,    253,           PROTO_ICMP6};
    struct addr peer, our;
    addresses(false, &peer, &our);
    unsigned n = u8(w) % 12, kind = kinds[u8(w) & 7];
    begin(w, false, kind, &peer, &our);
    while (n--) {
        unsigned units = u8(w) & 3;
        uint8_t *h = put(w, 8 * (units + 1));
        kind = n ? kinds[u8(w) & 7] : PROTO_ICMP6;
        h[0] = (uint8_t)kind;
        h[1] = (uint8_t)(units < 3 ? units : u8(w));
        for (unsigned i = 2; i < 8 * (units + 1); i++)
            h[i] = (uint8_t)(i == 2 ? u8(w) : i == 3 ? u8(w) & 7 : 0);
    }
    w->transport = w->len; /* so that its sum comes out right */
    uint8_t *h = put(w, ICMP_HLEN);
    h[ICMP_TYPE] = ICMP6_ECHO;
    put16(h + ICMP_CSUM, csum_finish(csum_add(csum_pseudo(&peer, &our, PROTO_ICMP6, ICMP_HLEN), h, ICMP_HLEN)));
    arrive(w, FRAME_MAX);
}

/* --- the owner --- */

static void own(struct world *w, int64_t id)
{
    if (id < 0)
        return;
    if (w->count < SOCKETS_MAX)
        w->ids[w->count++] = id;
    else
        sock_free(w->s, id);
}

static int64_t open_socket(struct world *w, int type, bool v4, unsigned port, unsigned listen_flags, unsigned backlog)
{
    static const uint8_t any[16], any4[16] = {[10] = 0xff, 0xff};
    int64_t id = sock_open(w->s, type, v4 ? AF_INET : AF_INET6);
    if (id < 0)
        return id;
    sock_bind(w->s, id, v4 ? any4 : any, port);
    if (type == SOCK_STREAM)
        sock_listen(w->s, id, backlog, listen_flags);
    own(w, id);
    return id;
}

/* Any option, by any name, with any number. */
static void option(struct world *w, int64_t id, unsigned how)
{
    static const int levels[4] = {IPPROTO_TCP, SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6};
    int level = levels[how & 3], name = u8(w) & 63;
    int32_t value[2] = {(int16_t)u16(w), u8(w)};
    int64_t n = sock_getsockopt(w->s, id, level, name, w->scratch, u8(w));
    must(n <= 255);
    sock_setsockopt(w->s, id, level, name, value, how & 4 ? sizeof value : sizeof *value);
}

static void call(struct world *w)
{
    unsigned which = u8(w), kind = u8(w);
    int64_t id = w->count ? w->ids[which % w->count] : -1;
    struct sock_name name, to;
    struct addr peer, our;
    struct sock_info info;
    uint64_t a, b, c;
    bool gone = false;
    addresses(kind & 0x80, &peer, &our);
    switch (kind & 31) {
    case 0:
    case 1:
        sock_send(w->s, id, w->scratch, 1 + u8(w));
        break;
    case 2:
        sock_send(w->s, id, w->scratch, u16(w));
        break;
    case 3:
    case 4:
        sock_recv(w->s, id, w->scratch, sizeof w->scratch);
        break;
    case 5:
        sock_recv(w->s, id, w->scratch, 1 + u8(w));
        break;
    case 6:
        sock_shutdown(w->s, id);
        break;
    case 7:
        gone = sock_free(w->s, id) == 0;
        break;
    case 8:
        gone = sock_abort(w->s, id) == 0;
        break;
    case 9:
    case 10:
    case 11:
        own(w, sock_accept(w->s, id));
        break;
    case 12:
        sock_admit(w->s, id);
        break;
    case 13:
        gone = sock_reject(w->s, id, kind & 0x20 ? ECONNREFUSED : EHOSTUNREACH) == 0;
        break;
    case 14:
        own(w, id = sock_open(w->s, SOCK_STREAM, kind & 0x80 ? AF_INET : AF_INET6));
        sock_connect(w->s, id, peer.b, 80);
        break;
    case 15: /* to ourselves, over loopback */
        own(w, id = sock_open(w->s, SOCK_STREAM, kind & 0x80 ? AF_INET : AF_INET6));
        sock_setopt(w->s, id, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, kind >> 6 & 1);
        sock_connect(w->s, id, our.b, 80 + (kind >> 5 & 1));
        break;
    case 16:
        sock_setopt(w->s, id, IPPROTO_TCP, TCP_NODELAY, kind >> 5 & 1);
        break;
    case 17:
        sock_setopt(w->s, id, SOL_SOCKET, SO_KEEPALIVE, kind >> 5 & 1);
        sock_setopt(w->s, id, IPPROTO_TCP, TCP_KEEPIDLE, 1 + u8(w));
        break;
    case 18:
        sock_setopt(w->s, id, SOL_SOCKET, SO_RCVBUF, u16(w));
        break;
    case 19:
        sock_want(w->s, id, u8(w));
        break;
    case 20:
        sock_error(w->s, id);
        sock_getname(w->s, id, SOCK_REMOTE, &name);
        sock_queues(w->s, id, &a, &b, &c);
        sock_getopt(w->s, id, IPPROTO_TCP, TCP_MAXSEG);
        for (uint64_t cursor = 0; stack_next_socket(w->s, &cursor, &info);)
            must(info.id >= 0);
        break;
    case 21:
        sock_recvfrom(w->s, id, w->scratch, sizeof w->scratch, &name, &to);
        break;
    case 22:
        name = (struct sock_name){.port = 53};
        memcpy(name.addr, peer.b, 16);
        sock_sendto(w->s, id, w->scratch, u16(w), &name, NULL);
        break;
    case 23:
        sock_connect(w->s, id, peer.b, 53);
        break;
    case 24:
        open_socket(w, SOCK_STREAM, kind & 0x80, 80 + (kind >> 5 & 3), 0, 1 + u8(w) % 8);
        break;
    case 25:
        open_socket(w, SOCK_DGRAM, kind & 0x80, kind & 0x20 ? 7 : 0, 0, 0);
        break;
    case 26:
        sock_setopt(w->s, id, SOL_SOCKET, SO_SNDBUF, u16(w));
        break;
    case 27:
    case 28:
        option(w, id, kind >> 5);
        break;
    case 29:
        sock_send_urgent(w->s, id, w->scratch, 1 + u8(w));
        must(sock_urgent(w->s, id) <= 65535);
        break;
    default:
        sock_listen(w->s, id, u8(w), 0);
    }
    if (gone)
        w->ids[which % w->count] = w->ids[w->count - 1], w->count--;
}

static void begin_world(struct world *w)
{
    unsigned how = u8(w), wire = u8(w);
    static const uint32_t rcvbufs[4] = {1 << 20, 4096, 65535, 300000};
    struct stack_config config = {.seed = {1, how}, .ecn = how % 3, .memory = how & 1 ? 1 << 19 : 8 << 20, .sockets = 64,
                                  .rcvbuf = rcvbufs[how >> 1 & 3], .rcvbuf_max = 1 << 19, .mtu_probing = how % 3, .quickacks = 16,
                                  .sndbuf = how & 8 ? 8192 : 1 << 18, .sndbuf_max = how & 8 ? 8192 : 1 << 20,
                                  .flags = how & 0x10 ? STACK_ANY_DESTINATION : 0};
    uint8_t addr[16];
    w->now = SECOND;
    must(stack_new(&w->s, &config, w->now) == 0);
    must(link_new_manual(&w->l, how & 0x40 ? 65520 : 1500, how & 0x20 ? LINK_CSUM | LINK_TSO | LINK_LRO : 0, our_mac,
                         1024) == 0);
    struct link *outer = w->l;
    w->dies_young = wire & 0x80;
    if (wire & 1) {
        struct impairment bad = {.loss_ppm = 20000, .reorder_ppm = 50000, .duplicate_ppm = 100000, .corrupt_ppm = 20000,
                                 .queue = 16, .delay_ns = wire & 2 ? 5 * MSEC : 0, .jitter_ns = MSEC,
                                 .rate_bps = wire & 4 ? 10000000 : 0, .seed = {wire, how}};
        must(link_new_impair(&outer, w->l, &bad) == 0);
    }
    int index = stack_add_link(w->s, outer);
    struct addr a = addr_from4(ours4);
    memcpy(addr, a.b, 16);
    must(stack_add_address(w->s, index, addr, 24) == 0 && stack_add_address(w->s, index, ours6, 64) == 0);
    open_socket(w, SOCK_STREAM, false, 80, 0, 8); /* both families */
    open_socket(w, SOCK_STREAM, false, 81, LISTEN_DEFER, 8);
    open_socket(w, SOCK_DGRAM, false, 7, 0, 0);
    if (how & 0x10) {
        int64_t id = sock_open(w->s, SOCK_STREAM, AF_INET6);
        sock_listen(w->s, id, 8, LISTEN_DEFER | LISTEN_ANY_PORT);
        own(w, id);
    }
}

/* All sockets are freed, all timers run out: what is left then was lost. */
static void end_world(struct world *w)
{
    if (w->dies_young) {
        stack_free(w->s);
        return;
    }
    while (w->count)
        sock_free(w->s, w->ids[--w->count]);
    for (unsigned i = 0; i < 60; i++) {
        pass(w, 120ull * SECOND);
        look_over(w->s);
        if (!w->s->socks->count && !w->s->pool.buffers)
            break;
    }
    must(w->s->socks->count == 0);
    must(w->s->pool.buffers == 0 && w->s->pool.in_use == 0);
    stack_free(w->s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    struct world *w = &world;
    uint64_t events[64];
    static void (*const steps[STEPS])(struct world *) = {
        [RAW] = raw,   [SEGMENT] = segment,  [SYN] = syn,           [DATAGRAM] = datagram,   [ECHO] = echo,
        [CALL] = call, [ERROR] = icmp_about, [NEIGHBOUR] = neighbour, [EXTENSION] = extension,
    };
    w->in = (struct input){data, data + size};
    w->count = 0;
    begin_world(w);
    for (unsigned n = 0; n < STEPS_MAX && w->in.at < w->in.end; n++) {
        unsigned step = u8(w);
        if (step % STEPS == TIME)
            pass(w, waits[u8(w) % (sizeof waits / sizeof *waits)] * MSEC);
        else
            steps[step % STEPS](w);
        if (!(step & 0x80)) { /* else several between two runs */
            pass(w, 0);
            stack_events(w->s, events, 64);
        }
        look_over(w->s);
    }
    end_world(w);
    return 0;
}
