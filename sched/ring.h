/* Private to the io_uring back end: the ring (ring.c) and its channels (ring_channel.c).
 *
 * liburing comes out of the extension module of the `liburing` wheel, found by name at run time: so there is neither a
 * system library nor a header of it to depend on. Its struct io_uring is storage to us; what we touch ourselves is
 * the kernel's UAPI alone. */
#ifndef LIBOS_RING_H
#define LIBOS_RING_H

#include <linux/io_uring.h>
#include <linux/time_types.h>

#include "sched/backend.h"

/* Newer than the header of Debian 12 (Linux 6.1); the numbers are ABI. */
#define OP_READ_MULTISHOT 49 /* IORING_OP_READ_MULTISHOT, Linux 6.7 */
#define PBUF_RING_INC 2      /* IOU_PBUF_RING_INC, Linux 6.12 */
#define CQE_F_BUF_MORE 16    /* IORING_CQE_F_BUF_MORE, Linux 6.12 */
#define SEND_ZC_REPORT_USAGE 8               /* IORING_SEND_ZC_REPORT_USAGE, Linux 6.2 */
#define NOTIF_USAGE_ZC_COPIED 0x80000000u    /* IORING_NOTIF_USAGE_ZC_COPIED */

/* liburing's functions that we use, without their io_uring_ prefix. */
#define RING_FUNCTIONS(F)                                                                                            \
    F(int, queue_init_params, (unsigned, void *, struct io_uring_params *))                                          \
    F(void, queue_exit, (void *))                                                                                    \
    F(int, enable_rings, (void *))                                                                                   \
    F(int, register_probe, (void *, struct io_uring_probe *, unsigned))                                              \
    F(int, register_files_sparse, (void *, unsigned))                                                                \
    F(int, register_files_update, (void *, unsigned, const int *, unsigned))                                         \
    F(int, register_buf_ring, (void *, struct io_uring_buf_reg *, unsigned))                                         \
    F(int, unregister_buf_ring, (void *, int))                                                                       \
    F(bool, cq_has_overflow, (const void *))                                                                         \
    F(unsigned, cq_ready, (const void *))                                                                            \
    F(struct io_uring_sqe *, get_sqe, (void *))                                                                      \
    F(unsigned, sq_ready, (const void *))                                                                            \
    F(int, submit_and_get_events, (void *))                                                                          \
    F(int, submit_and_wait_timeout,                                                                                  \
      (void *, struct io_uring_cqe **, unsigned, struct __kernel_timespec *, void *))                                \
    F(unsigned, peek_batch_cqe, (void *, struct io_uring_cqe **, unsigned))                                          \
    F(void, cq_advance, (void *, unsigned))                                                                          \
    F(int, register_eventfd, (void *, int))                                                                          \
    F(int, unregister_eventfd, (void *))                                                                             \
    F(int, cq_eventfd_toggle, (void *, bool))

/* user_data of a request: the address of what it is for, its kind in the low bits. */
#define FOR_READ 0   /* struct ring_channel */
#define FOR_WRITE 1  /* struct ring_write */
#define FOR_SET 2    /* the watch set has something */
#define FOR_NOBODY 3 /* a cancellation's own completion */
#define FOR_RECV 4   /* struct host_socket */
#define FOR_SEND 5   /* struct host_socket */
#define FOR_ACCEPT 6 /* struct host_socket */
#define FOR_BITS 7

#define RING_FILES 64 /* channels with a registered file; more than that use their descriptor */

struct ring_reactor {
    struct reactor reactor; /* first */
    void *library;
#define F(result, name, parameters) result(*name) parameters;
    RING_FUNCTIONS(F)
#undef F
    unsigned entries;
    unsigned looked;
    bool settling;           /* when `unseen` completions more have been seen, */
    unsigned unseen;
    uint32_t settling_upto;  /* nothing is owed by requests up to this one */
    uint32_t sqes;     /* requests made so far */
    bool alive;        /* there is a ring */
    bool disabled;     /* it has not been entered yet: the first thread that does owns it */
    bool multishot;    /* the kernel reads with OP_READ_MULTISHOT */
    bool recv_multishot; /* and IORING_RECV_MULTISHOT, in a ring whose work waits until it is entered */
    bool incremental;  /* buffers of PBUF_RING_INC, as far as we know */
    bool files;        /* RING_FILES slots are registered */
    bool late_writes;  /* a write was seen that its submission did not complete */
    bool set_armed;    /* a poll of the watch set is under way */
    bool set_fired;
    bool woken;        /* something other than a write has completed */
    unsigned writing;  /* writes without a completion, */
    unsigned queued;   /* and how many of them are not submitted either, at most */
    uint64_t now;
    uint64_t free_files;
    struct ring_channel *channels;
    /* struct io_uring of liburing: 216 bytes up to its version 2.14, all of it private to the library. */
    _Alignas(64) unsigned char ring[1024];
};

/* A cleared request; NULL: no room even after a submission. */
struct io_uring_sqe *ring_sqe(struct ring_reactor *rr, const void *subject, unsigned kind);
/* The number of the last request that the kernel has taken, in the count of rr->sqes. */
uint32_t ring_submitted(const struct ring_reactor *rr);
/* Submits, waits at most ns for `count` completions and handles what there is. -errno of the submission. */
int ring_enter(struct ring_reactor *rr, uint64_t ns, unsigned count);
/* Lets the ring go with all that is under way; the next turn starts a new one. */
void ring_abandon(struct ring_reactor *rr);
int ring_start(struct ring_reactor *rr);

int ring_channel_open(struct reactor *r, struct channel *c, unsigned depth);
int ring_channel_send(struct channel *c, const struct iovec *iov, unsigned n, void *cookie);
void ring_channel_close(struct channel *c);
/* Into a new ring, and out of one that is gone. */
int ring_channel_register(struct ring_channel *ch);
void ring_channel_abandon(struct ring_channel *ch);
/* Gives buffers to the kernel and sees that it reads; what is left of ns until that must be tried again. */
uint64_t ring_channel_prepare(struct ring_channel *ch, uint64_t ns);
uint64_t ring_channel_due(const struct ring_channel *ch, uint64_t now); /* when ring_channel_prepare() is wanted next */
void ring_channel_read(struct ring_channel *ch, int res, unsigned flags);
struct ring_write;
void ring_channel_written(struct ring_write *w, int res);
struct ring_channel *ring_channel_next(struct ring_channel *ch);

#endif
