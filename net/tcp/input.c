/* A TCP segment arrives (RFC 9293 3.10.7). Numbers in parentheses are its sections.
 *
 * Checked once at the door: length, header length, checksum, options. After that accessors cannot fail. Nothing is sent
 * from here but resets; what an arrival makes necessary is noted on the connection, which is marked dirty. */
#include "net/tcp/tcp.h"

#include <errno.h>
#include <sys/socket.h>

#include "net/core/wire.h"

#define PAWS_IDLE (24ull * 24 * 3600 * SECOND) /* RFC 7323 5.5: older than this, ts_recent says nothing */
#define CHALLENGES_PER_SECOND 100
#define STRAY_ACK_INTERVAL 500 /* ms */

static bool parse(struct stack *s, struct pbuf *p, const struct ip_meta *m, struct segment *g)
{
    const uint8_t *h = pbuf_data(p);
    if (p->len < TCP_HLEN) {
        count(s, C_TcpInErrs);
        return false;
    }
    uint32_t hlen = (h[TCP_OFF] >> 4) * 4u;
    *g = (struct segment){.seq = seq(get32(h + TCP_SEQ)),
                          .ack = seq(get32(h + TCP_ACK)),
                          .wnd = get16(h + TCP_WIN),
                          .sport = get16(h + TCP_SPORT),
                          .dport = get16(h + TCP_DPORT),
                          .up = get16(h + TCP_URG),
                          .flags = h[TCP_FLAGS],
                          .wscale = -1,
                          .p = p};
    if (hlen < TCP_HLEN || hlen > p->len || !tcp_read_options(h + TCP_HLEN, hlen - TCP_HLEN, g) || !g->sport || !g->dport) {
        count(s, C_TcpInErrs);
        return false;
    }
    if (!ip_csum_ok(p, m)) {
        count(s, C_TcpInCsumErrors);
        return false;
    }
    pbuf_pull(p, hlen);
    g->len = p->len;
    return true;
}

static uint32_t seg_space(const struct segment *g)
{
    return g->len + !!(g->flags & TH_SYN) + !!(g->flags & TH_FIN);
}

static void take_timestamp(struct stack *s, struct tcp *t, const struct segment *g)
{
    t->ts_recent = g->tsval;
    t->ts_recent_at = s->now;
}

void tcp_take_syn(struct stack *s, struct tcp *t, const struct segment *g)
{
    t->irs = g->seq;
    t->rcv_nxt = seq_add(g->seq, 1);
    t->rcv_adv = t->last_ack_sent = t->rcv_nxt;
    t->peer_mss = g->mss ? g->mss : addr_is4(&t->k.remote) ? 536 : 1220; /* 3.7.1 */
    if (t->peer_mss < 64)
        t->peer_mss = 64; /* a peer that wants one byte a packet wants something else */
    t->ts_ok = g->has_ts;
    if (g->has_ts)
        take_timestamp(s, t, g);
    t->sack_ok = g->sack_permitted;
    t->ws_ok = g->wscale >= 0;
    if (t->ws_ok)
        t->shift_out = (uint8_t)g->wscale;
    else
        t->shift_in = 0; /* both or none (RFC 7323 2.2) */
    t->snd_wnd = t->snd_wnd_max = g->wnd; /* in a SYN never scaled */
    t->snd_wl1 = g->seq;
    t->snd_wl2 = t->snd_una;
    tcp_set_mss(t);
    tcp_ecn_take_syn(s, t, g);
}

/* Not more than one answer in a while to what may be forged, or an answer itself. */
static bool was_answered(struct stack *s, struct tcp *t)
{
    uint32_t ms = (uint32_t)(s->now / MSEC);
    if (t->stray_acked && ms - t->stray_acked < STRAY_ACK_INTERVAL)
        return true;
    t->stray_acked = ms;
    return false;
}

static void challenge(struct stack *s, struct tcp *t) /* RFC 5961 3.2, 4.2, 5.2; limited as in 7 */
{
    if (s->now - s->challenge_refill >= SECOND) {
        s->challenge_refill = s->now;
        /* Not a fixed number: who could count on it would find other hosts' connections with it (CVE-2016-5696). */
        s->challenge_tokens = CHALLENGES_PER_SECOND / 2 + rng_below(&s->rng, CHALLENGES_PER_SECOND);
    }
    if (!s->challenge_tokens || was_answered(s, t)) {
        count(s, C_TcpExtTCPACKSkippedChallenge);
        return;
    }
    s->challenge_tokens--;
    count(s, C_TcpExtTCPChallengeACK);
    t->ack_now = true;
    sock_mark_dirty(s, &t->k);
}

