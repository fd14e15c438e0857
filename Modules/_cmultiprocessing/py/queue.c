// SPDX-License-Identifier: PSF-2.0
#include "py/queue.h"

#include "py/arguments.h" // put(obj, block, timeout)
#include "py/blocking.h"  // waiting without the GIL
#include "py/codec.h"     // objects to records
#include "py/errors.h"    // mp_raise

#include "shm/mutex.h"          // patience with them
#include "structures/ledger.h"  // task_done, join
#include "structures/parcels.h" // what the collector must know

#include <string.h> // memcpy

/* ---- life ---- */

static void queue_dealloc(PyObject *object)
{
    mp_queue_object *self = mp_queue_of(object);
    mp_shared_dealloc_begin(object);
    if (self->notifier != NULL)
        mp_notifier_close(self->notifier);
    mp_shared_dealloc_end(object);
}

/* Not more than could ever be in a queue; 0 and less, however little, mean no limit: 0. */
static int limit_parse(PyObject *maxsize, uint32_t *most)
{
    int overflow = 0;
    *most = 0;
    if (maxsize == NULL)
        return 0;
    PyObject *index = PyNumber_Index(maxsize); // numpy's integers are no subclasses of int
    if (index == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "maxsize must be an integer, not %.100s",
                         Py_TYPE(maxsize)->tp_name);
        return -1;
    }
    long long limit = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow == 0 && limit > 0 && limit < MP_RING_ITEMS_MAX)
        *most = (uint32_t)limit;
    return 0;
}

/* Arguments: (limit, joinable); the Python classes know what the program said. */
static int queue_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"maxsize", "joinable", NULL};
    PyObject *maxsize = NULL;
    int joinable = 0;
    uint32_t most;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Op:RingQueue", names, &maxsize, &joinable))
        return -1;
    if (limit_parse(maxsize, &most) < 0)
        return -1;
    if (mp_shared_create(object, MP_TYPE_RING, mp_ring_bytes(joinable != 0)) < 0)
        return -1;
    mp_ring_setup(&mp_queue_of(object)->ring, &mp_shared_of(object)->handle, most, joinable != 0);
    return 0;
}

PyDoc_STRVAR(ticket_doc, "_ticket($self, /)\n--\n\n"
                         "The queue as bytes, for a pickle inside the family of processes.");

static PyObject *queue_ticket(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *reduced = mp_shared_reduce(self, &mp_shared_of(self)->handle, NULL);
    if (reduced == NULL)
        return NULL;
    PyObject *ticket = Py_NewRef(PyTuple_GET_ITEM(PyTuple_GET_ITEM(reduced, 1), 1));
    Py_DECREF(reduced);
    return ticket;
}

typedef struct attaching {
    mp_ring_handle *ring;
    mp_object_ticket ticket;
} attaching;

static mp_status attach_step(void *context, mp_time deadline)
{
    attaching *self = context;
    (void)deadline;
    return mp_ring_attach(self->ring, &self->ticket);
}

PyDoc_STRVAR(attach_doc, "_attach($self, ticket, /)\n--\n\n"
                         "Become the queue of a ticket; instead of __init__().");

static PyObject *queue_attach(PyObject *object, PyObject *ticket)
{
    mp_queue_object *self = mp_queue_of(object);
    attaching work = {.ring = &self->ring};
    if (self->ring.shm != NULL)
        return PyErr_Format(PyExc_RuntimeError, "%s is a queue already", Py_TYPE(object)->tp_name);
    if (!PyBytes_Check(ticket) || PyBytes_GET_SIZE(ticket) != sizeof(work.ticket))
        return PyErr_Format(PyExc_ValueError, "%s: not the ticket of a queue",
                            Py_TYPE(object)->tp_name);
    memcpy(&work.ticket, PyBytes_AS_STRING(ticket), sizeof(work.ticket));
    mp_status status = mp_family_enter();
    if (status == MP_OK)
        status = attach_step(&work, MP_FOREVER);
    if (status == MP_INTERRUPTED)
        status = mp_blocking_run(attach_step, &work, MP_FOREVER);
    if (status != MP_OK) {
        self->ring.shm = NULL;
        (void)mp_shared_raise(object, status, "unpickle");
        return NULL;
    }
    self->shared.handle = self->ring.object;
    Py_RETURN_NONE;
}

