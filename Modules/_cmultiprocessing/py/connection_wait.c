// SPDX-License-Identifier: PSF-2.0
#include "py/connection.h"

#include "py/arguments.h" // wait(object_list, timeout)
#include "py/blocking.h"  // waiting without the GIL
#include "py/errors.h"    // mp_raise

/* A message up to so long is only there for poll() when it is there as a whole; of a longer one the
 * kernel may not hold more until we begin to receive it. */
#define WHOLE ((size_t)32 << 10)

/* ---- poll ---- */

enum presence { NOTHING, IN_PART, THERE };

static enum presence enough(const mp_connection *self, uint64_t wanted)
{
    size_t available;
    if (wanted > WHOLE || !mp_stream_available(self->stream.file, &available) ||
        available >= wanted || mp_stream_hung_up(self->stream.file))
        return THERE; // end of file in the middle is something to be told, too
    return IN_PART;
}

/* A call that was interrupted has begun to read a message: is the rest there? */
static enum presence rest_present(const mp_connection *self)
{
    const mp_incoming *incoming = &self->incoming;
    size_t available;
    if (mp_stream_available(self->stream.file, &available) && available == 0)
        return mp_stream_hung_up(self->stream.file) ? THERE : IN_PART;
    if (incoming->frame.kind != MP_FRAME_PLAIN)
        return THERE;
    return enough(self, incoming->size - incoming->got);
}

static enum presence look(mp_connection *self)
{
    unsigned char head[4];
    size_t got;
    if (self->incoming.frame.have != 0)
        return rest_present(self);
    switch (mp_stream_peek(&self->stream, head, sizeof(head), &got)) {
    case MP_WOULD_BLOCK:
    case MP_INTERRUPTED: return NOTHING;
    case MP_MISUSE:
        return mp_stream_wait(self->stream.file, MP_STREAM_READ, 0) == MP_TIMEOUT ? NOTHING : THERE;
    case MP_OK: break;
    default: return THERE; // end of file, or an error that the next call will tell
    }
    // Less than a head is no message of either library, but somebody's way to wake us.
    int32_t length = got < sizeof(head) ? -1 : mp_frame_length(head);
    return length < 0 ? THERE : enough(self, sizeof(head) + (uint64_t)length);
}

typedef struct polling {
    mp_connection *self;
    mp_time nap; // until the rest of a message may have come
} polling;

/* The descriptor says "readable" already, so there is nothing to sleep on but the clock. */
static mp_status nap(polling *work, mp_time deadline)
{
    uint32_t nobody = 0;
    mp_time now = mp_clock_now();
    work->nap = work->nap == 0                            ? 50000
                : work->nap < 5 * (mp_time)MP_MILLISECOND ? 2 * work->nap
                                                          : work->nap;
    if (now >= deadline)
        return MP_TIMEOUT;
    mp_time until = deadline - now < work->nap ? deadline : now + work->nap;
    mp_status status = mp_futex_wait(&nobody, 0, until);
    return status == MP_INTERRUPTED ? MP_INTERRUPTED : MP_OK;
}

static enum presence spin_looking(mp_connection *self)
{
    mp_spin spin = mp_spin_begin(&self->spin);
    while (mp_spin_again(&spin)) {
        enum presence now = look(self);
        if (now != NOTHING) {
            mp_spin_paid(&self->spin);
            return now;
        }
    }
    return NOTHING;
}

static mp_status poll_step(void *context, mp_time deadline)
{
    polling *work = context;
    mp_connection *self = work->self;
    enum presence now = spin_looking(self);
    for (;;) {
        if (self->stream.file < 0)
            return MP_WOULD_BLOCK;
        if (now == THERE)
            return MP_OK;
        mp_status status =
            now == IN_PART ? nap(work, deadline) : mp_connection_await(self, deadline);
        if (status == MP_SYSTEM)
            return MP_OK; // recv() says what is wrong with it
        if (status != MP_OK)
            return status;
        now = look(self);
    }
}

