// SPDX-License-Identifier: PSF-2.0
#include "py/synchronized.h"

#include <stddef.h> // offsetof
#include <string.h> // memcpy

#include "py/arguments.h" // __init__(obj, lock, ctx)
#include "py/cells.h"     // numbers to Python
#include "py/names.h"     // repr

static mp_synchronized_object *synchronized_of(PyObject *self)
{
    return (mp_synchronized_object *)(void *)self;
}

/* ---- life ---- */

/* The lock that an object gets which was given none. */
static PyObject *default_lock(mp_state *state, PyObject *context)
{
    if (context == NULL || context == Py_None)
        return mp_lock_object_new(state->rlock_type, MP_LOCK_RECURSIVE);
    return PyObject_CallMethod(context, "RLock", NULL);
}

static bool in_family(const Py_buffer *view)
{
    const char *bytes = view->buf;
    return mp_family.base != NULL && bytes >= mp_family.base &&
           (uint64_t)view->len <= mp_family.mapped &&
           bytes <= mp_family.base + (mp_family.mapped - (uint64_t)view->len);
}

/* The cells behind a ctypes object, if they are of a kind that we know, lie in shared memory (so that
 * they stay where they are) and are aligned. */
static int find_cells(mp_state *state, mp_synchronized_object *self)
{
    PyObject *code = PyObject_CallOneArg(state->cell_code, (PyObject *)Py_TYPE(self->obj));
    if (code == NULL)
        return -1;
    const char *text;
    Py_ssize_t size;
    Py_buffer view;
    if (!PyArg_ParseTuple(code, "sn", &text, &size)) {
        Py_DECREF(code);
        return -1;
    }
    mp_cell_kind kind = mp_cell_kind_of(text, size);
    Py_DECREF(code);
    if (kind == MP_CELL_NONE)
        return 0;
    if (PyObject_GetBuffer(self->obj, &view, PyBUF_SIMPLE) < 0)
        return -1;
    if (in_family(&view) && (uintptr_t)view.buf % (uintptr_t)size == 0) {
        self->kind = kind;
        self->cells = view.buf;
        self->count = view.len / size;
    }
    PyBuffer_Release(&view);
    return 0;
}

static int synchronized_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const mp_signature signature = {"Synchronized", {"obj", "lock", "ctx"}, 3, 1, 3};
    PyObject *values[3];
    mp_synchronized_object *self = synchronized_of(object);
    mp_state *state = mp_state_of_type(Py_TYPE(object));
    if (state == NULL || mp_arguments_sort_dict(&signature, args, kwargs, values) < 0)
        return -1;
    if (self->obj != NULL) {
        PyErr_Format(PyExc_RuntimeError, "%s.__init__() called twice", mp_type_name(object));
        return -1;
    }
    // In Boolean context a lock is not looked at: None alone asks for a new one.
    bool given = values[1] != NULL && values[1] != Py_None;
    PyObject *lock = given ? Py_NewRef(values[1]) : default_lock(state, values[2]);
    if (lock == NULL)
        return -1;
    if (Py_TYPE(lock) == state->lock_type || Py_TYPE(lock) == state->rlock_type)
        self->own_lock = mp_lock_object_of(lock);
    self->lock = lock;
    self->obj = Py_NewRef(values[0]);
    return find_cells(state, self);
}

static int synchronized_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(synchronized_of(object)->attributes);
    Py_VISIT(synchronized_of(object)->obj);
    Py_VISIT(synchronized_of(object)->lock);
    return 0;
}

static int synchronized_clear(PyObject *object)
{
    mp_synchronized_object *self = synchronized_of(object);
    self->own_lock = NULL;
    self->kind = MP_CELL_NONE;
    Py_CLEAR(self->attributes);
    Py_CLEAR(self->obj);
    Py_CLEAR(self->lock);
    return 0;
}

static void synchronized_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (synchronized_of(object)->weakrefs != NULL)
        PyObject_ClearWeakRefs(object);
    (void)synchronized_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- the lock ---- */

