/* Congestion control that someone outside of C decides on, once for each round trip. C gathers what a round trip
 * showed, reports it (an event of the stack, then stack_cong_rounds()), and goes on with the window it has until
 * stack_cong_answer() brings another, or a pace. Slow start is C's until the first window is answered; so is the
 * multiplicative decrease when something is lost or marked, by the controller's beta: nobody outside has to be quick
 * for the network to be safe.
 *
 * Ownership: a stack has its `scripts`, the names registered with it; the connection's cong points at one's ops. A flow
 * is a connection's figures, in cong_state[0]; it is made by the first acknowledgement. When the connection ends, the
 * flow goes with it, unless it has been reported: then it stays, without the connection, until its end is, too. So
 * there are no more flows than connections, and than controllers outside. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "net/tcp/cong.h"

#define NAME_MAX_LEN 15 /* TCP_CA_NAME_MAX, less the zero */
#define SCRIPTS_MAX 16

struct script {
    struct cong_ops ops; /* first */
    struct stack *stack;
    unsigned index;
    unsigned beta; /* thousandths that remain */
    char name[NAME_MAX_LEN + 1];
};

struct flow {
    struct flow *next;
    bool waiting;    /* on the list of those to report */
    bool known;      /* was reported */
    struct tcp *t;   /* NULL: it has ended */
    uint64_t began;  /* this round trip */
    seq_t una, end;  /* snd_una then; what ends it */
    uint32_t retransmits;
    struct cong_round r; /* what is gathered, and then reported */
};

struct cong_scripts {
    struct script *of[SCRIPTS_MAX]; /* each where it is for good: connections point there */
    unsigned count;
    struct flow *first, *last; /* to be reported */
};

static struct script *script_of(const struct tcp *t) { return (struct script *)t->cong; }

static struct flow *flow_of(const struct tcp *t) { return (struct flow *)(uintptr_t)t->cong_state[0]; }

static void report(struct cong_scripts *all, struct flow *f)
{
    f->waiting = true;
    f->next = NULL;
    if (all->last)
        all->last->next = f;
    else
        all->first = f;
    all->last = f;
}

static void begin_round(struct flow *f, const struct tcp *t, uint64_t now)
{
    f->began = now;
    f->una = t->snd_una;
    f->end = t->snd_max;
    f->retransmits = t->retransmits;
    f->r = (struct cong_round){.id = t->k.id, .controller = script_of(t)->index};
}

static struct flow *flow_new(struct tcp *t, uint64_t now)
{
    struct flow *f = calloc(1, sizeof *f);
    if (!f)
        return NULL; /* then it goes without being asked about, for now */
    f->t = t;
    begin_round(f, t, now);
    t->cong_state[0] = (uintptr_t)f;
    return f;
}

static void init(struct tcp *t)
{
    t->cwnd = cong_initial_window(t);
    t->ssthresh = SSTHRESH_INITIAL;
}

static void acked(struct tcp *t, const struct ack_sample *a)
{
    struct flow *f = flow_of(t);
    if (t->cwnd < t->ssthresh && a->limited)
        cong_slow_start(t, cong_slow_start_bytes(t, a->acked));
    if (!f && !(f = flow_new(t, a->now)))
        return;
    if (f->waiting) /* reported and not yet taken: it stays as it is, and the next round trip is the longer */
        return;
    if (a->rtt) {
        f->r.rtt_last = a->rtt;
        if (!f->r.rtt_min || a->rtt < f->r.rtt_min)
            f->r.rtt_min = a->rtt;
    }
    if (a->limited)
        f->r.flags |= CONG_ROUND_LIMITED;
    if (seq_lt(t->snd_una, f->end) || a->now == f->began)
        return;
    f->r.now = a->now;
    f->r.duration = a->now - f->began;
    f->r.acked = (uint32_t)seq_diff(t->snd_una, f->una);
    f->r.retransmits = t->retransmits - f->retransmits;
    f->r.srtt = t->srtt;
    f->r.cwnd = t->cwnd;
    f->r.flight = a->flight;
    f->r.mss = t->mss;
    if (t->cwnd < t->ssthresh)
        f->r.flags |= CONG_ROUND_SLOW_START;
    report(script_of(t)->stack->scripts, f);
}

static uint32_t ssthresh(struct tcp *t, uint64_t now, enum cong_event why)
{
    struct flow *f = flow_of(t);
    (void)now;
    if (f && !f->waiting)
        f->r.flags |= why == CONG_LOST ? CONG_ROUND_LOST : why == CONG_TIMEOUT ? CONG_ROUND_TIMEOUT : CONG_ROUND_MARKED;
    return cong_share_of_flight(t, script_of(t)->beta);
}

