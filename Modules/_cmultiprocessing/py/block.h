// SPDX-License-Identifier: PSF-2.0
/* BufferWrapper: a piece of shared memory that exports a buffer.
 *
 * Every view of it (memoryview, ctypes object, NumPy array) holds the Python object, and so the
 * memory: nothing can look at bytes that belong to somebody else by now. */
#ifndef MP_PY_BLOCK_H
#define MP_PY_BLOCK_H

#include "py/sharing.h" // mp_shared

typedef struct mp_block_object {
    mp_shared shared;
    char *bytes; // NULL: __init__() was not called
    Py_ssize_t size;
} mp_block_object;

/* Make the type, once. 0, or -1 with an exception set. */
int mp_block_load(PyObject *module);

/* A new BufferWrapper with `size` zeroed bytes; mp_block_load() was called. NULL with an exception
 * set: MemoryLimitError or OverflowError that names the size. */
PyObject *mp_block_object_new(mp_state *state, Py_ssize_t size);

#endif
