/* The state machine of group membership, for IPv4 and IPv6. See group.h.
 *
 * An interface's filter for a group is the sum of its sockets' (RFC 3376 3.2): if one excludes, all is wanted but what
 * each one excludes and none includes; else what any includes. A change of it is told at once and, as messages get
 * lost, robustness - 1 times more, each time with what is so by then (5.1). Queries are answered after a random delay
 * (5.2).
 *
 * While a querier of an older version is about, its language is spoken (7.2.1, RFC 3810 8.2.1); it knows no sources.
 *
 * All reports hang on one timer of the stack: it fires when the earliest is due, and everything that is due goes out,
 * several groups in one message where the version allows it. */
#include "net/ip/group.h"

#include <errno.h>
#include <stdlib.h>

#include "net/core/wire.h"
#include "net/ip/groupset.h"

static const struct addr all_hosts = {.b = {[10] = 0xff, 0xff, 224, 0, 0, 1}};

/* Every host is in these and need not say so (RFC 3376 5, RFC 3810 6): all hosts, and groups that leave no link. */
static bool is_silent(const struct addr *a)
{
    return addr_is4(a) ? addr_eq(a, &all_hosts) : (a->b[1] & 15) < 2 || (addr_is_all_nodes(a));
}

/* Has anybody to be told of it? */
static bool is_reported(const struct netif *nif, const struct addr *a)
{
    return !is_silent(a) && !(nif->link->caps & LINK_LOOPBACK) && !(nif->stack->config.flags & STACK_NO_REPORTS);
}

static struct group_set *set_of(struct netif *nif)
{
    if (!nif->groups && (nif->groups = calloc(1, sizeof *nif->groups)))
        for (unsigned f = 0; f < 2; f++)
            nif->groups->family[f] = (struct group_family){.robustness = ROBUSTNESS, .interval = QUERY_INTERVAL,
                                                           .answer_at = REACTOR_NEVER};
    return nif->groups;
}

static struct group *find(const struct netif *nif, const struct addr *a)
{
    struct group *g = nif->groups ? nif->groups->first : NULL;
    while (g && !addr_eq(&g->addr, a))
        g = g->next;
    return g;
}

static struct group_family *family_of(struct netif *nif, const struct addr *a)
{
    return &nif->groups->family[!addr_is4(a)];
}

static bool is_wanted(const struct group *g) { return g->own || g->members; }

bool group_joined(const struct netif *nif, const struct addr *a)
{
    const struct group *g = find(nif, a);
    return addr_eq(a, &all_hosts) || addr_is_all_nodes(a) || (g && is_wanted(g));
}

/* --- the filter --- */

static struct group_source *source_of(const struct group *g, const struct addr *a)
{
    for (unsigned i = 0; i < g->nsources; i++)
        if (addr_eq(&g->sources[i].addr, a))
            return &g->sources[i];
    return NULL;
}

static bool lists(const struct membership *m, const struct addr *a)
{
    for (unsigned i = 0; i < m->nsources; i++)
        if (addr_eq(&m->sources[i], a))
            return true;
    return false;
}

/* Is the source in the interface's list, now that the members are as they are? */
static bool belongs(const struct group *g, bool exclude, const struct addr *a)
{
    if (g->own)
        return false; /* somebody wants all of it */
    for (const struct membership *m = g->members; m; m = m->sibling)
        if (!exclude ? lists(m, a) : m->exclude != lists(m, a))
            return !exclude;
    return exclude;
}

static bool wants_all(const struct group *g)
{
    bool exclude = g->own;
    for (const struct membership *m = g->members; m; m = m->sibling)
        exclude |= m->exclude;
    return exclude;
}

/* False: no memory, or too many. */
static bool add_source(struct group *g, const struct addr *a, unsigned resend)
{
    struct group_source *wider = g->nsources < GROUP_SOURCES_MAX
                                     ? realloc(g->sources, (g->nsources + 1) * sizeof *wider)
                                     : NULL;
    if (!wider)
        return false;
    g->sources = wider;
    g->sources[g->nsources++] = (struct group_source){.addr = *a, .listed = true, .resend = (uint8_t)resend};
    return true;
}

static void forget_sources(struct group *g, bool all)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < g->nsources; i++)
        if (!all && (g->sources[i].listed || g->sources[i].resend))
            g->sources[kept++] = g->sources[i];
    g->nsources = (uint8_t)kept;
}

