/* Host sockets on io_uring: one multishot receive a socket, one send a socket and turn, one system call a turn.
 *
 * Receiving. A socket that wants to read has a multishot receive into the pool's buffers under way; one that pauses has
 * it cancelled. It ends by itself when there is no buffer left, and is made again in the next turn.
 *
 * Sending has its own file, host_send.c.
 *
 * Closing. The descriptor may be closed, and its number used again, as soon as host_close() returns. Requests that are
 * submitted have the file; one that is not yet (a turn that failed) is submitted then.
 *
 * No linked timeouts: a loop's time-outs are timers of its own heap, cancelled far more often than they go off, and
 * each linked one would be two more requests with a completion each, and a hrtimer in the kernel. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sched/host.h"
#include "sched/ring.h"

#define FINISH_NS 10000000ull

static struct ring_reactor *ring_of(const struct host_sockets *h) { return (struct ring_reactor *)h->reactor; }

/* --- requests ---------------------------------------------------------------------------------------------------- */

struct io_uring_sqe *host_ring_request(struct host_sockets *h, struct host_socket *s, unsigned opcode, unsigned kind)
{
    struct io_uring_sqe *sqe = ring_sqe(ring_of(h), s, kind);
    if (sqe) {
        sqe->opcode = (uint8_t)opcode;
        sqe->fd = s->fd;
        s->sqe = ring_of(h)->sqes;
    }
    return sqe;
}

/* Asks for the end of a request. That it did end is said by its own completion. */
static bool cancel(struct host_sockets *h, struct host_socket *s, unsigned kind)
{
    struct io_uring_sqe *sqe = ring_sqe(ring_of(h), NULL, FOR_NOBODY);
    if (!sqe)
        return false;
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->fd = -1;
    sqe->addr = (uintptr_t)s | kind;
    return true;
}

static bool receive(struct host_sockets *h, struct host_socket *s)
{
    struct io_uring_sqe *sqe;
    if (s->listening) {
        if (!(sqe = host_ring_request(h, s, IORING_OP_ACCEPT, FOR_ACCEPT)))
            return false;
        sqe->ioprio = IORING_ACCEPT_MULTISHOT;
        sqe->accept_flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
    } else {
        if (!(sqe = host_ring_request(h, s, IORING_OP_RECV, FOR_RECV)))
            return false;
        sqe->ioprio = IORING_RECV_MULTISHOT;
        sqe->flags = IOSQE_BUFFER_SELECT;
        sqe->buf_group = POOL_GROUP;
    }
    s->receiving = true;
    return true;
}

static bool close_out(struct host_sockets *h, struct host_socket *s)
{
    if (s->receiving && !s->cancelling) {
        if (!cancel(h, s, s->listening ? FOR_ACCEPT : FOR_RECV))
            return false;
        s->cancelling = true;
    }
    if (s->sending == SENDING_LATER && !s->cancelling_send) {
        if (!cancel(h, s, FOR_SEND))
            return false;
        s->cancelling_send = true;
    }
    return true;
}

static bool ring_work(struct host_sockets *h, struct host_socket *s)
{
    if (!ring_of(h)->alive)
        return false;
    if (s->closing)
        return close_out(h, s);
    bool wanted = s->listening ? host_accept_wanted(s)
                               : s->want & EV_READ && !s->ended && s->in_bytes < HOST_UNREAD_MAX;
    if (wanted && !s->receiving) {
        if (!receive(h, s))
            return false;
    } else if (!wanted && s->receiving && !s->cancelling) {
        if (!cancel(h, s, s->listening ? FOR_ACCEPT : FOR_RECV))
            return false;
        s->cancelling = true;
    }
    if (!wanted)
        host_keep(h, s);
    return host_ring_send_out(h, s);
}

/* --- completions ------------------------------------------------------------------------------------------------- */

void host_ring_received(struct host_sockets *h, struct host_socket *s, int res, unsigned flags)
{
    if (!(flags & IORING_CQE_F_MORE)) {
        s->receiving = s->cancelling = false;
        host_mark_dirty(h, s);
    }
    struct host_piece *piece = NULL;
    if (flags & IORING_CQE_F_BUFFER)
        piece = host_pool_take(h, flags >> IORING_CQE_BUFFER_SHIFT, res > 0 ? (uint32_t)res : 0,
                               flags & CQE_F_BUF_MORE);
    if (s->closing) {
        if (piece)
            host_piece_free(h, piece);
        return;
    }
    if (res > 0 && piece) {
        host_append(h, s, piece);
        h->received += (uint64_t)res;
        host_raise(h, s);
        if (s->in_bytes >= HOST_UNREAD_MAX || !(s->want & EV_READ))
            host_mark_dirty(h, s);
        return;
    }
    switch (-res) {
    case ENOBUFS:
        h->starved++;
        h->pool.starved++;
        break;
    case ECANCELED:
    case EAGAIN:
    case EINTR:
        break;
    default:
        host_end(h, s, res > 0 ? ENOMEM : -res);
    }
}

