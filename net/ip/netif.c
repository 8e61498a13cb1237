/* Addresses of an interface: adding, finding, choosing, ageing, removing. See netif.h. */
#include "net/ip/netif.h"

#include <errno.h>

#include "net/ip/group.h"
#include "net/ip/neigh.h"
#include "net/core/wire.h"
#include "net/sock.h"
#include "net/stack.h"

static uint64_t age(struct netif *nif);

static void run(struct timer *t, void *stack, uint64_t now)
{
    struct netif *nif = (struct netif *)t;
    (void)stack;
    (void)now;
    uint64_t due = detect_run(nif), other = age(nif);
    if (other < due)
        due = other;
    other = router_run(nif);
    netif_wake(nif, other < due ? other : due);
}

void netif_init(struct netif *nif, struct stack *s, struct link *l, int index)
{
    *nif = (struct netif){.stack = s, .link = l, .index = index, .pace = SECOND, .hop_limit = HOPS_DEFAULT,
                          .mtu4 = l->mtu, .mtu6 = l->mtu};
    nif->reachable_time = NEIGH_REACHABLE_TIME;
    nif->retrans_time = NEIGH_RETRANS_TIME;
    timer_init(&nif->timer, run);
}

/* All timers go with their heap. */
void netif_free(struct netif *nif)
{
    router_free(nif);
    groups_free(nif);
}

void netif_wake(struct netif *nif, uint64_t due)
{
    if (due != REACTOR_NEVER)
        timer_at(&nif->stack->timers, &nif->timer, due);
}

void netif_changed(struct netif *nif) { nif->stack->changed = true; }

/* --- finding --- */

struct netif_addr *netif_find(struct netif *nif, const struct addr *a)
{
    for (unsigned i = 0; i < nif->naddrs; i++)
        if (addr_eq(&nif->addrs[i].addr, a))
            return &nif->addrs[i];
    return NULL;
}

bool netif_has(const struct netif *nif, const struct addr *a)
{
    for (unsigned i = 0; i < nif->naddrs; i++)
        if (addr_eq(&nif->addrs[i].addr, a))
            return address_usable(&nif->addrs[i]);
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
        if ((!a->zone || a->zone == i + 1) && netif_has(&s->netifs[i], a))
            return true;
    return false;
}

bool stack_owns(const struct stack *s, const struct addr *a)
{
    for (unsigned i = 0; i < s->nnetifs; i++)
        for (unsigned j = 0; j < s->netifs[i].naddrs; j++)
            if (addr_eq(&s->netifs[i].addrs[j].addr, a))
                return address_usable(&s->netifs[i].addrs[j]) && s->netifs[i].addrs[j].state != ADDRESS_OPTIMISTIC;
    return false;
}

static bool is_unique_local(const struct addr *a) { return (a->b[0] & 0xfe) == 0xfc; }

/* RFC 6724 5, as one number: rule 2 (scope), rule 3 (not deprecated; RFC 4429 3.1: nor optimistic), rule 6 (label, of
 * which unique-local is the one that matters), rule 8 (longest match). */
static unsigned score(const struct netif_addr *a, const struct addr *dst)
{
    bool local = addr_is_linklocal6(dst) || (dst->b[0] == 0xff && (dst->b[1] & 0xf) == 2);
    unsigned match = addr_common_bits(&a->addr, dst);
    if (match > a->bits)
        match = a->bits;
    return (unsigned)(addr_is_linklocal6(&a->addr) == local) << 12 | (unsigned)(a->state == ADDRESS_PREFERRED) << 11 |
           (unsigned)(is_unique_local(&a->addr) == is_unique_local(dst)) << 10 | match;
}

const struct addr *netif_source(const struct netif *nif, const struct addr *dst)
{
    const struct addr *best = NULL;
    unsigned best_score = 0;
    for (unsigned i = 0; i < nif->naddrs; i++) {
        const struct netif_addr *a = &nif->addrs[i];
        if (!address_usable(a) || addr_is4(&a->addr) != addr_is4(dst))
            continue;
        if (!best || score(a, dst) > best_score) {
            best = &a->addr;
            best_score = score(a, dst);
        }
    }
    return best;
}

const struct addr *netif_linklocal(const struct netif *nif)
{
    for (unsigned i = 0; i < nif->naddrs; i++)
        if (addr_is_linklocal6(&nif->addrs[i].addr) && address_usable(&nif->addrs[i]))
            return &nif->addrs[i].addr;
    return NULL;
}

/* --- coming and going --- */

static bool routed(const struct netif_addr *a) { return !(a->flags & ADDRESS_NO_ROUTE); }

struct netif_addr *netif_add(struct netif *nif, const struct addr *addr, unsigned bits, unsigned flags, unsigned origin,
                             int *error)
{
    *error = !addr_is_unicast(addr) ? EINVAL : netif_find(nif, addr) ? EEXIST : nif->naddrs == NETIF_ADDRS_MAX ? ENOBUFS : 0;
    if (!*error && !(flags & ADDRESS_NO_ROUTE))
        *error = -route_add(nif, addr, bits, NULL);
    if (*error)
        return NULL;
    struct netif_addr *a = &nif->addrs[nif->naddrs++];
    *a = (struct netif_addr){.addr = *addr, .bits = (uint8_t)bits, .flags = (uint8_t)flags, .origin = (uint8_t)origin,
                             .state = ADDRESS_PREFERRED, .preferred_until = REACTOR_NEVER, .valid_until = REACTOR_NEVER,
                             .due = REACTOR_NEVER};
    group_address_added(nif, addr);
    if (flags & ADDRESS_DETECT && !(nif->link->caps & LINK_LOOPBACK))
        detect_start(nif, a);
    return a;
}

