/* What `ss -i` shows of a connection beyond the numbers of tcp_info(): for people who look at a machine from outside. */
#include <string.h>

#include "net/tcp/tcp.h"

/* Which timers are shown, and as what. The others are of no interest for longer than a moment. */
static const uint8_t timer_kinds[TCP_TIMERS] = {
    [T_REXMT] = SOCK_TIMER_ON,    [T_REO] = SOCK_TIMER_ON,       [T_PTO] = SOCK_TIMER_ON,
    [T_KEEP] = SOCK_TIMER_KEEP, [T_PERSIST] = SOCK_TIMER_PERSIST, [T_WAIT] = SOCK_TIMER_WAIT,
};

static void show_timer(const struct tcp *t, uint64_t now, struct sock_info *out)
{
    uint64_t due = UINT64_MAX;
    for (unsigned i = 0; i < TCP_TIMERS; i++)
        if (timer_kinds[i] && t->due[i] && t->due[i] < due) {
            due = t->due[i];
            out->timer = timer_kinds[i];
            out->timer_ns = due > now ? due - now : 0;
        }
}

void tcp_show(const struct stack *s, const struct sock *k, struct sock_info *out)
{
    const struct tcp *t = (const struct tcp *)k;
    out->orphan = k->orphan;
    if (t->state == LISTEN) {
        out->tx_queue = t->listener->backlog; /* as Linux shows it: how many may wait to be accepted */
        return;
    }
    show_timer(t, s->now, out);
    out->flags = (t->ts_ok ? SOCK_TIMESTAMPS : 0) | (t->sack_ok ? SOCK_SACK : 0) | (t->ws_ok ? SOCK_WSCALE : 0);
    out->wscale_out = t->shift_out;
    out->wscale_in = t->shift_in;
    out->backoff = t->backoff;
    out->in_flight = tcp_in_flight(t);
    out->sacked = t->sb.sacked;
    out->lost = t->sb.lost;
    if (t->cong)
        strncpy(out->cong, t->cong->name, sizeof out->cong - 1);
}
