/* What Python may call of net/: a stack, its links, its sockets.
 *
 * A stack is one host's TCP/IP, without I/O, clock or randomness of its own: one struct, no statics. Frames enter from
 * its links, leave to its links; time is given on each entry; the seed is given at birth. It is driven in one of two
 * ways: attached to a reactor as a poller (stack_poller), or by hand (stack_run, stack_events), as tests and the
 * simulation do.
 *
 * All calls return 0, a count, an id, or -errno. Times are ns. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; ports
 * are in host order. A socket id names one socket for ever: after sock_free() it answers -EBADF.
 *
 * Ownership: a stack owns its packet buffers, sockets and neighbours. A link owns its queues; stack_add_link() makes
 * the stack the link's owner too, and stack_free() frees it. A wrapper link owns the link it wraps. */

struct reactor; /* sched/api.h */
struct poller;
struct stream_ops; /* sched/stream.h */
struct stack;
struct link;
struct sock_name;

/* --- the stack --------------------------------------------------------------------------------------------------- */

#define STACK_ANY_DESTINATION 1 /* a gateway: takes packets for every address as its own */
#define STACK_ACCEPT_REDIRECTS 4 /* believes a router of its own that another one is nearer (RFC 4861 8) */
#define STACK_FORWARD4 8  /* a router: passes on what is for others (net.ipv4.ip_forward) */
#define STACK_FORWARD6 16 /* the same for IPv6 (net.ipv6.conf.all.forwarding) */
#define STACK_NO_REPORTS 2      /* tells nobody which groups it has joined: there is no multicast router */

struct stack_config {
    uint64_t seed[2];       /* keys every hash and every random choice */
    uint64_t memory;        /* bytes of packet buffers at most */
    uint32_t sockets;       /* sockets at most */
    uint32_t rcvbuf;        /* bytes: receive buffer that a TCP socket begins with */
    uint32_t sndbuf;        /* bytes: send buffer that a TCP socket begins with */
    uint32_t rcvbuf_max;    /* bytes they may grow to, as the path needs it; not above the first: they stay as they are */
    uint32_t sndbuf_max;
    uint32_t notsent_lowat; /* bytes: default TCP_NOTSENT_LOWAT; 0: none */
    uint32_t mtu_probing;   /* 0: off, 1: where a path's MTU is less than the link's, 2: on every connection */
    uint32_t quickacks;     /* segments that are acknowledged at once when a peer begins to send */
    uint32_t flags;         /* STACK_* */
    uint32_t ecn;           /* of TCP (RFC 3168): 0 off, 1 asks for it, 2 only where the peer asks */
};

int stack_new(struct stack **out, const struct stack_config *config, uint64_t now);
void stack_free(struct stack *s);
struct poller *stack_poller(struct stack *s);

/* By hand: timers and output up to now; returns the next deadline. Events as reactor_turn() gives them, base 0. */
uint64_t stack_run(struct stack *s, uint64_t now);
int stack_events(struct stack *s, uint64_t *events, unsigned max);

#define STACK_INTERFACES_MAX 8 /* the first is loopback */
int stack_add_link(struct stack *s, struct link *l); /* the interface index, 1 and up */
/* An interface for the frames with this tag (1 to 4094) on another one's link; its index. -EEXIST. */
int stack_add_vlan(struct stack *s, int ifindex, unsigned id);
/* gateway NULL: on the link itself. remove: -ESRCH. */
int stack_add_route(struct stack *s, int ifindex, const uint8_t *dest, unsigned prefix, const uint8_t *gateway);
int stack_remove_route(struct stack *s, int ifindex, const uint8_t *dest, unsigned prefix, const uint8_t *gateway);
struct stack_route {
    uint8_t dest[16];
    uint8_t gateway[16]; /* all zero: on the link itself */
    uint8_t source[16];  /* what packets carry that chose none; all zero: the best address of the interface */
    int32_t ifindex;
    uint32_t metric; /* the lowest is taken */
    uint32_t mtu;    /* 0: the link's */
    uint8_t prefix;
};
/* set: in place of the one with the same destination, interface and metric, or a new one. delete: -ESRCH; a gateway
 * must be the route's if one is named. */
