// SPDX-License-Identifier: PSF-2.0
#include "py/connection.h"

#include <limits.h>       // INT_MAX
#include <structmember.h> // PyMemberDef of 3.11

#include "py/arguments.h" // Connection(handle, readable, writable)
#include "py/errors.h"    // mp_raise

/* ---- checks ---- */

static int refuse(const char *why)
{
    PyErr_SetString(PyExc_OSError, why);
    return -1;
}

int mp_connection_check_open(const mp_connection *self)
{
    return mp_likely(self->stream.file >= 0) ? 0 : refuse("handle is closed");
}

int mp_connection_check_readable(const mp_connection *self)
{
    return mp_likely(self->readable) ? 0 : refuse("connection is write-only");
}

int mp_connection_check_writable(const mp_connection *self)
{
    return mp_likely(self->writable) ? 0 : refuse("connection is read-only");
}

#define CHECK_METHOD(what)                                                                         \
 static PyObject *check_##what(PyObject *self, PyObject *Py_UNUSED(ignored))                       \
 {                                                                                                 \
  if (mp_connection_check_##what(mp_connection_of(self)) < 0)                                      \
   return NULL;                                                                                    \
  Py_RETURN_NONE;                                                                                  \
 }
CHECK_METHOD(open)
CHECK_METHOD(readable)
CHECK_METHOD(writable)

PyObject *mp_connection_name(const mp_connection *self, const char *name)
{
    return mp_codec_global(self->state->connection_codec, name);
}

int mp_connection_override(const mp_connection *self, const char *name, PyObject **method)
{
    PyObject *type = (PyObject *)Py_TYPE((PyObject *)(uintptr_t)self);
    PyObject *base = (PyObject *)self->state->connection_type;
    *method = NULL;
    if (mp_likely(type == base))
        return 0;
    PyObject *usual = PyObject_GetAttrString(base, name);
    PyObject *own = PyObject_GetAttrString(type, name);
    bool same = usual == own;
    Py_XDECREF(usual);
    Py_XDECREF(own);
    if (usual == NULL || own == NULL)
        return -1;
    if (same)
        return 0;
    *method = PyObject_GetAttrString((PyObject *)(uintptr_t)self, name);
    return *method == NULL ? -1 : 1;
}

PyObject *mp_connection_raise(const mp_connection *self, mp_status status, const char *call)
{
    char what[60];
    PyObject *class;
    if (status == MP_TIMEOUT) {
        class = mp_connection_name(self, "TimeoutError");
        if (class != NULL)
            PyErr_Format(class, "Connection.%s(): no whole message came in time", call);
        return NULL;
    }
    PyOS_snprintf(what, sizeof(what), "Connection.%.40s()", call);
    return mp_raise(self->state, status, what);
}

int mp_connection_part(const Py_buffer *whole, Py_ssize_t offset, Py_ssize_t size, bool to_the_end,
                       mp_piece *part)
{
    const char *wrong = NULL;
    if (offset < 0)
        wrong = "offset is negative";
    else if (offset > whole->len)
        wrong = "buffer length < offset";
    else if (to_the_end)
        size = whole->len - offset;
    else if (size < 0)
        wrong = "size is negative";
    else if (size > whole->len - offset)
        wrong = "buffer length < offset + size";
    if (wrong != NULL) {
        PyErr_SetString(PyExc_ValueError, wrong);
        return -1;
    }
    *part = (mp_piece){(const char *)whole->buf + offset, (size_t)size};
    return 0;
}

/* ---- life ---- */

static int parse_handle(PyObject *handle, int *file)
{
    PyObject *index = PyNumber_Index(handle);
    if (index == NULL)
        return -1;
    int overflow;
    long number = PyLong_AsLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (number < 0 && !overflow && PyErr_Occurred())
        return -1;
    if (overflow != 0 || number < 0 || number > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "invalid handle: %R", handle);
        return -1;
    }
    *file = (int)number;
    return 0;
}

static PyObject *connection_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                                PyObject *Py_UNUSED(kwargs))
{
    PyObject *object = type->tp_alloc(type, 0);
    if (object == NULL)
        return NULL;
    mp_connection *self = mp_connection_of(object);
    self->stream.file = -1;
    self->state = mp_state_of_type(type);
    if (self->state == NULL || mp_fork_watch() != MP_OK) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        Py_CLEAR(object);
    }
    return object;
}

