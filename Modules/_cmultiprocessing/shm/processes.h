// SPDX-License-Identifier: PSF-2.0
/* The table of processes: who is alive, and who may still know an object. */
#ifndef MP_SHM_PROCESSES_H
#define MP_SHM_PROCESSES_H

#include "shm/family.h" // the table lies in the family

static inline uint32_t mp_owner_slot(mp_owner owner)
{
    return owner & MP_SLOT_MASK;
}

static inline struct mp_process_shm *mp_process_at(uint32_t slot)
{
    return (struct mp_process_shm *)(void *)(mp_family.base + MP_PROCESSES_AT) + slot;
}

/* Is this life of this slot over? False for this process and, since unknown means alive, whenever
 * the system cannot say. MP_DISOWNED is never dead. About 0.4 us. */
bool mp_owner_dead(mp_owner owner);

/* Take a free slot through `file`, a fresh open file description, as a child of `parent`.
 * A forked child knows what its parent knows: its chain continues the parent's. */
mp_status mp_process_claim(int file, mp_owner parent, bool forked, mp_owner *owner);

/* `process` (its links are MP_LINKS_PENDING) knows from now on, beside what it is told itself, all
 * that `from` knows. */
void mp_process_inherit(struct mp_process_shm *process, const struct mp_process_shm *from);

/* May any living process know an object of this birth without holding a reference: was it started,
 * or forked from one that was, after `birth` and not after `retired`? */
bool mp_processes_may_know(uint32_t birth, uint32_t retired);

/* Raise the family's serial for a process about to be started, and return it. */
uint32_t mp_serial_next(void);

static inline uint32_t mp_serial_now(void)
{
    return mp_load_acquire32(&mp_family_shm()->serial);
}

#endif
