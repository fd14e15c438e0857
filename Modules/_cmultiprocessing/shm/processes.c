// SPDX-License-Identifier: PSF-2.0
#include "shm/processes.h" // the contract

#include "os/os.h" // liveness

#include <string.h> // memcpy

enum { CLAIM_PROBES = 16, LAST_INCARNATION = 0xffff };

static struct mp_process_shm *process_of(mp_owner owner)
{
    return mp_process_at(mp_owner_slot(owner));
}

static bool is_current(const struct mp_process_shm *process, mp_owner owner)
{
    return mp_load_acquire32(&process->incarnation) == (owner & MP_OWNER_MASK) >> MP_SLOT_BITS;
}

bool mp_owner_dead(mp_owner owner)
{
    owner &= MP_OWNER_MASK;
    uint32_t slot = mp_owner_slot(owner);
    if (slot == 0 || owner == *mp_family.self)
        return false;
    if (!is_current(process_of(owner), owner))
        return true;
    enum mp_liveness liveness = mp_liveness_query(mp_family.file, slot);
    if (liveness == MP_LIVENESS_HELD)
        return false;
    if (liveness == MP_LIVENESS_FREE && mp_family_has_file())
        return true;
    // The number leads nowhere, or to another file, whose locks say nothing about our processes.
    return mp_family_find_file() && mp_liveness_query(mp_family.file, slot) == MP_LIVENESS_FREE;
}

uint32_t mp_serial_next(void)
{
    return mp_fetch_add32(&mp_family_shm()->serial, 1) + 1;
}

/* Try to become the holder of `slot`. The kernel's lock decides between rivals; a claimer that dies
 * loses it again, and the entry it half wrote belongs to nobody. */
static bool hold_slot(int file, uint32_t slot)
{
    return mp_liveness_hold(file, slot) == MP_OK;
}

/* A slot has as many lives as there are incarnations. Then it rests, so that a name that a dead process
 * left somewhere (a lock that nobody asked for since) does not come to mean somebody alive. */
static bool is_spent(uint32_t slot)
{
    return mp_load_acquire32(&mp_process_at(slot)->incarnation) >= LAST_INCARNATION;
}

/* After the kernel's lock was taken: the holder before us may have used up the last life. */
static bool hold_unspent(int file, uint32_t slot)
{
    if (is_spent(slot) || !hold_slot(file, slot))
        return false;
    if (!is_spent(slot))
        return true;
    mp_liveness_drop(file, slot);
    return false;
}

/* A free slot that has lives left, lowest first: entries that ended orderly, then a few that may have
 * died, then a new one. 0 if there is none. */
static uint32_t find_unspent(int file)
{
    struct mp_family_shm *family = mp_family_shm();
    uint32_t limit = mp_load_acquire32(&family->slot_limit);
    if (limit > MP_PROCESS_SLOTS)
        return 0;
    for (uint32_t slot = 1; slot < limit; slot++) {
        if (mp_load_relaxed32(&mp_process_at(slot)->in_use) == 0 && hold_unspent(file, slot))
            return slot;
    }
    uint32_t hint = mp_load_relaxed32(&family->slot_hint);
    uint32_t known = limit - 1;
    uint32_t probes = limit == MP_PROCESS_SLOTS || known < CLAIM_PROBES ? known : CLAIM_PROBES;
    for (uint32_t i = 0; i < probes; i++) {
        uint32_t slot = 1 + (hint + i) % known;
        if (hold_unspent(file, slot)) {
            mp_store_relaxed32(&family->slot_hint, slot);
            return slot;
        }
    }
    mp_store_relaxed32(&family->slot_hint, hint + probes);
    for (uint32_t slot = limit; slot < MP_PROCESS_SLOTS; slot++) {
        if (hold_unspent(file, slot)) {
            uint32_t seen = limit;
            while (seen < slot + 1 && !mp_cas32(&family->slot_limit, &seen, slot + 1))
                ;
            return slot;
        }
    }
    return 0;
}

