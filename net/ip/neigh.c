/* The neighbour cache. See neigh.h.
 *
 * States and times are RFC 4861's (section 10): an unanswered question is asked 3 times, a second apart; an answer holds for 30 s
 * (±50 %); after that the entry still serves, but its next use starts a 5 s wait and then up to 3 unicast questions. */
#include "net/ip/neigh.h"

#include <errno.h>
#include <stdlib.h>

#include "net/sock.h"
#include "net/core/wire.h"

#define ENTRIES 512
#define BUCKETS 256
#define HOLD_MAX 256 /* packets that wait for one neighbour: a burst of SYNs is not to wait for its retransmission */
#define PROBES_MAX 3
#define RETRANS_TIME SECOND
#define REACHABLE_TIME (30ull * SECOND)
#define DELAY_TIME (5ull * SECOND)

enum state { FREE, INCOMPLETE, REACHABLE, STALE, DELAY, PROBE };

struct neigh {
    struct timer timer; /* first */
    struct neigh *chain;
    struct netif *nif;
    struct addr addr;
    uint8_t mac[6];
    uint8_t state, probes;
    uint16_t ethertype;
    uint64_t used;
    struct pbuf_queue held;
};

struct neigh_table {
    struct neigh entries[ENTRIES];
    struct neigh *buckets[BUCKETS];
};

static void fire(struct timer *t, void *stack, uint64_t now);

int neigh_init(struct stack *s)
{
    s->neighs = calloc(1, sizeof *s->neighs);
    if (!s->neighs)
        return -ENOMEM;
    for (unsigned i = 0; i < ENTRIES; i++)
        timer_init(&s->neighs->entries[i].timer, fire);
    return timer_reserve(&s->timers, ENTRIES + 64);
}

void neigh_free(struct stack *s)
{
    if (!s->neighs)
        return;
    for (unsigned i = 0; i < ENTRIES; i++)
        queue_clear(&s->pool, &s->neighs->entries[i].held);
    free(s->neighs);
    s->neighs = NULL;
}

static struct neigh **bucket_of(struct netif *nif, const struct addr *a)
{
    uint64_t words[3];
    memcpy(words, a->b, 16);
    words[2] = (uint64_t)nif->index;
    return &nif->stack->neighs->buckets[siphash(nif->stack->key, words, 3) % BUCKETS];
}

static struct neigh *find(struct netif *nif, const struct addr *a)
{
    for (struct neigh *n = *bucket_of(nif, a); n; n = n->chain)
        if (n->nif == nif && addr_eq(&n->addr, a))
            return n;
    return NULL;
}

static void forget(struct stack *s, struct neigh *n)
{
    struct neigh **at = bucket_of(n->nif, &n->addr);
    while (*at != n)
        at = &(*at)->chain;
    *at = n->chain;
    timer_cancel(&s->timers, &n->timer);
    queue_clear(&s->pool, &n->held);
    n->state = FREE;
}

/* A free entry, or the one that was not used for the longest time. */
static struct neigh *create(struct netif *nif, const struct addr *a)
{
    struct stack *s = nif->stack;
    struct neigh *oldest = &s->neighs->entries[0];
    for (unsigned i = 0; i < ENTRIES; i++) {
        struct neigh *n = &s->neighs->entries[i];
        if (n->state == FREE) {
            oldest = n;
            break;
        }
        if (n->used < oldest->used)
            oldest = n;
    }
    if (oldest->state != FREE)
        forget(s, oldest);
    struct neigh **at = bucket_of(nif, a);
    oldest->nif = nif;
    oldest->addr = *a;
    oldest->used = s->now;
    oldest->probes = 0;
    oldest->chain = *at;
    *at = oldest;
    return oldest;
}

static void ask(struct neigh *n, bool unicast)
{
    const uint8_t *mac = unicast ? n->mac : NULL;
    n->probes++;
    if (addr_is4(&n->addr))
        arp_request(n->nif, &n->addr, mac);
    else
        nd_solicit(n->nif, &n->addr, mac);
}

static void set_state(struct neigh *n, enum state state, uint64_t wait)
{
    struct stack *s = n->nif->stack;
    n->state = (uint8_t)state;
    timer_cancel(&s->timers, &n->timer);
    if (wait)
        timer_at(&s->timers, &n->timer, s->now + wait);
}

