/* Reading and setting socket options by their tables, and the table of those that every socket has. See sockopt.h. */
#include "net/sockopt.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "net/tcp/tcp.h"
#include "net/udp.h"

#define BUFFER_LEAST 4096
#define BUFFER_MOST (64 << 20)
#define UDP_BUFFER (256 * 1024)

/* --- what every socket has --- */

static int64_t get_type(struct stack *s, struct sock *k) { return k->type; }
static int64_t get_domain(struct stack *s, struct sock *k) { return k->family; }
static int64_t get_protocol(struct stack *s, struct sock *k) { return k->type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP; }
static int64_t get_error(struct stack *s, struct sock *k) { return sock_error(s, k->id); }
static int64_t get_udp_buffer(struct stack *s, struct sock *k) { return UDP_BUFFER; }

static int64_t get_accepts(struct stack *s, struct sock *k)
{
    return k->type == SOCK_STREAM && tcp_of(k)->state == LISTEN;
}

static int64_t get_off(struct stack *s, struct sock *k) { return 0; }
static int64_t get_on(struct stack *s, struct sock *k) { return 1; }
static int set_nothing(struct stack *s, struct sock *k, int64_t value) { return 0; }

static int set_v6only(struct stack *s, struct sock *k, int64_t value)
{
    if (k->family != AF_INET6)
        return -ENOPROTOOPT;
    if (k->lport)
        return -EINVAL; /* ipv6(7): before it is bound */
    k->v6only = value != 0;
    return 0;
}

static int64_t get_v6only(struct stack *s, struct sock *k) { return k->family == AF_INET6 ? k->v6only : -ENOPROTOOPT; }

static int set_ifindex(struct stack *s, struct sock *k, int64_t value)
{
    if (value && (value < 0 || value > NETIFS_MAX || !netif_of(s, (int)value)))
        return -ENODEV;
    k->ifindex = (uint8_t)value;
    return 0;
}

static int64_t get_ifindex(struct stack *s, struct sock *k) { return k->ifindex; }

struct linger_value { /* struct linger, in fixed widths */
    int32_t on, seconds;
};

static int64_t read_linger(struct stack *s, struct sock *k, void *buf, size_t cap)
{
    struct linger_value v = {.on = k->linger >= 0, .seconds = k->linger >= 0 ? k->linger : 0};
    size_t n = cap < sizeof v ? cap : sizeof v;
    memcpy(buf, &v, n);
    return (int64_t)n;
}

static int write_linger(struct stack *s, struct sock *k, const void *buf, size_t len)
{
    struct linger_value v;
    if (len < sizeof v)
        return -EINVAL;
    memcpy(&v, buf, sizeof v);
    k->linger = !v.on ? -1 : v.seconds < 0 || v.seconds > INT16_MAX ? INT16_MAX : (int16_t)v.seconds;
    return 0;
}

static int set_tos(struct stack *s, struct sock *k, int64_t value)
{
    if (value < -1 || value > 255)
        return -EINVAL;
    k->tos = value < 0 ? 0 : (uint8_t)value; /* ipv6(7): -1 is the default. Of TCP the ECN bits are its own: ecn.c */
    return 0;
}

static void keepalive_changed(struct stack *s, struct sock *k) { tcp_keepalive_restart(s, tcp_of(k)); }

static const struct sockopt common_rows[] = {
    {SOL_SOCKET, SO_ERROR, OPT_ANY, .get = get_error},
    {SOL_SOCKET, SO_TYPE, OPT_ANY, .get = get_type},
    {SOL_SOCKET, SO_DOMAIN, OPT_ANY, .get = get_domain},
    {SOL_SOCKET, SO_PROTOCOL, OPT_ANY, .get = get_protocol},
    {SOL_SOCKET, SO_ACCEPTCONN, OPT_ANY, .get = get_accepts},
    {SOL_SOCKET, SO_REUSEADDR, OPT_ANY | OPT_SWITCH | OPT_INHERIT, OPT_FIELD(struct sock, reuseaddr)},
    {SOL_SOCKET, SO_REUSEPORT, OPT_ANY | OPT_SWITCH | OPT_INHERIT, OPT_FIELD(struct sock, reuseport)},
    {SOL_SOCKET, SO_PRIORITY, OPT_ANY | OPT_INHERIT, OPT_FIELD(struct sock, priority), 0, 6},
    {SOL_SOCKET, SO_MARK, OPT_ANY | OPT_INHERIT, OPT_FIELD(struct sock, mark), INT32_MIN, INT32_MAX},
    {SOL_SOCKET, SO_OOBINLINE, OPT_ANY, .get = get_on, .set = set_nothing},
    {SOL_SOCKET, SO_KEEPALIVE, OPT_STREAM | OPT_SWITCH | OPT_INHERIT, OPT_FIELD(struct tcp, keepalive),
     .changed = keepalive_changed},
    {SOL_SOCKET, SO_KEEPALIVE, OPT_DGRAM, .get = get_off, .set = set_nothing},
    {SOL_SOCKET, SO_BROADCAST, OPT_DGRAM | OPT_SWITCH, OPT_FIELD(struct udp, broadcast)},
    {SOL_SOCKET, SO_BROADCAST, OPT_STREAM, .get = get_off, .set = set_nothing},
    {SOL_SOCKET, SO_RCVBUF, OPT_STREAM | OPT_CLAMP | OPT_INHERIT, OPT_FIELD(struct tcp, in_limit), BUFFER_LEAST,
     BUFFER_MOST, .changed = tcp_rcvbuf_set},
    {SOL_SOCKET, SO_RCVLOWAT, OPT_STREAM | OPT_CLAMP | OPT_INHERIT, OPT_FIELD(struct tcp, rcv_lowat), 1, BUFFER_MOST,
     .changed = tcp_lowat_set},
    {SOL_SOCKET, SO_SNDBUF, OPT_STREAM | OPT_CLAMP | OPT_INHERIT, OPT_FIELD(struct tcp, out_limit), BUFFER_LEAST,
     BUFFER_MOST, .changed = tcp_sndbuf_set},
    {SOL_SOCKET, SO_RCVBUF, OPT_DGRAM, .get = get_udp_buffer, .set = set_nothing},
    {SOL_SOCKET, SO_SNDBUF, OPT_DGRAM, .get = get_udp_buffer, .set = set_nothing},
    {SOL_SOCKET, SO_BINDTOIFINDEX, OPT_ANY, .get = get_ifindex, .set = set_ifindex},
    {SOL_SOCKET, SO_LINGER, OPT_ANY, .read = read_linger, .write = write_linger},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, OPT_ANY | OPT_SWITCH, OPT_FIELD(struct sock, bind_no_port)},
    {IPPROTO_IP, IP_TOS, OPT_ANY | OPT_INHERIT, OPT_FIELD(struct sock, tos), .set = set_tos},
    {IPPROTO_IPV6, IPV6_TCLASS, OPT_ANY | OPT_INHERIT, OPT_FIELD(struct sock, tos), .set = set_tos},
    {IPPROTO_IPV6, IPV6_V6ONLY, OPT_ANY, .get = get_v6only, .set = set_v6only},
};

