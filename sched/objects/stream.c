/* Stream: what a transport does for every piece of data.
 *
 * It is the base of sched/stream.py's StreamTransport, and one of asyncio's transports itself. When its socket has data,
 * one bytes object is made, of the right size, filled by the socket, and handed to data_received() (or the protocol's
 * own buffer is filled); what write() is given goes into the socket by one call. Ends, errors, and whatever the socket
 * does not take at once, are the Python class's.
 *
 * Ownership: the socket is its owner's; a Stream has its address between _bind() and _unbind(). Calls of the
 * protocol run in `_context`, where reading began. */
#include "sched/objects/objects.h"

#define PIECE_MAX (256 * 1024) /* of one data_received() */

/* Behind asyncio's part of the object. */
struct stream {
    struct state *st;
    const struct stream_ops *ops; /* NULL: not bound */
    void *owner;
    int64_t id;
    unsigned want;          /* EV_*: what is to be looked at; an event may be older than the last change */
    bool direct;            /* write() may go straight to the socket */
    PyObject *protocol;
    PyObject *data_received; /* its method; None: it has buffers of its own */
    PyObject *context;
};

static inline struct stream *part(struct state *st, PyObject *object)
{
    return (struct stream *)((char *)object + st->stream_base);
}

static struct stream *of(PyObject *object) { return part(state_of_type(Py_TYPE(object)), object); }

static inline bool there(PyObject *member) { return member && member != Py_None; }

/* --- reading ----------------------------------------------------------------------------------------------------- */

/* Bytes that the protocol got; 0 and -errno as recv(). -1 in *failed: the protocol raised. */
static int64_t feed_bytes(struct stream *s, bool *failed)
{
    int64_t n = s->ops->readable(s->owner, s->id);
    if (n <= 0)
        return n;
    PyObject *data = PyBytes_FromStringAndSize(NULL, n < PIECE_MAX ? n : PIECE_MAX);
    if (!data) {
        *failed = true;
        return 1;
    }
    n = s->ops->recv(s->owner, s->id, (uint8_t *)PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
    if (n > 0 && n < PyBytes_GET_SIZE(data) && _PyBytes_Resize(&data, n) < 0) {
        *failed = true;
        return 1;
    }
    if (n > 0) {
        PyObject *method = Py_NewRef(s->data_received); /* it may set another protocol */
        PyObject *done = PyObject_CallOneArg(method, data);
        Py_DECREF(method);
        *failed = !done;
        Py_XDECREF(done);
    }
    Py_DECREF(data);
    return n;
}

static int64_t feed_buffer(struct stream *s, bool *failed)
{
    struct state *st = s->st;
    PyObject *protocol = Py_NewRef(s->protocol), *hint = PyLong_FromLong(-1), *done = NULL;
    PyObject *buffer = hint ? PyObject_CallMethodOneArg(protocol, st->names.get_buffer, hint) : NULL;
    int64_t n = 1;
    Py_buffer view;
    *failed = true;
    if (buffer && PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) == 0) {
        if (view.len == 0) {
            PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        } else if (!s->ops) { /* closed by get_buffer() */
            n = -EAGAIN;
            *failed = false;
        } else {
            n = s->ops->recv(s->owner, s->id, view.buf, (size_t)view.len);
            *failed = false;
        }
        PyBuffer_Release(&view);
        if (!*failed && n > 0) {
            PyObject *count = PyLong_FromLongLong(n);
            done = count ? PyObject_CallMethodOneArg(protocol, st->names.buffer_updated, count) : NULL;
            Py_XDECREF(count);
            *failed = !done;
        }
    }
    Py_XDECREF(done);
    Py_XDECREF(buffer);
    Py_XDECREF(hint);
    Py_DECREF(protocol);
    return n;
}

