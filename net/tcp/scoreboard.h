/* The scoreboard of a sender: what was sent and is not yet acknowledged, and what is known of it (RFC 8985 5.1, RFC
 * 6675 3).
 *
 * A record stands for bytes that share one fate: sent (last) at one time, and by now flying, SACKed or lost. What one
 * turn sends is one record, however many segments it was; a SACK block that covers a part of it cuts it. So an
 * undisturbed transfer has few records, and an idle connection has none.
 *
 * Each record is on the list by sequence number; besides that it is on `flying`, by the time it was sent, or on `lost`,
 * by sequence number, or on neither when it is SACKed. Bytes in flight are all that lies between the first record and
 * the last, less `sacked` and `lost`.
 *
 * Cuts are made between segments only (`mss` tells where these are), so that a peer which SACKs every other byte gains
 * nothing. Records come from a pool of the stack that is bounded; sb_reserve() is asked before a segment is sent, and a
 * cut that finds none left is not made: then the SACK block is taken for what remains of it, which costs a
 * retransmission. */
#ifndef LIBOS_SCOREBOARD_H
#define LIBOS_SCOREBOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "net/core/seq.h"

struct stack;

enum sent_fate { FLYING, SACKED, LOST };

struct sent {
    struct sent *next, *prev;   /* by sequence number */
    struct sent *after, *before; /* on flying or lost */
    uint64_t time;              /* when it was sent last */
    seq_t seq, end;
    uint16_t mss;  /* it went in segments of this size, the last one perhaps shorter */
    uint8_t fate;
    bool again;    /* more than once */
};

struct sent_queue {
    struct sent *head, *tail;
};

struct scoreboard {
    struct sent_queue all, flying, missing; /* missing: the lost ones */
    uint32_t sacked, lost;                  /* bytes */
    struct sent *sacked_last;               /* the last SACKed record, where the next block is looked for first */
};

/* Free records of a stack. */
struct sent_pool {
    struct sent *spare;
    struct sent_chunk *chunks;
    uint32_t total, limit, in_use;
};

void sent_pool_init(struct sent_pool *pool, uint64_t memory);
void sent_pool_free(struct sent_pool *pool);

/* Two records, for what one segment may take at most, are there. */
bool sb_reserve(struct sent_pool *pool);
/* [seq, end), the newest bytes, are sent now. After sb_reserve(). */
void sb_sent(struct sent_pool *pool, struct scoreboard *b, seq_t seq, seq_t end, uint16_t mss, uint64_t now);
/* The first len bytes of r are sent again now, in segments of mss. After sb_reserve(). */
void sb_resent(struct sent_pool *pool, struct scoreboard *b, struct sent *r, uint32_t len, uint16_t mss, uint64_t now);
/* The last segment of all that is under way, as a record of its own; NULL: nothing is flying at the end. After
 * sb_reserve(). */
struct sent *sb_last_segment(struct sent_pool *pool, struct scoreboard *b);

/* Told of each record whose bytes (len of them) are newly delivered, before it is changed or gone. */
typedef void sb_delivered(void *context, const struct sent *r, uint32_t len);
/* All before ack has been received. */
void sb_acked(struct sent_pool *pool, struct scoreboard *b, seq_t ack, sb_delivered *delivered, void *context);
/* [left, right) has been received. */
void sb_sacked(struct sent_pool *pool, struct scoreboard *b, seq_t left, seq_t right, sb_delivered *delivered,
               void *context);

void sb_mark_lost(struct scoreboard *b, struct sent *r); /* was flying */
/* The first segment, if it is flying, is lost. */
void sb_first_lost(struct sent_pool *pool, struct scoreboard *b);
/* The peer has dropped what it had SACKed (RFC 2018 8): it is lost. */
void sb_reneged(struct scoreboard *b);
/* What is marked lost flies after all. */
void sb_none_lost(struct scoreboard *b);
void sb_clear(struct sent_pool *pool, struct scoreboard *b);

#endif
