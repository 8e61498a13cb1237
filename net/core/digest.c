/* See digest.h. Four independent products for each 64 bytes, so that the processor has them under way at once. */
#include "net/core/digest.h"

#include <string.h>

static inline uint64_t word(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

uint64_t digest_bytes(uint64_t state, const uint8_t *data, size_t len)
{
    uint64_t a = state, b = state + 1, c = state + 2, d = state + 3;
    uint8_t tail[DIGEST_BLOCK] = {0};
    for (; len >= DIGEST_BLOCK; data += DIGEST_BLOCK, len -= DIGEST_BLOCK) {
        a = digest_words(a, word(data), word(data + 8));
        b = digest_words(b, word(data + 16), word(data + 24));
        c = digest_words(c, word(data + 32), word(data + 40));
        d = digest_words(d, word(data + 48), word(data + 56));
    }
    if (len)
        memcpy(tail, data, len);
    for (size_t i = 0; i < len; i += 16)
        a = digest_words(a, word(tail + i), word(tail + i + 8));
    return digest_words(digest_words(a, b, c), d, len);
}
