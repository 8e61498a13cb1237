/* UDP (RFC 768, RFC 1122 4.1). A datagram is sent when it is written and queued when it comes, up to a bound in bytes
 * of buffers held. A queued datagram keeps its IP and UDP headers in its buffer: that is where recvfrom reads
 * addresses. Datagrams larger than the path's MTU leave in fragments, unless IP_MTU_DISCOVER forbids it (EMSGSIZE). */
#include "net/udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "net/core/wire.h"
#include "net/ip/frag.h"
#include "net/ip/group.h"
#include "net/ip/options.h"

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

static void udp_release(struct stack *s, struct sock *k)
{
    group_leave_all(&udp_of(k)->groups);
    queue_clear(&s->pool, &udp_of(k)->in);
}

static const struct sock_ops udp_ops = {udp_ready, udp_output, udp_release};

struct sock *udp_open(struct stack *s, int family, int *error)
{
    return sock_new(s, sizeof(struct udp), &udp_ops, SOCK_DGRAM, family, error);
}

void udp_queues(const struct sock *k, uint64_t *unread) { *unread = ((const struct udp *)k)->in_bytes; }

/* Where a datagram to dst would go. zone: of the interface that it names; src any: choose. */
static bool udp_path(struct stack *s, const struct sock *k, const struct addr *dst, const struct addr *src, uint32_t zone,
                     struct path *path)
{
    static const struct addr any;
    if (!zone)
        zone = k->ifindex;
    if (!zone && addr_is_multicast(dst))
        zone = ((const struct udp *)k)->group[!addr_is4(dst)].ifindex;
    /* Bound to a group or to a broadcast address: that says what it hears, and is nobody's source. */
    if (!route_find_on(s, dst, addr_is_unicast(src) ? src : &any, zone, path))
        return false;
    ip_path_for(s, k, path, dst);
    return true;
}

