/* The life of a TCP connection: open, connect, close, and the table of state transitions (RFC 9293 3.3.2). See tcp.h. */
#include "net/tcp/tcp.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "net/core/wire.h"

#define TIME_WAITS_MAX 65536
#define ORPHANS_MAX 16384 /* connections that nobody owns, and that are not yet in TIME_WAIT */
#define REUSE_AFTER (1ull * SECOND) /* RFC 6191 2: by then the peer's clock and ours have gone on */

/* next[event][state]; 0: cannot happen. ON_END leads everything to CLOSED. */
static const uint8_t next[TCP_EVENTS][TCP_STATES] = {
    [ON_CONNECT] = {[CLOSED] = SYN_SENT},
    [ON_LISTEN] = {[CLOSED] = LISTEN},
    [ON_SYN] = {[CLOSED] = SYN_RECV, [SYN_SENT] = SYN_RECV},
    [ON_SYN_ACKED] = {[SYN_SENT] = ESTABLISHED, [SYN_RECV] = ESTABLISHED},
    [ON_CLOSE] = {[ESTABLISHED] = FIN_WAIT1, [CLOSE_WAIT] = LAST_ACK},
    [ON_FIN] = {[ESTABLISHED] = CLOSE_WAIT, [FIN_WAIT1] = CLOSING, [FIN_WAIT2] = TIME_WAIT},
    [ON_FIN_ACKED] = {[FIN_WAIT1] = FIN_WAIT2, [CLOSING] = TIME_WAIT, [LAST_ACK] = CLOSED},
    [ON_END] = {[ESTABLISHED] = CLOSED,
                [SYN_SENT] = CLOSED,
                [SYN_RECV] = CLOSED,
                [FIN_WAIT1] = CLOSED,
                [FIN_WAIT2] = CLOSED,
                [TIME_WAIT] = CLOSED,
                [CLOSED] = CLOSED,
                [CLOSE_WAIT] = CLOSED,
                [LAST_ACK] = CLOSED,
                [LISTEN] = CLOSED,
                [CLOSING] = CLOSED},
};

static bool counts_as_established(unsigned state) { return state == ESTABLISHED || state == CLOSE_WAIT; }

/* Nobody will read: the peer has this long to say its FIN (tcp(7), TCP_LINGER2). */
static void wait_for_fin(struct stack *s, struct tcp *t)
{
    if (t->linger2 < 0) {
        count(s, C_TcpExtTCPAbortOnLinger);
        tcp_abort(s, t);
    } else {
        tcp_timer_set(s, t, T_WAIT, s->now + (t->linger2 ? t->linger2 * (uint64_t)SECOND : TCP_WAIT));
    }
}

static void uncount_orphan(struct stack *s, struct tcp *t)
{
    s->orphans -= t->counted_orphan;
    t->counted_orphan = false;
}

bool tcp_on(struct stack *s, struct tcp *t, enum tcp_event event)
{
    unsigned to = next[event][t->state], from = t->state;
    bool full;
    if (!to)
        return false;
    if (from == SYN_RECV)
        tcp_fastopen_ended(s, t);
    t->state = (uint8_t)to;
    if (counts_as_established(to) && !counts_as_established(from))
        count(s, C_TcpCurrEstab);
    else if (counts_as_established(from) && !counts_as_established(to))
        s->counters[C_TcpCurrEstab]--;
    if (from == TIME_WAIT)
        s->time_waits--;
    if (to == TIME_WAIT || to == CLOSED)
        uncount_orphan(s, t);
    switch (to) {
    case TIME_WAIT:
        for (unsigned i = 0; i < TCP_TIMERS; i++)
            tcp_timer_stop(t, i);
        count(s, C_TcpExtTW);
        /* Better a few old segments than no place for new connections. The last ACK goes in any case. */
        full = s->time_waits++ >= TIME_WAITS_MAX || s->time_waits > s->config.sockets / 2;
        if (full)
            count(s, C_TcpExtTCPTimeWaitOverflow);
        tcp_timer_set(s, t, T_WAIT, s->now + (full ? MSEC : TCP_WAIT));
        break;
    case FIN_WAIT2:
        if (t->k.orphan)
            wait_for_fin(s, t);
        break;
    case CLOSED:
        for (unsigned i = 0; i < TCP_TIMERS; i++)
            tcp_timer_stop(t, i);
        timer_cancel(&s->timers, &t->timer);
        tcp_child_gone(t);
        sock_unhash(s, &t->k);
        if (t->k.orphan) {
            tcp_queues_clear(s, t);
            sock_mark_dirty(s, &t->k); /* its output destroys it */
        }
        break;
    default:
        break;
    }
    sock_mark_ready(s, &t->k);
    return true;
}

