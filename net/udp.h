/* UDP sockets. See udp.c. */
#ifndef LIBOS_UDP_H
#define LIBOS_UDP_H

#include "net/sock.h"

struct udp {
    struct sock k; /* first */
    struct pbuf_queue in;
    uint32_t in_bytes; /* buffers held, not payload */
    bool broadcast;
    struct membership *groups; /* what it hears: group.h */
    /* How it sends to groups, and whether it hears those that others have joined: of IPv4, of IPv6. All 0: as usual. */
    struct {
        uint32_t ifindex;
        uint8_t ttl;     /* 0: 1 */
        bool unlooped;   /* no copy for this host */
        bool own_only;   /* IP_MULTICAST_ALL off */
    } group[2];
};

struct sock *udp_open(struct stack *s, int family, int *error);
int udp_connect(struct stack *s, struct sock *k, const struct addr *addr, unsigned port);
void udp_queues(const struct sock *k, uint64_t *unread);

#endif
