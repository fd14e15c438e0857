// SPDX-License-Identifier: PSF-2.0
/* Connection: whole messages over a descriptor.
 *
 * connection.c has the type, connection_send.c and connection_receive.c what the names say,
 * connection_wait.c poll(), wait() and Pipe(). Fields are changed under the GIL or by the thread whose
 * turn it is. */
#ifndef MP_PY_CONNECTION_H
#define MP_PY_CONNECTION_H

#include "py/codec.h" // pickles

#include "io/frames.h"          // the format
#include "io/turn.h"            // threads that share a connection
#include "structures/parcels.h" // large messages
#include "sync/spin.h"          // whether spinning pays

/* What the two ends of a Pipe() share. Private memory of the process; under the GIL. */
typedef struct mp_lane {
    uint32_t references; // connections of this process, or of the one that it was forked from
    mp_pipe_handle pipe;
} mp_lane;

/* A message on its way in. It outlives the call that began to read it: a deadline or a signal handler
 * may end a call in the middle, and the next one goes on. */
typedef struct mp_incoming {
    mp_frame_in frame;
    PyObject *body; // bytes: the message, or part 0 of one in parts
    size_t size;    // of that, in the end
    size_t got;     // bytes of what is being read now
    /* A message in parts: its table of sizes first, then part 0, then the buffers. */
    uint64_t *sizes;   // PyMem; NULL: not begun
    bool have_sizes;   // the table is complete and checked
    PyObject *buffers; // list; NULL: part 0 is not complete
    char *memory;      // of the last of them, where it is not complete
} mp_incoming;

/* What was received: bytes, and the buffers that its pickle refers to; or a parcel of ours. */
typedef struct mp_received {
    PyObject *bytes;
    PyObject *buffers; // list, or NULL
    uint64_t parcel;   // 0: none
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
    /* Whose turns these are; 0: nobody's. A signal handler or a finalizer may call again in the thread
     * whose turn it is: it must not wait for itself. Stored by the thread whose turn it is. */
    uint64_t sender, receiver;
    const mp_frame_out *outgoing; // the sender's innermost frame
    mp_incoming incoming;         // by the thread whose turn it is to receive
    mp_spin_memory spin;
    mp_lane *lane; // NULL: made from a bare descriptor, or not in the family
    uint32_t side; // which end of the pipe this is
} mp_connection;

static inline mp_connection *mp_connection_of(PyObject *self)
{
    return (mp_connection *)(void *)self;
}

/* 0, or -1 with OSError: closed, or not made for this. */
int mp_connection_check_open(const mp_connection *self);
int mp_connection_check_readable(const mp_connection *self);
int mp_connection_check_writable(const mp_connection *self);

/* The calling thread, as `sender` and `receiver` name it. */
static inline uint64_t mp_connection_thread(void)
{
    return (uint64_t)PyThread_get_thread_ident();
}

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

/* ---- connection_lane.c ---- */

/* A new lane with one reference; NULL, without an exception, where there is no shared memory. */
mp_lane *mp_lane_new(void);
void mp_lane_release(mp_lane *lane); // NULL: nothing
void mp_lane_join(mp_connection *self, mp_lane *lane, uint32_t side);
void mp_lane_leave(mp_connection *self);

/* May parcels travel from here? */
static inline bool mp_lane_usable(const mp_connection *self)
{
    return self->lane != NULL && mp_load_relaxed32(&self->lane->pipe.shm->foreign) == 0;
}

/* Messages from this size on are parcels: below, two copies through the kernel cost less. */
#define MP_PARCEL_LEAST ((size_t)32 << 10)
/* Beyond this size they are not: sender, family and receiver would hold all of it at a time. */
#define MP_PARCEL_MOST (UINT64_C(256) << 20)

/* Send pieces (the pickle, then `buffers` parts) with what they pin as a parcel. 1: sent. 0: not
 * possible now; the descriptor is left. -1: exception. */
int mp_lane_send(mp_connection *self, const mp_piece *pieces, size_t count, size_t buffers,
                 const mp_pins *pins, const char *call);

/* The parcel of a note that came. MP_STALE: its sender was killed before it was sent. */
mp_status mp_lane_take(mp_connection *self, const struct mp_frame_note *note, uint64_t *parcel);

/* Does a note come from this family? */
bool mp_lane_knows(const struct mp_frame_note *note);

PyObject *mp_lane_ticket(PyObject *object, PyObject *ignored);
PyObject *mp_lane_attach(PyObject *object, PyObject *pair);

/* ---- connection_send.c ---- */

/* Send pieces as they are, whole. 0 or -1. */
int mp_connection_send_pieces(mp_connection *self, mp_piece *pieces, size_t count,
                              const char *call);

/* Send pieces as one plain message, whole. 0 or -1. Drops the GIL where that may take long. */
int mp_connection_send_plain(mp_connection *self, mp_piece *pieces, size_t count, const char *call);

PyObject *mp_connection_send(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *mp_connection_send_bytes(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);
PyObject *mp_connection_send_bytes_hook(PyObject *object, PyObject *buffer);
PyObject *mp_connection_send_hook(PyObject *object, PyObject *buffer);

/* ---- connection_receive.c ---- */

PyObject *mp_connection_recv(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *mp_connection_recv_bytes(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);
PyObject *mp_connection_recv_bytes_into(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames);
PyObject *mp_connection_recv_bytes_hook(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *mp_connection_recv_hook(PyObject *object, PyObject *size);
void mp_incoming_forget(mp_incoming *incoming);

/* Spin where it pays, then sleep, until there is something to read. A step of mp_blocking_run. */
mp_status mp_connection_await(mp_connection *self, mp_time deadline);

/* ---- connection_wait.c ---- */

PyObject *mp_connection_poll(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *mp_connection_poll_hook(PyObject *object, PyObject *timeout);
extern PyMethodDef mp_connection_functions[];

#endif
