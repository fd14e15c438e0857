// SPDX-License-Identifier: PSF-2.0
/* From mp_status to exceptions, in one switch. */
#ifndef MP_PY_ERRORS_H
#define MP_PY_ERRORS_H

#include "py/state.h" // exception classes

#include "core/base.h" // mp_status

/* Set the exception for a status that is not a result of this call's everyday life, and return NULL.
 * `what` names the object and the call, e.g. "Queue.put()". Every status but MP_OK and MP_OWNER_DIED
 * is accepted; MP_INTERRUPTED means that the exception is set already (py/blocking.h). Calls that
 * document another exception (queue.Empty, ...) look for their status before they come here.
 * MP_SYSTEM reads errno. */
PyObject *mp_raise(mp_state *state, mp_status status, const char *what);

/* The same for functions that return int: -1. */
static inline int mp_raise_int(mp_state *state, mp_status status, const char *what)
{
    (void)mp_raise(state, status, what);
    return -1;
}

#endif
