// SPDX-License-Identifier: PSF-2.0
#define PY_SSIZE_T_CLEAN // "y#" takes a Py_ssize_t
#include "py/connection.h"

#include "py/arguments.h" // recv(timeout)
#include "py/blocking.h"  // waiting without the GIL
#include "py/buffers.h"   // where buffers arrive
#include "py/errors.h"    // mp_raise

#include <string.h> // memcpy

/* Room that is taken for a message because its head claims so much; more is taken as it comes. */
#define BELIEVED ((size_t)256 << 10)
/* Up to so many bytes are copied with the GIL held. */
#define QUICK ((size_t)16384)
/* So many looks, about 4 us, are taken before the GIL is dropped: a partner that answers at once is done
 * by then, and other threads lose less by that than by the GIL changing hands twice. */
enum { LOOKS_WITH_GIL = 12 };

void mp_incoming_forget(mp_incoming *incoming)
{
    Py_CLEAR(incoming->body);
    Py_CLEAR(incoming->buffers);
    PyMem_Free(incoming->sizes);
    incoming->sizes = NULL;
    incoming->have_sizes = false;
    incoming->memory = NULL;
    incoming->got = 0;
    mp_frame_next(&incoming->frame);
}

/* ---- reading ---- */

/* What is to be read: the head, or bytes into a room. */
typedef struct reading {
    mp_connection *self;
    char *room; // NULL: the head
    size_t size;
} reading;

static mp_status try_reading(const reading *work)
{
    mp_connection *self = work->self;
    if (self->stream.file < 0)
        return MP_WOULD_BLOCK; // closed by another thread: the caller sees it
    if (work->room == NULL)
        return mp_frame_read_head(&self->incoming.frame, &self->stream);
    return mp_frame_read(&self->stream, work->room, work->size, &self->incoming.got);
}

mp_status mp_connection_await(mp_connection *self, mp_time deadline)
{
    return mp_stream_wait(self->stream.file, MP_STREAM_READ, deadline);
}

/* A partner that answers at once is done before this process could have fallen asleep. A look is a system
 * call: that is pause enough. */
static mp_status spin_reading(const reading *work)
{
    mp_spin spin = mp_spin_begin(&work->self->spin);
    for (uint32_t looks = 1; spin.end != 0; looks++) {
        mp_status status = try_reading(work);
        if (status != MP_WOULD_BLOCK) {
            mp_spin_paid(&work->self->spin);
            return status;
        }
        if (looks % 8 == 0 && mp_clock_now() >= spin.end)
            break;
    }
    return MP_WOULD_BLOCK;
}

static mp_status read_step(void *context, mp_time deadline)
{
    const reading *work = context;
    mp_status status = spin_reading(work);
    while (status == MP_WOULD_BLOCK) {
        if (work->self->stream.file < 0)
            return MP_WOULD_BLOCK;
        status = mp_connection_await(work->self, deadline);
        if (status == MP_OK)
            status = try_reading(work);
    }
    return status;
}

/* With the GIL: other threads wait. Not on pipes: they go one way, what comes is no answer, and looks
 * without a pause would slow its sender, who needs the same lock in the kernel. */
static mp_status look_around(const reading *work)
{
    mp_spin_memory *memory = &work->self->spin;
    if (work->self->stream.kind != MP_STREAM_SOCKET || !mp_spin_promising(memory))
        return MP_WOULD_BLOCK;
    for (int looks = 0; looks < LOOKS_WITH_GIL; looks++) {
        mp_status status = try_reading(work);
        if (status != MP_WOULD_BLOCK) {
            mp_spin_paid(memory);
            return status;
        }
    }
    return MP_WOULD_BLOCK;
}

/* MP_OK: it is read. MP_WOULD_BLOCK: the connection was closed meanwhile. MP_TIMEOUT, MP_CLOSED,
 * MP_SYSTEM, MP_DAMAGED; MP_INTERRUPTED: with an exception. */
