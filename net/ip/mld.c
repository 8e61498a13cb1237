/* The messages of multicast listener discovery, versions 1 and 2 (RFC 2710, RFC 3810). What they mean is group.c's. */
#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/ip/group.h"
#include "net/ip/icmp.h"

#define MLD_DELAY 4
#define MLD_GROUP 8
#define MLD1_LEN 24
#define MLD2_RECORDS 6
#define MLD2_QRV 24
#define MLD2_QQIC 25
#define MLD2_SOURCES 26
#define MLD2_QUERY_HLEN 28
#define ALERT_HLEN 8

static const uint8_t router_alert[4] = {5, 2, 0, 0}; /* RFC 2711: this is MLD */

/* RFC 3810 5.1.3: a number that has an exponent from 32768 on. */
static unsigned float16(unsigned v) { return v < 32768 ? v : ((v & 0xfff) | 0x1000) << ((v >> 12 & 7) + 3); }

/* p starts at the message. Takes p. */
static void send(struct netif *nif, const struct addr *to, struct pbuf *p)
{
    static const struct addr nobody; /* RFC 3590: until there is a link-local address */
    struct stack *s = nif->stack;
    const struct addr *from = netif_linklocal(nif);
    struct path path = {.nif = nif, .src = from ? *from : nobody, .next = *to, .mtu = netif_mtu(nif, false)};
    uint8_t *d = pbuf_data(p);
    put16(d + ICMP_CSUM, 0);
    put16(d + ICMP_CSUM, csum_finish(csum_add(csum_pseudo(&path.src, to, PROTO_ICMP6, p->len), d, p->len)));
    uint8_t *h = pbuf_push(p, ALERT_HLEN);
    memset(h, 0, ALERT_HLEN);
    h[0] = PROTO_ICMP6;
    memcpy(h + 2, router_alert, 4);
    h[6] = 1; /* PadN, of nothing */
    count(s, C_IcmpOutMsgs);
    ip_output(s, &path, to, PROTO_HOPOPTS, 1, p);
}

void mld_send_report(struct netif *nif, struct pbuf *p, unsigned records)
{
    static const struct addr routers = {.b = {0xff, 2, [15] = 0x16}};
    uint8_t *d = pbuf_data(p);
    memset(d, 0, GROUP_REPORT_HLEN);
    d[ICMP_TYPE] = ICMP6_MLD2_REPORT;
    put16(d + MLD2_RECORDS, records);
    send(nif, &routers, p);
}

void mld_send_old(struct netif *nif, const struct addr *group, bool leave)
{
    static const struct addr routers = {.b = {0xff, 2, [15] = 2}};
    struct pbuf *p = pbuf_alloc(&nif->stack->pool, PBUF_HEADROOM + ETH_HLEN + IP6_HLEN + ALERT_HLEN, MLD1_LEN);
    if (!p)
        return;
    uint8_t *d = pbuf_data(p);
    p->len = MLD1_LEN;
    memset(d, 0, MLD1_LEN);
    d[ICMP_TYPE] = leave ? ICMP6_MLD1_DONE : ICMP6_MLD1_REPORT;
    memcpy(d + MLD_GROUP, group->b, 16);
    send(nif, leave ? &routers : group, p);
}

/* RFC 3810 6.2 and 5.2.13 make all three a must: it came from this link, and by a router that wants to be heard. */
static bool is_from_link(const struct pbuf *p, const struct ip_meta *m)
{
    const uint8_t *ip = p->base + m->ip_off;
    if (!addr_is_linklocal6(&m->src) || ip[IP6_HOPS] != 1 || ip[IP6_NEXT] != PROTO_HOPOPTS)
        return false;
    const uint8_t *h = ip + IP6_HLEN, *end = h + (h[1] + 1u) * 8; /* ip6_walk() has been here: it is sound */
    for (const uint8_t *o = h + 2; o < end; o += o[0] == IP6_OPT_PAD1 ? 1 : 2 + o[1])
        if (o[0] == router_alert[0] && memcmp(o, router_alert, 4) == 0)
            return true;
    return false;
}

void mld_input(struct stack *s, const struct pbuf *p, const struct ip_meta *m)
{
    const uint8_t *d = pbuf_data(p);
    if (p->len < MLD1_LEN || !is_from_link(p, m)) {
        count(s, C_IcmpInErrors);
        return;
    }
    struct addr group = addr_from(d + MLD_GROUP);
    if (d[ICMP_TYPE] == ICMP6_MLD1_REPORT) {
        group_reported(m->nif, &group);
        return;
    }
    if (d[ICMP_TYPE] != ICMP6_MLD_QUERY)
        return;
    struct group_query q = {.group = group, .version = GROUP_V2, .max_delay = get16(d + MLD_DELAY) * (uint64_t)MSEC};
    if (p->len >= MLD2_QUERY_HLEN) { /* RFC 3810 8.1: told apart by length */
        q.version = GROUP_V3;
        q.max_delay = float16(get16(d + MLD_DELAY)) * (uint64_t)MSEC;
        q.nsources = get16(d + MLD2_SOURCES);
        q.sources = d + MLD2_QUERY_HLEN;
        q.robustness = d[MLD2_QRV] & 7;
        q.interval = group_float8(d[MLD2_QQIC]) * (uint64_t)SECOND;
    } else if (p->len != MLD1_LEN) {
        return;
    }
    bool general = addr_is_any(&group);
    if ((q.version == GROUP_V3 && q.nsources > (p->len - MLD2_QUERY_HLEN) / 16) ||
        (general ? q.nsources != 0 : !addr_is_multicast(&group))) {
        count(s, C_IcmpInErrors);
        return;
    }
    group_queried(m->nif, false, &q);
}
