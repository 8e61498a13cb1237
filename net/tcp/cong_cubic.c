/* CUBIC (RFC 9438): after a loss the window follows a cubic curve in time, back to where the loss was, slowly past it,
 * then faster, so that long and fast paths are filled again in seconds. Where New Reno would have opened the window
 * further by now, it is at least that far (4.3). Section numbers are of RFC 9438.
 *
 *     W_cubic(t) = C (t - K)^3 + W_max     K = cubic root of ((W_max - cwnd_epoch) / C)        (figures 1 and 2)
 *
 * Integers throughout. Windows are bytes; t and K are in 1/1024 s, so that the curve is exact to 0.1 segments where it
 * matters (K below 10 s) and no product leaves 64 bits; what one acknowledgement adds is less than a byte on large
 * windows, so fractions are carried on. */
#include "net/tcp/cong.h"

#define BETA 700        /* beta_cubic, in thousandths (4.6) */
#define BETA_MARKED 850 /* RFC 8511 3.1, for CUBIC */
#define TICK_SHIFT 10   /* ticks of 1/1024 s */
#define TICKS_MAX (1 << 19)

struct cubic {
    uint64_t epoch;   /* when this congestion avoidance began; 0: not yet */
    uint64_t seen;    /* when the last acknowledgement came */
    uint64_t carry, est_carry; /* fractions of a byte, in units of their divisors */
    uint32_t w_max;   /* where the last loss was; 0: none, or it was found by a time-out */
    uint32_t k;       /* ticks from the epoch until the curve is back at w_max */
    uint32_t w_est;   /* where New Reno would be */
    uint32_t cwnd_prior; /* at the last congestion event */
    bool hystart_over;
    union {
        struct hystart hystart; /* until the first slow start ends */
        struct { /* as before the last congestion event, should it prove spurious (4.9) */
            uint64_t epoch;
            uint32_t w_max, k, w_est, cwnd_prior;
        } prior;
    };
};
_Static_assert(sizeof(struct cubic) <= CONG_STATE_WORDS * sizeof(uint64_t), "CUBIC's state outgrows its place");

static struct cubic *cubic_of(struct tcp *t) { return (struct cubic *)t->cong_state; }

static uint32_t ticks(uint64_t ns)
{
    uint64_t n = ns / (SECOND >> 9) < TICKS_MAX ? (ns << TICK_SHIFT) / SECOND : TICKS_MAX;
    return n < TICKS_MAX ? (uint32_t)n : TICKS_MAX;
}

/* The largest r with r^3 <= x, bit by bit. */
static uint32_t cubic_root(uint64_t x)
{
    uint64_t r = 0;
    for (int bit = 20; bit >= 0; bit--) { /* so that next^3 is below 2^63 */
        uint64_t next = r | 1ull << bit;
        if (next * next * next <= x)
            r = next;
    }
    return (uint32_t)r;
}

static uint32_t plus(uint32_t window, uint64_t bytes)
{
    return window < CWND_MAX && bytes < CWND_MAX - window ? window + (uint32_t)bytes : CWND_MAX;
}

/* W_cubic at `at` ticks of the epoch, bytes. C is 0.4 segments/s^3 (5.1). */
static uint32_t w_cubic(const struct cubic *c, uint32_t mss, uint32_t at)
{
    uint64_t d = at > c->k ? at - c->k : c->k - at;
    if (d > TICKS_MAX)
        d = TICKS_MAX;
    /* d^3 is in 2^-30 s^3: take 10 of those bits off before the segment size goes in, 20 after. */
    uint64_t off = (d * d * d / 5 * 2 >> TICK_SHIFT) * mss >> 2 * TICK_SHIFT;
    if (at < c->k)
        return c->w_max > off ? c->w_max - (uint32_t)off : 0;
    return plus(c->w_max, off);
}

/* 4.2: congestion avoidance begins with this acknowledgement. */
static void begin_epoch(struct cubic *c, const struct tcp *t, uint64_t now)
{
    c->epoch = now;
    c->w_est = t->cwnd;
    c->carry = c->est_carry = 0;
    c->k = 0;
    if (c->w_max > t->cwnd) /* (W_max - cwnd)/mss/C, in 2^-30 s^3 */
        c->k = cubic_root(((uint64_t)(c->w_max - t->cwnd) << 3 * TICK_SHIFT) / t->mss * 5 / 2);
    else /* no loss yet, found by a time-out (4.8), or outgrown meanwhile: the curve begins flat, from here */
        c->w_max = t->cwnd;
}