int stack_set_route(struct stack *s, const struct stack_route *route);
int stack_delete_route(struct stack *s, const struct stack_route *route);
/* The first route at or after *cursor, the one that is tried first; advances it. 1, or 0 at the end. */
int stack_next_route(struct stack *s, uint64_t *cursor, struct stack_route *out);
/* The source address that a packet to dest would carry. -ENETUNREACH. */
int stack_source(struct stack *s, const uint8_t *dest, uint8_t *source);

/* The Internet checksum of data (RFC 1071), in host order, inverted as it stands in a header. */
uint16_t inet_checksum(const uint8_t *data, size_t len);

/* Congestion control of new TCP sockets, by name: "cubic" (at first), "reno". -ENOENT. */
int stack_set_congestion(struct stack *s, const char *name);
const char *stack_congestion_name(struct stack *s, unsigned i); /* of the i-th that there is; NULL behind the last */

/* A controller outside of C (see tcp/cong_script.c), from now on known by this name. beta: thousandths of the window
 * that remain after a loss, 100 to 1000. Its index; -EEXIST, -EINVAL, -ENOSPC. */
int stack_cong_register(struct stack *s, const char *name, unsigned beta);

#define CONG_ROUND_FIRST 1      /* of this connection */
#define CONG_ROUND_ENDED 2      /* the connection has; the figures are not complete */
#define CONG_ROUND_LIMITED 4    /* the window was what held the sender back */
#define CONG_ROUND_SLOW_START 8 /* it still grows by itself */
#define CONG_ROUND_LOST 16      /* since the last report: something was lost, and the window cut */
#define CONG_ROUND_TIMEOUT 32
#define CONG_ROUND_MARKED 64 /* by ECN, and the window cut */

struct cong_round {
    int64_t id;          /* the socket's */
    uint32_t controller; /* its index */
    uint32_t flags;      /* CONG_ROUND_* */
    uint64_t now, duration;
    uint64_t rtt_min, rtt_last; /* of those measured in this round; 0: none was */
    uint64_t srtt;
    uint32_t acked, retransmits; /* bytes acknowledged; segments sent again */
    uint32_t cwnd, flight, mss;
};
/* EV_REQUEST of socket id 0 says that there are some. At most max; how many. */
int stack_cong_rounds(struct stack *s, struct cong_round *out, unsigned max);
/* cwnd in bytes, 0: as it is; the first one ends slow start. It counts for nothing while losses are being mended.
 * pacing_rate in bytes/s, 0: by cwnd and RTT. -EBADF: the connection has ended. */
int stack_cong_answer(struct stack *s, int64_t id, uint32_t cwnd, uint64_t pacing_rate);
int stack_cong_fallback(struct stack *s, int64_t id); /* its controller has failed: CUBIC goes on */

/* Counters by their SNMP (nstat) names. */
int stack_counter_count(void);
const char *stack_counter_name(int i);
void stack_counters(struct stack *s, uint64_t *out);

struct stack_memory {
    uint64_t limit, reserved, in_use; /* bytes of packet buffers */
    uint32_t buffers;                 /* packet buffers in use */
    uint32_t sockets;                 /* sockets that exist */
    uint32_t socket_bytes;            /* bytes one TCP socket takes when idle, with its places in the tables */
};
void stack_memory(struct stack *s, struct stack_memory *out);

/* --- addresses --------------------------------------------------------------------------------------------------- */

/* States, see net/ip/netif.h. */
#define ADDRESS_TENTATIVE 0
#define ADDRESS_OPTIMISTIC 1
#define ADDRESS_PREFERRED 2
#define ADDRESS_DEPRECATED 3
#define ADDRESS_DUPLICATE 4 /* somebody else has it: not used, and listed until it is removed */

#define ADDRESS_DETECT 1  /* ask first whether it is free, then announce it (RFC 5227, RFC 4862 5.4) */
#define ADDRESS_AT_ONCE 2 /* and use it meanwhile (RFC 4429) */
#define ADDRESS_KEEP 4    /* once it is ours: defended for ever, never given up (RFC 5227 2.4 (c)) */
#define ADDRESS_NO_ROUTE 8 /* no on-link route to its prefix (RFC 5942) */
#define ADDRESS_RENEW 16  /* if it is there already: only its lifetimes are new */

