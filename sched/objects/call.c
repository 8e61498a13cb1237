/* The arguments of a call, for methods that take a few by position or by name, and then any number for a callback. */
#include "sched/objects/objects.h"

int read_call(const char *method, const char *const *names, Py_ssize_t count, PyObject *const *args, Py_ssize_t nargs,
              PyObject *keywords, struct call *call)
{
    *call = (struct call){.args = args, .nargs = nargs};
    for (Py_ssize_t i = 0; keywords && i < PyTuple_GET_SIZE(keywords); i++) {
        PyObject *keyword = PyTuple_GET_ITEM(keywords, i), *value = args[nargs + i];
        Py_ssize_t at = 0;
        if (PyUnicode_CompareWithASCIIString(keyword, "context") == 0) {
            call->context = value;
            continue;
        }
        while (at < count && PyUnicode_CompareWithASCIIString(keyword, names[at]) != 0)
            at++;
        if (at == count || at < nargs) {
            PyErr_Format(PyExc_TypeError,
                         at == count ? "%s() got an unexpected keyword argument '%U'"
                                     : "%s() got multiple values for argument '%U'",
                         method, keyword);
            return -1;
        }
        call->named[at] = value;
    }
    if (nargs >= count)
        return 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        if (at < nargs)
            call->named[at] = args[at];
        if (!call->named[at]) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", method, names[at]);
            return -1;
        }
    }
    call->args = call->named;
    call->nargs = count;
    return 0;
}
