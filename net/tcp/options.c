/* The options of a segment (RFC 9293 3.1), read and written. Unknown ones, and known ones of a length that they cannot
 * have, are skipped; what runs past the header makes the segment malformed. */
#include "net/core/wire.h"
#include "net/tcp/tcp.h"

bool tcp_read_options(const uint8_t *o, uint32_t len, struct segment *g)
{
    for (uint32_t i = 0; i < len;) {
        if (o[i] == TCPOPT_EOL)
            break;
        if (o[i] == TCPOPT_NOP) {
            i++;
            continue;
        }
        if (len - i < 2 || o[i + 1] < 2 || o[i + 1] > len - i)
            return false;
        switch (o[i] << 8 | o[i + 1]) {
        case TCPOPT_MSS << 8 | 4:
            g->mss = get16(o + i + 2);
            break;
        case TCPOPT_WSCALE << 8 | 3:
            g->wscale = (int8_t)(o[i + 2] > 14 ? 14 : o[i + 2]); /* RFC 7323 2.3 */
            break;
        case TCPOPT_SACK_OK << 8 | 2:
            g->sack_permitted = true;
            break;
        case TCPOPT_SACK << 8 | 10:
        case TCPOPT_SACK << 8 | 18:
        case TCPOPT_SACK << 8 | 26:
        case TCPOPT_SACK << 8 | 34:
            g->sacks = (uint8_t)(o[i + 1] / 8);
            for (unsigned n = 0; n < g->sacks; n++)
                g->sack[n] = (struct sack_block){seq(get32(o + i + 2 + 8 * n)), seq(get32(o + i + 6 + 8 * n))};
            break;
        case TCPOPT_FASTOPEN << 8 | 2: /* a request */
            g->has_cookie = true;
            break;
        case TCPOPT_TS << 8 | 10:
            g->has_ts = true;
            g->tsval = get32(o + i + 2);
            g->tsecr = get32(o + i + 6);
            break;
        default:
            if (o[i] == TCPOPT_FASTOPEN && o[i + 1] >= 2 + FASTOPEN_COOKIE_MIN && o[i + 1] <= 2 + FASTOPEN_COOKIE_MAX &&
                o[i + 1] % 2 == 0) { /* RFC 7413 4.1.1 */
                g->has_cookie = true;
                g->cookie_len = o[i + 1] - 2;
                memcpy(g->cookie, o + i + 2, g->cookie_len);
            }
            break; /* unknown, or of a length it cannot have: skipped */
        }
        i += o[i + 1];
    }
    return true;
}

static uint32_t write_sacks(const struct tcp *t, uint8_t *at, unsigned room)
{
    struct sack_block blocks[TCP_SACKS_MAX];
    unsigned n = tcp_sack_report(t, blocks, (room - 4) / 8);
    if (!n)
        return 0;
    const uint8_t head[4] = {TCPOPT_NOP, TCPOPT_NOP, TCPOPT_SACK, (uint8_t)(2 + 8 * n)};
    memcpy(at, head, 4);
    for (unsigned i = 0; i < n; i++) {
        put32(at + 4 + 8 * i, blocks[i].left.v);
        put32(at + 8 + 8 * i, blocks[i].right.v);
    }
    return 4 + 8 * n;
}

uint32_t tcp_segment_size(const struct tcp *t)
{
    struct sack_block blocks[TCP_SACKS_MAX];
    unsigned n = tcp_sack_report(t, blocks, (TCP_OPTIONS_MAX - 4 - (t->ts_ok ? 12 : 0)) / 8);
    return n ? t->mss - (4 + 8 * n) : t->mss;
}

uint32_t tcp_write_options(const struct tcp *t, uint8_t *o, unsigned flags, uint64_t now)
{
    uint8_t *at = o;
    bool permitted = false;
    if (flags & TH_SYN) {
        at[0] = TCPOPT_MSS;
        at[1] = 4;
        put16(at + 2, t->user_mss && t->user_mss < t->adv_mss ? t->user_mss : t->adv_mss);
        at += 4;
        permitted = t->sack_ok;
    }
    /* In Linux's order, which conformance scripts know; and "SACK permitted" takes the place of padding. */
    if (t->ts_ok) {
        const uint8_t head[4] = {permitted ? TCPOPT_SACK_OK : TCPOPT_NOP, permitted ? 2 : TCPOPT_NOP, TCPOPT_TS, 10};
        memcpy(at, head, 4);
        put32(at + 4, tcp_timestamp(t, now));
        put32(at + 8, flags & TH_ACK ? t->ts_recent : 0);
        at += 12;
    } else if (permitted) {
        const uint8_t alone[4] = {TCPOPT_NOP, TCPOPT_NOP, TCPOPT_SACK_OK, 2};
        memcpy(at, alone, 4);
        at += 4;
    }
    if (flags & TH_SYN && t->ws_ok) { /* in an answer only if it was offered (RFC 7323 2.2); 0 is an answer, too */
        const uint8_t wscale[4] = {TCPOPT_NOP, TCPOPT_WSCALE, 3, t->shift_in};
        memcpy(at, wscale, 4);
        at += 4;
    }
    if (!(flags & (TH_SYN | TH_RST)))
        at += write_sacks(t, at, TCP_OPTIONS_MAX - (unsigned)(at - o));
    return (uint32_t)(at - o);
}
