/* See scoreboard.h. */
#include "net/tcp/scoreboard.h"

#include <stdlib.h>

#define CHUNK 127            /* records made at a time, about 8 KiB */
#define BYTES_PER_RECORD 2048 /* of a stack's packet memory: a record for each such piece of it at most */

struct sent_chunk {
    struct sent_chunk *next;
    struct sent records[CHUNK];
};

/* --- the pool --- */

void sent_pool_init(struct sent_pool *pool, uint64_t memory)
{
    uint64_t limit = memory / BYTES_PER_RECORD;
    *pool = (struct sent_pool){.limit = limit < 4 * CHUNK ? 4 * CHUNK : limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit};
}

void sent_pool_free(struct sent_pool *pool)
{
    while (pool->chunks) {
        struct sent_chunk *c = pool->chunks;
        pool->chunks = c->next;
        free(c);
    }
}

static bool grow(struct sent_pool *pool)
{
    struct sent_chunk *c = pool->total + CHUNK <= pool->limit ? malloc(sizeof *c) : NULL;
    if (!c)
        return false;
    c->next = pool->chunks;
    pool->chunks = c;
    pool->total += CHUNK;
    for (unsigned i = 0; i < CHUNK; i++) {
        c->records[i].next = pool->spare;
        pool->spare = &c->records[i];
    }
    return true;
}

bool sb_reserve(struct sent_pool *pool) { return (pool->spare && pool->spare->next) || grow(pool); }

static struct sent *take(struct sent_pool *pool)
{
    if (!pool->spare && !grow(pool))
        return NULL;
    struct sent *r = pool->spare;
    pool->spare = r->next;
    pool->in_use++;
    return r;
}

static void give(struct sent_pool *pool, struct sent *r)
{
    r->next = pool->spare;
    pool->spare = r;
    pool->in_use--;
}

/* --- the lists --- */

static uint32_t length(const struct sent *r) { return (uint32_t)seq_diff(r->end, r->seq); }

/* Behind `prev` (NULL: first) on the list by sequence number. */
static void link_all(struct scoreboard *b, struct sent *r, struct sent *prev)
{
    r->prev = prev;
    r->next = prev ? prev->next : b->all.head;
    *(r->prev ? &r->prev->next : &b->all.head) = r;
    *(r->next ? &r->next->prev : &b->all.tail) = r;
}

static void unlink_all(struct scoreboard *b, struct sent *r)
{
    *(r->prev ? &r->prev->next : &b->all.head) = r->next;
    *(r->next ? &r->next->prev : &b->all.tail) = r->prev;
    if (b->sacked_last == r)
        b->sacked_last = r->prev && r->prev->fate == SACKED ? r->prev : NULL;
}

/* Behind `before` on flying or missing. */
static void link_fate(struct sent_queue *q, struct sent *r, struct sent *before)
{
    r->before = before;
    r->after = before ? before->after : q->head;
    *(r->before ? &r->before->after : &q->head) = r;
    *(r->after ? &r->after->before : &q->tail) = r;
}

static void unlink_fate(struct scoreboard *b, struct sent *r)
{
    if (r->fate == SACKED)
        return;
    struct sent_queue *q = r->fate == FLYING ? &b->flying : &b->missing;
    *(r->before ? &r->before->after : &q->head) = r->after;
    *(r->after ? &r->after->before : &q->tail) = r->before;
}

/* Counted out of its fate. */
static void uncount(struct scoreboard *b, const struct sent *r, uint32_t len)
{
    if (r->fate == SACKED)
        b->sacked -= len;
    else if (r->fate == LOST)
        b->lost -= len;
}

static void drop(struct sent_pool *pool, struct scoreboard *b, struct sent *r)
{
    unlink_fate(b, r);
    unlink_all(b, r);
    give(pool, r);
}

/* r ends at `at`, and a new record of the same fate stands for the rest. NULL: none is left. */
static struct sent *cut(struct sent_pool *pool, struct scoreboard *b, struct sent *r, seq_t at)
{
    struct sent *rest = take(pool);
    if (!rest)
        return NULL;
    *rest = *r;
    r->end = rest->seq = at;
    link_all(b, rest, r);
    if (r->fate != SACKED)
        link_fate(r->fate == FLYING ? &b->flying : &b->missing, rest, r);
    else if (b->sacked_last == r)
        b->sacked_last = rest;
    return rest;
}

/* r and the one behind it become one, if nothing sets them apart and their seam is between two full segments. */
static void join(struct sent_pool *pool, struct scoreboard *b, struct sent *r)
{
    struct sent *n = r ? r->next : NULL;
    if (!n || r->fate != n->fate || !seq_eq(r->end, n->seq))
        return;
    if (r->fate == LOST ||
        (r->fate == FLYING && (r->time != n->time || r->again != n->again || r->mss != n->mss || length(r) % r->mss)))
        return;
    seq_t end = n->end;
    if (b->sacked_last == n)
        b->sacked_last = r;
    drop(pool, b, n);
    r->end = end;
}

/* --- sending --- */