static void established(struct stack *s, struct tcp *t)
{
    tcp_on(s, t, ON_SYN_ACKED);
    /* RFC 5681 3.1, RFC 6928 2: with the segment size now known; one segment if our SYN had to be sent again. */
    t->cong->init(t);
    if (t->backoff) {
        t->cwnd = t->mss;
        if (!t->srtt)
            t->rto = TCP_RTO_AFTER_LOST_SYN;
    }
    t->backoff = 0;
    tcp_timer_stop(t, T_REXMT);
    if (seq_lt(t->snd_una, t->snd_max) && t->fastopen & FASTOPEN_DATA) /* an answer that went before the handshake ended */
        tcp_timer_set(s, t, T_REXMT, s->now + t->rto);
    tcp_child_established(s, t);
    tcp_keepalive_restart(s, t);
    if (t->fin_wanted) /* closed meanwhile (3.10.4, SYN-RECEIVED: queued until now) */
        tcp_on(s, t, ON_CLOSE);
    sock_mark_dirty(s, &t->k);
}

/* The first round trip: our SYN's, which g acknowledges. If it was sent again it is timed by the echo of its timestamp
 * (RFC 7323 4), or not at all (RFC 6298 3): an echo from before the last copy may have waited for a lost ACK, and a first
 * sample that is too long stays for long. */
static void measure_handshake(struct stack *s, struct tcp *t, const struct segment *g)
{
    uint32_t ms = tcp_timestamp(t, s->now) - g->tsecr, last = tcp_timestamp(t, s->now) - tcp_timestamp(t, t->last_sent);
    if (t->rtt_timing)
        tcp_rtt_sample(t, s->now - t->rtt_start);
    else if (t->backoff && t->ts_ok && g->has_ts && g->tsecr && ms <= last)
        tcp_rtt_sample(t, (ms ? ms : 1) * (uint64_t)MSEC);
    t->rtt_timing = false;
    t->first_again = 0; /* in the place of rtt_start */
}

/* SYN-SENT (3.10.7.3). */
static void syn_sent(struct stack *s, struct tcp *t, const struct segment *g, const struct ip_meta *m)
{
    bool acceptable = g->flags & TH_ACK && seq_gt(g->ack, t->iss) &&
                      (seq_le(g->ack, t->snd_max) || tcp_fastopen_acks(t, g->ack));
    if (g->flags & TH_ACK && !acceptable) {
        if (!(g->flags & TH_RST))
            tcp_send_reset(s, g, m);
        return;
    }
    if (g->flags & TH_RST) {
        if (acceptable && !tcp_ecn_refused(s, t))
            tcp_end(s, t, ECONNREFUSED);
        return;
    }
    if (!(g->flags & TH_SYN))
        return;
    tcp_take_syn(s, t, g);
    if (!acceptable) { /* both opened at once: answer with SYN, ACK */
        t->fastopen = 0;
        t->syn_data = 0;
        tcp_on(s, t, ON_SYN);
        t->snd_nxt = t->iss;
        sock_mark_dirty(s, &t->k);
        return;
    }
    tcp_fastopen_answered(s, t, g);
    t->snd_una = g->ack;
    t->snd_nxt = seq_max(t->snd_nxt, t->snd_una);
    t->snd_max = seq_max(t->snd_max, t->snd_una);
    t->snd_wl2 = g->ack;
    measure_handshake(s, t, g);
    established(s, t);
    t->ack_now = true;
}

/* Answer what lies outside the window with an ACK. If it carries nothing it may itself be such an answer: then not
 * so often that two ends which have lost each other talk about it for ever. */
static void answer_stray(struct stack *s, struct tcp *t, const struct segment *g)
{
    if (g->flags & TH_RST)
        return;
    if (seg_space(g) == 0 && was_answered(s, t))
        count(s, C_TcpExtTCPACKSkippedSeq);
    else
        t->ack_now = true;
}

/* RFC 2883 4: what came before says so, in the next ACK. */
static void twice(struct stack *s, struct tcp *t, seq_t left, seq_t right)
{
    if (t->sack_ok && seq_lt(left, right))
        count(s, C_TcpExtTCPDSACKOldSent);
    tcp_sack_duplicate(t, left, right);
}

