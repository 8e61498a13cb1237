/* TCP (RFC 9293): one connection or listener, and what the files of this folder say to each other.
 *
 *   tcp.c       life of a connection: open, connect, close, the table of state transitions
 *   listen.c    listeners: SYNs, backlog, accept
 *   cookie.c    SYN cookies, for when there is no room for more children (RFC 4987)
 *   fastopen.c  data in a SYN (RFC 7413)
 *   input.c     a segment arrives
 *   output.c    reasons to send, and building segments
 *   options.c   the options of a segment, read and written
 *   urgent.c    urgent data, in line
 *   queue.c     bytes to send, bytes received in order
 *   reorder.c   bytes received out of order
 *   window.c    how large the buffers may grow, and the window that we tell (RFC 9293 3.8.6, RFC 7323)
 *   mtu.c       how large segments may be on the path
 *   ack.c       when what came is acknowledged (RFC 5681 4.2)
 *   memory.c    what happens when the stack's memory runs short
 *   sack.c      what is said of data that came out of order
 *   scoreboard.c what was sent, and what became of it
 *   recovery.c  what an acknowledgement means: what is lost, how much may be under way
 *   rack.c      losses found by time, and tail loss probes (RFC 8985)
 *   cong*.c     how much may be under way: congestion control behind an interface; round-trip times (RFC 6298)
 *   hystart.c   when slow start is to end before it loses something (RFC 9406)
 *   pace.c      how fast new data may leave
 *   ecn.c       what routers mark instead of dropping (RFC 3168)
 *   timer.c     retransmission, persist, delayed ACK, keepalive, waits
 *   sockopt.c   socket options
 *   info.c      what can be seen from outside: TCP_INFO
 *
 * Invariants: snd_una <= snd_nxt <= snd_max (they differ only while our SYN is to be sent again). `out` holds the bytes
 * from snd_una (after the SYN) on. `in` holds the bytes up to rcv_nxt that were not read. A connection in CLOSED is in
 * no hash table, has no timer and empty queues; if it is an orphan it is destroyed by its next output, never in the
 * middle of an input. */
#ifndef LIBOS_TCP_H
#define LIBOS_TCP_H

#include "net/core/seq.h"
#include <errno.h>

#include "net/sock.h"
#include "net/tcp/scoreboard.h"

/* By Linux's numbers (include/net/tcp_states.h); 0 is nobody's. */
enum tcp_state {
    ESTABLISHED = 1,
    SYN_SENT,
    SYN_RECV,
    FIN_WAIT1,
    FIN_WAIT2,
    TIME_WAIT,
    CLOSED,
    CLOSE_WAIT,
    LAST_ACK,
    LISTEN,
    CLOSING,
    TCP_STATES
};

enum tcp_event {
    ON_CONNECT,    /* the owner opens actively */
    ON_LISTEN,     /* the owner listens */
    ON_SYN,        /* a SYN came (a new child of a listener, or both opened at once) */
    ON_SYN_ACKED,  /* our SYN was acknowledged */
    ON_CLOSE,      /* the owner has nothing more to send */
    ON_FIN,        /* the peer has nothing more to send, and we have all of it */
    ON_FIN_ACKED,  /* our FIN was acknowledged */
    ON_END,        /* reset, given up, or waited long enough */
    TCP_EVENTS
};

enum tcp_timer { T_REXMT, T_REO, T_PTO, T_PERSIST, T_DELACK, T_KEEP, T_WAIT, T_PACE, TCP_TIMERS };

/* Of the sender, by Linux's numbers (tcpi_ca_state); see recovery.c. */
enum ca_state { CA_OPEN, CA_DISORDER, CA_CWR, CA_RECOVERY, CA_LOSS };
enum frto { FRTO_OFF, FRTO_RESENT, FRTO_NEW_SENT };

#define FASTOPEN_OPTION 1 /* our SYN has the option: a request, a cookie to show, or one to give */
#define FASTOPEN_WAIT 2   /* a client with a cookie: its SYN waits for data */
#define FASTOPEN_DATA 4   /* the data of the SYN was taken; in SYN_RECV: a child that may talk already */
#define FASTOPEN_COOKIE_MIN 4  /* RFC 7413 4.1.1 */
#define FASTOPEN_COOKIE_MAX 16

#define TCP_SACKS_MAX 4
struct sack_block {
    seq_t left, right; /* [left, right) */
};

struct tcp;

