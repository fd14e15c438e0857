/* SPDX-License-Identifier: PSF-2.0 */
/* Entry of cmultiprocessing._cmultiprocessing: only tables. What the module offers is in one file per type. */
#include "py/state.h" /* mp_state, exec steps */

typedef int (*exec_step)(PyObject *module);

/* In this order; a step may use what the steps above it made. */
static const exec_step exec_steps[] = {
    mp_exceptions_exec,  mp_sharing_exec,      mp_lock_exec,        mp_semaphore_exec,
    mp_condition_exec,   mp_event_exec,        mp_barrier_exec,     mp_family_exec,
    mp_descriptors_exec, mp_buffers_exec,      mp_pickling_exec,    mp_codec_exec,
    mp_queue_exec,       mp_sharedctypes_exec, mp_connection_exec,  mp_packet_exec,
    mp_child_exec,       mp_served_child_exec, mp_fork_server_exec, mp_ending_exec,
    mp_drain_exec,
};

static int module_exec(PyObject *module)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(exec_steps); i++) {
        if (exec_steps[i](module) < 0) {
            return -1;
        }
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    mp_state *state = mp_state_get(module);
#define MP_VISIT(name) Py_VISIT(state->name);
    MP_STATE_TYPES(MP_VISIT)
    MP_STATE_OBJECTS(MP_VISIT)
#undef MP_VISIT
    return 0;
}

static int module_clear(PyObject *module)
{
    mp_state *state = mp_state_get(module);
#define MP_CLEAR(name) Py_CLEAR(state->name);
    MP_STATE_TYPES(MP_CLEAR)
    MP_STATE_OBJECTS(MP_CLEAR)
#undef MP_CLEAR
#define MP_CLEAR(name) Py_CLEAR(state->name_##name);
    MP_STATE_NAMES(MP_CLEAR)
#undef MP_CLEAR
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear(module);
}

PyDoc_STRVAR(module_doc, "Native half of cmultiprocessing; import cmultiprocessing instead.");

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "cmultiprocessing._cmultiprocessing",
    .m_doc = module_doc,
    .m_size = sizeof(mp_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

mp_state *mp_state_get(PyObject *module)
{
    mp_state *state = PyModule_GetState(module);
    assert(state != NULL);
    return state;
}

mp_state *mp_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &module_def);
    return module == NULL ? NULL : mp_state_get(module);
}

int mp_state_keep_type(PyObject *module, PyTypeObject **field, PyType_Spec *spec)
{
    *field = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *field == NULL ? -1 : 0; /* owned by the state */
}

int mp_state_add_type(PyObject *module, PyTypeObject **field, PyType_Spec *spec)
{
    if (mp_state_keep_type(module, field, spec) < 0) {
        return -1;
    }
    return PyModule_AddType(module, *field);
}

PyMODINIT_FUNC PyInit__cmultiprocessing(void)
{
    return PyModuleDef_Init(&module_def);
}
