// SPDX-License-Identifier: PSF-2.0
/* What the fork server does (Lib/cmultiprocessing/forkserver.py starts it).
 *
 *     server   fork ----------------------------------> child: waits on the server's end of the sockets
 *     starter  request -------------------------------> one of the children that wait takes it
 *     child    TAKEN pid, status pipe ----------------> server: forks the next one, off the starter's way
 *     child    STARTED pid ---------------------------> starter
 *     child    LEAVING code, then its end ------------> starter, by its pidfd
 *     server   waitpid, ENDED code -------------------> starter, who needs it only for a child that was killed
 *
 * The server takes no request itself, unless it cannot fork. It forks when a request waits and no child
 * does, and it keeps some children ready while there is demand. A child that waits
 *
 * * dies with the server, by a signal of the kernel, and ends by itself when nobody is left who could ask,
 *   or when it was not asked for a while: an idle program has none after that time;
 * * has no descriptor but the standard streams, the server's sockets and the memory of the family;
 * * is nobody yet: environment, directory, sys.path, argv, umask, signal mask come with the request, or are
 *   the server's.
 *
 * In C, so that it does not copy, after each fork, the pages that Python objects lie on. */
#include "py/served_child.h" // the children

#include "py/blocking.h" // the GIL
#include "py/child.h"    // reports
#include "py/errors.h"   // mp_raise

#include "os/os.h"     // processes, private descriptors
#include "os/packet.h" // sockets

#include <errno.h>  // EINTR
#include <fcntl.h>  // F_DUPFD_CLOEXEC
#include <poll.h>   // poll
#include <signal.h> // SIGINT
#include <stdlib.h> // realloc
#include <string.h> // memcpy
#include <unistd.h> // close

/* Without a request, after which a child that waits ends. */
#define IDLE_MS 2000

/* One that waits, or one that has work. */
typedef struct served {
    uint32_t process;
    bool waits;
    int status; // the pipe to its starter, -1 for none
} served;

/* `polled` begins with two entries of the server's own; that of children[i] is polled[OWN + i]. */
enum { TAKEN, CONTROL, OWN };

typedef struct server_loop {
    mp_state *state;
    mp_server server;
    size_t most, wanted, waiting; // children that may wait, that are to, that do
    mp_time last_taken;
    served *children;
    struct pollfd *polled;
    int *places; // descriptors to close when their places are needed and none may be left
    size_t count, room, place_count; // of children; of all three arrays; of places
    int spare;                       // a refusal can be told when no descriptor is left
    PyObject *child_result;          // in a child: what mp_served_child_live() gave
    bool is_let_go;                  // nobody can ask any more
    bool is_child;
} server_loop;

/* ---- descriptors ---- */

static int new_place(const server_loop *loop)
{
    int place = fcntl(loop->server.control, F_DUPFD_CLOEXEC, 0);
    if (place >= 0 && mp_private_keep(place) != MP_OK) {
        close(place);
        errno = ENOMEM;
        return -1;
    }
    return place;
}

static void free_place(server_loop *loop)
{
    if (loop->place_count > 0)
        mp_private_close(loop->places[--loop->place_count]);
}

static void drop(int file)
{
    if (file >= 0)
        mp_private_close(file);
}

/* Room for one more child and its place. */
static bool make_room(server_loop *loop)
{
    if (loop->count < loop->room)
        return true;
    size_t room = loop->room * 2 + 16;
    served *children = realloc(loop->children, room * sizeof *children);
    if (children != NULL)
        loop->children = children;
    struct pollfd *polled = realloc(loop->polled, (OWN + room) * sizeof *polled);
    if (polled != NULL)
        loop->polled = polled;
    int *places = realloc(loop->places, room * sizeof *places);
    if (places != NULL)
        loop->places = places;
    if (children == NULL || polled == NULL || places == NULL)
        return false;
    loop->room = room;
    return true;
}

/* ---- children ---- */

/* Answer the request that waits, for which there is no child. */
static void refuse(server_loop *loop, int reason)
{
    drop(loop->spare);
    (void)mp_request_refuse(loop->server.control, loop->server.key, reason);
    loop->spare = new_place(loop); // -1: its number is above a limit that somebody has lowered
}

