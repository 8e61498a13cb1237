/* Listeners (RFC 9293 3.10.7.2, 3.10.7.3): a SYN makes a child in SYN_RECV; the child that is established waits to be
 * accepted. With LISTEN_DEFER it waits before that: the owner decides first, so that a gateway can answer as the far
 * host does.
 *
 * The backlog has Linux's meaning (listen(2)). The SYN queue holds that many children in SYN_RECV; a SYN that finds it
 * full is answered by a cookie (cookie.c). The accept queue holds one more than that; while it is full SYNs are
 * dropped, and so is the ACK of a child's SYN, which stays in SYN_RECV and asks for it again. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "net/core/wire.h"
#include "net/sockopt.h"
#include "net/tcp/tcp.h"

#define COOKIES_RECENT (120ull * SECOND)
#define HELD_MAX (128ull * SECOND) /* by then who asked has given up, too */

static void push_back(struct tcp *l, struct tcp *t)
{
    struct tcp *last = l->listener->last;
    t->child->prev = last;
    t->child->next = NULL;
    if (last)
        last->child->next = t;
    else
        l->listener->first = t;
    l->listener->last = t;
    l->listener->queued++;
}

static void push_half(struct tcp *l, struct tcp *t)
{
    struct tcp *first = l->listener->half;
    t->child->prev = NULL;
    t->child->next = first;
    if (first)
        first->child->prev = t;
    l->listener->half = t;
    l->listener->halves++;
    t->child->half = true;
}

static void take_off(struct tcp *t)
{
    struct child *c = t->child;
    struct listener *l = c->parent->listener;
    if (c->prev)
        c->prev->child->next = c->next;
    else if (c->half)
        l->half = c->next;
    else
        l->first = c->next;
    if (c->next)
        c->next->child->prev = c->prev;
    else if (!c->half)
        l->last = c->prev;
    if (c->half)
        l->halves--;
    else
        l->queued--;
    c->prev = c->next = NULL;
    c->half = false;
}

void tcp_child_gone(struct tcp *t)
{
    if (!tcp_parent(t))
        return;
    take_off(t);
    t->child->parent = NULL;
}

void tcp_child_free(struct stack *s, struct tcp *t)
{
    if (!t->child)
        return;
    tcp_child_gone(t);
    pbuf_free(&s->pool, t->child->syn);
    free(t->child);
    t->child = NULL;
}

void tcp_children_gone(struct tcp *l)
{
    while (l->listener && (l->listener->half || l->listener->first))
        tcp_child_gone(l->listener->half ? l->listener->half : l->listener->first);
}

int tcp_listen(struct stack *s, struct tcp *t, unsigned backlog, unsigned flags)
{
    struct sock *k = &t->k;
    if (backlog < 1)
        backlog = 1;
    if (t->state == LISTEN) {
        t->listener->backlog = backlog;
        return 0;
    }
    if (k->rport)
        return -EISCONN;
    if (!t->listener && !(t->listener = calloc(1, sizeof *t->listener)))
        return -ENOMEM;
    if (flags & LISTEN_ANY_PORT) {
        if (!(s->config.flags & STACK_ANY_DESTINATION))
            return -EINVAL;
        if (s->socks->any_stream)
            return -EADDRINUSE;
        s->socks->any_stream = k;
    } else {
        if (!k->lport) {
            unsigned picked = sock_pick_port(s, k, &k->local, NULL, 0);
            if (!picked)
                return -EADDRNOTAVAIL;
            k->lport = (uint16_t)picked;
        }
        if (sock_port_taken(s, k, &k->local, k->lport))
            return -EADDRINUSE;
        sock_hash_bound(s, k);
    }
    *t->listener = (struct listener){.backlog = backlog, .flags = flags};
    tcp_on(s, t, ON_LISTEN);
    return 0;
}

/* t becomes what l's child for this SYN is, but for its sequence number. 0 or -ENETUNREACH. */
static int begin(struct stack *s, struct tcp *t, const struct tcp *l, const struct segment *syn, const struct ip_meta *m)
{
    struct sock *k = &t->k;
    k->local = m->dst;
    k->remote = m->src;
    k->lport = syn->dport;
    k->rport = syn->sport;
    sockopt_inherit(&l->k, k);
    tcp_buffers_inherit(t, l);
    int rc = tcp_prepare(s, t);
    if (rc == 0)
        tcp_take_syn(s, t, syn);
    return rc;
}

