/* Sending for host sockets on io_uring.
 *
 * What is written gathers in a buffer; once a turn it is handed over, and what is written meanwhile gathers in a second
 * one. The request does not wait (MSG_DONTWAIT), so it is over when it is submitted, and a success posts no completion:
 * host_ring_settle() walks over those that were submitted, once all completions of that submission are seen. What fails
 * or is short does post one, and so does what something waits for: else the turn that submits it would sleep on. Then a
 * request follows that waits for room, and its completion tells what it has sent. (That one may be short, and must be:
 * of a request that sent a part and waits for room for the rest nobody could say how much it had sent when its ring
 * goes away.)
 *
 * Large pieces need no copy of ours: a loan is memory of the caller's that requests read from, between what was written
 * before and after it. From ZERO_COPY_LEAST on the kernel may read it until the peer has acknowledged it (SEND_ZC); the
 * loan ends with the last of its notifications. Where the way out has no use for that the kernel copies after all and
 * says so, and this socket does not ask again: on veth and the loopback a copy that was not announced is cheaper.
 *
 * A socket that is closed while the kernel sends without a copy is reset: from then on the memory may be anybody's, and
 * must not go out in a retransmission. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "sched/host.h"
#include "sched/ring.h"

#define SPARE_BYTES (1u << 20) /* of buffers kept for the next to send */
#define ZERO_COPY_LEAST (32u << 10)
#define REQUEST_MAX (1u << 30)

static uint32_t unsent(const struct host_loan *loan) { return loan ? loan->upto - loan->from : 0; }

bool host_ring_send_out(struct host_sockets *h, struct host_socket *s)
{
    if (s->sending || s->closing)
        return true;
    struct host_loan *loan = s->out ? NULL : s->loan;
    if (!s->out && !unsent(loan) && !s->gather) {
        if (s->shut && !s->is_shut) {
            s->is_shut = true;
            if (shutdown(s->fd, SHUT_WR) < 0)
                host_fail(h, s, errno);
        }
        return true;
    }
    struct io_uring_sqe *sqe = host_ring_request(h, s, IORING_OP_SEND, FOR_SEND);
    if (!sqe)
        return false;
    h->sends++;
    sqe->msg_flags = MSG_NOSIGNAL;
    if (unsent(loan)) {
        sqe->addr = (uintptr_t)loan->data + loan->from;
        sqe->len = unsent(loan);
    } else {
        if (!s->out) {
            s->out = s->gather;
            s->gather = NULL;
        }
        sqe->addr = (uintptr_t)s->out->data + s->out->from;
        sqe->len = s->out->upto - s->out->from;
    }
    if (unsent(loan) >= ZERO_COPY_LEAST && !s->copies) {
        sqe->opcode = IORING_OP_SEND_ZC;
        sqe->ioprio = SEND_ZC_REPORT_USAGE;
        s->sending = SENDING_LATER;
    } else if (s->full) {
        sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
        s->sending = SENDING_LATER;
    } else {
        sqe->msg_flags |= MSG_DONTWAIT | MSG_WAITALL;
        if (!(s->want & (EV_WRITE | EV_SENT)) && !s->shut && !s->loan)
            sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
        s->sending = SENDING_NOW;
        if (s->sending_on)
            return true;
        s->sending_on = true;
        s->next_sending = NULL;
        if (h->sending.head)
            h->sending.tail->next_sending = s;
        else
            h->sending.head = s;
        h->sending.tail = s;
    }
    return true;
}

/* --- buffers ----------------------------------------------------------------------------------------------------- */

struct host_buffer *host_buffer_new(struct host_sockets *h, size_t len)
{
    uint32_t class = 0;
    while (len > 4096u << 2 * class)
        class++;
    struct host_buffer *b = h->spare[class];
    if (b) {
        h->spare[class] = b->next;
        h->spare_bytes -= host_buffer_size(b);
    } else {
        b = malloc(sizeof *b + (4096u << 2 * class));
        if (!b)
            return NULL;
        b->class = class;
        h->buffer_bytes += host_buffer_size(b);
    }
    b->from = b->upto = 0;
    return b;
}

void host_buffer_free(struct host_sockets *h, struct host_buffer *b)
{
    if (h->spare_bytes + host_buffer_size(b) > SPARE_BYTES) {
        h->buffer_bytes -= host_buffer_size(b);
        free(b);
        return;
    }
    h->spare_bytes += host_buffer_size(b);
    b->next = h->spare[b->class];
    h->spare[b->class] = b;
}

/* --- loans ------------------------------------------------------------------------------------------------------- */

int host_ring_lend(struct host_sockets *h, struct host_socket *s, const uint8_t *data, size_t len)
{
    if (s->loan || (s->out && s->gather))
        return -EAGAIN;
    if (!len || len > REQUEST_MAX)
        return -EINVAL;
    s->loan = calloc(1, sizeof *s->loan);
    if (!s->loan)
        return -ENOMEM;
    s->loan->id = s->id;
    s->loan->data = data;
    s->loan->upto = (uint32_t)len;
    if (s->gather) { /* goes before it; what is written from now on, behind */
        s->out = s->gather;
        s->gather = NULL;
    }
    host_mark_dirty(h, s);
    return 0;
}

