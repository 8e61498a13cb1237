/* The host's stream sockets of one reactor: their ids, what they have to report, and the calls from above.
 *
 * A call from above changes the socket and puts it on the dirty list; once a turn, before the wait, the back end's
 * work() brings the kernel in line with it. So what is changed twice in a turn costs nothing twice, and all that was
 * sent goes out together. What the kernel answers puts the socket on the ready list. It leaves that list when it is
 * asked and has nothing to report: events are levels. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "sched/host.h"

#define SLOTS_MAX (1u << HOST_SLOT_BITS)
#define GENERATIONS (1u << (40 - HOST_SLOT_BITS))
#define WRITABLE_ROOM (HOST_SEND_MAX / 2)

/* --- lists ------------------------------------------------------------------------------------------------------- */

void host_raise(struct host_sockets *h, struct host_socket *s)
{
    if (s->ready_on || (s->closing && !s->loan))
        return;
    poller_wake(&h->poller);
    s->ready_on = true;
    s->next_ready = NULL;
    if (h->ready.head)
        h->ready.tail->next_ready = s;
    else
        h->ready.head = s;
    h->ready.tail = s;
}

void host_mark_dirty(struct host_sockets *h, struct host_socket *s)
{
    if (s->dirty_on)
        return;
    poller_wake(&h->poller);
    s->dirty_on = true;
    s->next_dirty = NULL;
    if (h->dirty.head)
        h->dirty.tail->next_dirty = s;
    else
        h->dirty.head = s;
    h->dirty.tail = s;
}

/* --- levels ------------------------------------------------------------------------------------------------------ */

static unsigned ready(const struct host_sockets *h, const struct host_socket *s)
{
    unsigned mask = s->raised;
    if (s->listening)
        mask |= host_accept_ready(s);
    else if (s->in_bytes || s->ended)
        mask |= EV_READ;
    if (s->error)
        mask |= EV_ERROR | EV_WRITE;
    if (h->ops->gathers && !s->listening && !s->loan && (!s->gather || s->gather->upto <= WRITABLE_ROOM))
        mask |= EV_WRITE;
    if (s->want & EV_SENT && !s->out && !s->gather && !s->loan)
        mask |= EV_SENT;
    return mask & (s->want | EV_ERROR);
}

static unsigned collect(struct poller *p, uint64_t *out, unsigned max)
{
    struct host_sockets *h = (struct host_sockets *)p;
    unsigned n = 0;
    for (struct host_socket *last = h->ready.tail, *s = NULL; h->ready.head && n < max && s != last;) {
        s = h->ready.head;
        h->ready.head = s->next_ready;
        s->ready_on = false;
        unsigned mask = s->closing ? 0 : ready(h, s);
        if (mask) {
            out[n++] = p->base | (uint64_t)s->id << 16 | mask;
            s->raised = 0;
            host_raise(h, s);
        } else if (s->closing) {
            if (s->loan && !host_loan_is_over(s))
                continue; /* on the list for something that came before it was closed */
            if (s->loan) { /* it was closed with a loan, which has ended now */
                out[n++] = p->base | (uint64_t)s->loan->id << 16 | EV_WRITE;
                free(s->loan);
                s->loan = NULL;
            }
            host_release(h, s);
        }
    }
    return n;
}

static uint64_t run(struct poller *p, uint64_t now)
{
    struct host_sockets *h = (struct host_sockets *)p;
    h->now = now;
    uint64_t deadline = h->resting ? host_accept_resume(h, now) : REACTOR_NEVER;
    if (h->opened)
        h->ops->prepare(h);
    for (struct host_socket *s; (s = h->dirty.head);) {
        h->dirty.head = s->next_dirty;
        s->dirty_on = false;
        if (!h->ops->work(h, s)) {
            s->dirty_on = true;
            s->next_dirty = h->dirty.head;
            if (!h->dirty.head)
                h->dirty.tail = s;
            h->dirty.head = s;
            return now;
        }
        if (s->closing)
            host_release(h, s);
    }
    return deadline;
}

bool host_polled(struct host_sockets *h, int64_t id, unsigned mask)
{
    uint32_t slot = (uint32_t)id & (SLOTS_MAX - 1);
    struct host_socket *s = h && slot < h->slots ? host_slot(h, slot) : NULL;
    if (!s || s->id != id)
        return false;
    s->raised |= mask & s->want;
    host_raise(h, s);
    return true;
}

