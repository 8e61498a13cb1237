/* libos._loop: the half of the scheduler that is C and holds Python objects.
 *
 *     handle.c     Handle and TimerHandle: a callback with its arguments and its context
 *     call.c       the arguments of call_soon() and the like
 *     agenda.c     what is to run: the queue of ready handles, the heap of timers
 *     turns.c      Turns, the base of sched/reactor.py: one turn of a reactor, and the sinks of its events
 *     scheduler.c  Scheduler, the base of sched/loop.py: call_soon(), call_at(), one iteration of the loop
 *     stream.c     Stream, the base of sched/stream.py: bytes from a socket to a protocol, and back
 *
 * libos._native knows sockets and no Python; this extension knows Python and no sockets. What it calls there it gets as
 * addresses, when an object is made: of one reactor's functions (struct turn_ops) and of one kind of stream
 * (struct stream_ops, sched/stream.h). So neither is linked to the other.
 *
 * The classes here are bases of Python classes and hold what is hot; whatever is rare is a method of the Python
 * class, called by name. Each derives from asyncio's class of its kind and uses that class's own slots, at offsets read
 * from it when the module is made: an isinstance() test holds, and what asyncio's methods see is what C sees.
 *
 * All of it runs under the GIL, but for the wait of a turn. There are no statics: what is common to the objects of one
 * interpreter is the module's state. */
#ifndef LIBOS_OBJECTS_H
#define LIBOS_OBJECTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdbool.h>
#include <stdint.h>

#include "sched/reactor.h"
#include "sched/stream.h"

/* Names that are looked up or called, interned. */
#define NAMES(X)                                                                                                       \
    X(__class__)                                                                                                       \
    X(_callback_failed)                                                                                                \
    X(_check_callback)                                                                                                 \
    X(_check_thread)                                                                                                   \
    X(_poll_selector)                                                                                                  \
    X(_protocol_failed)                                                                                                \
    X(_read_nothing)                                                                                                   \
    X(_ready_rarely)                                                                                                   \
    X(_run)                                                                                                            \
    X(_run_slowly)                                                                                                     \
    X(_write_rest)                                                                                                     \
    X(_write_to_self)                                                                                                  \
    X(buffer_updated)                                                                                                  \
    X(call_at)                                                                                                         \
    X(data_received)                                                                                                   \
    X(cancel)                                                                                                          \
    X(get_buffer)                                                                                                      \
    X(time)

#define TRANSPORT_SLOTS 5 /* of asyncio's transports with flow control */

struct state {
    PyObject *module; /* whose state this is. Objects that need it to their end hold it: the collector may take it from
                         their class before it gets to them */
    PyTypeObject *handle, *timer_handle, *turns, *scheduler, *stream;
    PyTypeObject *asyncio_handle, *asyncio_timer_handle;
    PyObject *extract_stack; /* asyncio.format_helpers.extract_stack */
    struct {
        Py_ssize_t callback, args, cancelled, loop, context, repr, source_traceback, scheduled, when;
    } at;                                     /* slots of asyncio's handles */
    Py_ssize_t timer_base, stream_base;       /* where our part of a TimerHandle, of a Stream begins */
    PyTypeObject *transport;                  /* asyncio's, with flow control */
    Py_ssize_t transport_at[TRANSPORT_SLOTS]; /* its slots */
#define X(name) PyObject *name;
    struct names {
        NAMES(X)
    } names;
#undef X
};

#define SLOT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

static inline void slot_set(PyObject *object, Py_ssize_t offset, PyObject *value) /* steals value */
{
    PyObject *old = SLOT(object, offset);
    SLOT(object, offset) = value;
    Py_XDECREF(old);
}

/* The module's state, found from a type of ours or of a class that derives from one. NULL with an exception. */
struct state *state_of_type(PyTypeObject *type);

/* --- handle.c ---------------------------------------------------------------------------------------------------- */

/* A new handle; context NULL or None: a copy of the current one. Takes its own references. */
PyObject *handle_new(struct state *st, PyObject *callback, PyObject *const *args, Py_ssize_t nargs, PyObject *loop,
                     PyObject *context);
