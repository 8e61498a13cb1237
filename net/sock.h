/* Sockets: what TCP and UDP have in common, the table of their ids, and how a packet finds its socket.
 *
 * Ownership: a socket lives in the table from sock_new() until sock_destroy(). Its owner above knows it by id only;
 * after sock_free() the id is dead at once, while a TCP connection may live on as an orphan until it has said its FIN.
 *
 * Events are levels: ops->ready() computes which hold now. A socket that may have something to report is on the
 * stack's ready list; it leaves the list when it is asked and has nothing. */
#ifndef LIBOS_SOCK_H
#define LIBOS_SOCK_H

#include "net/stack.h"

struct sock_ops {
    unsigned (*ready)(struct sock *k);             /* EV_* that hold now */
    void (*output)(struct stack *s, struct sock *k); /* it was dirty: send what can be sent */
    void (*release)(struct stack *s, struct sock *k); /* free its queues: it is about to go */
};

struct sock_node {
    struct sock *next, *prev;
};

struct sock {
    const struct sock_ops *ops;
    int64_t id;
    uint8_t type; /* SOCK_STREAM, SOCK_DGRAM */
    uint8_t family;
    uint8_t ttl, hops; /* IP_TTL, IPV6_UNICAST_HOPS; 0: the stack's own */
    uint8_t discover;  /* IP_PMTUDISC_*: how it treats what is larger than the path */
    uint8_t tos;  /* DSCP and ECN of what it sends (IP_TOS, IPV6_TCLASS); of TCP the ECN bits are the protocol's */
    bool orphan;  /* its owner has let go of it */
    bool recverr; /* IP_RECVERR: of ICMP errors, all */
    bool v6only, reuseaddr, reuseport;
    bool bind_no_port; /* IP_BIND_ADDRESS_NO_PORT */
    bool dirty_on, ready_on; /* on those lists */
    uint8_t hashed;    /* enum hashed */
    uint8_t ifindex;   /* SO_BINDTOIFINDEX: only on this interface, and the zone of what it is told; 0: on any */
    uint16_t want; /* EV_READ, EV_WRITE */
    uint8_t priority; /* SO_PRIORITY and SO_MARK: kept for who asks; nothing here goes by them */
    int16_t error; /* pending, positive errno */
    int16_t linger; /* SO_LINGER: seconds; -1: off */
    struct addr local, remote;
    uint16_t lport, rport; /* rport 0: not connected */
    uint32_t mark;         /* SO_MARK */
    struct sock *chain; /* in the hash table */
    struct sock_node dirty, ready;
};

enum hashed { HASHED_NOT, HASHED_BOUND, HASHED_CONNECTED };

#define BOUND_BUCKETS 1024

struct sock_table {
    struct sock **slots;
    uint32_t *generations;
    uint32_t *spare; /* free slots, a ring: each rests for as long as it can, so that its ids are long in coming again */
    uint32_t cap, next_spare, nspare, count;
    struct sock **connected, **bound; /* buckets: by 4-tuple; by protocol and local port */
    uint32_t connected_mask;
    struct sock *any_stream, *any_dgram; /* any-destination stacks: whoever takes every port */
    uint32_t connections[BOUND_BUCKETS]; /* how many connected ones have a port of that bucket */
};
/* What a socket takes in these: a slot, its generation, a place among the spare ones, a bucket. */
#define SOCK_TABLE_BYTES (2 * sizeof(struct sock *) + 2 * sizeof(uint32_t))

int sock_table_init(struct stack *s);
void sock_table_free(struct stack *s);

/* size: of the struct that begins with a struct sock; zeroed. NULL and *error: EMFILE at the bound, ENOMEM. */
struct sock *sock_new(struct stack *s, size_t size, const struct sock_ops *ops, int type, int family, int *error);
struct sock *sock_find(struct stack *s, int64_t id); /* for a call from Python. NULL: dead, or an orphan */
struct sock *sock_find_any(struct stack *s, int64_t id); /* an orphan, too */
void sock_destroy(struct stack *s, struct sock *k);
void sock_orphan(struct stack *s, struct sock *k); /* its owner has let go: no event will name it any more */

static inline unsigned sock_ttl(const struct sock *k, const struct addr *dst) { return addr_is4(dst) ? k->ttl : k->hops; }

void sock_mark_dirty(struct stack *s, struct sock *k);
void sock_mark_ready(struct stack *s, struct sock *k);
void sock_fail(struct stack *s, struct sock *k, int error); /* note the error, and an event */

/* Hashing: a socket is in one of the two tables, or in none. */
void sock_hash_bound(struct stack *s, struct sock *k);
void sock_hash_connected(struct stack *s, struct sock *k);
void sock_unhash(struct stack *s, struct sock *k);
static inline unsigned sock_port_bucket(int type, unsigned port)
{
    return (port + (unsigned)type * 7919u) % BOUND_BUCKETS;
}
static inline struct sock **sock_bound_bucket(struct stack *s, int type, unsigned port)
{
    return &s->socks->bound[sock_port_bucket(type, port)];
}
struct sock *sock_lookup_connected(struct stack *s, int type, const struct addr *local, unsigned lport,
                                   const struct addr *remote, unsigned rport);
/* The best match among bound ones, of TCP among listeners: connected to this remote, then bound to this address, then
 * any. */
struct sock *sock_lookup_bound(struct stack *s, int type, const struct addr *local, unsigned lport,
                               const struct addr *remote, unsigned rport);
/* Each of those that hear it, one after the other: the next after k, the first after NULL. */
struct sock *sock_next_hearing(struct stack *s, struct sock *k, int type, const struct addr *local, unsigned lport,
                               const struct addr *remote, unsigned rport);
/* ports.c */
/* Would binding k to addr:port clash? */
bool sock_port_taken(struct stack *s, const struct sock *k, const struct addr *addr, unsigned port);
/* A free ephemeral port for k (RFC 6056 3.3.1: random start); remote given: only the 4-tuple must be free, or, if none
 * is, in a TIME-WAIT that may be cut short. 0: none. */
unsigned sock_pick_port(struct stack *s, const struct sock *k, const struct addr *local, const struct addr *remote,
                        unsigned rport);

void sock_output_dirty(struct stack *s);
unsigned sock_collect_events(struct stack *s, uint64_t *out, unsigned max);
/* Who is meant by 0.0.0.0 or :: as a destination: this host, as Linux has it, under the address that k is bound to. */
struct addr sock_this_host(const struct sock *k, const struct addr *any);
void sock_fill_name(const struct sock *k, int which, struct sock_name *out);

/* An address is ours no more: connections from it end (ECONNABORTED), connected datagram sockets are told. Looks at
 * every socket, which is good enough for what happens by hand or once in days. */
void sock_address_gone(struct stack *s, const struct addr *a);

#endif
