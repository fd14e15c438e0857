// SPDX-License-Identifier: PSF-2.0
#include "py/cells.h"

#include <string.h> // strchr, memcpy

mp_cell_kind mp_cell_kind_of(const char *code, Py_ssize_t size)
{
    if (code[0] == '\0' || code[1] != '\0')
        return MP_CELL_NONE;
    if (code[0] == 'c' || code[0] == '?')
        return size != 1 ? MP_CELL_NONE : code[0] == 'c' ? MP_CELL_CHAR : MP_CELL_BOOL;
    if (code[0] == 'f' || code[0] == 'd')
        return size == 4 ? MP_CELL_FLOAT : size == 8 ? MP_CELL_DOUBLE : MP_CELL_NONE;
    bool is_signed = strchr("bhilq", code[0]) != NULL;
    if (!is_signed && strchr("BHILQ", code[0]) == NULL)
        return MP_CELL_NONE;
    switch (size) {
    case 1: return is_signed ? MP_CELL_INT8 : MP_CELL_UINT8;
    case 2: return is_signed ? MP_CELL_INT16 : MP_CELL_UINT16;
    case 4: return is_signed ? MP_CELL_INT32 : MP_CELL_UINT32;
    case 8: return is_signed ? MP_CELL_INT64 : MP_CELL_UINT64;
    default: return MP_CELL_NONE;
    }
}

PyObject *mp_cell_to_python(mp_cell_kind kind, mp_number number)
{
    char character = (char)number.integer;
    switch (kind) {
    case MP_CELL_INT8:
    case MP_CELL_UINT8:
    case MP_CELL_INT16:
    case MP_CELL_UINT16:
    case MP_CELL_INT32:
    case MP_CELL_UINT32:
    case MP_CELL_INT64: return PyLong_FromLongLong((int64_t)number.integer);
    case MP_CELL_UINT64: return PyLong_FromUnsignedLongLong(number.integer);
    case MP_CELL_FLOAT:
    case MP_CELL_DOUBLE: return PyFloat_FromDouble(number.real);
    case MP_CELL_CHAR: return PyBytes_FromStringAndSize(&character, 1);
    case MP_CELL_BOOL: return PyBool_FromLong((number.integer & 0xff) != 0);
    case MP_CELL_NONE: break;
    }
    Py_UNREACHABLE();
}

int mp_cell_from_python(mp_cell_kind kind, PyObject *value, mp_number *number)
{
    if (mp_cell_is_real(kind)) {
        if (!PyFloat_CheckExact(value))
            return 0;
        number->real = PyFloat_AS_DOUBLE(value);
        return 1;
    }
    if (!mp_cell_is_number(kind) || !PyLong_CheckExact(value))
        return 0;
    number->integer = PyLong_AsUnsignedLongLongMask(value); // ctypes cuts off what does not fit
    return number->integer == UINT64_MAX && PyErr_Occurred() ? -1 : 1;
}

/* Characters from `cell` on, `step` apart. */
static PyObject *characters(const char *cell, Py_ssize_t step, Py_ssize_t count)
{
    if (step == 1)
        return PyBytes_FromStringAndSize(cell, count);
    PyObject *result = PyBytes_FromStringAndSize(NULL, count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++)
        PyBytes_AS_STRING(result)[i] = cell[i * step];
    return result;
}

/* As PyFloat_FromDouble makes it, in two thirds of the time where there are many: each waits for the next
 * block of memory to be found, and calls and the list of free floats lengthen that. Versions and builds that
 * keep more of an object than these fields have it made by their own function. */
static inline PyObject *new_float(double number)
{
#if PY_VERSION_HEX >= 0x030E0000 || defined(Py_GIL_DISABLED) || defined(Py_REF_DEBUG) ||           \
    defined(Py_TRACE_REFS)
    return PyFloat_FromDouble(number);
#else
    PyFloatObject *result = PyObject_Malloc(sizeof *result);
    if (result == NULL)
        return PyErr_NoMemory();
    result->ob_base.ob_refcnt = 1; // not Py_SET_REFCNT, which looks at what there was
    result->ob_base.ob_type = &PyFloat_Type;
    result->ob_fval = number;
    return (PyObject *)result;
#endif
}

/* One function per kind, because the loop is the same and what is in it is not: asked for each item,
 * the kind would cost as much as the Python number. */
#define DEFINE_NUMBERS(name, type, make)                                                           \
 static int name(PyObject *list, const char *cells, Py_ssize_t step)                               \
 {                                                                                                 \
  Py_ssize_t count = PyList_GET_SIZE(list);                                                        \
  const char *cell = cells;                                                                        \
  for (Py_ssize_t i = 0; i < count; i++, cell += step * (Py_ssize_t)sizeof(type)) {                \
   type number;                                                                                    \
   memcpy(&number, cell, sizeof number);                                                           \
   PyObject *item = make(number);                                                                  \
   if (item == NULL)                                                                               \
    return -1;                                                                                     \
   PyList_SET_ITEM(list, i, item);                                                                 \
  }                                                                                                \
  return 0;                                                                                        \
 }

DEFINE_NUMBERS(int8_numbers, int8_t, PyLong_FromLong)
DEFINE_NUMBERS(uint8_numbers, uint8_t, PyLong_FromLong)
DEFINE_NUMBERS(int16_numbers, int16_t, PyLong_FromLong)
DEFINE_NUMBERS(uint16_numbers, uint16_t, PyLong_FromLong)
DEFINE_NUMBERS(int32_numbers, int32_t, PyLong_FromLong)
DEFINE_NUMBERS(uint32_numbers, uint32_t, PyLong_FromUnsignedLong)
DEFINE_NUMBERS(int64_numbers, int64_t, PyLong_FromLongLong)
DEFINE_NUMBERS(uint64_numbers, uint64_t, PyLong_FromUnsignedLongLong)
DEFINE_NUMBERS(float_numbers, float, new_float)
DEFINE_NUMBERS(double_numbers, double, new_float)
DEFINE_NUMBERS(bool_numbers, uint8_t, PyBool_FromLong)

static int fill(mp_cell_kind kind, PyObject *list, const char *cell, Py_ssize_t step)
{
    switch (kind) {
    case MP_CELL_INT8: return int8_numbers(list, cell, step);
    case MP_CELL_UINT8: return uint8_numbers(list, cell, step);
    case MP_CELL_INT16: return int16_numbers(list, cell, step);
    case MP_CELL_UINT16: return uint16_numbers(list, cell, step);
    case MP_CELL_INT32: return int32_numbers(list, cell, step);
    case MP_CELL_UINT32: return uint32_numbers(list, cell, step);
    case MP_CELL_INT64: return int64_numbers(list, cell, step);
    case MP_CELL_UINT64: return uint64_numbers(list, cell, step);
    case MP_CELL_FLOAT: return float_numbers(list, cell, step);
    case MP_CELL_DOUBLE: return double_numbers(list, cell, step);
    case MP_CELL_BOOL: return bool_numbers(list, cell, step);
    case MP_CELL_CHAR:
    case MP_CELL_NONE: break;
    }
    Py_UNREACHABLE();
}

PyObject *mp_cells_to_python(mp_cell_kind kind, const char *copy, Py_ssize_t start, Py_ssize_t step,
                             Py_ssize_t count)
{
    const char *cell = copy + start * (Py_ssize_t)mp_cell_size(kind);
    if (kind == MP_CELL_CHAR)
        return characters(cell, step, count);
    PyObject *list = PyList_New(count);
    if (list != NULL && fill(kind, list, cell, step) < 0)
        Py_CLEAR(list);
    return list;
}