static int raise_unready(PyObject *self)
{
    PyErr_Format(PyExc_RuntimeError, "%s.__init__() was not called", mp_type_name(self));
    return -1;
}

/* 0: held; -1: exception. */
static int enter(mp_synchronized_object *self)
{
    if (mp_likely(self->own_lock != NULL))
        return mp_lock_object_acquire(self->own_lock, MP_FOREVER) < 0 ? -1 : 0;
    if (self->obj == NULL)
        return raise_unready((PyObject *)self);
    PyObject *held = PyObject_CallMethod(self->lock, "acquire", NULL);
    Py_XDECREF(held);
    return held == NULL ? -1 : 0;
}

/* An exception that is set already stays. */
static int leave(mp_synchronized_object *self)
{
    if (mp_likely(self->own_lock != NULL && !PyErr_Occurred()))
        return mp_lock_object_release(self->own_lock);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *left = PyObject_CallMethod(self->lock, "release", NULL);
    Py_XDECREF(left);
    if (type != NULL) {
        if (left == NULL)
            PyErr_WriteUnraisable((PyObject *)self); // beside the first one, which is raised
        PyErr_Restore(type, value, traceback);
    }
    return left == NULL && type == NULL ? -1 : 0;
}

/* Let go of the lock, and pass on what was read under it. */
static PyObject *leave_with(mp_synchronized_object *self, PyObject *result)
{
    if (leave(self) < 0)
        Py_CLEAR(result);
    return result;
}

static int leave_after(mp_synchronized_object *self, int status)
{
    return leave(self) < 0 ? -1 : status;
}

/* ---- SynchronizedBase ---- */

static PyObject *held_or_raise(PyObject *self, PyObject *held)
{
    if (held == NULL)
        (void)raise_unready(self);
    return Py_XNewRef(held);
}

PyDoc_STRVAR(get_obj_doc, "get_obj($self, /)\n--\n\n"
                          "The ctypes object itself, to be used without the lock.");

static PyObject *get_obj(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return held_or_raise(self, synchronized_of(self)->obj);
}

PyDoc_STRVAR(get_lock_doc,
             "get_lock($self, /)\n--\n\n"
             "The lock that every access takes; hold it to read and write in one go.");

static PyObject *get_lock(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return held_or_raise(self, synchronized_of(self)->lock);
}

static PyObject *get_obj_field(PyObject *self, void *Py_UNUSED(closure))
{
    return get_obj(self, NULL);
}

static PyObject *get_lock_field(PyObject *self, void *Py_UNUSED(closure))
{
    return get_lock(self, NULL);
}

/* acquire and release: the lock's own methods. */
static PyObject *get_of_lock(PyObject *self, void *name)
{
    PyObject *lock = get_lock(self, NULL);
    PyObject *method = lock == NULL ? NULL : PyObject_GetAttrString(lock, name);
    Py_XDECREF(lock);
    return method;
}

static PyObject *synchronized_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *lock = get_lock(self, NULL);
    PyObject *result = lock == NULL ? NULL : PyObject_CallMethod(lock, "__enter__", NULL);
    Py_XDECREF(lock);
    return result;
}

static PyObject *synchronized_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *exit = get_of_lock(self, "__exit__");
    PyObject *result = exit == NULL ? NULL : PyObject_Vectorcall(exit, args, (size_t)nargs, NULL);
    Py_XDECREF(exit);
    return result;
}

static PyObject *synchronized_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    mp_state *state = mp_state_of_type(Py_TYPE(self));
    if (state == NULL)
        return NULL;
    if (synchronized_of(self)->obj == NULL) {
        (void)raise_unready(self);
        return NULL;
    }
    return PyObject_CallOneArg(state->reduce_synchronized, self);
}