void tcp_end(struct stack *s, struct tcp *t, int error)
{
    if (t->state == SYN_SENT || t->state == SYN_RECV)
        count(s, C_TcpAttemptFails);
    else if (error && counts_as_established(t->state))
        count(s, C_TcpEstabResets);
    bool unaccepted = tcp_parent(t);
    if (unaccepted)
        sock_orphan(s, &t->k); /* no owner has ever seen it */
    if (error) /* what came before it is still there to be read */
        tcp_queues_cut(s, t);
    tcp_on(s, t, ON_END);
    if (error && !unaccepted)
        sock_fail(s, &t->k, error);
}

/* --- events and the socket interface --- */

static bool waits_for_data(const struct tcp *t) /* so that its SYN can go, with it */
{
    return t->state == SYN_SENT && t->fastopen & FASTOPEN_WAIT && !t->out_bytes && !t->syn_data;
}

static unsigned tcp_ready(struct sock *k)
{
    const struct tcp *t = tcp_of(k);
    unsigned mask = 0;
    if (tcp_parent(t))
        return 0; /* not accepted: nobody knows its id */
    if (t->state == LISTEN)
        return !t->listener->first ? 0 : t->listener->flags & LISTEN_DEFER ? EV_REQUEST : EV_READ;
    if (tcp_readable(t) || t->fin_in || (t->state == CLOSED && k->rport))
        mask |= EV_READ;
    if (t->urgent_in && tcp_urgent_left(tcp_of(k)))
        mask |= EV_URGENT;
    bool sends = counts_as_established(t->state) || tcp_is_fast_child(t) || waits_for_data(t);
    if (sends && !t->fin_wanted && tcp_writable(t))
        mask |= EV_WRITE;
    return mask;
}

static void tcp_release(struct stack *s, struct sock *k)
{
    struct tcp *t = tcp_of(k);
    timer_cancel(&s->timers, &t->timer);
    tcp_child_free(s, t);
    tcp_children_gone(t);
    free(t->listener);
    if (counts_as_established(t->state))
        s->counters[C_TcpCurrEstab]--;
    if (t->state == TIME_WAIT)
        s->time_waits--;
    uncount_orphan(s, t);
    cong_release(t);
    tcp_fastopen_ended(s, t);
    tcp_queues_clear(s, t);
}

static const struct sock_ops tcp_ops = {tcp_ready, tcp_output, tcp_release};

struct sock *tcp_open(struct stack *s, int family, int *error)
{
    struct sock *k = sock_new(s, sizeof(struct tcp), &tcp_ops, SOCK_STREAM, family, error);
    if (!k)
        return NULL;
    struct tcp *t = tcp_of(k);
    t->state = CLOSED;
    tcp_buffers_init(s, t);
    t->rto = TCP_RTO_INITIAL;
    t->cong = s->cong;
    t->keep_idle = 7200;
    t->keep_interval = 75;
    t->keep_count = 9;
    tcp_timer_init(t);
    return k;
}

