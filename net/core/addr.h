/* An IP address of either family in 16 bytes: IPv4 stands as ::ffff:a.b.c.d (RFC 4291 2.5.5.2), so that routes,
 * neighbours and sockets have one kind of key. A link-local address means something on one link only (RFC 4007): where
 * the link does not follow from who holds the address (sockets, packets, paths), its zone says which. */
#ifndef LIBOS_ADDR_H
#define LIBOS_ADDR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct addr {
    uint8_t b[16];
    uint32_t zone; /* of a link-local address of IPv6: the interface's index; 0: none, or not known */
};

static inline struct addr addr_from(const uint8_t *p)
{
    struct addr a = {.zone = 0};
    memcpy(a.b, p, 16);
    return a;
}
static inline struct addr addr_from4(const uint8_t *p)
{
    struct addr a = {.b = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}};
    memcpy(a.b + 12, p, 4);
    return a;
}
/* Whatever the zones: for who knows the link anyhow. */
static inline bool addr_eq(const struct addr *a, const struct addr *b) { return memcmp(a, b, 16) == 0; }
static inline bool addr_is4(const struct addr *a)
{
    static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(a->b, prefix, 12) == 0;
}
static inline const uint8_t *addr_v4(const struct addr *a) { return a->b + 12; }
/* 0.0.0.0 or ::. */
static inline bool addr_is_any(const struct addr *a)
{
    static const uint8_t zero[16];
    return memcmp(a->b, zero, 16) == 0 || (addr_is4(a) && memcmp(a->b + 12, zero, 4) == 0);
}
static inline bool addr_is_multicast(const struct addr *a)
{
    return addr_is4(a) ? (a->b[12] & 0xf0) == 0xe0 : a->b[0] == 0xff;
}
/* ff01::1, ff02::1: every host is in these. */
static inline bool addr_is_all_nodes(const struct addr *a)
{
    static const uint8_t rest[14] = {[13] = 1};
    return a->b[0] == 0xff && (a->b[1] == 1 || a->b[1] == 2) && memcmp(a->b + 2, rest, 14) == 0;
}
static inline bool addr_is_broadcast(const struct addr *a)
{
    static const uint8_t ones[4] = {255, 255, 255, 255};
    return addr_is4(a) && memcmp(a->b + 12, ones, 4) == 0;
}
static inline bool addr_is_loopback(const struct addr *a)
{
    static const uint8_t one[16] = {[15] = 1};
    return addr_is4(a) ? a->b[12] == 127 : memcmp(a->b, one, 16) == 0;
}
static inline bool addr_is_linklocal6(const struct addr *a) { return a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80; }
/* The same address on the same link; an unknown zone is any. */
static inline bool addr_same(const struct addr *a, const struct addr *b)
{
    return addr_eq(a, b) && (a->zone == b->zone || !a->zone || !b->zone);
}
static inline struct addr addr_in_zone(struct addr a, uint32_t ifindex)
{
    a.zone = addr_is_linklocal6(&a) ? ifindex : 0;
    return a;
}
/* An address that can be the source of a packet that deserves an answer. */
static inline bool addr_is_unicast(const struct addr *a)
{
    return !addr_is_any(a) && !addr_is_multicast(a) && !addr_is_broadcast(a);
}
/* Do the first `bits` of 128 agree? */
static inline bool addr_match(const struct addr *a, const struct addr *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a->b, b->b, whole) != 0)
        return false;
    return rest == 0 || ((a->b[whole] ^ b->b[whole]) >> (8 - rest)) == 0;
}
/* How many leading bits they have in common. */
static inline unsigned addr_common_bits(const struct addr *a, const struct addr *b)
{
    for (unsigned i = 0; i < 16; i++)
        if (a->b[i] != b->b[i])
            return 8 * i + (unsigned)__builtin_clz((unsigned)(a->b[i] ^ b->b[i])) - 24;
    return 128;
}
/* Zero all but the first `bits`. */
static inline void addr_truncate(struct addr *a, unsigned bits)
{
    for (unsigned i = bits; i < 128; i++)
        a->b[i / 8] &= (uint8_t)~(0x80u >> i % 8);
}
/* ff02::1:ffXX:XXXX, where neighbours ask for an address (RFC 4291 2.7.1). */
static inline struct addr addr_solicited_node(const struct addr *a)
{
    struct addr m = {.b = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a->b[13], a->b[14], a->b[15]}};
    return m;
}

#endif
