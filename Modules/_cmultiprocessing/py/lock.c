// SPDX-License-Identifier: PSF-2.0
#include "py/lock.h"

#include "py/arguments.h" // acquire(block, timeout)
#include "py/blocking.h"  // waiting without the GIL
#include "py/names.h"     // names of holders

#define GIVE_UP_AFTER (1000 * (mp_time)MP_MILLISECOND)

static bool is_recursive(const mp_lock_object *self)
{
    return (self->own.lock->flags & MP_LOCK_RECURSIVE) != 0;
}

/* ---- life ---- */

static void begin_use(mp_lock_object *self)
{
    self->own.lock = mp_object_payload(&self->shared.handle);
    // Only plain locks stay locked at an orderly exit; the others are recovered anyway.
    if (!is_recursive(self))
        mp_lock_list(&self->own);
}

static int create(PyObject *self, uint32_t flags)
{
    if (mp_shared_create(self, MP_TYPE_LOCK, sizeof(struct mp_lock_shm)) < 0)
        return -1;
    mp_lock_init(mp_object_payload(&mp_shared_of(self)->handle), flags);
    begin_use(mp_lock_object_of(self));
    return 0;
}

PyObject *mp_lock_object_new(PyTypeObject *type, uint32_t flags)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL && create(self, flags) < 0)
        Py_CLEAR(self);
    return self;
}

static void lock_dealloc(PyObject *object)
{
    mp_lock_object *self = mp_lock_object_of(object);
    mp_shared_dealloc_begin(object);
    if (self->own.link != NULL) {
        mp_lock_unlist(&self->own);
        if (mp_shared_present())
            mp_lock_disown(self->own.lock);
    }
    mp_shared_dealloc_end(object);
}

/* ctx is accepted as the standard library has it, and not needed. */
static const mp_signature lock_signature = {"Lock", {"ctx", "robust"}, 2, 0, 0};
static const mp_signature rlock_signature = {"RLock", {"ctx"}, 1, 0, 0};

/* The flags that robust= asks for; -1 with an exception set. */
static int flags_of(PyObject *robust)
{
    int wanted = robust == NULL ? 1 : PyObject_IsTrue(robust);
    return wanted < 0 ? -1 : wanted ? 0 : MP_LOCK_FRAGILE;
}

static int lock_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *values[2];
    if (mp_arguments_sort_dict(&lock_signature, args, kwargs, values) < 0)
        return -1;
    int flags = flags_of(values[1]);
    return flags < 0 ? -1 : create(self, (uint32_t)flags);
}

static int rlock_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *values[1];
    if (mp_arguments_sort_dict(&rlock_signature, args, kwargs, values) < 0)
        return -1;
    return create(self, MP_LOCK_RECURSIVE);
}

/* Lock(...) of exactly this type, without a tuple, a dict and two more calls. */
static PyObject *lock_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf,
                                 PyObject *kwnames)
{
    PyObject *values[2];
    if (mp_arguments_sort(&lock_signature, args, PyVectorcall_NARGS(nargsf), kwnames, values) < 0)
        return NULL;
    int flags = flags_of(values[1]);
    return flags < 0 ? NULL : mp_lock_object_new((PyTypeObject *)type, (uint32_t)flags);
}

static PyObject *rlock_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames)
{
    PyObject *values[1];
    if (mp_arguments_sort(&rlock_signature, args, PyVectorcall_NARGS(nargsf), kwnames, values) < 0)
        return NULL;
    return mp_lock_object_new((PyTypeObject *)type, MP_LOCK_RECURSIVE);
}

static PyObject *lock_attach(PyObject *type, PyObject *ticket)
{
    PyObject *self = mp_shared_attach((PyTypeObject *)type, ticket, MP_TYPE_LOCK);
    if (self != NULL)
        begin_use(mp_lock_object_of(self));
    return self;
}

static PyObject *lock_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return mp_shared_reduce(self, &mp_shared_of(self)->handle, NULL);
}

/* ---- acquire, release ---- */

static mp_status lock_wait(void *context, mp_time deadline)
{
    return mp_lock_acquire(context, deadline);
}

