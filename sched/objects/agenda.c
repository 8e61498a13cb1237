/* What a loop has to do: handles that are ready, in the order in which they came, and timers, the earliest first.
 *
 * The queue is a ring that doubles when it is full; the heap is an array of times beside their handles, so that sifting
 * compares numbers and touches a handle only to note where it went. A cancelled timer leaves the heap at once. A
 * cancelled handle in the queue stays, for it is about to be passed by anyway. */
#include "sched/objects/objects.h"

#define READY_MIN 64
#define TIMERS_MIN 16

/* --- ready ------------------------------------------------------------------------------------------------------- */

static int grow_ready(struct agenda *a)
{
    size_t size = a->size ? a->size * 2 : READY_MIN;
    PyObject **ready = PyMem_Malloc(size * sizeof *ready);
    if (!ready) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < a->count; i++)
        ready[i] = a->ready[(a->first + i) & (a->size - 1)];
    PyMem_Free(a->ready);
    a->ready = ready;
    a->size = size;
    a->first = 0;
    return 0;
}

int agenda_append(struct agenda *a, PyObject *handle)
{
    if (a->count == a->size && grow_ready(a) < 0)
        return -1;
    a->ready[(a->first + a->count++) & (a->size - 1)] = Py_NewRef(handle);
    return 0;
}

PyObject *agenda_pop(struct agenda *a)
{
    if (!a->count)
        return NULL;
    PyObject *handle = a->ready[a->first];
    a->first = (a->first + 1) & (a->size - 1);
    a->count--;
    return handle;
}

/* --- timers ------------------------------------------------------------------------------------------------------ */

static inline bool earlier(const struct timer *a, const struct timer *b)
{
    return a->when != b->when ? a->when < b->when : a->number < b->number;
}

static inline void put(struct state *st, struct agenda *a, size_t i, struct timer t)
{
    a->timers[i] = t;
    *timer_handle_place(st, t.handle) = i + 1;
}

static void sift_up(struct state *st, struct agenda *a, size_t i, struct timer t)
{
    while (i > 0 && earlier(&t, &a->timers[(i - 1) / 2])) {
        put(st, a, i, a->timers[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(st, a, i, t);
}

static void sift_down(struct state *st, struct agenda *a, size_t i, struct timer t)
{
    for (size_t child; (child = 2 * i + 1) < a->timers_count; i = child) {
        if (child + 1 < a->timers_count && earlier(&a->timers[child + 1], &a->timers[child]))
            child++;
        if (!earlier(&a->timers[child], &t))
            break;
        put(st, a, i, a->timers[child]);
    }
    put(st, a, i, t);
}

int agenda_add_timer(struct state *st, struct agenda *a, uint64_t when, PyObject *handle)
{
    if (a->timers_count == a->timers_size) {
        size_t size = a->timers_size ? a->timers_size * 2 : TIMERS_MIN;
        struct timer *timers = PyMem_Realloc(a->timers, size * sizeof *timers);
        if (!timers) {
            PyErr_NoMemory();
            return -1;
        }
        a->timers = timers;
        a->timers_size = size;
    }
    sift_up(st, a, a->timers_count++, (struct timer){when, a->number++, Py_NewRef(handle)});
    return 0;
}

/* The reference passes to the caller. */
static PyObject *take(struct state *st, struct agenda *a, size_t i)
{
    PyObject *handle = a->timers[i].handle;
    *timer_handle_place(st, handle) = 0;
    struct timer last = a->timers[--a->timers_count];
    if (i < a->timers_count) {
        if (i > 0 && earlier(&last, &a->timers[(i - 1) / 2]))
            sift_up(st, a, i, last);
        else
            sift_down(st, a, i, last);
    }
    return handle;
}

void agenda_remove_timer(struct state *st, struct agenda *a, PyObject *handle)
{
    size_t place = *timer_handle_place(st, handle);
    if (place && place <= a->timers_count && a->timers[place - 1].handle == handle)
        Py_DECREF(take(st, a, place - 1));
}

int agenda_ripen(struct state *st, struct agenda *a, uint64_t now)
{
    while (a->timers_count && a->timers[0].when <= now) {
        if (agenda_append(a, a->timers[0].handle) < 0)
            return -1;
        Py_DECREF(take(st, a, 0));
    }
    return 0;
}

/* --- its end ----------------------------------------------------------------------------------------------------- */

int agenda_traverse(struct agenda *a, visitproc visit, void *arg)
{
    for (size_t i = 0; i < a->count; i++)
        Py_VISIT(a->ready[(a->first + i) & (a->size - 1)]);
    for (size_t i = 0; i < a->timers_count; i++)
        Py_VISIT(a->timers[i].handle);
    return 0;
}

void agenda_clear(struct state *st, struct agenda *a)
{
    /* One after the other, from a list that is in order each time: letting go of a callback may run anything. */
    PyObject *handle;
    while (a->timers_count)
        Py_DECREF(take(st, a, a->timers_count - 1));
    while ((handle = agenda_pop(a)))
        Py_DECREF(handle);
    PyMem_Free(a->timers);
    PyMem_Free(a->ready);
    *a = (struct agenda){.number = a->number};
}
