// SPDX-License-Identifier: PSF-2.0
/* Descriptors that forked children do not keep (Lib/cmultiprocessing/_leash.py). In C, so that every
 * fork obeys, and because each Python function that runs after a fork costs pages. */
#include "py/state.h" // exec step

#include "py/errors.h" // mp_raise

#include "os/os.h" // private descriptors

#include <limits.h> // INT_MAX

/* A descriptor's number, or -1 with an exception set. */
static int parse_number(PyObject *number)
{
    long file = PyLong_AsLong(number);
    if (file >= -1 && file <= INT_MAX)
        return (int)file;
    PyErr_Format(PyExc_OverflowError, "%R is no descriptor", number);
    return -1;
}

PyDoc_STRVAR(pipe_doc, "private_pipe()\n--\n\n"
                       "A pipe, both ends close-on-exec, whose write end forked children close.\n\n"
                       "Returns:\n    (read end, write end).\n\n"
                       "Raises:\n    OSError: no descriptor is left.\n");

static PyObject *private_pipe(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    int ends[2];
    mp_status status = mp_private_pipe(ends);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "a pipe to a child process");
    return Py_BuildValue("(ii)", ends[0], ends[1]);
}

PyDoc_STRVAR(keep_doc, "private_keep(fd)\n--\n\n"
                       "Have forked children close `fd`.\n");

static PyObject *private_keep(PyObject *module, PyObject *number)
{
    int file = parse_number(number);
    if (file == -1 && PyErr_Occurred())
        return NULL;
    mp_status status = mp_private_keep(file);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "private_keep()");
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    close_doc,
    "private_close(fd)\n--\n\n"
    "Close `fd`, unless it is none of those that forked children close, or was closed by a fork.\n");

static PyObject *private_close(PyObject *Py_UNUSED(module), PyObject *number)
{
    int file = parse_number(number);
    if (file == -1 && PyErr_Occurred())
        return NULL;
    mp_private_close(file);
    Py_RETURN_NONE;
}

static PyMethodDef descriptor_functions[] = {
    {"private_pipe", private_pipe, METH_NOARGS, pipe_doc},
    {"private_keep", private_keep, METH_O, keep_doc},
    {"private_close", private_close, METH_O, close_doc},
    {NULL, NULL, 0, NULL},
};

int mp_descriptors_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, descriptor_functions);
}
