// SPDX-License-Identifier: PSF-2.0
#define PY_SSIZE_T_CLEAN // "y#" takes a Py_ssize_t
#include "py/codec.h"

#include <string.h> // memcpy

#include "py/blocking.h" // copying what is large
#include "py/buffers.h"  // where buffers arrive
#include "py/drain.h"    // large pickles
#include "py/errors.h"   // mp_raise
#include "py/pickling.h" // everything that is not a scalar
#include "py/scalars.h"  // pickles of what is one
#include "py/sharing.h"  // pins

#include "shm/mutex.h"          // patience with the heap's
#include "structures/message.h" // what does not fit a record

enum tag {
    TAG_NONE = 1,
    TAG_TRUE,
    TAG_FALSE,
    TAG_INT,
    TAG_FLOAT,
    TAG_BYTES,
    TAG_STR1, // one, two, four bytes a character
    TAG_STR2,
    TAG_STR4,
    TAG_TUPLE,
    TAG_PICKLE, // by the package's own pickler
    TAG_CUSTOM, // by a class that replaced it
};

/* ---- which pickler ---- */

/* What of the pickler's class must be as it was for the fast forms to mean the same. */
static const char *const guarded[] = {"dumps", "loads", "dump", "persistent_id"};
enum { GUARDED = Py_ARRAY_LENGTH(guarded) };

typedef struct codec {
    PyObject head;
    const char *module;          // cmultiprocessing.queues or .connection
    PyObject *names;             // its globals
    PyObject *pickler_key;       // "_ForkingPickler"
    PyTypeObject *plain;         // the package's own class
    PyObject *original[GUARDED]; // of its __dict__; NULL where it had none
    PyObject *register_late;     // registers what depends on modules imported later
    PyObject *loads;             // of _pickle
    PyObject *unpickler;         // its class
    PyObject *reducers;          // for picklings; NULL: to be made
    PyObject *idle;              // list of picklings
    Py_ssize_t modules;          // how many there were when register_late was called last
    unsigned int version;        // of the class when it was examined; 0: never
    bool is_plain;               // what the examination said
} codec;

static int codec_traverse(PyObject *object, visitproc visit, void *arg)
{
    codec *self = (codec *)(void *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->names);
    Py_VISIT(self->plain);
    Py_VISIT(self->register_late);
    Py_VISIT(self->reducers);
    Py_VISIT(self->idle);
    for (int i = 0; i < GUARDED; i++)
        Py_VISIT(self->original[i]);
    return 0;
}

static int codec_clear(PyObject *object)
{
    codec *self = (codec *)(void *)object;
    Py_CLEAR(self->names);
    Py_CLEAR(self->plain);
    Py_CLEAR(self->register_late);
    Py_CLEAR(self->reducers);
    Py_CLEAR(self->idle);
    for (int i = 0; i < GUARDED; i++)
        Py_CLEAR(self->original[i]);
    return 0;
}

static void codec_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)codec_clear(object);
    Py_CLEAR(((codec *)(void *)object)->pickler_key);
    Py_CLEAR(((codec *)(void *)object)->loads);
    Py_CLEAR(((codec *)(void *)object)->unpickler);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyType_Slot codec_slots[] = {
    {Py_tp_doc, (void *)"How queues pickle."},
    {Py_tp_traverse, codec_traverse},
    {Py_tp_clear, codec_clear},
    {Py_tp_dealloc, codec_dealloc},
    {0, NULL},
};

static PyType_Spec codec_spec = {
    .name = "cmultiprocessing._cmultiprocessing._Codec",
    .basicsize = sizeof(codec),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = codec_slots,
};

static codec *codec_of(mp_state *state)
{
    if (mp_unlikely(state->codec == NULL))
        PyErr_SetString(PyExc_RuntimeError, "cmultiprocessing.queues was not imported");
    return (codec *)(void *)state->codec;
}

PyObject *mp_codec_global(PyObject *object, const char *name)
{
    codec *self = (codec *)(void *)object;
    if (mp_unlikely(self == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "cmultiprocessing.connection was not imported");
        return NULL;
    }
    PyObject *found = PyDict_GetItemString(self->names, name);
    if (found == NULL)
        PyErr_Format(PyExc_AttributeError, "module '%s' has no attribute '%s'", self->module, name);
    return found;
}

PyObject *mp_codec_name(mp_state *state, const char *name)
{
    codec *self = codec_of(state);
    return self == NULL ? NULL : mp_codec_global(state->codec, name);
}

static PyObject *guarded_now(const codec *self, int i)
{
    return PyDict_GetItemString(self->plain->tp_dict, guarded[i]);
}

/* The class has changed: is it still ours in all that matters, and what are its reducers now? */
static int examine(codec *self)
{
    // An attribute looked up gives the class a version again, which any change takes away.
    PyObject *looked_up = PyObject_GetAttrString((PyObject *)self->plain, guarded[0]);
    if (looked_up == NULL)
        return -1;
    Py_DECREF(looked_up);
    self->version = self->plain->tp_version_tag;
    self->is_plain = true;
    for (int i = 0; i < GUARDED; i++)
        self->is_plain &= guarded_now(self, i) == self->original[i];
    Py_CLEAR(self->reducers);
    return PyList_SetSlice(self->idle, 0, PyList_GET_SIZE(self->idle), NULL);
}

/* The class that pickles for queues now, borrowed; `*plain`: whether it is the package's own. */
static PyTypeObject *pickler_class(codec *self, bool *plain)
{
    PyObject *class = PyDict_GetItemWithError(self->names, self->pickler_key);
    if (mp_unlikely(class == NULL)) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_AttributeError, "%s._ForkingPickler is gone", self->module);
        return NULL;
    }
    *plain = class == (PyObject *)self->plain;
    if (mp_likely(*plain)) {
        bool unchanged = self->version != 0 && self->version == self->plain->tp_version_tag;
        if (mp_unlikely(!unchanged) && examine(self) < 0)
            return NULL;
        *plain = self->is_plain;
    }
    return (PyTypeObject *)(void *)class;
}