/* 1, 0, or -1 with an exception set. */
static int poll_until(mp_connection *self, mp_time deadline)
{
    enum presence now = look(self);
    if (now == THERE || deadline == MP_NO_WAIT)
        return now == THERE;
    polling work = {.self = self};
    mp_status status = mp_blocking_run(poll_step, &work, deadline);
    if (status == MP_OK || status == MP_TIMEOUT)
        return status == MP_OK;
    if (status == MP_WOULD_BLOCK)
        return mp_connection_check_open(self);
    (void)mp_connection_raise(self, status, "poll");
    return -1;
}

PyObject *mp_connection_poll(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames)
{
    static const mp_signature signature = {"poll", {"timeout"}, 1, 0, 1};
    mp_connection *self = mp_connection_of(object);
    mp_time deadline = MP_NO_WAIT;
    PyObject *timeout = NULL, *own;
    if (mp_connection_check_open(self) < 0 || mp_connection_check_readable(self) < 0 ||
        mp_arguments_sort(&signature, args, nargs, kwnames, &timeout) < 0)
        return NULL;
    int overridden = mp_connection_override(self, "_poll", &own);
    if (overridden > 0) {
        PyObject *result = timeout == NULL ? PyObject_CallFunction(own, "d", 0.0)
                                           : PyObject_CallOneArg(own, timeout);
        Py_DECREF(own);
        return result;
    }
    if (overridden < 0 || (timeout != NULL && mp_deadline_parse(timeout, &deadline) < 0))
        return NULL;
    int ready = poll_until(self, deadline);
    return ready < 0 ? NULL : PyBool_FromLong(ready);
}

PyObject *mp_connection_poll_hook(PyObject *object, PyObject *timeout)
{
    mp_connection *self = mp_connection_of(object);
    mp_time deadline;
    if (mp_connection_check_open(self) < 0 || mp_deadline_parse(timeout, &deadline) < 0)
        return NULL;
    int ready = poll_until(self, deadline);
    return ready < 0 ? NULL : PyBool_FromLong(ready);
}

/* ---- wait ---- */

/* A look at so many descriptors takes less than dropping the GIL and getting it back. */
enum { FEW = 256 };

typedef struct waiting {
    mp_stream_item *items;
    size_t count;
} waiting;

static mp_status wait_step(void *context, mp_time deadline)
{
    const waiting *work = context;
    return mp_stream_wait_many(work->items, work->count, deadline);
}

static int descriptor_of(mp_state *state, PyObject *object)
{
    if (Py_TYPE(object) == state->connection_type) {
        const mp_connection *connection = mp_connection_of(object);
        return mp_connection_check_open(connection) < 0 ? -1 : connection->stream.file;
    }
    return PyObject_AsFileDescriptor(object);
}

static int fill(mp_state *state, PyObject *objects, mp_stream_item *items)
{
    // Every fileno() may run any code: the list is ours, but is looked at anew.
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects); i++) {
        items[i] = (mp_stream_item){.file = descriptor_of(state, PyList_GET_ITEM(objects, i))};
        if (items[i].file < 0)
            return -1;
    }
    return 0;
}

static PyObject *ready_ones(PyObject *objects, const mp_stream_item *items)
{
    PyObject *ready = PyList_New(0);
    for (Py_ssize_t i = 0; ready != NULL && i < PyList_GET_SIZE(objects); i++) {
        if (items[i].ready && PyList_Append(ready, PyList_GET_ITEM(objects, i)) < 0)
            Py_CLEAR(ready);
    }
    return ready;
}

static PyObject *wait_for(mp_state *state, PyObject *objects, mp_stream_item *items,
                          mp_time deadline)
{
    waiting work = {.items = items, .count = (size_t)PyList_GET_SIZE(objects)};
    mp_status status = MP_TIMEOUT;
    if (fill(state, objects, items) < 0)
        return NULL;
    if (work.count <= FEW)
        status = wait_step(&work, 0);
    if ((status == MP_TIMEOUT && (deadline != MP_NO_WAIT || work.count > FEW)) ||
        status == MP_INTERRUPTED)
        status = mp_blocking_run(wait_step, &work, deadline);
    if (status == MP_OK)
        return ready_ones(objects, items);
    return status == MP_TIMEOUT ? PyList_New(0) : mp_raise(state, status, "connection.wait()");
}