/* The errno of the OSError that is set, which is cleared; -1: another exception is set. */
static int take_errno(void)
{
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(PyExc_OSError))
        return -1;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *number = value == NULL ? NULL : PyObject_GetAttrString(value, "errno");
    long result = number == NULL || number == Py_None ? 0 : PyLong_AsLong(number);
    PyErr_Clear();
    Py_XDECREF(number);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return result > 0 ? (int)result : EAGAIN;
}

/* No child, errno says why unless an exception is set. in_a_hurry: its work waits already. -1 with an
 * exception set: it is not the system's refusal. */
static int fork_failed(server_loop *loop, bool in_a_hurry)
{
    int reason = PyErr_Occurred() ? take_errno() : errno;
    if (reason < 0)
        return -1;
    loop->wanted = loop->waiting; // until somebody asks again
    if (in_a_hurry)
        refuse(loop, reason);
    return 0;
}

/* A descriptor that is ready when the child has ended; it is ready for good where the child has, and a
 * preloaded module has SIGCHLD ignored or reaped it. -1 with an exception set: the child is no more. */
static int follow_child(const server_loop *loop, uint32_t process)
{
    int file =
        mp_child_open(process); // the one thread of this process: nobody else takes the place
    bool is_gone = file < 0 && errno == ESRCH;
    if (is_gone)
        file = mp_ready_descriptor();
    if (file >= 0 && mp_private_keep(file) == MP_OK)
        return file;
    if (file >= 0)
        errno = ENOMEM;
    (void)mp_raise_int(loop->state, MP_SYSTEM, "a child of the fork server");
    if (!is_gone) // else its number may be another's
        mp_child_end(process);
    return -1;
}

/* Fork a child that waits for work. -1 with an exception set, or in the child. */
static int prepare_child(server_loop *loop, bool in_a_hurry)
{
    // A child that cannot be followed must not come to be: both places that it takes here are taken before.
    int place = make_room(loop) ? new_place(loop) : -1;
    int second = place < 0 ? -1 : new_place(loop);
    long process = second < 0 ? -1 : mp_child_fork(loop->state);
    if (process == 0) {
        loop->is_child = true;
        loop->child_result = mp_served_child_live(loop->state, &loop->server, in_a_hurry);
        return -1;
    }
    int saved = errno;
    drop(second);
    if (process < 0) {
        drop(place);
        errno = saved;
        return fork_failed(loop, in_a_hurry);
    }
    loop->places[loop->place_count++] = place;
    int file = follow_child(loop, (uint32_t)process);
    if (file < 0)
        return -1;
    loop->children[loop->count] =
        (served){.process = (uint32_t)process, .waits = true, .status = -1};
    loop->polled[OWN + loop->count] = (struct pollfd){.fd = file, .events = POLLIN};
    loop->count++;
    loop->waiting++;
    return 0;
}

/* Whether nobody has asked for a while. */
static bool is_idle(const server_loop *loop)
{
    return mp_clock_now() - loop->last_taken >= IDLE_MS * INT64_C(1000000);
}

/* A child has work: follow it to its end, and have others wait while there is demand. */
static void note_taken(server_loop *loop, uint32_t process, int status)
{
    for (size_t i = 0; i < loop->count; i++) {
        if (loop->children[i].process == process && loop->children[i].waits) {
            loop->children[i].waits = false;
            loop->children[i].status = status;
            loop->waiting--;
            status = -1;
            break;
        }
    }
    drop(status); // of nobody that we know
    // The first one of a program may be its only one.
    size_t wanted = is_idle(loop) ? 1 : loop->wanted + 1;
    loop->wanted = wanted < loop->most ? wanted : loop->most;
    loop->last_taken = mp_clock_now();
}

/* A child says that it has taken work. It says so with a descriptor; for each one that waits there is a place. */
static mp_status hear_child(server_loop *loop)
{
    uint32_t process = 0;
    mp_packet packet = {.bytes = &process, .room = sizeof process};
    free_place(loop);
    mp_status status = mp_packet_try_receive(loop->server.taken_r, &packet);
    if (status != MP_OK)
        return status == MP_WOULD_BLOCK || status == MP_INTERRUPTED ? MP_OK : status;
    for (size_t i = 0; i < packet.count; i++)
        status = mp_private_keep(packet.files[i]);
    if (packet.size == sizeof process)
        note_taken(loop, process, packet.count > 0 ? packet.files[0] : -1);
    return status;
}

