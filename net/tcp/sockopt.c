/* The socket options of a connection, by Linux's names (tcp(7)), and what can be seen of it from outside. */
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "net/sockopt.h"
#include "net/tcp/tcp.h"

/* What Nagle held may go. */
static void nodelay_changed(struct stack *s, struct sock *k)
{
    if (tcp_of(k)->nodelay)
        sock_mark_dirty(s, k);
}

static void keepidle_changed(struct stack *s, struct sock *k) { tcp_keepalive_restart(s, tcp_of(k)); }

static const struct sockopt rows[] = {
    {IPPROTO_TCP, TCP_NODELAY, OPT_STREAM | OPT_SWITCH | OPT_INHERIT, OPT_FIELD(struct tcp, nodelay),
     .changed = nodelay_changed},
    {IPPROTO_TCP, TCP_MAXSEG, OPT_STREAM | OPT_READ_ONLY, OPT_FIELD(struct tcp, mss)},
    {IPPROTO_TCP, TCP_KEEPIDLE, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, keep_idle), 1, 32767,
     .changed = keepidle_changed},
    {IPPROTO_TCP, TCP_KEEPINTVL, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, keep_interval), 1, 32767},
    {IPPROTO_TCP, TCP_KEEPCNT, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, keep_count), 1, 127},
};

const struct sockopt_table tcp_sockopts = {rows, sizeof rows / sizeof *rows};

void tcp_info(const struct sock *k, struct sock_info *out)
{
    const struct tcp *t = (const struct tcp *)k;
    out->state = t->state;
    out->rx_queue = t->state == LISTEN ? t->listener.queued : t->in_bytes;
    out->tx_queue = t->out_bytes;
    out->srtt_ns = t->srtt;
    out->rttvar_ns = t->rttvar;
    out->rto_ns = t->rto;
    out->cwnd = t->cwnd;
    out->ssthresh = t->ssthresh;
    out->mss = t->mss;
    out->retransmits = t->retransmits;
}
