/* What must hold in a stack between any two entries, seen from the inside: the words of tcp.h, sock.h and timer.h, made
 * checks. One that fails aborts, which is what a fuzzer understands. */
#ifndef LIBOS_FUZZ_INVARIANTS_H
#define LIBOS_FUZZ_INVARIANTS_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "net/tcp/tcp.h"
#include "net/udp.h"

#define must(x)                                                                                                        \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "not so: %s (line %d)\n", #x, __LINE__);                                                   \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint32_t bytes_of(const struct pbuf_list *l)
{
    uint32_t n = 0;
    for (const struct pbuf *p = l->head; p; p = p->next) {
        must(p->len && p->off + p->len <= p->size);
        must(p->next || p == l->tail);
        n += p->len;
    }
    return n;
}

/* The scoreboard covers what is under way without a gap, and counts what it says. Its records. */
static uint32_t look_over_scoreboard(const struct tcp *t)
{
    const struct scoreboard *b = &t->sb;
    uint32_t records = 0, flying = 0, missing = 0, sacked = 0, lost = 0;
    seq_t at = b->all.head ? b->all.head->seq : t->snd_max;
    const struct sent *last_sacked = NULL;
    for (const struct sent *r = b->all.head; r; r = r->next, records++) {
        uint32_t len = (uint32_t)seq_diff(r->end, r->seq);
        must(seq_eq(r->seq, at) && seq_lt(r->seq, r->end) && r->mss);
        must(r->prev ? r->prev->next == r : b->all.head == r);
        must(r->next || b->all.tail == r);
        at = r->end;
        sacked += r->fate == SACKED ? len : 0;
        lost += r->fate == LOST ? len : 0;
        flying += r->fate == FLYING;
        missing += r->fate == LOST;
        if (r->fate == SACKED)
            last_sacked = r;
    }
    must(seq_eq(at, t->snd_max) && sacked == b->sacked && lost == b->lost && last_sacked == b->sacked_last);
    for (const struct sent *r = b->flying.head; r; r = r->after, flying--)
        must(r->fate == FLYING && (!r->after || r->time <= r->after->time));
    for (const struct sent *r = b->missing.head; r; r = r->after, missing--)
        must(r->fate == LOST && (!r->after || seq_lt(r->seq, r->after->seq)));
    must(flying == 0 && missing == 0);
    if (b->all.head)
        must(seq_eq(b->all.head->seq, t->snd_una));
    must(sacked + lost + t->dup_bytes <= (uint32_t)seq_diff(t->snd_max, t->snd_una));
    return records;
}

static void look_over_tcp(struct stack *s, const struct tcp *t)
{
    uint32_t held = 0;
    must(t->state >= ESTABLISHED && t->state < TCP_STATES);
    must(bytes_of(&t->out) == t->out_bytes && bytes_of(&t->in) == t->in_bytes);
    uint32_t waiting = 0;
    for (const struct pbuf *p = t->in.head; p; p = p->next)
        waiting += p->size;
    must(waiting == t->in_held);
    must((t->timer.place == TIMER_IDLE) == (t->timer.place >= s->timers.count));
    for (const struct pbuf *p = t->ooo; p; p = p->next) {
        seq_t end = seq_add(seq(p->mark), p->len);
        must(seq_gt(seq(p->mark), t->rcv_nxt) && seq_le(end, t->rcv_adv));
        must(!p->next || seq_le(end, seq(p->next->mark)));
        held += p->size;
    }
    must(held == t->ooo_held);
    uint32_t runs = 0;
    for (const struct pbuf *r = NULL, *next; (next = tcp_ooo_next(t, r)); r = next, runs++)
        must(!r || seq_lt(OOO_END(r->mate), OOO_SEQ(next)));
    must(runs == t->ooo_runs && runs <= OOO_RUNS_MAX);
    if (t->state == CLOSED) {
        must((!t->k.hashed || !t->k.rport) && t->timer.place == TIMER_IDLE && !t->ooo && !tcp_parent(t)); /* bound, perhaps */
        return;
    }
    if (t->state == LISTEN) {
        unsigned queued = 0, halves = 0;
        for (const struct tcp *c = t->listener->first; c; c = c->child->next, queued++)
            must(tcp_parent(c) == t && !c->child->half && (c->child->next || c == t->listener->last));
        for (const struct tcp *c = t->listener->half; c; c = c->child->next, halves++)
            must(tcp_parent(c) == t && c->child->half && c->state == SYN_RECV);
        must(queued == t->listener->queued && halves == t->listener->halves);
        return;
    }
    must(t->k.hashed && t->k.rport && t->k.lport);
    must(seq_le(t->snd_una, t->snd_nxt) && seq_le(t->snd_nxt, t->snd_max));
    must(t->mss >= 48 && t->rto >= TCP_RTO_MIN && t->rto <= TCP_RTO_MAX);
    if (t->state == SYN_SENT || t->state == SYN_RECV)
        return;
    uint32_t flight = (uint32_t)seq_diff(t->snd_max, t->snd_una);
    must(seq_le(t->rcv_nxt, t->rcv_adv) && t->cwnd >= t->mss && t->shift_in <= 14 && t->shift_out <= 14);
    must(flight <= t->out_bytes + t->fin_sent);
    look_over_scoreboard(t);
    for (unsigned i = 0; i < t->blocks_held; i++)
        must(t->sack_ok && seq_gt(t->blocks[i].left, t->rcv_nxt) && seq_lt(t->blocks[i].left, t->blocks[i].right));
    /* What is under way has a timer, or is about to be sent; and who is gone does not stay for ever. */
    must(!flight || t->due[T_REXMT] || t->k.dirty_on);
    if (t->k.orphan)
        must(t->due[T_REXMT] || t->due[T_WAIT] || t->due[T_PERSIST] || t->due[T_PACE] || t->k.dirty_on);
}

static void look_over(struct stack *s)
{
    uint32_t socks = 0, time_waits = 0, established = 0, orphans = 0, fast = 0;
    for (uint32_t i = 0; i < s->socks->cap; i++) {
        struct sock *k = s->socks->slots[i];
        if (!k)
            continue;
        socks++;
        must(!(k->ready_on && k->orphan));
        if (k->type == SOCK_STREAM) {
            struct tcp *t = tcp_of(k);
            look_over_tcp(s, t);
            time_waits += t->state == TIME_WAIT;
            orphans += t->counted_orphan;
            fast += tcp_is_fast_child(t);
            must(!t->counted_orphan || t->k.orphan);
            established += t->state == ESTABLISHED || t->state == CLOSE_WAIT;
        } else {
            const struct udp *u = (struct udp *)k;
            uint32_t held = 0;
            for (const struct pbuf *p = u->in.head; p; p = p->next)
                held += p->size;
            must(held == u->in_bytes);
        }
    }
    must(socks == s->socks->count && time_waits == s->time_waits && established == s->counters[C_TcpCurrEstab]);
    must(orphans == s->orphans && fast == s->fastopen_pending);
    must(s->pool.in_use <= s->pool.carved && s->pool.carved <= s->pool.limit);
    for (uint32_t i = 0; i < s->timers.count; i++) {
        must(s->timers.heap[i]->place == i);
        must(!i || s->timers.heap[(i - 1) / 2]->due <= s->timers.heap[i]->due);
    }
}

#endif