static mp_status read_fully(reading *work, mp_time deadline)
{
    bool quick = work->room == NULL || work->size - work->self->incoming.got <= QUICK;
    mp_status status = quick ? try_reading(work) : MP_WOULD_BLOCK;
    if (mp_likely(status != MP_WOULD_BLOCK && status != MP_INTERRUPTED))
        return status;
    if (deadline == MP_NO_WAIT && quick)
        return status == MP_INTERRUPTED      ? MP_TIMEOUT
               : work->self->stream.file < 0 ? MP_WOULD_BLOCK
                                             : MP_TIMEOUT;
    if (quick && status == MP_WOULD_BLOCK) {
        status = look_around(work);
        if (status != MP_WOULD_BLOCK && status != MP_INTERRUPTED)
            return status;
    }
    return mp_blocking_run(read_step, work, deadline);
}

/* Room for more of the body: what was claimed, but never much more than what has come. */
static mp_status make_room(mp_incoming *incoming)
{
    size_t size = incoming->size;
    if (incoming->body == NULL) {
        size_t first = size < BELIEVED ? size : BELIEVED;
        incoming->body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)first);
        return incoming->body == NULL ? MP_NO_MEMORY : MP_OK;
    }
    size_t have = (size_t)PyBytes_GET_SIZE(incoming->body);
    size_t next = have < size - have ? 2 * have : size;
    // A failure leaves NULL, and nothing of the message: the stream is of no use then.
    return _PyBytes_Resize(&incoming->body, (Py_ssize_t)next) < 0 ? MP_NO_MEMORY : MP_OK;
}

static mp_status read_body(mp_connection *self, mp_time deadline)
{
    mp_incoming *incoming = &self->incoming;
    do {
        size_t room = incoming->body == NULL ? 0 : (size_t)PyBytes_GET_SIZE(incoming->body);
        if (incoming->body == NULL || incoming->got == room) {
            mp_status status = make_room(incoming);
            if (status != MP_OK)
                return status;
            room = (size_t)PyBytes_GET_SIZE(incoming->body);
        }
        reading work = {self, PyBytes_AS_STRING(incoming->body), room};
        mp_status status = read_fully(&work, deadline);
        if (status != MP_OK)
            return status;
    } while (incoming->got < incoming->size);
    return MP_OK;
}

/* ---- messages in parts ---- */

static mp_status read_sizes(mp_connection *self, mp_time deadline)
{
    mp_incoming *incoming = &self->incoming;
    const struct mp_frame_note *note = &incoming->frame.note;
    size_t table = note->parts * sizeof(uint64_t);
    if (incoming->sizes == NULL) {
        if (note->parts == 0 || note->parts > MP_PARTS_MAX || table > note->bytes)
            return MP_DAMAGED;
        incoming->sizes = PyMem_Malloc(table);
        if (incoming->sizes == NULL)
            return MP_NO_MEMORY;
    }
    reading work = {self, (char *)incoming->sizes, table};
    mp_status status = read_fully(&work, deadline);
    if (status != MP_OK)
        return status;
    uint64_t left = note->bytes - table;
    for (uint32_t i = 0; i < note->parts; i++) {
        if (incoming->sizes[i] > left)
            return MP_DAMAGED;
        left -= incoming->sizes[i];
    }
    incoming->have_sizes = true;
    incoming->got = 0;
    incoming->size = (size_t)incoming->sizes[0];
    return left == 0 ? MP_OK : MP_DAMAGED;
}

/* The next buffer, or the rest of it. */
static mp_status read_buffer(mp_connection *self, mp_time deadline)
{
    mp_incoming *incoming = &self->incoming;
    Py_ssize_t begun = PyList_GET_SIZE(incoming->buffers);
    if (incoming->memory == NULL) {
        void *memory;
        PyObject *buffer = mp_buffer_new(self->state, (size_t)incoming->sizes[begun + 1], &memory);
        int added = buffer == NULL ? -1 : PyList_Append(incoming->buffers, buffer);
        Py_XDECREF(buffer);
        if (added < 0)
            return MP_NO_MEMORY;
        incoming->memory = memory;
        incoming->got = 0;
        begun++;
    }
    reading work = {self, incoming->memory, (size_t)incoming->sizes[begun]};
    mp_status status = read_fully(&work, deadline);
    if (status == MP_OK)
        incoming->memory = NULL;
    return status;
}

