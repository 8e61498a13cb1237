/* When the stack's memory runs short: moderation first, refusal last, never a reset.
 *
 * Memory is the pool of packet buffers, counted as what buffers take and not as what they say. By how much of it is
 * used:
 *
 *   FREE   all may grow.
 *   SHORT  (over a half) no buffer grows; a connection may hold its share each way, or a segment if that is more. Windows
 *          close towards that as data is read, but what was told is honoured (RFC 9293 3.8.6). Writers wait.
 *   FULL   (over 7/8; or less, down to 5/8, so that a segment for each connection is left) nothing out of order is
 *          taken. What is in order is, if the connection then holds no more than its share or nothing else; for this it
 *          gives up what it has out of order, even if that was SACKed, which the sender must be prepared for (RFC
 *          2018 8). A writer with nothing queued may queue one segment.
 *   OUT    (over 15/16) nothing more is queued. What is left is for headers, acknowledgements and probes, which is what
 *          frees the rest: acknowledged data and, once it is read, received data.
 *
 * So every connection gets on as long as its own peer and its own reader do, whatever the others hoard. What is refused
 * was not acknowledged, and comes again. If it was in order, the peer is told a window of zero (a segment, once all is
 * read): discouraged as that is (RFC 9293 3.8.6), otherwise it would take us for dead in the end, while a shut window
 * is probed for ever (3.8.6.1). */
#include "net/tcp/tcp.h"

#define SEGMENT_BYTES 2304 /* of a buffer that an Ethernet frame is in */

enum memory tcp_memory(const struct stack *s)
{
    const struct pbuf_pool *pool = &s->pool;
    uint64_t most = pbuf_frames_max(pool), segments = s->counters[C_TcpCurrEstab] * SEGMENT_BYTES;
    if (pool->frames <= most / 2)
        return MEMORY_FREE;
    uint64_t kept = segments < most / 8 ? most / 8 : segments < most / 8 * 3 ? segments : most / 8 * 3;
    if (pool->frames <= most - kept)
        return MEMORY_SHORT;
    return pool->frames <= most - most / 16 ? MEMORY_FULL : MEMORY_OUT;
}

uint32_t tcp_memory_share(const struct stack *s)
{
    uint64_t connections = s->counters[C_TcpCurrEstab] ? s->counters[C_TcpCurrEstab] : 1;
    uint64_t share = pbuf_frames_max(&s->pool) / 4 / connections;
    return share < UINT32_MAX ? (uint32_t)share : UINT32_MAX;
}

bool tcp_memory_admits(struct stack *s, struct tcp *t, const struct pbuf *p, bool in_order)
{
    enum memory memory = tcp_memory(s);
    if (memory < MEMORY_FULL)
        return true;
    if (in_order && t->ooo) {
        count(s, C_TcpExtOfoPruned);
        tcp_ooo_clear(s, t);
        memory = tcp_memory(s);
        if (memory < MEMORY_FULL)
            return true;
    }
    if (in_order && memory == MEMORY_FULL && (!t->in.head || t->in_held + p->size <= tcp_memory_share(s)))
        return true;
    t->refused |= in_order;
    t->ack_now |= in_order;
    count(s, in_order ? C_TcpExtTCPRcvQDrop : C_TcpExtTCPOFODrop);
    return false;
}
