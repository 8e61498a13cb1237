/* IPv4 and IPv6, coming in (RFC 791, RFC 8200, RFC 1122 3.2). Every length is checked once; what goes up is a window
 * that is exactly as long as its header said, and whole: fragments make a detour through reass.c. */
#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/ip/forward.h"
#include "net/ip/group.h"
#include "net/ip/reass.h"

#define EXTENSIONS_MAX 8

static void drop(struct stack *s, struct pbuf *p, enum counter why)
{
    count(s, why);
    pbuf_free(&s->pool, p);
}

/* Whose it is: a packet that this netif takes, one that is to be passed on, or one that nobody should have sent us. */
enum owner { NOBODYS, OURS, OTHERS };

static enum owner owner_of(const struct netif *nif, struct ip_meta *m)
{
    struct stack *s = nif->stack;
    bool from_loopback = nif->link->caps & LINK_LOOPBACK;
    if ((addr_is_loopback(&m->dst) || addr_is_loopback(&m->src)) && !from_loopback)
        return NOBODYS; /* RFC 1122 3.2.1.3(g): never on a wire */
    if (addr_is_multicast(&m->src) || netif_is_broadcast(nif, &m->src)) /* MUST-63: who would be answered? */
        return NOBODYS;
    if (!from_loopback && stack_owns(s, &m->src)) /* we did not send that; the answer would come to us, for ever */
        return NOBODYS;
    if (addr_is_multicast(&m->dst)) {
        m->to_group = true;
        return group_joined(nif, &m->dst) || s->config.flags & STACK_ANY_DESTINATION ? OURS : NOBODYS;
    }
    if (netif_is_broadcast(nif, &m->dst)) {
        m->to_group = true;
        return OURS;
    }
    if (from_loopback && addr_is_loopback(&m->dst))
        return OURS;
    if (stack_is_local(s, &m->dst) || s->config.flags & STACK_ANY_DESTINATION)
        return OURS;
    unsigned forwards = s->config.flags & (addr_is4(&m->dst) ? STACK_FORWARD4 : STACK_FORWARD6);
    return forwards && !from_loopback ? OTHERS : NOBODYS;
}

static void deliver(struct netif *nif, struct pbuf *p, const struct ip_meta *m)
{
    struct stack *s = nif->stack;
    bool v4 = addr_is4(&m->dst);
    count(s, v4 ? C_IpInDelivers : C_Ip6InDelivers);
    switch (m->proto) {
    case PROTO_TCP:
        tcp_input(s, p, m); /* takes p */
        return;
    case PROTO_UDP:
        udp_input(s, p, m); /* takes p */
        return;
    case PROTO_ICMP:
        if (v4) {
            icmp4_input(s, p, m);
            break;
        }
        goto unknown;
    case PROTO_IGMP:
        if (v4) {
            igmp_input(s, p, m);
            break;
        }
        goto unknown;
    case PROTO_ICMP6:
        if (!v4) {
            icmp6_input(s, p, m);
            break;
        }
        goto unknown;
    case PROTO_NONE:
        break;
    default:
    unknown:
        count(s, v4 ? C_IpInUnknownProtos : C_Ip6InUnknownProtos);
        icmp_error(s, ICMP_NO_PROTO, p, m);
    }
    pbuf_free(&s->pool, p);
}

void ip4_input(struct netif *nif, struct pbuf *p)
{
    struct stack *s = nif->stack;
    const uint8_t *ip = pbuf_data(p);
    count(s, C_IpInReceives);
    if (p->len < IP4_HLEN) {
        drop(s, p, C_IpInHdrErrors);
        return;
    }
    uint32_t hlen = (ip[IP4_VIHL] & 15) * 4u, total = get16(ip + IP4_TOTAL);
    if (ip[IP4_VIHL] >> 4 != 4 || hlen < IP4_HLEN || total < hlen || total > p->len ||
        csum_finish(csum_add(0, ip, hlen)) != 0) {
        drop(s, p, C_IpInHdrErrors);
        return;
    }
    struct ip_meta m = {.nif = nif, .src = addr_from4(ip + IP4_SRC), .dst = addr_from4(ip + IP4_DST),
                        .ip_off = p->off, .proto = ip[IP4_PROTO], .tos = ip[IP4_TOS], .to_group = p->flags & PBUF_GROUP};
    enum owner owner = owner_of(nif, &m);
    if (owner == NOBODYS) {
        drop(s, p, C_IpInAddrErrors);
        return;
    }
    p->len = total; /* what Ethernet padded is not ours */
    if (owner == OTHERS) {
        ip_forward(nif, p, &m);
        return;
    }
    pbuf_pull(p, hlen);
    unsigned field = get16(ip + IP4_FRAG);
    if (field & (IP4_MF | IP4_OFFMASK)) {
        struct fragment f = {.id = get16(ip + IP4_ID), .off = (field & IP4_OFFMASK) * 8, .more = field & IP4_MF,
                             .proto = m.proto};
        /* RFC 791 3.2: all but the last are multiples of 8 bytes; and none may end beyond what a datagram can be. */
        if (!p->len || (f.more && p->len % 8) || hlen + f.off + p->len > 65535) {
            drop(s, p, C_IpReasmFails);
            return;
        }
        p = reass_input(s, p, &m, &f);
    }
    if (p)
        deliver(nif, p, &m);
}

