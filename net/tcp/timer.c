/* The timers of a connection. One heap node serves them all; see timer.h on why that is cheap. */
#include <errno.h>

#include "net/ip/neigh.h"
#include "net/tcp/tcp.h"

#define DOUBT_RETRIES 3   /* R1 of RFC 9293 3.8.3 */

#define DATA_RETRIES 15   /* R2 of RFC 9293 3.8.3: more than 100 s */
#define ORPHAN_RETRIES 8

static void fire(struct timer *timer, void *stack, uint64_t now);

void tcp_timer_init(struct tcp *t) { timer_init(&t->timer, fire); }

void tcp_timer_set(struct stack *s, struct tcp *t, enum tcp_timer which, uint64_t due)
{
    t->due[which] = due;
    timer_at(&s->timers, &t->timer, due);
}

void tcp_keepalive_restart(struct stack *s, struct tcp *t)
{
    t->keep_sent = 0;
    if (t->keepalive && (t->state == ESTABLISHED || t->state == CLOSE_WAIT))
        tcp_timer_set(s, t, T_KEEP, s->now + t->keep_idle * (uint64_t)SECOND);
    else
        tcp_timer_stop(t, T_KEEP);
}

uint64_t tcp_backed_off(const struct tcp *t) /* RFC 6298 5.5 */
{
    uint64_t wait = t->rto << (t->backoff < 10 ? t->backoff : 10);
    return wait < TCP_RTO_MAX ? wait : TCP_RTO_MAX;
}

/* How often before giving up. */
static unsigned retries(const struct tcp *t)
{
    switch (t->state) {
    case SYN_SENT:
        return t->syn_retries ? t->syn_retries : TCP_SYN_RETRIES;
    case SYN_RECV: {
        unsigned most = t->syn_retries ? t->syn_retries : TCP_SYN_ACK_RETRIES;
        const struct tcp *l = tcp_parent(t);
        return l && t->child->syn_acked && l->defer_accept > most ? l->defer_accept : most;
    }
    default:
        return t->k.orphan ? ORPHAN_RETRIES : DATA_RETRIES;
    }
}

/* A timer ran out because the peer said nothing, or not what is waited for: note since when that is so. True: for
 * longer than the owner wants (TCP_USER_TIMEOUT; RFC 9293 3.8.3, R2 by the application). */
static bool has_stalled(struct stack *s, struct tcp *t)
{
    uint32_t now = (uint32_t)(s->now / MSEC);
    if (!t->backoff)
        t->stalled_at = now;
    return t->user_timeout && now - t->stalled_at >= t->user_timeout;
}

uint64_t tcp_next_try(const struct stack *s, const struct tcp *t)
{
    uint64_t wait = tcp_backed_off(t);
    uint32_t stalled = (uint32_t)(s->now / MSEC) - t->stalled_at;
    uint64_t left = (t->user_timeout > stalled ? t->user_timeout - stalled : 0) * (uint64_t)MSEC;
    return s->now + (t->user_timeout && t->backoff && left < wait ? left : wait);
}

static void give_up(struct stack *s, struct tcp *t)
{
    count(s, C_TcpExtTCPAbortOnTimeout);
    tcp_end(s, t, t->soft_error ? t->soft_error : ETIMEDOUT); /* 3.9.1.8: perhaps we know why */
}

static void retransmit(struct stack *s, struct tcp *t)
{
    /* 3.8.6.1: who shut its window over what was under way, and still says so, is to be waited for. */
    bool shut = t->snd_wnd == 0 && !t->k.orphan && !tcp_is_connecting(&t->k) &&
                s->now - t->last_heard < 2 * TCP_RTO_MAX;
    if (has_stalled(s, t) || (t->backoff >= retries(t) && !shut)) {
        give_up(s, t);
        return;
    }
    if (tcp_is_fast_child(t)) { /* its SYN, ACK; the data behind that when there is an ACK of it */
        count(s, C_TcpExtTCPTimeouts);
        t->syn_again = true;
        sock_mark_dirty(s, &t->k);
    } else if (!tcp_child_is_deferred(t)) {
        tcp_mtu_timeout(s, t);
        tcp_recovery_timeout(s, t);
    }
    if (t->backoff < UINT8_MAX)
        t->backoff++;
    struct path path;
    if (t->backoff == DOUBT_RETRIES && route_find(s, &t->k.remote, &t->k.local, &path))
        neigh_doubt(path.nif, &path.next);
    tcp_timer_set(s, t, T_REXMT, tcp_next_try(s, t));
}