/* What an acknowledgement told, for congestion control. */
struct ack_sample {
    uint64_t now;
    uint64_t rtt;    /* ns, of the last segment that it acknowledged, if that was sent once; 0: none */
    uint32_t acked;  /* bytes newly acknowledged */
    uint32_t flight; /* bytes in flight before it came */
    bool limited;    /* the window was what held us back when these were sent */
};

enum cong_event {
    CONG_LOST,    /* some were lost, others arrive: fast recovery */
    CONG_TIMEOUT, /* nothing was heard for an RTO: slow start */
    CONG_MARKED   /* ECN: the path is about to lose some */
};

/* How much may be under way. A controller sets cwnd in init, acked and idle; when something was lost or marked it says
 * in ssthresh() which window to go on with, and recovery moves cwnd there (RFC 6937) or to one segment (after a
 * time-out). It keeps its own state in t->cong_state, zeroed before init. */
struct cong_ops {
    const char *name;
    bool paces; /* data is to be spread over the round trip: see pace.c */
    void (*init)(struct tcp *t);                              /* the segment size is known, sending begins */
    void (*acked)(struct tcp *t, const struct ack_sample *a); /* outside of recovery: the window may grow */
    /* Once for each round trip in which something was lost or marked. */
    uint32_t (*ssthresh)(struct tcp *t, uint64_t now, enum cong_event why);
    void (*undo)(struct tcp *t);                 /* nothing was lost; cwnd and ssthresh are as before already */
    void (*idle)(struct tcp *t, uint64_t now);   /* nothing was sent for longer than an RTO */
    void (*release)(struct tcp *t);              /* NULL: nothing to free */
};
#define CONG_STATE_WORDS 10

struct listener {
    struct tcp *first, *last; /* accept queue: children that are established, or held (LISTEN_DEFER) */
    struct tcp *half;         /* SYN queue: children in SYN_RECV */
    unsigned backlog, flags;
    unsigned queued, halves;
    bool cookies;        /* some were sent, at last... */
    uint64_t cookies_at; /* ...then */
};

/* What a child has until it was accepted, and if it is held until it is admitted. */
struct child {
    struct tcp *parent, *next, *prev; /* parent NULL: accepted */
    struct pbuf *syn;                 /* of a held child: the packet */
    bool half;                        /* on its parent's `half`, not its accept queue */
    bool syn_acked; /* its SYN was acknowledged, and more is waited for (defer_accept) */
};

/* Ordered by what belongs together, and so that small members fill the gaps: there may be very many of these. */
struct tcp {
    struct sock k; /* first */
    struct timer timer;
    uint64_t due[TCP_TIMERS]; /* 0: off */
    uint8_t state;
    uint8_t shift_out, shift_in; /* window scales (RFC 7323 2) */
    bool ws_ok, ts_ok, sack_ok;  /* window scales, timestamps, SACK: offered by us; then, agreed on */
    bool nodelay, keepalive, cork, quickack;
    bool held; /* a LISTEN_DEFER child whose SYN is not answered yet */
    bool mtu_halves;    /* mtu_high itself was tried */
    bool mtu_hole;      /* lessened after time-outs, nothing acknowledged since */
    uint8_t ecn; /* explicit congestion notification: ecn.c's flags */
    uint16_t mss;      /* payload bytes of a full segment to send, options taken off */
    uint16_t peer_mss; /* what its SYN said */
    uint16_t adv_mss;  /* what our SYN says */
    uint16_t user_mss; /* TCP_MAXSEG: no more than that, either way; 0: no bound */
    uint16_t mtu;      /* of the path, from the link or an ICMP message */
    uint16_t mtu_high;  /* what it may be, as far as it is looked for; 0: it is not. See mtu.c */
    uint16_t mtu_probe; /* of the probe under way; 0: none */
    seq_t mtu_probe_seq;
    uint32_t mtu_retry; /* s: no probe before */

    /* Sending. */
    seq_t iss, snd_una, snd_nxt, snd_max;
    seq_t snd_wl1, snd_wl2; /* what the last window update came with */
    uint32_t snd_wnd, snd_wnd_max;
    seq_t ecn_high; /* the window was cut for marks (RFC 3168) up to here */
    struct pbuf_list out;
    uint32_t out_bytes;
    uint32_t out_limit, out_max; /* it may hold this much; the limit may grow to that by itself */
    uint32_t notsent_lowat;      /* writable only while less than this is unsent (TCP_NOTSENT_LOWAT); 0: however much */
    struct out_cursor {
        struct pbuf *p; /* NULL: not known */
        uint32_t off;
        seq_t seq;
    } cursors[2]; /* where new data and what is sent again begin in `out`, to spare the walk */
    bool fin_wanted;  /* FIN after the last byte */
    bool fin_sent;    /* at least once */
    bool probe_now;   /* the persist or keepalive timer wants a segment that makes the peer answer */
    bool urgent_out; /* what is before snd_up is urgent (urgent.c) */
    seq_t snd_up;
    bool override_now; /* the persist timer found a small window: send into it (RFC 9293 3.8.6.2.1 (4)) */
    bool rexmit_now;  /* recovery wants a segment sent again, whatever the window */
    bool probe_tail;  /* a tail loss probe is due */
    bool bursts;      /* the link takes segments longer than mss, and cuts them (LINK_TSO) */