PyObject *timer_handle_new(struct state *st, PyObject *when, PyObject *callback, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *loop, PyObject *context);
/* Notes where it was made (debug mode). */
int handle_trace(struct state *st, PyObject *handle);
/* Calls the callback in its context. -1: SystemExit or KeyboardInterrupt came out; other exceptions are reported. */
int handle_run(struct state *st, PyObject *loop, PyObject *handle);
static inline bool handle_cancelled(struct state *st, PyObject *handle)
{
    return SLOT(handle, st->at.cancelled) == Py_True;
}
/* Its place in the agenda's heap, plus one; 0: not there. */
size_t *timer_handle_place(struct state *st, PyObject *handle);

/* The types, made for a module. -1 with an exception. */
int handle_types(struct state *st, PyObject *module);

/* --- call.c ------------------------------------------------------------------------------------------------------ */

/* The arguments of a call: what has a name, and behind it what is for the callback. */
struct call {
    PyObject *const *args;
    Py_ssize_t nargs;
    PyObject *context;  /* NULL if it was not given */
    PyObject *named[2]; /* if one came by keyword: args is here then */
};

/* Reads a call as Python would of `def method(self, <names>, *args, context=None)`. Nearly always there is no keyword,
 * or only context. -1 with an exception. */
int read_call(const char *method, const char *const *names, Py_ssize_t count, PyObject *const *args, Py_ssize_t nargs,
              PyObject *keywords, struct call *call);

/* --- agenda.c ---------------------------------------------------------------------------------------------------- */

struct timer {
    uint64_t when;   /* ns */
    uint64_t number; /* of equal times the older one goes first */
    PyObject *handle;
};

/* What a loop has to do. Owns a reference to each handle in it. */
struct agenda {
    PyObject **ready; /* a ring of `size`, a power of two */
    size_t size, first, count;
    struct timer *timers; /* a binary heap */
    size_t timers_size, timers_count;
    uint64_t number;
};

int agenda_append(struct agenda *a, PyObject *handle);
PyObject *agenda_pop(struct agenda *a); /* NULL: empty */
int agenda_add_timer(struct state *st, struct agenda *a, uint64_t when, PyObject *handle);
void agenda_remove_timer(struct state *st, struct agenda *a, PyObject *handle); /* if it is there */
/* Moves the timers of up to now to the ready ones. */
int agenda_ripen(struct state *st, struct agenda *a, uint64_t now);
int agenda_traverse(struct agenda *a, visitproc visit, void *arg);
void agenda_clear(struct state *st, struct agenda *a);

/* --- turns.c ----------------------------------------------------------------------------------------------------- */

/* One turn, and its events to their sinks. -1 with an exception. */
int turns_turn(PyObject *turns, uint64_t timeout);
/* Sends what was written, and looks at nothing. */
void turns_flush(PyObject *turns);
uint64_t turns_now(PyObject *turns);
/* In virtual time: its loop must run when its clock shows `when` at the latest, 0: at once. */
void turns_want(PyObject *turns, uint64_t when);

int turns_type(struct state *st, PyObject *module);

/* --- scheduler.c, stream.c --------------------------------------------------------------------------------------- */

/* The handle was cancelled: out of the heap with it. */
void scheduler_timer_cancelled(struct state *st, PyObject *scheduler, PyObject *handle);
bool scheduler_debug(struct state *st, PyObject *scheduler);

int scheduler_type(struct state *st, PyObject *module);
int stream_type(struct state *st, PyObject *module);

/* An event of its socket. -1: SystemExit or KeyboardInterrupt came out. */
int stream_ready(struct state *st, PyObject *stream, unsigned mask);

/* The exception that is set goes to a method of `object`, as from an except block: sys.exc_info() has it meanwhile.
 * The method gets `what` (not if it is NULL) and the exception. -1: it was one that ends the program, which stays set,
 * or the method raised. */
int report(PyObject *object, PyObject *method, PyObject *what);

#endif