#define ORIGIN_STATIC 0
#define ORIGIN_LINK_LOCAL 1
#define ORIGIN_SLAAC 2

/* For ever, usable at once, nobody asked. */
int stack_add_address(struct stack *s, int ifindex, const uint8_t *addr, unsigned prefix);
/* Lifetimes end at these times (REACTOR_NEVER: never). */
int stack_set_address(struct stack *s, int ifindex, const uint8_t *addr, unsigned prefix, unsigned flags,
                      uint64_t preferred_until, uint64_t valid_until);
int stack_remove_address(struct stack *s, int ifindex, const uint8_t *addr);

struct stack_address {
    uint8_t addr[16];
    int32_t ifindex;
    uint8_t prefix, state, origin;
    uint8_t rival[6]; /* DUPLICATE: the link address of who has it */
    uint64_t preferred_until, valid_until;
};
/* The first address at or after *cursor; advances it. 1, or 0 at the end. */
int stack_next_address(struct stack *s, uint64_t *cursor, struct stack_address *out);

/* The neighbour cache: states of RFC 4861 7.3.2. */
#define NEIGH_NONE 0
#define NEIGH_INCOMPLETE 1
#define NEIGH_REACHABLE 2
#define NEIGH_STALE 3
#define NEIGH_DELAY 4
#define NEIGH_PROBE 5
#define NEIGH_FAILED 6

struct stack_neighbour {
    uint8_t addr[16];
    uint8_t mac[6]; /* not in INCOMPLETE, FAILED */
    uint8_t state, router;
    int32_t ifindex;
    uint32_t held; /* packets that wait for it */
};
/* The first neighbour at or after *cursor; advances it. 1, or 0 at the end. */
int stack_next_neighbour(struct stack *s, uint64_t *cursor, struct stack_neighbour *out);

/* How long a second of detection and of router solicitation takes, 1 ms to 1 s: less where the link is known to be
 * fast. */
int stack_set_pace(struct stack *s, int ifindex, uint64_t ns);
/* Of IPv4 packets on this interface, 576 to the link's. */
int stack_set_mtu(struct stack *s, int ifindex, unsigned mtu);
/* Tell the neighbours where our addresses are: the link has come up again. */
int stack_announce(struct stack *s, int ifindex);

/* Listen to routers (RFC 4861 6.3): ask for them, take default routes, prefixes, and the rest that they say. */
#define AUTOCONF_ADDRESSES 1 /* form addresses in their prefixes (RFC 4862 5.5, RFC 7217) */
#define AUTOCONF_AT_ONCE 2   /* use these, and the link-local one, before it is known that nobody has them (RFC 4429) */
int stack_autoconf(struct stack *s, int ifindex, unsigned flags);

struct stack_advertised {
    uint8_t heard;          /* a router has spoken */
    uint8_t managed, other; /* DHCPv6 has addresses, has other things (RFC 4861 4.2) */
    uint8_t routers;        /* default routers */
    uint8_t hop_limit;
    uint32_t mtu;
};
int stack_advertised(struct stack *s, int ifindex, struct stack_advertised *out);
/* Name servers and search domains that routers gave (RFC 8106), from *cursor on. 1, or 0 at the end. */
int stack_next_server(struct stack *s, uint64_t *cursor, struct sock_name *out);
int stack_next_domain(struct stack *s, uint64_t *cursor, char name[254]);

/* Socket id 0 stands for the stack itself: EV_READ, once, after addresses, routers or what routers say have changed;
 * EV_WRITE, once, when the alarm is due; EV_REQUEST while stack_cong_rounds() has some to give. A stack has one alarm;
 * REACTOR_NEVER turns it off. */
void stack_set_alarm(struct stack *s, uint64_t when);

/* --- links ------------------------------------------------------------------------------------------------------- */

#define LINK_CSUM 1  /* fills in and has verified transport checksums */
#define LINK_TSO 2   /* takes TCP segments up to 64 KiB and cuts them */
#define LINK_LRO 4   /* may deliver joined TCP segments up to 64 KiB */

