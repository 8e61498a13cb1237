/* UDP (RFC 768, RFC 1122 4.1). A datagram is sent when it is written and queued when it comes, up to a bound in bytes of
 * buffers held. A queued datagram keeps its IP and UDP headers in its buffer: that is where recvfrom reads addresses.
 * Datagrams larger than the link's MTU are refused (EMSGSIZE): there is no fragmentation yet. */
#include "net/udp.h"

#include <errno.h>
#include <sys/socket.h>

#include "net/core/wire.h"

#define TTL 64
#define IN_BYTES_MAX (256 * 1024)

static struct udp *udp_of(struct sock *k) { return (struct udp *)k; }

static unsigned udp_ready(struct sock *k)
{
    return (udp_of(k)->in.head ? EV_READ : 0) | EV_WRITE;
}

static void udp_output(struct stack *s, struct sock *k)
{
    (void)s;
    (void)k;
}

static void udp_release(struct stack *s, struct sock *k) { queue_clear(&s->pool, &udp_of(k)->in); }

static const struct sock_ops udp_ops = {udp_ready, udp_output, udp_release};

struct sock *udp_open(struct stack *s, int family, int *error)
{
    return sock_new(s, sizeof(struct udp), &udp_ops, SOCK_DGRAM, family, error);
}

void udp_queues(const struct sock *k, uint64_t *unread) { *unread = ((const struct udp *)k)->in_bytes; }

int udp_connect(struct stack *s, struct sock *k, const struct addr *addr, unsigned port)
{
    struct path path;
    if (!route_find(s, addr, &k->local, &path))
        return -ENETUNREACH;
    if (!k->lport) {
        unsigned picked = sock_pick_port(s, k, &path.src, NULL, 0);
        if (!picked)
            return -EADDRNOTAVAIL;
        k->lport = (uint16_t)picked;
    }
    k->local = path.src;
    k->remote = *addr;
    k->rport = (uint16_t)port;
    sock_hash_bound(s, k);
    return 0;
}

void udp_input(struct stack *s, struct pbuf *p, const struct ip_meta *m)
{
    const uint8_t *h = pbuf_data(p);
    enum counter why = C_UdpInErrors;
    uint32_t len;
    if (p->len < UDP_HLEN || (len = get16(h + UDP_LEN)) < UDP_HLEN || len > p->len)
        goto drop;
    p->len = len;
    if (get16(h + UDP_CSUM) == 0 ? !addr_is4(&m->dst) && !(p->flags & PBUF_CSUM_OK) : !ip_csum_ok(p, m)) {
        why = C_UdpInCsumErrors; /* zero: none was computed; IPv6 does not allow that (RFC 8200 8.1) */
        goto drop;
    }
    struct sock *k = sock_lookup_bound(s, SOCK_DGRAM, &m->dst, get16(h + UDP_DPORT), &m->src, get16(h + UDP_SPORT));
    if (k && k->ifindex && k->ifindex != m->nif->index)
        k = NULL;
    if (!k || get16(h + UDP_SPORT) == 0) {
        if (!k)
            icmp_error(s, ICMP_NO_PORT, p, m);
        why = C_UdpNoPorts;
        goto drop;
    }
    struct udp *u = udp_of(k);
    if (u->in_bytes + p->size > IN_BYTES_MAX || pbuf_pressure(&s->pool)) {
        why = C_UdpRcvbufErrors;
        goto drop;
    }
    p->mark = m->ip_off;
    u->in_bytes += p->size;
    queue_push(&u->in, p);
    count(s, C_UdpInDatagrams);
    sock_mark_ready(s, k);
    return;
drop:
    count(s, why);
    pbuf_free(&s->pool, p);
}

void udp_icmp_error(struct stack *s, const struct addr *local, const struct addr *remote, const uint8_t *header,
                    int error, uint32_t mtu)
{
    (void)mtu;
    struct sock *k = sock_lookup_bound(s, SOCK_DGRAM, local, get16(header + UDP_SPORT), remote,
                                       get16(header + UDP_DPORT));
    if (k && k->rport) /* only a connected socket can know what it is about (RFC 1122 4.1.3.3) */
        sock_fail(s, k, error);
}

