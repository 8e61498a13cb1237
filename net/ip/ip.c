/* IPv4 and IPv6, both ways (RFC 791, RFC 8200, RFC 1122 3.2). Input checks every length once; what goes up is a window that
 * is exactly as long as its header said. Fragments are dropped and counted: reassembly is not here yet, and nothing
 * that this stack sends is ever fragmented (IPv4 carries DF). */
#include <errno.h>

#include "net/core/checksum.h"
#include "net/ip/neigh.h"
#include "net/core/wire.h"

#define EXTENSIONS_MAX 8

static void drop(struct stack *s, struct pbuf *p, enum counter why)
{
    count(s, why);
    pbuf_free(&s->pool, p);
}

/* Is dst an address that this netif takes packets for? */
static bool accepts(const struct netif *nif, struct ip_meta *m)
{
    struct stack *s = nif->stack;
    bool from_loopback = nif->link->caps & LINK_LOOPBACK;
    if ((addr_is_loopback(&m->dst) || addr_is_loopback(&m->src)) && !from_loopback)
        return false; /* RFC 1122 3.2.1.3(g): never on a wire */
    if (addr_is_multicast(&m->src) || netif_is_broadcast(nif, &m->src)) /* MUST-63: who would be answered? */
        return false;
    if (!from_loopback && stack_owns(s, &m->src)) /* we did not send that; the answer would come to us, for ever */
        return false;
    if (addr_is_multicast(&m->dst) || netif_is_broadcast(nif, &m->dst)) {
        m->to_group = true;
        return true;
    }
    if (from_loopback && addr_is_loopback(&m->dst))
        return true;
    return stack_is_local(s, &m->dst) || s->config.flags & STACK_ANY_DESTINATION;
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
    if (!accepts(nif, &m)) {
        drop(s, p, C_IpInAddrErrors);
        return;
    }
    if (get16(ip + IP4_FRAG) & (IP4_MF | IP4_OFFMASK)) {
        drop(s, p, C_IpReasmFails);
        return;
    }
    p->len = total; /* what Ethernet padded is not ours */
    pbuf_pull(p, hlen);
    deliver(nif, p, &m);
}

/* RFC 8200 4.2: an option that is not known says in its first two bits what is to be done with it: skip it, or drop the
 * packet (and say so to its sender, which we leave out). We know the padding alone. */
static bool ip6_options_ok(const uint8_t *o, uint32_t len)
{
    for (uint32_t i = 0; i < len; i += o[i] == IP6_OPT_PAD1 ? 1 : 2u + o[i + 1])
        if (o[i] != IP6_OPT_PAD1 && (o[i] >> 6 || len - i < 2 || o[i + 1] > len - i - 2))
            return false;
    return true;
}

/* Walks the extension headers. Returns the transport header's offset from the IPv6 header, or 0: drop, for *why. */
static uint32_t ip6_transport(const uint8_t *ip, uint32_t len, struct ip_meta *m, enum counter *why)
{
    uint32_t at = IP6_HLEN;
    m->proto = ip[IP6_NEXT];
    m->proto_at = IP6_NEXT;
    for (unsigned n = 0; n < EXTENSIONS_MAX; n++) {
        switch (m->proto) {
        case PROTO_HOPOPTS: /* RFC 8200 4.1: only first */
            if (n > 0) {
                *why = C_Ip6InHdrErrors;
                return 0;
            }
            break;
        case PROTO_DSTOPTS:
            break;
        case PROTO_ROUTING: /* RFC 5095, RFC 8200 4.4: with segments left it is not for us */
            if (len - at < 8 || ip[at + 3] != 0) {
                *why = C_Ip6InHdrErrors;
                return 0;
            }
            break;
        case PROTO_FRAGMENT:
            *why = C_Ip6ReasmFails;
            return 0;
        default:
            return at;
        }
        if (len - at < 8 || (ip[at + 1] + 1u) * 8 > len - at ||
            (m->proto != PROTO_ROUTING && !ip6_options_ok(ip + at + 2, (ip[at + 1] + 1u) * 8 - 2))) {
            *why = C_Ip6InHdrErrors;
            return 0;
        }
        m->proto = ip[at];
        m->proto_at = (uint16_t)at;
        at += (ip[at + 1] + 1u) * 8;
    }
    *why = C_Ip6InHdrErrors;
    return 0;
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
    struct ip_meta m = {.nif = nif, .src = addr_from(ip + IP6_SRC), .dst = addr_from(ip + IP6_DST), .ip_off = p->off,
                        .tos = (uint8_t)(get16(ip) >> 4), .to_group = p->flags & PBUF_GROUP};
    /* A v4-mapped address on the wire would pass for IPv4 inside (RFC 6890: not for use on a network). */
    if (addr_is4(&m.src) || addr_is4(&m.dst) || !accepts(nif, &m)) {
        drop(s, p, C_Ip6InAddrErrors);
        return;
    }
    uint32_t len = IP6_HLEN + (uint32_t)get16(ip + IP6_PLEN);
    enum counter why = C_Ip6InHdrErrors;
    uint32_t at = ip6_transport(ip, len, &m, &why);
    if (!at) {
        drop(s, p, why);
        return;
    }
    p->len = len;
    pbuf_pull(p, at);
    deliver(nif, p, &m);
}