static mp_status take(mp_lock_object *self, mp_time deadline)
{
    mp_status status = mp_lock_try(self->own.lock);
    if (mp_likely(status != MP_WOULD_BLOCK) || deadline == MP_NO_WAIT)
        return status;
    mp_lock_wait wait = {.lock = self->own.lock, .memory = &self->own.spin};
    return mp_blocking_run(lock_wait, &wait, deadline);
}

/* The lock is held, but its last owner was killed. 0, or -1 where warnings are errors. */
static int warn_owner_died(mp_lock_object *self)
{
    mp_state *state = mp_state_of_type(Py_TYPE((PyObject *)self));
    if (state == NULL)
        return -1;
    return PyErr_WarnFormat(state->owner_died_warning, 1,
                            "%s taken over from a process that was killed while it held it; "
                            "what it protects may be half changed",
                            is_recursive(self) ? "RLock" : "Lock");
}

/* Everything but MP_OK. 1: held, 0: not, -1: exception. */
static int take_result(mp_lock_object *self, mp_status status)
{
    if (status == MP_WOULD_BLOCK || status == MP_TIMEOUT)
        return 0;
    if (status != MP_OWNER_DIED)
        return mp_shared_raise((PyObject *)self, status, "acquire");
    if (warn_owner_died(self) == 0)
        return 1;
    (void)mp_lock_release(self->own.lock);
    return -1;
}

/* Before every operation: __init__ was called, and this process is in the family. */
static inline bool is_ready(const mp_lock_object *self)
{
    return mp_likely(self->own.lock != NULL && mp_family_enter() == MP_OK);
}

static int raise_not_ready(mp_lock_object *self)
{
    if (self->own.lock == NULL)
        return mp_shared_raise_unready((PyObject *)self);
    return mp_shared_raise((PyObject *)self, mp_family_enter(), "acquire");
}

int mp_lock_object_acquire(mp_lock_object *self, mp_time deadline)
{
    if (!is_ready(self))
        return raise_not_ready(self);
    mp_status status = take(self, deadline);
    return mp_likely(status == MP_OK) ? 1 : take_result(self, status);
}

bool mp_lock_object_reacquire(mp_lock_object *self, uint32_t depth)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    mp_status status = take(self, type == NULL ? MP_FOREVER : mp_clock_now() + GIVE_UP_AFTER);
    if (status == MP_INTERRUPTED && type == NULL) {
        // The program wants to leave, but not without the lock if it can be had.
        PyErr_Fetch(&type, &value, &traceback);
        status = take(self, mp_clock_now() + GIVE_UP_AFTER);
    }
    bool held = status == MP_OK || status == MP_OWNER_DIED;
    if (held)
        mp_lock_restore_depth(self->own.lock, depth);
    if (type != NULL) {
        PyErr_Restore(type, value, traceback); // in place of a later one
        return held;
    }
    if (status == MP_OWNER_DIED)
        (void)warn_owner_died(self); // an exception then; the lock is held as after any wait
    else if (!held)
        (void)mp_shared_raise((PyObject *)self, status, "acquire");
    return held;
}

int mp_lock_object_release(mp_lock_object *self)
{
    if (!is_ready(self))
        return raise_not_ready(self);
    mp_status status = mp_lock_release(self->own.lock);
    if (mp_likely(status == MP_OK))
        return 0;
    if (status == MP_MISUSE)
        PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
    else
        PyErr_SetString(PyExc_AssertionError,
                        "attempt to release recursive lock not owned by thread");
    return -1;
}

/* ---- methods ---- */

PyDoc_STRVAR(acquire_doc,
             "acquire($self, /, block=True, timeout=None)\n--\n\n"
             "Take the lock.\n\n"
             "Args:\n"
             "    block: whether to wait for it.\n"
             "    timeout: seconds to wait at most; None: for ever; negative: not at all.\n\n"
             "Returns:\n"
             "    True if it is held now, False if it could not be had in time.\n\n"
             "A lock whose holder was killed is taken over, with OwnerDiedWarning.\n"
             "Since 2.6; documented in multiprocessing, 'Synchronization primitives'.");

static PyObject *lock_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
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
    int held = mp_lock_object_acquire(mp_lock_object_of(self), deadline);
    return held < 0 ? NULL : Py_NewRef(held ? Py_True : Py_False);
}