static PyObject *synchronized_repr(PyObject *self)
{
    PyObject *obj = get_obj(self, NULL);
    if (obj == NULL)
        return NULL;
    PyObject *text = PyUnicode_FromFormat("<%s wrapper for %R>", mp_type_name(self), obj);
    Py_DECREF(obj);
    return text;
}

/* ---- Synchronized ---- */

static PyObject *value_get(PyObject *object, void *Py_UNUSED(closure))
{
    mp_synchronized_object *self = synchronized_of(object);
    if (enter(self) < 0)
        return NULL;
    if (mp_unlikely(self->kind == MP_CELL_NONE))
        return leave_with(self, PyObject_GetAttrString(self->obj, "value"));
    mp_number number = mp_cell_load(self->kind, self->cells);
    // The Python object is made when the lock is free again.
    return leave(self) < 0 ? NULL : mp_cell_to_python(self->kind, number);
}

static int value_set(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
    mp_synchronized_object *self = synchronized_of(object);
    mp_number number;
    if (value == NULL) {
        PyErr_Format(PyExc_AttributeError, "cannot delete the value of %s", mp_type_name(object));
        return -1;
    }
    int plain = mp_cell_from_python(self->kind, value, &number);
    if (plain < 0 || enter(self) < 0)
        return -1;
    if (mp_likely(plain == 1)) {
        mp_cell_store(self->kind, self->cells, number);
        return leave(self);
    }
    return leave_after(self, PyObject_SetAttrString(self->obj, "value", value));
}

/* Of the atomic methods: is this a number? -1 with TypeError. */
static int check_number(mp_synchronized_object *self, const char *call)
{
    if (mp_likely(mp_cell_is_number(self->kind)))
        return 0;
    if (self->obj == NULL)
        return raise_unready((PyObject *)self);
    PyErr_Format(
        PyExc_TypeError,
        "%s.%s() needs an integer or float of the machine's own kind in shared memory, not %s",
        mp_type_name((PyObject *)self), call, Py_TYPE(self->obj)->tp_name);
    return -1;
}

/* An operand, converted as an assignment to value converts it. -1 with TypeError. */
static int parse_operand(mp_synchronized_object *self, PyObject *value, mp_number *number)
{
    if (mp_cell_is_real(self->kind)) {
        number->real = PyFloat_AsDouble(value);
        return number->real == -1.0 && PyErr_Occurred() ? -1 : 0;
    }
    PyObject *index = PyNumber_Index(value);
    if (index == NULL)
        return -1;
    number->integer = PyLong_AsUnsignedLongLongMask(index);
    Py_DECREF(index);
    return number->integer == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(
    add_doc,
    "add($self, n, /)\n--\n\n"
    "Add to the value in one step that no other process can come between or leave half done.\n\n"
    "Args:\n"
    "    n: an integer (a float where the value is one); may be negative. Integers wrap around.\n\n"
    "Returns:\n"
    "    the value then.\n\n"
    "Raises:\n"
    "    TypeError: n is not a number, or the value is not.\n\n"
    "Takes the lock, as `with v.get_lock(): v.value += n` does, and is atomic beside those who do not.\n"
    "Ours; the standard library has none.");

static PyObject *value_add(PyObject *object, PyObject *more)
{
    mp_synchronized_object *self = synchronized_of(object);
    mp_number number;
    if (check_number(self, "add") < 0 || parse_operand(self, more, &number) < 0 || enter(self) < 0)
        return NULL;
    number = mp_cell_add(self->kind, self->cells, number);
    return leave(self) < 0 ? NULL : mp_cell_to_python(self->kind, number);
}

PyDoc_STRVAR(exchange_doc, "exchange($self, new, /)\n--\n\n"
                           "Store a value, and return the one that was there, in one step.\n\n"
                           "Raises:\n"
                           "    TypeError: new is not a number, or the value is not.\n\n"
                           "Takes the lock. Ours; the standard library has none.");

static PyObject *value_exchange(PyObject *object, PyObject *desired)
{
    mp_synchronized_object *self = synchronized_of(object);
    mp_number number;
    if (check_number(self, "exchange") < 0 || parse_operand(self, desired, &number) < 0 ||
        enter(self) < 0)
        return NULL;
    number = mp_cell_exchange(self->kind, self->cells, number);
    return leave(self) < 0 ? NULL : mp_cell_to_python(self->kind, number);
}

PyDoc_STRVAR(compare_exchange_doc,
             "compare_exchange($self, expected, new, /)\n--\n\n"
             "Store `new` if the value is `expected`, in one step.\n\n"
             "Args:\n"
             "    expected, new: numbers, converted as an assignment to value converts them.\n\n"
             "Returns:\n"
             "    whether it was stored.\n\n"
             "Raises:\n"
             "    TypeError: expected or new is not a number, or the value is not.\n\n"
             "Takes the lock. Ours; the standard library has none.");

static PyObject *value_compare_exchange(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    mp_synchronized_object *self = synchronized_of(object);
    mp_number expected, desired;
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "compare_exchange() takes 2 arguments (%zd given)", nargs);
        return NULL;
    }
    if (check_number(self, "compare_exchange") < 0 || parse_operand(self, args[0], &expected) < 0 ||
        parse_operand(self, args[1], &desired) < 0 || enter(self) < 0)
        return NULL;
    bool stored = mp_cell_compare_exchange(self->kind, self->cells, expected, desired);
    return leave(self) < 0 ? NULL : PyBool_FromLong(stored);
}

