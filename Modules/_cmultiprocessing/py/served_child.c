// SPDX-License-Identifier: PSF-2.0
#define PY_SSIZE_T_CLEAN     // "y#" takes a Py_ssize_t
#include "py/served_child.h" // the contract

#include "py/child.h" // the rest of its life

#include "py/errors.h" // mp_raise

#include "os/os.h"      // leash, private descriptors
#include "os/packet.h"  // requests
#include "shm/family.h" // its place

#include <errno.h>  // EPERM
#include <fcntl.h>  // O_CLOEXEC
#include <signal.h> // SIGINT
#include <string.h> // memcmp
#include <unistd.h> // dup3

#define DATA_MOST (32 << 10) // of start data in the message; larger ones are a file of their own

/* A request begins with it. Then come `name_size` bytes, the process's name as UTF-8; then, unless they are
 * in a file, the start data: what has to be prepared, pickled, of `preparation_size` bytes, and the process
 * object, pickled. Only processes of one family, thus of one build, exchange it. */
typedef struct request_head {
    uint8_t key[MP_SERVER_KEY];
    uint8_t leashed, has_tracker, in_file, reserved[5];
    uint32_t name_size, preparation_size;
    mp_traits traits;
    struct mp_ticket ticket;
} request_head;

/* The order of a request's descriptors; behind them the tracker's, the file's, and those of the arguments. */
enum { STATUS, CONTROL, LEASH, FAMILY, OWN_FILES };

PyDoc_STRVAR(head_doc,
             "request_head(leashed, has_tracker, in_file, name, preparation_size, traits, ticket)\n"
             "--\n\n"
             "The beginning of a request to the fork server, but for the key.\n\n"
             "Args:\n"
             "    leashed: whether the child ends with this process.\n"
             "    has_tracker: whether the first further descriptor is the resource tracker's.\n"
             "    in_file: whether the next one is the file with the start data.\n"
             "    name: of the process, UTF-8.\n"
             "    preparation_size: bytes of start data that come before the process object.\n"
             "    traits: from get_traits().\n"
             "    ticket: from family_reserve().\n\n"
             "Raises:\n    ValueError: traits or ticket are damaged.\n");

static PyObject *request_head_pack(PyObject *Py_UNUSED(module), PyObject *args)
{
    request_head head = {.leashed = 0};
    int leashed, has_tracker, in_file;
    const char *name, *traits, *ticket;
    Py_ssize_t name_size, traits_size, ticket_size;
    if (!PyArg_ParseTuple(args, "pppy#Iy#y#:request_head", &leashed, &has_tracker, &in_file, &name,
                          &name_size, &head.preparation_size, &traits, &traits_size, &ticket,
                          &ticket_size))
        return NULL;
    if (traits_size != (Py_ssize_t)sizeof head.traits ||
        ticket_size != (Py_ssize_t)sizeof head.ticket || name_size > DATA_MOST)
        return PyErr_Format(PyExc_ValueError,
                            "request_head(): %zd bytes of traits, %zd of a ticket, %zd of a name",
                            traits_size, ticket_size, name_size);
    head.leashed = (uint8_t)leashed;
    head.has_tracker = (uint8_t)has_tracker;
    head.in_file = (uint8_t)in_file;
    head.name_size = (uint32_t)name_size;
    memcpy(&head.traits, traits, sizeof head.traits);
    memcpy(&head.ticket, ticket, sizeof head.ticket);
    PyObject *result =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)sizeof head - MP_SERVER_KEY + name_size);
    if (result == NULL)
        return NULL;
    char *at = PyBytes_AS_STRING(result);
    memcpy(at, (const char *)&head + MP_SERVER_KEY, sizeof head - MP_SERVER_KEY);
    memcpy(at + sizeof head - MP_SERVER_KEY, name, (size_t)name_size);
    return result;
}

/* ---- who may ask ---- */

static bool is_genuine(const mp_packet *packet, const uint8_t *key)
{
    if (packet->size < sizeof(request_head) || packet->count == 0)
        return false;
    const uint8_t *said = packet->bytes;
    unsigned different = 0;
    for (size_t i = 0; i < MP_SERVER_KEY; i++) // as long for every key
        different |= (unsigned)(said[i] ^ key[i]);
    return different == 0;
}

/* Whether the descriptors and sizes that the head promises are there. */
static bool is_whole(const mp_packet *packet)
{
    request_head head;
    memcpy(&head, packet->bytes, sizeof head);
    size_t data = packet->size - sizeof head;
    return packet->count >= (size_t)OWN_FILES + (head.has_tracker != 0) + (head.in_file != 0) &&
           head.name_size <= data && head.preparation_size <= data - head.name_size;
}

/* Whether a message is to be obeyed. One that is not is answered, if it comes from somebody who knows the
 * key, and dropped. */
