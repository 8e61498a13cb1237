/* The urgent mechanism (RFC 9293 3.8.5, RFC 6093): a mark in the stream, up to which the reader should hurry. No byte
 * leaves the stream for it: SO_OOBINLINE is always on. New applications should not use it (SHLD-13); it is here because
 * old ones do, and because what does not know the flag must not be confused by it.
 *
 * Marks only move on. A reader that asked for EV_URGENT is told when there is one before it, and learns from
 * sock_urgent() how far it is, or that it has passed it. */
#include <errno.h>
#include <sys/socket.h>

#include "net/core/wire.h"
#include "net/tcp/tcp.h"

/* What will be read next. */
static seq_t reading_at(const struct tcp *t) { return seq_add(t->rcv_nxt, 0u - t->fin_in - t->in_bytes); }

uint32_t tcp_urgent_unread(const struct tcp *t)
{
    return t->urgent_in && seq_gt(t->rcv_up, reading_at(t)) ? (uint32_t)seq_diff(t->rcv_up, reading_at(t)) : 0;
}

void tcp_urgent_input(struct stack *s, struct tcp *t, const struct segment *g)
{
    if (!seq_gt(g->up, reading_at(t)) || (tcp_urgent_unread(t) && !seq_gt(g->up, t->rcv_up)))
        return;
    t->urgent_in = true;
    t->rcv_up = g->up;
    sock_mark_ready(s, &t->k);
}

unsigned tcp_urgent_output(struct tcp *t, seq_t seq, uint8_t *header)
{
    if (!t->urgent_out || !seq_gt(t->snd_up, seq)) /* it went out with what came before */
        return 0;
    uint32_t ahead = (uint32_t)seq_diff(t->snd_up, seq);
    put16(header + TCP_URG, ahead < 65535 ? ahead : 65535);
    return TH_URG;
}

int64_t sock_urgent(struct stack *s, int64_t id)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (k->type != SOCK_STREAM)
        return -EOPNOTSUPP;
    struct tcp *t = tcp_of(k);
    t->urgent_in = tcp_urgent_unread(t) != 0; /* before the numbers come round */
    return tcp_urgent_unread(t);
}

int64_t sock_send_urgent(struct stack *s, int64_t id, const uint8_t *data, size_t len)
{
    int64_t n = sock_send(s, id, data, len);
    struct sock *k = sock_find(s, id);
    if (n <= 0 || k->type != SOCK_STREAM)
        return n;
    struct tcp *t = tcp_of(k);
    seq_t start = t->state == SYN_SENT || t->state == SYN_RECV ? seq_add(t->iss, 1) : t->snd_una;
    t->urgent_out = true;
    t->snd_up = seq_add(start, t->out_bytes);
    return n;
}
