// SPDX-License-Identifier: PSF-2.0
/* Messages with descriptors, for the fork server. In C because a child that waits for its work pays for
 * each Python object that it touches with a page to copy. */
#define PY_SSIZE_T_CLEAN // "y#" takes a Py_ssize_t
#include "py/state.h"    // exec step

#include "py/blocking.h" // the GIL
#include "py/errors.h"   // mp_raise

#include "os/packet.h" // the work

PyDoc_STRVAR(pair_doc, "packet_pair()\n--\n\n"
                       "Two connected sockets that keep messages whole, close-on-exec.\n\n"
                       "Returns:\n    (descriptor, descriptor).\n\n"
                       "Raises:\n    OSError: no descriptor is left.\n");

static PyObject *packet_pair(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    int ends[2];
    mp_status status = mp_packet_pair(ends);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "a pair of sockets");
    return Py_BuildValue("(ii)", ends[0], ends[1]);
}

typedef struct transfer {
    int file;
    const void *bytes;
    size_t size;
    int files[MP_PACKET_FILES];
    size_t count;
} transfer;

static mp_status send_step(void *context, mp_time Py_UNUSED(deadline))
{
    const transfer *sent = context;
    return mp_packet_send(sent->file, sent->bytes, sent->size, sent->files, sent->count);
}

/* The numbers in a sequence; -1 with an exception set. */
static int parse_files(PyObject *numbers, transfer *sent)
{
    PyObject *list = PySequence_Fast(numbers, "packet_send(): descriptors are a sequence");
    if (list == NULL)
        return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(list);
    if (count > MP_PACKET_FILES) {
        PyErr_Format(PyExc_ValueError,
                     "packet_send(): %zd descriptors, the limit of one message is %d", count,
                     MP_PACKET_FILES);
        goto fail;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        sent->files[i] = PyObject_AsFileDescriptor(PySequence_Fast_GET_ITEM(list, i));
        if (sent->files[i] < 0)
            goto fail;
    }
    sent->count = (size_t)count;
    Py_DECREF(list);
    return 0;
fail:
    Py_DECREF(list);
    return -1;
}

PyDoc_STRVAR(send_doc,
             "packet_send(fd, data, fds)\n--\n\n"
             "Send one message with copies of descriptors; waits for room.\n\n"
             "Raises:\n    OSError: nobody can receive it any more, or a descriptor is closed.\n"
             "    ValueError: too many descriptors.\n");

static PyObject *packet_send(PyObject *module, PyObject *args)
{
    transfer sent;
    Py_buffer data;
    PyObject *numbers;
    if (!PyArg_ParseTuple(args, "iy*O:packet_send", &sent.file, &data, &numbers))
        return NULL;
    mp_status status = MP_INTERRUPTED;
    if (parse_files(numbers, &sent) == 0) {
        sent.bytes = data.buf;
        sent.size = (size_t)data.len;
        status = mp_blocking_run(send_step, &sent, MP_FOREVER);
    }
    PyBuffer_Release(&data);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "packet_send()");
    Py_RETURN_NONE;
}

PyDoc_STRVAR(get_traits_doc,
             "get_traits()\n--\n\n"
             "The umask and the signal mask of this thread, as bytes for set_traits().\n\n"
             "Raises:\n    OSError: /proc is not there.\n");

static PyObject *get_traits(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    mp_traits traits;
    mp_status status = mp_traits_get(&traits);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "/proc/self/status");
    return PyBytes_FromStringAndSize((const char *)&traits, sizeof traits);
}

static PyMethodDef packet_functions[] = {
    {"packet_pair", packet_pair, METH_NOARGS, pair_doc},
    {"packet_send", packet_send, METH_VARARGS, send_doc},
    {"get_traits", get_traits, METH_NOARGS, get_traits_doc},
    {NULL, NULL, 0, NULL},
};

int mp_packet_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, packet_functions);
}
