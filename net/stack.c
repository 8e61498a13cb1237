/* A stack's birth and death, and its run: one pass over links, timers and dirty sockets. See stack.h. */
#include "net/stack.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "net/ip/group.h"
#include "net/ip/neigh.h"
#include "net/ip/reass.h"
#include "net/tcp/cong.h"

#define LOOPBACK_QUEUE 4096

static const char *const counter_names[COUNTER_COUNT] = {
#define NAME(name) [C_##name] = #name,
    COUNTERS(NAME)
#undef NAME
};

static uint64_t poller_run(struct poller *p, uint64_t now) { return stack_run((struct stack *)p, now); }

static unsigned poller_events(struct poller *p, uint64_t *out, unsigned max)
{
    struct stack *s = (struct stack *)p;
    unsigned own = 0;
    if (s->changed)
        own |= EV_READ;
    if (s->alarm <= s->now)
        own |= EV_WRITE;
    if (cong_rounds_waiting(s))
        own |= EV_REQUEST;
    if (!own || !max)
        return sock_collect_events(s, out, max);
    s->changed = false;
    if (own & EV_WRITE)
        s->alarm = REACTOR_NEVER;
    out[0] = s->poller.base | own; /* socket id 0 */
    return 1 + sock_collect_events(s, out + 1, max - 1);
}

static int add_loopback(struct stack *s)
{
    static const uint8_t v4[16] = {[10] = 0xff, 0xff, 127, 0, 0, 1}, v6[16] = {[15] = 1};
    struct link *lo;
    int rc = link_new_loopback(&lo, LOOPBACK_QUEUE);
    if (rc < 0)
        return rc;
    int index = stack_add_link(s, lo);
    if (index < 0) {
        link_free(lo);
        return index;
    }
    rc = stack_add_address(s, index, v4, 8);
    return rc < 0 ? rc : stack_add_address(s, index, v6, 128);
}

int stack_new(struct stack **out, const struct stack_config *config, uint64_t now)
{
    struct stack *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->config = *config;
    uint32_t most = config->memory / 4 < UINT32_MAX ? (uint32_t)(config->memory / 4) : UINT32_MAX;
    s->config.rcvbuf_max = config->rcvbuf_max < most ? config->rcvbuf_max : most; /* one connection does not get it all */
    s->config.sndbuf_max = config->sndbuf_max < most ? config->sndbuf_max : most;
    s->poller.run = poller_run;
    s->poller.events = poller_events;
    s->now = now;
    groups_init(s);
    s->cong = &cong_cubic;
    s->alarm = REACTOR_NEVER;
    s->rng.state = config->seed[0];
    s->key[0] = rng_next(&s->rng) ^ config->seed[1];
    s->key[1] = rng_next(&s->rng);
    s->ip_id = (uint16_t)rng_next(&s->rng);
    sent_pool_init(&s->sent, config->memory);
    int rc = pbuf_pool_init(&s->pool, config->memory);
    if (rc == 0)
        rc = neigh_init(s);
    if (rc == 0)
        rc = sock_table_init(s);
    if (rc == 0)
        rc = add_loopback(s);
    if (rc < 0) {
        stack_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void stack_free(struct stack *s)
{
    sock_table_free(s);
    reass_free(s);
    cong_scripts_free(s);
    tcp_fastopen_free(s);
    neigh_free(s);
    free(s->pmtus);
    for (unsigned i = 0; i < s->nnetifs; i++) {
        netif_free(&s->netifs[i]);
        link_free(s->netifs[i].link);
    }
    free(s->timers.heap);
    pbuf_pool_free(&s->pool);
    sent_pool_free(&s->sent);
    free(s);
}

struct poller *stack_poller(struct stack *s) { return &s->poller; }

uint64_t stack_run(struct stack *s, uint64_t now)
{
    stack_set_now(s, now);
    now = s->now;
    /* Links first: what they hold may acknowledge what a timer would send again. */
    for (unsigned i = 0; i < s->nnetifs; i++)
        s->netifs[i].link->ops->run(s->netifs[i].link, now);
    timer_run(&s->timers, s, now);
    sock_output_dirty(s);

    /* Asked last, for what was sent has set timers and filled links. Still dirty: no buffers; again soon. */
    uint64_t next = s->dirty.head ? now + MSEC : REACTOR_NEVER;
    if (s->timers.count && s->timers.heap[0]->due < next)
        next = s->timers.heap[0]->due;
    if (s->alarm < next)
        next = s->alarm;
    for (unsigned i = 0; i < s->nnetifs; i++) {
        uint64_t due = s->netifs[i].link->ops->due(s->netifs[i].link);
        if (due < next)
            next = due;
    }
    return next;
}

int stack_events(struct stack *s, uint64_t *events, unsigned max)
{
    return (int)poller_events(&s->poller, events, max);
}

int stack_add_link(struct stack *s, struct link *l)
{
    if (s->nnetifs == NETIFS_MAX)
        return -ENOBUFS;
    struct netif *nif = &s->netifs[s->nnetifs];
    netif_init(nif, s, l, (int)s->nnetifs + 1);
    int rc = link_bind(l, &s->poller, &s->pool, ether_input, nif);
    if (rc < 0)
        return rc;
    s->nnetifs++;
    if (!(l->caps & (LINK_LOOPBACK | LINK_NOARP))) { /* RFC 4291 2.5.6 and appendix A: the link-local address from the MAC */
        const uint8_t *m = l->mac;
        uint8_t ll[16] = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};
        struct addr a = addr_from(ll);
        if (!netif_add(nif, &a, 64, 0, ORIGIN_LINK_LOCAL, &rc)) {
            s->nnetifs--; /* the link stays its owner's */
            return -rc;
        }
    }
    return nif->index;
}

void stack_set_alarm(struct stack *s, uint64_t when)
{
    stack_called(s);
    s->alarm = when;
}

int stack_counter_count(void) { return COUNTER_COUNT; }

const char *stack_counter_name(int i) { return i >= 0 && i < COUNTER_COUNT ? counter_names[i] : NULL; }

void stack_counters(struct stack *s, uint64_t *out) { memcpy(out, s->counters, sizeof s->counters); }

void stack_memory(struct stack *s, struct stack_memory *out)
{
    *out = (struct stack_memory){
        .limit = s->pool.limit,
        .reserved = s->pool.carved,
        .in_use = s->pool.in_use,
        .buffers = s->pool.buffers,
        .sockets = s->socks->count,
        .socket_bytes = sizeof(struct tcp) + SOCK_TABLE_BYTES + sizeof(struct timer *),
    };
}
