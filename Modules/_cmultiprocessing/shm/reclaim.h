// SPDX-License-Identifier: PSF-2.0
/* The collector: gives back what dead processes owned and what nobody holds any more.
 *
 * Mark and sweep over chunk headers. Live references and pins mark their objects; a retired object
 * that is not marked and that no living heir may know is freed; chunks of dead owners are released,
 * unless the layer above says that they belong to something (a record in a queue). Everything it
 * does is a single store, so a collector may die at any moment and the next one goes on.
 * Never under an internal mutex. */
#ifndef MP_SHM_RECLAIM_H
#define MP_SHM_RECLAIM_H

#include "shm/chunks.h" // what is collected

/* What the layers above know about a chunk type. Registered once, before the first object. */
struct mp_type_ops {
    /* Release everything that the object at `offset` owns. The object itself goes afterwards. */
    void (*finalize)(uint64_t offset);
    /* The chunk's owner is dead: does the chunk belong to something that lives? */
    bool (*linked)(uint64_t offset, uint64_t state);
};

void mp_reclaim_register(uint32_t type, const struct mp_type_ops *ops);

/* Call the type's finalizer, if there is one. */
void mp_reclaim_finalize(uint64_t offset, uint32_t type);

/* Collect if it seems worth while: bounded to a few percent of the time. */
void mp_reclaim_maybe(void);

/* A process has died: what it owned counts as garbage of several objects. */
void mp_reclaim_death(void);

/* Collect now. MP_WOULD_BLOCK when another process is at it. */
mp_status mp_reclaim_now(void);

#endif
