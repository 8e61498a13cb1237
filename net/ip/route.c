/* Routes of a stack: which way a packet goes (longest prefix first). */
#include <errno.h>
#include <string.h>

#include "net/stack.h"
#include "net/core/wire.h"

bool route_find(struct stack *s, const struct addr *dst, const struct addr *src, struct path *path)
{
    path->tos = 0;
    if (addr_is_loopback(dst) || stack_is_local(s, dst)) {
        path->nif = &s->netifs[0];
        path->src = src && !addr_is_any(src) ? *src : *dst;
        path->next = *dst;
        return true;
    }
    for (unsigned i = 0; i < s->nroutes; i++) {
        const struct route *r = &s->routes[i];
        if (addr_is4(&r->dest) != addr_is4(dst) || !addr_match(&r->dest, dst, r->bits))
            continue;
        const struct addr *from = src && !addr_is_any(src) ? src : netif_source(r->nif, dst);
        if (!from)
            continue;
        path->nif = r->nif;
        path->src = *from;
        /* A group is on the link, whatever the route to it says. */
        path->next = r->on_link || !addr_is_unicast(dst) ? *dst : r->gateway;
        return true;
    }
    count(s, addr_is4(dst) ? C_IpOutNoRoutes : C_Ip6OutNoRoutes);
    return false;
}

int route_add(struct netif *nif, const struct addr *dest, unsigned bits, const struct addr *gateway)
{
    struct stack *s = nif->stack;
    struct route r = {.dest = *dest, .bits = (uint8_t)bits, .on_link = !gateway, .nif = nif};
    if (gateway)
        r.gateway = *gateway;
    if (s->nroutes == ROUTES_MAX)
        return -ENOBUFS;
    unsigned at = s->nroutes++;
    for (; at && s->routes[at - 1].bits < r.bits; at--)
        s->routes[at] = s->routes[at - 1];
    s->routes[at] = r;
    return 0;
}

int route_remove(struct netif *nif, const struct addr *dest, unsigned bits, const struct addr *gateway)
{
    struct stack *s = nif->stack;
    for (unsigned i = 0; i < s->nroutes; i++) {
        struct route *r = &s->routes[i];
        if (r->nif != nif || r->bits != bits || !addr_match(&r->dest, dest, bits) || r->on_link != !gateway ||
            (gateway && !addr_eq(&r->gateway, gateway)))
            continue;
        memmove(r, r + 1, (--s->nroutes - i) * sizeof *r);
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

int stack_source(struct stack *s, const uint8_t *dest, uint8_t *source)
{
    struct addr dst = addr_from(dest);
    struct path path;
    if (!route_find(s, &dst, NULL, &path))
        return -ENETUNREACH;
    memcpy(source, path.src.b, 16);
    return 0;
}

int stack_next_route(struct stack *s, uint64_t *cursor, struct stack_route *out)
{
    if (*cursor >= s->nroutes)
        return 0;
    const struct route *r = &s->routes[(*cursor)++];
    *out = (struct stack_route){.ifindex = r->nif->index, .prefix = r->bits};
    memcpy(out->dest, r->dest.b, 16);
    if (!r->on_link)
        memcpy(out->gateway, r->gateway.b, 16);
    return 1;
}