int mp_queue_enter(mp_queue_object *self, const char *call)
{
    if (mp_unlikely(self->ring.shm == NULL))
        return mp_shared_raise_unready((PyObject *)self);
    mp_status status = mp_family_enter();
    return mp_likely(status == MP_OK) ? 0 : mp_shared_raise((PyObject *)self, status, call);
}

/* ---- errors ---- */

static PyObject *raise_named(mp_queue_object *self, const char *name)
{
    mp_state *state = mp_queue_state(self);
    PyObject *class = state == NULL ? NULL : mp_codec_name(state, name);
    if (class != NULL)
        PyErr_SetNone(class);
    return NULL;
}

PyObject *mp_queue_raise(mp_queue_object *self, mp_status status, const char *call)
{
    bool putting = call[0] == 'p';
    switch (status) {
    case MP_WOULD_BLOCK:
    case MP_TIMEOUT: return raise_named(self, putting ? "Full" : "Empty");
    case MP_CLOSED: return raise_named(self, "ShutDown");
    default: (void)mp_shared_raise((PyObject *)self, status, call); return NULL;
    }
}

static int refuse_closed(mp_queue_object *self, bool half_closed)
{
    if (half_closed)
        PyErr_SetString(PyExc_OSError, "handle is closed");
    else
        PyErr_Format(PyExc_ValueError, "Queue %R is closed", (PyObject *)self);
    return -1;
}

int mp_queue_check_put(mp_queue_object *self)
{
    if (mp_unlikely(self->closed || self->writer_closed))
        return refuse_closed(self, !self->closed);
    return mp_queue_enter(self, "put");
}

int mp_queue_check_get(mp_queue_object *self)
{
    if (mp_unlikely(self->closed || self->reader_closed))
        return refuse_closed(self, !self->closed);
    return mp_queue_enter(self, "get");
}