static int connection_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const mp_signature signature = {
        "Connection", {"handle", "readable", "writable"}, 3, 1, 3};
    PyObject *values[3];
    mp_connection *self = mp_connection_of(object);
    int file;
    if (mp_arguments_sort_dict(&signature, args, kwargs, values) < 0 ||
        parse_handle(values[0], &file) < 0)
        return -1;
    int readable = values[1] == NULL ? 1 : PyObject_IsTrue(values[1]);
    int writable = values[2] == NULL ? 1 : PyObject_IsTrue(values[2]);
    if (readable < 0 || writable < 0)
        return -1;
    if (!readable && !writable) {
        PyErr_SetString(PyExc_ValueError, "at least one of `readable` and `writable` must be True");
        return -1;
    }
    mp_lane_leave(self);
    self->stream = (mp_stream){.file = file};
    self->readable = readable != 0;
    self->writable = writable != 0;
    return 0;
}

/* A subclass may close in its own way; whatever that says, the connection is closed afterwards. */
static int close_now(mp_connection *self)
{
    PyObject *own;
    int overridden = mp_connection_override(self, "_close", &own);
    if (overridden > 0) {
        PyObject *done = PyObject_CallNoArgs(own);
        Py_DECREF(own);
        Py_XDECREF(done);
        mp_lane_leave(self);
        self->stream.file = -1;
        return done == NULL ? -1 : 0;
    }
    int file = self->stream.file;
    mp_lane_leave(self);
    self->stream.file = -1; // before: nobody must find a number that may be somebody else's by now
    if (overridden < 0)
        return -1;
    if (mp_stream_close(file) != MP_OK) {
        (void)mp_connection_raise(self, MP_SYSTEM, "close");
        return -1;
    }
    return 0;
}

static void connection_finalize(PyObject *object)
{
    mp_connection *self = mp_connection_of(object);
    if (self->stream.file < 0)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (close_now(self) < 0)
        PyErr_WriteUnraisable(object);
    PyErr_Restore(type, value, traceback);
}

static int connection_traverse(PyObject *object, visitproc visit, void *arg)
{
    mp_connection *self = mp_connection_of(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->attributes);
    return 0;
}

static int connection_clear(PyObject *object)
{
    Py_CLEAR(mp_connection_of(object)->attributes);
    return 0;
}

static void connection_dealloc(PyObject *object)
{
    mp_connection *self = mp_connection_of(object);
    PyTypeObject *type = Py_TYPE(object);
    if (PyObject_CallFinalizerFromDealloc(object) < 0)
        return; // resurrected
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(object);
    Py_CLEAR(self->attributes);
    mp_incoming_forget(&self->incoming);
    mp_lane_leave(self);
    type->tp_free(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Close it; a second time does nothing. Since 2.6.");

static PyObject *connection_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_connection *self = mp_connection_of(object);
    if (self->stream.file >= 0 && close_now(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *connection_close_hook(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_connection *self = mp_connection_of(object);
    int file = self->stream.file;
    if (mp_connection_check_open(self) < 0)
        return NULL;
    self->stream.file = -1;
    if (mp_stream_close(file) != MP_OK)
        return mp_connection_raise(self, MP_SYSTEM, "_close");
    Py_RETURN_NONE;
}

/* ---- looking at it ---- */

PyDoc_STRVAR(fileno_doc, "fileno($self, /)\n--\n\n"
                         "The descriptor.\n\nRaises:\n    OSError: it is closed.\n\nSince 2.6.");

static PyObject *connection_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (mp_connection_check_open(mp_connection_of(self)) < 0)
        return NULL;
    return PyLong_FromLong(mp_connection_of(self)->stream.file);
}

static PyObject *get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(mp_connection_of(self)->stream.file < 0);
}

static PyObject *get_readable(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(mp_connection_of(self)->readable);
}

static PyObject *get_writable(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(mp_connection_of(self)->writable);
}

static PyObject *get_handle(PyObject *self, void *Py_UNUSED(closure))
{
    int file = mp_connection_of(self)->stream.file;
    if (file < 0)
        Py_RETURN_NONE;
    return PyLong_FromLong(file);
}

/* None: forget the descriptor without closing it. A number: another one from now on. */
static int set_handle(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
    mp_connection *self = mp_connection_of(object);
    int file = -1;
    if (value != NULL && value != Py_None && parse_handle(value, &file) < 0)
        return -1;
    mp_lane_leave(self); // what is there on the other side now is not known
    self->stream = (mp_stream){.file = file};
    return 0;
}

static int parse_truth(PyObject *value, bool *flag)
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth >= 0)
        *flag = truth != 0;
    return truth < 0 ? -1 : 0;
}

