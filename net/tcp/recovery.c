/* What an acknowledgement means for the sender: what was delivered, what is lost, how much may be under way.
 *
 * An acknowledgement is read into a `struct delivery` through the scoreboard; losses are found by rack.c, or by
 * counting duplicates where the peer has no SACK (RFC 6582). What is done about them depends on the state (Linux's
 * names, for TCP_INFO):
 *
 *   OPEN      nothing is wrong: congestion control grows the window
 *   CWR       the network marked a packet (ECN): the window shrinks for a round trip; nothing to send again
 *   RECOVERY  something is lost: it is sent again, while the window shrinks by proportional rate reduction (RFC 6937)
 *   LOSS      the timer expired: everything old is sent again in slow start, unless F-RTO shows that nothing was lost (RFC 5682)
 *
 * Each but OPEN lasts until all that was sent before it began (`recover`) is acknowledged. If it turns out that nothing
 * was lost (D-SACK, timestamps, F-RTO), the window becomes what it was. */
#include "net/tcp/tcp.h"

#define DUPACK_THRESHOLD 3

/* --- an acknowledgement, read --- */

static void delivered(void *context, const struct sent *r, uint32_t len)
{
    struct delivery *d = context;
    struct tcp *t = d->tcp;
    seq_t end = seq_add(r->seq, len);
    d->bytes += len;
    if (r->again) {
        d->again = true;
    } else {
        d->original |= seq_le(end, t->recover);
        if (!d->timed || r->time >= d->sent) {
            d->timed = true;
            d->sent = r->time;
            d->rtt = d->now - r->time;
        }
    }
    if (t->sack_ok)
        tcp_rack_delivered(t, r, end, d);
}

/* RFC 2883 4: the first block tells of a duplicate if it lies below the ACK, or within the second. */
static bool is_dsack(const struct segment *g)
{
    if (!g->sacks || !seq_lt(g->sack[0].left, g->sack[0].right))
        return false;
    if (seq_le(g->sack[0].right, g->ack))
        return true;
    return g->sacks > 1 && seq_ge(g->sack[0].left, g->sack[1].left) && seq_le(g->sack[0].right, g->sack[1].right);
}

/* RFC 3708 2: a D-SACK tells of a retransmission that was for nothing, unless the network makes copies by itself. It
 * does if more segments have come twice than were ever sent again; believed then, it takes every reduction back. */
static bool believe_dsack(struct stack *s, struct tcp *t, uint32_t len)
{
    count(s, C_TcpExtTCPDSACKRecv);
    t->dsack_dups += len > t->mss ? (len + t->mss - 1) / t->mss : 1;
    if (t->dsack_dups > t->retransmits) {
        count(s, C_TcpExtTCPDSACKIgnoredDubious);
        return false;
    }
    t->undo_bytes -= len < t->undo_bytes ? len : t->undo_bytes;
    tcp_rack_dsack(t);
    return true;
}

static void read_sacks(struct stack *s, struct tcp *t, const struct segment *g, struct delivery *d)
{
    d->twice = is_dsack(g);
    d->dsack = d->twice && believe_dsack(s, t, (uint32_t)seq_diff(g->sack[0].right, g->sack[0].left));
    struct sack_block blocks[TCP_SACKS_MAX];
    unsigned n = 0;
    for (unsigned i = d->twice; i < g->sacks; i++) { /* in ascending order, or one ACK alone would look like reordering */
        unsigned at = n++;
        for (; at && seq_lt(g->sack[i].left, blocks[at - 1].left); at--)
            blocks[at] = blocks[at - 1];
        blocks[at] = g->sack[i];
    }
    for (unsigned i = 0; i < n; i++) {
        seq_t left = blocks[i].left, right = blocks[i].right;
        if (!seq_lt(left, right) || seq_le(right, t->snd_una) || seq_gt(right, t->snd_max) || seq_lt(left, t->snd_una))
            continue; /* RFC 2018 4: old, or of what was never sent */
        sb_sacked(&s->sent, &t->sb, left, right, delivered, d);
    }
}

/* Without SACK a duplicate says that some segment has arrived, not which. */
static void read_duplicate(struct tcp *t, struct delivery *d)
{
    uint32_t out = (uint32_t)seq_diff(t->snd_max, t->snd_una), most = out > t->mss ? out - t->mss : 0;
    if (t->dupacks < UINT8_MAX)
        t->dupacks++;
    if (t->dup_bytes + t->sb.lost + t->mss <= most) {
        t->dup_bytes += t->mss;
        d->bytes += t->mss;
    }
}

