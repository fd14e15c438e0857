// SPDX-License-Identifier: PSF-2.0
#include "py/arguments.h"

#include <math.h>   // isnan
#include <string.h> // memset

int mp_deadline_parse(PyObject *timeout, mp_time *deadline)
{
    if (timeout == NULL || timeout == Py_None) {
        *deadline = MP_FOREVER;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        // An integer beyond the range of a float is only a very long or a negative time.
        if (!PyErr_ExceptionMatches(PyExc_OverflowError) || !PyLong_Check(timeout))
            return -1;
        PyErr_Clear();
        int overflow;
        (void)PyLong_AsLongLongAndOverflow(timeout, &overflow);
        seconds = overflow < 0 ? -1.0 : (double)INFINITY;
    }
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout must not be NaN");
        return -1;
    }
    if (seconds <= 0.0) {
        *deadline = MP_NO_WAIT;
        return 0;
    }
    mp_time now = mp_clock_now();
    double nanoseconds = ceil(seconds * 1e9);
    // Half of the range: far beyond any clock, and the sum below cannot overflow.
    if (nanoseconds >= (double)(INT64_MAX / 2) || now >= INT64_MAX / 2)
        *deadline = MP_FOREVER;
    else
        *deadline = now + (mp_time)nanoseconds;
    return 0;
}

int mp_block_parse(PyObject *block, PyObject *timeout, mp_time *deadline)
{
    if (block != NULL && block != Py_True) {
        int truth = PyObject_IsTrue(block);
        if (truth < 0)
            return -1;
        if (truth == 0) {
            *deadline = MP_NO_WAIT;
            return 0;
        }
    }
    return mp_deadline_parse(timeout, deadline);
}

static int take_keyword(const mp_signature *signature, PyObject *name, PyObject *value,
                        PyObject **values)
{
    for (int i = 0; i < signature->count; i++) {
        if (!PyUnicode_Check(name) ||
            PyUnicode_CompareWithASCIIString(name, signature->names[i]) != 0)
            continue;
        if (values[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'",
                         signature->function, name);
            return -1;
        }
        values[i] = value;
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%S'",
                 signature->function, name);
    return -1;
}

static int take_positional(const mp_signature *signature, PyObject *const *args, Py_ssize_t nargs,
                           PyObject **values)
{
    assert(signature->count <= MP_PARAMETERS_MAX);
    if (nargs > signature->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments (%zd given)",
                     signature->function, signature->positional, nargs);
        return -1;
    }
    memset(values, 0, sizeof(*values) * (size_t)signature->count);
    for (Py_ssize_t i = 0; i < nargs; i++)
        values[i] = args[i];
    return 0;
}

static int check_required(const mp_signature *signature, PyObject **values)
{
    for (int i = 0; i < signature->required; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'",
                         signature->function, signature->names[i]);
            return -1;
        }
    }
    return 0;
}

int mp_arguments_sort(const mp_signature *signature, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames, PyObject **values)
{
    if (take_positional(signature, args, nargs, values) < 0)
        return -1;
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < count; k++) {
        if (take_keyword(signature, PyTuple_GET_ITEM(kwnames, k), args[nargs + k], values) < 0)
            return -1;
    }
    return check_required(signature, values);
}

PyObject *mp_arguments_object(const char *function, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames)
{
    if (mp_likely(nargs == 1 && kwnames == NULL))
        return args[0];
    const mp_signature signature = {function, {"obj"}, 1, 1, 1};
    PyObject *object;
    return mp_arguments_sort(&signature, args, nargs, kwnames, &object) < 0 ? NULL : object;
}

int mp_arguments_sort_dict(const mp_signature *signature, PyObject *args, PyObject *kwargs,
                           PyObject **values)
{
    PyObject *const *items = &PyTuple_GET_ITEM(args, 0);
    if (take_positional(signature, items, PyTuple_GET_SIZE(args), values) < 0)
        return -1;
    PyObject *name, *value;
    Py_ssize_t position = 0;
    while (kwargs != NULL && PyDict_Next(kwargs, &position, &name, &value)) {
        if (take_keyword(signature, name, value, values) < 0)
            return -1;
    }
    return check_required(signature, values);
}

int mp_integer_parse(PyObject *value, const char *name, int64_t least, int64_t most,
                     int64_t *result)
{
    PyObject *index = PyNumber_Index(value);
    if (index == NULL)
        return -1;
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (number == -1 && !overflow && PyErr_Occurred())
        return -1;
    if (overflow || number < least || number > most) {
        PyErr_Format(PyExc_ValueError, "%s must be between %lld and %lld, not %R", name,
                     (long long)least, (long long)most, value);
        return -1;
    }
    *result = number;
    return 0;
}
