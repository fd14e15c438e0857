// SPDX-License-Identifier: PSF-2.0
/* Semaphore and BoundedSemaphore. */
#include "py/sharing.h" // mp_shared

#include "py/arguments.h" // acquire(block, timeout)
#include "py/blocking.h"  // waiting without the GIL
#include "py/names.h"     // repr

#include "sync/semaphore.h" // the semaphore itself

typedef struct mp_semaphore_object {
    mp_shared shared;
    struct mp_semaphore_shm *semaphore;
    mp_spin_memory spin;
} mp_semaphore_object;

static mp_semaphore_object *semaphore_of(PyObject *self)
{
    return (mp_semaphore_object *)(void *)self;
}

/* ---- life ---- */

static const mp_signature semaphore_signature = {"Semaphore", {"value", "ctx", "robust"}, 3, 0, 1};
static const mp_signature bounded_signature = {
    "BoundedSemaphore", {"value", "ctx", "robust"}, 3, 0, 1};

/* How many tokens a robust semaphore gets: release() beyond the initial value makes new ones. */
static uint32_t tokens_of(bool bounded, int64_t value)
{
    uint32_t least = bounded ? 1 : 1024;
    return value > least ? (uint32_t)value : least;
}

static int create(PyObject *self, PyObject *const *values, bool bounded)
{
    int64_t value = 1;
    int robust = values[2] == NULL ? 0 : PyObject_IsTrue(values[2]);
    if (robust < 0)
        return -1;
    int64_t most = robust ? MP_SEMAPHORE_TOKENS_MAX : MP_SEMAPHORE_MAX;
    if (values[0] != NULL && mp_integer_parse(values[0], "value", 0, most, &value) < 0)
        return -1;
    uint32_t tokens = robust ? tokens_of(bounded, value) : 0;
    if (mp_shared_create(self, MP_TYPE_SEMAPHORE, mp_semaphore_size(tokens)) < 0)
        return -1;
    struct mp_semaphore_shm *semaphore = mp_object_payload(&mp_shared_of(self)->handle);
    mp_semaphore_init(semaphore, (uint32_t)value, bounded ? (uint32_t)value : MP_SEMAPHORE_MAX,
                      tokens);
    semaphore_of(self)->semaphore = semaphore;
    return 0;
}

static int semaphore_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *values[3];
    if (mp_arguments_sort_dict(&semaphore_signature, args, kwargs, values) < 0)
        return -1;
    return create(self, values, false);
}

static int bounded_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *values[3];
    if (mp_arguments_sort_dict(&bounded_signature, args, kwargs, values) < 0)
        return -1;
    return create(self, values, true);
}

static PyObject *semaphore_attach(PyObject *type, PyObject *ticket)
{
    PyObject *self = mp_shared_attach((PyTypeObject *)type, ticket, MP_TYPE_SEMAPHORE);
    if (self == NULL)
        return NULL;
    const mp_handle *handle = &mp_shared_of(self)->handle;
    struct mp_semaphore_shm *semaphore = mp_object_payload(handle);
    if (!mp_semaphore_valid(semaphore, mp_chunk_capacity(handle->offset))) {
        (void)mp_shared_raise(self, MP_DAMAGED, "unpickle");
        Py_DECREF(self);
        return NULL;
    }
    semaphore_of(self)->semaphore = semaphore;
    return self;
}

static PyObject *semaphore_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return mp_shared_reduce(self, &mp_shared_of(self)->handle, NULL);
}

/* ---- acquire, release ---- */

static mp_status semaphore_wait(void *context, mp_time deadline)
{
    return mp_semaphore_acquire(context, deadline);
}

/* 1: acquired, 0: not in time, -1: exception. */
static int take(PyObject *object, mp_time deadline)
{
    mp_semaphore_object *self = semaphore_of(object);
    if (mp_shared_check(object, "acquire") < 0)
        return -1;
    mp_status status = mp_semaphore_try(self->semaphore);
    if (status == MP_WOULD_BLOCK && deadline != MP_NO_WAIT) {
        mp_semaphore_wait wait = {.semaphore = self->semaphore, .memory = &self->spin};
        status = mp_blocking_run(semaphore_wait, &wait, deadline);
    }
    if (mp_likely(status == MP_OK))
        return 1;
    if (status == MP_WOULD_BLOCK || status == MP_TIMEOUT)
        return 0;
    return mp_shared_raise(object, status, "acquire");
}

