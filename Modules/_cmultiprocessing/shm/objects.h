// SPDX-License-Identifier: PSF-2.0
/* Shared objects: an offset and a generation, and who holds them.
 *
 * A process holds an object because it made it (it owns the chunk), because it took it from a pickle
 * (a MP_TYPE_REFERENCE chunk that it owns says so), or because it was forked while its parent held it
 * (the process table says so: birth serials). A pickle on its way holds it by a MP_TYPE_PIN chunk.
 * Nothing is counted, so nothing can be miscounted by a death: when the maker lets go, the object is
 * retired, and reclaim.h frees it once no reference, pin or heir is left.
 *
 *     make        status = mp_object_create(MP_TYPE_LOCK, sizeof(struct mp_lock_shm), &handle);
 *     pickle      status = mp_object_pin(&handle, 0, &ticket)         -> the ticket travels
 *     unpickle    status = mp_object_attach(&ticket, MP_TYPE_LOCK, &handle)
 *     drop        mp_object_release(&handle);
 * All of them after mp_family_enter(); none under an internal mutex. Those with a status may say
 * MP_INTERRUPTED: a process was stopped in the middle of the heap; look at signals and call again. */
#ifndef MP_SHM_OBJECTS_H
#define MP_SHM_OBJECTS_H

#include "shm/chunks.h" // objects are chunks

/* One per Python object; private memory. */
typedef struct mp_handle {
    uint64_t offset;    // of the chunk
    uint64_t reference; // offset of our MP_TYPE_REFERENCE chunk; 0: we made the object
    uint32_t generation;
    uint32_t type;
    mp_owner holder; // the process that made this handle; another one inherited it by fork
} mp_handle;

/* What travels in a pickle. */
typedef struct mp_object_ticket {
    uint64_t family; // first half of the family's id
    uint64_t offset;
    uint32_t generation;
    uint32_t pin_generation;
    uint64_t pin; // offset of the MP_TYPE_PIN chunk
} mp_object_ticket;

mp_status mp_object_create(uint32_t type, uint64_t size, mp_handle *handle);

/* `target`: the process that the pickle is meant for (its death releases the pin), or MP_NOBODY. */
mp_status mp_object_pin(const mp_handle *handle, mp_owner target, mp_object_ticket *ticket);

/* Drop a pickle that will never be unpickled. */
void mp_object_unpin(const mp_object_ticket *ticket);

/* MP_FOREIGN: another family. MP_STALE: gone. MP_DAMAGED: not an object of this type. */
mp_status mp_object_attach(const mp_object_ticket *ticket, uint32_t type, mp_handle *handle);

void mp_object_release(mp_handle *handle);

/* ---- for reclaim.c ---- */

/* The serial at which an object with this life was made. */
uint32_t mp_object_birth(uint64_t life);

/* Before marking: from here on pins of this retired object are noted; was there one? The collector sees
 * what a new pin replaces vanish only after that note. */
void mp_object_begin_mark(uint64_t offset);
bool mp_object_pinned_since(uint64_t life);

/* The object at `offset` whose header is `state` has lost its maker. */
void mp_object_retire(uint64_t offset, uint64_t state);

/* Somebody who held the object lets go: whoever was started until now may still know it. */
void mp_object_touch_retired(uint64_t offset, uint32_t generation);

static inline void *mp_object_payload(const mp_handle *handle)
{
    return mp_chunk_payload(handle->offset);
}

#endif
