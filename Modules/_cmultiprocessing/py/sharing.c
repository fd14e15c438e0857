// SPDX-License-Identifier: PSF-2.0
#include "py/sharing.h"

#include <stddef.h> // offsetof
#include <string.h> // memcpy

#include "py/blocking.h" // waiting where somebody was stopped in the heap
#include "py/errors.h"   // mp_raise

/* ---- the head ---- */

PyMemberDef mp_shared_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(mp_shared, attributes), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(mp_shared, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

int mp_shared_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(mp_shared_of(self)->attributes);
    return 0;
}

int mp_shared_clear(PyObject *self)
{
    Py_CLEAR(mp_shared_of(self)->attributes);
    return 0;
}

bool mp_shared_present(void)
{
    return mp_family.base != NULL && *mp_family.self != MP_NOBODY;
}

void mp_shared_dealloc_begin(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    if (mp_shared_of(self)->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    Py_CLEAR(mp_shared_of(self)->attributes);
}

void mp_shared_dealloc_end(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    mp_shared *shared = mp_shared_of(self);
    if (shared->handle.type != 0 && mp_shared_present())
        mp_object_release(&shared->handle);
    type->tp_free(self);
    Py_DECREF(type);
}

void mp_shared_dealloc(PyObject *self)
{
    mp_shared_dealloc_begin(self);
    mp_shared_dealloc_end(self);
}

PyObject *mp_shared_get_self(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self);
}

PyObject *mp_shared_get_handle(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(mp_shared_of(self)->handle.offset);
}

