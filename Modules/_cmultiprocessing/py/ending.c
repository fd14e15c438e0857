// SPDX-License-Identifier: PSF-2.0
/* What a process knows of the end of a child (Lib/cmultiprocessing/popen_fork.py, popen_forkserver.py).
 *
 *     fork, spawn   reap():    waitpid() and the note of what it said
 *     fork server   listen():  reports are read and noted; note(): the child has ended with that code
 *
 * Whoever takes an exit status out of the kernel, or a report out of a pipe, is the only one that can know
 * it. In Python a signal handler may come between the taking and the note: it asks the same process, or
 * it raises. Here nothing of Python's comes between, so that every method may be called from anywhere, a
 * handler that interrupts the same thread in the same method included. */
#include "py/child.h" // reports

#include "py/arguments.h" // deadlines
#include "py/blocking.h"  // waiting
#include "py/errors.h"    // mp_raise

#include "os/os.h"       // reaping, descriptors
#include "os/stream.h"   // reading
#include "shm/family.h"  // is there one
#include "shm/reclaim.h" // what the dead owned

#include <errno.h>   // why there is nothing to reap
#include <pthread.h> // threads that ask at the same time, one of them without the GIL
#include <string.h>  // memcpy

typedef struct {
    PyObject_HEAD pthread_mutex_t lock; // all below; held for one system call that does not block
    mp_stream reports;                  // -1: none come
    uint32_t process;
    int leash; // ours until it has ended, then -1
    int told;  // meaningful if is_told: the code, of a child that may live still
    int code;  // meaningful if has_ended
    bool is_told, is_over,
        has_ended; // each is set once; is_over: no report will come, is_told is set
} ending;

static void tell(ending *self, int code)
{
    if (!self->is_told)
        self->told = code; // the child's word comes before the server's
    self->is_told = true;
}

/* Take one report. MP_OK: there may be more. */
static mp_status hear_one(ending *self)
{
    unsigned char report[MP_REPORT_SIZE];
    int32_t value = MP_UNKNOWN_EXIT_CODE;
    size_t size;
    mp_status status = mp_stream_read(&self->reports, report, sizeof report, &size);
    if (status == MP_OK && size != sizeof report)
        return MP_DAMAGED; // each is written by one write() to a pipe
    if (status != MP_OK && status != MP_CLOSED)
        return status;
    if (status == MP_OK)
        memcpy(&value, report + MP_REPORT_VALUE_AT, sizeof value);
    tell(self, value);
    self->is_over = status == MP_CLOSED || report[0] == MP_REPORT_ENDED;
    return MP_OK;
}

/* Take all reports that are there. MP_OK: the code is known. MP_WOULD_BLOCK, MP_DAMAGED, MP_SYSTEM. */
static mp_status hear(ending *self)
{
    mp_status status = MP_OK;
    pthread_mutex_lock(&self->lock);
    while (status == MP_OK && !self->is_over) {
        status = hear_one(self);
        if (status == MP_INTERRUPTED)
            status = MP_OK;
    }
    bool known = self->is_told;
    pthread_mutex_unlock(&self->lock);
    return known ? MP_OK : status;
}

static mp_status listen_step(void *context, mp_time deadline)
{
    ending *self = context;
    // First, because a signal handler or another thread may have taken what this one would wait for.
    mp_status status = hear(self);
    if (status != MP_WOULD_BLOCK)
        return status;
    status = mp_stream_wait(self->reports.file, MP_STREAM_READ, deadline);
    return status == MP_OK ? MP_INTERRUPTED : status; // ready: hear it
}

PyDoc_STRVAR(listen_doc,
             "listen(timeout)\n--\n\n"
             "Wait until a report has told the exit code, or nobody is left to tell it.\n\n"
             "Args:\n    timeout: seconds; None for ever; 0: only what is there.\n\n"
             "Returns:\n    Whether `told` is known.\n\n"
             "Raises:\n    OSError: the pipe is closed.\n");

static PyObject *ending_listen(PyObject *object, PyObject *timeout)
{
    mp_time deadline;
    if (mp_deadline_parse(timeout, &deadline) < 0)
        return NULL;
    mp_status status = hear((ending *)object);
    if (status == MP_WOULD_BLOCK && deadline != MP_NO_WAIT)
        status = mp_blocking_run(listen_step, object, deadline);
    if (status == MP_OK || status == MP_WOULD_BLOCK || status == MP_TIMEOUT)
        return PyBool_FromLong(status == MP_OK);
    return mp_raise(mp_state_of_type(Py_TYPE(object)), status, "what is said of a process's end");
}

/* It has ended: the first one that says so gives back what only a living child needs. */
static void conclude(ending *self, int code)
{
    pthread_mutex_lock(&self->lock);
    bool first = !self->has_ended;
    int leash = self->leash;
    if (first) {
        self->code = code;
        self->has_ended = true;
        self->leash = -1;
    }
    pthread_mutex_unlock(&self->lock);
    if (!first)
        return;
    mp_private_close(leash);
    if (mp_family.base != NULL && mp_family_enter() == MP_OK)
        mp_reclaim_death();
}