static void persist(struct stack *s, struct tcp *t)
{
    if (t->snd_wnd >= t->mss || !t->out_bytes) { /* it opened meanwhile: plain sending goes on */
        t->override_now = t->cork; /* tcp(7): held so long, and no longer */
        sock_mark_dirty(s, &t->k);
        return;
    }
    /* 3.8.6.1 lets a window stay shut for ever; not for nobody, and not for an owner who says how long */
    if (has_stalled(s, t) || (t->k.orphan && t->backoff >= ORPHAN_RETRIES)) {
        give_up(s, t);
        return;
    }
    count(s, C_TcpExtTCPWinProbe);
    if (t->snd_wnd)
        t->override_now = true;
    else
        t->probe_now = true;
    if (t->backoff < 15)
        t->backoff++;
    tcp_timer_set(s, t, T_PERSIST, tcp_next_try(s, t));
    sock_mark_dirty(s, &t->k);
}

static void keepalive(struct stack *s, struct tcp *t) /* RFC 9293 3.8.4 */
{
    uint64_t idle = s->now - t->last_heard, quiet = t->keep_idle * (uint64_t)SECOND;
    if (!t->keepalive)
        return;
    if (idle < quiet) {
        tcp_timer_set(s, t, T_KEEP, t->last_heard + quiet);
        return;
    }
    if (seq_lt(t->snd_una, t->snd_max) || t->due[T_PERSIST]) { /* what is under way asks already */
        tcp_timer_set(s, t, T_KEEP, s->now + t->keep_interval * (uint64_t)SECOND);
        return;
    }
    /* tcp(7): a user time-out stands in for the count of probes */
    if (t->user_timeout ? t->keep_sent && idle >= t->user_timeout * (uint64_t)MSEC : t->keep_sent >= t->keep_count) {
        give_up(s, t);
        return;
    }
    count(s, C_TcpExtTCPKeepAlive);
    t->keep_sent++;
    t->probe_now = true;
    tcp_timer_set(s, t, T_KEEP, s->now + t->keep_interval * (uint64_t)SECOND);
    sock_mark_dirty(s, &t->k);
}

static void expired(struct stack *s, struct tcp *t, enum tcp_timer which)
{
    switch (which) {
    case T_REXMT:
        retransmit(s, t);
        break;
    case T_REO:
        tcp_rack_due(s, t);
        break;
    case T_PTO:
        tcp_probe_due(s, t);
        break;
    case T_PERSIST:
        persist(s, t);
        break;
    case T_DELACK:
        count(s, C_TcpExtDelayedACKs);
        t->ack_now = true;
        sock_mark_dirty(s, &t->k);
        break;
    case T_KEEP:
        keepalive(s, t);
        break;
    case T_WAIT: /* held: its owner has not decided, and who asked has given up */
        tcp_end(s, t, t->held ? ETIMEDOUT : 0);
        break;
    case T_PACE:
        sock_mark_dirty(s, &t->k);
        break;
    case TCP_TIMERS:
        break;
    }
}

static void fire(struct timer *timer, void *stack, uint64_t now)
{
    struct tcp *t = (struct tcp *)((char *)timer - offsetof(struct tcp, timer));
    struct stack *s = stack;
    uint64_t earliest = 0;
    for (unsigned i = 0; i < TCP_TIMERS; i++)
        if (t->due[i] && t->due[i] <= now) {
            t->due[i] = 0;
            expired(s, t, i);
        }
    for (unsigned i = 0; i < TCP_TIMERS; i++)
        if (t->due[i] && (!earliest || t->due[i] < earliest))
            earliest = t->due[i];
    if (earliest)
        timer_at(&s->timers, &t->timer, earliest);
}