void host_watch_again(struct host_sockets *h)
{
    for (uint32_t slot = 0; slot < h->slots; slot++) {
        struct host_socket *s = host_slot(h, slot);
        if (s->id >= 0 && s->watched) {
            s->watched = 0;
            host_mark_dirty(h, s);
        }
    }
}

/* --- sockets come and go ----------------------------------------------------------------------------------------- */

/* Also one that was inherited: to forget it. Its reactor has let go of the kernel by then. */
static struct host_socket *find_any(const struct host_sockets *h, int64_t id)
{
    reactor_disowned(h->reactor);
    uint32_t slot = (uint32_t)id & (SLOTS_MAX - 1);
    struct host_socket *s = slot < h->slots ? host_slot(h, slot) : NULL;
    return s && s->id == id && id >= 0 ? s : NULL;
}

/* To do something with it: in a forked process there is none, for its bytes are the parent's. */
static struct host_socket *find(const struct host_sockets *h, int64_t id)
{
    return reactor_disowned(h->reactor) ? NULL : find_any(h, id);
}

static int add_slots(struct host_sockets *h)
{
    uint32_t chunks = h->slots / HOST_CHUNK;
    if (h->slots == SLOTS_MAX)
        return -EMFILE;
    struct host_socket **table = h->chunks;
    if (!(chunks & (chunks - 1))) { /* doubled at each power of two */
        table = realloc(table, (chunks ? chunks * 2 : 1) * sizeof *table);
        if (!table)
            return -ENOMEM;
        h->chunks = table;
    }
    struct host_socket *chunk = aligned_alloc(64, HOST_CHUNK * sizeof *chunk);
    if (!chunk)
        return -ENOMEM;
    memset(chunk, 0, HOST_CHUNK * sizeof *chunk);
    table[chunks] = chunk;
    h->slots += HOST_CHUNK;
    for (uint32_t i = HOST_CHUNK; i-- > 0;) {
        chunk[i].id = -1;
        chunk[i].slot = h->slots - HOST_CHUNK + i;
        chunk[i].next_ready = h->unused;
        h->unused = &chunk[i];
    }
    return 0;
}

static int64_t socket_new(struct host_sockets *h, int fd, struct host_socket **out)
{
    int rc = fd < 0 ? -EBADF : reactor_disowned(h->reactor) ? -ESTALE : 0;
    if (rc == 0 && !h->opened) {
        rc = h->ops->open(h);
        h->opened = rc == 0;
    }
    if (rc == 0 && !h->unused)
        rc = add_slots(h);
    if (rc < 0)
        return rc;
    struct host_socket *s = h->unused;
    uint32_t slot = s->slot, generation = (s->generation + 1) % GENERATIONS;
    h->unused = s->next_ready;
    *s = (struct host_socket){.fd = fd, .generation = generation, .slot = slot};
    s->id = (int64_t)generation << HOST_SLOT_BITS | slot;
    h->live++;
    *out = s;
    return s->id;
}

int64_t host_open(struct host_sockets *h, int fd)
{
    struct host_socket *s;
    return socket_new(h, fd, &s);
}

int64_t host_listen(struct host_sockets *h, int fd)
{
    struct host_socket *s;
    int64_t id = socket_new(h, fd, &s);
    if (id < 0)
        return id;
    int rc = host_accept_open(s);
    if (rc < 0) {
        host_close(h, id);
        return rc;
    }
    return id;
}

void host_release(struct host_sockets *h, struct host_socket *s)
{
    if (s->ready_on || s->dirty_on || s->sending_on || s->receiving || s->sending || s->loan)
        return;
    if (s->out)
        host_buffer_free(h, s->out);
    uint32_t generation = s->generation, slot = s->slot;
    *s = (struct host_socket){.id = -1, .fd = -1, .generation = generation, .slot = slot, .next_ready = h->unused};
    h->unused = s;
    h->live--;
}

