/* Neighbour discovery on the wire (RFC 4861): solicitations and advertisements of neighbours (7), and the door for
 * those of routers, whose meaning is router.c's. Redirects are ignored: whoever can send one could as well be the
 * router. */
#include "net/core/checksum.h"
#include "net/ip/neigh.h"
#include "net/core/wire.h"

#define ND_HOPS 255

static const struct addr nobody, all_nodes = {.b = {0xff, 2, [15] = 1}},
                         all_routers = {.b = {0xff, 2, [15] = 2}};

void nd_send(struct netif *nif, unsigned type, uint32_t flags, const struct addr *src, const struct addr *dst,
             const uint8_t *body, uint32_t body_len)
{
    struct stack *s = nif->stack;
    uint32_t len = ICMP_HLEN + body_len;
    struct pbuf *p = pbuf_alloc(&s->pool, PBUF_HEADROOM + ETH_HLEN + IP6_HLEN, len);
    if (!p)
        return;
    uint8_t *d = pbuf_data(p);
    p->len = len;
    memset(d, 0, ICMP_HLEN);
    d[ICMP_TYPE] = (uint8_t)type;
    put32(d + ICMP_REST, flags);
    memcpy(d + ICMP_HLEN, body, body_len);
    put16(d + ICMP_CSUM, csum_finish(csum_add(csum_pseudo(src, dst, PROTO_ICMP6, len), d, len)));
    count(s, C_IcmpOutMsgs);
    struct path path = {.nif = nif, .src = *src, .next = *dst, .mtu = nif->link->mtu};
    ip_output(s, &path, dst, PROTO_ICMP6, ND_HOPS, p);
}

/* With the target, and one option of 8 bytes: `option` 0 is none. */
static void send_target(struct netif *nif, unsigned type, uint32_t flags, const struct addr *src, const struct addr *dst,
                        const struct addr *target, unsigned option, const uint8_t value[6])
{
    uint8_t body[16 + 8];
    memcpy(body, target->b, 16);
    if (type == ICMP6_NA && nif->stack->config.flags & STACK_FORWARD6)
        flags |= ND_NA_ROUTER;
    body[16] = (uint8_t)option;
    body[17] = 1; /* in units of 8 bytes */
    memcpy(body + 18, value, 6);
    nd_send(nif, type, flags, src, dst, body, option ? sizeof body : 16);
}

void nd_solicit(struct netif *nif, const struct addr *target, const uint8_t *mac)
{
    struct addr group = addr_solicited_node(target);
    const struct addr *src = netif_source(nif, target);
    if (!src)
        return;
    /* RFC 4429 2.2: an address that may be somebody else's does not come with our link address. */
    bool ours = netif_find(nif, src)->state != ADDRESS_OPTIMISTIC;
    /* The unicast question is to someone whose entry is in PROBE, so it leaves without asking again. */
    send_target(nif, ICMP6_NS, 0, src, mac ? target : &group, target, ours ? ND_OPT_SLLA : 0, nif->link->mac);
}

void nd_probe(struct netif *nif, const struct addr *target, uint64_t nonce)
{
    struct addr group = addr_solicited_node(target);
    uint8_t value[6];
    put16(value, (unsigned)(nonce >> 32));
    put32(value + 2, (uint32_t)nonce);
    send_target(nif, ICMP6_NS, 0, &nobody, &group, target, ND_OPT_NONCE, value);
}

void nd_announce(struct netif *nif, const struct addr *own, bool override)
{
    send_target(nif, ICMP6_NA, override ? ND_NA_OVERRIDE : 0, own, override ? &all_nodes : &all_routers, own,
                ND_OPT_TLLA, nif->link->mac);
}

bool nd_options_ok(const uint8_t *d, uint32_t from, uint32_t len)
{
    for (uint32_t at = from; at < len; at += 8u * d[at + 1])
        if (len - at < 8 || d[at + 1] == 0 || 8u * d[at + 1] > len - at)
            return false;
    return true;
}

const uint8_t *nd_option(const uint8_t *d, uint32_t from, uint32_t len, unsigned type)
{
    for (uint32_t at = from; at < len; at += 8u * d[at + 1])
        if (d[at] == type)
            return d + at;
    return NULL;
}

