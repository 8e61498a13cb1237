/* Packets cut into fragments, and the numbers that name them. See frag.c. */
#ifndef LIBOS_FRAG_H
#define LIBOS_FRAG_H

#include "net/stack.h"

/* The next number for packets between two addresses: 32 bits for IPv6, the lower 16 for IPv4. */
uint32_t frag_id(struct stack *s, const struct addr *src, const struct addr *dst, unsigned proto);
/* p starts at the transport header and is too large for path->mtu. Takes p. 0, -ENOBUFS, or -EMSGSIZE where no fragment
 * has room for data. */
int ip_fragment(struct stack *s, const struct path *path, const struct addr *dst, unsigned proto, unsigned ttl,
                struct pbuf *p);
/* p, from its IPv4 header on, is passed on and too large for path->mtu, but may be cut. Takes p. */
void ip4_fragment_further(struct stack *s, const struct path *path, struct pbuf *p);
/* The IP header in front of p. */
void ip_header(const struct path *path, const struct addr *dst, unsigned proto, unsigned ttl, unsigned id, unsigned frag,
               struct pbuf *p);
/* That, and out with it. frag: the field of IPv4, with its flags. Takes p. */
void ip_emit(const struct path *path, const struct addr *dst, unsigned proto, unsigned ttl, unsigned id,
             unsigned frag, struct pbuf *p);

#endif
