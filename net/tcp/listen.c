/* Listeners (RFC 9293 3.10.7.2, 3.10.7.3): a SYN makes a child in SYN_RECV; the child that is established waits to be accepted. With
 * LISTEN_DEFER it waits before that: the owner decides first, so that a gateway can answer as the far host does.
 *
 * The backlog bounds both lists together. A SYN that finds it full is dropped, and its sender tries again. */
#include <errno.h>
#include <sys/socket.h>

#include "net/core/wire.h"
#include "net/sockopt.h"
#include "net/tcp/tcp.h"

static void push_back(struct tcp *l, struct tcp *t)
{
    t->prev_child = l->listener.last;
    t->next_child = NULL;
    if (l->listener.last)
        l->listener.last->next_child = t;
    else
        l->listener.first = t;
    l->listener.last = t;
    l->listener.queued++;
}

static void push_half(struct tcp *l, struct tcp *t)
{
    t->prev_child = NULL;
    t->next_child = l->listener.half;
    if (l->listener.half)
        l->listener.half->prev_child = t;
    l->listener.half = t;
    l->listener.halves++;
    t->half = true;
}

static void take_off(struct tcp *t)
{
    struct tcp *l = t->parent;
    bool half = t->half;
    if (t->prev_child)
        t->prev_child->next_child = t->next_child;
    else if (half)
        l->listener.half = t->next_child;
    else
        l->listener.first = t->next_child;
    if (t->next_child)
        t->next_child->prev_child = t->prev_child;
    else if (!half)
        l->listener.last = t->prev_child;
    if (half)
        l->listener.halves--;
    else
        l->listener.queued--;
    t->prev_child = t->next_child = NULL;
    t->half = false;
}

void tcp_child_gone(struct tcp *t)
{
    if (t->parent)
        take_off(t);
    t->parent = NULL;
}

void tcp_children_gone(struct tcp *l)
{
    while (l->listener.half || l->listener.first)
        tcp_child_gone(l->listener.half ? l->listener.half : l->listener.first);
}

int tcp_listen(struct stack *s, struct tcp *t, unsigned backlog, unsigned flags)
{
    struct sock *k = &t->k;
    if (t->state == LISTEN) {
        t->listener.backlog = backlog ? backlog : 1;
        return 0;
    }
    if (k->rport)
        return -EISCONN;
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
    t->listener = (struct listener){.backlog = backlog ? backlog : 1, .flags = flags};
    tcp_on(s, t, ON_LISTEN);
    return 0;
}

bool tcp_listen_input(struct stack *s, struct tcp *l, const struct segment *g, const struct ip_meta *m)
{
    if (g->flags & TH_RST)
        return false;
    if (g->flags & TH_ACK) { /* an ACK for nothing we sent (3.10.7.2, second) */
        tcp_send_reset(s, g, m);
        return false;
    }
    if (!(g->flags & TH_SYN) || g->flags & TH_FIN || m->to_group || !addr_is_unicast(&m->src))
        return false;
    int error;
    struct sock *k = l->listener.queued + l->listener.halves < l->listener.backlog
                         ? tcp_open(s, addr_is4(&m->dst) ? AF_INET : AF_INET6, &error)
                         : NULL;
    if (!k) {
        count(s, C_TcpExtListenOverflows);
        return false;
    }
    struct tcp *t = tcp_of(k);
    k->local = m->dst;
    k->remote = m->src;
    k->lport = g->dport;
    k->rport = g->sport;
    sockopt_inherit(&l->k, k);
    if (tcp_prepare(s, t) < 0) {
        sock_destroy(s, k);
        return false;
    }
    tcp_take_syn(s, t, g);
    t->held = l->listener.flags & LISTEN_DEFER;
    t->parent = l;
    tcp_on(s, t, ON_SYN);
    tcp_start(s, t, g->old);
    count(s, C_TcpPassiveOpens);
    if (!t->held) {
        push_half(l, t);
        return false;
    }
    g->p->mark = m->ip_off;
    g->p->mark2 = m->pointer;
    t->syn = g->p; /* an ICMP error in answer would have to quote it */
    push_back(l, t);
    sock_mark_ready(s, &l->k);
    return true;
}

void tcp_child_established(struct stack *s, struct tcp *t)
{
    struct tcp *l = t->parent;
    if (!l)
        return;
    take_off(t);
    push_back(l, t);
    sock_mark_ready(s, &l->k);
}

void tcp_listener_close(struct stack *s, struct tcp *l)
{
    while (l->listener.half || l->listener.first) {
        struct tcp *t = l->listener.half ? l->listener.half : l->listener.first;
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
    struct tcp *t = tcp_of(k)->listener.first;
    if (!t)
        return -EAGAIN;
    take_off(t);
    t->parent = NULL;
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
    pbuf_free(&s->pool, t->syn);
    t->syn = NULL;
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
    struct ip_meta m = {.src = k->remote, .dst = k->local, .ip_off = t->syn->mark, .proto = PROTO_TCP,
                        .pointer = (uint16_t)t->syn->mark2};
    if (error == ECONNREFUSED || error == ECONNRESET) {
        struct segment g = {.seq = t->irs, .flags = TH_SYN, .sport = k->rport, .dport = k->lport};
        tcp_send_reset(s, &g, &m);
    } else {
        icmp_error(s, error == ENETUNREACH ? ICMP_NO_ROUTE : error == EACCES ? ICMP_PROHIBITED : ICMP_NO_HOST, t->syn,
                   &m);
    }
    sock_orphan(s, k);
    tcp_end(s, t, 0);
    return 0;
}