static struct tcp *make_child(struct stack *s, struct tcp *l, const struct segment *syn, const struct ip_meta *m)
{
    int error;
    struct sock *k = tcp_open(s, addr_is4(&m->dst) ? AF_INET : AF_INET6, &error);
    if (!k) {
        count(s, C_TcpExtListenDrops);
        return NULL;
    }
    struct tcp *t = tcp_of(k);
    if (begin(s, t, l, syn, m) < 0 || !(t->child = calloc(1, sizeof *t->child))) {
        count(s, C_TcpExtListenDrops);
        sock_destroy(s, k);
        return NULL;
    }
    t->child->parent = l;
    tcp_choose_iss(s, t, syn->old);
    tcp_on(s, t, ON_SYN);
    count(s, C_TcpPassiveOpens);
    return t;
}

static bool is_accept_queue_full(struct stack *s, const struct tcp *l)
{
    if (l->listener->queued <= l->listener->backlog)
        return false;
    count(s, C_TcpExtListenOverflows);
    count(s, C_TcpExtListenDrops);
    return true;
}

/* The SYN queue is full: answer with a cookie, and forget it. */
static void answer_by_cookie(struct stack *s, struct tcp *l, const struct segment *g, const struct ip_meta *m)
{
    struct tcp t = {.k = {.type = SOCK_STREAM, .family = l->k.family}, .rto = TCP_RTO_INITIAL};
    struct segment syn = *g;
    if (!g->has_ts) { /* nowhere to keep them */
        syn.wscale = -1;
        syn.sack_permitted = false;
        syn.flags &= (uint8_t)~(TH_ECE | TH_CWR);
    }
    if (begin(s, &t, l, &syn, m) < 0)
        return;
    tcp_choose_iss(s, &t, NULL);
    tcp_cookie_make(s, &t, &syn, m);
    l->listener->cookies = true;
    l->listener->cookies_at = s->now;
    count(s, C_TcpExtSyncookiesSent);
    tcp_send_syn_ack(s, &t);
}

/* RFC 7413 4.2.2: its data is handed up, and it may be accepted, before the handshake is over. */
static void accept_fast(struct stack *s, struct tcp *l, struct tcp *t, struct segment *g)
{
    struct segment data = *g;
    uint32_t room = tcp_window_room(s, t);
    t->rcv_adv = seq_add(t->rcv_nxt, room);
    data.seq = t->rcv_nxt;
    data.flags &= (uint8_t)~TH_SYN;
    if (data.len > room)
        data.p->len = data.len = room;
    if (data.len) {
        g->p = NULL;
        tcp_data_arrived(s, t, &data);
        tcp_in_insert(s, t, &data);
        t->bytes_received += (uint32_t)seq_diff(t->rcv_nxt, data.seq);
        t->segs_in = t->data_segs_in = 1;
        t->last_data = s->now;
    }
    push_back(l, t);
    sock_mark_ready(s, &l->k);
}

static void take_syn(struct stack *s, struct tcp *l, struct segment *g, const struct ip_meta *m)
{
    bool defer = l->listener->flags & LISTEN_DEFER;
    if (is_accept_queue_full(s, l))
        return;
    if (!defer && l->listener->halves >= l->listener->backlog) {
        answer_by_cookie(s, l, g, m);
        return;
    }
    struct tcp *t = make_child(s, l, g, m);
    if (!t)
        return;
    t->fastopen = (uint8_t)tcp_fastopen_request(s, l, g, m);
    tcp_fastopen_begun(s, t);
    tcp_start(s, t);
    if (!defer) {
        if (tcp_is_fast_child(t))
            accept_fast(s, l, t, g);
        else
            push_half(l, t);
        return;
    }
    t->held = true;
    tcp_timer_set(s, t, T_WAIT, s->now + HELD_MAX);
    g->p->mark = m->ip_off;
    g->p->mark2 = m->pointer;
    t->child->syn = g->p; /* an ICMP error in answer would have to quote it */
    g->p = NULL;
    push_back(l, t);
    sock_mark_ready(s, &l->k);
}

