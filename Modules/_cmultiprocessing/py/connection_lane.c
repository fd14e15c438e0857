// SPDX-License-Identifier: PSF-2.0
/* Large messages between the two ends of a Pipe(): parcels in shared memory, notes through the
 * descriptor. */
#include "py/connection.h"

#include "py/blocking.h" // copying without the GIL
#include "py/errors.h"   // mp_raise

#include <string.h> // memcpy

/* ---- life ---- */

mp_lane *mp_lane_new(void)
{
    mp_lane *lane = PyMem_Malloc(sizeof(*lane));
    if (lane == NULL)
        return NULL;
    *lane = (mp_lane){.references = 1};
    if (mp_family_enter() == MP_OK && mp_pipe_create(&lane->pipe) == MP_OK)
        return lane;
    PyMem_Free(lane); // no shared memory to be had: the descriptor does
    return NULL;
}

void mp_lane_release(mp_lane *lane)
{
    if (lane == NULL || --lane->references != 0)
        return;
    if (mp_shared_present())
        mp_pipe_release(&lane->pipe);
    PyMem_Free(lane);
}

void mp_lane_join(mp_connection *self, mp_lane *lane, uint32_t side)
{
    lane->references++;
    mp_lane_leave(self);
    self->lane = lane;
    self->side = side;
}

void mp_lane_leave(mp_connection *self)
{
    mp_lane *lane = self->lane;
    self->lane = NULL;
    mp_lane_release(lane);
}

/* ---- in pickles ---- */

PyObject *mp_lane_ticket(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    mp_connection *self = mp_connection_of(object);
    if (self->lane == NULL || self->stream.file < 0)
        Py_RETURN_NONE;
    if (!mp_pins_in_family()) {
        // Whoever gets this end may not see our memory: from now on all goes through the descriptor.
        mp_store_release32(&self->lane->pipe.shm->foreign, 1);
        Py_RETURN_NONE;
    }
    PyObject *ticket = mp_pins_ticket(self->state, &self->lane->pipe.object);
    return ticket == NULL ? NULL : Py_BuildValue("(NI)", ticket, (unsigned)self->side);
}

typedef struct attaching {
    mp_pipe_handle *pipe;
    const mp_object_ticket *ticket;
} attaching;

static mp_status attach_step(void *context, mp_time deadline)
{
    const attaching *self = context;
    (void)deadline;
    return mp_pipe_attach(self->pipe, self->ticket);
}

PyObject *mp_lane_attach(PyObject *object, PyObject *pair)
{
    mp_connection *self = mp_connection_of(object);
    PyObject *ticket;
    unsigned side;
    mp_object_ticket copy;
    if (!PyTuple_Check(pair)) {
        PyErr_SetString(PyExc_TypeError, "_lane_attach(): not what _lane_ticket() returned");
        return NULL;
    }
    if (!PyArg_ParseTuple(pair, "SI:_lane_attach", &ticket, &side))
        return NULL;
    if (PyBytes_GET_SIZE(ticket) != sizeof(copy) || side > 1) {
        PyErr_SetString(PyExc_ValueError, "_lane_attach(): not the ticket of a pipe");
        return NULL;
    }
    memcpy(&copy, PyBytes_AS_STRING(ticket), sizeof(copy));
    mp_lane *lane = PyMem_Malloc(sizeof(*lane));
    if (lane == NULL)
        return PyErr_NoMemory();
    *lane = (mp_lane){.references = 1};
    attaching work = {&lane->pipe, &copy};
    mp_status status = mp_family_enter();
    if (status == MP_OK)
        status = attach_step(&work, MP_FOREVER);
    if (status == MP_INTERRUPTED) // a process was stopped in the middle of the heap
        status = mp_blocking_run(attach_step, &work, MP_FOREVER);
    if (status != MP_OK) {
        PyMem_Free(lane);
        return mp_raise(self->state, status, "unpickling an end of a Pipe()");
    }
    mp_lane_join(self, lane, side);
    mp_lane_release(lane);
    Py_RETURN_NONE;
}

/* ---- sending ---- */

typedef struct packing {
    const mp_pipe_handle *pipe;
    mp_message_plan plan;
    const mp_piece *pieces; // of part 0
    size_t count;
    const mp_piece *buffers; // parts 1, 2, ...
    uint64_t parcel;
} packing;

static mp_status pack(void *context, mp_time deadline)
{
    packing *self = context;
    (void)deadline;
    mp_status status = mp_parcel_make(self->pipe, &self->plan, &self->parcel);
    if (status != MP_OK)
        return status;
    uint64_t size;
    char *part = mp_message_part(self->parcel, 0, &size);
    for (size_t i = 0; i < self->count; i++) {
        memcpy(part, self->pieces[i].data, self->pieces[i].size);
        part += self->pieces[i].size;
    }
    for (uint32_t i = 1; i < self->plan.parts; i++) {
        part = mp_message_part(self->parcel, i, &size);
        memcpy(part, self->buffers[i - 1].data, self->buffers[i - 1].size);
    }
    return MP_OK;
}

/* A receiver who is at it frees a slot soon. One who is not gets the message through the descriptor,
 * where the kernel makes the sender wait, and tells him if the other end is closed. */
#define PATIENCE (10 * (mp_time)MP_MILLISECOND)
#define NAP (MP_MILLISECOND / 25)

