// SPDX-License-Identifier: PSF-2.0
/* Barrier: all of threading.Barrier. */
#include "py/sharing.h" // mp_shared

#include "py/arguments.h" // wait(timeout)
#include "py/blocking.h"  // waiting without the GIL
#include "py/names.h"     // repr

#include "sync/barrier.h" // the barrier itself

typedef struct mp_barrier_object {
    mp_shared shared;
    struct mp_barrier_shm *barrier;
    PyObject *action;  // NULL: none
    PyObject *timeout; // default of wait(); NULL: None
    mp_spin_memory spin;
} mp_barrier_object;

static mp_barrier_object *barrier_of(PyObject *self)
{
    return (mp_barrier_object *)(void *)self;
}

/* ---- life ---- */

/* What only this process knows of the barrier. */
static void keep(mp_barrier_object *self, PyObject *action, PyObject *timeout)
{
    self->barrier = mp_object_payload(&self->shared.handle);
    self->action = action == NULL || action == Py_None ? NULL : Py_NewRef(action);
    self->timeout = timeout == NULL || timeout == Py_None ? NULL : Py_NewRef(timeout);
}

static int barrier_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const mp_signature signature = {
        "Barrier", {"parties", "action", "timeout", "ctx"}, 4, 1, 3};
    PyObject *values[4];
    int64_t parties;
    mp_time checked;
    if (mp_arguments_sort_dict(&signature, args, kwargs, values) < 0 ||
        mp_integer_parse(values[0], "parties", 1, MP_SLEEPER_SLOTS, &parties) < 0 ||
        mp_deadline_parse(values[2], &checked) < 0 ||
        mp_shared_create(self, MP_TYPE_BARRIER, sizeof(struct mp_barrier_shm)) < 0)
        return -1;
    keep(barrier_of(self), values[1], values[2]);
    barrier_of(self)->barrier->parties = (uint32_t)parties;
    return 0;
}

static int barrier_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(barrier_of(self)->action);
    Py_VISIT(barrier_of(self)->timeout);
    return mp_shared_traverse(self, visit, arg);
}

static int barrier_clear(PyObject *self)
{
    Py_CLEAR(barrier_of(self)->action);
    Py_CLEAR(barrier_of(self)->timeout);
    return mp_shared_clear(self);
}

static void barrier_dealloc(PyObject *self)
{
    mp_shared_dealloc_begin(self);
    (void)barrier_clear(self);
    mp_shared_dealloc_end(self);
}

static PyObject *barrier_attach(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "_attach(ticket, action, timeout)");
        return NULL;
    }
    PyObject *self = mp_shared_attach((PyTypeObject *)type, args[0], MP_TYPE_BARRIER);
    if (self != NULL)
        keep(barrier_of(self), args[1], args[2]);
    return self;
}

static PyObject *or_none(PyObject *object)
{
    return object == NULL ? Py_None : object;
}

static PyObject *barrier_reduce(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    const mp_barrier_object *self = barrier_of(object);
    PyObject *extra = PyTuple_Pack(2, or_none(self->action), or_none(self->timeout));
    if (extra == NULL)
        return NULL;
    PyObject *result = mp_shared_reduce(object, &self->shared.handle, extra);
    Py_DECREF(extra);
    return result;
}

/* ---- wait ---- */

/* The class is threading's. It is looked up when it is raised: with threading in the process, every
 * fork costs the child a hundred pages, and most programs have no barrier. */
static PyObject *raise_broken(void)
{
    PyObject *threading = PyImport_ImportModule("threading");
    if (threading == NULL)
        return NULL;
    PyObject *error = PyObject_GetAttrString(threading, "BrokenBarrierError");
    Py_DECREF(threading);
    if (error != NULL)
        PyErr_SetNone(error);
    Py_XDECREF(error);
    return NULL;
}

static mp_status arrive_step(void *context, mp_time deadline)
{
    return mp_barrier_arrive(context, deadline);
}

static mp_status release_step(void *context, mp_time Py_UNUSED(deadline))
{
    return mp_barrier_finish(context, true);
}

static mp_status break_step(void *context, mp_time Py_UNUSED(deadline))
{
    return mp_barrier_finish(context, false);
}

/* With an exception set: break the barrier; that exception stays. */
static void break_barrier(mp_barrier_wait *wait)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    // A second exception on the way out is dropped: the first one says why we leave.
    while (mp_blocking_run(break_step, wait, MP_FOREVER) == MP_INTERRUPTED)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

/* All have arrived, and this is the one that runs the action for them. */
static mp_status run_action(PyObject *self, mp_barrier_wait *wait)
{
    PyObject *result = PyObject_CallNoArgs(barrier_of(self)->action);
    if (result == NULL) {
        break_barrier(wait);
        return MP_INTERRUPTED;
    }
    Py_DECREF(result);
    mp_status status = mp_blocking_run(release_step, wait, MP_FOREVER);
    if (status == MP_INTERRUPTED)
        break_barrier(wait);
    return status;
}

static PyObject *wait_until(PyObject *self, mp_time deadline)
{
    mp_barrier_wait wait = {
        .barrier = barrier_of(self)->barrier,
        .memory = &barrier_of(self)->spin,
        .action = barrier_of(self)->action != NULL,
    };
    mp_status status = mp_blocking_run(arrive_step, &wait, deadline);
    if (status == MP_INTERRUPTED)
        mp_barrier_cancel(&wait);
    else if (status == MP_OK && wait.runner)
        status = run_action(self, &wait);
    if (status == MP_OK)
        return PyLong_FromUnsignedLong(wait.index);
    if (status == MP_BROKEN)
        return raise_broken();
    (void)mp_shared_raise(self, status, "wait");
    return NULL;
}

