/* The messages of IGMP, versions 1 to 3 (RFC 1112, RFC 2236, RFC 3376). What they mean is group.c's. */
#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/ip/frag.h"
#include "net/ip/group.h"
#include "net/ip/neigh.h"

#define IGMP_CODE 1 /* the largest delay of an answer; tenths of a second */
#define IGMP_CSUM 2
#define IGMP_GROUP 4
#define IGMP_HLEN 8
#define IGMP3_RECORDS 6
#define IGMP3_QRV 8
#define IGMP3_QQIC 9
#define IGMP3_SOURCES 10
#define IGMP3_QUERY_HLEN 12

#define IGMP_QUERY 0x11
#define IGMP1_REPORT 0x12
#define IGMP2_REPORT 0x16
#define IGMP2_LEAVE 0x17
#define IGMP3_REPORT 0x22

#define TENTH (SECOND / 10)
#define TOS 0xc0 /* internetwork control (RFC 3376 4) */
#define RA_LEN 4 /* the router alert option (RFC 2113) */

/* p starts at the message. The IP header has an option, which no other packet of ours has. Takes p. */
static void send(struct netif *nif, const struct addr *to, struct pbuf *p)
{
    struct stack *s = nif->stack;
    const struct addr *from = netif_source(nif, to);
    uint32_t hlen = IP4_HLEN + RA_LEN;
    uint8_t *d = pbuf_data(p);
    put16(d + IGMP_CSUM, 0);
    put16(d + IGMP_CSUM, csum_finish(csum_add(0, d, p->len)));
    uint8_t *ip = pbuf_push(p, hlen);
    memset(ip, 0, hlen); /* from 0.0.0.0 where there is no address yet (RFC 3376 4.2.13) */
    ip[IP4_VIHL] = 0x40 | (uint8_t)(hlen / 4);
    ip[IP4_TOS] = TOS;
    put16(ip + IP4_TOTAL, p->len);
    put16(ip + IP4_ID, s->ip_id++);
    put16(ip + IP4_FRAG, IP4_DF);
    ip[IP4_TTL] = 1;
    ip[IP4_PROTO] = PROTO_IGMP;
    if (from)
        memcpy(ip + IP4_SRC, addr_v4(from), 4);
    memcpy(ip + IP4_DST, addr_v4(to), 4);
    put32(ip + IP4_HLEN, 0x94040000);
    put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, hlen)));
    count(s, C_IpOutRequests);
    count(s, C_IgmpOutMsgs);
    neigh_output(nif, to, ETHERTYPE_IP4, p);
}

void igmp_send_report(struct netif *nif, struct pbuf *p, unsigned records)
{
    static const struct addr routers = {.b = {[10] = 0xff, 0xff, 224, 0, 0, 22}};
    uint8_t *d = pbuf_data(p);
    memset(d, 0, GROUP_REPORT_HLEN);
    d[0] = IGMP3_REPORT;
    put16(d + IGMP3_RECORDS, records);
    send(nif, &routers, p);
}

void igmp_send_old(struct netif *nif, const struct addr *group, unsigned version, bool leave)
{
    static const struct addr routers = {.b = {[10] = 0xff, 0xff, 224, 0, 0, 2}};
    if (leave && version == GROUP_V1) /* it knows no such thing */
        return;
    struct pbuf *p = pbuf_alloc(&nif->stack->pool, PBUF_HEADROOM + ETH_HLEN + IP4_HLEN + RA_LEN, IGMP_HLEN);
    if (!p)
        return;
    uint8_t *d = pbuf_data(p);
    p->len = IGMP_HLEN;
    memset(d, 0, IGMP_HLEN);
    d[0] = leave ? IGMP2_LEAVE : version == GROUP_V1 ? IGMP1_REPORT : IGMP2_REPORT;
    memcpy(d + IGMP_GROUP, addr_v4(group), 4);
    send(nif, leave ? &routers : group, p);
}

void igmp_input(struct stack *s, const struct pbuf *p, const struct ip_meta *m)
{
    const uint8_t *d = pbuf_data(p);
    count(s, C_IgmpInMsgs);
    if (p->len < IGMP_HLEN || csum_finish(csum_add(0, d, p->len)) != 0) {
        count(s, C_IgmpInErrors);
        return;
    }
    struct addr group = addr_from4(d + IGMP_GROUP);
    if (d[0] == IGMP1_REPORT || d[0] == IGMP2_REPORT) {
        group_reported(m->nif, &group);
        return;
    }
    if (d[0] != IGMP_QUERY)
        return;
    struct group_query q = {.group = group, .version = GROUP_V2, .max_delay = d[IGMP_CODE] * (uint64_t)TENTH};
    if (p->len >= IGMP3_QUERY_HLEN) { /* RFC 3376 7.1: told apart by length */
        q.version = GROUP_V3;
        q.max_delay = group_float8(d[IGMP_CODE]) * (uint64_t)TENTH;
        q.nsources = get16(d + IGMP3_SOURCES);
        q.sources = d + IGMP3_QUERY_HLEN;
        q.robustness = d[IGMP3_QRV] & 7;
        q.interval = group_float8(d[IGMP3_QQIC]) * (uint64_t)SECOND;
    } else if (p->len != IGMP_HLEN) {
        return;
    } else if (!d[IGMP_CODE]) {
        q.version = GROUP_V1;
        q.max_delay = 100 * (uint64_t)TENTH;
    }
    bool general = addr_is_any(&group);
    if ((q.version == GROUP_V3 && q.nsources > (p->len - IGMP3_QUERY_HLEN) / 4) ||
        (general ? q.nsources != 0 : !addr_is_multicast(&group))) {
        count(s, C_IgmpInErrors);
        return;
    }
    group_queried(m->nif, true, &q);
}
