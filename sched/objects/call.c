/* The arguments of a call, for methods that take a few by position or by name, and then any number for a callback.
 *
 * Errors are in Python's words for the methods of asyncio's. */
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
                         at == count ? "BaseEventLoop.%s() got an unexpected keyword argument '%U'"
                                     : "BaseEventLoop.%s() got multiple values for argument '%U'",
                         method, keyword);
            return -1;
        }
        call->named[at] = value;
    }
    if (nargs >= count)
        return 0;
    const char *missing[2];
    int n = 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        if (at < nargs)
            call->named[at] = args[at];
        if (!call->named[at])
            missing[n++] = names[at];
    }
    if (n == 1)
        PyErr_Format(PyExc_TypeError, "BaseEventLoop.%s() missing 1 required positional argument: '%s'", method,
                     missing[0]);
    if (n == 2)
        PyErr_Format(PyExc_TypeError, "BaseEventLoop.%s() missing 2 required positional arguments: '%s' and '%s'",
                     method, missing[0], missing[1]);
    if (n > 0)
        return -1;
    call->args = call->named;
    call->nargs = count;
    return 0;
}