/* ---- SynchronizedArray ---- */

static Py_ssize_t array_length(PyObject *object)
{
    mp_synchronized_object *self = synchronized_of(object);
    if (self->obj == NULL)
        return raise_unready(object);
    return self->kind != MP_CELL_NONE ? self->count : PyObject_Size(self->obj);
}

static PyObject *array_item(PyObject *object, Py_ssize_t index)
{
    mp_synchronized_object *self = synchronized_of(object);
    if (self->kind == MP_CELL_NONE) {
        if (enter(self) < 0)
            return NULL;
        return leave_with(self, PySequence_GetItem(self->obj, index));
    }
    if (index < 0 || index >= self->count) {
        PyErr_Format(PyExc_IndexError, "index %zd is out of range of an array of %zd", index,
                     self->count);
        return NULL;
    }
    if (enter(self) < 0)
        return NULL;
    mp_number number =
        mp_cell_load(self->kind, self->cells + index * (Py_ssize_t)mp_cell_size(self->kind));
    return leave(self) < 0 ? NULL : mp_cell_to_python(self->kind, number);
}

/* The part of the array that a slice needs, copied under the lock; the Python objects are made when
 * it is free again. */
static PyObject *array_slice(mp_synchronized_object *self, PyObject *slice)
{
    Py_ssize_t start, stop, step;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0)
        return NULL;
    Py_ssize_t count = PySlice_AdjustIndices(self->count, &start, &stop, step);
    Py_ssize_t last = count == 0 ? start : start + (count - 1) * step;
    Py_ssize_t lowest = step > 0 ? start : last;
    Py_ssize_t span = count == 0 ? 0 : (step > 0 ? last - start : start - last) + 1;
    Py_ssize_t size = mp_cell_size(self->kind);
    uint64_t near[512];
    char *copy =
        span * size <= (Py_ssize_t)sizeof near ? (char *)near : PyMem_Malloc((size_t)(span * size));
    if (copy == NULL)
        return PyErr_NoMemory();
    PyObject *result = NULL;
    if (enter(self) == 0) {
        memcpy(copy, self->cells + lowest * size, (size_t)(span * size));
        if (leave(self) == 0)
            result = mp_cells_to_python(self->kind, copy, start - lowest, step, count);
    }
    if (copy != (char *)near)
        PyMem_Free(copy);
    return result;
}

