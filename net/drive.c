/* A stack driven from outside; see drive.h. The drive is the link that its stack sits on: what the stack transmits is
 * stamped with the time and waits, in order and bounded, until drive_take(). */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "net/core/sanitize.h"
#include "net/core/wire.h"
#include "net/link/link.h"
#include "net/tcp/tcp.h"
#include "net/drive.h"

#define EPOCH ((uint64_t)SECOND) /* the stack's clock at the drive's 0: in the stack a time of 0 means "never" */
#define WAITING_MAX 65536
#define FIRST_FD 3
#define TURNS_MAX 100000 /* at one moment: more is a stack that does not come to rest */
#define FLAGS_IGNORED (MSG_DONTWAIT | MSG_NOSIGNAL)

struct descriptor {
    int64_t id; /* of the socket; 0: free */
    bool deaf;  /* shutdown(SHUT_RD) */
};

struct drive {
    struct link link; /* first */
    struct stack *stack;
    int ifindex;
    bool ethernet;
    uint64_t now, due; /* on the stack's clock */
    struct pbuf_queue sent;
    struct descriptor *fds; /* from FIRST_FD on */
    unsigned nfds;
};

static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 2}, peer_mac[6] = {2, 0, 0, 0, 0, 1};

/* --- the link --- */

static void drive_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    struct drive *d = (struct drive *)l;
    if (d->sent.count >= WAITING_MAX) {
        link_drop_tx(l, p);
        return;
    }
    link_complete_csum(p);
    p->mark = (uint32_t)now;
    p->mark2 = (uint32_t)(now >> 32);
    queue_push(&d->sent, p);
}

static void drive_run(struct link *l, uint64_t now)
{
    (void)l;
    (void)now;
}

static int drive_start(struct link *l)
{
    (void)l;
    return 0;
}

static void drive_link_free(struct link *l)
{
    struct drive *d = (struct drive *)l;
    queue_clear(l->pool, &d->sent);
}

static const struct link_ops drive_ops = {drive_xmit, drive_run, link_never_due, drive_start, drive_link_free};

/* --- birth and death --- */

void drive_defaults(struct stack_config *out)
{
    *out = (struct stack_config){ /* buffers as a machine has them by default (libos/config.py) */
        .seed = {1, 0}, .memory = 256 << 20, .sockets = 4096, .rcvbuf = 128 << 10, .sndbuf = 256 << 10,
        .rcvbuf_max = 16 << 20, .sndbuf_max = 16 << 20, .quickacks = 16, .ecn = 2, .mtu_probing = 1,
        .flags = STACK_NO_REPORTS};
}

int drive_new(struct drive **out, const struct stack_config *config, unsigned mtu, unsigned flags)
{
    struct stack_config defaults;
    if (!config) {
        drive_defaults(&defaults);
        config = &defaults;
    }
    if (mtu < 68 || mtu > 65535 || flags & ~(unsigned)DRIVE_ETHERNET)
        return -EINVAL;
    struct drive *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->ethernet = flags & DRIVE_ETHERNET;
    d->now = EPOCH;
    link_init(&d->link, &drive_ops, mtu, d->ethernet ? 0 : LINK_NOARP, our_mac);
    int rc = stack_new(&d->stack, config, d->now);
    if (rc < 0) {
        free(d);
        return rc;
    }
    rc = d->ifindex = stack_add_link(d->stack, &d->link);
    if (rc >= 0 && !d->ethernet) { /* as behind a TUN device: whatever the address, it is over there */
        static const uint8_t any[16], any4[16] = {[10] = 0xff, 0xff};
        rc = stack_add_route(d->stack, d->ifindex, any4, 0, NULL);
        if (rc >= 0)
            rc = stack_add_route(d->stack, d->ifindex, any, 0, NULL);
    }
    if (rc < 0) {
        drive_free(d);
        return rc;
    }
    *out = d;
    return 0;
}

void drive_free(struct drive *d)
{
    stack_free(d->stack); /* and, through it, the link's frames */
    free(d->fds);
    free(d);
}

/* "address/bits" as 16 bytes and the bits of its family. */
static bool parse_prefix(const char *text, uint8_t addr[16], unsigned *bits)
{
    char host[INET6_ADDRSTRLEN + 1];
    unsigned n = 0, value = 0;
    for (; text[n] && text[n] != '/' && n < sizeof host - 1; n++)
        host[n] = text[n];
    host[n] = 0;
    memset(addr, 0, 16);
    unsigned most = 128;
    if (inet_pton(AF_INET, host, addr + 12) == 1) {
        addr[10] = addr[11] = 0xff;
        most = 32;
    } else if (inet_pton(AF_INET6, host, addr) != 1) {
        return false;
    }
    if (!text[n]) {
        *bits = most;
        return true;
    }
    if (text[n++] != '/' || !text[n])
        return false;
    for (; text[n]; n++) {
        if (text[n] < '0' || text[n] > '9' || (value = value * 10 + (unsigned)(text[n] - '0')) > most)
            return false;
    }
    *bits = value;
    return true;
}