/* Where a subclass has its own _on_queue_feeder_error, that is told, as when a thread pickled. */
bool mp_queue_feeder_error(mp_queue_object *self, PyObject *object)
{
    static const char hook[] = "_on_queue_feeder_error";
    mp_state *state = mp_queue_state(self);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *base = state == NULL ? NULL : mp_codec_name(state, "Queue");
    PyObject *usual = base == NULL ? NULL : PyObject_GetAttrString(base, hook);
    PyObject *own = PyObject_GetAttrString((PyObject *)Py_TYPE((PyObject *)self), hook);
    PyErr_Clear(); // a class without the hook: the exception is the caller's
    bool overridden = usual != NULL && own != NULL && own != usual &&
                      PyErr_GivenExceptionMatches(type, PyExc_Exception);
    Py_XDECREF(usual);
    Py_XDECREF(own);
    if (!overridden) {
        PyErr_Restore(type, value, traceback);
        return false;
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        (void)PyException_SetTraceback(value, traceback);
    PyObject *told = PyObject_CallMethod((PyObject *)self, hook, "OO", value, object);
    Py_XDECREF(told); // NULL: its exception goes to the caller
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return true;
}

/* ---- put ---- */

typedef struct putting {
    mp_ring_handle *ring;
    const mp_ring_item *items;
    size_t count;
    size_t *done;
    mp_time give_up; // waiting for a mutex ends here; 0: not waited yet
    uint32_t round;
} putting;

static mp_status put_step(void *context, mp_time deadline)
{
    putting *self = context;
    for (bool last = deadline == MP_NO_WAIT;;) {
        mp_status status = mp_ring_put_slow(self->ring, self->items, self->count, self->done);
        if (status == MP_INTERRUPTED)
            return mp_mutex_busy(&self->give_up, deadline);
        if (status != MP_WOULD_BLOCK)
            return status;
        if (last)
            return MP_TIMEOUT;
        status = mp_ring_wait_space(self->ring, deadline, &self->round);
        last = status == MP_TIMEOUT; // somebody may have made space at the last moment
        if (status != MP_OK && !last)
            return status;
    }
}

mp_status mp_queue_put_items(mp_queue_object *self, const mp_ring_item *items, size_t count,
                             size_t *done, mp_time deadline)
{
    mp_status status = mp_ring_put(&self->ring, items, count, done);
    mp_notifier_note(&self->ring);
    if (mp_likely(status != MP_INTERRUPTED) && (status != MP_WOULD_BLOCK || deadline == MP_NO_WAIT))
        return status;
    putting work = {.ring = &self->ring, .items = items, .count = count, .done = done};
    return mp_blocking_run(put_step, &work, deadline);
}

PyObject *mp_queue_put(mp_queue_object *self, PyObject *object, mp_time deadline)
{
    uint64_t room[MP_ENCODE_ROOM / sizeof(uint64_t)];
    mp_outgoing outgoing;
    size_t used, done;
    mp_state *state = mp_queue_state(self);
    if (state == NULL || mp_queue_check_put(self) < 0)
        return NULL;
    self->used = true;
    if (mp_encode(state, &self->ring, object, deadline, room, &used, &outgoing) < 0) {
        if (outgoing.late)
            return mp_queue_raise(self, MP_TIMEOUT, "put");
        if (!mp_queue_feeder_error(self, object) || PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    mp_status status = mp_queue_put_items(self, &outgoing.item, 1, &done, deadline);
    if (mp_likely(status == MP_OK)) {
        mp_outgoing_forget(&outgoing);
        Py_RETURN_NONE;
    }
    mp_outgoing_cancel(&outgoing);
    return mp_queue_raise(self, status, "put");
}

/* ---- get ---- */

typedef struct taking {
    mp_ring_handle *ring;
    uint32_t most;
    mp_ring_batch *batch;
    mp_time give_up;
    uint32_t round;
} taking;

static mp_status take_step(void *context, mp_time deadline)
{
    taking *self = context;
    for (bool last = deadline == MP_NO_WAIT;;) {
        mp_status status = mp_ring_take_slow(self->ring, self->most, self->batch);
        if (status == MP_INTERRUPTED)
            return mp_mutex_busy(&self->give_up, deadline);
        if (status != MP_WOULD_BLOCK)
            return status;
        if (last)
            return MP_TIMEOUT;
        status = mp_ring_wait_items(self->ring, deadline, &self->round);
        last = status == MP_TIMEOUT;
        if (status != MP_OK && !last)
            return status;
    }
}

static mp_status take_waiting(mp_queue_object *self, uint32_t most, mp_ring_batch *batch,
                              mp_time deadline)
{
    // A producer that is at it is usually done before the GIL could be dropped and taken again.
    if (mp_ring_glance_items(&self->ring)) {
        mp_status status = mp_ring_take(&self->ring, most, batch);
        if (status != MP_INTERRUPTED && status != MP_WOULD_BLOCK)
            return status;
    }
    taking work = {.ring = &self->ring, .most = most, .batch = batch};
    return mp_blocking_run(take_step, &work, deadline);
}

/* After a take: a descriptor that says that there is something may be wrong now. */
static inline void mute(mp_queue_object *self, mp_status status)
{
    if (mp_unlikely(self->notifier != NULL) && status == MP_OK)
        mp_notifier_taken(self->notifier);
}

mp_status mp_queue_take_more(mp_queue_object *self, uint32_t most, mp_ring_batch *batch)
{
    mp_status status = mp_ring_take(&self->ring, most, batch);
    mute(self, status);
    return status;
}

mp_status mp_queue_take(mp_queue_object *self, uint32_t most, mp_ring_batch *batch,
                        mp_time deadline)
{
    mp_status status = mp_queue_take_more(self, most, batch);
    if (mp_likely(status != MP_INTERRUPTED) && (status != MP_WOULD_BLOCK || deadline == MP_NO_WAIT))
        return status;
    status = take_waiting(self, most, batch, deadline);
    mute(self, status);
    return status;
}

PyObject *mp_queue_get(mp_queue_object *self, mp_time deadline)
{
    uint64_t bytes[(MP_INLINE_MAX + MP_GRANULE) / sizeof(uint64_t)];
    mp_ring_batch batch = {.bytes = bytes, .capacity = sizeof(bytes)};
    mp_state *state = mp_queue_state(self);
    if (state == NULL || mp_queue_check_get(self) < 0)
        return NULL;
    mp_status status = mp_queue_take(self, 1, &batch, deadline);
    if (mp_unlikely(status != MP_OK))
        return mp_queue_raise(self, status, "get");
    return mp_decode(state, bytes);
}

/* ---- SimpleRingQueue ---- */

PyDoc_STRVAR(simple_put_doc, "put($self, /, obj)\n--\n\n"
                             "Put an object into the queue: it is there when this returns.\n\n"
                             "Raises:\n"
                             "    Exception: whatever pickling it raises; the queue is unchanged.\n"
                             "    ShutDown: the queue was shut down.\n"
                             "    MemoryError: the limit of memory that its text names.");

static PyObject *simple_put(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    PyObject *object = mp_arguments_object("put", args, nargs, kwnames);
    return object == NULL ? NULL : mp_queue_put(mp_queue_of(self), object, MP_FOREVER);
}

PyDoc_STRVAR(simple_get_doc, "get($self, /)\n--\n\n"
                             "Take the oldest object out; waits for one.");

static PyObject *simple_get(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return mp_queue_get(mp_queue_of(self), MP_FOREVER);
}

static int check_open_reader(mp_queue_object *self, const char *call)
{
    return self->reader_closed ? refuse_closed(self, true) : mp_queue_enter(self, call);
}

PyDoc_STRVAR(empty_doc, "empty($self, /)\n--\n\n"
                        "Whether the queue is empty now.\n\n"
                        "Raises:\n    OSError: this process has closed it.");

static PyObject *queue_empty(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_queue_object *self = mp_queue_of(object);
    if (check_open_reader(self, "empty") < 0)
        return NULL;
    return PyBool_FromLong(mp_ring_empty(&self->ring));
}

/* poll(): wait until there is something. */
typedef struct polling {
    mp_ring_handle *ring;
    uint32_t round;
} polling;

static mp_status poll_step(void *context, mp_time deadline)
{
    polling *self = context;
    for (;;) {
        if (!mp_ring_empty(self->ring) || mp_ring_state(self->ring) != MP_RING_OPEN)
            return MP_OK;
        mp_status status = mp_ring_wait_items(self->ring, deadline, &self->round);
        if (status != MP_OK)
            return status;
    }
}

PyDoc_STRVAR(poll_doc,
             "_poll($self, timeout=0.0, /)\n--\n\n"
             "Whether there is anything to take, waiting for it at most `timeout` seconds\n"
             "(None: for ever). A queue that was shut down counts as ready.");

static PyObject *queue_poll(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    mp_queue_object *self = mp_queue_of(object);
    mp_time deadline = MP_NO_WAIT;
    if (nargs > 1)
        return PyErr_Format(PyExc_TypeError, "_poll() takes at most 1 argument (%zd given)", nargs);
    if (nargs == 1 && mp_deadline_parse(args[0], &deadline) < 0)
        return NULL;
    if (check_open_reader(self, "poll") < 0)
        return NULL;
    bool ready = !mp_ring_empty(&self->ring) || mp_ring_state(&self->ring) != MP_RING_OPEN;
    if (ready || deadline == MP_NO_WAIT)
        return PyBool_FromLong(ready);
    polling work = {.ring = &self->ring};
    mp_status status = mp_blocking_run(poll_step, &work, deadline);
    if (status != MP_OK && status != MP_TIMEOUT)
        return mp_queue_raise(self, status, "poll");
    return PyBool_FromLong(status == MP_OK);
}

PyDoc_STRVAR(fileno_doc,
             "_fileno($self, /)\n--\n\n"
             "A descriptor that is readable while there is something to take. The first call\n"
             "in a process starts a native thread there.");

static PyObject *queue_fileno(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_queue_object *self = mp_queue_of(object);
    if (check_open_reader(self, "fileno") < 0)
        return NULL;
    if (self->notifier != NULL && mp_notifier_descriptor(self->notifier) < 0) {
        mp_notifier_close(self->notifier); // inherited by fork
        self->notifier = NULL;
    }
    if (self->notifier == NULL) {
        mp_status status = mp_notifier_open(&self->notifier, &self->ring);
        if (status != MP_OK)
            return mp_queue_raise(self, status, "fileno");
    }
    return PyLong_FromLong(mp_notifier_descriptor(self->notifier));
}

PyDoc_STRVAR(close_doc, "_close($self, how, /)\n--\n\n"
                        "Close the queue for this process: 'queue', 'reader' or 'writer'.");

static PyObject *queue_close(PyObject *object, PyObject *how)
{
    mp_queue_object *self = mp_queue_of(object);
    const char *what = PyUnicode_AsUTF8(how);
    if (what == NULL)
        return NULL;
    if (strcmp(what, "queue") == 0)
        self->closed = true;
    else if (strcmp(what, "reader") == 0)
        self->reader_closed = true;
    else if (strcmp(what, "writer") == 0)
        self->writer_closed = true;
    else
        return PyErr_Format(PyExc_ValueError, "_close(): 'queue', 'reader' or 'writer', not %R",
                            how);
    if (self->reader_closed && self->notifier != NULL) {
        mp_notifier_close(self->notifier);
        self->notifier = NULL;
    }
    Py_RETURN_NONE;
}

#define FLAG(name)                                                                                 \
 static PyObject *get_##name(PyObject *self, void *Py_UNUSED(closure))                             \
 {                                                                                                 \
  return PyBool_FromLong(mp_queue_of(self)->name);                                                 \
 }
FLAG(closed)
FLAG(reader_closed)
FLAG(writer_closed)
FLAG(used)
#undef FLAG

static PyObject *get_maxsize(PyObject *object, void *Py_UNUSED(closure))
{
    mp_queue_object *self = mp_queue_of(object);
    if (mp_queue_enter(self, "_maxsize") < 0)
        return NULL;
    return PyLong_FromUnsignedLong(self->ring.shm->limit);
}

static PyGetSetDef simple_getset[] = {
    MP_SHARED_DICT,
    {"_closed", get_closed, NULL, "Whether this process closed the queue.", NULL},
    {"_reader_closed", get_reader_closed, NULL, "Whether this process closed its reader.", NULL},
    {"_writer_closed", get_writer_closed, NULL, "Whether this process closed its writer.", NULL},
    {"_used", get_used, NULL, "Whether this process has put anything.", NULL},
    {"_maxsize", get_maxsize, NULL, "How many items there may be.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef simple_methods[] = {
    {"put", (PyCFunction)(void (*)(void))simple_put, METH_FASTCALL | METH_KEYWORDS, simple_put_doc},
    {"get", simple_get, METH_NOARGS, simple_get_doc},
    {"empty", queue_empty, METH_NOARGS, empty_doc},
    {"_poll", (PyCFunction)(void (*)(void))queue_poll, METH_FASTCALL, poll_doc},
    {"_fileno", queue_fileno, METH_NOARGS, fileno_doc},
    {"_close", queue_close, METH_O, close_doc},
    {"_ticket", queue_ticket, METH_NOARGS, ticket_doc},
    {"_attach", queue_attach, METH_O, attach_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(simple_doc, "SimpleRingQueue(maxsize=0, joinable=False)\n--\n\n"
                         "Native half of cmultiprocessing.SimpleQueue.");

static PyType_Slot simple_slots[] = {
    {Py_tp_doc, (void *)simple_doc},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, queue_init},
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_traverse, mp_shared_traverse},
    {Py_tp_clear, mp_shared_clear},
    {Py_tp_members, mp_shared_members},
    {Py_tp_getset, simple_getset},
    {Py_tp_methods, simple_methods},
    {0, NULL},
};

static PyType_Spec simple_spec = {
    .name = "cmultiprocessing._cmultiprocessing.SimpleRingQueue",
    .basicsize = sizeof(mp_queue_object),
    .flags = MP_SHARED_FLAGS,
    .slots = simple_slots,
};

/* ---- RingQueue ---- */

PyDoc_STRVAR(put_doc,
             "put($self, obj, block=True, timeout=None)\n--\n\n"
             "Put an object into the queue: it is there, complete, when this returns.\n\n"
             "Args:\n"
             "    obj: any object that can be pickled; it is pickled now.\n"
             "    block: whether to wait while the queue is full.\n"
             "    timeout: seconds to wait at most; None: for ever; negative: not at all.\n\n"
             "Raises:\n"
             "    Full: there was no space in time.\n"
             "    ShutDown: the queue was shut down.\n"
             "    ValueError: this process has closed the queue.\n"
             "    Exception: whatever pickling it raises; the queue is unchanged.\n"
             "    MemoryError: the limit of memory that its text names.\n\n"
             "Since 2.6; documented in multiprocessing, 'Pipes and Queues'.");

static PyObject *ring_put(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    static const mp_signature signature = {"put", {"obj", "block", "timeout"}, 3, 1, 3};
    mp_time deadline = MP_FOREVER;
    if (mp_likely(nargs == 1 && kwnames == NULL))
        return mp_queue_put(mp_queue_of(self), args[0], deadline);
    PyObject *values[3];
    if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        mp_block_parse(values[1], values[2], &deadline) < 0)
        return NULL;
    return mp_queue_put(mp_queue_of(self), values[0], deadline);
}

PyDoc_STRVAR(get_doc,
             "get($self, block=True, timeout=None)\n--\n\n"
             "Take the oldest object out of the queue.\n\n"
             "Args:\n"
             "    block: whether to wait while the queue is empty.\n"
             "    timeout: seconds to wait at most; None: for ever; negative: not at all.\n\n"
             "Returns:\n"
             "    The object; what it consists of is private memory of this process.\n\n"
             "Raises:\n"
             "    Empty: there was nothing in time.\n"
             "    ShutDown: the queue was shut down, and is empty.\n"
             "    ValueError: this process has closed the queue.\n\n"
             "Since 2.6; documented in multiprocessing, 'Pipes and Queues'.");

static PyObject *ring_get(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    static const mp_signature signature = {"get", {"block", "timeout"}, 2, 0, 2};
    mp_time deadline = MP_FOREVER;
    if (nargs > 0 || kwnames != NULL) {
        PyObject *values[2];
        if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
            mp_block_parse(values[0], values[1], &deadline) < 0)
            return NULL;
    }
    return mp_queue_get(mp_queue_of(self), deadline);
}

PyDoc_STRVAR(put_nowait_doc, "put_nowait($self, /, obj)\n--\n\nput(obj, False).");

static PyObject *ring_put_nowait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames)
{
    PyObject *object = mp_arguments_object("put_nowait", args, nargs, kwnames);
    return object == NULL ? NULL : mp_queue_put(mp_queue_of(self), object, MP_NO_WAIT);
}

PyDoc_STRVAR(get_nowait_doc, "get_nowait($self, /)\n--\n\nget(False).");

static PyObject *ring_get_nowait(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return mp_queue_get(mp_queue_of(self), MP_NO_WAIT);
}

PyDoc_STRVAR(qsize_doc, "qsize($self, /)\n--\n\nHow many objects are in the queue now.");

static PyObject *ring_qsize(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_queue_object *self = mp_queue_of(object);
    if (mp_queue_enter(self, "qsize") < 0)
        return NULL;
    return PyLong_FromUnsignedLong(mp_ring_size(&self->ring));
}

PyDoc_STRVAR(ring_empty_doc,
             "empty($self, /)\n--\n\n"
             "Whether the queue is empty now.\n\n"
             "Raises:\n    OSError: this process has put something into it, and closed it.");

static PyObject *ring_empty(PyObject *object, PyObject *ignored)
{
    mp_queue_object *self = mp_queue_of(object);
    if (self->closed && self->used) {
        PyErr_Format(PyExc_OSError, "Queue %R is closed", object);
        return NULL;
    }
    return queue_empty(object, ignored);
}

PyDoc_STRVAR(full_doc, "full($self, /)\n--\n\nWhether there are as many objects as fit now.");

static PyObject *ring_full(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_queue_object *self = mp_queue_of(object);
    if (mp_queue_enter(self, "full") < 0)
        return NULL;
    return PyBool_FromLong(mp_ring_size(&self->ring) >= self->ring.shm->limit);
}

typedef struct shutting {
    mp_ring_handle *ring;
    bool immediate;
} shutting;

static mp_status shutdown_step(void *context, mp_time deadline)
{
    (void)deadline;
    shutting *self = context;
    return mp_ring_shutdown(self->ring, self->immediate);
}

PyDoc_STRVAR(
    shutdown_doc,
    "shutdown($self, /, immediate=False)\n--\n\n"
    "End the queue for every process: put() raises ShutDown from now on, and get() when the\n"
    "queue is empty. Whoever waits in either is woken.\n\n"
    "Args:\n"
    "    immediate: drop what is in the queue as well.\n\n"
    "As queue.Queue.shutdown() of Python 3.13; here on every version.");

static PyObject *ring_shutdown(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames)
{
    static const mp_signature signature = {"shutdown", {"immediate"}, 1, 0, 1};
    mp_queue_object *self = mp_queue_of(object);
    PyObject *values[1];
    if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0)
        return NULL;
    int immediate = values[0] == NULL ? 0 : PyObject_IsTrue(values[0]);
    if (immediate < 0 || mp_queue_enter(self, "shutdown") < 0)
        return NULL;
    shutting work = {&self->ring, immediate != 0};
    mp_status status = mp_blocking_run(shutdown_step, &work, MP_FOREVER);
    if (status != MP_OK)
        return mp_queue_raise(self, status, "shutdown");
    Py_RETURN_NONE;
}

