// SPDX-License-Identifier: PSF-2.0
/* Names for repr(): of the calling process and thread, and of types. */
#ifndef MP_PY_NAMES_H
#define MP_PY_NAMES_H

#include <Python.h> // PyObject

/* "MainProcess", or "MainProcess|Thread-1" in another thread than the main one. A new string, or
 * NULL with an exception set. */
PyObject *mp_name_of_caller(void);

/* The last part of the name of self's type: what repr() calls it. */
const char *mp_type_name(PyObject *self);

#endif