static mp_status read_parts(mp_connection *self, mp_time deadline)
{
    mp_incoming *incoming = &self->incoming;
    mp_status status = MP_OK;
    if (!incoming->have_sizes)
        status = read_sizes(self, deadline);
    if (status == MP_OK && incoming->buffers == NULL) {
        status = read_body(self, deadline);
        if (status == MP_OK && (incoming->buffers = PyList_New(0)) == NULL)
            status = MP_NO_MEMORY;
    }
    while (status == MP_OK &&
           (incoming->memory != NULL ||
            PyList_GET_SIZE(incoming->buffers) + 1 < (Py_ssize_t)incoming->frame.note.parts))
        status = read_buffer(self, deadline);
    return status;
}

/* ---- messages ---- */

static uint64_t parcel_size(uint64_t parcel)
{
    mp_message_view view;
    uint64_t size, all = 0;
    if (mp_message_open(parcel, &view) != MP_OK)
        return 0; // reading it says so
    for (uint32_t i = 0; i < view.parts; i++) {
        (void)mp_message_part(parcel, i, &size);
        all += size;
    }
    return all;
}

static mp_status take_parcel(mp_connection *self, uint64_t longest, mp_received *received)
{
    struct mp_frame_note note = self->incoming.frame.note;
    mp_status status = note.bytes == 0 ? mp_lane_take(self, &note, &received->parcel) : MP_DAMAGED;
    if (status != MP_OK)
        return status;
    self->incoming.frame.size = longest == UINT64_MAX ? 0 : parcel_size(received->parcel);
    if (self->incoming.frame.size <= longest)
        return MP_OK;
    mp_load_drop(received->parcel);
    return MP_TOO_LARGE;
}

/* The connection's next message, or the rest of one that an earlier call began. */
static mp_status read_message(mp_connection *self, uint64_t longest, mp_time deadline,
                              mp_received *received)
{
    mp_incoming *incoming = &self->incoming;
    reading head = {self, NULL, 0};
    mp_status status = read_fully(&head, deadline);
    if (mp_unlikely(status != MP_OK))
        return status;
    if (mp_likely(incoming->frame.kind == MP_FRAME_PLAIN)) {
        incoming->size = (size_t)incoming->frame.size;
        return incoming->frame.size > longest ? MP_TOO_LARGE : read_body(self, deadline);
    }
    if (!mp_lane_knows(&incoming->frame.note))
        return MP_DAMAGED;
    if (incoming->frame.note.kind == MP_NOTE_PARCEL)
        return take_parcel(self, longest, received);
    if (incoming->frame.note.kind != MP_NOTE_PARTS)
        return MP_DAMAGED;
    return incoming->frame.size > longest ? MP_TOO_LARGE : read_parts(self, deadline);
}

/* The same, passing over notes of senders who were killed before their send() returned. */
static mp_status read_next(mp_connection *self, uint64_t longest, mp_time deadline,
                           mp_received *received)
{
    mp_status status;
    while ((status = read_message(self, longest, deadline, received)) == MP_STALE)
        mp_incoming_forget(&self->incoming);
    return status;
}

/* ---- whose turn ---- */

static mp_status turn_step(void *context, mp_time deadline)
{
    return mp_turn_wait(context, deadline);
}

/* A signal handler, or a finalizer, while this thread receives. Between messages it may take the next one,
 * and the call that it interrupted goes on with the one after it. */
static mp_status borrow_turn(const mp_connection *self)
{
    if (self->incoming.frame.kind == MP_FRAME_NONE)
        return MP_OK;
    PyErr_SetString(PyExc_RuntimeError,
                    "Connection: this thread is in the middle of receiving a message; a signal "
                    "handler or finalizer cannot receive from the same connection then");
    return MP_INTERRUPTED;
}

