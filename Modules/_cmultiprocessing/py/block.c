// SPDX-License-Identifier: PSF-2.0
#include "py/block.h"

#include "py/arguments.h" // sizes
#include "py/blocking.h"  // waiting where somebody was stopped in the heap
#include "py/errors.h"    // refusals

#include "shm/blocks.h" // the memory

static mp_block_object *block_of(PyObject *self)
{
    return (mp_block_object *)(void *)self;
}

/* ---- life ---- */

typedef struct creating {
    uint64_t size;
    mp_handle *handle;
} creating;

static mp_status create_step(void *context, mp_time deadline)
{
    creating *self = context;
    (void)deadline;
    return mp_block_create(self->size, self->handle);
}

static int create(mp_state *state, mp_block_object *self, Py_ssize_t size)
{
    creating work = {(uint64_t)size, &self->shared.handle};
    mp_status status = mp_family_enter();
    if (mp_likely(status == MP_OK))
        status = create_step(&work, MP_FOREVER);
    if (mp_unlikely(status == MP_INTERRUPTED)) // a process was stopped in the middle of the heap
        status = mp_blocking_run(create_step, &work, MP_FOREVER);
    if (mp_unlikely(status == MP_TOO_LARGE)) {
        PyErr_Format(state->memory_limit_error,
                     "a shared block of %zd bytes: limit is %llu bytes, all that is reserved for "
                     "this process and its relatives",
                     size, (unsigned long long)mp_family_shm()->size);
        return -1;
    }
    if (mp_unlikely(status != MP_OK)) {
        char what[80];
        PyOS_snprintf(what, sizeof(what), "a shared block of %lld bytes", (long long)size);
        return mp_raise_int(state, status, what);
    }
    self->bytes = mp_object_payload(&self->shared.handle);
    self->size = size;
    return 0;
}

PyObject *mp_block_object_new(mp_state *state, Py_ssize_t size)
{
    PyObject *self = state->block_type->tp_alloc(state->block_type, 0);
    if (self != NULL && create(state, block_of(self), size) < 0)
        Py_CLEAR(self);
    return self;
}

static int parse_size(PyObject *value, Py_ssize_t *size)
{
    *size = PyNumber_AsSsize_t(value, PyExc_OverflowError);
    if (*size == -1 && PyErr_Occurred())
        return -1;
    if (*size >= 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "a shared block cannot have %zd bytes", *size);
    return -1;
}

static int block_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const mp_signature signature = {"BufferWrapper", {"size"}, 1, 1, 1};
    PyObject *values[1];
    Py_ssize_t size;
    if (mp_arguments_sort_dict(&signature, args, kwargs, values) < 0 ||
        parse_size(values[0], &size) < 0)
        return -1;
    if (block_of(object)->bytes != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "BufferWrapper.__init__() called twice");
        return -1;
    }
    mp_state *state = mp_state_of_type(Py_TYPE(object));
    return state == NULL ? -1 : create(state, block_of(object), size);
}

/* ---- pickling ---- */

static PyObject *block_reduce(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    PyObject *extra = Py_BuildValue("(n)", block_of(object)->size);
    if (extra == NULL)
        return NULL;
    PyObject *result = mp_shared_reduce(object, &mp_shared_of(object)->handle, extra);
    Py_DECREF(extra);
    return result;
}

static PyObject *block_attach(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t size;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "BufferWrapper._attach(ticket, size)");
        return NULL;
    }
    if (parse_size(args[1], &size) < 0)
        return NULL;
    PyObject *object = mp_shared_attach((PyTypeObject *)type, args[0], MP_TYPE_BLOCK);
    if (object == NULL)
        return NULL;
    mp_block_object *self = block_of(object);
    uint64_t room = mp_chunk_capacity(self->shared.handle.offset);
    if ((uint64_t)size > room) { // a pickle is not believed
        PyErr_Format(PyExc_ValueError,
                     "BufferWrapper: the pickle says %zd bytes, the shared block has room for %llu",
                     size, (unsigned long long)room);
        Py_DECREF(object);
        return NULL;
    }
    self->bytes = mp_object_payload(&self->shared.handle);
    self->size = size;
    return object;
}

/* ---- the buffer ---- */

static int block_get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    mp_block_object *self = block_of(object);
    if (self->bytes == NULL) {
        view->obj = NULL;
        return mp_shared_raise_unready(object);
    }
    return PyBuffer_FillInfo(view, object, self->bytes, self->size, 0, flags);
}

PyDoc_STRVAR(create_memoryview_doc,
             "create_memoryview($self, /)\n--\n\n"
             "A writable view of the bytes; the memory lives as long as the view does.");

static PyObject *block_create_memoryview(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyMemoryView_FromObject(self);
}

static PyObject *get_size(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(block_of(self)->size);
}

/* Where it is in this process, for whoever has the address of a part of it. */
static PyObject *get_address(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromVoidPtr(block_of(self)->bytes);
}

/* ---- tables ---- */

static PyMethodDef block_methods[] = {
    {"create_memoryview", block_create_memoryview, METH_NOARGS, create_memoryview_doc},
    {"__reduce__", block_reduce, METH_NOARGS, NULL},
    {"_attach", (PyCFunction)(void (*)(void))block_attach, METH_FASTCALL | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef block_getset[] = {
    MP_SHARED_DICT,
    {"size", get_size, NULL, "How many bytes it has.", NULL},
    {"_address", get_address, NULL, "Where they are in this process.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(block_doc,
             "BufferWrapper(size)\n--\n\n"
             "Zeroed memory that processes share, with the buffer interface.\n\n"
             "Args:\n"
             "    size: bytes.\n\n"
             "Raises:\n"
             "    ValueError: a negative size.\n"
             "    OverflowError: larger than an address can say.\n"
             "    MemoryLimitError: more than the machine or a control group has left.\n\n"
             "Pickled, it names the same memory. Since 2.6; not documented there, but used.");

static PyType_Slot block_slots[] = {
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, block_init},
    {Py_tp_dealloc, mp_shared_dealloc},
    {Py_tp_traverse, mp_shared_traverse},
    {Py_tp_clear, mp_shared_clear},
    {Py_tp_members, mp_shared_members},
    {Py_tp_getset, block_getset},
    {Py_tp_methods, block_methods},
    {Py_bf_getbuffer, block_get_buffer},
    {Py_tp_doc, (void *)block_doc},
    {0, NULL},
};

static PyType_Spec block_spec = {
    .name = "cmultiprocessing.heap.BufferWrapper",
    .basicsize = sizeof(mp_block_object),
    .flags = MP_SHARED_FLAGS,
    .slots = block_slots,
};

int mp_block_load(PyObject *module)
{
    mp_state *state = mp_state_get(module);
    return state->block_type != NULL ? 0
                                     : mp_state_keep_type(module, &state->block_type, &block_spec);
}
