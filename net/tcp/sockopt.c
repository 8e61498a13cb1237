/* Socket options of a connection, by Linux's names (tcp(7)), and what can be seen of it from outside. */
#include <errno.h>
#include <netinet/tcp.h>

#include "net/tcp/tcp.h"

int64_t tcp_getopt(struct tcp *t, int name)
{
    switch (name) {
    case TCP_NODELAY:
        return t->nodelay;
    case TCP_MAXSEG:
        return t->mss;
    case TCP_KEEPIDLE:
        return t->keep_idle;
    case TCP_KEEPINTVL:
        return t->keep_interval;
    case TCP_KEEPCNT:
        return t->keep_count;
    default:
        return -ENOPROTOOPT;
    }
}

int tcp_setopt(struct stack *s, struct tcp *t, int name, int64_t value)
{
    switch (name) {
    case TCP_NODELAY:
        t->nodelay = value != 0;
        if (t->nodelay)
            sock_mark_dirty(s, &t->k); /* what Nagle held may go */
        return 0;
    case TCP_KEEPIDLE:
        if (value < 1 || value > 32767)
            return -EINVAL;
        t->keep_idle = (uint32_t)value;
        tcp_keepalive_restart(s, t);
        return 0;
    case TCP_KEEPINTVL:
        if (value < 1 || value > 32767)
            return -EINVAL;
        t->keep_interval = (uint32_t)value;
        return 0;
    case TCP_KEEPCNT:
        if (value < 1 || value > 127)
            return -EINVAL;
        t->keep_count = (uint8_t)value;
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}

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
