/* The size of segments on a path that does not carry what the link does. Four ways to learn it:
 *
 *   others    what is noted of the destination (pmtu.c)
 *   ICMP      "too big", about something that is under way (RFC 1191, RFC 8201, RFC 5927 7); if it does not say of what size
 *             (RFC 1191 5), the next plateau below what was sent. All that is under way goes again in smaller segments,
 *             which is no sign of congestion.
 *   silence   a black hole swallows large packets and says nothing (RFC 2923 2.1): after three time-outs in a row of full
 *             segments smaller ones are tried, 1200 bytes first; what gets through is noted.
 *   probes    upwards (RFC 4821 7, RFC 8899 5): one data segment that is larger, while nothing is wrong and enough follows it
 *             to find its loss. If it arrives, all are as large; if it alone is lost, that size is too large, and the
 *             congestion window stays. First the largest that may do, then by halves. After a black hole at once; after
 *             an ICMP message when ten minutes have passed (RFC 1191 6.3).
 *
 * stack_config.mtu_probing, as Linux's tcp_mtu_probing: 0 neither black holes nor probes, 1 probes where something was
 * learnt, 2 every connection begins with 1200 bytes and probes.
 *
 * Small segments: nobody can make ours smaller than 64 bytes of payload (tcp_set_mss(); CVE-2019-11479), by ICMP not
 * than path_mtu_least(). The send queue is not cut up by segments, however small (CVE-2019-11477, 11478: see
 * scoreboard.h). */
#include "net/core/wire.h"
#include "net/tcp/tcp.h"

#define BASE_MTU 1200u          /* RFC 8899 5.1.2 */
#define BLACK_HOLE_TIMEOUTS 3u
#define STEP_LEAST 16u          /* a search that is so close has found it */
#define SEGMENTS_BEHIND 3u      /* as many as it takes to find the loss of a probe */

static uint32_t headers(const struct tcp *t)
{
    return (addr_is4(&t->k.remote) ? IP4_HLEN : IP6_HLEN) + TCP_HLEN + (t->ts_ok ? 12 : 0);
}

/* Of a packet with a full segment in it: what the peer takes may be less than the path does. */
static uint32_t packet_size(const struct tcp *t) { return t->mss + headers(t); }

static void set_mtu(struct tcp *t, uint32_t mtu)
{
    t->mtu = (uint16_t)mtu;
    tcp_set_mss(t);
}

/* Look upwards from now + wait on, as far as `high`. */
static void search(struct stack *s, struct tcp *t, uint32_t high, uint64_t wait)
{
    t->mtu_high = (uint16_t)(high < 65535 ? high : 65535);
    t->mtu_halves = false;
    t->mtu_retry = (uint32_t)((s->now + wait) / SECOND);
}

void tcp_mtu_init(struct stack *s, struct tcp *t, const struct path *path)
{
    uint32_t link = path->mtu, known = path_mtu_via(s, path, &t->k.remote);
    t->adv_mss = (uint16_t)(link - (addr_is4(&t->k.remote) ? IP4_HLEN : IP6_HLEN) - TCP_HLEN); /* RFC 6691 */
    t->mtu = (uint16_t)known;
    t->mtu_high = t->mtu_probe = 0;
    t->mtu_hole = false;
    if (known < path->mtu)
        search(s, t, path->mtu, PATH_MTU_LIFE);
    if (s->config.mtu_probing == 2) {
        uint32_t least = path_mtu_least(&t->k.remote), base = least > BASE_MTU ? least : BASE_MTU;
        search(s, t, known, 0);
        t->mtu = (uint16_t)(base < known ? base : known);
    }
}

/* RFC 1191 7.1: the sizes that links have; the next one below. */
static uint32_t plateau(uint32_t size)
{
    static const uint16_t sizes[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] < size)
            return sizes[i];
    return 68;
}

void tcp_mtu_too_big(struct stack *s, struct tcp *t, seq_t about, uint32_t mtu)
{
    bool probe = t->mtu_probe && seq_eq(about, t->mtu_probe_seq);
    uint32_t size = probe ? t->mtu_probe : packet_size(t), least = path_mtu_least(&t->k.remote);
    if (mtu == 0 && addr_is4(&t->k.remote))
        mtu = plateau(size);
    if (mtu < least)
        mtu = least;
    if (probe && mtu < size && mtu > t->mtu) /* the next one is of that size; its loss is found as any other */
        t->mtu_high = (uint16_t)mtu;
    if (mtu >= t->mtu)
        return;
    search(s, t, t->mtu, PATH_MTU_LIFE);
    set_mtu(t, path_mtu_note(s, &t->k.remote, mtu));
    if (tcp_is_connecting(&t->k) && !tcp_is_fast_child(t))
        t->snd_nxt = t->snd_una;
    else
        tcp_resend_all(s, t);
    sock_mark_dirty(s, &t->k);
}