PyDoc_STRVAR(acquire_doc,
             "acquire($self, /, block=True, timeout=None)\n--\n\n"
             "Take one off the value, waiting while it is 0.\n\n"
             "Args:\n"
             "    block: whether to wait.\n"
             "    timeout: seconds to wait at most; None: for ever; negative: not at all.\n\n"
             "Returns:\n"
             "    True if it was acquired, False if it could not be in time.\n\n"
             "Since 2.6; documented in multiprocessing, 'Synchronization primitives'.");

static PyObject *semaphore_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames)
{
    static const mp_signature signature = {"acquire", {"block", "timeout"}, 2, 0, 2};
    mp_time deadline = MP_FOREVER;
    if (nargs > 0 || kwnames != NULL) {
        PyObject *values[2];
        if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
            mp_block_parse(values[0], values[1], &deadline) < 0)
            return NULL;
    }
    int taken = take(self, deadline);
    return taken < 0 ? NULL : Py_NewRef(taken ? Py_True : Py_False);
}

PyDoc_STRVAR(
    release_doc,
    "release($self, /)\n--\n\n"
    "Add one to the value and wake one that waits.\n\n"
    "Raises:\n"
    "    ValueError: the value is at its maximum already (BoundedSemaphore: the initial one).");

static PyObject *semaphore_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "release") < 0)
        return NULL;
    if (mp_semaphore_release(semaphore_of(self)->semaphore) == MP_MISUSE) {
        PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *semaphore_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (take(self, MP_FOREVER) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *semaphore_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
                                Py_ssize_t Py_UNUSED(nargs))
{
    return semaphore_release(self, NULL);
}

PyDoc_STRVAR(get_value_doc, "get_value($self, /)\n--\n\n"
                            "How many acquire() calls would succeed now. Since 2.6.");

static PyObject *semaphore_get_value(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "get_value") < 0)
        return NULL;
    return PyLong_FromUnsignedLong(mp_semaphore_value(semaphore_of(self)->semaphore));
}

PyDoc_STRVAR(locked_doc,
             "locked($self, /)\n--\n\n"
             "Whether acquire() would have to wait. Since 3.14 (here: on every version).");

static PyObject *semaphore_locked(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "locked") < 0)
        return NULL;
    return PyBool_FromLong(mp_semaphore_value(semaphore_of(self)->semaphore) == 0);
}

static PyObject *get_kind(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return PyLong_FromLong(1);
}

static PyObject *get_maxvalue(PyObject *self, void *Py_UNUSED(closure))
{
    if (mp_shared_check(self, "maxvalue") < 0)
        return NULL;
    return PyLong_FromUnsignedLong(semaphore_of(self)->semaphore->max);
}

static PyObject *semaphore_repr(PyObject *self)
{
    if (mp_shared_check(self, "__repr__") < 0)
        return NULL;
    const struct mp_semaphore_shm *semaphore = semaphore_of(self)->semaphore;
    unsigned value = mp_semaphore_value(semaphore);
    if (semaphore->max == MP_SEMAPHORE_MAX)
        return PyUnicode_FromFormat("<%s(value=%u)>", mp_type_name(self), value);
    return PyUnicode_FromFormat("<%s(value=%u, maxvalue=%u)>", mp_type_name(self), value,
                                (unsigned)semaphore->max);
}

/* ---- tables ---- */

