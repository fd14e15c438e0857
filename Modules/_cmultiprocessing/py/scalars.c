// SPDX-License-Identifier: PSF-2.0
#include "py/scalars.h"

#include <stdbool.h> // has
#include <string.h>  // memcpy

/* Opcodes of the pickle format, by the names of the module pickletools. */
enum opcode {
    OP_MARK = '(',
    OP_EMPTY_TUPLE = ')',
    OP_STOP = '.',
    OP_SHORT_BINBYTES = 'C',
    OP_BINFLOAT = 'G',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_TUPLE = 't',
    OP_PROTO = 0x80,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a,
    OP_SHORT_BINUNICODE = 0x8c,
    OP_MEMOIZE = 0x94,
    OP_FRAME = 0x95,
};

enum { PROTOCOL = 4, HIGHEST_PROTOCOL = 5, ITEMS_MAX = 16, LONGEST = 255 };

static void store(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t fetch(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << 8 * i;
    return value;
}

/* ---- writing: each returns the bytes written, 0 = not such an object ---- */

static size_t dump_int(PyObject *object, unsigned char *room)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0)
        return 0;
    if (value >= 0 && value <= UINT8_MAX) {
        room[0] = OP_BININT1;
        room[1] = (unsigned char)value;
        return 2;
    }
    if (value >= INT32_MIN && value <= INT32_MAX) {
        room[0] = OP_BININT;
        store(room + 1, (uint64_t)value, 4);
        return 5;
    }
    room[0] = OP_LONG1;
    room[1] = 8;
    store(room + 2, (uint64_t)value, 8);
    return 10;
}

static size_t dump_float(PyObject *object, unsigned char *room)
{
    double value = PyFloat_AS_DOUBLE(object);
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    room[0] = OP_BINFLOAT;
    for (int i = 0; i < 8; i++)
        room[1 + i] = (unsigned char)(bits >> (56 - 8 * i));
    return 9;
}

static size_t dump_short(enum opcode opcode, const void *data, Py_ssize_t size, unsigned char *room,
                         size_t left)
{
    if (size > LONGEST || (size_t)size + 2 > left)
        return 0;
    room[0] = (unsigned char)opcode;
    room[1] = (unsigned char)size;
    memcpy(room + 2, data, (size_t)size);
    return (size_t)size + 2;
}

static size_t dump_item(PyObject *object, unsigned char *room, size_t left)
{
    const PyTypeObject *type = Py_TYPE(object);
    if (left < 16)
        return 0;
    if (type == &PyLong_Type)
        return dump_int(object, room);
    if (type == &PyFloat_Type)
        return dump_float(object, room);
    if (type == &PyBytes_Type)
        return dump_short(OP_SHORT_BINBYTES, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object),
                          room, left);
    if (type == &PyUnicode_Type && PyUnicode_IS_COMPACT_ASCII(object))
        return dump_short(OP_SHORT_BINUNICODE, PyUnicode_DATA(object), PyUnicode_GET_LENGTH(object),
                          room, left);
    if (object != Py_None && object != Py_True && object != Py_False)
        return 0;
    room[0] = object == Py_None ? OP_NONE : object == Py_True ? OP_NEWTRUE : OP_NEWFALSE;
    return 1;
}

static size_t dump_tuple(PyObject *tuple, unsigned char *room, size_t left)
{
    static const unsigned char closing[] = {OP_EMPTY_TUPLE, OP_TUPLE1, OP_TUPLE2, OP_TUPLE3};
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    size_t used = 0;
    if (count > ITEMS_MAX)
        return 0;
    if (count > 3)
        room[used++] = OP_MARK;
    for (Py_ssize_t i = 0; i < count; i++) {
        size_t more = dump_item(PyTuple_GET_ITEM(tuple, i), room + used, left - used - 2);
        if (more == 0)
            return 0;
        used += more;
    }
    room[used++] = count > 3 ? OP_TUPLE : closing[count];
    return used;
}

size_t mp_scalar_dump(PyObject *object, unsigned char *room)
{
    room[0] = OP_PROTO;
    room[1] = PROTOCOL;
    size_t left = MP_SCALAR_ROOM - 4;
    size_t used = PyTuple_CheckExact(object) ? dump_tuple(object, room + 2, left)
                                             : dump_item(object, room + 2, left);
    if (used == 0)
        return 0;
    room[2 + used] = OP_STOP;
    return used + 3;
}

/* ---- reading ---- */

typedef struct reader {
    const unsigned char *at, *end;
    PyObject *stack[ITEMS_MAX + 1];
    int count;
    int mark; // how many items lie below it; -1: none
} reader;

