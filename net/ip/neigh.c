/* The neighbour cache. See neigh.h.
 *
 *               asked       answered           30 s            used            5 s
 *   (no entry) ------> INCOMPLETE ------> REACHABLE ----> STALE -----> DELAY -----> PROBE
 *                          \ 3 x no answer   ^              ^ heard of it unasked      | 3 x no answer
 *                           +--> FAILED      +-- answered, or progress above IP -------+--> FAILED
 *
 * STALE, DELAY and PROBE serve packets. FAILED is what RFC 4861 7.3.3 calls deleted: the next packet begins anew, but
 * until then the choice of a router can see that this one is silent.
 *
 * The table is bounded, and who fills it with junk (RFC 6583) cannot push out neighbours that we talk with: unanswered
 * questions get a quarter of it at most, what we only overheard gives way to what we asked for, and both give way
 * to entries in use. */
#include "net/ip/neigh.h"

#include <errno.h>
#include <stdlib.h>

#include "net/ip/icmp.h"
#include "net/core/wire.h"

#define ENTRIES 512
#define INCOMPLETE_MAX (ENTRIES / 4)
#define BUCKETS 256
#define HOLD_MAX 256        /* packets that wait for one neighbour: a burst of SYNs is not to wait for its retransmission */
#define HOLD_MAX_ALL 1024   /* and for all of them */
#define PROBES_MAX 3        /* MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT (RFC 4861 10) */
#define DELAY_TIME (5ull * SECOND)
#define IN_USE (30ull * SECOND) /* an entry that served a packet so recently is not taken away for another */

#define FREE NEIGH_NONE

struct neigh {
    struct timer timer; /* first */
    struct neigh *chain;
    struct netif *nif;
    struct addr addr;
    uint8_t mac[6];
    uint8_t state, probes;
    bool router;
    uint64_t used;      /* by a packet of ours, last; 0: never */
    uint64_t confirmed; /* REACHABLE: since then */
    uint64_t lasts;     /* REACHABLE: so long */
    uint16_t ethertype;
    struct pbuf_queue held;
};

