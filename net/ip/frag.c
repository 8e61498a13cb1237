/* Packets larger than the path takes, cut into fragments (RFC 791 3.2, RFC 8200 4.5), and the numbers that name them.
 *
 * All or nothing: every fragment has its buffer before the first one leaves. The transport checksum is over the whole,
 * so it is filled in before the cut. Fragments of IPv4 may be cut again on their way. */
#include "net/ip/frag.h"

#include <errno.h>

#include "net/core/wire.h"

/* RFC 7739 5.3, for both families: a keyed offset for each pair of addresses, and a counter that several pairs share.
 * So a pair's numbers do not repeat for as long as they can, and say nothing of another pair's (RFC 6864 4.3). */
uint32_t frag_id(struct stack *s, const struct addr *src, const struct addr *dst, unsigned proto)
{
    uint64_t words[5];
    memcpy(words, src->b, 16);
    memcpy(words + 2, dst->b, 16);
    words[4] = addr_is4(dst) ? proto : 0;
    uint64_t hash = siphash(s->key, words, 5);
    return (uint32_t)hash + s->frag_ids[hash >> 32 & (FRAG_IDS - 1)]++;
}

int ip_fragment(struct stack *s, const struct path *path, const struct addr *dst, unsigned proto, unsigned ttl,
                struct pbuf *p)
{
    bool v4 = addr_is4(dst);
    uint32_t hlen = v4 ? IP4_HLEN : IP6_HLEN + IP6_FRAG_HLEN, len = pbuf_total(p);
    uint32_t piece = path->mtu >= hlen + 8 ? (path->mtu - hlen) & ~7u : 0;
    uint32_t id = frag_id(s, &path->src, dst, proto), done = 0;
    struct pbuf_queue cut = {0};
    link_complete_csum(p);
    while (piece && done < len) {
        uint32_t n = len - done < piece ? len - done : piece;
        struct pbuf *f = pbuf_alloc(&s->pool, PBUF_HEADROOM + ETH_HLEN + hlen, n);
        if (!f)
            break;
        f->len = pbuf_copy(p, done, pbuf_data(f), n);
        f->mark = done;
        done += n;
        queue_push(&cut, f);
    }
    pbuf_free(&s->pool, p);
    if (!piece || done < len) {
        queue_clear(&s->pool, &cut);
        count(s, v4 ? C_IpFragFails : C_Ip6FragFails);
        return piece ? -ENOBUFS : -EMSGSIZE;
    }
    for (struct pbuf *f; (f = queue_pop(&cut));) {
        uint32_t off = f->mark;
        bool more = cut.head;
        count(s, v4 ? C_IpFragCreates : C_Ip6FragCreates);
        if (v4) {
            ip_emit(path, dst, proto, ttl, id, off / 8 | (more ? IP4_MF : 0), f);
            continue;
        }
        uint8_t *h = pbuf_push(f, IP6_FRAG_HLEN);
        put16(h + IP6_FRAG_NEXT, proto << 8); /* and a byte that is reserved */
        put16(h + IP6_FRAG_OFF, off | more);
        put32(h + IP6_FRAG_ID, id);
        ip_emit(path, dst, PROTO_FRAGMENT, ttl, 0, 0, f);
    }
    count(s, v4 ? C_IpFragOKs : C_Ip6FragOKs);
    return 0;
}
