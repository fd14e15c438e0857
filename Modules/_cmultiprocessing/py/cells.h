// SPDX-License-Identifier: PSF-2.0
/* Numbers in shared memory to Python objects and back, as ctypes does it. */
#ifndef MP_PY_CELLS_H
#define MP_PY_CELLS_H

#include <Python.h> // PyObject

#include "sync/cell.h" // the numbers

/* The kind of cell behind a ctypes type code (c_int._type_ and so on) of so many bytes. */
mp_cell_kind mp_cell_kind_of(const char *code, Py_ssize_t size);

/* What `value` of a ctypes object says. A new reference, or NULL with an exception set. */
PyObject *mp_cell_to_python(mp_cell_kind kind, mp_number number);

/* Can this object be stored in a cell of this kind without asking ctypes? 1: *number is what to
 * store; 0: no, ctypes knows what to do, or how to refuse; -1: exception. */
int mp_cell_from_python(mp_cell_kind kind, PyObject *value, mp_number *number);

/* `count` cells, `step` cells apart, copied from shared memory: a list; of characters: bytes. */
PyObject *mp_cells_to_python(mp_cell_kind kind, const char *copy, Py_ssize_t start, Py_ssize_t step,
                             Py_ssize_t count);

#endif
