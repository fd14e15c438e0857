// SPDX-License-Identifier: PSF-2.0
#include "py/pickling.h"

#include "core/base.h" // bool

/* ---- the mapping of reducers ---- */

typedef struct reducers {
    PyObject head;
    PyObject *first, *second;
} reducers;

static int reducers_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((reducers *)self)->first);
    Py_VISIT(((reducers *)self)->second);
    return 0;
}

static int reducers_clear(PyObject *self)
{
    Py_CLEAR(((reducers *)self)->first);
    Py_CLEAR(((reducers *)self)->second);
    return 0;
}

static void reducers_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)reducers_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* KeyError is the usual answer: the pickler asks about every object that is not a built-in one. */
static PyObject *reducers_get(PyObject *self, PyObject *key)
{
    PyObject *found = PyDict_GetItemWithError(((reducers *)self)->first, key);
    if (found == NULL && !PyErr_Occurred())
        found = PyDict_GetItemWithError(((reducers *)self)->second, key);
    if (found == NULL && !PyErr_Occurred())
        PyErr_SetObject(PyExc_KeyError, key);
    return Py_XNewRef(found);
}

static PyType_Slot reducers_slots[] = {
    {Py_tp_doc, (void *)"Reducers by type: two dicts as they are at each look."},
    {Py_tp_traverse, reducers_traverse},
    {Py_tp_clear, reducers_clear},
    {Py_tp_dealloc, reducers_dealloc},
    {Py_mp_subscript, reducers_get},
    {0, NULL},
};

static PyType_Spec reducers_spec = {
    .name = "cmultiprocessing._cmultiprocessing._Reducers",
    .basicsize = sizeof(reducers),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = reducers_slots,
};

PyObject *mp_reducers_new(mp_state *state, PyObject *first, PyObject *second)
{
    if (!PyDict_Check(first) || !PyDict_Check(second)) {
        PyErr_SetString(PyExc_TypeError, "tables of reducers must be dicts");
        return NULL;
    }
    PyObject *self = state->reducers_type->tp_alloc(state->reducers_type, 0);
    if (self != NULL) {
        ((reducers *)self)->first = Py_NewRef(first);
        ((reducers *)self)->second = Py_NewRef(second);
    }
    return self;
}

/* ---- the pickler and what it writes to ---- */

static mp_pickling *pickling_of(PyObject *self)
{
    return (mp_pickling *)(void *)self;
}

static int pickling_traverse(PyObject *object, visitproc visit, void *arg)
{
    mp_pickling *self = pickling_of(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->pickler);
    Py_VISIT(self->dump);
    Py_VISIT(self->clear_memo);
    Py_VISIT(self->pieces);
    Py_VISIT(self->buffers);
    return 0;
}

static int pickling_clear(PyObject *object)
{
    mp_pickling *self = pickling_of(object);
    Py_CLEAR(self->pickler);
    Py_CLEAR(self->dump);
    Py_CLEAR(self->clear_memo);
    Py_CLEAR(self->pieces);
    Py_CLEAR(self->buffers);
    return 0;
}

static void pickling_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)pickling_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The pickler's file. It keeps what it is given: large objects come as themselves, not as copies. What is
 * not bytes (a bytearray, a PickleBuffer) is kept as a view, which counts its bytes and holds its size:
 * what is pickled after it, and other threads, must not make it longer than the room for it. */
static PyObject *pickling_write(PyObject *object, PyObject *piece)
{
    mp_pickling *self = pickling_of(object);
    if (self->pieces == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the pickler's output was collected");
        return NULL;
    }
    bool plain = PyBytes_CheckExact(piece);
    PyObject *kept = plain ? Py_NewRef(piece) : PyMemoryView_FromObject(piece);
    if (kept == NULL)
        return NULL;
    Py_ssize_t size = plain ? PyBytes_GET_SIZE(kept) : PyMemoryView_GET_BUFFER(kept)->len;
    int added = PyList_Append(self->pieces, kept);
    Py_DECREF(kept);
    if (added < 0)
        return NULL;
    self->size += size;
    return PyLong_FromSsize_t(size);
}

