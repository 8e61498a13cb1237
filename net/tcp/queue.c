/* The bytes of a connection: to send (from the first unacknowledged on), and received in order.
 *
 * Sent bytes are copied once, into buffers that fit what was written, or what waits already; small writes share a
 * buffer. Frames to send are clones of parts of it: however small the peer's segments, the queue itself is not cut up.
 * Two cursors remember where new data and what is sent again begin, so that a long queue is not walked for each
 * segment.
 *
 * Received packets are queued as they are; one that fits is copied into the room that the last buffer has left, so
 * that a flood of small segments cannot hold many large buffers. */
#include <errno.h>

#include "net/core/sanitize.h"
#include "net/core/wire.h"
#include "net/tcp/tcp.h"

#define WRITE_BUFFER_MAX 65536
#define WRITABLE_ROOM (256u * 1024)
#define WRITE_BUFFER_LEAST 2048 /* while memory is short */
#define WRITE_BUFFER_BACKLOG 16384 /* small writes into a queue that is long share buffers of this size */
#define DUPACKS_OWED_MAX 64

/* --- to send --- */

uint32_t tcp_out_room(const struct stack *s, const struct tcp *t)
{
    uint32_t limit = t->out_limit, unsent = tcp_unsent(t);
    switch (tcp_memory(s)) {
    case MEMORY_FREE:
        break;
    case MEMORY_SHORT: {
        uint32_t share = tcp_memory_share(s), least = 2u * t->mss; /* less would wait for delayed ACKs */
        share = share > least ? share : least;
        limit = limit < share ? limit : share;
        break;
    }
    case MEMORY_FULL:
        limit = limit < t->mss ? limit : t->mss; /* goes at once, and whole */
        break;
    case MEMORY_OUT:
        return 0;
    }
    uint32_t room = limit > t->out_bytes ? limit - t->out_bytes : 0;
    if (t->notsent_lowat) {
        uint32_t wanted = t->notsent_lowat > unsent ? t->notsent_lowat - unsent : 0;
        room = room < wanted ? room : wanted;
    }
    return room;
}

/* A third of it is free, or a good deal, so that writers are not called for every segment; and little enough is unsent. */
bool tcp_writable(const struct tcp *t)
{
    uint32_t room = t->out_limit > t->out_bytes ? t->out_limit - t->out_bytes : 0, third = t->out_limit / 3;
    return room >= (third < WRITABLE_ROOM ? third : WRITABLE_ROOM) && (!t->notsent_lowat || tcp_unsent(t) < t->notsent_lowat);
}

static struct pbuf *write_buffer(struct stack *s, const struct tcp *t, size_t len)
{
    uint64_t most = s->pool.limit / 64 < WRITE_BUFFER_MAX ? s->pool.limit / 64 : WRITE_BUFFER_MAX;
    if (tcp_memory(s) != MEMORY_FREE)
        most = WRITE_BUFFER_LEAST;
    uint64_t want = t->out_bytes > len ? t->out_bytes < WRITE_BUFFER_BACKLOG ? t->out_bytes : WRITE_BUFFER_BACKLOG : len;
    want = want < len ? len : want;
    want = want < most ? want : most;
    struct pbuf *p = pbuf_alloc(&s->pool, 0, (uint32_t)want);
    return p || want <= WRITE_BUFFER_LEAST ? p : pbuf_alloc(&s->pool, 0, WRITE_BUFFER_LEAST);
}

int64_t tcp_out_append(struct stack *s, struct tcp *t, const uint8_t *data, size_t len)
{
    size_t room = tcp_out_room(s, t), done = 0;
    if (len && !room && t->out_bytes < t->out_limit)
        count(s, C_TcpExtTCPMemoryPressures);
    if (len > room)
        len = room;
    while (done < len) {
        struct pbuf *tail = t->out.tail;
        if (!tail || !pbuf_tailroom(tail)) {
            tail = write_buffer(s, t, len - done);
            if (!tail) {
                count(s, C_TcpExtTCPMemoryPressures);
                break;
            }
            pbuf_list_push(&t->out, tail);
        }
        uint32_t n = pbuf_tailroom(tail);
        if (n > len - done)
            n = (uint32_t)(len - done);
        memcpy(pbuf_data(tail) + tail->len, data + done, n);
        tail->len += n;
        done += n;
        t->out_bytes += n;
    }
    return (int64_t)done;
}

void tcp_out_acked(struct stack *s, struct tcp *t, uint32_t bytes)
{
    t->out_bytes -= bytes;
    while (bytes) {
        struct pbuf *p = t->out.head;
        uint32_t n = bytes < p->len ? bytes : p->len;
        for (unsigned i = 0; i < 2; i++) {
            struct out_cursor *c = &t->cursors[i];
            if (c->p != p)
                continue;
            if (n == p->len || c->off < n)
                c->p = NULL;
            else
                c->off -= n;
        }
        if (n < p->len)
            pbuf_pull(p, n);
        else
            pbuf_free(&s->pool, pbuf_list_pop(&t->out));
        bytes -= n;
    }
}

/* The cursor for `from`, put there: from the nearest place before it that is known. */
static struct out_cursor *seek(struct tcp *t, seq_t from)
{
    struct out_cursor *to = &t->cursors[seq_lt(from, t->snd_max)], *near = NULL;
    for (unsigned i = 0; i < 2; i++) {
        struct out_cursor *c = &t->cursors[i];
        if (c->p && seq_le(c->seq, from) && (!near || seq_gt(c->seq, near->seq)))
            near = c;
    }
    /* While our SYN is under way nothing of the queue is, so snd_una + 1 would be its first byte; see tcp_output(). */
    struct out_cursor at = near ? *near : (struct out_cursor){t->out.head, 0, t->snd_una};
    uint32_t off = at.off + (uint32_t)seq_diff(from, at.seq);
    while (at.p && off >= at.p->len && at.p->next) {
        off -= at.p->len;
        at.p = at.p->next;
    }
    *to = (struct out_cursor){at.p, off, from};
    return to;
}

