/* The socket calls (net/api.h): each finds the socket by its id and hands on to TCP or UDP. Arguments from above are
 * checked here, once. */
#include <errno.h>
#include <sys/socket.h>

#include "net/tcp/tcp.h"
#include "net/udp.h"
#include "sched/stream.h"

int64_t sock_open(struct stack *s, int type, int family)
{
    int error = 0;
    if (family != AF_INET && family != AF_INET6)
        return -EAFNOSUPPORT;
    struct sock *k = type == SOCK_STREAM  ? tcp_open(s, family, &error)
                     : type == SOCK_DGRAM ? udp_open(s, family, &error)
                                          : (error = ESOCKTNOSUPPORT, NULL);
    return k ? k->id : -error;
}

/* Can a socket of this family have to do with the address? */
static bool family_fits(const struct sock *k, const struct addr *a)
{
    if (k->family == AF_INET)
        return addr_is4(a);
    return !(addr_is4(a) && k->v6only);
}

int sock_bind(struct stack *s, int64_t id, const uint8_t *addr, unsigned port)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    struct addr a = addr_in_zone(addr_from(addr), k->ifindex);
    if (port > 65535 || k->lport || k->rport)
        return -EINVAL;
    if (!family_fits(k, &a))
        return -EAFNOSUPPORT;
    bool anyone = s->config.flags & STACK_ANY_DESTINATION;
    bool group = k->type == SOCK_DGRAM && !addr_is_unicast(&a);
    if (!addr_is_any(&a) && !addr_is_loopback(&a) && !stack_is_local(s, &a) && !anyone && !group)
        return -EADDRNOTAVAIL;
    if (port && sock_port_taken(s, k, &a, port))
        return -EADDRINUSE;
    k->local = a;
    if (!port && k->bind_no_port)
        return 0; /* connect() or listen() will choose, knowing more */
    if (!port && !(port = sock_pick_port(s, k, &a, NULL, 0)))
        return -EADDRINUSE;
    k->lport = (uint16_t)port;
    sock_hash_bound(s, k);
    return 0;
}

int sock_connect(struct stack *s, int64_t id, const uint8_t *addr, unsigned port)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    struct addr a = addr_in_zone(addr_from(addr), k->ifindex);
    if (port < 1 || port > 65535)
        return -EINVAL;
    if (!family_fits(k, &a))
        return -EAFNOSUPPORT;
    if (addr_is_any(&a))
        a = sock_this_host(k, &a);
    return k->type == SOCK_STREAM ? tcp_connect(s, tcp_of(k), &a, port) : udp_connect(s, k, &a, port);
}

int sock_listen(struct stack *s, int64_t id, unsigned backlog, unsigned flags)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (k->type == SOCK_STREAM)
        return tcp_listen(s, tcp_of(k), backlog, flags);
    if (!(flags & LISTEN_ANY_PORT) || !(s->config.flags & STACK_ANY_DESTINATION))
        return -EOPNOTSUPP;
    if (s->socks->any_dgram)
        return -EADDRINUSE;
    s->socks->any_dgram = k;
    return 0;
}

int64_t sock_send(struct stack *s, int64_t id, const uint8_t *data, size_t len)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (k->type != SOCK_STREAM)
        return sock_sendto(s, id, data, len, NULL, NULL);
    struct tcp *t = tcp_of(k);
    if (k->error)
        return -k->error;
    switch (t->state) {
    case SYN_SENT:
    case SYN_RECV:
    case ESTABLISHED:
    case CLOSE_WAIT:
        break;
    case LISTEN:
        return -ENOTCONN;
    default:
        return k->rport ? -EPIPE : -ENOTCONN;
    }
    if (t->fin_wanted)
        return -EPIPE;
    int64_t n = tcp_out_append(s, t, data, len);
    if (n)
        sock_mark_dirty(s, k);
    return n || !len ? n : -EAGAIN;
}

/* What reading gives when no data is here. */
static int64_t read_nothing(const struct sock *k, const struct tcp *t)
{
    if (k->error)
        return -k->error;
    if (t->fin_in)
        return 0;
    if (t->state == CLOSED)
        return k->rport ? 0 : -ENOTCONN;
    return t->state == LISTEN ? -ENOTCONN : -EAGAIN;
}

