/* How long frames travel. See latency.c. */
#ifndef LIBOS_LATENCY_H
#define LIBOS_LATENCY_H

#include "net/core/rng.h"
#include "net/link/link.h"

/* One frame's time on the way, ns. Draws only if there is jitter. */
uint64_t latency_draw(const struct impairment *how, struct rng *rng);

#endif
