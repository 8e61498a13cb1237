/* What a connection sends, and why: tcp_output() asks an ordered list of reasons until none is left, and builds a
 * segment for each. It runs once for each dirty socket in a run of the stack, so that many small writes become few
 * segments. */
#include <errno.h>

#include "net/ip/neigh.h"
#include "net/tcp/tcp.h"
#include "net/core/wire.h"

#define BURST_BYTES_MAX 63000 /* payload of one segment that the link cuts: with all headers it stays under 64 KiB */
#define COPY_MAX 1500
#define SEND_FRAGS_MAX (CHANNEL_IOV_MAX - 1)

enum reason { NOTHING, SEND_SYN, SEND_AGAIN, SEND_TAIL, SEND_DATA, SEND_FIN, SEND_PROBE, SEND_ACK };

struct plan {
    seq_t seq;
    uint32_t len;
    uint32_t mss; /* payload of a full segment, with the options of now */
    struct sent *record; /* what is sent again; NULL: it is new */
    uint8_t flags;
};

/* Of the sequence space. */
static uint32_t plan_space(const struct plan *plan) { return plan->len + !!(plan->flags & (TH_SYN | TH_FIN)); }

uint32_t tcp_timestamp(const struct tcp *t, uint64_t now) { return (uint32_t)(now / MSEC) + t->ts_offset; }

/* How much new data may go now: 0 for nothing. RFC 9293 3.7.4 (Nagle) and 3.8.6.2.1 (SWS avoidance). */
static uint32_t sendable(struct tcp *t, uint32_t mss, uint32_t burst)
{
    uint32_t sent = (uint32_t)seq_diff(t->snd_nxt, t->snd_una), flight = tcp_in_flight(t), waiting = tcp_unsent(t);
    uint32_t room = t->snd_wnd > sent ? t->snd_wnd - sent : 0, path = t->cwnd > flight ? t->cwnd - flight : 0;
    if (path < room) {
        room = path;
        if (waiting > room)
            t->limited = t->snd_max;
    }
    uint32_t len = waiting < room ? waiting : room;
    if (len > burst)
        len = burst - burst % mss;
    if (len == 0)
        return 0;
    bool all = len == waiting;
    if (t->override_now)
        return len; /* waited long enough for a better window */
    if (all && !t->fin_wanted && t->cork)
        return len - len % mss; /* more will come; not waited for longer than the persist timer does */
    if (all && (t->nodelay || t->fin_wanted || sent == 0))
        return len; /* the last of it, and nothing to wait for */
    if (len >= mss)
        return len - len % mss;
    if (!all && len >= t->snd_wnd_max / 2)
        return len; /* a peer with a small buffer: half of it is a lot */
    return 0;
}

/* A segment (several, if the link cuts them) of what is lost: the first of it, as far as cwnd reaches. */
static bool resend(struct tcp *t, uint32_t burst, struct plan *plan)
{
    struct sent *r = t->sb.missing.head;
    uint32_t flight = tcp_in_flight(t), room = t->cwnd > flight ? t->cwnd - flight : 0;
    bool forced = t->rexmit_now;
    t->rexmit_now = false;
    if (!r && forced) /* the timer expired, and all of it may yet arrive: the first, then */
        r = t->sb.all.head;
    if (!r || (!forced && (!room || t->frto == FRTO_NEW_SENT)))
        return false;
    uint32_t at = (uint32_t)seq_diff(r->seq, t->snd_una), len = (uint32_t)seq_diff(r->end, r->seq);
    if (!forced && at >= t->snd_wnd)
        return false; /* the peer has taken its window back */
    if (room < plan->mss)
        room = plan->mss;
    if (room > burst)
        room = burst;
    room -= room % plan->mss;
    plan->record = r;
    plan->seq = r->seq;
    plan->len = at < t->out_bytes ? t->out_bytes - at : 0;
    if (plan->len > len)
        plan->len = len;
    if (plan->len > room)
        plan->len = room;
    if (at + plan->len >= t->out_bytes) {
        plan->flags |= plan->len ? TH_PSH : 0;
        if (t->fin_sent && len > plan->len)
            plan->flags |= TH_FIN;
    }
    return true;
}

