// SPDX-License-Identifier: PSF-2.0
/* put_many() and get_many(): one mutex, one commit and one wake-up for many objects. */
#include "py/queue.h"

#include "py/arguments.h" // put_many(iterable, block, timeout)
#include "py/codec.h"     // objects to records

#include <string.h> // memcpy

/* At a time: as many items and as many bytes; the copy under the mutex stays around a microsecond. */
enum { BATCH_ITEMS = 64, BATCH_BYTES = 8192 };

static_assert(BATCH_BYTES >= MP_ENCODE_ROOM + MP_GRANULE, "any one record fits");

/* Objects encoded and not yet put. */
typedef struct batch {
    mp_outgoing outgoing[BATCH_ITEMS];
    mp_ring_item items[BATCH_ITEMS];
    size_t count;
    uint64_t room[BATCH_BYTES / sizeof(uint64_t)];
    size_t used; // bytes of room
} batch;

static bool is_full(const batch *self)
{
    return self->count == BATCH_ITEMS || sizeof(self->room) - self->used < MP_ENCODE_ROOM;
}

/* 1: added. 0: not to be put, a subclass took care. -1: exception. */
static int add(mp_state *state, mp_queue_object *queue, batch *self, PyObject *object,
               mp_time deadline)
{
    size_t used;
    mp_outgoing *outgoing = &self->outgoing[self->count];
    char *room = (char *)self->room + self->used;
    int encoded = mp_encode(state, &queue->ring, object, deadline, room, &used, outgoing);
    if (encoded < 0 && outgoing->late) {
        (void)mp_queue_raise(queue, MP_TIMEOUT, "put_many");
        return -1;
    }
    if (encoded < 0)
        return mp_queue_feeder_error(queue, object) && !PyErr_Occurred() ? 0 : -1;
    self->items[self->count++] = outgoing->item;
    self->used += (used + 7) & ~(size_t)7;
    return 1;
}

/* Put what was encoded. `*put` counts what went in; on failure the rest is cancelled. */
static mp_status flush(mp_queue_object *queue, batch *self, Py_ssize_t *put, mp_time deadline)
{
    mp_status status = MP_OK;
    size_t at = 0;
    while (at < self->count && status == MP_OK) {
        size_t done = 0;
        status = mp_queue_put_items(queue, self->items + at, self->count - at, &done, deadline);
        for (size_t i = 0; i < done; i++)
            mp_outgoing_forget(&self->outgoing[at + i]);
        at += done;
        *put += (Py_ssize_t)done;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    for (; at < self->count; at++)
        mp_outgoing_cancel(&self->outgoing[at]);
    PyErr_Restore(type, value, traceback);
    self->count = 0;
    self->used = 0;
    return status;
}

/* Tell in the exception how many objects are in the queue. */
static void note(const char *name, PyObject *what)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (what == NULL || value == NULL || PyObject_SetAttrString(value, name, what) < 0)
        PyErr_Clear(); // an exception without attributes: it goes on without the note
    PyErr_Restore(type, value, traceback);
}

static void note_count(Py_ssize_t put)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *count = PyLong_FromSsize_t(put);
    PyErr_Restore(type, value, traceback);
    note("put_count", count);
    Py_XDECREF(count);
}

static int put_all(mp_state *state, mp_queue_object *queue, PyObject *iterator, batch *self,
                   Py_ssize_t *put, mp_time deadline)
{
    PyObject *object;
    mp_status status = MP_OK;
    int added = 0;
    while (status == MP_OK && added >= 0 && (object = PyIter_Next(iterator)) != NULL) {
        added = add(state, queue, self, object, deadline);
        Py_DECREF(object);
        if (is_full(self))
            status = flush(queue, self, put, deadline);
    }
    bool failed = status == MP_OK && PyErr_Occurred(); // by the iterable, or by pickling
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (status == MP_OK)
        status = flush(queue, self, put, failed ? MP_NO_WAIT : deadline);
    if (type != NULL) {
        PyErr_Clear();
        PyErr_Restore(type, value, traceback);
        return -1;
    }
    if (status != MP_OK)
        (void)mp_queue_raise(queue, status, "put_many");
    return status == MP_OK ? 0 : -1;
}

