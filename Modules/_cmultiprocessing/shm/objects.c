// SPDX-License-Identifier: PSF-2.0
#include "shm/objects.h" // the contract

#include "shm/mutex.h"     // reclaim_mutex
#include "shm/processes.h" // serials
#include "shm/reclaim.h"   // collections

/* Bits 31 and 30 of the birth half of `life`: the object was pickled, so anybody may hold it; it was
 * pickled since the last collector began to mark, who may have missed the pin. */
#define PICKLED UINT64_C(0x80000000)
#define PINNED_SINCE UINT64_C(0x40000000)
#define BIRTH_MASK UINT64_C(0x3fffffff)

/* Births keep 30 bits of the serial; the missing top bits are the current serial's. */
uint32_t mp_object_birth(uint64_t life)
{
    uint32_t now = mp_serial_now();
    uint32_t birth = (now & ~(uint32_t)BIRTH_MASK) | (uint32_t)(life & BIRTH_MASK);
    return birth > now ? birth - (uint32_t)BIRTH_MASK - 1 : birth;
}

mp_status mp_object_create(uint32_t type, uint64_t size, mp_handle *handle)
{
    // Read before the object exists: a child started in between counts as one that may know it.
    uint32_t birth = mp_serial_now();
    uint64_t offset;
    mp_status status = mp_chunk_take(type, size, &offset);
    if (status != MP_OK)
        return status;
    struct mp_chunk_shm *chunk = mp_chunk_at(offset);
    // Until here the object is unborn: if we die, a collection frees it at once. 0 says unborn, so a
    // birth of 0 counts as one serial earlier.
    mp_store_release64(&chunk->life, (birth & BIRTH_MASK) != 0 ? birth & BIRTH_MASK : BIRTH_MASK);
    *handle = (mp_handle){
        .offset = offset,
        .generation = mp_state_generation(mp_load_relaxed64(&chunk->state)),
        .type = type,
        .holder = mp_self(),
    };
    return MP_OK;
}

/* A chunk that says that somebody holds the object. The object must not go away before it is there:
 * the caller holds it already, or looks at the object again afterwards. */
static mp_status take_reference(uint32_t type, uint64_t object, uint32_t generation,
                                mp_owner target, uint64_t *offset)
{
    mp_status status = mp_chunk_take(type, sizeof(struct mp_reference_shm), offset);
    if (status != MP_OK)
        return status;
    struct mp_reference_shm *reference = mp_chunk_payload(*offset);
    reference->generation = generation;
    reference->target = target;
    // Dekker with reclaim.c: we store the reference, then look whether the object is retired; the
    // collector retires, then looks for references. SYNC: reference
    mp_store_release64(&reference->object, object);
    mp_fence();
    return MP_OK;
}

mp_status mp_object_pin(const mp_handle *handle, mp_owner target, mp_object_ticket *ticket)
{
    uint64_t pin;
    (void)mp_fetch_or64(&mp_chunk_at(handle->offset)->life, PICKLED);
    mp_status status =
        take_reference(MP_TYPE_PIN, handle->offset, handle->generation, target, &pin);
    if (status != MP_OK)
        return status;
    // A collector that has already been where the pin is now, and comes to where we hold the object
    // after we let go of it, finds neither. This says so: it is stored before we can let go.
    (void)mp_fetch_or64(&mp_chunk_at(handle->offset)->life, PINNED_SINCE); // SYNC: pinned since
    *ticket = (mp_object_ticket){
        .family = mp_family_shm()->id[0],
        .offset = handle->offset,
        .generation = handle->generation,
        .pin_generation = mp_state_generation(mp_chunk_at(pin)->state),
        .pin = pin,
    };
    return MP_OK;
}

/* Is the pin of this ticket still there? Then `*state` is its header. */
static bool pin_stands(const mp_object_ticket *ticket, uint64_t *state)
{
    if (!mp_chunk_valid(ticket->pin, MP_TYPE_PIN))
        return false;
    *state = mp_load_acquire64(&mp_chunk_at(ticket->pin)->state);
    const struct mp_reference_shm *pin = mp_chunk_payload(ticket->pin);
    return mp_state_type(*state) == MP_TYPE_PIN &&
           mp_state_generation(*state) == ticket->pin_generation && pin->object == ticket->offset &&
           pin->generation == ticket->generation;
}

static bool is_retired(uint64_t state)
{
    return mp_state_owner(state) == MP_DISOWNED;
}

/* A holder let go of a retired object: heirs of that holder may still know it until now. */
void mp_object_touch_retired(uint64_t offset, uint32_t generation)
{
    struct mp_chunk_shm *chunk = mp_chunk_at(offset);
    uint64_t state = mp_load_acquire64(&chunk->state);
    if (mp_state_generation(state) != generation || mp_state_type(state) < MP_TYPE_FIRST_OBJECT)
        return;
    uint64_t life = mp_load_relaxed64(&chunk->life);
    uint64_t later;
    do
        later = (uint64_t)mp_serial_now() << 32 | (life & UINT32_MAX);
    while (!mp_cas64(&chunk->life, &life, later));
}

/* Make the pin of this ticket our reference. In its place, so that a collector that is just marking
 * meets the one or the other; a reference elsewhere may be behind him, and the pin before him. */
static bool keep_pin(const mp_object_ticket *ticket)
{
    uint64_t state;
    return pin_stands(ticket, &state) &&
           mp_cas64(&mp_chunk_at(ticket->pin)->state, &state,
                    MP_STATE(mp_self(), ticket->pin_generation, MP_TYPE_REFERENCE));
}