/* A tail loss probe (RFC 8985 7.3): the next new segment whatever cwnd says, else the last one again. */
static enum reason probe_tail(struct stack *s, struct tcp *t, struct plan *plan)
{
    uint32_t sent = (uint32_t)seq_diff(t->snd_nxt, t->snd_una), waiting = tcp_unsent(t);
    t->probe_tail = false;
    plan->seq = t->snd_nxt;
    plan->len = waiting < plan->mss ? waiting : plan->mss;
    if (plan->len && sent + plan->len <= t->snd_wnd)
        return SEND_TAIL;
    struct sent *r = sb_last_segment(&s->sent, &t->sb);
    if (!r)
        return NOTHING;
    uint32_t at = (uint32_t)seq_diff(r->seq, t->snd_una);
    plan->record = r;
    plan->seq = r->seq;
    plan->len = (uint32_t)seq_diff(r->end, r->seq);
    if (at + plan->len > t->out_bytes) {
        plan->len = t->out_bytes > at ? t->out_bytes - at : 0;
        plan->flags |= TH_FIN;
    }
    plan->flags |= plan->len ? TH_PSH : 0;
    return SEND_TAIL;
}

static bool is_synchronized(const struct tcp *t)
{
    switch (t->state) {
    case SYN_RECV:
        return tcp_is_fast_child(t);
    case ESTABLISHED:
    case CLOSE_WAIT:
    case FIN_WAIT1:
    case CLOSING:
    case LAST_ACK:
        return true;
    default:
        return false;
    }
}

static enum reason decide(struct stack *s, struct tcp *t, uint32_t burst, struct plan *plan)
{
    *plan = (struct plan){.seq = t->snd_nxt, .mss = t->blocks_held || t->twice ? tcp_segment_size(t) : t->mss, .flags = TH_ACK};
    /* Our SYN was not sent yet, or must be sent again. */
    if (t->state == SYN_SENT || t->state == SYN_RECV) {
        if (seq_eq(t->snd_nxt, t->iss) || t->syn_again) {
            if (t->state == SYN_SENT && !tcp_fastopen_syn(s, t, &plan->len))
                return NOTHING;
            plan->seq = t->iss;
            plan->flags = t->state == SYN_SENT ? TH_SYN : TH_SYN | TH_ACK;
            return SEND_SYN;
        }
        if (!tcp_is_fast_child(t))
            return t->ack_now && t->state == SYN_RECV ? SEND_ACK : NOTHING;
    }
    if (is_synchronized(t) && !sb_reserve(&s->sent)) {
        sock_mark_dirty(s, &t->k); /* what cannot be kept track of is not sent; it is tried again */
    } else if (is_synchronized(t)) {
        /* Recovery found something lost. */
        if ((t->rexmit_now || t->sb.missing.head) && resend(t, burst, plan))
            return SEND_AGAIN;
        if (t->probe_tail) {
            enum reason why = probe_tail(s, t, plan);
            if (why)
                return why;
        }
        plan->seq = t->snd_nxt;
        /* The path may carry larger segments: with the next data we try one. */
        if (t->mtu_high && (plan->len = tcp_mtu_probe(s, t, plan->mss))) {
            plan->mss = plan->len;
            return SEND_DATA;
        }
        /* There is data, and room for it with the peer and on the path. */
        plan->len = sendable(t, plan->mss, tcp_pace_room(s, t, burst));
        if (plan->len) {
            if (plan->len == tcp_unsent(t)) {
                plan->flags |= TH_PSH;
                if (t->fin_wanted)
                    plan->flags |= TH_FIN;
            }
            return SEND_DATA;
        }
        /* All data is out, and the owner has closed. */
        if (t->fin_wanted && !tcp_unsent(t) &&
            seq_eq(t->snd_nxt, seq_add(t->snd_una, t->out_bytes))) {
            plan->flags |= TH_FIN;
            return SEND_FIN;
        }
    }
    /* The peer must say something: is its window open, is it alive? One byte it has, or will not take (3.8.6.1). */
    if (t->probe_now) {
        t->probe_now = false;
        plan->seq = seq_add(t->snd_una, (uint32_t)-1);
        return SEND_PROBE;
    }
    /* What came is to be acknowledged, or the window has opened. */
    if (t->ack_now || (t->state != TIME_WAIT && tcp_window_update_due(s, t)))
        return SEND_ACK;
    return NOTHING;
}

