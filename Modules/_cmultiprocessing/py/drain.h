// SPDX-License-Identifier: PSF-2.0
/* A large pickle as a file that is used up by reading: its memory goes back to the kernel while the objects
 * that it makes grow, so that a message needs its size once and not twice.
 *
 *     PyObject *drain = mp_drain_new(state, data, size, give_back);
 *     ... _pickle.Unpickler(drain).load() ...
 *     mp_drain_end(drain);                    // `data` may go now, whoever still has the file */
#ifndef MP_PY_DRAIN_H
#define MP_PY_DRAIN_H

#include "py/state.h" // PyObject

/* From this size on: below it the copies are cheap, and so is the memory. */
#define MP_DRAIN_FROM ((size_t)64 << 20)

/* The bytes from `from` to `to` were read and are not asked for again. */
typedef void (*mp_drain_give_back)(char *from, char *to);

/* NULL with MemoryError. */
PyObject *mp_drain_new(mp_state *state, char *data, size_t size, mp_drain_give_back give_back);

/* From now on the file is at its end. */
void mp_drain_end(PyObject *object);

int mp_drain_exec(PyObject *module);

#endif
