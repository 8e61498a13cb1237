/* How much may be under way (RFC 5681 with appropriate byte counting, RFC 3465; initial window RFC 6928), and how long to
 * wait for an answer (RFC 6298). New Reno's window; other controllers fill in struct cong_ops beside it. */
#include "net/tcp/tcp.h"

static uint32_t initial_window(const struct tcp *t)
{
    uint32_t ten = 10u * t->mss, cap = 14600 > 2u * t->mss ? 14600 : 2u * t->mss; /* RFC 6928 2 */
    return ten < cap ? ten : cap;
}

static uint32_t half_flight(const struct tcp *t)
{
    uint32_t half = (uint32_t)seq_diff(t->snd_max, t->snd_una) / 2;
    return half > 2u * t->mss ? half : 2u * t->mss; /* RFC 5681 (4) */
}

/* Its state: bytes acknowledged since the window last grew in congestion avoidance. */
static void reno_init(struct tcp *t)
{
    t->cwnd = initial_window(t);
    t->ssthresh = 0x7fffffff;
}

static void reno_acked(struct tcp *t, const struct ack_sample *a)
{
    uint64_t *acked = &t->cong_state[0];
    /* A window that was not used says nothing about the path (RFC 7661 4.3, in short). */
    if (!a->limited || t->cwnd > (1u << 30))
        return;
    if (t->cwnd < t->ssthresh) { /* slow start, RFC 3465 2.2, L = 2 for each segment that an ACK may stand for */
        t->cwnd += a->acked;
        return;
    }
    *acked += a->acked; /* congestion avoidance, RFC 3465 2.1 */
    if (*acked >= t->cwnd) {
        *acked -= t->cwnd;
        t->cwnd += t->mss;
    }
}

static uint32_t reno_ssthresh(struct tcp *t, uint64_t now, enum cong_event why)
{
    (void)now, (void)why;
    t->cong_state[0] = 0;
    return half_flight(t);
}

static void reno_undo(struct tcp *t) { (void)t; }

static void reno_idle(struct tcp *t, uint64_t now)
{
    (void)now;
    uint32_t restart = initial_window(t);
    if (t->cwnd > restart)
        t->cwnd = restart;
}

const struct cong_ops cong_reno = {"reno", reno_init, reno_acked, reno_ssthresh, reno_undo, reno_idle, NULL};

void tcp_rtt_sample(struct tcp *t, uint64_t rtt)
{
    if (!t->srtt) { /* RFC 6298 2.2 */
        t->srtt = rtt ? rtt : 1;
        t->rttvar = rtt / 2;
        if (!t->min_rtt) /* the handshake's */
            t->min_rtt = t->srtt;
    } else { /* 2.3 */
        uint64_t err = rtt > t->srtt ? rtt - t->srtt : t->srtt - rtt;
        t->rttvar = t->rttvar - t->rttvar / 4 + err / 4;
        t->srtt = t->srtt - t->srtt / 8 + rtt / 8;
    }
    t->rto = t->srtt + 4 * t->rttvar;
    if (t->rto < TCP_RTO_MIN)
        t->rto = TCP_RTO_MIN;
    if (t->rto > TCP_RTO_MAX)
        t->rto = TCP_RTO_MAX;
}