static void unreachable(struct stack *s, struct neigh *n)
{
    s->counters[C_NeighFailed] += n->held.count;
    sock_host_unreachable(s, &n->addr);
    forget(s, n);
}

static void fire(struct timer *t, void *stack, uint64_t now)
{
    struct neigh *n = (struct neigh *)t;
    (void)now;
    switch (n->state) {
    case INCOMPLETE:
    case PROBE:
        if (n->probes >= PROBES_MAX) {
            unreachable(stack, n);
            return;
        }
        ask(n, n->state == PROBE);
        set_state(n, n->state, RETRANS_TIME);
        break;
    case REACHABLE:
        set_state(n, STALE, 0);
        break;
    case DELAY:
        n->probes = 0;
        ask(n, true);
        set_state(n, PROBE, RETRANS_TIME);
        break;
    case FREE:
    case STALE:
        break; /* no timer runs in these */
    }
}

/* Groups need no question: the address says it (RFC 1112 6.4, RFC 2464 7). */
static bool group_mac(const struct netif *nif, const struct addr *a, uint8_t mac[6])
{
    if (netif_is_broadcast(nif, a)) {
        memset(mac, 0xff, 6);
    } else if (addr_is_multicast(a) && addr_is4(a)) {
        const uint8_t *v4 = addr_v4(a);
        const uint8_t m[6] = {0x01, 0x00, 0x5e, v4[1] & 0x7f, v4[2], v4[3]};
        memcpy(mac, m, 6);
    } else if (addr_is_multicast(a)) {
        mac[0] = mac[1] = 0x33;
        memcpy(mac + 2, a->b + 12, 4);
    } else {
        return false;
    }
    return true;
}

void neigh_output(struct netif *nif, const struct addr *next, unsigned ethertype, struct pbuf *p)
{
    struct stack *s = nif->stack;
    uint8_t mac[6];
    if (nif->link->caps & (LINK_LOOPBACK | LINK_NOARP)) {
        ether_output(nif, nif->link->mac, ethertype, p);
        return;
    }
    if (group_mac(nif, next, mac)) {
        ether_output(nif, mac, ethertype, p);
        return;
    }
    struct neigh *n = find(nif, next);
    if (!n) {
        n = create(nif, next);
        n->ethertype = (uint16_t)ethertype;
        ask(n, false);
        set_state(n, INCOMPLETE, RETRANS_TIME);
    }
    n->used = s->now;
    if (n->state == INCOMPLETE) {
        if (n->held.count >= HOLD_MAX) {
            count(s, C_NeighFailed);
            pbuf_free(&s->pool, queue_pop(&n->held));
        }
        queue_push(&n->held, p);
        return;
    }
    if (n->state == STALE)
        set_state(n, DELAY, DELAY_TIME);
    ether_output(nif, n->mac, ethertype, p);
}

void neigh_learn(struct netif *nif, const struct addr *addr, const uint8_t *mac, bool solicited, bool override,
                 bool create_it)
{
    struct stack *s = nif->stack;
    if (mac[0] & 1 || !addr_is_unicast(addr))
        return; /* a group is nobody's link address */
    struct neigh *n = find(nif, addr);
    if (!n) {
        if (!create_it)
            return;
        n = create(nif, addr);
        memcpy(n->mac, mac, 6);
        set_state(n, STALE, 0);
        return;
    }
    bool other = n->state != INCOMPLETE && memcmp(n->mac, mac, 6) != 0;
    if (other && !override) { /* RFC 4861 7.2.5: doubt the old one, keep it */
        if (n->state == REACHABLE)
            set_state(n, STALE, 0);
        return;
    }
    bool was_incomplete = n->state == INCOMPLETE;
    memcpy(n->mac, mac, 6);
    if (solicited)
        set_state(n, REACHABLE, REACHABLE_TIME / 2 + rng_next(&s->rng) % REACHABLE_TIME);
    else if (was_incomplete || other)
        set_state(n, STALE, 0);
    for (struct pbuf *p; (p = queue_pop(&n->held));)
        ether_output(nif, n->mac, n->ethertype, p);
}