struct neigh_table {
    struct neigh entries[ENTRIES];
    struct neigh *buckets[BUCKETS];
    unsigned incomplete, held;
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

static void set_state(struct neigh *n, unsigned state, uint64_t wait)
{
    struct stack *s = n->nif->stack;
    s->neighs->incomplete += (unsigned)(state == NEIGH_INCOMPLETE) - (unsigned)(n->state == NEIGH_INCOMPLETE);
    n->state = (uint8_t)state;
    timer_cancel(&s->timers, &n->timer);
    if (wait)
        timer_at(&s->timers, &n->timer, s->now + wait);
}

static void drop_held(struct stack *s, struct neigh *n)
{
    s->neighs->held -= n->held.count;
    s->counters[C_NeighFailed] += n->held.count;
    queue_clear(&s->pool, &n->held);
}

static void forget(struct stack *s, struct neigh *n)
{
    struct neigh **at = bucket_of(n->nif, &n->addr);
    while (*at != n)
        at = &(*at)->chain;
    *at = n->chain;
    drop_held(s, n);
    set_state(n, FREE, 0);
}

/* How much we would miss it, least first; among equals the one that was not used for the longest time goes. */
enum worth { DEAD, ASKED, OVERHEARD, IDLE, USED };

static enum worth worth(const struct stack *s, const struct neigh *n)
{
    if (n->state == NEIGH_FAILED)
        return DEAD;
    if (n->state == NEIGH_INCOMPLETE)
        return ASKED;
    if (!n->used)
        return OVERHEARD;
    return s->now - n->used < IN_USE ? USED : IDLE;
}

/* A free entry, or one that is worth at most `most`. NULL: there is none. */
static struct neigh *vacate(struct stack *s, enum worth most)
{
    struct neigh *victim = NULL;
    bool full = s->neighs->incomplete >= INCOMPLETE_MAX && most > OVERHEARD; /* one question more pushes out another */
    for (unsigned i = 0; i < ENTRIES; i++) {
        struct neigh *n = &s->neighs->entries[i];
        if (full && n->state != NEIGH_INCOMPLETE)
            continue;
        if (n->state == FREE)
            return n;
        if (!victim || worth(s, n) < worth(s, victim) || (worth(s, n) == worth(s, victim) && n->used < victim->used))
            victim = n;
    }
    if (!victim || worth(s, victim) > most) {
        count(s, C_NeighTableFull);
        return NULL;
    }
    forget(s, victim);
    return victim;
}

/* For a question of ours, or (overheard) for what somebody said unasked. */
static struct neigh *create(struct netif *nif, const struct addr *a, bool overheard)
{
    struct neigh *n = vacate(nif->stack, overheard ? OVERHEARD : IDLE);
    if (!n)
        return NULL;
    struct neigh **at = bucket_of(nif, a);
    n->nif = nif;
    n->addr = *a;
    n->used = n->probes = 0;
    n->router = false;
    n->chain = *at;
    *at = n;
    return n;
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

/* Begin with the first question. */
static void resolve(struct neigh *n)
{
    n->probes = 0;
    set_state(n, NEIGH_INCOMPLETE, n->nif->retrans_time);
    ask(n, false);
}

static void reachable(struct neigh *n)
{
    struct stack *s = n->nif->stack;
    bool news = n->state == NEIGH_INCOMPLETE || n->state == NEIGH_FAILED;
    n->confirmed = s->now;
    if (n->state == NEIGH_REACHABLE)
        return; /* its timer finds out when it fires */
    /* 6.3.2: MIN_RANDOM_FACTOR 0.5, MAX_RANDOM_FACTOR 1.5, so that neighbours do not ask one another in step */
    n->lasts = n->nif->reachable_time / 2 + rng_next(&s->rng) % n->nif->reachable_time;
    set_state(n, NEIGH_REACHABLE, n->lasts);
    if (news && n->router)
        router_reachability(n->nif, &n->addr);
}

static void unreachable(struct stack *s, struct neigh *n)
{
    struct netif *nif = n->nif;
    struct pbuf_queue held = n->held; /* on its own: what is told below may send to this neighbour */
    n->held = (struct pbuf_queue){0};
    s->neighs->held -= held.count;
    s->counters[C_NeighFailed] += held.count;
    set_state(n, NEIGH_FAILED, 0);
    redirect_forget(nif, &n->addr);
    router_reachability(nif, &n->addr);
    for (const struct pbuf *p = held.head; p; p = p->next) /* who sent them is told at once */
        icmp_undeliverable(nif, p);
    queue_clear(&s->pool, &held);
}

static void fire(struct timer *t, void *stack, uint64_t now)
{
    struct neigh *n = (struct neigh *)t;
    switch (n->state) {
    case NEIGH_INCOMPLETE:
    case NEIGH_PROBE:
        if (n->probes >= PROBES_MAX) {
            unreachable(stack, n);
            return;
        }
        ask(n, n->state == NEIGH_PROBE);
        set_state(n, n->state, n->nif->retrans_time);
        break;
    case NEIGH_REACHABLE:
        if (now - n->confirmed < n->lasts)
            set_state(n, NEIGH_REACHABLE, n->confirmed + n->lasts - now); /* confirmed meanwhile */
        else
            set_state(n, NEIGH_STALE, 0);
        break;
    case NEIGH_DELAY:
        n->probes = 0;
        ask(n, true);
        set_state(n, NEIGH_PROBE, n->nif->retrans_time);
        break;
    case NEIGH_STALE:
    case NEIGH_FAILED:
    case FREE:
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

/* RFC 4861 7.2.2: until the answer comes; when there is no room, the oldest goes. */
static void hold(struct stack *s, struct neigh *n, struct pbuf *p)
{
    struct neigh_table *t = s->neighs;
    if (n->held.count >= HOLD_MAX || (t->held >= HOLD_MAX_ALL && n->held.count)) {
        count(s, C_NeighFailed);
        pbuf_free(&s->pool, queue_pop(&n->held));
        t->held--;
    } else if (t->held >= HOLD_MAX_ALL) {
        count(s, C_NeighFailed);
        pbuf_free(&s->pool, p);
        return;
    }
    queue_push(&n->held, p);
    t->held++;
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
    if (!n && !(n = create(nif, next, false))) {
        pbuf_free(&s->pool, p);
        return;
    }
    n->used = s->now;
    switch (n->state) {
    case FREE:
    case NEIGH_FAILED:
        n->ethertype = (uint16_t)ethertype;
        resolve(n);
        hold(s, n, p);
        return;
    case NEIGH_INCOMPLETE:
        hold(s, n, p);
        return;
    case NEIGH_STALE:
        set_state(n, NEIGH_DELAY, DELAY_TIME);
        break;
    default:
        break;
    }
    ether_output(nif, n->mac, ethertype, p);
}

void neigh_confirm(struct netif *nif, const struct addr *next)
{
    struct neigh *n = nif->link->caps & LINK_LOOPBACK ? NULL : find(nif, next);
    if (n && n->state != NEIGH_INCOMPLETE && n->state != NEIGH_FAILED)
        reachable(n);
}

void neigh_doubt(struct netif *nif, const struct addr *next)
{
    struct neigh *n = nif->link->caps & LINK_LOOPBACK ? NULL : find(nif, next);
    if (n && n->state == NEIGH_REACHABLE)
        set_state(n, NEIGH_STALE, 0); /* its next use makes sure */
}

unsigned neigh_state(struct netif *nif, const struct addr *addr)
{
    const struct neigh *n = find(nif, addr);
    return n ? n->state : NEIGH_NONE;
}

/* 7.2.5: a router that says it is none any more is no default router either. */
static void note_router(struct neigh *n, unsigned flags)
{
    if (flags & NEIGH_IS_ROUTER)
        n->router = true;
    if (flags & NEIGH_NO_ROUTER) {
        n->router = false;
        router_demoted(n->nif, &n->addr);
    }
}

void neigh_learn(struct netif *nif, const struct addr *addr, const uint8_t *mac, unsigned flags)
{
    struct stack *s = nif->stack;
    if ((mac && mac[0] & 1) || !addr_is_unicast(addr))
        return; /* a group is nobody's link address */
    struct neigh *n = find(nif, addr);
    if (!n) {
        if (!mac || !(flags & NEIGH_CREATE) || !(n = create(nif, addr, true)))
            return;
        memcpy(n->mac, mac, 6);
        set_state(n, NEIGH_STALE, 0);
        note_router(n, flags);
        return;
    }
    bool unknown = n->state == NEIGH_INCOMPLETE || n->state == NEIGH_FAILED;
    if (unknown && !mac)
        return;
    bool other = !unknown && mac && memcmp(n->mac, mac, 6) != 0;
    if (other && !(flags & NEIGH_OVERRIDE)) { /* RFC 4861 7.2.5: doubt the old one, keep it */
        if (n->state == NEIGH_REACHABLE)
            set_state(n, NEIGH_STALE, 0);
        return;
    }
    if (mac)
        memcpy(n->mac, mac, 6);
    note_router(n, flags);
    if (flags & NEIGH_SOLICITED)
        reachable(n);
    else if (unknown || other)
        set_state(n, NEIGH_STALE, 0);
    s->neighs->held -= n->held.count;
    for (struct pbuf *p; (p = queue_pop(&n->held));)
        ether_output(nif, n->mac, n->ethertype, p);
}

int stack_next_neighbour(struct stack *s, uint64_t *cursor, struct stack_neighbour *out)
{
    while (*cursor < ENTRIES) {
        const struct neigh *n = &s->neighs->entries[(*cursor)++];
        if (n->state == FREE)
            continue;
        *out = (struct stack_neighbour){.ifindex = n->nif->index, .state = n->state, .router = n->router,
                                        .held = n->held.count};
        memcpy(out->addr, n->addr.b, 16);
        memcpy(out->mac, n->mac, 6);
        return 1;
    }
    return 0;
}