/* 7.2.3, and RFC 4862 5.4.3 for an address that is not ours yet. */
static void solicited(struct netif *nif, const uint8_t *d, uint32_t len, const struct addr *src, const struct addr *target)
{
    struct netif_addr *a = netif_find(nif, target);
    const uint8_t *slla = nd_option(d, ND_OPTIONS, len, ND_OPT_SLLA);
    const uint8_t *nonce = nd_option(d, ND_OPTIONS, len, ND_OPT_NONCE);
    if (a && addr_is_any(src)) {
        if (nonce && ((uint64_t)get16(nonce + 2) << 32 | get32(nonce + 4)) == a->nonce)
            return; /* RFC 7527 4.1: our own question, come back */
        detect_conflict(nif, a, NULL, true);
        a = netif_find(nif, target);
    }
    if (!a || !address_usable(a))
        return;
    uint32_t override = a->state == ADDRESS_OPTIMISTIC ? 0 : ND_NA_OVERRIDE; /* RFC 4429 3.3 */
    if (addr_is_any(src)) { /* somebody checks whether the address is free: tell everybody (7.2.4) */
        send_target(nif, ICMP6_NA, override, target, &all_nodes, target, ND_OPT_TLLA, nif->link->mac);
        return;
    }
    if (slla)
        neigh_learn(nif, src, slla + 2, NEIGH_OVERRIDE | NEIGH_CREATE);
    send_target(nif, ICMP6_NA, ND_NA_SOLICITED | override, target, src, target, ND_OPT_TLLA, nif->link->mac);
}

/* 7.2.5, and RFC 4862 5.4.4. */
static void advertised(struct netif *nif, const uint8_t *d, uint32_t len, uint32_t flags, const struct addr *target)
{
    struct netif_addr *a = netif_find(nif, target);
    const uint8_t *tlla = nd_option(d, ND_OPTIONS, len, ND_OPT_TLLA);
    if (a) {
        detect_conflict(nif, a, tlla ? tlla + 2 : NULL, false);
        return;
    }
    neigh_learn(nif, target, tlla ? tlla + 2 : NULL,
                (flags & ND_NA_SOLICITED ? NEIGH_SOLICITED : 0) | (flags & ND_NA_OVERRIDE ? NEIGH_OVERRIDE : 0) |
                    (flags & ND_NA_ROUTER ? NEIGH_IS_ROUTER : NEIGH_NO_ROUTER));
}

/* 7.1.1, 7.1.2, 6.1.2 beyond what holds for all of them. */
static bool valid(const uint8_t *d, uint32_t len, const struct ip_meta *m)
{
    struct addr target;
    if (d[ICMP_TYPE] == ICMP6_RA)
        return addr_is_linklocal6(&m->src);
    target = addr_from(d + ND_TARGET);
    if (addr_is_multicast(&target))
        return false;
    if (d[ICMP_TYPE] == ICMP6_NA)
        return !addr_is_multicast(&m->dst) || !(get32(d + ICMP_REST) & ND_NA_SOLICITED);
    /* Who has no address yet names none, and asks the group. */
    struct addr group = addr_solicited_node(&target);
    return !addr_is_any(&m->src) || (addr_eq(&m->dst, &group) && !nd_option(d, ND_OPTIONS, len, ND_OPT_SLLA));
}

void nd_input(struct stack *s, struct pbuf *p, const struct ip_meta *m)
{
    const uint8_t *d = pbuf_data(p);
    uint32_t options = d[ICMP_TYPE] == ICMP6_RA ? RA_OPTIONS : ND_OPTIONS;
    /* The hop limit shows that it was not forwarded. */
    if (p->base[m->ip_off + IP6_HOPS] != ND_HOPS || d[ICMP_CODE] != 0 || p->len < options ||
        !nd_options_ok(d, options, p->len) || !valid(d, p->len, m)) {
        count(s, C_IcmpInErrors);
        return;
    }
    if (d[ICMP_TYPE] == ICMP6_RA) {
        router_input(m->nif, d, p->len, &m->src);
        return;
    }
    struct addr target = addr_from(d + ND_TARGET);
    if (d[ICMP_TYPE] == ICMP6_NS)
        solicited(m->nif, d, p->len, &m->src, &target);
    else
        advertised(m->nif, d, p->len, get32(d + ICMP_REST), &target);
}
