/* Scheduler: what of an event loop is done for every callback: taking it, keeping it, calling it.
 *
 * It is the first base of sched/loop.py's Loop; the second is asyncio's SelectorEventLoop, which does the rest. The
 * methods here have asyncio's names, and its order of things: callbacks run in the order in which they were scheduled;
 * those that an iteration schedules wait for the next one; timers of equal times run in the order of their making.
 *
 * One iteration turns the reactor until there is something to run. Sockets of the network, whose events call their
 * protocols inside the turn, may keep it turning without end and without an iteration.
 *
 * Times are seconds in Python, and ns of the reactor's clock here. A class that overrides time() is asked. */
#include <math.h>

#include "sched/objects/objects.h"

struct scheduler {
    PyObject_HEAD
    struct state *st;
    PyObject *turns;          /* NULL before _attach() */
    PyObject *selector_ready; /* the list in which the selector's sinks leave their events */
    struct agenda agenda;
    bool stopping, debug, closed;
    bool woken; /* a byte is in the self-pipe already */
    bool own_time; /* the class overrides time() */
    uint64_t now;  /* as it was when last looked at, in ns */
};

bool scheduler_debug(struct state *st, PyObject *object) { return ((struct scheduler *)object)->debug; }

void scheduler_timer_cancelled(struct state *st, PyObject *object, PyObject *handle)
{
    agenda_remove_timer(st, &((struct scheduler *)object)->agenda, handle);
}

/* --- time -------------------------------------------------------------------------------------------------------- */

/* Never before the time that is meant, and never never. */
static uint64_t to_ns(double seconds)
{
    double ns = ceil(seconds * 1e9);
    if (!(ns > 0)) /* NaN too */
        return 0;
    return ns < 1.8e19 ? (uint64_t)ns : REACTOR_NEVER - 1;
}

/* Sees what time it is: self->now. -1 with an exception. */
static int look_at_clock(struct scheduler *self)
{
    if (!self->own_time) {
        self->now = turns_now(self->turns);
        return 0;
    }
    PyObject *time = PyObject_CallMethodNoArgs((PyObject *)self, self->st->names.time);
    double seconds = time ? PyFloat_AsDouble(time) : -1;
    Py_XDECREF(time);
    if (seconds == -1 && PyErr_Occurred())
        return -1;
    self->now = to_ns(seconds);
    return 0;
}

static PyObject *scheduler_time(PyObject *object, PyObject *unused)
{
    struct scheduler *self = (struct scheduler *)object;
    return PyFloat_FromDouble(self->turns ? (double)turns_now(self->turns) * 1e-9 : 0.0);
}

/* --- scheduling -------------------------------------------------------------------------------------------------- */

/* `context` out of the keywords of a call; NULL if it was not given. -1 with an exception. */
static int keyword_context(const char *method, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                           PyObject **context)
{
    *context = NULL;
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (PyUnicode_CompareWithASCIIString(name, "context") != 0) {
            PyErr_Format(PyExc_TypeError, "BaseEventLoop.%s() got an unexpected keyword argument '%U'", method, name);
            return -1;
        }
        *context = args[nargs + i];
    }
    return 0;
}

/* `first`: what comes before the callback; NULL: nothing. In Python's words for a method of asyncio's. */
static int enough_arguments(const char *method, Py_ssize_t nargs, const char *first)
{
    if (nargs >= (first ? 2 : 1))
        return 0;
    if (first && nargs == 0)
        PyErr_Format(PyExc_TypeError, "BaseEventLoop.%s() missing 2 required positional arguments: '%s' and 'callback'",
                     method, first);
    else
        PyErr_Format(PyExc_TypeError, "BaseEventLoop.%s() missing 1 required positional argument: 'callback'", method);
    return -1;
}

static int check_open(struct scheduler *self)
{
    if (!self->closed)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}