    /* Receiving. */
    seq_t irs, rcv_nxt;
    seq_t rcv_adv;  /* right edge of the window we have told: never goes back */
    struct pbuf_list in;
    struct pbuf *ooo;      /* out of order, by sequence number, not overlapping: see reorder.c */
    struct pbuf *ooo_last; /* the run that was touched last */
    uint32_t ooo_held;     /* bytes of buffers on `ooo` */
    uint16_t ooo_runs;
    uint16_t rcv_mss;      /* the size of the peer's segments, as far as seen */
    uint32_t in_bytes, in_held;  /* unread bytes on `in`; bytes of the buffers they are in */
    uint32_t in_limit, in_max;   /* unread bytes it may hold; the limit may grow to that by itself */
    uint32_t rcv_lowat;          /* readable from this many bytes on (SO_RCVLOWAT) */
    bool refused;                /* in-order data found no memory: the peer must stop, see memory.c */
    bool opened;                 /* something was read since a window was told */
    bool fin_in;                 /* everything has come, the FIN too */
    bool urgent_in;              /* what is before rcv_up is urgent, and not all was read */

    /* Right-sizing of the receive buffer: bytes read in one round trip, see window.c. */
    uint64_t read_since, rcv_rtt_since; /* when these were begun */
    uint32_t read_bytes, read_before;   /* in this round trip; the most in one before */
    uint32_t rcv_rtt;                   /* us; 0: not known yet */
    uint32_t rcv_rtt_echo;              /* TSecr that was measured last */
    seq_t rcv_rtt_seq;                  /* when this has come, a window has passed */

    /* Acknowledging, see ack.c. */
    uint32_t unacked_in; /* bytes taken in since we last sent an ACK */
    uint64_t last_data;  /* when data came last */
    uint32_t ato;        /* ns: how long an ACK waits for something to go with */
    uint8_t quick;       /* segments that are still to be acknowledged at once */
    bool ping_pong;      /* we answer data with data, which carries the ACK */
    bool ack_now, ack_later;
    seq_t rcv_up;
    uint8_t blocks_held; /* SACK blocks to tell of */
    bool twice;          /* and a duplicate */
    uint8_t dupacks_owed; /* segments out of order since rcv_nxt last moved, not yet answered each by an ACK */
    uint8_t small_in;     /* segments smaller than rcv_mss since we last sent an ACK; 2: or more */
    struct sack_block blocks[TCP_SACKS_MAX], block_twice;

    /* Timestamps (RFC 7323): in ms, with an offset of its own for each connection. */
    uint32_t ts_offset, ts_recent;
    uint64_t ts_recent_at;
    seq_t last_ack_sent;
    seq_t rtt_seq;        /* what ends the round trip that the last sample was of */
    uint32_t min_rtt_at;  /* s */
    uint32_t stray_acked; /* ms: when an empty segment outside the window was last answered */

    /* Round-trip time (RFC 6298), ns. */
    uint64_t srtt, rttvar, rto, min_rtt;