static bool accept_request(mp_packet *packet, const uint8_t *key)
{
    if (is_genuine(packet, key)) {
        if (packet->sender != geteuid())
            mp_report(packet->files[STATUS], MP_REPORT_REFUSED, 0, EPERM);
        else if (!packet->complete) // not all descriptors have found a place
            mp_report(packet->files[STATUS], MP_REPORT_REFUSED, 0, EMFILE);
        else if (is_whole(packet))
            return true;
    }
    mp_packet_drop(packet);
    return false;
}

mp_status mp_request_refuse(int control, const uint8_t *key, int reason)
{
    unsigned char bytes[sizeof(request_head)];
    mp_packet packet = {.bytes = bytes, .room = sizeof bytes};
    mp_status status = mp_packet_try_receive(control, &packet);
    if (status != MP_OK)
        return status == MP_WOULD_BLOCK ? MP_OK : status;
    if (is_genuine(&packet, key))
        mp_report(packet.files[STATUS], MP_REPORT_REFUSED, 0, reason);
    mp_packet_drop(&packet);
    return MP_OK;
}

/* ---- the child ---- */

typedef struct served_child {
    const mp_server *server;
    mp_packet packet;
    request_head head;
    unsigned char bytes[sizeof(request_head) + DATA_MOST];
} served_child;

/* 1: there is one.  0: it is the end.  -1 with an exception set. The one thread keeps the GIL. */
static int wait_for_request(mp_state *state, served_child *child)
{
    for (;;) {
        mp_status status = mp_packet_receive(child->server->control, &child->packet);
        if (status == MP_INTERRUPTED) {
            if (PyErr_CheckSignals() < 0) {
                if (!PyErr_ExceptionMatches(PyExc_SystemExit))
                    return -1;
                PyErr_Clear(); // nobody is interested in the code
                return 0;
            }
        } else if (status != MP_OK && status != MP_TIMEOUT) {
            return mp_raise_int(state, status, "the fork server's socket");
        } else if (status == MP_TIMEOUT || (child->packet.size == 0 && child->packet.count == 0)) {
            return 0; // nobody asks, or nobody is left who could
        } else if (accept_request(&child->packet, child->server->key)) {
            memcpy(&child->head, child->bytes, sizeof child->head);
            return 1;
        }
    }
}

/* From here on the server reports the end of this process, and the starter knows its pid. */
static void announce(served_child *child, int process)
{
    int status_file = child->packet.files[STATUS];
    mp_status status;
    mp_parent_unfollow();
    do
        status = mp_packet_send(child->server->taken_w, &process, sizeof process, &status_file, 1);
    while (status == MP_INTERRUPTED);
    if (status != MP_OK)
        _exit(
            1); // the server is dead, and nobody would follow this process: the starter asks again
    mp_report(status_file, MP_REPORT_STARTED, process, 0);
}

/* The starter's end of the sockets gets the number of the server's: everybody knows it. */
static mp_status sort_descriptors(const served_child *child)
{
    int control = child->packet.files[CONTROL];
    if (dup3(control, child->server->control, O_CLOEXEC) < 0)
        return MP_SYSTEM;
    close(control);
    // Open to the end, so that a starter whose server died sees when this process ends.
    mp_status status = mp_private_keep(child->packet.files[STATUS]);
    close(child->server->taken_w);
    return status;
}

/* Leave the server's likeness for the starter's. -1 with an exception set. */
static int begin(mp_state *state, served_child *child)
{
    int process = getpid();
    announce(child, process);
    mp_status status = sort_descriptors(child);
    if (status == MP_OK && child->head.leashed)
        status = mp_leash_arm(child->packet.files[LEASH]);
    if (status != MP_OK)
        return mp_raise_int(state, status, "a child of the fork server");
    mp_traits_set(&child->head.traits);
    if (state->interrupt_handler != NULL)
        PyOS_setsig(SIGINT, state->interrupt_handler);
    status = mp_family_join(child->packet.files[FAMILY], &child->head.ticket);
    if (status != MP_OK)
        return mp_raise_int(state, status, "the memory shared with the parent process");
    state->status_owner = process;
    state->status_file = child->packet.files[STATUS];
    return 0;
}