static PyObject *array_get(PyObject *object, PyObject *key)
{
    mp_synchronized_object *self = synchronized_of(object);
    if (mp_likely(self->kind != MP_CELL_NONE)) {
        if (mp_likely(PyLong_CheckExact(key))) {
            Py_ssize_t index = PyLong_AsSsize_t(key);
            if (index == -1 && PyErr_Occurred())
                PyErr_Clear(); // beyond any array: ctypes says so below
            else
                return array_item(object, index < 0 ? index + self->count : index);
        } else if (PySlice_Check(key)) {
            return array_slice(self, key);
        }
    }
    if (enter(self) < 0)
        return NULL;
    return leave_with(self, PyObject_GetItem(self->obj, key));
}

/* Where a plain item goes; NULL: ctypes shall do it, or refuse. */
static char *place_of(const mp_synchronized_object *self, PyObject *key)
{
    if (self->kind == MP_CELL_NONE || !PyLong_CheckExact(key))
        return NULL;
    int overflow;
    long long index = PyLong_AsLongLongAndOverflow(key, &overflow);
    if (overflow == 0 && index < 0)
        index += self->count;
    if (overflow != 0 || index < 0 || index >= self->count)
        return NULL;
    return self->cells + index * (Py_ssize_t)mp_cell_size(self->kind);
}

static int array_set(PyObject *object, PyObject *key, PyObject *value)
{
    mp_synchronized_object *self = synchronized_of(object);
    mp_number number;
    char *place = value == NULL ? NULL : place_of(self, key);
    int plain = place == NULL ? 0 : mp_cell_from_python(self->kind, value, &number);
    if (plain < 0 || enter(self) < 0)
        return -1;
    if (mp_likely(plain == 1)) {
        mp_cell_store(self->kind, place, number);
        return leave(self);
    }
    return leave_after(self, value == NULL ? PyObject_DelItem(self->obj, key)
                                           : PyObject_SetItem(self->obj, key, value));
}

/* ---- SynchronizedString ---- */

/* value and raw of an array of characters. */
static PyObject *string_get(PyObject *object, void *name)
{
    mp_synchronized_object *self = synchronized_of(object);
    return enter(self) < 0 ? NULL : leave_with(self, PyObject_GetAttrString(self->obj, name));
}

static int string_set(PyObject *object, PyObject *value, void *name)
{
    mp_synchronized_object *self = synchronized_of(object);
    return enter(self) < 0 ? -1 : leave_after(self, PyObject_SetAttrString(self->obj, name, value));
}

/* ---- tables ---- */

