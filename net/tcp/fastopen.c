/* TCP Fast Open (RFC 7413): data in the SYN of who has been here before, and can show the cookie that it got then.
 *
 * A listener takes part if TCP_FASTOPEN gave it a number: so many connections at most may have their data handed up
 * before the peer has shown that it is where it says it is (RFC 7413 5.1; counted for the whole stack, and those that
 * ended by a RST are counted on for a while). Beyond that, and with a wrong cookie, the SYN is an ordinary one. The
 * cookie is a keyed hash of the peer's address and ours; the key changes twice a day, and the one before is still good.
 *
 * A client asks for it with TCP_FASTOPEN_CONNECT. Without a cookie its SYN requests one; with one its SYN waits for the
 * first data. That data counts as sent only once the SYN, ACK has acknowledged it: until then it stays in the queue as
 * if it never left, so that whatever happens to it (refused, lost, sent again without it) ordinary sending takes over.
 * The cookies of the servers last seen are kept, one for each address; where a SYN with data got no answer and one
 * without did, something on the way is in the way, and the next ones go without. */
#include <stdlib.h>

#include "net/core/wire.h"
#include "net/tcp/tcp.h"

#define KEY_LASTS (12ull * 3600 * SECOND)
#define OUR_COOKIE 8
#define CACHE_SIZE 64
#define BLOCKED_FOR (600ull * SECOND)
#define RESETS_COUNT_FOR (60ull * SECOND)

struct fastopen_peer {
    struct addr addr;
    uint8_t cookie[FASTOPEN_COOKIE_MAX], len; /* len 0: none known, but blocked */
    uint16_t mss;                        /* what its SYN, ACK said */
    uint64_t used, blocked_until;
};

struct fastopen_cache {
    struct fastopen_peer peers[CACHE_SIZE];
};

/* --- the server --- */

static void make_cookie(const struct stack *s, const struct addr *local, const struct addr *remote, uint64_t period,
                        uint8_t *cookie)
{
    uint64_t words[6], hash;
    memcpy(words, local->b, 16);
    memcpy(words + 2, remote->b, 16);
    words[4] = 0x54464f; /* a hash of no other use */
    words[5] = period;
    hash = siphash(s->key, words, 6);
    memcpy(cookie, &hash, OUR_COOKIE);
}

/* 0: ours and of now; 1: of the key before; -1: not ours. */
static int cookie_age(const struct stack *s, const struct segment *g, const struct ip_meta *m)
{
    uint64_t period = s->now / KEY_LASTS;
    for (unsigned age = 0; g->cookie_len == OUR_COOKIE && age < 2 && age <= period; age++) {
        uint8_t ours[OUR_COOKIE], differ = 0;
        make_cookie(s, &m->dst, &m->src, period - age, ours);
        for (unsigned i = 0; i < OUR_COOKIE; i++) /* as long for every wrong one */
            differ |= ours[i] ^ g->cookie[i];
        if (!differ)
            return (int)age;
    }
    return -1;
}

static uint32_t pending(const struct stack *s)
{
    return s->fastopen_pending + (s->now < s->fastopen_resets_until ? s->fastopen_resets : 0);
}

unsigned tcp_fastopen_request(struct stack *s, const struct tcp *l, const struct segment *g, const struct ip_meta *m)
{
    if (!l->fastopen_max || !g->has_cookie || l->listener->flags & LISTEN_DEFER)
        return 0;
    if (!g->cookie_len) {
        count(s, C_TcpExtTCPFastOpenCookieReqd);
        return FASTOPEN_OPTION;
    }
    int age = cookie_age(s, g, m);
    if (age < 0) { /* RFC 7413 4.1.2: an ordinary handshake, and a new cookie */
        count(s, C_TcpExtTCPFastOpenPassiveFail);
        return FASTOPEN_OPTION;
    }
    if (pending(s) >= l->fastopen_max) {
        count(s, C_TcpExtTCPFastOpenListenOverflow);
        return 0;
    }
    count(s, C_TcpExtTCPFastOpenPassive);
    return age ? FASTOPEN_DATA | FASTOPEN_OPTION : FASTOPEN_DATA;
}

void tcp_fastopen_begun(struct stack *s, struct tcp *t) { s->fastopen_pending += tcp_is_fast_child(t); }

void tcp_fastopen_ended(struct stack *s, struct tcp *t) { s->fastopen_pending -= tcp_is_fast_child(t); }

/* RFC 7413 5.1: or else a flood of forged SYNs whose victims reset what they never asked for would never meet the
 * limit. */
void tcp_fastopen_reset(struct stack *s)
{
    if (s->now >= s->fastopen_resets_until)
        s->fastopen_resets = 0;
    s->fastopen_resets++;
    s->fastopen_resets_until = s->now + RESETS_COUNT_FOR;
}