const char mp_queue_put_many_doc[] =
    "put_many($self, objects, block=True, timeout=None)\n--\n\n"
    "Put many objects, in order; cheaper than one by one. Others' objects may come in between.\n\n"
    "Args:\n"
    "    objects: an iterable.\n"
    "    block, timeout: as for put(); the timeout is for all together.\n\n"
    "Raises:\n"
    "    Full, ShutDown, ValueError, ...: as put(). The exception's put_count says how many objects\n"
    "        are in the queue; the others are not.\n\n"
    "New in cmultiprocessing.";

PyObject *mp_queue_put_many(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    static const mp_signature signature = {"put_many", {"objects", "block", "timeout"}, 3, 1, 3};
    mp_queue_object *queue = mp_queue_of(object);
    mp_state *state = mp_queue_state(queue);
    mp_time deadline;
    Py_ssize_t put = 0;
    PyObject *values[3];
    if (state == NULL || mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        mp_block_parse(values[1], values[2], &deadline) < 0 || mp_queue_check_put(queue) < 0)
        return NULL;
    PyObject *iterator = PyObject_GetIter(values[0]);
    batch *work = iterator == NULL ? NULL : PyMem_Malloc(sizeof(*work));
    int result = -1;
    if (work != NULL) {
        work->count = 0;
        work->used = 0;
        queue->used = true;
        result = put_all(state, queue, iterator, work, &put, deadline);
        if (result < 0)
            note_count(put);
    } else if (iterator != NULL) {
        PyErr_NoMemory();
    }
    PyMem_Free(work);
    Py_XDECREF(iterator);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* Append the objects of a batch. An object that cannot be decoded is an exception, the first of which
 * goes to the caller; the others are decoded all the same. -1 if there was one. */
static int append_all(mp_state *state, const mp_ring_batch *taken, PyObject *list)
{
    const char *record = taken->bytes;
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    for (uint32_t i = 0; i < taken->count; i++) {
        uint64_t header;
        memcpy(&header, record, sizeof(header));
        PyObject *object = mp_decode(state, record);
        if ((object == NULL || PyList_Append(list, object) < 0) && type == NULL)
            PyErr_Fetch(&type, &value, &traceback);
        PyErr_Clear();
        Py_XDECREF(object);
        record += mp_record_room(mp_record_length(header));
    }
    if (type == NULL)
        return 0;
    PyErr_Restore(type, value, traceback);
    return -1;
}

const char mp_queue_get_many_doc[] =
    "get_many($self, max, timeout=None)\n--\n\n"
    "Take up to `max` objects that are there; waits for the first one only.\n\n"
    "Args:\n"
    "    max: at most so many, at least 1.\n"
    "    timeout: seconds to wait at most; None: for ever; 0 and less: not at all.\n\n"
    "Returns:\n"
    "    A list of 1 to `max` objects, oldest first.\n\n"
    "Raises:\n"
    "    Empty, ShutDown, ValueError: as get().\n"
    "    Exception: what unpickling an object raised; its attribute got is the list of the others.\n\n"
    "New in cmultiprocessing.";

PyObject *mp_queue_get_many(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    static const mp_signature signature = {"get_many", {"max", "timeout"}, 2, 1, 2};
    mp_queue_object *queue = mp_queue_of(object);
    mp_state *state = mp_queue_state(queue);
    uint64_t bytes[BATCH_BYTES / sizeof(uint64_t)];
    mp_ring_batch taken = {.bytes = bytes, .capacity = sizeof(bytes)};
    mp_time deadline;
    int64_t most;
    PyObject *values[2];
    if (state == NULL || mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        mp_integer_parse(values[0], "max", 1, INT64_MAX, &most) < 0 ||
        mp_deadline_parse(values[1], &deadline) < 0 || mp_queue_check_get(queue) < 0)
        return NULL;
    PyObject *list = PyList_New(0);
    while (list != NULL && PyList_GET_SIZE(list) < most) {
        int64_t rest = most - PyList_GET_SIZE(list);
        bool first = PyList_GET_SIZE(list) == 0;
        uint32_t some = rest > UINT32_MAX ? UINT32_MAX : (uint32_t)rest;
        // After the first time nothing may raise: what is in the list would be lost.
        mp_status status = first ? mp_queue_take(queue, some, &taken, deadline)
                                 : mp_queue_take_more(queue, some, &taken);
        if (status != MP_OK && !first)
            break;
        if (status != MP_OK) {
            Py_CLEAR(list);
            return mp_queue_raise(queue, status, "get_many");
        }
        if (append_all(state, &taken, list) < 0) {
            note("got", list);
            Py_CLEAR(list);
        }
    }
    return list;
}