PyDoc_STRVAR(task_done_doc, "_task_done($self, /)\n--\n\n"
                            "One object that was taken has been worked on.\n\n"
                            "Raises:\n    ValueError: called more often than objects were put.");

static PyObject *ring_task_done(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_queue_object *self = mp_queue_of(object);
    if (mp_queue_enter(self, "task_done") < 0)
        return NULL;
    if (mp_ledger_done(&self->ring) != MP_OK) {
        PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
        return NULL;
    }
    Py_RETURN_NONE;
}

typedef struct joining {
    mp_ring_handle *ring;
    mp_ledger_wait wait;
} joining;

static mp_status join_step(void *context, mp_time deadline)
{
    joining *self = context;
    return mp_ledger_join(self->ring, deadline, &self->wait);
}

PyDoc_STRVAR(join_doc,
             "_join($self, /)\n--\n\n"
             "Wait until task_done() was called for every object that was put. Objects taken\n"
             "by processes that were killed count as done.");

static PyObject *ring_join(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_queue_object *self = mp_queue_of(object);
    if (mp_queue_enter(self, "join") < 0)
        return NULL;
    if (mp_ledger_unfinished(&self->ring) == 0)
        Py_RETURN_NONE;
    joining work = {.ring = &self->ring};
    mp_status status = mp_blocking_run(join_step, &work, MP_FOREVER);
    if (status != MP_OK)
        return mp_queue_raise(self, status, "join");
    Py_RETURN_NONE;
}

