/* A learning Ethernet switch (IEEE 802.1D 7), with no wires: a frame that is sent on one port's link is at once in the
 * queues of those it is for. Each port is a link end that a stack takes, or a wire's end; nobody has to drive the switch.
 *
 * It learns where a station is from the source of what it sends, forgets it after the ageing time, and sends what is
 * for it there alone; what is for a group or for a station that it does not know goes to all ports but the one it came
 * from. Addresses that 802.1D keeps for bridges themselves are not passed on. A table of stations is bounded: sets of
 * four, where the one that was silent for longest makes place; the hash is keyed, so that nobody chooses which.
 *
 * A port may be shut towards another (switch_block): a partition, one way, of those that are behind them.
 *
 * It knows nothing of loops (no spanning tree), nor of VLANs: tagged frames pass as they are.
 *
 * Ownership: a port's link is its taker's, which frees it; then the port is vacant, and can be plugged again. The switch
 * itself stays until it is closed and its last port is free. All ports must be driven by one thread. */
#include "net/link/switch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/core/rng.h"
#include "net/core/wire.h"
#include "net/link/segment.h"

#define PORTS_MAX 65536

/* --- who is where ------------------------------------------------------------------------------------------------- */

static struct station *set_of(struct ether_switch *sw, const uint8_t *mac)
{
    uint64_t word = 0;
    memcpy(&word, mac, ETH_ALEN);
    return sw->stations[siphash(sw->key, &word, 1) & (sw->nsets - 1)];
}

static bool is_fresh(const struct ether_switch *sw, const struct station *s, uint64_t now)
{
    return s->seen && now - s->seen < sw->ageing;
}

static void learn(struct ether_switch *sw, const uint8_t *mac, unsigned port, uint64_t now)
{
    struct station *set = set_of(sw, mac), *oldest = set;
    for (unsigned i = 0; i < SWITCH_WAYS; i++) {
        if (set[i].seen && memcmp(set[i].mac, mac, ETH_ALEN) == 0) {
            oldest = &set[i];
            break;
        }
        if (set[i].seen < oldest->seen)
            oldest = &set[i];
    }
    if (is_fresh(sw, oldest, now) && memcmp(oldest->mac, mac, ETH_ALEN) != 0)
        sw->evicted++;
    memcpy(oldest->mac, mac, ETH_ALEN);
    oldest->port = (uint16_t)port;
    oldest->seen = now ? now : 1;
}

/* Its port, or NULL: not known, not any more, or nobody is there now. */
static struct switch_port *find(struct ether_switch *sw, const uint8_t *mac, uint64_t now)
{
    struct station *set = set_of(sw, mac);
    for (unsigned i = 0; i < SWITCH_WAYS; i++)
        if (is_fresh(sw, &set[i], now) && memcmp(set[i].mac, mac, ETH_ALEN) == 0)
            return &sw->ports[set[i].port];
    return NULL;
}

static void forget_port(struct ether_switch *sw, unsigned port)
{
    for (unsigned i = 0; i < sw->nsets; i++)
        for (unsigned j = 0; j < SWITCH_WAYS; j++)
            if (sw->stations[i][j].port == port)
                sw->stations[i][j].seen = 0;
}

/* --- partitions ---------------------------------------------------------------------------------------------------- */

static bool is_shut(const struct switch_port *from, unsigned to) { return from->shut[to / 64] >> to % 64 & 1; }

static void shut(struct switch_port *from, unsigned to, bool blocked)
{
    uint64_t bit = (uint64_t)1 << to % 64;
    if (blocked)
        from->shut[to / 64] |= bit;
    else
        from->shut[to / 64] &= ~bit;
}

/* Nobody is cut off from whoever comes next. */
static void open_port(struct ether_switch *sw, unsigned port)
{
    free(sw->ports[port].shut);
    sw->ports[port].shut = NULL;
    for (unsigned i = 0; i < sw->nports; i++)
        if (sw->ports[i].shut)
            shut(&sw->ports[i], port, false);
}

/* --- a frame's way ------------------------------------------------------------------------------------------------ */

static void put(struct switch_port *to, const struct pbuf *p)
{
    uint32_t len = pbuf_total(p);
    struct link *l = &to->link;
    bool fits = p->gso_size || len <= l->mtu + ETH_HLEN + VLAN_HLEN;
    struct pbuf *copy = l->pool && fits && to->in.count < to->limit ? link_carry(l->pool, p) : NULL;
    if (!copy) {
        to->stats.dropped++;
        return;
    }
    to->stats.out_packets++;
    to->stats.out_bytes += len;
    queue_push(&to->in, copy);
    if (l->poller) {
        l->poller->kicked = 1;
        poller_wake(l->poller);
    }
}

/* What stands for several segments reaches a port that takes none such as these. */
static void send_to(struct switch_port *to, struct switch_port *from, struct pbuf *p)
{
    struct pbuf_queue cut = {0};
    if (from->shut && is_shut(from, (unsigned)(to - to->sw->ports))) {
        to->stats.blocked++;
        return;
    }
    if (!p->gso_size || to->link.caps & LINK_LRO) {
        put(to, p);
        return;
    }
    if (segment_cut(from->link.pool, p, &cut) < 0)
        to->stats.dropped++;
    for (const struct pbuf *f = cut.head; f; f = f->next)
        put(to, f);
    queue_clear(from->link.pool, &cut);
}