int host_close(struct host_sockets *h, int64_t id)
{
    struct host_socket *s = find_any(h, id);
    if (!s)
        return -EBADF;
    s->id = -1;
    s->closing = true;
    for (struct host_piece *piece; (piece = s->in);) {
        s->in = piece->next;
        host_piece_free(h, piece);
    }
    s->in_bytes = 0;
    if (s->gather)
        host_buffer_free(h, s->gather);
    s->gather = NULL;
    if (s->listening)
        host_accept_close(h, s);
    if (h->scratch_of == s)
        h->scratch_of = NULL;
    h->ops->close(h, s);
    bool lent = s->loan;
    host_release(h, s);
    return lent;
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

void host_append(struct host_sockets *h, struct host_socket *s, struct host_piece *piece)
{
    piece->next = NULL;
    if (s->in)
        s->in_tail->next = piece;
    else
        s->in = piece;
    s->in_tail = piece;
    s->in_bytes += piece->len;
}

void host_end(struct host_sockets *h, struct host_socket *s, int error)
{
    if (s->ended)
        return;
    s->ended = true;
    s->fate = (int16_t)error;
    if (error)
        host_fail(h, s, error);
    host_raise(h, s);
    host_mark_dirty(h, s);
}

/* What reading gives when no data is here. An error is told until host_error() clears it; then the stream has ended. */
static int64_t read_nothing(const struct host_socket *s) { return s->error && s->fate ? -s->fate : 0; }

int64_t host_readable(struct host_sockets *h, int64_t id)
{
    struct host_socket *s = find(h, id);
    if (!s)
        return -EBADF;
    if (s->listening)
        return -ENOTCONN;
    if (s->in_bytes)
        return s->in_bytes;
    return s->ended ? read_nothing(s) : h->ops->pull(h, s);
}

int64_t host_recv(struct host_sockets *h, int64_t id, uint8_t *data, size_t len)
{
    struct host_socket *s = find(h, id);
    if (!s)
        return -EBADF;
    if (s->listening)
        return -ENOTCONN;
    if (!s->in_bytes)
        return s->ended ? read_nothing(s) : h->ops->recv(h, s, data, len);
    size_t done = 0;
    for (struct host_piece *piece; done < len && (piece = s->in);) {
        uint32_t n = piece->len < len - done ? piece->len : (uint32_t)(len - done);
        memcpy(data + done, piece->data, n);
        done += n;
        piece->data += n;
        piece->len -= n;
        if (!piece->len) {
            s->in = piece->next;
            host_piece_free(h, piece);
        }
    }
    s->in_bytes -= (uint32_t)done;
    if (!s->in_bytes && !s->receiving && !s->ended)
        host_mark_dirty(h, s);
    return (int64_t)done;
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

void host_fail(struct host_sockets *h, struct host_socket *s, int error)
{
    if (!s->error)
        s->error = (int16_t)error;
    s->shut = s->is_shut = true; /* nothing can be sent any more */
    if (s->gather)
        host_buffer_free(h, s->gather);
    s->gather = NULL;
    if (!s->sending) { /* else when that has ended */
        if (s->out)
            host_buffer_free(h, s->out);
        s->out = NULL;
        if (s->loan)
            s->loan->upto = s->loan->from;
        if (s->loan && !s->loan->notifications) {
            free(s->loan);
            s->loan = NULL;
        }
    }
    host_raise(h, s);
}

int64_t host_send(struct host_sockets *h, int64_t id, const uint8_t *data, size_t len)
{
    struct host_socket *s = find(h, id);
    if (!s)
        return -EBADF;
    if (s->listening)
        return -ENOTCONN;
    if (s->error)
        return -s->error;
    return s->shut ? -EPIPE : h->ops->send(h, s, data, len);
}

/* A loan that is sent, but not yet free, counts as one byte. */
static int64_t lent(const struct host_socket *s)
{
    return !s->loan ? 0 : s->loan->from < s->loan->upto ? s->loan->upto - s->loan->from : 1;
}

int host_lend(struct host_sockets *h, int64_t id, const uint8_t *data, size_t len)
{
    struct host_socket *s = find(h, id);
    if (!s)
        return -EBADF;
    if (s->listening)
        return -ENOTCONN;
    if (s->error)
        return -s->error;
    return s->shut ? -EPIPE : h->ops->lend ? h->ops->lend(h, s, data, len) : -EOPNOTSUPP;
}

int64_t host_lent(struct host_sockets *h, int64_t id)
{
    struct host_socket *s = find_any(h, id);
    return s ? lent(s) : -EBADF;
}

int64_t host_queued(struct host_sockets *h, int64_t id)
{
    struct host_socket *s = find_any(h, id);
    if (!s)
        return -EBADF;
    return (int64_t)(s->out ? s->out->upto - s->out->from : 0) + (s->gather ? s->gather->upto : 0) + lent(s);
}

int host_shutdown(struct host_sockets *h, int64_t id)
{
    struct host_socket *s = find(h, id);
    if (!s)
        return -EBADF;
    if (s->listening)
        return -ENOTCONN;
    s->shut = true;
    if (!s->is_shut && !s->out && !s->gather && !s->loan) {
        s->is_shut = true;
        return shutdown(s->fd, SHUT_WR) < 0 ? -errno : 0;
    }
    return 0;
}

/* --- the rest ---------------------------------------------------------------------------------------------------- */

int host_accept(struct host_sockets *h, int64_t id)
{
    struct host_socket *s = find(h, id);
    if (!s)
        return -EBADF;
    return s->listening ? h->ops->accept(h, s) : -EINVAL;
}

int host_want(struct host_sockets *h, int64_t id, unsigned mask)
{
    struct host_socket *s = find_any(h, id);
    if (!s)
        return -EBADF;
    mask &= EV_READ | EV_WRITE | EV_SENT;
    if (s->want == mask)
        return 0;
    if (s->listening && mask & ~s->want & EV_READ)
        s->accepted->resume_at = 0; /* asked anew: no need to rest */
    s->want = (uint8_t)mask;
    s->raised &= mask;
    host_mark_dirty(h, s);
    if (s->watched && !(mask & (EV_READ | EV_WRITE)))
        h->ops->work(h, s); /* at once: somebody else may be about to watch the descriptor (sendfile) */
    if (ready(h, s))
        host_raise(h, s);
    return 0;
}

int host_error(struct host_sockets *h, int64_t id)
{
    struct host_socket *s = find_any(h, id);
    if (!s)
        return -EBADF;
    int error = s->error;
    s->error = 0;
    return error;
}

static int64_t stream_readable(void *owner, int64_t id) { return host_readable(owner, id); }

static int64_t stream_recv(void *owner, int64_t id, uint8_t *data, size_t len)
{
    return host_recv(owner, id, data, len);
}

static int64_t stream_send(void *owner, int64_t id, const uint8_t *data, size_t len)
{
    return host_send(owner, id, data, len);
}

const struct stream_ops *host_stream_ops(void)
{
    static const struct stream_ops ops = {stream_readable, stream_recv, stream_send, HOST_LEND_FROM};
    return &ops;
}

/* --- the set ----------------------------------------------------------------------------------------------------- */

int hosts_new(struct host_sockets **out, struct reactor *r)
{
    if (r->hosts)
        return -EBUSY;
    const struct host_backend *ops = r->ops->hosts(r);
    if (!ops) /* virtual time */
        return -EOPNOTSUPP;
    struct host_sockets *h = calloc(1, sizeof *h);
    if (!h)
        return -ENOMEM;
    h->reactor = r;
    h->poller.run = run;
    h->poller.events = collect;
    h->ops = ops;
    int rc = reactor_attach(r, &h->poller);
    if (rc < 0) {
        free(h);
        return rc;
    }
    r->hosts = r->set.hosts = h;
    *out = h;
    return 0;
}

uint64_t hosts_base(struct host_sockets *h) { return h->poller.base >> 16; }

void hosts_free(struct host_sockets *h)
{
    for (uint32_t slot = 0; slot < h->slots; slot++)
        if (host_slot(h, slot)->id >= 0)
            host_close(h, host_slot(h, slot)->id);
    for (struct host_socket *s; (s = h->ready.head);) {
        h->ready.head = s->next_ready;
        s->ready_on = false;
        host_release(h, s);
    }
    if (h->opened)
        h->ops->finish(h);
    reactor_detach(h->reactor, &h->poller);
    h->reactor->hosts = h->reactor->set.hosts = NULL;
    for (uint32_t slot = 0; slot < h->slots; slot++) { /* the kernel has let go of these, or the ring is gone */
        if (host_slot(h, slot)->out)
            host_buffer_free(h, host_slot(h, slot)->out);
        free(host_slot(h, slot)->loan);
    }
    host_pool_free(&h->pool);
    for (uint32_t chunk = 0; chunk < h->slots / HOST_CHUNK; chunk++)
        free(h->chunks[chunk]);
    free(h->chunks);
    free(h->scratch);
    for (unsigned class = 0; class < HOST_BUFFER_CLASSES; class++)
        for (struct host_buffer *b; (b = h->spare[class]);) {
            h->spare[class] = b->next;
            free(b);
        }
    free(h);
}

void hosts_counters(struct host_sockets *h, uint64_t *out)
{
    out[0] = h->live;
    out[1] = h->received;
    out[2] = h->sent;
    out[3] = h->sends;
    out[4] = h->starved;
    out[5] = h->moved;
    out[6] = h->refused;
    out[7] = h->slots * sizeof(struct host_socket) + h->buffer_bytes + h->kept_bytes;
}
