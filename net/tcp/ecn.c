/* Explicit congestion notification (RFC 3168, and RFC 8511 through the controllers): routers mark packets (CE) where
 * they would soon have to drop them; the receiver echoes that (ECE) until it hears that the sender has slowed down
 * (CWR). Section numbers are of RFC 3168.
 *
 * What a stack does is its option `ecn`: 0 nothing, 1 asks and answers, 2 answers only. ECT(0) is on new data alone,
 * not on SYNs, retransmissions, probes and empty segments (6.1.1, 6.1.4 to 6.1.6). A connection's `ecn` is 0 if neither
 * side uses it, so that all others pay one comparison for each segment. */
#include "net/tcp/tcp.h"
#include "net/core/wire.h"

#define ECT0 2
#define CE 3
#define ECN_BITS 3

enum {
    ASKED = 1,     /* our SYN asked */
    FELL_BACK = 2, /* and then one did not (6.1.1.1) */
    SENDS = 4,     /* we may set ECT */
    HEARS = 8,     /* we answer CE */
    ECHO = 16,     /* CE was seen, CWR not yet: ECE on all that acknowledges */
    CUT = 32,      /* the window was, for a mark in what was sent before ecn_high */
    SLOWED = 64,   /* CWR is due on the next new data */
};

void tcp_ecn_connect(struct stack *s, struct tcp *t) { t->ecn = s->config.ecn == 1 ? ASKED : 0; }

void tcp_ecn_take_syn(struct stack *s, struct tcp *t, const struct segment *g)
{
    unsigned asks = g->flags & (TH_ECE | TH_CWR), before = t->ecn;
    bool active = t->state == SYN_SENT;
    t->ecn = 0;
    if (g->flags & TH_ACK) { /* ECE alone agrees; both are a peer that echoes flags it does not know (6.1.1) */
        if (asks == TH_ECE && before & ASKED)
            t->ecn = before & FELL_BACK ? HEARS : HEARS | SENDS;
    } else if (asks == (TH_ECE | TH_CWR) && s->config.ecn && (!active || before == ASKED)) {
        t->ecn = HEARS | SENDS;
    }
}

void tcp_ecn_syn_again(struct tcp *t, const struct segment *g)
{
    if ((g->flags & (TH_ECE | TH_CWR)) != (TH_ECE | TH_CWR)) /* it fell back: our answer may be what was dropped */
        t->ecn = 0;
}

bool tcp_ecn_refused(struct stack *s, struct tcp *t)
{
    if (t->ecn != ASKED)
        return false;
    t->ecn |= FELL_BACK; /* 6.1.1.1: perhaps by something on the path that does not know these flags */
    t->snd_nxt = t->iss;
    sock_mark_dirty(s, &t->k);
    return true;
}

unsigned tcp_ecn_output(struct tcp *t, unsigned flags, bool new_data, uint8_t *tos)
{
    *tos = t->k.tos & (uint8_t)~ECN_BITS;
    if (!t->ecn)
        return 0;
    if (flags & TH_SYN) {
        if (flags & TH_ACK)
            return t->ecn & SENDS ? TH_ECE : 0;
        if (t->backoff) /* 6.1.1.1: what has no answer is tried without */
            t->ecn |= FELL_BACK;
        return t->ecn == ASKED ? TH_ECE | TH_CWR : 0;
    }
    unsigned more = t->ecn & ECHO && flags & TH_ACK ? TH_ECE : 0;
    if (new_data && t->ecn & SENDS) {
        *tos |= ECT0;
        if (t->ecn & SLOWED) { /* 6.1.2 */
            t->ecn &= (uint8_t)~SLOWED;
            more |= TH_CWR;
        }
    }
    return more;
}

/* The peer says that a packet was marked: once for each window of data (6.1.2). */
static void slow_down(struct stack *s, struct tcp *t)
{
    t->ecn |= CUT | SLOWED;
    t->ecn_high = t->snd_max;
    tcp_enter_cwr(s, t, CONG_MARKED); /* unless a loss in it has been answered already */
}

void tcp_ecn_input(struct stack *s, struct tcp *t, const struct segment *g, unsigned tos)
{
    if (g->len) {
        if (g->flags & TH_CWR) /* before CE: this very packet may be marked again (6.1.3) */
            t->ecn &= (uint8_t)~ECHO;
        if ((tos & ECN_BITS) == CE && t->ecn & HEARS) {
            t->ack_now |= !(t->ecn & ECHO); /* the sender should not hear of it late */
            t->ecn |= ECHO;
        }
    }
    if (t->ecn & CUT && seq_ge(t->snd_una, t->ecn_high))
        t->ecn &= (uint8_t)~CUT;
    if (g->flags & TH_ECE && t->ecn & SENDS && t->state != SYN_RECV && seq_ge(g->ack, t->snd_una) &&
        seq_le(g->ack, t->snd_max) && !seq_eq(t->snd_una, t->snd_max)) {
        s->counters[C_TcpExtTCPDeliveredCE] += ((uint32_t)seq_diff(g->ack, t->snd_una) + t->mss - 1) / t->mss;
        if (!(t->ecn & CUT))
            slow_down(s, t);
    }
}

bool tcp_ecn_agreed(const struct tcp *t) { return t->ecn & (SENDS | HEARS); }
