/* One host's TCP/IP: everything that its parts share. See api.h for what it offers upward.
 *
 *   link -> ether_input -> arp_input | ip4_input | ip6_input (-> reass_input ->) icmp_input | udp_input | tcp_input
 *        -> socket -> events
 *                        ip4_input | ip6_input -> ip_forward -> neigh_output, where the stack is a router
 *   socket -> tcp_output | udp_output -> ip_output -> neigh_output -> link
 *
 * Invariants: every entry (a frame, a run, a call from Python) sees a consistent stack and leaves one. Input never
 * sends data by itself; it marks sockets dirty, and stack_run() lets each dirty socket send once. Only answers that
 * belong to no socket (ARP, echo, errors, RST) go out at once. Nothing here blocks, calls Python or allocates without a
 * bound. */
#ifndef LIBOS_STACK_H
#define LIBOS_STACK_H

#include <stdbool.h>
#include <stdint.h>

#include "net/core/addr.h"
#include "net/counters.h"
#include "net/ip/netif.h"
#include "net/link/link.h"
#include "net/core/pbuf.h"
#include "net/core/rng.h"
#include "net/core/timer.h"
#include "net/tcp/scoreboard.h"

#define NETIFS_MAX STACK_INTERFACES_MAX
#define ROUTES_MAX 64
#define FRAG_IDS 256 /* a power of two */
#define ICMP_BUCKETS 64
#define SECOND 1000000000u
#define MSEC 1000000u
#define HOPS_DEFAULT 64

struct sock;
struct sock_table;
struct cong_ops;
struct cong_scripts;
struct neigh_table;
struct reass;
struct pmtu_table;
struct fastopen_cache;

struct route {
    struct addr dest, gateway, source; /* source any: chosen for each packet */
    uint8_t bits;
    bool on_link, redirected; /* redirected: see redirect.c */
    uint32_t metric, mtu; /* the lower metric first; mtu 0: the link's */
    struct netif *nif;
};

/* A list of sockets that a socket is on at most once. */
struct sock_list {
    struct sock *head, *tail;
};

/* Errors sent to some destinations: see icmp_error.c. */
struct icmp_bucket {
    uint64_t since;
    uint32_t used;
};

struct stack {
    struct poller poller; /* first */
    struct stack_config config;
    struct pbuf_pool pool;
    struct timer_heap timers;
    struct rng rng;
    uint64_t key[2]; /* of all keyed hashes */
    uint64_t now;    /* of the last entry: for calls from Python, which give no time */

    struct netif netifs[NETIFS_MAX]; /* the first is loopback */
    unsigned nnetifs;
    struct route routes[ROUTES_MAX]; /* longest prefix first, of those the lowest metric, of those the oldest */
    unsigned nroutes;
    struct neigh_table *neighs;
    struct pmtu_table *pmtus; /* pmtu.c; NULL: none known */
    bool changed;   /* addresses, routers: Python is to be told once */
    uint64_t alarm; /* when Python wants to be called, or REACTOR_NEVER */

    struct sock_table *socks;
    struct sock_list dirty; /* have something to send */
    struct sock_list ready; /* may have an event to report */
    struct sent_pool sent;  /* records of what TCP has under way */

    const struct cong_ops *cong; /* of new TCP sockets */
    struct cong_scripts *scripts; /* controllers registered from outside; NULL: none */
    uint32_t time_waits; /* connections in TIME_WAIT */
    struct timer group_timer;    /* see group.c */
    struct reass *reass;         /* NULL: no fragment has come yet */
    uint32_t frag_ids[FRAG_IDS]; /* see frag_id() */
    uint32_t orphans;    /* connections that nobody owns any more and that are not there yet */
    struct fastopen_cache *fastopen; /* cookies of servers; NULL: none yet */
    uint32_t fastopen_pending;       /* children whose data was handed up before the handshake ended */
    uint32_t fastopen_resets;        /* and that were reset, up to a while ago */
    uint64_t fastopen_resets_until;
    uint16_t ip_id;
    uint32_t icmp_tokens; /* errors that may still be sent in this second (RFC 1812 4.3.2.8, RFC 4443 2.4(f)) */
    uint64_t icmp_refill;
    struct icmp_bucket icmp_buckets[ICMP_BUCKETS];
    uint32_t challenge_tokens; /* challenge ACKs left in this second (RFC 5961 7) */
    uint64_t challenge_refill;
    uint64_t counters[COUNTER_COUNT];
};

