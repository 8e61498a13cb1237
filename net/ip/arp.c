/* ARP for Ethernet and IPv4 (RFC 826): questions out, answers in both directions; and what RFC 5227 says with it. */
#include "net/ip/neigh.h"
#include "net/core/wire.h"

/* to_mac NULL: everybody. tha NULL: not known. */
static void arp_send(struct netif *nif, unsigned op, const uint8_t *to_mac, const uint8_t *spa, const uint8_t *tha,
                     const uint8_t *tpa)
{
    static const uint8_t everybody[6] = {255, 255, 255, 255, 255, 255};
    struct pbuf *p = pbuf_alloc(&nif->stack->pool, PBUF_HEADROOM + ETH_HLEN, ARP_LEN);
    if (!p)
        return;
    uint8_t *a = pbuf_data(p);
    p->len = ARP_LEN;
    put16(a + ARP_HTYPE, 1);
    put16(a + ARP_PTYPE, ETHERTYPE_IP4);
    a[ARP_HLEN] = 6;
    a[ARP_PLEN] = 4;
    put16(a + ARP_OP, op);
    memcpy(a + ARP_SHA, nif->link->mac, 6);
    memcpy(a + ARP_SPA, spa, 4);
    memset(a + ARP_THA, 0, 6);
    if (tha)
        memcpy(a + ARP_THA, tha, 6);
    memcpy(a + ARP_TPA, tpa, 4);
    ether_output(nif, to_mac ? to_mac : everybody, ETHERTYPE_ARP, p);
}

void arp_request(struct netif *nif, const struct addr *target, const uint8_t *mac)
{
    const struct addr *own = netif_source(nif, target);
    if (own)
        arp_send(nif, ARP_REQUEST, mac, addr_v4(own), NULL, addr_v4(target));
}

void arp_probe(struct netif *nif, const struct addr *target)
{
    static const uint8_t nobody[4];
    arp_send(nif, ARP_REQUEST, NULL, nobody, NULL, addr_v4(target));
}

void arp_announce(struct netif *nif, const struct addr *own)
{
    arp_send(nif, ARP_REQUEST, NULL, addr_v4(own), NULL, addr_v4(own));
}

void arp_input(struct netif *nif, struct pbuf *p)
{
    struct stack *s = nif->stack;
    const uint8_t *a = pbuf_data(p);
    if (p->len < ARP_LEN || get16(a + ARP_HTYPE) != 1 || get16(a + ARP_PTYPE) != ETHERTYPE_IP4 || a[ARP_HLEN] != 6 ||
        a[ARP_PLEN] != 4 || a[ARP_SHA] & 1) { /* a group is nobody's address; an answer to it would go to everybody */
        count(s, C_ArpInErrors);
        pbuf_free(&s->pool, p);
        return;
    }
    struct addr sender = addr_from4(a + ARP_SPA), target = addr_from4(a + ARP_TPA);
    unsigned op = get16(a + ARP_OP);
    bool for_us = netif_has(nif, &target), ours = memcmp(a + ARP_SHA, nif->link->mac, 6) == 0;
    struct netif_addr *claimed = netif_find(nif, &sender), *asked = netif_find(nif, &target);
    if (ours) { /* our own, come back */
        pbuf_free(&s->pool, p);
        return;
    }
    if (claimed) { /* who claims to be us is not believed */
        detect_conflict(nif, claimed, a + ARP_SHA, false);
        pbuf_free(&s->pool, p);
        return;
    }
    /* Who asks us is worth noting, for the answer that will follow; an announcement updates what we have, no more. */
    if (addr_is_unicast(&sender)) {
        bool answer = op == ARP_REPLY && for_us, question = op == ARP_REQUEST && for_us;
        neigh_learn(nif, &sender, a + ARP_SHA,
                    NEIGH_OVERRIDE | (answer ? NEIGH_SOLICITED : 0) | (question ? NEIGH_CREATE : 0));
    } else if (addr_is_any(&sender) && op == ARP_REQUEST && asked) {
        detect_conflict(nif, asked, a + ARP_SHA, true); /* RFC 5227 2.1.1: two want it at the same time */
        for_us = netif_has(nif, &target);
    }
    if (op == ARP_REQUEST && for_us)
        arp_send(nif, ARP_REPLY, a + ARP_SHA, addr_v4(&target), a + ARP_SHA, a + ARP_SPA);
    pbuf_free(&s->pool, p);
}