/* ---- scalars ---- */

static unsigned int tag_of_kind(unsigned int kind)
{
    return kind == PyUnicode_1BYTE_KIND   ? TAG_STR1
           : kind == PyUnicode_2BYTE_KIND ? TAG_STR2
                                          : TAG_STR4;
}

/* What a scalar looks like: `length` bytes at `data`, which is `number` or lies in the object. */
typedef struct scalar {
    unsigned int tag;
    const void *data;
    size_t length;
    uint64_t number;
} scalar;

static bool look_at_int(PyObject *object, scalar *found)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0)
        return false;
    found->tag = TAG_INT;
    found->number = (uint64_t)value;
    found->data = &found->number;
    found->length = sizeof(found->number);
    return true;
}

static bool look_at_str(PyObject *object, scalar *found)
{
#if PY_VERSION_HEX < 0x030c0000
    if (PyUnicode_READY(object) < 0) {
        PyErr_Clear(); // the pickler meets it again, and says so
        return false;
    }
#endif
    unsigned int kind = (unsigned int)PyUnicode_KIND(object);
    found->tag = tag_of_kind(kind);
    found->data = PyUnicode_DATA(object);
    found->length = (size_t)PyUnicode_GET_LENGTH(object) * kind;
    return true;
}

/* False: not a scalar. */
static inline bool look(PyObject *object, scalar *found)
{
    const PyTypeObject *type = Py_TYPE(object);
    found->length = 0;
    found->data = NULL;
    if (type == &PyLong_Type)
        return look_at_int(object, found);
    if (type == &PyUnicode_Type)
        return look_at_str(object, found);
    if (type == &PyBytes_Type) {
        found->tag = TAG_BYTES;
        found->data = PyBytes_AS_STRING(object);
        found->length = (size_t)PyBytes_GET_SIZE(object);
        return true;
    }
    if (type == &PyFloat_Type) {
        double value = PyFloat_AS_DOUBLE(object);
        found->tag = TAG_FLOAT;
        memcpy(&found->number, &value, sizeof(value));
        found->data = &found->number;
        found->length = sizeof(found->number);
        return true;
    }
    if (object == Py_None || object == Py_True || object == Py_False) {
        found->tag = object == Py_None ? TAG_NONE : object == Py_True ? TAG_TRUE : TAG_FALSE;
        return true;
    }
    return false;
}

/* Whether the tag's length is written in front of its bytes within a tuple. */
static bool has_length(unsigned int tag)
{
    return tag == TAG_BYTES || tag == TAG_STR1 || tag == TAG_STR2 || tag == TAG_STR4;
}

/* A tuple of scalars: [count:1] and for each [tag:1][length:4, where it varies][bytes]. Returns its
 * length, or 0: not such a tuple, or too long. */
static size_t pack_tuple(PyObject *tuple, unsigned char *room)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    if (count > 255)
        return 0;
    size_t used = 0;
    room[used++] = (unsigned char)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        scalar part;
        if (!look(PyTuple_GET_ITEM(tuple, i), &part) || part.length > MP_INLINE_MAX ||
            used + 5 + part.length > MP_INLINE_MAX)
            return 0;
        room[used++] = (unsigned char)part.tag;
        if (has_length(part.tag)) {
            uint32_t length = (uint32_t)part.length;
            memcpy(room + used, &length, sizeof(length));
            used += sizeof(length);
        }
        if (part.length != 0)
            memcpy(room + used, part.data, part.length);
        used += part.length;
    }
    return used;
}

static PyObject *unpack_scalar(unsigned int tag, const void *data, size_t length)
{
    int64_t integer;
    double real;
    switch (tag) {
    case TAG_NONE: Py_RETURN_NONE;
    case TAG_TRUE: Py_RETURN_TRUE;
    case TAG_FALSE: Py_RETURN_FALSE;
    case TAG_INT: memcpy(&integer, data, sizeof(integer)); return PyLong_FromLongLong(integer);
    case TAG_FLOAT: memcpy(&real, data, sizeof(real)); return PyFloat_FromDouble(real);
    case TAG_BYTES: return PyBytes_FromStringAndSize(data, (Py_ssize_t)length);
    // These look at the characters: whatever they are, the result is a sound string.
    case TAG_STR1: return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, data, (Py_ssize_t)length);
    case TAG_STR2:
        return PyUnicode_FromKindAndData(PyUnicode_2BYTE_KIND, data, (Py_ssize_t)(length / 2));
    case TAG_STR4:
        return PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, data, (Py_ssize_t)(length / 4));
    default: return NULL;
    }
}

static bool is_number(unsigned int tag)
{
    return tag == TAG_INT || tag == TAG_FLOAT;
}

/* One part of a packed tuple, in bounds; NULL without an exception: damaged. */
static PyObject *unpack_part(const unsigned char **at, const unsigned char *end)
{
    if (*at == end)
        return NULL;
    unsigned int tag = *(*at)++;
    uint32_t length = is_number(tag) ? 8 : 0;
    if (has_length(tag)) {
        if (end - *at < (ptrdiff_t)sizeof(length))
            return NULL;
        memcpy(&length, *at, sizeof(length));
        *at += sizeof(length);
    }
    if (length > (size_t)(end - *at) || tag >= TAG_TUPLE)
        return NULL;
    const unsigned char *data = *at;
    *at += length;
    if (tag != TAG_STR2 && tag != TAG_STR4)
        return unpack_scalar(tag, data, length);
    uint64_t aligned[MP_INLINE_MAX / sizeof(uint64_t)]; // wide characters are read as such
    if (length > sizeof(aligned))
        return NULL;
    memcpy(aligned, data, length);
    return unpack_scalar(tag, aligned, length);
}

