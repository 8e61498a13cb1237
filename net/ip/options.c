/* Socket options of IP, by Linux's names and numbers (ip(7), ipv6(7), RFC 3542, RFC 3678). */
#include "net/ip/options.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "net/ip/group.h"
#include "net/sockopt.h"
#include "net/udp.h"

#define IPV6_MULTICAST_ALL_ 29

static struct udp *udp_of(struct sock *k) { return (struct udp *)k; }

void ip_path_for(struct stack *s, const struct sock *k, struct path *path, const struct addr *dst)
{
    path->tos = k->tos;
    switch (k->discover) {
    case IP_PMTUDISC_WANT:
        path->fragment = FRAGMENT_HERE;
        break;
    case IP_PMTUDISC_DO:
        path->fragment = FRAGMENT_NEVER;
        break;
    case IP_PMTUDISC_DONT:
        path->fragment = FRAGMENT_ANYWHERE;
        break;
    case IP_PMTUDISC_OMIT:
        path->fragment = FRAGMENT_ANYWHERE;
        return; /* whatever was learned of the path */
    default: /* PROBE, INTERFACE */
        path->fragment = FRAGMENT_NEVER;
        path->mtu = netif_mtu(path->nif, addr_is4(dst));
        return;
    }
    path->mtu = path_mtu_via(s, path, dst);
}

/* --- one integer --- */

/* 0 in the field is the default; -1 from above, too. */
#define HOPS_OPTION(name, type, field, usual, least_)                                                                  \
    static int64_t get_##name(struct stack *s, struct sock *k)                                                         \
    {                                                                                                                  \
        uint8_t v = ((type *)k)->field;                                                                                \
        return v ? v : usual;                                                                                          \
    }                                                                                                                  \
    static int set_##name(struct stack *s, struct sock *k, int64_t value)                                              \
    {                                                                                                                  \
        if (value != -1 && (value < least_ || value > 255))                                                            \
            return -EINVAL;                                                                                            \
        ((type *)k)->field = (uint8_t)(value == -1 ? 0 : value);                                                       \
        return 0;                                                                                                      \
    }
HOPS_OPTION(ttl, struct sock, ttl, HOPS_DEFAULT, 1)
HOPS_OPTION(hops, struct sock, hops, HOPS_DEFAULT, 1)
HOPS_OPTION(group_ttl, struct udp, group[0].ttl, 1, 1)
HOPS_OPTION(group_hops, struct udp, group[1].ttl, 1, 1)

static int64_t get_mtu(struct stack *s, struct sock *k)
{
    struct path path;
    if (!k->rport)
        return -ENOTCONN;
    if (!route_find_on(s, &k->remote, &k->local, k->ifindex, &path))
        return -ENETUNREACH;
    return (int64_t)path_mtu_via(s, &path, &k->remote);
}

static int64_t get_dontfrag(struct stack *s, struct sock *k) { return k->discover == IP_PMTUDISC_DO; }

static int set_dontfrag(struct stack *s, struct sock *k, int64_t value)
{
    k->discover = value ? IP_PMTUDISC_DO : IP_PMTUDISC_WANT;
    return 0;
}

static int64_t get_looped4(struct stack *s, struct sock *k) { return !udp_of(k)->group[0].unlooped; }
static int64_t get_looped6(struct stack *s, struct sock *k) { return !udp_of(k)->group[1].unlooped; }
static int64_t get_all4(struct stack *s, struct sock *k) { return !udp_of(k)->group[0].own_only; }
static int64_t get_all6(struct stack *s, struct sock *k) { return !udp_of(k)->group[1].own_only; }
static int64_t get_group_if6(struct stack *s, struct sock *k) { return udp_of(k)->group[1].ifindex; }

static int set_looped4(struct stack *s, struct sock *k, int64_t value)
{
    udp_of(k)->group[0].unlooped = !value;
    return 0;
}

static int set_looped6(struct stack *s, struct sock *k, int64_t value)
{
    udp_of(k)->group[1].unlooped = !value;
    return 0;
}

