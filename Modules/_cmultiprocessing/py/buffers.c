// SPDX-License-Identifier: PSF-2.0
#include "py/buffers.h"

#include "core/atomic.h" // the list of kept memory

#include <stdlib.h> // aligned_alloc

enum { ALIGNMENT = 64, KEPT = 6 };

/* Kept at most, in all. */
#define KEPT_BYTES ((size_t)96 << 20)
/* Below this malloc itself keeps its memory warm. */
#define KEPT_LEAST ((size_t)128 << 10)

typedef struct buffer {
    PyObject head;
    void *memory;
    size_t size, room;
} buffer;

/* Of this process, whatever interpreters it has: memory without references. Who finds it busy does
 * without. */
static struct {
    uint32_t busy;
    struct {
        void *memory;
        size_t room;
    } kept[KEPT];
    size_t bytes;
} warm;

/* Room in steps of an eighth, so that sizes that vary a little fit each other's memory. */
static size_t room_for(size_t size)
{
    size_t step = ALIGNMENT;
    while (step < size / 16)
        step *= 2;
    return (size + step - 1) / step * step + (size == 0 ? ALIGNMENT : 0);
}

static bool enter_warm(void)
{
    return mp_exchange32(&warm.busy, 1) == 0;
}

static void leave_warm(void)
{
    mp_store_release32(&warm.busy, 0);
}

static void *take_warm_locked(size_t room)
{
    for (int i = 0; i < KEPT; i++) {
        if (warm.kept[i].memory != NULL && warm.kept[i].room == room) {
            void *memory = warm.kept[i].memory;
            warm.kept[i].memory = NULL;
            warm.bytes -= room;
            return memory;
        }
    }
    return NULL;
}

static void drop_kept(int i)
{
    warm.bytes -= warm.kept[i].room;
    free(warm.kept[i].memory);
    warm.kept[i].memory = NULL;
}

static void *take_warm(size_t room)
{
    if (room < KEPT_LEAST || !enter_warm())
        return NULL;
    void *memory = take_warm_locked(room);
    leave_warm();
    return memory;
}

/* The newest stays, older ones of other sizes make place. */
static void keep_locked(void *memory, size_t room)
{
    static int oldest;
    int place = -1;
    for (int i = 0; i < KEPT && place < 0; i++) {
        if (warm.kept[i].memory == NULL)
            place = i;
    }
    for (int tries = 0; tries < KEPT && (place < 0 || warm.bytes + room > KEPT_BYTES); tries++) {
        oldest = (oldest + 1) % KEPT;
        if (warm.kept[oldest].memory == NULL)
            continue;
        drop_kept(oldest);
        if (place < 0)
            place = oldest;
    }
    warm.kept[place].memory = memory;
    warm.kept[place].room = room;
    warm.bytes += room;
}

static void keep_or_free(void *memory, size_t room)
{
    if (room < KEPT_LEAST || room > KEPT_BYTES / 2 || !enter_warm()) {
        free(memory);
        return;
    }
    keep_locked(memory, room);
    leave_warm();
}

PyObject *mp_buffer_new(mp_state *state, size_t size, void **memory)
{
    buffer *self = PyObject_New(buffer, state->buffer_type);
    if (self == NULL)
        return NULL;
    self->size = size;
    self->room = room_for(size);
    self->memory = take_warm(self->room);
    if (self->memory == NULL)
        self->memory = aligned_alloc(ALIGNMENT, self->room);
    if (self->memory == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    *memory = self->memory;
    return (PyObject *)self;
}

static void buffer_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (((buffer *)self)->memory != NULL)
        keep_or_free(((buffer *)self)->memory, ((buffer *)self)->room);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int buffer_get(PyObject *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, self, ((buffer *)self)->memory,
                             (Py_ssize_t)((buffer *)self)->size, 0, flags);
}

static Py_ssize_t buffer_length(PyObject *self)
{
    return (Py_ssize_t)((buffer *)self)->size;
}

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, (void *)"Memory of an object that came out of a queue."},
    {Py_tp_dealloc, buffer_dealloc},
    {Py_bf_getbuffer, buffer_get},
    {Py_sq_length, buffer_length},
    {0, NULL},
};

static PyType_Spec buffer_spec = {
    .name = "cmultiprocessing._cmultiprocessing._Buffer",
    .basicsize = sizeof(buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = buffer_slots,
};

int mp_buffers_exec(PyObject *module)
{
    return mp_state_keep_type(module, &mp_state_get(module)->buffer_type, &buffer_spec);
}
