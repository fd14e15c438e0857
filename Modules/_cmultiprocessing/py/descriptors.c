// SPDX-License-Identifier: PSF-2.0
/* Descriptors that forked children do not keep (Lib/cmultiprocessing/_leash.py). In C, so that every
 * fork obeys, and because each Python function that runs after a fork costs pages. */
#include "py/state.h" // exec step

#include "py/errors.h" // mp_raise

#include "os/os.h" // private descriptors

#include <limits.h> // INT_MAX
#include <unistd.h> // close

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

/* ---- OwnedDescriptor ---- */

PyDoc_STRVAR(owned_doc,
             "OwnedDescriptor(fd)\n--\n\n"
             "A descriptor that is closed together with its owner; calling it closes it before.");

typedef struct {
    PyObject_HEAD int file; // -1: closed
} owned_descriptor;

static void close_owned(PyObject *self)
{
    owned_descriptor *owned = (owned_descriptor *)self;
    int file = owned->file;
    owned->file = -1; // before: close() may be interrupted, and is not to be repeated
    if (file >= 0)
        close(file);
}

static PyObject *owned_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    int file;
    static char *names[] = {"fd", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i:OwnedDescriptor", names, &file))
        return NULL;
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL)
        ((owned_descriptor *)self)->file = file;
    return self;
}

static PyObject *owned_call(PyObject *self, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    close_owned(self);
    Py_RETURN_NONE;
}

/* In another process the number is another file, and this type would close it. */
static PyObject *owned_reduce(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(PyExc_TypeError, "cannot pickle a started process: its descriptors are those "
                                     "of the process that started it");
    return NULL;
}

static void owned_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    close_owned(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef owned_methods[] = {
    {"__reduce__", owned_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot owned_slots[] = {
    {Py_tp_doc, (void *)owned_doc}, {Py_tp_new, owned_new},         {Py_tp_call, owned_call},
    {Py_tp_dealloc, owned_dealloc}, {Py_tp_methods, owned_methods}, {0, NULL},
};

static PyType_Spec owned_spec = {
    .name = "cmultiprocessing.popen_fork.OwnedDescriptor",
    .basicsize = sizeof(owned_descriptor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = owned_slots,
};

static PyMethodDef descriptor_functions[] = {
    {"private_pipe", private_pipe, METH_NOARGS, pipe_doc},
    {"private_keep", private_keep, METH_O, keep_doc},
    {"private_close", private_close, METH_O, close_doc},
    {NULL, NULL, 0, NULL},
};

int mp_descriptors_exec(PyObject *module)
{
    mp_state *state = mp_state_get(module);
    if (mp_state_add_type(module, &state->owned_descriptor_type, &owned_spec) < 0)
        return -1;
    return PyModule_AddFunctions(module, descriptor_functions);
}
