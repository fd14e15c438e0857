// SPDX-License-Identifier: PSF-2.0
/* What the process layer (Lib/cmultiprocessing/popen_*.py, process.py) does with family memory. */
#define PY_SSIZE_T_CLEAN // "y#" takes a Py_ssize_t
#include "py/state.h"    // exec step

#include "py/arguments.h" // sizes
#include "py/errors.h"    // mp_raise

#include "shm/processes.h" // liveness
#include "shm/reclaim.h"   // collections

#include <string.h> // memcpy

PyDoc_STRVAR(
    start_doc,
    "family_start()\n--\n\n"
    "Make the memory that this process and its children share, if this process is in none.\n\n"
    "Raises:\n    OSError: no descriptor or no address space is left.\n");

static PyObject *family_start(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    mp_status status = mp_family_enter();
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "the memory shared with child processes");
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    reserve_doc,
    "family_reserve()\n--\n\n"
    "Claim a place for a child that does not inherit this process's memory.\n\n"
    "Returns:\n    (descriptor, ticket): hand the descriptor to the child, then close it;\n"
    "    the ticket (bytes) goes with the start data to family_join() in the child.\n\n"
    "Raises:\n    OSError: no descriptor or no place in the table of processes is left.\n");

static PyObject *family_reserve(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    int file;
    struct mp_ticket ticket;
    mp_status status = mp_family_reserve(&file, &ticket);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "a place for a child process");
    return Py_BuildValue("(iy#)", file, (const char *)&ticket, (Py_ssize_t)sizeof ticket);
}

PyDoc_STRVAR(
    join_doc,
    "family_join(descriptor, ticket)\n--\n\n"
    "Take the place that family_reserve() claimed in the parent; owns the descriptor.\n\n"
    "Raises:\n    ValueError: the ticket is damaged.\n"
    "    RuntimeError: it belongs to another family, or to another build of this package.\n");

static PyObject *family_join(PyObject *module, PyObject *args)
{
    int file;
    Py_buffer bytes;
    struct mp_ticket ticket;
    if (!PyArg_ParseTuple(args, "iy*:family_join", &file, &bytes))
        return NULL;
    bool fits = bytes.len == (Py_ssize_t)sizeof ticket;
    if (fits)
        memcpy(&ticket, bytes.buf, sizeof ticket);
    PyBuffer_Release(&bytes);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "family_join(): the ticket is damaged");
        return NULL;
    }
    mp_status status = mp_family_join(file, &ticket);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "the memory shared with the parent process");
    Py_RETURN_NONE;
}

PyDoc_STRVAR(collect_doc,
             "family_collect()\n--\n\n"
             "Give back now what nobody holds any more. Returns whether this process could do it:\n"
             "another one may be at it.\n");

static PyObject *family_collect(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    mp_status status = mp_family_enter();
    if (status == MP_OK)
        status = mp_reclaim_now();
    if (status != MP_OK && status != MP_WOULD_BLOCK)
        return mp_raise(mp_state_get(module), status, "family_collect()");
    return PyBool_FromLong(status == MP_OK);
}

PyDoc_STRVAR(statistics_doc,
             "family_statistics()\n--\n\n"
             "A dict of counters about the memory that this process shares, sizes in bytes; empty\n"
             "before there is any.\n");

static PyObject *family_statistics(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (mp_family.base == NULL)
        return PyDict_New();
    const struct mp_family_shm *family = mp_family_shm();
    unsigned long long used = mp_load_relaxed64(&family->used_units) * MP_UNIT;
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:I,s:i}", "size", (unsigned long long)family->size, "mapped",
        (unsigned long long)mp_family.mapped, "used", used, "warm",
        (unsigned long long)mp_load_relaxed64(&family->warm_bytes), "retired",
        (unsigned long long)mp_load_relaxed64(&family->retired), "collections",
        (unsigned long long)mp_load_relaxed64(&family->collections), "process_slots",
        (unsigned)mp_load_relaxed32(&family->slot_limit), "sleeper_slots",
        (unsigned)mp_load_relaxed32(&family->sleeper_limit), "descriptor", mp_family.file);
}

static PyMethodDef family_methods[] = {
    {"family_start", family_start, METH_NOARGS, start_doc},
    {"family_reserve", family_reserve, METH_NOARGS, reserve_doc},
    {"family_join", family_join, METH_VARARGS, join_doc},
    {"family_collect", family_collect, METH_NOARGS, collect_doc},
    {"family_statistics", family_statistics, METH_NOARGS, statistics_doc},
    {NULL, NULL, 0, NULL},
};

int mp_family_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, family_methods);
}
