/* Tagged frames. See vlan.c. */
#ifndef LIBOS_VLAN_H
#define LIBOS_VLAN_H

#include "net/stack.h"

/* A frame with a tag has come in by nif. Takes p; gives it back, without the tag, if it is nif's own. */
struct pbuf *vlan_input(struct netif *nif, struct pbuf *p);

#endif
