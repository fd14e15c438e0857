// SPDX-License-Identifier: PSF-2.0
/* A pickler that is used again and again, and tells what a pickle consists of without joining it.
 *
 *     if (mp_pickling_dump(pickling, object) == 0)
 *         ... pickling->pieces, pickling->buffers ...
 *     mp_pickling_reset(pickling);
 *
 * An object's reducers may put something into a queue themselves: whoever pickles meanwhile has
 * another one. */
#ifndef MP_PY_PICKLING_H
#define MP_PY_PICKLING_H

#include "py/state.h" // PyObject

#include <stdbool.h> // inside

typedef struct mp_pickling {
    PyObject head;
    PyObject *pickler;
    PyObject *dump; // bound methods of the pickler
    PyObject *clear_memo;
    PyObject *pieces;  // list: what the pickler wrote, in order
    PyObject *buffers; // list: PickleBuffer objects that stayed outside
    Py_ssize_t size;   // bytes of all pieces
    bool inside;       // buffers go into the pickle, all of them; set before a dump
} mp_pickling;

/* Buffers below this size go into the pickle itself. */
#define MP_BUFFER_LEAST 1024
/* So do those beyond so many. */
#define MP_PICKLE_BUFFERS_MAX 1000

/* A new one with a pickler of class `type`, which asks `reducers` (a mapping) for reducers. */
PyObject *mp_pickling_new(mp_state *state, PyObject *type, PyObject *reducers);

/* Pickle `object`. 0, or -1 with an exception set; the lists are filled. */
int mp_pickling_dump(mp_pickling *self, PyObject *object);

/* Forget the last pickle. */
void mp_pickling_reset(mp_pickling *self);

/* A mapping of types to reducers: two dicts as they are at each look, the first one first. */
PyObject *mp_reducers_new(mp_state *state, PyObject *first, PyObject *second);

int mp_pickling_exec(PyObject *module);

#endif