void sb_sent(struct sent_pool *pool, struct scoreboard *b, seq_t seq, seq_t end, uint16_t mss, uint64_t now)
{
    struct sent *last = b->all.tail, *r;
    if (last && last->fate == FLYING && last->time == now && !last->again && last->mss == mss &&
        seq_eq(last->end, seq) && length(last) % mss == 0) {
        last->end = end;
        return;
    }
    r = take(pool);
    *r = (struct sent){.time = now, .seq = seq, .end = end, .mss = mss, .fate = FLYING};
    link_all(b, r, last);
    link_fate(&b->flying, r, b->flying.tail);
}

void sb_resent(struct sent_pool *pool, struct scoreboard *b, struct sent *r, uint32_t len, uint16_t mss, uint64_t now)
{
    if (len < length(r))
        cut(pool, b, r, seq_add(r->seq, len));
    uncount(b, r, length(r));
    unlink_fate(b, r);
    r->fate = FLYING;
    r->again = true;
    r->time = now;
    r->mss = mss;
    link_fate(&b->flying, r, b->flying.tail);
    join(pool, b, r->prev);
}

struct sent *sb_last_segment(struct sent_pool *pool, struct scoreboard *b)
{
    struct sent *r = b->all.tail;
    if (!r || r->fate != FLYING)
        return NULL;
    uint32_t over = (length(r) - 1) % r->mss + 1;
    return over < length(r) ? cut(pool, b, r, seq_add(r->end, (uint32_t)-over)) : r;
}

/* --- being told --- */

void sb_acked(struct sent_pool *pool, struct scoreboard *b, seq_t ack, sb_delivered *delivered, void *context)
{
    struct sent *r;
    while ((r = b->all.head) && seq_lt(r->seq, ack)) {
        bool whole = seq_le(r->end, ack);
        uint32_t len = whole ? length(r) : (uint32_t)seq_diff(ack, r->seq);
        if (r->fate != SACKED)
            delivered(context, r, len);
        uncount(b, r, len);
        if (!whole) {
            r->seq = ack;
            break;
        }
        drop(pool, b, r);
    }
}

/* r lies in the block whole. The record that it has become part of. */
static struct sent *sack(struct sent_pool *pool, struct scoreboard *b, struct sent *r, sb_delivered *delivered,
                         void *context)
{
    uint32_t len = length(r);
    struct sent *prev = r->prev;
    bool joins = prev && prev->fate == SACKED && seq_eq(prev->end, r->seq);
    delivered(context, r, len);
    uncount(b, r, len);
    unlink_fate(b, r);
    r->fate = SACKED;
    b->sacked += len;
    if (!b->sacked_last || seq_gt(r->seq, b->sacked_last->seq))
        b->sacked_last = r;
    join(pool, b, r);
    join(pool, b, prev);
    return joins ? prev : r;
}

/* The end of a segment of r at or after `at`. */
static seq_t segment_end(const struct sent *r, seq_t at)
{
    uint32_t into = (uint32_t)seq_diff(at, r->seq), over = into % r->mss;
    return over ? seq_add(at, r->mss - over) : at;
}

void sb_sacked(struct sent_pool *pool, struct scoreboard *b, seq_t left, seq_t right, sb_delivered *delivered,
               void *context)
{
    struct sent *r = b->sacked_last && seq_le(b->sacked_last->seq, left) ? b->sacked_last : b->all.head;
    for (; r && seq_lt(r->seq, right); r = r->next) {
        if (r->fate == SACKED || seq_le(r->end, left))
            continue;
        if (seq_lt(r->seq, left)) { /* it begins before the block: what of it lies inside is for the next round */
            seq_t at = segment_end(r, left);
            if (seq_lt(at, r->end) && seq_lt(at, right) && !cut(pool, b, r, at))
                return;
            continue;
        }
        if (seq_gt(r->end, right)) {
            uint32_t in = (uint32_t)seq_diff(right, r->seq), whole = in - in % r->mss;
            if (!whole || !cut(pool, b, r, seq_add(r->seq, whole)))
                return;
        }
        r = sack(pool, b, r, delivered, context);
    }
}

void sb_mark_lost(struct scoreboard *b, struct sent *r)
{
    struct sent *before = b->missing.tail;
    unlink_fate(b, r);
    r->fate = LOST;
    b->lost += length(r);
    while (before && seq_gt(before->seq, r->seq))
        before = before->before;
    link_fate(&b->missing, r, before);
}

void sb_first_lost(struct sent_pool *pool, struct scoreboard *b)
{
    struct sent *r = b->all.head;
    if (!r || r->fate != FLYING)
        return;
    if (length(r) > r->mss && !cut(pool, b, r, seq_add(r->seq, r->mss)))
        return;
    sb_mark_lost(b, r);
}

void sb_reneged(struct scoreboard *b)
{
    for (struct sent *r = b->all.head; r; r = r->next)
        if (r->fate == SACKED) {
            b->sacked -= length(r);
            sb_mark_lost(b, r); /* a SACKed record is on no list of fates */
        }
    b->sacked_last = NULL;
}

void sb_none_lost(struct scoreboard *b)
{
    struct sent *r;
    while ((r = b->missing.head)) {
        struct sent *before = b->flying.tail;
        unlink_fate(b, r);
        r->fate = FLYING;
        while (before && before->time > r->time)
            before = before->before;
        link_fate(&b->flying, r, before);
    }
    b->lost = 0;
}

void sb_clear(struct sent_pool *pool, struct scoreboard *b)
{
    while (b->all.head)
        drop(pool, b, b->all.head);
    b->sacked = b->lost = 0;
}
