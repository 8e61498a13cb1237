/* Who may have which port: the rules of bind(2) as Linux has them, and the choice of ephemeral ports (RFC 6056 3.3.1).
 *
 * Two sockets of a protocol clash on a port if there is an address that both would hear, unless they may share it: both
 * with SO_REUSEADDR, and the older one does not listen; or both with SO_REUSEPORT. What counts is not only who is bound
 * but also every connection on the port, in TIME-WAIT too: that is what a server sets SO_REUSEADDR for. A connection of
 * our own that gets its port by itself shares it with others as long as the far ends differ. */
#include <sys/socket.h>

#include "net/sock.h"
#include "net/tcp/tcp.h"

#define EPHEMERAL_FIRST 32768u
#define EPHEMERAL_COUNT 28232u /* to 60999, as Linux has it */

/* Is there an address that both hear, k bound to addr? */
static bool overlap(const struct sock *k, const struct addr *addr, const struct sock *o)
{
    const struct addr *other = &o->local;
    bool mine4 = addr_is4(addr), other4 = addr_is4(other), mine_any = addr_is_any(addr), other_any = addr_is_any(other);
    if (mine4 == other4)
        return mine_any || other_any || addr_same(addr, other);
    /* One of IPv4, one of IPv6: then only :: hears both (ipv6(7), IPV6_V6ONLY). */
    return mine4 ? other_any && !o->v6only : mine_any && !k->v6only;
}

static bool may_share(const struct sock *k, const struct sock *o)
{
    bool listens = o->type == SOCK_STREAM && ((const struct tcp *)o)->state == LISTEN;
    return (k->reuseaddr && o->reuseaddr && !listens) || (k->reuseport && o->reuseport);
}

static bool clash(const struct sock *k, const struct addr *addr, unsigned port, const struct sock *o, bool share)
{
    return o != k && o->lport == port && o->type == k->type && overlap(k, addr, o) && !(share && may_share(k, o));
}

static bool bound_clash(struct stack *s, const struct sock *k, const struct addr *addr, unsigned port, bool share)
{
    for (const struct sock *o = *sock_bound_bucket(s, k->type, port); o; o = o->chain)
        if (clash(k, addr, port, o, share))
            return true;
    return false;
}

/* With the connections, which are in no list by port: rarely is there one where somebody binds. */
static bool any_clash(struct stack *s, const struct sock *k, const struct addr *addr, unsigned port, bool share)
{
    if (bound_clash(s, k, addr, port, share))
        return true;
    if (k->type != SOCK_STREAM || !s->socks->connections[sock_port_bucket(k->type, port)])
        return false;
    for (uint32_t i = 0; i < s->socks->cap; i++) {
        const struct sock *o = s->socks->slots[i];
        if (o && o->hashed == HASHED_CONNECTED && clash(k, addr, port, o, share))
            return true;
    }
    return false;
}

bool sock_port_taken(struct stack *s, const struct sock *k, const struct addr *addr, unsigned port)
{
    return any_clash(s, k, addr, port, true);
}

unsigned sock_pick_port(struct stack *s, const struct sock *k, const struct addr *local, const struct addr *remote,
                        unsigned rport)
{
    unsigned start = rng_below(&s->rng, EPHEMERAL_COUNT), reusable = 0;
    for (unsigned i = 0; i < EPHEMERAL_COUNT; i++) {
        unsigned port = EPHEMERAL_FIRST + (start + i) % EPHEMERAL_COUNT;
        if (remote ? bound_clash(s, k, local, port, false) : any_clash(s, k, local, port, false))
            continue;
        struct sock *old = remote ? sock_lookup_connected(s, k->type, local, port, remote, rport) : NULL;
        if (!old)
            return port;
        if (!reusable && k->type == SOCK_STREAM && tcp_is_reusable(s, old))
            reusable = port;
    }
    return reusable;
}
