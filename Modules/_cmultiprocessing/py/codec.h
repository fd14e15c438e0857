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

#include "py/state.h" // PyObject

#include "structures/ring.h" // items

/* An object on its way into a ring. */
typedef struct mp_outgoing {
    mp_ring_item item;
    PyObject *keep; // what item.payload points into, or NULL
} mp_outgoing;

/* Room that a caller must offer for what has no memory of its own. */
#define MP_ENCODE_ROOM MP_INLINE_MAX

/* Encode one object. `*used`: how many bytes of `room` the item needs; it must stay until the item was
 * put. Runs any code, and drops the GIL for what is large. 0, or -1 with an exception set. */
int mp_encode(mp_state *state, mp_ring_handle *ring, PyObject *object, void *room, size_t *used,
              mp_outgoing *outgoing);

/* The ring has it. */
void mp_outgoing_forget(mp_outgoing *outgoing);

/* It was not put: give back its message and what that pins. */
void mp_outgoing_cancel(mp_outgoing *outgoing);

/* The object of a record that was taken; a message is released, whatever happens. Runs any code.
 * NULL with an exception set on failure: the item is gone then. */
PyObject *mp_decode(mp_state *state, const void *record);

/* Release a taken record that nobody wants. */
void mp_decode_drop(const void *record);

/* A name of cmultiprocessing.queues as it is now: borrowed, NULL with an exception set. */
PyObject *mp_codec_name(mp_state *state, const char *name);

/* Exec step: queue_setup(). */
int mp_codec_exec(PyObject *module);

#endif