static PyObject *known_code(ending *self)
{
    return self->has_ended ? PyLong_FromLong(self->code) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(note_doc, "note(code)\n--\n\n"
                       "The child has ended, and was reaped. Only the first code counts.\n\n"
                       "Returns:\n    That code.\n");

static PyObject *ending_note(PyObject *object, PyObject *number)
{
    long code = PyLong_AsLong(number);
    if (code == -1 && PyErr_Occurred())
        return NULL;
    conclude((ending *)object, (int)code);
    return known_code((ending *)object);
}

PyDoc_STRVAR(reap_doc, "reap()\n--\n\n"
                       "Reap this child of this process if it has ended.\n\n"
                       "Returns:\n    Its exit code, None while it runs.\n\n"
                       "Raises:\n    ChildProcessError: somebody else reaped it.\n");

static PyObject *ending_reap(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    ending *self = (ending *)object;
    int code;
    pthread_mutex_lock(&self->lock);
    mp_status status = self->has_ended ? MP_WOULD_BLOCK : mp_child_reap(self->process, &code);
    if (status == MP_OK)
        tell(self, code); // before another thread asks, and finds nothing to reap
    int reason = errno;
    bool known = self->is_told;
    pthread_mutex_unlock(&self->lock);
    if (known) {
        conclude(self, self->told);
    } else if (status != MP_WOULD_BLOCK) {
        errno = reason;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return known_code(self);
}

PyDoc_STRVAR(give_up_doc,
             "give_up()\n--\n\n"
             "No report is expected any more: a code that was not told stays unknown.\n");

static PyObject *ending_give_up(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    ending *self = (ending *)object;
    pthread_mutex_lock(&self->lock);
    tell(self, MP_UNKNOWN_EXIT_CODE);
    self->is_over = true;
    pthread_mutex_unlock(&self->lock);
    Py_RETURN_NONE;
}

static PyObject *ending_told(PyObject *object, void *Py_UNUSED(closure))
{
    ending *self = (ending *)object;
    pthread_mutex_lock(&self->lock);
    bool known = self->is_told;
    int told = self->told;
    pthread_mutex_unlock(&self->lock);
    return known ? PyLong_FromLong(told) : Py_NewRef(Py_None);
}

static PyObject *ending_over(PyObject *object, void *Py_UNUSED(closure))
{
    ending *self = (ending *)object;
    pthread_mutex_lock(&self->lock);
    bool over = self->is_over;
    pthread_mutex_unlock(&self->lock);
    return PyBool_FromLong(over);
}

PyDoc_STRVAR(ending_doc,
             "Ending(pid, leash, reports=-1, told=None)\n--\n\n"
             "What this process knows of the end of a child. Each method is one step: neither a\n"
             "signal handler nor an exception comes between what is taken and what is noted.\n\n"
             "Args:\n"
             "    pid: the child.\n"
             "    leash: what private_pipe() made; closed when the child has ended.\n"
             "    reports: a pipe that reports come through, the caller's; -1: there is none.\n"
             "    told: the exit code if the pipe has told it already.\n");

static PyObject *ending_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"pid", "leash", "reports", "told", NULL};
    unsigned int process;
    int leash, reports = -1;
    PyObject *told = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Ii|iO:Ending", names, &process, &leash,
                                     &reports, &told))
        return NULL;
    long code = told == Py_None ? 0 : PyLong_AsLong(told);
    if (code == -1 && PyErr_Occurred())
        return NULL;
    ending *self = (ending *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    pthread_mutex_init(&self->lock,
                       NULL); // never destroyed: a fork may find it locked, and it holds nothing
    self->reports = (mp_stream){.file = reports, .kind = MP_STREAM_PIPE};
    self->process = process;
    self->leash = leash;
    self->told = (int)code;
    self->is_told = told != Py_None;
    return (PyObject *)self;
}

/* The leash stays: the child may outlive the object, and this process lives for it all the same. */
static void ending_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* As OwnedDescriptor: in another process it means nothing. */
static PyObject *ending_reduce(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(PyExc_TypeError,
                    "cannot pickle a started process: its end is to be known by the "
                    "process that started it");
    return NULL;
}

static PyMethodDef ending_methods[] = {
    {"listen", ending_listen, METH_O, listen_doc},
    {"note", ending_note, METH_O, note_doc},
    {"reap", ending_reap, METH_NOARGS, reap_doc},
    {"give_up", ending_give_up, METH_NOARGS, give_up_doc},
    {"__reduce__", ending_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ending_getset[] = {
    {"told", ending_told, NULL,
     PyDoc_STR("The exit code as it was told; the child may live still."), NULL},
    {"over", ending_over, NULL, PyDoc_STR("Whether no further report will come."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ending_slots[] = {
    {Py_tp_doc, (void *)ending_doc}, {Py_tp_new, ending_new},       {Py_tp_dealloc, ending_dealloc},
    {Py_tp_methods, ending_methods}, {Py_tp_getset, ending_getset}, {0, NULL},
};

static PyType_Spec ending_spec = {
    .name = "cmultiprocessing.popen_fork.Ending",
    .basicsize = sizeof(ending),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ending_slots,
};

int mp_ending_exec(PyObject *module)
{
    return mp_state_add_type(module, &mp_state_get(module)->ending_type, &ending_spec);
}
