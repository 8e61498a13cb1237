/* The Internet checksum (RFC 1071): a running 16-bit one's-complement sum of big-endian words. */
#ifndef LIBOS_CHECKSUM_H
#define LIBOS_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#include "net/core/addr.h"
#include "net/core/pbuf.h"

/* Adds len bytes to a partial sum (not folded, not inverted). An odd length only at the end of the data. */
uint64_t csum_add(uint64_t sum, const uint8_t *data, size_t len);
uint16_t csum_fold(uint64_t sum); /* to 16 bits, not inverted */
static inline uint16_t csum_finish(uint64_t sum) { return (uint16_t)~csum_fold(sum); }
/* The pseudo header of TCP, UDP and ICMPv6 (RFC 9293 3.1, RFC 8200 8.1). */
uint64_t csum_pseudo(const struct addr *src, const struct addr *dst, unsigned proto, uint32_t len);
/* Over a packet's bytes from off to its end, across frags. */
uint64_t csum_pbuf(uint64_t sum, const struct pbuf *p, uint32_t off);

#endif