/* `*borrowed`: it stays the turn of the call that was interrupted. */
static mp_status take_turn(mp_connection *self, mp_time deadline, bool *borrowed)
{
    mp_status status = MP_OK;
    *borrowed = false;
    if (mp_unlikely(!mp_turn_try(&self->receiving))) {
        *borrowed = mp_load_relaxed64(&self->receiver) == mp_connection_thread();
        status =
            *borrowed ? borrow_turn(self) : mp_blocking_run(turn_step, &self->receiving, deadline);
    }
    if (status == MP_OK)
        mp_store_relaxed64(&self->receiver, mp_connection_thread());
    return status;
}

static void end_turn(mp_connection *self, bool borrowed)
{
    if (borrowed)
        return;
    mp_store_relaxed64(&self->receiver, 0);
    mp_turn_end(&self->receiving);
}

/* After a message that was refused the next bytes are no frame: nothing can be read any more. */
static void end_reading(mp_connection *self)
{
    if (self->writable) {
        self->readable = false;
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *done = PyObject_CallMethod((PyObject *)self, "close", NULL);
    if (done == NULL)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(done);
    PyErr_Restore(type, value, traceback);
}

static void raise_unread(mp_connection *self, mp_status status, const char *call)
{
    mp_incoming *incoming = &self->incoming;
    bool in_the_middle = incoming->frame.have != 0;
    switch (status) {
    case MP_CLOSED:
        if (in_the_middle)
            PyErr_SetString(PyExc_OSError, "got end of file during message");
        else
            PyErr_SetNone(PyExc_EOFError);
        mp_incoming_forget(incoming);
        break;
    case MP_DAMAGED:
        PyErr_Format(PyExc_OSError, "Connection.%s(): bad message length %d", call,
                     (int)mp_frame_length(incoming->frame.head));
        mp_incoming_forget(incoming);
        break;
    case MP_TOO_LARGE:
        PyErr_Format(PyExc_OSError, "bad message length: %llu bytes, more than were allowed",
                     (unsigned long long)incoming->frame.size);
        mp_incoming_forget(incoming);
        end_reading(self);
        break;
    case MP_NO_MEMORY:
        PyErr_Format(PyExc_MemoryError, "Connection.%s(): no memory for a message of %llu bytes",
                     call, (unsigned long long)incoming->frame.size);
        mp_incoming_forget(incoming);
        end_reading(self);
        break;
    case MP_WOULD_BLOCK: (void)mp_connection_check_open(self); break;
    default: (void)mp_connection_raise(self, status, call); break;
    }
}

/* Receive one message of at most `longest` bytes. 0, or -1 with an exception set. */
static int receive(mp_connection *self, uint64_t longest, mp_time deadline, const char *call,
                   mp_received *received)
{
    bool borrowed;
    *received = (mp_received){NULL, NULL, 0};
    mp_status status = take_turn(self, deadline, &borrowed);
    if (status != MP_OK) {
        raise_unread(self, status, call);
        return -1;
    }
    status = read_next(self, longest, deadline, received);
    if (mp_likely(status == MP_OK)) {
        received->bytes = self->incoming.body;
        received->buffers = self->incoming.buffers;
        self->incoming.body = self->incoming.buffers = NULL;
        mp_incoming_forget(&self->incoming);
    } else {
        raise_unread(self, status, call);
    }
    end_turn(self, borrowed);
    return mp_likely(status == MP_OK) ? 0 : -1;
}

/* ---- methods ---- */

static int check_receivable(mp_connection *self)
{
    return mp_connection_check_open(self) < 0 ? -1 : mp_connection_check_readable(self);
}

/* What a subclass's _recv_bytes() returned, as bytes: a BytesIO, or something with the buffer interface. */
static PyObject *bytes_of(PyObject *message)
{
    PyObject *getvalue;
    if (PyBytes_CheckExact(message))
        return Py_NewRef(message);
    getvalue = PyObject_GetAttrString(message, "getvalue");
    if (getvalue == NULL) {
        PyErr_Clear(); // not a BytesIO
        return PyBytes_FromObject(message);
    }
    PyObject *value = PyObject_CallNoArgs(getvalue);
    PyObject *bytes = value == NULL ? NULL : PyBytes_FromObject(value);
    Py_DECREF(getvalue);
    Py_XDECREF(value);
    return bytes;
}

/* 1: a subclass received the message in its own way; `*bytes` is it, NULL with None where it was too
 * long. 0: it does not. -1: exception. */
static int receive_by_subclass(mp_connection *self, PyObject *longest, PyObject **bytes)
{
    PyObject *own;
    int overridden = mp_connection_override(self, "_recv_bytes", &own);
    *bytes = NULL;
    if (overridden <= 0)
        return overridden;
    PyObject *message =
        longest == NULL ? PyObject_CallNoArgs(own) : PyObject_CallOneArg(own, longest);
    Py_DECREF(own);
    if (message == NULL)
        return -1;
    if (message != Py_None)
        *bytes = bytes_of(message);
    bool failed = message != Py_None && *bytes == NULL;
    Py_DECREF(message);
    return failed ? -1 : 1;
}

/* A listener that uses a key greets with a challenge, which is no pickle: who connected without a key
 * is told so, instead of what the unpickler thinks of it. */
static void explain_challenge(const mp_connection *self, PyObject *bytes)
{
    static const char challenge[] = "#CHALLENGE#";
    if (!PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) < (Py_ssize_t)strlen(challenge) ||
        memcmp(PyBytes_AS_STRING(bytes), challenge, strlen(challenge)) != 0)
        return;
    PyErr_Clear();
    PyObject *class = mp_connection_name(self, "AuthenticationError");
    if (class != NULL)
        PyErr_SetString(class, "the peer asks for an authentication key: connect with authkey=");
}

