/* The bytes of a connection: to send (from the first unacknowledged on), received in order, received out of order.
 *
 * Sent bytes are copied once, into buffers that fit what was written; small writes share a buffer. Frames to send are
 * clones of parts of it. Received packets are queued as they are; a small one is copied into the room that the last
 * buffer has left, so that a flood of small segments cannot hold many large buffers. */
#include <errno.h>

#include "net/core/sanitize.h"
#include "net/tcp/tcp.h"
#include "net/core/wire.h"

#define WRITE_BUFFER_MAX 65536
#define WRITE_BUFFER_LEAST 2048
#define DUPACKS_OWED_MAX 64

/* --- to send --- */

int64_t tcp_out_append(struct stack *s, struct tcp *t, const uint8_t *data, size_t len)
{
    size_t room = t->out_limit > t->out_bytes ? t->out_limit - t->out_bytes : 0, done = 0;
    if (len > room)
        len = room;
    while (done < len) {
        struct pbuf *tail = t->out.tail;
        if (!tail || !pbuf_tailroom(tail)) {
            size_t want = len - done < WRITE_BUFFER_MAX ? len - done : WRITE_BUFFER_MAX;
            tail = pbuf_pressure(&s->pool) ? NULL : pbuf_alloc(&s->pool, 0, (uint32_t)want);
            if (!tail && want > WRITE_BUFFER_LEAST && !pbuf_pressure(&s->pool))
                tail = pbuf_alloc(&s->pool, 0, WRITE_BUFFER_LEAST);
            if (!tail) {
                count(s, C_TcpExtTCPMemoryPressures);
                break;
            }
            queue_push(&t->out, tail);
        }
        uint32_t n = pbuf_tailroom(tail);
        if (n > len - done)
            n = (uint32_t)(len - done);
        memcpy(pbuf_data(tail) + tail->len, data + done, n);
        tail->len += n;
        done += n;
    }
    t->out_bytes += (uint32_t)done;
    return (int64_t)done;
}

void tcp_out_acked(struct stack *s, struct tcp *t, uint32_t bytes)
{
    t->out_bytes -= bytes;
    while (bytes) {
        struct pbuf *p = t->out.head;
        if (bytes < p->len) {
            if (t->cursor == p)
                t->cursor_off -= t->cursor_off < bytes ? t->cursor_off : bytes;
            pbuf_pull(p, bytes);
            return;
        }
        bytes -= p->len;
        if (t->cursor == p)
            t->cursor = NULL;
        pbuf_free(&s->pool, queue_pop(&t->out));
    }
}

/* Put the cursor where `from` is. */
static void seek(struct tcp *t, seq_t from)
{
    if (t->cursor && seq_eq(t->cursor_seq, from) && seq_ge(from, t->snd_una))
        return;
    /* While our SYN is under way nothing of the queue is, so snd_una + 1 would be its first byte; see tcp_output(). */
    uint32_t off = (uint32_t)seq_diff(from, t->snd_una);
    struct pbuf *p = t->out.head;
    while (p && off >= p->len && p->next) {
        off -= p->len;
        p = p->next;
    }
    t->cursor = p;
    t->cursor_off = off;
    t->cursor_seq = from;
}

uint32_t tcp_out_window(struct stack *s, struct tcp *t, seq_t from, uint32_t len, struct pbuf *head, unsigned max_frags)
{
    uint32_t done = 0;
    seek(t, from);
    while (done < len && max_frags) {
        struct pbuf *p = t->cursor;
        if (p && t->cursor_off == p->len) {
            p = t->cursor = p->next;
            t->cursor_off = 0;
        }
        if (!p)
            break;
        uint32_t n = p->len - t->cursor_off < len - done ? p->len - t->cursor_off : len - done;
        uint8_t *tail = pbuf_data(head) + head->len;
        if (!head->frag && n <= pbuf_tailroom(head)) { /* short: cheaper copied behind the header */
            memcpy(tail, pbuf_data(p) + t->cursor_off, n);
            head->len += n;
        } else {
            struct pbuf *c = pbuf_clone(&s->pool, p, t->cursor_off, n), *last = head;
            if (!c)
                break;
            while (last->frag)
                last = last->frag;
            last->frag = c;
            max_frags--;
        }
        t->cursor_off += n;
        done += n;
    }
    t->cursor_seq = seq_add(from, done);
    return done;
}

/* --- received --- */

#define OOO_SEQ(p) seq((p)->mark)
#define OOO_FIN(p) ((p)->mark2)
#define OOO_END(p) seq_add(OOO_SEQ(p), (p)->len)

/* p's window becomes readable. */
static void append(struct stack *s, struct tcp *t, struct pbuf *p)
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
    } else {
        queue_push(&t->in, p);
    }
}

static void ooo_drop(struct stack *s, struct tcp *t, struct pbuf *p)
{
    t->ooo_held -= p->size;
    pbuf_free(&s->pool, p);
}

static void ooo_clear(struct stack *s, struct tcp *t)
{
    while (t->ooo) {
        struct pbuf *p = t->ooo;
        t->ooo = p->next;
        ooo_drop(s, t, p);
    }
    t->blocks_held = 0;
}