/* Builds and sends it. False: no buffer, try again later. plan->len may come out smaller. */
static bool send_segment(struct stack *s, struct tcp *t, struct path *path, struct plan *plan)
{
    /* A frame in one piece is cheaper to hand to a device than one in two, by more than the copy. */
    uint32_t copied = plan->len <= COPY_MAX ? plan->len : 0;
    struct pbuf *p = pbuf_alloc(&s->pool, PBUF_HEADROOM + ETH_HLEN + IP6_HLEN, TCP_HLEN + TCP_OPTIONS_MAX + copied);
    if (!p) {
        count(s, C_TcpExtTCPMemoryPressures);
        return false;
    }
    uint8_t *h = pbuf_data(p);
    uint32_t hlen = TCP_HLEN + tcp_write_options(t, h + TCP_HLEN, plan->flags, s->now), space = plan_space(plan);
    if (plan->flags & TH_SYN && t->fastopen)
        hlen += tcp_fastopen_option(s, t, h + hlen, TCP_HLEN + TCP_OPTIONS_MAX - hlen, plan->flags);
    p->len = hlen;
    if (plan->len) {
        uint32_t got = tcp_out_window(s, t, plan->seq, plan->len, p, SEND_FRAGS_MAX);
        if (!got) {
            pbuf_free(&s->pool, p);
            return false;
        }
        if (got < plan->len) {
            plan->len = got;
            plan->flags &= (uint8_t)~(TH_FIN | TH_PSH);
        }
        if (plan->len > plan->mss)
            p->gso_size = (uint16_t)plan->mss;
    }
    uint16_t window = tcp_window_tell(s, t, plan->flags);
    if (plan->flags & TH_ACK)
        tcp_ack_sent(s, t, !space, plan->len);
    put16(h + TCP_SPORT, t->k.lport);
    put16(h + TCP_DPORT, t->k.rport);
    put32(h + TCP_SEQ, plan->seq.v);
    put32(h + TCP_ACK, plan->flags & TH_ACK ? t->rcv_nxt.v : 0);
    h[TCP_OFF] = (uint8_t)(hlen / 4 << 4);
    bool new_data = plan->len && seq_ge(plan->seq, t->snd_max);
    h[TCP_FLAGS] = (uint8_t)(plan->flags | tcp_ecn_output(t, plan->flags, new_data, &path->tos));
    put16(h + TCP_WIN, window);
    put16(h + TCP_CSUM, 0);
    put16(h + TCP_URG, 0);
    tcp_urgent_write(t, plan->seq, h);
    ip_csum_fill(path, &t->k.remote, PROTO_TCP, TCP_CSUM, p);
    count(s, C_TcpOutSegs);
    s->counters[C_TcpOutBytes] += plan->len;
    uint32_t segments = plan->len > plan->mss ? (plan->len + plan->mss - 1) / plan->mss : 1;
    t->segs_out += segments;
    t->data_segs_out += plan->len ? segments : 0;
    ip_output(s, path, &t->k.remote, PROTO_TCP, sock_ttl(&t->k, &t->k.remote), p);
    return true;
}

/* It is sent: note it on the scoreboard, move snd_nxt over it, keep the clocks. */
static void sent(struct stack *s, struct tcp *t, enum reason why, const struct plan *plan)
{
    uint32_t space = plan->flags & TH_SYN ? 1 : plan_space(plan);
    seq_t end = seq_add(plan->seq, space);
    bool again = seq_lt(plan->seq, t->snd_max);
    if (why == SEND_PROBE || space == 0)
        return;
    uint32_t segments = plan->len > plan->mss ? (plan->len + plan->mss - 1) / plan->mss : 1;
    if (again) {
        s->counters[C_TcpRetransSegs] += segments;
        s->counters[C_TcpExtTCPSynRetrans] += (plan->flags & TH_SYN) != 0;
        t->retransmits += segments;
        t->bytes_retrans += plan->len;
    } else if (plan->len) {
        s->counters[C_TcpExtTCPOrigDataSent] += segments;
    }
    if (why == SEND_SYN) {
        t->rtt_timing = !again; /* Karn (RFC 6298 3) */
        t->rtt_start = s->now;
        t->syn_again = false;
    } else if (plan->record) {
        bool first = plan->record == t->sb.all.head;
        if (t->ca == CA_RECOVERY)
            count(s, C_TcpExtTCPFastRetrans);
        sb_resent(&s->sent, &t->sb, plan->record, space, (uint16_t)plan->mss, s->now);
        t->undo_bytes += space;
        if (!t->first_again)
            t->first_again = s->now;
        if (first) /* its answer is what the timer waits for */
            tcp_timer_set(s, t, T_REXMT, t->backoff ? tcp_next_try(s, t) : s->now + t->rto);
    } else {
        sb_sent(&s->sent, &t->sb, plan->seq, end, (uint16_t)plan->mss, s->now);
    }
    if (t->ca == CA_RECOVERY || t->ca == CA_CWR)
        t->prr_out += space;
    if (seq_lt(t->snd_nxt, end))
        t->snd_nxt = end;
    t->override_now = false;
    if (plan->flags & TH_FIN)
        t->fin_sent = true;
    if (why == SEND_SYN && plan->len) { /* what it carried stays queued behind it: see fastopen.c */
        t->syn_data = (uint16_t)plan->len;
        t->cursors[0].p = t->cursors[1].p = NULL;
    }
    if (why == SEND_SYN && tcp_is_fast_child(t))
        t->snd_una = seq_max(t->snd_una, end);
    t->snd_max = seq_max(t->snd_max, end);
    t->last_sent = s->now;
    if (!t->due[T_REXMT]) /* RFC 6298 5.1 */
        tcp_timer_set(s, t, T_REXMT, s->now + t->rto);
    tcp_timer_stop(t, T_PERSIST);
    if (why == SEND_TAIL)
        tcp_probe_sent(s, t, plan->record);
}

