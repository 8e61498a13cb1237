/* Finding losses by time (RACK-TLP, RFC 8985): what was sent before something that has arrived, and long enough before,
 * is lost; and when nothing arrives any more, a probe brings an answer long before the retransmission timer would.
 * Needs SACK. */
#include "net/tcp/tcp.h"

#define MIN_RTT_LASTS 300 /* s: paths change */
#define PROBE_LEAST (10ull * MSEC)      /* RFC 8985 7.2 leaves it open: room for a delayed peer on a short path */
#define PROBE_DELAYED_ACK (200ull * MSEC) /* TLP.max_ack_delay: the peer may wait so long to acknowledge one segment */
#define REO_PERSIST 16                  /* recoveries for which a window widened by D-SACK stays */
#define REO_STEPS_MAX 20
#define DUPACK_THRESHOLD 3

/* RFC 8985 6.2 step 2: was a sent after b? At one time the higher number is the later. */
static bool sent_after(uint64_t a_time, seq_t a_end, uint64_t b_time, seq_t b_end)
{
    return a_time > b_time || (a_time == b_time && seq_gt(a_end, b_end));
}

void tcp_rack_delivered(struct tcp *t, const struct sent *r, seq_t end, const struct delivery *d)
{
    uint64_t rtt = d->now - r->time;
    uint32_t seconds = (uint32_t)(d->now / SECOND);
    if (!r->again) {
        if (!t->min_rtt || rtt <= t->min_rtt || seconds - t->min_rtt_at > MIN_RTT_LASTS) { /* step 1 */
            t->min_rtt = rtt ? rtt : 1;
            t->min_rtt_at = seconds;
        }
        /* Step 3: what was sent once arrived later than something behind it. */
        if (seq_lt(end, t->rack_fack) && !t->reordering) {
            t->reordering = true;
            d->stack->counters[C_TcpExtTCPSACKReorder]++;
        }
    } else if (rtt < t->min_rtt ||
               (d->has_tsecr && (int32_t)(d->tsecr - tcp_timestamp(t, r->time)) < 0)) {
        return; /* an older copy was heard, or nobody can tell (step 2) */
    }
    t->rack_fack = seq_max(t->rack_fack, end);
    t->rack_rtt = rtt;
    if (sent_after(r->time, end, t->rack_time, t->rack_end)) {
        t->rack_time = r->time;
        t->rack_end = end;
    }
}

/* Step 4: how far out of order segments may come. */
static uint64_t reordering_window(const struct tcp *t)
{
    if (!t->reordering && (t->ca >= CA_RECOVERY || t->sb.sacked >= DUPACK_THRESHOLD * (uint32_t)t->mss))
        return 0;
    uint64_t window = (t->reo_steps + 1) * (t->min_rtt / 4);
    return window < t->srtt ? window : t->srtt;
}

void tcp_rack_dsack(struct tcp *t)
{
    if (seq_lt(t->snd_una, t->reo_round)) /* once in a round trip */
        return;
    t->reo_round = t->snd_max;
    if (t->reo_steps < REO_STEPS_MAX)
        t->reo_steps++;
    t->reo_persist = REO_PERSIST;
}

void tcp_rack_recovered(struct tcp *t)
{
    if (t->reo_persist && --t->reo_persist == 0)
        t->reo_steps = 0;
}

void tcp_rack_detect(struct stack *s, struct tcp *t)
{
    uint64_t window = reordering_window(t), wait = 0;
    tcp_timer_stop(t, T_REO);
    if (!t->rack_time)
        return;
    for (struct sent *r = t->sb.flying.head, *after; r; r = after) {
        after = r->after;
        if (!sent_after(t->rack_time, t->rack_end, r->time, r->end))
            break; /* those behind it were sent later still */
        uint64_t due = r->time + t->rack_rtt + window;
        if (due <= s->now) {
            if (r->again)
                count(s, C_TcpExtTCPLostRetransmit);
            sb_mark_lost(&t->sb, r);
        } else if (due > wait) {
            wait = due;
        }
    }
    if (wait)
        tcp_timer_set(s, t, T_REO, wait);
}

void tcp_rack_timeout(struct stack *s, struct tcp *t)
{
    for (struct sent *r = t->sb.flying.head, *after; r; r = after) {
        after = r->after;
        if (r->prev && t->sack_ok && r->time + t->rack_rtt + reordering_window(t) > s->now)
            continue; /* sent so lately that its answer may still be under way (6.3) */
        sb_mark_lost(&t->sb, r);
    }
}

/* --- tail loss probes (7) --- */

void tcp_probe_schedule(struct stack *s, struct tcp *t)
{
    uint32_t flight = tcp_in_flight(t);
    tcp_timer_stop(t, T_PTO);
    if (!t->sack_ok || t->ca != CA_OPEN || t->probing || t->sb.sacked || !flight || !t->srtt || !t->snd_wnd)
        return;
    uint64_t wait = 2 * t->srtt;
    if (flight <= t->mss)
        wait += PROBE_DELAYED_ACK;
    else if (wait < PROBE_LEAST)
        wait = PROBE_LEAST;
    if (t->due[T_REXMT] && s->now + wait >= t->due[T_REXMT])
        return; /* the retransmission timer is sooner */
    tcp_timer_set(s, t, T_PTO, s->now + wait);
}

void tcp_probe_due(struct stack *s, struct tcp *t)
{
    if (t->ca != CA_OPEN || t->probing || !t->sb.all.tail)
        return;
    t->probe_tail = true;
    sock_mark_dirty(s, &t->k);
}

void tcp_probe_sent(struct stack *s, struct tcp *t, bool again)
{
    count(s, C_TcpExtTCPLossProbes);
    t->probe_tail = false;
    t->probing = true;
    t->probe_again = again;
    t->probe_end = t->snd_max;
    tcp_timer_set(s, t, T_REXMT, s->now + t->rto);
}

bool tcp_probe_acked(struct stack *s, struct tcp *t, const struct delivery *d)
{
    if (!t->probing || seq_lt(t->snd_una, t->probe_end)) {
        /* 7.4.2: the same number again, with nothing SACKed: both copies arrived */
        return false;
    }
    t->probing = false;
    if (!t->probe_again || d->dsack)
        return false; /* new data, or both the original and the probe have arrived */
    count(s, C_TcpExtTCPLossProbeRecovery);
    return true; /* the probe mended a loss: congestion, as any */
}
