/* The socket table, the two lists, and demultiplexing. See sock.h. */
#include "net/sock.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "net/tcp/tcp.h"

#define SLOT_BITS 20
#define SLOT_MASK ((1u << SLOT_BITS) - 1)
#define GENERATION_MASK 0xfffffu

int sock_table_init(struct stack *s)
{
    struct sock_table *t = s->socks = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->connected_mask = 255;
    t->connected = calloc(t->connected_mask + 1, sizeof *t->connected);
    t->bound = calloc(BOUND_BUCKETS, sizeof *t->bound);
    return t->connected && t->bound ? 0 : -ENOMEM;
}

void sock_table_free(struct stack *s)
{
    struct sock_table *t = s->socks;
    if (!t)
        return;
    for (uint32_t i = 0; i < t->cap; i++)
        if (t->slots[i])
            sock_destroy(s, t->slots[i]);
    free(t->slots);
    free(t->generations);
    free(t->spare);
    free(t->connected);
    free(t->bound);
    free(t);
    s->socks = NULL;
}

#define CACHE_LINE 64

static int grow(struct stack *s)
{
    struct sock_table *t = s->socks;
    uint32_t limit = s->config.sockets < SLOT_MASK ? s->config.sockets : SLOT_MASK;
    uint32_t cap = t->cap ? t->cap * 2 : 64;
    if (cap > limit)
        cap = limit;
    if (cap <= t->cap)
        return -EMFILE;
    struct sock **slots = realloc(t->slots, cap * sizeof *slots);
    if (slots)
        t->slots = slots;
    uint32_t *generations = realloc(t->generations, cap * sizeof *generations);
    if (generations)
        t->generations = generations;
    uint32_t *spare = realloc(t->spare, cap * sizeof *spare);
    if (spare)
        t->spare = spare;
    if (!slots || !generations || !spare || timer_reserve(&s->timers, s->timers.count + 1024 + cap) < 0)
        return -ENOMEM;
    for (uint32_t i = t->cap; i < cap; i++) {
        t->slots[i] = NULL;
        t->generations[i] = 0;
        t->spare[t->nspare++] = i;
    }
    t->next_spare = 0; /* there were none, or it would not grow */
    t->cap = cap;
    return 0;
}

struct sock *sock_new(struct stack *s, size_t size, const struct sock_ops *ops, int type, int family, int *error)
{
    struct sock_table *t = s->socks;
    int rc = t->nspare ? 0 : grow(s);
    struct sock *k = rc < 0 ? NULL : calloc(1, size);
    if (!k) {
        *error = rc < 0 ? -rc : ENOMEM;
        return NULL;
    }
    uint32_t slot = t->spare[t->next_spare];
    t->next_spare = (t->next_spare + 1) % t->cap;
    t->nspare--;
    t->generations[slot] = t->generations[slot] % GENERATION_MASK + 1; /* never 0, so that no id is */
    t->slots[slot] = k;
    t->count++;
    k->ops = ops;
    k->id = (int64_t)t->generations[slot] << SLOT_BITS | slot;
    k->type = (uint8_t)type;
    k->family = (uint8_t)family;
    k->want = EV_READ;
    k->linger = -1;
    k->discover = IP_PMTUDISC_WANT;
    if (family == AF_INET) {
        static const uint8_t any4[4];
        k->local = k->remote = addr_from4(any4);
    }
    return k;
}

struct sock *sock_find_any(struct stack *s, int64_t id)
{
    struct sock_table *t = s->socks;
    uint32_t slot = (uint32_t)id & SLOT_MASK;
    return id >= 0 && slot < t->cap && t->slots[slot] && t->slots[slot]->id == id ? t->slots[slot] : NULL;
}

struct sock *sock_find(struct stack *s, int64_t id)
{
    struct sock *k = sock_find_any(s, id);
    stack_called(s);
    return k && !k->orphan ? k : NULL;
}

/* The stack's two lists: `node` says where in a sock the links are, `on` whether it is there. */
struct list_kind {
    size_t node, on;
};
static const struct list_kind DIRTY = {offsetof(struct sock, dirty), offsetof(struct sock, dirty_on)};
static const struct list_kind READY = {offsetof(struct sock, ready), offsetof(struct sock, ready_on)};