PyObject *mp_shared_get_name(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

PyObject *mp_shared_after_fork(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_NONE;
}

/* ---- pickling ---- */

/* Of this thread: the innermost bracket, and where pickles outside of any bracket go. */
static _Thread_local mp_pins *innermost;
static _Thread_local mp_owner outermost_target;

void mp_pins_begin(mp_pins *pins, mp_owner target)
{
    *pins = (mp_pins){.target = target, .outer = innermost};
    innermost = pins;
}

void mp_pins_end(mp_pins *pins)
{
    assert(innermost == pins);
    innermost = pins->outer;
}

void mp_pins_forget(mp_pins *pins)
{
    PyMem_Free(pins->tickets);
    pins->tickets = NULL;
    pins->count = pins->capacity = 0;
}

void mp_pins_drop(mp_pins *pins)
{
    for (size_t i = 0; i < pins->count; i++)
        mp_object_unpin(&pins->tickets[i]);
    mp_pins_forget(pins);
}

/* Room for one more ticket, before the pin is made: recording it cannot fail then. */
static int reserve_ticket(mp_pins *pins)
{
    if (pins == NULL || pins->count < pins->capacity)
        return 0;
    size_t capacity = pins->capacity == 0 ? 4 : 2 * pins->capacity;
    mp_object_ticket *tickets = pins->tickets;
    PyMem_Resize(tickets, mp_object_ticket, capacity);
    if (tickets == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    pins->tickets = tickets;
    pins->capacity = capacity;
    return 0;
}

/* ---- calls that need memory ----
 *
 * They are quick, but for a process that was stopped in the middle of the heap: then they wait for it
 * without the GIL, and Ctrl-C ends the wait. */

typedef struct request {
    uint32_t kind;
    uint64_t size;           // create
    const mp_handle *object; // pin
    mp_owner target;         // pin
    mp_object_ticket ticket; // pin, attach
    mp_handle *handle;       // create, attach
} request;

static mp_status create_step(void *context, mp_time deadline)
{
    request *self = context;
    (void)deadline;
    return mp_object_create(self->kind, self->size, self->handle);
}

static mp_status pin_step(void *context, mp_time deadline)
{
    request *self = context;
    (void)deadline;
    return mp_object_pin(self->object, self->target, &self->ticket);
}

static mp_status attach_step(void *context, mp_time deadline)
{
    request *self = context;
    (void)deadline;
    return mp_object_attach(&self->ticket, self->kind, self->handle);
}

static inline mp_status ask(mp_blocking_call step, request *self)
{
    mp_status status = mp_family_enter();
    if (mp_likely(status == MP_OK))
        status = step(self, MP_FOREVER);
    return mp_likely(status != MP_INTERRUPTED) ? status : mp_blocking_run(step, self, MP_FOREVER);
}

/* A pinned ticket as bytes; recorded in the innermost bracket. */
static PyObject *pin_ticket(mp_state *state, const mp_handle *handle)
{
    mp_pins *pins = innermost;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, sizeof(mp_object_ticket));
    if (bytes == NULL || reserve_ticket(pins) < 0) {
        Py_XDECREF(bytes);
        return NULL;
    }
    request work;
    memset(&work, 0, sizeof(work)); // padding of the ticket travels too
    work.object = handle;
    work.target = pins == NULL ? outermost_target : pins->target;
    mp_status status = ask(pin_step, &work);
    if (status != MP_OK) {
        Py_DECREF(bytes);
        return mp_raise(state, status, "pickling a shared object");
    }
    // A signal handler that ran while this waited may have used up the room.
    if (reserve_ticket(pins) < 0) {
        mp_object_unpin(&work.ticket);
        Py_DECREF(bytes);
        return NULL;
    }
    if (pins != NULL)
        pins->tickets[pins->count++] = work.ticket;
    memcpy(PyBytes_AS_STRING(bytes), &work.ticket, sizeof(work.ticket));
    return bytes;
}

PyObject *mp_pins_ticket(mp_state *state, const mp_handle *handle)
{
    return pin_ticket(state, handle);
}

bool mp_pins_in_family(void)
{
    return innermost != NULL ? !innermost->outside : outermost_target != MP_NOBODY;
}

/* (type(self), ticket, *extra); steals `ticket`. */
static PyObject *rebuild_arguments(PyObject *self, PyObject *ticket, PyObject *extra)
{
    Py_ssize_t more = extra == NULL ? 0 : PyTuple_GET_SIZE(extra);
    PyObject *arguments = PyTuple_New(2 + more);
    if (arguments == NULL) {
        Py_DECREF(ticket);
        return NULL;
    }
    PyTuple_SET_ITEM(arguments, 0, Py_NewRef(Py_TYPE(self)));
    PyTuple_SET_ITEM(arguments, 1, ticket);
    for (Py_ssize_t i = 0; i < more; i++)
        PyTuple_SET_ITEM(arguments, 2 + i, Py_NewRef(PyTuple_GET_ITEM(extra, i)));
    return arguments;
}

PyObject *mp_shared_reduce(PyObject *self, const mp_handle *handle, PyObject *extra)
{
    mp_state *state = mp_state_of_type(Py_TYPE(self));
    if (state == NULL)
        return NULL;
    // Attributes that the program added travel along; read first, the pin is the last thing that fails.
    PyObject *attributes = PyObject_GenericGetDict(self, NULL);
    if (attributes == NULL)
        return NULL;
    PyObject *ticket = NULL;
    if (handle->type != 0)
        ticket = pin_ticket(state, handle);
    else
        (void)mp_shared_raise_unready(self);
    PyObject *arguments = ticket == NULL ? NULL : rebuild_arguments(self, ticket, extra);
    PyObject *result = NULL;
    if (arguments != NULL && PyDict_GET_SIZE(attributes) > 0)
        result = PyTuple_Pack(3, state->rebuild, arguments, attributes);
    else if (arguments != NULL)
        result = PyTuple_Pack(2, state->rebuild, arguments);
    Py_XDECREF(arguments);
    Py_DECREF(attributes);
    return result;
}

PyObject *mp_shared_attach(PyTypeObject *type, PyObject *ticket, uint32_t kind)
{
    if (!PyBytes_Check(ticket) || PyBytes_GET_SIZE(ticket) != sizeof(mp_object_ticket)) {
        PyErr_Format(PyExc_ValueError, "%s: not the ticket of a shared object", type->tp_name);
        return NULL;
    }
    mp_handle handle;
    request work = {.kind = kind, .handle = &handle};
    memcpy(&work.ticket, PyBytes_AS_STRING(ticket), sizeof(work.ticket));
    PyObject *self = type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    mp_status status = ask(attach_step, &work);
    if (status != MP_OK) {
        (void)mp_shared_raise(self, status, "unpickle");
        Py_DECREF(self);
        return NULL;
    }
    mp_shared_of(self)->handle = handle;
    return self;
}

int mp_shared_create(PyObject *self, uint32_t kind, uint64_t size)
{
    mp_handle *handle = &mp_shared_of(self)->handle;
    if (mp_unlikely(handle->type != 0)) {
        PyErr_Format(PyExc_RuntimeError, "%s.__init__() called twice", Py_TYPE(self)->tp_name);
        return -1;
    }
    request work = {.kind = kind, .size = size, .handle = handle};
    mp_status status = ask(create_step, &work);
    return mp_likely(status == MP_OK) ? 0 : mp_shared_raise(self, status, "__init__");
}

int mp_shared_raise_unready(PyObject *self)
{
    PyErr_Format(PyExc_RuntimeError, "%s.__init__() was not called", Py_TYPE(self)->tp_name);
    return -1;
}

int mp_shared_raise(PyObject *self, mp_status status, const char *call)
{
    mp_state *state = mp_state_of_type(Py_TYPE(self));
    char what[100];
    PyOS_snprintf(what, sizeof(what), "%.60s.%.30s()", Py_TYPE(self)->tp_name, call);
    return state == NULL ? -1 : mp_raise_int(state, status, what);
}

PyDoc_STRVAR(rebuild_doc, "_rebuild(type, ticket, /, *extra)\n--\n\n"
                          "Unpickle a shared object: type._attach(ticket, *extra).");

static PyObject *rebuild(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 2 || !PyType_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "_rebuild(type, ticket, *extra)");
        return NULL;
    }
    PyObject *attach = PyObject_GetAttrString(args[0], "_attach");
    if (attach == NULL)
        return NULL;
    PyObject *result = PyObject_Vectorcall(attach, args + 1, (size_t)(nargs - 1), NULL);
    Py_DECREF(attach);
    return result;
}

