/* Router discovery (RFC 4861 6.3): asking for routers, believing what they say of the link, and forgetting it in time.
 *
 * What they say of ways is one list: a default route is a route to ::/0 through the router (RFC 4191 2), a prefix that
 * is on the link is a route through nobody. Of several routers to one destination the best is in the routing table:
 * first one that answers (6.3.6), then the one with the higher preference. Name servers and search domains (RFC 8106)
 * are kept for whoever asks. Prefixes to form addresses in are slaac.c's.
 *
 * Anybody on the link can say all this, so every list is bounded and what finds no room is counted; and no value is
 * believed that would only harm (a hop limit of 1, a question each millisecond). */
#include <errno.h>
#include <stdlib.h>

#include "net/ip/neigh.h"
#include "net/core/wire.h"

#define WAYS_MAX 8 /* of each kind */
#define SERVERS_MAX 8
#define DOMAINS_MAX 8
#define DOMAIN_LEN 253
#define HOP_LIMIT_MIN 32
#define FOREVER 0xffffffffu

/* RFC 7559 2: asked for ever, less and less often. */
#define SOLICIT_FIRST (4ull * SECOND)
#define SOLICIT_MOST (3600ull * SECOND)

enum kind { NOTHING, DEFAULT_ROUTER, ON_LINK, MORE_SPECIFIC, KINDS };

struct way {
    struct addr dest, router; /* router: none, of an ON_LINK way */
    uint8_t kind, bits;
    int8_t preference; /* -1, 0, 1 */
    bool installed;    /* in the routing table */
    uint64_t until, failed;
};