/* First, the sequence number (3.10.7.4, RFC 7323 5.3). False: drop it. */
static bool acceptable(struct stack *s, struct tcp *t, const struct segment *g)
{
    if (t->ts_ok && !(g->flags & TH_RST)) {
        if (!g->has_ts)
            return false; /* RFC 7323 3.2 */
        if ((int32_t)(g->tsval - t->ts_recent) < 0 && s->now - t->ts_recent_at < PAWS_IDLE) {
            count(s, C_TcpExtPAWSEstab);
            answer_stray(s, t, g);
            return false;
        }
    }
    /* Against the window that we have told, which our buffers honour even if it has since become less. */
    uint32_t wnd = (uint32_t)seq_diff(t->rcv_adv, t->rcv_nxt);
    seq_t end = seq_add(g->seq, seg_space(g));
    bool ok = seg_space(g) == 0 ? wnd == 0 ? seq_eq(g->seq, t->rcv_nxt)
                                           : seq_ge(g->seq, t->rcv_nxt) && seq_lt(g->seq, t->rcv_adv)
                                : wnd > 0 && seq_lt(g->seq, t->rcv_adv) && seq_gt(end, t->rcv_nxt);
    if (ok || (wnd == 0 && seq_eq(g->seq, t->rcv_nxt))) /* a window probe: its ACK counts, its data will not fit */
        return true;
    if (seq_le(end, t->rcv_nxt) && g->len)
        twice(s, t, g->seq, seq_add(g->seq, g->len));
    answer_stray(s, t, g);
    return false;
}

/* Cut off what lies outside the window: p's own window becomes what is new and fits. */
static void trim(struct stack *s, struct tcp *t, struct segment *g)
{
    if (seq_lt(g->seq, t->rcv_nxt)) {
        uint32_t old = (uint32_t)seq_diff(t->rcv_nxt, g->seq);
        uint32_t cut = old < g->len ? old : g->len;
        twice(s, t, g->seq, seq_add(g->seq, cut));
        pbuf_pull(g->p, cut);
        g->len -= cut;
        g->seq = seq_add(g->seq, cut);
        t->ack_now = true; /* it was sent again: our ACK was lost */
    }
    seq_t end = seq_add(g->seq, g->len);
    if (seq_gt(end, t->rcv_adv)) {
        uint32_t over = (uint32_t)seq_diff(end, t->rcv_adv);
        if (over > g->len)
            over = g->len;
        g->len -= over;
        g->p->len -= over;
        g->flags &= (uint8_t)~TH_FIN;
        t->ack_now = true;
    }
}

static void update_window(struct stack *s, struct tcp *t, const struct segment *g)
{
    /* 3.10.7.4: only from segments that are not older than the last that told */
    if (!(seq_lt(t->snd_wl1, g->seq) || (seq_eq(t->snd_wl1, g->seq) && seq_le(t->snd_wl2, g->ack))))
        return;
    uint32_t wnd = g->wnd << t->shift_out;
    t->snd_wl1 = g->seq;
    t->snd_wl2 = g->ack;
    if (wnd == t->snd_wnd)
        return;
    if (wnd > t->snd_wnd)
        sock_mark_dirty(s, &t->k);
    t->snd_wnd = wnd;
    if (wnd > t->snd_wnd_max)
        t->snd_wnd_max = wnd;
    if (wnd) {
        tcp_timer_stop(t, T_PERSIST);
        if (!t->due[T_REXMT])
            t->backoff = 0;
    }
}

/* New data is acknowledged up to g->ack: it leaves the queue. How much of the sequence space that was. */
static uint32_t acknowledged(struct stack *s, struct tcp *t, const struct segment *g)
{
    uint32_t acked = (uint32_t)seq_diff(g->ack, t->snd_una), bytes = acked - (t->fin_sent && seq_eq(g->ack, t->snd_max));
    if (bytes > t->out_bytes) /* cannot be, while snd_max is right; then rather lose a count than the process */
        bytes = t->out_bytes;
    t->bytes_acked += bytes;
    t->soft_error = 0; /* the path works */
    bool was_full = t->out_bytes > t->out_limit / 3 * 2;
    t->snd_una = g->ack;
    if (seq_lt(t->snd_nxt, t->snd_una))
        t->snd_nxt = t->snd_una;
    tcp_sndbuf_grow(s, t, (uint32_t)seq_diff(t->snd_max, t->snd_una) + acked);
    tcp_out_acked(s, t, bytes);
    if (t->mtu_probe || t->mtu_hole)
        tcp_mtu_acked(s, t);
    t->progress = (uint32_t)(s->now / MSEC);
    if (t->out_bytes || t->fin_wanted)
        sock_mark_dirty(s, &t->k);
    if (was_full || t->k.want & EV_WRITE)
        sock_mark_ready(s, &t->k);
    return acked;
}

