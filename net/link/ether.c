/* Ethernet II framing: which frames are for us, and for whom above. */
#include "net/core/wire.h"
#include "net/link/link.h"
#include "net/link/vlan.h"
#include "net/stack.h"

void ether_input(struct link *l, struct pbuf *p, uint64_t now)
{
    struct netif *nif = l->upper;
    struct stack *s = nif->stack;
    stack_set_now(s, now);
    if (p->len < ETH_HLEN) {
        count(s, C_EthInErrors);
        pbuf_free(&s->pool, p);
        return;
    }
    const uint8_t *eth = pbuf_data(p);
    bool group = eth[ETH_DST] & 1;
    if (!group && memcmp(eth + ETH_DST, l->mac, 6) != 0) { /* for somebody else on a shared wire */
        pbuf_free(&s->pool, p);
        return;
    }
    if (group)
        p->flags |= PBUF_GROUP;
    unsigned type = get16(eth + ETH_TYPE);
    if (type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ) {
        if (!(p = vlan_input(nif, p)))
            return;
        eth = pbuf_data(p);
    }
    pbuf_pull(p, ETH_HLEN);
    switch (get16(eth + ETH_TYPE)) {
    case ETHERTYPE_IP4:
        ip4_input(nif, p);
        break;
    case ETHERTYPE_IP6:
        ip6_input(nif, p);
        break;
    case ETHERTYPE_ARP:
        arp_input(nif, p);
        break;
    default:
        count(s, C_EthInErrors);
        pbuf_free(&s->pool, p);
    }
}

void ether_output(struct netif *nif, const uint8_t *dst_mac, unsigned ethertype, struct pbuf *p)
{
    uint8_t *eth = pbuf_push(p, ETH_HLEN);
    memcpy(eth + ETH_DST, dst_mac, 6);
    memcpy(eth + ETH_SRC, nif->link->mac, 6);
    put16(eth + ETH_TYPE, ethertype);
    if (p->flags & PBUF_CSUM_PARTIAL)
        p->csum_start += ETH_HLEN;
    link_xmit(nif->link, p, nif->stack->now);
}
