/* SPDX-License-Identifier: PSF-2.0 */
/* State of the extension module, and how a type joins it.
 *
 * To add a type `Thing`: write py/thing.c with
 *
 *     int mp_thing_exec(PyObject *module)
 *     {
 *         return mp_state_add_type(module, &mp_state_get(module)->thing_type, &thing_spec);
 *     }
 *
 * declare that function below, add X(thing_type) to MP_STATE_TYPES, and add one line to exec_steps in module.c.
 */
#ifndef MP_PY_STATE_H
#define MP_PY_STATE_H

#include <Python.h> /* PyObject */

/* Lists instead of fields, so that traverse and clear cannot forget one. */
// It finds no stable shape for lists of this kind.
// clang-format off
#define MP_STATE_TYPES(X) \
    X(lock_type) X(rlock_type) X(semaphore_type) X(bounded_semaphore_type) X(condition_type) \
    X(event_type) X(barrier_type) X(simple_ring_type) X(ring_type) X(codec_type) \
    X(pickling_type) X(reducers_type) X(buffer_type) X(block_type) X(synchronized_base_type) \
    X(synchronized_type) X(synchronized_array_type) X(synchronized_string_type) \
    X(connection_type) X(owned_descriptor_type) X(ending_type) X(drain_type)
#define MP_STATE_OBJECTS(X) \
    X(owner_died_warning) X(memory_limit_error) X(rebuild) X(codec) \
    X(typecodes) X(ctypes_entries) X(describe_ctype) X(cell_code) X(reduce_synchronized) \
    X(connection_codec) \
    X(os) X(clear_exit_handlers) X(count_exit_handlers) X(count_type) X(one) X(bootstrap_keywords)
/* Interned strings: field name_NAME. */
#define MP_STATE_NAMES(X) \
    X(fork) X(pidfd_open) X(_exit) X(flush) X(parent_sentinel) X(threading) X(_active) \
    X(_threading_atexits) X(_shutdown) X(_main_thread) X(_native_id) X(_process_counter) \
    X(_current_process) X(_parent) X(_no_input) X(_bootstrap) X(_name) X(_run_late_handlers)
// clang-format on

/* Written by the exec steps only, constant afterwards, but for the last fields: readers need no lock. */
typedef struct {
#define MP_FIELD(name) PyTypeObject *name;
    MP_STATE_TYPES(MP_FIELD)
#undef MP_FIELD
#define MP_FIELD(name) PyObject *name;
    MP_STATE_OBJECTS(MP_FIELD)
#undef MP_FIELD
#define MP_FIELD(name) PyObject *name_##name;
    MP_STATE_NAMES(MP_FIELD)
#undef MP_FIELD
    // Written in a child of the fork server, by the one thread that it has then (py/served_child.c).
    int status_owner; // this process, if it has to tell how it ends; 0: nobody waits for that
    int status_file;  // where it is told
    // Written in the fork server, which has one thread; what its children do at SIGINT. NULL: what it does.
    PyOS_sighandler_t interrupt_handler;
} mp_state;

/* The module's state; never NULL. */
mp_state *mp_state_get(PyObject *module);

/* The state behind a type made by this module or a subclass of it; NULL with TypeError set for any other type. */
mp_state *mp_state_of_type(PyTypeObject *type);

/* Make a heap type from `spec`, keep it in `*field` and add it to the module under its own name.
 * Returns 0, or -1 with an exception set. */
int mp_state_add_type(PyObject *module, PyTypeObject **field, PyType_Spec *spec);

/* The same for a type that is no name of the module. */
int mp_state_keep_type(PyObject *module, PyTypeObject **field, PyType_Spec *spec);

/* Exec steps: each returns 0, or -1 with an exception set. */
int mp_exceptions_exec(PyObject *module);
int mp_sharing_exec(PyObject *module);
int mp_lock_exec(PyObject *module);
int mp_semaphore_exec(PyObject *module);
int mp_condition_exec(PyObject *module);
int mp_event_exec(PyObject *module);
int mp_barrier_exec(PyObject *module);
int mp_family_exec(PyObject *module);
int mp_child_exec(PyObject *module);
int mp_served_child_exec(PyObject *module);
int mp_fork_server_exec(PyObject *module);
int mp_buffers_exec(PyObject *module);
int mp_drain_exec(PyObject *module);
int mp_pickling_exec(PyObject *module);
int mp_codec_exec(PyObject *module);
int mp_queue_exec(PyObject *module);
int mp_descriptors_exec(PyObject *module);
int mp_ending_exec(PyObject *module);
int mp_sharedctypes_exec(PyObject *module);
int mp_connection_exec(PyObject *module);
int mp_packet_exec(PyObject *module);

#endif