static bool has_event(int file, short events)
{
    struct pollfd polled = {.fd = file, .events = events};
    return poll(&polled, 1, 0) > 0;
}

/* Whether somebody is there to hear how a child ends: the sockets of one that ends are closed before that. */
static bool has_listeners(const server_loop *loop)
{
    for (size_t i = 0; i < loop->count; i++) {
        if (loop->children[i].status >= 0 && !has_event(loop->children[i].status, 0))
            return true;
    }
    return false;
}

/* A child has ended: one that worked, and its starter is told; or one that waited. */
static mp_status note_end(server_loop *loop, size_t index)
{
    while (has_event(loop->server.taken_r, POLLIN)) { // it may have taken its work just before
        mp_status status = hear_child(loop);
        if (status != MP_OK)
            return status;
    }
    served ended = loop->children[index];
    int file = loop->polled[OWN + index].fd;
    loop->count--;
    loop->children[index] = loop->children[loop->count];
    loop->polled[OWN + index] = loop->polled[OWN + loop->count];
    if (ended.waits) {
        loop->waiting--;
        free_place(loop);
        // Where nobody is left who could ask, those forked now would end at once, and be forked again.
        if (is_idle(loop) || has_event(loop->server.control, 0))
            loop->wanted = 0;
    }
    if (ended.status >= 0) { // told before it is reaped: until then its number is nobody else's
        int code = mp_child_exit_code(ended.process, MP_UNKNOWN_EXIT_CODE);
        mp_report(ended.status, MP_REPORT_ENDED, (int32_t)ended.process, code);
    }
    drop(ended.status);
    int code; // told above
    (void)mp_child_reap(ended.process, &code);
    drop(file);
    return MP_OK;
}

/* ---- the loop ---- */

/* While children wait, a request wakes one of them, and the server stays asleep. */
static void choose_polled(server_loop *loop)
{
    bool hears = loop->waiting == 0 && !loop->is_let_go;
    loop->polled[TAKEN] = (struct pollfd){.fd = loop->server.taken_r, .events = POLLIN};
    loop->polled[CONTROL] =
        (struct pollfd){.fd = hears ? loop->server.control : -1, .events = POLLIN};
}

static bool is_quiet(server_loop *loop)
{
    choose_polled(loop);
    return poll(loop->polled, OWN + loop->count, 0) == 0;
}

static mp_status poll_step(void *context, mp_time Py_UNUSED(deadline))
{
    server_loop *loop = context;
    choose_polled(loop);
    if (poll(loop->polled, OWN + loop->count, -1) >= 0)
        return MP_OK;
    return errno == EINTR ? MP_INTERRUPTED : MP_SYSTEM;
}

/* Handle what happens next. 1: go on.  0: nobody can ask any more.  -1 with an exception set, or in a child. */
static int turn(server_loop *loop)
{
    // A signal may have come during anything else, where no system call was there to be interrupted.
    if (PyErr_CheckSignals() < 0)
        return -1;
    mp_status status = mp_blocking_run(poll_step, loop, MP_FOREVER);
    if (status == MP_OK && loop->polled[TAKEN].revents != 0)
        status = hear_child(loop);
    // Backwards: what takes the place of one that has ended has been looked at.
    for (size_t i = loop->count; i-- > 0 && status == MP_OK;) {
        if (loop->polled[OWN + i].revents != 0)
            status = note_end(loop, i);
    }
    if (status != MP_OK)
        return mp_raise_int(loop->state, status, "the fork server");
    short control = loop->polled[CONTROL].revents;
    if (control & POLLHUP)
        loop->is_let_go = true;
    else if (control != 0 && loop->waiting == 0 && prepare_child(loop, true) < 0)
        return -1;
    return !loop->is_let_go || has_listeners(loop);
}

/* 0 at the end; -1 with an exception set, or in a child. */
static int serve(server_loop *loop)
{
    for (;;) {
        int result = turn(loop);
        if (result <= 0)
            return result;
        // One after the other, and only while nothing else is to be done.
        while (loop->waiting < loop->wanted && is_quiet(loop)) {
            if (prepare_child(loop, false) < 0)
                return -1;
        }
    }
}