static PyObject *unpack_tuple(const unsigned char *data, size_t length)
{
    const unsigned char *end = data + length;
    Py_ssize_t count = length == 0 ? 0 : *data++;
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *part = unpack_part(&data, end);
        if (part == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, part);
    }
    return tuple;
}

/* ---- messages: writing ---- */

/* A message to make without the GIL: what its parts consist of is kept alive by the caller. */
typedef struct writing {
    mp_ring_handle *ring;
    mp_message_plan plan;
    const mp_piece *pieces; // of part 0
    size_t piece_count;
    const mp_piece *more; // parts 1, 2, ...
    uint64_t offset;
    mp_time give_up; // waiting for the heap ends here; 0: not waited yet
} writing;

static mp_status write_message(void *context, mp_time deadline)
{
    writing *self = context;
    mp_status status = mp_message_make(self->ring, &self->plan, &self->offset);
    if (status == MP_INTERRUPTED)
        return mp_mutex_busy(&self->give_up, deadline);
    if (status != MP_OK)
        return status;
    uint64_t size;
    char *part = mp_message_part(self->offset, 0, &size);
    for (size_t i = 0; i < self->piece_count; i++) {
        memcpy(part, self->pieces[i].data, self->pieces[i].size);
        part += self->pieces[i].size;
    }
    for (uint32_t i = 1; i < self->plan.parts; i++) {
        part = mp_message_part(self->offset, i, &size);
        memcpy(part, self->more[i - 1].data, self->more[i - 1].size);
    }
    return MP_OK;
}

static int make_message(mp_state *state, writing *self, mp_outgoing *outgoing)
{
    mp_status status = mp_blocking_run(write_message, self, outgoing->deadline);
    outgoing->late = status == MP_TIMEOUT;
    if (status == MP_TIMEOUT)
        return -1;
    if (status != MP_OK)
        return mp_raise_int(state, status, "Queue.put()");
    outgoing->item.tag = self->plan.tag;
    outgoing->item.message = self->offset;
    return 0;
}

static int encode_long_scalar(mp_state *state, mp_ring_handle *ring, const scalar *found,
                              mp_outgoing *outgoing)
{
    uint64_t size = found->length;
    mp_piece whole = {found->data, found->length};
    writing work = {
        .ring = ring,
        .plan = {.tag = found->tag, .parts = 1, .sizes = &size},
        .pieces = &whole,
        .piece_count = 1,
    };
    return make_message(state, &work, outgoing);
}

/* 1: done, 0: not a scalar, -1: exception. */
static inline int encode_scalar(mp_state *state, mp_ring_handle *ring, PyObject *object,
                                unsigned char *room, size_t *used, mp_outgoing *outgoing)
{
    mp_ring_item *item = &outgoing->item;
    if (PyTuple_CheckExact(object)) {
        size_t length = pack_tuple(object, room);
        if (length == 0)
            return 0;
        *item = (mp_ring_item){TAG_TUPLE, (uint32_t)length, room, 0};
        *used = length;
        return 1;
    }
    scalar found;
    if (!look(object, &found))
        return 0;
    if (mp_unlikely(found.length > MP_INLINE_MAX))
        return encode_long_scalar(state, ring, &found, outgoing) < 0 ? -1 : 1;
    *item = (mp_ring_item){found.tag, (uint32_t)found.length, found.data, 0};
    if (found.data == &found.number) {
        memcpy(room, &found.number, sizeof(found.number));
        item->payload = room;
        *used = sizeof(found.number);
    } else {
        outgoing->keep = Py_NewRef(object);
    }
    return 1;
}

/* ---- pickles: writing ---- */

/* Everything that a pickle consists of, as memory. */
typedef struct parts {
    Py_buffer *views; // pieces, then buffers
    Py_ssize_t filled;
    mp_piece *pieces;
    uint64_t *sizes; // of the message's parts
} parts;

static void parts_release(parts *self)
{
    for (Py_ssize_t i = 0; i < self->filled; i++)
        PyBuffer_Release(&self->views[i]);
    PyMem_Free(self->views);
    PyMem_Free(self->pieces);
    PyMem_Free(self->sizes);
}

static int parts_add(parts *self, PyObject *object)
{
    // ANY: Fortran-ordered arrays are contiguous too, and travel in their order.
    Py_buffer *view = &self->views[self->filled];
    if (PyObject_GetBuffer(object, view, PyBUF_ANY_CONTIGUOUS) < 0)
        return -1;
    self->pieces[self->filled] = (mp_piece){view->buf, (size_t)view->len};
    self->filled++;
    return 0;
}

