// SPDX-License-Identifier: PSF-2.0
/* The only place that drops the GIL, and where blocked calls look at signals.
 *
 *     static mp_status lock_wait(void *context, mp_time deadline)
 *     {
 *         return mp_lock_acquire_slow(context, deadline);      // spins, then sleeps one slice
 *     }
 *     ...
 *     status = mp_lock_try(lock);                              // GIL held, about a nanosecond
 *     if (status == MP_WOULD_BLOCK && deadline != MP_NO_WAIT)
 *         status = mp_blocking_run(lock_wait, lock, deadline);
 *     if (status != MP_OK)
 *         return mp_raise(state, status, "Lock.acquire()"); */
#ifndef MP_PY_BLOCKING_H
#define MP_PY_BLOCKING_H

#include <Python.h> // signals, the GIL

#include "os/os.h" // mp_time

/* One step of a blocking operation, called without the GIL: may spin and sleep, but returns
 * MP_INTERRUPTED when a signal arrived or its slice (at most 500 ms) is over. What must survive
 * until the next step (a place among the sleepers) lies in *context. */
typedef mp_status (*mp_blocking_call)(void *context, mp_time deadline);

/* Repeat `call` until it returns anything but MP_INTERRUPTED; signal handlers run in between.
 * Returns MP_INTERRUPTED only with an exception set, raised by a signal handler: the caller undoes
 * what *context still claims and returns. errno is that of the last step. */
mp_status mp_blocking_run(mp_blocking_call call, void *context, mp_time deadline);

#endif