#define AS_METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMemberDef base_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(mp_synchronized_object, attributes), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(mp_synchronized_object, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef base_methods[] = {
    {"get_obj", get_obj, METH_NOARGS, get_obj_doc},
    {"get_lock", get_lock, METH_NOARGS, get_lock_doc},
    {"__enter__", synchronized_enter, METH_NOARGS, "Take the lock."},
    {"__exit__", AS_METHOD(synchronized_exit), METH_FASTCALL, "Let go of the lock."},
    {"__reduce__", synchronized_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef base_getset[] = {
    MP_SHARED_DICT,
    {"_obj", get_obj_field, NULL, "The ctypes object.", NULL},
    {"_lock", get_lock_field, NULL, "The lock.", NULL},
    {"acquire", get_of_lock, NULL, "The lock's acquire().", "acquire"},
    {"release", get_of_lock, NULL, "The lock's release().", "release"},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    base_doc,
    "SynchronizedBase(obj, lock=None, ctx=None)\n--\n\n"
    "A ctypes object and the lock that guards it.\n\n"
    "Args:\n"
    "    obj: a ctypes object, normally one in shared memory.\n"
    "    lock: anything with acquire() and release(); None makes an RLock.\n"
    "    ctx: the context that makes it.\n\n"
    "Since 2.6; documented in multiprocessing, 'The multiprocessing.sharedctypes module'.");

// Each type names them: one that has none would get the slower ones of classes made in Python.
#define LIFE_SLOTS                                                                                 \
 {Py_tp_dealloc, synchronized_dealloc}, {Py_tp_traverse, synchronized_traverse},                   \
 {                                                                                                 \
  Py_tp_clear, synchronized_clear                                                                  \
 }

static PyType_Slot base_slots[] = {
    {Py_tp_new, PyType_GenericNew},  {Py_tp_init, synchronized_init}, LIFE_SLOTS,
    {Py_tp_members, base_members},   {Py_tp_getset, base_getset},     {Py_tp_methods, base_methods},
    {Py_tp_repr, synchronized_repr}, {Py_tp_doc, (void *)base_doc},   {0, NULL},
};

static PyType_Spec base_spec = {
    .name = "cmultiprocessing.sharedctypes.SynchronizedBase",
    .basicsize = sizeof(mp_synchronized_object),
    .flags = MP_SHARED_FLAGS,
    .slots = base_slots,
};

static PyMethodDef value_methods[] = {
    {"add", value_add, METH_O, add_doc},
    {"exchange", value_exchange, METH_O, exchange_doc},
    {"compare_exchange", AS_METHOD(value_compare_exchange), METH_FASTCALL, compare_exchange_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef value_getset[] = {
    {"value", value_get, value_set, "The number or character; each access takes the lock.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot value_slots[] = {
    LIFE_SLOTS,
    {Py_tp_getset, value_getset},
    {Py_tp_methods, value_methods},
    {Py_tp_doc, (void *)"A number (or another simple ctypes object) and its lock."},
    {0, NULL},
};

static PyType_Spec value_spec = {
    .name = "cmultiprocessing.sharedctypes.Synchronized",
    .basicsize = sizeof(mp_synchronized_object),
    .flags = MP_SHARED_FLAGS,
    .slots = value_slots,
};

static PyType_Slot array_slots[] = {
    LIFE_SLOTS,
    {Py_sq_length, array_length},
    {Py_sq_item, array_item},
    {Py_mp_length, array_length},
    {Py_mp_subscript, array_get},
    {Py_mp_ass_subscript, array_set},
    {Py_tp_doc, (void *)"A ctypes array and its lock; each access to an item or a slice takes it."},
    {0, NULL},
};

static PyType_Spec array_spec = {
    .name = "cmultiprocessing.sharedctypes.SynchronizedArray",
    .basicsize = sizeof(mp_synchronized_object),
    .flags = MP_SHARED_FLAGS,
    .slots = array_slots,
};

static PyGetSetDef string_getset[] = {
    {"value", string_get, string_set, "The bytes up to the first zero.", "value"},
    {"raw", string_get, string_set, "All the bytes.", "raw"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot string_slots[] = {
    LIFE_SLOTS,
    {Py_tp_getset, string_getset},
    {Py_tp_doc, (void *)"An array of characters and its lock."},
    {0, NULL},
};

static PyType_Spec string_spec = {
    .name = "cmultiprocessing.sharedctypes.SynchronizedString",
    .basicsize = sizeof(mp_synchronized_object),
    .flags = MP_SHARED_FLAGS,
    .slots = string_slots,
};

static int derive(PyObject *module, PyTypeObject **field, PyType_Spec *spec, PyTypeObject *base)
{
    *field = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
    return *field == NULL ? -1 : 0;
}

int mp_synchronized_load(PyObject *module)
{
    mp_state *state = mp_state_get(module);
    if (state->synchronized_string_type != NULL)
        return 0;
    if (mp_state_keep_type(module, &state->synchronized_base_type, &base_spec) < 0)
        return -1;
    PyTypeObject *base = state->synchronized_base_type;
    if (derive(module, &state->synchronized_type, &value_spec, base) < 0 ||
        derive(module, &state->synchronized_array_type, &array_spec, base) < 0)
        return -1;
    return derive(module, &state->synchronized_string_type, &string_spec,
                  state->synchronized_array_type);
}