static int parts_fill(parts *self, const mp_pickling *pickling)
{
    Py_ssize_t pieces = PyList_GET_SIZE(pickling->pieces);
    Py_ssize_t buffers = PyList_GET_SIZE(pickling->buffers);
    self->views = PyMem_New(Py_buffer, (size_t)(pieces + buffers));
    self->pieces = PyMem_New(mp_piece, (size_t)(pieces + buffers));
    self->sizes = PyMem_New(uint64_t, (size_t)(1 + buffers));
    if (self->views == NULL || self->pieces == NULL || self->sizes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->sizes[0] = (uint64_t)pickling->size;
    for (Py_ssize_t i = 0; i < pieces; i++) {
        if (parts_add(self, PyList_GET_ITEM(pickling->pieces, i)) < 0)
            return -1;
    }
    for (Py_ssize_t i = 0; i < buffers; i++) {
        if (parts_add(self, PyList_GET_ITEM(pickling->buffers, i)) < 0)
            return -1;
        self->sizes[1 + i] = self->pieces[pieces + i].size;
    }
    return 0;
}

static int pickle_to_message(mp_state *state, mp_ring_handle *ring, const mp_pickling *pickling,
                             const mp_pins *pins, mp_outgoing *outgoing)
{
    parts memory = {0};
    int result = -1;
    if (pins->count > MP_PINS_MAX)
        PyErr_Format(PyExc_ValueError, "put(): %zu shared objects in one item, limit is %u",
                     pins->count, MP_PINS_MAX);
    else if (parts_fill(&memory, pickling) == 0) {
        size_t pieces = (size_t)PyList_GET_SIZE(pickling->pieces);
        writing work = {
            .ring = ring,
            .plan = {.tag = TAG_PICKLE,
                     .parts = 1 + (uint32_t)PyList_GET_SIZE(pickling->buffers),
                     .sizes = memory.sizes,
                     .tickets = pins->tickets,
                     .pins = (uint32_t)pins->count},
            .pieces = memory.pieces,
            .piece_count = pieces,
            .more = memory.pieces + pieces,
        };
        result = make_message(state, &work, outgoing);
    }
    parts_release(&memory);
    return result;
}

static bool fits_record(const mp_pickling *pickling, const mp_pins *pins)
{
    return pins->count == 0 && PyList_GET_SIZE(pickling->buffers) == 0 &&
           PyList_GET_SIZE(pickling->pieces) == 1 && pickling->size <= (Py_ssize_t)MP_INLINE_MAX &&
           PyBytes_CheckExact(PyList_GET_ITEM(pickling->pieces, 0));
}

static int store_pickle(mp_state *state, mp_ring_handle *ring, const mp_pickling *pickling,
                        const mp_pins *pins, mp_outgoing *outgoing)
{
    if (!fits_record(pickling, pins))
        return pickle_to_message(state, ring, pickling, pins, outgoing);
    outgoing->keep = Py_NewRef(PyList_GET_ITEM(pickling->pieces, 0));
    outgoing->item =
        (mp_ring_item){TAG_PICKLE, (uint32_t)pickling->size, PyBytes_AS_STRING(outgoing->keep), 0};
    return 0;
}

static int register_late(codec *self)
{
    Py_ssize_t modules = PyDict_Size(PyImport_GetModuleDict());
    if (mp_likely(modules == self->modules))
        return 0;
    PyObject *done = PyObject_CallNoArgs(self->register_late);
    Py_XDECREF(done);
    self->modules = modules;
    return done == NULL ? -1 : 0;
}

static int make_reducers(mp_state *state, codec *self)
{
    PyObject *extra = PyObject_GetAttrString((PyObject *)self->plain, "_extra_reducers");
    PyObject *copyreg = extra == NULL ? NULL : PyImport_ImportModule("copyreg");
    PyObject *table = copyreg == NULL ? NULL : PyObject_GetAttrString(copyreg, "dispatch_table");
    if (table != NULL)
        self->reducers = mp_reducers_new(state, extra, table);
    Py_XDECREF(extra);
    Py_XDECREF(copyreg);
    Py_XDECREF(table);
    return self->reducers == NULL ? -1 : 0;
}

/* An idle pickling, or a new one: a reducer may pickle for a queue itself. New reference. */
static PyObject *take_pickling(mp_state *state, codec *self)
{
    if (register_late(self) < 0)
        return NULL;
    Py_ssize_t idle = PyList_GET_SIZE(self->idle);
    if (mp_likely(idle != 0)) {
        PyObject *pickling = Py_NewRef(PyList_GET_ITEM(self->idle, idle - 1));
        if (PyList_SetSlice(self->idle, idle - 1, idle, NULL) < 0)
            Py_CLEAR(pickling);
        return pickling;
    }
    if (self->reducers == NULL && make_reducers(state, self) < 0)
        return NULL;
    // The pickler's __init__ runs any code, which may change the class: the table goes out of use then.
    PyObject *reducers = Py_NewRef(self->reducers);
    PyObject *pickling = mp_pickling_new(state, (PyObject *)self->plain, reducers);
    Py_DECREF(reducers);
    return pickling;
}

/* Back to the idle ones, unless the class changed meanwhile or there are enough. */
static void give_pickling(codec *self, PyObject *pickling, unsigned int version)
{
    mp_pickling_reset((mp_pickling *)(void *)pickling);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (version == self->version && PyList_GET_SIZE(self->idle) < 4 &&
        PyList_Append(self->idle, pickling) < 0)
        PyErr_Clear(); // no memory to keep it; the next one makes another
    PyErr_Restore(type, value, traceback);
    Py_DECREF(pickling);
}

static int encode_pickle(mp_state *state, codec *self, mp_ring_handle *ring, PyObject *object,
                         mp_outgoing *outgoing)
{
    unsigned int version = self->version;
    PyObject *pickling = take_pickling(state, self);
    if (pickling == NULL)
        return -1;
    mp_pickling *content = (mp_pickling *)(void *)pickling;
    content->inside = false;
    mp_pins pins;
    mp_pins_begin(&pins, MP_NOBODY);
    int result = mp_pickling_dump(content, object);
    mp_pins_end(&pins);
    if (result == 0)
        result = store_pickle(state, ring, content, &pins, outgoing);
    if (result == 0)
        mp_pins_forget(&pins); // the message has them
    else
        mp_pins_drop(&pins);
    give_pickling(self, pickling, version);
    return result;
}

/* A pickle made by somebody else's class: bytes, whatever they are. */
static int store_custom(mp_state *state, mp_ring_handle *ring, PyObject *bytes, const mp_pins *pins,
                        mp_outgoing *outgoing)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    if (size <= MP_INLINE_MAX && pins->count == 0) {
        outgoing->keep = Py_NewRef(bytes);
        outgoing->item = (mp_ring_item){TAG_CUSTOM, (uint32_t)size, PyBytes_AS_STRING(bytes), 0};
        return 0;
    }
    uint64_t part = size;
    mp_piece whole = {PyBytes_AS_STRING(bytes), size};
    writing work = {
        .ring = ring,
        .plan = {.tag = TAG_CUSTOM,
                 .parts = 1,
                 .sizes = &part,
                 .tickets = pins->tickets,
                 .pins = (uint32_t)(pins->count < MP_PINS_MAX ? pins->count : MP_PINS_MAX)},
        .pieces = &whole,
        .piece_count = 1,
    };
    return make_message(state, &work, outgoing);
}

