/* IPv4 and IPv6, going out (RFC 791, RFC 8200): the header in front, cut into fragments where the path is too narrow
 * and the sender allows it, and on to the neighbour. */
#include <errno.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/ip/frag.h"
#include "net/ip/neigh.h"

void ip_csum_fill(const struct path *path, const struct addr *dst, unsigned proto, unsigned field, struct pbuf *p)
{
    put16(pbuf_data(p) + field, csum_fold(csum_pseudo(&path->src, dst, proto, pbuf_total(p))));
    p->flags |= PBUF_CSUM_PARTIAL;
    p->csum_start = 0; /* grows with every header pushed in front */
    p->csum_offset = (uint16_t)field;
    if (!(path->nif->link->caps & LINK_CSUM))
        link_complete_csum(p);
}

void ip_header(const struct path *path, const struct addr *dst, unsigned proto, unsigned ttl, unsigned id, unsigned frag,
               struct pbuf *p)
{
    uint32_t len = pbuf_total(p);
    bool v4 = addr_is4(dst);
    unsigned hlen = v4 ? IP4_HLEN : IP6_HLEN;
    uint8_t *ip = pbuf_push(p, hlen);
    if (p->flags & PBUF_CSUM_PARTIAL)
        p->csum_start = (uint16_t)(p->csum_start + hlen);
    if (v4) {
        ip[IP4_VIHL] = 0x45;
        ip[IP4_TOS] = path->tos;
        put16(ip + IP4_TOTAL, len + hlen);
        put16(ip + IP4_ID, id);
        put16(ip + IP4_FRAG, frag);
        ip[IP4_TTL] = ttl ? (uint8_t)ttl : HOPS_DEFAULT;
        ip[IP4_PROTO] = (uint8_t)proto;
        put16(ip + IP4_CSUM, 0);
        memcpy(ip + IP4_SRC, addr_v4(&path->src), 4);
        memcpy(ip + IP4_DST, addr_v4(dst), 4);
        put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, IP4_HLEN)));
    } else {
        put32(ip, 6u << 28 | (uint32_t)path->tos << 20);
        put16(ip + IP6_PLEN, len);
        ip[IP6_NEXT] = (uint8_t)proto;
        ip[IP6_HOPS] = ttl ? (uint8_t)ttl : path->nif->hop_limit; /* RFC 4861 6.3.4: what routers say */
        memcpy(ip + IP6_SRC, path->src.b, 16);
        memcpy(ip + IP6_DST, dst->b, 16);
    }
}

void ip_emit(const struct path *path, const struct addr *dst, unsigned proto, unsigned ttl, unsigned id,
             unsigned frag, struct pbuf *p)
{
    ip_header(path, dst, proto, ttl, id, frag, p);
    neigh_output(path->nif, &path->next, addr_is4(dst) ? ETHERTYPE_IP4 : ETHERTYPE_IP6, p);
}

int ip_output(struct stack *s, const struct path *path, const struct addr *dst, unsigned proto, unsigned ttl,
              struct pbuf *p)
{
    bool v4 = addr_is4(dst), cut = path->fragment == FRAGMENT_ANYWHERE;
    uint32_t len = pbuf_total(p), whole = len + (v4 ? IP4_HLEN : IP6_HLEN);
    if (len > IP_PAYLOAD_MAX - (v4 ? IP4_HLEN : 0) || (!p->gso_size && whole > path->mtu)) {
        if (path->fragment != FRAGMENT_NEVER && len <= IP_PAYLOAD_MAX - (v4 ? IP4_HLEN : 0)) {
            count(s, v4 ? C_IpOutRequests : C_Ip6OutRequests);
            return ip_fragment(s, path, dst, proto, ttl, p);
        }
        pbuf_free(&s->pool, p);
        return -EMSGSIZE;
    }
    count(s, v4 ? C_IpOutRequests : C_Ip6OutRequests);
    /* What cannot be fragmented needs no number of its own (RFC 6864 4.1). */
    ip_emit(path, dst, proto, ttl, !v4 ? 0 : cut ? frag_id(s, &path->src, dst, proto) : s->ip_id++, cut ? 0 : IP4_DF,
            p);
    return 0;
}