/* What is to be done with a packet whose extension headers are as they are: go on, or drop it; or drop it and tell its
 * sender, by one of enum icmp_error. */
enum { GO_ON = -2, DROP = -1 };

/* RFC 8200 4.2: an option that is not known says in its first two bits what is to be done. We know the padding alone. */
static int ip6_options(const uint8_t *ip, uint32_t at, uint32_t end, struct ip_meta *m)
{
    for (const uint8_t *o; at < end; at += o[0] == IP6_OPT_PAD1 ? 1 : 2u + o[1]) {
        o = ip + at;
        if (o[0] == IP6_OPT_PAD1)
            continue;
        if (end - at < 2 || o[1] > end - at - 2)
            return DROP;
        m->pointer = (uint16_t)at;
        switch (o[0] >> 6) {
        case 1:
            return DROP;
        case 2: /* whoever it was sent to */
            return ICMP_BAD_OPTION_TO_ANY;
        case 3:
            return ICMP_BAD_OPTION;
        }
    }
    return GO_ON;
}

/* Walks the extension headers from *at to the transport header or to a fragment header; m->proto says which. */
static int ip6_walk(const uint8_t *ip, uint32_t len, struct ip_meta *m, uint32_t *at)
{
    for (unsigned n = 0; n <= EXTENSIONS_MAX; n++) {
        uint32_t here = *at, size = len - here < 8 ? 0 : (ip[here + 1] + 1u) * 8;
        bool fits = size && size <= len - here;
        int verdict = GO_ON;
        switch (m->proto) {
        case PROTO_HOPOPTS: /* RFC 8200 4.1: only first */
            if (here != IP6_HLEN)
                return ICMP_NO_PROTO;
            verdict = fits ? ip6_options(ip, here + 2, here + size, m) : DROP;
            break;
        case PROTO_DSTOPTS:
            verdict = fits ? ip6_options(ip, here + 2, here + size, m) : DROP;
            break;
        case PROTO_ROUTING: /* RFC 5095, RFC 8200 4.4: with segments left it is not for us */
            if (fits && ip[here + 3] != 0) {
                m->pointer = (uint16_t)(here + 2);
                return ICMP_BAD_FIELD;
            }
            verdict = fits ? GO_ON : DROP;
            break;
        default:
            return GO_ON;
        }
        if (verdict != GO_ON)
            return verdict;
        m->proto = ip[here];
        m->pointer = (uint16_t)here;
        *at = here + size;
    }
    return DROP;
}

static void ip6_refuse(struct stack *s, struct pbuf *p, const struct ip_meta *m, int verdict)
{
    if (verdict >= 0)
        icmp_error(s, (enum icmp_error)verdict, p, m);
    drop(s, p, C_Ip6InHdrErrors);
}

/* RFC 7112 5: a first fragment that does not hold all headers, the transport's too, would hide them from who looks. */
static bool ip6_headers_in_first(const uint8_t *ip, uint32_t len, const struct ip_meta *m, uint32_t at, unsigned proto)
{
    struct ip_meta inner = *m;
    inner.proto = (uint8_t)proto;
    if (ip6_walk(ip, len, &inner, &at) == DROP)
        return false;
    uint32_t least = inner.proto == PROTO_TCP                                     ? TCP_HLEN
                     : inner.proto == PROTO_UDP || inner.proto == PROTO_ICMP6     ? 8
                                                                                  : 0;
    return len - at >= least;
}

