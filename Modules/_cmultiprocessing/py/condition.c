// SPDX-License-Identifier: PSF-2.0
/* Condition. */
#include "py/sharing.h" // mp_shared

#include "py/arguments.h" // wait(timeout)
#include "py/blocking.h"  // waiting without the GIL
#include "py/lock.h"      // the condition's lock
#include "py/names.h"     // repr

#include "sync/condition.h" // the condition itself

typedef struct mp_condition_object {
    mp_shared shared;
    struct mp_condition_shm *condition;
    PyObject *lock; // a Lock or RLock; NULL before __init__
    mp_spin_memory spin;
} mp_condition_object;

static mp_condition_object *condition_of(PyObject *self)
{
    return (mp_condition_object *)(void *)self;
}

static mp_lock_object *lock_of(PyObject *self)
{
    return mp_lock_object_of(condition_of(self)->lock);
}

/* ---- life ---- */

/* A new reference to `lock`, or to a new RLock for None; TypeError for anything but our locks. */
static PyObject *lock_for(PyObject *self, PyObject *lock)
{
    mp_state *state = mp_state_of_type(Py_TYPE(self));
    if (state == NULL)
        return NULL;
    if (lock == NULL || lock == Py_None)
        return mp_lock_object_new(state->rlock_type, MP_LOCK_RECURSIVE);
    if (!PyObject_TypeCheck(lock, state->lock_type) &&
        !PyObject_TypeCheck(lock, state->rlock_type)) {
        PyErr_Format(PyExc_TypeError,
                     "Condition: lock must be a Lock or RLock of this package, not %.100s",
                     Py_TYPE(lock)->tp_name);
        return NULL;
    }
    if (mp_shared_check(lock, "__init__") < 0)
        return NULL;
    return Py_NewRef(lock);
}

static int condition_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const mp_signature signature = {"Condition", {"lock", "ctx"}, 2, 0, 1};
    mp_condition_object *self = condition_of(object);
    PyObject *values[2];
    if (mp_arguments_sort_dict(&signature, args, kwargs, values) < 0)
        return -1;
    PyObject *lock = lock_for(object, values[0]);
    if (lock == NULL)
        return -1;
    if (mp_shared_create(object, MP_TYPE_CONDITION, sizeof(struct mp_condition_shm)) < 0) {
        Py_DECREF(lock);
        return -1;
    }
    self->condition = mp_object_payload(&self->shared.handle);
    self->lock = lock;
    return 0;
}

static int condition_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(condition_of(self)->lock);
    return mp_shared_traverse(self, visit, arg);
}

/* The lock stays until dealloc: methods rely on it, and a Lock refers to its __dict__ only. */
static void condition_dealloc(PyObject *self)
{
    mp_shared_dealloc_begin(self);
    Py_CLEAR(condition_of(self)->lock);
    mp_shared_dealloc_end(self);
}

static PyObject *condition_attach(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_attach(ticket, lock)");
        return NULL;
    }
    PyObject *self = mp_shared_attach((PyTypeObject *)type, args[0], MP_TYPE_CONDITION);
    if (self == NULL)
        return NULL;
    condition_of(self)->condition = mp_object_payload(&mp_shared_of(self)->handle);
    condition_of(self)->lock = args[1] == Py_None ? NULL : lock_for(self, args[1]);
    if (condition_of(self)->lock == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "_attach(ticket, lock): lock is None");
        Py_CLEAR(self);
    }
    return self;
}

static PyObject *condition_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "__reduce__") < 0)
        return NULL;
    PyObject *extra = PyTuple_Pack(1, condition_of(self)->lock);
    if (extra == NULL)
        return NULL;
    PyObject *result = mp_shared_reduce(self, &mp_shared_of(self)->handle, extra);
    Py_DECREF(extra);
    return result;
}

/* ---- the lock ---- */

static PyObject *condition_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames)
{
    static const mp_signature signature = {"acquire", {"block", "timeout"}, 2, 0, 2};
    PyObject *values[2];
    mp_time deadline;
    if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        mp_block_parse(values[0], values[1], &deadline) < 0 || mp_shared_check(self, "acquire") < 0)
        return NULL;
    int held = mp_lock_object_acquire(lock_of(self), deadline);
    return held < 0 ? NULL : PyBool_FromLong(held);
}

static PyObject *condition_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "release") < 0 || mp_lock_object_release(lock_of(self)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *condition_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "__enter__") < 0 ||
        mp_lock_object_acquire(lock_of(self), MP_FOREVER) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *condition_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
                                Py_ssize_t Py_UNUSED(nargs))
{
    return condition_release(self, NULL);
}

/* 0, or -1 with AssertionError: `message` unless this thread holds the lock. */
static int check_owned(PyObject *self, const char *call, const char *message)
{
    if (mp_shared_check(self, call) < 0)
        return -1;
    if (mp_likely(mp_lock_is_mine(lock_of(self)->own.lock)))
        return 0;
    PyErr_SetString(PyExc_AssertionError, message);
    return -1;
}