static int set_readable(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    return parse_truth(value, &mp_connection_of(self)->readable);
}

static int set_writable(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    return parse_truth(value, &mp_connection_of(self)->writable);
}

static PyObject *connection_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *connection_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
                                 Py_ssize_t Py_UNUSED(nargs))
{
    return PyObject_CallMethod(self, "close", NULL);
}

/* ---- tables ---- */

#define AS_METHOD(function) ((PyCFunction)(void (*)(void))(function))

PyDoc_STRVAR(send_doc, "send($self, /, obj)\n--\n\n"
                       "Send an object, pickled; no reference to it is kept.\n\n"
                       "Raises:\n"
                       "    Exception: whatever pickling it raises; nothing was sent.\n"
                       "    OSError: closed, read-only, or the other end is closed.\n\n"
                       "Since 2.6; documented in multiprocessing, 'Connection objects'.");

PyDoc_STRVAR(recv_doc,
             "recv($self, /, timeout=None)\n--\n\n"
             "The next object.\n\n"
             "Args:\n"
             "    timeout: seconds to wait at most for the whole of it; None: for ever. Not in\n"
             "        the standard library.\n\n"
             "Raises:\n"
             "    EOFError: nothing is left and the other end is closed.\n"
             "    OSError: closed, write-only, or what came is no message.\n"
             "    TimeoutError: the package's own; nothing is lost.\n\n"
             "Since 2.6; documented in multiprocessing, 'Connection objects'.");

PyDoc_STRVAR(send_bytes_doc,
             "send_bytes($self, buf, offset=0, size=None)\n--\n\n"
             "Send bytes as one message.\n\n"
             "Args:\n"
             "    buf: bytes, or anything contiguous with the buffer interface.\n"
             "    offset: position in bytes of the first one to send.\n"
             "    size: number of bytes; None: all from offset on.\n\n"
             "Raises:\n"
             "    ValueError: offset or size is negative or leads out of the buffer.\n"
             "    OSError: closed, read-only, or the other end is closed.\n\n"
             "Since 2.6; documented in multiprocessing, 'Connection objects'.");

PyDoc_STRVAR(recv_bytes_doc,
             "recv_bytes($self, maxlength=None, *, timeout=None)\n--\n\n"
             "The next message as bytes.\n\n"
             "Args:\n"
             "    maxlength: a longer message raises OSError, and the connection can be read no\n"
             "        more.\n"
             "    timeout: seconds to wait at most for the whole of it; None: for ever. Not in\n"
             "        the standard library.\n\n"
             "Raises:\n"
             "    EOFError: nothing is left and the other end is closed.\n"
             "    OSError: closed, write-only, too long, or what came is no message.\n"
             "    TimeoutError: the package's own; nothing is lost.\n"
             "    ValueError: maxlength is negative.\n\n"
             "Since 2.6; documented in multiprocessing, 'Connection objects'.");

PyDoc_STRVAR(recv_bytes_into_doc,
             "recv_bytes_into($self, buf, offset=0)\n--\n\n"
             "Receive the next message into a writable buffer.\n\n"
             "Args:\n"
             "    buf: where it goes.\n"
             "    offset: position in bytes.\n\n"
             "Returns:\n"
             "    Its length in bytes.\n\n"
             "Raises:\n"
             "    BufferTooShort: it does not fit; args[0] is the message.\n"
             "    EOFError: nothing is left and the other end is closed.\n"
             "    ValueError: offset is negative or beyond the buffer.\n\n"
             "Since 2.6; documented in multiprocessing, 'Connection objects'.");

PyDoc_STRVAR(poll_doc,
             "poll($self, timeout=0.0)\n--\n\n"
             "Whether there is something to receive; end of file is something.\n\n"
             "A message that is only half there does not count yet, where the system can tell.\n\n"
             "Args:\n"
             "    timeout: seconds to wait for it; None: for ever.\n\n"
             "Since 2.6; documented in multiprocessing, 'Connection objects'.");