static void wake(struct netif *nif, uint64_t due)
{
    if (due != REACTOR_NEVER)
        timer_at(&nif->stack->timers, &nif->stack->group_timer, due);
}

static void forget(struct netif *nif, struct group *g)
{
    struct group **at = &nif->groups->first;
    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    nif->groups->count--;
    free(g->sources);
    free(g->asked);
    free(g);
}

/* The members have changed: what is to be told? A source that is gone stays, unlisted, until that was told. */
static void refilter(struct netif *nif, struct group *g)
{
    unsigned times = family_of(nif, &g->addr)->robustness;
    bool exclude = wants_all(g), changed = exclude != g->exclude;
    if (changed) {
        g->exclude = exclude;
        g->mode_resend = (uint8_t)times;
        forget_sources(g, true);
        times = 0; /* the sources are told together with the mode */
    }
    for (unsigned i = 0; i < g->nsources; i++) {
        struct group_source *source = &g->sources[i];
        bool now = belongs(g, exclude, &source->addr);
        if (now != source->listed) {
            source->listed = now;
            source->resend = (uint8_t)times;
            changed = true;
        }
    }
    for (const struct membership *m = g->members; m; m = m->sibling)
        for (unsigned i = 0; i < m->nsources; i++)
            if (!source_of(g, &m->sources[i]) && belongs(g, exclude, &m->sources[i]))
                changed |= add_source(g, &m->sources[i], times);
    forget_sources(g, false);
    if (changed && is_reported(nif, &g->addr)) {
        g->report_at = nif->stack->now;
        wake(nif, g->report_at);
    }
    if (!is_wanted(g) && g->report_at == REACTOR_NEVER) /* nobody is to be told */
        forget(nif, g);
}

static struct group *make(struct netif *nif, const struct addr *a)
{
    struct group_set *set = set_of(nif);
    struct group *g = set ? find(nif, a) : NULL;
    if (g || !set || set->count >= GROUPS_MAX || !(g = calloc(1, sizeof *g)))
        return g;
    g->nif = nif;
    g->addr = *a;
    g->report_at = g->answer_at = REACTOR_NEVER;
    g->next = set->first;
    set->first = g;
    set->count++;
    return g;
}

/* --- what sockets do --- */

bool group_wanted(const struct membership *list, bool all, const struct netif *nif, const struct addr *group,
                  const struct addr *src)
{
    const struct group *g = find(nif, group);
    for (const struct membership *m = list; m; m = m->next)
        if (m->group == g)
            return lists(m, src) != m->exclude;
    return all;
}

static struct membership **membership_in(struct membership **list, const struct group *g)
{
    while (*list && (*list)->group != g)
        list = &(*list)->next;
    return list;
}

static void leave(struct netif *nif, struct membership **at)
{
    struct membership *m = *at, **sibling = &m->group->members;
    struct group *g = m->group;
    while (*sibling != m)
        sibling = &(*sibling)->sibling;
    *sibling = m->sibling;
    *at = m->next;
    free(m);
    refilter(nif, g);
}

static int join(struct netif *nif, struct membership **list, const struct addr *group, const struct addr *source)
{
    unsigned n = 0;
    for (const struct membership *m = *list; m; m = m->next)
        n++;
    struct group *g = n < MEMBERSHIPS_MAX ? make(nif, group) : NULL;
    struct membership *m = g ? calloc(1, sizeof *m) : NULL;
    if (!m) {
        if (g && !is_wanted(g) && g->report_at == REACTOR_NEVER)
            forget(nif, g);
        return -ENOBUFS;
    }
    *m = (struct membership){.next = *list, .sibling = g->members, .group = g, .exclude = !source};
    if (source)
        m->sources[m->nsources++] = *source;
    *list = g->members = m;
    refilter(nif, g);
    return 0;
}

