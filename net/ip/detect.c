/* Is an address free, and does it stay ours? IPv4 by ARP (RFC 5227), IPv6 by neighbour solicitation (RFC 4862 5.4).
 *
 * A new address is asked for in nobody's name: 3 times a second or two apart (IPv4), once (IPv6). No answer makes it
 * ours, which is announced; an answer, or somebody else who asks the same, makes it DUPLICATE. Later an IPv4 address
 * that somebody else uses is defended once in 10 s; who uses it again in that time gets it, unless ADDRESS_KEEP. IPv6
 * has no such rule: what is not found now is not found.
 *
 * ADDRESS_AT_ONCE serves from the beginning (RFC 4429, for IPv4 too): nobody waits for a clash that is almost never
 * there. Until it is ours, an IPv6 address is kept out of others' caches: no link address goes with its questions, no
 * override with its answers. RFC 4429 3.2 would have it ask nobody; we ask, without a link address, which harms nobody
 * either.
 *
 * Times are RFC 5227 1.1's, of seconds that last `pace`. */
#include "net/ip/neigh.h"

#define PROBE_NUM 3      /* IPv4, 1 to 2 s apart */
#define DAD_TRANSMITS 1  /* IPv6, RFC 4862 5.1 */
#define ANNOUNCE_NUM 2   /* 2 s apart */
#define DEFEND_INTERVAL (10ull * SECOND)

static bool asking(const struct netif_addr *a)
{
    return a->state == ADDRESS_TENTATIVE || a->state == ADDRESS_OPTIMISTIC;
}

void detect_start(struct netif *nif, struct netif_addr *a)
{
    struct stack *s = nif->stack;
    bool at_once = a->flags & ADDRESS_AT_ONCE;
    a->state = at_once ? ADDRESS_OPTIMISTIC : ADDRESS_TENTATIVE;
    a->asked = a->announced = 0;
    a->nonce = rng_next(&s->rng) >> 16;
    /* PROBE_WAIT, MAX_RTR_SOLICITATION_DELAY: hosts that were switched on together do not ask together */
    a->due = at_once ? s->now : s->now + rng_next(&s->rng) % nif->pace;
    netif_wake(nif, a->due);
}

static void step(struct netif *nif, struct netif_addr *a)
{
    struct stack *s = nif->stack;
    bool v4 = addr_is4(&a->addr);
    a->due = REACTOR_NEVER;
    if (asking(a) && a->asked < (v4 ? PROBE_NUM : DAD_TRANSMITS)) {
        a->asked++;
        if (v4) {
            arp_probe(nif, &a->addr);
            bool last = a->asked == PROBE_NUM; /* then ANNOUNCE_WAIT, else PROBE_MIN to PROBE_MAX */
            a->due = s->now + (last ? 2 * nif->pace : nif->pace + rng_next(&s->rng) % nif->pace);
        } else {
            nd_probe(nif, &a->addr, a->nonce);
            a->due = s->now + nif->pace;
        }
        return;
    }
    if (asking(a)) {
        a->state = ADDRESS_PREFERRED;
        netif_changed(nif);
        if (!v4)
            nd_announce(nif, &a->addr, false);
    }
    if (v4) {
        arp_announce(nif, &a->addr);
        if (++a->announced < ANNOUNCE_NUM)
            a->due = s->now + 2 * nif->pace;
    }
}

uint64_t detect_run(struct netif *nif)
{
    uint64_t next = REACTOR_NEVER;
    for (unsigned i = 0; i < nif->naddrs; i++) {
        struct netif_addr *a = &nif->addrs[i];
        if (a->due <= nif->stack->now)
            step(nif, a);
        if (a->due < next)
            next = a->due;
    }
    return next;
}

void detect_announce(struct netif *nif, struct netif_addr *a)
{
    if (asking(a))
        return; /* it will be, when it is ours */
    if (!addr_is4(&a->addr)) {
        nd_announce(nif, &a->addr, true);
        return;
    }
    arp_announce(nif, &a->addr);
    a->announced = 1;
    a->due = nif->stack->now + 2 * nif->pace;
    netif_wake(nif, a->due);
}

static void give_up(struct netif *nif, struct netif_addr *a, const uint8_t *mac)
{
    a->state = ADDRESS_DUPLICATE;
    a->due = REACTOR_NEVER;
    if (mac)
        memcpy(a->rival, mac, 6);
    netif_changed(nif);
    slaac_duplicate(nif, a);
}

void detect_conflict(struct netif *nif, struct netif_addr *a, const uint8_t *mac, bool only_probing)
{
    struct stack *s = nif->stack;
    if (a->state == ADDRESS_DUPLICATE || (only_probing && !asking(a)))
        return; /* whoever asks whether an address of ours is free is answered that it is not */
    count(s, C_AddressConflicts);
    if (asking(a)) {
        give_up(nif, a, mac);
    } else if (!(a->flags & ADDRESS_DETECT) || !addr_is4(&a->addr)) {
        return; /* nobody asked us to look */
    } else if (!a->defended || s->now - a->defended >= DEFEND_INTERVAL) { /* RFC 5227 2.4 (b), (c) */
        a->defended = s->now;
        arp_announce(nif, &a->addr);
    } else if (!(a->flags & ADDRESS_KEEP)) {
        give_up(nif, a, mac);
    }
}
