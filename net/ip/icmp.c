/* ICMP and ICMPv6, coming in (RFC 792, RFC 1122 3.2.2, RFC 4443): echo is answered, an error is told to the transport
 * that sent what it is about. What a host may leave unanswered (timestamps, masks) and what nobody may believe any more
 * (source quench, RFC 6633) is dropped in silence. Redirects are counted, and followed only by a stack that was told
 * to. Errors that this stack sends are in icmp_error.c. */
#include "net/ip/icmp.h"

#include <errno.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/ip/forward.h"

#define QUOTED_EXTENSIONS_MAX 8

/* What an error is to the program. Hard: nothing else will come; soft: it may pass (RFC 1122 4.2.3.9). */
struct meaning {
    uint8_t error;
    bool hard;
};

/* By code, as Linux has it: its programs know these. */
static const struct meaning unreachable4[] = {
    {ENETUNREACH, false},  {EHOSTUNREACH, false}, {ENOPROTOOPT, true}, {ECONNREFUSED, true}, {EMSGSIZE, false},
    {EOPNOTSUPP, false},   {ENETUNREACH, true},   {EHOSTDOWN, true},   {ENONET, true},       {ENETUNREACH, true},
    {EHOSTUNREACH, true},  {ENETUNREACH, false},  {EHOSTUNREACH, false}, {EHOSTUNREACH, true}, {EHOSTUNREACH, true},
    {EHOSTUNREACH, true},
};
static const struct meaning unreachable6[] = {
    {ENETUNREACH, false}, {EACCES, true},       {EHOSTUNREACH, false}, {EHOSTUNREACH, false},
    {ECONNREFUSED, true}, {EACCES, true},       {EACCES, true},
};
static const struct meaning time_exceeded = {EHOSTUNREACH, false}, bad_header = {EPROTO, true},
                            too_big = {EMSGSIZE, false};

void icmp_send(struct stack *s, const struct addr *src, const struct addr *dst, const uint8_t head[ICMP_HLEN],
               const uint8_t *body, uint32_t len)
{
    struct path path;
    if (!route_find(s, dst, src, &path))
        return;
    bool v4 = addr_is4(dst);
    struct pbuf *p = pbuf_alloc(&s->pool, PBUF_HEADROOM + ETH_HLEN + IP6_HLEN, ICMP_HLEN + len);
    if (!p)
        return;
    uint8_t *d = pbuf_data(p);
    p->len = ICMP_HLEN + len;
    memcpy(d, head, ICMP_HLEN);
    memcpy(d + ICMP_HLEN, body, len);
    put16(d + ICMP_CSUM, 0);
    uint64_t sum = v4 ? 0 : csum_pseudo(&path.src, dst, PROTO_ICMP6, p->len);
    put16(d + ICMP_CSUM, csum_finish(csum_add(sum, d, p->len)));
    count(s, C_IcmpOutMsgs);
    /* No DF: nobody would be there to learn from a "too big" (Linux does not set it, either). */
    path.fragment = FRAGMENT_ANYWHERE;
    path.mtu = path_mtu_via(s, &path, dst);
    ip_output(s, &path, dst, v4 ? PROTO_ICMP : PROTO_ICMP6, 0, p);
}

static void echo(struct stack *s, const struct pbuf *p, const struct ip_meta *m, unsigned reply_type)
{
    uint8_t head[ICMP_HLEN];
    /* An any-destination stack does not answer in the name of hosts that may be dead. RFC 1122 3.2.2.6: not to groups. */
    if (m->to_group || !addr_is_unicast(&m->src) || !(stack_is_local(s, &m->dst) || addr_is_loopback(&m->dst)))
        return;
    memcpy(head, pbuf_data(p), ICMP_HLEN);
    head[ICMP_TYPE] = (uint8_t)reply_type;
    icmp_send(s, &m->dst, &m->src, head, pbuf_data(p) + ICMP_HLEN, p->len - ICMP_HLEN);
}

uint32_t icmp_transport(const uint8_t *ip, uint32_t len, bool v4, unsigned *proto)
{
    uint32_t at = v4 ? IP4_HLEN : IP6_HLEN;
    if (len < at || ip[0] >> 4 != (v4 ? 4 : 6))
        return 0;
    if (v4) {
        at = (ip[IP4_VIHL] & 15) * 4u;
        *proto = ip[IP4_PROTO];
        return at < IP4_HLEN || get16(ip + IP4_FRAG) & IP4_OFFMASK ? 0 : at;
    }
    *proto = ip[IP6_NEXT];
    for (unsigned n = 0; n < QUOTED_EXTENSIONS_MAX; n++) {
        bool fragment = *proto == PROTO_FRAGMENT;
        if (!fragment && *proto != PROTO_HOPOPTS && *proto != PROTO_ROUTING && *proto != PROTO_DSTOPTS)
            return at;
        if (len - at < 8 || (fragment && get16(ip + at + IP6_FRAG_OFF) & 0xfff8))
            return 0;
        *proto = ip[at];
        at += fragment ? IP6_FRAG_HLEN : (ip[at + 1] + 1u) * 8;
        if (at > len)
            return 0;
    }
    return 0;
}

