// SPDX-License-Identifier: PSF-2.0
/* Event. */
#include "py/sharing.h" // mp_shared

#include "py/arguments.h" // wait(timeout)
#include "py/blocking.h"  // waiting without the GIL
#include "py/names.h"     // repr

#include "sync/event.h" // the event itself

typedef struct mp_event_object {
    mp_shared shared;
    struct mp_event_shm *event;
    mp_spin_memory spin;
} mp_event_object;

static mp_event_object *event_of(PyObject *self)
{
    return (mp_event_object *)(void *)self;
}

static int event_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const mp_signature signature = {"Event", {"ctx"}, 1, 0, 0};
    PyObject *values[1];
    if (mp_arguments_sort_dict(&signature, args, kwargs, values) < 0 ||
        mp_shared_create(self, MP_TYPE_EVENT, sizeof(struct mp_event_shm)) < 0)
        return -1;
    event_of(self)->event = mp_object_payload(&mp_shared_of(self)->handle);
    return 0;
}

static PyObject *event_attach(PyObject *type, PyObject *ticket)
{
    PyObject *self = mp_shared_attach((PyTypeObject *)type, ticket, MP_TYPE_EVENT);
    if (self != NULL)
        event_of(self)->event = mp_object_payload(&mp_shared_of(self)->handle);
    return self;
}

static PyObject *event_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return mp_shared_reduce(self, &mp_shared_of(self)->handle, NULL);
}

PyDoc_STRVAR(is_set_doc, "is_set($self, /)\n--\n\nWhether the flag is true.");

static PyObject *event_is_set(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "is_set") < 0)
        return NULL;
    return PyBool_FromLong(mp_event_is_set(event_of(self)->event));
}

PyDoc_STRVAR(set_doc, "set($self, /)\n--\n\n"
                      "Make the flag true, and wake all that wait for it.");

static PyObject *event_set(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "set") < 0)
        return NULL;
    mp_event_set(event_of(self)->event);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\n"
                        "Make the flag false. Who waited when it was set goes on nevertheless.");

static PyObject *event_clear(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_shared_check(self, "clear") < 0)
        return NULL;
    mp_event_clear(event_of(self)->event);
    Py_RETURN_NONE;
}

static mp_status event_sleep(void *context, mp_time deadline)
{
    return mp_event_sleep(context, deadline);
}

PyDoc_STRVAR(
    wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Wait until the flag is true.\n\n"
    "Args:\n"
    "    timeout: seconds to wait at most; None: for ever; negative: not at all.\n\n"
    "Returns:\n"
    "    True if the flag is or was true since the call began (also if it was cleared again\n"
    "    at once), False if not in time.\n\n"
    "Since 2.6; documented in threading, 'Event objects'.");

static PyObject *event_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    static const mp_signature signature = {"wait", {"timeout"}, 1, 0, 1};
    PyObject *values[1];
    mp_time deadline;
    if (mp_arguments_sort(&signature, args, nargs, kwnames, values) < 0 ||
        mp_deadline_parse(values[0], &deadline) < 0 || mp_shared_check(self, "wait") < 0)
        return NULL;
    mp_event_wait wait;
    mp_status status = mp_event_begin(&wait, event_of(self)->event, &event_of(self)->spin);
    if (status == MP_WOULD_BLOCK && deadline != MP_NO_WAIT)
        status = mp_blocking_run(event_sleep, &wait, deadline);
    if (status == MP_OK)
        Py_RETURN_TRUE;
    if (status == MP_WOULD_BLOCK || status == MP_TIMEOUT)
        Py_RETURN_FALSE;
    (void)mp_shared_raise(self, status, "wait");
    return NULL;
}

static PyObject *event_repr(PyObject *self)
{
    if (mp_shared_check(self, "__repr__") < 0)
        return NULL;
    return PyUnicode_FromFormat("<%s at %p %s>", mp_type_name(self), (void *)self,
                                mp_event_is_set(event_of(self)->event) ? "set" : "unset");
}

#define AS_METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef event_methods[] = {
    {"is_set", event_is_set, METH_NOARGS, is_set_doc},
    {"set", event_set, METH_NOARGS, set_doc},
    {"clear", event_clear, METH_NOARGS, clear_doc},
    {"wait", AS_METHOD(event_wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"__reduce__", event_reduce, METH_NOARGS, NULL},
    {"_attach", event_attach, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef event_getset[] = {
    MP_SHARED_DICT,
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(event_doc,
             "Event(*, ctx=None)\n--\n\n"
             "A flag shared between processes that others can wait for.\n\n"
             "Args:\n"
             "    ctx: accepted for compatibility; an event works under every start method.\n\n"
             "Since 2.6; documented in threading, 'Event objects'.");

static PyType_Slot event_slots[] = {
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, event_init},
    {Py_tp_dealloc, mp_shared_dealloc},
    {Py_tp_traverse, mp_shared_traverse},
    {Py_tp_clear, mp_shared_clear},
    {Py_tp_members, mp_shared_members},
    {Py_tp_getset, event_getset},
    {Py_tp_methods, event_methods},
    {Py_tp_repr, event_repr},
    {Py_tp_doc, (void *)event_doc},
    {0, NULL},
};

static PyType_Spec event_spec = {
    .name = "cmultiprocessing.synchronize.Event",
    .basicsize = sizeof(mp_event_object),
    .flags = MP_SHARED_FLAGS,
    .slots = event_slots,
};

int mp_event_exec(PyObject *module)
{
    return mp_state_add_type(module, &mp_state_get(module)->event_type, &event_spec);
}