void tcp_set_mss(struct tcp *t)
{
    uint32_t headers = (addr_is4(&t->k.remote) ? IP4_HLEN : IP6_HLEN) + TCP_HLEN;
    uint32_t mss = t->mtu > headers + 64 ? t->mtu - headers : 64;
    if (t->peer_mss && t->peer_mss < mss)
        mss = t->peer_mss;
    if (t->user_mss && t->user_mss < mss)
        mss = t->user_mss;
    /* RFC 6691: the option is not in the MSS, so it is taken off what is sent. */
    t->mss = (uint16_t)(t->ts_ok ? mss - 12 : mss);
}

int tcp_prepare(struct stack *s, struct tcp *t)
{
    struct path path;
    if (!route_find(s, &t->k.remote, &t->k.local, &path))
        return -ENETUNREACH;
    t->k.local = path.src;
    tcp_mtu_init(s, t, &path);
    t->bursts = path.nif->link->caps & LINK_TSO;
    t->shift_in = tcp_window_shift(t);
    return 0;
}

void tcp_set_iss(struct tcp *t, seq_t iss)
{
    t->iss = t->snd_una = t->snd_nxt = t->snd_max = t->recover = t->limited = t->rtt_seq = iss;
    t->rack_fack = t->rack_end = t->reo_round = iss;
}

/* RFC 6528: a clock of 4 us, and a keyed hash of the four addresses and ports, so that the numbers of one connection
 * say nothing of another's. */
void tcp_choose_iss(struct stack *s, struct tcp *t, const struct tcp *old)
{
    uint64_t words[5];
    memcpy(words, t->k.local.b, 16);
    memcpy(words + 2, t->k.remote.b, 16);
    words[4] = (uint64_t)t->k.lport << 16 | t->k.rport;
    uint64_t hash = siphash(s->key, words, 5);
    seq_t iss = seq((uint32_t)hash + (uint32_t)(s->now / 4000));
    if (old && seq_le(iss, old->snd_max)) /* a fast one outran the clock; 3.6.1: beyond all that it used */
        iss = seq_add(old->snd_max, 65536);
    tcp_set_iss(t, iss);
    t->ts_offset = (uint32_t)(hash >> 32);
}

void tcp_start(struct stack *s, struct tcp *t)
{
    tcp_set_mss(t);
    t->cong->init(t);
    t->last_heard = s->now;
    sock_hash_connected(s, &t->k);
    sock_mark_dirty(s, &t->k);
}

int tcp_connect(struct stack *s, struct tcp *t, const struct addr *addr, unsigned port)
{
    struct sock *k = &t->k;
    if (t->state != CLOSED || k->rport)
        return t->state == SYN_SENT ? -EALREADY : -EISCONN;
    if (!addr_is_unicast(addr))
        return -ENETUNREACH;
    struct addr bound = k->local;
    k->remote = *addr;
    int rc = tcp_prepare(s, t);
    if (rc < 0)
        return rc;
    if (!k->lport) {
        unsigned picked = sock_pick_port(s, k, &k->local, addr, port);
        if (!picked) {
            k->local = bound; /* as it was, for another try */
            return -EADDRNOTAVAIL;
        }
        k->lport = (uint16_t)picked;
    }
    struct sock *old = sock_lookup_connected(s, SOCK_STREAM, &k->local, k->lport, addr, port);
    if (old && !tcp_is_reusable(s, old)) {
        k->local = bound;
        return -EADDRINUSE;
    }
    k->rport = (uint16_t)port;
    t->ws_ok = t->ts_ok = t->sack_ok = true; /* offered; the answer decides */
    tcp_choose_iss(s, t, old ? tcp_of(old) : NULL);
    if (old) {
        count(s, C_TcpExtTWRecycled);
        tcp_end(s, tcp_of(old), 0);
    }
    tcp_ecn_connect(s, t);
    tcp_start(s, t);
    t->fastopen = (uint8_t)tcp_fastopen_connect(s, t);
    tcp_on(s, t, ON_CONNECT);
    count(s, C_TcpActiveOpens);
    return 0;
}

