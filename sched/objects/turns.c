/* Turns: one turn of a reactor after another, and each event to its sink.
 *
 * A sink is whatever `sinks` holds for an event's token: a Stream, which is called without a detour through Python, or
 * a callable that gets the mask. Sinks report their exceptions themselves; SystemExit and KeyboardInterrupt come out of
 * the turn, and the events behind come again, for they are level-triggered.
 *
 * The wait is the one place where the GIL is let go of. A turn within a turn (a sink that turned its own reactor)
 * would overwrite the events that are being looked at, and is refused. */
#include "sched/objects/objects.h"

#define EVENTS_LEAST 2 /* that a turn must have room for */

struct turns {
    PyObject_HEAD
    struct state *st;
    const struct turn_ops *ops; /* NULL: closed */
    struct reactor *reactor;
    PyObject *sinks; /* dict: token -> sink */
    bool turning;
    uint64_t events[REACTOR_EVENTS_MAX];
};

static int deliver(struct state *st, PyObject *sink, unsigned mask)
{
    if (PyObject_TypeCheck(sink, st->stream))
        return stream_ready(st, sink, mask);
    PyObject *number = PyLong_FromUnsignedLong(mask);
    PyObject *done = number ? PyObject_CallOneArg(sink, number) : NULL;
    Py_XDECREF(number);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int dispatch(struct turns *self, int n)
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < n; i++) {
        PyObject *token = PyLong_FromUnsignedLongLong(self->events[i] >> 16);
        if (!token)
            return -1;
        PyObject *sink = PyDict_GetItemWithError(self->sinks, token);
        Py_DECREF(token);
        if (sink) {
            Py_INCREF(sink); /* it may take itself out */
            rc = deliver(self->st, sink, self->events[i] & 0xffff);
            Py_DECREF(sink);
        } else if (PyErr_Occurred()) {
            return -1;
        }
    }
    return rc;
}

static bool begin(struct turns *self)
{
    if (self->ops && self->sinks && !self->turning)
        return self->turning = true;
    PyErr_SetString(PyExc_RuntimeError, self->turning ? "the reactor is in a turn already" : "the reactor is closed");
    return false;
}

static int end(struct turns *self, int n)
{
    int rc = n;
    if (n > 0) {
        rc = dispatch(self, n);
    } else if (n < 0) {
        Py_XDECREF(PyObject_CallMethod((PyObject *)self, "_refused", "i", n)); /* raises what it stands for */
    }
    self->turning = false;
    return rc;
}

int turns_turn(PyObject *object, uint64_t timeout)
{
    struct turns *self = (struct turns *)object;
    int n;
    if (!begin(self))
        return -1;
    Py_BEGIN_ALLOW_THREADS
    n = self->ops->turn(self->reactor, timeout, self->events, REACTOR_EVENTS_MAX);
    Py_END_ALLOW_THREADS
    return end(self, n);
}

void turns_flush(PyObject *object)
{
    struct turns *self = (struct turns *)object;
    if (self->ops && !self->turning)
        self->ops->turn(self->reactor, 0, self->events, EVENTS_LEAST); /* they come again, an error too */
}

uint64_t turns_now(PyObject *object)
{
    struct turns *self = (struct turns *)object;
    return self->ops ? self->ops->now(self->reactor) : 0;
}

void turns_want(PyObject *object, uint64_t when)
{
    struct turns *self = (struct turns *)object;
    if (self->ops && self->ops->want)
        self->ops->want(self->reactor, when);
}

/* --- the type ---------------------------------------------------------------------------------------------------- */

static PyObject *turns_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct state *st = state_of_type(type);
    struct turns *self = st ? (struct turns *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->st = st;
    self->sinks = PyDict_New();
    if (!self->sinks)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *turns_bind(PyObject *object, PyObject *args)
{
    struct turns *self = (struct turns *)object;
    unsigned long long reactor, ops;
    if (!PyArg_ParseTuple(args, "KK:_bind", &reactor, &ops))
        return NULL;
    self->reactor = (struct reactor *)(uintptr_t)reactor;
    self->ops = (const struct turn_ops *)(uintptr_t)ops;
    Py_RETURN_NONE;
}

static PyObject *turns_unbind(PyObject *object, PyObject *unused)
{
    struct turns *self = (struct turns *)object;
    self->reactor = NULL;
    self->ops = NULL;
    Py_RETURN_NONE;
}

static PyObject *turns_turn_method(PyObject *object, PyObject *timeout)
{
    uint64_t ns = PyLong_AsUnsignedLongLong(timeout);
    if ((ns == REACTOR_NEVER && PyErr_Occurred()) || turns_turn(object, ns) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *turns_poll_method(PyObject *object, PyObject *unused)
{
    struct turns *self = (struct turns *)object;
    if (!begin(self))
        return NULL;
    int n = self->ops->poll(self->reactor, self->events, REACTOR_EVENTS_MAX);
    return end(self, n) < 0 ? NULL : PyBool_FromLong(n > 0);
}

static int turns_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((struct turns *)object)->sinks);
    return 0;
}

static int turns_clear(PyObject *object)
{
    Py_CLEAR(((struct turns *)object)->sinks);
    return 0;
}

static void turns_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    turns_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

int turns_type(struct state *st, PyObject *module)
{
    static const PyMethodDef methods[] = {
        {"turn", turns_turn_method, METH_O,
         "turn(timeout_ns)\n--\n\n"
         "Send what was written, wait at most ``timeout_ns`` for something to happen, and call the sinks.\n\n"
         "``NEVER`` waits without a limit, 0 only looks. Returns early, without events, when a signal arrives."},
        {"poll", turns_poll_method, METH_NOARGS,
         "poll()\n--\n\n"
         "A turn that never waits, of a reactor that is embedded in another loop. True: sinks were called, and it is to\n"
         "be called again when what they set off has run; False: nothing more until the descriptor says so."},
        {"_bind", turns_bind, METH_VARARGS, "The addresses of a ``struct reactor`` and of its ``struct turn_ops``."},
        {"_unbind", turns_unbind, METH_NOARGS, "The reactor is about to be freed."},
        {NULL},
    };
    static const PyMemberDef members[] = {
        {"turning", T_BOOL, offsetof(struct turns, turning), READONLY, "Whether a turn is under way: a sink asks."},
        {"sinks", T_OBJECT_EX, offsetof(struct turns, sinks), READONLY, "Who is called, by token."},
        {NULL},
    };
    static const PyType_Slot slots[] = {
        {Py_tp_new, turns_new},           {Py_tp_dealloc, turns_dealloc},     {Py_tp_traverse, turns_traverse},
        {Py_tp_clear, turns_clear},       {Py_tp_methods, (void *)methods},   {Py_tp_members, (void *)members},
        {0},
    };
    PyType_Spec spec = {
        .name = "libos._loop.Turns",
        .basicsize = sizeof(struct turns),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
        .slots = (PyType_Slot *)slots,
    };
    st->turns = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return st->turns ? 0 : -1;
}
