// SPDX-License-Identifier: PSF-2.0
/* The fixed parts of a child's life (Lib/cmultiprocessing/process.py and popen_fork.py).
 *
 *     parent   fork_child() -> os.fork() -> (pid, sentinel, end of the leash)
 *     child                       '-------> the leash, no exit handlers of the parent, _bootstrap(), leave()
 *
 * In C because a forked child pays for what it writes to. Python code writes to the reference count of
 * each object that it so much as looks at; each lies on some page of the parent, which is copied then, and
 * a page costs two microseconds. Hence borrowed references and names made in the parent. What programs
 * replace (os.fork, os._exit, _bootstrap) is looked up when it is called. */
#include "py/child.h" // the contract

#include "py/arguments.h" // deadlines
#include "py/blocking.h"  // waiting
#include "py/errors.h"    // mp_raise

#include "os/os.h"               // pipes, children
#include "os/stream.h"           // waiting
#include "shm/family.h"          // leaving
#include "structures/notifier.h" // items that somebody waits for
#include "sync/lock.h"           // locks that stay locked

#include <string.h> // memcpy
#include <unistd.h> // _exit, close

/* Borrowed; NULL if there is none, without an exception. */
static PyObject *loaded_module(PyObject *name)
{
    PyObject *found = PyDict_GetItemWithError(PyImport_GetModuleDict(), name);
    return found != NULL && PyModule_Check(found) ? found : NULL;
}

/* ---- the end ---- */

static PyObject *family_leave(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (mp_family.base != NULL && *mp_family.self != MP_NOBODY) {
        mp_notifier_linger();
        mp_lock_leave();
    }
    mp_family_leave();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    family_leave_doc,
    "family_leave()\n--\n\n"
    "This process ends in order: what it still holds locked stays locked, as documented for\n"
    "locks that any process may release. Without this call it counts as killed.\n");

/* A stream that is missing, closed, or no stream does not matter: 0. -1: what it held is lost. */
static int flush_stream(mp_state *state, PyObject *stream)
{
    if (stream == NULL || stream == Py_None)
        return 0;
    Py_INCREF(stream); // flush() may replace it
    PyObject *result = PyObject_CallMethodNoArgs(stream, state->name_flush);
    Py_DECREF(stream);
    if (result == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError) &&
            !PyErr_ExceptionMatches(PyExc_ValueError))
            return -1;
        PyErr_Clear();
    }
    Py_XDECREF(result);
    return 0;
}

int mp_child_flush(mp_state *state)
{
    return flush_stream(state, PySys_GetObject("stdout")) < 0 ||
                   flush_stream(state, PySys_GetObject("stderr")) < 0
               ? -1
               : 0;
}

PyDoc_STRVAR(
    flush_doc,
    "flush_std_streams()\n--\n\n"
    "Write out what stdout and stderr hold; streams that are missing or closed do not matter.\n\n"
    "Raises:\n    OSError: what a stream held is lost.\n");

