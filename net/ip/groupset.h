/* What the files of group membership share: the state of an interface (group.c), and reports about it (report.c). */
#ifndef LIBOS_GROUPSET_H
#define LIBOS_GROUPSET_H

#include "net/ip/group.h"

/* RFC 3376 8, RFC 3810 9 */
#define ROBUSTNESS 2
#define QUERY_INTERVAL (125ull * SECOND)
#define REPORT_INTERVAL (1ull * SECOND)
#define OLD_REPORT_INTERVAL (10ull * SECOND) /* RFC 2236 8.10, RFC 2710 7.10 */

struct group_source {
    struct addr addr;
    bool listed;    /* in the filter; else it was, and that is still to be told */
    uint8_t resend; /* how often its change is still to be told */
};

struct group {
    struct group *next;
    struct netif *nif;
    struct addr addr;
    unsigned own; /* addresses of ours whose solicited-node group it is */
    struct membership *members;
    bool exclude;
    uint8_t mode_resend, nsources, nasked;
    struct group_source *sources;
    struct addr *asked;            /* sources that a pending answer is to be about; none: all */
    uint64_t report_at, answer_at; /* or REACTOR_NEVER */
};

struct group_family {
    unsigned robustness;
    uint64_t interval;
    uint64_t older_until[GROUP_V3]; /* by version: until when its queriers are reckoned with */
    uint64_t answer_at;             /* to a general query */
};

struct group_set {
    struct group *first;
    unsigned count;
    struct group_family family[2]; /* IPv4, IPv6 */
};

/* Which version the link speaks now. */
unsigned group_version(struct netif *nif, bool v4);

/* --- report.c --- */

/* A message under way: records are added until it is full. */
struct group_report {
    struct netif *nif;
    bool v4;
    struct pbuf *p;
    unsigned records;
};
/* What has changed; how often that is still to be told after this. */
unsigned group_report_change(struct group_report *r, struct group *g);
/* How things are, as far as was asked; all: of all of it. */
void group_report_state(struct group_report *r, const struct group *g, bool all);
void group_report_send(struct group_report *r); /* if there is anything in it */
void group_send_old(struct netif *nif, const struct addr *group, unsigned version, bool leave);

#endif
