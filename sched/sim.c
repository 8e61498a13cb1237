/* Virtual time: many reactors in one process, and one clock that jumps.
 *
 * A reactor of this kind never waits and has no descriptor: a thousand cost a few pages. Whoever simulates asks again
 * and again whose turn it is:
 *
 *     sim_next -> drawn from those that are runnable now: one reactor is visited, its pollers run, its events are taken
 *                   events, or a loop that wants to run: its id is the answer, and Python runs its loops (sim_turn)
 *                   neither: it rests until its next deadline, and another is visited
 *              -> nobody is runnable: the clock jumps to the earliest deadline
 *
 * So wires, acknowledgements and timers of TCP pass without Python. A reactor that rests becomes runnable when a frame
 * comes for it (poller_wake), when somebody calls its stack from outside, or when a loop of it wants to run sooner
 * (sim_want); after its loops ran it is visited again at the same instant, so that what they wrote gets out. Resting
 * ones are in a heap, runnable ones in an array: a visit costs O(log n), however many there are.
 *
 * One that is paused is not visited at all: frames wait in its queues, and its clock goes on. On a slow one each visit
 * takes virtual time, and the next begins after that. Both are held: nothing makes them runnable before.
 *
 * Deterministic: what happens depends on the seed and on what is called, in which order. Each visit goes into the
 * digest, and so does what Python notes (sim_note).
 *
 * Each reactor has a clock of its own: an offset and a drift. Deadlines are in its own time, the heap in virtual time;
 * the conversion rounds up, so that a deadline never comes early.
 *
 * Ownership: a sim knows its reactors and does not own them; they are freed before it. */
#include "sched/sim.h"

#include <stdlib.h>
#include <string.h>

#define ROOM_MIN 16
#define VISITS_MAX 65536 /* before the caller may look at signals and real time */
#define BILLION 1000000000

__extension__ typedef __int128 wide;

