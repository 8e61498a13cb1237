/* What a device does with LINK_TSO, in software: a large frame of TCP becomes the segments that it stands for.
 *
 * Each has a copy of the headers with lengths, number (IPv4) and sequence number of its own; FIN and PSH go with the
 * last one, CWR with the first (RFC 3168 6.1.2). Checksums stay partial: the link fills them in, or need not.
 *
 * A frame that is not partial has its sum filled in over the whole, which says nothing of the pieces. It is believed
 * where a device has verified it; else it is verified here, for new sums would hide what was damaged. */
#include "net/link/segment.h"

#include <errno.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"

#define HEADERS_MAX 256

/* Where TCP starts, from what IP says. 0: it is not TCP, or further away than we look. */
static uint32_t find_tcp(const uint8_t *ip, uint32_t len)
{
    uint32_t at = 0;
    if (len >= IP4_HLEN && ip[0] >> 4 == 4 && ip[IP4_PROTO] == PROTO_TCP)
        at = (ip[IP4_VIHL] & 15) * 4u;
    else if (len >= IP6_HLEN && ip[0] >> 4 == 6 && ip[IP6_NEXT] == PROTO_TCP)
        at = IP6_HLEN;
    return at >= IP4_HLEN && at + TCP_HLEN <= len ? at : 0;
}

static uint64_t pseudo(const uint8_t *ip, uint32_t len)
{
    bool v4 = ip[0] >> 4 == 4;
    struct addr src = v4 ? addr_from4(ip + IP4_SRC) : addr_from(ip + IP6_SRC);
    struct addr dst = v4 ? addr_from4(ip + IP4_DST) : addr_from(ip + IP6_DST);
    return csum_pseudo(&src, &dst, PROTO_TCP, len);
}

/* p->len: headers are in the first piece of a packet. */
int segment_prepare(struct pbuf *p, uint32_t l3)
{
    uint8_t *ip = pbuf_data(p) + l3;
    if (p->len < l3 + IP4_HLEN)
        return -EBADMSG;
    uint32_t least = l3 + (ip[0] >> 4 == 4 ? IP4_HLEN : IP6_HLEN);
    if (!(p->flags & PBUF_CSUM_PARTIAL)) {
        uint32_t at = find_tcp(ip, p->len - l3), rest = pbuf_total(p) - l3 - at;
        if (!at)
            return -EBADMSG;
        uint64_t sum = pseudo(ip, rest);
        if (!(p->flags & PBUF_CSUM_OK) && csum_finish(csum_pbuf(sum, p, l3 + at)) != 0)
            return -EBADMSG;
        put16(ip + at + TCP_CSUM, csum_fold(sum));
        p->csum_start = (uint16_t)(l3 + at);
        p->csum_offset = TCP_CSUM;
        p->flags = PBUF_CSUM_PARTIAL;
    }
    if (p->csum_offset != TCP_CSUM || p->csum_start < least || p->csum_start + (uint32_t)TCP_HLEN > p->len)
        return -EBADMSG;
    uint32_t tcp_len = (pbuf_data(p)[p->csum_start + TCP_OFF] >> 4) * 4u;
    return tcp_len >= TCP_HLEN && p->csum_start + tcp_len <= p->len ? 0 : -EBADMSG;
}

static uint32_t network_header(const struct pbuf *p)
{
    uint32_t at = ETH_TYPE;
    for (; at + 2 <= p->len; at += VLAN_HLEN) {
        unsigned type = get16(pbuf_data(p) + at);
        if (type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ)
            return type == ETHERTYPE_IP4 || type == ETHERTYPE_IP6 ? at + 2 : 0;
    }
    return 0;
}

/* The headers in front of piece number n, `off` bytes into the stream, `len` long. was: how long TCP was in all. */
static void put_headers(uint8_t *h, uint32_t l3, uint32_t l4, unsigned n, uint32_t off, uint32_t tcp_len, uint32_t was,
                        bool last)
{
    uint8_t *ip = h + l3, *tcp = h + l4;
    if (ip[0] >> 4 == 4) {
        put16(ip + IP4_TOTAL, l4 - l3 + tcp_len);
        put16(ip + IP4_ID, get16(ip + IP4_ID) + n);
        put16(ip + IP4_CSUM, 0);
        put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, (ip[IP4_VIHL] & 15) * 4u)));
    } else {
        put16(ip + IP6_PLEN, l4 - l3 - IP6_HLEN + tcp_len);
    }
    put32(tcp + TCP_SEQ, get32(tcp + TCP_SEQ) + off);
    if (!last)
        tcp[TCP_FLAGS] &= (uint8_t)~(TH_FIN | TH_PSH);
    if (n)
        tcp[TCP_FLAGS] &= (uint8_t)~TH_CWR;
    /* The pseudo header's sum has the length in it (RFC 1624): the addresses may not be those of the IP header. */
    put16(tcp + TCP_CSUM, csum_fold((uint64_t)get16(tcp + TCP_CSUM) + (0xffff - (was & 0xffff)) + tcp_len));
}

int segment_cut(struct pbuf_pool *pool, struct pbuf *p, struct pbuf_queue *out)
{
    uint32_t l3 = network_header(p);
    if (!l3 || segment_prepare(p, l3) < 0)
        return -EBADMSG;
    uint32_t l4 = p->csum_start, tcp_hlen = (pbuf_data(p)[l4 + TCP_OFF] >> 4) * 4u, head = l4 + tcp_hlen;
    uint32_t len = pbuf_total(p) - head, size = p->gso_size;
    if (head > HEADERS_MAX || !size || (pbuf_data(p)[l3] >> 4 == 4 && (pbuf_data(p)[l3] & 15) * 4u > l4 - l3))
        return -EBADMSG;
    struct pbuf_queue cut = {0};
    uint32_t done = 0;
    do {
        uint32_t n = len - done < size ? len - done : size;
        struct pbuf *f = pbuf_alloc(pool, PBUF_HEADROOM, head + n);
        if (!f) {
            queue_clear(pool, &cut);
            return -ENOBUFS;
        }
        f->len = pbuf_copy(p, 0, pbuf_data(f), head);
        f->len += pbuf_copy(p, head + done, pbuf_data(f) + head, n);
        f->flags = PBUF_CSUM_PARTIAL;
        f->csum_start = (uint16_t)l4;
        f->csum_offset = TCP_CSUM;
        put_headers(pbuf_data(f), l3, l4, cut.count, done, tcp_hlen + n, tcp_hlen + len, done + n == len);
        done += n;
        queue_push(&cut, f);
    } while (done < len);
    for (struct pbuf *f; (f = queue_pop(&cut));)
        queue_push(out, f);
    return 0;
}
