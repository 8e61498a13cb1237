/* Virtual time, private to sched/: see sim.c for what it does, api.h for what Python may call. */
#ifndef LIBOS_SIM_H
#define LIBOS_SIM_H

#include "sched/backend.h"

#define SIM_NOWHERE 0xffffffffu

/* Where a reactor stands between its visits. */
enum sim_state {
    SIM_RESTING,  /* until its deadline (then it has a place in the heap), or until it is woken */
    SIM_RUNNABLE, /* its place is in the array of those that are drawn from */
    SIM_RUNNING,  /* visited now, or Python's since the visit */
    SIM_HELD,     /* would be runnable, but is paused, or at work (then it has a place in the heap): nothing wakes it */
};

struct sim_reactor {
    struct reactor r; /* first: what everybody else sees */
    struct sim *sim;
    uint32_t id;
    enum sim_state state;
    uint32_t place;
    uint64_t wants; /* its own time: when its loops must run at the latest, 0: at once */
    /* Its clock shows `shown` at virtual time `since`, and gains drift_ppb from there. */
    uint64_t since, shown;
    int64_t drift_ppb;
    bool paused;
    uint64_t cost;       /* virtual time that a visit takes */
    uint64_t busy_until; /* that of the last one */
};

/* In the heap, beside its deadline: sifting then looks at one array. */
struct sim_rest {
    uint64_t due;
    struct sim_reactor *n;
};

struct sim {
    uint64_t now;
    uint64_t draws; /* state of the stream that scheduling is drawn from */
    struct sim_rest *heap; /* these two have room for all */
    struct sim_reactor **runnable;
    uint32_t resting, ready, reactors, room;
    struct sim_reactor *running; /* Python has it; NULL: nobody */
    uint64_t held[REACTOR_EVENTS_MAX]; /* its events, until it comes for them */
    unsigned nheld;
    uint64_t digest, visits, steps;
    struct sim_event *events; /* the first ones, as far as there is room */
    uint64_t events_room, events_count;
};

#endif