static PyObject *custom_dumps(PyTypeObject *class, PyObject *object)
{
    PyObject *dumped = PyObject_CallMethod((PyObject *)class, "dumps", "O", object);
    PyObject *bytes = dumped == NULL ? NULL : PyBytes_FromObject(dumped);
    Py_XDECREF(dumped);
    return bytes;
}

static int encode_custom(mp_state *state, mp_ring_handle *ring, PyTypeObject *class,
                         PyObject *object, mp_outgoing *outgoing)
{
    mp_pins pins;
    mp_pins_begin(&pins, MP_NOBODY);
    PyObject *bytes = custom_dumps(class, object);
    mp_pins_end(&pins);
    int result = bytes == NULL ? -1 : store_custom(state, ring, bytes, &pins, outgoing);
    if (result == 0)
        mp_pins_forget(&pins);
    else
        mp_pins_drop(&pins);
    Py_XDECREF(bytes);
    return result;
}

int mp_encode(mp_state *state, mp_ring_handle *ring, PyObject *object, mp_time deadline, void *room,
              size_t *used, mp_outgoing *outgoing)
{
    codec *self = codec_of(state);
    bool plain;
    *used = 0;
    *outgoing = (mp_outgoing){.keep = NULL, .deadline = deadline};
    PyTypeObject *class = self == NULL ? NULL : pickler_class(self, &plain);
    if (class == NULL)
        return -1;
    if (!plain)
        return encode_custom(state, ring, class, object, outgoing);
    int done = encode_scalar(state, ring, object, room, used, outgoing);
    if (mp_likely(done != 0))
        return done < 0 ? -1 : 0;
    return encode_pickle(state, self, ring, object, outgoing);
}

void mp_outgoing_forget(mp_outgoing *outgoing)
{
    Py_CLEAR(outgoing->keep);
}

void mp_outgoing_cancel(mp_outgoing *outgoing)
{
    if (outgoing->item.message != 0)
        mp_message_drop(outgoing->item.message);
    Py_CLEAR(outgoing->keep);
}

/* ---- reading ---- */

typedef struct reading {
    mp_message_view view;
    void **destinations; // for parts first, first + 1, ...
    uint32_t first;
    bool drop; // release the message afterwards
} reading;

static mp_status read_message(void *context, mp_time deadline)
{
    (void)deadline;
    reading *self = context;
    for (uint32_t i = self->first; i < self->view.parts; i++)
        mp_message_read(&self->view, i, self->destinations[i - self->first]);
    if (self->drop)
        mp_message_drop(self->view.offset);
    return MP_OK;
}

/* Bytes straight into the object that arrives. The message is released. */
static PyObject *read_bytes(const mp_message_view *view)
{
    uint64_t size;
    (void)mp_message_part(view->offset, 0, &size);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes == NULL) {
        mp_message_drop(view->offset);
        return NULL;
    }
    void *destination = PyBytes_AS_STRING(bytes);
    reading work = {*view, &destination, 0, true};
    (void)mp_blocking_run(read_message, &work, MP_FOREVER); // cannot fail or be interrupted
    return bytes;
}

/* The buffers of a pickle as a list of objects of our own, filled. */
static PyObject *read_buffers(mp_state *state, const mp_message_view *view)
{
    Py_ssize_t count = (Py_ssize_t)view->parts - 1;
    PyObject *list = PyList_New(count);
    void **destinations = PyMem_New(void *, (size_t)count + 1);
    if (list == NULL || destinations == NULL)
        goto failed;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t size;
        (void)mp_message_part(view->offset, (uint32_t)i + 1, &size);
        PyObject *buffer = mp_buffer_new(state, (size_t)size, &destinations[i]);
        if (buffer == NULL)
            goto failed;
        PyList_SET_ITEM(list, i, buffer);
    }
    reading work = {*view, destinations, 1, false};
    (void)mp_blocking_run(read_message, &work, MP_FOREVER);
    PyMem_Free(destinations);
    return list;
failed:
    if (!PyErr_Occurred())
        PyErr_NoMemory();
    PyMem_Free(destinations);
    Py_XDECREF(list);
    return NULL;
}

/* function(data, buffers=list or nothing). */
static PyObject *call_with_buffers(PyObject *function, PyObject *data, PyObject *buffers)
{
    if (buffers == NULL)
        return PyObject_CallOneArg(function, data);
    static const char *const keywords[] = {"buffers"};
    PyObject *names = Py_BuildValue("(s)", keywords[0]);
    if (names == NULL)
        return NULL;
    PyObject *arguments[] = {data, buffers};
    PyObject *object = PyObject_Vectorcall(function, arguments, 1, names);
    Py_DECREF(names);
    return object;
}

/* Unpickle what is large, and use it up: bytes in it need their memory once. */
static PyObject *load_draining(mp_state *state, codec *self, char *pickle, size_t size,
                               PyObject *buffers, mp_drain_give_back give_back)
{
    PyObject *drain = mp_drain_new(state, pickle, size, give_back);
    if (drain == NULL)
        return NULL;
    PyObject *unpickler = call_with_buffers(self->unpickler, drain, buffers);
    PyObject *object = unpickler == NULL ? NULL : PyObject_CallMethod(unpickler, "load", NULL);
    mp_drain_end(drain);
    Py_XDECREF(unpickler);
    Py_DECREF(drain);
    return object;
}