void host_ring_accepted(struct host_sockets *h, struct host_socket *s, int res, unsigned flags)
{
    if (!(flags & IORING_CQE_F_MORE)) {
        s->receiving = s->cancelling = false;
        host_mark_dirty(h, s);
    }
    if (s->closing) {
        if (res >= 0)
            close(res);
    } else if (res != -ECANCELED && res != -EAGAIN && res != -EINTR) {
        host_accept_put(h, s, res);
    }
}

/* --- for host.c -------------------------------------------------------------------------------------------------- */

static int64_t ring_pull(struct host_sockets *h, struct host_socket *s) { return -EAGAIN; }

static int64_t ring_recv(struct host_sockets *h, struct host_socket *s, uint8_t *data, size_t len)
{
    return len ? -EAGAIN : 0;
}

static int ring_accept(struct host_sockets *h, struct host_socket *s) { return host_accept_take(h, s); }

static void ring_close(struct host_sockets *h, struct host_socket *s)
{
    struct ring_reactor *rr = ring_of(h);
    host_ring_call_in(h, s);
    if (!s->receiving && !s->sending)
        return;
    /* A listener's address is to be free again at once; of a connection the next turn is soon enough. */
    bool at_once = s->listening || (int32_t)(s->sqe - ring_submitted(rr)) > 0;
    if (!close_out(h, s))
        host_mark_dirty(h, s);
    if (at_once && rr->alive && (ring_enter(rr, 0, 0) < 0 || (int32_t)(s->sqe - ring_submitted(rr)) > 0))
        ring_abandon(rr);
}

static int ring_open(struct host_sockets *h)
{
    int rc = host_pool_open(&h->pool, ring_of(h)->incremental);
    return rc < 0 || !ring_of(h)->alive ? rc : host_ring_register(h);
}

int host_ring_register(struct host_sockets *h)
{
    struct ring_reactor *rr = ring_of(h);
    if (!h->pool.memory)
        return 0;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)h->pool.shared, .ring_entries = h->pool.count, .bgid = POOL_GROUP};
    /* The word behind bgid: `flags`, but `pad` in older headers. */
    uint16_t flags = h->pool.incremental ? PBUF_RING_INC : 0;
    memcpy((char *)&reg + offsetof(struct io_uring_buf_reg, bgid) + sizeof reg.bgid, &flags, sizeof flags);
    int rc = rr->register_buf_ring(rr->ring, &reg, 0);
    if (rc == -EINVAL && h->pool.incremental && !h->live) {
        rr->incremental = false;
        host_pool_free(&h->pool);
        rc = host_pool_open(&h->pool, false);
        return rc < 0 ? rc : host_ring_register(h);
    }
    if (rc == -EEXIST) { /* the ring is another thread's: the next turn starts one for this */
        ring_abandon(rr);
        return 0;
    }
    if (rc == 0)
        host_pool_restart(&h->pool);
    return rc;
}

void host_ring_abandon(struct host_sockets *h, bool lost)
{
    h->sending.head = NULL;
    for (uint32_t slot = 0; slot < h->slots; slot++) {
        struct host_socket *s = host_slot(h, slot);
        if (s->id < 0 && !s->closing)
            continue;
        if (lost && (s->receiving || s->sending))
            host_end(h, s, EIO); /* what it has received or sent, nobody can say */
        s->receiving = s->cancelling = s->sending_on = false;
        host_ring_unsend(h, s);
        host_mark_dirty(h, s);
    }
}

static void ring_finish(struct host_sockets *h)
{
    struct ring_reactor *rr = ring_of(h);
    for (unsigned i = 0; i < 100 && rr->alive && h->live; i++) {
        h->poller.run(&h->poller, h->now);
        if (ring_enter(rr, h->live ? FINISH_NS : 0, 1) < 0)
            break;
    }
    if (h->live || (rr->alive && rr->unregister_buf_ring(rr->ring, POOL_GROUP) < 0))
        ring_abandon(rr);
}

const struct host_backend host_ring_backend = {
    .gathers = true,
    .open = ring_open,
    .work = ring_work,
    .prepare = host_pool_restock,
    .pull = ring_pull,
    .recv = ring_recv,
    .send = host_ring_send,
    .lend = host_ring_lend,
    .accept = ring_accept,
    .close = ring_close,
    .finish = ring_finish,
};