/* What such duplicates stood for is now acknowledged by number: all but the segment that filled the hole. */
static void forget_duplicates(struct tcp *t, uint32_t acked, struct delivery *d)
{
    uint32_t counted = acked > t->mss ? acked - t->mss : 0;
    if (counted > t->dup_bytes)
        counted = t->dup_bytes;
    t->dup_bytes -= counted;
    d->bytes -= counted < d->bytes ? counted : d->bytes;
    /* They cannot stand for more than is still out, less the segment that is missing. */
    uint32_t out = (uint32_t)seq_diff(t->snd_max, t->snd_una), gone = t->sb.lost > t->mss ? t->sb.lost : t->mss;
    uint32_t most = out > gone ? out - gone : 0;
    if (t->dup_bytes > most)
        t->dup_bytes = most;
    t->dupacks = 0;
}

/* What a timestamp of ours that is heard now may be at the earliest: of the last thing sent; or, the path having become
 * slower than the timer, of the copy before the first retransmission (RFC 4015 4: such a sample ends a run of time-outs
 * that all were too early). Not if a D-SACK says that a retransmission asked for this ACK: then the copy before had
 * long arrived, its ACK was lost, and what is echoed is as old as the time-outs were long. */
static uint32_t heard_after(const struct tcp *t, const struct delivery *d)
{
    uint64_t then = t->last_sent;
    if (t->first_again && !d->twice)
        then = t->first_again > 2 * t->rto ? t->first_again - 2 * t->rto : 0;
    return tcp_timestamp(t, then);
}

/* RFC 6298 3: one sample for each round trip, of something that was sent once, or by its timestamp (RFC 7323 4). */
static void measure(struct tcp *t, const struct delivery *d)
{
    uint32_t now = tcp_timestamp(t, d->now);
    if (!d->moved || !seq_gt(t->snd_una, t->rtt_seq))
        return;
    if (d->timed && !d->again) { /* else it may have waited behind the hole, and its SACK been lost */
        tcp_rtt_sample(t, d->rtt);
    } else if (d->has_tsecr && (int32_t)(d->tsecr - heard_after(t, d)) >= 0 && (int32_t)(now - d->tsecr) >= 0) {
        /* After a retransmission only the timestamp tells which copy was heard; one from the future is none of ours. */
        tcp_rtt_sample(t, (now - d->tsecr ? now - d->tsecr : 1) * (uint64_t)MSEC);
    } else {
        return;
    }
    t->rtt_seq = t->snd_max;
}

/* --- the window --- */

/* Of what lies before it in this round trip, to take it back. */
static void remember(struct tcp *t)
{
    t->prior_cwnd = t->cwnd;
    t->prior_ssthresh = t->ssthresh;
    t->undo = true;
    t->undo_bytes = 0;
    t->first_again = 0;
}

static void begin(struct tcp *t, enum ca_state ca)
{
    t->ca = ca;
    t->recover = t->snd_max;
    t->prr_delivered = t->prr_out = 0;
    t->prr_flight = (uint32_t)seq_diff(t->snd_max, t->snd_una);
    t->frto = FRTO_OFF;
}

static void reduce(struct stack *s, struct tcp *t, enum cong_event why)
{
    remember(t);
    t->ssthresh = t->cong->ssthresh(t, s->now, why);
}

void tcp_enter_cwr(struct stack *s, struct tcp *t, enum cong_event why)
{
    if (t->ca != CA_OPEN)
        return; /* once for each round trip */
    reduce(s, t, why);
    begin(t, CA_CWR);
    t->undo = false;
}

static void enter_recovery(struct stack *s, struct tcp *t)
{
    count(s, t->sack_ok ? C_TcpExtTCPSackRecovery : C_TcpExtTCPRenoRecovery);
    if (tcp_mtu_lost(s, t)) { /* a probe of the path's MTU, which says nothing of congestion (RFC 4821 7.6.1) */
        t->undo = false;
        t->ssthresh = t->cwnd;
    } else if (t->ca != CA_CWR) { /* else it was for this round trip already */
        reduce(s, t, CONG_LOST);
    }
    begin(t, CA_RECOVERY);
    t->rexmit_now = true;
    tcp_timer_stop(t, T_PTO);
    t->probe_tail = t->probing = false;
}

/* RFC 6937 3.1, with its bound for the case that the flight is below the threshold: slow start, but only as far as each
 * ACK shows that no more was lost. */