PyDoc_STRVAR(
    pin_target_doc,
    "pin_target(ticket, /)\n--\n\n"
    "Shared objects pickled by this thread from now on are for the process of this ticket\n"
    "(from family_reserve()): they live until it took them, or died. None: for anybody.");

static PyObject *pin_target(PyObject *Py_UNUSED(module), PyObject *ticket)
{
    if (ticket == Py_None) {
        outermost_target = MP_NOBODY;
        Py_RETURN_NONE;
    }
    if (!PyBytes_Check(ticket) || PyBytes_GET_SIZE(ticket) != sizeof(struct mp_ticket)) {
        PyErr_SetString(PyExc_ValueError, "pin_target(): not a ticket of family_reserve()");
        return NULL;
    }
    struct mp_ticket copy;
    memcpy(&copy, PyBytes_AS_STRING(ticket), sizeof(copy));
    outermost_target = copy.owner;
    Py_RETURN_NONE;
}

static PyMethodDef sharing_functions[] = {
    {"_rebuild", (PyCFunction)(void (*)(void))rebuild, METH_FASTCALL, rebuild_doc},
    {"pin_target", pin_target, METH_O, pin_target_doc},
    {NULL, NULL, 0, NULL},
};

int mp_sharing_exec(PyObject *module)
{
    if (PyModule_AddFunctions(module, sharing_functions) < 0)
        return -1;
    mp_state *state = mp_state_get(module);
    state->rebuild = PyObject_GetAttrString(module, "_rebuild");
    return state->rebuild == NULL ? -1 : 0;
}
