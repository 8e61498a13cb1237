/* Urgent data (RFC 9293 3.8.5), as RFC 6093 advises: it stays in line, a pointer says how far it goes, and that pointer
 * names the byte behind it. Nothing is taken out of the stream, so there is no length that it cannot have.
 *
 * The pointer has 16 bits: urgent data that reaches further is announced as reaching to the end of them, and further by
 * the segments that follow. */
#include <errno.h>
#include <sys/socket.h>

#include "net/core/wire.h"
#include "net/tcp/tcp.h"

/* The first byte that was not read yet. */
static seq_t read_next(const struct tcp *t) { return seq_add(t->rcv_nxt, 0u - t->in_bytes - t->fin_in); }

void tcp_urgent_write(struct tcp *t, seq_t seq, uint8_t *h)
{
    if (!t->urgent_out)
        return;
    if (seq_ge(t->snd_una, t->snd_up)) { /* the peer has all of it */
        t->urgent_out = false;
        return;
    }
    if (seq_ge(seq, t->snd_up) || h[TCP_FLAGS] & TH_SYN)
        return;
    uint32_t up = (uint32_t)seq_diff(t->snd_up, seq);
    h[TCP_FLAGS] |= TH_URG;
    put16(h + TCP_URG, up < 65535 ? up : 65535);
}

void tcp_urgent_input(struct stack *s, struct tcp *t, seq_t up)
{
    bool known = t->urgent_in && seq_le(up, t->rcv_up);
    if (known || seq_le(up, read_next(t)) || t->fin_in)
        return;
    t->rcv_up = up;
    t->urgent_in = true;
    sock_mark_ready(s, &t->k);
}

uint32_t tcp_urgent_left(struct tcp *t)
{
    if (t->urgent_in && (seq_ge(read_next(t), t->rcv_up) || t->state == CLOSED))
        t->urgent_in = false;
    return t->urgent_in ? (uint32_t)seq_diff(t->rcv_up, read_next(t)) : 0;
}

int64_t sock_send_urgent(struct stack *s, int64_t id, const uint8_t *data, size_t len)
{
    struct sock *k = sock_find(s, id);
    if (k && k->type != SOCK_STREAM)
        return -EOPNOTSUPP;
    int64_t n = sock_send(s, id, data, len);
    if (n <= 0)
        return n;
    struct tcp *t = tcp_of(k);
    t->snd_up = seq_add(t->snd_una, t->out_bytes + tcp_is_connecting(k)); /* behind the SYN */
    t->urgent_out = t->ack_now = true; /* told at once, though the window may be shut (RFC 9293 3.10.2) */
    return n;
}

int64_t sock_urgent(struct stack *s, int64_t id)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    return k->type == SOCK_STREAM ? (int64_t)tcp_urgent_left(tcp_of(k)) : -EOPNOTSUPP;
}
