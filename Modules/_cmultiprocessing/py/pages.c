// SPDX-License-Identifier: PSF-2.0
/* Lists of pages (os/pages.h) as bytes, for the children of the fork server. */
#define PY_SSIZE_T_CLEAN // Py_ssize_t
#include "py/state.h"    // exec step

#include "py/errors.h" // mp_raise

#include "os/pages.h" // the work

#include <string.h> // memcpy

/* More than a process without work of its own needs; of others, the first ones. */
enum { MOST_SPANS = 2048 };

PyDoc_STRVAR(
    used_doc,
    "pages_used()\n--\n\n"
    "A list, as bytes, of the pages that this process made its own since it was forked.\n\n"
    "Raises:\n    OSError: /proc is not there.\n");

static PyObject *pages_used(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, MOST_SPANS * (Py_ssize_t)sizeof(mp_span));
    if (bytes == NULL)
        return NULL;
    mp_span_list list = {.spans = (mp_span *)(void *)PyBytes_AS_STRING(bytes), .room = MOST_SPANS};
    mp_status status = mp_pages_used(&list);
    if (status != MP_OK) {
        Py_DECREF(bytes);
        return mp_raise(mp_state_get(module), status, "pages_used()");
    }
    if (_PyBytes_Resize(&bytes, (Py_ssize_t)(list.count * sizeof(mp_span))) < 0)
        return NULL;
    return bytes;
}

/* A list in its bytes; its room is what it holds. -1 with an exception set. */
static int parse_list(PyObject *bytes, mp_span_list *list)
{
    if (!PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) % (Py_ssize_t)sizeof(mp_span) != 0) {
        PyErr_SetString(PyExc_ValueError, "not a list that pages_used() gave");
        return -1;
    }
    list->spans = (mp_span *)(void *)PyBytes_AS_STRING(bytes);
    list->count = (size_t)PyBytes_GET_SIZE(bytes) / sizeof(mp_span);
    list->room = list->count;
    return 0;
}

PyDoc_STRVAR(common_doc, "pages_in_common(pages)\n--\n\n"
                         "Those pages of a list that were copied from this process.\n\n"
                         "Raises:\n    OSError: /proc is not there.\n"
                         "    ValueError: not a list.\n");

static PyObject *pages_in_common(PyObject *module, PyObject *bytes)
{
    mp_span_list list;
    if (parse_list(bytes, &list) < 0)
        return NULL;
    PyObject *result = PyBytes_FromStringAndSize(PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
    if (result == NULL)
        return NULL;
    list.spans = (mp_span *)(void *)PyBytes_AS_STRING(result);
    mp_status status = list.count > 0 ? mp_pages_keep_common(&list) : MP_OK;
    if (status != MP_OK) {
        Py_DECREF(result);
        return mp_raise(mp_state_get(module), status, "pages_in_common()");
    }
    if (_PyBytes_Resize(&result, (Py_ssize_t)(list.count * sizeof(mp_span))) < 0)
        return NULL;
    return result;
}

PyDoc_STRVAR(fetch_doc, "fetch_pages(pages)\n--\n\n"
                        "Copy and look up the pages of a list now, not when they are used.\n\n"
                        "Raises:\n    ValueError: not a list.\n");

static PyObject *fetch_pages(PyObject *Py_UNUSED(module), PyObject *bytes)
{
    mp_span_list list;
    if (parse_list(bytes, &list) < 0)
        return NULL;
    mp_pages_fetch(list.spans, list.count);
    Py_RETURN_NONE;
}

static PyMethodDef page_functions[] = {
    {"pages_used", pages_used, METH_NOARGS, used_doc},
    {"pages_in_common", pages_in_common, METH_O, common_doc},
    {"fetch_pages", fetch_pages, METH_O, fetch_doc},
    {NULL, NULL, 0, NULL},
};

int mp_pages_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, page_functions);
}