/* ---- wait ---- */

static mp_status sleep_step(void *context, mp_time deadline)
{
    return mp_condition_sleep(context, deadline);
}

static mp_status cancel_step(void *context, mp_time Py_UNUSED(deadline))
{
    return mp_condition_cancel(context);
}

/* A signal handler raised: leave the place, with that exception set. */
static void give_up(mp_condition_wait *wait)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    // A second exception on the way out is dropped: the first one says why we leave.
    while (mp_blocking_run(cancel_step, wait, MP_FOREVER) == MP_INTERRUPTED)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

/* Wait with the lock held, which it is again afterwards. 1: notified, 0: not in time, -1: exception. */
static int wait_until(PyObject *self, mp_time deadline)
{
    mp_lock_object *lock = lock_of(self);
    mp_condition_wait wait = {
        .condition = condition_of(self)->condition,
        .memory = &condition_of(self)->spin,
    };
    mp_status status = mp_condition_begin(&wait);
    if (status != MP_OK)
        return mp_shared_raise(self, status, "wait");
    uint32_t depth = mp_lock_release_all(lock->own.lock);
    status = mp_blocking_run(sleep_step, &wait, deadline);
    if (status == MP_INTERRUPTED)
        give_up(&wait);
    else if (status != MP_OK && status != MP_TIMEOUT)
        (void)mp_shared_raise(self, status, "wait");
    (void)mp_lock_object_reacquire(lock, depth);
    return PyErr_Occurred() ? -1 : status == MP_OK;
}

#define NOT_OWNED_WAIT "must acquire() condition before using wait()"

PyDoc_STRVAR(wait_doc,
             "wait($self, /, timeout=None)\n--\n\n"
             "Let go of the lock, wait for a notification, take the lock again.\n\n"
             "Args:\n"
             "    timeout: seconds to wait for the notification at most; None: for ever.\n\n"
             "Returns:\n"
             "    True if notified, False if not in time.\n\n"
             "Raises:\n"
             "    AssertionError: this thread does not hold the lock.\n\n"
             "Since 2.6; documented in threading, 'Condition objects'.");

static PyObject *condition_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    static const mp_signature signature = {"wait", {"timeout"}, 1, 0, 1};
    PyObject *values[1];
    mp_time deadline;
    if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        mp_deadline_parse(values[0], &deadline) < 0 ||
        check_owned(self, "wait", NOT_OWNED_WAIT) < 0)
        return NULL;
    int notified = wait_until(self, deadline);
    return notified < 0 ? NULL : PyBool_FromLong(notified);
}

PyDoc_STRVAR(wait_for_doc, "wait_for($self, /, predicate, timeout=None)\n--\n\n"
                           "Wait until predicate() is true, called with the lock held.\n\n"
                           "Args:\n"
                           "    predicate: a callable without arguments.\n"
                           "    timeout: seconds to wait at most, in all; None: for ever.\n\n"
                           "Returns:\n"
                           "    The last value of predicate().\n\n"
                           "Since 3.3; documented in threading, 'Condition objects'.");

static PyObject *condition_wait_for(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames)
{
    static const mp_signature signature = {"wait_for", {"predicate", "timeout"}, 2, 1, 2};
    PyObject *values[2];
    mp_time deadline;
    if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        mp_deadline_parse(values[1], &deadline) < 0)
        return NULL;
    for (bool last = false;;) {
        PyObject *result = PyObject_CallNoArgs(values[0]);
        int truth = result == NULL ? -1 : PyObject_IsTrue(result);
        if (truth < 0) {
            Py_XDECREF(result);
            return NULL;
        }
        if (truth > 0 || last)
            return result;
        Py_DECREF(result);
        if (check_owned(self, "wait_for", NOT_OWNED_WAIT) < 0)
            return NULL;
        int notified = wait_until(self, deadline);
        if (notified < 0)
            return NULL;
        // Looked at once more: what was waited for may have come without a notification.
        last = deadline != MP_FOREVER && mp_clock_now() >= deadline;
    }
}

/* ---- notify ---- */

typedef struct notify_call {
    struct mp_condition_shm *condition;
    uint32_t count;
} notify_call;

static mp_status notify_step(void *context, mp_time Py_UNUSED(deadline))
{
    const notify_call *call = context;
    return mp_condition_notify(call->condition, call->count);
}

