// SPDX-License-Identifier: PSF-2.0
/* Making ctypes objects in shared memory. The types and functions of this part of the module come
 * into being when cmultiprocessing.heap or .sharedctypes is imported: most programs need none. */
#include "py/block.h"        // the memory
#include "py/state.h"        // exec step
#include "py/synchronized.h" // the types

/* What to know of a ctypes type to make an object of it: (size, type.from_buffer). Kept for the types
 * of the type codes and whatever else Python found worth keeping. A new reference. */
static PyObject *entry_of(mp_state *state, PyObject *type)
{
    PyObject *entry = NULL;
    if (PyType_Check(type)) // whatever else it is has perhaps no hash
        entry = PyDict_GetItemWithError(state->ctypes_entries, type);
    if (entry != NULL)
        return Py_NewRef(entry);
    return PyErr_Occurred() ? NULL : PyObject_CallOneArg(state->describe_ctype, type);
}

/* A zeroed object of a ctypes type in shared memory; __init__() is not called. */
static PyObject *make_object(mp_state *state, PyObject *type)
{
    PyObject *entry = entry_of(state, type);
    if (entry == NULL)
        return NULL;
    Py_ssize_t size;
    PyObject *from_buffer;
    PyObject *block = NULL, *object = NULL;
    if (PyArg_ParseTuple(entry, "nO", &size, &from_buffer))
        block = mp_block_object_new(state, size);
    if (block != NULL)
        object = PyObject_CallOneArg(from_buffer, block); // it holds the block from now on
    Py_XDECREF(block);
    Py_DECREF(entry);
    return object;
}

/* object.__init__(*args). */
static int initialize(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *tuple = PyTuple_New(nargs);
    if (tuple == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < nargs; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    int status = Py_TYPE(object)->tp_init(object, tuple, NULL);
    Py_DECREF(tuple);
    return status;
}

PyDoc_STRVAR(
    raw_value_doc,
    "raw_value(typecode_or_type, /, *args)\n--\n\n"
    "A ctypes object in shared memory, of a type or the type of a type code; `args` for it.");

static PyObject *raw_value(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    mp_state *state = mp_state_get(module);
    if (nargs < 1) {
        PyErr_SetString(PyExc_TypeError, "RawValue() needs a type code or a ctypes type");
        return NULL;
    }
    PyObject *type = NULL;
    if (PyUnicode_Check(args[0])) {
        type = PyDict_GetItemWithError(state->typecodes, args[0]);
        if (type == NULL && PyErr_Occurred())
            return NULL;
    }
    PyObject *object = make_object(state, type == NULL ? args[0] : type);
    if (object != NULL && initialize(object, args + 1, nargs - 1) < 0)
        Py_CLEAR(object);
    return object;
}

PyDoc_STRVAR(new_value_doc,
             "new_value(type, /)\n--\n\n"
             "A zeroed ctypes object in shared memory; its __init__() is not called.");

static PyObject *new_value(PyObject *module, PyObject *type)
{
    return make_object(mp_state_get(module), type);
}

static PyMethodDef making[] = {
    {"raw_value", (PyCFunction)(void (*)(void))raw_value, METH_FASTCALL, raw_value_doc},
    {"new_value", new_value, METH_O, new_value_doc},
};

PyDoc_STRVAR(load_block_doc, "load_block_type()\n--\n\n"
                             "The type that cmultiprocessing.heap calls BufferWrapper.");

static PyObject *load_block_type(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (mp_block_load(module) < 0)
        return NULL;
    return Py_NewRef((PyObject *)mp_state_get(module)->block_type);
}

static void keep(PyObject **field, PyObject *value)
{
    Py_XSETREF(*field, Py_NewRef(value));
}

PyDoc_STRVAR(
    load_doc,
    "load_sharedctypes(typecodes, entries, describe, cell_code, reduce)\n--\n\n"
    "Called once by cmultiprocessing.sharedctypes, which knows ctypes.\n\n"
    "Args:\n"
    "    typecodes: dict of type codes to types.\n"
    "    entries: dict of types to (size, type.from_buffer).\n"
    "    describe: called with any other type; gives its entry, or raises TypeError.\n"
    "    cell_code: called with the type of an object or array; gives (type code, size) of a number\n"
    "        that may be read behind ctypes' back, or ('', 0).\n"
    "    reduce: __reduce__() of synchronized objects.\n\n"
    "Returns:\n"
    "    (raw_value, new_value, SynchronizedBase, Synchronized, SynchronizedArray,\n"
    "    SynchronizedString)");

static PyObject *load_sharedctypes(PyObject *module, PyObject *args)
{
    PyObject *typecodes, *entries, *describe, *cell_code, *reduce;
    if (!PyArg_ParseTuple(args, "O!O!OOO:load_sharedctypes", &PyDict_Type, &typecodes, &PyDict_Type,
                          &entries, &describe, &cell_code, &reduce) ||
        mp_block_load(module) < 0 || mp_synchronized_load(module) < 0)
        return NULL;
    mp_state *state = mp_state_get(module);
    keep(&state->typecodes, typecodes);
    keep(&state->ctypes_entries, entries);
    keep(&state->describe_ctype, describe);
    keep(&state->cell_code, cell_code);
    keep(&state->reduce_synchronized, reduce);
    return Py_BuildValue("(NNOOOO)", PyCFunction_New(&making[0], module),
                         PyCFunction_New(&making[1], module), state->synchronized_base_type,
                         state->synchronized_type, state->synchronized_array_type,
                         state->synchronized_string_type);
}

static PyMethodDef functions[] = {
    {"load_block_type", load_block_type, METH_NOARGS, load_block_doc},
    {"load_sharedctypes", load_sharedctypes, METH_VARARGS, load_doc},
    {NULL, NULL, 0, NULL},
};

int mp_sharedctypes_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
