/* HyStart++ (RFC 9406): slow start doubles the window each round trip until something is lost, and by then it has
 * overrun the path's buffer by as much as the path holds. A round whose smallest RTT lies clearly above that of the
 * round before says that a queue builds up; then the window grows at a quarter of the pace for some rounds
 * (Conservative Slow Start). If the RTT falls back, it was jitter, and slow start goes on; else congestion avoidance
 * begins. For the first slow start of a connection only (RFC 9406 4.3): later ones know where to stop. */
#include "net/tcp/cong.h"

/* RFC 9406 4.3 */
#define RTT_SCALE 256u /* ns: the 32 bits of a minimum reach for 18 minutes */
#define MIN_RTT_THRESH (4 * MSEC / RTT_SCALE)
#define MAX_RTT_THRESH (16 * MSEC / RTT_SCALE)
#define MIN_RTT_DIVISOR 8
#define N_RTT_SAMPLE 8
#define CSS_GROWTH_DIVISOR 4
#define CSS_ROUNDS 5

static uint32_t scaled(uint64_t rtt)
{
    uint64_t units = rtt / RTT_SCALE;
    return units == 0 ? 1 : units < UINT32_MAX ? (uint32_t)units : UINT32_MAX;
}

/* 4.2: at the start of each round. */
static void begin_round(struct hystart *h, const struct tcp *t)
{
    h->last_min = h->now_min;
    h->now_min = 0;
    h->samples = 0;
    h->round_end = t->snd_nxt;
}

static bool delay_has_grown(const struct hystart *h)
{
    uint32_t threshold = h->last_min / MIN_RTT_DIVISOR;
    if (threshold < MIN_RTT_THRESH)
        threshold = MIN_RTT_THRESH;
    if (threshold > MAX_RTT_THRESH)
        threshold = MAX_RTT_THRESH;
    return h->last_min && h->now_min >= h->last_min + threshold;
}

void hystart_acked(struct hystart *h, struct tcp *t, const struct ack_sample *a)
{
    uint32_t bytes = cong_slow_start_bytes(t, a->acked);
    if (h->done) {
        cong_slow_start(t, bytes);
        return;
    }
    if (!h->started) {
        h->started = true;
        begin_round(h, t);
    }
    if (a->rtt) {
        uint32_t rtt = scaled(a->rtt);
        if (!h->now_min || rtt < h->now_min)
            h->now_min = rtt;
        if (h->samples < N_RTT_SAMPLE)
            h->samples++;
    }
    cong_slow_start(t, h->base_min ? bytes / CSS_GROWTH_DIVISOR : bytes);
    if (h->samples >= N_RTT_SAMPLE) {
        if (h->base_min) {
            if (h->now_min < h->base_min) /* it was jitter: slow start goes on */
                h->base_min = 0;
        } else if (delay_has_grown(h)) {
            h->base_min = h->now_min;
            h->css_rounds = 0;
        }
    }
    if (seq_lt(t->snd_una, h->round_end))
        return;
    begin_round(h, t);
    /* A part of a round at its beginning counts as one (4.2). */
    if (h->base_min && ++h->css_rounds >= CSS_ROUNDS) {
        h->done = true;
        t->ssthresh = t->cwnd;
    }
}
