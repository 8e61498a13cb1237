/* The socket options of a connection, by Linux's names (tcp(7)), and what can be seen of it from outside. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "net/sockopt.h"
#include "net/tcp/tcp.h"

/* What Nagle held may go. */
static void nodelay_changed(struct stack *s, struct sock *k)
{
    if (tcp_of(k)->nodelay)
        sock_mark_dirty(s, k);
}

static void keepidle_changed(struct stack *s, struct sock *k) { tcp_keepalive_restart(s, tcp_of(k)); }

#define CONGESTION_NAME_MAX 16 /* TCP_CA_NAME_MAX: what tcp(7) fills, with zeroes behind the name */

static int64_t read_congestion(struct stack *s, struct sock *k, void *buf, size_t cap)
{
    char name[CONGESTION_NAME_MAX] = {0};
    size_t n = cap < sizeof name ? cap : sizeof name;
    strncpy(name, tcp_of(k)->cong->name, sizeof name - 1);
    memcpy(buf, name, n);
    return (int64_t)n;
}

static int write_congestion(struct stack *s, struct sock *k, const void *buf, size_t len)
{
    char name[CONGESTION_NAME_MAX] = {0};
    memcpy(name, buf, len < sizeof name ? len : sizeof name - 1);
    return tcp_set_congestion(s, tcp_of(k), name);
}

static int64_t no_number(struct stack *s, struct sock *k) { return -EINVAL; }

/* Bytes a second; all ones, in 32 bits or more, is no limit. */
static int64_t get_pacing_rate(struct stack *s, struct sock *k)
{
    uint64_t rate = tcp_of(k)->pacing_rate_max;
    return rate && rate < UINT32_MAX ? (int64_t)rate : UINT32_MAX;
}

static int set_pacing_rate(struct stack *s, struct sock *k, int64_t value)
{
    tcp_of(k)->pacing_rate_max = value == -1 || value == UINT32_MAX ? 0
                                 : value < 0                        ? (uint32_t)value
                                 : value == 0                       ? 1
                                                                    : (uint64_t)value;
    sock_mark_dirty(s, k);
    return 0;
}

static const struct sockopt rows[] = {
    {IPPROTO_TCP, TCP_NODELAY, OPT_STREAM | OPT_SWITCH | OPT_INHERIT, OPT_FIELD(struct tcp, nodelay),
     .changed = nodelay_changed},
    {IPPROTO_TCP, TCP_MAXSEG, OPT_STREAM | OPT_READ_ONLY, OPT_FIELD(struct tcp, mss)},
    {IPPROTO_TCP, TCP_KEEPIDLE, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, keep_idle), 1, 32767,
     .changed = keepidle_changed},
    {IPPROTO_TCP, TCP_KEEPINTVL, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, keep_interval), 1, 32767},
    {IPPROTO_TCP, TCP_KEEPCNT, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, keep_count), 1, 127},
    {IPPROTO_TCP, TCP_CONGESTION, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, cong), .get = no_number,
     .read = read_congestion, .write = write_congestion},
    {SOL_SOCKET, SO_MAX_PACING_RATE, OPT_STREAM | OPT_INHERIT, OPT_FIELD(struct tcp, pacing_rate_max),
     .get = get_pacing_rate, .set = set_pacing_rate},
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
