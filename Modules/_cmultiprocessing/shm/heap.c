// SPDX-License-Identifier: PSF-2.0
#include "shm/heap.h" // the contract

#include "core/inject.h" // refusals on demand
#include "shm/mutex.h"   // heap_mutex

enum { SEARCH_STEPS = 64 };

#define GRANT_STEP (UINT64_C(16) << 20)

static bool is_free(const struct mp_unit_shm *run)
{
    return mp_unit_kind(mp_load_acquire64(&run->word)) == MP_UNIT_FREE;
}

/* May `bytes` more be touched? Asking the system costs tens of microseconds, so a grant covers some
 * MiB. The grant is a hint: rivals may each take one. */
static bool granted(uint64_t bytes, struct mp_refusal *refusal)
{
    struct mp_family_shm *family = mp_family_shm();
    uint64_t used = mp_load_relaxed64(&family->used_units) * MP_UNIT;
    if (bytes > family->memory_limit || used > family->memory_limit - bytes) {
        uint64_t left = used < family->memory_limit ? family->memory_limit - used : 0;
        refusal->wanted = bytes;
        refusal->allowance = (mp_memory_allowance){
            .bytes = left, .limit = family->memory_limit, .name = "CMULTIPROCESSING_MEMORY_LIMIT"};
        return false;
    }
    uint64_t left = mp_load_relaxed64(&family->granted);
    while (left >= bytes) {
        if (mp_cas64(&family->granted, &left, left - bytes))
            return true;
    }
    mp_memory_allowance allowance = mp_memory_allowed();
    uint64_t usable = allowance.bytes;
    if (MP_INJECT_FAIL("heap:allowed") != MP_OK)
        usable = 0;
    if (usable < bytes) {
        refusal->wanted = bytes;
        refusal->allowance = allowance;
        refusal->allowance.bytes = usable;
        return false;
    }
    uint64_t rest = usable - bytes;
    mp_store_relaxed64(&family->granted, rest < GRANT_STEP ? rest : GRANT_STEP);
    return true;
}

/* ---- under heap_mutex ---- */

/* Join the free run at `unit` with the free runs behind it. */
static uint64_t join_locked(uint64_t unit, uint64_t frontier)
{
    struct mp_family_shm *family = mp_family_shm();
    struct mp_unit_shm *run = mp_unit_at(unit);
    uint64_t length = mp_unit_length(run);
    for (uint64_t next = unit + length; next < frontier && is_free(mp_unit_at(next));
         next = unit + length) {
        uint64_t more = mp_unit_length(mp_unit_at(next));
        if (more == 0 || length + more > UINT32_MAX)
            break;
        // First, so that the rover stays at the beginning of a run wherever this process dies.
        if (family->rover == next)
            family->rover = unit;
        length += more;
        mp_store_release32(&run->length, (uint32_t)length);
    }
    return length;
}

/* A free run of at least `length` units, or UINT64_MAX. Looks at `steps` runs. */
static uint64_t search_locked(uint64_t length, uint64_t steps)
{
    struct mp_family_shm *family = mp_family_shm();
    uint64_t frontier = family->frontier;
    uint64_t unit = family->rover < frontier ? family->rover : 0;
    for (uint64_t i = 0; i < steps; i++) {
        struct mp_unit_shm *run = mp_unit_at(unit);
        if (is_free(run) && join_locked(unit, frontier) >= length) {
            family->rover = unit;
            return unit;
        }
        unit += mp_unit_length(run);
        if (mp_unit_length(run) == 0 || unit >= frontier)
            unit = 0;
    }
    family->rover = unit;
    return UINT64_MAX;
}