void tcp_output(struct stack *s, struct sock *k)
{
    struct tcp *t = tcp_of(k);
    if (t->state == CLOSED || t->state == LISTEN) {
        if (t->state == CLOSED && k->orphan)
            sock_destroy(s, k);
        return;
    }
    if (t->held)
        return;
    struct path path;
    if (!route_find(s, &k->remote, &k->local, &path))
        return; /* its timers will try again, and give up in the end */
    uint32_t ms = (uint32_t)(s->now / MSEC);
    if (t->progress && ms - t->progress < 1000 && ms - t->confirmed >= 1000) {
        neigh_confirm(path.nif, &path.next);
        t->confirmed = ms;
    }
    uint32_t burst = path.nif->link->caps & LINK_TSO && !t->urgent_out ? BURST_BYTES_MAX : t->mss;
    if (burst < t->mss)
        burst = t->mss;
    if (seq_eq(t->snd_una, t->snd_max) && t->out_bytes && t->last_sent && s->now - t->last_sent > t->rto)
        t->cong->idle(t, s->now); /* RFC 5681 4.1 */
    bool probing = false; /* there is a new tail to watch */
    for (;;) {
        struct plan plan;
        enum reason why = decide(s, t, burst, &plan);
        if (why == NOTHING)
            break;
        if (!send_segment(s, t, &path, &plan)) {
            t->rexmit_now |= why == SEND_AGAIN;
            t->probe_now |= why == SEND_PROBE;
            sock_mark_dirty(s, k);
            break;
        }
        if (t->mtu_probe && seq_eq(plan.seq, t->mtu_probe_seq) && plan.len < plan.mss)
            t->mtu_probe = 0; /* not all of it found room */
        sent(s, t, why, &plan);
        tcp_paced(s, t, plan.len);
        probing |= why == SEND_DATA || why == SEND_FIN;
    }
    if (probing)
        tcp_probe_schedule(s, t);
    /* 3.8.6.1: data waits for a window and nothing is under way that would bring an answer. */
    if (tcp_unsent(t) && seq_eq(t->snd_una, t->snd_max) && !t->due[T_REXMT] && !t->due[T_PERSIST] &&
        !t->due[T_PACE])
        tcp_timer_set(s, t, T_PERSIST, s->now + tcp_backed_off(t));
    if (t->notsent_lowat && k->want & EV_WRITE)
        sock_mark_ready(s, k); /* less is unsent now */
}

void tcp_send_syn_ack(struct stack *s, struct tcp *t)
{
    struct path path;
    struct plan plan = {.seq = t->iss, .mss = t->mss, .flags = TH_SYN | TH_ACK};
    if (route_find(s, &t->k.remote, &t->k.local, &path))
        send_segment(s, t, &path, &plan);
}

void tcp_send_reset(struct stack *s, const struct segment *g, const struct ip_meta *m)
{
    struct path path;
    if (m->to_group || !addr_is_unicast(&m->src) || !route_find(s, &m->src, &m->dst, &path))
        return;
    struct pbuf *p = pbuf_alloc(&s->pool, PBUF_HEADROOM + ETH_HLEN + IP6_HLEN, TCP_HLEN);
    if (!p)
        return;
    uint8_t *h = pbuf_data(p);
    p->len = TCP_HLEN;
    memset(h, 0, TCP_HLEN);
    put16(h + TCP_SPORT, g->dport);
    put16(h + TCP_DPORT, g->sport);
    h[TCP_OFF] = TCP_HLEN / 4 << 4;
    if (g->flags & TH_ACK) { /* 3.10.7.1 */
        put32(h + TCP_SEQ, g->ack.v);
        h[TCP_FLAGS] = TH_RST;
    } else {
        put32(h + TCP_ACK, g->seq.v + g->len + !!(g->flags & TH_SYN) + !!(g->flags & TH_FIN));
        h[TCP_FLAGS] = TH_RST | TH_ACK;
    }
    ip_csum_fill(&path, &m->src, PROTO_TCP, TCP_CSUM, p);
    count(s, C_TcpOutRsts);
    count(s, C_TcpOutSegs);
    ip_output(s, &path, &m->src, PROTO_TCP, 0, p);
}