/* The packet at ip is one of ours, and something has happened to it: tell the transport that sent it. */
static bool tell(const struct netif *nif, const uint8_t *ip, uint32_t len, bool v4, struct meaning what, uint32_t mtu)
{
    struct stack *s = nif->stack;
    unsigned proto;
    uint32_t at = icmp_transport(ip, len, v4, &proto);
    if (!at || len < at + 8) /* eight bytes of the transport header are promised: ports and a sequence number */
        return false;
    struct addr src = v4 ? addr_from4(ip + IP4_SRC) : addr_in_zone(addr_from(ip + IP6_SRC), zone_of(nif));
    struct addr dst = v4 ? addr_from4(ip + IP4_DST) : addr_in_zone(addr_from(ip + IP6_DST), zone_of(nif));
    if (proto == PROTO_TCP)
        tcp_icmp_error(s, &src, &dst, ip + at, what.error, mtu);
    else if (proto == PROTO_UDP)
        udp_icmp_error(s, &src, &dst, ip + at, what.error, what.hard, mtu);
    return true;
}

static void error_input(struct stack *s, const struct pbuf *p, const struct ip_meta *m, struct meaning what, uint32_t mtu)
{
    if (!tell(m->nif, pbuf_data(p) + ICMP_HLEN, p->len - ICMP_HLEN, addr_is4(&m->dst), what, mtu))
        count(s, C_IcmpInErrors);
}

void icmp_undeliverable(const struct netif *nif, const struct pbuf *p)
{
    if (!forward_undeliverable(nif, p))
        tell(nif, pbuf_data(p), p->len, pbuf_data(p)[0] >> 4 == 4, (struct meaning){EHOSTUNREACH, false}, 0);
}

void icmp4_input(struct stack *s, struct pbuf *p, const struct ip_meta *m)
{
    const uint8_t *d = pbuf_data(p);
    count(s, C_IcmpInMsgs);
    if (p->len < ICMP_HLEN) {
        count(s, C_IcmpInErrors);
        return;
    }
    if (!(p->flags & PBUF_CSUM_OK) && csum_finish(csum_add(0, d, p->len)) != 0) {
        count(s, C_IcmpInCsumErrors);
        return;
    }
    unsigned code = d[ICMP_CODE];
    switch (d[ICMP_TYPE]) {
    case ICMP4_ECHO:
        echo(s, p, m, ICMP4_ECHO_REPLY);
        break;
    case ICMP4_UNREACH:
        if (code < sizeof unreachable4 / sizeof *unreachable4) /* RFC 1191 4: the MTU, where the code is about it */
            error_input(s, p, m, unreachable4[code], code == ICMP4_UNREACH_FRAG ? get16(d + 6) : 0);
        break;
    case ICMP4_TIME_EXCEEDED:
        error_input(s, p, m, time_exceeded, 0);
        break;
    case ICMP4_PARAM:
        error_input(s, p, m, bad_header, 0);
        break;
    case ICMP4_REDIRECT:
        redirect_input(s, p, m);
        break;
    default:
        break; /* RFC 1122 3.2.2: unknown types are silently discarded */
    }
}

void icmp6_input(struct stack *s, struct pbuf *p, const struct ip_meta *m)
{
    const uint8_t *d = pbuf_data(p);
    count(s, C_IcmpInMsgs);
    if (p->len < ICMP_HLEN) {
        count(s, C_IcmpInErrors);
        return;
    }
    if (!ip_csum_ok(p, m)) {
        count(s, C_IcmpInCsumErrors);
        return;
    }
    unsigned code = d[ICMP_CODE];
    switch (d[ICMP_TYPE]) {
    case ICMP6_ECHO:
        echo(s, p, m, ICMP6_ECHO_REPLY);
        break;
    case ICMP6_RA:
    case ICMP6_NS:
    case ICMP6_NA:
        if (m->fragmented) { /* RFC 6980 5: whoever watches over neighbour discovery must be able to see it */
            count(s, C_IcmpInErrors);
            break;
        }
        nd_input(s, p, m);
        break;
    case ICMP6_MLD_QUERY:
    case ICMP6_MLD1_REPORT:
        mld_input(s, p, m);
        break;
    case ICMP6_UNREACH:
        if (code < sizeof unreachable6 / sizeof *unreachable6)
            error_input(s, p, m, unreachable6[code], 0);
        break;
    case ICMP6_TOO_BIG:
        error_input(s, p, m, too_big, get32(d + ICMP_REST));
        break;
    case ICMP6_TIME_EXCEEDED:
        error_input(s, p, m, time_exceeded, 0);
        break;
    case ICMP6_PARAM:
        error_input(s, p, m, bad_header, 0);
        break;
    case ICMP6_REDIRECT:
        redirect_input(s, p, m);
        break;
    default:
        break;
    }
}