/* One turn at the present time. */
static void turn(struct drive *d) { d->due = stack_run(d->stack, d->now); }

int drive_address(struct drive *d, const char *interface)
{
    uint8_t addr[16];
    unsigned bits;
    if (!parse_prefix(interface, addr, &bits))
        return -EINVAL;
    int rc = stack_add_address(d->stack, d->ifindex, addr, bits);
    turn(d);
    return rc;
}

int drive_route(struct drive *d, const char *network, const char *gateway)
{
    uint8_t dest[16], hop[16];
    unsigned bits, all;
    if (!parse_prefix(network, dest, &bits) || (gateway && !parse_prefix(gateway, hop, &all)))
        return -EINVAL;
    return stack_add_route(d->stack, d->ifindex, dest, bits, gateway ? hop : NULL);
}

/* --- time and packets --- */

uint64_t drive_now(struct drive *d) { return d->now - EPOCH; }

uint64_t drive_due(struct drive *d)
{
    turn(d);
    return d->due == REACTOR_NEVER ? UINT64_MAX : d->due > EPOCH ? d->due - EPOCH : 0;
}

int drive_advance(struct drive *d, uint64_t to)
{
    unsigned turns = 0;
    if (to > UINT64_MAX - EPOCH || to + EPOCH < d->now)
        return -EINVAL;
    to += EPOCH;
    for (turn(d); d->due <= to; turn(d)) {
        turns = d->due > d->now ? 0 : turns + 1;
        if (turns > TURNS_MAX)
            return -ELOOP;
        if (d->due > d->now)
            d->now = d->due;
    }
    d->now = to;
    turn(d);
    return 0;
}

int drive_inject(struct drive *d, uint64_t at, const uint8_t *packet, size_t len)
{
    unsigned version = len ? packet[0] >> 4 : 0;
    uint32_t header = d->ethernet ? 0 : ETH_HLEN;
    if (!d->ethernet && version != 4 && version != 6)
        return -EINVAL;
    if (len > PBUF_ROOM_MAX - ETH_HLEN)
        return -EMSGSIZE;
    int rc = drive_advance(d, at);
    if (rc < 0)
        return rc;
    struct pbuf *p = pbuf_alloc(&d->stack->pool, PBUF_HEADROOM, (uint32_t)len + header);
    if (!p)
        return -ENOBUFS;
    uint8_t *frame = pbuf_data(p);
    if (header) {
        memcpy(frame + ETH_DST, our_mac, ETH_ALEN);
        memcpy(frame + ETH_SRC, peer_mac, ETH_ALEN);
        put16(frame + ETH_TYPE, version == 4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6);
    }
    memcpy(frame + header, packet, len);
    p->len = (uint32_t)len + header;
    memory_poison(p->base + p->off + p->len, p->size - p->off - p->len);
    link_deliver(&d->link, p, d->now);
    turn(d);
    return 0;
}

int64_t drive_take(struct drive *d, uint64_t *at, uint8_t *packet, size_t cap)
{
    struct pbuf *p = queue_pop(&d->sent);
    if (!p)
        return 0;
    uint32_t skip = d->ethernet ? 0 : ETH_HLEN, len = pbuf_total(p) - skip;
    *at = ((uint64_t)p->mark2 << 32 | p->mark) - EPOCH;
    if (len <= cap)
        pbuf_copy(p, skip, packet, len);
    pbuf_free(&d->stack->pool, p);
    return len <= cap ? (int64_t)len : -EMSGSIZE;
}

/* --- descriptors and addresses --- */

static struct descriptor *find(struct drive *d, int fd)
{
    unsigned i = (unsigned)fd - FIRST_FD;
    return fd >= FIRST_FD && i < d->nfds && d->fds[i].id ? &d->fds[i] : NULL;
}

/* The lowest free one, or -EMFILE. */
static int reserve(struct drive *d)
{
    for (unsigned i = 0; i < d->nfds; i++)
        if (!d->fds[i].id)
            return (int)i + FIRST_FD;
    unsigned n = d->nfds ? 2 * d->nfds : 16;
    if (d->nfds >= d->stack->config.sockets)
        return -EMFILE;
    struct descriptor *fds = realloc(d->fds, n * sizeof *fds);
    if (!fds)
        return -ENOMEM;
    memset(fds + d->nfds, 0, (n - d->nfds) * sizeof *fds);
    d->fds = fds;
    int fd = (int)d->nfds + FIRST_FD;
    d->nfds = n;
    return fd;
}