/* Calls a method of the Python class. */
static int tell(PyObject *object, PyObject *method, long long number)
{
    PyObject *value = PyLong_FromLongLong(number);
    PyObject *done = value ? PyObject_CallMethodOneArg(object, method, value) : NULL;
    Py_XDECREF(value);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int failed_protocol(struct state *st, PyObject *object)
{
    PyObject *error = take_reportable();
    if (!error)
        return -1;
    PyObject *done = PyObject_CallMethodOneArg(object, st->names._protocol_failed, error);
    Py_DECREF(error);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int read_some(struct state *st, PyObject *object)
{
    struct stream *s = part(st, object);
    PyObject *context = Py_XNewRef(s->context);
    if (!there(context) || PyContext_Enter(context) < 0) {
        int rc = there(context) ? -1 : 0;
        Py_XDECREF(context);
        return rc;
    }
    bool failed = false;
    int64_t n = there(s->data_received) ? feed_bytes(s, &failed)
                : there(s->protocol)    ? feed_buffer(s, &failed)
                                        : -EAGAIN;
    int rc = PyContext_Exit(context);
    Py_DECREF(context);
    if (rc < 0)
        return -1;
    if (failed)
        return failed_protocol(st, object);
    return n > 0 || n == -EAGAIN ? 0 : tell(object, st->names._read_nothing, n);
}

int stream_ready(struct state *st, PyObject *object, unsigned mask)
{
    struct stream *s = part(st, object);
    mask &= s->want;
    if (mask & EV_READ && s->ops) {
        if (read_some(st, object) < 0)
            return -1;
        /* Reading on comes to an error after what arrived before it. */
        mask &= s->want & ~(unsigned)(EV_READ | EV_ERROR);
    }
    return mask ? tell(object, st->names._ready_rarely, mask) : 0;
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

static PyObject *write_rest(struct stream *s, PyObject *object, PyObject *data, int64_t taken)
{
    PyObject *count = PyLong_FromLongLong(taken);
    PyObject *done =
        count ? PyObject_CallMethodObjArgs(object, s->st->names._write_rest, data, count, NULL) : NULL;
    Py_XDECREF(count);
    return done;
}

static PyObject *stream_write(PyObject *object, PyObject *data)
{
    struct stream *s = of(object);
    int64_t taken = 0;
    if (s->direct && s->ops) {
        Py_buffer view;
        if (PyBytes_CheckExact(data)) {
            if ((size_t)PyBytes_GET_SIZE(data) >= s->ops->lend_from)
                return write_rest(s, object, data, 0);
            taken = s->ops->send(s->owner, s->id, (const uint8_t *)PyBytes_AS_STRING(data),
                                 (size_t)PyBytes_GET_SIZE(data));
            if (taken == PyBytes_GET_SIZE(data))
                Py_RETURN_NONE;
        } else if ((PyByteArray_Check(data) || PyMemoryView_Check(data)) &&
                   PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) == 0) {
            taken = s->ops->send(s->owner, s->id, view.buf, (size_t)view.len);
            bool all = taken == view.len;
            PyBuffer_Release(&view);
            if (all)
                Py_RETURN_NONE;
        } else {
            PyErr_Clear(); /* not bytes-like, or in pieces: for Python to see to */
        }
    }
    return write_rest(s, object, data, taken);
}

/* --- the type ---------------------------------------------------------------------------------------------------- */

static PyObject *stream_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct state *st = state_of_type(type);
    PyObject *object = st ? type->tp_alloc(type, 0) : NULL;
    if (object) {
        part(st, object)->st = st;
        Py_INCREF(st->module);
    }
    return object;
}

static PyObject *stream_bind(PyObject *object, PyObject *args)
{
    struct stream *s = of(object);
    unsigned long long ops, owner;
    long long id;
    if (!PyArg_ParseTuple(args, "KKL:_bind", &ops, &owner, &id))
        return NULL;
    s->ops = (const struct stream_ops *)(uintptr_t)ops;
    s->owner = (void *)(uintptr_t)owner;
    s->id = id;
    Py_RETURN_NONE;
}

static PyObject *stream_unbind(PyObject *object, PyObject *unused)
{
    struct stream *s = of(object);
    s->ops = NULL;
    s->owner = NULL;
    s->want = 0;
    s->direct = false;
    Py_RETURN_NONE;
}

static PyObject *stream_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    unsigned mask;
    if (!PyArg_ParseTuple(args, "I:__call__", &mask) || stream_ready(state_of_type(Py_TYPE(object)), object, mask) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void stream_dealloc(PyObject *object);

/* For the collector, which may have taken the class apart before. */
static struct stream *part_to_the_last(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    while (type->tp_dealloc != stream_dealloc)
        type = type->tp_base;
    return (struct stream *)((char *)object + type->tp_base->tp_basicsize);
}

/* asyncio's own functions for these start from the object's class again and would come back here: so its slots are ours
 * to see to. */
static int stream_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct stream *s = part_to_the_last(object);
    Py_VISIT(Py_TYPE(object));
    for (int i = 0; s->st && i < TRANSPORT_SLOTS; i++)
        Py_VISIT(SLOT(object, s->st->transport_at[i]));
    Py_VISIT(s->protocol);
    Py_VISIT(s->data_received);
    Py_VISIT(s->context);
    return 0;
}

static int stream_clear(PyObject *object)
{
    struct stream *s = part_to_the_last(object);
    for (int i = 0; i < TRANSPORT_SLOTS; i++)
        Py_CLEAR(SLOT(object, s->st->transport_at[i]));
    Py_CLEAR(s->protocol);
    Py_CLEAR(s->data_received);
    Py_CLEAR(s->context);
    return 0;
}

static void stream_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    stream_clear(object);
    PyObject *module = part_to_the_last(object)->st->module;
    type->tp_free(object);
    Py_DECREF(type);
    Py_DECREF(module);
}

int stream_type(struct state *st, PyObject *module)
{
    static const PyMethodDef methods[] = {
        {"write", stream_write, METH_O, "As asyncio.WriteTransport.write."},
        {"_bind", stream_bind, METH_VARARGS, "The addresses of a ``struct stream_ops`` and its owner, and the id."},
        {"_unbind", stream_unbind, METH_NOARGS, "The socket must not be touched again."},
        {NULL},
    };
    st->stream_base = st->transport->tp_basicsize;
#define PART(type, name, field) {name, type, st->stream_base + (Py_ssize_t)offsetof(struct stream, field), 0, NULL}
    PyMemberDef members[] = {
        PART(T_UINT, "_want", want),
        PART(T_BOOL, "_direct", direct),
        PART(T_OBJECT, "_protocol", protocol),
        PART(T_OBJECT, "_data_received", data_received),
        PART(T_OBJECT, "_context", context),
        {NULL},
    };
#undef PART
    PyType_Slot slots[] = {
        {Py_tp_new, stream_new},           {Py_tp_dealloc, stream_dealloc},   {Py_tp_traverse, stream_traverse},
        {Py_tp_clear, stream_clear},       {Py_tp_call, stream_call},         {Py_tp_methods, (void *)methods},
        {Py_tp_members, members},          {0},
    };
    PyType_Spec spec = {
        .name = "libos._loop.Stream",
        .basicsize = (int)(st->stream_base + sizeof(struct stream)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
        .slots = slots,
    };
    st->stream = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, (PyObject *)st->transport);
    return st->stream ? 0 : -1;
}
