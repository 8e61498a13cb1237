/* Neighbours: who has which link address (ARP for IPv4, neighbour discovery for IPv6), in one bounded table with the
 * states of RFC 4861 7.3.2. An entry that is asked for holds the last few packets for it until the answer comes. */
#ifndef LIBOS_NEIGH_H
#define LIBOS_NEIGH_H

#include "net/stack.h"

/* RFC 4861 10. Routers may say otherwise (nif->reachable_time, nif->retrans_time). */
#define NEIGH_REACHABLE_TIME (30ull * SECOND)
#define NEIGH_RETRANS_TIME (1ull * SECOND)

int neigh_init(struct stack *s);
void neigh_free(struct stack *s);

/* Sends p (from the IP header on) to the neighbour `next`, or holds it until its address is known. Takes p. */
void neigh_output(struct netif *nif, const struct addr *next, unsigned ethertype, struct pbuf *p);
/* Something above IP got an answer through this neighbour: both directions work (RFC 4861 7.3.1). */
void neigh_confirm(struct netif *nif, const struct addr *next);
/* Something above IP gets no answers: it may be this neighbour's silence (RFC 1122 3.3.1.4, negative advice). */
void neigh_doubt(struct netif *nif, const struct addr *next);

#define NEIGH_SOLICITED 1  /* it answered us */
#define NEIGH_OVERRIDE 2   /* replace an address that we have */
#define NEIGH_CREATE 4     /* note it although we did not ask */
#define NEIGH_IS_ROUTER 8  /* it says that it is one */
#define NEIGH_NO_ROUTER 16 /* it says that it is none */
/* Heard: `addr` is at `mac` (NULL: it did not say). */
void neigh_learn(struct netif *nif, const struct addr *addr, const uint8_t *mac, unsigned flags);
/* NEIGH_* of api.h; NEIGH_NONE: no entry. */
unsigned neigh_state(struct netif *nif, const struct addr *addr);

/* Ask on the wire. mac NULL: everybody (ARP broadcast, solicited-node multicast). */
void arp_request(struct netif *nif, const struct addr *target, const uint8_t *mac);
void nd_solicit(struct netif *nif, const struct addr *target, const uint8_t *mac);
/* Ask, in nobody's name, whether the address is free (RFC 5227 2.1.1, RFC 4862 5.4.2). */
void arp_probe(struct netif *nif, const struct addr *target);
void nd_probe(struct netif *nif, const struct addr *target, uint64_t nonce);
/* Say unasked that the address is ours (RFC 5227 2.3; RFC 9131 6.1.2, override: RFC 4861 7.2.6). */
void arp_announce(struct netif *nif, const struct addr *own);
void nd_announce(struct netif *nif, const struct addr *own, bool override);
/* A message of neighbour discovery: `body` follows the 8 bytes of type, code, checksum and flags. */
void nd_send(struct netif *nif, unsigned type, uint32_t flags, const struct addr *src, const struct addr *dst,
             const uint8_t *body, uint32_t len);
/* Do the options from offset `from` on fill a message of len bytes? Then the first of a type, or NULL. */
bool nd_options_ok(const uint8_t *d, uint32_t from, uint32_t len);
const uint8_t *nd_option(const uint8_t *d, uint32_t from, uint32_t len, unsigned type);
/* A router's advertisement, valid as far as RFC 4861 6.1.2 goes. */
void router_input(struct netif *nif, const uint8_t *d, uint32_t len, const struct addr *src);

#endif