bool ip_csum_ok(const struct pbuf *p, const struct ip_meta *m)
{
    if (p->flags & PBUF_CSUM_OK)
        return true;
    return csum_finish(csum_add(csum_pseudo(&m->src, &m->dst, m->proto, p->len), pbuf_data(p), p->len)) == 0;
}

void ip_csum_fill(const struct path *path, const struct addr *dst, unsigned proto, unsigned field, struct pbuf *p)
{
    put16(pbuf_data(p) + field, csum_fold(csum_pseudo(&path->src, dst, proto, pbuf_total(p))));
    p->flags |= PBUF_CSUM_PARTIAL;
    p->csum_start = 0; /* grows with every header pushed in front */
    p->csum_offset = (uint16_t)field;
    if (!(path->nif->link->caps & LINK_CSUM))
        link_complete_csum(p);
}

int ip_output(struct stack *s, const struct path *path, const struct addr *dst, unsigned proto, unsigned ttl,
              struct pbuf *p)
{
    uint32_t len = pbuf_total(p);
    bool v4 = addr_is4(dst);
    unsigned hlen = v4 ? IP4_HLEN : IP6_HLEN;
    if (len + hlen > 65535 || (!p->gso_size && len + hlen > netif_mtu(path->nif, v4))) {
        pbuf_free(&s->pool, p);
        return -EMSGSIZE;
    }
    uint8_t *ip = pbuf_push(p, hlen);
    if (p->flags & PBUF_CSUM_PARTIAL)
        p->csum_start = (uint16_t)(p->csum_start + hlen);
    if (v4) {
        ip[IP4_VIHL] = 0x45;
        ip[IP4_TOS] = path->tos;
        put16(ip + IP4_TOTAL, len + hlen);
        put16(ip + IP4_ID, s->ip_id++); /* never fragmented, so it need not be unique (RFC 6864 4.1) */
        put16(ip + IP4_FRAG, IP4_DF);
        ip[IP4_TTL] = (uint8_t)ttl;
        ip[IP4_PROTO] = (uint8_t)proto;
        put16(ip + IP4_CSUM, 0);
        memcpy(ip + IP4_SRC, addr_v4(&path->src), 4);
        memcpy(ip + IP4_DST, addr_v4(dst), 4);
        put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, IP4_HLEN)));
        count(s, C_IpOutRequests);
    } else {
        put32(ip, 6u << 28 | (uint32_t)path->tos << 20);
        put16(ip + IP6_PLEN, len);
        ip[IP6_NEXT] = (uint8_t)proto;
        ip[IP6_HOPS] = ttl == HOPS_DEFAULT ? path->nif->hop_limit : (uint8_t)ttl; /* RFC 4861 6.3.4: what routers say */
        memcpy(ip + IP6_SRC, path->src.b, 16);
        memcpy(ip + IP6_DST, dst->b, 16);
        count(s, C_Ip6OutRequests);
    }
    neigh_output(path->nif, &path->next, v4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6, p);
    return 0;
}