/* An ACK, and no connection for it: of a cookie? */
static struct tcp *take_ack(struct stack *s, struct tcp *l, const struct segment *g, const struct ip_meta *m)
{
    struct segment syn;
    if (!l->listener->cookies || s->now - l->listener->cookies_at >= COOKIES_RECENT)
        goto unknown;
    if (!tcp_cookie_read(s, g, m, &syn)) {
        count(s, C_TcpExtSyncookiesFailed);
        goto unknown;
    }
    count(s, C_TcpExtSyncookiesRecv);
    if (is_accept_queue_full(s, l)) /* it will say it again */
        return NULL;
    struct tcp *t = make_child(s, l, &syn, m);
    if (!t)
        return NULL;
    tcp_set_iss(t, seq_add(g->ack, (uint32_t)-1));
    t->snd_nxt = t->snd_max = g->ack;
    t->rcv_adv = seq_add(t->rcv_nxt, tcp_window_room(s, t)); /* as the cookie said */
    tcp_start(s, t);
    push_half(l, t);
    tcp_timer_set(s, t, T_REXMT, s->now + t->rto); /* should this ACK not do */
    return t;
unknown:
    tcp_send_reset(s, g, m); /* 3.10.7.2, second: an ACK for nothing we sent */
    return NULL;
}

struct tcp *tcp_listen_input(struct stack *s, struct tcp *l, struct segment *g, const struct ip_meta *m)
{
    if (g->flags & TH_RST)
        return NULL;
    if (g->flags & TH_ACK)
        return g->flags & TH_SYN || m->to_group ? (tcp_send_reset(s, g, m), NULL) : take_ack(s, l, g, m);
    if (g->flags & TH_SYN && !(g->flags & TH_FIN) && !m->to_group && addr_is_unicast(&m->src))
        take_syn(s, l, g, m);
    return NULL;
}

bool tcp_child_may_establish(struct stack *s, struct tcp *t, const struct segment *g)
{
    struct tcp *l = tcp_parent(t);
    if (!l || !t->child->half)
        return true;
    if (t->backoff < l->defer_accept && !g->len && !(g->flags & TH_FIN)) {
        t->child->syn_acked = true;
        count(s, C_TcpExtTCPDeferAcceptDrop);
        return false;
    }
    return !is_accept_queue_full(s, l);
}

/* The last time-out sends it once more: its ACK, with data or without, is then taken. */
bool tcp_child_is_deferred(const struct tcp *t)
{
    const struct tcp *l = tcp_parent(t);
    return l && t->child->half && t->child->syn_acked && t->backoff + 1u < l->defer_accept;
}

void tcp_child_established(struct stack *s, struct tcp *t)
{
    struct tcp *l = tcp_parent(t);
    if (!l || !t->child->half)
        return;
    take_off(t);
    push_back(l, t);
    sock_mark_ready(s, &l->k);
}

void tcp_listener_close(struct stack *s, struct tcp *l)
{
    while (l->listener->half || l->listener->first) {
        struct tcp *t = l->listener->half ? l->listener->half : l->listener->first;
        sock_orphan(s, &t->k);
        tcp_abort(s, t);
    }
}

int64_t sock_accept(struct stack *s, int64_t id)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (k->type != SOCK_STREAM || tcp_of(k)->state != LISTEN)
        return -EINVAL;
    struct tcp *t = tcp_of(k)->listener->first;
    if (!t)
        return -EAGAIN;
    if (t->held)
        tcp_child_gone(t);
    else
        tcp_child_free(s, t);
    sock_mark_ready(s, &t->k);
    return t->k.id;
}

int sock_admit(struct stack *s, int64_t id)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (k->type != SOCK_STREAM || !tcp_of(k)->held)
        return -EINVAL;
    struct tcp *t = tcp_of(k);
    t->held = false; /* if it was reset meanwhile, its error tells */
    tcp_timer_stop(t, T_WAIT);
    tcp_child_free(s, t);
    sock_mark_dirty(s, k);
    return 0;
}

int sock_reject(struct stack *s, int64_t id, int error)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    struct tcp *t = tcp_of(k);
    if (k->type != SOCK_STREAM || !t->held)
        return -EINVAL;
    if (t->state == CLOSED) /* reset by who asked: nobody is there to hear it */
        return sock_free(s, id);
    struct pbuf *syn = t->child->syn;
    struct ip_meta m = {.src = k->remote, .dst = k->local, .ip_off = syn->mark, .proto = PROTO_TCP,
                        .pointer = (uint16_t)syn->mark2};
    if (error == ECONNREFUSED || error == ECONNRESET) {
        struct segment g = {.seq = t->irs, .flags = TH_SYN, .sport = k->rport, .dport = k->lport};
        tcp_send_reset(s, &g, &m);
    } else {
        icmp_error(s, error == ENETUNREACH ? ICMP_NO_ROUTE : error == EACCES ? ICMP_PROHIBITED : ICMP_NO_HOST, syn,
                   &m);
    }
    sock_orphan(s, k);
    tcp_end(s, t, 0);
    return 0;
}