#define AS_METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef semaphore_methods[] = {
    {"acquire", AS_METHOD(semaphore_acquire), METH_FASTCALL | METH_KEYWORDS, acquire_doc},
    {"release", semaphore_release, METH_NOARGS, release_doc},
    {"get_value", semaphore_get_value, METH_NOARGS, get_value_doc},
    {"locked", semaphore_locked, METH_NOARGS, locked_doc},
    {"__enter__", semaphore_enter, METH_NOARGS, "Acquire."},
    {"__exit__", AS_METHOD(semaphore_exit), METH_FASTCALL, "Release."},
    {"__reduce__", semaphore_reduce, METH_NOARGS, NULL},
    {"_attach", semaphore_attach, METH_O | METH_CLASS, NULL},
    {"_get_value", semaphore_get_value, METH_NOARGS, get_value_doc},
    {"_is_zero", semaphore_locked, METH_NOARGS, locked_doc},
    {"_after_fork", mp_shared_after_fork, METH_NOARGS, "Nothing: a fork needs no repair."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef semaphore_getset[] = {
    MP_SHARED_DICT,
    MP_SHARED_SEMLOCK,
    {"kind", get_kind, NULL, "SEMAPHORE.", NULL},
    {"maxvalue", get_maxvalue, NULL, "The value that release() cannot exceed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    semaphore_doc,
    "Semaphore(value=1, *, ctx=None, robust=False)\n--\n\n"
    "A counter that acquire() takes from and release() adds to, shared between processes.\n\n"
    "Args:\n"
    "    value: the initial value, 0 to SEM_VALUE_MAX.\n"
    "    ctx: accepted for compatibility; a semaphore works under every start method.\n"
    "    robust: whether what a process acquired comes back when it is gone without having\n"
    "        released it. At most 4096 then.\n\n"
    "Since 2.6; documented in multiprocessing, 'Synchronization primitives'.");

PyDoc_STRVAR(bounded_doc,
             "BoundedSemaphore(value=1, *, ctx=None, robust=False)\n--\n\n"
             "A Semaphore whose value cannot be released above the initial one.\n\n"
             "Since 2.6; documented in multiprocessing, 'Synchronization primitives'.");

#define COMMON_SLOTS                                                                               \
 {Py_tp_new, PyType_GenericNew}, {Py_tp_dealloc, mp_shared_dealloc},                               \
     {Py_tp_traverse, mp_shared_traverse}, {Py_tp_clear, mp_shared_clear},                         \
     {Py_tp_members, mp_shared_members}, {Py_tp_getset, semaphore_getset},                         \
     {Py_tp_methods, semaphore_methods},                                                           \
 {                                                                                                 \
  Py_tp_repr, semaphore_repr                                                                       \
 }

static PyType_Slot semaphore_slots[] = {
    COMMON_SLOTS,
    {Py_tp_init, semaphore_init},
    {Py_tp_doc, (void *)semaphore_doc},
    {0, NULL},
};

static PyType_Slot bounded_slots[] = {
    COMMON_SLOTS,
    {Py_tp_init, bounded_init},
    {Py_tp_doc, (void *)bounded_doc},
    {0, NULL},
};

static PyType_Spec semaphore_spec = {
    .name = "cmultiprocessing.synchronize.Semaphore",
    .basicsize = sizeof(mp_semaphore_object),
    .flags = MP_SHARED_FLAGS,
    .slots = semaphore_slots,
};

static PyType_Spec bounded_spec = {
    .name = "cmultiprocessing.synchronize.BoundedSemaphore",
    .basicsize = sizeof(mp_semaphore_object),
    .flags = MP_SHARED_FLAGS,
    .slots = bounded_slots,
};

int mp_semaphore_exec(PyObject *module)
{
    mp_state *state = mp_state_get(module);
    if (mp_state_add_type(module, &state->semaphore_type, &semaphore_spec) < 0 ||
        PyModule_AddIntConstant(module, "SEM_VALUE_MAX", MP_SEMAPHORE_MAX) < 0)
        return -1;
    // A BoundedSemaphore is a Semaphore, as in the standard library.
    PyObject *base = (PyObject *)state->semaphore_type;
    state->bounded_semaphore_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &bounded_spec, base);
    if (state->bounded_semaphore_type == NULL)
        return -1;
    return PyModule_AddType(module, state->bounded_semaphore_type);
}