/* p's window starts at the fragment header, `at` bytes into the packet. The whole packet, or NULL. Takes p. */
static struct pbuf *ip6_fragment(struct stack *s, struct pbuf *p, struct ip_meta *m, uint32_t at)
{
    const uint8_t *h = pbuf_data(p), *ip = p->base + m->ip_off;
    if (p->len < IP6_FRAG_HLEN) {
        drop(s, p, C_Ip6InHdrErrors);
        return NULL;
    }
    unsigned field = get16(h + IP6_FRAG_OFF);
    m->fragmented = true;
    struct fragment f = {.id = get32(h + IP6_FRAG_ID), .off = field & 0xfff8, .more = field & 1, .proto = h[IP6_FRAG_NEXT],
                         .next_at = m->pointer};
    if (!f.off && !f.more) { /* RFC 6946: whole already, whatever else has that number */
        m->proto = f.proto;
        m->pointer = (uint16_t)at;
        pbuf_pull(p, IP6_FRAG_HLEN);
        return p;
    }
    pbuf_pull(p, IP6_FRAG_HLEN);
    int verdict = GO_ON;
    if (f.more && p->len % 8) { /* RFC 8200 4.5, all three */
        m->pointer = IP6_PLEN;
        verdict = ICMP_BAD_FIELD;
    } else if (at - IP6_HLEN + f.off + p->len > 65535) {
        m->pointer = (uint16_t)(at + IP6_FRAG_OFF);
        verdict = ICMP_BAD_FIELD;
    } else if (!f.off && !ip6_headers_in_first(ip, at + IP6_FRAG_HLEN + p->len, m, at + IP6_FRAG_HLEN, f.proto)) {
        m->pointer = 0;
        verdict = ICMP_HIDDEN_HEADERS;
    }
    if (verdict == GO_ON && p->len)
        return reass_input(s, p, m, &f);
    if (verdict != GO_ON)
        icmp_error(s, (enum icmp_error)verdict, p, m);
    drop(s, p, C_Ip6ReasmFails);
    return NULL;
}

void ip6_input(struct netif *nif, struct pbuf *p)
{
    struct stack *s = nif->stack;
    const uint8_t *ip = pbuf_data(p);
    count(s, C_Ip6InReceives);
    if (p->len < IP6_HLEN || ip[0] >> 4 != 6 || IP6_HLEN + (uint32_t)get16(ip + IP6_PLEN) > p->len) {
        drop(s, p, C_Ip6InHdrErrors);
        return;
    }
    uint32_t zone = zone_of(nif);
    struct ip_meta m = {.nif = nif, .ip_off = p->off, .src = addr_in_zone(addr_from(ip + IP6_SRC), zone),
                        .dst = addr_in_zone(addr_from(ip + IP6_DST), zone),
                        .proto = ip[IP6_NEXT], .pointer = IP6_NEXT, .tos = (uint8_t)(get16(ip) >> 4),
                        .to_group = p->flags & PBUF_GROUP};
    /* A v4-mapped address on the wire would pass for IPv4 inside (RFC 6890: not for use on a network). */
    enum owner owner = addr_is4(&m.src) || addr_is4(&m.dst) ? NOBODYS : owner_of(nif, &m);
    if (owner == NOBODYS) {
        drop(s, p, C_Ip6InAddrErrors);
        return;
    }
    p->len = IP6_HLEN + (uint32_t)get16(ip + IP6_PLEN);
    if (owner == OTHERS) {
        ip_forward(nif, p, &m);
        return;
    }
    uint32_t at = IP6_HLEN;
    int verdict = ip6_walk(ip, p->len, &m, &at);
    pbuf_pull(p, verdict == GO_ON ? at : 0);
    if (verdict == GO_ON && m.proto == PROTO_FRAGMENT) {
        if (!(p = ip6_fragment(s, p, &m, at)))
            return;
        /* The headers behind it; a second fragment header is nobody's (RFC 8200 4.1). */
        uint32_t behind = at = p->off - m.ip_off;
        verdict = ip6_walk(p->base + m.ip_off, at + p->len, &m, &at);
        if (verdict == GO_ON && m.proto == PROTO_FRAGMENT)
            verdict = DROP;
        pbuf_pull(p, verdict == GO_ON ? at - behind : 0);
    }
    if (verdict != GO_ON)
        ip6_refuse(s, p, &m, verdict);
    else
        deliver(nif, p, &m);
}

bool ip_csum_ok(const struct pbuf *p, const struct ip_meta *m)
{
    if (p->flags & PBUF_CSUM_OK)
        return true;
    return csum_finish(csum_add(csum_pseudo(&m->src, &m->dst, m->proto, p->len), pbuf_data(p), p->len)) == 0;
}