static int set_all4(struct stack *s, struct sock *k, int64_t value)
{
    udp_of(k)->group[0].own_only = !value;
    return 0;
}

static int set_all6(struct stack *s, struct sock *k, int64_t value)
{
    udp_of(k)->group[1].own_only = !value;
    return 0;
}

static int set_group_if6(struct stack *s, struct sock *k, int64_t value)
{
    if (value < 0 || (value && !netif_of(s, (int)value)))
        return -ENODEV;
    udp_of(k)->group[1].ifindex = (uint32_t)value;
    return 0;
}

/* A byte will do as well (ip(7)). */
static int64_t number(const void *buf, size_t len)
{
    int32_t v;
    if (len < sizeof v)
        return len ? *(const uint8_t *)buf : -EINVAL;
    memcpy(&v, buf, sizeof v);
    return v;
}

static int write_group_ttl(struct stack *s, struct sock *k, const void *buf, size_t len)
{
    return set_group_ttl(s, k, number(buf, len));
}

static int write_looped4(struct stack *s, struct sock *k, const void *buf, size_t len)
{
    return len ? set_looped4(s, k, number(buf, len)) : -EINVAL;
}

/* --- groups --- */

/* An interface by its index, else by an address of it, else by the route to the group. NULL: there is none. */
static struct netif *interface_for(struct stack *s, const struct sock *k, uint32_t index, const uint8_t *addr4,
                                   const struct addr *group)
{
    struct path path;
    if (!index)
        index = k->ifindex;
    if (index)
        return netif_of(s, (int)index);
    struct addr own = addr4 ? addr_from4(addr4) : (struct addr){.zone = 0};
    if (!addr_is_any(&own)) {
        for (unsigned i = 0; i < s->nnetifs; i++)
            if (netif_has(&s->netifs[i], &own))
                return &s->netifs[i];
        return NULL;
    }
    return route_find_on(s, group, NULL, 0, &path) ? path.nif : s->nnetifs > 1 ? &s->netifs[1] : NULL;
}

static int change(struct stack *s, struct sock *k, enum group_change what, const struct addr *group, uint32_t index,
                  const uint8_t *addr4, const struct addr *source)
{
    if (k->family == AF_INET && !addr_is4(group))
        return -EINVAL;
    struct netif *nif = addr_is_multicast(group) ? interface_for(s, k, index, addr4, group) : NULL;
    if (!nif)
        return addr_is_multicast(group) ? -ENODEV : -EINVAL;
    return group_change(nif, &udp_of(k)->groups, what, group, source);
}

/* struct ip_mreq (group, address of the interface) or struct ip_mreqn (and its index). */
static int membership4(struct stack *s, struct sock *k, enum group_change what, const uint8_t *b, size_t len)
{
    int32_t index = 0;
    if (len < 8)
        return -EINVAL;
    if (len >= 12)
        memcpy(&index, b + 8, 4);
    struct addr group = addr_from4(b);
    return change(s, k, what, &group, (uint32_t)index, b + 4, NULL);
}

/* struct ip_mreq_source: group, address of the interface, source. */
static int source4(struct stack *s, struct sock *k, enum group_change what, const uint8_t *b, size_t len)
{
    if (len < 12)
        return -EINVAL;
    struct addr group = addr_from4(b), source = addr_from4(b + 8);
    return change(s, k, what, &group, 0, b + 4, &source);
}

/* struct ipv6_mreq: group, index of the interface. */
static int membership6(struct stack *s, struct sock *k, enum group_change what, const uint8_t *b, size_t len)
{
    int32_t index;
    if (len < 20)
        return -EINVAL;
    memcpy(&index, b + 16, 4);
    struct addr group = addr_from(b);
    return addr_is4(&group) ? -EINVAL : change(s, k, what, &group, (uint32_t)index, NULL, NULL);
}

static bool read_sockaddr(const uint8_t *b, struct addr *a)
{
    uint16_t family;
    memcpy(&family, b, 2);
    if (family == AF_INET)
        *a = addr_from4(b + 4);
    else if (family == AF_INET6)
        *a = addr_from(b + 8);
    return family == AF_INET || (family == AF_INET6 && !addr_is4(a));
}