static void flood(struct switch_port *from, struct pbuf *p)
{
    struct ether_switch *sw = from->sw;
    from->stats.flooded++;
    for (unsigned i = 0; i < sw->nports; i++)
        if (sw->ports[i].plugged && &sw->ports[i] != from)
            send_to(&sw->ports[i], from, p);
}

static void port_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    static const uint8_t reserved[5] = {0x01, 0x80, 0xc2, 0, 0}; /* to ...:0f (IEEE 802.1D 7.12.6) */
    struct switch_port *from = (struct switch_port *)l, *to;
    struct ether_switch *sw = from->sw;
    uint8_t eth[ETH_HLEN];
    from->stats.in_packets++;
    from->stats.in_bytes += pbuf_total(p);
    bool whole = pbuf_copy(p, 0, eth, ETH_HLEN) == ETH_HLEN;
    if (whole && !(eth[ETH_SRC] & 1)) /* a group sends nothing */
        learn(sw, eth + ETH_SRC, (unsigned)(from - sw->ports), now);
    if (!whole || (memcmp(eth + ETH_DST, reserved, 5) == 0 && eth[5] < 16))
        from->stats.filtered++;
    else if (eth[ETH_DST] & 1 || !(to = find(sw, eth + ETH_DST, now)))
        flood(from, p);
    else if (to == from) /* it has heard it already */
        from->stats.filtered++;
    else
        send_to(to, from, p);
    pbuf_free(l->pool, p);
}

/* --- the link ------------------------------------------------------------------------------------------------------ */

static void port_run(struct link *l, uint64_t now)
{
    struct switch_port *port = (struct switch_port *)l;
    /* Only what is here now: what the deliveries provoke has its turn in the next run. */
    for (uint32_t n = port->in.count; n; n--)
        link_deliver(l, queue_pop(&port->in), now);
}

static uint64_t port_due(const struct link *l)
{
    return ((const struct switch_port *)l)->in.count ? 0 : REACTOR_NEVER;
}

static int port_start(struct link *l)
{
    (void)l;
    return 0;
}

static void free_if_done(struct ether_switch *sw)
{
    if (!sw->closed || sw->plugged)
        return;
    free(sw->stations);
    free(sw->ports);
    free(sw);
}

static void port_free(struct link *l)
{
    struct switch_port *port = (struct switch_port *)l;
    struct ether_switch *sw = port->sw;
    if (l->pool)
        queue_clear(l->pool, &port->in);
    l->pool = NULL;
    port->plugged = false;
    sw->plugged--;
    forget_port(sw, (unsigned)(port - sw->ports));
    open_port(sw, (unsigned)(port - sw->ports));
    free_if_done(sw);
}

static const struct link_ops port_ops = {port_xmit, port_run, port_due, port_start, port_free};

/* --- the calls (api.h) --------------------------------------------------------------------------------------------- */

int switch_new(struct ether_switch **out, unsigned ports, unsigned stations, uint64_t ageing, const uint64_t seed[2])
{
    if (!ports || ports > PORTS_MAX || !stations || stations > 1u << 24)
        return -EINVAL;
    struct ether_switch *sw = calloc(1, sizeof *sw);
    if (!sw)
        return -ENOMEM;
    memcpy(sw->key, seed, sizeof sw->key);
    sw->ageing = ageing;
    sw->nports = ports;
    for (sw->nsets = 1; sw->nsets * SWITCH_WAYS < stations;)
        sw->nsets *= 2;
    sw->ports = calloc(ports, sizeof *sw->ports);
    sw->stations = calloc(sw->nsets, sizeof *sw->stations);
    if (!sw->ports || !sw->stations) {
        sw->closed = true;
        free_if_done(sw);
        return -ENOMEM;
    }
    *out = sw;
    return 0;
}

void switch_free(struct ether_switch *sw)
{
    sw->closed = true;
    free_if_done(sw);
}

int switch_plug(struct ether_switch *sw, struct link **out, unsigned mtu, unsigned caps, const uint8_t *mac,
                unsigned queue)
{
    unsigned i = 0;
    while (i < sw->nports && sw->ports[i].plugged)
        i++;
    if (i == sw->nports)
        return -ENOSPC;
    struct switch_port *port = &sw->ports[i];
    *port = (struct switch_port){.sw = sw, .limit = queue, .plugged = true, .stats = port->stats};
    link_init(&port->link, &port_ops, mtu, caps, mac);
    sw->plugged++;
    *out = &port->link;
    return (int)i;
}

int switch_block(struct ether_switch *sw, unsigned from, unsigned to, int blocked)
{
    if (from >= sw->nports || to >= sw->nports || !sw->ports[from].plugged || !sw->ports[to].plugged)
        return -EINVAL;
    struct switch_port *port = &sw->ports[from];
    if (!port->shut && blocked && !(port->shut = calloc((sw->nports + 63) / 64, sizeof *port->shut)))
        return -ENOMEM;
    if (port->shut)
        shut(port, to, blocked);
    return 0;
}

int switch_port_stats(struct ether_switch *sw, unsigned port, struct switch_stats *out)
{
    if (port >= sw->nports)
        return -EINVAL;
    *out = sw->ports[port].stats;
    return 0;
}

int switch_station(struct ether_switch *sw, const uint8_t *mac, uint64_t now)
{
    const struct switch_port *port = find(sw, mac, now);
    return port ? (int)(port - sw->ports) : -ENOENT;
}

uint64_t switch_evicted(struct ether_switch *sw) { return sw->evicted; }
