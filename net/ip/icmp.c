/* ICMP and ICMPv6 (RFC 792, RFC 1122 3.2.2, RFC 4443): echo answered, errors sent and heard. */
#include <errno.h>

#include "net/core/checksum.h"
#include "net/stack.h"
#include "net/core/wire.h"

#define TTL 64
#define ERRORS_PER_SECOND 100

/* Sends an ICMP message of len bytes, from data, with its type and code in it already. */
static void icmp_send(struct stack *s, const struct addr *src, const struct addr *dst, const uint8_t head[ICMP_HLEN],
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
    ip_output(s, &path, dst, v4 ? PROTO_ICMP : PROTO_ICMP6, TTL, p);
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

/* The packet inside an error is one of ours: tell the transport that sent it. */
static void error_input(struct stack *s, const struct pbuf *p, int error, uint32_t mtu, bool v4)
{
    const uint8_t *ip = pbuf_data(p) + ICMP_HLEN;
    uint32_t len = p->len - ICMP_HLEN, hlen = v4 ? IP4_HLEN : IP6_HLEN;
    struct addr src, dst;
    unsigned proto;
    if (len < hlen || ip[0] >> 4 != (v4 ? 4 : 6))
        goto bad;
    if (v4) {
        hlen = (ip[IP4_VIHL] & 15) * 4u;
        if (hlen < IP4_HLEN || get16(ip + IP4_FRAG) & IP4_OFFMASK)
            goto bad;
        src = addr_from4(ip + IP4_SRC);
        dst = addr_from4(ip + IP4_DST);
        proto = ip[IP4_PROTO];
    } else {
        src = addr_from(ip + IP6_SRC);
        dst = addr_from(ip + IP6_DST);
        proto = ip[IP6_NEXT];
    }
    if (len < hlen + 8) /* eight bytes of the transport header are promised: ports and a sequence number */
        goto bad;
    if (proto == PROTO_TCP)
        tcp_icmp_error(s, &src, &dst, ip + hlen, error, mtu);
    else if (proto == PROTO_UDP)
        udp_icmp_error(s, &src, &dst, ip + hlen, error, mtu);
    return;
bad:
    count(s, C_IcmpInErrors);
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
    switch (d[ICMP_TYPE]) {
    case ICMP4_ECHO:
        echo(s, p, m, ICMP4_ECHO_REPLY);
        break;
    case ICMP4_UNREACH:
        switch (d[ICMP_CODE]) {
        case ICMP4_UNREACH_FRAG:
            error_input(s, p, EMSGSIZE, get16(d + 6), true); /* RFC 1191 4 */
            break;
        case ICMP4_UNREACH_PROTO:
        case ICMP4_UNREACH_PORT:
            error_input(s, p, ECONNREFUSED, 0, true);
            break;
        case ICMP4_UNREACH_NET:
            error_input(s, p, ENETUNREACH, 0, true);
            break;
        default:
            error_input(s, p, EHOSTUNREACH, 0, true);
        }
        break;
    case ICMP4_TIME_EXCEEDED:
    case ICMP4_PARAM:
        error_input(s, p, d[ICMP_TYPE] == ICMP4_PARAM ? EPROTO : EHOSTUNREACH, 0, true);
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
    switch (d[ICMP_TYPE]) {
    case ICMP6_ECHO:
        echo(s, p, m, ICMP6_ECHO_REPLY);
        break;
    case ICMP6_RA:
    case ICMP6_NS:
    case ICMP6_NA:
        nd_input(s, p, m);
        break;
    case ICMP6_UNREACH:
        error_input(s, p,
                    d[ICMP_CODE] == ICMP6_UNREACH_PORT      ? ECONNREFUSED
                    : d[ICMP_CODE] == ICMP6_UNREACH_NOROUTE ? ENETUNREACH
                    : d[ICMP_CODE] == ICMP6_UNREACH_ADMIN   ? EACCES
                                                            : EHOSTUNREACH,
                    0, false);
        break;
    case ICMP6_TOO_BIG:
        error_input(s, p, EMSGSIZE, get32(d + ICMP_REST), false);
        break;
    case ICMP6_TIME_EXCEEDED:
        error_input(s, p, EHOSTUNREACH, 0, false);
        break;
    case ICMP6_PARAM:
        error_input(s, p, EPROTO, 0, false);
        break;
    default:
        break;
    }
}

void icmp_error(struct stack *s, enum icmp_error what, const struct pbuf *p, const struct ip_meta *m)
{
    static const struct {
        uint8_t type4, code4, type6, code6;
    } messages[] = {
        [ICMP_NO_PORT] = {ICMP4_UNREACH, ICMP4_UNREACH_PORT, ICMP6_UNREACH, ICMP6_UNREACH_PORT},
        [ICMP_NO_PROTO] = {ICMP4_UNREACH, ICMP4_UNREACH_PROTO, ICMP6_PARAM, ICMP6_PARAM_NEXT},
        [ICMP_NO_HOST] = {ICMP4_UNREACH, ICMP4_UNREACH_HOST, ICMP6_UNREACH, ICMP6_UNREACH_ADDR},
        [ICMP_NO_ROUTE] = {ICMP4_UNREACH, ICMP4_UNREACH_NET, ICMP6_UNREACH, ICMP6_UNREACH_NOROUTE},
        [ICMP_PROHIBITED] = {ICMP4_UNREACH, ICMP4_UNREACH_ADMIN, ICMP6_UNREACH, ICMP6_UNREACH_ADMIN},
    };
    if (m->to_group || !addr_is_unicast(&m->src)) /* RFC 1122 3.2.2, RFC 4443 2.4(e) */
        return;
    if (s->now - s->icmp_refill >= SECOND) {
        s->icmp_refill = s->now;
        /* Not a fixed number, that would tell which ports of ours are open (CVE-2020-25705). */
        s->icmp_tokens = ERRORS_PER_SECOND / 2 + rng_below(&s->rng, ERRORS_PER_SECOND);
    }
    if (!s->icmp_tokens) {
        count(s, C_IcmpOutRateLimited);
        return;
    }
    s->icmp_tokens--;
    bool v4 = addr_is4(&m->dst);
    uint8_t head[ICMP_HLEN] = {v4 ? messages[what].type4 : messages[what].type6,
                               v4 ? messages[what].code4 : messages[what].code6};
    if (!v4 && what == ICMP_NO_PROTO)
        put32(head + ICMP_REST, m->proto_at); /* RFC 4443 3.4: points at what was not understood */
    /* As much of the packet as fits in the smallest MTU (RFC 1812 4.3.2.3, RFC 4443 2.4(c)). */
    uint32_t whole = p->off - m->ip_off + p->len, most = v4 ? 576 - IP4_HLEN - ICMP_HLEN : IP6_MIN_MTU - IP6_HLEN - ICMP_HLEN;
    icmp_send(s, &m->dst, &m->src, head, p->base + m->ip_off, whole < most ? whole : most);
}