/* Fifth, the ACK field (3.10.7.4). False: drop the segment. */
static bool take_ack(struct stack *s, struct tcp *t, const struct segment *g, const struct ip_meta *m)
{
    if (t->state == SYN_RECV) {
        if (seq_le(g->ack, t->iss) || seq_gt(g->ack, t->snd_max)) {
            tcp_send_reset(s, g, m);
            return false;
        }
        if (!tcp_child_may_establish(s, t, g))
            return false;
        t->snd_una = seq_max(t->snd_una, seq_add(t->iss, 1));
        if (seq_lt(t->snd_nxt, t->snd_una))
            t->snd_nxt = t->snd_una;
        t->snd_wnd = t->snd_wnd_max = g->wnd << t->shift_out;
        t->snd_wl1 = g->seq;
        t->snd_wl2 = g->ack;
        measure_handshake(s, t, g);
        established(s, t);
    }
    /* RFC 5961 5.2: an ACK for what was never sent, or from long ago, may be forged. */
    if (seq_gt(g->ack, t->snd_max) || seq_diff(t->snd_una, g->ack) > (int32_t)t->snd_wnd_max) {
        challenge(s, t);
        return false;
    }
    bool window_same = g->wnd << t->shift_out == t->snd_wnd, moved = seq_gt(g->ack, t->snd_una);
    bool duplicate = seq_eq(g->ack, t->snd_una) && g->len == 0 && window_same && !(g->flags & TH_FIN) &&
                     !seq_eq(t->snd_una, t->snd_max); /* RFC 5681 2: DUPLICATE ACKNOWLEDGMENT */
    if (moved || duplicate || g->sacks)
        tcp_recovery_acked(s, t, g, moved ? acknowledged(s, t, g) : 0, duplicate);
    if (seq_ge(g->ack, t->snd_una) || window_same)
        update_window(s, t, g);
    if (moved && t->fin_sent && seq_eq(t->snd_una, t->snd_max))
        tcp_on(s, t, ON_FIN_ACKED);
    return t->state != CLOSED;
}

/* Seventh and eighth: data and FIN. Takes g->p. */
static void take_data(struct stack *s, struct tcp *t, const struct segment *g)
{
    bool may_receive = t->state == ESTABLISHED || t->state == FIN_WAIT1 || t->state == FIN_WAIT2;
    if (!may_receive || !seg_space(g)) { /* after its FIN the peer has nothing to say (3.10.7.4, seventh) */
        pbuf_free(&s->pool, g->p);
        return;
    }
    if (t->k.orphan && g->len) { /* 3.6.1, RFC 1122 4.2.2.13: nobody will read it */
        count(s, C_TcpExtTCPAbortOnData);
        pbuf_free(&s->pool, g->p);
        tcp_abort(s, t);
        return;
    }
    uint32_t before = t->in_bytes;
    seq_t from = t->rcv_nxt;
    if (g->len)
        tcp_data_arrived(s, t, g);
    bool fin = tcp_in_insert(s, t, g);
    t->bytes_received += (uint32_t)seq_diff(t->rcv_nxt, from) - fin;
    if (!fin) {
        if (t->in_bytes != before) {
            sock_mark_ready(s, &t->k);
            t->progress = (uint32_t)(s->now / MSEC);
        }
        tcp_ack_data(s, t);
    } else {
        t->fin_in = true;
        t->ack_now = true;
        tcp_on(s, t, ON_FIN);
    }
    if (t->ack_now)
        sock_mark_dirty(s, &t->k);
}

/* RST (3.10.7.4 second; RFC 5961 3.2): only the exact number resets; anything else in the window is asked back. */
static void take_reset(struct stack *s, struct tcp *t, const struct segment *g)
{
    if (!seq_eq(g->seq, t->rcv_nxt)) {
        challenge(s, t);
        return;
    }
    switch (t->state) {
    case SYN_RECV:
        if (tcp_is_fast_child(t))
            tcp_fastopen_reset(s);
        tcp_end(s, t, tcp_is_fast_child(t) ? ECONNRESET : ECONNREFUSED);
        break;
    case CLOSING:
    case LAST_ACK:
        tcp_end(s, t, 0);
        break;
    case TIME_WAIT: /* RFC 1337 3, F1: an old segment would end it by the answer it gets */
        break;
    default:
        tcp_end(s, t, ECONNRESET);
    }
}

