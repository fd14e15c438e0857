// SPDX-License-Identifier: PSF-2.0
#define PY_SSIZE_T_CLEAN // "y#" takes a Py_ssize_t
#include "py/connection.h"

#include "py/arguments.h" // send_bytes(buf, offset, size)
#include "py/blocking.h"  // waiting without the GIL
#include "py/errors.h"    // mp_raise

#include <string.h> // memcpy

/* Up to so many bytes are handed to the kernel with the GIL held: copying them takes less than dropping
 * the GIL and getting it back from a thread that computes. */
#define QUICK ((size_t)16384)

/* ---- whole frames ---- */

typedef struct sending {
    mp_connection *self;
    mp_frame_out frame;
    bool my_turn;
} sending;

static void take_over(sending *work)
{
    mp_store_relaxed64(&work->self->sender, mp_connection_thread());
    work->self->outgoing = &work->frame;
    work->my_turn = true;
}

/* A signal handler, or a finalizer, while this thread sends: it may go before a message of which nothing is
 * out. -1 with an exception set. */
static int check_between(const mp_connection *self)
{
    if (!self->outgoing->begun)
        return 0;
    PyErr_SetString(PyExc_RuntimeError,
                    "Connection: this thread is in the middle of sending a message; a signal "
                    "handler or finalizer cannot send over the same connection then");
    return -1;
}

static mp_status send_step(void *context, mp_time deadline)
{
    sending *work = context;
    mp_connection *self = work->self;
    if (!work->my_turn) {
        mp_status status = mp_turn_wait(&self->sending, deadline);
        if (status != MP_OK)
            return status;
        take_over(work);
    }
    for (;;) {
        if (self->cut && !work->frame.begun)
            return MP_WOULD_BLOCK; // while we waited, or by a signal handler
        if (self->stream.file < 0)
            return MP_CLOSED; // by another thread, meanwhile
        mp_status status = mp_frame_write(&work->frame, &self->stream);
        if (status != MP_WOULD_BLOCK)
            return status;
        status = mp_stream_wait(self->stream.file, MP_STREAM_WRITE, deadline);
        if (status != MP_OK)
            return status;
    }
}

static size_t size_of(const mp_piece *pieces, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].size;
    return size;
}

/* Write it all, in our turn or when it comes. What is small goes at once, with the GIL held. */
static mp_status send_in_turn(sending *work)
{
    mp_connection *self = work->self;
    mp_frame_out *frame = &work->frame;
    mp_status status = MP_WOULD_BLOCK;
    bool quick = work->my_turn && self->stream.kind != MP_STREAM_OTHER &&
                 size_of(frame->pieces, frame->count) <= QUICK;
    if (quick && !self->cut)
        status = mp_frame_write(frame, &self->stream);
    if (status == MP_INTERRUPTED && PyErr_CheckSignals() == 0)
        status = MP_WOULD_BLOCK;
    if (status == MP_WOULD_BLOCK && !self->cut)
        status = mp_blocking_run(send_step, work, MP_FOREVER);
    if (status != MP_OK && frame->begun)
        self->cut = true;
    return status;
}

/* Inside of the turn of the call that was interrupted. */
static mp_status send_between(sending *work)
{
    mp_connection *self = work->self;
    const mp_frame_out *interrupted = self->outgoing;
    if (check_between(self) < 0)
        return MP_INTERRUPTED;
    take_over(work);
    mp_status status = send_in_turn(work);
    self->outgoing = interrupted;
    return status;
}

static mp_status send_whole(sending *work)
{
    mp_connection *self = work->self;
    if (mp_likely(mp_turn_try(&self->sending)))
        take_over(work);
    else if (mp_load_relaxed64(&self->sender) == mp_connection_thread())
        return send_between(work);
    mp_status status = send_in_turn(work);
    if (work->my_turn) {
        self->outgoing = NULL;
        mp_store_relaxed64(&self->sender, 0);
        mp_turn_end(&self->sending);
    }
    return status;
}

static int raise_unsent(const mp_connection *self, mp_status status, const char *call)
{
    if (self->cut && status == MP_WOULD_BLOCK)
        PyErr_Format(PyExc_OSError,
                     "Connection.%s(): an earlier message was cut off in the middle; nothing can "
                     "follow it",
                     call);
    else if (status == MP_CLOSED)
        (void)mp_connection_check_open(self);
    else
        (void)mp_connection_raise(self, status, call);
    return -1;
}

int mp_connection_send_pieces(mp_connection *self, mp_piece *pieces, size_t count, const char *call)
{
    sending work = {.self = self, .frame = {.pieces = pieces, .count = count}};
    mp_status status = send_whole(&work);
    return mp_likely(status == MP_OK) ? 0 : raise_unsent(self, status, call);
}