/* What debug mode asks of a caller. */
static int check_callback(struct scheduler *self, const char *method, PyObject *callback)
{
    PyObject *name = PyUnicode_FromString(method), *done = NULL;
    if (name)
        done = PyObject_CallMethodObjArgs((PyObject *)self, self->st->names._check_callback, callback, name, NULL);
    Py_XDECREF(name);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int check_call(struct scheduler *self, const char *method, PyObject *callback)
{
    PyObject *done = PyObject_CallMethodNoArgs((PyObject *)self, self->st->names._check_thread);
    Py_XDECREF(done);
    return done ? check_callback(self, method, callback) : -1;
}

static PyObject *soon(struct scheduler *self, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *context)
{
    PyObject *handle = handle_new(self->st, callback, args, nargs, (PyObject *)self, context);
    if (handle &&
        ((self->debug && handle_trace(self->st, handle) < 0) || agenda_append(&self->agenda, handle) < 0))
        Py_CLEAR(handle);
    return handle;
}

static PyObject *call_soon(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct scheduler *self = (struct scheduler *)object;
    PyObject *context;
    if (keyword_context("call_soon", args, nargs, names, &context) < 0 || enough_arguments("call_soon", nargs, NULL) < 0 ||
        check_open(self) < 0 || (self->debug && check_call(self, "call_soon", args[0]) < 0))
        return NULL;
    return soon(self, args[0], args + 1, nargs - 1, context);
}

/* From any thread, and from signal handlers. However many call, one byte wakes the loop. */
static PyObject *call_soon_threadsafe(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct scheduler *self = (struct scheduler *)object;
    PyObject *context;
    if (keyword_context("call_soon_threadsafe", args, nargs, names, &context) < 0 ||
        enough_arguments("call_soon_threadsafe", nargs, NULL) < 0 || check_open(self) < 0 ||
        (self->debug && check_callback(self, "call_soon_threadsafe", args[0]) < 0))
        return NULL;
    PyObject *handle = soon(self, args[0], args + 1, nargs - 1, context);
    if (!handle || self->woken)
        return handle;
    self->woken = true;
    PyObject *done = PyObject_CallMethodNoArgs(object, self->st->names._write_to_self);
    if (!done)
        Py_CLEAR(handle);
    Py_XDECREF(done);
    return handle;
}

static PyObject *at(struct scheduler *self, PyObject *when, PyObject *callback, PyObject *const *args,
                    Py_ssize_t nargs, PyObject *context)
{
    double seconds = PyFloat_AsDouble(when);
    if (seconds == -1 && PyErr_Occurred())
        return NULL;
    PyObject *handle = timer_handle_new(self->st, when, callback, args, nargs, (PyObject *)self, context);
    if (handle && ((self->debug && handle_trace(self->st, handle) < 0) ||
                   agenda_add_timer(self->st, &self->agenda, to_ns(seconds), handle) < 0))
        Py_CLEAR(handle);
    return handle;
}

static PyObject *call_at(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct scheduler *self = (struct scheduler *)object;
    PyObject *context;
    if (keyword_context("call_at", args, nargs, names, &context) < 0 || enough_arguments("call_at", nargs, "when") < 0)
        return NULL;
    if (args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    if (check_open(self) < 0 || (self->debug && check_call(self, "call_at", args[1]) < 0))
        return NULL;
    return at(self, args[0], args[1], args + 2, nargs - 2, context);
}

static PyObject *call_later(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct scheduler *self = (struct scheduler *)object;
    PyObject *context;
    if (keyword_context("call_later", args, nargs, names, &context) < 0 ||
        enough_arguments("call_later", nargs, "delay") < 0)
        return NULL;
    if (args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    if (check_open(self) < 0 || (self->debug && check_call(self, "call_at", args[1]) < 0) || look_at_clock(self) < 0)
        return NULL;
    PyObject *now = PyFloat_FromDouble((double)self->now * 1e-9);
    PyObject *when = now ? PyNumber_Add(now, args[0]) : NULL; /* whatever adds to a float is a delay */
    Py_XDECREF(now);
    PyObject *handle = when ? at(self, when, args[1], args + 2, nargs - 2, context) : NULL;
    Py_XDECREF(when);
    return handle;
}

static PyObject *add_callback(PyObject *object, PyObject *handle)
{
    struct scheduler *self = (struct scheduler *)object;
    if (!PyObject_TypeCheck(handle, self->st->asyncio_handle)) {
        PyErr_Format(PyExc_TypeError, "a Handle is expected, got %R", handle);
        return NULL;
    }
    if (!handle_cancelled(self->st, handle) && agenda_append(&self->agenda, handle) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *timer_handle_cancelled(PyObject *object, PyObject *handle)
{
    struct scheduler *self = (struct scheduler *)object;
    if (Py_TYPE(handle) == self->st->timer_handle)
        agenda_remove_timer(self->st, &self->agenda, handle);
    Py_RETURN_NONE;
}

/* --- running ----------------------------------------------------------------------------------------------------- */

/* Turns the reactor until something is ready, or the loop is to stop. */
static int gather(struct scheduler *self)
{
    struct agenda *agenda = &self->agenda;
    do {
        uint64_t timeout = REACTOR_NEVER;
        if (agenda->count || self->stopping) {
            timeout = 0;
        } else if (agenda->timers_count) {
            uint64_t when = agenda->timers[0].when;
            if (when > self->now && look_at_clock(self) < 0)
                return -1;
            timeout = when > self->now ? when - self->now : 0;
        }
        if (turns_turn(self->turns, timeout) < 0 || PyErr_CheckSignals() < 0)
            return -1;
        if (PyList_GET_SIZE(self->selector_ready)) {
            PyObject *done = PyObject_CallMethodNoArgs((PyObject *)self, self->st->names._poll_selector);
            if (!done)
                return -1;
            Py_DECREF(done);
        }
        if (agenda->timers_count && (look_at_clock(self) < 0 || agenda_ripen(self->st, agenda, self->now) < 0))
            return -1;
    } while (!agenda->count && !self->stopping);
    return 0;
}

static int run(struct scheduler *self, PyObject *handle)
{
    if (!self->debug)
        return handle_run(self->st, (PyObject *)self, handle);
    PyObject *done = PyObject_CallMethodOneArg((PyObject *)self, self->st->names._run_slowly, handle);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *run_once(PyObject *object, PyObject *unused)
{
    struct scheduler *self = (struct scheduler *)object;
    if (!self->turns) {
        PyErr_SetString(PyExc_RuntimeError, "the loop has no reactor");
        return NULL;
    }
    if (gather(self) < 0)
        return NULL;
    for (size_t left = self->agenda.count; left > 0; left--) {
        PyObject *handle = agenda_pop(&self->agenda);
        if (!handle) /* a callback has cleared it */
            break;
        int rc = handle_cancelled(self->st, handle) ? 0 : run(self, handle);
        Py_DECREF(handle);
        if (rc < 0)
            return NULL;
    }
    if (self->stopping) /* there may be no next turn */
        turns_flush(self->turns);
    Py_RETURN_NONE;
}

/* --- the type ---------------------------------------------------------------------------------------------------- */

static PyObject *scheduler_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct state *st = state_of_type(type);
    struct scheduler *self = st ? (struct scheduler *)type->tp_alloc(type, 0) : NULL;
    if (self) {
        self->st = st;
        self->closed = true; /* until asyncio's constructor says otherwise: a loop that is not yet built is not open */
        Py_INCREF(st->module);
    }
    return (PyObject *)self;
}

static PyObject *attach(PyObject *object, PyObject *args)
{
    struct scheduler *self = (struct scheduler *)object;
    PyObject *turns, *ready;
    if (!PyArg_ParseTuple(args, "O!O!:_attach", self->st->turns, &turns, &PyList_Type, &ready))
        return NULL;
    PyObject *time = PyObject_GetAttr((PyObject *)Py_TYPE(object), self->st->names.time);
    PyObject *ours = PyObject_GetAttr((PyObject *)self->st->scheduler, self->st->names.time);
    if (time && ours) {
        self->own_time = time != ours;
        Py_XSETREF(self->turns, Py_NewRef(turns));
        Py_XSETREF(self->selector_ready, Py_NewRef(ready));
    }
    Py_XDECREF(time);
    Py_XDECREF(ours);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *forget(PyObject *object, PyObject *unused)
{
    struct scheduler *self = (struct scheduler *)object;
    agenda_clear(self->st, &self->agenda);
    Py_RETURN_NONE;
}

static PyObject *get_debug(PyObject *object, PyObject *unused)
{
    return PyBool_FromLong(((struct scheduler *)object)->debug);
}

static PyObject *get_flag(PyObject *object, void *offset)
{
    return PyBool_FromLong(*((bool *)object + (intptr_t)offset));
}

static int set_flag(PyObject *object, PyObject *value, void *offset)
{
    int truth = value ? PyObject_IsTrue(value) : -1;
    if (!value)
        PyErr_SetString(PyExc_AttributeError, "cannot be deleted");
    if (truth < 0)
        return -1;
    *((bool *)object + (intptr_t)offset) = truth;
    return 0;
}

static PyObject *get_ready(PyObject *object, void *unused)
{
    struct agenda *a = &((struct scheduler *)object)->agenda;
    PyObject *list = PyList_New((Py_ssize_t)a->count);
    for (size_t i = 0; list && i < a->count; i++)
        PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef(a->ready[(a->first + i) & (a->size - 1)]));
    return list;
}

static PyObject *get_scheduled(PyObject *object, void *unused)
{
    struct agenda *a = &((struct scheduler *)object)->agenda;
    PyObject *list = PyList_New((Py_ssize_t)a->timers_count);
    for (size_t i = 0; list && i < a->timers_count; i++)
        PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef(a->timers[i].handle));
    return list;
}

/* asyncio's constructor makes lists of its own. */
static int ignore(PyObject *object, PyObject *value, void *unused) { return 0; }

static int scheduler_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct scheduler *self = (struct scheduler *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->turns);
    Py_VISIT(self->selector_ready);
    return agenda_traverse(&self->agenda, visit, arg);
}

static int scheduler_clear(PyObject *object)
{
    struct scheduler *self = (struct scheduler *)object;
    agenda_clear(self->st, &self->agenda);
    Py_CLEAR(self->turns);
    Py_CLEAR(self->selector_ready);
    return 0;
}

static void scheduler_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    scheduler_clear(object);
    PyObject *module = ((struct scheduler *)object)->st->module;
    type->tp_free(object);
    Py_DECREF(type);
    Py_DECREF(module);
}

int scheduler_type(struct state *st, PyObject *module)
{
#define FAST(name, function, text)                                                                                    \
    {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS, text}
    static const PyMethodDef methods[] = {
        FAST("call_soon", call_soon, "As asyncio.AbstractEventLoop.call_soon."),
        FAST("call_soon_threadsafe", call_soon_threadsafe, "As asyncio.AbstractEventLoop.call_soon_threadsafe."),
        FAST("call_at", call_at, "As asyncio.AbstractEventLoop.call_at."),
        FAST("call_later", call_later, "As asyncio.AbstractEventLoop.call_later."),
        {"time", scheduler_time, METH_NOARGS, "The reactor's clock, in seconds."},
        {"get_debug", get_debug, METH_NOARGS, "Whether debug mode is on."},
        {"_add_callback", add_callback, METH_O, "The handle is ready."},
        {"_timer_handle_cancelled", timer_handle_cancelled, METH_O, "Out of the heap with it."},
        {"_run_once", run_once, METH_NOARGS, "One iteration: wait until something is ready, then run what is."},
        {"_attach", attach, METH_VARARGS, "The Turns to wait in, and the list that its selector fills."},
        {"_forget", forget, METH_NOARGS, "Let go of all handles."},
        {NULL},
    };
#undef FAST
#define FLAG(name) {"_" #name, get_flag, set_flag, NULL, (void *)offsetof(struct scheduler, name)}
    static const PyGetSetDef getset[] = {
        FLAG(stopping),
        FLAG(debug),
        FLAG(closed),
        FLAG(woken),
        {"_ready", get_ready, ignore, "A list of what is ready, to look at.", NULL},
        {"_scheduled", get_scheduled, ignore, "A list of the timers, to look at.", NULL},
        {NULL},
    };
#undef FLAG
    static const PyType_Slot slots[] = {
        {Py_tp_new, scheduler_new},           {Py_tp_dealloc, scheduler_dealloc},
        {Py_tp_traverse, scheduler_traverse}, {Py_tp_clear, scheduler_clear},
        {Py_tp_methods, (void *)methods},     {Py_tp_getset, (void *)getset},
        {0},
    };
    PyType_Spec spec = {
        .name = "libos._loop.Scheduler",
        .basicsize = sizeof(struct scheduler),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
        .slots = (PyType_Slot *)slots,
    };
    st->scheduler = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return st->scheduler ? 0 : -1;
}