/* The pickler's buffer_callback: true = keep it in the pickle. What is small is cheaper there; what is
 * not contiguous is refused there. */
static PyObject *pickling_buffer(PyObject *object, PyObject *buffer)
{
    mp_pickling *self = pickling_of(object);
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer);
    if (view == NULL)
        return NULL;
    if (self->inside || view->len < MP_BUFFER_LEAST || !PyBuffer_IsContiguous(view, 'A') ||
        PyList_GET_SIZE(self->buffers) >= MP_PICKLE_BUFFERS_MAX)
        Py_RETURN_TRUE;
    if (PyList_Append(self->buffers, buffer) < 0)
        return NULL;
    Py_RETURN_FALSE;
}

static PyMethodDef pickling_methods[] = {
    {"write", pickling_write, METH_O, "What the pickler writes."},
    {"buffer", pickling_buffer, METH_O, "Whether a buffer stays in the pickle."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pickling_slots[] = {
    {Py_tp_doc, (void *)"A pickler for queues, and what it has written."},
    {Py_tp_traverse, pickling_traverse},
    {Py_tp_clear, pickling_clear},
    {Py_tp_dealloc, pickling_dealloc},
    {Py_tp_methods, pickling_methods},
    {0, NULL},
};

static PyType_Spec pickling_spec = {
    .name = "cmultiprocessing._cmultiprocessing._Pickling",
    .basicsize = sizeof(mp_pickling),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pickling_slots,
};

/* type(self, 5, True, self.buffer), with our reducers, and its two methods. */
static int make_pickler(mp_pickling *self, PyObject *type, PyObject *reducers_table)
{
    PyObject *callback = PyObject_GetAttrString((PyObject *)self, "buffer");
    if (callback == NULL)
        return -1;
    self->pickler = PyObject_CallFunction(type, "OiOO", self, 5, Py_True, callback);
    Py_DECREF(callback);
    if (self->pickler == NULL ||
        PyObject_SetAttrString(self->pickler, "dispatch_table", reducers_table) < 0)
        return -1;
    self->dump = PyObject_GetAttrString(self->pickler, "dump");
    self->clear_memo = PyObject_GetAttrString(self->pickler, "clear_memo");
    return self->dump == NULL || self->clear_memo == NULL ? -1 : 0;
}

PyObject *mp_pickling_new(mp_state *state, PyObject *type, PyObject *reducers_table)
{
    PyObject *object = state->pickling_type->tp_alloc(state->pickling_type, 0);
    if (object == NULL)
        return NULL;
    mp_pickling *self = pickling_of(object);
    self->pieces = PyList_New(0);
    self->buffers = PyList_New(0);
    if (self->pieces == NULL || self->buffers == NULL ||
        make_pickler(self, type, reducers_table) < 0)
        Py_CLEAR(object);
    return object;
}

int mp_pickling_dump(mp_pickling *self, PyObject *object)
{
    PyObject *done = PyObject_CallOneArg(self->dump, object);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static void empty_list(PyObject *list)
{
    if (PyList_GET_SIZE(list) != 0)
        (void)PyList_SetSlice(list, 0, PyList_GET_SIZE(list), NULL); // deleting cannot fail
}

void mp_pickling_reset(mp_pickling *self)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *done = PyObject_CallNoArgs(self->clear_memo);
    if (done == NULL)
        PyErr_WriteUnraisable(
            (PyObject *)self); // a patched pickler: say so, keep the first exception
    Py_XDECREF(done);
    empty_list(self->pieces);
    empty_list(self->buffers);
    self->size = 0;
    PyErr_Restore(type, value, traceback);
}

int mp_pickling_exec(PyObject *module)
{
    mp_state *state = mp_state_get(module);
    if (mp_state_keep_type(module, &state->reducers_type, &reducers_spec) < 0)
        return -1;
    return mp_state_keep_type(module, &state->pickling_type, &pickling_spec);
}