int mp_connection_send_plain(mp_connection *self, mp_piece *pieces, size_t count, const char *call)
{
    unsigned char head[MP_FRAME_HEAD_MAX];
    uint64_t size = size_of(pieces + 1, count - 1);
    pieces[0] = (mp_piece){head, mp_frame_head(size, head)};
    int result = mp_connection_send_pieces(self, pieces, count, call);
    pieces[0] = (mp_piece){NULL, 0}; // the head ends with this call
    return result;
}

/* ---- bytes ---- */

static int send_buffer(mp_connection *self, const mp_piece *part, const char *call)
{
    mp_piece pieces[2] = {{NULL, 0}, *part};
    if (part->size >= MP_PARCEL_LEAST && mp_lane_usable(self)) {
        static const mp_pins nothing = {.count = 0};
        int sent = mp_lane_send(self, part, 1, 0, &nothing, call);
        if (sent != 0)
            return sent < 0 ? -1 : 0;
    }
    return mp_connection_send_plain(self, pieces, 2, call);
}

/* Where a subclass sends bytes itself, it gets them as it would from the standard library. */
static int send_by_subclass(PyObject *method, PyObject *buffer, Py_ssize_t offset,
                            const mp_piece *part)
{
    PyObject *view = PyMemoryView_FromObject(buffer);
    PyObject *bytes = view == NULL ? NULL : PyObject_CallMethod(view, "cast", "s", "B");
    PyObject *sliced =
        bytes == NULL ? NULL : PySequence_GetSlice(bytes, offset, offset + (Py_ssize_t)part->size);
    PyObject *done = sliced == NULL ? NULL : PyObject_CallOneArg(method, sliced);
    Py_XDECREF(view);
    Py_XDECREF(bytes);
    Py_XDECREF(sliced);
    Py_XDECREF(done);
    Py_DECREF(method);
    return done == NULL ? -1 : 0;
}

static int parse_size(PyObject *value, Py_ssize_t *size)
{
    *size = PyNumber_AsSsize_t(value, PyExc_OverflowError);
    return *size == -1 && PyErr_Occurred() ? -1 : 0;
}

static int send_part(mp_connection *self, PyObject *buffer, Py_buffer *whole, PyObject **values)
{
    Py_ssize_t offset = 0, size = 0;
    bool to_the_end = values[2] == NULL || values[2] == Py_None;
    mp_piece part;
    PyObject *own;
    if ((values[1] != NULL && parse_size(values[1], &offset) < 0) ||
        (!to_the_end && parse_size(values[2], &size) < 0) ||
        mp_connection_part(whole, offset, size, to_the_end, &part) < 0)
        return -1;
    int overridden = mp_connection_override(self, "_send_bytes", &own);
    if (overridden > 0)
        return send_by_subclass(own, buffer, offset, &part);
    if (overridden < 0)
        return -1;
    return send_buffer(self, &part, "send_bytes");
}

static int check_sendable(mp_connection *self)
{
    return mp_connection_check_open(self) < 0 ? -1 : mp_connection_check_writable(self);
}

