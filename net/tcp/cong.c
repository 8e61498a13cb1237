/* Congestion control: which controllers there are, what they share (RFC 5681, RFC 6928), and how long to wait for an
 * answer (RFC 6298). Each controller has a file of its own; see struct cong_ops in tcp.h. */
#include "net/tcp/cong.h"

#include <errno.h>

static const struct cong_ops *const built_in[] = {&cong_cubic, &cong_reno};
#define BUILT_IN (sizeof built_in / sizeof *built_in)

static const struct cong_ops *nth(const struct stack *s, unsigned i)
{
    return i < BUILT_IN ? built_in[i] : cong_script(s, i - BUILT_IN);
}

const struct cong_ops *cong_find(const struct stack *s, const char *name)
{
    const struct cong_ops *ops;
    for (unsigned i = 0; (ops = nth(s, i)); i++)
        if (!strcmp(ops->name, name))
            return ops;
    return NULL;
}

const char *stack_congestion_name(struct stack *s, unsigned i)
{
    const struct cong_ops *ops = nth(s, i);
    return ops ? ops->name : NULL;
}

int stack_set_congestion(struct stack *s, const char *name)
{
    const struct cong_ops *ops = cong_find(s, name);
    if (!ops)
        return -ENOENT;
    s->cong = ops;
    return 0;
}

int tcp_set_congestion(struct stack *s, struct tcp *t, const char *name)
{
    const struct cong_ops *ops = cong_find(s, name);
    if (!ops)
        return -ENOENT; /* as Linux answers */
    if (ops != t->cong)
        cong_switch(t, ops);
    return 0;
}

void cong_switch(struct tcp *t, const struct cong_ops *ops)
{
    uint32_t cwnd = t->cwnd, threshold = t->ssthresh;
    cong_release(t);
    t->cong = ops;
    if (!cwnd)
        return; /* nothing has begun */
    ops->init(t);
    t->cwnd = cwnd; /* the path is the same */
    t->ssthresh = threshold;
}

void cong_release(struct tcp *t)
{
    if (t->cong && t->cong->release)
        t->cong->release(t);
    memset(t->cong_state, 0, sizeof t->cong_state);
}

uint32_t cong_initial_window(const struct tcp *t)
{
    uint32_t ten = 10u * t->mss, cap = 14600 > 2u * t->mss ? 14600 : 2u * t->mss; /* RFC 6928 2 */
    return ten < cap ? ten : cap;
}

void cong_restart(struct tcp *t)
{
    uint32_t restart = cong_initial_window(t);
    if (t->cwnd <= restart)
        return;
    /* RFC 7661 4.4.2: slow start may go back to near where it was, for the path has not shrunk as far as we know. */
    if (t->ssthresh < t->cwnd / 4 * 3)
        t->ssthresh = t->cwnd / 4 * 3;
    t->cwnd = restart;
}

uint32_t cong_share_of_flight(const struct tcp *t, unsigned parts)
{
    uint32_t share = (uint32_t)((uint64_t)(uint32_t)seq_diff(t->snd_max, t->snd_una) * parts / 1000);
    return share > 2u * t->mss ? share : 2u * t->mss;
}

/* RFC 9406 4.2: where sending is paced, or the link takes bursts anyway, an acknowledgement counts for all that it
 * covers; else for eight segments, so that one that stands for many lets no burst loose. */
#define SEGMENTS_PER_ACK 8

uint32_t cong_slow_start_bytes(const struct tcp *t, uint32_t acked)
{
    uint32_t most = SEGMENTS_PER_ACK * (uint32_t)t->mss;
    return t->cong->paces || t->bursts || acked < most ? acked : most;
}

void cong_slow_start(struct tcp *t, uint32_t bytes)
{
    uint32_t to = t->ssthresh < CWND_MAX ? t->ssthresh : CWND_MAX;
    t->cwnd = bytes < to - t->cwnd ? t->cwnd + bytes : to;
}

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
