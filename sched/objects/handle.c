/* Handle and TimerHandle: a callback, its arguments, and the context that it is called in.
 *
 * They are asyncio's handles to whoever looks (isinstance, repr, ordering, debug mode: all of it is inherited), made
 * and run without a call into Python. A callback may have been cancelled while it waited: then its slots are None and
 * whoever comes to it passes by.
 *
 * Behind asyncio's part a TimerHandle keeps its place in the heap of its loop, so that cancelling takes it out at once:
 * a loop with many short time-outs, nearly all of them cancelled, holds none of what they would have called. */
#include "sched/objects/objects.h"

#define HANDLE_SLOTS 7 /* that asyncio's have, and that struct state names */
#define TIMER_HANDLE_SLOTS 2

size_t *timer_handle_place(struct state *st, PyObject *handle)
{
    return (size_t *)((char *)handle + st->timer_base);
}

static PyObject *none(void) { return Py_NewRef(Py_None); }

/* Fills in all but `when`. */
static int fill(struct state *st, PyObject *self, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                PyObject *loop, PyObject *context)
{
    PyObject *tuple = PyTuple_New(nargs);
    context = context && context != Py_None ? Py_NewRef(context) : PyContext_CopyCurrent();
    SLOT(self, st->at.args) = tuple;
    SLOT(self, st->at.context) = context;
    SLOT(self, st->at.callback) = Py_NewRef(callback);
    SLOT(self, st->at.loop) = Py_NewRef(loop);
    SLOT(self, st->at.cancelled) = Py_NewRef(Py_False);
    SLOT(self, st->at.repr) = none();
    SLOT(self, st->at.source_traceback) = none();
    if (!tuple || !context)
        return -1;
    for (Py_ssize_t i = 0; i < nargs; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    return 0;
}

PyObject *handle_new(struct state *st, PyObject *callback, PyObject *const *args, Py_ssize_t nargs, PyObject *loop,
                     PyObject *context)
{
    PyObject *self = PyType_GenericAlloc(st->handle, 0);
    if (self && fill(st, self, callback, args, nargs, loop, context) < 0)
        Py_CLEAR(self);
    return self;
}

PyObject *timer_handle_new(struct state *st, PyObject *when, PyObject *callback, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *loop, PyObject *context)
{
    PyObject *self = PyType_GenericAlloc(st->timer_handle, 0);
    if (!self)
        return NULL;
    SLOT(self, st->at.when) = Py_NewRef(when);
    SLOT(self, st->at.scheduled) = Py_NewRef(Py_False);
    if (fill(st, self, callback, args, nargs, loop, context) < 0)
        Py_CLEAR(self);
    return self;
}

int handle_trace(struct state *st, PyObject *handle)
{
    /* The frame on top is of whoever called us: C has none. */
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    if (!frame)
        return 0;
    PyObject *stack = PyObject_CallOneArg(st->extract_stack, frame);
    if (!stack)
        return -1;
    slot_set(handle, st->at.source_traceback, stack);
    return 0;
}

/* --- running ----------------------------------------------------------------------------------------------------- */

int report(PyObject *object, PyObject *method, PyObject *what)
{
    if (PyErr_ExceptionMatches(PyExc_SystemExit) || PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
        return -1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    PyObject *before = PyErr_GetHandledException();
    PyErr_SetHandledException(value);
    PyObject *done = what ? PyObject_CallMethodObjArgs(object, method, what, value, NULL)
                          : PyObject_CallMethodOneArg(object, method, value);
    PyErr_SetHandledException(before);
    Py_XDECREF(before);
    Py_DECREF(value);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

int handle_run(struct state *st, PyObject *loop, PyObject *handle)
{
    PyTypeObject *type = Py_TYPE(handle);
    if (type != st->handle && type != st->timer_handle && type != st->asyncio_handle &&
        type != st->asyncio_timer_handle) { /* somebody's own: it may run in another way */
        PyObject *done = PyObject_CallMethodNoArgs(handle, st->names._run);
        Py_XDECREF(done);
        return done ? 0 : -1;
    }
    /* The callback may cancel its own handle. */
    PyObject *callback = Py_XNewRef(SLOT(handle, st->at.callback));
    PyObject *args = Py_XNewRef(SLOT(handle, st->at.args));
    PyObject *context = Py_XNewRef(SLOT(handle, st->at.context));
    PyObject *result = NULL;
    if (!callback || !context || !args || !PyTuple_Check(args)) {
        PyErr_SetString(PyExc_TypeError, "a handle without a callback, arguments or context");
    } else if (PyContext_Enter(context) == 0) {
        result = PyObject_Vectorcall(callback, &PyTuple_GET_ITEM(args, 0), (size_t)PyTuple_GET_SIZE(args), NULL);
        if (PyContext_Exit(context) < 0)
            Py_CLEAR(result);
    }
    Py_XDECREF(callback);
    Py_XDECREF(args);
    Py_XDECREF(context);
    if (!result)
        return report(loop, st->names._callback_failed, handle);
    Py_DECREF(result);
    return 0;
}

/* --- the types --------------------------------------------------------------------------------------------------- */

static PyObject *cancel(struct state *st, PyObject *self)
{
    PyObject *loop = SLOT(self, st->at.loop);
    if (loop && PyObject_TypeCheck(loop, st->scheduler)) {
        if (Py_TYPE(self) == st->timer_handle)
            scheduler_timer_cancelled(st, loop, self);
        if (!scheduler_debug(st, loop)) {
            slot_set(self, st->at.cancelled, Py_NewRef(Py_True));
            slot_set(self, st->at.callback, none());
            slot_set(self, st->at.args, none());
            Py_RETURN_NONE;
        }
    }
    /* In debug mode asyncio's keeps a text of what it was. */
    return PyObject_CallMethodOneArg((PyObject *)st->asyncio_handle, st->names.cancel, self);
}

static PyObject *handle_cancel(PyObject *self, PyObject *unused)
{
    struct state *st = PyType_GetModuleState(Py_TYPE(self));
    if (!st) /* the collector has taken the class apart */
        return NULL;
    if (handle_cancelled(st, self))
        Py_RETURN_NONE;
    return cancel(st, self);
}

/* The collector may have taken the class apart before it gets here, and the module's state with it. So these know no
 * names: from the head to the end of asyncio's part, all is slots, but for the list of weak references
 * (handle_types() sees to it that this is so). */
static inline Py_ssize_t next_slot(PyTypeObject *type, Py_ssize_t offset)
{
    do
        offset += (Py_ssize_t)sizeof(PyObject *);
    while (offset == type->tp_weaklistoffset);
    return offset;
}
#define FOR_SLOTS(type, offset)                                                                                        \
    for (Py_ssize_t offset = next_slot(type, sizeof(PyObject) - sizeof(PyObject *));                                   \
         offset < (type)->tp_base->tp_basicsize; offset = next_slot(type, offset))

static int handle_clear(PyObject *self)
{
    FOR_SLOTS (Py_TYPE(self), offset)
        Py_CLEAR(SLOT(self, offset));
    return 0;
}

static int handle_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    FOR_SLOTS (Py_TYPE(self), offset)
        Py_VISIT(SLOT(self, offset));
    return 0;
}

static void handle_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (SLOT(self, type->tp_weaklistoffset))
        PyObject_ClearWeakRefs(self);
    handle_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Whether all that `type` adds to its base is `slots` slots, and perhaps the list of weak references. */
static bool only_slots(PyTypeObject *type, Py_ssize_t slots)
{
    if (type->tp_weaklistoffset > 0 && !type->tp_base->tp_weaklistoffset) /* from 3.12 on it is before the head */
        slots++;
    return !type->tp_dictoffset && !type->tp_itemsize &&
           type->tp_basicsize == type->tp_base->tp_basicsize + slots * (Py_ssize_t)sizeof(PyObject *);
}

int handle_types(struct state *st, PyObject *module)
{
    if (st->asyncio_handle->tp_base != &PyBaseObject_Type || st->asyncio_timer_handle->tp_base != st->asyncio_handle ||
        !only_slots(st->asyncio_handle, HANDLE_SLOTS) || !only_slots(st->asyncio_timer_handle, TIMER_HANDLE_SLOTS)) {
        PyErr_SetString(PyExc_ImportError, "asyncio's handles are not what this version of libos knows");
        return -1;
    }
    static const PyMethodDef methods[] = {
        {"cancel", handle_cancel, METH_NOARGS, "Do not call the callback any more."},
        {NULL},
    };
    static const PyType_Slot slots[] = {
        {Py_tp_dealloc, handle_dealloc},
        {Py_tp_traverse, handle_traverse},
        {Py_tp_clear, handle_clear},
        {Py_tp_methods, (void *)methods},
        {0},
    };
    PyType_Spec spec = {
        .name = "libos._loop.Handle",
        .basicsize = (int)st->asyncio_handle->tp_basicsize,
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
        .slots = (PyType_Slot *)slots,
    };
    st->handle = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, (PyObject *)st->asyncio_handle);
    spec.name = "libos._loop.TimerHandle";
    st->timer_base = st->asyncio_timer_handle->tp_basicsize;
    spec.basicsize = (int)(st->timer_base + sizeof(size_t));
    st->timer_handle = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, (PyObject *)st->asyncio_timer_handle);
    return st->handle && st->timer_handle ? 0 : -1;
}
