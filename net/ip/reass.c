/* Reassembly of IPv4 and IPv6 (RFC 791 3.2, RFC 815, RFC 1122 3.3.2, RFC 8200 4.5).
 *
 * A datagram under way is a list of its fragments, sorted, each in the buffer in which it came; complete, they are
 * copied into one. What never completes is what this file is about:
 *
 * - Held buffers are bounded, for the stack and for each source; beyond that the oldest datagram goes (of that source,
 * if
 *   it is at its own bound). Honest datagrams are complete within milliseconds, so the oldest is the least likely to be.
 * - Fragments that overlap are an attack (RFC 5722, and so for IPv4): the datagram is dropped with what is still to
 * come of
 *   it. Only an exact copy of a fragment is let pass, because networks make those.
 * - A datagram has FRAGMENTS_MAX pieces at most, so that cutting it fine makes neither lists nor buffers long. - A
 * timer ends the wait: 30 s for IPv4 (RFC 1122 leaves it between 60 and 120, from a time of slower networks), 60 s for
 *   IPv6. Only if the first fragment is there does its sender hear of it (RFC 792, RFC 8200).
 *
 * The table is made when the first fragment comes. A chain of its hash holds all datagrams of a source, which is how
 * the source's share is known without a table of sources; the hash is keyed. Datagrams of a family are in one list from
 * the oldest on, and one timer runs for both. */
#include "net/ip/reass.h"

#include <stdlib.h>

#include "net/core/checksum.h"
#include "net/core/wire.h"

#define DATAGRAMS_MAX 256 /* of the stack, the dropped ones that are remembered too */
#define OF_SOURCE_MAX 64
#define FRAGMENTS_MAX 256
#define BUCKETS 64
#define BYTES_MAX (4u << 20) /* of buffers; a small pool gives an eighth of itself */
#define WAIT4 (30ull * SECOND)
#define WAIT6 (60ull * SECOND)

/* Of a fragment that is held: */
#define FRAG_OFF(p) ((p)->mark)
#define FRAG_END(p) ((p)->mark + (p)->len)
#define FRAG_IP(p) ((p)->mark2) /* where its IP header starts, in its buffer */

struct datagram {
    struct datagram *chain;       /* of the bucket, or of the free ones */
    struct datagram *next, *prev; /* younger, older */
    struct addr src, dst;
    uint32_t id, zone; /* zone: the interface, where the addresses have a meaning on one link only */
    uint8_t proto;     /* IPv4: part of what names it; IPv6: as its first fragment says */
    bool dropped;      /* overlapped: remembered until its time is over, so that no rest of it begins anew */
    bool to_group;
    uint8_t ecn;      /* a bit for each codepoint that a fragment had */
    uint16_t next_at; /* as in struct fragment, of the first */
    int ifindex;
    uint64_t since;
    struct pbuf *head, *tail;
    uint32_t pieces, bytes, held; /* fragments, their data, their buffers */
    uint32_t total;               /* of data; 0: the last fragment is still to come */
};

struct reass {
    struct timer timer; /* first */
    struct datagram *buckets[BUCKETS], *spare;
    struct datagram *oldest[2], *youngest[2]; /* IPv4, IPv6 */
    uint32_t held, bound;
    struct datagram all[DATAGRAMS_MAX];
};

static bool is6(const struct datagram *d) { return !addr_is4(&d->src); }
static uint64_t wait_of(unsigned family6) { return family6 ? WAIT6 : WAIT4; }

static struct datagram **bucket_of(struct stack *s, const struct addr *src)
{
    uint64_t words[2];
    memcpy(words, src->b, 16);
    return &s->reass->buckets[siphash(s->key, words, 2) % BUCKETS];
}

/* --- the table --- */

static void release(struct stack *s, struct datagram *d)
{
    for (struct pbuf *p = d->head, *next; p; p = next) {
        next = p->next;
        pbuf_free(&s->pool, p);
    }
    s->reass->held -= d->held;
    d->head = d->tail = NULL;
    d->held = d->bytes = d->pieces = 0;
}

static void forget(struct stack *s, struct datagram *d)
{
    struct reass *r = s->reass;
    struct datagram **at = bucket_of(s, &d->src);
    unsigned f = is6(d);
    release(s, d);
    while (*at != d)
        at = &(*at)->chain;
    *at = d->chain;
    *(d->prev ? &d->prev->next : &r->oldest[f]) = d->next;
    *(d->next ? &d->next->prev : &r->youngest[f]) = d->prev;
    d->chain = r->spare;
    r->spare = d;
}

static void fail(struct stack *s, struct datagram *d)
{
    if (!d->dropped)
        count(s, is6(d) ? C_Ip6ReasmFails : C_IpReasmFails);
    forget(s, d);
}

/* RFC 792 (type 11 code 1), RFC 8200 4.5: with the first fragment in it, and not at all without that. */
static void tell_time_is_over(struct stack *s, const struct datagram *d)
{
    if (!d->head || FRAG_OFF(d->head) != 0)
        return;
    struct ip_meta m = {.nif = &s->netifs[d->ifindex - 1], .src = d->src, .dst = d->dst, .ip_off = FRAG_IP(d->head),
                        .proto = d->proto, .to_group = d->to_group};
    icmp_error(s, ICMP_REASM_TIME, d->head, &m);
}