/* Keep p, that is ahead of rcv_nxt, sorted and free of overlap: p is cut by what is there already, but replaces what it
 * covers whole. Where copies differ the stream has a byte of either, once. */
static void ooo_insert(struct stack *s, struct tcp *t, struct pbuf *p)
{
    struct pbuf **at = &t->ooo;
    seq_t left = OOO_SEQ(p), right = OOO_END(p);
    if (t->ooo_held + p->size > 2 * t->in_limit) { /* tiny segments in large buffers: a bound of their own */
        count(s, C_TcpExtTCPOFODrop);
        pbuf_free(&s->pool, p);
        return;
    }
    while (*at && seq_le(OOO_SEQ(*at), OOO_SEQ(p))) {
        if (seq_gt(OOO_END(*at), OOO_SEQ(p))) { /* the one before reaches into p */
            uint32_t over = (uint32_t)seq_diff(OOO_END(*at), OOO_SEQ(p));
            if (over >= p->len) {
                count(s, C_TcpExtTCPDSACKOfoSent);
                tcp_sack_duplicate(t, OOO_SEQ(p), OOO_END(p));
                OOO_FIN(*at) |= OOO_FIN(p) && seq_eq(OOO_END(*at), OOO_END(p));
                pbuf_free(&s->pool, p);
                return;
            }
            pbuf_pull(p, over);
            p->mark += over;
        }
        at = &(*at)->next;
    }
    while (*at && seq_lt(OOO_SEQ(*at), OOO_END(p))) {
        struct pbuf *after = *at;
        if (seq_gt(OOO_END(after), OOO_END(p))) { /* p reaches into the one behind */
            p->len = (uint32_t)seq_diff(OOO_SEQ(after), OOO_SEQ(p));
            OOO_FIN(p) = 0;
            break;
        }
        OOO_FIN(p) |= OOO_FIN(after) && seq_eq(OOO_END(after), OOO_END(p));
        *at = after->next;
        ooo_drop(s, t, after);
    }
    p->next = *at;
    *at = p;
    t->ooo_held += p->size;
    if (t->sack_ok)
        tcp_sack_add(t, left, right);
    count(s, C_TcpExtTCPOFOQueue);
}

bool tcp_in_insert(struct stack *s, struct tcp *t, const struct segment *g)
{
    struct pbuf *p = g->p;
    bool fin = g->flags & TH_FIN;
    if (p->len && pbuf_pressure(&s->pool)) { /* not acknowledged, so it comes again when there is room */
        count(s, C_TcpExtTCPRcvQDrop);
        pbuf_free(&s->pool, p);
        return false;
    }
    p->mark = g->seq.v;
    p->mark2 = fin;
    p->next = NULL;
    if (!seq_eq(g->seq, t->rcv_nxt)) {
        if (p->len || fin)
            ooo_insert(s, t, p);
        else
            pbuf_free(&s->pool, p);
        if (t->dupacks_owed < DUPACKS_OWED_MAX) /* RFC 5681 4.2: one for each, by which the sender finds the gap */
            t->dupacks_owed++;
        t->ack_now = true;
        return false;
    }
    t->dupacks_owed = 0; /* those not sent yet would now acknowledge more, and be no duplicates */
    if (p->len)
        append(s, t, p);
    else
        pbuf_free(&s->pool, p);
    if (t->ooo)
        t->ack_now = true; /* it filled (part of) a gap */
    while (!fin && t->ooo && seq_le(OOO_SEQ(t->ooo), t->rcv_nxt)) {
        struct pbuf *q = t->ooo;
        uint32_t over = (uint32_t)seq_diff(t->rcv_nxt, OOO_SEQ(q));
        t->ooo = q->next;
        t->ooo_held -= q->size;
        q->next = NULL;
        if (over > q->len || (over == q->len && !OOO_FIN(q))) {
            pbuf_free(&s->pool, q);
            continue;
        }
        fin = OOO_FIN(q);
        pbuf_pull(q, over);
        if (q->len)
            append(s, t, q);
        else
            pbuf_free(&s->pool, q);
    }
    if (t->blocks_held)
        tcp_sack_moved(t);
    if (fin) {
        t->rcv_nxt = seq_add(t->rcv_nxt, 1);
        t->rcv_adv = seq_max(t->rcv_adv, t->rcv_nxt); /* a FIN fits into a full window */
        ooo_clear(s, t);                              /* there is nothing behind it */
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
        if (!p->len)
            pbuf_free(&s->pool, queue_pop(&t->in));
    }
    t->in_bytes -= (uint32_t)done;
    return (int64_t)done;
}

void tcp_queues_clear(struct stack *s, struct tcp *t)
{
    tcp_queues_cut(s, t);
    queue_clear(&s->pool, &t->in);
    t->in_bytes = 0;
}

void tcp_queues_cut(struct stack *s, struct tcp *t)
{
    queue_clear(&s->pool, &t->out);
    sb_clear(&s->sent, &t->sb);
    ooo_clear(s, t);
    pbuf_free(&s->pool, t->syn);
    t->syn = NULL;
    t->out_bytes = 0;
    t->cursor = NULL;
}