int group_change(struct netif *nif, struct membership **list, enum group_change change, const struct addr *group,
                 const struct addr *source)
{
    if (!addr_is_multicast(group) || (source && (!addr_is_unicast(source) || addr_is4(source) != addr_is4(group))))
        return -EINVAL;
    struct group *g = find(nif, group);
    struct membership **at = membership_in(list, g), *m = g ? *at : NULL;
    bool includes = change == GROUP_ADD_SOURCE || change == GROUP_DROP_SOURCE;
    bool adds = change == GROUP_ADD_SOURCE || change == GROUP_BLOCK;
    if (change == GROUP_JOIN)
        return m ? -EADDRINUSE : join(nif, list, group, NULL);
    if (!m)
        return change == GROUP_ADD_SOURCE ? join(nif, list, group, source) : -EADDRNOTAVAIL;
    if (change == GROUP_LEAVE) {
        leave(nif, at);
        return 0;
    }
    if (m->exclude == includes)
        return -EINVAL; /* ip(7): it hears all but some, or some alone */
    if (lists(m, source) == adds)
        return -EADDRNOTAVAIL;
    if (adds && m->nsources == MEMBER_SOURCES_MAX)
        return -ENOBUFS;
    if (adds) {
        m->sources[m->nsources++] = *source;
    } else {
        for (unsigned i = 0; i < m->nsources; i++)
            if (addr_eq(&m->sources[i], source))
                m->sources[i--] = m->sources[--m->nsources];
        if (!m->exclude && !m->nsources) { /* nothing is left to hear */
            leave(nif, at);
            return 0;
        }
    }
    refilter(nif, g);
    return 0;
}

void group_leave_all(struct membership **list)
{
    while (*list)
        leave((*list)->group->nif, list);
}

/* --- what the interface itself needs --- */

void group_address_added(struct netif *nif, const struct addr *a)
{
    struct addr group = addr_solicited_node(a);
    struct group *g = addr_is4(a) || nif->link->caps & LINK_LOOPBACK ? NULL : make(nif, &group);
    if (g && g->own++ == 0)
        refilter(nif, g);
}

void group_address_removed(struct netif *nif, const struct addr *a)
{
    struct addr group = addr_solicited_node(a);
    struct group *g = addr_is4(a) ? NULL : find(nif, &group);
    if (g && g->own && --g->own == 0)
        refilter(nif, g);
}

static void fire(struct timer *t, void *stack, uint64_t now);

void groups_init(struct stack *s) { timer_init(&s->group_timer, fire); }

void groups_free(struct netif *nif)
{
    while (nif->groups && nif->groups->first)
        forget(nif, nif->groups->first);
    free(nif->groups);
    nif->groups = NULL;
}

/* --- the timer --- */

static uint64_t some_time(struct stack *s, uint64_t most) { return most ? rng_next(&s->rng) % most : 0; }

/* A change is told in the version of the link, and again later. */
static void tell_change(struct netif *nif, struct group_report *r, struct group *g)
{
    struct stack *s = nif->stack;
    unsigned version = group_version(nif, addr_is4(&g->addr)), left;
    if (version < GROUP_V3) {
        left = g->mode_resend ? --g->mode_resend : 0;
        group_send_old(nif, &g->addr, version, !is_wanted(g));
        if (!is_wanted(g))
            left = 0; /* said once (RFC 2236 3) */
        forget_sources(g, !is_wanted(g));
    } else {
        left = group_report_change(r, g);
        forget_sources(g, false);
    }
    g->report_at = left ? s->now + some_time(s, version < GROUP_V3 ? OLD_REPORT_INTERVAL : REPORT_INTERVAL) : REACTOR_NEVER;
}

/* What is due for the groups of one family; when the next is. */
static uint64_t run_family(struct netif *nif, bool v4)
{
    uint64_t now = nif->stack->now, next = REACTOR_NEVER;
    struct group_family *f = &nif->groups->family[!v4];
    struct group_report r = {.nif = nif, .v4 = v4};
    bool answer_all = f->answer_at <= now;
    if (answer_all)
        f->answer_at = REACTOR_NEVER;
    for (struct group *g = nif->groups->first, *following; g; g = following) {
        following = g->next;
        if (addr_is4(&g->addr) != v4)
            continue;
        if (g->report_at <= now)
            tell_change(nif, &r, g);
        if ((answer_all || g->answer_at <= now) && is_wanted(g) && is_reported(nif, &g->addr)) {
            if (group_version(nif, v4) < GROUP_V3)
                group_send_old(nif, &g->addr, group_version(nif, v4), false);
            else
                group_report_state(&r, g, answer_all);
        }
        if (g->answer_at <= now || !is_wanted(g)) {
            g->answer_at = REACTOR_NEVER;
            g->nasked = 0;
        }
        if (!is_wanted(g) && g->report_at == REACTOR_NEVER) {
            forget(nif, g);
            continue;
        }
        next = g->report_at < next ? g->report_at : next;
        next = g->answer_at < next ? g->answer_at : next;
    }
    group_report_send(&r);
    return f->answer_at < next ? f->answer_at : next;
}