/* The unpickler reads from the shared memory itself; nothing that it makes points there. */
static PyObject *load_message(mp_state *state, codec *self, const mp_message_view *view)
{
    uint64_t size;
    char *pickle = mp_message_part(view->offset, 0, &size);
    PyObject *buffers = NULL;
    if (view->parts > 1 && (buffers = read_buffers(state, view)) == NULL)
        return NULL;
    PyObject *object;
    if (size >= MP_DRAIN_FROM) {
        object = load_draining(state, self, pickle, (size_t)size, buffers, mp_message_punch);
    } else {
        PyObject *data = PyMemoryView_FromMemory(pickle, (Py_ssize_t)size, PyBUF_READ);
        object = data == NULL ? NULL : call_with_buffers(self->loads, data, buffers);
        Py_XDECREF(data);
    }
    Py_XDECREF(buffers);
    return object;
}

static PyObject *load_custom(codec *self, const void *pickle, size_t size)
{
    bool plain;
    PyTypeObject *class = pickler_class(self, &plain);
    if (class == NULL)
        return NULL;
    return PyObject_CallMethod((PyObject *)class, "loads", "y#", pickle, (Py_ssize_t)size);
}

static mp_status drop_message(void *context, mp_time deadline)
{
    (void)deadline;
    mp_message_drop(*(const uint64_t *)context);
    return MP_OK;
}

static PyObject *damaged(mp_state *state)
{
    return PyErr_Occurred() ? NULL : mp_raise(state, MP_DAMAGED, "get()");
}

static PyObject *load_other(mp_state *state, const mp_message_view *view)
{
    codec *self = codec_of(state);
    uint64_t size;
    const char *data = mp_message_part(view->offset, 0, &size);
    if (self == NULL)
        return NULL;
    switch (view->tag) {
    case TAG_PICKLE: return load_message(state, self, view);
    case TAG_CUSTOM: return load_custom(self, data, (size_t)size);
    case TAG_STR1:
    case TAG_STR2:
    case TAG_STR4: return unpack_scalar(view->tag, data, (size_t)size);
    default: return damaged(state);
    }
}

static PyObject *decode_message(mp_state *state, uint64_t offset)
{
    mp_message_view view;
    if (mp_message_open(offset, &view) != MP_OK || view.parts == 0)
        return damaged(state); // not released: nothing in it is to be trusted
    if (view.tag == TAG_BYTES)
        return read_bytes(&view);
    PyObject *object = load_other(state, &view);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    (void)mp_blocking_run(drop_message, &offset, MP_FOREVER);
    PyErr_Restore(type, value, traceback);
    return object;
}

static PyObject *decode_pickle(mp_state *state, const void *data, size_t length)
{
    codec *self = codec_of(state);
    PyObject *bytes = self == NULL ? NULL : PyBytes_FromStringAndSize(data, (Py_ssize_t)length);
    PyObject *object = bytes == NULL ? NULL : PyObject_CallOneArg(self->loads, bytes);
    Py_XDECREF(bytes);
    return object;
}

PyObject *mp_decode(mp_state *state, const void *record)
{
    uint64_t header, offset;
    memcpy(&header, record, sizeof(header));
    const unsigned char *data = (const unsigned char *)record + MP_RECORD_HEADER;
    size_t length = mp_record_length(header);
    unsigned int tag = mp_record_tag(header);
    if (mp_unlikely(mp_record_kind(header) == MP_RECORD_LINK)) {
        memcpy(&offset, data, sizeof(offset));
        return decode_message(state, offset);
    }
    if (mp_unlikely(is_number(tag) && length != sizeof(uint64_t)))
        return damaged(state);
    PyObject *object;
    switch (tag) {
    case TAG_TUPLE: object = unpack_tuple(data, length); break;
    case TAG_PICKLE: return decode_pickle(state, data, length);
    case TAG_CUSTOM:
        return codec_of(state) == NULL ? NULL : load_custom(codec_of(state), data, length);
    default: object = unpack_scalar(tag, data, length); break;
    }
    return mp_likely(object != NULL) ? object : damaged(state);
}

/* ---- connections ---- */

static int dump_custom(PyTypeObject *class, PyObject *object, bool relative, mp_dumped *dumped)
{
    mp_pins_begin(&dumped->pins, MP_NOBODY);
    dumped->pins.outside = !relative;
    dumped->custom = custom_dumps(class, object);
    mp_pins_end(&dumped->pins);
    return dumped->custom == NULL ? -1 : 0;
}

static int dump_plain(mp_state *state, codec *self, PyObject *object, bool relative,
                      mp_dumped *dumped)
{
    dumped->version = self->version;
    dumped->pickling = take_pickling(state, self);
    if (dumped->pickling == NULL)
        return -1;
    mp_pickling *pickling = (mp_pickling *)(void *)dumped->pickling;
    pickling->inside = !relative;
    mp_pins_begin(&dumped->pins, MP_NOBODY);
    dumped->pins.outside = !relative;
    int result = mp_pickling_dump(pickling, object);
    mp_pins_end(&dumped->pins);
    return result;
}

static int raise_no_codec(void)
{
    PyErr_SetString(PyExc_RuntimeError, "cmultiprocessing.connection was not imported");
    return -1;
}

int mp_dump(mp_state *state, PyObject *object_codec, PyObject *object, bool relative,
            mp_dumped *dumped)
{
    codec *self = (codec *)(void *)object_codec;
    bool plain;
    dumped->codec = object_codec;
    dumped->pickling = dumped->custom = NULL;
    dumped->pins = (mp_pins){.count = 0};
    PyTypeObject *class = self == NULL ? NULL : pickler_class(self, &plain);
    if (class == NULL)
        return self == NULL ? raise_no_codec() : -1;
    dumped->scalar = plain ? mp_scalar_dump(object, dumped->room) : 0;
    if (dumped->scalar != 0)
        return 0;
    int result = plain ? dump_plain(state, self, object, relative, dumped)
                       : dump_custom(class, object, relative, dumped);
    if (result < 0)
        mp_dumped_close(dumped, false);
    return result;
}

