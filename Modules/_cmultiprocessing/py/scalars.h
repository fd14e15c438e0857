// SPDX-License-Identifier: PSF-2.0
/* Pickles of numbers, short ASCII text, bytes and flat tuples of them, written and read without a
 * pickler: what would be most of the time that a small message takes. The bytes are ordinary pickles of
 * protocol 4. The C pickler asks no reducer about such objects either. */
#ifndef MP_PY_SCALARS_H
#define MP_PY_SCALARS_H

#include <Python.h> // PyObject

/* Room that mp_scalar_dump needs at most. */
#define MP_SCALAR_ROOM 512

/* The pickle of `object` in `room`: its length, or 0 if the object is none of these. No exceptions. */
size_t mp_scalar_dump(PyObject *object, unsigned char *room);

/* The object of such a pickle, whoever wrote it. NULL without an exception: it is something else; with
 * one: MemoryError and the like. */
PyObject *mp_scalar_load(const unsigned char *pickle, size_t size);

#endif