static void reduce_proportionally(struct tcp *t, const struct delivery *d)
{
    uint32_t flight = tcp_in_flight(t);
    int64_t may;
    t->prr_delivered += d->bytes;
    if (flight > t->ssthresh) {
        uint64_t whole = t->prr_flight ? t->prr_flight : 1;
        may = (int64_t)(((uint64_t)t->prr_delivered * t->ssthresh + whole - 1) / whole) - t->prr_out;
    } else {
        int64_t behind = (int64_t)t->prr_delivered - t->prr_out;
        if (d->moved && !d->lost) /* it went well so far: catch up */
            may = (behind > d->bytes ? behind : d->bytes) + t->mss;
        else
            may = behind;
        if (may > (int64_t)(t->ssthresh - flight))
            may = t->ssthresh - flight;
    }
    if (may < 0)
        may = 0;
    if (t->prr_out == 0 && may < t->mss) /* the fast retransmission goes out whatever the sums say */
        may = t->mss;
    t->cwnd = flight + (uint32_t)may;
    if (t->cwnd < t->mss)
        t->cwnd = t->mss;
}

static void take_back(struct stack *s, struct tcp *t, enum counter why)
{
    count(s, why);
    if (t->cwnd < t->prior_cwnd)
        t->cwnd = t->prior_cwnd;
    if (t->ssthresh < t->prior_ssthresh)
        t->ssthresh = t->prior_ssthresh;
    t->cong->undo(t);
    t->undo = false;
    t->frto = FRTO_OFF;
    t->rexmit_now = false;
    t->backoff = 0;
    t->ca = CA_OPEN;
    sb_none_lost(&t->sb);
}

/* Was it for nothing? */
static bool taken_back(struct stack *s, struct tcp *t, const struct delivery *d)
{
    if (!t->undo || (t->ca < CA_RECOVERY && seq_gt(t->snd_una, t->undo_end)))
        return false;
    if (d->dsack && t->first_again && t->undo_bytes == 0) { /* RFC 3708: the peer has had twice all that was sent again */
        take_back(s, t, C_TcpExtTCPDSACKUndo);
        return true;
    }
    if (t->ca >= CA_RECOVERY && d->moved && d->has_tsecr && t->first_again &&
        (int32_t)(d->tsecr - tcp_timestamp(t, t->first_again)) < 0) { /* RFC 3522: it answers what was sent before that */
        take_back(s, t, t->ca == CA_LOSS ? C_TcpExtTCPLossUndo : C_TcpExtTCPFullUndo);
        return true;
    }
    return false;
}

/* RFC 5682 2.1, 3.1: after a time-out, does what was sent once still arrive? With SACK the first answer can tell.
 * Without it a retransmission may have filled a hole; so new data is sent, and the second answer decides. */
static bool forward_rto(struct stack *s, struct tcp *t, const struct delivery *d)
{
    bool once = d->original && (t->sack_ok || t->frto == FRTO_NEW_SENT);
    if (once && (d->moved || d->bytes)) {
        take_back(s, t, C_TcpExtTCPSpuriousRTOs);
        return true;
    }
    if (t->frto == FRTO_RESENT && d->moved && seq_lt(t->snd_una, t->recover) && tcp_unsent(t) &&
        (uint32_t)seq_diff(t->snd_nxt, t->snd_una) < t->snd_wnd) {
        t->frto = FRTO_NEW_SENT;
        t->cwnd = tcp_in_flight(t) + 2u * t->mss;
        return true;
    }
    if (t->frto == FRTO_NEW_SENT && t->cwnd < 3u * t->mss)
        t->cwnd = 3u * t->mss; /* step 3a */
    t->frto = FRTO_OFF;
    return false;
}

static void find_losses(struct stack *s, struct tcp *t, const struct delivery *d, bool duplicate)
{
    if (t->sack_ok) {
        if (d->bytes || d->moved)
            tcp_rack_detect(s, t);
        return;
    }
    if (t->ca == CA_RECOVERY && d->moved) { /* RFC 6582 3.2 step 3: what a partial acknowledgement stops at is lost, too */
        sb_first_lost(&s->sent, &t->sb);
        t->rexmit_now = true;
    } else if (t->ca < CA_RECOVERY && duplicate && t->dupacks == DUPACK_THRESHOLD && seq_ge(t->snd_una, t->recover))
        sb_first_lost(&s->sent, &t->sb); /* step 2: not twice for one window */
}