static void set_timer(struct stack *s)
{
    for (unsigned f = 0; f < 2; f++)
        if (s->reass->oldest[f])
            timer_at(&s->timers, &s->reass->timer, s->reass->oldest[f]->since + wait_of(f));
}

static void fire(struct timer *t, void *stack, uint64_t now)
{
    struct stack *s = stack;
    struct reass *r = (struct reass *)t;
    for (unsigned f = 0; f < 2; f++)
        for (struct datagram *d; (d = r->oldest[f]) && now - d->since >= wait_of(f);) {
            if (!d->dropped) {
                count(s, f ? C_Ip6ReasmTimeout : C_IpReasmTimeout);
                tell_time_is_over(s, d);
            }
            fail(s, d);
        }
    set_timer(s);
}

static bool make_table(struct stack *s)
{
    struct reass *r = s->reass = calloc(1, sizeof *r);
    if (!r)
        return false;
    timer_init(&r->timer, fire);
    r->bound = s->pool.limit / 8 < BYTES_MAX ? (uint32_t)(s->pool.limit / 8) : BYTES_MAX;
    for (unsigned i = 0; i < DATAGRAMS_MAX; i++) {
        r->all[i].chain = r->spare;
        r->spare = &r->all[i];
    }
    return true;
}

void reass_free(struct stack *s)
{
    if (!s->reass)
        return;
    for (unsigned f = 0; f < 2; f++)
        while (s->reass->oldest[f])
            forget(s, s->reass->oldest[f]);
    timer_cancel(&s->timers, &s->reass->timer);
    free(s->reass);
    s->reass = NULL;
}

static struct datagram *oldest_of_all(const struct reass *r)
{
    struct datagram *a = r->oldest[0], *b = r->oldest[1];
    return !a || (b && b->since < a->since) ? b : a;
}

/* Puts the datagram that the fragment belongs to into *found (NULL: none yet), and makes room for `size` bytes more:
 * its own source pays for them first. False: there is none. */
static bool find(struct stack *s, const struct ip_meta *m, const struct fragment *f, uint32_t zone, uint32_t size,
                 struct datagram **found)
{
    struct reass *r = s->reass;
    *found = NULL;
    while (true) {
        struct datagram *oldest = NULL;
        uint32_t n = 0, held = 0;
        for (struct datagram *d = *bucket_of(s, &m->src); d; d = d->chain) {
            if (!addr_eq(&d->src, &m->src))
                continue;
            if (d->id == f->id && d->zone == zone && addr_eq(&d->dst, &m->dst) && (is6(d) || d->proto == f->proto))
                *found = d;
            else if (!oldest || d->since < oldest->since)
                oldest = d;
            n++;
            held += d->held;
        }
        if (held + size <= r->bound / 2 && n + !*found <= OF_SOURCE_MAX)
            break;
        if (!oldest)
            return false;
        fail(s, oldest);
    }
    while (r->held + size > r->bound || (!*found && !r->spare)) {
        struct datagram *d = oldest_of_all(r);
        if (d == *found)
            return false;
        fail(s, d);
    }
    return true;
}

static struct datagram *begin(struct stack *s, const struct ip_meta *m, const struct fragment *f, uint32_t zone)
{
    struct reass *r = s->reass;
    struct datagram *d = r->spare, **bucket = bucket_of(s, &m->src);
    unsigned family = !addr_is4(&m->src);
    r->spare = d->chain;
    *d = (struct datagram){.chain = *bucket, .prev = r->youngest[family], .src = m->src, .dst = m->dst, .id = f->id,
                           .zone = zone, .proto = f->proto, .ifindex = m->nif->index, .since = s->now};
    *bucket = d;
    *(d->prev ? &d->prev->next : &r->oldest[family]) = d;
    r->youngest[family] = d;
    set_timer(s);
    return d;
}

/* --- a fragment finds its place --- */

enum place { PLACED, AGAIN, OVERLAPS };

/* Sorted in. Fragments come in order mostly, so the end is tried first. */
static enum place insert(struct datagram *d, struct pbuf *p)
{
    struct pbuf **at = d->tail && FRAG_END(d->tail) <= FRAG_OFF(p) ? &d->tail->next : &d->head;
    for (; *at && FRAG_OFF(*at) < FRAG_END(p); at = &(*at)->next) {
        if (FRAG_OFF(*at) == FRAG_OFF(p) && (*at)->len == p->len)
            return memcmp(pbuf_data(*at), pbuf_data(p), p->len) == 0 ? AGAIN : OVERLAPS;
        if (FRAG_END(*at) > FRAG_OFF(p))
            return OVERLAPS;
    }
    p->next = *at;
    *at = p;
    if (!p->next)
        d->tail = p;
    return PLACED;
}

/* RFC 3168 5.3: a mark on one fragment is a mark on the datagram; on one that cannot carry it, the datagram is dropped.
 * ecn: a bit for each codepoint seen. *tos: the first fragment's. */
