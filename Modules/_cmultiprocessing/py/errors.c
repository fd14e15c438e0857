// SPDX-License-Identifier: PSF-2.0
#include "py/errors.h"

#include <errno.h> // MP_SYSTEM

#include "shm/chunks.h" // mp_chunk_refusal

static void raise_os_error(int number, const char *what, const char *why)
{
    PyObject *arguments = Py_BuildValue("(iN)", number, PyUnicode_FromFormat("%s: %s", what, why));
    if (arguments == NULL)
        return;
    PyErr_SetObject(PyExc_OSError, arguments);
    Py_DECREF(arguments);
}

static void raise_no_memory(mp_state *state, const char *what)
{
    struct mp_refusal refusal = mp_chunk_refusal();
    const char *name = refusal.allowance.name == NULL ? "memory limit" : refusal.allowance.name;
    PyErr_Format(
        state->memory_limit_error,
        "%s: %llu bytes of shared memory wanted, but %s allows only %llu more (limit %llu); "
        "take items out of queues, drop shared objects or raise the limit",
        what, (unsigned long long)refusal.wanted, name, (unsigned long long)refusal.allowance.bytes,
        (unsigned long long)refusal.allowance.limit);
}

static void set_exception(mp_state *state, mp_status status, const char *what)
{
    switch (status) {
    case MP_OK:
    case MP_OWNER_DIED:
    case MP_INTERRUPTED: // by contract the signal handler's exception is set
        break;
    case MP_WOULD_BLOCK: raise_os_error(EAGAIN, what, "would block"); break;
    case MP_TIMEOUT: raise_os_error(ETIMEDOUT, what, "timed out"); break;
    case MP_CLOSED: PyErr_Format(PyExc_ValueError, "%s: the object is closed", what); break;
    case MP_BROKEN: PyErr_Format(PyExc_RuntimeError, "%s: the barrier is broken", what); break;
    case MP_MISUSE:
        PyErr_Format(PyExc_ValueError, "%s: released more often than acquired", what);
        break;
    case MP_NOT_OWNER:
        PyErr_Format(PyExc_AssertionError, "%s: not owned by this thread", what);
        break;
    case MP_STALE:
        PyErr_Format(PyExc_RuntimeError,
                     "%s: the shared object is gone; every process that held it has dropped it",
                     what);
        break;
    case MP_FOREIGN:
        PyErr_Format(
            PyExc_RuntimeError,
            "%s: the shared object belongs to another family of processes; it travels only "
            "among a process and its children. Between unrelated programs use a Manager or "
            "SharedMemory(name=...)",
            what);
        break;
    case MP_DAMAGED:
        PyErr_Format(PyExc_RuntimeError, "%s: the shared memory of this object is damaged", what);
        break;
    case MP_NO_MEMORY: raise_no_memory(state, what); break;
    case MP_NO_SPACE:
        PyErr_Format(state->memory_limit_error,
                     "%s: the address space reserved for shared memory is used up; raise RLIMIT_AS "
                     "(ulimit -v) or drop shared objects",
                     what);
        break;
    case MP_NO_SLOT:
        PyErr_Format(PyExc_RuntimeError,
                     "%s: no free slot, limit is %u processes and %u waiting threads", what,
                     MP_PROCESS_SLOTS - 1, MP_SLEEPER_SLOTS);
        break;
    case MP_TOO_LARGE:
        PyErr_Format(PyExc_OverflowError, "%s: larger than any shared object can be", what);
        break;
    case MP_SYSTEM: raise_os_error(errno, what, strerror(errno)); break;
    }
}

PyObject *mp_raise(mp_state *state, mp_status status, const char *what)
{
    assert(status != MP_OK && status != MP_OWNER_DIED);
    set_exception(state, status, what);
    // An error is returned exactly when an exception is set.
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_SystemError, "%s: unexpected status %d", what, (int)status);
    return NULL;
}
