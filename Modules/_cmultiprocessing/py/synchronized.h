// SPDX-License-Identifier: PSF-2.0
/* SynchronizedBase, Synchronized, SynchronizedArray, SynchronizedString: a ctypes object and a lock.
 *
 * Every access takes the lock. Where the object is a plain number (or an array of them) in shared
 * memory it is read and written here, else by asking the ctypes object. What an access costs beside
 * the two atomics of the lock is the Python number. */
#ifndef MP_PY_SYNCHRONIZED_H
#define MP_PY_SYNCHRONIZED_H

#include "py/lock.h"  // mp_lock_object
#include "py/state.h" // the types

#include "sync/cell.h" // numbers

typedef struct mp_synchronized_object {
    PyObject object;
    PyObject *attributes; // __dict__
    PyObject *weakrefs;
    PyObject *obj;  // the ctypes object; NULL: __init__() was not called
    PyObject *lock; // anything with acquire() and release()
    /* The lock again, if it is a Lock or RLock of ours: taken without a call through Python. */
    mp_lock_object *own_lock;
    char *cells; // of obj, which keeps them alive; not used where kind is MP_CELL_NONE
    Py_ssize_t count;
    mp_cell_kind kind;
} mp_synchronized_object;

/* Make the types, once. 0, or -1 with an exception set. */
int mp_synchronized_load(PyObject *module);

#endif
