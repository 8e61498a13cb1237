/* A running 64-bit digest of what happened: two runs that did the same have the same one, on any machine. Not against
 * who tries to make two that are equal; against chance. Words are taken as little-endian. */
#ifndef LIBOS_DIGEST_H
#define LIBOS_DIGEST_H

#include <stddef.h>
#include <stdint.h>

/* Both halves of the 128-bit product. */
static inline uint64_t digest_fold(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t digest_words(uint64_t state, uint64_t a, uint64_t b)
{
    return (state << 29 | state >> 35) + digest_fold(state ^ a ^ 0x8bb84b93962eacc9u, b ^ 0x2d358dccaa6c78a5u);
}

/* In pieces it is the same only if all but the last are multiples of DIGEST_BLOCK. */
#define DIGEST_BLOCK 64
uint64_t digest_bytes(uint64_t state, const uint8_t *data, size_t len);

#endif