static PyObject *load(const mp_connection *self, const mp_received *received)
{
    if (received->parcel != 0)
        return mp_load_message(self->state, self->state->connection_codec, received->parcel);
    PyObject *object =
        mp_load(self->state->connection_codec, received->bytes, received->buffers, true);
    if (mp_unlikely(object == NULL))
        explain_challenge(self, received->bytes);
    return object;
}

/* The message as bytes; `received` is used up. */
static PyObject *load_bytes(const mp_connection *self, mp_received *received)
{
    PyObject *codec = self->state->connection_codec;
    if (received->parcel != 0)
        return mp_load_message_bytes(self->state, codec, received->parcel);
    if (received->buffers == NULL)
        return received->bytes;
    PyObject *bytes = mp_load_bytes(codec, received->bytes, received->buffers);
    Py_CLEAR(received->bytes);
    Py_CLEAR(received->buffers);
    return bytes;
}

static void received_forget(mp_received *received)
{
    Py_CLEAR(received->bytes);
    Py_CLEAR(received->buffers);
}

PyObject *mp_connection_recv(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames)
{
    static const mp_signature signature = {"recv", {"timeout"}, 1, 0, 1};
    mp_connection *self = mp_connection_of(object);
    mp_received received = {NULL, NULL, 0};
    mp_time deadline = MP_FOREVER;
    if (check_receivable(self) < 0)
        return NULL;
    if (mp_unlikely(nargs > 0 || kwnames != NULL)) {
        PyObject *timeout;
        if (mp_arguments_sort(&signature, args, nargs, kwnames, &timeout) < 0 ||
            mp_deadline_parse(timeout, &deadline) < 0)
            return NULL;
    }
    int done = receive_by_subclass(self, NULL, &received.bytes);
    if (done < 0 || (done == 0 && receive(self, UINT64_MAX, deadline, "recv", &received) < 0))
        return NULL;
    PyObject *result = load(self, &received);
    received_forget(&received);
    return result;
}

static int parse_longest(PyObject *value, uint64_t *longest)
{
    *longest = UINT64_MAX;
    if (value == NULL || value == Py_None)
        return 0;
    PyObject *index = PyNumber_Index(value);
    if (index == NULL)
        return -1;
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow == 0 && number == -1 && PyErr_Occurred())
        return -1;
    if (overflow < 0 || (overflow == 0 && number < 0)) {
        PyErr_Format(PyExc_ValueError, "negative maxlength: %R", value);
        return -1;
    }
    if (overflow == 0)
        *longest = (uint64_t)number;
    return 0;
}

