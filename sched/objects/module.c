/* The module libos._loop: finds asyncio's classes, reads where their slots are, makes the types.
 *
 * The module definition is the one static that is not constant: Python keeps its own notes in it. */
#include "sched/objects/objects.h"

static struct PyModuleDef module_definition;

struct state *state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &module_definition);
    return module ? PyModule_GetState(module) : NULL;
}

static PyTypeObject *find_class(PyObject *module, const char *name)
{
    PyObject *class = PyObject_GetAttrString(module, name);
    if (class && !PyType_Check(class)) {
        PyErr_Format(PyExc_ImportError, "asyncio's %s is not a class", name);
        Py_CLEAR(class);
    }
    return (PyTypeObject *)class;
}

/* Where instances of `type` keep what its __slots__ call `name`. */
static int find_slot(PyTypeObject *type, const char *name, Py_ssize_t *offset)
{
    PyObject *slot = PyObject_GetAttrString((PyObject *)type, name);
    if (!slot)
        return -1;
    int rc = -1;
    if (Py_IS_TYPE(slot, &PyMemberDescr_Type) && ((PyMemberDescrObject *)slot)->d_member->type == T_OBJECT_EX) {
        *offset = ((PyMemberDescrObject *)slot)->d_member->offset;
        rc = 0;
    } else {
        PyErr_Format(PyExc_ImportError, "asyncio's %s.%s is not a slot: this version of Python is not known to libos",
                     type->tp_name, name);
    }
    Py_DECREF(slot);
    return rc;
}

static int find_asyncio(struct state *st)
{
    PyObject *events = PyImport_ImportModule("asyncio.events");
    PyObject *helpers = PyImport_ImportModule("asyncio.format_helpers");
    PyObject *transports = PyImport_ImportModule("asyncio.transports");
    int rc = -1;
    if (events && helpers && transports && (st->asyncio_handle = find_class(events, "Handle")) &&
        (st->asyncio_timer_handle = find_class(events, "TimerHandle")) &&
        (st->transport = find_class(transports, "_FlowControlMixin")) &&
        (st->extract_stack = PyObject_GetAttrString(helpers, "extract_stack")))
        rc = 0;
    Py_XDECREF(events);
    Py_XDECREF(helpers);
    Py_XDECREF(transports);
    if (rc < 0)
        return rc;

    static const char *const transport_slots[TRANSPORT_SLOTS] = {"_extra", "_loop", "_protocol_paused", "_high_water",
                                                                 "_low_water"};
    for (int i = 0; i < TRANSPORT_SLOTS; i++)
        if (find_slot(st->transport, transport_slots[i], &st->transport_at[i]) < 0)
            return -1;
    PyTypeObject *handle = st->asyncio_handle, *timer = st->asyncio_timer_handle;
    return find_slot(handle, "_callback", &st->at.callback) < 0 || find_slot(handle, "_args", &st->at.args) < 0 ||
                   find_slot(handle, "_cancelled", &st->at.cancelled) < 0 ||
                   find_slot(handle, "_loop", &st->at.loop) < 0 ||
                   find_slot(handle, "_context", &st->at.context) < 0 ||
                   find_slot(handle, "_repr", &st->at.repr) < 0 ||
                   find_slot(handle, "_source_traceback", &st->at.source_traceback) < 0 ||
                   find_slot(timer, "_scheduled", &st->at.scheduled) < 0 || find_slot(timer, "_when", &st->at.when) < 0
               ? -1
               : 0;
}

static int module_exec(PyObject *module)
{
    struct state *st = PyModule_GetState(module);
    st->module = module;
#define X(name)                                                                                                       \
    if (!(st->names.name = PyUnicode_InternFromString(#name)))                                                        \
        return -1;
    NAMES(X)
#undef X
    if (find_asyncio(st) < 0 || handle_types(st, module) < 0 || turns_type(st, module) < 0 ||
        scheduler_type(st, module) < 0 || stream_type(st, module) < 0)
        return -1;
    PyTypeObject *types[] = {st->handle, st->timer_handle, st->turns, st->scheduler, st->stream};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(module, types[i]) < 0)
            return -1;
    return 0;
}

/* The objects that the state refers to, one after the other; NULL at the end. */
static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *st = PyModule_GetState(module);
    Py_VISIT(st->handle);
    Py_VISIT(st->timer_handle);
    Py_VISIT(st->turns);
    Py_VISIT(st->scheduler);
    Py_VISIT(st->stream);
    Py_VISIT(st->asyncio_handle);
    Py_VISIT(st->asyncio_timer_handle);
    Py_VISIT(st->transport);
    Py_VISIT(st->extract_stack);
    return 0;
}

/* Only when the module itself goes: its objects, which keep it alive, need the state to the last. */
static void module_free(void *module)
{
    struct state *st = PyModule_GetState(module);
    if (!st)
        return;
    Py_CLEAR(st->handle);
    Py_CLEAR(st->timer_handle);
    Py_CLEAR(st->turns);
    Py_CLEAR(st->scheduler);
    Py_CLEAR(st->stream);
    Py_CLEAR(st->asyncio_handle);
    Py_CLEAR(st->asyncio_timer_handle);
    Py_CLEAR(st->transport);
    Py_CLEAR(st->extract_stack);
#define X(name) Py_CLEAR(st->names.name);
    NAMES(X)
#undef X
}

static const PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "libos._loop",
    .m_doc = "The scheduler's half in C that holds Python objects: see sched/objects/objects.h.",
    .m_size = sizeof(struct state),
    .m_slots = (PyModuleDef_Slot *)module_slots,
    .m_traverse = module_traverse,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__loop(void) { return PyModuleDef_Init(&module_definition); }