int udp_connect(struct stack *s, struct sock *k, const struct addr *addr, unsigned port)
{
    struct path path;
    if (!udp_path(s, k, addr, &k->local, addr->zone, &path))
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

/* --- coming in --- */

/* Takes p, whose IP header starts at ip_off. */
static void enqueue(struct stack *s, struct sock *k, struct pbuf *p, const struct ip_meta *m)
{
    struct udp *u = udp_of(k);
    if (u->in_bytes + p->size > IN_BYTES_MAX || pbuf_pressure(&s->pool)) {
        count(s, C_UdpRcvbufErrors);
        pbuf_free(&s->pool, p);
        return;
    }
    p->mark = m->ip_off;
    p->mark2 = (uint32_t)m->nif->index;
    u->in_bytes += p->size;
    queue_push(&u->in, p);
    count(s, C_UdpInDatagrams);
    sock_mark_ready(s, k);
}

static bool wants_group(const struct sock *k, const struct ip_meta *m)
{
    const struct udp *u = (const struct udp *)k;
    if (k->ifindex && k->ifindex != (uint32_t)m->nif->index)
        return false;
    return !addr_is_multicast(&m->dst) ||
           group_wanted(u->groups, !u->group[!addr_is4(&m->dst)].own_only, m->nif, &m->dst, &m->src);
}

/* A copy for each socket that wants it; the last gets p itself. False: nobody did, p is the caller's. */
static bool deliver_to_all(struct stack *s, struct pbuf *p, const struct ip_meta *m)
{
    const uint8_t *h = pbuf_data(p);
    unsigned dport = get16(h + UDP_DPORT), sport = get16(h + UDP_SPORT);
    struct sock *last = NULL, *k = NULL;
    while ((k = sock_next_hearing(s, k, SOCK_DGRAM, &m->dst, dport, &m->src, sport))) {
        if (!wants_group(k, m))
            continue;
        struct pbuf *copy = last ? pbuf_clone(&s->pool, p, 0, p->len) : NULL;
        if (copy)
            enqueue(s, last, copy, m);
        else if (last)
            count(s, C_UdpRcvbufErrors);
        last = k;
    }
    if (last)
        enqueue(s, last, p, m);
    return last;
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
    why = C_UdpNoPorts;
    if (get16(h + UDP_SPORT) == 0)
        goto drop;
    if ((addr_is_multicast(&m->dst) || netif_is_broadcast(m->nif, &m->dst)) && !s->socks->any_dgram) {
        if (!deliver_to_all(s, p, m))
            goto drop;
        return;
    }
    struct sock *k = sock_lookup_bound(s, SOCK_DGRAM, &m->dst, get16(h + UDP_DPORT), &m->src, get16(h + UDP_SPORT));
    if (k && (!k->ifindex || k->ifindex == m->nif->index || m->nif->link->caps & LINK_LOOPBACK)) {
        enqueue(s, k, p, m);
        return;
    }
    icmp_error(s, ICMP_NO_PORT, p, m);
drop:
    count(s, why);
    pbuf_free(&s->pool, p);
}

void udp_icmp_error(struct stack *s, const struct addr *local, const struct addr *remote, const uint8_t *header,
                    int error, bool hard, uint32_t mtu)
{
    struct sock *k = sock_lookup_bound(s, SOCK_DGRAM, local, get16(header + UDP_SPORT), remote,
                                       get16(header + UDP_DPORT));
    if (!k)
        return;
    if (error == EMSGSIZE) {
        if (mtu && k->discover != IP_PMTUDISC_DONT) /* RFC 1191 3, RFC 8201 4: what comes next fits */
            path_mtu_note(s, remote, mtu);
        hard = k->discover >= IP_PMTUDISC_WANT; /* for who cuts to size by himself */
    }
    /* Only a connected socket can know what it is about (RFC 1122 4.1.3.3), and soft errors may pass; IP_RECVERR asks
     * for all. */
    if (k->recverr || (k->rport && hard))
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
    bool anyone = s->config.flags & STACK_ANY_DESTINATION;
    uint32_t arrived = anyone ? 0 : p->mark2, zone = anyone ? 0 : zone_of(&s->netifs[p->mark2 - 1]);
    struct addr src = v4 ? addr_from4(ip + IP4_SRC) : addr_in_zone(addr_from(ip + IP6_SRC), zone);
    struct addr dst = v4 ? addr_from4(ip + IP4_DST) : addr_from(ip + IP6_DST);
    /* Names are of the socket's family (ipv6(7)); a gateway, whose socket is for all addresses, wants the packet's,
     * with nothing of the interface: they are its table's keys. */
    uint16_t family = !anyone ? k->family : v4 ? AF_INET : AF_INET6;
    *from = (struct sock_name){.port = get16(h + UDP_SPORT), .family = family, .ifindex = src.zone};
    memcpy(from->addr, src.b, 16);
    if (to) {
        *to = (struct sock_name){.port = get16(h + UDP_DPORT), .family = family, .ifindex = arrived};
        memcpy(to->addr, dst.b, 16);
    }
    int64_t n = (int64_t)pbuf_copy(p, UDP_HLEN, buf, cap < 65535 ? (uint32_t)cap : 65535);
    pbuf_free(&s->pool, p);
    return n;
}

/* What was sent to a group, for the members on this host: they hear it as if it had come by that interface. */
static void loop_back(struct stack *s, const struct path *path, const struct addr *dst, unsigned ttl, const struct pbuf *p)
{
    struct pbuf *copy = pbuf_alloc(&s->pool, PBUF_HEADROOM + IP6_HLEN, p->len);
    if (!copy)
        return;
    struct ip_meta m = {.nif = path->nif, .src = path->src, .dst = *dst, .proto = PROTO_UDP, .to_group = true};
    copy->len = pbuf_copy(p, 0, pbuf_data(copy), p->len);
    ip_header(path, dst, PROTO_UDP, ttl, 0, 0, copy);
    m.ip_off = copy->off;
    pbuf_pull(copy, addr_is4(dst) ? IP4_HLEN : IP6_HLEN);
    if (!deliver_to_all(s, copy, &m))
        pbuf_free(&s->pool, copy);
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
    struct addr dst = name ? addr_in_zone(addr_from(name->addr), name->ifindex) : k->remote;
    unsigned dport = name ? name->port : k->rport, sport = from ? from->port : k->lport;
    bool v4 = addr_is4(&dst), group = addr_is_multicast(&dst);
    if (v4 ? k->family == AF_INET6 && k->v6only : k->family == AF_INET)
        return -EAFNOSUPPORT;
    if (addr_is_any(&dst))
        dst = sock_this_host(k, &dst);
    struct addr src = from ? addr_from(from->addr) : k->local;
    struct path path;
    if (!udp_path(s, k, &dst, &src, name ? name->ifindex : dst.zone, &path))
        return -ENETUNREACH;
    if (netif_is_broadcast(path.nif, &dst) && !udp_of(k)->broadcast)
        return -EACCES;
    if (!sport) {
        if (!(sport = sock_pick_port(s, k, &k->local, NULL, 0)))
            return -EADDRNOTAVAIL;
        k->lport = (uint16_t)sport;
        sock_hash_bound(s, k);
    }
    if (len + UDP_HLEN > IP_PAYLOAD_MAX - (v4 ? IP4_HLEN : 0u))
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
    unsigned ttl = sock_ttl(k, &dst);
    if (group)
        ttl = udp_of(k)->group[!v4].ttl ? udp_of(k)->group[!v4].ttl : 1;
    count(s, C_UdpOutDatagrams);
    if (group && !udp_of(k)->group[!v4].unlooped && group_joined(path.nif, &dst))
        loop_back(s, &path, &dst, ttl, p);
    ip_csum_fill(&path, &dst, PROTO_UDP, UDP_CSUM, p);
    int rc = ip_output(s, &path, &dst, PROTO_UDP, ttl, p);
    return rc < 0 ? rc : (int64_t)len;
}