void tcp_close(struct stack *s, struct tcp *t)
{
    sock_orphan(s, &t->k);
    t->k.error = 0;
    if (t->in.head && t->state != CLOSED && t->state != TIME_WAIT) {
        /* RFC 2525 2.17, RFC 9293 3.6.1: what it sent is thrown away, it should know */
        tcp_abort(s, t);
        return;
    }
    switch (t->state) {
    case LISTEN:
        tcp_abort(s, t);
        break;
    case CLOSED:
    case SYN_SENT:
        tcp_end(s, t, 0);
        break;
    case SYN_RECV:
        if (t->held) /* accepted, and never answered */
            tcp_end(s, t, 0);
        else
            t->fin_wanted = true; /* once its SYN is acknowledged: see established() */
        break;
    case ESTABLISHED:
    case CLOSE_WAIT:
        if (!t->fin_wanted) {
            t->fin_wanted = true;
            tcp_on(s, t, ON_CLOSE);
        }
        sock_mark_dirty(s, &t->k);
        break;
    case FIN_WAIT2:
        wait_for_fin(s, t);
        break;
    case TIME_WAIT:
        tcp_queues_clear(s, t); /* nobody will read that */
        break;
    default:
        break; /* already on its way */
    }
    if (t->state == CLOSED || t->state == TIME_WAIT)
        return;
    /* Better a few that hear of it than no place for those that somebody owns. */
    if (s->orphans >= ORPHANS_MAX || s->orphans >= s->config.sockets / 2) {
        count(s, C_TcpExtTCPAbortOnMemory);
        tcp_abort(s, t);
        return;
    }
    t->counted_orphan = true;
    s->orphans++;
}

void tcp_abort(struct stack *s, struct tcp *t)
{
    if (t->state == LISTEN)
        tcp_listener_close(s, t);
    if (s->socks->any_stream == &t->k) /* closed, though not yet gone */
        s->socks->any_stream = NULL;
    /* RFC 9293 3.10.5: a RST where the peer has a connection to lose. */
    if (t->state != CLOSED && t->state != SYN_SENT && t->state != LISTEN && t->state != TIME_WAIT && !t->held) {
        struct segment g = {.flags = TH_ACK, .ack = t->snd_max, .sport = t->k.rport, .dport = t->k.lport};
        struct ip_meta m = {.src = t->k.remote, .dst = t->k.local, .proto = PROTO_TCP};
        tcp_send_reset(s, &g, &m);
    }
    tcp_queues_clear(s, t);
    tcp_end(s, t, 0);
}

bool tcp_is_reusable(const struct stack *s, const struct sock *k)
{
    const struct tcp *t = (const struct tcp *)k;
    return t->state == TIME_WAIT && t->ts_ok && s->now - t->ts_recent_at >= REUSE_AFTER;
}

bool tcp_is_connecting(const struct sock *k)
{
    const struct tcp *t = (const struct tcp *)k;
    return t->state == SYN_SENT || t->state == SYN_RECV;
}

/* An ICMP error is a hint: it ends only what is not yet established (RFC 5461 4), and only if it is about a segment
 * that is under way (RFC 5927 4.1). Else it is remembered, as the reason if nothing more gets through (RFC 1122
 * 4.2.3.9). */
void tcp_icmp_error(struct stack *s, const struct addr *local, const struct addr *remote, const uint8_t *header,
                    int error, uint32_t mtu)
{
    struct sock *k = sock_lookup_connected(s, SOCK_STREAM, local, get16(header + TCP_SPORT), remote,
                                           get16(header + TCP_DPORT));
    if (!k)
        return;
    struct tcp *t = tcp_of(k);
    seq_t about = seq(get32(header + TCP_SEQ));
    if (seq_lt(about, t->snd_una) || seq_ge(about, t->snd_max))
        return;
    if (error == EMSGSIZE) {
        tcp_mtu_too_big(s, t, about, mtu);
        return;
    }
    if (tcp_is_connecting(k)) {
        tcp_end(s, t, error);
        return;
    }
    t->soft_error = error;
    if (k->recverr) /* ip(7): who wants to know, knows at once */
        sock_fail(s, k, error);
}