void mp_dumped_close(mp_dumped *dumped, bool sent)
{
    if (sent)
        mp_pins_forget(&dumped->pins);
    else
        mp_pins_drop(&dumped->pins);
    Py_CLEAR(dumped->custom);
    if (dumped->pickling != NULL)
        give_pickling((codec *)(void *)dumped->codec, dumped->pickling, dumped->version);
    dumped->pickling = NULL;
}

/* Bytes, or a view that the pickling keeps. */
static mp_piece piece_of(PyObject *object)
{
    if (PyBytes_CheckExact(object))
        return (mp_piece){PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object)};
    const Py_buffer *view = PyMemoryView_GET_BUFFER(object);
    return (mp_piece){view->buf, (size_t)view->len};
}

static int add_buffers(const mp_pickling *pickling, mp_dumped_memory *memory)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pickling->buffers); i++) {
        const Py_buffer *view = PyPickleBuffer_GetBuffer(PyList_GET_ITEM(pickling->buffers, i));
        if (view == NULL)
            return -1; // released by what was pickled after it
        memory->pieces[memory->count++] = (mp_piece){view->buf, (size_t)view->len};
        memory->buffers++;
    }
    return 0;
}

int mp_dumped_open(const mp_dumped *dumped, mp_dumped_memory *memory)
{
    const mp_pickling *pickling = (const mp_pickling *)(const void *)dumped->pickling;
    memory->pieces = memory->few;
    memory->count = 1;
    memory->buffers = 0;
    if (dumped->scalar != 0) {
        memory->pieces[memory->count++] = (mp_piece){dumped->room, dumped->scalar};
        return 0;
    }
    if (pickling == NULL) {
        memory->pieces[memory->count++] = piece_of(dumped->custom);
        return 0;
    }
    Py_ssize_t pieces = PyList_GET_SIZE(pickling->pieces);
    size_t all = 1 + (size_t)pieces + (size_t)PyList_GET_SIZE(pickling->buffers);
    if (all > Py_ARRAY_LENGTH(memory->few))
        memory->pieces = PyMem_New(mp_piece, all);
    if (memory->pieces == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < pieces; i++)
        memory->pieces[memory->count++] = piece_of(PyList_GET_ITEM(pickling->pieces, i));
    if (add_buffers(pickling, memory) < 0) {
        mp_dumped_release(memory);
        return -1;
    }
    return 0;
}

void mp_dumped_release(mp_dumped_memory *memory)
{
    if (memory->pieces != memory->few)
        PyMem_Free(memory->pieces);
}

PyObject *mp_dumped_bytes(const mp_dumped *dumped)
{
    if (dumped->scalar != 0)
        return PyBytes_FromStringAndSize((const char *)dumped->room, (Py_ssize_t)dumped->scalar);
    if (dumped->pickling == NULL)
        return Py_NewRef(dumped->custom);
    const mp_pickling *pickling = (const mp_pickling *)(const void *)dumped->pickling;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, pickling->size);
    char *at = bytes == NULL ? NULL : PyBytes_AS_STRING(bytes);
    for (Py_ssize_t i = 0; bytes != NULL && i < PyList_GET_SIZE(pickling->pieces); i++) {
        mp_piece piece = piece_of(PyList_GET_ITEM(pickling->pieces, i));
        memcpy(at, piece.data, piece.size);
        at += piece.size;
    }
    return bytes;
}

/* May the pickle name the standard library's package? Its name would stand in it as it is. */
static bool names_multiprocessing(PyObject *bytes)
{
    static const char name[] = "multiprocessing";
    return memmem(PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes), name,
                  sizeof(name) - 1) != NULL;
}

static void discard(char *from, char *to)
{
    mp_memory_discard(from, (uint64_t)(to - from));
}

/* Nobody else will see what is left of the bytes where nobody else has them. */
static bool may_be_used_up(PyObject *bytes)
{
    return (size_t)PyBytes_GET_SIZE(bytes) >= MP_DRAIN_FROM && Py_REFCNT(bytes) == 1;
}

static PyObject *load_own(codec *self, PyObject *bytes, PyObject *buffers)
{
    if (mp_likely(!may_be_used_up(bytes)))
        return call_with_buffers(self->loads, bytes, buffers);
    mp_state *state = mp_state_of_type(Py_TYPE((PyObject *)(void *)self));
    return state == NULL ? NULL
                         : load_draining(state, self, PyBytes_AS_STRING(bytes),
                                         (size_t)PyBytes_GET_SIZE(bytes), buffers, discard);
}

PyObject *mp_load(PyObject *object, PyObject *bytes, PyObject *buffers, bool stranger)
{
    codec *self = (codec *)(void *)object;
    bool plain;
    if (mp_unlikely(self == NULL))
        (void)raise_no_codec();
    PyTypeObject *class = self == NULL ? NULL : pickler_class(self, &plain);
    if (class == NULL)
        return NULL;
    if (plain && buffers == NULL && PyBytes_GET_SIZE(bytes) <= MP_SCALAR_ROOM) {
        PyObject *quick = mp_scalar_load((const unsigned char *)PyBytes_AS_STRING(bytes),
                                         (size_t)PyBytes_GET_SIZE(bytes));
        if (quick != NULL || PyErr_Occurred())
            return quick;
    }
    if (mp_likely(plain && !(stranger && names_multiprocessing(bytes))))
        return load_own(self, bytes, buffers);
    return PyObject_CallMethod((PyObject *)class, "loads", "O", bytes);
}

void mp_load_drop(uint64_t message)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    (void)mp_blocking_run(drop_message, &message, MP_FOREVER);
    PyErr_Restore(type, value, traceback);
}

