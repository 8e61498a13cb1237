/* A stack as a router (RFC 1812, RFC 8200, RFC 4443): packets for others are passed on as they came, but for the hop
 * that they have used up. TOS and traffic class, ECN with them, options and extension headers are carried, and not
 * looked at: nothing is recorded into an IPv4 option (RFC 7126 4), and hop-by-hop options are for who was configured to
 * act on them (RFC 8200 4). Fragments pass as they are.
 *
 * Who cannot be passed on, and whose sender hears of it: no route, a silent next hop, no hops left, too large for the
 * next link, a source that means nothing beyond its own. Dropped and counted in silence: what may not be forwarded
 * at all (martians, link-local and group addresses, what came in a frame for many, another network's broadcast:
 * RFC 2644), and whatever an error must not answer.
 *
 * Not done: redirects are never sent (a packet may leave where it came from), sources are not checked against routes,
 * groups are not routed, no router advertisements.
 *
 * Offloads: what the sender left to a device, checksums and the cutting of segments, is left to the next one, which does
 * it by hand where it has to (link_xmit). */
#include "net/ip/forward.h"

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/ip/frag.h"
#include "net/ip/icmp.h"
#include "net/ip/neigh.h"
#include "net/link/segment.h"

static void drop(struct stack *s, struct pbuf *p, enum counter why)
{
    count(s, why);
    pbuf_free(&s->pool, p);
}

/* RFC 1812 5.3.7, RFC 3927 7, RFC 4291 2.5, RFC 6890: addresses that mean nothing further on. */
static bool passes(const struct addr *a)
{
    const uint8_t *b = a->b;
    if (addr_is4(a))
        return b[12] != 0 && b[12] != 127 && b[12] < 224 && !(b[12] == 169 && b[13] == 254);
    return !addr_is_any(a) && !addr_is_multicast(a) && !addr_is_loopback(a);
}

/* RFC 1812 4.3.2.7, RFC 4443 2.4 (e): no errors about errors, and in IPv4 about no later fragment. */
static bool answerable(const struct pbuf *p, bool v4)
{
    unsigned proto;
    const uint8_t *ip = pbuf_data(p);
    uint32_t at = icmp_transport(ip, p->len, v4, &proto);
    if (!at)
        return !v4;
    if (proto != (v4 ? PROTO_ICMP : PROTO_ICMP6))
        return true;
    if (at >= p->len)
        return false;
    unsigned type = ip[at + ICMP_TYPE];
    if (v4)
        return type != ICMP4_UNREACH && type != ICMP4_SOURCE_QUENCH && type != ICMP4_REDIRECT &&
               type != ICMP4_TIME_EXCEEDED && type != ICMP4_PARAM;
    return type >= ICMP6_ECHO && type != ICMP6_REDIRECT;
}

static void refuse(struct stack *s, struct pbuf *p, const struct ip_meta *m, enum icmp_error what, enum counter why)
{
    if (answerable(p, addr_is4(&m->dst)))
        icmp_error(s, what, p, m);
    drop(s, p, why);
}

static void use_hop(uint8_t *ip, bool v4)
{
    if (!v4) {
        ip[IP6_HOPS]--;
        return;
    }
    /* RFC 1624 3: HC' = ~(~HC + ~m + m') */
    uint32_t sum = (uint32_t)(uint16_t)~get16(ip + IP4_CSUM) + (uint16_t)~get16(ip + IP4_TTL);
    ip[IP4_TTL]--;
    put16(ip + IP4_CSUM, csum_finish(sum + get16(ip + IP4_TTL)));
}

/* What is left for a device to do, from how it was received to how it is to be sent. False: that cannot be. */
static bool turn_round(struct pbuf *p, bool v4)
{
    link_unfilled_csum(p);
    bool partial = p->flags & PBUF_CSUM_PARTIAL;
    if (partial) { /* from now on counted from the IP header, as of a packet of our own */
        if (p->csum_start < ETH_HLEN + (v4 ? IP4_HLEN : IP6_HLEN) ||
            p->csum_start - ETH_HLEN + p->csum_offset + 2u > p->len)
            return false;
        p->csum_start -= ETH_HLEN;
    }
    if (p->gso_size)
        return segment_prepare(p, 0) == 0;
    p->flags = partial ? PBUF_CSUM_PARTIAL : 0;
    return true;
}