static PyObject *ring_unfinished(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_queue_object *self = mp_queue_of(object);
    if (mp_queue_enter(self, "_unfinished") < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(mp_ledger_unfinished(&self->ring));
}

static PyMethodDef ring_methods[] = {
    {"put", (PyCFunction)(void (*)(void))ring_put, METH_FASTCALL | METH_KEYWORDS, put_doc},
    {"get", (PyCFunction)(void (*)(void))ring_get, METH_FASTCALL | METH_KEYWORDS, get_doc},
    {"put_nowait", (PyCFunction)(void (*)(void))ring_put_nowait, METH_FASTCALL | METH_KEYWORDS,
     put_nowait_doc},
    {"get_nowait", ring_get_nowait, METH_NOARGS, get_nowait_doc},
    {"put_many", (PyCFunction)(void (*)(void))mp_queue_put_many, METH_FASTCALL | METH_KEYWORDS,
     mp_queue_put_many_doc},
    {"get_many", (PyCFunction)(void (*)(void))mp_queue_get_many, METH_FASTCALL | METH_KEYWORDS,
     mp_queue_get_many_doc},
    {"qsize", ring_qsize, METH_NOARGS, qsize_doc},
    {"empty", ring_empty, METH_NOARGS, ring_empty_doc},
    {"full", ring_full, METH_NOARGS, full_doc},
    {"shutdown", (PyCFunction)(void (*)(void))ring_shutdown, METH_FASTCALL | METH_KEYWORDS,
     shutdown_doc},
    {"_task_done", ring_task_done, METH_NOARGS, task_done_doc},
    {"_join", ring_join, METH_NOARGS, join_doc},
    {"_unfinished", ring_unfinished, METH_NOARGS, "How many objects are unfinished now."},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(ring_doc, "RingQueue(maxsize=0, joinable=False)\n--\n\n"
                       "Native half of cmultiprocessing.Queue and JoinableQueue.");

static PyType_Slot ring_slots[] = {
    {Py_tp_doc, (void *)ring_doc},        {Py_tp_dealloc, queue_dealloc},
    {Py_tp_traverse, mp_shared_traverse}, {Py_tp_clear, mp_shared_clear},
    {Py_tp_methods, ring_methods},        {0, NULL},
};

static PyType_Spec ring_spec = {
    .name = "cmultiprocessing._cmultiprocessing.RingQueue",
    .basicsize = sizeof(mp_queue_object),
    .flags = MP_SHARED_FLAGS,
    .slots = ring_slots,
};

int mp_queue_exec(PyObject *module)
{
    mp_state *state = mp_state_get(module);
    // In every process, also in one that never sees a queue: its collector must not take what dead
    // producers left in the queues of others for garbage.
    mp_ring_init();
    mp_parcels_init();
    if (mp_state_add_type(module, &state->simple_ring_type, &simple_spec) < 0)
        return -1;
    PyObject *bases = PyTuple_Pack(1, state->simple_ring_type);
    if (bases == NULL)
        return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &ring_spec, bases);
    Py_DECREF(bases);
    if (type == NULL)
        return -1;
    state->ring_type = (PyTypeObject *)(void *)type;
    return PyModule_AddType(module, state->ring_type);
}