/* All states from SYN-RECEIVED on (3.10.7.4). Takes g->p. */
static void synchronized(struct stack *s, struct tcp *t, struct segment *g, const struct ip_meta *m)
{
    if (t->held) /* the owner has not decided: only a RST matters */
        goto held;
    if (t->state == SYN_RECV && g->flags & TH_SYN && !(g->flags & TH_ACK) && seq_eq(g->seq, t->irs)) {
        tcp_ecn_syn_again(t, g);
        if (tcp_is_fast_child(t)) /* its SYN again: our answer was lost */
            t->syn_again = true;
        else
            t->snd_nxt = t->iss;
        sock_mark_dirty(s, &t->k);
        goto drop;
    }
    if (t->state == SYN_RECV && g->flags & TH_SYN && seq_eq(g->seq, t->irs)) {
        /* Both opened at once, and this is its answer (3.5, figure 7): what counts is the ACK behind a SYN that we
         * have already. */
        g->seq = seq_add(g->seq, 1);
        g->flags &= (uint8_t)~TH_SYN;
        g->wnd >>= t->shift_out; /* in a SYN not scaled */
    }
    if (!acceptable(s, t, g)) {
        if (t->state == TIME_WAIT && g->flags & TH_FIN) /* eighth, TIME-WAIT: it has not heard us; wait again */
            tcp_timer_set(s, t, T_WAIT, s->now + TCP_WAIT);
        if (t->ack_now)
            sock_mark_dirty(s, &t->k);
        goto drop;
    }
    t->last_heard = s->now;
    t->keep_sent = 0;
    if (g->flags & TH_RST) {
        take_reset(s, t, g);
        goto drop;
    }
    if (g->flags & TH_SYN) { /* RFC 5961 4.2 */
        challenge(s, t);
        goto drop;
    }
    if (!(g->flags & TH_ACK))
        goto drop;
    bool at_edge = seq_le(g->seq, t->last_ack_sent); /* RFC 7323 4.3 (2) */
    seq_t up = seq_add(g->seq, g->up);
    trim(s, t, g);
    if (t->ecn)
        tcp_ecn_input(s, t, g, m->tos);
    if (!take_ack(s, t, g, m))
        goto drop;
    if (t->ts_ok && at_edge) /* not before its ACK was believed: a forged value would shut out the peer */
        take_timestamp(s, t, g);
    if (g->flags & TH_URG) /* sixth */
        tcp_urgent_input(s, t, up);
    if (t->ack_now)
        sock_mark_dirty(s, &t->k);
    take_data(s, t, g);
    return;
held:
    if (g->flags & TH_RST && seq_eq(g->seq, t->rcv_nxt))
        tcp_end(s, t, ECONNRESET);
drop:
    pbuf_free(&s->pool, g->p);
}

/* A SYN for a connection in TIME-WAIT which cannot be an old one may open a new one (3.6.1), if anyone listens: its
 * timestamp is newer, or its number lies beyond what was used (RFC 6191 2). Others are asked back (RFC 5961 4.2). */
static bool reopens(const struct tcp *t, const struct segment *g)
{
    if (t->state != TIME_WAIT || (g->flags & (TH_SYN | TH_ACK | TH_RST | TH_FIN)) != TH_SYN)
        return false;
    bool beyond = seq_gt(g->seq, t->rcv_nxt);
    if (!g->has_ts || !t->ts_ok)
        return g->has_ts || beyond;
    int32_t newer = (int32_t)(g->tsval - t->ts_recent);
    return newer > 0 || (newer == 0 && beyond);
}

void tcp_input(struct stack *s, struct pbuf *p, const struct ip_meta *m)
{
    struct segment g;
    count(s, C_TcpInSegs);
    if (!parse(s, p, m, &g)) {
        pbuf_free(&s->pool, p);
        return;
    }
    s->counters[C_TcpInBytes] += g.len;
    struct sock *k = sock_lookup_connected(s, SOCK_STREAM, &m->dst, g.dport, &m->src, g.sport);
    struct sock *l = k && !reopens(tcp_of(k), &g)
                         ? NULL
                         : sock_lookup_bound(s, SOCK_STREAM, &m->dst, g.dport, &m->src, g.sport);
    if (l && tcp_of(l)->state != LISTEN)
        l = NULL;
    if (k && l) {
        g.old = tcp_of(k);
        tcp_end(s, tcp_of(k), 0);
        k = NULL;
    }
    struct tcp *t = k ? tcp_of(k) : NULL;
    if (!k && l)
        t = tcp_listen_input(s, tcp_of(l), &g, m);
    else if (!k && !(g.flags & TH_RST))
        tcp_send_reset(s, &g, m);
    if (t) {
        t->segs_in++;
        t->data_segs_in += g.len != 0;
    }
    if (t && t->state != SYN_SENT) {
        synchronized(s, t, &g, m); /* takes p */
        return;
    }
    if (t)
        syn_sent(s, t, &g, m);
    pbuf_free(&s->pool, g.p);
}