static void commit_locked(uint64_t unit, uint64_t length, uint64_t word, void (*prepare)(uint64_t))
{
    struct mp_unit_shm *run = mp_unit_at(unit);
    uint64_t rest = mp_unit_length(run) - length;
    if (rest != 0) {
        struct mp_unit_shm *remainder = mp_unit_at(unit + length);
        mp_store_relaxed32(&remainder->remote, 0);
        mp_store_relaxed32(&remainder->length, (uint32_t)rest);
        mp_store_release64(&remainder->word, 0);
    }
    mp_store_release32(&run->length, (uint32_t)length);
    mp_store_relaxed32(&run->remote, 0);
    if (prepare != NULL)
        prepare(unit);
    mp_store_release64(&run->word, word); // committed: the run is used
}

static mp_status take_locked(uint64_t length, uint64_t word, void (*prepare)(uint64_t),
                             uint64_t *unit)
{
    struct mp_family_shm *family = mp_family_shm();
    bool maybe = mp_load_relaxed64(&family->free_units) >= length;
    uint64_t found = maybe ? search_locked(length, SEARCH_STEPS) : UINT64_MAX;
    uint64_t reach = (mp_family.mapped - family->heap) / MP_UNIT;
    uint64_t end = family->units < reach ? family->units : reach;
    if (found == UINT64_MAX && (family->frontier > end || length > end - family->frontier))
        found = search_locked(length, family->frontier);
    if (found != UINT64_MAX) {
        if (found + length > end)
            return MP_NO_SPACE; // beyond what this process could map
        commit_locked(found, length, word, prepare);
        (void)mp_fetch_add64(&family->free_units, (uint64_t)0 - length);
    } else if (family->frontier <= end && length <= end - family->frontier) {
        found = family->frontier;
        mp_store_relaxed32(&mp_unit_at(found)->length, (uint32_t)length);
        commit_locked(found, length, word, prepare);
        // Until this store the run does not exist: dying before it loses nothing.
        mp_store_release64(&family->frontier, found + length);
    } else {
        return MP_NO_SPACE;
    }
    *unit = found;
    return MP_OK;
}

mp_status mp_run_take(uint64_t length, uint32_t kind, uint32_t class,
                      void (*prepare)(uint64_t unit), uint64_t *unit, struct mp_refusal *refusal)
{
    struct mp_family_shm *family = mp_family_shm();
    if (length > family->units)
        return MP_TOO_LARGE;
    if (!granted(length * MP_UNIT, refusal))
        return MP_NO_MEMORY;
    // An owner that died here left nothing half done: each store above is whole by itself.
    if (mp_mutex_lock_briefly(&family->heap_mutex) == MP_TIMEOUT)
        return MP_INTERRUPTED;
    mp_status status = take_locked(length, MP_UNIT_WORD(mp_self(), kind, class), prepare, unit);
    mp_mutex_unlock(&family->heap_mutex);
    if (status == MP_OK)
        (void)mp_fetch_add64(&family->used_units, length);
    return status;
}

void mp_run_release(uint64_t unit)
{
    struct mp_family_shm *family = mp_family_shm();
    struct mp_unit_shm *run = mp_unit_at(unit);
    uint64_t length = mp_unit_length(run);
    (void)mp_memory_punch(mp_at(mp_unit_offset(unit)), length * MP_UNIT);
    mp_store_release64(&run->word, 0);
    (void)mp_fetch_add64(&family->free_units, length);
    (void)mp_fetch_add64(&family->used_units, (uint64_t)0 - length);
}

void mp_run_walk(void (*visit)(uint64_t unit, struct mp_unit_shm *run, void *argument),
                 void *argument)
{
    uint64_t frontier = mp_load_acquire64(&mp_family_shm()->frontier);
    if (frontier > mp_family_shm()->units)
        return; // damaged
    for (uint64_t unit = 0; unit < frontier;) {
        struct mp_unit_shm *run = mp_unit_at(unit);
        uint64_t length = mp_unit_length(run);
        if (length == 0 || length > frontier - unit)
            return; // damaged
        visit(unit, run, argument);
        unit += length;
    }
}
