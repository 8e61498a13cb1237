/* Keyed hashing and random numbers of one stack. Both start from the seed that it was given: the same seed gives the
 * same hashes and draws. SipHash-2-4 (Aumasson and Bernstein, 2012) keys tables that a peer could otherwise flood;
 * splitmix64 (Steele, Lea and Flood, 2014) is the stream of choices. */
#ifndef LIBOS_RNG_H
#define LIBOS_RNG_H

#include <stdint.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
/* 0 to limit - 1. */
static inline uint32_t rng_below(struct rng *r, uint32_t limit)
{
    return (uint32_t)((rng_next(r) >> 32) * limit >> 32);
}

/* words 64-bit words, keyed. */
uint64_t siphash(const uint64_t key[2], const uint64_t *words, unsigned n);

#endif