static bool has(const reader *self, size_t bytes)
{
    return (size_t)(self->end - self->at) >= bytes;
}

static PyObject *load_float(const unsigned char *at)
{
    uint64_t bits = 0;
    double value;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | at[i];
    memcpy(&value, &bits, sizeof(value));
    return PyFloat_FromDouble(value);
}

/* An item that is as long as its first byte says. NULL without an exception: it is not there. */
static PyObject *load_short(reader *self, unsigned int opcode)
{
    if (!has(self, 1) || !has(self, 1U + *self->at))
        return NULL;
    const char *data = (const char *)self->at + 1;
    Py_ssize_t size = *self->at;
    self->at += 1 + size;
    if (opcode == OP_SHORT_BINBYTES)
        return PyBytes_FromStringAndSize(data, size);
    if (opcode == OP_SHORT_BINUNICODE)
        return PyUnicode_DecodeUTF8(data, size, "surrogatepass");
    if (size != 8)
        return NULL;
    return PyLong_FromLongLong((long long)fetch((const unsigned char *)data, 8));
}

static PyObject *load_fixed(reader *self, unsigned int opcode)
{
    static const unsigned char sizes[] = {['G'] = 8, ['J'] = 4, ['K'] = 1, ['M'] = 2};
    const unsigned char *at = self->at;
    if (!has(self, sizes[opcode]))
        return NULL;
    self->at += sizes[opcode];
    switch (opcode) {
    case OP_BINFLOAT: return load_float(at);
    case OP_BININT: return PyLong_FromLong((int32_t)(uint32_t)fetch(at, 4));
    default: return PyLong_FromLong((long)fetch(at, sizes[opcode]));
    }
}

/* The topmost items as a tuple, in their place. */
static PyObject *load_tuple(reader *self, int from)
{
    if (from < 0 || from < self->mark)
        return NULL;
    PyObject *tuple = PyTuple_New(self->count - from);
    if (tuple == NULL)
        return NULL;
    for (int i = from; i < self->count; i++)
        PyTuple_SET_ITEM(tuple, i - from, self->stack[i]);
    self->count = from;
    return tuple;
}

static PyObject *load_marked(reader *self)
{
    if (self->mark < 0)
        return NULL;
    PyObject *tuple = load_tuple(self, self->mark);
    self->mark = -1; // used up
    return tuple;
}

static PyObject *load_item(reader *self, unsigned int opcode)
{
    switch (opcode) {
    case OP_NONE: return Py_NewRef(Py_None);
    case OP_NEWTRUE: return Py_NewRef(Py_True);
    case OP_NEWFALSE: return Py_NewRef(Py_False);
    case OP_BINFLOAT:
    case OP_BININT:
    case OP_BININT1:
    case OP_BININT2: return load_fixed(self, opcode);
    case OP_LONG1:
    case OP_SHORT_BINBYTES:
    case OP_SHORT_BINUNICODE: return load_short(self, opcode);
    case OP_EMPTY_TUPLE: return PyTuple_New(0);
    case OP_TUPLE1: return load_tuple(self, self->count - 1);
    case OP_TUPLE2: return load_tuple(self, self->count - 2);
    case OP_TUPLE3: return load_tuple(self, self->count - 3);
    case OP_TUPLE: return load_marked(self);
    default: return NULL;
    }
}

/* False: something else than we know. */
static bool load_all(reader *self)
{
    while (has(self, 1)) {
        unsigned int opcode = *self->at++;
        if (opcode == OP_STOP)
            return self->count == 1;
        if (opcode == OP_MEMOIZE)
            continue; // nothing that we know refers to it
        if (opcode == OP_MARK) {
            if (self->mark >= 0)
                return false;
            self->mark = self->count;
            continue;
        }
        if (self->count > ITEMS_MAX)
            return false;
        PyObject *item = load_item(self, opcode);
        if (item == NULL)
            return false;
        self->stack[self->count++] = item;
    }
    return false;
}

PyObject *mp_scalar_load(const unsigned char *pickle, size_t size)
{
    reader self = {.at = pickle, .end = pickle + size, .mark = -1};
    if (size < 4 || pickle[0] != OP_PROTO || pickle[1] > HIGHEST_PROTOCOL)
        return NULL;
    self.at += 2;
    if (*self.at == OP_FRAME && size > 11 && fetch(self.at + 1, 8) == size - 11)
        self.at += 9; // one frame; of several, or of a wrong length, the unpickler knows more
    if (load_all(&self))
        return self.stack[0];
    while (self.count > 0)
        Py_DECREF(self.stack[--self.count]);
    return NULL;
}
