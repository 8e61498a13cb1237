/* The window that we tell (RFC 9293 3.8.6, RFC 7323 2), and how large the buffers behind it and the send buffer become.
 *
 * Both buffers begin small and grow with what the path proves to need, up to in_max and out_max; SO_RCVBUF and
 * SO_SNDBUF set a size that stays. A limit is no memory: that is taken as data comes.
 *
 *   receiving  The reader's rate times the round trip is what the sender must be allowed to have under way, and twice
 *              that while it doubles (dynamic right-sizing, Fisk and Feng 2001): so what was read in one round trip is
 *              counted, and the limit is kept ahead of it. The round trip is taken from echoed timestamps, or is the
 *              time that a whole window takes to arrive.
 *   sending    Twice what is under way: one half flies, the other waits to be sent when that is acknowledged.
 *
 * Invariant: rcv_adv, the right edge that was told, never goes back, whatever becomes of the limit. */
#include "net/core/wire.h"
#include "net/tcp/tcp.h"

#define GROW_SEGMENTS 16u /* of headroom, for the start */
#define TRUESIZE_MOST 2u  /* times the window: more is not held in buffers that are mostly empty */

void tcp_buffers_init(struct stack *s, struct tcp *t)
{
    t->in_limit = s->config.rcvbuf;
    t->in_max = s->config.rcvbuf_max;
    t->out_limit = s->config.sndbuf;
    t->out_max = s->config.sndbuf_max;
    t->notsent_lowat = s->config.notsent_lowat;
    t->rcv_lowat = 1;
}

void tcp_buffers_inherit(struct tcp *t, const struct tcp *listener)
{
    t->in_max = listener->in_max;
    t->out_max = listener->out_max;
}

void tcp_rcvbuf_set(struct stack *s, struct sock *k) { tcp_of(k)->in_max = tcp_of(k)->in_limit; }

void tcp_sndbuf_set(struct stack *s, struct sock *k)
{
    tcp_of(k)->out_max = tcp_of(k)->out_limit;
    sock_mark_ready(s, k);
}

void tcp_lowat_set(struct stack *s, struct sock *k)
{
    struct tcp *t = tcp_of(k);
    if (t->rcv_lowat > t->in_limit / 2 && t->in_limit < t->in_max) /* so much must have room (socket(7)) */
        t->in_limit = t->rcv_lowat < t->in_max / 2 ? 2 * t->rcv_lowat : t->in_max;
    sock_mark_ready(s, k);
}

uint8_t tcp_window_shift(const struct tcp *t)
{
    uint32_t most = t->in_max > t->in_limit ? t->in_max : t->in_limit;
    uint8_t shift = 0;
    while (shift < 14 && (uint64_t)65535 << shift < most) /* RFC 7323 2.3 */
        shift++;
    return shift;
}

/* A segment, as the field can say it. */
static uint32_t least_window(const struct tcp *t)
{
    uint32_t unit = 1u << t->shift_in;
    return (t->adv_mss + unit - 1) & ~(unit - 1);
}

/* Bytes that may wait to be read. */
static uint32_t in_limit(const struct stack *s, const struct tcp *t)
{
    uint32_t limit = t->in_limit;
    if (tcp_memory(s) != MEMORY_FREE) {
        uint32_t share = tcp_memory_share(s) / TRUESIZE_MOST, least = least_window(t);
        share = share > least ? share : least;
        limit = limit < share ? limit : share;
    }
    return limit;
}

/* 3.8.6.2.2: the right edge moves by a segment or half of the buffer, or not at all. */
static uint32_t least_step(const struct tcp *t, uint32_t limit) { return limit / 2 < t->mss ? limit / 2 : t->mss; }

static uint32_t told(const struct tcp *t) { return (uint32_t)seq_diff(t->rcv_adv, t->rcv_nxt); }

uint32_t tcp_window_room(const struct stack *s, const struct tcp *t)
{
    uint32_t limit = in_limit(s, t), most = 65535u << t->shift_in, already = told(t);
    uint32_t room = limit > t->in_bytes ? limit - t->in_bytes : 0;
    if (t->in_held + t->ooo_held > (uint64_t)TRUESIZE_MOST * limit + PBUF_ROOM_MAX)
        room = 0;
    if (room > most)
        room = most;
    room = room >> t->shift_in << t->shift_in; /* what the field can say */
    bool worth = room == most || room - already >= least_step(t, limit);
    return room > already && worth ? room : already;
}

/* The peer has run into memory that was full, and not enough has changed since: the state of memory alone wavers. */
static bool still_refused(const struct stack *s, const struct tcp *t)
{
    enum memory memory = tcp_memory(s);
    return t->refused && memory != MEMORY_FREE && (memory != MEMORY_SHORT || t->in.head);
}

