/* Scheduler: what of an event loop is done for every callback: taking it, keeping it, calling it.
 *
 * It is the first base of sched/loop.py's Loop; the second is asyncio's SelectorEventLoop, which does the rest. The
 * methods here have asyncio's names, and its order of things: callbacks run in the order in which they were scheduled;
 * those that an iteration schedules wait for the next one; timers of equal times run in the order of their making.
 *
 * One iteration turns the reactor until there is something to run. Sockets of the network, whose events call their
 * protocols inside the turn, may keep it turning without end and without an iteration.
 *
 * In virtual time a loop does not wait: whoever simulates calls _run_ready(), an iteration that only looks. It says
 * there when it must run again (turns_want); and what is scheduled after that, from outside, says so by itself.
 *
 * Times are seconds in Python, and ns of the reactor's clock here. A loop that has a time() or a call_at() of its own
 * is asked. */
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
    bool own_time, own_call_at; /* the class, or the object, overrides time(), call_at() */
    bool resting;               /* in virtual time, between two iterations */
    uint64_t now;               /* as it was when last looked at, in ns */
    double seconds;             /* the same as time() says it */
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

static uint64_t reactors_time(struct scheduler *self) { return self->turns ? turns_now(self->turns) : 0; }

/* Sees what time it is: self->now and self->seconds. -1 with an exception. */
static int look_at_clock(struct scheduler *self)
{
    if (!self->own_time) {
        self->now = reactors_time(self);
        self->seconds = (double)self->now * 1e-9;
        return 0;
    }
    PyObject *time = PyObject_CallMethodNoArgs((PyObject *)self, self->st->names.time);
    self->seconds = time ? PyFloat_AsDouble(time) : -1;
    Py_XDECREF(time);
    if (self->seconds == -1 && PyErr_Occurred())
        return -1;
    self->now = to_ns(self->seconds);
    return 0;
}

static PyObject *scheduler_time(PyObject *object, PyObject *unused)
{
    struct scheduler *self = (struct scheduler *)object;
    return PyFloat_FromDouble((double)reactors_time(self) * 1e-9);
}

/* --- scheduling -------------------------------------------------------------------------------------------------- */

static const char *const soon_names[] = {"callback"};
static const char *const at_names[] = {"when", "callback"};
static const char *const later_names[] = {"delay", "callback"};

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

/* It is to run at once, or by `when`. */
static void rouse(struct scheduler *self, uint64_t when)
{
    if (self->resting)
        turns_want(self->turns, when);
}

static PyObject *soon(struct scheduler *self, const struct call *call)
{
    PyObject *handle =
        handle_new(self->st, call->args[0], call->args + 1, call->nargs - 1, (PyObject *)self, call->context);
    if (handle &&
        ((self->debug && handle_trace(self->st, handle) < 0) || agenda_append(&self->agenda, handle) < 0))
        Py_CLEAR(handle);
    rouse(self, 0);
    return handle;
}

static PyObject *call_soon(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct scheduler *self = (struct scheduler *)object;
    struct call call;
    if (read_call("call_soon", soon_names, 1, args, nargs, names, &call) < 0 || check_open(self) < 0 ||
        (self->debug && check_call(self, "call_soon", call.args[0]) < 0))
        return NULL;
    return soon(self, &call);
}

/* From any thread, and from signal handlers. However many call, one byte wakes the loop. */
static PyObject *call_soon_threadsafe(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct scheduler *self = (struct scheduler *)object;
    struct call call;
    if (read_call("call_soon_threadsafe", soon_names, 1, args, nargs, names, &call) < 0 || check_open(self) < 0 ||
        (self->debug && check_callback(self, "call_soon_threadsafe", call.args[0]) < 0))
        return NULL;
    PyObject *handle = soon(self, &call);
    if (!handle || self->woken)
        return handle;
    self->woken = true;
    PyObject *done = PyObject_CallMethodNoArgs(object, self->st->names._write_to_self);
    if (!done) {
        self->woken = false;
        Py_CLEAR(handle);
    }
    Py_XDECREF(done);
    return handle;
}

static PyObject *at(struct scheduler *self, PyObject *when, const struct call *call)
{
    double seconds = PyFloat_AsDouble(when);
    if (seconds == -1 && PyErr_Occurred())
        return NULL;
    PyObject *handle = timer_handle_new(self->st, when, call->args[1], call->args + 2, call->nargs - 2,
                                        (PyObject *)self, call->context);
    if (handle && ((self->debug && handle_trace(self->st, handle) < 0) ||
                   agenda_add_timer(self->st, &self->agenda, to_ns(seconds), handle) < 0))
        Py_CLEAR(handle);
    rouse(self, to_ns(seconds));
    return handle;
}

