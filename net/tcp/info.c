/* What can be seen of a connection from outside: TCP_INFO, as Linux fills it (linux/tcp.h, tcp(7)), and a row of `ss`.
 *
 * The layout is Linux's own and does not change but by growing, so a reader of TCP_INFO may ask for less or for more of
 * it. Times are in us and ms, windows of the sender in segments, all others in bytes. What has no meaning here stays 0:
 * fackets, delivery rates, and the times for which something was the limit. */
#include <netinet/tcp.h>

#include "net/tcp/tcp.h"

#define USEC 1000u

struct info {
    uint8_t state, ca_state, retransmits, probes, backoff, options, wscales, flags;
    uint32_t rto, ato, snd_mss, rcv_mss;
    uint32_t unacked, sacked, lost, retrans, fackets;
    uint32_t last_data_sent, last_ack_sent, last_data_recv, last_ack_recv;
    uint32_t pmtu, rcv_ssthresh, rtt, rttvar, snd_ssthresh, snd_cwnd, advmss, reordering;
    uint32_t rcv_rtt, rcv_space;
    uint32_t total_retrans;
    uint64_t pacing_rate, max_pacing_rate, bytes_acked, bytes_received;
    uint32_t segs_out, segs_in;
    uint32_t notsent_bytes, min_rtt, data_segs_in, data_segs_out;
    uint64_t delivery_rate;
    uint64_t busy_time, rwnd_limited, sndbuf_limited;
    uint32_t delivered, delivered_ce;
    uint64_t bytes_sent, bytes_retrans;
    uint32_t dsack_dups, reord_seen, rcv_ooopack, snd_wnd, rcv_wnd, rehash;
    uint16_t total_rto, total_rto_recoveries;
    uint32_t total_rto_time;
};
_Static_assert(sizeof(struct info) == 248, "as linux/tcp.h has it");

static uint32_t us(uint64_t ns) { return ns / USEC < UINT32_MAX ? (uint32_t)(ns / USEC) : UINT32_MAX; }

static uint32_t ms_ago(const struct stack *s, uint64_t then) { return then ? (uint32_t)((s->now - then) / MSEC) : 0; }

static uint32_t segments(const struct tcp *t, uint32_t bytes)
{
    return t->mss ? (bytes + t->mss - 1) / t->mss : 0;
}

static uint32_t flying_again(const struct tcp *t)
{
    uint32_t bytes = 0;
    for (const struct sent *r = t->sb.flying.head; r; r = r->after)
        bytes += r->again ? (uint32_t)seq_diff(r->end, r->seq) : 0;
    return bytes;
}

static void fill(struct stack *s, const struct tcp *t, struct info *i)
{
    uint32_t flight = (uint32_t)seq_diff(t->snd_max, t->snd_una), header = addr_is4(&t->k.remote) ? 40 : 60;
    bool probing = t->due[T_PERSIST] != 0;
    i->ca_state = t->ca;
    i->retransmits = probing ? 0 : t->backoff;
    i->probes = probing ? t->backoff : t->keep_sent;
    i->backoff = t->backoff;
    i->options = (t->ts_ok ? TCPI_OPT_TIMESTAMPS : 0) | (t->sack_ok ? TCPI_OPT_SACK : 0) | (t->ws_ok ? TCPI_OPT_WSCALE : 0) |
                 (tcp_ecn_agreed(t) ? TCPI_OPT_ECN : 0) | (t->fastopen & FASTOPEN_DATA ? TCPI_OPT_SYN_DATA : 0);
    i->wscales = (uint8_t)(t->shift_out | t->shift_in << 4);
    i->rto = us(tcp_backed_off(t));
    i->ato = us(t->ato ? t->ato : TCP_DELACK_MIN);
    i->snd_mss = t->mss;
    i->rcv_mss = t->rcv_mss ? t->rcv_mss : t->mss;
    i->unacked = segments(t, flight);
    i->sacked = segments(t, t->sb.sacked);
    i->lost = segments(t, t->sb.lost);
    i->retrans = segments(t, flying_again(t));
    i->last_data_sent = ms_ago(s, t->last_sent);
    i->last_data_recv = ms_ago(s, t->last_data);
    i->last_ack_recv = ms_ago(s, t->last_heard);
    i->pmtu = t->mtu;
    i->rcv_ssthresh = t->in_limit;
    i->rtt = us(t->srtt);
    i->rttvar = us(t->rttvar);
    i->snd_ssthresh = t->ssthresh >= INT32_MAX ? INT32_MAX : segments(t, t->ssthresh);
    i->snd_cwnd = t->mss ? t->cwnd / t->mss : 0;
    i->advmss = t->mtu > header ? t->mtu - header : 0;
    if (t->user_mss && t->user_mss < i->advmss)
        i->advmss = t->user_mss;
    i->reordering = 3; /* RFC 6675's; RACK goes by time */
    i->rcv_space = t->in_limit;
    i->total_retrans = t->retransmits;
    i->pacing_rate = tcp_pacing_rate(t) ? tcp_pacing_rate(t) : UINT64_MAX;
    i->max_pacing_rate = t->pacing_rate_max ? t->pacing_rate_max : UINT64_MAX;
    i->bytes_acked = t->bytes_acked;
    i->bytes_received = t->bytes_received;
    i->segs_out = t->segs_out;
    i->segs_in = t->segs_in;
    i->notsent_bytes = tcp_unsent(t);
    i->min_rtt = us(t->min_rtt);
    i->data_segs_in = t->data_segs_in;
    i->data_segs_out = t->data_segs_out;
    i->bytes_sent = t->bytes_acked + (flight < t->out_bytes ? flight : t->out_bytes) + t->bytes_retrans;
    i->bytes_retrans = t->bytes_retrans;
    i->dsack_dups = t->dsack_dups;
    i->reord_seen = t->reordering;
    i->snd_wnd = t->snd_wnd;
    i->rcv_wnd = (uint32_t)seq_diff(t->rcv_adv, t->rcv_nxt);
}

int64_t tcp_read_info(struct stack *s, struct sock *k, void *buf, size_t cap)
{
    const struct tcp *t = tcp_of(k);
    struct info i = {.state = t->state};
    if (t->state == LISTEN) { /* as Linux has it: what waits, and how much may */
        i.unacked = t->listener->queued;
        i.sacked = t->listener->backlog;
    } else {
        fill(s, t, &i);
    }
    size_t n = cap < sizeof i ? cap : sizeof i;
    memcpy(buf, &i, n);
    return (int64_t)n;
}

void tcp_info(const struct sock *k, struct sock_info *out)
{
    const struct tcp *t = (const struct tcp *)k;
    out->state = t->state;
    out->rx_queue = t->state == LISTEN ? t->listener->queued : t->in_bytes;
    out->tx_queue = t->out_bytes;
    out->srtt_ns = t->srtt;
    out->rttvar_ns = t->rttvar;
    out->rto_ns = t->rto;
    out->cwnd = t->cwnd;
    out->ssthresh = t->ssthresh;
    out->mss = t->mss;
    out->retransmits = t->retransmits;
}
