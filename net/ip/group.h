/* Multicast groups: which ones an interface hears, for whom, and what it tells the routers (RFC 3376, RFC 3810 and
 * their predecessors). One state machine for both families in group.c; igmp.c and mld.c read and write the messages.
 *
 * Ownership: a membership is its socket's; the interface's state of a group is made of all memberships of it, and lives
 * as long as there is one, or as routers are still to be told that there is none. */
#ifndef LIBOS_GROUP_H
#define LIBOS_GROUP_H

#include "net/stack.h"

#define GROUPS_MAX 128        /* of an interface */
#define MEMBERSHIPS_MAX 20    /* of a socket (Linux: igmp_max_memberships) */
#define MEMBER_SOURCES_MAX 10 /* of a membership (Linux: igmp_max_msf) */
#define GROUP_SOURCES_MAX 64  /* of a group on an interface */

struct group;

/* A socket hears a group on an interface: from these sources alone, or (exclude) from all but these. */
struct membership {
    struct membership *next;    /* of the socket */
    struct membership *sibling; /* of the group */
    struct group *group;
    bool exclude;
    uint8_t nsources;
    struct addr sources[MEMBER_SOURCES_MAX];
};

void groups_init(struct stack *s);
void groups_free(struct netif *nif);

/* An address of ours has come or gone: its solicited-node group (RFC 4291 2.7.1). */
void group_address_added(struct netif *nif, const struct addr *a);
void group_address_removed(struct netif *nif, const struct addr *a);

/* Does the interface take packets to this group? */
bool group_joined(const struct netif *nif, const struct addr *group);
/* Does a socket with these memberships want a packet to `group` from src? all: also where it has no membership. */
bool group_wanted(const struct membership *list, bool all, const struct netif *nif, const struct addr *group,
                  const struct addr *src);

enum group_change { GROUP_JOIN, GROUP_LEAVE, GROUP_ADD_SOURCE, GROUP_DROP_SOURCE, GROUP_BLOCK, GROUP_UNBLOCK };
/* Change a socket's list. source: of the last four. 0; -EADDRINUSE, -EADDRNOTAVAIL, -EINVAL, -ENOBUFS as in ip(7). */
int group_change(struct netif *nif, struct membership **list, enum group_change change, const struct addr *group,
                 const struct addr *source);
void group_leave_all(struct membership **list);

/* --- between the state machine and the messages --- */

/* Record types (RFC 3376 4.2.12, RFC 3810 5.2.12). */
enum { IS_IN = 1, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK };
#define GROUP_V1 1 /* what the queriers of the link speak, for both: IGMPv1 */
#define GROUP_V2 2 /* IGMPv2, MLDv1 */
#define GROUP_V3 3 /* IGMPv3, MLDv2 */

struct group_query {
    struct addr group; /* any: a general query */
    const uint8_t *sources;
    unsigned nsources;
    uint8_t version;      /* GROUP_* */
    uint64_t max_delay;   /* of the answer */
    unsigned robustness;  /* 0: not said */
    uint64_t interval;    /* 0: not said */
};
/* RFC 3376 4.1.1, 4.1.7; RFC 3810 5.1.9: a number that has an exponent from 128 on. */
static inline unsigned group_float8(unsigned v) { return v < 128 ? v : ((v & 15) | 16) << ((v >> 4 & 7) + 3); }
void group_queried(struct netif *nif, bool v4, const struct group_query *q);
/* Another host has told the routers (IGMPv2, MLDv1): we need not. */
void group_reported(struct netif *nif, const struct addr *group);

/* p holds the records, after GROUP_REPORT_HLEN bytes for the header; `records` of them. Takes p. */
#define GROUP_REPORT_HLEN 8
void igmp_send_report(struct netif *nif, struct pbuf *p, unsigned records);
void mld_send_report(struct netif *nif, struct pbuf *p, unsigned records);
/* The messages of older versions. */
void igmp_send_old(struct netif *nif, const struct addr *group, unsigned version, bool leave);
void mld_send_old(struct netif *nif, const struct addr *group, bool leave);

#endif
