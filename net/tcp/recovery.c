/* What to send again: fast retransmit and fast recovery without SACK (RFC 5681 3.2, New Reno of RFC 6582), and what a
 * time-out does (RFC 6298 5). */
#include "net/tcp/tcp.h"

#define DUPACK_THRESHOLD 3

void tcp_duplicate_ack(struct stack *s, struct tcp *t)
{
    if (t->dupacks < 255)
        t->dupacks++;
    if (t->recovering) { /* RFC 6582 3.2 step 3: another segment has left the network */
        t->cwnd += t->mss;
        sock_mark_dirty(s, &t->k);
        return;
    }
    if (t->dupacks != DUPACK_THRESHOLD || seq_lt(t->snd_una, t->recover)) /* step 2: not twice for one window */
        return;
    count(s, C_TcpExtTCPFastRetrans);
    t->recovering = true;
    t->recover = t->snd_max;
    t->ssthresh = t->cong->ssthresh(t, s->now, CONG_LOST);
    t->cwnd = t->ssthresh + 3u * t->mss; /* three duplicates have left the network (RFC 5681 3.2) */
    t->rexmit_now = true;
    t->rtt_timing = false;
    sock_mark_dirty(s, &t->k);
}

bool tcp_recovery_acked(struct stack *s, struct tcp *t, uint32_t acked)
{
    if (!t->recovering)
        return false;
    if (seq_ge(t->snd_una, t->recover)) { /* a full acknowledgement (step 3, option 1) */
        uint32_t flight = (uint32_t)seq_diff(t->snd_max, t->snd_una) + t->mss;
        t->recovering = false;
        t->cwnd = t->ssthresh < flight ? t->ssthresh : flight;
        if (t->cwnd < 2u * t->mss)
            t->cwnd = 2u * t->mss;
        return true;
    }
    /* A partial one: the next hole begins here. Deflate by what it covered, less one segment that left. */
    t->cwnd = t->cwnd > acked ? t->cwnd - acked : 0;
    if (acked >= t->mss)
        t->cwnd += t->mss;
    if (t->cwnd < t->mss)
        t->cwnd = t->mss;
    t->rexmit_now = true;
    sock_mark_dirty(s, &t->k);
    return true;
}

void tcp_recovery_timeout(struct stack *s, struct tcp *t)
{
    count(s, C_TcpExtTCPTimeouts);
    if (t->backoff == 0 && !tcp_is_connecting(&t->k)) /* a lost SYN: see established() */
        t->ssthresh = t->cong->ssthresh(t, s->now, CONG_TIMEOUT);
    t->cwnd = t->mss;
    t->recovering = false;
    t->recover = t->snd_max; /* RFC 6582 4: duplicates of what was sent before begin no new recovery */
    t->dupacks = 0;
    t->snd_nxt = t->snd_una; /* everything counts as lost; ACKs say what was not */
    t->rexmit_now = true;    /* one segment at least, whatever the window has become */
    t->rtt_timing = false;
    sock_mark_dirty(s, &t->k);
}
