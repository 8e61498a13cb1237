/* Routes of a stack: which way a packet goes, by the longest prefix, of those the lowest metric.
 *
 * The host model is the weak one of RFC 1122 3.3.4.2, as Linux has it: a packet to any address of ours is ours,
 * whichever link it came by, and what is sent goes by the route to its destination, whatever its source. A link-local
 * address is the exception: it is ours, and reached, on its own link alone. */
#include <errno.h>
#include <string.h>

#include "net/stack.h"
#include "net/core/wire.h"

/* A packet to dst leaves by nif, through the gateway where there is one. */
static void go_by(struct path *path, struct netif *nif, const struct addr *from, const struct addr *dst,
                  const struct addr *gateway)
{
    path->nif = nif;
    path->src = addr_in_zone(*from, (uint32_t)nif->index);
    path->next = gateway && addr_is_unicast(dst) ? *gateway : *dst; /* a group is on the link, whatever the route says */
    path->mtu = netif_mtu(nif, addr_is4(dst));
}

static bool find(struct stack *s, const struct addr *dst, const struct addr *src, uint32_t ifindex, struct path *path)
{
    bool given = src && !addr_is_any(src);
    path->tos = 0;
    path->fragment = FRAGMENT_NEVER;
    if (addr_is_loopback(dst) || stack_is_local(s, dst)) {
        path->nif = &s->netifs[0];
        path->src = given ? *src : *dst;
        path->next = *dst;
        path->mtu = netif_mtu(path->nif, addr_is4(dst));
        return true;
    }
    if (!ifindex)
        ifindex = dst->zone;
    for (unsigned i = 0; i < s->nroutes; i++) {
        const struct route *r = &s->routes[i];
        if (addr_is4(&r->dest) != addr_is4(dst) || !addr_match(&r->dest, dst, r->bits) ||
            (ifindex && r->nif->index != (int)ifindex))
            continue;
        const struct addr *from = given ? src : !addr_is_any(&r->source) ? &r->source : netif_source(r->nif, dst);
        if (!from)
            continue;
        go_by(path, r->nif, from, dst, r->on_link ? NULL : &r->gateway);
        if (r->mtu && r->mtu < path->mtu)
            path->mtu = r->mtu;
        return true;
    }
    /* No route, but on the link in any case; a group goes by the first interface, if none is named. */
    bool group = addr_is_multicast(dst), on_link = group || addr_is_linklocal6(dst) || addr_is_broadcast(dst);
    struct netif *nif = on_link ? netif_of(s, ifindex ? (int)ifindex : group ? 2 : 0) : NULL;
    const struct addr *from = !nif ? NULL : given ? src : netif_source(nif, dst);
    if (!from && nif && ifindex && src && addr_is4(dst)) /* without an address: that is how one asks for it (RFC 2131 4.1) */
        from = src;
    if (from) {
        go_by(path, nif, from, dst, NULL);
        return true;
    }
    return false;
}

bool route_find_on(struct stack *s, const struct addr *dst, const struct addr *src, uint32_t ifindex, struct path *path)
{
    bool found = find(s, dst, src, ifindex, path);
    if (!found)
        count(s, addr_is4(dst) ? C_IpOutNoRoutes : C_Ip6OutNoRoutes);
    return found;
}

bool route_onward(struct stack *s, const struct addr *src, const struct addr *dst, struct path *path)
{
    return find(s, dst, src, 0, path);
}

static int insert(struct stack *s, const struct route *r)
{
    if (s->nroutes == ROUTES_MAX)
        return -ENOBUFS;
    unsigned at = s->nroutes++;
    for (; at && (s->routes[at - 1].bits < r->bits ||
                  (s->routes[at - 1].bits == r->bits && s->routes[at - 1].metric > r->metric));
         at--)
        s->routes[at] = s->routes[at - 1];
    s->routes[at] = *r;
    return 0;
}

int route_add(struct netif *nif, const struct addr *dest, unsigned bits, const struct addr *gateway)
{
    struct route r = {.dest = *dest, .bits = (uint8_t)bits, .on_link = !gateway, .nif = nif};
    if (gateway)
        r.gateway = *gateway;
    return insert(nif->stack, &r);
}

void route_drop(struct stack *s, unsigned i)
{
    memmove(&s->routes[i], &s->routes[i + 1], (--s->nroutes - i) * sizeof *s->routes);
}

