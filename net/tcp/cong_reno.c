/* New Reno's window: slow start and congestion avoidance (RFC 5681 3.1) by bytes acknowledged (RFC 3465). What is sent
 * again, and when, is recovery's (RFC 6582). */
#include "net/tcp/cong.h"

#define BETA 500        /* thousandths that remain after a loss */
#define BETA_MARKED 800 /* RFC 8511 3.1: a mark comes before the queue is full */

/* Its state: bytes acknowledged since the window last grew in congestion avoidance. */

static void init(struct tcp *t)
{
    t->cwnd = cong_initial_window(t);
    t->ssthresh = SSTHRESH_INITIAL;
}

static void acked(struct tcp *t, const struct ack_sample *a)
{
    uint64_t *bytes = &t->cong_state[0];
    /* A window that was not used says nothing about the path (RFC 7661 4.3, in short). */
    if (!a->limited || t->cwnd >= CWND_MAX)
        return;
    if (t->cwnd < t->ssthresh) {
        cong_slow_start(t, cong_slow_start_bytes(t, a->acked));
        return;
    }
    *bytes += a->acked; /* congestion avoidance, RFC 3465 2.1 */
    if (*bytes >= t->cwnd) {
        *bytes -= t->cwnd;
        t->cwnd += t->mss;
    }
}

static uint32_t ssthresh(struct tcp *t, uint64_t now, enum cong_event why)
{
    (void)now;
    t->cong_state[0] = 0;
    return cong_share_of_flight(t, why == CONG_MARKED ? BETA_MARKED : BETA);
}

static void undo(struct tcp *t) { (void)t; }

static void idle(struct tcp *t, uint64_t now)
{
    (void)now;
    cong_restart(t);
}

const struct cong_ops cong_reno = {
    .name = "reno", .init = init, .acked = acked, .ssthresh = ssthresh, .undo = undo, .idle = idle};
