// SPDX-License-Identifier: PSF-2.0
/* How shared objects travel in pickles, for every type that has an mp_handle.
 *
 *     static PyObject *event_reduce(mp_event_object *self, PyObject *Py_UNUSED(ignored))
 *     {
 *         return mp_shared_reduce((PyObject *)self, &self->handle, NULL);
 *     }
 *
 * gives (_rebuild, (type(self), ticket, *extra)[, __dict__]), and _rebuild calls
 * type._attach(ticket, *extra), a class method of each type that begins with mp_shared_attach.
 * A pickle holds a pin (shm/objects.h), so that its sender may drop the object, or die. */
#ifndef MP_PY_SHARING_H
#define MP_PY_SHARING_H

#include "py/state.h" // PyObject

#include "shm/objects.h" // tickets

/* What the pickling that is going on in this thread has pinned. Whoever pickles into shared memory
 * brackets it, keeps the tickets with the message, and unpins them when the message is dropped:
 *
 *     mp_pins pins;
 *     mp_pins_begin(&pins, MP_NOBODY);
 *     PyObject *data = pickle(object);      // may run any code, other bracketed pickling included
 *     mp_pins_end(&pins);
 *     ... copy pins.tickets[0 .. pins.count) into the message; or, on failure, mp_pins_drop(&pins)
 *     mp_pins_forget(&pins);
 *
 * Pickles made outside of any bracket are pinned for the process named by pin_target(), else for
 * anybody: such a pin ends when the pickle is loaded. */
typedef struct mp_pins {
    mp_object_ticket *tickets;
    size_t count;
    size_t capacity;
    mp_owner target; // the process that the pickle is meant for, or MP_NOBODY
    struct mp_pins *outer;
} mp_pins;

void mp_pins_begin(mp_pins *pins, mp_owner target);

/* Stop recording; the list stays. In the thread that began, innermost first. */
void mp_pins_end(mp_pins *pins);

/* After mp_pins_end: unpin everything, and forget the list. */
void mp_pins_drop(mp_pins *pins);

/* After mp_pins_end: free the list; the pins stay. */
void mp_pins_forget(mp_pins *pins);

/* The value for __reduce__. `extra`: a tuple of more arguments for _attach, or NULL. NULL with an
 * exception set on failure. */
PyObject *mp_shared_reduce(PyObject *self, const mp_handle *handle, PyObject *extra);

/* Take the object of this type that `ticket` (bytes) names. Returns 0, or -1 with an exception. */
int mp_shared_attach(mp_state *state, PyObject *ticket, uint32_t type, mp_handle *handle);

/* Make a new object of this type; `what` names it in exceptions. Returns 0, or -1. */
int mp_shared_create(mp_state *state, uint32_t type, uint64_t size, const char *what,
                     mp_handle *handle);

/* Exec step: _rebuild() and pin_target(). */
int mp_sharing_exec(PyObject *module);

#endif
