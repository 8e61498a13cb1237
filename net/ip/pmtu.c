/* Path MTUs that are less than the link's (RFC 1191 6.3, RFC 8201 5.3): per destination, bounded, and forgotten after
 * ten minutes, for paths change. What a transport has made sure of is noted here; who sends to the same address next
 * begins with it. Made when the first one is noted: most stacks never need it.
 *
 * A set of four entries for each hash: the one that is forgotten next makes place. The hash is keyed, so that nobody
 * chooses who that is. */
#include <stdlib.h>

#include "net/core/wire.h"
#include "net/stack.h"

#define SETS 64u
#define WAYS 4u

struct pmtu_table {
    struct pmtu {
        struct addr dst;
        uint32_t mtu;
        uint64_t until;
    } sets[SETS][WAYS];
};

static struct pmtu *set_of(struct stack *s, const struct addr *dst)
{
    uint64_t words[2];
    memcpy(words, dst->b, 16);
    return s->pmtus->sets[siphash(s->key, words, 2) % SETS];
}

static struct pmtu *find(struct stack *s, const struct addr *dst)
{
    if (!s->pmtus)
        return NULL;
    struct pmtu *set = set_of(s, dst);
    for (unsigned i = 0; i < WAYS; i++)
        if (set[i].until > s->now && addr_eq(&set[i].dst, dst))
            return &set[i];
    return NULL;
}

uint32_t path_mtu_via(struct stack *s, const struct path *path, const struct addr *dst)
{
    const struct pmtu *e = find(s, dst);
    return e && e->mtu < path->mtu ? e->mtu : path->mtu;
}

uint32_t path_mtu(struct stack *s, const struct addr *dst)
{
    struct path path;
    return route_find(s, dst, NULL, &path) ? path_mtu_via(s, &path, dst) : 0;
}

uint32_t path_mtu_least(const struct addr *dst) { return addr_is4(dst) ? IP4_PATH_MTU_LEAST : IP6_MIN_MTU; }

uint32_t path_mtu_note(struct stack *s, const struct addr *dst, uint32_t mtu)
{
    uint32_t least = path_mtu_least(dst);
    mtu = mtu < least ? least : mtu;
    if (!s->pmtus && !(s->pmtus = calloc(1, sizeof *s->pmtus)))
        return mtu; /* then only who asked knows */
    struct pmtu *e = find(s, dst), *set = set_of(s, dst);
    if (!e) {
        e = set;
        for (unsigned i = 1; i < WAYS; i++)
            if (set[i].until < e->until)
                e = &set[i];
        if (e->until > s->now)
            count(s, C_IpExtPathMtuEvicted);
    }
    *e = (struct pmtu){*dst, mtu, s->now + PATH_MTU_LIFE};
    return mtu;
}
