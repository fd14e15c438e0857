// SPDX-License-Identifier: PSF-2.0
/* A child of the fork server, from its fork to its process object.
 *
 *     starter   request_head() + start data --------> one of the children that wait
 *     child     TAKEN pid, status pipe -------------> server
 *     child     STARTED pid ------------------------> starter
 *     child     its place in the family, its process object, bootstrap, leave(): LEAVING code
 *
 * In C for the reason that py/child.c gives: the same in Python made the child copy 150 pages. For the same
 * reason what the server knows already is not told again: start data begin with what has to be prepared,
 * and if that is, byte for byte, what the server has prepared, the child goes on to its process object.
 *
 * Killed before TAKEN: the status pipe, of which only the child has an end, is closed, and the starter asks
 * again. Killed later: the server reports the end. */
#ifndef MP_PY_SERVED_CHILD_H
#define MP_PY_SERVED_CHILD_H

#include "py/state.h" // PyObject

#include "core/base.h" // mp_status

#define MP_SERVER_KEY 32 // bytes

/* What the children inherit from the loop. The objects are borrowed. */
typedef struct mp_server {
    uint32_t process;     // the server's number
    int control;          // its end of the sockets that requests come through
    int taken_r, taken_w; // where children tell that they have taken one
    const uint8_t *key;   // what a request begins with
    PyObject *known; // bytes: what is prepared; None if something has to be prepared in any case
    const char *directory; // with what is known: the working directory; empty: the server's
    PyObject *names;       // of the module process
    PyObject *load;        // unpickles bytes
    PyObject *example;     // bytes: a process object, pickled; None: there is none
    PyObject *adopt;       // takes the tracker's descriptor, -1 for none, and a list of descriptors
} mp_server;

/* In a child just forked: wait for a request, and be the process that it asks for. in_a_hurry: it is there.
 *
 * Returns None at the end, without a request; start data (bytes, or the file with them) and the end of the
 * leash, where something has to be prepared; NULL with an exception set, if there is no process object in
 * the start data. Else it does not return. */
PyObject *mp_served_child_live(mp_state *state, const mp_server *server, bool in_a_hurry);

/* Take the request that waits, if there is one, and answer it with an errno. */
mp_status mp_request_refuse(int control, const uint8_t *key, int reason);

#endif