static PyMethodDef connection_methods[] = {
    {"send", AS_METHOD(mp_connection_send), METH_FASTCALL | METH_KEYWORDS, send_doc},
    {"recv", AS_METHOD(mp_connection_recv), METH_FASTCALL | METH_KEYWORDS, recv_doc},
    {"send_bytes", AS_METHOD(mp_connection_send_bytes), METH_FASTCALL | METH_KEYWORDS,
     send_bytes_doc},
    {"recv_bytes", AS_METHOD(mp_connection_recv_bytes), METH_FASTCALL | METH_KEYWORDS,
     recv_bytes_doc},
    {"recv_bytes_into", AS_METHOD(mp_connection_recv_bytes_into), METH_FASTCALL | METH_KEYWORDS,
     recv_bytes_into_doc},
    {"poll", AS_METHOD(mp_connection_poll), METH_FASTCALL | METH_KEYWORDS, poll_doc},
    {"fileno", connection_fileno, METH_NOARGS, fileno_doc},
    {"close", connection_close, METH_NOARGS, close_doc},
    {"__enter__", connection_enter, METH_NOARGS, "The connection itself."},
    {"__exit__", AS_METHOD(connection_exit), METH_FASTCALL, "Close it."},
    {"_check_closed", check_open, METH_NOARGS, "OSError if it is closed."},
    {"_check_readable", check_readable, METH_NOARGS, "OSError if it is write-only."},
    {"_check_writable", check_writable, METH_NOARGS, "OSError if it is read-only."},
    {"_close", connection_close_hook, METH_NOARGS, "Close the descriptor."},
    {"_send", mp_connection_send_hook, METH_O, "Write bytes, all of them, without a length."},
    {"_recv", mp_connection_recv_hook, METH_O, "Read so many bytes into an io.BytesIO."},
    {"_send_bytes", mp_connection_send_bytes_hook, METH_O, "Send bytes as one message."},
    {"_recv_bytes", AS_METHOD(mp_connection_recv_bytes_hook), METH_FASTCALL,
     "The next message in an io.BytesIO; None: it is longer than the argument."},
    {"_lane_ticket", mp_lane_ticket, METH_NOARGS,
     "For a pickle of this end of a Pipe(): (ticket, side), or None."},
    {"_lane_attach", mp_lane_attach, METH_O, "Be the end of a Pipe() that such a pair names."},
    {"_poll", mp_connection_poll_hook, METH_O, "Whether there is something, in so many seconds."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef connection_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"closed", get_closed, NULL, "Whether it was closed.", NULL},
    {"readable", get_readable, NULL, "Whether it may be received from.", NULL},
    {"writable", get_writable, NULL, "Whether it may be sent to.", NULL},
    {"_handle", get_handle, set_handle, "The descriptor, or None; may be set.", NULL},
    {"_readable", get_readable, set_readable, "As `readable`; may be set.", NULL},
    {"_writable", get_writable, set_writable, "As `writable`; may be set.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef connection_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(mp_connection, attributes), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(mp_connection, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(connection_doc,
             "Connection(handle, readable=True, writable=True)\n--\n\n"
             "A connection over a socket or a pipe: whole messages, in the wire format of the\n"
             "standard library. Threads may share it.\n\n"
             "Args:\n"
             "    handle: a descriptor; the connection owns it from now on.\n"
             "    readable: whether it may be received from.\n"
             "    writable: whether it may be sent to.\n\n"
             "Raises:\n"
             "    ValueError: the handle is negative, or neither direction is wanted.\n\n"
             "Since 2.6; documented in multiprocessing, 'Connection objects'.");

static PyType_Slot connection_slots[] = {
    {Py_tp_doc, (void *)connection_doc},
    {Py_tp_new, connection_new},
    {Py_tp_init, connection_init},
    {Py_tp_finalize, connection_finalize},
    {Py_tp_dealloc, connection_dealloc},
    {Py_tp_traverse, connection_traverse},
    {Py_tp_clear, connection_clear},
    {Py_tp_methods, connection_methods},
    {Py_tp_getset, connection_getset},
    {Py_tp_members, connection_members},
    {0, NULL},
};

static PyType_Spec connection_spec = {
    .name = "cmultiprocessing.connection.Connection",
    .basicsize = sizeof(mp_connection),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = connection_slots,
};

int mp_connection_exec(PyObject *module)
{
    if (mp_state_add_type(module, &mp_state_get(module)->connection_type, &connection_spec) < 0)
        return -1;
    return PyModule_AddFunctions(module, mp_connection_functions);
}
