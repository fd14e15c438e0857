// SPDX-License-Identifier: PSF-2.0
/* Python objects to records and back.
 *
 *     object                                      record
 *     None, True, False                           a tag
 *     int of 64 bits, float                       tag, 8 bytes
 *     str                                         tag (width of its characters), the characters
 *     bytes                                       tag, the bytes
 *     tuple of at most 255 of these, not nested   tag, one tag and bytes each
 *     everything else                             tag, a pickle of protocol 5; large buffers stay outside
 *
 * "int" means exactly that type. The fast forms are used only while the pickler is the package's own:
 * a replaced or patched reduction.ForkingPickler sees every object, through its dumps() and loads().
 * What is longer than a record holds, or names shared objects, becomes a message. */
#ifndef MP_PY_CODEC_H
#define MP_PY_CODEC_H

#include "py/scalars.h" // pickles without a pickler
#include "py/sharing.h" // pins

#include "os/stream.h"       // pieces
#include "structures/ring.h" // items

/* An object on its way into a ring. */
typedef struct mp_outgoing {
    mp_ring_item item;
    PyObject *keep;   // what item.payload points into, or NULL
    mp_time deadline; // of the put: for memory, where somebody was stopped in the heap
    bool late;        // it has passed
} mp_outgoing;

/* Room that a caller must offer for what has no memory of its own. */
#define MP_ENCODE_ROOM MP_INLINE_MAX

/* Encode one object. `*used`: how many bytes of `room` the item needs; it must stay until the item was
 * put. Runs any code, and drops the GIL for what is large. 0, or -1 with an exception set, but where
 * outgoing->late says that there was no memory by the deadline. */
int mp_encode(mp_state *state, mp_ring_handle *ring, PyObject *object, mp_time deadline, void *room,
              size_t *used, mp_outgoing *outgoing);

/* The ring has it. */
void mp_outgoing_forget(mp_outgoing *outgoing);

/* It was not put: give back its message and what that pins. */
void mp_outgoing_cancel(mp_outgoing *outgoing);

/* The object of a record that was taken; a message is released, whatever happens. Runs any code.
 * NULL with an exception set on failure: the item is gone then. */
PyObject *mp_decode(mp_state *state, const void *record);

/* ---- pickles for connections ----
 *
 *     mp_dumped dumped;
 *     if (mp_dump(state, codec, object, false, &dumped) == 0) {
 *         mp_dumped_memory memory;
 *         if (mp_dumped_open(&dumped, &memory) == 0)
 *             ... memory.pieces[1 .. memory.count) ...; mp_dumped_release(&memory)
 *         mp_dumped_close(&dumped, sent);
 *     } */

/* An object that was pickled: what the pickle consists of, and what it pins. */
typedef struct mp_dumped {
    PyObject *codec;    // borrowed; it lives as long as the module
    PyObject *pickling; // by the package's own pickler; else NULL and
    PyObject *custom;   // bytes, by a class that replaced it
    mp_pins pins;       // of the shared objects in it
    unsigned int version;
    size_t scalar; // or its pickle is so many bytes of `room`
    unsigned char room[MP_SCALAR_ROOM];
} mp_dumped;

/* The same as memory that stays until mp_dumped_release. */
typedef struct mp_dumped_memory {
    mp_piece *pieces; // [0] is the caller's, for a head; then the pickle; then `buffers` buffers
    size_t count;
    size_t buffers;
    mp_piece few[6];
} mp_dumped_memory;

/* Pickle `object`. `relative`: for a process of this family; large protocol 5 buffers stay outside of
 * the pickle then. 0, or -1 with an exception set. */
int mp_dump(mp_state *state, PyObject *codec, PyObject *object, bool relative, mp_dumped *dumped);
int mp_dumped_open(const mp_dumped *dumped, mp_dumped_memory *memory);
void mp_dumped_release(mp_dumped_memory *memory);

/* As one bytes object. */
PyObject *mp_dumped_bytes(const mp_dumped *dumped);

/* Forget it. Not sent: what it pins is let go. Keeps an exception that is set. */
void mp_dumped_close(mp_dumped *dumped, bool sent);

/* The object of a pickle. `object`: the codec, here and below. `buffers`: list or NULL. A pickle of a stranger may name modules of the
 * standard library's multiprocessing: they mean ours. Large bytes to which nobody else has a reference are used up by it. */
PyObject *mp_load(PyObject *object, PyObject *bytes, PyObject *buffers, bool stranger);

/* The object of a message that is ours (structures/message.h), or its bytes: those of a pickle with
 * buffers are made anew, with the buffers inside. The message is released, whatever happens. */
PyObject *mp_load_message(mp_state *state, PyObject *object, uint64_t message);
PyObject *mp_load_message_bytes(mp_state *state, PyObject *object, uint64_t message);

/* The bytes of a pickle with buffers, with the buffers inside. */
PyObject *mp_load_bytes(PyObject *object, PyObject *bytes, PyObject *buffers);

/* Release a message of ours without the GIL. Keeps an exception that is set. */
void mp_load_drop(uint64_t message);

/* A name of the module that the codec was made for, as it is now: borrowed, or NULL with an exception
 * set. A codec of NULL: RuntimeError. */
PyObject *mp_codec_global(PyObject *object, const char *name);

/* A name of cmultiprocessing.queues as it is now: borrowed, NULL with an exception set. */
PyObject *mp_codec_name(mp_state *state, const char *name);

/* Exec step: queue_setup(). */
int mp_codec_exec(PyObject *module);

#endif