int route_remove(struct netif *nif, const struct addr *dest, unsigned bits, const struct addr *gateway)
{
    struct stack *s = nif->stack;
    for (unsigned i = 0; i < s->nroutes; i++) {
        struct route *r = &s->routes[i];
        if (r->nif != nif || r->bits != bits || !addr_match(&r->dest, dest, bits) || r->on_link != !gateway ||
            (gateway && !addr_eq(&r->gateway, gateway)))
            continue;
        route_drop(s, i);
        return 0;
    }
    return -ESRCH;
}

/* A route's destination and interface, as they come from Python. */
static int checked(struct stack *s, int ifindex, const uint8_t *dest, unsigned prefix, struct netif **nif, unsigned *bits)
{
    struct addr a = addr_from(dest);
    if (!(*nif = netif_of(s, ifindex)))
        return -ENODEV;
    if (prefix > (addr_is4(&a) ? 32 : 128))
        return -EINVAL;
    *bits = addr_is4(&a) ? prefix + 96 : prefix;
    return 0;
}

int stack_add_route(struct stack *s, int ifindex, const uint8_t *dest, unsigned prefix, const uint8_t *gateway)
{
    struct netif *nif;
    unsigned bits;
    struct addr to = addr_from(dest), via = gateway ? addr_from(gateway) : to;
    int rc = checked(s, ifindex, dest, prefix, &nif, &bits);
    return rc < 0 ? rc : route_add(nif, &to, bits, gateway ? &via : NULL);
}

int stack_remove_route(struct stack *s, int ifindex, const uint8_t *dest, unsigned prefix, const uint8_t *gateway)
{
    struct netif *nif;
    unsigned bits;
    struct addr to = addr_from(dest), via = gateway ? addr_from(gateway) : to;
    int rc = checked(s, ifindex, dest, prefix, &nif, &bits);
    return rc < 0 ? rc : route_remove(nif, &to, bits, gateway ? &via : NULL);
}

/* As api.h has it, checked. */
static int route_from(struct stack *s, const struct stack_route *from, struct route *r)
{
    *r = (struct route){.dest = addr_from(from->dest), .gateway = addr_from(from->gateway),
                        .source = addr_from(from->source), .metric = from->metric, .mtu = from->mtu};
    unsigned bits;
    int rc = checked(s, from->ifindex, from->dest, from->prefix, &r->nif, &bits);
    if (rc < 0)
        return rc;
    r->bits = (uint8_t)bits;
    r->on_link = addr_is_any(&r->gateway);
    bool v4 = addr_is4(&r->dest);
    if ((!r->on_link && (addr_is4(&r->gateway) != v4 || !addr_is_unicast(&r->gateway))) ||
        (!addr_is_any(&r->source) && (addr_is4(&r->source) != v4 || !netif_has(r->nif, &r->source))) ||
        (r->mtu && r->mtu < (v4 ? IP4_MIN_MTU : IP6_MIN_MTU)))
        return -EINVAL;
    return 0;
}

static bool is_same(const struct route *a, const struct route *b)
{
    return a->bits == b->bits && a->metric == b->metric && a->nif == b->nif &&
           addr_is4(&a->dest) == addr_is4(&b->dest) && addr_match(&a->dest, &b->dest, a->bits);
}

int stack_set_route(struct stack *s, const struct stack_route *route)
{
    struct route r;
    int rc = route_from(s, route, &r);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < s->nroutes; i++)
        if (is_same(&s->routes[i], &r)) {
            s->routes[i] = r;
            return 0;
        }
    return insert(s, &r);
}

int stack_delete_route(struct stack *s, const struct stack_route *route)
{
    struct route r;
    int rc = route_from(s, route, &r);
    for (unsigned i = 0; rc == 0 && i < s->nroutes; i++)
        if (is_same(&s->routes[i], &r) && (r.on_link || addr_eq(&s->routes[i].gateway, &r.gateway))) {
            route_drop(s, i);
            return 0;
        }
    return rc < 0 ? rc : -ESRCH;
}

int stack_next_route(struct stack *s, uint64_t *cursor, struct stack_route *out)
{
    if (*cursor >= s->nroutes)
        return 0;
    const struct route *r = &s->routes[(*cursor)++];
    *out = (struct stack_route){.ifindex = r->nif->index, .metric = r->metric, .mtu = r->mtu,
                                .prefix = (uint8_t)(addr_is4(&r->dest) ? r->bits - 96 : r->bits)};
    struct addr net = r->dest;
    addr_truncate(&net, r->bits);
    memcpy(out->dest, net.b, 16);
    if (!r->on_link)
        memcpy(out->gateway, r->gateway.b, 16);
    memcpy(out->source, r->source.b, 16);
    return 1;
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
