// SPDX-License-Identifier: PSF-2.0
/* The chunks of a ring's chain: making them, telling whose they are, dropping what is in them.
 * Shared by ring.c and ring_reclaim.c. */
#ifndef MP_STRUCTURES_RING_WALK_H
#define MP_STRUCTURES_RING_WALK_H

#include "structures/ring.h" // handles

static inline struct mp_ring_chunk_shm *mp_ring_chunk_at(uint64_t chunk)
{
    return mp_chunk_payload(chunk);
}

/* Behind the last record; there is still room for a JUMP. */
static inline uint64_t mp_ring_chunk_end(uint64_t chunk)
{
    return chunk + mp_ring_chunk_at(chunk)->size - MP_RECORDS_TAIL;
}

/* May records be read and written at `position` of a chunk that a mutex's holder finds in the control
 * block, with `end` as its end? No more than that nobody leaves the mapping: it is asked for every item. */
static inline bool mp_ring_cursor_fits(uint64_t chunk, uint64_t position, uint64_t end)
{
    return chunk >= mp_family_shm()->heap && chunk % MP_UNIT == 0 && chunk <= position &&
           position <= end && end <= mp_family.mapped - MP_RECORDS_TAIL;
}

/* Is there a chunk of this ring at an offset read from shared memory, whole and within reach? */
bool mp_ring_chunk_belongs(uint64_t ring, uint64_t chunk);

/* The same, and does it hold this position? */
bool mp_ring_chunk_holds(uint64_t ring, uint64_t chunk, uint64_t position);

/* A chunk of ours for this ring, of so many units, not linked yet. Not under a mutex. */
mp_status mp_ring_chunk_make(const mp_ring_handle *ring, uint64_t units, uint64_t *chunk);

/* Take without asking whether the queue is closed, and without counting what is taken as unfinished.
 * Results as mp_ring_take_slow. */
mp_status mp_ring_take_anyway(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch);

/* Both mutexes at once, repaired; put first. MP_INTERRUPTED: somebody is busy. */
mp_status mp_ring_enter_both(mp_ring_handle *ring);
void mp_ring_leave_both(mp_ring_handle *ring);

/* Take and drop everything that is in the queue. MP_OK, MP_INTERRUPTED, MP_DAMAGED. */
mp_status mp_ring_discard_all(mp_ring_handle *ring);

#endif