/* struct group_req, struct group_source_req (RFC 3678 5.1): index, group, and source as sockaddr_storage. */
static int any_family(struct stack *s, struct sock *k, enum group_change what, const uint8_t *b, size_t len)
{
    enum { GROUP_AT = 8, SOURCE_AT = GROUP_AT + 128, END = SOURCE_AT + 128 };
    bool sourced = what != GROUP_JOIN && what != GROUP_LEAVE;
    struct addr group, source;
    uint32_t index;
    if (len < (sourced ? END : SOURCE_AT) || !read_sockaddr(b + GROUP_AT, &group) ||
        (sourced && !read_sockaddr(b + SOURCE_AT, &source)))
        return -EINVAL;
    memcpy(&index, b, 4);
    return change(s, k, what, &group, index, NULL, sourced ? &source : NULL);
}

#define WRITER(name, reader, what)                                                                                     \
    static int name(struct stack *s, struct sock *k, const void *buf, size_t len)                                      \
    {                                                                                                                  \
        return reader(s, k, what, buf, len);                                                                           \
    }
WRITER(write_join4, membership4, GROUP_JOIN)
WRITER(write_leave4, membership4, GROUP_LEAVE)
WRITER(write_add_source4, source4, GROUP_ADD_SOURCE)
WRITER(write_drop_source4, source4, GROUP_DROP_SOURCE)
WRITER(write_block4, source4, GROUP_BLOCK)
WRITER(write_unblock4, source4, GROUP_UNBLOCK)
WRITER(write_join6, membership6, GROUP_JOIN)
WRITER(write_leave6, membership6, GROUP_LEAVE)
WRITER(write_join, any_family, GROUP_JOIN)
WRITER(write_leave, any_family, GROUP_LEAVE)
WRITER(write_add_source, any_family, GROUP_ADD_SOURCE)
WRITER(write_drop_source, any_family, GROUP_DROP_SOURCE)
WRITER(write_block, any_family, GROUP_BLOCK)
WRITER(write_unblock, any_family, GROUP_UNBLOCK)

/* The interface that groups are sent by: struct in_addr, ip_mreq or ip_mreqn. 0.0.0.0: as the routes say. */
static int write_group_if4(struct stack *s, struct sock *k, const void *buf, size_t len)
{
    static const uint8_t none[4];
    const uint8_t *b = buf, *own = len >= 8 ? b + 4 : b;
    int32_t index = 0;
    if (len < 4)
        return -EINVAL;
    if (len >= 12)
        memcpy(&index, b + 8, 4);
    if (!index && memcmp(own, none, 4) == 0) {
        udp_of(k)->group[0].ifindex = 0;
        return 0;
    }
    struct addr group = addr_from4((const uint8_t[]){224, 0, 0, 1});
    struct netif *nif = interface_for(s, k, (uint32_t)index, own, &group);
    if (!nif)
        return -EADDRNOTAVAIL;
    udp_of(k)->group[0].ifindex = (uint32_t)nif->index;
    return 0;
}

static int64_t read_group_if4(struct stack *s, struct sock *k, void *buf, size_t cap)
{
    static const struct addr any4 = {.b = {[10] = 0xff, 0xff, 224, 0, 0, 1}};
    struct netif *nif = netif_of(s, (int)udp_of(k)->group[0].ifindex);
    const struct addr *own = nif ? netif_source(nif, &any4) : NULL;
    uint8_t out[4] = {0};
    if (own)
        memcpy(out, addr_v4(own), 4);
    size_t n = cap < 4 ? cap : 4;
    memcpy(buf, out, n);
    return (int64_t)n;
}

#define BOTH OPT_ANY
#define DGRAM OPT_DGRAM