static void probe_failed(struct stack *s, struct tcp *t)
{
    count(s, C_TcpExtTCPMTUPFail);
    if (t->mtu_high >= t->mtu_probe) /* else ICMP has said what it may be */
        t->mtu_high = (uint16_t)(t->mtu_probe - 1);
    t->mtu_halves = true;
    t->mtu_probe = 0;
}

void tcp_mtu_timeout(struct stack *s, struct tcp *t)
{
    static const uint16_t sizes[] = {BASE_MTU, 1024, 576};
    if (tcp_is_connecting(&t->k))
        return;
    if (t->mtu_probe)
        probe_failed(s, t);
    if (!s->config.mtu_probing || t->backoff + 1u < BLACK_HOLE_TIMEOUTS)
        return;
    uint32_t flight = (uint32_t)seq_diff(t->snd_max, t->snd_una), size = packet_size(t), to = 0;
    if ((flight < t->out_bytes ? flight : t->out_bytes) < t->mss) /* it is not its size that keeps it back */
        return;
    uint32_t least = path_mtu_least(&t->k.remote);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes && !to; i++) {
        uint32_t step = sizes[i] > least ? sizes[i] : least;
        if (step < size)
            to = step;
    }
    if (!to)
        return;
    if (!t->mtu_hole)
        search(s, t, size, 0);
    t->mtu_hole = true;
    set_mtu(t, to);
}

void tcp_mtu_acked(struct stack *s, struct tcp *t)
{
    if (t->mtu_hole) { /* smaller ones get through; whether it was their size, a probe will tell */
        t->mtu_hole = false;
        count(s, C_TcpExtTCPBlackHole);
        path_mtu_note(s, &t->k.remote, t->mtu);
    }
    if (t->mtu_probe && seq_gt(t->snd_una, t->mtu_probe_seq)) {
        count(s, C_TcpExtTCPMTUPSuccess);
        set_mtu(t, t->mtu_probe);
        path_mtu_note(s, &t->k.remote, t->mtu);
        t->mtu_probe = 0;
    }
}

bool tcp_mtu_lost(struct stack *s, struct tcp *t)
{
    const struct sent *r = t->sb.missing.head;
    if (!t->mtu_probe)
        return false;
    if (r && seq_eq(r->seq, t->mtu_probe_seq) && t->sb.lost == (uint32_t)seq_diff(r->end, r->seq)) {
        probe_failed(s, t);
        return true;
    }
    t->mtu_probe = 0; /* more than that is lost: this says nothing of sizes (RFC 4821 7.6.3) */
    t->mtu_retry = (uint32_t)((s->now + SECOND) / SECOND);
    return false;
}

uint32_t tcp_mtu_probe(struct stack *s, struct tcp *t, uint32_t mss)
{
    if (t->mtu_probe && seq_eq(t->snd_max, t->mtu_probe_seq))
        t->mtu_probe = 0; /* it was not sent after all */
    if (!t->mtu_high || t->mtu_probe || t->mtu_hole || s->now / SECOND < t->mtu_retry || t->ca != CA_OPEN || t->backoff)
        return 0;
    uint32_t peer = t->peer_mss + headers(t) - (t->ts_ok ? 12 : 0), high = t->mtu_high < peer ? t->mtu_high : peer;
    uint32_t now = packet_size(t), size = t->mtu_halves ? (now + high + 1) / 2 : high;
    if (high <= now || (t->mtu_halves && high < now + STEP_LEAST)) { /* found; anew in ten minutes, if it may be more */
        uint32_t most = t->adv_mss + headers(t) - (t->ts_ok ? 12 : 0);
        if (now + STEP_LEAST <= (most < peer ? most : peer))
            search(s, t, most, PATH_MTU_LIFE);
        else
            t->mtu_high = 0;
        return 0;
    }
    if (!s->config.mtu_probing) { /* RFC 1191 6.3: by trying */
        set_mtu(t, t->mtu_high);
        t->mtu_high = 0;
        return 0;
    }
    uint32_t len = size - headers(t) - (t->mss - mss), sent = (uint32_t)seq_diff(t->snd_nxt, t->snd_una);
    if (tcp_unsent(t) < len + SEGMENTS_BEHIND * mss || sent + len > t->snd_wnd || tcp_in_flight(t) + len > t->cwnd)
        return 0;
    t->mtu_probe = (uint16_t)size;
    t->mtu_probe_seq = t->snd_nxt;
    return len;
}
