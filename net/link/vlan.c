/* Virtual LANs (IEEE 802.1Q): an interface whose frames carry a tag on another interface's link.
 *
 * The tag is put in where the frame leaves, and taken out where it arrives: above, an interface on a VLAN is like any
 * other, with addresses, neighbours and groups of its own. A tag that names no VLAN (0) is a priority alone, and its
 * frame the parent's. A VLAN on a VLAN works, with two tags (whether the outer one is called 802.1Q or 802.1ad does not
 * matter to who receives).
 *
 * Ownership: the parent's link is its stack's, which frees both; the stack never sends while it is freed. */
#include "net/link/vlan.h"

#include <errno.h>
#include <stdlib.h>

#include "net/core/wire.h"

struct vlan {
    struct link link; /* first */
    struct link *parent;
    unsigned id;
};

static void vlan_xmit(struct link *l, struct pbuf *p, uint64_t now)
{
    struct vlan *v = (struct vlan *)l;
    uint8_t *eth = pbuf_push(p, VLAN_HLEN);
    memmove(eth, eth + VLAN_HLEN, ETH_TYPE);
    put16(eth + ETH_TYPE, ETHERTYPE_VLAN);
    put16(eth + ETH_HLEN, v->id);
    if (p->flags & PBUF_CSUM_PARTIAL)
        p->csum_start += VLAN_HLEN;
    link_xmit(v->parent, p, now);
}

static void vlan_run(struct link *l, uint64_t now)
{
    (void)l;
    (void)now;
}

static int vlan_start(struct link *l)
{
    (void)l;
    return 0;
}

static void vlan_free(struct link *l) { free(l); }

static const struct link_ops vlan_ops = {vlan_xmit, vlan_run, link_never_due, vlan_start, vlan_free};

static struct vlan *find(const struct stack *s, const struct link *parent, unsigned id)
{
    for (unsigned i = 0; i < s->nnetifs; i++) {
        struct vlan *v = (struct vlan *)s->netifs[i].link;
        if (v->link.ops == &vlan_ops && v->parent == parent && v->id == id)
            return v;
    }
    return NULL;
}

struct pbuf *vlan_input(struct netif *nif, struct pbuf *p)
{
    struct stack *s = nif->stack;
    uint8_t *eth = pbuf_data(p);
    if (p->len < ETH_HLEN + VLAN_HLEN) {
        count(s, C_EthInErrors);
        pbuf_free(&s->pool, p);
        return NULL;
    }
    unsigned id = get16(eth + ETH_HLEN) & VLAN_ID_MASK;
    struct vlan *v = id ? find(s, nif->link, id) : NULL;
    if (id && !v) {
        count(s, C_EthInUnknownVlans);
        pbuf_free(&s->pool, p);
        return NULL;
    }
    memmove(eth + VLAN_HLEN, eth, ETH_TYPE);
    pbuf_pull(p, VLAN_HLEN);
    if (p->csum_start)
        p->csum_start -= VLAN_HLEN;
    if (!v)
        return p;
    link_deliver(&v->link, p, s->now);
    return NULL;
}

int stack_add_vlan(struct stack *s, int ifindex, unsigned id)
{
    struct netif *nif = netif_of(s, ifindex);
    if (!nif)
        return -ENODEV;
    if (id < 1 || id > 4094 || nif->link->caps & (LINK_LOOPBACK | LINK_NOARP))
        return -EINVAL;
    if (find(s, nif->link, id))
        return -EEXIST;
    struct vlan *v = calloc(1, sizeof *v);
    if (!v)
        return -ENOMEM;
    /* A checksum is filled in wherever it stands; segments are cut by devices that know what is behind a tag. */
    link_init(&v->link, &vlan_ops, nif->link->mtu, nif->link->caps & LINK_CSUM, nif->link->mac);
    v->parent = nif->link;
    v->id = id;
    int index = stack_add_link(s, &v->link);
    if (index < 0)
        link_free(&v->link);
    return index;
}