/* Names come round again when every slot has had all its lives: after some 2^31 processes. */
static uint32_t find_slot(int file)
{
    uint32_t slot = find_unspent(file);
    for (uint32_t any = 1; slot == 0 && any < MP_PROCESS_SLOTS; any++) {
        if (hold_slot(file, any))
            slot = any;
    }
    return slot;
}

void mp_process_inherit(struct mp_process_shm *process, const struct mp_process_shm *from)
{
    uint32_t links = from->links;
    uint32_t copied = links < MP_CHAIN - 1 ? links : MP_CHAIN - 1;
    memcpy(process->chain + 1, from->chain, copied * sizeof process->chain[0]);
    mp_store_release32(&process->links, links >= MP_CHAIN ? MP_LINKS_OVERFLOW : copied + 1);
}

mp_status mp_process_claim(int file, mp_owner parent, bool forked, mp_owner *owner)
{
    uint32_t slot = find_slot(file);
    if (slot == 0)
        return MP_NO_SLOT;
    struct mp_process_shm *process = mp_process_at(slot);
    mp_store_relaxed32(&process->in_use, 1);
    // Before the serial is taken: a collector that misses our birth must see that it is pending.
    mp_store_release32(&process->links, MP_LINKS_PENDING);
    uint32_t birth = mp_serial_next();
    process->pid = mp_process_id();
    process->parent = parent;
    process->birth = birth;
    process->chain[0] = birth;
    bool spent = process->incarnation >= LAST_INCARNATION;
    uint32_t incarnation = spent ? 1 : process->incarnation + 1;
    // Names of the slot's earlier lives die with this store, the new one is alive from here on.
    mp_store_release32(&process->incarnation, incarnation);
    if (forked && parent != MP_NOBODY)
        mp_process_inherit(process, process_of(parent));
    else
        mp_store_release32(&process->links, 1);
    *owner = incarnation << MP_SLOT_BITS | slot;
    return MP_OK;
}

/* Serials wrap around: compare differences. */
static bool within(uint32_t birth, uint32_t serial, uint32_t retired)
{
    return (int32_t)(serial - birth) > 0 && (int32_t)(retired - serial) >= 0;
}

static bool may_know(const struct mp_process_shm *process, uint32_t birth, uint32_t retired)
{
    uint32_t links = mp_load_acquire32(&process->links);
    if (links == MP_LINKS_PENDING)
        return true;
    if (links == MP_LINKS_OVERFLOW && (int32_t)(process->chain[MP_CHAIN - 1] - birth) > 0)
        return true;
    uint32_t count = links < MP_CHAIN ? links : MP_CHAIN;
    for (uint32_t i = 0; i < count; i++) {
        if (within(birth, process->chain[i], retired))
            return true;
    }
    return false;
}

/* Does this life of the slot go on? A verdict about an earlier one does not count. */
static bool lives(uint32_t slot)
{
    const uint32_t *incarnation = &mp_process_at(slot)->incarnation;
    uint32_t seen = mp_load_acquire32(incarnation);
    return !mp_owner_dead(seen << MP_SLOT_BITS | slot) || mp_load_acquire32(incarnation) != seen;
}

bool mp_processes_may_know(uint32_t birth, uint32_t retired)
{
    uint32_t before = mp_serial_now();
    uint32_t limit = mp_load_acquire32(&mp_family_shm()->slot_limit);
    if (limit > MP_PROCESS_SLOTS)
        limit = MP_PROCESS_SLOTS;
    for (uint32_t slot = 1; slot < limit; slot++) {
        const struct mp_process_shm *process = mp_process_at(slot);
        if (mp_load_acquire32(&process->in_use) != 0 && may_know(process, birth, retired) &&
            lives(slot))
            return true;
    }
    // An heir that forks and ends while we look is behind us as a child and gone as itself.
    mp_fence();
    return mp_serial_now() != before;
}
