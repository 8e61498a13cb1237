/* What a receiver says of data that arrived out of order (RFC 2018), and of data that arrived twice (RFC 2883).
 *
 * The blocks are kept in the order in which they were last added to, newest first, as RFC 2018 4 wants them told. They
 * are only a report: what is held is on t->ooo, and a block that no longer fits here was told before. */
#include "net/tcp/tcp.h"

/* Does [left, right) touch b? Then b covers both. */
static bool joins(struct sack_block *b, seq_t left, seq_t right)
{
    if (seq_gt(left, b->right) || seq_lt(right, b->left))
        return false;
    if (seq_lt(left, b->left))
        b->left = left;
    b->right = seq_max(b->right, right);
    return true;
}

void tcp_sack_add(struct tcp *t, seq_t left, seq_t right)
{
    struct sack_block all = {left, right};
    unsigned kept = 0;
    for (unsigned i = 0; i < t->blocks_held; i++)
        if (!joins(&all, t->blocks[i].left, t->blocks[i].right))
            t->blocks[kept++] = t->blocks[i];
    if (kept == TCP_SACKS_MAX)
        kept--; /* the one that was not added to for the longest */
    memmove(t->blocks + 1, t->blocks, kept * sizeof *t->blocks);
    t->blocks[0] = all;
    t->blocks_held = (uint8_t)(kept + 1);
}

void tcp_sack_moved(struct tcp *t)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < t->blocks_held; i++)
        if (seq_gt(t->blocks[i].left, t->rcv_nxt))
            t->blocks[kept++] = t->blocks[i];
    t->blocks_held = (uint8_t)kept;
}

void tcp_sack_duplicate(struct tcp *t, seq_t left, seq_t right)
{
    if (!t->sack_ok || !seq_lt(left, right))
        return;
    if (t->twice && joins(&t->block_twice, left, right))
        return;
    t->twice = true;
    t->block_twice = (struct sack_block){left, right};
}

unsigned tcp_sack_report(const struct tcp *t, struct sack_block out[TCP_SACKS_MAX], unsigned most)
{
    unsigned n = 0;
    if (t->twice && most)
        out[n++] = t->block_twice;
    for (unsigned i = 0; i < t->blocks_held && n < most; i++)
        out[n++] = t->blocks[i];
    return n;
}