static const struct sockopt_table common_sockopts = {common_rows, sizeof common_rows / sizeof *common_rows};

/* --- by the tables --- */

static const struct sockopt_table *const tables[] = {&tcp_sockopts, &common_sockopts, &ip_sockopts};
#define TABLES (sizeof tables / sizeof *tables)

static bool has(const struct sock *k, const struct sockopt *o)
{
    return o->flags & (k->type == SOCK_STREAM ? OPT_STREAM : OPT_DGRAM);
}

static const struct sockopt *find(const struct sock *k, int level, int name)
{
    for (unsigned i = 0; i < TABLES; i++)
        for (const struct sockopt *o = tables[i]->rows, *end = o + tables[i]->count; o < end; o++)
            if (o->name == name && o->level == level && has(k, o))
                return o;
    return NULL;
}

static int64_t get_field(const struct sock *k, const struct sockopt *o)
{
    const char *at = (const char *)k + o->at;
    bool is_signed = o->least < 0;
    switch (o->size) {
    case 1:
        return is_signed ? *(const int8_t *)at : *(const uint8_t *)at;
    case 2:
        return is_signed ? *(const int16_t *)at : *(const uint16_t *)at;
    default:
        return is_signed ? (int64_t)*(const int32_t *)at : *(const uint32_t *)at;
    }
}

static void set_field(struct sock *k, const struct sockopt *o, int64_t value)
{
    char *at = (char *)k + o->at;
    if (o->size == 1)
        *(uint8_t *)at = (uint8_t)value;
    else if (o->size == 2)
        *(uint16_t *)at = (uint16_t)value;
    else
        *(uint32_t *)at = (uint32_t)value;
}

static int64_t get(struct stack *s, struct sock *k, const struct sockopt *o)
{
    if (o->get)
        return o->get(s, k);
    return o->size ? get_field(k, o) : -ENOPROTOOPT;
}

static int set(struct stack *s, struct sock *k, const struct sockopt *o, int64_t value)
{
    if (o->set)
        return o->set(s, k, value);
    if (o->write)
        return -EINVAL; /* it takes more than an int */
    if (!o->size || o->flags & OPT_READ_ONLY)
        return -ENOPROTOOPT;
    if (o->flags & OPT_SWITCH) {
        value = value != 0;
    } else if (value < o->least || value > o->most) {
        if (!(o->flags & OPT_CLAMP))
            return -EINVAL;
        value = value < o->least ? o->least : o->most;
    }
    set_field(k, o, value);
    if (o->changed)
        o->changed(s, k);
    return 0;
}

void sockopt_inherit(const struct sock *from, struct sock *to)
{
    for (unsigned i = 0; i < TABLES; i++)
        for (const struct sockopt *o = tables[i]->rows, *end = o + tables[i]->count; o < end; o++)
            if (o->flags & OPT_INHERIT && has(from, o))
                memcpy((char *)to + o->at, (const char *)from + o->at, o->size);
}

/* --- the calls (api.h) --- */

int64_t sock_getopt(struct stack *s, int64_t id, int level, int name)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    const struct sockopt *o = find(k, level, name);
    return o ? get(s, k, o) : -ENOPROTOOPT;
}

int sock_setopt(struct stack *s, int64_t id, int level, int name, int64_t value)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    const struct sockopt *o = find(k, level, name);
    return o ? set(s, k, o, value) : -ENOPROTOOPT;
}

int64_t sock_getsockopt(struct stack *s, int64_t id, int level, int name, void *buf, size_t cap)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    const struct sockopt *o = find(k, level, name);
    if (!o)
        return -ENOPROTOOPT;
    if (o->read)
        return o->read(s, k, buf, cap);
    int64_t value = get(s, k, o);
    if (value < 0 && o->least >= 0)
        return value;
    int32_t number = (int32_t)value;
    size_t n = cap < sizeof number ? cap : sizeof number;
    memcpy(buf, &number, n);
    return (int64_t)n;
}

int sock_setsockopt(struct stack *s, int64_t id, int level, int name, const void *buf, size_t len)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    const struct sockopt *o = find(k, level, name);
    if (!o)
        return -ENOPROTOOPT;
    if (o->write)
        return o->write(s, k, buf, len);
    int32_t number;
    if (len < sizeof number)
        return -EINVAL;
    memcpy(&number, buf, sizeof number);
    return set(s, k, o, number);
}