    /* Congestion and recovery, bytes. */
    const struct cong_ops *cong;
    uint64_t cong_state[CONG_STATE_WORDS]; /* the controller's own */
    uint32_t cwnd, ssthresh;
    uint8_t ca, frto; /* enum ca_state, enum frto */
    uint8_t dupacks;
    bool undo;        /* a reduction may be taken back: see below */
    seq_t recover;    /* the end of what was sent when ca was entered */
    seq_t limited;    /* the end of what was sent when cwnd last held us back */
    uint32_t prr_delivered, prr_out, prr_flight; /* RFC 6937, bytes */
    struct scoreboard sb;
    uint32_t dup_bytes; /* without SACK: what duplicate ACKs say has arrived */
    /* To take a reduction back. */
    seq_t undo_end;                     /* after recovery: until this is acknowledged */
    uint32_t prior_cwnd, prior_ssthresh, undo_bytes; /* sent again, and not said to have come twice */
    seq_t probe_end; /* of a tail loss probe: see below */
    union {
        uint64_t first_again; /* when the first was sent again; 0: none yet */
        uint64_t rtt_start;   /* before it is established: our SYN was sent, if rtt_timing */
    };
    /* RACK-TLP (RFC 8985): the newest segment delivered, by time sent; the highest; how much disorder to expect. */
    uint64_t rack_time, rack_rtt;
    seq_t rack_end, rack_fack, reo_round;
    uint8_t reo_steps, reo_persist;
    bool reordering;
    bool probing, probe_again; /* a tail loss probe is under way; it was a retransmission */
    uint8_t backoff;           /* time-outs in a row */
    uint8_t keep_count, keep_sent;
    uint32_t retransmits; /* segments, in all */
    uint16_t keep_idle, keep_interval; /* seconds */
    uint32_t dsack_dups;  /* segments that came twice, says the peer */
    uint64_t last_sent;

    /* Counted, for who asks (RFC 4898). Segments; bytes of payload. */
    uint32_t segs_in, segs_out, data_segs_in, data_segs_out;
    uint64_t bytes_acked, bytes_received, bytes_retrans;

    /* Pacing: bytes a second, 0 for none. */
    uint32_t pacing_rate;     /* the controller's own; 0: from cwnd and srtt */
    uint32_t pacing_rate_max; /* SO_MAX_PACING_RATE; 0: none */
    uint64_t pace_next;       /* when what was sent has had its time */

    uint64_t last_heard;
    uint32_t progress;  /* ms: when the peer last took or sent something new */
    uint32_t confirmed; /* ms: when the neighbour cache was last told of that (RFC 4861 7.3.1) */

    /* How long to try. */
    uint8_t syn_retries;    /* TCP_SYNCNT; 0: the default */
    uint8_t defer_accept;   /* of a listener: time-outs of a child's SYN that its data is waited for */
    int8_t linger2;         /* seconds in FIN-WAIT-2 without an owner; 0: TCP_WAIT; below 0: none */
    uint8_t fastopen;       /* FASTOPEN_* */
    bool fastopen_connect;  /* TCP_FASTOPEN_CONNECT */
    bool syn_again;         /* the SYN, ACK of a FASTOPEN_DATA child is to be sent again */
    uint16_t fastopen_max;  /* TCP_FASTOPEN of a listener; 0: off */
    uint16_t syn_data;      /* bytes that went with our SYN, not yet known whether taken */
    bool rtt_timing;        /* our SYN is under way, and was sent once */
    bool counted_orphan;    /* in stack.orphans */
    uint16_t soft_error;    /* errno: what ICMP last said of the path; forgotten when the peer acknowledges something */
    uint32_t user_timeout;  /* ms, TCP_USER_TIMEOUT; 0: none */
    uint32_t stalled_at;    /* ms: when `backoff` was last 0 and a timer ran out */

    struct child *child;       /* NULL: never was one, or is one no more */
    struct listener *listener; /* since it was in LISTEN */
};

static inline struct tcp *tcp_of(struct sock *k) { return (struct tcp *)k; }
/* The listener that it waits at to be accepted, or NULL. */
static inline struct tcp *tcp_parent(const struct tcp *t) { return t->child ? t->child->parent : NULL; }
/* Its handshake is not over, but it has shown a cookie, and so may receive and send (RFC 7413). Its snd_una is beyond
 * its SYN from when that was first sent. */
static inline bool tcp_is_fast_child(const struct tcp *t)
{
    return t->state == SYN_RECV && t->fastopen & FASTOPEN_DATA;
}

/* A segment that arrived, checked: payload is p's window. */
struct segment {
    seq_t seq, ack;
    uint32_t len; /* of the payload; SYN and FIN not counted */
    uint32_t wnd; /* as sent, not scaled */
    uint32_t tsval, tsecr;
    uint16_t sport, dport;
    uint16_t mss;
    uint16_t up; /* urgent pointer, as sent */
    uint8_t flags;
    int8_t wscale; /* -1: no option */
    bool has_ts;
    bool sack_permitted; /* in a SYN (RFC 2018 2) */
    bool has_cookie;     /* in a SYN, of Fast Open (RFC 7413 2): a request if cookie_len is 0 */
    uint8_t cookie_len, cookie[FASTOPEN_COOKIE_MAX];
    uint8_t sacks;       /* blocks in `sack` (RFC 2018 3) */
    struct sack_block sack[TCP_SACKS_MAX];
    struct pbuf *p;
    const struct tcp *old; /* the connection in TIME-WAIT that this SYN ended */
};