static struct sock_node *node_of(struct sock *k, struct list_kind kind)
{
    return (struct sock_node *)((char *)k + kind.node);
}

static bool *on_of(struct sock *k, struct list_kind kind) { return (bool *)((char *)k + kind.on); }

static void list_remove(struct sock_list *list, struct sock *k, struct list_kind kind)
{
    struct sock_node *n = node_of(k, kind);
    if (!*on_of(k, kind))
        return;
    if (n->prev)
        node_of(n->prev, kind)->next = n->next;
    else
        list->head = n->next;
    if (n->next)
        node_of(n->next, kind)->prev = n->prev;
    else
        list->tail = n->prev;
    *n = (struct sock_node){0};
    *on_of(k, kind) = false;
}

static void list_push(struct sock_list *list, struct sock *k, struct list_kind kind)
{
    if (*on_of(k, kind))
        return;
    *node_of(k, kind) = (struct sock_node){.prev = list->tail};
    *on_of(k, kind) = true;
    if (list->tail)
        node_of(list->tail, kind)->next = k;
    else
        list->head = k;
    list->tail = k;
}

void sock_destroy(struct stack *s, struct sock *k)
{
    struct sock_table *t = s->socks;
    uint32_t slot = (uint32_t)k->id & SLOT_MASK;
    k->ops->release(s, k);
    sock_unhash(s, k);
    list_remove(&s->dirty, k, DIRTY);
    list_remove(&s->ready, k, READY);
    if (t->any_stream == k)
        t->any_stream = NULL;
    if (t->any_dgram == k)
        t->any_dgram = NULL;
    t->slots[slot] = NULL;
    t->spare[(t->next_spare + t->nspare++) % t->cap] = slot;
    t->count--;
    free(k);
}

void sock_orphan(struct stack *s, struct sock *k)
{
    k->orphan = true;
    list_remove(&s->ready, k, READY);
}

void sock_mark_dirty(struct stack *s, struct sock *k) { list_push(&s->dirty, k, DIRTY); }

void sock_mark_ready(struct stack *s, struct sock *k)
{
    if (!k->orphan)
        list_push(&s->ready, k, READY);
}

void sock_fail(struct stack *s, struct sock *k, int error)
{
    if (!k->error)
        k->error = error;
    sock_mark_ready(s, k);
}

/* With thousands of connections each is cold when its turn comes: what it will need is asked for one turn ahead. */
static void warm(const struct sock *k)
{
    for (unsigned at = 0; k && at < sizeof(struct tcp); at += CACHE_LINE)
        __builtin_prefetch((const char *)k + at);
}

void sock_output_dirty(struct stack *s)
{
    /* What marks itself dirty again meanwhile (a full pool, a full link) waits for the next run. */
    struct sock *last = s->dirty.tail;
    for (struct sock *k = s->dirty.head, *next; k; k = next) {
        next = k == last ? NULL : k->dirty.next;
        if (next && next->type == SOCK_STREAM)
            warm(next);
        list_remove(&s->dirty, k, DIRTY);
        k->ops->output(s, k);
    }
}

static unsigned events_of(const struct sock *k)
{
    unsigned mask = k->ops->ready((struct sock *)k) & (k->want | EV_REQUEST);
    return k->error ? mask | EV_ERROR : mask;
}

unsigned sock_collect_events(struct stack *s, uint64_t *out, unsigned max)
{
    struct sock *last = s->ready.tail;
    unsigned n = 0;
    for (struct sock *k = s->ready.head, *next; k && n < max; k = next) {
        next = k == last ? NULL : k->ready.next;
        unsigned mask = events_of(k);
        /* There is room in its queue, but no memory to fill it: its owner would only try, and try again. */
        bool starved = mask & EV_WRITE && k->type == SOCK_STREAM && !tcp_out_room(s, tcp_of(k));
        list_remove(&s->ready, k, READY);
        if (!mask)
            continue;
        list_push(&s->ready, k, READY); /* asked again next time: the condition may still hold then */
        if (starved)
            mask &= ~(unsigned)EV_WRITE;
        if (mask)
            out[n++] = s->poller.base | (uint64_t)k->id << 16 | mask;
    }
    return n;
}