static void undo(struct tcp *t) { (void)t; }

static void idle(struct tcp *t, uint64_t now)
{
    struct flow *f = flow_of(t);
    cong_restart(t);
    if (f && !f->waiting)
        begin_round(f, t, now); /* a pause is no round trip */
}

static void release(struct tcp *t)
{
    struct flow *f = flow_of(t);
    if (!f)
        return;
    struct cong_scripts *all = script_of(t)->stack->scripts;
    f->t = NULL;
    f->r.flags |= CONG_ROUND_ENDED;
    t->pacing_rate = 0;
    if (!f->waiting && f->known)
        report(all, f);
    else if (!f->waiting)
        free(f);
}

/* --- from outside --- */

int stack_cong_register(struct stack *s, const char *name, unsigned beta)
{
    size_t len = strlen(name);
    if (!len || len > NAME_MAX_LEN || strchr(name, ' ') || beta < 100 || beta > 1000)
        return -EINVAL;
    if (cong_find(s, name))
        return -EEXIST;
    if (!s->scripts && !(s->scripts = calloc(1, sizeof *s->scripts)))
        return -ENOMEM;
    if (s->scripts->count == SCRIPTS_MAX)
        return -ENOSPC;
    struct script *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    memcpy(c->name, name, len);
    c->stack = s;
    c->beta = beta;
    c->index = s->scripts->count;
    c->ops = (struct cong_ops){.name = c->name, .paces = true, .init = init, .acked = acked, .ssthresh = ssthresh,
                               .undo = undo, .idle = idle, .release = release};
    s->scripts->of[s->scripts->count++] = c;
    return (int)c->index;
}

const struct cong_ops *cong_script(const struct stack *s, unsigned i)
{
    return s->scripts && i < s->scripts->count ? &s->scripts->of[i]->ops : NULL;
}

bool cong_rounds_waiting(const struct stack *s) { return s->scripts && s->scripts->first; }

int stack_cong_rounds(struct stack *s, struct cong_round *out, unsigned max)
{
    unsigned n = 0;
    struct cong_scripts *all = s->scripts;
    while (all && n < max && all->first) {
        struct flow *f = all->first;
        all->first = f->next;
        if (!all->first)
            all->last = NULL;
        f->waiting = false;
        if (!f->t && !f->known) { /* it came and went between two of these calls */
            free(f);
            continue;
        }
        out[n] = f->r;
        out[n++].flags |= f->known ? 0 : CONG_ROUND_FIRST;
        f->known = true;
        if (f->t)
            begin_round(f, f->t, s->now);
        else
            free(f);
    }
    return (int)n;
}

/* Whoever owns it: a connection that was freed still has bytes to send. */
static struct tcp *connection(struct stack *s, int64_t id)
{
    struct sock *k = sock_find_any(s, id);
    return k && k->type == SOCK_STREAM ? tcp_of(k) : NULL;
}

int stack_cong_answer(struct stack *s, int64_t id, uint32_t cwnd, uint64_t pacing_rate)
{
    struct tcp *t = connection(s, id);
    if (!t)
        return -EBADF;
    if (t->cong->init != init)
        return -EINVAL;
    t->pacing_rate = pacing_rate < UINT32_MAX ? (uint32_t)pacing_rate : UINT32_MAX;
    if (cwnd && (t->ca == CA_OPEN || t->ca == CA_DISORDER)) { /* a decrease goes before: the answer is about the time before */
        t->cwnd = cwnd < 2u * t->mss ? 2u * t->mss : cwnd > CWND_MAX ? CWND_MAX : cwnd;
        t->ssthresh = t->cwnd;
    }
    sock_mark_dirty(s, &t->k);
    return 0;
}

int stack_cong_fallback(struct stack *s, int64_t id)
{
    struct tcp *t = connection(s, id);
    if (!t)
        return -EBADF;
    cong_switch(t, &cong_cubic);
    return 0;
}

void cong_scripts_free(struct stack *s)
{
    if (!s->scripts)
        return;
    for (struct flow *f = s->scripts->first, *next; f; f = next) { /* all connections are gone */
        next = f->next;
        free(f);
    }
    for (unsigned i = 0; i < s->scripts->count; i++)
        free(s->scripts->of[i]);
    free(s->scripts);
}