/* tcp.c */
struct sock *tcp_open(struct stack *s, int family, int *error);
int tcp_connect(struct stack *s, struct tcp *t, const struct addr *addr, unsigned port);
int tcp_listen(struct stack *s, struct tcp *t, unsigned backlog, unsigned flags);
void tcp_close(struct stack *s, struct tcp *t); /* the owner lets go: see sock_free() */
void tcp_abort(struct stack *s, struct tcp *t); /* RST if the peer knows of us; then CLOSED */
/* The one place where the state changes. False: this cannot happen in this state, and nothing changed. */
bool tcp_on(struct stack *s, struct tcp *t, enum tcp_event event);
/* To CLOSED, with an error for the owner (0: none). */
void tcp_end(struct stack *s, struct tcp *t, int error);
/* Make ready to talk to remote, in three steps: the path and our address (-ENETUNREACH); then, with the ports known,
 * the sequence number (old: who had the ports before, or NULL); then the segment size, congestion control and the hash
 * table. */
int tcp_prepare(struct stack *s, struct tcp *t);
void tcp_choose_iss(struct stack *s, struct tcp *t, const struct tcp *old);
void tcp_set_iss(struct tcp *t, seq_t iss);
void tcp_start(struct stack *s, struct tcp *t);
void tcp_set_mss(struct tcp *t);
bool tcp_is_connecting(const struct sock *k);
/* In TIME-WAIT, and its ends may be taken for a new connection of ours (RFC 6191). */
bool tcp_is_reusable(const struct stack *s, const struct sock *k);

/* listen.c */
/* NULL, or the connection which g's ACK brings up: it takes g. g->p NULL: it was kept. */
struct tcp *tcp_listen_input(struct stack *s, struct tcp *l, struct segment *g, const struct ip_meta *m);
/* May the ACK of its SYN establish it? Else that is to be dropped, and will come again. */
bool tcp_child_may_establish(struct stack *s, struct tcp *t, const struct segment *g);
/* Its SYN need not be sent again: it was acknowledged, and we wait for data (TCP_DEFER_ACCEPT). */
bool tcp_child_is_deferred(const struct tcp *t);
void tcp_child_established(struct stack *s, struct tcp *t);
void tcp_child_gone(struct tcp *t); /* off its listener's lists */
void tcp_children_gone(struct tcp *l);
void tcp_child_free(struct stack *s, struct tcp *t); /* what it had as a child */
void tcp_listener_close(struct stack *s, struct tcp *l);

/* cookie.c */
/* t, made of g's SYN: its sequence number and timestamps become the cookie. */
void tcp_cookie_make(struct stack *s, struct tcp *t, const struct segment *g, const struct ip_meta *m);
/* False: g's ACK answers no cookie of ours. syn: what the SYN said. */
bool tcp_cookie_read(struct stack *s, const struct segment *g, const struct ip_meta *m, struct segment *syn);

/* fastopen.c */
/* What a child of this SYN gets: FASTOPEN_OPTION, FASTOPEN_DATA, or nothing. */
unsigned tcp_fastopen_request(struct stack *s, const struct tcp *l, const struct segment *g, const struct ip_meta *m);
/* A child enters SYN_RECV; is about to leave it; was reset there. */
void tcp_fastopen_begun(struct stack *s, struct tcp *t);
void tcp_fastopen_ended(struct stack *s, struct tcp *t);
void tcp_fastopen_reset(struct stack *s);
unsigned tcp_fastopen_connect(struct stack *s, const struct tcp *t); /* what t, which connects, starts with */
/* Our SYN is to be sent, with *len bytes of data. False: not yet. */
bool tcp_fastopen_syn(struct stack *s, struct tcp *t, uint32_t *len);
/* Writes the option that a SYN carries, or none; its length, a multiple of 4. */
uint32_t tcp_fastopen_option(struct stack *s, const struct tcp *t, uint8_t *o, uint32_t room, unsigned flags);
bool tcp_fastopen_acks(const struct tcp *t, seq_t ack); /* our SYN, with some of its data or none */
/* The SYN, ACK g came, whose ACK is as above. */
void tcp_fastopen_answered(struct stack *s, struct tcp *t, const struct segment *g);
void tcp_fastopen_free(struct stack *s);

