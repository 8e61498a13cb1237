/* Redirects (RFC 792, RFC 1122 3.2.2.2, RFC 4861 8): a router says that another one is nearer to a destination.
 *
 * Whoever is on the link could say so, and take the traffic over; so they are counted and ignored, unless the stack was
 * made with STACK_ACCEPT_REDIRECTS. Then one is believed if it comes from the router that is used for that destination
 * now, and names a neighbour. It becomes a route to that host; of those a stack has REDIRECTS_MAX, the oldest gives
 * way. When the new way turns out to be dead, its routes go. */
#include "net/ip/icmp.h"
#include "net/ip/neigh.h"

#define REDIRECTS_MAX 16
#define REDIRECT6_TARGET 8
#define REDIRECT6_DEST 24
#define REDIRECT6_LEN 40

static bool is_on_link(const struct netif *nif, const struct addr *a)
{
    for (unsigned i = 0; i < nif->naddrs; i++)
        if (addr_is4(&nif->addrs[i].addr) && addr_match(&nif->addrs[i].addr, a, nif->addrs[i].bits))
            return true;
    return false;
}

/* RFC 4861 8.1: false if any of its conditions is not met; RFC 1122 3.2.2.2 for IPv4. */
static bool parse(const struct pbuf *p, const struct ip_meta *m, struct addr *dst, struct addr *target)
{
    const uint8_t *d = pbuf_data(p), *ip = p->base + m->ip_off;
    if (addr_is4(&m->src)) {
        if (p->len < ICMP_HLEN + IP4_HLEN || d[ICMP_CODE] > 3)
            return false;
        *target = addr_from4(d + ICMP_REST);
        *dst = addr_from4(d + ICMP_HLEN + IP4_DST);
        return is_on_link(m->nif, target) && addr_is_unicast(dst);
    }
    if (p->len < REDIRECT6_LEN || d[ICMP_CODE] != 0 || ip[IP6_HOPS] != 255 || !addr_is_linklocal6(&m->src))
        return false;
    *target = addr_from(d + REDIRECT6_TARGET);
    *dst = addr_from(d + REDIRECT6_DEST);
    return addr_is_unicast(dst) && (addr_is_linklocal6(target) || addr_eq(target, dst));
}

/* Make room for one more, and for this destination anew. */
static void make_room(struct stack *s, const struct addr *dst)
{
    unsigned n = 0, oldest = 0;
    for (unsigned i = s->nroutes; i-- > 0;) {
        if (!s->routes[i].redirected)
            continue;
        if (addr_eq(&s->routes[i].dest, dst)) {
            route_drop(s, i);
            return;
        }
        oldest = i; /* in the table the oldest of equal prefixes comes first */
        n++;
    }
    if (n >= REDIRECTS_MAX)
        route_drop(s, oldest);
}

/* RFC 4861 8.1, RFC 1812 5.2.7.2: routers have their ways from elsewhere. */
static bool believes(const struct stack *s, bool v4)
{
    return s->config.flags & STACK_ACCEPT_REDIRECTS && !(s->config.flags & (v4 ? STACK_FORWARD4 : STACK_FORWARD6));
}

void redirect_input(struct stack *s, const struct pbuf *p, const struct ip_meta *m)
{
    struct addr dst, target;
    struct path path;
    count(s, C_IcmpInRedirects);
    if (!believes(s, addr_is4(&m->dst)) || m->to_group)
        return;
    if (m->fragmented || !parse(p, m, &dst, &target) || netif_has(m->nif, &target) || stack_is_local(s, &dst)) {
        count(s, C_IcmpInErrors);
        return;
    }
    dst = addr_in_zone(dst, (uint32_t)m->nif->index);
    if (!route_find(s, &dst, NULL, &path) || path.nif != m->nif || !addr_eq(&path.next, &m->src))
        return; /* not from whom we send by */
    make_room(s, &dst);
    if (route_add(m->nif, &dst, 128, addr_eq(&target, &dst) ? NULL : &target) == 0)
        for (unsigned i = 0; i < s->nroutes; i++)
            if (s->routes[i].bits == 128 && s->routes[i].nif == m->nif && addr_eq(&s->routes[i].dest, &dst))
                s->routes[i].redirected = true;
}

void redirect_forget(struct netif *nif, const struct addr *gateway)
{
    struct stack *s = nif->stack;
    for (unsigned i = s->nroutes; i-- > 0;) {
        const struct route *r = &s->routes[i];
        if (r->redirected && r->nif == nif && addr_eq(r->on_link ? &r->dest : &r->gateway, gateway))
            route_drop(s, i);
    }
}