static PyObject *refuse_too_long(mp_connection *self)
{
    PyErr_SetString(PyExc_OSError, "bad message length");
    end_reading(self);
    return NULL;
}

PyObject *mp_connection_recv_bytes(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames)
{
    static const mp_signature signature = {"recv_bytes", {"maxlength", "timeout"}, 2, 0, 1};
    mp_connection *self = mp_connection_of(object);
    mp_received received = {NULL, NULL, 0};
    PyObject *values[2] = {NULL, NULL};
    uint64_t longest;
    mp_time deadline;
    if (check_receivable(self) < 0 ||
        mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        parse_longest(values[0], &longest) < 0 || mp_deadline_parse(values[1], &deadline) < 0)
        return NULL;
    int done = receive_by_subclass(self, values[0], &received.bytes);
    if (done > 0)
        return received.bytes != NULL ? received.bytes : refuse_too_long(self);
    if (done < 0 || receive(self, longest, deadline, "recv_bytes", &received) < 0)
        return NULL;
    return load_bytes(self, &received);
}

static PyObject *too_short(const mp_connection *self, PyObject *message)
{
    PyObject *class = mp_connection_name(self, "BufferTooShort");
    if (class != NULL)
        PyErr_SetObject(class, message);
    return NULL;
}

static PyObject *receive_into(mp_connection *self, const Py_buffer *whole, Py_ssize_t offset)
{
    mp_received received = {NULL, NULL, 0};
    mp_piece room;
    if (mp_connection_part(whole, offset, 0, true, &room) < 0)
        return NULL;
    int done = receive_by_subclass(self, NULL, &received.bytes);
    if (done < 0 ||
        (done == 0 && receive(self, UINT64_MAX, MP_FOREVER, "recv_bytes_into", &received) < 0))
        return NULL;
    PyObject *bytes = load_bytes(self, &received);
    if (bytes == NULL)
        return NULL;
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    PyObject *result;
    if (size > room.size) {
        result = too_short(self, bytes);
    } else {
        memcpy((char *)whole->buf + offset, PyBytes_AS_STRING(bytes), size);
        result = PyLong_FromSize_t(size);
    }
    Py_DECREF(bytes);
    return result;
}

PyObject *mp_connection_recv_bytes_into(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames)
{
    static const mp_signature signature = {"recv_bytes_into", {"buf", "offset"}, 2, 1, 2};
    mp_connection *self = mp_connection_of(object);
    PyObject *values[2];
    Py_ssize_t offset = 0;
    Py_buffer whole;
    if (check_receivable(self) < 0 ||
        mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0)
        return NULL;
    if (values[1] != NULL) {
        offset = PyNumber_AsSsize_t(values[1], PyExc_OverflowError);
        if (offset == -1 && PyErr_Occurred())
            return NULL;
    }
    if (PyObject_GetBuffer(values[0], &whole, PyBUF_WRITABLE) < 0)
        return NULL;
    PyObject *result = receive_into(self, &whole, offset);
    PyBuffer_Release(&whole);
    return result;
}

/* ---- under the standard library's private names ---- */

static PyObject *bytes_io(PyObject *bytes)
{
    PyObject *module = PyImport_ImportModule("io");
    PyObject *result = module == NULL ? NULL : PyObject_CallMethod(module, "BytesIO", "O", bytes);
    Py_XDECREF(module);
    Py_DECREF(bytes);
    return result;
}