struct link_stats {
    uint64_t rx_packets, rx_bytes, rx_dropped;
    uint64_t tx_packets, tx_bytes, tx_dropped;
};

/* Two ends in memory; latency none, order kept. caps: LINK_*. queue: frames held for a receiver at most. */
int link_new_pair(struct link **a, struct link **b, unsigned mtu, unsigned caps, const uint8_t *mac_a,
                  const uint8_t *mac_b, unsigned queue);
/* An open TAP with IFF_VNET_HDR (10-byte header), non-blocking; the link closes fd. mac: our own address on it. */
int link_new_tap(struct link **out, struct reactor *r, int fd, unsigned mtu, unsigned caps, const uint8_t *mac);
/* A link whose frames a test or the simulation moves: see link_inject, link_drain. */
int link_new_manual(struct link **out, unsigned mtu, unsigned caps, const uint8_t *mac, unsigned queue);
/* Wrappers: take over `inner`. */
int link_new_pcap(struct link **out, struct link *inner, int fd, uint64_t epoch_offset, unsigned snaplen, int live);

#define IMPAIR_KEEP_ORDER 1 /* jitter delays, and reorders nothing */

#define JITTER_UNIFORM 0 /* see net/link/latency.c */
#define JITTER_NORMAL 1
#define JITTER_PARETO 2

struct impairment {
    uint32_t loss_ppm, reorder_ppm, duplicate_ppm, corrupt_ppm; /* parts per million of frames */
    uint32_t burst;                                             /* mean length of a run of losses, 0: independent ones */
    uint32_t queue;                                             /* frames held at most, those under way included */
    uint32_t flags;                                             /* IMPAIR_* */
    uint32_t distribution;                                      /* JITTER_* */
    uint64_t queue_bytes;                                       /* bytes held at most, 0: no limit */
    uint64_t delay_ns, jitter_ns;                               /* each way */
    uint64_t rate_bps;                                          /* bits a second, 0: no limit */
    uint64_t buffer_ns;                                         /* what may wait for the line, as time; 0: no limit */
    uint64_t bucket_ns;                                         /* idle time that the line can make good at once */
    uint64_t seed[2];
};
int link_new_impair(struct link **out, struct link *inner, const struct impairment *how);

/* A wire: two links joined, each way with an impairment of its own. A poller; or driven by hand, with wire_run(). Owns
 * the links once it is made. memory: bytes of frames held at most. wire_start() begins to receive. */
struct wire;
struct line_stats {
    uint64_t in_packets, in_bytes, out_packets, out_bytes;
    uint64_t lost, duplicated, corrupted, reordered; /* by choice */
    uint64_t blocked, down;                          /* lost to a partition, to a pulled cable */
    uint64_t dropped;                                /* the line's buffer or the queue was full */
    uint64_t buffer_full;                                /* of these: the buffer of what waits for the line */
    uint64_t refused;                                /* a device would not take a frame, or there was no memory */
    uint64_t held, held_bytes;                       /* under way now */
    uint64_t late_ns, latest_ns;                     /* after they were due, frames came out: in all, and at worst */
    uint64_t digest;                                 /* of all that happened to frames (net/link/line.h) */
};
int wire_new(struct wire **out, struct link *a, struct link *b, const struct impairment *a_to_b,
             const struct impairment *b_to_a, uint64_t memory);
int wire_start(struct wire *w);
int wire_replug(struct wire *w, int end, struct link *l); /* the end's link is freed, l takes its place */
void wire_free(struct wire *w); /* detached from its reactor */
struct poller *wire_poller(struct wire *w);
uint64_t wire_run(struct wire *w, uint64_t now);                    /* the next deadline */
void wire_stats(struct wire *w, int from, struct line_stats *out);  /* from 0: a to b */
/* While it runs, one direction; see net/link/line.h. impair: `how` without its seed, for what goes in from now on.
 * clog: nothing comes out before `until` (REACTOR_NEVER; not after now: what is held comes out). */
void wire_impair(struct wire *w, int from, const struct impairment *how);
void wire_block(struct wire *w, int from, int blocked);
void wire_clog(struct wire *w, int from, uint64_t until);
void wire_set_down(struct wire *w, int down); /* both: what is under way is lost */

