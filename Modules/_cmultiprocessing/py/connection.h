// SPDX-License-Identifier: PSF-2.0
/* Connection: whole messages over a descriptor.
 *
 * connection.c has the type, connection_send.c and connection_receive.c what the names say,
 * connection_wait.c poll(), wait() and Pipe(). Fields are changed under the GIL or by the thread whose
 * turn it is. */
#ifndef MP_PY_CONNECTION_H
#define MP_PY_CONNECTION_H

#include "py/codec.h" // pickles

#include "io/frames.h" // the format
#include "io/turn.h"   // threads that share a connection
#include "sync/spin.h" // whether spinning pays

/* A message on its way in. It outlives the call that began to read it: a deadline or a signal handler
 * may end a call in the middle, and the next one goes on. */
typedef struct mp_incoming {
    mp_frame_in frame;
    PyObject *body; // bytes: the message, or part 0 of one in parts
    size_t got;     // bytes of what is being read now
    /* Messages in parts. */
    uint64_t *sizes;   // of the parts; PyMem
    size_t sizes_got;  // bytes of that table that have come
    PyObject *buffers; // list; parts 1 ... as far as they have begun
    void *memory;      // where the last of them goes
} mp_incoming;

/* What was received: bytes, and the buffers that its pickle refers to. */
typedef struct mp_received {
    PyObject *bytes;
    PyObject *buffers; // list, or NULL
} mp_received;

typedef struct mp_connection {
    PyObject object;
    PyObject *attributes; // __dict__
    PyObject *weakrefs;
    mp_state *state;  // of the type's module
    mp_stream stream; // .file < 0: closed, or never opened
    bool readable, writable;
    bool cut; // a message was cut off while it was sent: what would follow is no frame any more
    mp_turn sending, receiving;
    mp_incoming incoming; // by the thread whose turn it is to receive
    mp_spin_memory spin;
} mp_connection;

static inline mp_connection *mp_connection_of(PyObject *self)
{
    return (mp_connection *)(void *)self;
}

/* 0, or -1 with OSError: closed, or not made for this. */
int mp_connection_check_open(const mp_connection *self);
int mp_connection_check_readable(const mp_connection *self);
int mp_connection_check_writable(const mp_connection *self);

/* A name of cmultiprocessing.connection as it is now: borrowed, NULL with an exception set. */
PyObject *mp_connection_name(const mp_connection *self, const char *name);

/* What a subclass made of `_send_bytes` and the like: 1 and a new reference to its bound method; 0:
 * nothing; -1: exception. */
int mp_connection_override(const mp_connection *self, const char *name, PyObject **method);

/* The exception for a status of frames.h, naming the call. NULL. */
PyObject *mp_connection_raise(const mp_connection *self, mp_status status, const char *call);

/* A view of bytes offset .. offset + size of a contiguous buffer, with the documented errors. */
int mp_connection_part(const Py_buffer *whole, Py_ssize_t offset, Py_ssize_t size, bool to_the_end,
                       mp_piece *part);

/* ---- connection_send.c ---- */

/* Send pieces as one plain message, whole. 0 or -1. Drops the GIL where that may take long. */
int mp_connection_send_plain(mp_connection *self, mp_piece *pieces, size_t count, const char *call);

PyObject *mp_connection_send(PyObject *self, PyObject *object);
PyObject *mp_connection_send_bytes(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);
PyObject *mp_connection_send_bytes_hook(PyObject *self, PyObject *buffer);
PyObject *mp_connection_send_hook(PyObject *self, PyObject *buffer);

/* ---- connection_receive.c ---- */

PyObject *mp_connection_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *mp_connection_recv_bytes(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);
PyObject *mp_connection_recv_bytes_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames);
PyObject *mp_connection_recv_bytes_hook(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *mp_connection_recv_hook(PyObject *self, PyObject *size);
void mp_incoming_forget(mp_incoming *incoming);

/* Spin where it pays, then sleep, until there is something to read. A step of mp_blocking_run. */
mp_status mp_connection_await(mp_connection *self, mp_time deadline);

/* ---- connection_wait.c ---- */

PyObject *mp_connection_poll(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *mp_connection_poll_hook(PyObject *self, PyObject *timeout);
extern PyMethodDef mp_connection_functions[];

#endif
