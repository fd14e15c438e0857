// SPDX-License-Identifier: PSF-2.0
/* Messages with descriptors, for the fork server. In C because a child that waits for its work pays for
 * each Python object that it touches with a page to copy. */
#define PY_SSIZE_T_CLEAN // "y#" takes a Py_ssize_t
#include "py/state.h"    // exec step

#include "py/blocking.h" // the GIL
#include "py/errors.h"   // mp_raise

#include "os/packet.h" // the work

#include <string.h> // memcpy

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
    mp_packet *packet;
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

static mp_status receive_step(void *context, mp_time Py_UNUSED(deadline))
{
    const transfer *received = context;
    return mp_packet_receive(received->file, received->packet);
}

/* (data, descriptors, user id of the sender, complete) */
static PyObject *describe(const mp_packet *packet)
{
    PyObject *files = PyTuple_New((Py_ssize_t)packet->count);
    for (size_t i = 0; files != NULL && i < packet->count; i++) {
        PyObject *number = PyLong_FromLong(packet->files[i]);
        if (number == NULL)
            Py_CLEAR(files);
        else
            PyTuple_SET_ITEM(files, (Py_ssize_t)i, number);
    }
    if (files == NULL)
        return NULL;
    size_t size = packet->size < packet->room ? packet->size : packet->room;
    return Py_BuildValue("(y#NkO)", (const char *)packet->bytes, (Py_ssize_t)size, files,
                         (unsigned long)packet->sender, packet->complete ? Py_True : Py_False);
}

static PyObject *receive(PyObject *module, PyObject *args, const char *format, bool waits)
{
    mp_packet packet;
    transfer received = {.packet = &packet};
    Py_ssize_t room;
    if (!PyArg_ParseTuple(args, format, &received.file, &room))
        return NULL;
    if (room <= 0)
        return PyErr_Format(PyExc_ValueError, "packet_receive(): a room of %zd bytes", room);
    packet.bytes = PyMem_Malloc((size_t)room);
    if (packet.bytes == NULL)
        return PyErr_NoMemory();
    packet.room = (size_t)room;
    PyObject *result = NULL;
    mp_status status = waits ? mp_blocking_run(receive_step, &received, MP_FOREVER)
                             : mp_packet_try_receive(received.file, &packet);
    if (status == MP_TIMEOUT || status == MP_WOULD_BLOCK) {
        result = Py_NewRef(Py_None);
    } else if (status == MP_OK) {
        result = describe(&packet);
        if (result == NULL)
            mp_packet_drop(&packet);
    } else {
        mp_raise(mp_state_get(module), status, "packet_receive()");
    }
    PyMem_Free(packet.bytes);
    return result;
}

PyDoc_STRVAR(
    receive_doc,
    "packet_receive(fd, room)\n--\n\n"
    "Wait for one message of at most `room` bytes. Of several processes that wait one gets it.\n\n"
    "Returns:\n    (data, descriptors, user id of the sender, whether nothing is missing),\n"
    "    or None after the time of packet_patience(). Without data at the end of file.\n\n"
    "Raises:\n    OSError: the descriptor is no socket.\n");

static PyObject *packet_receive(PyObject *module, PyObject *args)
{
    return receive(module, args, "in:packet_receive", true);
}

PyDoc_STRVAR(try_receive_doc, "packet_try_receive(fd, room)\n--\n\n"
                              "packet_receive() without waiting: None if there is no message.\n");

static PyObject *packet_try_receive(PyObject *module, PyObject *args)
{
    return receive(module, args, "in:packet_try_receive", false);
}

PyDoc_STRVAR(patience_doc,
             "packet_patience(fd, milliseconds)\n--\n\n"
             "How long packet_receive() waits, in every process that shares this end.\n");

static PyObject *packet_patience(PyObject *module, PyObject *args)
{
    int file;
    unsigned int milliseconds;
    if (!PyArg_ParseTuple(args, "iI:packet_patience", &file, &milliseconds))
        return NULL;
    mp_status status = mp_packet_patience(file, milliseconds);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "packet_patience()");
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

PyDoc_STRVAR(set_traits_doc, "set_traits(traits)\n--\n\n"
                             "Take over what get_traits() gave in another process.\n\n"
                             "Raises:\n    ValueError: they are damaged.\n");

static PyObject *set_traits(PyObject *Py_UNUSED(module), PyObject *bytes)
{
    mp_traits traits;
    if (!PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) != (Py_ssize_t)sizeof traits) {
        PyErr_SetString(PyExc_ValueError, "set_traits(): not what get_traits() gave");
        return NULL;
    }
    memcpy(&traits, PyBytes_AS_STRING(bytes), sizeof traits);
    mp_traits_set(&traits);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(follow_doc,
             "follow_parent(pid)\n--\n\n"
             "Be killed when the parent dies.\n\n"
             "Raises:\n    ProcessLookupError: process `pid` is not the parent any more.\n");

static PyObject *follow_parent(PyObject *module, PyObject *number)
{
    unsigned long parent = PyLong_AsUnsignedLong(number);
    if (parent == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    mp_status status = mp_parent_follow((uint32_t)parent);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "the parent process");
    Py_RETURN_NONE;
}

PyDoc_STRVAR(unfollow_doc, "unfollow_parent()\n--\n\n"
                           "Outlive the parent again.\n");

static PyObject *unfollow_parent(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    mp_parent_unfollow();
    Py_RETURN_NONE;
}

static PyMethodDef packet_functions[] = {
    {"packet_pair", packet_pair, METH_NOARGS, pair_doc},
    {"packet_send", packet_send, METH_VARARGS, send_doc},
    {"packet_receive", packet_receive, METH_VARARGS, receive_doc},
    {"packet_try_receive", packet_try_receive, METH_VARARGS, try_receive_doc},
    {"packet_patience", packet_patience, METH_VARARGS, patience_doc},
    {"get_traits", get_traits, METH_NOARGS, get_traits_doc},
    {"set_traits", set_traits, METH_O, set_traits_doc},
    {"follow_parent", follow_parent, METH_O, follow_doc},
    {"unfollow_parent", unfollow_parent, METH_NOARGS, unfollow_doc},
    {NULL, NULL, 0, NULL},
};

int mp_packet_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, packet_functions);
}