/* options.c */
#define TCP_OPTIONS_MAX 40
bool tcp_read_options(const uint8_t *o, uint32_t len, struct segment *g); /* false: malformed */
/* Those that a segment with these flags carries now; their length, a multiple of 4. */
uint32_t tcp_write_options(const struct tcp *t, uint8_t *o, unsigned flags, uint64_t now);
uint32_t tcp_segment_size(const struct tcp *t); /* payload bytes of a full segment with the options of now (3.7.1) */

/* input.c */
void tcp_take_syn(struct stack *s, struct tcp *t, const struct segment *g); /* what the peer's SYN says */

/* output.c */
void tcp_output(struct stack *s, struct sock *k);
/* A SYN, ACK by t, of which nothing else will be kept. */
void tcp_send_syn_ack(struct stack *s, struct tcp *t);
/* The answer to a segment that belongs to no connection (RFC 9293 3.10.7.1), or to one that is refused. */
void tcp_send_reset(struct stack *s, const struct segment *g, const struct ip_meta *m);
uint32_t tcp_timestamp(const struct tcp *t, uint64_t now);

/* urgent.c */
void tcp_urgent_write(struct tcp *t, seq_t seq, uint8_t *h); /* into the header h of a segment with that number */
void tcp_urgent_input(struct stack *s, struct tcp *t, seq_t up); /* up: behind the last urgent byte */
uint32_t tcp_urgent_left(struct tcp *t);                         /* bytes to read up to there */

/* queue.c */
/* Bytes taken: what the buffer's limit, TCP_NOTSENT_LOWAT and memory allow. */
int64_t tcp_out_append(struct stack *s, struct tcp *t, const uint8_t *data, size_t len);
/* How many bytes may be written now. */
uint32_t tcp_out_room(const struct stack *s, const struct tcp *t);
void tcp_out_acked(struct stack *s, struct tcp *t, uint32_t bytes);
/* Clones of len bytes from sequence number `from`, hung behind head, at most max_frags. Bytes got. */
uint32_t tcp_out_window(struct stack *s, struct tcp *t, seq_t from, uint32_t len, struct pbuf *head, unsigned max_frags);
bool tcp_writable(const struct tcp *t);
bool tcp_readable(const struct tcp *t);
/* Takes g->p in at its place; moves rcv_nxt over all that is now in order. True: rcv_nxt moved over a FIN. */
bool tcp_in_insert(struct stack *s, struct tcp *t, const struct segment *g);
void tcp_in_append(struct stack *s, struct tcp *t, struct pbuf *p); /* p continues what is there; takes p */
int64_t tcp_in_read(struct stack *s, struct tcp *t, uint8_t *buf, size_t cap);
void tcp_queues_clear(struct stack *s, struct tcp *t);
void tcp_queues_cut(struct stack *s, struct tcp *t); /* all but what has arrived in order */

/* reorder.c: of a packet on `ooo`, its first byte's number and whether a FIN is behind it. */
#define OOO_SEQ(p) seq((p)->mark)
#define OOO_FIN(p) ((p)->mark2)
#define OOO_END(p) seq_add(OOO_SEQ(p), (p)->len)
#define OOO_RUNS_MAX 1024
void tcp_ooo_insert(struct stack *s, struct tcp *t, struct pbuf *p); /* p, that is ahead of rcv_nxt; takes p */
/* Moves what rcv_nxt has reached to `in`. True: up to a FIN. */
bool tcp_ooo_deliver(struct stack *s, struct tcp *t);
void tcp_ooo_clear(struct stack *s, struct tcp *t);
/* The run that begins behind r (NULL: the first one); NULL: none. It reaches from OOO_SEQ(run) to OOO_END(run->mate). */
static inline struct pbuf *tcp_ooo_next(const struct tcp *t, const struct pbuf *r) { return r ? r->mate->next : t->ooo; }

/* window.c */
void tcp_buffers_init(struct stack *s, struct tcp *t);
void tcp_buffers_inherit(struct tcp *t, const struct tcp *listener); /* beside what are options */
/* SO_RCVBUF, SO_SNDBUF were set; or a low-water mark. */
void tcp_rcvbuf_set(struct stack *s, struct sock *k);
void tcp_sndbuf_set(struct stack *s, struct sock *k);
void tcp_lowat_set(struct stack *s, struct sock *k);
uint8_t tcp_window_shift(const struct tcp *t); /* the scale that our window needs at most */
uint32_t tcp_window_room(const struct stack *s, const struct tcp *t); /* bytes from rcv_nxt that we would take */
bool tcp_window_update_due(const struct stack *s, const struct tcp *t);
/* The window for a segment that leaves now, as its field has it; and remember that it was told. */
uint16_t tcp_window_tell(struct stack *s, struct tcp *t, unsigned flags);
void tcp_receiver_rtt(struct stack *s, struct tcp *t, const struct segment *g); /* g brings data */
void tcp_right_size(struct stack *s, struct tcp *t, uint32_t bytes);            /* so many were read */
void tcp_sndbuf_grow(struct stack *s, struct tcp *t, uint32_t flight);          /* so much was under way */