/* --- the client --- */

static struct fastopen_peer *find(struct stack *s, const struct addr *addr)
{
    for (unsigned i = 0; s->fastopen && i < CACHE_SIZE; i++)
        if (s->fastopen->peers[i].used && addr_eq(&s->fastopen->peers[i].addr, addr))
            return &s->fastopen->peers[i];
    return NULL;
}

/* Its place, or that of who was not needed for longest. NULL: no memory, then no Fast Open. */
static struct fastopen_peer *place(struct stack *s, const struct addr *addr)
{
    struct fastopen_peer *p = find(s, addr);
    if (!p && (s->fastopen || (s->fastopen = calloc(1, sizeof *s->fastopen)))) {
        p = &s->fastopen->peers[0];
        for (unsigned i = 1; i < CACHE_SIZE; i++)
            if (s->fastopen->peers[i].used < p->used)
                p = &s->fastopen->peers[i];
        *p = (struct fastopen_peer){.addr = *addr};
    }
    if (p)
        p->used = s->now + 1; /* 0 is an empty place */
    return p;
}

void tcp_fastopen_free(struct stack *s) { free(s->fastopen); }

unsigned tcp_fastopen_connect(struct stack *s, const struct tcp *t)
{
    const struct fastopen_peer *p = find(s, &t->k.remote);
    if (!t->fastopen_connect || (p && s->now < p->blocked_until))
        return 0;
    return p && p->len ? FASTOPEN_OPTION | FASTOPEN_WAIT : FASTOPEN_OPTION;
}

bool tcp_fastopen_syn(struct stack *s, struct tcp *t, uint32_t *len)
{
    const struct fastopen_peer *p = t->fastopen & FASTOPEN_WAIT ? find(s, &t->k.remote) : NULL;
    if (!t->fastopen)
        return true;
    if (t->backoff || (t->fastopen & FASTOPEN_WAIT && !p)) { /* RFC 7413 4.2.1: again, and plainly */
        t->fastopen = 0;
        return true;
    }
    if (!p)
        return true;
    if (!t->out_bytes)
        return false;
    uint32_t most = p->mss < t->mss ? p->mss : t->mss;
    most = most > TCP_OPTIONS_MAX ? most - TCP_OPTIONS_MAX : 0;
    *len = t->out_bytes < most ? t->out_bytes : most;
    return true;
}

uint32_t tcp_fastopen_option(struct stack *s, const struct tcp *t, uint8_t *o, uint32_t room, unsigned flags)
{
    uint8_t cookie[FASTOPEN_COOKIE_MAX];
    uint32_t len = 0;
    if (!(t->fastopen & FASTOPEN_OPTION))
        return 0;
    if (flags & TH_ACK) {
        make_cookie(s, &t->k.local, &t->k.remote, s->now / KEY_LASTS, cookie);
        len = OUR_COOKIE;
    } else if (t->fastopen & FASTOPEN_WAIT) {
        const struct fastopen_peer *p = find(s, &t->k.remote);
        len = p ? p->len : 0;
        memcpy(cookie, p ? p->cookie : cookie, len);
    }
    uint32_t whole = (2 + len + 3) & ~3u;
    if (whole > room)
        return 0;
    memset(o, TCPOPT_NOP, whole);
    o[whole - 2 - len] = TCPOPT_FASTOPEN;
    o[whole - 1 - len] = (uint8_t)(2 + len);
    memcpy(o + whole - len, cookie, len);
    return whole;
}

bool tcp_fastopen_acks(const struct tcp *t, seq_t ack)
{
    return t->syn_data && seq_gt(ack, t->iss) && seq_le(ack, seq_add(t->iss, 1u + t->syn_data));
}

void tcp_fastopen_answered(struct stack *s, struct tcp *t, const struct segment *g)
{
    struct fastopen_peer *p;
    if (g->has_cookie && g->cookie_len >= FASTOPEN_COOKIE_MIN && t->fastopen_connect && (p = place(s, &t->k.remote))) {
        memcpy(p->cookie, g->cookie, g->cookie_len);
        p->len = g->cookie_len;
        p->mss = t->peer_mss;
    }
    if (!t->syn_data)
        return;
    uint32_t taken = (uint32_t)seq_diff(g->ack, t->iss) - 1;
    if (taken) {
        count(s, C_TcpExtTCPFastOpenActive);
        tcp_out_acked(s, t, taken);
        t->bytes_acked += taken;
        t->fastopen = FASTOPEN_DATA;
    } else {
        count(s, C_TcpExtTCPFastOpenActiveFail);
        if (t->backoff && (p = place(s, &t->k.remote))) /* RFC 7413 4.1.3.1 */
            p->blocked_until = s->now + BLOCKED_FOR;
    }
    t->syn_data = 0;
}