PyDoc_STRVAR(release_doc, "release($self, /)\n--\n\n"
                          "Let go of the lock.\n\n"
                          "Raises:\n"
                          "    ValueError: a Lock that nobody holds.\n"
                          "    AssertionError: an RLock that this thread does not hold.");

static PyObject *lock_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_lock_object_release(mp_lock_object_of(self)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *lock_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_lock_object_acquire(mp_lock_object_of(self), MP_FOREVER) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *lock_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
                           Py_ssize_t Py_UNUSED(nargs))
{
    return lock_release(self, NULL);
}

/* Is it held, as far as acquire(False) could tell? -1 with an exception set. */
static int is_locked(mp_lock_object *self)
{
    if (!is_ready(self))
        return raise_not_ready(self);
    mp_owner owner = mp_lock_owner(self->own.lock);
    if (owner == MP_NOBODY)
        return 0;
    return (self->own.lock->flags & MP_LOCK_FRAGILE) != 0 || !mp_owner_dead(owner);
}

PyDoc_STRVAR(locked_doc,
             "locked($self, /)\n--\n\n"
             "Whether the lock is held by anybody now. Since 3.14 (here: on every version).");

static PyObject *lock_locked(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    int locked = is_locked(mp_lock_object_of(self));
    return locked < 0 ? NULL : PyBool_FromLong(locked);
}

/* ---- what the standard library's _semlock offers ---- */

static PyObject *lock_get_value(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    int locked = is_locked(mp_lock_object_of(self));
    return locked < 0 ? NULL : PyLong_FromLong(!locked);
}

static PyObject *lock_is_mine(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_lock_object *self = mp_lock_object_of(object);
    if (!is_ready(self) && raise_not_ready(self) < 0)
        return NULL;
    return PyBool_FromLong(mp_lock_is_mine(self->own.lock));
}

static PyObject *lock_count(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_lock_object *self = mp_lock_object_of(object);
    if (!is_ready(self) && raise_not_ready(self) < 0)
        return NULL;
    return PyLong_FromUnsignedLong(mp_lock_depth(self->own.lock));
}

static PyObject *get_kind(PyObject *object, void *Py_UNUSED(closure))
{
    mp_lock_object *self = mp_lock_object_of(object);
    if (!is_ready(self) && raise_not_ready(self) < 0)
        return NULL;
    return PyLong_FromLong(is_recursive(self) ? 0 : 1);
}

static PyObject *get_maxvalue(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return PyLong_FromLong(1);
}

static PyObject *get_owner_died(PyObject *object, void *Py_UNUSED(closure))
{
    mp_lock_object *self = mp_lock_object_of(object);
    if (!is_ready(self) && raise_not_ready(self) < 0)
        return NULL;
    return PyBool_FromLong(mp_lock_deaths(self->own.lock) > 0);
}

/* ---- repr ---- */

PyObject *mp_lock_object_holder(mp_lock_object *self)
{
    if (mp_lock_is_mine(self->own.lock))
        return mp_name_of_caller();
    int locked = is_locked(self);
    if (locked < 0)
        return NULL;
    if (!locked)
        return PyUnicode_FromString("None");
    bool sibling = mp_lock_owner(self->own.lock) == mp_self();
    return PyUnicode_FromString(sibling ? "SomeOtherThread" : "SomeOtherProcess");
}

static PyObject *lock_repr(PyObject *object)
{
    mp_lock_object *self = mp_lock_object_of(object);
    if (!is_ready(self) && raise_not_ready(self) < 0)
        return NULL;
    PyObject *holder = mp_lock_object_holder(self);
    if (holder == NULL)
        return NULL;
    PyObject *text;
    uint32_t depth = mp_lock_depth(self->own.lock);
    const char *name = mp_type_name(object);
    if (!is_recursive(self))
        text = PyUnicode_FromFormat("<%s(owner=%U)>", name, holder);
    else if (depth == 0 && PyUnicode_CompareWithASCIIString(holder, "None") != 0)
        text = PyUnicode_FromFormat("<%s(%U, nonzero)>", name, holder);
    else
        text = PyUnicode_FromFormat("<%s(%U, %u)>", name, holder, (unsigned)depth);
    Py_DECREF(holder);
    return text;
}

/* ---- tables ---- */