void tcp_recovery_acked(struct stack *s, struct tcp *t, const struct segment *g, uint32_t acked, bool duplicate)
{
    struct delivery d = {.stack = s, .tcp = t, .now = s->now, .moved = acked > 0, .has_tsecr = t->ts_ok && g->has_ts && g->tsecr,
                         .tsecr = g->tsecr};
    struct ack_sample sample = {.now = s->now, .acked = acked, .flight = tcp_in_flight(t) + acked};
    uint32_t lost = t->sb.lost;
    sample.limited = seq_ge(t->limited, seq_add(t->snd_una, (uint32_t)-acked)) ||
                     (t->cwnd < t->ssthresh && sample.flight >= t->cwnd / 2);
    sb_acked(&s->sent, &t->sb, t->snd_una, delivered, &d);
    if (t->sack_ok)
        read_sacks(s, t, g, &d);
    else if (acked)
        forget_duplicates(t, acked, &d);
    else if (duplicate)
        read_duplicate(t, &d);
    measure(t, &d);
    sample.rtt = !d.timed || d.again ? 0 : d.rtt ? d.rtt : 1;

    if (t->ca != CA_OPEN && seq_ge(t->snd_una, t->recover)) {
        if (!taken_back(s, t, &d)) {
            if (t->ca != CA_LOSS) {
                t->cwnd = t->ssthresh > 2u * t->mss ? t->ssthresh : 2u * t->mss;
                sample.acked = 0; /* the window that it moves was set just now */
            } else if (t->frto == FRTO_NEW_SENT)
                t->cwnd = t->ssthresh < t->cwnd ? t->ssthresh : t->cwnd;
            if (t->ca >= CA_RECOVERY)
                tcp_rack_recovered(t);
        }
        t->ca = CA_OPEN;
        t->frto = FRTO_OFF;
        t->undo_end = t->snd_max;
    } else if (!taken_back(s, t, &d) && t->frto && (d.moved || d.bytes || duplicate)) {
        forward_rto(s, t, &d);
    }

    find_losses(s, t, &d, duplicate);
    d.lost = t->sb.lost > lost;
    bool probe_mended = tcp_probe_acked(s, t, &d);
    if (t->sb.lost && t->ca < CA_RECOVERY)
        enter_recovery(s, t);
    else if (probe_mended)
        tcp_enter_cwr(s, t, CONG_LOST);

    if (t->ca == CA_RECOVERY || t->ca == CA_CWR)
        reduce_proportionally(t, &d);
    else if (sample.acked && t->frto != FRTO_NEW_SENT)
        t->cong->acked(t, &sample);

    if (acked) { /* RFC 6298 5.2, 5.3 */
        t->backoff = 0;
        if (seq_eq(t->snd_una, t->snd_max))
            tcp_timer_stop(t, T_REXMT);
        else
            tcp_timer_set(s, t, T_REXMT, s->now + t->rto);
    }
    if (acked || d.bytes) {
        tcp_probe_schedule(s, t);
        sock_mark_dirty(s, &t->k);
    }
}

/* --- without an acknowledgement --- */

void tcp_rack_due(struct stack *s, struct tcp *t)
{
    tcp_rack_detect(s, t);
    if (!t->sb.lost)
        return;
    if (t->ca < CA_RECOVERY) {
        enter_recovery(s, t);
        reduce_proportionally(t, &(struct delivery){.lost = true});
    }
    sock_mark_dirty(s, &t->k);
}

void tcp_recovery_timeout(struct stack *s, struct tcp *t)
{
    bool anew = t->ca < CA_RECOVERY || seq_ge(t->snd_una, t->recover) || (t->ca == CA_LOSS && t->backoff == 0);
    count(s, C_TcpExtTCPTimeouts);
    t->rexmit_now = true; /* one segment at least, whatever the window has become */
    sock_mark_dirty(s, &t->k);
    if (tcp_is_connecting(&t->k)) { /* a lost SYN: see established() */
        t->snd_nxt = t->snd_una;
        t->rtt_timing = false;
        return;
    }
    if (t->sb.all.head && t->sb.all.head->fate == SACKED) {
        count(s, C_TcpExtTCPSACKReneging);
        sb_reneged(&t->sb);
        anew = true;
    }
    if (anew)
        reduce(s, t, CONG_TIMEOUT);
    begin(t, CA_LOSS);
    t->cwnd = t->mss;
    t->dupacks = 0;
    t->dup_bytes = 0;
    t->probing = t->probe_tail = false;
    tcp_timer_stop(t, T_PTO);
    tcp_timer_stop(t, T_REO);
    tcp_rack_timeout(s, t);
    if (t->undo)
        t->frto = FRTO_RESENT;
}

void tcp_resend_all(struct stack *s, struct tcp *t)
{
    while (t->sb.flying.head)
        sb_mark_lost(&t->sb, t->sb.flying.head);
    t->dup_bytes = 0;
    if (t->ca < CA_RECOVERY) {
        begin(t, CA_RECOVERY);
        t->undo = false;
        t->ssthresh = t->cwnd; /* nobody was congested */
    }
    sock_mark_dirty(s, &t->k);
}