/* Time is what it was told last, and never goes back: differences are unsigned. */
static inline void stack_set_now(struct stack *s, uint64_t now)
{
    if (now > s->now)
        s->now = now;
}

/* A call from Python, which gives no time and may come when nobody turns the stack: see sched/embed.c. */
static inline void stack_called(struct stack *s)
{
    if (s->poller.asleep)
        stack_set_now(s, reactor_wake(s->poller.reactor));
}

/* --- congestion control from outside (tcp/cong_script.c) --- */
bool cong_rounds_waiting(const struct stack *s);
void cong_scripts_free(struct stack *s);

static inline void count(struct stack *s, enum counter c) { s->counters[c]++; }

/* --- where packets go (route.c) --- */
enum { FRAGMENT_NEVER, FRAGMENT_HERE, FRAGMENT_ANYWHERE }; /* the first: IPv4 has DF, in all that is not cut here */
struct path {
    struct netif *nif;
    struct addr src, next; /* source address; next hop */
    uint32_t mtu;          /* the largest packet: of the link, and of the route; pmtu.c knows more of some paths */
    uint8_t fragment;      /* FRAGMENT_*: may a packet larger than that be cut? */
    uint8_t tos;           /* DSCP and ECN (RFC 2474, RFC 3168 5) of what takes it: 0, unless the sender says */
};
/* src any (or NULL): choose one. ifindex: the only interface that will do, or 0; for who is on the link in any case (a
 * group, a link-local address) there need be no route then. False: no route, or no address to send from. */
bool route_find_on(struct stack *s, const struct addr *dst, const struct addr *src, uint32_t ifindex, struct path *path);
static inline bool route_find(struct stack *s, const struct addr *dst, const struct addr *src, struct path *path)
{
    return route_find_on(s, dst, src, 0, path);
}
/* The way of a packet that is passed on. */
bool route_onward(struct stack *s, const struct addr *src, const struct addr *dst, struct path *path);
/* The zone of addresses in packets of this interface. On loopback it is not known: all of ours are there. */
static inline uint32_t zone_of(const struct netif *nif)
{
    return nif->link->caps & LINK_LOOPBACK ? 0 : (uint32_t)nif->index;
}

/* --- how large packets may be (pmtu.c) --- */
#define IP4_PATH_MTU_LEAST 552        /* what claims to be less is an attack */
#define PATH_MTU_LIFE (600ull * SECOND) /* RFC 1191 6.3, RFC 8201 5.3 */
/* A packet to dst with all its headers: the link's MTU, or what is known of the path. 0: no route. */
uint32_t path_mtu(struct stack *s, const struct addr *dst);
uint32_t path_mtu_via(struct stack *s, const struct path *path, const struct addr *dst); /* the route is known */
/* A transport is sure of it (an ICMP message about something it had sent, or its own trying). What it is from now on. */
uint32_t path_mtu_note(struct stack *s, const struct addr *dst, uint32_t mtu);
uint32_t path_mtu_least(const struct addr *dst);

/* bits: of 128. gateway NULL: on the link itself. 0, -ENOBUFS, -ESRCH. */
int route_add(struct netif *nif, const struct addr *dest, unsigned bits, const struct addr *gateway);
void route_drop(struct stack *s, unsigned i); /* of the table */
int route_remove(struct netif *nif, const struct addr *dest, unsigned bits, const struct addr *gateway);
bool stack_is_local(const struct stack *s, const struct addr *a);
/* The same, and nobody else has it: of an optimistic one, that is still to be heard. */
bool stack_owns(const struct stack *s, const struct addr *a);
struct netif *netif_of(struct stack *s, int ifindex); /* NULL: there is none */

