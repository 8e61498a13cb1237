/* Neighbour discovery, the part that finds link addresses (RFC 4861 7): solicitations and advertisements. Router discovery
 * and address configuration are not here yet. */
#include "net/core/checksum.h"
#include "net/ip/neigh.h"
#include "net/core/wire.h"

#define ND_HOPS 255

static void nd_send(struct netif *nif, unsigned type, uint32_t flags, const struct addr *src, const struct addr *dst,
                    const struct addr *target, unsigned option)
{
    struct stack *s = nif->stack;
    unsigned len = ND_OPTIONS + 8;
    struct pbuf *p = pbuf_alloc(&s->pool, PBUF_HEADROOM + ETH_HLEN + IP6_HLEN, len);
    if (!p)
        return;
    uint8_t *d = pbuf_data(p);
    p->len = len;
    memset(d, 0, len);
    d[ICMP_TYPE] = (uint8_t)type;
    put32(d + ICMP_REST, flags);
    memcpy(d + ND_TARGET, target->b, 16);
    d[ND_OPTIONS] = (uint8_t)option;
    d[ND_OPTIONS + 1] = 1; /* in units of 8 bytes */
    memcpy(d + ND_OPTIONS + 2, nif->link->mac, 6);
    put16(d + ICMP_CSUM, csum_finish(csum_add(csum_pseudo(src, dst, PROTO_ICMP6, len), d, len)));
    count(s, C_IcmpOutMsgs);
    struct path path = {.nif = nif, .src = *src, .next = *dst, .mtu = nif->link->mtu};
    ip_output(s, &path, dst, PROTO_ICMP6, ND_HOPS, p);
}

void nd_solicit(struct netif *nif, const struct addr *target, const uint8_t *mac)
{
    struct addr group = addr_solicited_node(target);
    struct path path;
    /* The unicast question is to someone whose entry is in PROBE, so it leaves without asking again. */
    if (route_find(nif->stack, target, NULL, &path) && path.nif == nif)
        nd_send(nif, ICMP6_NS, 0, &path.src, mac ? target : &group, target, ND_OPT_SLLA);
}

/* The link address in option `type`, or NULL. False: the options are malformed. */
static bool nd_option(const uint8_t *d, uint32_t len, unsigned type, const uint8_t **mac)
{
    *mac = NULL;
    for (uint32_t at = ND_OPTIONS; at < len; at += 8u * d[at + 1]) {
        if (len - at < 8 || d[at + 1] == 0 || 8u * d[at + 1] > len - at)
            return false;
        if (d[at] == type)
            *mac = d + at + 2;
    }
    return true;
}

void nd_input(struct stack *s, struct pbuf *p, const struct ip_meta *m)
{
    const uint8_t *d = pbuf_data(p), *mac;
    bool solicitation = d[ICMP_TYPE] == ICMP6_NS;
    /* RFC 4861 7.1: the hop limit shows that it was not forwarded. */
    if (p->base[m->ip_off + IP6_HOPS] != ND_HOPS || d[ICMP_CODE] != 0 || p->len < ND_OPTIONS ||
        !nd_option(d, p->len, solicitation ? ND_OPT_SLLA : ND_OPT_TLLA, &mac)) {
        count(s, C_IcmpInErrors);
        return;
    }
    struct addr target = addr_from(d + ND_TARGET), group = addr_solicited_node(&target);
    uint32_t flags = get32(d + ICMP_REST);
    /* 7.1.1: who has no address yet names none, and asks the group; 7.1.2: an answer to all answers nobody's
     * question. */
    bool valid = solicitation ? !addr_is_any(&m->src) || (addr_eq(&m->dst, &group) && !mac)
                              : !addr_is_multicast(&m->dst) || !(flags & ND_NA_SOLICITED);
    if (addr_is_multicast(&target) || !valid) {
        count(s, C_IcmpInErrors);
        return;
    }
    if (!solicitation) {
        if (mac && !netif_has(m->nif, &target))
            neigh_learn(m->nif, &target, mac, flags & ND_NA_SOLICITED, flags & ND_NA_OVERRIDE, false);
        return;
    }
    if (!netif_has(m->nif, &target))
        return;
    if (addr_is_any(&m->src)) { /* somebody checks whether the address is free: tell everybody (7.2.4) */
        struct addr all_nodes = {{0xff, 2, [15] = 1}};
        nd_send(m->nif, ICMP6_NA, ND_NA_OVERRIDE, &target, &all_nodes, &target, ND_OPT_TLLA);
        return;
    }
    if (mac)
        neigh_learn(m->nif, &m->src, mac, false, true, true);
    nd_send(m->nif, ICMP6_NA, ND_NA_SOLICITED | ND_NA_OVERRIDE, &target, &m->src, &target, ND_OPT_TLLA);
}