/* --- demultiplexing --- */

static uint32_t tuple_hash(const struct stack *s, int type, const struct addr *local, unsigned lport,
                           const struct addr *remote, unsigned rport)
{
    uint64_t words[5];
    memcpy(words, local->b, 16);
    memcpy(words + 2, remote->b, 16);
    words[4] = (uint64_t)type << 32 | lport << 16 | rport;
    return (uint32_t)siphash(s->key, words, 5);
}

static void insert(struct sock **bucket, struct sock *k, enum hashed how)
{
    k->chain = *bucket;
    *bucket = k;
    k->hashed = (uint8_t)how;
}

static struct sock **connected_bucket(struct stack *s, int type, const struct addr *local, unsigned lport,
                                      const struct addr *remote, unsigned rport)
{
    return &s->socks->connected[tuple_hash(s, type, local, lport, remote, rport) & s->socks->connected_mask];
}

void sock_hash_bound(struct stack *s, struct sock *k)
{
    sock_unhash(s, k);
    insert(sock_bound_bucket(s, k->type, k->lport), k, HASHED_BOUND);
}

void sock_hash_connected(struct stack *s, struct sock *k)
{
    struct sock_table *t = s->socks;
    sock_unhash(s, k);
    if (t->count > t->connected_mask) { /* more than one each: double */
        uint32_t mask = t->connected_mask * 2 + 1;
        struct sock **old = t->connected, **wider = calloc(mask + 1, sizeof *wider);
        if (wider) {
            uint32_t before = t->connected_mask;
            t->connected = wider;
            t->connected_mask = mask;
            for (uint32_t i = 0; i <= before; i++)
                for (struct sock *m = old[i], *next; m; m = next) {
                    next = m->chain;
                    insert(connected_bucket(s, m->type, &m->local, m->lport, &m->remote, m->rport), m,
                           HASHED_CONNECTED);
                }
            free(old);
        } /* no memory for it: longer chains */
    }
    insert(connected_bucket(s, k->type, &k->local, k->lport, &k->remote, k->rport), k, HASHED_CONNECTED);
    t->connections[sock_port_bucket(k->type, k->lport)]++;
}

void sock_unhash(struct stack *s, struct sock *k)
{
    if (!k->hashed)
        return;
    if (k->hashed == HASHED_CONNECTED)
        s->socks->connections[sock_port_bucket(k->type, k->lport)]--;
    struct sock **at = k->hashed == HASHED_BOUND
                           ? sock_bound_bucket(s, k->type, k->lport)
                           : connected_bucket(s, k->type, &k->local, k->lport, &k->remote, k->rport);
    while (*at != k)
        at = &(*at)->chain;
    *at = k->chain;
    k->hashed = HASHED_NOT;
}

struct sock *sock_lookup_connected(struct stack *s, int type, const struct addr *local, unsigned lport,
                                   const struct addr *remote, unsigned rport)
{
    for (struct sock *k = *connected_bucket(s, type, local, lport, remote, rport); k; k = k->chain)
        if (k->rport == rport && k->lport == lport && k->type == type && addr_same(&k->remote, remote) &&
            addr_same(&k->local, local))
            return k;
    return NULL;
}

/* Does a socket bound to `bound` hear what is sent to addr? A v6 wildcard hears v4 too unless it is v6only. */
static bool hears(const struct sock *k, const struct addr *addr)
{
    if (!addr_is_any(&k->local))
        return addr_same(&k->local, addr);
    return addr_is4(addr) ? k->family == AF_INET || !k->v6only : k->family == AF_INET6;
}

struct sock *sock_next_hearing(struct stack *s, struct sock *k, int type, const struct addr *local, unsigned lport,
                               const struct addr *remote, unsigned rport)
{
    for (k = k ? k->chain : *sock_bound_bucket(s, type, lport); k; k = k->chain)
        if (k->lport == lport && k->type == type && hears(k, local) &&
            (type != SOCK_STREAM || tcp_of(k)->state == LISTEN) &&
            (!k->rport || (k->rport == rport && addr_same(&k->remote, remote))))
            return k;
    return NULL;
}