/* Where a subclass reads bytes itself: head and body through its _recv(). */
static PyObject *message_by_subclass(mp_connection *self, PyObject *read, uint64_t longest)
{
    mp_frame_in frame = {.kind = MP_FRAME_NONE};
    uint64_t size = 4;
    for (int round = 0;; round++) {
        PyObject *got = PyObject_CallFunction(read, "K", (unsigned long long)size);
        PyObject *bytes = got == NULL ? NULL : bytes_of(got);
        Py_XDECREF(got);
        if (bytes == NULL || frame.kind == MP_FRAME_PLAIN)
            return bytes;
        if (PyBytes_GET_SIZE(bytes) == (Py_ssize_t)size &&
            frame.have + size <= sizeof(frame.head)) {
            memcpy(frame.head + frame.have, PyBytes_AS_STRING(bytes), size);
            frame.have += (uint32_t)size;
        }
        Py_DECREF(bytes);
        // All that the head needs is there, or it asks for 8 bytes more: no descriptor is read.
        mp_stream none = {.file = -1};
        mp_status status = frame.have < 4 ? MP_DAMAGED : mp_frame_read_head(&frame, &none);
        if (status == MP_OK && frame.kind == MP_FRAME_PLAIN) {
            if (frame.size > longest)
                Py_RETURN_NONE;
            size = frame.size;
        } else if (status == MP_SYSTEM && round == 0 && mp_frame_length(frame.head) == -1) {
            size = 8;
        } else {
            return PyErr_Format(PyExc_OSError, "%s._recv(): no head of a message",
                                Py_TYPE((PyObject *)self)->tp_name);
        }
    }
}

PyObject *mp_connection_recv_bytes_hook(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    mp_connection *self = mp_connection_of(object);
    mp_received received;
    PyObject *own;
    uint64_t longest;
    if (nargs > 1)
        return PyErr_Format(PyExc_TypeError, "_recv_bytes() takes at most 1 argument (%zd given)",
                            nargs);
    if (mp_connection_check_open(self) < 0 ||
        parse_longest(nargs == 0 ? NULL : args[0], &longest) < 0)
        return NULL;
    int overridden = mp_connection_override(self, "_recv", &own);
    if (overridden < 0)
        return NULL;
    if (overridden > 0) {
        PyObject *message = message_by_subclass(self, own, longest);
        Py_DECREF(own);
        return message == NULL || message == Py_None ? message : bytes_io(message);
    }
    if (receive(self, longest, MP_FOREVER, "_recv_bytes", &received) < 0)
        return NULL;
    PyObject *bytes = load_bytes(self, &received);
    return bytes == NULL ? NULL : bytes_io(bytes);
}

static PyObject *read_plain_bytes(mp_connection *self, size_t size, mp_status *status)
{
    mp_incoming *incoming = &self->incoming;
    if (incoming->frame.have != 0) {
        PyErr_SetString(PyExc_OSError, "Connection._recv(): a message was read in part");
        return NULL;
    }
    incoming->frame.size = incoming->size = size;
    *status = size == 0 ? make_room(incoming) : read_body(self, MP_FOREVER);
    PyObject *bytes = incoming->body;
    incoming->body = NULL;
    bool nothing = incoming->got == 0;
    mp_incoming_forget(incoming);
    if (*status == MP_OK)
        return bytes;
    Py_XDECREF(bytes);
    if (*status == MP_CLOSED && !nothing)
        PyErr_SetString(PyExc_OSError, "got end of file during message");
    else
        raise_unread(self, *status, "_recv");
    return NULL;
}

PyObject *mp_connection_recv_hook(PyObject *object, PyObject *size)
{
    mp_connection *self = mp_connection_of(object);
    Py_ssize_t bytes = PyNumber_AsSsize_t(size, PyExc_OverflowError);
    if (bytes == -1 && PyErr_Occurred())
        return NULL;
    if (bytes < 0)
        return PyErr_Format(PyExc_ValueError, "_recv(): negative size %zd", bytes);
    if (mp_connection_check_open(self) < 0)
        return NULL;
    bool borrowed;
    mp_status status = take_turn(self, MP_FOREVER, &borrowed);
    if (status != MP_OK)
        return mp_connection_raise(self, status, "_recv");
    PyObject *result = read_plain_bytes(self, (size_t)bytes, &status);
    end_turn(self, borrowed);
    return result == NULL ? NULL : bytes_io(result);
}