/* --- input, each takes p; off: where its header starts --- */
void ether_input(struct link *l, struct pbuf *p, uint64_t now);
void arp_input(struct netif *nif, struct pbuf *p);
void ip4_input(struct netif *nif, struct pbuf *p);
void ip6_input(struct netif *nif, struct pbuf *p);

/* A received packet above IP: p's window starts at the transport header and is as long as IP said. */
struct ip_meta {
    struct netif *nif;
    struct addr src, dst;
    uint32_t ip_off; /* of the IP header, in p's buffer */
    uint8_t proto;
    uint8_t tos; /* IPv4 TOS or IPv6 traffic class: DSCP and ECN */
    uint16_t pointer; /* into an IPv6 packet: the field that named the protocol, or that is to be complained of */
    bool fragmented; /* it came in fragments, or with the header of one */
    bool forwarded; /* for somebody else: it is passed on, or its sender hears of it from us as a router */
    uint32_t mtu;   /* ICMP_TOO_BIG: what would not be */
    bool to_group; /* sent to a multicast or broadcast address, by IP or by Ethernet: no errors in answer */
};
void icmp4_input(struct stack *s, struct pbuf *p, const struct ip_meta *m);
void icmp6_input(struct stack *s, struct pbuf *p, const struct ip_meta *m);
void udp_input(struct stack *s, struct pbuf *p, const struct ip_meta *m);
void tcp_input(struct stack *s, struct pbuf *p, const struct ip_meta *m);
void igmp_input(struct stack *s, const struct pbuf *p, const struct ip_meta *m);
void mld_input(struct stack *s, const struct pbuf *p, const struct ip_meta *m);
void nd_input(struct stack *s, struct pbuf *p, const struct ip_meta *m);

/* Is the transport checksum right? Counts nothing. */
bool ip_csum_ok(const struct pbuf *p, const struct ip_meta *m);

/* --- output, each takes p --- */
/* p starts at the transport header. ttl 0: the default. 0 or -errno. */
int ip_output(struct stack *s, const struct path *path, const struct addr *dst, unsigned proto, unsigned ttl,
              struct pbuf *p);
/* Leave the transport checksum to the link where it can (p starts at the transport header; field offset from there). */
void ip_csum_fill(const struct path *path, const struct addr *dst, unsigned proto, unsigned field, struct pbuf *p);
void ether_output(struct netif *nif, const uint8_t *dst_mac, unsigned ethertype, struct pbuf *p);

/* An ICMP error about the packet p came from (unicast senders only, rate limited). Does not take p. */
enum icmp_error {
    ICMP_NO_PORT,
    ICMP_NO_PROTO,
    ICMP_NO_HOST,
    ICMP_NO_ROUTE,
    ICMP_PROHIBITED,
    ICMP_REASM_TIME,
    ICMP_BAD_FIELD, /* IPv6: m->pointer says which */
    ICMP_BAD_OPTION,
    ICMP_BAD_OPTION_TO_ANY, /* the same, though it was sent to a group */
    ICMP_HIDDEN_HEADERS,
    ICMP_HOPS,         /* the last three are for packets that are passed on */
    ICMP_TOO_BIG,      /* m->mtu says what the next link takes */
    ICMP_BEYOND_SCOPE, /* IPv6 */
};
void icmp_error(struct stack *s, enum icmp_error what, const struct pbuf *p, const struct ip_meta *m);
/* An ICMP error came for a packet of ours with this inner transport header. mtu: of "too big", else 0. hard: it will
 * not pass by itself. */
void tcp_icmp_error(struct stack *s, const struct addr *local, const struct addr *remote, const uint8_t *header,
                    int error, uint32_t mtu);
void udp_icmp_error(struct stack *s, const struct addr *local, const struct addr *remote, const uint8_t *header,
                    int error, bool hard, uint32_t mtu);

#endif