/* A learning switch; see net/link/switch.c. ports: at most; stations: addresses known at most, rounded up to a power of
 * two; ageing: how long one is known, ns. */
struct ether_switch;
struct switch_stats {
    uint64_t in_packets, in_bytes; /* sent by who has the port's link */
    uint64_t out_packets, out_bytes;
    uint64_t flooded;              /* of those that came in: to all ports */
    uint64_t filtered;             /* and to none: too short, for this port itself, or for bridges */
    uint64_t dropped;              /* for this port: its queue was full, there was no memory, or it takes none so large */
    uint64_t blocked;              /* for this port: see switch_block() */
};
int switch_new(struct ether_switch **out, unsigned ports, unsigned stations, uint64_t ageing, const uint64_t seed[2]);
void switch_free(struct ether_switch *sw); /* its ports go on until their links are freed */
/* The end of a free port, as link_new_pair() gives one; the port's number, which it keeps until the link is freed.
 * -ENOSPC. */
int switch_plug(struct ether_switch *sw, struct link **out, unsigned mtu, unsigned caps, const uint8_t *mac,
                unsigned queue);
/* A partition: what comes in at `from` does not go out at `to`, until it is lifted or one of the ports is vacant. */
int switch_block(struct ether_switch *sw, unsigned from, unsigned to, int blocked);
int switch_port_stats(struct ether_switch *sw, unsigned port, struct switch_stats *out);
int switch_station(struct ether_switch *sw, const uint8_t *mac, uint64_t now); /* its port, -ENOENT */
uint64_t switch_evicted(struct ether_switch *sw);                             /* stations that made place for others */

void link_free(struct link *l); /* only of a link that no stack owns */
void link_stats(struct link *l, struct link_stats *out);
unsigned link_mtu(struct link *l);

/* Manual links: a frame arrives; the next frame that left, its length or 0 (gso: segment size it is to be cut to). */
int link_inject(struct link *l, const uint8_t *frame, size_t len, uint64_t now);
int64_t link_drain(struct link *l, uint8_t *frame, size_t cap, unsigned *gso);

/* --- sockets ----------------------------------------------------------------------------------------------------- */

struct sock_name {
    uint8_t addr[16];
    uint16_t port;
    uint16_t family; /* AF_INET or AF_INET6 */
    uint32_t ifindex;
};

#define SOCK_LOCAL 0
#define SOCK_REMOTE 1

#define LISTEN_DEFER 1 /* each SYN waits for sock_admit() or sock_reject() */
#define LISTEN_ANY_PORT 2 /* STACK_ANY_DESTINATION: one listener for every address and port */

int64_t sock_open(struct stack *s, int type, int family); /* type SOCK_STREAM or SOCK_DGRAM; the id */
/* addr all zero: any (AF_INET: ::ffff:0.0.0.0). port 0: an ephemeral one, SOCK_DGRAM and listeners at once. */
int sock_bind(struct stack *s, int64_t id, const uint8_t *addr, unsigned port);
int sock_connect(struct stack *s, int64_t id, const uint8_t *addr, unsigned port);
int sock_listen(struct stack *s, int64_t id, unsigned backlog, unsigned flags);
int64_t sock_accept(struct stack *s, int64_t id); /* a connection's id, -EAGAIN */
int sock_admit(struct stack *s, int64_t id);      /* a connection that LISTEN_DEFER held: answer its SYN */
int sock_reject(struct stack *s, int64_t id, int error); /* RST for ECONNREFUSED, ICMP unreachable else; frees it */

/* TCP. send: bytes taken (short: EV_WRITE follows when there is room), -EAGAIN. recv: bytes, 0 at the end of the
 * stream, -EAGAIN. */
int64_t sock_send(struct stack *s, int64_t id, const uint8_t *data, size_t len);
int64_t sock_recv(struct stack *s, int64_t id, uint8_t *buf, size_t cap);
/* Urgent data, which stays in line (RFC 6093). sock_send_urgent: sock_send, and all that is queued is urgent.
 * sock_urgent: bytes to be read up to its end, not all of which need be here yet; 0: none is pending. */
