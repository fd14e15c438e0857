// SPDX-License-Identifier: PSF-2.0
/* Runs of units (4 KiB): what chunks.c cuts slabs from, and every large chunk.
 *
 * The unit table is walked from run to run: unit 0, unit 0 + its length, ... up to the frontier. One
 * store to a descriptor's word turns a free run into a used one or back; splitting writes the rest's
 * descriptor first, joining enlarges a free run's length: at every instruction the walk is whole.
 * Used runs become free without a lock; free ones are split, joined and taken under heap_mutex. */
#ifndef MP_SHM_HEAP_H
#define MP_SHM_HEAP_H

#include "os/os.h"      // mp_memory_allowance
#include "shm/family.h" // the table lies in the family

struct mp_refusal {
    uint64_t wanted; // bytes
    mp_memory_allowance allowance;
};

#define MP_UNIT_WORD(owner, kind, class)                                                           \
 ((uint64_t)(owner) << 32 | (uint64_t)(kind) << 24 | (uint64_t)(class) << 16)

static inline mp_owner mp_unit_owner(uint64_t word)
{
    return (mp_owner)(word >> 32);
}

static inline uint32_t mp_unit_kind(uint64_t word)
{
    return (uint32_t)(word >> 24) & 0xffU;
}

static inline uint32_t mp_unit_class(uint64_t word)
{
    return (uint32_t)(word >> 16) & 0xffU;
}

static inline struct mp_unit_shm *mp_unit_at(uint64_t unit)
{
    return (struct mp_unit_shm *)(void *)(mp_family.base + MP_UNITS_AT) + unit;
}

/* Of a run; others may split or join it meanwhile. */
static inline uint64_t mp_unit_length(const struct mp_unit_shm *run)
{
    return mp_load_acquire32(&run->length);
}

static inline uint64_t mp_unit_offset(uint64_t unit)
{
    return mp_family_shm()->heap + unit * MP_UNIT;
}

/* Of a reachable offset. */
static inline uint64_t mp_unit_of(uint64_t offset)
{
    return (offset - mp_family_shm()->heap) / MP_UNIT;
}

/* A run of `length` units of this kind and class, owned by this process; its pages are holes, or
 * hold anything. `prepare` (may be NULL) is called before the run is visible to walkers.
 * MP_NO_MEMORY (and *refusal), MP_NO_SPACE, MP_INTERRUPTED (somebody was stopped in here). */
mp_status mp_run_take(uint64_t length, uint32_t kind, uint32_t class,
                      void (*prepare)(uint64_t unit), uint64_t *unit, struct mp_refusal *refusal);

/* Give the pages and the run back. The caller is its owner. Where the kernel does not take the pages (it
 * may be short of memory itself), they stay with the run, for whoever takes it next. */
void mp_run_release(uint64_t unit);

/* Call `visit` for each run below the frontier, used or free; may meet a run twice or miss one that
 * changes meanwhile, never half of one. */
void mp_run_walk(void (*visit)(uint64_t unit, struct mp_unit_shm *run, void *argument),
                 void *argument);

#endif