static bool join_ecn(unsigned ecn, unsigned *tos)
{
    if (!(ecn & 1 << IP_ECN_CE))
        return true;
    *tos |= IP_ECN_CE;
    return !(ecn & 1 << IP_ECN_NOT);
}

static unsigned tos_of(const uint8_t *ip) { return ip[0] >> 4 == 4 ? ip[IP4_TOS] : (ip[0] << 4 | ip[1] >> 4) & 0xff; }

/* All is here: one buffer, with the first fragment's headers. NULL: no memory, or marks that cannot be. */
static struct pbuf *join(struct stack *s, struct datagram *d, struct ip_meta *m)
{
    struct pbuf *first = d->head;
    const uint8_t *from = first->base + FRAG_IP(first);
    uint32_t hlen = first->off - FRAG_IP(first) - (is6(d) ? IP6_FRAG_HLEN : 0);
    unsigned tos = tos_of(from);
    struct pbuf *p = hlen + d->total > 65535 + (is6(d) ? IP6_HLEN : 0) || !join_ecn(d->ecn, &tos)
                         ? NULL
                         : pbuf_alloc(&s->pool, PBUF_HEADROOM, hlen + d->total);
    if (!p)
        return NULL;
    uint8_t *ip = pbuf_data(p);
    memcpy(ip, from, hlen);
    p->len = hlen;
    for (const struct pbuf *f = first; f; f = f->next) {
        memcpy(pbuf_data(p) + p->len, pbuf_data(f), f->len);
        p->len += f->len;
    }
    if (is6(d)) {
        ip[0] = (uint8_t)(0x60 | tos >> 4);
        ip[1] = (uint8_t)(tos << 4 | (ip[1] & 15));
        put16(ip + IP6_PLEN, p->len - IP6_HLEN);
        ip[d->next_at] = d->proto;
    } else {
        ip[IP4_TOS] = (uint8_t)tos;
        put16(ip + IP4_TOTAL, p->len);
        put16(ip + IP4_FRAG, 0);
        put16(ip + IP4_CSUM, 0);
        put16(ip + IP4_CSUM, csum_finish(csum_add(0, ip, hlen)));
    }
    m->ip_off = p->off;
    m->proto = d->proto;
    m->pointer = d->next_at;
    m->to_group = d->to_group;
    pbuf_pull(p, hlen);
    return p;
}

/* Does what it says of the datagram's length agree with what the others said? */
static bool length_fits(struct datagram *d, const struct pbuf *p, const struct fragment *f)
{
    uint32_t end = FRAG_END(p);
    if (f->more)
        return !d->total || end < d->total;
    if (d->total ? d->total != end : d->tail && FRAG_END(d->tail) > end)
        return false;
    d->total = end;
    return true;
}

/* It cannot become whole: what is still to come of it is dropped, too. */
static void drop_all(struct stack *s, struct datagram *d)
{
    count(s, C_IpExtReasmOverlaps);
    count(s, is6(d) ? C_Ip6ReasmFails : C_IpReasmFails);
    release(s, d);
    d->dropped = true;
}

struct pbuf *reass_input(struct stack *s, struct pbuf *p, struct ip_meta *m, const struct fragment *f)
{
    bool v6 = !addr_is4(&m->src);
    uint32_t zone = addr_is_linklocal6(&m->src) || addr_is_multicast(&m->dst) ? (uint32_t)m->nif->index : 0;
    struct datagram *d;
    count(s, v6 ? C_Ip6ReasmReqds : C_IpReasmReqds);
    if (pbuf_pressure(&s->pool) || (!s->reass && !make_table(s)))
        goto drop;
    if (!find(s, m, f, zone, p->size, &d))
        goto drop;
    if (!d)
        d = begin(s, m, f, zone);
    p->mark = f->off;
    p->mark2 = m->ip_off;
    p->next = NULL;
    if (d->dropped)
        goto drop_quietly;
    enum place place = d->pieces < FRAGMENTS_MAX && length_fits(d, p, f) ? insert(d, p) : OVERLAPS;
    if (place == AGAIN)
        goto drop_quietly;
    if (place == OVERLAPS) {
        drop_all(s, d);
        goto drop_quietly;
    }
    d->pieces++;
    d->bytes += p->len;
    d->held += p->size;
    s->reass->held += p->size;
    d->to_group |= m->to_group;
    d->ecn |= (uint8_t)(1u << (tos_of(p->base + m->ip_off) & 3));
    if (f->off == 0) { /* RFC 8200 4.5: what is in it is the first fragment's word */
        d->proto = f->proto;
        d->next_at = f->next_at;
    }
    if (!d->total || d->bytes != d->total)
        return NULL;
    struct pbuf *whole = join(s, d, m);
    count(s, whole ? v6 ? C_Ip6ReasmOKs : C_IpReasmOKs : v6 ? C_Ip6ReasmFails : C_IpReasmFails);
    forget(s, d);
    return whole;
drop:
    count(s, v6 ? C_Ip6ReasmFails : C_IpReasmFails);
drop_quietly:
    pbuf_free(&s->pool, p);
    return NULL;
}
