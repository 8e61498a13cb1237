/* Neighbours: who has which link address (ARP for IPv4, neighbour discovery for IPv6), in one bounded table with the states
 * of RFC 4861 7.3.2. An entry that is asked for holds the last few packets for it until the answer comes. */
#ifndef LIBOS_NEIGH_H
#define LIBOS_NEIGH_H

#include "net/stack.h"

int neigh_init(struct stack *s);
void neigh_free(struct stack *s);

/* Sends p (from the IP header on) to the neighbour `next`, or holds it until its address is known. Takes p. */
void neigh_output(struct netif *nif, const struct addr *next, unsigned ethertype, struct pbuf *p);
/* Heard: `addr` is at `mac`. solicited: it answered us. override: replace an address that we have. create: note it
 * although we did not ask. */
void neigh_learn(struct netif *nif, const struct addr *addr, const uint8_t *mac, bool solicited, bool override,
                 bool create);

/* Ask on the wire. mac NULL: everybody (ARP broadcast, solicited-node multicast). */
void arp_request(struct netif *nif, const struct addr *target, const uint8_t *mac);
void nd_solicit(struct netif *nif, const struct addr *target, const uint8_t *mac);

#endif
