/* ICMP errors going out (RFC 1122 3.2.2, RFC 1812 4.3.2, RFC 4443 2.4): which may be sent, and how many.
 *
 * Two limits, both counted. Each destination has a bucket of tokens, so that one flood does not use up what others
 * need; destinations share buckets by a keyed hash, so that there is nothing to fill up. And the stack has so many a
 * second for all, a random number: a fixed one would tell which ports of ours are open (CVE-2020-25705). */
#include "net/ip/icmp.h"

#define ERRORS_PER_SECOND 100
#define BUCKET_MAX 20              /* errors to one destination at once */
#define TOKEN_TIME (100ull * MSEC) /* and one more each */

static bool within_limits(struct stack *s, enum icmp_error what, const struct addr *dst)
{
    uint64_t words[2];
    memcpy(words, dst->b, 16);
    struct icmp_bucket *b = &s->icmp_buckets[siphash(s->key, words, 2) % ICMP_BUCKETS];
    uint64_t earned = (s->now - b->since) / TOKEN_TIME;
    if (earned) {
        b->used = earned < b->used ? (uint32_t)(b->used - earned) : 0;
        b->since += earned * TOKEN_TIME;
    }
    if (s->now - s->icmp_refill >= SECOND) {
        s->icmp_refill = s->now;
        s->icmp_tokens = ERRORS_PER_SECOND / 2 + rng_below(&s->rng, ERRORS_PER_SECOND);
    }
    if (b->used >= BUCKET_MAX) {
        count(s, C_IcmpOutRateLimitHost);
        return false;
    }
    if (what == ICMP_TOO_BIG) { /* it says nothing of ports, and without it every path of a router's would stall */
        b->used++;
        return true;
    }
    if (!s->icmp_tokens) {
        count(s, C_IcmpOutRateLimitGlobal);
        return false;
    }
    b->used++;
    s->icmp_tokens--;
    return true;
}

void icmp_error(struct stack *s, enum icmp_error what, const struct pbuf *p, const struct ip_meta *m)
{
    static const struct {
        uint8_t type4, code4, type6, code6;
        bool points; /* IPv6: m->pointer is told */
    } messages[] = {
        [ICMP_NO_PORT] = {ICMP4_UNREACH, ICMP4_UNREACH_PORT, ICMP6_UNREACH, ICMP6_UNREACH_PORT, false},
        [ICMP_NO_PROTO] = {ICMP4_UNREACH, ICMP4_UNREACH_PROTO, ICMP6_PARAM, ICMP6_PARAM_NEXT, true},
        [ICMP_NO_HOST] = {ICMP4_UNREACH, ICMP4_UNREACH_HOST, ICMP6_UNREACH, ICMP6_UNREACH_ADDR, false},
        [ICMP_NO_ROUTE] = {ICMP4_UNREACH, ICMP4_UNREACH_NET, ICMP6_UNREACH, ICMP6_UNREACH_NOROUTE, false},
        [ICMP_PROHIBITED] = {ICMP4_UNREACH, ICMP4_UNREACH_ADMIN, ICMP6_UNREACH, ICMP6_UNREACH_ADMIN, false},
        [ICMP_REASM_TIME] = {ICMP4_TIME_EXCEEDED, ICMP4_REASM_TIME, ICMP6_TIME_EXCEEDED, ICMP6_REASM_TIME, false},
        [ICMP_BAD_FIELD] = {ICMP4_PARAM, 0, ICMP6_PARAM, ICMP6_PARAM_FIELD, true},
        [ICMP_BAD_OPTION] = {ICMP4_PARAM, 0, ICMP6_PARAM, ICMP6_PARAM_OPTION, true},
        [ICMP_BAD_OPTION_TO_ANY] = {ICMP4_PARAM, 0, ICMP6_PARAM, ICMP6_PARAM_OPTION, true},
        [ICMP_HIDDEN_HEADERS] = {ICMP4_PARAM, 0, ICMP6_PARAM, ICMP6_PARAM_CHAIN, true},
        [ICMP_HOPS] = {ICMP4_TIME_EXCEEDED, ICMP4_HOPS, ICMP6_TIME_EXCEEDED, ICMP6_HOPS, false},
        [ICMP_TOO_BIG] = {ICMP4_UNREACH, ICMP4_UNREACH_FRAG, ICMP6_TOO_BIG, 0, false},
        [ICMP_BEYOND_SCOPE] = {ICMP4_UNREACH, ICMP4_UNREACH_HOST, ICMP6_UNREACH, ICMP6_UNREACH_SCOPE, false},
    };
    /* RFC 1122 3.2.2, RFC 4443 2.4 (e): not about what went to many, nor to who cannot be one; with one exception. */
    if ((m->to_group && what != ICMP_BAD_OPTION_TO_ANY) || !addr_is_unicast(&m->src) || !within_limits(s, what, &m->src))
        return;
    bool v4 = addr_is4(&m->dst);
    uint8_t head[ICMP_HLEN] = {v4 ? messages[what].type4 : messages[what].type6,
                               v4 ? messages[what].code4 : messages[what].code6};
    if (!v4 && messages[what].points)
        put32(head + ICMP_REST, m->pointer);
    if (what == ICMP_TOO_BIG)
        put32(head + ICMP_REST, m->mtu); /* RFC 1191 4: the upper half is unused, and 0 */
    /* As much of the packet as fits in the smallest MTU (RFC 1812 4.3.2.3, RFC 4443 2.4(c)). */
    uint32_t whole = p->off - m->ip_off + p->len;
    uint32_t most = v4 ? 576 - IP4_HLEN - ICMP_HLEN : IP6_MIN_MTU - IP6_HLEN - ICMP_HLEN;
    struct addr any = {.zone = 0}; /* RFC 1812 4.3.2.4: an address of ours on the link that it leaves by */
    icmp_send(s, m->to_group || m->forwarded ? &any : &m->dst, &m->src, head, p->base + m->ip_off, whole < most ? whole : most);
}
