// SPDX-License-Identifier: PSF-2.0
/* What all Python objects that stand for a shared object have in common: their head, their life, and
 * how they travel in pickles.
 *
 *     typedef struct mp_event_object {
 *         mp_shared shared;                // first
 *         ...
 *     } mp_event_object;
 *
 *     static PyObject *event_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
 *     {
 *         return mp_shared_reduce(self, &mp_shared_of(self)->handle, NULL);
 *     }
 *
 * gives (_rebuild, (type(self), ticket, *extra)[, __dict__]), and _rebuild calls
 * type._attach(ticket, *extra), a class method of each type that begins with mp_shared_attach.
 * A pickle holds a pin (shm/objects.h), so that its sender may drop the object, or die. */
#ifndef MP_PY_SHARING_H
#define MP_PY_SHARING_H

#include "py/state.h" // PyObject

#include <structmember.h> // PyMemberDef of 3.11

#include "shm/objects.h" // tickets

/* Head of every such object. Weak references, a __dict__ and garbage collection, as the standard
 * library's have them. */
typedef struct mp_shared {
    PyObject object;
    PyObject *attributes; // __dict__
    PyObject *weakrefs;
    mp_handle handle; // type 0: no shared object (yet)
} mp_shared;

static inline mp_shared *mp_shared_of(PyObject *self)
{
    return (mp_shared *)(void *)self;
}

/* Slots for types that add nothing to the head that needs them. */
int mp_shared_traverse(PyObject *self, visitproc visit, void *arg);
int mp_shared_clear(PyObject *self);
void mp_shared_dealloc(PyObject *self);

/* Parts of a dealloc: before and after the type's own. The second frees the object. */
void mp_shared_dealloc_begin(PyObject *self);
void mp_shared_dealloc_end(PyObject *self);

extern PyMemberDef mp_shared_members[]; // for Py_tp_members

/* For a type's getset table. */
#define MP_SHARED_DICT                                                                             \
 {                                                                                                 \
  "__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL                         \
 }

/* The names under which libraries look into the standard library's objects: the object itself answers
 * for its _semlock. For a getset table, and a method table. */
#define MP_SHARED_SEMLOCK                                                                          \
 {"_semlock", mp_shared_get_self, NULL, "The object itself.", NULL},                               \
     {"handle", mp_shared_get_handle, NULL, "Its place in the family's memory.", NULL},            \
 {                                                                                                 \
  "name", mp_shared_get_name, NULL, "None: it has no name in the system.", NULL                    \
 }

PyObject *mp_shared_get_self(PyObject *self, void *closure);
PyObject *mp_shared_get_handle(PyObject *self, void *closure);
PyObject *mp_shared_get_name(PyObject *self, void *closure);
PyObject *mp_shared_after_fork(PyObject *self, PyObject *ignored);

#define MP_SHARED_FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC)

/* Is this process in the family now? False in the last moments of a process, after family_leave(),
 * when there is nothing left to release. */
bool mp_shared_present(void);

/* For operations that found no shared object: __init__() was not called. -1. */
int mp_shared_raise_unready(PyObject *self);

/* Give the exception for `status`, which names self's type and `call`. -1. */
int mp_shared_raise(PyObject *self, mp_status status, const char *call);

/* Before every operation on a shared object: 0, or -1 with an exception set when __init__() was not
 * called or this process cannot be in the family. */
static inline int mp_shared_check(PyObject *self, const char *call)
{
    if (mp_unlikely(mp_shared_of(self)->handle.type == 0))
        return mp_shared_raise_unready(self);
    mp_status status = mp_family_enter();
    return mp_likely(status == MP_OK) ? 0 : mp_shared_raise(self, status, call);
}

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
    bool outside;    // the pickle may leave the family; false at first
    struct mp_pins *outer;
} mp_pins;

void mp_pins_begin(mp_pins *pins, mp_owner target);

/* Stop recording; the list stays. In the thread that began, innermost first. */
void mp_pins_end(mp_pins *pins);

/* After mp_pins_end: unpin everything, and forget the list. */
void mp_pins_drop(mp_pins *pins);

/* After mp_pins_end: free the list; the pins stay. */
void mp_pins_forget(mp_pins *pins);

/* What this thread pickles now: does it stay in the family for sure? */
bool mp_pins_in_family(void);

/* A ticket for something that is not a Python object of its own, pinned and recorded like any other.
 * NULL with an exception set. */
PyObject *mp_pins_ticket(mp_state *state, const mp_handle *handle);

/* The value for __reduce__. `extra`: a tuple of more arguments for _attach, or NULL. NULL with an
 * exception set on failure. */
PyObject *mp_shared_reduce(PyObject *self, const mp_handle *handle, PyObject *extra);

/* A new Python object of this type for the shared object that `ticket` (bytes) names, of type
 * `kind`. NULL with an exception set on failure. */
PyObject *mp_shared_attach(PyTypeObject *type, PyObject *ticket, uint32_t kind);

/* Make the shared object of a Python object that has none yet. 0, or -1 with an exception set;
 * RuntimeError where __init__() is called a second time. */
int mp_shared_create(PyObject *self, uint32_t kind, uint64_t size);

/* Exec step: _rebuild() and pin_target(). */
int mp_sharing_exec(PyObject *module);

#endif
