/* Large frames of TCP cut into segments by hand, for links that cannot (LINK_TSO). See segment.c. */
#ifndef LIBOS_SEGMENT_H
#define LIBOS_SEGMENT_H

#include "net/core/pbuf.h"

/* p stands for several segments, and its IP header is l3 bytes into it: see to it that its checksum is partial, as who
 * cuts it needs it, and that its headers are what they seem. 0; -EBADMSG: it cannot be cut. */
int segment_prepare(struct pbuf *p, uint32_t l3);
/* A frame, from its Ethernet header on, as the frames it stands for, behind what is in out. 0; -EBADMSG or -ENOBUFS,
 * and then none. Does not take p. */
int segment_cut(struct pbuf_pool *pool, struct pbuf *p, struct pbuf_queue *out);

#endif
