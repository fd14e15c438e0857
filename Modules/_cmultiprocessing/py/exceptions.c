/* SPDX-License-Identifier: PSF-2.0 */
/* Exception and warning classes that the C types raise. */
#include "py/state.h" /* mp_state */

PyDoc_STRVAR(owner_died_doc,
             "A lock was taken over from a process that was killed while it held the lock.\n"
             "\n"
             "What the lock protects may be half changed; lock.owner_died says the same.");

PyDoc_STRVAR(memory_limit_doc,
             "The machine or a control group refuses the shared memory that an operation needs.\n"
             "\n"
             "The message names the size, the limit and the remedy; nothing was changed.");

int mp_exceptions_exec(PyObject *module)
{
    mp_state *state = mp_state_get(module);
    state->owner_died_warning = PyErr_NewExceptionWithDoc(
        "cmultiprocessing.OwnerDiedWarning", owner_died_doc, PyExc_RuntimeWarning, NULL);
    if (state->owner_died_warning == NULL) {
        return -1;
    }
    state->memory_limit_error = PyErr_NewExceptionWithDoc(
        "cmultiprocessing.MemoryLimitError", memory_limit_doc, PyExc_MemoryError, NULL);
    if (state->memory_limit_error == NULL) {
        return -1;
    }
    if (PyModule_AddObjectRef(module, "OwnerDiedWarning", state->owner_died_warning) < 0) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "MemoryLimitError", state->memory_limit_error);
}
