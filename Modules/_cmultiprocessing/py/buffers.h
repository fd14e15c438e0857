// SPDX-License-Identifier: PSF-2.0
/* Private memory for large buffers that arrive: ordinary writable memory with ordinary semantics.
 *
 * The first touch of fresh pages costs about 1 GB/s, warm ones take 20: what a buffer leaves behind is
 * kept, within bounds, for the next one of its size. */
#ifndef MP_PY_BUFFERS_H
#define MP_PY_BUFFERS_H

#include "py/state.h" // PyObject

/* A new object with the writable buffer interface over `size` uninitialised bytes; `*memory` is
 * where. NULL with MemoryError. */
PyObject *mp_buffer_new(mp_state *state, size_t size, void **memory);

int mp_buffers_exec(PyObject *module);

#endif