static PyObject *call_at(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct scheduler *self = (struct scheduler *)object;
    struct call call;
    if (read_call("call_at", at_names, 2, args, nargs, names, &call) < 0)
        return NULL;
    if (call.args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    if (check_open(self) < 0 || (self->debug && check_call(self, "call_at", call.args[1]) < 0))
        return NULL;
    return at(self, call.args[0], &call);
}

/* call_at() of a class that has its own. */
static PyObject *at_by_method(struct scheduler *self, PyObject *when, const struct call *call)
{
    PyObject *method = PyObject_GetAttr((PyObject *)self, self->st->names.call_at);
    PyObject *args = PyTuple_New(call->nargs);
    PyObject *keywords = Py_BuildValue("{s:O}", "context", call->context ? call->context : Py_None);
    for (Py_ssize_t i = 0; args && i < call->nargs; i++)
        PyTuple_SET_ITEM(args, i, Py_NewRef(i ? call->args[i] : when));
    PyObject *handle = method && args && keywords ? PyObject_Call(method, args, keywords) : NULL;
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(keywords);
    return handle;
}

static PyObject *call_later(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct scheduler *self = (struct scheduler *)object;
    struct call call;
    if (read_call("call_later", later_names, 2, args, nargs, names, &call) < 0)
        return NULL;
    if (call.args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    /* In the words of call_at(), which is what asyncio's calls. */
    if (check_open(self) < 0 || (self->debug && check_call(self, "call_at", call.args[1]) < 0) ||
        look_at_clock(self) < 0)
        return NULL;
    PyObject *delay = call.args[0], *when;
    if (PyFloat_CheckExact(delay)) {
        when = PyFloat_FromDouble(self->seconds + PyFloat_AS_DOUBLE(delay));
    } else { /* whatever adds to a float is a delay */
        PyObject *now = PyFloat_FromDouble(self->seconds);
        when = now ? PyNumber_Add(now, delay) : NULL;
        Py_XDECREF(now);
    }
    PyObject *handle = !when ? NULL : self->own_call_at ? at_by_method(self, when, &call) : at(self, when, &call);
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
    rouse(self, 0);
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

/* What is ready now, and nothing that it makes ready. */
static int run_all(struct scheduler *self)
{
    for (size_t left = self->agenda.count; left > 0; left--) {
        PyObject *handle = agenda_pop(&self->agenda);
        if (!handle) /* a callback has cleared it */
            break;
        int rc = handle_cancelled(self->st, handle) ? 0 : run(self, handle);
        Py_DECREF(handle);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static int check_attached(struct scheduler *self)
{
    if (self->turns)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the loop has no reactor");
    return -1;
}

static PyObject *run_ready(PyObject *object, PyObject *unused)
{
    struct scheduler *self = (struct scheduler *)object;
    struct agenda *agenda = &self->agenda;
    self->resting = false;
    if (check_attached(self) < 0 || turns_turn(self->turns, 0) < 0 || look_at_clock(self) < 0 ||
        agenda_ripen(self->st, agenda, self->now) < 0 || run_all(self) < 0)
        return NULL;
    self->resting = true;
    uint64_t next = agenda->timers_count ? agenda->timers[0].when : REACTOR_NEVER;
    turns_want(self->turns, agenda->count || self->stopping ? 0 : next);
    Py_RETURN_NONE;
}

static PyObject *run_once(PyObject *object, PyObject *unused)
{
    struct scheduler *self = (struct scheduler *)object;
    if (check_attached(self) < 0 || gather(self) < 0 || run_all(self) < 0)
        return NULL;
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

/* Whether a method is not the one here, but a subclass's or one that was put into the object. -1 with an exception. */
static int overrides(PyObject *object, PyObject *name, PyCFunction ours)
{
    PyObject *method = PyObject_GetAttr(object, name);
    if (!method)
        return -1;
    bool is_ours = PyCFunction_Check(method) && PyCFunction_GET_FUNCTION(method) == ours &&
                   PyCFunction_GET_SELF(method) == object;
    Py_DECREF(method);
    return !is_ours;
}

static int look_for_overrides(struct scheduler *self)
{
    PyObject *object = (PyObject *)self;
    int time = overrides(object, self->st->names.time, scheduler_time);
    int call_at_ = time < 0 ? -1 : overrides(object, self->st->names.call_at, (PyCFunction)(void (*)(void))call_at);
    if (call_at_ < 0)
        return -1;
    self->own_time = time;
    self->own_call_at = call_at_;
    return 0;
}

/* Tests put clocks of their own into a loop, or give it another class, and take them out again. */
static int set_attribute(PyObject *object, PyObject *name, PyObject *value)
{
    struct scheduler *self = (struct scheduler *)object;
    if (PyObject_GenericSetAttr(object, name, value) < 0)
        return -1;
    struct names *names = &self->st->names;
    bool matters = name == names->time || name == names->call_at || name == names->__class__;
    return matters ? look_for_overrides(self) : 0;
}

static PyObject *attach(PyObject *object, PyObject *args)
{
    struct scheduler *self = (struct scheduler *)object;
    PyObject *turns, *ready;
    if (!PyArg_ParseTuple(args, "O!O!:_attach", self->st->turns, &turns, &PyList_Type, &ready) ||
        look_for_overrides(self) < 0)
        return NULL;
    Py_XSETREF(self->turns, Py_NewRef(turns));
    Py_XSETREF(self->selector_ready, Py_NewRef(ready));
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
    PyObject *list = PyList_New(0); /* may collect, and so run anything: what there is, is to be seen after it */
    for (size_t i = 0; list && i < a->count; i++)
        if (PyList_Append(list, a->ready[(a->first + i) & (a->size - 1)]) < 0)
            Py_CLEAR(list);
    return list;
}

static PyObject *get_scheduled(PyObject *object, void *unused)
{
    struct agenda *a = &((struct scheduler *)object)->agenda;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < a->timers_count; i++)
        if (PyList_Append(list, a->timers[i].handle) < 0)
            Py_CLEAR(list);
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
        {"_run_ready", run_ready, METH_NOARGS, "One iteration, in virtual time: run what is ready, wait for nothing."},
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
        {Py_tp_setattro, set_attribute},
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