/* mtu.c */
void tcp_mtu_init(struct stack *s, struct tcp *t, const struct path *path);
void tcp_mtu_too_big(struct stack *s, struct tcp *t, seq_t about, uint32_t mtu); /* by ICMP; mtu 0: it did not say */
void tcp_mtu_timeout(struct stack *s, struct tcp *t);
void tcp_mtu_acked(struct stack *s, struct tcp *t);
bool tcp_mtu_lost(struct stack *s, struct tcp *t); /* what is lost is a probe, and nothing else */
/* The payload of a probe to send now, where others have mss; 0: none. */
uint32_t tcp_mtu_probe(struct stack *s, struct tcp *t, uint32_t mss);

/* ack.c */
void tcp_data_arrived(struct stack *s, struct tcp *t, const struct segment *g); /* before it is queued */
void tcp_ack_data(struct stack *s, struct tcp *t);                              /* after: now, or soon? */
void tcp_data_read(struct tcp *t);                                              /* some of it, or all */
void tcp_ack_sent(struct stack *s, struct tcp *t, bool bare, bool data);        /* in a segment */

/* memory.c */
enum memory { MEMORY_FREE, MEMORY_SHORT, MEMORY_FULL, MEMORY_OUT };
enum memory tcp_memory(const struct stack *s);
uint32_t tcp_memory_share(const struct stack *s); /* bytes of buffers that a connection may hold each way when it is short */
/* May p be kept, in order or not? Makes room where it can. */
bool tcp_memory_admits(struct stack *s, struct tcp *t, const struct pbuf *p, bool in_order);
/* sack.c */
void tcp_sack_add(struct tcp *t, seq_t left, seq_t right); /* came out of order */
void tcp_sack_moved(struct tcp *t);                        /* rcv_nxt moved */
void tcp_sack_duplicate(struct tcp *t, seq_t left, seq_t right);
/* The blocks to tell, at most `most`; their number. */
unsigned tcp_sack_report(const struct tcp *t, struct sack_block out[TCP_SACKS_MAX], unsigned most);

/* What an acknowledgement told. */
struct delivery {
    struct stack *stack;
    struct tcp *tcp;
    uint64_t now;
    uint64_t sent, rtt; /* of the last segment that it delivers, of those sent once */
    uint32_t bytes;     /* newly delivered */
    uint32_t tsecr;
    bool has_tsecr;
    bool moved;    /* snd_una did */
    bool timed;    /* rtt is set */
    bool again;    /* it delivers something that was sent again */
    bool original; /* it delivers something sent once, before `recover` */
    bool twice; /* it has a D-SACK: the peer got something that it had */
    bool dsack;
    bool lost; /* by it we know of new losses */
};

/* Bytes under way: sent, not known to have arrived, not known to be lost (RFC 6675 4, pipe). */
static inline uint32_t tcp_in_flight(const struct tcp *t)
{
    uint32_t out = (uint32_t)seq_diff(t->snd_max, t->snd_una), gone = t->sb.sacked + t->sb.lost + t->dup_bytes;
    return out > gone ? out - gone : 0;
}
/* Bytes queued behind snd_nxt. */
static inline uint32_t tcp_unsent(const struct tcp *t)
{
    uint32_t sent = (uint32_t)seq_diff(t->snd_nxt, t->snd_una);
    return sent < t->out_bytes ? t->out_bytes - sent : 0;
}

/* recovery.c */
/* snd_una has just moved by `acked` (0: not), and g may have SACK blocks, or be a duplicate. */
void tcp_recovery_acked(struct stack *s, struct tcp *t, const struct segment *g, uint32_t acked, bool duplicate);
void tcp_recovery_timeout(struct stack *s, struct tcp *t);
void tcp_enter_cwr(struct stack *s, struct tcp *t, enum cong_event why); /* ECN: the window is to shrink, nothing is lost */
/* All that is under way is to be sent again (in other segments), and that is no sign of congestion. */
void tcp_resend_all(struct stack *s, struct tcp *t);