static PyObject *flush_std_streams(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (mp_child_flush(mp_state_get(module)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(join_threads_doc,
             "join_threads()\n--\n\n"
             "Wait for the threads that a child started, if there was a way to start one.\n");

static PyObject *join_threads(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    mp_state *state = mp_state_get(module);
    PyObject *threading = loaded_module(state->name_threading);
    if (threading == NULL)
        Py_RETURN_NONE;
    PyObject *names = PyModule_GetDict(threading);
    PyObject *active = PyDict_GetItemWithError(names, state->name__active);
    PyObject *handlers = PyDict_GetItemWithError(names, state->name__threading_atexits);
    bool alone = active != NULL && PyDict_Check(active) && PyDict_GET_SIZE(active) <= 1;
    bool idle = handlers != NULL && PyList_Check(handlers) && PyList_GET_SIZE(handlers) == 0;
    if (alone && idle)
        Py_RETURN_NONE;
    return PyObject_CallMethodNoArgs(threading, state->name__shutdown);
}

/* Nothing that fails here keeps the process from ending, and nothing is released. */
static void call_reported(PyObject *function)
{
    if (PyObject_CallNoArgs(function) == NULL)
        PyErr_WriteUnraisable(function);
}

/* Exit handlers, if the child registered any. */
static void run_exit_handlers(mp_state *state, PyObject *names)
{
    PyObject *count = PyObject_CallNoArgs(state->count_exit_handlers);
    PyObject *run = PyDict_GetItemWithError(names, state->name__run_late_handlers);
    if (run != NULL && (count == NULL || PyObject_IsTrue(count) != 0))
        call_reported(run);
}

void mp_report(int status_file, mp_report_kind kind, int32_t process, int32_t value)
{
    unsigned char bytes[MP_REPORT_SIZE] = {(unsigned char)kind};
    memcpy(bytes + MP_REPORT_PROCESS_AT, &process, sizeof process);
    memcpy(bytes + MP_REPORT_VALUE_AT, &value, sizeof value);
    mp_pipe_tell(status_file, bytes, sizeof bytes);
}

/* Who asked the fork server for this process learns its exit code. Not from processes that it forked. */
static void report_leaving(const mp_state *state, long code)
{
    if (state->status_owner == getpid())
        mp_report(state->status_file, MP_REPORT_LEAVING, state->status_owner, (int32_t)code);
}

/* os._exit by name: programs replace it, and some of those do more before they end. */
_Noreturn static void exit_now(mp_state *state, long code)
{
    PyObject *exit = PyDict_GetItemWithError(PyModule_GetDict(state->os), state->name__exit);
    PyObject *status = PyLong_FromLong(code);
    if (exit != NULL && status != NULL)
        (void)PyObject_CallOneArg(exit, status);
    _exit((int)code);
}

_Noreturn void mp_child_leave(mp_state *state, long code, PyObject *names)
{
    code &= 0xff;
    run_exit_handlers(state, names);
    (void)family_leave(NULL, NULL);
    report_leaving(state, code);
    exit_now(state, code);
}

PyDoc_STRVAR(leave_doc,
             "leave(code, names)\n--\n\n"
             "The end of a child: exit handlers, then the family is told, then os._exit.\n\n"
             "Args:\n"
             "    code: exit code.\n"
             "    names: those of the module process: _run_late_handlers is called where exit\n"
             "        handlers are registered; what it raises is reported, and the process ends\n"
             "        all the same.\n");

static PyObject *leave(PyObject *module, PyObject *args)
{
    long code;
    PyObject *names;
    if (!PyArg_ParseTuple(args, "lO!:leave", &code, &PyDict_Type, &names))
        return NULL;
    mp_child_leave(mp_state_get(module), code, names);
}

/* ---- the beginning ---- */

/* What becomes another in a child: the names of the module process. */
static int replace_names(mp_state *state, PyObject *names, PyObject *process, PyObject *sentinel)
{
    PyObject *counter = PyObject_CallOneArg(state->count_type, state->one);
    PyObject *parent = PyTuple_Pack(1, sentinel);
    int result = -1;
    if (counter != NULL && parent != NULL &&
        PyDict_SetItem(names, state->name__process_counter, counter) == 0 &&
        PyDict_SetItem(names, state->name__current_process, process) == 0 &&
        PyDict_SetItem(names, state->name__parent, parent) == 0)
        result = 0;
    Py_XDECREF(counter);
    Py_XDECREF(parent);
    return result;
}

/* Input that is meant for the parent is not the child's to take. */
static int replace_stdin(mp_state *state, PyObject *names)
{
    PyObject *stdin_now = PySys_GetObject("stdin");
    if (stdin_now == NULL || stdin_now == Py_None)
        return 0;
    PyObject *no_input = PyDict_GetItemWithError(names, state->name__no_input);
    return no_input == NULL ? -1 : PySys_SetObject("stdin", no_input);
}

/* threading renews its locks after a fork, but not the number by which the system knows the thread. */
static int renew_native_id(mp_state *state)
{
    PyObject *threading = loaded_module(state->name_threading);
    if (threading == NULL)
        return 0;
    PyObject *main = PyDict_GetItemWithError(PyModule_GetDict(threading), state->name__main_thread);
    if (main == NULL)
        return 0;
    PyObject *number = PyLong_FromUnsignedLong(PyThread_get_thread_native_id());
    int result = number == NULL ? -1 : PyObject_SetAttr(main, state->name__native_id, number);
    Py_XDECREF(number);
    return result;
}

PyDoc_STRVAR(become_doc,
             "become(names, process, parent_sentinel)\n--\n\n"
             "In a child: take the parent's place.\n\n"
             "Args:\n"
             "    names: those of the module process.\n"
             "    process: this process.\n"
             "    parent_sentinel: descriptor that is ready when the parent has died, or None.\n");

static PyObject *become(PyObject *module, PyObject *args)
{
    mp_state *state = mp_state_get(module);
    PyObject *names, *process, *sentinel;
    if (!PyArg_ParseTuple(args, "O!OO:become", &PyDict_Type, &names, &process, &sentinel))
        return NULL;
    if (replace_names(state, names, process, sentinel) < 0 || replace_stdin(state, names) < 0 ||
        renew_native_id(state) < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_SystemError, "become(): names");
    Py_RETURN_NONE;
}

/* The arguments of fork_child(). */
typedef struct child_start {
    PyObject *bootstrap, *names, *first;
    int leashed;
} child_start;

long mp_child_run(mp_state *state, PyObject *bootstrap, int leash)
{
    PyObject *sentinel = PyLong_FromLong(leash);
    PyObject *result = NULL;
    if (sentinel != NULL)
        result = PyObject_Vectorcall(bootstrap, &sentinel, 0, state->bootstrap_keywords);
    long code = result == NULL ? -1 : PyLong_AsLong(result);
    if (code != -1 || !PyErr_Occurred())
        return code;
    PyErr_WriteUnraisable(bootstrap); // only one that a program put in its place raises
    return 1;
}

/* What a child does not inherit. -1 with an exception set. */
static int shed_the_parent(mp_state *state, const child_start *start, int leash)
{
    if (start->leashed && mp_leash_arm(leash) != MP_OK)
        return mp_raise_int(state, MP_SYSTEM, "a process that is to end with its parent");
    // What the parent registered is the parent's to run.
    PyObject *cleared = PyObject_CallNoArgs(state->clear_exit_handlers);
    if (cleared == NULL)
        return -1;
    Py_DECREF(cleared);
    if (start->first == Py_None)
        return 0;
    PyObject *result = PyObject_CallNoArgs(start->first);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The forked child, to its end. */
_Noreturn static void be_the_child(mp_state *state, const child_start *start, int leash)
{
    if (shed_the_parent(state, start, leash) < 0) {
        PyErr_WriteUnraisable(start->bootstrap);
        _exit(1);
    }
    mp_child_leave(state, mp_child_run(state, start->bootstrap, leash), start->names);
}

/* ---- in the parent ---- */

/* A function of os, by the name that programs replace, with the argument or none. -1 with an exception set. */
static long call_os(mp_state *state, PyObject *name, PyObject *argument)
{
    PyObject *function = PyDict_GetItemWithError(PyModule_GetDict(state->os), name);
    if (function == NULL) {
        PyErr_SetObject(PyExc_AttributeError, name);
        return -1;
    }
    Py_INCREF(function); // it may be replaced meanwhile
    PyObject *result = PyObject_Vectorcall(function, &argument, argument != NULL, NULL);
    Py_DECREF(function);
    long number = result == NULL ? -1 : PyLong_AsLong(result);
    Py_XDECREF(result);
    return number;
}

long mp_child_fork(mp_state *state)
{
    return call_os(state, state->name_fork, NULL);
}

/* A descriptor that is ready when the child can be reaped. A child that nobody could follow is ended:
 * -1 with an exception set. */
static int follow(mp_state *state, long process)
{
    PyObject *argument = PyLong_FromLong(process);
    long file = argument == NULL ? -1 : call_os(state, state->name_pidfd_open, argument);
    Py_XDECREF(argument);
    if (file >= 0)
        return (int)file;
    if (PyErr_ExceptionMatches(PyExc_ProcessLookupError)) {
        PyErr_Clear(); // it has ended, and SIGCHLD is ignored
        file = mp_ready_descriptor();
        if (file < 0)
            PyErr_SetFromErrno(PyExc_OSError);
    } else {
        mp_child_end((uint32_t)process);
    }
    return (int)file;
}

PyDoc_STRVAR(
    fork_child_doc,
    "fork_child(bootstrap, leashed, names, first)\n--\n\n"
    "Fork a child that runs bootstrap(parent_sentinel=...) and ends; see leave() for names.\n\n"
    "Args:\n"
    "    leashed: whether it is killed when this process ends.\n"
    "    first: what the child does before anything else that is Python; None for nothing.\n\n"
    "Returns:\n"
    "    (pid, sentinel, leash): the sentinel is ready when the child can be reaped; while the\n"
    "    leash is open (private_close() closes it), this process lives for the child.\n\n"
    "Raises:\n"
    "    OSError: no process or no descriptor is left; there is no child then.\n");

static PyObject *fork_child(PyObject *module, PyObject *args)
{
    mp_state *state = mp_state_get(module);
    child_start start;
    int ends[2], sentinel;
    if (!PyArg_ParseTuple(args, "OpO!O:fork_child", &start.bootstrap, &start.leashed, &PyDict_Type,
                          &start.names, &start.first))
        return NULL;
    mp_status status = mp_private_pipe(ends);
    if (status != MP_OK)
        return mp_raise(state, status, "a pipe to a child process");
    long process = mp_child_fork(state);
    if (process == 0)
        be_the_child(state, &start, ends[0]);
    close(ends[0]);
    if (process > 0 && (sentinel = follow(state, process)) >= 0)
        return Py_BuildValue("(lii)", process, sentinel, ends[1]);
    mp_private_close(ends[1]);
    return NULL;
}

PyDoc_STRVAR(
    watch_doc,
    "watch_child(pid)\n--\n\n"
    "A descriptor that is ready when the child of this process can be reaped. A child that\n"
    "cannot be followed is ended.\n\n"
    "Raises:\n    OSError: no descriptor is left.\n");

static PyObject *watch_child(PyObject *module, PyObject *number)
{
    long process = PyLong_AsLong(number);
    if (process == -1 && PyErr_Occurred())
        return NULL;
    int sentinel = follow(mp_state_get(module), process);
    return sentinel < 0 ? NULL : PyLong_FromLong(sentinel);
}

static mp_status readable_step(void *context, mp_time deadline)
{
    return mp_stream_wait(*(int *)context, MP_STREAM_READ, deadline);
}

PyDoc_STRVAR(wait_doc, "wait_readable(fd, timeout)\n--\n\n"
                       "Wait until a descriptor is ready for reading.\n\n"
                       "Args:\n    timeout: seconds; None for ever.\n\n"
                       "Returns:\n    Whether it is.\n");

static PyObject *wait_readable(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    mp_time deadline;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "wait_readable() takes a descriptor and a timeout");
        return NULL;
    }
    int file = PyObject_AsFileDescriptor(args[0]);
    if (file < 0 || mp_deadline_parse(args[1], &deadline) < 0)
        return NULL;
    mp_status status = mp_blocking_run(readable_step, &file, deadline);
    if (status != MP_OK && status != MP_TIMEOUT)
        return mp_raise(mp_state_get(module), status, "waiting for a process");
    return PyBool_FromLong(status == MP_OK);
}

PyDoc_STRVAR(
    arm_doc,
    "leash_arm(read_end)\n--\n\n"
    "Die by SIGKILL when the parent dies. At once if it is dead.\n\n"
    "Args:\n"
    "    read_end: the child's end of the leash; it stays open until this process ends.\n");

static PyObject *leash_arm(PyObject *module, PyObject *number)
{
    int file = PyObject_AsFileDescriptor(number);
    if (file < 0)
        return NULL;
    mp_status status = mp_leash_arm(file);
    if (status != MP_OK)
        return mp_raise(mp_state_get(module), status, "leash_arm()");
    Py_RETURN_NONE;
}

static PyMethodDef child_functions[] = {
    {"family_leave", family_leave, METH_NOARGS, family_leave_doc},
    {"flush_std_streams", flush_std_streams, METH_NOARGS, flush_doc},
    {"join_threads", join_threads, METH_NOARGS, join_threads_doc},
    {"leave", leave, METH_VARARGS, leave_doc},
    {"become", become, METH_VARARGS, become_doc},
    {"fork_child", fork_child, METH_VARARGS, fork_child_doc},
    {"watch_child", watch_child, METH_O, watch_doc},
    {"wait_readable", (PyCFunction)(void (*)(void))wait_readable, METH_FASTCALL, wait_doc},
    {"leash_arm", leash_arm, METH_O, arm_doc},
    {NULL, NULL, 0, NULL},
};

/* getattr(import module, name), for good. */
static PyObject *taken_from(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *found = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    Py_XDECREF(module);
    return found;
}

int mp_child_exec(PyObject *module)
{
    mp_state *state = mp_state_get(module);
#define MP_NAME(name)                                                                              \
 if ((state->name_##name = PyUnicode_InternFromString(#name)) == NULL)                             \
  return -1;
    MP_STATE_NAMES(MP_NAME)
#undef MP_NAME
    state->os = PyImport_ImportModule("os");
    state->clear_exit_handlers = taken_from("atexit", "_clear");
    state->count_exit_handlers = taken_from("atexit", "_ncallbacks");
    state->count_type = taken_from("itertools", "count");
    state->one = PyLong_FromLong(1);
    state->bootstrap_keywords = PyTuple_Pack(1, state->name_parent_sentinel);
    if (state->os == NULL || state->clear_exit_handlers == NULL ||
        state->count_exit_handlers == NULL || state->count_type == NULL || state->one == NULL ||
        state->bootstrap_keywords == NULL)
        return -1;
    return PyModule_AddFunctions(module, child_functions);
}