#define AS_METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef lock_methods[] = {
    {"acquire", AS_METHOD(lock_acquire), METH_FASTCALL | METH_KEYWORDS, acquire_doc},
    {"release", lock_release, METH_NOARGS, release_doc},
    {"locked", lock_locked, METH_NOARGS, locked_doc},
    {"__enter__", lock_enter, METH_NOARGS, "Take the lock."},
    {"__exit__", AS_METHOD(lock_exit), METH_FASTCALL, "Let go of the lock."},
    {"__reduce__", lock_reduce, METH_NOARGS, NULL},
    {"_attach", lock_attach, METH_O | METH_CLASS, NULL},
    {"_get_value", lock_get_value, METH_NOARGS, "1 if the lock is free, else 0."},
    {"_is_zero", lock_locked, METH_NOARGS, "Whether the lock is held."},
    {"_is_mine", lock_is_mine, METH_NOARGS, "Whether this thread holds the lock."},
    {"_count", lock_count, METH_NOARGS, "How often this thread holds the lock."},
    {"_after_fork", mp_shared_after_fork, METH_NOARGS, "Nothing: a fork needs no repair."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef lock_getset[] = {
    MP_SHARED_DICT,
    MP_SHARED_SEMLOCK,
    {"kind", get_kind, NULL, "RECURSIVE_MUTEX or SEMAPHORE.", NULL},
    {"maxvalue", get_maxvalue, NULL, "1", NULL},
    {"owner_died", get_owner_died, NULL,
     "Whether the lock was ever taken over from a process that was killed while it held it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    lock_doc,
    "Lock(*, ctx=None, robust=True)\n--\n\n"
    "A non-recursive lock, shared between processes and threads.\n\n"
    "Args:\n"
    "    ctx: accepted for compatibility; a lock works under every start method.\n"
    "    robust: whether the lock is taken over from a holder that was killed (with\n"
    "        OwnerDiedWarning). A holder that exits in order leaves it locked, as documented.\n\n"
    "Since 2.6; documented in multiprocessing, 'Synchronization primitives'.");

PyDoc_STRVAR(
    rlock_doc,
    "RLock(*, ctx=None)\n--\n\n"
    "A recursive lock, shared between processes and threads: released by its holder only, as\n"
    "often as it was acquired. Taken over from a holder that was killed.\n\n"
    "Since 2.6; documented in multiprocessing, 'Synchronization primitives'.");

#define COMMON_SLOTS                                                                               \
 {Py_tp_new, PyType_GenericNew}, {Py_tp_dealloc, lock_dealloc},                                    \
     {Py_tp_traverse, mp_shared_traverse}, {Py_tp_clear, mp_shared_clear},                         \
     {Py_tp_members, mp_shared_members}, {Py_tp_getset, lock_getset},                              \
     {Py_tp_methods, lock_methods},                                                                \
 {                                                                                                 \
  Py_tp_repr, lock_repr                                                                            \
 }

static PyType_Slot lock_slots[] = {
    COMMON_SLOTS,
    {Py_tp_init, lock_init},
    {Py_tp_doc, (void *)lock_doc},
    {0, NULL},
};

static PyType_Slot rlock_slots[] = {
    COMMON_SLOTS,
    {Py_tp_init, rlock_init},
    {Py_tp_doc, (void *)rlock_doc},
    {0, NULL},
};

static PyType_Spec lock_spec = {
    .name = "cmultiprocessing.synchronize.Lock",
    .basicsize = sizeof(mp_lock_object),
    .flags = MP_SHARED_FLAGS,
    .slots = lock_slots,
};

static PyType_Spec rlock_spec = {
    .name = "cmultiprocessing.synchronize.RLock",
    .basicsize = sizeof(mp_lock_object),
    .flags = MP_SHARED_FLAGS,
    .slots = rlock_slots,
};

int mp_lock_exec(PyObject *module)
{
    mp_state *state = mp_state_get(module);
    if (mp_state_add_type(module, &state->lock_type, &lock_spec) < 0 ||
        mp_state_add_type(module, &state->rlock_type, &rlock_spec) < 0)
        return -1;
    state->lock_type->tp_vectorcall = lock_vectorcall;
    state->rlock_type->tp_vectorcall = rlock_vectorcall;
    return 0;
}