PyDoc_STRVAR(
    wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Wait until as many threads as there are parties have called wait(). Only the living count.\n\n"
    "Args:\n"
    "    timeout: seconds to wait at most, in place of the one of the constructor.\n\n"
    "Returns:\n"
    "    An integer from 0 to parties - 1, another one for each.\n\n"
    "Raises:\n"
    "    BrokenBarrierError: the barrier is broken or reset, or the time is over, which\n"
    "        breaks it.\n\n"
    "Since 3.3; documented in threading, 'Barrier objects'.");

static PyObject *barrier_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames)
{
    static const mp_signature signature = {"wait", {"timeout"}, 1, 0, 1};
    PyObject *values[1];
    mp_time deadline;
    if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0)
        return NULL;
    PyObject *timeout =
        values[0] == NULL || values[0] == Py_None ? barrier_of(self)->timeout : values[0];
    if (mp_deadline_parse(timeout, &deadline) < 0 || mp_shared_check(self, "wait") < 0)
        return NULL;
    return wait_until(self, deadline);
}

/* ---- reset, abort, looks ---- */

static mp_status reset_step(void *context, mp_time Py_UNUSED(deadline))
{
    return mp_barrier_reset(context);
}

static mp_status abort_step(void *context, mp_time Py_UNUSED(deadline))
{
    return mp_barrier_abort(context);
}

static PyObject *run_step(PyObject *self, mp_blocking_call step, const char *call)
{
    if (mp_shared_check(self, call) < 0)
        return NULL;
    mp_status status = mp_blocking_run(step, barrier_of(self)->barrier, MP_FOREVER);
    if (status != MP_OK) {
        (void)mp_shared_raise(self, status, call);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(reset_doc, "reset($self, /)\n--\n\n"
                        "Make the barrier empty and whole; who waits gets BrokenBarrierError.");

static PyObject *barrier_reset(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return run_step(self, reset_step, "reset");
}

PyDoc_STRVAR(abort_doc, "abort($self, /)\n--\n\n"
                        "Break the barrier: who waits and who comes gets BrokenBarrierError.");

static PyObject *barrier_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return run_step(self, abort_step, "abort");
}

static PyObject *get_parties(PyObject *self, void *Py_UNUSED(closure))
{
    if (mp_shared_check(self, "parties") < 0)
        return NULL;
    return PyLong_FromUnsignedLong(barrier_of(self)->barrier->parties);
}

static PyObject *get_n_waiting(PyObject *self, void *Py_UNUSED(closure))
{
    if (mp_shared_check(self, "n_waiting") < 0)
        return NULL;
    return PyLong_FromUnsignedLong(mp_barrier_waiting(barrier_of(self)->barrier));
}

static PyObject *get_broken(PyObject *self, void *Py_UNUSED(closure))
{
    if (mp_shared_check(self, "broken") < 0)
        return NULL;
    return PyBool_FromLong(mp_barrier_is_broken(barrier_of(self)->barrier));
}

static PyObject *barrier_repr(PyObject *self)
{
    if (mp_shared_check(self, "__repr__") < 0)
        return NULL;
    const struct mp_barrier_shm *barrier = barrier_of(self)->barrier;
    if (mp_barrier_is_broken(barrier))
        return PyUnicode_FromFormat("<%s at %p: broken>", mp_type_name(self), (void *)self);
    return PyUnicode_FromFormat("<%s at %p: waiters=%u/%u>", mp_type_name(self), (void *)self,
                                (unsigned)mp_barrier_waiting(barrier), (unsigned)barrier->parties);
}

/* ---- tables ---- */

#define AS_METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef barrier_methods[] = {
    {"wait", AS_METHOD(barrier_wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"reset", barrier_reset, METH_NOARGS, reset_doc},
    {"abort", barrier_abort, METH_NOARGS, abort_doc},
    {"__reduce__", barrier_reduce, METH_NOARGS, NULL},
    {"_attach", AS_METHOD(barrier_attach), METH_FASTCALL | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef barrier_getset[] = {
    MP_SHARED_DICT,
    {"parties", get_parties, NULL, "How many threads go on together.", NULL},
    {"n_waiting", get_n_waiting, NULL, "How many living threads wait now.", NULL},
    {"broken", get_broken, NULL, "Whether the barrier is broken.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(barrier_doc,
             "Barrier(parties, action=None, timeout=None, *, ctx=None)\n--\n\n"
             "Lets a fixed number of threads, of any processes, wait for each other.\n\n"
             "Args:\n"
             "    parties: how many.\n"
             "    action: called without arguments by one of them before all go on.\n"
             "    timeout: default of wait(), in seconds; None: for ever.\n"
             "    ctx: accepted for compatibility; a barrier works under every start method.\n\n"
             "Since 3.3; documented in threading, 'Barrier objects'.");

static PyType_Slot barrier_slots[] = {
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, barrier_init},
    {Py_tp_dealloc, barrier_dealloc},
    {Py_tp_traverse, barrier_traverse},
    {Py_tp_clear, barrier_clear},
    {Py_tp_members, mp_shared_members},
    {Py_tp_getset, barrier_getset},
    {Py_tp_methods, barrier_methods},
    {Py_tp_repr, barrier_repr},
    {Py_tp_doc, (void *)barrier_doc},
    {0, NULL},
};

static PyType_Spec barrier_spec = {
    .name = "cmultiprocessing.synchronize.Barrier",
    .basicsize = sizeof(mp_barrier_object),
    .flags = MP_SHARED_FLAGS,
    .slots = barrier_slots,
};

int mp_barrier_exec(PyObject *module)
{
    return mp_state_add_type(module, &mp_state_get(module)->barrier_type, &barrier_spec);
}