/* 4.3: New Reno with this beta: alpha segments for each window acknowledged, one once it is back at cwnd_prior. */
static void grow_estimate(struct cubic *c, const struct tcp *t, uint32_t acked)
{
    /* alpha = 3 (1 - beta) / (1 + beta) = 9/17 */
    uint32_t parts = c->w_est < c->cwnd_prior ? 9 : 17;
    uint64_t divisor = 17ull * t->cwnd;
    c->est_carry += (uint64_t)acked * t->mss * parts;
    if (c->est_carry >= divisor) {
        uint64_t bytes = c->est_carry / divisor;
        c->est_carry -= bytes * divisor;
        c->w_est = plus(c->w_est, bytes);
    }
}

static void avoid_congestion(struct cubic *c, struct tcp *t, const struct ack_sample *a)
{
    if (!c->epoch)
        begin_epoch(c, t, a->now);
    grow_estimate(c, t, a->acked);
    uint64_t elapsed = a->now - c->epoch;
    if (w_cubic(c, t->mss, ticks(elapsed)) < c->w_est) { /* 4.3, the Reno-friendly region */
        if (t->cwnd < c->w_est)
            t->cwnd = c->w_est;
        return;
    }
    /* 4.4, 4.5: so much for each byte acknowledged that after a round trip it is at W_cubic(t + RTT), which counts for
     * one and a half windows at most (4.2). */
    uint32_t target = w_cubic(c, t->mss, ticks(elapsed + t->srtt));
    if (target <= t->cwnd)
        return;
    if (target - t->cwnd > t->cwnd / 2)
        target = t->cwnd + t->cwnd / 2;
    c->carry += (uint64_t)(target - t->cwnd) * a->acked;
    if (c->carry >= t->cwnd) {
        uint64_t bytes = c->carry / t->cwnd;
        c->carry -= bytes * t->cwnd;
        t->cwnd += bytes < target - t->cwnd ? (uint32_t)bytes : target - t->cwnd;
    }
}

static void init(struct tcp *t)
{
    t->cwnd = cong_initial_window(t);
    t->ssthresh = SSTHRESH_INITIAL;
}

static void acked(struct tcp *t, const struct ack_sample *a)
{
    struct cubic *c = cubic_of(t);
    if (!a->limited || t->cwnd >= CWND_MAX) {
        if (c->epoch) /* 5.8: the curve stands still while the window is not what holds us back */
            c->epoch += a->now - c->seen;
    } else if (t->cwnd < t->ssthresh) {
        c->epoch = 0;
        if (c->hystart_over)
            cong_slow_start(t, cong_slow_start_bytes(t, a->acked));
        else
            hystart_acked(&c->hystart, t, a);
    } else {
        c->hystart_over = true;
        avoid_congestion(c, t, a);
    }
    c->seen = a->now;
}

static uint32_t ssthresh(struct tcp *t, uint64_t now, enum cong_event why)
{
    (void)now;
    struct cubic *c = cubic_of(t);
    unsigned beta = why == CONG_MARKED ? BETA_MARKED : BETA;
    c->prior.epoch = c->epoch;
    c->prior.w_max = c->w_max;
    c->prior.k = c->k;
    c->prior.w_est = c->w_est;
    c->prior.cwnd_prior = c->cwnd_prior;

    c->hystart_over = true;
    c->epoch = 0;
    c->cwnd_prior = t->cwnd;
    if (why == CONG_TIMEOUT) /* 4.8: the window where the next congestion avoidance begins */
        c->w_max = 0;
    else if (t->cwnd < c->w_max) /* 4.7: less than last time, so another flow wants room */
        c->w_max = (uint32_t)((uint64_t)t->cwnd * (1000 + beta) / 2000);
    else
        c->w_max = t->cwnd;
    return cong_share_of_flight(t, beta); /* 4.6 */
}

static void undo(struct tcp *t) /* 4.9 */
{
    struct cubic *c = cubic_of(t);
    c->epoch = c->prior.epoch;
    c->w_max = c->prior.w_max;
    c->k = c->prior.k;
    c->w_est = c->prior.w_est;
    c->cwnd_prior = c->prior.cwnd_prior;
}

static void idle(struct tcp *t, uint64_t now)
{
    struct cubic *c = cubic_of(t);
    if (c->epoch)
        c->epoch += now - c->seen;
    c->seen = now;
    cong_restart(t);
}

const struct cong_ops cong_cubic = {
    .name = "cubic", .paces = true, .init = init, .acked = acked, .ssthresh = ssthresh, .undo = undo, .idle = idle};
