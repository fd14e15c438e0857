// SPDX-License-Identifier: PSF-2.0
/* The native halves of the queues: SimpleRingQueue (put, get, empty, close) and RingQueue on top of it
 * (timeouts, sizes, batches, shutdown, task_done). Lib/cmultiprocessing/queues.py makes the public
 * classes of them. */
#ifndef MP_PY_QUEUE_H
#define MP_PY_QUEUE_H

#include "py/sharing.h" // head of shared objects

#include "structures/notifier.h" // descriptors
#include "structures/ring.h"     // the queue itself

typedef struct mp_queue_object {
    mp_shared shared;      // first
    mp_ring_handle ring;   // ring.shm NULL: __init__() was not called
    mp_state *state;       // of the type's module, which lives as long; NULL: not asked yet
    mp_notifier *notifier; // made by the first _fileno() in this process
    /* What this process closed. Under the GIL. */
    bool closed, reader_closed, writer_closed;
    bool used; // this process has put something
} mp_queue_object;

static inline mp_queue_object *mp_queue_of(PyObject *self)
{
    return (mp_queue_object *)(void *)self;
}

/* The module's state; finding it by the type takes as long as a put. NULL with an exception set. */
static inline mp_state *mp_queue_state(mp_queue_object *self)
{
    if (mp_unlikely(self->state == NULL))
        self->state = mp_state_of_type(Py_TYPE((PyObject *)self));
    return self->state;
}

/* Ready for an operation: __init__() was called, this process is in the family. 0 or -1. */
int mp_queue_enter(mp_queue_object *self, const char *call);

/* Put and get, whatever way they were called; `deadline` MP_NO_WAIT or later. */
PyObject *mp_queue_put(mp_queue_object *self, PyObject *object, mp_time deadline);
PyObject *mp_queue_get(mp_queue_object *self, mp_time deadline);

/* queue_many.c */
extern const char mp_queue_put_many_doc[], mp_queue_get_many_doc[];
PyObject *mp_queue_put_many(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames);
PyObject *mp_queue_get_many(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames);

/* Below: for queue_many.c. Statuses are those of ring.h; MP_INTERRUPTED: an exception is set. */
mp_status mp_queue_put_items(mp_queue_object *self, const mp_ring_item *items, size_t count,
                             size_t *done, mp_time deadline);
mp_status mp_queue_take(mp_queue_object *self, uint32_t most, mp_ring_batch *batch,
                        mp_time deadline);
/* The same without waiting for anything: MP_OK, or nothing was taken. */
mp_status mp_queue_take_more(mp_queue_object *self, uint32_t most, mp_ring_batch *batch);
/* 0, or -1 with the documented exception of a closed queue. */
int mp_queue_check_put(mp_queue_object *self);
int mp_queue_check_get(mp_queue_object *self);
/* Full, Empty, ShutDown, or what errors.h says. NULL. */
PyObject *mp_queue_raise(mp_queue_object *self, mp_status status, const char *call);

/* An object could not be encoded; an exception is set. True if a subclass took care of it. */
bool mp_queue_feeder_error(mp_queue_object *self, PyObject *object);

int mp_queue_exec(PyObject *module);

#endif
