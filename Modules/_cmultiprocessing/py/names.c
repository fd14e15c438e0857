// SPDX-License-Identifier: PSF-2.0
#include "py/names.h"

#include <string.h> // strrchr

/* getattr(import module, function)().name */
static PyObject *name_from(const char *module_name, const char *function)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL)
        return NULL;
    PyObject *current = PyObject_CallMethod(module, function, NULL);
    Py_DECREF(module);
    if (current == NULL)
        return NULL;
    PyObject *name = PyObject_GetAttrString(current, "name");
    Py_DECREF(current);
    return name;
}

PyObject *mp_name_of_caller(void)
{
    PyObject *process = name_from("cmultiprocessing.process", "current_process");
    if (process == NULL)
        return NULL;
    PyObject *thread = name_from("threading", "current_thread");
    PyObject *name = NULL;
    if (thread != NULL && PyUnicode_Check(thread) &&
        PyUnicode_CompareWithASCIIString(thread, "MainThread") == 0)
        name = PyObject_Str(process);
    else if (thread != NULL)
        name = PyUnicode_FromFormat("%S|%S", process, thread);
    Py_DECREF(process);
    Py_XDECREF(thread);
    return name;
}

const char *mp_type_name(PyObject *self)
{
    const char *name = Py_TYPE(self)->tp_name;
    const char *dot = strrchr(name, '.');
    return dot == NULL ? name : dot + 1;
}