int64_t sock_recv(struct stack *s, int64_t id, uint8_t *buf, size_t cap)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (k->type != SOCK_STREAM) {
        struct sock_name from;
        return sock_recvfrom(s, id, buf, cap, &from, NULL);
    }
    struct tcp *t = tcp_of(k);
    if (!t->in.head)
        return read_nothing(k, t);
    int64_t n = tcp_in_read(s, t, buf, cap);
    tcp_urgent_left(t); /* perhaps that was all of it */
    tcp_data_read(t);
    sock_mark_dirty(s, k); /* the window may have opened, or an ACK be due */
    return n;
}

static int64_t stream_readable(void *owner, int64_t id)
{
    struct sock *k = sock_find(owner, id);
    if (!k)
        return -EBADF;
    if (k->type != SOCK_STREAM)
        return -EOPNOTSUPP;
    struct tcp *t = tcp_of(k);
    return t->in.head ? t->in_bytes : read_nothing(k, t);
}

static int64_t stream_recv(void *owner, int64_t id, uint8_t *data, size_t len)
{
    return sock_recv(owner, id, data, len);
}

static int64_t stream_send(void *owner, int64_t id, const uint8_t *data, size_t len)
{
    return sock_send(owner, id, data, len);
}

const struct stream_ops *stack_stream_ops(void)
{
    static const struct stream_ops ops = {stream_readable, stream_recv, stream_send, SIZE_MAX};
    return &ops;
}

int sock_shutdown(struct stack *s, int64_t id)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (k->type != SOCK_STREAM)
        return -EOPNOTSUPP;
    struct tcp *t = tcp_of(k);
    if (t->fin_wanted)
        return 0;
    if (t->state != SYN_RECV && !tcp_on(s, t, ON_CLOSE))
        return -ENOTCONN;
    t->fin_wanted = true;
    sock_mark_dirty(s, k);
    return 0;
}

int sock_free(struct stack *s, int64_t id)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (k->linger == 0) /* SO_LINGER on, with no time to do it in */
        return sock_abort(s, id);
    if (k->type == SOCK_STREAM)
        tcp_close(s, tcp_of(k));
    else
        sock_destroy(s, k);
    return 0;
}

int sock_abort(struct stack *s, int64_t id)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (k->type != SOCK_STREAM) {
        sock_destroy(s, k);
        return 0;
    }
    sock_orphan(s, k);
    tcp_abort(s, tcp_of(k));
    return 0;
}

int sock_queues(struct stack *s, int64_t id, uint64_t *unread, uint64_t *unsent, uint64_t *unacked)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    *unread = *unsent = *unacked = 0;
    if (k->type != SOCK_STREAM) {
        udp_queues(k, unread);
        return 0;
    }
    struct tcp *t = tcp_of(k);
    uint32_t flight = (uint32_t)seq_diff(t->snd_nxt, t->snd_una);
    *unread = t->in_bytes;
    *unacked = flight < t->out_bytes ? flight : t->out_bytes;
    *unsent = t->out_bytes - *unacked;
    return 0;
}

int stack_next_socket(struct stack *s, uint64_t *cursor, struct sock_info *out)
{
    while (*cursor < s->socks->cap) {
        struct sock *k = s->socks->slots[(*cursor)++];
        if (!k)
            continue;
        *out = (struct sock_info){.id = k->id, .type = k->type};
        sock_fill_name(k, SOCK_LOCAL, &out->local);
        sock_fill_name(k, SOCK_REMOTE, &out->remote);
        if (k->type == SOCK_STREAM) {
            tcp_info(k, out);
            tcp_show(s, k, out);
        } else {
            out->state = k->rport ? ESTABLISHED : CLOSED;
            udp_queues(k, &out->rx_queue);
        }
        return 1;
    }
    return 0;
}

int stack_lingering(struct stack *s)
{
    int n = 0;
    for (uint32_t i = 0; i < s->socks->cap; i++) {
        struct sock *k = s->socks->slots[i];
        if (!k || !k->orphan || k->type != SOCK_STREAM)
            continue;
        unsigned state = tcp_of(k)->state;
        n += state == FIN_WAIT1 || state == CLOSING || state == LAST_ACK || state == SYN_RECV;
    }
    return n;
}
