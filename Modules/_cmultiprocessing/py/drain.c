// SPDX-License-Identifier: PSF-2.0
#include "py/drain.h" // the contract

#include "py/blocking.h" // copying without the GIL

#include <string.h> // memcpy

/* Read so much, then give it back: little enough to be no second copy, enough to make system calls rare. */
#define SLICE ((size_t)8 << 20)
/* Smaller reads are copied with the GIL held. */
#define QUICK ((size_t)256 << 10)

typedef struct drain {
    PyObject head;
    char *data; // NULL: ended
    size_t size, at;
    size_t given_back; // up to here, in whole slices or more
    mp_drain_give_back give_back;
} drain;

static drain *drain_of(PyObject *object)
{
    return (drain *)(void *)object;
}

static void give_back_read(drain *self)
{
    if (self->at - self->given_back < SLICE)
        return;
    self->give_back(self->data + self->given_back, self->data + self->at);
    self->given_back = self->at;
}

typedef struct copying {
    drain *self;
    char *room;
    size_t size;
} copying;

static mp_status copy_out(void *context, mp_time deadline)
{
    (void)deadline;
    copying *work = context;
    drain *self = work->self;
    for (size_t done = 0; done < work->size;) {
        size_t slice = work->size - done < SLICE ? work->size - done : SLICE;
        memcpy(work->room + done, self->data + self->at, slice);
        self->at += slice;
        done += slice;
        give_back_read(self);
    }
    return MP_OK;
}

/* What of `size` bytes is left. */
static size_t at_most(const drain *self, size_t size)
{
    size_t left = self->data == NULL ? 0 : self->size - self->at;
    return size < left ? size : left;
}

/* The file is of one unpickler in one thread, so nobody reads meanwhile. */
static void take(drain *self, char *room, size_t size)
{
    copying work = {self, room, size};
    if (size <= QUICK)
        (void)copy_out(&work, MP_FOREVER);
    else
        (void)mp_blocking_run(copy_out, &work, MP_FOREVER); // cannot fail or be interrupted
}

static PyObject *take_bytes(drain *self, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes != NULL)
        take(self, PyBytes_AS_STRING(bytes), size);
    return bytes;
}

/* The number of bytes asked for; -1 with an exception set. */
static Py_ssize_t parse_count(PyObject *number)
{
    Py_ssize_t count = PyNumber_AsSsize_t(number, PyExc_OverflowError);
    if (count < 0 && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "a large message is read a number of bytes at a time");
    return count;
}

static PyObject *drain_read(PyObject *object, PyObject *number)
{
    drain *self = drain_of(object);
    Py_ssize_t count = parse_count(number);
    return count < 0 ? NULL : take_bytes(self, at_most(self, (size_t)count));
}

static PyObject *drain_peek(PyObject *object, PyObject *number)
{
    drain *self = drain_of(object);
    Py_ssize_t count = parse_count(number);
    if (count < 0)
        return NULL;
    size_t size = at_most(self, (size_t)count);
    return PyBytes_FromStringAndSize(size == 0 ? "" : self->data + self->at, (Py_ssize_t)size);
}

static PyObject *drain_readline(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    drain *self = drain_of(object);
    size_t left = at_most(self, SIZE_MAX);
    const char *begin = left == 0 ? NULL : self->data + self->at;
    const char *end = left == 0 ? NULL : memchr(begin, '\n', left);
    return take_bytes(self, end == NULL ? left : (size_t)(end - begin) + 1);
}

static PyObject *drain_readinto(PyObject *object, PyObject *buffer)
{
    drain *self = drain_of(object);
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0)
        return NULL;
    size_t size = at_most(self, (size_t)view.len);
    take(self, view.buf, size);
    PyBuffer_Release(&view);
    return PyLong_FromSize_t(size);
}

static void drain_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef drain_methods[] = {
    {"read", drain_read, METH_O, NULL},
    {"peek", drain_peek, METH_O, NULL},
    {"readline", drain_readline, METH_NOARGS, NULL},
    {"readinto", drain_readinto, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot drain_slots[] = {
    {Py_tp_doc, (void *)"A large message, used up by reading."},
    {Py_tp_methods, drain_methods},
    {Py_tp_dealloc, drain_dealloc},
    {0, NULL},
};

static PyType_Spec drain_spec = {
    .name = "cmultiprocessing._cmultiprocessing._Drain",
    .basicsize = sizeof(drain),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = drain_slots,
};

PyObject *mp_drain_new(mp_state *state, char *data, size_t size, mp_drain_give_back give_back)
{
    drain *self = PyObject_New(drain, state->drain_type);
    if (self == NULL)
        return NULL;
    self->data = data;
    self->size = size;
    self->at = self->given_back = 0;
    self->give_back = give_back;
    return (PyObject *)self;
}

void mp_drain_end(PyObject *object)
{
    drain_of(object)->data = NULL;
}

int mp_drain_exec(PyObject *module)
{
    return mp_state_keep_type(module, &mp_state_get(module)->drain_type, &drain_spec);
}