/* The largest packet that p will be on the link. */
static uint32_t largest(const struct pbuf *p)
{
    if (!p->gso_size)
        return p->len;
    uint32_t head = p->csum_start + (pbuf_data(p)[p->csum_start + TCP_OFF] >> 4) * 4u;
    return p->len - head < p->gso_size ? p->len : head + p->gso_size;
}

/* Nobody there, though a packet says so: an address of ours that is not in use (yet), another network's broadcast
 * address; or the other end of a wire, which has sent it to us (RFC 4443 3.1). */
static bool is_nowhere(const struct path *path, const struct ip_meta *m)
{
    struct netif *out = path->nif;
    bool on_link = addr_eq(&path->next, &m->dst);
    return on_link && (netif_is_broadcast(out, &m->dst) || netif_find(out, &m->dst) ||
                       (out == m->nif && out->link->caps & LINK_NOARP));
}

void ip_forward(struct netif *nif, struct pbuf *p, struct ip_meta *m)
{
    struct stack *s = nif->stack;
    bool v4 = addr_is4(&m->dst);
    uint8_t *ip = pbuf_data(p);
    struct path path;
    m->forwarded = true;
    if (m->to_group || !passes(&m->src) || !passes(&m->dst) || addr_is_linklocal6(&m->dst) || !turn_round(p, v4)) {
        drop(s, p, v4 ? C_IpInAddrErrors : C_Ip6InAddrErrors);
        return;
    }
    if (addr_is_linklocal6(&m->src)) {
        refuse(s, p, m, ICMP_BEYOND_SCOPE, C_Ip6InAddrErrors);
        return;
    }
    if (!route_onward(s, &m->src, &m->dst, &path)) {
        refuse(s, p, m, ICMP_NO_ROUTE, v4 ? C_IpExtInNoRoutes : C_Ip6InNoRoutes);
        return;
    }
    if (is_nowhere(&path, m)) {
        drop(s, p, v4 ? C_IpInAddrErrors : C_Ip6InAddrErrors);
        return;
    }
    if (ip[v4 ? IP4_TTL : IP6_HOPS] <= 1) {
        refuse(s, p, m, ICMP_HOPS, v4 ? C_IpInHdrErrors : C_Ip6InHdrErrors);
        return;
    }
    bool whole = !v4 || get16(ip + IP4_FRAG) & IP4_DF;
    if (largest(p) > path.mtu && whole) {
        m->mtu = v4 || path.mtu > IP6_MIN_MTU ? path.mtu : IP6_MIN_MTU;
        if (!v4)
            count(s, C_Ip6InTooBigErrors);
        refuse(s, p, m, ICMP_TOO_BIG, v4 ? C_IpFragFails : C_Ip6FragFails);
        return;
    }
    use_hop(ip, v4);
    count(s, v4 ? C_IpForwDatagrams : C_Ip6OutForwDatagrams);
    uint32_t head = p->gso_size ? largest(p) - p->gso_size : 0;
    if (head && largest(p) > path.mtu && path.mtu > head) /* nobody has cut it yet: cut it small enough */
        p->gso_size = (uint16_t)(path.mtu - head);
    if (largest(p) > path.mtu) {
        ip4_fragment_further(s, &path, p);
        return;
    }
    neigh_output(path.nif, &path.next, v4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6, p);
}

bool forward_undeliverable(const struct netif *nif, const struct pbuf *p)
{
    struct stack *s = nif->stack;
    const uint8_t *ip = pbuf_data(p);
    bool v4 = ip[0] >> 4 == 4;
    struct ip_meta m = {.ip_off = p->off, .forwarded = true,
                        .src = v4 ? addr_from4(ip + IP4_SRC) : addr_from(ip + IP6_SRC),
                        .dst = v4 ? addr_from4(ip + IP4_DST) : addr_from(ip + IP6_DST)};
    if (!(s->config.flags & (v4 ? STACK_FORWARD4 : STACK_FORWARD6)) || addr_is_any(&m.src) || stack_is_local(s, &m.src))
        return false;
    if (answerable(p, v4))
        icmp_error(s, ICMP_NO_HOST, p, &m);
    return true;
}