static const struct sockopt rows[] = {
    {IPPROTO_IP, IP_TTL, BOTH | OPT_INHERIT, OPT_FIELD(struct sock, ttl), .get = get_ttl, .set = set_ttl},
    {IPPROTO_IP, IP_MTU, BOTH, .get = get_mtu},
    {IPPROTO_IP, IP_MTU_DISCOVER, BOTH | OPT_INHERIT, OPT_FIELD(struct sock, discover), 0, IP_PMTUDISC_OMIT},
    {IPPROTO_IP, IP_RECVERR, BOTH | OPT_SWITCH, OPT_FIELD(struct sock, recverr)},
    {IPPROTO_IP, IP_MULTICAST_TTL, DGRAM, .get = get_group_ttl, .set = set_group_ttl, .write = write_group_ttl},
    {IPPROTO_IP, IP_MULTICAST_LOOP, DGRAM, .get = get_looped4, .set = set_looped4, .write = write_looped4},
    {IPPROTO_IP, IP_MULTICAST_ALL, DGRAM, .get = get_all4, .set = set_all4},
    {IPPROTO_IP, IP_MULTICAST_IF, DGRAM, .read = read_group_if4, .write = write_group_if4},
    {IPPROTO_IP, IP_ADD_MEMBERSHIP, DGRAM, .write = write_join4},
    {IPPROTO_IP, IP_DROP_MEMBERSHIP, DGRAM, .write = write_leave4},
    {IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, DGRAM, .write = write_add_source4},
    {IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, DGRAM, .write = write_drop_source4},
    {IPPROTO_IP, IP_BLOCK_SOURCE, DGRAM, .write = write_block4},
    {IPPROTO_IP, IP_UNBLOCK_SOURCE, DGRAM, .write = write_unblock4},
    {IPPROTO_IP, MCAST_JOIN_GROUP, DGRAM, .write = write_join},
    {IPPROTO_IP, MCAST_LEAVE_GROUP, DGRAM, .write = write_leave},
    {IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, DGRAM, .write = write_add_source},
    {IPPROTO_IP, MCAST_LEAVE_SOURCE_GROUP, DGRAM, .write = write_drop_source},
    {IPPROTO_IP, MCAST_BLOCK_SOURCE, DGRAM, .write = write_block},
    {IPPROTO_IP, MCAST_UNBLOCK_SOURCE, DGRAM, .write = write_unblock},

    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, BOTH | OPT_INHERIT, OPT_FIELD(struct sock, hops), .get = get_hops, .set = set_hops},
    {IPPROTO_IPV6, IPV6_MTU, BOTH, .get = get_mtu},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, BOTH, OPT_FIELD(struct sock, discover), 0, IP_PMTUDISC_OMIT},
    {IPPROTO_IPV6, IPV6_DONTFRAG, BOTH, .get = get_dontfrag, .set = set_dontfrag},
    {IPPROTO_IPV6, IPV6_RECVERR, BOTH | OPT_SWITCH, OPT_FIELD(struct sock, recverr)},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, DGRAM, .get = get_group_hops, .set = set_group_hops},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, DGRAM, .get = get_looped6, .set = set_looped6},
    {IPPROTO_IPV6, IPV6_MULTICAST_ALL_, DGRAM, .get = get_all6, .set = set_all6},
    {IPPROTO_IPV6, IPV6_MULTICAST_IF, DGRAM, .get = get_group_if6, .set = set_group_if6},
    {IPPROTO_IPV6, IPV6_JOIN_GROUP, DGRAM, .write = write_join6},
    {IPPROTO_IPV6, IPV6_LEAVE_GROUP, DGRAM, .write = write_leave6},
    {IPPROTO_IPV6, MCAST_JOIN_GROUP, DGRAM, .write = write_join},
    {IPPROTO_IPV6, MCAST_LEAVE_GROUP, DGRAM, .write = write_leave},
    {IPPROTO_IPV6, MCAST_JOIN_SOURCE_GROUP, DGRAM, .write = write_add_source},
    {IPPROTO_IPV6, MCAST_LEAVE_SOURCE_GROUP, DGRAM, .write = write_drop_source},
    {IPPROTO_IPV6, MCAST_BLOCK_SOURCE, DGRAM, .write = write_block},
    {IPPROTO_IPV6, MCAST_UNBLOCK_SOURCE, DGRAM, .write = write_unblock},
};

const struct sockopt_table ip_sockopts = {rows, sizeof rows / sizeof *rows};
