/* Private to sched/: the host's sockets, and what a back end does for them.
 *
 * host.c has the set, the ids and the calls; host_pool.c the buffers that the kernel receives into; host_accept.c the
 * listeners. How bytes move is a back end's business: host_ring.c, with multishot receives and batched sends, or
 * host_poll.c, by readiness in the watch set (the epoll reactor, and io_uring before Linux 6.1).
 *
 * Ownership: the set owns its sockets, which never move in memory: requests under way carry their address. A socket
 * that is closed while the kernel still has a request of it keeps its slot, without an id, until the last one has
 * ended. */
#ifndef LIBOS_HOST_H
#define LIBOS_HOST_H

#include "sched/backend.h"
#include "sched/stream.h"

struct io_uring_buf_ring;

#define HOST_UNREAD_MAX (256u << 10) /* bytes held for a reader before receiving stops */
#define HOST_SEND_MAX (256u << 10)   /* bytes in one buffer to send; a socket has two */

/* Bytes that have come: in a buffer of the pool, in the set's scratch buffer, or behind the struct. */
struct host_piece {
    struct host_piece *next;
    uint8_t *data;
    uint32_t len;
    int32_t buffer; /* of the pool, PIECE_* */
};
#define PIECE_HEAP (-1)
#define PIECE_SCRATCH (-2)

/* Bytes to send. */
struct host_buffer {
    struct host_buffer *next; /* while spare */
    uint32_t class, from, upto;
    uint8_t data[];
};
#define HOST_BUFFER_CLASSES 4 /* 4, 16, 64, 256 KiB */

/* Memory of the caller's, to send from. */
struct host_loan {
    const uint8_t *data;
    uint32_t from, upto;
    uint32_t notifications; /* to come, of sends without a copy */
    int64_t id;             /* whose it was: for a socket that is closed */
};

enum host_sending {
    SENDING_NOT,
    SENDING_NOW,  /* a request that ends while it is submitted; if it succeeds, silently */
    SENDING_LATER, /* one that waits for room */
};

struct host_socket {
    int64_t id; /* -1: not open */
    int32_t fd;
    uint32_t slot, generation;
    struct host_socket *next_ready, *next_dirty, *next_sending;

    /* levels */
    uint8_t want;    /* EV_READ, EV_WRITE */
    uint8_t raised;  /* EV_*, by readiness: since it was last reported */
    uint8_t watched; /* EV_* that the watch set is asked for */
    bool ready_on, dirty_on; /* on those lists */
    bool listening, closing;
    bool ended;         /* nothing more will come */
    bool shut, is_shut; /* SHUT_WR is wanted, is done */
    bool receiving;     /* a multishot request is under way, */
    bool cancelling;    /* and has been told to end */
    uint8_t sending;    /* enum host_sending */
    bool sending_on;    /* on that list */
    bool cancelling_send;
    bool large;  /* by readiness: much came at once */
    bool full;   /* the last send found no room, or not enough */
    bool copies; /* to send without a copy makes no sense here */
    int16_t error; /* pending, positive errno */
    int16_t fate;  /* what reading comes to at the end: 0 or an errno */

    uint32_t in_bytes;
    uint32_t sqe; /* number of the last request that names the descriptor */
    struct host_piece *in, *in_tail;
    struct host_buffer *out, *gather; /* with the kernel; what is written meanwhile */
    struct host_loan *loan;           /* between the two, or NULL */
    struct host_accepted *accepted;   /* of a listener */
};

/* Connections that came before they were asked for. */
struct host_accepted {
    unsigned first, count, cap;
    int error; /* -errno to be told once */
    uint64_t resume_at; /* 0: it does not rest */
    struct host_socket *next_resting;
    int *fds;
};
#define HOST_ACCEPTED_MAX 256 /* then the kernel keeps them */

struct host_backend {
    bool gathers; /* what is sent waits for the end of the turn: there is room as long as a buffer has some */
    int (*open)(struct host_sockets *h); /* before the first socket */
    /* Brings the kernel in line with what the socket wants. false: there is no room, ask again. */
    bool (*work)(struct host_sockets *h, struct host_socket *s);
    void (*prepare)(struct host_sockets *h); /* once a turn, before that */
    int64_t (*pull)(struct host_sockets *h, struct host_socket *s); /* nothing is here: has the kernel something? */
    int64_t (*recv)(struct host_sockets *h, struct host_socket *s, uint8_t *data, size_t len);
    int64_t (*send)(struct host_sockets *h, struct host_socket *s, const uint8_t *data, size_t len);
    int (*lend)(struct host_sockets *h, struct host_socket *s, const uint8_t *data, size_t len); /* or NULL */
    int (*accept)(struct host_sockets *h, struct host_socket *s);
    void (*close)(struct host_sockets *h, struct host_socket *s); /* it has no id any more, and is marked as closing */
    void (*finish)(struct host_sockets *h); /* all are closed: see that the kernel lets go */
};
extern const struct host_backend host_ring_backend, host_poll_backend;

struct host_list {
    struct host_socket *head, *tail;
};

/* Buffers for the kernel to receive into, shared by all sockets (host_pool.c). */
#define POOL_BYTES (2u << 20)
#define POOL_GROUP 0xffff
struct host_pool {
    uint8_t *memory;
    struct io_uring_buf_ring *shared;
    size_t mapped;
    uint32_t size, count; /* of the buffers, which fill a POOL_BYTES */
    uint32_t stock, held; /* how many the kernel should have, and has */
    uint32_t idle_count;
    uint32_t starved; /* receives that found none since the last restock */
    uint16_t tail;
    bool incremental; /* one buffer takes many receives, one behind the other (Linux 6.12) */
    uint16_t *idle;
    struct {
        uint32_t used, pieces;
        bool held;
    } *buffers;
    struct host_piece *spare; /* pieces */
};