static PyObject *notify(PyObject *self, const char *name, uint32_t count)
{
    if (check_owned(self, name, "lock is not owned") < 0)
        return NULL;
    notify_call call = {.condition = condition_of(self)->condition, .count = count};
    mp_status status = mp_condition_try_notify(call.condition, count);
    if (status == MP_WOULD_BLOCK)
        status = mp_blocking_run(notify_step, &call, MP_FOREVER);
    if (status != MP_OK) {
        (void)mp_shared_raise(self, status, name);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    notify_doc,
    "notify($self, /, n=1)\n--\n\n"
    "Wake n of those that wait, or all if they are fewer: the oldest, and only the living.\n\n"
    "Raises:\n"
    "    AssertionError: this thread does not hold the lock.\n\n"
    "Since 2.6; documented in threading, 'Condition objects'.");

static PyObject *condition_notify(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *kwnames)
{
    static const mp_signature signature = {"notify", {"n"}, 1, 0, 1};
    PyObject *values[1] = {NULL};
    int64_t count = 1;
    if (nargs > 0 || kwnames != NULL) {
        if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0)
            return NULL;
        if (values[0] != NULL && mp_integer_parse(values[0], "n", INT64_MIN, INT64_MAX, &count) < 0)
            return NULL;
    }
    count = count < 0 ? 0 : count > UINT32_MAX ? UINT32_MAX : count;
    return notify(self, "notify", (uint32_t)count);
}

PyDoc_STRVAR(notify_all_doc, "notify_all($self, /)\n--\n\n"
                             "Wake all that wait. Since 2.6.");

static PyObject *condition_notify_all(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return notify(self, "notify_all", UINT32_MAX);
}

/* ---- looks ---- */

static PyObject *condition_sleepers(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "_sleepers") < 0)
        return NULL;
    return PyLong_FromUnsignedLong(mp_condition_sleeping(condition_of(self)->condition));
}

static PyObject *get_lock(PyObject *self, void *Py_UNUSED(closure))
{
    if (mp_shared_check(self, "_lock") < 0)
        return NULL;
    return Py_NewRef(condition_of(self)->lock);
}

static PyObject *condition_repr(PyObject *self)
{
    if (mp_shared_check(self, "__repr__") < 0)
        return NULL;
    return PyUnicode_FromFormat("<%s(%R, %u)>", mp_type_name(self), condition_of(self)->lock,
                                (unsigned)mp_condition_sleeping(condition_of(self)->condition));
}

/* ---- tables ---- */

#define AS_METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef condition_methods[] = {
    {"acquire", AS_METHOD(condition_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, block=True, timeout=None)\n--\n\nTake the condition's lock."},
    {"release", condition_release, METH_NOARGS,
     "release($self, /)\n--\n\nLet go of the condition's lock."},
    {"__enter__", condition_enter, METH_NOARGS, "Take the condition's lock."},
    {"__exit__", AS_METHOD(condition_exit), METH_FASTCALL, "Let go of the condition's lock."},
    {"wait", AS_METHOD(condition_wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"wait_for", AS_METHOD(condition_wait_for), METH_FASTCALL | METH_KEYWORDS, wait_for_doc},
    {"notify", AS_METHOD(condition_notify), METH_FASTCALL | METH_KEYWORDS, notify_doc},
    {"notify_all", condition_notify_all, METH_NOARGS, notify_all_doc},
    {"__reduce__", condition_reduce, METH_NOARGS, NULL},
    {"_attach", AS_METHOD(condition_attach), METH_FASTCALL | METH_CLASS, NULL},
    {"_sleepers", condition_sleepers, METH_NOARGS, "How many living threads wait."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef condition_getset[] = {
    MP_SHARED_DICT,
    {"_lock", get_lock, NULL, "The condition's lock.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    condition_doc,
    "Condition(lock=None, *, ctx=None)\n--\n\n"
    "A place to wait for notifications, shared between processes. The dead neither swallow a\n"
    "notification nor hold up who notifies.\n\n"
    "Args:\n"
    "    lock: a Lock or RLock of this package; None: a new RLock.\n"
    "    ctx: accepted for compatibility; a condition works under every start method.\n\n"
    "Since 2.6; documented in threading, 'Condition objects'.");

static PyType_Slot condition_slots[] = {
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, condition_init},
    {Py_tp_dealloc, condition_dealloc},
    {Py_tp_traverse, condition_traverse},
    {Py_tp_clear, mp_shared_clear},
    {Py_tp_members, mp_shared_members},
    {Py_tp_getset, condition_getset},
    {Py_tp_methods, condition_methods},
    {Py_tp_repr, condition_repr},
    {Py_tp_doc, (void *)condition_doc},
    {0, NULL},
};

static PyType_Spec condition_spec = {
    .name = "cmultiprocessing.synchronize.Condition",
    .basicsize = sizeof(mp_condition_object),
    .flags = MP_SHARED_FLAGS,
    .slots = condition_slots,
};

int mp_condition_exec(PyObject *module)
{
    mp_condition_setup();
    return mp_state_add_type(module, &mp_state_get(module)->condition_type, &condition_spec);
}