/* Call adopt(tracker, descriptors) where there is something to adopt; *data_file: the start data, or -1. */
static int adopt_descriptors(served_child *child, int *data_file)
{
    const int *at = child->packet.files + OWN_FILES,
              *end = child->packet.files + child->packet.count;
    int tracker = child->head.has_tracker ? *at++ : -1;
    *data_file = child->head.in_file ? *at++ : -1;
    if (tracker < 0 && at == end)
        return 0;
    PyObject *list = PyList_New(end - at);
    for (Py_ssize_t i = 0; list != NULL && at + i < end; i++) {
        PyObject *number = PyLong_FromLong(at[i]);
        if (number == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, number);
    }
    if (list == NULL)
        return -1;
    PyObject *result = PyObject_CallFunction(child->server->adopt, "iN", tracker, list);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The name counts while the process object is being unpickled. */
static int take_name(mp_state *state, const mp_server *server, const char *name, size_t size)
{
    PyObject *current = PyDict_GetItemWithError(server->names, state->name__current_process);
    PyObject *text = PyUnicode_DecodeUTF8(name, (Py_ssize_t)size, "surrogatepass");
    int result =
        current == NULL || text == NULL ? -1 : PyObject_SetAttr(current, state->name__name, text);
    Py_XDECREF(text);
    return result;
}

/* Whether a pickle may name modules of the standard library, which mean ours. */
static bool names_standard_modules(const char *bytes, size_t size)
{
    static const char name[] = "multiprocessing";
    const char *end = bytes + size;
    for (const char *at = bytes;
         (at = memmem(at, (size_t)(end - at), name, sizeof name - 1)) != NULL; at++) {
        if (at == bytes || at[-1] != 'c')
            return true;
    }
    return false;
}

/* The directory of that name may be another one than when the server went there. -1 with an exception set. */
static int enter_directory(const mp_server *server)
{
    if (*server->directory == '\0' || chdir(server->directory) == 0)
        return 0;
    (void)PyErr_SetFromErrnoWithFilename(PyExc_OSError, server->directory);
    return -1;
}

/* All of its life from its pickled process object. -1 with an exception set: there is none. */
static int live(mp_state *state, const served_child *child, const char *object, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(object, (Py_ssize_t)size);
    PyObject *process = bytes == NULL ? NULL : PyObject_CallOneArg(child->server->load, bytes);
    Py_XDECREF(bytes);
    PyObject *bootstrap =
        process == NULL ? NULL : PyObject_GetAttr(process, state->name__bootstrap);
    if (bootstrap == NULL) {
        Py_XDECREF(process);
        return -1;
    }
    mp_child_leave(state, mp_child_run(state, bootstrap, child->packet.files[LEASH]),
                   child->server->names);
}

/* Be the process that was asked for, if nothing has to be prepared for it; else what spawn._main() wants. */
static PyObject *be_the_process(mp_state *state, served_child *child)
{
    int data_file;
    if (begin(state, child) < 0 || adopt_descriptors(child, &data_file) < 0)
        return NULL;
    const char *name = (const char *)child->bytes + sizeof child->head;
    const char *preparation = name + child->head.name_size;
    const char *object = preparation + child->head.preparation_size;
    const char *end = (const char *)child->bytes + child->packet.size;
    if (take_name(state, child->server, name, child->head.name_size) < 0)
        return NULL;
    int leash = child->packet.files[LEASH];
    if (data_file >= 0)
        return Py_BuildValue("(ii)", data_file, leash);
    if (child->server->known != Py_None &&
        (Py_ssize_t)child->head.preparation_size == PyBytes_GET_SIZE(child->server->known) &&
        memcmp(preparation, PyBytes_AS_STRING(child->server->known),
               child->head.preparation_size) == 0 &&
        !names_standard_modules(object, (size_t)(end - object))) {
        if (enter_directory(child->server) == 0)
            (void)live(state, child, object, (size_t)(end - object));
        return NULL;
    }
    return Py_BuildValue("(y#i)", preparation, (Py_ssize_t)(end - preparation), leash);
}

/* Copy what will be written to, before somebody waits for it: do what will be done, as far as nothing of it
 * stays. -1 with an exception set: it is not an Exception. Others are of no interest: what is wrong with a
 * process that somebody asked for will be said then, and a child that ended here would be forked again. */
static int rehearse(mp_state *state, const served_child *child)
{
    static const char name[] = "forkserver";
    PyObject *process = PyObject_CallOneArg(child->server->load, child->server->example);
    PyObject *bootstrap =
        process == NULL ? NULL : PyObject_GetAttr(process, state->name__bootstrap);
    int result = bootstrap == NULL ? -1 : take_name(state, child->server, name, sizeof name - 1);
    if (result == 0)
        result = mp_child_flush(state);
    if (result < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        result = 0;
    }
    Py_XDECREF(process);
    Py_XDECREF(bootstrap);
    return result;
}

PyObject *mp_served_child_live(mp_state *state, const mp_server *server, bool in_a_hurry)
{
    served_child child; // all of it would be written to, and most of it is not needed
    child.server = server;
    child.packet.bytes = child.bytes;
    child.packet.room = sizeof child.bytes;
    if (mp_parent_follow(server->process) != MP_OK)
        _exit(1); // it died at the fork
    if (!in_a_hurry && server->example != Py_None && rehearse(state, &child) < 0)
        return NULL;
    int found = wait_for_request(state, &child);
    if (found < 0)
        return NULL;
    return found ? be_the_process(state, &child) : Py_NewRef(Py_None);
}

static PyMethodDef served_child_functions[] = {
    {"request_head", request_head_pack, METH_VARARGS, head_doc},
    {NULL, NULL, 0, NULL},
};

int mp_served_child_exec(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "REQUEST_DATA_MOST", DATA_MOST) < 0 ||
        PyModule_AddIntConstant(module, "REQUEST_OWN_FILES", OWN_FILES) < 0)
        return -1;
    return PyModule_AddFunctions(module, served_child_functions);
}
