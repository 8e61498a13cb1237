/* Addresses and routes of a stack: which are ours, and which way a packet goes (longest prefix first). */
#include <errno.h>

#include "net/stack.h"
#include "net/core/wire.h"

bool netif_has(const struct netif *nif, const struct addr *a)
{
    for (unsigned i = 0; i < nif->naddrs; i++)
        if (addr_eq(&nif->addrs[i].addr, a))
            return true;
    return false;
}

bool netif_is_broadcast(const struct netif *nif, const struct addr *a)
{
    if (!addr_is4(a) || addr_is_broadcast(a))
        return addr_is4(a);
    for (unsigned i = 0; i < nif->naddrs; i++) {
        const struct addr *own = &nif->addrs[i].addr;
        unsigned bits = nif->addrs[i].bits;
        if (!addr_is4(own) || bits >= 127) /* a network of one or two addresses has none (RFC 3021) */
            continue;
        uint32_t host = 0xffffffffu >> (bits - 96);
        if (addr_match(own, a, bits) && (get32(addr_v4(a)) & host) == host)
            return true;
    }
    return false;
}

bool stack_is_local(const struct stack *s, const struct addr *a)
{
    for (unsigned i = 0; i < s->nnetifs; i++)
        if (netif_has(&s->netifs[i], a))
            return true;
    return false;
}

/* A source for dst: of the same family and scope, best the one in dst's own network (RFC 6724 5, rules 2 and 8). */
static const struct addr *source_for(const struct netif *nif, const struct addr *dst)
{
    const struct addr *best = NULL;
    int best_score = -1;
    for (unsigned i = 0; i < nif->naddrs; i++) {
        const struct addr *a = &nif->addrs[i].addr;
        if (addr_is4(a) != addr_is4(dst))
            continue;
        bool local_dst = addr_is_linklocal6(dst) || (dst->b[0] == 0xff && (dst->b[1] & 0xf) == 2);
        int score = 2 * (addr_is_linklocal6(a) == local_dst) + addr_match(a, dst, nif->addrs[i].bits);
        if (score > best_score) {
            best = a;
            best_score = score;
        }
    }
    return best;
}

bool route_find(struct stack *s, const struct addr *dst, const struct addr *src, struct path *path)
{
    path->tos = 0;
    path->fragment = FRAGMENT_NEVER;
    if (addr_is_loopback(dst) || stack_is_local(s, dst)) {
        path->nif = &s->netifs[0];
        path->src = src && !addr_is_any(src) ? *src : *dst;
        path->next = *dst;
        path->mtu = path->nif->link->mtu;
        return true;
    }
    for (unsigned i = 0; i < s->nroutes; i++) {
        const struct route *r = &s->routes[i];
        if (addr_is4(&r->dest) != addr_is4(dst) || !addr_match(&r->dest, dst, r->bits))
            continue;
        const struct addr *from = src && !addr_is_any(src) ? src : source_for(r->nif, dst);
        if (!from)
            continue;
        path->nif = r->nif;
        path->mtu = r->nif->link->mtu;
        path->src = *from;
        /* A group is on the link, whatever the route to it says. */
        path->next = r->on_link || !addr_is_unicast(dst) ? *dst : r->gateway;
        return true;
    }
    count(s, addr_is4(dst) ? C_IpOutNoRoutes : C_Ip6OutNoRoutes);
    return false;
}

int stack_add_route(struct stack *s, int ifindex, const uint8_t *dest, unsigned prefix, const uint8_t *gateway)
{
    if (ifindex < 1 || (unsigned)ifindex > s->nnetifs)
        return -ENODEV;
    struct route r = {.dest = addr_from(dest), .on_link = !gateway, .nif = &s->netifs[ifindex - 1]};
    if (prefix > (addr_is4(&r.dest) ? 32 : 128))
        return -EINVAL;
    r.bits = (uint8_t)(addr_is4(&r.dest) ? prefix + 96 : prefix);
    if (gateway)
        r.gateway = addr_from(gateway);
    if (s->nroutes == ROUTES_MAX)
        return -ENOBUFS;
    unsigned at = s->nroutes++;
    for (; at && s->routes[at - 1].bits < r.bits; at--)
        s->routes[at] = s->routes[at - 1];
    s->routes[at] = r;
    return 0;
}

int stack_add_address(struct stack *s, int ifindex, const uint8_t *addr, unsigned prefix)
{
    if (ifindex < 1 || (unsigned)ifindex > s->nnetifs)
        return -ENODEV;
    struct netif *nif = &s->netifs[ifindex - 1];
    struct addr a = addr_from(addr);
    if (!addr_is_unicast(&a) || prefix > (addr_is4(&a) ? 32 : 128))
        return -EINVAL;
    if (netif_has(nif, &a))
        return -EEXIST;
    if (nif->naddrs == NETIF_ADDRS_MAX)
        return -ENOBUFS;
    int rc = stack_add_route(s, ifindex, addr, prefix, NULL);
    if (rc < 0)
        return rc;
    nif->addrs[nif->naddrs].addr = a;
    nif->addrs[nif->naddrs++].bits = (uint8_t)(addr_is4(&a) ? prefix + 96 : prefix);
    return 0;
}

int stack_source(struct stack *s, const uint8_t *dest, uint8_t *source)
{
    struct addr dst = addr_from(dest);
    struct path path;
    if (!route_find(s, &dst, NULL, &path))
        return -ENETUNREACH;
    memcpy(source, path.src.b, 16);
    return 0;
}
