/* An interface of a stack: a link, and the addresses that are ours on it, each with a state and lifetimes (RFC 4862
 * 5.5.4).
 *
 *   TENTATIVE --asked, nobody has it--> PREFERRED --lifetime--> DEPRECATED --lifetime--> gone
 *       \--somebody has it--> DUPLICATE     OPTIMISTIC: as TENTATIVE, but in use meanwhile (RFC 4429)
 *
 * Only a usable address is a source, takes packets and answers for itself. A DUPLICATE one stays in the list, so that
 * whoever added it can see what became of it, until it is removed. Each address has its on-link route for as long as it
 * is listed; a gateway's has none of its own.
 *
 * All that an interface does by itself at some time (detection, lifetimes, router discovery) hangs on its one timer:
 * netif_wake() asks for a run at the latest then, and the run asks each part when it is due next. */
#ifndef LIBOS_NETIF_H
#define LIBOS_NETIF_H

#include <stdbool.h>

#include "net/core/addr.h"
#include "net/core/timer.h"
#include "net/link/link.h"

#define NETIF_ADDRS_MAX 16

struct stack;
struct autoconf;
struct group_set;

struct netif_addr {
    struct addr addr;
    uint8_t bits; /* of 128 */
    uint8_t state, flags, origin; /* ADDRESS_* of api.h */
    uint64_t preferred_until, valid_until;

    /* detect.c */
    uint64_t due; /* its next step, or REACTOR_NEVER */
    uint64_t nonce; /* 48 bits that mark our own questions (RFC 7527) */
    uint64_t defended; /* when last, or 0 */
    uint8_t asked, announced;
    uint8_t attempt; /* DAD_Counter of RFC 7217: which address of this prefix it is */
    uint8_t rival[6]; /* the link address of whoever has it too */
};

struct netif {
    struct timer timer; /* first */
    struct stack *stack;
    struct link *link;
    int index;
    struct netif_addr addrs[NETIF_ADDRS_MAX];
    unsigned naddrs;
    uint64_t pace; /* what RFC 5227 and RFC 4862 call a second of detection, ns */

    /* What routers say of the link (RFC 4861 6.3.2); until then the defaults of section 10. */
    uint64_t reachable_time, retrans_time;
    uint8_t hop_limit;
    unsigned mtu4, mtu6; /* of IP packets: at most the link's */
    struct group_set *groups;  /* group.c; NULL: none yet */
    struct autoconf *autoconf; /* router.c; NULL: this interface listens to no routers */
};

void netif_init(struct netif *nif, struct stack *s, struct link *l, int index);
void netif_free(struct netif *nif);
void netif_wake(struct netif *nif, uint64_t due);

static inline unsigned netif_mtu(const struct netif *nif, bool v4) { return v4 ? nif->mtu4 : nif->mtu6; }

static inline bool address_usable(const struct netif_addr *a)
{
    return a->state == ADDRESS_OPTIMISTIC || a->state == ADDRESS_PREFERRED || a->state == ADDRESS_DEPRECATED;
}
/* Its entry, whatever its state, or NULL. */
struct netif_addr *netif_find(struct netif *nif, const struct addr *a);
/* Is it a usable address of this interface? */
bool netif_has(const struct netif *nif, const struct addr *a);
/* 255.255.255.255, or the last address of one of its networks (RFC 1122 3.2.1.3 (c), (d)). */
bool netif_is_broadcast(const struct netif *nif, const struct addr *a);
/* The best source for dst (RFC 6724 5), or NULL. */
const struct addr *netif_source(const struct netif *nif, const struct addr *dst);
/* The usable link-local address (IPv6), or NULL. */
const struct addr *netif_linklocal(const struct netif *nif);

/* bits: of 128. NULL and *error: EINVAL, EEXIST, ENOBUFS. */
struct netif_addr *netif_add(struct netif *nif, const struct addr *a, unsigned bits, unsigned flags, unsigned origin,
                             int *error);
void netif_set_lifetimes(struct netif *nif, struct netif_addr *a, uint64_t preferred_until, uint64_t valid_until);
void netif_remove(struct netif *nif, struct netif_addr *a);
/* Something is not as it was, and Python has not done it: tell it. */
void netif_changed(struct netif *nif);

/* --- detect.c: is an address free, and does it stay ours (RFC 5227, RFC 4862 5.4) --- */
void detect_start(struct netif *nif, struct netif_addr *a);
/* The steps that are due; when the next is. */
uint64_t detect_run(struct netif *nif);
/* Heard: somebody at `mac` has this address too, or wants it (only_probing: asks whether it is free). */
void detect_conflict(struct netif *nif, struct netif_addr *a, const uint8_t *mac, bool only_probing);
/* Tell the neighbours where it is, at once and once more. */
void detect_announce(struct netif *nif, struct netif_addr *a);

/* --- router.c, slaac.c: what routers say (RFC 4861 6.3, RFC 4862 5.5) --- */
uint64_t router_run(struct netif *nif);
void router_free(struct netif *nif);
/* A prefix to form addresses in, lifetimes in seconds (0xffffffff: for ever). */
void slaac_prefix(struct netif *nif, const struct addr *prefix, uint32_t preferred, uint32_t valid);
/* An address that a router or we ourselves had formed is taken: try the next one of its prefix. */
void slaac_duplicate(struct netif *nif, const struct netif_addr *a);
/* The neighbour cache found that this neighbour is reachable again, is not, or is no router any more. */
void router_reachability(struct netif *nif, const struct addr *router);
void router_demoted(struct netif *nif, const struct addr *router);

#endif