void mp_object_unpin(const mp_object_ticket *ticket)
{
    // First it becomes ours: a receiver that is faster drops both the pin and the object, and what lies
    // there then is not to be touched. Who dies here leaves a reference, which is swept.
    if (ticket->family != mp_family_shm()->id[0] || !keep_pin(ticket))
        return;
    mp_object_touch_retired(ticket->offset, ticket->generation);
    mp_chunk_release(ticket->pin);
}

void mp_object_begin_mark(uint64_t offset)
{
    (void)mp_fetch_and64(&mp_chunk_at(offset)->life, ~PINNED_SINCE);
}

bool mp_object_pinned_since(uint64_t life)
{
    return (life & PINNED_SINCE) != 0;
}

static bool is_object(uint64_t offset, uint32_t type, uint32_t generation, uint64_t *state)
{
    *state = mp_load_acquire64(&mp_chunk_at(offset)->state);
    return mp_state_type(*state) == type && mp_state_generation(*state) == generation;
}

/* Our reference stands. Is the object still there, for good? A retired one may be half collected by
 * somebody who did not see our reference; then the pin becomes our reference, or we wait for him.
 * MP_OK, MP_STALE, MP_INTERRUPTED (he is at it still). */
static mp_status confirm(const mp_object_ticket *ticket, uint32_t type, uint64_t *reference)
{
    uint64_t state;
    if (!is_object(ticket->offset, type, ticket->generation, &state))
        return MP_STALE;
    if (!is_retired(state))
        return MP_OK;
    if (keep_pin(ticket)) {
        mp_chunk_release(*reference);
        *reference = ticket->pin;
        return MP_OK;
    }
    struct mp_mutex_shm *mutex = &mp_family_shm()->reclaim_mutex;
    if (mp_mutex_lock_briefly(mutex) == MP_TIMEOUT)
        return MP_INTERRUPTED;
    bool there = is_object(ticket->offset, type, ticket->generation, &state);
    mp_mutex_unlock(mutex);
    return there ? MP_OK : MP_STALE;
}

mp_status mp_object_attach(const mp_object_ticket *ticket, uint32_t type, mp_handle *handle)
{
    uint64_t state, reference, pin_state;
    if (ticket->family != mp_family_shm()->id[0])
        return MP_FOREIGN;
    if (!mp_reachable(ticket->offset, MP_CHUNK_HEADER)) {
        // A process with a smaller address space than its relatives maps less of the family.
        bool elsewhere =
            ticket->offset >= mp_family.mapped && ticket->offset < mp_family_shm()->size;
        return elsewhere ? MP_NO_SPACE : MP_DAMAGED;
    }
    if (!mp_chunk_valid(ticket->offset, type) ||
        !is_object(ticket->offset, type, ticket->generation, &state))
        return MP_STALE;
    mp_status status = take_reference(MP_TYPE_REFERENCE, ticket->offset, ticket->generation,
                                      MP_NOBODY, &reference);
    if (status != MP_OK)
        return status;
    status = confirm(ticket, type, &reference);
    if (status != MP_OK) {
        mp_chunk_release(reference);
        return status;
    }
    if (pin_stands(ticket, &pin_state))
        (void)mp_chunk_release_if(ticket->pin, pin_state);
    *handle = (mp_handle){
        .offset = ticket->offset,
        .reference = reference,
        .generation = ticket->generation,
        .type = type,
        .holder = mp_self(),
    };
    return MP_OK;
}

void mp_object_retire(uint64_t offset, uint64_t state)
{
    struct mp_chunk_shm *chunk = mp_chunk_at(offset);
    mp_object_touch_retired(offset, mp_state_generation(state));
    // From here on the object lives by references, pins and heirs alone. SYNC: reference
    uint64_t retired = MP_STATE(MP_DISOWNED, mp_state_generation(state), mp_state_type(state));
    if (mp_cas64(&chunk->state, &state, retired)) {
        (void)mp_fetch_add64(&mp_family_shm()->retired, 1);
        (void)mp_fetch_add64(&mp_family_shm()->retired_units, mp_chunk_capacity(offset) / MP_UNIT);
    }
}

/* Does nobody else know the object, so that it can go at once? */
static bool only_we_know(const struct mp_chunk_shm *chunk)
{
    uint64_t life = mp_load_acquire64(&chunk->life);
    if (life & PICKLED)
        return false;
    uint32_t birth = mp_object_birth(life);
    uint32_t now = mp_serial_now();
    return birth == now || !mp_processes_may_know(birth, now);
}

static void release_made(const mp_handle *handle)
{
    struct mp_chunk_shm *chunk = mp_chunk_at(handle->offset);
    uint64_t state = mp_load_acquire64(&chunk->state);
    if (only_we_know(chunk)) {
        mp_reclaim_finalize(handle->offset, handle->type);
        mp_chunk_release(handle->offset);
    } else {
        mp_object_retire(handle->offset, state);
        mp_reclaim_maybe();
    }
}

void mp_object_release(mp_handle *handle)
{
    // Inherited by fork: the table of processes says that we may know it, until we are gone.
    bool inherited = handle->holder != mp_self();
    if (handle->offset == 0 || inherited) {
        handle->offset = 0;
        return;
    }
    if (handle->reference != 0) {
        mp_object_touch_retired(handle->offset, handle->generation);
        mp_chunk_release(handle->reference);
        (void)mp_fetch_add64(&mp_family_shm()->retired, 1);
        mp_reclaim_maybe();
    } else {
        release_made(handle);
    }
    handle->offset = 0;
}