int64_t sock_send_urgent(struct stack *s, int64_t id, const uint8_t *data, size_t len);
int64_t sock_urgent(struct stack *s, int64_t id);
const struct stream_ops *stack_stream_ops(void); /* sched/stream.h: these two, and how much is readable */
int sock_shutdown(struct stack *s, int64_t id); /* FIN after what is queued; reading goes on */
/* UDP. recvfrom: the datagram's length (cut to cap), -EAGAIN; `to` (may be NULL) is where it was sent to. sendto: name
 * NULL on a connected socket; `from` (may be NULL) the source to use on an any-destination stack. */
int64_t sock_sendto(struct stack *s, int64_t id, const uint8_t *data, size_t len, const struct sock_name *name,
                    const struct sock_name *from);
int64_t sock_recvfrom(struct stack *s, int64_t id, uint8_t *buf, size_t cap, struct sock_name *from,
                      struct sock_name *to);

/* The owner is done with it. TCP: FIN (RST if unread data is thrown away, or SO_LINGER says so), then lingers by
 * itself. */
int sock_free(struct stack *s, int64_t id);
int sock_abort(struct stack *s, int64_t id); /* RST, and free */

/* Which events are wanted: EV_READ off is how a protocol pauses reading (level: EV_READ comes again while data waits). */
int sock_want(struct stack *s, int64_t id, unsigned mask);
int sock_error(struct stack *s, int64_t id); /* and clear: an errno, 0 */
int sock_getname(struct stack *s, int64_t id, int which, struct sock_name *out);
int sock_names(struct stack *s, int64_t id, struct sock_name out[2]); /* local, remote (port 0: not connected) */
/* Options by Linux's levels and names. Those of one integer; and any, as getsockopt(2) and setsockopt(2) have it: the
 * bytes of an int, a struct or a name. getsockopt: how many were written, at most cap. */
int64_t sock_getopt(struct stack *s, int64_t id, int level, int name);
int sock_setopt(struct stack *s, int64_t id, int level, int name, int64_t value);
int64_t sock_getsockopt(struct stack *s, int64_t id, int level, int name, void *buf, size_t cap);
int sock_setsockopt(struct stack *s, int64_t id, int level, int name, const void *buf, size_t len);
/* Bytes queued: unread, unsent, unacknowledged. */
int sock_queues(struct stack *s, int64_t id, uint64_t *unread, uint64_t *unsent, uint64_t *unacked);

#define SOCK_TIMESTAMPS 1 /* agreed on (RFC 7323) */
#define SOCK_SACK 2
#define SOCK_WSCALE 4

#define SOCK_TIMER_ON 1 /* as `ss -o` has them: retransmission or loss probe, */
#define SOCK_TIMER_KEEP 2
#define SOCK_TIMER_WAIT 3
#define SOCK_TIMER_PERSIST 4

struct sock_info {
    int64_t id;
    uint32_t type, state; /* by Linux's numbers (include/net/tcp_states.h) */
    struct sock_name local, remote;
    uint64_t rx_queue, tx_queue;
    uint64_t srtt_ns, rttvar_ns, rto_ns;
    uint32_t cwnd, ssthresh; /* bytes */
    uint32_t mss, retransmits;
    /* TCP; bytes, where nothing else is said. LISTEN: rx_queue is how many wait to be accepted, tx_queue how many may. */
    uint32_t flags, timer; /* SOCK_*; SOCK_TIMER_*, the next to go off, 0: none */
    uint64_t timer_ns;     /* until it does */
    uint32_t in_flight, sacked, lost;
    uint8_t wscale_out, wscale_in; /* window scales */
    uint8_t backoff;               /* time-outs in a row */
    uint8_t orphan;                /* its owner has closed it */
    char cong[16];                 /* congestion control */
};
/* The first socket with an id slot at or after *cursor; advances it. 1, or 0 at the end. */
int stack_next_socket(struct stack *s, uint64_t *cursor, struct sock_info *out);
/* Freed TCP sockets that still have bytes or a FIN to get through: what a machine waits for before it goes down. */
int stack_lingering(struct stack *s);
