/* What the files of ICMP have in common. */
#ifndef LIBOS_ICMP_H
#define LIBOS_ICMP_H

#include "net/core/wire.h"
#include "net/stack.h"

/* Sends a message: its type, code and second word from head, then len bytes; the checksum is made here. */
void icmp_send(struct stack *s, const struct addr *src, const struct addr *dst, const uint8_t head[ICMP_HLEN],
               const uint8_t *body, uint32_t len);

/* p, a packet of ours from the IP header on, cannot be sent by nif: its next hop is silent. Its sender hears of it as
 * of an ICMP error. */
void icmp_undeliverable(const struct netif *nif, const struct pbuf *p);

/* How far into a packet its transport header is, and which it is; as much of the packet as len. 0: there is none, or it
 * is in another fragment. */
uint32_t icmp_transport(const uint8_t *ip, uint32_t len, bool v4, unsigned *proto);

/* redirect.c: a router says that there is a better way to dst. */
void redirect_input(struct stack *s, const struct pbuf *p, const struct ip_meta *m);
/* That way has turned out to be none. */
void redirect_forget(struct netif *nif, const struct addr *gateway);

#endif