static int install(struct drive *d, int fd, int64_t id)
{
    d->fds[fd - FIRST_FD] = (struct descriptor){.id = id};
    return fd;
}

int64_t drive_id(struct drive *d, int fd)
{
    struct descriptor *f = find(d, fd);
    return f ? f->id : -EBADF;
}

struct stack *drive_stack(struct drive *d) { return d->stack; }

/* What bind(2) and connect(2) are given. */
static int name_from(const struct sockaddr *addr, unsigned len, struct sock_name *out)
{
    static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
    if (!addr || len < sizeof addr->sa_family)
        return -EINVAL;
    *out = (struct sock_name){.family = addr->sa_family};
    if (addr->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
        memcpy(out->addr, mapped, 12);
        memcpy(out->addr + 12, &in->sin_addr, 4);
        out->port = ntohs(in->sin_port);
    } else if (addr->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
        memcpy(out->addr, &in6->sin6_addr, 16);
        out->port = ntohs(in6->sin6_port);
        out->ifindex = in6->sin6_scope_id;
    } else {
        return addr->sa_family == AF_INET || addr->sa_family == AF_INET6 ? -EINVAL : -EAFNOSUPPORT;
    }
    return 0;
}

/* What accept(2) and its like give: cut to *len, which becomes what there was. */
static void name_to(const struct sock_name *name, struct sockaddr *addr, unsigned *len)
{
    union {
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } u;
    if (!addr || !len)
        return;
    memset(&u, 0, sizeof u);
    unsigned size = name->family == AF_INET ? sizeof u.in : sizeof u.in6;
    if (name->family == AF_INET) {
        u.in.sin_family = AF_INET;
        u.in.sin_port = htons(name->port);
        memcpy(&u.in.sin_addr, name->addr + 12, 4);
    } else {
        u.in6.sin6_family = AF_INET6;
        u.in6.sin6_port = htons(name->port);
        memcpy(&u.in6.sin6_addr, name->addr, 16);
        u.in6.sin6_scope_id = name->ifindex;
    }
    memcpy(addr, &u, *len < size ? *len : size);
    *len = size;
}

/* --- sockets --- */

int drive_socket(struct drive *d, int domain, int type, int protocol)
{
    type &= ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (protocol && protocol != (type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP))
        return -EPROTONOSUPPORT;
    int fd = reserve(d);
    if (fd < 0)
        return fd;
    int64_t id = sock_open(d->stack, type, domain);
    return id < 0 ? (int)id : install(d, fd, id);
}

int drive_bind(struct drive *d, int fd, const struct sockaddr *addr, unsigned len)
{
    struct descriptor *f = find(d, fd);
    struct sock_name name;
    if (!f)
        return -EBADF;
    int rc = name_from(addr, len, &name);
    return rc < 0 ? rc : sock_bind(d->stack, f->id, name.addr, name.port);
}

int drive_listen(struct drive *d, int fd, int backlog)
{
    struct descriptor *f = find(d, fd);
    return f ? sock_listen(d->stack, f->id, backlog > 0 ? (unsigned)backlog : 0, 0) : -EBADF;
}

int drive_accept(struct drive *d, int fd, struct sockaddr *addr, unsigned *len)
{
    struct descriptor *f = find(d, fd);
    struct sock_name name;
    if (!f)
        return -EBADF;
    int64_t listener = f->id; /* f may move with the table */
    int new = reserve(d);
    if (new < 0)
        return new;
    int64_t id = sock_accept(d->stack, listener);
    if (id < 0)
        return (int)id;
    if (sock_getname(d->stack, id, SOCK_REMOTE, &name) == 0)
        name_to(&name, addr, len);
    turn(d);
    return install(d, new, id);
}

int drive_connect(struct drive *d, int fd, const struct sockaddr *addr, unsigned len)
{
    struct descriptor *f = find(d, fd);
    struct sock_name name;
    if (!f)
        return -EBADF;
    int rc = name_from(addr, len, &name);
    if (rc == 0)
        rc = sock_connect(d->stack, f->id, name.addr, name.port);
    turn(d);
    return rc == 0 && sock_getopt(d->stack, f->id, SOL_SOCKET, SO_TYPE) == SOCK_STREAM ? -EINPROGRESS : rc;
}

