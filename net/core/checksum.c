/* The Internet checksum, eight bytes at a time in host order: the one's-complement sum does not care about byte order
 * until it is read out (RFC 1071 section 2(B)). See checksum.h. */
#include "net/core/checksum.h"

#include "net/api.h"
#include "net/core/wire.h"

static inline uint64_t add64(uint64_t sum, uint64_t v)
{
    sum += v;
    return sum + (sum < v);
}

static uint16_t fold_host(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint64_t csum_add(uint64_t sum, const uint8_t *data, size_t len)
{
    uint64_t a = 0, b = 0, v;
    if (len == 20) { /* an IPv4 header: five words cannot overflow 64 bits */
        uint32_t w[5];
        memcpy(w, data, 20);
        return sum + __builtin_bswap16(fold_host((uint64_t)w[0] + w[1] + w[2] + w[3] + w[4]));
    }
    for (; len >= 16; data += 16, len -= 16) {
        uint64_t w;
        memcpy(&v, data, 8);
        memcpy(&w, data + 8, 8);
        a = add64(a, v);
        b = add64(b, w);
    }
    if (len >= 8) {
        memcpy(&v, data, 8);
        a = add64(a, v);
        data += 8;
        len -= 8;
    }
    if (len) {
        v = 0;
        memcpy(&v, data, len);
        b = add64(b, v);
    }
    return sum + __builtin_bswap16(fold_host(add64(a, b)));
}

uint16_t csum_fold(uint64_t sum) { return fold_host(sum); }

uint16_t inet_checksum(const uint8_t *data, size_t len) { return csum_finish(csum_add(0, data, len)); }

uint64_t csum_pseudo(const struct addr *src, const struct addr *dst, unsigned proto, uint32_t len)
{
    uint64_t sum = (len >> 16) + (len & 0xffff) + proto;
    if (addr_is4(src)) {
        uint32_t a, b;
        memcpy(&a, addr_v4(src), 4);
        memcpy(&b, addr_v4(dst), 4);
        return sum + __builtin_bswap16(fold_host((uint64_t)a + b));
    }
    return csum_add(csum_add(sum, src->b, 16), dst->b, 16);
}

uint64_t csum_pbuf(uint64_t sum, const struct pbuf *p, uint32_t off)
{
    bool odd = false; /* a frag that starts at an odd place has its bytes swapped in every word */
    for (; p; p = p->frag) {
        if (off >= p->len) {
            off -= p->len;
            continue;
        }
        uint16_t part = csum_fold(csum_add(0, pbuf_data(p) + off, p->len - off));
        sum += odd ? __builtin_bswap16(part) : part;
        odd ^= (p->len - off) & 1;
        off = 0;
    }
    return sum;
}