uint32_t tcp_out_window(struct stack *s, struct tcp *t, seq_t from, uint32_t len, struct pbuf *head, unsigned max_frags)
{
    uint32_t done = 0;
    struct out_cursor *at = seek(t, from);
    struct pbuf *last = head;
    while (last->frag)
        last = last->frag;
    while (done < len && max_frags) {
        struct pbuf *p = at->p;
        if (p && at->off == p->len) {
            if (!p->next)
                break;
            p = at->p = p->next;
            at->off = 0;
        }
        if (!p || at->off > p->len)
            break;
        uint32_t n = p->len - at->off < len - done ? p->len - at->off : len - done;
        uint8_t *tail = pbuf_data(head) + head->len;
        if (!head->frag && n <= pbuf_tailroom(head)) { /* short: cheaper copied behind the header */
            memcpy(tail, pbuf_data(p) + at->off, n);
            head->len += n;
        } else {
            struct pbuf *c = pbuf_clone(&s->pool, p, at->off, n);
            if (!c)
                break;
            last->frag = c;
            last = c;
            max_frags--;
        }
        at->off += n;
        done += n;
    }
    at->seq = seq_add(from, done);
    return done;
}

/* --- received --- */

bool tcp_readable(const struct tcp *t)
{
    /* Less than was asked for is better than nothing, if more cannot come. */
    return t->in.head && (t->in_bytes >= t->rcv_lowat || seq_eq(t->rcv_adv, t->rcv_nxt) || t->in_bytes >= t->in_limit / 2);
}

void tcp_in_append(struct stack *s, struct tcp *t, struct pbuf *p)
{
    struct pbuf *tail = t->in.tail;
    t->rcv_nxt = seq_add(t->rcv_nxt, p->len);
    t->in_bytes += p->len;
    t->unacked_in += p->len;
    if (tail && p->len <= pbuf_tailroom(tail)) {
        memory_unpoison(pbuf_data(tail) + tail->len, p->len);
        memcpy(pbuf_data(tail) + tail->len, pbuf_data(p), p->len);
        tail->len += p->len;
        pbuf_free(&s->pool, p);
        return;
    }
    if (tail) /* a backlog begins: what waits in it should not wait in large buffers */
        p = pbuf_fit(&s->pool, p);
    p->next = NULL;
    t->in_held += p->size;
    pbuf_list_push(&t->in, p);
}

bool tcp_in_insert(struct stack *s, struct tcp *t, const struct segment *g)
{
    struct pbuf *p = g->p;
    bool fin = g->flags & TH_FIN, in_order = seq_eq(g->seq, t->rcv_nxt);
    if (p->len && !tcp_memory_admits(s, t, p, in_order)) { /* not acknowledged, so it comes again when there is room */
        pbuf_free(&s->pool, p);
        return false;
    }
    p->mark = g->seq.v;
    p->mark2 = fin;
    p->next = NULL;
    if (!in_order) {
        if (p->len || fin)
            tcp_ooo_insert(s, t, p);
        else
            pbuf_free(&s->pool, p);
        if (t->dupacks_owed < DUPACKS_OWED_MAX) /* RFC 5681 4.2: one for each, by which the sender finds the gap */
            t->dupacks_owed++;
        t->ack_now = true;
        return false;
    }
    t->dupacks_owed = 0; /* those not sent yet would now acknowledge more, and be no duplicates */
    if (p->len)
        tcp_in_append(s, t, p);
    else
        pbuf_free(&s->pool, p);
    if (t->ooo)
        t->ack_now = true; /* it filled (part of) a gap */
    if (!fin)
        fin = tcp_ooo_deliver(s, t);
    if (t->blocks_held)
        tcp_sack_moved(t);
    if (fin) {
        t->rcv_nxt = seq_add(t->rcv_nxt, 1);
        t->rcv_adv = seq_max(t->rcv_adv, t->rcv_nxt); /* a FIN fits into a full window */
        tcp_ooo_clear(s, t);                          /* there is nothing behind it */
    }
    return fin;
}

int64_t tcp_in_read(struct stack *s, struct tcp *t, uint8_t *buf, size_t cap)
{
    size_t done = 0;
    while (done < cap && t->in.head) {
        struct pbuf *p = t->in.head;
        uint32_t n = p->len < cap - done ? p->len : (uint32_t)(cap - done);
        memcpy(buf + done, pbuf_data(p), n);
        done += n;
        pbuf_pull(p, n);
        if (!p->len) {
            t->in_held -= p->size;
            pbuf_free(&s->pool, pbuf_list_pop(&t->in));
        }
    }
    t->in_bytes -= (uint32_t)done;
    t->opened |= done > 0;
    tcp_right_size(s, t, (uint32_t)done);
    return (int64_t)done;
}

void tcp_queues_clear(struct stack *s, struct tcp *t)
{
    tcp_queues_cut(s, t);
    pbuf_list_clear(&s->pool, &t->in);
    t->in_bytes = t->in_held = 0;
}

void tcp_queues_cut(struct stack *s, struct tcp *t)
{
    pbuf_list_clear(&s->pool, &t->out);
    sb_clear(&s->sent, &t->sb);
    tcp_ooo_clear(s, t);
    if (t->child) {
        pbuf_free(&s->pool, t->child->syn);
        t->child->syn = NULL;
    }
    t->out_bytes = 0;
    t->cursors[0].p = t->cursors[1].p = NULL;
}
