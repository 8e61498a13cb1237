/* Packets larger than the path takes, cut into fragments (RFC 791 3.2, RFC 8200 4.5), and the numbers that name them.
 *
 * All or nothing: every fragment has its buffer before the first one leaves. The transport checksum is over the whole,
 * so it is filled in before the cut. Fragments of IPv4 may be cut again on their way. */
#include "net/ip/frag.h"

#include <errno.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"
#include "net/ip/neigh.h"

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

/* RFC 791 3.1: the options that every fragment carries, into `to`; how many bytes. What is no option ends them. */
static uint32_t options_copied(const uint8_t *from, uint32_t len, uint8_t *to)
{
    uint32_t n = 0;
    for (uint32_t at = 0, size; at < len && from[at] != IP4_OPT_EOL; at += size) {
        size = from[at] == IP4_OPT_NOP ? 1 : len - at < 2 ? 0 : from[at + 1];
        if (from[at] != IP4_OPT_NOP && (size < 2 || size > len - at))
            break;
        if (from[at] & IP4_OPT_COPIED) {
            memcpy(to + n, from + at, size);
            n += size;
        }
    }
    while (n % 4)
        to[n++] = IP4_OPT_EOL;
    return n;
}

void ip4_fragment_further(struct stack *s, const struct path *path, struct pbuf *p)
{
    uint8_t head[IP4_HLEN + 40];
    uint32_t hlen = (pbuf_data(p)[IP4_VIHL] & 15) * 4u, len = p->len - hlen, done = 0;
    unsigned field = get16(pbuf_data(p) + IP4_FRAG);
    struct pbuf_queue cut = {0};
    link_complete_csum(p);
    memcpy(head, pbuf_data(p), hlen);
    bool too_far = (field & IP4_OFFMASK) * 8 + len > IP_PAYLOAD_MAX; /* no datagram could be put together from it */
    while (done < len && !too_far && path->mtu >= hlen + 8) {
        uint32_t most = (path->mtu - hlen) & ~7u, n = len - done < most ? len - done : most;
        struct pbuf *f = pbuf_alloc(&s->pool, PBUF_HEADROOM + ETH_HLEN, hlen + n);
        if (!f)
            break;
        uint8_t *ip = pbuf_data(f);
        memcpy(ip, head, hlen);
        memcpy(ip + hlen, pbuf_data(p) + p->len - len + done, n);
        f->len = hlen + n;
        bool last = done + n == len;
        ip[IP4_VIHL] = (uint8_t)(0x40 | hlen / 4);
        put16(ip + IP4_TOTAL, hlen + n);
        put16(ip + IP4_FRAG, (field + done / 8) | (last ? 0 : IP4_MF));
        put16(ip + IP4_CSUM, 0);
        put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, hlen)));
        if (!done) /* the headers of all but the first */
            hlen = IP4_HLEN + options_copied(pbuf_data(p) + IP4_HLEN, hlen - IP4_HLEN, head + IP4_HLEN);
        done += n;
        queue_push(&cut, f);
    }
    pbuf_free(&s->pool, p);
    if (done < len) {
        queue_clear(&s->pool, &cut);
        count(s, C_IpFragFails);
        return;
    }
    for (struct pbuf *f; (f = queue_pop(&cut));) {
        count(s, C_IpFragCreates);
        neigh_output(path->nif, &path->next, ETHERTYPE_IP4, f);
    }
    count(s, C_IpFragOKs);
}
