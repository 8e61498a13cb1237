/* What the files of ICMP have in common. */
#ifndef LIBOS_ICMP_H
#define LIBOS_ICMP_H

#include "net/core/wire.h"
#include "net/stack.h"

/* Sends a message: its type, code and second word from head, then len bytes; the checksum is made here. */
void icmp_send(struct stack *s, const struct addr *src, const struct addr *dst, const uint8_t head[ICMP_HLEN],
               const uint8_t *body, uint32_t len);

#endif