void netif_set_lifetimes(struct netif *nif, struct netif_addr *a, uint64_t preferred_until, uint64_t valid_until)
{
    a->valid_until = valid_until;
    a->preferred_until = preferred_until < valid_until ? preferred_until : valid_until;
    if (a->state == ADDRESS_DEPRECATED && preferred_until > nif->stack->now)
        a->state = ADDRESS_PREFERRED;
    netif_wake(nif, a->preferred_until > nif->stack->now ? a->preferred_until : nif->stack->now);
}

void netif_remove(struct netif *nif, struct netif_addr *a)
{
    struct addr gone = addr_in_zone(a->addr, (uint32_t)nif->index);
    group_address_removed(nif, &a->addr);
    if (routed(a))
        route_remove(nif, &a->addr, a->bits, NULL);
    *a = nif->addrs[--nif->naddrs];
    if (!stack_is_local(nif->stack, &gone))
        sock_address_gone(nif->stack, &gone);
}

/* What became deprecated, and what invalid (RFC 4862 5.5.4); when the next will. */
static uint64_t age(struct netif *nif)
{
    uint64_t now = nif->stack->now, next = REACTOR_NEVER;
    for (unsigned i = nif->naddrs; i-- > 0;) {
        struct netif_addr *a = &nif->addrs[i];
        if (a->valid_until <= now) {
            netif_remove(nif, a);
            netif_changed(nif);
            continue;
        }
        if (a->preferred_until <= now && a->state == ADDRESS_PREFERRED) {
            a->state = ADDRESS_DEPRECATED;
            netif_changed(nif);
        }
        uint64_t due = a->preferred_until > now ? a->preferred_until : a->valid_until;
        if (due < next)
            next = due;
    }
    return next;
}

/* --- the calls (api.h) --- */

struct netif *netif_of(struct stack *s, int ifindex)
{
    return ifindex < 1 || (unsigned)ifindex > s->nnetifs ? NULL : &s->netifs[ifindex - 1];
}

int stack_add_address(struct stack *s, int ifindex, const uint8_t *addr, unsigned prefix)
{
    return stack_set_address(s, ifindex, addr, prefix, 0, REACTOR_NEVER, REACTOR_NEVER);
}

int stack_set_address(struct stack *s, int ifindex, const uint8_t *addr, unsigned prefix, unsigned flags,
                      uint64_t preferred_until, uint64_t valid_until)
{
    struct netif *nif = netif_of(s, ifindex);
    struct addr a = addr_from(addr);
    stack_called(s);
    if (!nif)
        return -ENODEV;
    if (prefix > (addr_is4(&a) ? 32 : 128) || valid_until <= s->now)
        return -EINVAL;
    struct netif_addr *entry = flags & ADDRESS_RENEW ? netif_find(nif, &a) : NULL;
    if (!entry) {
        int error;
        unsigned kept = flags & ~(unsigned)ADDRESS_RENEW;
        entry = netif_add(nif, &a, addr_is4(&a) ? prefix + 96 : prefix, kept, ORIGIN_STATIC, &error);
        if (!entry)
            return -error;
    }
    netif_set_lifetimes(nif, entry, preferred_until, valid_until);
    return 0;
}

int stack_remove_address(struct stack *s, int ifindex, const uint8_t *addr)
{
    struct netif *nif = netif_of(s, ifindex);
    struct addr a = addr_from(addr);
    struct netif_addr *entry = nif ? netif_find(nif, &a) : NULL;
    stack_called(s);
    if (!entry)
        return nif ? -EADDRNOTAVAIL : -ENODEV;
    netif_remove(nif, entry);
    return 0;
}

int stack_next_address(struct stack *s, uint64_t *cursor, struct stack_address *out)
{
    for (; *cursor >> 8 < s->nnetifs; *cursor = ((*cursor >> 8) + 1) << 8) {
        const struct netif *nif = &s->netifs[*cursor >> 8];
        unsigned i = *cursor & 0xff;
        if (i >= nif->naddrs)
            continue;
        const struct netif_addr *a = &nif->addrs[i];
        *out = (struct stack_address){.ifindex = nif->index, .state = a->state, .origin = a->origin,
                                      .prefix = (uint8_t)(addr_is4(&a->addr) ? a->bits - 96 : a->bits),
                                      .preferred_until = a->preferred_until, .valid_until = a->valid_until};
        memcpy(out->addr, a->addr.b, 16);
        memcpy(out->rival, a->rival, 6);
        ++*cursor;
        return 1;
    }
    return 0;
}

int stack_set_pace(struct stack *s, int ifindex, uint64_t ns)
{
    struct netif *nif = netif_of(s, ifindex);
    if (!nif)
        return -ENODEV;
    if (ns < MSEC || ns > SECOND)
        return -EINVAL;
    nif->pace = ns;
    return 0;
}

int stack_set_mtu(struct stack *s, int ifindex, unsigned mtu)
{
    struct netif *nif = netif_of(s, ifindex);
    if (!nif)
        return -ENODEV;
    if (mtu < IP4_MIN_MTU || mtu > nif->link->mtu)
        return -EINVAL;
    nif->mtu4 = mtu;
    return 0;
}

int stack_announce(struct stack *s, int ifindex)
{
    struct netif *nif = netif_of(s, ifindex);
    if (!nif)
        return -ENODEV;
    for (unsigned i = 0; i < nif->naddrs; i++)
        if (address_usable(&nif->addrs[i]))
            detect_announce(nif, &nif->addrs[i]);
    return 0;
}