/* Ends the loan if the kernel has no more use for it. */
static void pay_back(struct host_sockets *h, struct host_socket *s)
{
    struct host_loan *loan = s->loan;
    if (!loan || !host_loan_is_over(s) || (unsent(loan) && !s->closing))
        return;
    if (s->closing) {
        host_raise(h, s); /* its last word */
        return;
    }
    free(loan);
    s->loan = NULL;
    if (s->gather || s->shut)
        host_mark_dirty(h, s);
    if (s->want & (EV_WRITE | EV_SENT))
        host_raise(h, s);
}

void host_ring_call_in(struct host_sockets *h, struct host_socket *s)
{
    if (s->loan && s->loan->notifications) {
        struct linger reset = {.l_onoff = 1};
        setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    if (s->loan && host_loan_is_over(s)) {
        free(s->loan);
        s->loan = NULL;
    }
}

/* --- completions ------------------------------------------------------------------------------------------------- */

/* The first n bytes of what was handed over have been sent. */
static void sent(struct host_sockets *h, struct host_socket *s, uint32_t n)
{
    h->sent += n;
    struct host_buffer *b = s->out;
    if (b)
        b->from += n;
    else
        s->loan->from += n;
    s->full = b ? b->from < b->upto : unsent(s->loan);
    if (s->full) {
        host_mark_dirty(h, s);
        return;
    }
    if (!b) {
        pay_back(h, s);
        return;
    }
    host_buffer_free(h, b);
    s->out = NULL;
    if (s->gather || s->loan || (s->shut && !s->is_shut))
        host_mark_dirty(h, s);
    if (s->want & (EV_WRITE | EV_SENT))
        host_raise(h, s);
}

void host_ring_sent(struct host_sockets *h, struct host_socket *s, int res, unsigned flags)
{
    if (flags & IORING_CQE_F_NOTIF) {
        s->loan->notifications--;
        if ((unsigned)res & NOTIF_USAGE_ZC_COPIED)
            s->copies = true;
        pay_back(h, s);
        return;
    }
    if (flags & IORING_CQE_F_MORE)
        s->loan->notifications++;
    s->sending = SENDING_NOT;
    if (s->closing) {
        pay_back(h, s);
        host_mark_dirty(h, s);
    } else if (res >= 0 || res == -EAGAIN || res == -EINTR) {
        sent(h, s, res > 0 ? (uint32_t)res : 0);
    } else if (!s->out && !s->copies && (res == -EOPNOTSUPP || res == -EINVAL || res == -ENOMEM || res == -ENOBUFS)) {
        s->copies = true; /* no zero-copy for this kernel (before 6.2), this kind of socket, or so much memory */
        host_mark_dirty(h, s);
    } else {
        host_fail(h, s, -res);
    }
}

void host_ring_settle(struct host_sockets *h, uint32_t submitted)
{
    for (struct host_socket *s; (s = h->sending.head) && (int32_t)(s->sqe - submitted) <= 0;) {
        h->sending.head = s->next_sending;
        s->sending_on = false;
        if (s->sending == SENDING_NOW) {
            s->sending = SENDING_NOT;
            if (!s->closing)
                sent(h, s, s->out ? s->out->upto - s->out->from : unsent(s->loan));
        }
        if (s->closing) {
            pay_back(h, s);
            host_mark_dirty(h, s);
        }
    }
}

void host_ring_unsend(struct host_sockets *h, struct host_socket *s)
{
    s->cancelling_send = s->sending_on = false;
    s->sending = SENDING_NOT; /* not submitted, or it would have been settled; or still waiting for room */
    if (s->loan && s->loan->notifications) {
        s->loan->notifications = 0;
        host_end(h, s, EIO); /* nobody will tell when the memory is free: it ends, and is reset when it is closed */
    }
    pay_back(h, s);
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

int64_t host_ring_send(struct host_sockets *h, struct host_socket *s, const uint8_t *data, size_t len)
{
    struct host_buffer *b = s->gather;
    if (!len)
        return 0;
    size_t have = b ? b->upto : 0;
    if (len > HOST_SEND_MAX - have)
        len = HOST_SEND_MAX - have;
    if (!len)
        return -EAGAIN;
    if (!b || host_buffer_size(b) - have < len) {
        struct host_buffer *larger = host_buffer_new(h, have + len);
        if (!larger)
            return -ENOMEM;
        if (b) {
            memcpy(larger->data, b->data, have);
            larger->upto = (uint32_t)have;
            host_buffer_free(h, b);
        }
        s->gather = b = larger;
    }
    memcpy(b->data + have, data, len);
    b->upto += (uint32_t)len;
    host_mark_dirty(h, s);
    return (int64_t)len;
}
