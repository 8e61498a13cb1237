/* SYN cookies (RFC 4987 3.6): when a listener has no room for another half-open child, its answer to a SYN carries in
 * its own sequence number and timestamp all that must be known to make the child of the ACK that comes back.
 *
 *   sequence number = peer's number + hash1(ends) + (minutes:5 | MSS:3 | hash2(ends, peer's number, minutes, MSS):24)
 *   timestamp       = the time, its low bits replaced by (ECN:1 | SACK:1 | window scale:4), never in the future
 *
 * hash1 keeps the number growing with the peer's and hides the fields; hash2 is what a forger would have to guess, in
 * the two minutes for which a cookie is good. The MSS is one of eight, the largest that is not above the peer's. A peer
 * without timestamps gets no window scale and no SACK.
 *
 * Nothing is kept of a SYN that was answered so, and the answer is never sent again. Cookies are looked for only in the
 * ACKs that come to a listener which sent some within the last two minutes: at other times a forger has nothing to
 * guess at. With LISTEN_DEFER there are none: the owner could not decide before the answer. */
#include "net/core/wire.h"
#include "net/tcp/tcp.h"

#define PERIOD (60ull * SECOND)
#define PERIODS_GOOD 2

#define OPTION_BITS 6
#define OPTION_MASK ((1u << OPTION_BITS) - 1)
#define WSCALE_MASK 0xfu
#define WSCALE_NONE 0xfu
#define SACK_BIT 0x10u
#define ECN_BIT 0x20u

static const uint16_t mss_table[2][8] = {{64, 536, 1300, 1360, 1400, 1440, 1460, 8960},  /* IPv4 */
                                         {64, 536, 1220, 1340, 1380, 1420, 1440, 8940}}; /* IPv6 */

static uint32_t hash(const struct stack *s, const struct segment *g, const struct ip_meta *m, uint64_t about)
{
    uint64_t words[6];
    memcpy(words, m->dst.b, 16);
    memcpy(words + 2, m->src.b, 16);
    words[4] = (uint64_t)g->dport << 48 | (uint64_t)g->sport << 32 | 0x53594e; /* a hash of no other use */
    words[5] = about;
    return (uint32_t)siphash(s->key, words, 6);
}

static uint32_t hash2(const struct stack *s, const struct segment *g, const struct ip_meta *m, seq_t irs, uint64_t period,
                      unsigned mss)
{
    return hash(s, g, m, (uint64_t)irs.v << 32 | (period & 0xffffff) << 8 | 0x80 | mss) & 0xffffff;
}

/* Its place in the table. */
static unsigned mss_index(const struct tcp *t)
{
    unsigned i = 7;
    while (i && mss_table[!addr_is4(&t->k.remote)][i] > t->peer_mss)
        i--;
    return i;
}

void tcp_cookie_make(struct stack *s, struct tcp *t, const struct segment *g, const struct ip_meta *m)
{
    uint64_t period = s->now / PERIOD;
    unsigned mss = mss_index(t);
    uint32_t fields = (uint32_t)(period & 31) << 27 | mss << 24 | hash2(s, g, m, g->seq, period, mss);
    tcp_set_iss(t, seq_add(g->seq, hash(s, g, m, 0) + fields));
    if (!g->has_ts)
        return;
    uint32_t time = tcp_timestamp(t, s->now);
    uint32_t options = t->ws_ok ? t->shift_out : WSCALE_NONE;
    if (g->sack_permitted)
        options |= SACK_BIT;
    if ((g->flags & (TH_ECE | TH_CWR)) == (TH_ECE | TH_CWR))
        options |= ECN_BIT;
    uint32_t told = (time & ~OPTION_MASK) | options;
    if ((int32_t)(told - time) > 0)
        told -= OPTION_MASK + 1;
    t->ts_offset -= time - told;
}

bool tcp_cookie_read(struct stack *s, const struct segment *g, const struct ip_meta *m, struct segment *syn)
{
    seq_t irs = seq_add(g->seq, (uint32_t)-1), iss = seq_add(g->ack, (uint32_t)-1);
    uint32_t fields = iss.v - irs.v - hash(s, g, m, 0), options = g->has_ts ? g->tsecr & OPTION_MASK : WSCALE_NONE;
    uint64_t now = s->now / PERIOD, age = (now - (fields >> 27)) & 31;
    unsigned mss = fields >> 24 & 7;
    if (age >= PERIODS_GOOD || age > now || (fields & 0xffffff) != hash2(s, g, m, irs, now - age, mss))
        return false;
    *syn = (struct segment){.seq = irs,
                            .wnd = g->wnd,
                            .tsval = g->tsval,
                            .tsecr = g->tsecr,
                            .sport = g->sport,
                            .dport = g->dport,
                            .mss = mss_table[!addr_is4(&m->src)][mss],
                            .flags = TH_SYN,
                            .wscale = -1,
                            .has_ts = g->has_ts,
                            .sack_permitted = g->has_ts && options & SACK_BIT};
    if ((options & WSCALE_MASK) != WSCALE_NONE)
        syn->wscale = (int8_t)(options & WSCALE_MASK);
    if (options & ECN_BIT && g->has_ts)
        syn->flags |= TH_ECE | TH_CWR;
    return true;
}