/* rack.c */
void tcp_rack_delivered(struct tcp *t, const struct sent *r, seq_t end, const struct delivery *d);
void tcp_rack_dsack(struct tcp *t);
void tcp_rack_recovered(struct tcp *t);
void tcp_rack_detect(struct stack *s, struct tcp *t); /* marks what is lost, sets T_REO for what may be */
void tcp_rack_timeout(struct stack *s, struct tcp *t);
void tcp_rack_due(struct stack *s, struct tcp *t); /* T_REO */
void tcp_probe_schedule(struct stack *s, struct tcp *t);
void tcp_probe_due(struct stack *s, struct tcp *t); /* T_PTO */
void tcp_probe_sent(struct stack *s, struct tcp *t, bool again);
bool tcp_probe_acked(struct stack *s, struct tcp *t, const struct delivery *d); /* true: it mended a loss */

/* cong.c */
void tcp_rtt_sample(struct tcp *t, uint64_t rtt);
const struct cong_ops *cong_find(const struct stack *s, const char *name); /* NULL: there is none of that name */
int tcp_set_congestion(struct stack *s, struct tcp *t, const char *name);  /* -ENOENT */
void cong_switch(struct tcp *t, const struct cong_ops *ops); /* to another one, in the middle of it all */
void cong_release(struct tcp *t);

/* pace.c */
uint64_t tcp_pacing_rate(const struct tcp *t); /* bytes a second; 0: not paced */
/* Bytes of new data that may go now, `burst` at most: 0, or a segment at least. If more wait, T_PACE is set. */
uint32_t tcp_pace_room(struct stack *s, struct tcp *t, uint32_t burst);
void tcp_paced(struct stack *s, struct tcp *t, uint32_t bytes); /* they have been sent */

/* ecn.c */
void tcp_ecn_connect(struct stack *s, struct tcp *t); /* before the first SYN */
void tcp_ecn_take_syn(struct stack *s, struct tcp *t, const struct segment *g);
void tcp_ecn_syn_again(struct tcp *t, const struct segment *g); /* in SYN_RECV */
/* Our SYN was reset. True: it asked for ECN, and another goes out that does not. */
bool tcp_ecn_refused(struct stack *s, struct tcp *t);
/* The flags that a segment carries besides its own, and its TOS. */
unsigned tcp_ecn_output(struct tcp *t, unsigned flags, bool new_data, uint8_t *tos);
/* An acceptable segment came, and its ACK was not looked at yet. Only where t->ecn is not 0. */
void tcp_ecn_input(struct stack *s, struct tcp *t, const struct segment *g, unsigned tos);
bool tcp_ecn_agreed(const struct tcp *t); /* TCPI_OPT_ECN */

/* timer.c */
void tcp_timer_init(struct tcp *t);
void tcp_timer_set(struct stack *s, struct tcp *t, enum tcp_timer which, uint64_t due);
static inline void tcp_timer_stop(struct tcp *t, enum tcp_timer which) { t->due[which] = 0; }
/* When to try again, not later than the owner's patience lasts (TCP_USER_TIMEOUT). */
uint64_t tcp_next_try(const struct stack *s, const struct tcp *t);
uint64_t tcp_backed_off(const struct tcp *t); /* how long to wait after `backoff` time-outs */
#define TCP_SYN_RETRIES 7     /* 247 s with the first wait of 1 s (RFC 9293 3.8.3: at least 3 minutes) */
#define TCP_SYN_ACK_RETRIES 5
void tcp_keepalive_restart(struct stack *s, struct tcp *t);

/* info.c */
void tcp_info(const struct sock *k, struct sock_info *out);
int64_t tcp_read_info(struct stack *s, struct sock *k, void *buf, size_t cap); /* TCP_INFO */

/* show.c */
void tcp_show(const struct stack *s, const struct sock *k, struct sock_info *out);

#define TCP_RTO_MIN (200ull * MSEC) /* RFC 6298 says 1 s; every stack in use today has less */
#define TCP_RTO_MAX (120ull * SECOND)
#define TCP_RTO_INITIAL (1ull * SECOND) /* RFC 6298 2.1 */
#define TCP_RTO_AFTER_LOST_SYN (3ull * SECOND) /* RFC 6298 5.7: until there is a sample */
#define TCP_DELACK_MIN (40u * MSEC)
#define TCP_DELACK_MAX (200u * MSEC)    /* RFC 9293 3.8.6.3: less than 500 ms */
#define TCP_WAIT (60ull * SECOND)       /* 2 MSL, as Linux has it; RFC 9293 3.4.2 */

#endif