typedef struct awaiting {
    const mp_pipe_handle *pipe;
    uint32_t way;
    uint64_t size;
} awaiting;

static mp_status await_room(void *context, mp_time deadline)
{
    const awaiting *self = context;
    uint32_t never = 0; // nobody wakes us: a sleep with a deadline
    for (mp_time now = mp_clock_now(); !mp_parcel_room(self->pipe, self->way, self->size);
         now = mp_clock_now()) {
        if (now >= deadline)
            return MP_TIMEOUT;
        mp_time until = deadline - now < NAP ? deadline : now + NAP;
        if (mp_futex_wait(&never, 0, until) == MP_INTERRUPTED)
            return MP_INTERRUPTED;
    }
    return MP_OK;
}

/* 1: there is room. 0: none. -1: exception. */
static int find_room(const mp_connection *self, uint32_t way, uint64_t size)
{
    awaiting work = {&self->lane->pipe, way, size};
    if (mp_likely(mp_parcel_room(work.pipe, way, size)))
        return 1;
    mp_status status = mp_blocking_run(await_room, &work, mp_clock_now() + PATIENCE);
    return status == MP_OK ? 1 : status == MP_TIMEOUT ? 0 : -1;
}

static int post(mp_connection *self, mp_lane *lane, uint64_t parcel, const char *call)
{
    const mp_pipe_handle *pipe = &lane->pipe;
    uint32_t way = 1 - self->side;
    mp_parcel_place place;
    if (mp_parcel_post(pipe, way, parcel, &place) != MP_OK) {
        mp_load_drop(parcel); // another thread was faster
        return 0;
    }
    struct mp_frame_note note = {
        .kind = MP_NOTE_PARCEL,
        .parts = way,
        .family = mp_family_shm()->id[0],
        .pipe = pipe->object.offset,
        .generation = pipe->object.generation,
        .slot = place.slot,
        .word = place.word,
    };
    unsigned char head[MP_FRAME_HEAD_MAX];
    mp_piece piece = {head, mp_frame_note_head(&note, head)};
    if (mp_connection_send_pieces(self, &piece, 1, call) < 0) {
        mp_parcel_withdraw(pipe, way, &place);
        return -1;
    }
    mp_parcel_sent(pipe, way, &place);
    return 1;
}

static int send_parcel(mp_connection *self, mp_lane *lane, packing *work, const char *call)
{
    mp_status status = mp_blocking_run(pack, work, MP_FOREVER);
    if (status == MP_INTERRUPTED)
        return -1; // by what a signal handler raised
    if (status != MP_OK)
        return 0; // without memory to be had the descriptor does as well
    return post(self, lane, work->parcel, call);
}

static uint64_t sizes_of(const packing *work, uint64_t *sizes)
{
    uint64_t all = 0;
    sizes[0] = 0;
    for (size_t i = 0; i < work->count; i++)
        sizes[0] += work->pieces[i].size;
    for (uint32_t i = 1; i < work->plan.parts; i++)
        all += sizes[i] = work->buffers[i - 1].size;
    return all + sizes[0];
}

int mp_lane_send(mp_connection *self, const mp_piece *pieces, size_t count, size_t buffers,
                 const mp_pins *pins, const char *call)
{
    uint64_t few[8], *sizes = few;
    if (buffers + 1 > MP_PARTS_MAX || pins->count > MP_PINS_MAX || mp_family_enter() != MP_OK)
        return 0;
    if (buffers + 1 > Py_ARRAY_LENGTH(few))
        sizes = PyMem_New(uint64_t, buffers + 1);
    if (sizes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    mp_lane *lane = self->lane;
    lane->references++; // another thread may close the connection while we copy
    packing work = {
        .pipe = &lane->pipe,
        .plan = {.parts = 1 + (uint32_t)buffers,
                 .sizes = sizes,
                 .tickets = pins->tickets,
                 .pins = (uint32_t)pins->count},
        .pieces = pieces,
        .count = count - buffers,
        .buffers = pieces + count - buffers,
    };
    uint64_t all = sizes_of(&work, sizes);
    int result = all > MP_PARCEL_MOST ? 0 : find_room(self, 1 - self->side, all);
    if (result > 0)
        result = send_parcel(self, lane, &work, call);
    mp_lane_release(lane);
    if (sizes != few)
        PyMem_Free(sizes);
    return result;
}

/* ---- receiving ---- */

bool mp_lane_knows(const struct mp_frame_note *note)
{
    return mp_family.base != NULL && mp_family_enter() == MP_OK &&
           note->family == mp_family_shm()->id[0];
}

mp_status mp_lane_take(mp_connection *self, const struct mp_frame_note *note, uint64_t *parcel)
{
    mp_parcel_place place = {.slot = note->slot, .word = note->word};
    const mp_pipe_handle *pipe = self->lane == NULL ? NULL : &self->lane->pipe;
    mp_pipe_handle found;
    if (pipe == NULL || pipe->object.offset != note->pipe ||
        pipe->object.generation != note->generation) {
        mp_status status = mp_pipe_find(&found, note->pipe, note->generation);
        if (status != MP_OK)
            return status;
        pipe = &found;
    }
    return mp_parcel_take(pipe, note->parts, &place, parcel);
}