int64_t drive_sendto(struct drive *d, int fd, const void *data, size_t len, int flags, const struct sockaddr *addr,
                     unsigned addrlen)
{
    struct descriptor *f = find(d, fd);
    struct sock_name name;
    if (!f)
        return -EBADF;
    if (flags & ~(FLAGS_IGNORED | MSG_OOB))
        return -EOPNOTSUPP;
    bool stream = sock_getopt(d->stack, f->id, SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
    if (stream && addr)
        return -EISCONN;
    int rc = addr ? name_from(addr, addrlen, &name) : 0;
    if (rc < 0)
        return rc;
    int64_t n = flags & MSG_OOB ? sock_send_urgent(d->stack, f->id, data, len)
                : stream        ? sock_send(d->stack, f->id, data, len)
                                : sock_sendto(d->stack, f->id, data, len, addr ? &name : NULL, NULL);
    turn(d);
    return n;
}

int64_t drive_recvfrom(struct drive *d, int fd, void *data, size_t len, int flags, struct sockaddr *addr,
                       unsigned *addrlen)
{
    struct descriptor *f = find(d, fd);
    struct sock_name name;
    int64_t n;
    if (!f)
        return -EBADF;
    if (flags & ~FLAGS_IGNORED)
        return -EOPNOTSUPP;
    if (sock_getopt(d->stack, f->id, SOL_SOCKET, SO_TYPE) == SOCK_STREAM) {
        n = sock_recv(d->stack, f->id, data, len);
    } else {
        n = sock_recvfrom(d->stack, f->id, data, len, &name, NULL);
        if (n >= 0)
            name_to(&name, addr, addrlen);
    }
    turn(d); /* the window may have opened */
    return n == -EAGAIN && f->deaf ? 0 : n;
}

int drive_shutdown(struct drive *d, int fd, int how)
{
    struct descriptor *f = find(d, fd);
    if (!f)
        return -EBADF;
    if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
        return -EINVAL;
    struct sock_name name;
    int rc = sock_getname(d->stack, f->id, SOCK_REMOTE, &name);
    if (rc == 0 && how != SHUT_RD)
        rc = sock_shutdown(d->stack, f->id);
    if (rc == 0 && how != SHUT_WR)
        f->deaf = true;
    turn(d);
    return rc;
}

int drive_close(struct drive *d, int fd)
{
    struct descriptor *f = find(d, fd);
    if (!f)
        return -EBADF;
    int rc = sock_free(d->stack, f->id);
    f->id = 0;
    turn(d);
    return rc;
}

static int get_name(struct drive *d, int fd, int which, struct sockaddr *addr, unsigned *len)
{
    struct descriptor *f = find(d, fd);
    struct sock_name name;
    int rc = f ? sock_getname(d->stack, f->id, which, &name) : -EBADF;
    if (rc == 0)
        name_to(&name, addr, len);
    return rc;
}

int drive_getsockname(struct drive *d, int fd, struct sockaddr *addr, unsigned *len)
{
    return get_name(d, fd, SOCK_LOCAL, addr, len);
}

int drive_getpeername(struct drive *d, int fd, struct sockaddr *addr, unsigned *len)
{
    return get_name(d, fd, SOCK_REMOTE, addr, len);
}

int drive_getsockopt(struct drive *d, int fd, int level, int name, void *value, unsigned *len)
{
    struct descriptor *f = find(d, fd);
    if (!f)
        return -EBADF;
    int64_t n = sock_getsockopt(d->stack, f->id, level, name, value, *len);
    if (n < 0)
        return (int)n;
    *len = (unsigned)n;
    return 0;
}

int drive_setsockopt(struct drive *d, int fd, int level, int name, const void *value, unsigned len)
{
    struct descriptor *f = find(d, fd);
    if (!f)
        return -EBADF;
    int rc = sock_setsockopt(d->stack, f->id, level, name, value, len);
    turn(d);
    return rc;
}

int drive_poll(struct drive *d, int fd)
{
    struct descriptor *f = find(d, fd);
    struct sock *k = f ? sock_find(d->stack, f->id) : NULL;
    if (!k)
        return -EBADF;
    unsigned ready = k->ops->ready(k);
    int events = (ready & EV_READ || f->deaf ? POLLIN : 0) | (ready & EV_WRITE ? POLLOUT : 0);
    if (ready & EV_URGENT)
        events |= POLLPRI;
    if (k->error)
        events |= POLLERR | POLLIN | POLLOUT;
    if (k->type == SOCK_STREAM && tcp_of(k)->state == CLOSED)
        events |= POLLHUP;
    return events;
}
