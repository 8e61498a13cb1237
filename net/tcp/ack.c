/* When what came is acknowledged (RFC 9293 3.8.6.3, RFC 5681 4.2).
 *
 *   at once  for every second full segment, in the peer's size and not in ours, so that a joined one of 64 KiB does not
 *            wait; for what is out of order or fills a gap (queue.c); and while `quick` lasts: when a peer begins to
 *            send, also after a pause, its window is small, and a delayed ACK would stop it each round trip. Also while
 *            memory is short, as windows are small then. And for every second small segment, or a peer that counts
 *            its window in segments (Linux does) would stop after a few bytes; but only once the reader has taken all
 *            that came, for the answer that it writes then carries the ACK, and while it is behind nothing hurries.
 *   later    else; after `ato`, which follows the time between arrivals, from 40 ms to 200 ms and not beyond a round
 *            trip, so that an answer can carry the ACK.
 *
 * Connections that answer data with data are not quick: the answer carries the ACK. One run of the stack sends one ACK
 * at most for all that came before it in order; segments out of order are owed one each. */
#include "net/tcp/tcp.h"

#define RCV_MSS_GUESS 536 /* RFC 9293 3.7.1, until there is something to go by */
#define SMALL_ENOUGH 2    /* a window after losses may be no larger (RFC 5681 3.1) */

void tcp_data_arrived(struct stack *s, struct tcp *t, const struct segment *g)
{
    uint32_t size = g->p->gso_size ? g->p->gso_size : g->len;
    if (size > t->adv_mss) /* joined, by a link that does not say of what */
        size = t->adv_mss;
    if (!t->rcv_mss)
        t->rcv_mss = t->adv_mss < RCV_MSS_GUESS ? t->adv_mss : RCV_MSS_GUESS;
    if (size > t->rcv_mss)
        t->rcv_mss = (uint16_t)size;
    if (size < t->rcv_mss && t->small_in < SMALL_ENOUGH)
        t->small_in++;
    uint64_t gap = s->now - t->last_data;
    if (!t->last_data || gap > t->rto) { /* it begins, or begins again after a pause (RFC 5681 4.1) */
        t->quick = (uint8_t)(s->config.quickacks < UINT8_MAX ? s->config.quickacks : UINT8_MAX);
        t->ato = TCP_DELACK_MIN;
    } else if (gap <= TCP_DELACK_MIN / 2) {
        t->ato = t->ato / 2 + TCP_DELACK_MIN / 2;
    } else if (gap < TCP_DELACK_MAX) {
        t->ato = t->ato / 2 + (uint32_t)gap;
    }
    t->last_data = s->now;
    tcp_receiver_rtt(s, t, g);
}

static uint64_t delay(const struct tcp *t)
{
    uint64_t wait = t->ato < t->srtt ? t->ato : t->srtt;
    return wait < TCP_DELACK_MIN ? TCP_DELACK_MIN : wait > TCP_DELACK_MAX ? TCP_DELACK_MAX : wait;
}

void tcp_ack_data(struct stack *s, struct tcp *t)
{
    bool at_once = t->quickack || tcp_memory(s) != MEMORY_FREE;
    if (t->unacked_in >= 2u * t->rcv_mss || (t->unacked_in && at_once)) {
        t->ack_now = true;
    } else if (t->unacked_in && t->quick && !t->ping_pong) {
        t->quick--;
        t->ack_now = true;
    } else if (t->unacked_in) {
        t->ack_later = true;
    }
    if (t->ack_later && !t->ack_now && !t->due[T_DELACK])
        tcp_timer_set(s, t, T_DELACK, s->now + delay(t));
}

void tcp_data_read(struct tcp *t)
{
    if (t->ack_later && t->small_in == SMALL_ENOUGH && !t->in.head)
        t->ack_now = true;
}

void tcp_ack_sent(struct stack *s, struct tcp *t, bool bare, bool data)
{
    t->last_ack_sent = t->rcv_nxt;
    if (bare && t->dupacks_owed)
        t->dupacks_owed--;
    t->ack_now = t->dupacks_owed > 0;
    t->ack_later = false;
    t->unacked_in = 0;
    t->small_in = 0;
    t->twice = false; /* RFC 2883 4: told once */
    tcp_timer_stop(t, T_DELACK);
    if (data && t->last_data && s->now - t->last_data < t->ato)
        t->ping_pong = true;
}