/* --- draws and the digest ---------------------------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea and Flood, 2014) */
static uint64_t mixed(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t draw(struct sim *s, uint32_t limit)
{
    if (limit == 1)
        return 0;
    return (uint32_t)((mixed(s->draws += 0x9e3779b97f4a7c15u) >> 32) * limit >> 32);
}

void sim_note(struct sim *s, unsigned kind, uint32_t who, uint64_t value)
{
    s->digest = mixed(s->digest + mixed(s->now ^ (uint64_t)kind << 56 ^ (uint64_t)who << 24) + value);
    if (s->events_count < s->events_room)
        s->events[s->events_count++] = (struct sim_event){s->now, value, who, kind};
}

/* --- clocks ------------------------------------------------------------------------------------------------------ */

static uint64_t shown_at(const struct sim_reactor *n, uint64_t now)
{
    uint64_t passed = now - n->since;
    if (!n->drift_ppb)
        return n->shown + passed;
    return n->shown + passed + (uint64_t)(int64_t)((wide)passed * n->drift_ppb / BILLION);
}

/* The first virtual time at which its clock shows `deadline` or more; NEVER if that cannot be told. */
static uint64_t virtual_at(const struct sim_reactor *n, uint64_t deadline)
{
    if (deadline == REACTOR_NEVER)
        return REACTOR_NEVER;
    if (deadline <= n->shown)
        return n->since;
    uint64_t left = deadline - n->shown;
    if (n->drift_ppb)
        left = (uint64_t)((wide)left * BILLION / (BILLION + n->drift_ppb));
    if (left > REACTOR_NEVER - 16 - n->since)
        return REACTOR_NEVER;
    uint64_t at = n->since + left;
    while (at > n->since && shown_at(n, at - 1) >= deadline)
        at--;
    while (shown_at(n, at) < deadline)
        at++;
    return at;
}

static uint64_t sim_reactor_now(struct reactor *r)
{
    struct sim_reactor *n = (struct sim_reactor *)r;
    return shown_at(n, n->sim->now);
}

/* --- the heap of those that rest, the array of those that are runnable ------------------------------------------- */

static bool earlier(struct sim_rest a, struct sim_rest b)
{
    return a.due != b.due ? a.due < b.due : a.n->id < b.n->id;
}

static void put(struct sim *s, uint32_t i, struct sim_rest rest)
{
    s->heap[i] = rest;
    rest.n->place = i;
}

static void sift_up(struct sim *s, uint32_t i, struct sim_rest rest)
{
    for (; i && earlier(rest, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        put(s, i, s->heap[(i - 1) / 2]);
    put(s, i, rest);
}

static void sift_down(struct sim *s, uint32_t i, struct sim_rest rest)
{
    for (uint32_t child; (child = 2 * i + 1) < s->resting; i = child) {
        if (child + 1 < s->resting && earlier(s->heap[child + 1], s->heap[child]))
            child++;
        if (!earlier(s->heap[child], rest))
            break;
        put(s, i, s->heap[child]);
    }
    put(s, i, rest);
}

static void out_of_heap(struct sim *s, struct sim_reactor *n)
{
    uint32_t i = n->place;
    struct sim_rest last = s->heap[--s->resting];
    n->place = SIM_NOWHERE;
    if (last.n == n)
        return;
    if (i && earlier(last, s->heap[(i - 1) / 2]))
        sift_up(s, i, last);
    else
        sift_down(s, i, last);
}

static void out_of_runnable(struct sim *s, struct sim_reactor *n)
{
    struct sim_reactor *last = s->runnable[--s->ready];
    s->runnable[n->place] = last;
    last->place = n->place;
    n->place = SIM_NOWHERE;
}

static void make_runnable(struct sim_reactor *n)
{
    struct sim *s = n->sim;
    if (n->state == SIM_RESTING)
        reactor_set_asleep(&n->r, false);
    if (n->place != SIM_NOWHERE)
        out_of_heap(s, n);
    if (n->paused || n->busy_until > s->now) {
        n->state = SIM_HELD;
        if (!n->paused)
            sift_up(s, s->resting++, (struct sim_rest){n->busy_until, n});
        return;
    }
    n->state = SIM_RUNNABLE;
    n->place = s->ready;
    s->runnable[s->ready++] = n;
}

static void rest(struct sim_reactor *n)
{
    struct sim *s = n->sim;
    uint64_t due = virtual_at(n, min_u64(n->r.deadline, n->wants));
    if (due <= s->now || n->paused) {
        make_runnable(n);
        return;
    }
    n->state = SIM_RESTING;
    n->place = SIM_NOWHERE;
    reactor_set_asleep(&n->r, true);
    if (due != REACTOR_NEVER)
        sift_up(s, s->resting++, (struct sim_rest){due, n});
}

/* --- whose turn it is -------------------------------------------------------------------------------------------- */

/* Whether Python is to run its loops. */
static bool visit(struct sim *s, struct sim_reactor *n)
{
    n->state = SIM_RUNNING;
    n->busy_until = s->now + n->cost;
    s->visits++;
    int count = reactor_turn(&n->r, 0, s->held, REACTOR_EVENTS_MAX);
    uint64_t state = 0;
    for (struct poller *p = n->r.pollers; p; p = p->next)
        state ^= p->digest ? p->digest(p) : 0;
    sim_note(s, SIM_VISITED, n->id, state ^ (uint64_t)count << 32 ^ n->r.deadline);
    if (count <= 0 && n->wants > sim_reactor_now(&n->r)) {
        rest(n);
        return false;
    }
    s->steps++;
    s->running = n;
    s->nheld = count > 0 ? (unsigned)count : 0;
    n->wants = REACTOR_NEVER; /* until its loops say */
    return true;
}

int64_t sim_next(struct sim *s, uint64_t until)
{
    if (s->running) {
        make_runnable(s->running);
        s->running = NULL;
        s->nheld = 0;
    }
    for (unsigned i = 0; i < VISITS_MAX; i++) {
        while (s->resting && s->heap[0].due <= s->now)
            make_runnable(s->heap[0].n);
        if (s->ready) {
            struct sim_reactor *n = s->runnable[draw(s, s->ready)];
            out_of_runnable(s, n);
            if (visit(s, n))
                return n->id;
        } else if (s->resting && s->heap[0].due < until) {
            s->now = s->heap[0].due;
        } else {
            bool idle = !s->resting && until == REACTOR_NEVER;
            if (!idle && until > s->now)
                s->now = until;
            return idle ? SIM_IDLE : SIM_UNTIL;
        }
    }
    return SIM_BUSY;
}

void sim_want(struct reactor *r, uint64_t when)
{
    struct sim_reactor *n = (struct sim_reactor *)r;
    if (when >= n->wants)
        return;
    n->wants = when;
    if (n->state != SIM_RESTING)
        return;
    if (n->place != SIM_NOWHERE)
        out_of_heap(n->sim, n);
    rest(n);
}

/* Its events are with us, if it is its turn; else it is a turn by itself, and it never waits. */
static int sim_turn(struct reactor *r, uint64_t timeout, uint64_t *events, unsigned max)
{
    struct sim_reactor *self = (struct sim_reactor *)r;
    struct sim *s = self->sim;
    if (s->running != self || !s->nheld)
        return reactor_turn(r, 0, events, max);
    unsigned n = s->nheld < max ? s->nheld : max; /* those left out come again: they are levels */
    memcpy(events, s->held, n * sizeof *events);
    s->nheld = 0;
    return (int)n;
}

const struct turn_ops *sim_turn_ops(void)
{
    static const struct turn_ops ops = {.turn = sim_turn, .poll = reactor_poll, .now = reactor_now, .want = sim_want};
    return &ops;
}

/* --- the back end ------------------------------------------------------------------------------------------------ */

static int sim_backend_wait(struct reactor *r, uint64_t ns, uint64_t now, uint64_t *events, unsigned max)
{
    return ns ? -EINTR : 0;
}
static int sim_backend_open(struct reactor *r, struct channel *c, unsigned depth) { return -EOPNOTSUPP; }
static int sim_backend_send(struct channel *c, const struct iovec *iov, unsigned n, void *cookie)
{
    return -EOPNOTSUPP;
}
static void sim_backend_close(struct channel *c) {}
static void sim_backend_disown(struct reactor *r) {}
static const struct host_backend *sim_backend_hosts(struct reactor *r) { return NULL; }
static uint64_t sim_backend_due(struct reactor *r, uint64_t now) { return REACTOR_NEVER; }

static void sim_backend_wake(struct reactor *r)
{
    struct sim_reactor *n = (struct sim_reactor *)r;
    if (n->state == SIM_RESTING)
        make_runnable(n);
}

static void sim_backend_free(struct reactor *r)
{
    struct sim_reactor *n = (struct sim_reactor *)r;
    struct sim *s = n->sim;
    if (n->state == SIM_RUNNABLE)
        out_of_runnable(s, n);
    else if (n->place != SIM_NOWHERE)
        out_of_heap(s, n);
    if (s->running == n)
        s->running = NULL;
    s->reactors--;
}

static int reserve(struct sim *s)
{
    if (s->reactors < s->room)
        return 0;
    uint32_t room = s->room ? s->room * 2 : ROOM_MIN;
    struct sim_rest *heap = realloc(s->heap, room * sizeof *heap);
    if (heap)
        s->heap = heap;
    struct sim_reactor **runnable = realloc(s->runnable, room * sizeof *runnable);
    if (runnable)
        s->runnable = runnable;
    if (!heap || !runnable)
        return -ENOMEM;
    s->room = room;
    return 0;
}

int reactor_new_sim(struct reactor **out, struct sim *s, uint32_t id, uint64_t shown, int64_t drift_ppb)
{
    static const struct backend backend = {
        .kind = "sim",
        .wait = sim_backend_wait,
        .open = sim_backend_open,
        .send = sim_backend_send,
        .close = sim_backend_close,
        .disown = sim_backend_disown,
        .hosts = sim_backend_hosts,
        .free = sim_backend_free,
        .due = sim_backend_due,
        .now = sim_reactor_now,
        .wake = sim_backend_wake,
    };
    if (drift_ppb <= -BILLION / 2 || drift_ppb >= BILLION)
        return -EINVAL;
    struct sim_reactor *n = reserve(s) == 0 ? calloc(1, sizeof *n) : NULL;
    if (!n)
        return -ENOMEM;
    n->r.ops = &backend;
    n->r.set.epfd = -1; /* nothing of the host can be watched */
    n->sim = s;
    n->id = id;
    n->wants = REACTOR_NEVER;
    n->since = s->now;
    n->shown = shown;
    n->drift_ppb = drift_ppb;
    n->state = SIM_RUNNING;
    n->place = SIM_NOWHERE;
    s->reactors++;
    make_runnable(n);
    *out = &n->r;
    return 0;
}

void sim_set_drift(struct reactor *r, int64_t drift_ppb)
{
    struct sim_reactor *n = (struct sim_reactor *)r;
    n->shown = sim_reactor_now(r);
    n->since = n->sim->now;
    n->drift_ppb = drift_ppb;
    sim_backend_wake(r); /* its deadline is another now */
}

void sim_pause(struct reactor *r, int paused)
{
    struct sim_reactor *n = (struct sim_reactor *)r;
    n->paused = paused;
    if (n->state == SIM_RUNNING)
        return; /* held, or not, when its turn is over */
    if (n->state == SIM_RUNNABLE)
        out_of_runnable(n->sim, n);
    make_runnable(n);
}

void sim_set_cost(struct reactor *r, uint64_t ns) { ((struct sim_reactor *)r)->cost = ns; }

/* --- the sim ----------------------------------------------------------------------------------------------------- */

int sim_new(struct sim **out, uint64_t seed)
{
    struct sim *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->draws = seed;
    *out = s;
    return 0;
}

void sim_free(struct sim *s)
{
    free(s->heap);
    free(s->runnable);
    free(s->events);
    free(s);
}

uint64_t sim_now(struct sim *s) { return s->now; }

int sim_record(struct sim *s, uint64_t most)
{
    struct sim_event *events = calloc(most, sizeof *events); /* touched as it fills */
    if (!events)
        return -ENOMEM;
    free(s->events);
    s->events = events;
    s->events_room = most;
    s->events_count = 0;
    return 0;
}

uint64_t sim_events(struct sim *s, const struct sim_event **out)
{
    *out = s->events;
    return s->events_count;
}

void sim_counters(struct sim *s, uint64_t *out)
{
    out[0] = s->visits;
    out[1] = s->steps;
    out[2] = s->digest;
}
