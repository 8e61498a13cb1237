/* Reports of group membership: the records of RFC 3376 4.2 and RFC 3810 5.2, which differ in the size of an address
 * alone. See groupset.h.
 *
 * A message is filled up to the link's MTU. A record that does not fit is cut where that loses nothing (a list of
 * sources to include), else it ends where the message ends (RFC 3376 4.2.16). */
#include "net/core/wire.h"
#include "net/ip/groupset.h"

#define RECORD_TYPE 0
#define RECORD_SOURCES 2
#define RECORD_GROUP 4
#define OUTER_HLEN (IP6_HLEN + 8) /* the larger one: IPv6, and a hop-by-hop header with a router alert */

static uint32_t width(const struct group_report *r) { return r->v4 ? 4 : 16; }

static uint8_t *put_addr(const struct group_report *r, uint8_t *to, const struct addr *a)
{
    memcpy(to, r->v4 ? addr_v4(a) : a->b, width(r));
    return to + width(r);
}

void group_report_send(struct group_report *r)
{
    if (r->p)
        (r->v4 ? igmp_send_report : mld_send_report)(r->nif, r->p, r->records);
    r->p = NULL;
    r->records = 0;
}

/* Begin a record; NULL: no memory. The message has room for at least one source more. */
static uint8_t *begin_record(struct group_report *r, unsigned type, const struct addr *group)
{
    uint32_t most = netif_mtu(r->nif, r->v4) - OUTER_HLEN, size = RECORD_GROUP + width(r);
    if (r->p && r->p->len + size + width(r) > most)
        group_report_send(r);
    if (!r->p) {
        if (!(r->p = pbuf_alloc(&r->nif->stack->pool, PBUF_HEADROOM + ETH_HLEN + OUTER_HLEN, most)))
            return NULL;
        r->p->len = GROUP_REPORT_HLEN;
    }
    uint8_t *record = pbuf_data(r->p) + r->p->len;
    record[RECORD_TYPE] = (uint8_t)type;
    record[RECORD_TYPE + 1] = 0; /* no auxiliary data */
    put16(record + RECORD_SOURCES, 0);
    put_addr(r, record + RECORD_GROUP, group);
    r->p->len += size;
    r->records++;
    return record;
}

/* One more source. The record goes on in another message where it may; NULL: it may not, or there is no memory. */
static uint8_t *add_source(struct group_report *r, uint8_t *record, const struct addr *group, const struct addr *source)
{
    unsigned type = record[RECORD_TYPE];
    if (r->p->len + width(r) > netif_mtu(r->nif, r->v4) - OUTER_HLEN) {
        if (type == IS_EX || type == TO_EX)
            return NULL;
        group_report_send(r);
        if (!(record = begin_record(r, type, group)))
            return NULL;
    }
    put_addr(r, pbuf_data(r->p) + r->p->len, source);
    r->p->len += width(r);
    put16(record + RECORD_SOURCES, get16(record + RECORD_SOURCES) + 1u);
    return record;
}

unsigned group_report_change(struct group_report *r, struct group *g)
{
    unsigned left = 0;
    if (g->mode_resend) {
        uint8_t *record = begin_record(r, g->exclude ? TO_EX : TO_IN, &g->addr);
        for (unsigned i = 0; record && i < g->nsources; i++)
            if (g->sources[i].listed)
                record = add_source(r, record, &g->addr, &g->sources[i].addr);
        left = --g->mode_resend;
    } else {
        for (unsigned block = 0; block < 2; block++) {
            uint8_t *record = NULL;
            for (unsigned i = 0; i < g->nsources; i++) {
                struct group_source *source = &g->sources[i];
                if (!source->resend || (source->listed == g->exclude) != block)
                    continue;
                if (!record && !(record = begin_record(r, block ? BLOCK : ALLOW, &g->addr)))
                    break;
                if (!(record = add_source(r, record, &g->addr, &source->addr)))
                    break;
                source->resend--;
            }
        }
    }
    for (unsigned i = 0; i < g->nsources; i++)
        left = g->sources[i].resend > left ? g->sources[i].resend : left;
    return left;
}

/* Is the source in the filter? */
static bool is_listed(const struct group *g, const struct addr *a)
{
    for (unsigned i = 0; i < g->nsources; i++)
        if (addr_eq(&g->sources[i].addr, a))
            return g->sources[i].listed;
    return false;
}

void group_report_state(struct group_report *r, const struct group *g, bool all)
{
    uint8_t *record = NULL;
    if (g->nasked && !all) { /* RFC 3376 5.2: those of the sources asked for that are wanted */
        for (unsigned i = 0; i < g->nasked; i++) {
            if (is_listed(g, &g->asked[i]) == g->exclude)
                continue;
            if (!record)
                record = begin_record(r, IS_IN, &g->addr);
            if (!record || !(record = add_source(r, record, &g->addr, &g->asked[i])))
                return;
        }
        return;
    }
    record = begin_record(r, g->exclude ? IS_EX : IS_IN, &g->addr);
    for (unsigned i = 0; record && i < g->nsources; i++)
        if (g->sources[i].listed)
            record = add_source(r, record, &g->addr, &g->sources[i].addr);
}

void group_send_old(struct netif *nif, const struct addr *group, unsigned version, bool leave)
{
    if (addr_is4(group))
        igmp_send_old(nif, group, version, leave);
    else
        mld_send_old(nif, group, leave);
}
