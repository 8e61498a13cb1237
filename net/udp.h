/* UDP sockets. See udp.c. */
#ifndef LIBOS_UDP_H
#define LIBOS_UDP_H

#include "net/sock.h"

struct udp {
    struct sock k; /* first */
    struct pbuf_queue in;
    uint32_t in_bytes; /* buffers held, not payload */
    bool broadcast;
};

struct sock *udp_open(struct stack *s, int family, int *error);
int udp_connect(struct stack *s, struct sock *k, const struct addr *addr, unsigned port);
void udp_queues(const struct sock *k, uint64_t *unread);

#endif
