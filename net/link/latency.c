/* How long frames travel: a delay that is the same for all, and jitter, distributed in one of three ways (JITTER_*).
 * Integers only, so that a seed means the same on every machine.
 *
 *   uniform  delay + [0, jitter)
 *   normal   mean delay, standard deviation jitter; never less than 0
 *   pareto   delay + a heavy tail of mean jitter: more than k * jitter in one of (1 + k)^2 frames, up to k = 1023 */
#include "net/link/latency.h"

#define ONE (1ull << 32)      /* 1.0 in fixed point */
#define TAIL_MAX (1ull << 44) /* draws below it, one of 2^20, count as this: 2^32 / sqrt(2^44) = 1024 */

__extension__ typedef __int128 wide;

/* How many of 64 coins show heads is normal but for its steps; a part of a step is drawn to fill them. In 32.32, with
 * mean 0 and variance 1: 64 coins have a variance of 16, the part adds 1/12. */
static int64_t normal(struct rng *rng)
{
    int64_t heads = __builtin_popcountll(rng_next(rng));
    int64_t steps = (heads - 32) * (int64_t)ONE + (int64_t)(rng_next(rng) >> 32) - (int64_t)(ONE / 2);
    return (int64_t)((wide)steps * 1000 / 4010); /* sqrt(16 + 1/12) = 4.0104 */
}

static uint64_t square_root(uint64_t v)
{
    uint64_t root = 0;
    for (uint64_t bit = 1ull << 31; bit; bit >>= 1)
        if ((root | bit) * (root | bit) <= v)
            root |= bit;
    return root;
}

/* 1 / sqrt(u), u uniform on (0, 1], is Pareto's of shape 2 and mean 2; less 1, it begins at 0. In 32.32. */
static uint64_t pareto(struct rng *rng)
{
    uint64_t draw = rng_next(rng);
    uint64_t root = square_root(draw < TAIL_MAX ? TAIL_MAX : draw);
    return (uint64_t)(((wide)ONE << 32) / root) - ONE;
}

uint64_t latency_draw(const struct impairment *how, struct rng *rng)
{
    if (!how->jitter_ns)
        return how->delay_ns;
    wide jitter = how->jitter_ns, delay = how->delay_ns, travel;
    switch (how->distribution) {
    case JITTER_NORMAL:
        travel = delay + ((jitter * normal(rng)) >> 32);
        return travel > 0 ? (uint64_t)travel : 0;
    case JITTER_PARETO:
        return (uint64_t)(delay + ((jitter * pareto(rng)) >> 32));
    default:
        return how->delay_ns + rng_next(rng) % how->jitter_ns;
    }
}
