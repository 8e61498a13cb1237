/* Packets for others, passed on. See forward.c. */
#ifndef LIBOS_FORWARD_H
#define LIBOS_FORWARD_H

#include "net/stack.h"

/* p, from its IP header on and as long as that says, is for nobody here. Takes p. */
void ip_forward(struct netif *nif, struct pbuf *p, struct ip_meta *m);
/* p, from its IP header on, cannot leave by nif, for its next hop is silent: tell its sender. False: it is our own. */
bool forward_undeliverable(const struct netif *nif, const struct pbuf *p);

#endif