PyObject *mp_load_bytes(PyObject *object, PyObject *bytes, PyObject *buffers)
{
    codec *self = (codec *)(void *)object;
    bool plain;
    PyObject *loaded = mp_load(object, bytes, buffers, false);
    PyTypeObject *class = loaded == NULL ? NULL : pickler_class(self, &plain);
    PyObject *dumped = class == NULL ? NULL : custom_dumps(class, loaded);
    Py_XDECREF(loaded);
    return dumped;
}

static PyObject *load_part(mp_state *state, PyObject *object, const mp_message_view *view)
{
    codec *self = (codec *)(void *)object;
    bool plain;
    if (mp_codec_global(object, "_ForkingPickler") == NULL)
        return NULL;
    PyTypeObject *class = pickler_class(self, &plain);
    if (class == NULL)
        return NULL;
    if (plain || view->parts > 1)
        return load_message(state, self, view);
    uint64_t size;
    const char *data = mp_message_part(view->offset, 0, &size);
    return PyObject_CallMethod((PyObject *)class, "loads", "y#", data, (Py_ssize_t)size);
}

PyObject *mp_load_message(mp_state *state, PyObject *object, uint64_t message)
{
    mp_message_view view;
    if (mp_message_open(message, &view) != MP_OK || view.parts == 0)
        return damaged(state); // not released: nothing in it is to be trusted
    PyObject *loaded = load_part(state, object, &view);
    mp_load_drop(message);
    return loaded;
}

PyObject *mp_load_message_bytes(mp_state *state, PyObject *object, uint64_t message)
{
    mp_message_view view;
    if (mp_message_open(message, &view) != MP_OK || view.parts == 0)
        return damaged(state);
    if (view.parts == 1)
        return read_bytes(&view);
    codec *self = (codec *)(void *)object;
    bool plain;
    PyObject *loaded = mp_load_message(state, object, message);
    PyTypeObject *class = loaded == NULL ? NULL : pickler_class(self, &plain);
    PyObject *dumped = class == NULL ? NULL : custom_dumps(class, loaded);
    Py_XDECREF(loaded);
    return dumped;
}

/* ---- setting up ---- */

PyDoc_STRVAR(
    setup_doc,
    "queue_setup(names, register_late, /)\n--\n\n"
    "Say how queues pickle; called by cmultiprocessing.queues when it is imported.\n\n"
    "Args:\n"
    "    names: globals of that module. _ForkingPickler, Full, Empty and ShutDown are looked up\n"
    "        there whenever they are needed.\n"
    "    register_late: called after modules were imported, to register reducers for their types.\n");

static int codec_fill(codec *self, const char *module, PyObject *names, PyObject *late)
{
    PyObject *plain = PyDict_GetItemString(names, "_ForkingPickler");
    if (plain == NULL || !PyType_Check(plain)) {
        PyErr_Format(PyExc_TypeError, "%s._ForkingPickler must be a class", module);
        return -1;
    }
    self->module = module;
    self->names = Py_NewRef(names);
    self->register_late = Py_NewRef(late);
    self->plain = (PyTypeObject *)(void *)Py_NewRef(plain);
    for (int i = 0; i < GUARDED; i++)
        self->original[i] = Py_XNewRef(guarded_now(self, i));
    self->idle = PyList_New(0);
    self->pickler_key = PyUnicode_InternFromString("_ForkingPickler");
    PyObject *pickle = PyImport_ImportModule("_pickle");
    self->loads = pickle == NULL ? NULL : PyObject_GetAttrString(pickle, "loads");
    self->unpickler = self->loads == NULL ? NULL : PyObject_GetAttrString(pickle, "Unpickler");
    Py_XDECREF(pickle);
    return self->idle == NULL || self->pickler_key == NULL || self->unpickler == NULL ? -1 : 0;
}

static PyObject *codec_new(mp_state *state, const char *module, PyObject *names, PyObject *late)
{
    PyObject *object = state->codec_type->tp_alloc(state->codec_type, 0);
    if (object != NULL && codec_fill((codec *)(void *)object, module, names, late) < 0)
        Py_CLEAR(object);
    return object;
}

static PyObject *queue_setup(PyObject *module, PyObject *args)
{
    PyObject *names, *late;
    if (!PyArg_ParseTuple(args, "O!O:queue_setup", &PyDict_Type, &names, &late))
        return NULL;
    mp_state *state = mp_state_get(module);
    PyObject *object = codec_new(state, "cmultiprocessing.queues", names, late);
    if (object == NULL)
        return NULL;
    Py_XSETREF(state->codec, object);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    connection_setup_doc,
    "connection_setup(names, register_late, /)\n--\n\n"
    "Say how connections pickle; called by cmultiprocessing.connection when it is imported.\n\n"
    "Args:\n"
    "    names: globals of that module. _ForkingPickler, BufferTooShort and TimeoutError are\n"
    "        looked up there whenever they are needed.\n"
    "    register_late: as in queue_setup().\n");

static PyObject *connection_setup(PyObject *module, PyObject *args)
{
    PyObject *names, *late;
    if (!PyArg_ParseTuple(args, "O!O:connection_setup", &PyDict_Type, &names, &late))
        return NULL;
    mp_state *state = mp_state_get(module);
    PyObject *object = codec_new(state, "cmultiprocessing.connection", names, late);
    if (object == NULL)
        return NULL;
    Py_XSETREF(state->connection_codec, object);
    Py_RETURN_NONE;
}

static PyMethodDef codec_functions[] = {
    {"queue_setup", queue_setup, METH_VARARGS, setup_doc},
    {"connection_setup", connection_setup, METH_VARARGS, connection_setup_doc},
    {NULL, NULL, 0, NULL},
};

int mp_codec_exec(PyObject *module)
{
    if (mp_state_keep_type(module, &mp_state_get(module)->codec_type, &codec_spec) < 0)
        return -1;
    return PyModule_AddFunctions(module, codec_functions);
}