/* Whoever draws highest for a flow has it: so one that comes or goes changes the flows of nobody else but itself. */
static uint64_t flow_draw(const struct stack *s, const struct sock *k, const struct addr *local,
                          const struct addr *remote, unsigned rport)
{
    uint64_t words[6];
    memcpy(words, local->b, 16);
    memcpy(words + 2, remote->b, 16);
    words[4] = rport;
    words[5] = (uint64_t)k->id;
    return siphash(s->key, words, 6) | 1;
}

struct sock *sock_lookup_bound(struct stack *s, int type, const struct addr *local, unsigned lport,
                               const struct addr *remote, unsigned rport)
{
    struct sock *best = NULL, *k = NULL;
    int best_score = -1;
    uint64_t best_draw = 0;
    while ((k = sock_next_hearing(s, k, type, local, lport, remote, rport))) {
        int score = 4 * (k->rport != 0) + 2 * !addr_is_any(&k->local) + (addr_is4(local) == (k->family == AF_INET));
        if (score < best_score)
            continue;
        if (score == best_score) { /* of equals the last one bound, or SO_REUSEPORT: each has its share of the flows */
            if (!k->reuseport || !best->reuseport)
                continue;
            if (!best_draw)
                best_draw = flow_draw(s, best, local, remote, rport);
            uint64_t draw = flow_draw(s, k, local, remote, rport);
            if (draw <= best_draw)
                continue;
            best_draw = draw;
        } else {
            best_draw = 0;
        }
        best = k;
        best_score = score;
    }
    if (!best)
        best = type == SOCK_STREAM ? s->socks->any_stream : s->socks->any_dgram;
    return best;
}

void sock_address_gone(struct stack *s, const struct addr *a)
{
    for (uint32_t i = 0; i < s->socks->cap; i++) {
        struct sock *k = s->socks->slots[i];
        if (!k || !k->rport || !addr_same(&k->local, a))
            continue;
        if (k->type == SOCK_STREAM)
            tcp_end(s, tcp_of(k), ECONNABORTED);
        else
            sock_fail(s, k, EADDRNOTAVAIL);
    }
}

/* --- the calls that all sockets share (api.h) --- */

int sock_want(struct stack *s, int64_t id, unsigned mask)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    k->want = mask & (EV_READ | EV_WRITE | EV_URGENT);
    sock_mark_ready(s, k);
    return 0;
}

int sock_error(struct stack *s, int64_t id)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    int error = k->error;
    k->error = 0;
    return error;
}

int sock_getname(struct stack *s, int64_t id, int which, struct sock_name *out)
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    if (which == SOCK_REMOTE && !k->rport)
        return -ENOTCONN;
    sock_fill_name(k, which, out);
    return 0;
}

struct addr sock_this_host(const struct sock *k, const struct addr *any)
{
    static const uint8_t lo4[4] = {127, 0, 0, 1}, lo6[16] = {[15] = 1};
    if (!addr_is4(any))
        return addr_from(lo6);
    return addr_is4(&k->local) && !addr_is_any(&k->local) ? k->local : addr_from4(lo4);
}

int sock_names(struct stack *s, int64_t id, struct sock_name out[2])
{
    struct sock *k = sock_find(s, id);
    if (!k)
        return -EBADF;
    sock_fill_name(k, SOCK_LOCAL, &out[SOCK_LOCAL]);
    sock_fill_name(k, SOCK_REMOTE, &out[SOCK_REMOTE]);
    return 0;
}

void sock_fill_name(const struct sock *k, int which, struct sock_name *out)
{
    const struct addr *a = which == SOCK_REMOTE ? &k->remote : &k->local;
    memcpy(out->addr, a->b, 16);
    out->port = which == SOCK_REMOTE ? k->rport : k->lport;
    out->family = k->family;
    out->ifindex = a->zone;
}