PyDoc_STRVAR(wait_doc,
             "wait(object_list, timeout=None)\n--\n\n"
             "Those of the objects that are ready for reading.\n\n"
             "Args:\n"
             "    object_list: connections, sockets, sentinels: descriptors and objects with\n"
             "        fileno(). As many as there are, whatever their numbers.\n"
             "    timeout: seconds to wait for the first; None: for ever; negative: not at all.\n\n"
             "Returns:\n"
             "    The ready ones in their order; empty when the time is over. End of file counts\n"
             "    as ready.\n\n"
             "Raises:\n"
             "    OSError: one of the connections is closed.\n\n"
             "Since 3.3; documented in multiprocessing, 'connection.wait'.");

static PyObject *connection_wait(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames)
{
    static const mp_signature signature = {"wait", {"object_list", "timeout"}, 2, 1, 2};
    PyObject *values[2];
    mp_time deadline;
    if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        mp_deadline_parse(values[1], &deadline) < 0)
        return NULL;
    PyObject *objects = PySequence_List(values[0]);
    if (objects == NULL)
        return NULL;
    mp_stream_item few[64], *items = few;
    if (PyList_GET_SIZE(objects) > (Py_ssize_t)Py_ARRAY_LENGTH(few))
        items = PyMem_New(mp_stream_item, (size_t)PyList_GET_SIZE(objects));
    PyObject *ready =
        items == NULL ? PyErr_NoMemory() : wait_for(mp_state_get(module), objects, items, deadline);
    if (items != few)
        PyMem_Free(items);
    Py_DECREF(objects);
    return ready;
}

/* ---- Pipe ---- */

static PyObject *make_end(mp_state *state, int file, enum mp_stream_kind kind, bool readable,
                          bool writable)
{
    PyObject *type = (PyObject *)state->connection_type;
    PyObject *end = PyObject_CallFunction(type, "iii", file, (int)readable, (int)writable);
    if (end == NULL)
        (void)mp_stream_close(file);
    else
        mp_connection_of(end)->stream.kind = kind;
    return end;
}

PyDoc_STRVAR(pipe_doc, "Pipe(duplex=True)\n--\n\n"
                       "Two connected ends.\n\n"
                       "Args:\n"
                       "    duplex: both send and receive; else the first only receives and the\n"
                       "        second only sends.\n\n"
                       "Returns:\n"
                       "    (Connection, Connection).\n\n"
                       "Raises:\n"
                       "    OSError: no descriptor is left.\n\n"
                       "Since 2.6; documented in multiprocessing, 'Pipes and Queues'.");

static PyObject *connection_pipe(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames)
{
    static const mp_signature signature = {"Pipe", {"duplex"}, 1, 0, 1};
    mp_state *state = mp_state_get(module);
    PyObject *value;
    int ends[2];
    enum mp_stream_kind kind;
    if (mp_arguments_sort(&signature, args, nargs, kwnames, &value) < 0)
        return NULL;
    int duplex = value == NULL ? 1 : PyObject_IsTrue(value);
    if (duplex < 0)
        return NULL;
    mp_status status = mp_stream_pair(duplex != 0, ends, &kind);
    if (status != MP_OK)
        return mp_raise(state, status, "Pipe()");
    mp_lane *lane = mp_lane_new();
    PyObject *first = make_end(state, ends[0], kind, true, duplex != 0);
    PyObject *second = make_end(state, ends[1], kind, duplex != 0, true);
    PyObject *pair = first == NULL || second == NULL ? NULL : PyTuple_Pack(2, first, second);
    if (pair != NULL && lane != NULL) {
        mp_lane_join(mp_connection_of(first), lane, 0);
        mp_lane_join(mp_connection_of(second), lane, 1);
    }
    mp_lane_release(lane);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return pair;
}

PyMethodDef mp_connection_functions[] = {
    {"wait", (PyCFunction)(void (*)(void))connection_wait, METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"Pipe", (PyCFunction)(void (*)(void))connection_pipe, METH_FASTCALL | METH_KEYWORDS, pipe_doc},
    {NULL, NULL, 0, NULL},
};