static void fire(struct timer *t, void *stack, uint64_t now)
{
    struct stack *s = stack;
    (void)t;
    (void)now;
    for (unsigned i = 0; i < s->nnetifs; i++)
        if (s->netifs[i].groups) {
            wake(&s->netifs[i], run_family(&s->netifs[i], true));
            wake(&s->netifs[i], run_family(&s->netifs[i], false));
        }
}

/* --- queries --- */

unsigned group_version(struct netif *nif, bool v4)
{
    const struct group_family *f = &nif->groups->family[!v4];
    uint64_t now = nif->stack->now;
    return f->older_until[GROUP_V1] > now ? GROUP_V1 : f->older_until[GROUP_V2] > now ? GROUP_V2 : GROUP_V3;
}

/* RFC 3376 7.2.1, RFC 3810 8.2.1: an older querier is remembered, and a change of version ends what was under way. */
static void note_version(struct netif *nif, bool v4, const struct group_query *q)
{
    struct group_family *f = &nif->groups->family[!v4];
    unsigned before = group_version(nif, v4);
    if (q->version < GROUP_V3)
        f->older_until[q->version] = nif->stack->now + f->robustness * f->interval + q->max_delay;
    if (group_version(nif, v4) == before)
        return;
    f->answer_at = REACTOR_NEVER;
    for (struct group *g = nif->groups->first; g; g = g->next)
        if (addr_is4(&g->addr) == v4 && is_wanted(g)) {
            g->report_at = g->answer_at = REACTOR_NEVER;
            g->mode_resend = 0;
            for (unsigned i = 0; i < g->nsources; i++)
                g->sources[i].resend = 0;
            forget_sources(g, false);
        }
}

/* RFC 3376 5.2 (3 to 5): the answer for one group; that to a question about all of it says more than about sources. */
static void asked_for(struct group *g, const struct group_query *q, bool v4, uint64_t due)
{
    bool pending = g->answer_at != REACTOR_NEVER, pending_all = pending && !g->nasked;
    unsigned width = v4 ? 4 : 16;
    if (!q->nsources || pending_all || g->nasked + q->nsources > GROUP_SOURCES_MAX) {
        g->nasked = 0;
    } else {
        struct addr *wider = realloc(g->asked, (g->nasked + q->nsources) * sizeof *wider);
        if (!wider)
            return;
        g->asked = wider;
        for (unsigned i = 0; i < q->nsources; i++)
            g->asked[g->nasked++] = v4 ? addr_from4(q->sources + i * width) : addr_from(q->sources + i * width);
    }
    if (due < g->answer_at)
        g->answer_at = due;
}

void group_queried(struct netif *nif, bool v4, const struct group_query *q)
{
    struct stack *s = nif->stack;
    if (!nif->groups || s->config.flags & STACK_NO_REPORTS)
        return;
    struct group_family *f = &nif->groups->family[!v4];
    if (q->version == GROUP_V3 && q->robustness)
        f->robustness = q->robustness;
    if (q->version == GROUP_V3 && q->interval)
        f->interval = q->interval;
    note_version(nif, v4, q);
    uint64_t due = s->now + some_time(s, q->max_delay);
    if (f->answer_at <= due) /* 5.2 (1): all is about to be told anyhow */
        return;
    bool general = addr_is_any(&q->group);
    if (general && group_version(nif, v4) == GROUP_V3) {
        f->answer_at = due;
        wake(nif, due);
        return;
    }
    for (struct group *g = nif->groups->first; g; g = g->next) {
        if (addr_is4(&g->addr) != v4 || !is_wanted(g) || !is_reported(nif, &g->addr) || !(general || addr_eq(&g->addr, &q->group)))
            continue;
        /* Of older versions each group has a delay of its own (RFC 2236 3). */
        asked_for(g, q, v4, general ? s->now + some_time(s, q->max_delay) : due);
        wake(nif, g->answer_at);
    }
}

void group_reported(struct netif *nif, const struct addr *group)
{
    struct group *g = find(nif, group);
    if (g && group_version(nif, addr_is4(group)) < GROUP_V3) {
        g->answer_at = REACTOR_NEVER;
        if (is_wanted(g))
            g->report_at = REACTOR_NEVER;
    }
}
