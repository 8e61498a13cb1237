/* Pacing: new data leaves spread over the round trip, instead of as fast as acknowledgements and writes allow, so that
 * short queues on the path are not overrun by what the window permits at once. Where the link takes bursts (LINK_TSO) a
 * burst costs one frame and pacing would cost many; there only a rate that someone asked for is kept
 * (SO_MAX_PACING_RATE, a controller's own).
 *
 * A virtual schedule (GCRA): pace_next is when the last byte sent has had its time at the rate. Sending may run ahead
 * of the clock by a quantum, the bytes of a millisecond and two segments at least; when that is used up, T_PACE wakes
 * us at pace_next, and a whole quantum may go. So timers are per quantum, not per packet; and an acknowledgement in
 * between lets go what has become due, as it always does. */
#include "net/tcp/cong.h"

#define QUANTUM MSEC
#define RATE_MAX 10000000000u /* bytes/s; beyond it a quantum is more than any window */
#define DEBT_MAX SECOND       /* a rate that rose is not to wait longer for what was sent at the old one */

uint64_t tcp_pacing_rate(const struct tcp *t)
{
    uint64_t rate = t->pacing_rate;
    if (!rate && t->cong->paces && !t->bursts && t->srtt &&
        (uint32_t)seq_diff(t->snd_max, t->iss) > cong_initial_window(t)) {
        /* Faster than the window goes round, so that it can grow: twice in slow start, a fifth after. The initial
         * window goes at once: RFC 6928 counts on it, and short answers would wait for nothing. */
        rate = (uint64_t)t->cwnd * (t->cwnd < t->ssthresh ? 20 : 12) * (SECOND / 10) / t->srtt;
    }
    if (t->pacing_rate_max && (!rate || rate > t->pacing_rate_max))
        rate = t->pacing_rate_max;
    return rate < RATE_MAX ? rate : 0;
}

uint32_t tcp_pace_room(struct stack *s, struct tcp *t, uint32_t burst)
{
    uint64_t rate = tcp_unsent(t) ? tcp_pacing_rate(t) : 0, debt = 0;
    if (!rate)
        return burst;
    uint64_t quantum = rate / (SECOND / QUANTUM);
    if (quantum < 2u * t->mss)
        quantum = 2u * t->mss;
    if (t->pace_next > s->now) {
        if (t->pace_next - s->now > DEBT_MAX && t->pace_next - s->now > quantum * SECOND / rate)
            t->pace_next = s->now + DEBT_MAX;
        debt = (t->pace_next - s->now) * rate / SECOND;
    }
    if (debt < quantum && quantum - debt >= t->mss)
        return quantum - debt < burst ? (uint32_t)(quantum - debt) : burst;
    tcp_timer_set(s, t, T_PACE, t->pace_next);
    return 0;
}

void tcp_paced(struct stack *s, struct tcp *t, uint32_t bytes)
{
    uint64_t rate = bytes ? tcp_pacing_rate(t) : 0;
    if (!rate)
        return;
    /* A wake-up that came late, by less than a quantum, is made up for; a pause is not. */
    if (t->pace_next + QUANTUM < s->now)
        t->pace_next = s->now;
    t->pace_next += bytes * (uint64_t)SECOND / rate;
}