int64_t sock_recvfrom(struct stack *s, int64_t id, uint8_t *buf, size_t cap, struct sock_name *from,
                      struct sock_name *to)
{
    struct sock *k = sock_find(s, id);
    if (!k || k->type != SOCK_DGRAM)
        return k ? -EOPNOTSUPP : -EBADF;
    struct udp *u = udp_of(k);
    struct pbuf *p = queue_pop(&u->in);
    if (!p)
        return -EAGAIN;
    u->in_bytes -= p->size;
    const uint8_t *ip = p->base + p->mark, *h = pbuf_data(p);
    bool v4 = ip[0] >> 4 == 4;
    struct addr src = v4 ? addr_from4(ip + IP4_SRC) : addr_from(ip + IP6_SRC);
    struct addr dst = v4 ? addr_from4(ip + IP4_DST) : addr_from(ip + IP6_DST);
    /* Names are of the socket's family (ipv6(7)); a gateway, whose socket is for all addresses, wants the packet's. */
    uint16_t family = !(s->config.flags & STACK_ANY_DESTINATION) ? k->family : v4 ? AF_INET : AF_INET6;
    *from = (struct sock_name){.port = get16(h + UDP_SPORT), .family = family};
    memcpy(from->addr, src.b, 16);
    if (to) {
        *to = (struct sock_name){.port = get16(h + UDP_DPORT), .family = family};
        memcpy(to->addr, dst.b, 16);
    }
    int64_t n = (int64_t)pbuf_copy(p, UDP_HLEN, buf, cap < 65535 ? (uint32_t)cap : 65535);
    pbuf_free(&s->pool, p);
    return n;
}

/* A socket of one interface needs no route for what is on its link; and, as long as that has no address, says so: that
 * is how one asks for an address (RFC 2131 4.1). */
static bool path_on(struct stack *s, const struct sock *k, const struct addr *dst, const struct addr *src, struct path *path)
{
    struct netif *nif = netif_of(s, k->ifindex);
    if (addr_is_unicast(dst) && !addr_is_linklocal6(dst))
        return route_find(s, dst, src, path) && path->nif == nif;
    const struct addr *own = addr_is_any(src) ? netif_source(nif, dst) : src;
    if (!own && !addr_is4(dst))
        return false;
    *path = (struct path){.nif = nif, .src = own ? *own : *src, .next = *dst};
    return true;
}

int64_t sock_sendto(struct stack *s, int64_t id, const uint8_t *data, size_t len, const struct sock_name *name,
                    const struct sock_name *from)
{
    struct sock *k = sock_find(s, id);
    if (!k || k->type != SOCK_DGRAM)
        return k ? -EOPNOTSUPP : -EBADF;
    if (!name && !k->rport)
        return -EDESTADDRREQ;
    if (name && name->port == 0)
        return -EINVAL;
    struct addr dst = name ? addr_from(name->addr) : k->remote;
    unsigned dport = name ? name->port : k->rport, sport = from ? from->port : k->lport;
    if (addr_is4(&dst) ? k->family == AF_INET6 && k->v6only : k->family == AF_INET)
        return -EAFNOSUPPORT;
    if (addr_is_any(&dst))
        dst = sock_this_host(k, &dst);
    struct addr src = from ? addr_from(from->addr) : k->local;
    struct path path;
    if (!(k->ifindex ? path_on(s, k, &dst, &src, &path) : route_find(s, &dst, &src, &path)))
        return -ENETUNREACH;
    if (netif_is_broadcast(path.nif, &dst) && !udp_of(k)->broadcast)
        return -EACCES;
    if (!sport) {
        if (!(sport = sock_pick_port(s, k, &k->local, NULL, 0)))
            return -EADDRNOTAVAIL;
        k->lport = (uint16_t)sport;
        sock_hash_bound(s, k);
    }
    if (len + UDP_HLEN + (addr_is4(&dst) ? IP4_HLEN : IP6_HLEN) > netif_mtu(path.nif, addr_is4(&dst)))
        return -EMSGSIZE;
    struct pbuf *p = pbuf_alloc(&s->pool, PBUF_HEADROOM + ETH_HLEN + IP6_HLEN, (uint32_t)len + UDP_HLEN);
    if (!p)
        return -ENOBUFS;
    uint8_t *h = pbuf_data(p);
    p->len = (uint32_t)len + UDP_HLEN;
    put16(h + UDP_SPORT, sport);
    put16(h + UDP_DPORT, dport);
    put16(h + UDP_LEN, p->len);
    memcpy(h + UDP_HLEN, data, len);
    ip_csum_fill(&path, &dst, PROTO_UDP, UDP_CSUM, p);
    count(s, C_UdpOutDatagrams);
    path.tos = k->tos;
    int rc = ip_output(s, &path, &dst, PROTO_UDP, TTL, p);
    return rc < 0 ? rc : (int64_t)len;
}
