/* What came out of order: packets by sequence number, without overlap, in runs that have no gap inside.
 *
 * The list runs through `next`; a run's first packet knows its last one (`mate`), so that looking for a place goes from
 * run to run, beginning with the run that was touched last: in the common cases, a run that grows at its end, a step.
 * Packets that continue each other share buffers where they fit, and small ones are moved to small buffers. The number
 * of runs is bounded (a peer that makes thousands of holes is refused, not searched for), and so are the bytes of
 * buffers held, to twice the receive buffer's limit. Where copies of a byte differ, the one that came first counts
 * unless the later packet covers a whole run, which it replaces. */
#include "net/core/sanitize.h"
#include "net/tcp/tcp.h"

static void drop(struct stack *s, struct tcp *t, struct pbuf *p)
{
    t->ooo_held -= p->size;
    pbuf_free(&s->pool, p);
}

void tcp_ooo_clear(struct stack *s, struct tcp *t)
{
    while (t->ooo) {
        struct pbuf *p = t->ooo;
        t->ooo = p->next;
        drop(s, t, p);
    }
    t->blocks_held = 0;
    t->ooo_runs = 0;
    t->ooo_last = NULL;
}

/* The last run that begins at or before `at`; NULL: all begin behind it. */
static struct pbuf *run_before(const struct tcp *t, seq_t at)
{
    struct pbuf *r = t->ooo_last && seq_le(OOO_SEQ(t->ooo_last), at) ? t->ooo_last : t->ooo;
    if (!r || seq_gt(OOO_SEQ(r), at))
        return NULL;
    for (struct pbuf *next; (next = r->mate->next) && seq_le(OOO_SEQ(next), at);)
        r = next;
    return r;
}

/* Takes the run off that follows r (NULL: the first); returns it. */
static struct pbuf *take_next(struct tcp *t, struct pbuf *r)
{
    struct pbuf *gone = tcp_ooo_next(t, r);
    if (r)
        r->mate->next = gone->mate->next;
    else
        t->ooo = gone->mate->next;
    gone->mate->next = NULL;
    if (t->ooo_last == gone)
        t->ooo_last = NULL;
    t->ooo_runs--;
    return gone;
}

/* p continues run r: into the room its last buffer has left, or behind it. */
static void extend(struct stack *s, struct tcp *t, struct pbuf *r, struct pbuf *p)
{
    struct pbuf *last = r->mate;
    if (p->len <= pbuf_tailroom(last)) {
        memory_unpoison(pbuf_data(last) + last->len, p->len);
        memcpy(pbuf_data(last) + last->len, pbuf_data(p), p->len);
        last->len += p->len;
        OOO_FIN(last) |= OOO_FIN(p);
        pbuf_free(&s->pool, p);
        return;
    }
    p->next = last->next;
    last->next = p;
    r->mate = p;
    t->ooo_held += p->size;
}

/* p begins a run, behind r (NULL: as the first). */
static void begin(struct tcp *t, struct pbuf *r, struct pbuf *p)
{
    struct pbuf **at = r ? &r->mate->next : &t->ooo;
    p->next = *at;
    p->mate = p;
    *at = p;
    t->ooo_held += p->size;
    t->ooo_runs++;
}

void tcp_ooo_insert(struct stack *s, struct tcp *t, struct pbuf *p)
{
    struct pbuf *r = run_before(t, OOO_SEQ(p));
    if (r && seq_ge(OOO_END(r->mate), OOO_END(p))) { /* there already */
        count(s, C_TcpExtTCPDSACKOfoSent);
        tcp_sack_duplicate(t, OOO_SEQ(p), OOO_END(p));
        OOO_FIN(r->mate) |= OOO_FIN(p) && seq_eq(OOO_END(r->mate), OOO_END(p));
        pbuf_free(&s->pool, p);
        return;
    }
    bool continues = r && seq_ge(OOO_END(r->mate), OOO_SEQ(p));
    p = pbuf_fit(&s->pool, p);
    if (t->ooo_held + p->size > 2ull * t->in_limit || (!continues && t->ooo_runs >= OOO_RUNS_MAX)) {
        count(s, C_TcpExtTCPOFODrop);
        pbuf_free(&s->pool, p);
        return;
    }
    count(s, C_TcpExtTCPOFOQueue);
    /* Cut what the run before has; drop what p covers whole; cut p where it reaches into a run that goes on behind it. */
    if (continues) {
        uint32_t over = (uint32_t)seq_diff(OOO_END(r->mate), OOO_SEQ(p));
        pbuf_pull(p, over);
        p->mark += over;
    }
    struct pbuf *next;
    while ((next = tcp_ooo_next(t, r)) && seq_le(OOO_END(next->mate), OOO_END(p))) {
        OOO_FIN(p) |= OOO_FIN(next->mate) && seq_eq(OOO_END(next->mate), OOO_END(p));
        for (struct pbuf *q = take_next(t, r), *after; q; q = after) {
            after = q->next;
            drop(s, t, q);
        }
    }
    bool joins = next && seq_ge(OOO_END(p), OOO_SEQ(next));
    if (joins) {
        p->len = (uint32_t)seq_diff(OOO_SEQ(next), OOO_SEQ(p));
        OOO_FIN(p) = 0;
    }
    if (continues) {
        extend(s, t, r, p);
    } else {
        begin(t, r, p);
        r = p;
    }
    if (joins) { /* r and next have become one */
        r->mate = next->mate;
        t->ooo_runs--;
    }
    t->ooo_last = r;
    if (t->sack_ok)
        tcp_sack_add(t, OOO_SEQ(r), seq_add(OOO_END(r->mate), OOO_FIN(r->mate) != 0)); /* a FIN counts */
}

bool tcp_ooo_deliver(struct stack *s, struct tcp *t)
{
    bool fin = false;
    while (!fin && t->ooo && seq_le(OOO_SEQ(t->ooo), t->rcv_nxt)) {
        struct pbuf *run = take_next(t, NULL);
        for (struct pbuf *p = run, *after; p; p = after) {
            uint32_t over = (uint32_t)seq_diff(t->rcv_nxt, OOO_SEQ(p));
            after = p->next;
            t->ooo_held -= p->size;
            p->next = NULL;
            if (fin || over > p->len || (over == p->len && !OOO_FIN(p))) {
                pbuf_free(&s->pool, p);
                continue;
            }
            fin = OOO_FIN(p);
            pbuf_pull(p, over);
            if (p->len)
                tcp_in_append(s, t, p);
            else
                pbuf_free(&s->pool, p);
        }
    }
    return fin;
}