struct host_sockets {
    struct poller poller; /* first */
    struct reactor *reactor;
    const struct host_backend *ops;
    bool opened; /* ops->open has been called */
    uint64_t now;

    struct host_socket **chunks;
    uint32_t slots, live; /* made; open or closing */
    struct host_socket *unused;
    struct host_list ready, dirty, sending;
    struct host_socket *resting; /* listeners that failed a moment ago */

    struct host_pool pool;
    uint8_t *scratch; /* by readiness */
    struct host_socket *scratch_of;
    struct host_buffer *spare[HOST_BUFFER_CLASSES];
    uint64_t spare_bytes, buffer_bytes, kept_bytes;

    uint64_t received, sent, sends, starved, moved, refused;
};

#define HOST_CHUNK 64
#define HOST_SLOT_BITS 20 /* of an id; the rest of its 40 bits is the generation */

/* host.c */
static inline struct host_socket *host_slot(const struct host_sockets *h, uint32_t slot)
{
    return &h->chunks[slot / HOST_CHUNK][slot % HOST_CHUNK];
}
void host_raise(struct host_sockets *h, struct host_socket *s);      /* it may have something to report */
void host_mark_dirty(struct host_sockets *h, struct host_socket *s); /* work() has something to do */
void host_append(struct host_sockets *h, struct host_socket *s, struct host_piece *piece);
void host_end(struct host_sockets *h, struct host_socket *s, int error); /* reading has come to it; 0: end of stream */
void host_fail(struct host_sockets *h, struct host_socket *s, int error); /* writing has failed */
void host_release(struct host_sockets *h, struct host_socket *s); /* the kernel has let go of a closing socket */
/* The watch set found it ready (EV_*). false: it knows no such socket. */
bool host_polled(struct host_sockets *h, int64_t id, unsigned mask);
/* The set of descriptors is built anew: enter yours. */
void host_watch_again(struct host_sockets *h);

/* host_pool.c */
int host_pool_open(struct host_pool *pool, bool incremental);
void host_pool_free(struct host_pool *pool);
void host_pool_restart(struct host_pool *pool); /* a new ring has it: give it the same buffers again */
void host_pool_restock(struct host_sockets *h);
/* len bytes have been put into a buffer; more: the kernel goes on with it. NULL: no memory, they are lost. */
struct host_piece *host_pool_take(struct host_sockets *h, unsigned buffer, uint32_t len, bool more);
struct host_piece *host_piece_new(struct host_sockets *h, uint8_t *data, uint32_t len, int32_t buffer);
void host_piece_free(struct host_sockets *h, struct host_piece *piece);
/* Moves what a socket has unread out of shared buffers. */
void host_keep(struct host_sockets *h, struct host_socket *s);

/* host_accept.c */
int host_accept_open(struct host_socket *s);
void host_accept_close(struct host_sockets *h, struct host_socket *s);
bool host_accept_wanted(const struct host_socket *s); /* by its owner, and there is no reason to wait */
unsigned host_accept_ready(const struct host_socket *s);
int host_accept_take(struct host_sockets *h, struct host_socket *s); /* what came before it was asked for */
void host_accept_put(struct host_sockets *h, struct host_socket *s, int fd); /* a connection, or -errno */
uint64_t host_accept_resume(struct host_sockets *h, uint64_t now); /* when the next one may go on */

/* host_send.c: buffers to send from. */
struct host_buffer *host_buffer_new(struct host_sockets *h, size_t len);
void host_buffer_free(struct host_sockets *h, struct host_buffer *b);
static inline uint32_t host_buffer_size(const struct host_buffer *b) { return 4096u << 2 * b->class; }

/* host_ring.c and host_send.c, for ring.c */
int host_ring_register(struct host_sockets *h); /* into a new ring, */
void host_ring_abandon(struct host_sockets *h, bool lost); /* and out of one that is gone; lost: completions, too */
void host_ring_received(struct host_sockets *h, struct host_socket *s, int res, unsigned flags);
void host_ring_accepted(struct host_sockets *h, struct host_socket *s, int res, unsigned flags);
void host_ring_sent(struct host_sockets *h, struct host_socket *s, int res, unsigned flags);
/* The kernel has taken requests up to this one, and what they completed has been seen. */
void host_ring_settle(struct host_sockets *h, uint32_t submitted);

/* Between these two. */
struct io_uring_sqe *host_ring_request(struct host_sockets *h, struct host_socket *s, unsigned opcode, unsigned kind);
bool host_ring_send_out(struct host_sockets *h, struct host_socket *s); /* false: no room for a request */
int64_t host_ring_send(struct host_sockets *h, struct host_socket *s, const uint8_t *data, size_t len);
int host_ring_lend(struct host_sockets *h, struct host_socket *s, const uint8_t *data, size_t len);
/* Whether the kernel has no more use for the memory; of a socket that is open, more of it may be sent yet. */
static inline bool host_loan_is_over(const struct host_socket *s)
{
    return !s->loan->notifications && !(s->sending && !s->out);
}
void host_ring_call_in(struct host_sockets *h, struct host_socket *s); /* the loan: the socket is being closed */
void host_ring_unsend(struct host_sockets *h, struct host_socket *s);  /* what was under way: the ring is gone */

#endif
