// SPDX-License-Identifier: PSF-2.0
/* Lock and RLock, and what Condition needs of them. */
#ifndef MP_PY_LOCK_H
#define MP_PY_LOCK_H

#include "py/sharing.h" // mp_shared

#include "sync/lock.h" // mp_lock_handle

typedef struct mp_lock_object {
    mp_shared shared;
    mp_lock_handle own;
} mp_lock_object;

/* A new Lock (flags 0 or MP_LOCK_FRAGILE) or RLock (MP_LOCK_RECURSIVE) of this type. */
PyObject *mp_lock_object_new(PyTypeObject *type, uint32_t flags);

static inline mp_lock_object *mp_lock_object_of(PyObject *self)
{
    return (mp_lock_object *)(void *)self;
}

/* Take the lock. 1: held; 0: not by the deadline (MP_NO_WAIT: not now); -1: exception, not held.
 * OwnerDiedWarning where it was taken over from a killed owner; where warnings are errors the lock is
 * released again. */
int mp_lock_object_acquire(mp_lock_object *self, mp_time deadline);

/* Take the lock back at the end of a wait, as deep as it was; false: not held. An exception that is
 * set already stays. Once there is one (a signal handler raised), it gives up after a second. */
bool mp_lock_object_reacquire(mp_lock_object *self, uint32_t depth);

/* 0, or -1 with ValueError (Lock) or AssertionError (RLock). */
int mp_lock_object_release(mp_lock_object *self);

/* Who holds it, as repr() says it: "None", "MainProcess|Thread-1", "SomeOtherProcess" ... A new
 * string, or NULL with an exception. */
PyObject *mp_lock_object_holder(mp_lock_object *self);

#endif