static mp_status open_loop(server_loop *loop)
{
    int ends[2];
    if (!make_room(loop))
        return MP_NO_MEMORY;
    mp_status status = mp_packet_patience(loop->server.control, IDLE_MS);
    if (status == MP_OK)
        status = mp_packet_pair(ends);
    if (status != MP_OK)
        return status;
    loop->server.taken_r = ends[0];
    loop->server.taken_w = ends[1];
    loop->server.process = (uint32_t)getpid();
    loop->spare = new_place(loop);
    loop->last_taken = mp_clock_now() - IDLE_MS * INT64_C(1000000);
    return mp_private_keep(ends[0]);
}

PyDoc_STRVAR(
    serve_doc,
    "fork_server(control_fd, key, most, known, directory, names, load, example, adopt)\n"
    "--\n\n"
    "All of the fork server's life, and of its children until they are processes.\n\n"
    "Args:\n"
    "    control_fd: the server's end of the sockets. In its children the starter's has that\n"
    "        number.\n"
    "    key: 32 bytes that every request begins with.\n"
    "    most: how many children may wait for work.\n"
    "    known: what is prepared here, pickled; None if a child has to prepare something in any\n"
    "        case.\n"
    "    directory: with what is known: the working directory; empty if it is not to be\n"
    "        changed.\n"
    "    names: those of the module process.\n"
    "    load: unpickles bytes.\n"
    "    example: a process object, pickled, or None: children that wait unpickle it\n"
    "        beforehand.\n"
    "    adopt: called in a child with (descriptor of the resource tracker or -1, list of\n"
    "        descriptors) if any came with the request.\n\n"
    "Returns:\n"
    "    None at the end, in the server and in children that waited. In a child that has\n"
    "    something to prepare: its start data (bytes, or the file with them), its end of the\n"
    "    leash.\n\n"
    "Raises:\n    OSError: no descriptor is left.\n"
    "    Exception: in a child, what unpickling the process object raises.\n");

static PyObject *fork_server(PyObject *module, PyObject *args)
{
    server_loop loop = {.state = mp_state_get(module)};
    PyObject *key;
    Py_ssize_t most;
    if (!PyArg_ParseTuple(args, "iSnOyO!OOO:fork_server", &loop.server.control, &key, &most,
                          &loop.server.known, &loop.server.directory, &PyDict_Type,
                          &loop.server.names, &loop.server.load, &loop.server.example,
                          &loop.server.adopt))
        return NULL;
    if (PyBytes_GET_SIZE(key) != MP_SERVER_KEY || most < 0 ||
        (loop.server.known != Py_None && !PyBytes_Check(loop.server.known)))
        return PyErr_Format(PyExc_ValueError, "fork_server(): a key of %zd bytes, %zd children",
                            PyBytes_GET_SIZE(key), most);
    loop.server.key = (const uint8_t *)PyBytes_AS_STRING(key);
    loop.most = (size_t)most;
    mp_status status = open_loop(&loop);
    int result =
        status == MP_OK ? serve(&loop) : mp_raise_int(loop.state, status, "the fork server");
    free(loop.children); // descriptors last as long as the process
    free(loop.polled);
    free(loop.places);
    if (loop.is_child)
        return loop.child_result;
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(
    ignore_doc,
    "ignore_interrupts(for_good)\n--\n\n"
    "In the fork server: no SIGINT. Its children do at SIGINT what it did before.\n\n"
    "Args:\n    for_good: whether that is what Python code wants, and its children, too.\n");

static PyObject *ignore_interrupts(PyObject *module, PyObject *argument)
{
    mp_state *state = mp_state_get(module);
    int for_good = PyObject_IsTrue(argument);
    if (for_good < 0)
        return NULL;
    PyOS_sighandler_t before = PyOS_setsig(SIGINT, SIG_IGN);
    if (for_good)
        state->interrupt_handler = NULL;
    else if (before != SIG_IGN) // called again when preloaded modules may have changed it
        state->interrupt_handler = before;
    Py_RETURN_NONE;
}

static PyMethodDef fork_server_functions[] = {
    {"fork_server", fork_server, METH_VARARGS, serve_doc},
    {"ignore_interrupts", ignore_interrupts, METH_O, ignore_doc},
    {NULL, NULL, 0, NULL},
};

int mp_fork_server_exec(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "SERVER_IDLE_MS", IDLE_MS) < 0)
        return -1;
    return PyModule_AddFunctions(module, fork_server_functions);
}
