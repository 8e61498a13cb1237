/* Fragments put together again. See reass.c. */
#ifndef LIBOS_REASS_H
#define LIBOS_REASS_H

#include "net/stack.h"

/* What a fragment's header says of its place. */
struct fragment {
    uint32_t id;
    uint32_t off;     /* of its first byte, in the datagram */
    uint16_t next_at; /* IPv6: where the field stands that named the fragment header, from the IP header */
    uint8_t proto;    /* what is in the datagram; IPv6: what this fragment says of it */
    bool more;
};

void reass_free(struct stack *s);

/* p's window is the fragment's data; m is of its packet. Takes p. The whole packet, its window behind the IP header
 * (and the extension headers before the fragments'), m and its IP header changed to fit; or NULL: not complete, or
 * dropped. */
struct pbuf *reass_input(struct stack *s, struct pbuf *p, struct ip_meta *m, const struct fragment *f);

#endif