PyObject *mp_connection_send_bytes(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames)
{
    static const mp_signature signature = {"send_bytes", {"buf", "offset", "size"}, 3, 1, 3};
    mp_connection *self = mp_connection_of(object);
    PyObject *values[3];
    Py_buffer whole;
    if (check_sendable(self) < 0 ||
        mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        PyObject_GetBuffer(values[0], &whole, PyBUF_SIMPLE) < 0)
        return NULL;
    int result = send_part(self, values[0], &whole, values);
    PyBuffer_Release(&whole);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *mp_connection_send_bytes_hook(PyObject *object, PyObject *buffer)
{
    mp_connection *self = mp_connection_of(object);
    Py_buffer whole;
    PyObject *own;
    if (mp_connection_check_open(self) < 0 || PyObject_GetBuffer(buffer, &whole, PyBUF_SIMPLE) < 0)
        return NULL;
    mp_piece part = {whole.buf, (size_t)whole.len};
    int result = mp_connection_override(self, "_send", &own);
    if (result > 0) {
        unsigned char head[MP_FRAME_HEAD_MAX];
        size_t length = mp_frame_head((uint64_t)whole.len, head);
        PyObject *first = PyObject_CallFunction(own, "y#", head, (Py_ssize_t)length);
        PyObject *second = first == NULL ? NULL : PyObject_CallOneArg(own, buffer);
        result = second == NULL ? -1 : 0;
        Py_XDECREF(first);
        Py_XDECREF(second);
        Py_DECREF(own);
    } else if (result == 0) {
        result = send_buffer(self, &part, "_send_bytes");
    }
    PyBuffer_Release(&whole);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *mp_connection_send_hook(PyObject *object, PyObject *buffer)
{
    mp_connection *self = mp_connection_of(object);
    Py_buffer whole;
    if (mp_connection_check_open(self) < 0 || PyObject_GetBuffer(buffer, &whole, PyBUF_SIMPLE) < 0)
        return NULL;
    mp_piece part = {whole.buf, (size_t)whole.len};
    int result = mp_connection_send_pieces(self, &part, 1, "_send");
    PyBuffer_Release(&whole);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- objects ---- */

static int send_dumped_by_subclass(PyObject *method, const mp_dumped *dumped)
{
    PyObject *bytes = mp_dumped_bytes(dumped);
    PyObject *done = bytes == NULL ? NULL : PyObject_CallOneArg(method, bytes);
    Py_XDECREF(bytes);
    Py_XDECREF(done);
    Py_DECREF(method);
    return done == NULL ? -1 : 0;
}

/* A pickle and its buffers through the descriptor, each from where it is. */
static int send_parts(mp_connection *self, mp_dumped_memory *memory)
{
    size_t first = memory->count - memory->buffers;
    size_t parts = 1 + memory->buffers;
    size_t table = parts * sizeof(uint64_t);
    unsigned char *head = PyMem_Malloc(MP_FRAME_HEAD_MAX + table);
    if (head == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < parts; i++) {
        uint64_t size =
            i == 0 ? size_of(memory->pieces + 1, first - 1) : memory->pieces[first + i - 1].size;
        memcpy(head + MP_FRAME_HEAD_MAX + i * sizeof(size), &size, sizeof(size));
    }
    struct mp_frame_note note = {
        .kind = MP_NOTE_PARTS,
        .parts = (uint32_t)parts,
        .family = mp_family_shm()->id[0],
        .bytes = table + size_of(memory->pieces + 1, memory->count - 1),
    };
    (void)mp_frame_note_head(&note, head);
    memory->pieces[0] = (mp_piece){head, MP_FRAME_HEAD_MAX + table};
    int result = mp_connection_send_pieces(self, memory->pieces, memory->count, "send");
    PyMem_Free(head);
    return result;
}

static int send_memory(mp_connection *self, mp_dumped_memory *memory, const mp_pins *pins)
{
    size_t size = size_of(memory->pieces + 1, memory->count - 1);
    if ((size >= MP_PARCEL_LEAST || pins->count != 0) && mp_lane_usable(self)) {
        int sent = mp_lane_send(self, memory->pieces + 1, memory->count - 1, memory->buffers, pins,
                                "send");
        if (sent != 0)
            return sent < 0 ? -1 : 0;
    }
    if (memory->buffers != 0)
        return send_parts(self, memory);
    return mp_connection_send_plain(self, memory->pieces, memory->count, "send");
}

static int send_dumped(mp_connection *self, const mp_dumped *dumped)
{
    PyObject *own;
    int overridden = mp_connection_override(self, "_send_bytes", &own);
    if (overridden != 0)
        return overridden < 0 ? -1 : send_dumped_by_subclass(own, dumped);
    mp_dumped_memory memory;
    if (mp_dumped_open(dumped, &memory) < 0)
        return -1;
    int result = send_memory(self, &memory, &dumped->pins);
    mp_dumped_release(&memory);
    return result;
}

/* Buffers may stay outside of the pickle: the other end is one of ours, and so is this one. */
static bool to_a_relative(const mp_connection *self)
{
    return mp_lane_usable(self) &&
           Py_TYPE((PyObject *)(uintptr_t)self) == self->state->connection_type;
}

/* Pickling may take an end of this very pipe out of the family: what stayed outside of the pickle could
 * not be understood there. */
static int dump(mp_connection *self, PyObject *object, mp_dumped *dumped)
{
    PyObject *codec = self->state->connection_codec;
    bool relative = to_a_relative(self);
    if (mp_dump(self->state, codec, object, relative, dumped) < 0)
        return -1;
    if (mp_likely(relative == to_a_relative(self)))
        return 0;
    mp_dumped_close(dumped, false);
    return mp_dump(self->state, codec, object, false, dumped);
}

PyObject *mp_connection_send(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames)
{
    PyObject *sent = mp_arguments_object("send", args, nargs, kwnames);
    mp_connection *self = mp_connection_of(object);
    mp_dumped dumped;
    if (sent == NULL || check_sendable(self) < 0 || dump(self, sent, &dumped) < 0)
        return NULL;
    int result = send_dumped(self, &dumped);
    mp_dumped_close(&dumped, result == 0);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}
