/* Forming addresses in the prefixes that routers give (RFC 4862 5.5), with interface identifiers that stay the same on
 * one link and say nothing of us on another (RFC 7217). The secret is the stack's key, so a machine with a configured
 * seed has the same addresses in each of its lives. Temporary addresses (RFC 8981) are not formed. */
#include "net/ip/netif.h"
#include "net/core/wire.h"
#include "net/stack.h"

#define PREFIX 64
#define SLAAC_MAX 8
#define IDGEN_RETRIES 3 /* RFC 7217 7 */
#define TWO_HOURS (7200ull * SECOND)
#define FOREVER 0xffffffffu

static uint64_t end_of(const struct stack *s, uint32_t seconds)
{
    return seconds == FOREVER ? REACTOR_NEVER : s->now + seconds * (uint64_t)SECOND;
}

/* RFC 5453: the routers' anycast address, and the last 128 of each subnet. */
static bool reserved(uint64_t iid) { return iid == 0 || iid >> 7 == 0xfdffffffffffff80u >> 7; }

/* RFC 7217 5. The prefix is in the first half of a. */
static void fill_identifier(const struct netif *nif, struct addr *a, unsigned attempt)
{
    static const uint64_t purpose = 0x72666337323137; /* the key serves other hashes as well */
    uint64_t words[3] = {purpose}, iid;
    memcpy(&words[1], a->b, 8);
    do {
        words[2] = (uint64_t)nif->index << 32 | attempt;
        iid = siphash(nif->stack->key, words, 3);
        attempt += 1u << 16; /* beyond all that are tried for duplicates */
    } while (reserved(iid));
    put32(a->b + 8, (uint32_t)(iid >> 32));
    put32(a->b + 12, (uint32_t)iid);
}

static struct netif_addr *form(struct netif *nif, struct addr prefix, unsigned attempt, unsigned flags, unsigned origin)
{
    int error;
    fill_identifier(nif, &prefix, attempt);
    struct netif_addr *a = netif_add(nif, &prefix, PREFIX, flags, origin, &error);
    if (a)
        a->attempt = (uint8_t)attempt;
    else
        count(nif->stack, C_RouterInfoDropped);
    return a;
}

/* RFC 4862 5.5.3 (e): so that a forged advertisement cannot end an address at once. */
static void renew(struct netif *nif, struct netif_addr *a, uint32_t preferred, uint32_t valid)
{
    const struct stack *s = nif->stack;
    uint64_t left = a->valid_until == REACTOR_NEVER ? REACTOR_NEVER : a->valid_until - s->now;
    uint64_t until = end_of(s, valid);
    if (until - s->now <= TWO_HOURS && until < a->valid_until)
        until = left <= TWO_HOURS ? a->valid_until : s->now + TWO_HOURS;
    netif_set_lifetimes(nif, a, end_of(s, preferred), until);
}

void slaac_prefix(struct netif *nif, const struct addr *prefix, uint32_t preferred, uint32_t valid)
{
    unsigned formed = 0;
    for (unsigned i = 0; i < nif->naddrs; i++) {
        struct netif_addr *a = &nif->addrs[i];
        if (a->origin != ORIGIN_SLAAC)
            continue;
        if (addr_match(&a->addr, prefix, PREFIX)) {
            renew(nif, a, preferred, valid);
            return;
        }
        formed++;
    }
    if (!valid)
        return;
    if (formed >= SLAAC_MAX) {
        count(nif->stack, C_RouterInfoDropped);
        return;
    }
    unsigned flags = ADDRESS_DETECT | ADDRESS_NO_ROUTE; /* whether the prefix is on the link is said apart (RFC 5942 4) */
    for (unsigned i = 0; i < nif->naddrs; i++)
        if (nif->addrs[i].origin == ORIGIN_LINK_LOCAL) /* as it was asked for there */
            flags |= nif->addrs[i].flags & ADDRESS_AT_ONCE;
    struct netif_addr *a = form(nif, *prefix, 0, flags, ORIGIN_SLAAC);
    if (!a)
        return;
    netif_set_lifetimes(nif, a, end_of(nif->stack, preferred), end_of(nif->stack, valid));
    netif_changed(nif);
}

void slaac_duplicate(struct netif *nif, const struct netif_addr *a)
{
    struct netif_addr old = *a;
    if ((a->origin != ORIGIN_SLAAC && a->origin != ORIGIN_LINK_LOCAL) || a->attempt >= IDGEN_RETRIES)
        return; /* it stays listed as DUPLICATE */
    netif_remove(nif, netif_find(nif, &old.addr));
    struct netif_addr *next = form(nif, old.addr, old.attempt + 1u, old.flags, old.origin);
    if (next)
        netif_set_lifetimes(nif, next, old.preferred_until, old.valid_until);
}