/* As much as is sure to be admitted then, whatever was told before. */
static uint32_t refused_room(const struct stack *s, const struct tcp *t)
{
    return t->in.head || tcp_memory(s) == MEMORY_OUT ? 0 : least_window(t);
}

bool tcp_window_update_due(const struct stack *s, const struct tcp *t)
{
    uint32_t already = told(t), room = tcp_window_room(s, t), limit = in_limit(s, t);
    if (t->refused)
        return !still_refused(s, t) || (t->opened && refused_room(s, t));
    if (!t->opened || t->fin_in || room <= already)
        return false;
    return room - already >= limit / 4 || already < 2u * t->mss;
}

uint16_t tcp_window_tell(struct stack *s, struct tcp *t, unsigned flags)
{
    unsigned shift = flags & TH_SYN ? 0 : t->shift_in; /* RFC 7323 2.2 */
    if (still_refused(s, t)) {
        t->opened = false;
        return (uint16_t)(refused_room(s, t) >> shift);
    }
    t->refused = false;
    uint32_t room = flags & TH_ACK ? tcp_window_room(s, t) : in_limit(s, t), unit = 1u << shift;
    /* RFC 7323 2.4: rounded down it would seem to shrink. Up, as long as that is a promise of one unit too much and not
     * one for each segment. */
    if (room % unit && t->in_bytes + (uint64_t)room <= t->in_limit)
        room += unit - room % unit;
    uint32_t field = room >> shift < 65535 ? room >> shift : 65535;
    if (flags & TH_ACK)
        t->rcv_adv = seq_max(t->rcv_adv, seq_add(t->rcv_nxt, field << shift));
    t->opened = false;
    return (uint16_t)field;
}

/* --- receiving --- */

static void measured(struct tcp *t, uint64_t us, bool at_most)
{
    uint32_t sample = us < 1 ? 1 : us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    if (!t->rcv_rtt || (at_most && sample < t->rcv_rtt))
        t->rcv_rtt = sample;
    else if (!at_most)
        t->rcv_rtt = t->rcv_rtt - t->rcv_rtt / 8 + sample / 8;
}

void tcp_receiver_rtt(struct stack *s, struct tcp *t, const struct segment *g)
{
    if (!t->rcv_rtt && t->srtt)
        measured(t, t->srtt / 1000, false); /* of the handshake */
    if (t->ts_ok) {
        /* Full segments only: small ones may have waited for somebody to type them. Each echo once, for the same
         * reason. */
        uint32_t ms = tcp_timestamp(t, s->now) - g->tsecr;
        if (g->tsecr != t->rcv_rtt_echo && g->len >= t->rcv_mss && ms < 60000) {
            t->rcv_rtt_echo = g->tsecr;
            measured(t, ms ? ms * 1000ull : 1000, false);
        }
        return;
    }
    /* All of a window that we told can only come within a round trip or more. */
    if (!t->rcv_rtt_since || seq_ge(t->rcv_nxt, t->rcv_rtt_seq)) {
        if (t->rcv_rtt_since)
            measured(t, (s->now - t->rcv_rtt_since) / 1000, true);
        t->rcv_rtt_since = s->now;
        t->rcv_rtt_seq = t->rcv_adv;
    }
}

void tcp_right_size(struct stack *s, struct tcp *t, uint32_t bytes)
{
    t->read_bytes += bytes;
    if (!t->read_since) {
        t->read_since = t->last_data; /* when the first of it came */
        t->read_before = GROW_SEGMENTS * t->rcv_mss;
    }
    if (!t->rcv_rtt || s->now - t->read_since < t->rcv_rtt * 1000ull)
        return;
    if (t->read_bytes > t->read_before) {
        /* Twice what was read; and as it has grown since the round trip before, so it may once more until the sender
         * hears of it. Slow start doubles; what more comes at once had waited behind a hole. */
        uint64_t grown = t->read_bytes - t->read_before;
        grown = grown < t->read_before ? grown : t->read_before;
        uint64_t want = 2ull * t->read_bytes + GROW_SEGMENTS * t->rcv_mss;
        want += 2 * want * grown / t->read_before;
        if (want > t->in_max)
            want = t->in_max;
        if (want > t->in_limit && tcp_memory(s) == MEMORY_FREE)
            t->in_limit = (uint32_t)want;
        t->read_before = t->read_bytes;
    }
    t->read_bytes = 0;
    t->read_since = s->now;
}

/* --- sending --- */

void tcp_sndbuf_grow(struct stack *s, struct tcp *t, uint32_t flight)
{
    if (flight < t->out_limit / 2 || t->out_limit >= t->out_max || tcp_memory(s) != MEMORY_FREE)
        return;
    uint64_t want = 2ull * (t->cwnd > flight ? t->cwnd : flight);
    if (want > t->out_max)
        want = t->out_max;
    if (want > t->out_limit)
        t->out_limit = (uint32_t)want;
}
