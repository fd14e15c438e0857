// SPDX-License-Identifier: PSF-2.0
/* Timeouts, flags and sizes from Python objects; arguments of vectorcall functions by name. */
#ifndef MP_PY_ARGUMENTS_H
#define MP_PY_ARGUMENTS_H

#include <Python.h> // PyObject

#include "os/os.h" // mp_time

/* The deadline of a call that must not wait at all. */
#define MP_NO_WAIT ((mp_time)0)

/* The deadline for `timeout` in seconds. NULL, None, infinity and what is too far away: MP_FOREVER.
 * Zero and negative: MP_NO_WAIT. Returns 0, or -1 with TypeError, or ValueError for NaN. */
int mp_deadline_parse(PyObject *timeout, mp_time *deadline);

/* The same with a flag in front, as acquire(block, timeout) and get(block, timeout) have it: a false
 * `block` makes it MP_NO_WAIT (the timeout is not looked at then). NULL: the default, true. */
int mp_block_parse(PyObject *block, PyObject *timeout, mp_time *deadline);

/* A function's name and parameters, e.g. {"acquire", {"block", "timeout"}, 2, 0, 2}. */
#define MP_PARAMETERS_MAX 6
typedef struct mp_signature {
    const char *function;
    const char *names[MP_PARAMETERS_MAX];
    int count;      // how many names
    int required;   // how many must be given
    int positional; // how many may be given by position
} mp_signature;

/* Sort the arguments of a METH_FASTCALL | METH_KEYWORDS (or vectorcall) function into `values`, in
 * the order of the names: borrowed references, NULL where not given.
 * Returns 0, or -1 with TypeError. */
int mp_arguments_sort(const mp_signature *signature, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames, PyObject **values);

/* The one argument of a METH_FASTCALL | METH_KEYWORDS function, which may be named `obj`: borrowed,
 * or NULL with TypeError. */
PyObject *mp_arguments_object(const char *function, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);

/* mp_arguments_sort() for functions that get a tuple and a dict (tp_init). */
int mp_arguments_sort_dict(const mp_signature *signature, PyObject *args, PyObject *kwargs,
                           PyObject **values);

/* An integer in [least, most]. Returns 0, or -1 with TypeError (not an integer), or ValueError whose
 * text names `name` and the bounds. */
int mp_integer_parse(PyObject *value, const char *name, int64_t least, int64_t most,
                     int64_t *result);

#endif