struct autoconf {
    unsigned flags;
    bool heard;
    uint8_t said; /* RA_MANAGED, RA_OTHER */
    uint64_t ask_at, ask_interval;
    struct way ways[WAYS_MAX * (KINDS - 1)];
    struct {
        struct addr addr;
        uint64_t until; /* 0: free */
    } servers[SERVERS_MAX];
    struct {
        char name[DOMAIN_LEN + 1];
        uint64_t until;
    } domains[DOMAINS_MAX];
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint64_t end_of(const struct stack *s, uint32_t seconds)
{
    return seconds == FOREVER ? REACTOR_NEVER : s->now + seconds * (uint64_t)SECOND;
}

/* --- ways --- */

static bool same_way(const struct way *w, enum kind kind, const struct addr *dest, unsigned bits)
{
    return w->kind == kind && w->bits == bits && addr_eq(&w->dest, dest);
}

/* 6.3.6: one that is known to answer, or may; of those that do not, the one that was tried least recently. */
static bool better(struct netif *nif, const struct way *a, const struct way *b)
{
    unsigned state_a = neigh_state(nif, &a->router), state_b = neigh_state(nif, &b->router);
    bool silent_a = state_a == NEIGH_FAILED, silent_b = state_b == NEIGH_FAILED;
    if (silent_a != silent_b)
        return silent_b;
    if (silent_a && a->failed != b->failed)
        return a->failed < b->failed;
    if (a->preference != b->preference)
        return a->preference > b->preference;
    bool known_a = state_a >= NEIGH_REACHABLE, known_b = state_b >= NEIGH_REACHABLE;
    if (known_a != known_b)
        return known_a;
    return a->installed; /* no reason to change */
}

/* Exactly one way to this destination is in the routing table. */
static void choose(struct netif *nif, enum kind kind, struct addr dest, unsigned bits)
{
    struct autoconf *c = nif->autoconf;
    struct way *best = NULL;
    for (struct way *w = c->ways; w < c->ways + COUNT(c->ways); w++)
        if (same_way(w, kind, &dest, bits) && (!best || better(nif, w, best)))
            best = w;
    for (struct way *w = c->ways; w < c->ways + COUNT(c->ways); w++)
        if (w != best && w->installed && same_way(w, kind, &dest, bits)) {
            route_remove(nif, &w->dest, w->bits, kind == ON_LINK ? NULL : &w->router);
            w->installed = false;
        }
    if (best && !best->installed)
        best->installed = route_add(nif, &dest, bits, kind == ON_LINK ? NULL : &best->router) == 0;
}

static void remove_way(struct netif *nif, struct way *w)
{
    struct way old = *w;
    if (w->installed)
        route_remove(nif, &w->dest, w->bits, w->kind == ON_LINK ? NULL : &w->router);
    *w = (struct way){0};
    choose(nif, old.kind, old.dest, old.bits);
    netif_changed(nif);
}

static void learn_way(struct netif *nif, enum kind kind, const struct addr *dest, unsigned bits,
                      const struct addr *router, int preference, uint32_t lifetime)
{
    struct stack *s = nif->stack;
    struct autoconf *c = nif->autoconf;
    struct way *mine = NULL, *spare = NULL;
    unsigned same_kind = 0;
    for (struct way *w = c->ways; w < c->ways + COUNT(c->ways); w++) {
        same_kind += w->kind == kind;
        if (same_way(w, kind, dest, bits) && addr_eq(&w->router, router))
            mine = w;
        else if (w->kind == NOTHING && !spare)
            spare = w;
    }
    if (lifetime == 0) {
        if (mine)
            remove_way(nif, mine);
        return;
    }
    if (!mine) {
        if (!spare || same_kind >= WAYS_MAX) {
            count(s, C_RouterInfoDropped);
            return;
        }
        mine = spare;
        *mine = (struct way){.dest = *dest, .router = *router, .kind = (uint8_t)kind, .bits = (uint8_t)bits};
        netif_changed(nif);
    }
    mine->preference = (int8_t)preference;
    mine->until = end_of(s, lifetime);
    choose(nif, kind, *dest, bits);
    netif_wake(nif, mine->until);
}

static struct addr any6(void) { return (struct addr){.zone = 0}; }

void router_reachability(struct netif *nif, const struct addr *router)
{
    struct autoconf *c = nif->autoconf;
    if (!c)
        return;
    bool silent = neigh_state(nif, router) == NEIGH_FAILED;
    for (struct way *w = c->ways; w < c->ways + COUNT(c->ways); w++)
        if (w->kind != NOTHING && w->kind != ON_LINK && addr_eq(&w->router, router)) {
            if (silent)
                w->failed = nif->stack->now;
            choose(nif, w->kind, w->dest, w->bits);
        }
}

void router_demoted(struct netif *nif, const struct addr *router)
{
    struct autoconf *c = nif->autoconf;
    for (struct way *w = c ? c->ways : NULL; c && w < c->ways + COUNT(c->ways); w++)
        if (w->kind == DEFAULT_ROUTER && addr_eq(&w->router, router))
            remove_way(nif, w);
}

/* --- names (RFC 8106) --- */

static void learn_server(struct netif *nif, const struct addr *server, uint32_t lifetime)
{
    struct autoconf *c = nif->autoconf;
    int spare = -1, mine = -1;
    for (int i = 0; i < SERVERS_MAX; i++) {
        if (!c->servers[i].until)
            spare = spare < 0 ? i : spare;
        else if (addr_eq(&c->servers[i].addr, server))
            mine = i;
    }
    if (mine < 0 && lifetime && spare < 0)
        count(nif->stack, C_RouterInfoDropped);
    if (mine < 0 && (!lifetime || spare < 0))
        return;
    if (mine < 0 || !lifetime)
        netif_changed(nif);
    mine = mine < 0 ? spare : mine;
    c->servers[mine].addr = *server;
    c->servers[mine].until = lifetime ? end_of(nif->stack, lifetime) : 0;
    netif_wake(nif, c->servers[mine].until ? c->servers[mine].until : REACTOR_NEVER);
}

static void learn_domain(struct netif *nif, const char *name, uint32_t lifetime)
{
    struct autoconf *c = nif->autoconf;
    int spare = -1, mine = -1;
    for (int i = 0; i < DOMAINS_MAX; i++) {
        if (!c->domains[i].until)
            spare = spare < 0 ? i : spare;
        else if (strcmp(c->domains[i].name, name) == 0)
            mine = i;
    }
    if (mine < 0 && lifetime && spare < 0)
        count(nif->stack, C_RouterInfoDropped);
    if (mine < 0 && (!lifetime || spare < 0))
        return;
    if (mine < 0 || !lifetime)
        netif_changed(nif);
    mine = mine < 0 ? spare : mine;
    strcpy(c->domains[mine].name, name);
    c->domains[mine].until = lifetime ? end_of(nif->stack, lifetime) : 0;
    netif_wake(nif, c->domains[mine].until ? c->domains[mine].until : REACTOR_NEVER);
}

static bool host_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* The name at d, of at most len bytes, as text without the last dot; how many bytes it took, or 0: no host's name. */
static uint32_t read_name(const uint8_t *d, uint32_t len, char name[DOMAIN_LEN + 1])
{
    uint32_t at = 0, to = 0;
    while (at < len && d[at]) {
        uint32_t label = d[at++];
        if (label > 63 || label > len - at || to + label + 1 > DOMAIN_LEN)
            return 0;
        if (to)
            name[to++] = '.';
        for (uint32_t end = at + label; at < end; at++) {
            if (!host_char(d[at]))
                return 0;
            name[to++] = (char)d[at];
        }
    }
    name[to] = 0;
    return at < len && to ? at + 1 : 0;
}

static void learn_domains(struct netif *nif, const uint8_t *o, uint32_t len)
{
    char name[DOMAIN_LEN + 1];
    for (uint32_t at = 8, took; at < len && o[at] && (took = read_name(o + at, len - at, name)); at += took)
        learn_domain(nif, name, get32(o + 4));
}

/* --- what a router says --- */

static int preference_of(unsigned flags)
{
    unsigned bits = flags >> 3 & 3; /* RFC 4191 2.1: 10 is reserved, and read as 00 */
    return bits == 1 ? 1 : bits == 3 ? -1 : 0;
}

static void learn_prefix(struct netif *nif, const uint8_t *o)
{
    struct addr prefix = addr_from(o + PREFIX_ADDR), none = any6();
    unsigned bits = o[PREFIX_BITS], flags = o[PREFIX_FLAGS];
    uint32_t valid = get32(o + PREFIX_VALID), preferred = get32(o + PREFIX_PREFERRED);
    if (bits == 0 || bits > 128 || addr_is_linklocal6(&prefix) || addr_is_multicast(&prefix) || addr_is4(&prefix))
        return; /* 6.3.4; and the whole Internet is not on this link */
    addr_truncate(&prefix, bits);
    if (flags & PREFIX_ON_LINK)
        learn_way(nif, ON_LINK, &prefix, bits, &none, 0, valid);
    if (flags & PREFIX_AUTO && bits == 64 && preferred <= valid && nif->autoconf->flags & AUTOCONF_ADDRESSES)
        slaac_prefix(nif, &prefix, preferred, valid); /* RFC 4862 5.5.3 (a) to (d) */
}

static void learn_route(struct netif *nif, const uint8_t *o, uint32_t len, const struct addr *router)
{
    struct addr dest = any6();
    unsigned bits = o[2];
    if (bits > 128 || (o[3] >> 3 & 3) == 2 || len < 8 + (bits + 63u) / 64 * 8) /* RFC 4191 2.3 */
        return;
    memcpy(dest.b, o + 8, len - 8 < 16 ? len - 8 : 16);
    addr_truncate(&dest, bits);
    if (addr_is_linklocal6(&dest) || addr_is_multicast(&dest) || addr_is4(&dest))
        return;
    learn_way(nif, bits ? MORE_SPECIFIC : DEFAULT_ROUTER, &dest, bits, router, preference_of(o[3]), get32(o + 4));
}

static void learn_option(struct netif *nif, const uint8_t *o, uint32_t len, const struct addr *router)
{
    switch (o[0]) {
    case ND_OPT_PREFIX:
        if (len == 32)
            learn_prefix(nif, o);
        break;
    case ND_OPT_MTU:
        if (get32(o + 4) >= IP6_MIN_MTU && get32(o + 4) <= nif->link->mtu)
            nif->mtu6 = get32(o + 4);
        break;
    case ND_OPT_ROUTE:
        learn_route(nif, o, len, router);
        break;
    case ND_OPT_RDNSS:
        for (uint32_t at = 8; len - at >= 16; at += 16) {
            struct addr server = addr_from(o + at);
            if (addr_is_unicast(&server) && !addr_is4(&server) && !addr_is_loopback(&server))
                learn_server(nif, &server, get32(o + 4));
        }
        break;
    case ND_OPT_DNSSL:
        learn_domains(nif, o, len);
        break;
    default:
        break;
    }
}

static uint64_t within(uint32_t ms, uint32_t least, uint32_t most)
{
    return (ms < least ? least : ms > most ? most : ms) * (uint64_t)MSEC;
}

void router_input(struct netif *nif, const uint8_t *d, uint32_t len, const struct addr *src)
{
    struct autoconf *c = nif->autoconf;
    const uint8_t *slla = nd_option(d, RA_OPTIONS, len, ND_OPT_SLLA);
    if (!c)
        return;
    neigh_learn(nif, src, slla ? slla + 2 : NULL, NEIGH_OVERRIDE | NEIGH_CREATE | NEIGH_IS_ROUTER);
    if (!c->heard || c->said != (d[RA_FLAGS] & (RA_MANAGED | RA_OTHER)))
        netif_changed(nif);
    c->heard = true;
    c->said = d[RA_FLAGS] & (RA_MANAGED | RA_OTHER);
    if (d[RA_HOPS] >= HOP_LIMIT_MIN)
        nif->hop_limit = d[RA_HOPS];
    if (get32(d + RA_REACHABLE))
        nif->reachable_time = within(get32(d + RA_REACHABLE), 1000, 3600000);
    if (get32(d + RA_RETRANS))
        nif->retrans_time = within(get32(d + RA_RETRANS), 100, 10000);
    struct addr everywhere = any6();
    unsigned lifetime = get16(d + RA_LIFETIME);
    learn_way(nif, DEFAULT_ROUTER, &everywhere, 0, src, preference_of(d[RA_FLAGS]), lifetime);
    if (lifetime)
        c->ask_at = REACTOR_NEVER; /* RFC 7559 2.1 */
    for (uint32_t at = RA_OPTIONS; at < len; at += 8u * d[at + 1])
        learn_option(nif, d + at, 8u * d[at + 1], src);
}

/* --- asking, and forgetting --- */

static void solicit(struct netif *nif)
{
    static const struct addr all_routers = {.b = {0xff, 2, [15] = 2}}, nobody;
    struct stack *s = nif->stack;
    struct autoconf *c = nif->autoconf;
    const struct addr *own = netif_linklocal(nif);
    uint8_t option[8] = {ND_OPT_SLLA, 1};
    memcpy(option + 2, nif->link->mac, 6);
    /* RFC 4429 2.2: an address that may be somebody else's does not come with our link address. */
    bool ours = own && netif_find(nif, own)->state != ADDRESS_OPTIMISTIC;
    nd_send(nif, ICMP6_RS, 0, own ? own : &nobody, &all_routers, option, ours ? sizeof option : 0);
    /* RFC 8415 15: twice as long each time, a tenth more or less. */
    uint64_t interval = c->ask_interval ? 2 * c->ask_interval : SOLICIT_FIRST;
    interval = interval < SOLICIT_MOST ? interval : SOLICIT_MOST;
    c->ask_interval = interval - interval / 10 + rng_next(&s->rng) % (interval / 5);
    c->ask_at = s->now + c->ask_interval;
}

static void soonest(uint64_t *next, uint64_t due)
{
    if (due && due < *next)
        *next = due;
}

uint64_t router_run(struct netif *nif)
{
    struct autoconf *c = nif->autoconf;
    uint64_t now = nif->stack->now, next = REACTOR_NEVER;
    if (!c)
        return next;
    for (struct way *w = c->ways; w < c->ways + COUNT(c->ways); w++) {
        bool last = w->kind == DEFAULT_ROUTER && w->installed;
        if (w->kind != NOTHING && w->until <= now) {
            remove_way(nif, w);
            if (last && c->ask_at == REACTOR_NEVER) { /* nobody told in time: look for another */
                c->ask_interval = 0;
                c->ask_at = now;
            }
        }
        soonest(&next, w->kind == NOTHING ? 0 : w->until);
    }
    for (unsigned i = 0; i < SERVERS_MAX; i++) {
        if (c->servers[i].until && c->servers[i].until <= now) {
            c->servers[i].until = 0;
            netif_changed(nif);
        }
        soonest(&next, c->servers[i].until);
    }
    for (unsigned i = 0; i < DOMAINS_MAX; i++) {
        if (c->domains[i].until && c->domains[i].until <= now) {
            c->domains[i].until = 0;
            netif_changed(nif);
        }
        soonest(&next, c->domains[i].until);
    }
    if (c->ask_at <= now)
        solicit(nif);
    soonest(&next, c->ask_at);
    return next;
}

void router_free(struct netif *nif)
{
    free(nif->autoconf);
    nif->autoconf = NULL;
}

/* --- the calls (api.h) --- */

int stack_autoconf(struct stack *s, int ifindex, unsigned flags)
{
    struct netif *nif = netif_of(s, ifindex);
    stack_called(s);
    if (!nif || nif->link->caps & LINK_LOOPBACK)
        return -ENODEV;
    if (nif->autoconf)
        return -EALREADY;
    if (!(nif->autoconf = calloc(1, sizeof *nif->autoconf)))
        return -ENOMEM;
    nif->autoconf->flags = flags;
    for (unsigned i = 0; i < nif->naddrs; i++) {
        struct netif_addr *a = &nif->addrs[i];
        if (a->origin == ORIGIN_LINK_LOCAL) {
            a->flags |= ADDRESS_DETECT | (flags & AUTOCONF_AT_ONCE ? ADDRESS_AT_ONCE : 0);
            detect_start(nif, a);
        }
    }
    nif->autoconf->ask_at = s->now + rng_next(&s->rng) % nif->pace; /* MAX_RTR_SOLICITATION_DELAY */
    netif_wake(nif, nif->autoconf->ask_at);
    return 0;
}

int stack_advertised(struct stack *s, int ifindex, struct stack_advertised *out)
{
    struct netif *nif = netif_of(s, ifindex);
    if (!nif)
        return -ENODEV;
    *out = (struct stack_advertised){.hop_limit = nif->hop_limit, .mtu = nif->mtu6};
    struct autoconf *c = nif->autoconf;
    if (!c)
        return 0;
    out->heard = c->heard;
    out->managed = !!(c->said & RA_MANAGED);
    out->other = !!(c->said & RA_OTHER);
    for (const struct way *w = c->ways; w < c->ways + COUNT(c->ways); w++)
        out->routers += w->kind == DEFAULT_ROUTER;
    return 0;
}

int stack_next_server(struct stack *s, uint64_t *cursor, struct sock_name *out)
{
    for (; *cursor / SERVERS_MAX < s->nnetifs; ++*cursor) {
        const struct netif *nif = &s->netifs[*cursor / SERVERS_MAX];
        const struct autoconf *c = nif->autoconf;
        unsigned i = *cursor % SERVERS_MAX;
        if (!c || !c->servers[i].until)
            continue;
        *out = (struct sock_name){.family = 10, .port = 53, .ifindex = (uint32_t)nif->index};
        memcpy(out->addr, c->servers[i].addr.b, 16);
        ++*cursor;
        return 1;
    }
    return 0;
}

int stack_next_domain(struct stack *s, uint64_t *cursor, char name[254])
{
    for (; *cursor / DOMAINS_MAX < s->nnetifs; ++*cursor) {
        const struct autoconf *c = s->netifs[*cursor / DOMAINS_MAX].autoconf;
        unsigned i = *cursor % DOMAINS_MAX;
        if (!c || !c->domains[i].until)
            continue;
        strcpy(name, c->domains[i].name);
        ++*cursor;
        return 1;
    }
    return 0;
}
