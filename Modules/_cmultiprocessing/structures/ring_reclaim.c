// SPDX-License-Identifier: PSF-2.0
/* The chain of a ring as a whole: making chunks, dropping what is left, and what the collector asks. */
#include "structures/ring_walk.h" // the contract

#include "shm/mutex.h"          // both mutexes
#include "shm/reclaim.h"        // registration
#include "structures/ledger.h"  // chunks of the ledger
#include "structures/message.h" // messages

bool mp_ring_chunk_belongs(uint64_t ring, uint64_t chunk)
{
    if (chunk == 0 || !mp_chunk_valid(chunk, MP_TYPE_RING_CHUNK) ||
        mp_chunk_at(chunk)->life != ring)
        return false;
    const struct mp_ring_shm *shm = mp_chunk_payload(ring);
    const struct mp_ring_chunk_shm *header = mp_ring_chunk_at(chunk);
    return header->role == MP_ROLE_RECORDS && header->ring_generation == shm->generation &&
           header->size >= MP_UNIT && header->size % MP_UNIT == 0 &&
           header->size - MP_CHUNK_HEADER <= mp_chunk_capacity(chunk);
}

bool mp_ring_chunk_holds(uint64_t ring, uint64_t chunk, uint64_t position)
{
    return mp_ring_chunk_belongs(ring, chunk) && position >= chunk + MP_RECORDS_AT &&
           position <= mp_ring_chunk_end(chunk);
}

mp_status mp_ring_chunk_make(const mp_ring_handle *ring, uint64_t units, uint64_t *chunk)
{
    uint64_t size = MP_RING_CHUNK_UNITS(units);
    mp_status status = mp_chunk_take(MP_TYPE_RING_CHUNK, size, chunk);
    if (status != MP_OK) {
        *chunk = 0;
        return status;
    }
    struct mp_ring_chunk_shm *header = mp_ring_chunk_at(*chunk);
    *header = (struct mp_ring_chunk_shm){
        .ring_generation = ring->shm->generation,
        .role = MP_ROLE_RECORDS,
        .size = size + MP_CHUNK_HEADER,
    };
    // Last: until the collector can ask the ring about it, the chunk belongs to nobody.
    mp_store_release64(&mp_chunk_at(*chunk)->life, ring->object.offset);
    return MP_OK;
}

/* ---- dropping ---- */

static void drop_records(const mp_ring_batch *batch)
{
    const char *at = batch->bytes;
    for (uint32_t i = 0; i < batch->count; i++) {
        const uint64_t *record = (const uint64_t *)(const void *)at;
        if (mp_record_kind(record[0]) == MP_RECORD_LINK)
            mp_message_drop(record[1]);
        at += mp_record_room(mp_record_length(record[0]));
    }
}

mp_status mp_ring_discard_all(mp_ring_handle *ring)
{
    uint64_t bytes[(MP_INLINE_MAX + MP_UNIT) / sizeof(uint64_t)];
    mp_ring_batch batch = {.bytes = bytes, .capacity = sizeof bytes};
    mp_status status;
    while ((status = mp_ring_take_anyway(ring, UINT32_MAX, &batch)) == MP_OK)
        drop_records(&batch);
    return status == MP_WOULD_BLOCK ? MP_OK : status;
}

/* ---- what the collector asks ---- */

/* The ring that a chunk names, if it still is that ring. */
static struct mp_ring_shm *ring_of(uint64_t ring, uint32_t generation)
{
    if (!mp_chunk_valid(ring, MP_TYPE_RING))
        return NULL;
    struct mp_ring_shm *shm = mp_chunk_payload(ring);
    uint64_t state = mp_load_acquire64(&mp_chunk_at(ring)->state);
    bool same = shm->generation == generation && mp_state_generation(state) == generation;
    return same ? shm : NULL;
}

/* Do head and tail enclose this chunk of a dead owner, or is it at hand as the spare one? With both
 * mutexes, so that the two ends are where their hints say. */
static bool enclosed_locked(const mp_ring_handle *ring, uint64_t chunk)
{
    const struct mp_ring_shm *shm = ring->shm;
    uint64_t index = mp_ring_chunk_at(chunk)->index;
    uint64_t head = shm->head_chunk != 0 ? shm->head_chunk : shm->first;
    uint64_t tail = shm->tail_chunk;
    if (mp_load_acquire64(&shm->spare) == chunk)
        return true;
    if (tail == 0 || index == 0)
        return false; // the one tried first by a put that never was
    if (!mp_ring_chunk_belongs(ring->object.offset, head) ||
        !mp_ring_chunk_belongs(ring->object.offset, tail))
        return true; // damaged: nothing of it is given away
    return mp_ring_chunk_at(head)->index <= index && index <= mp_ring_chunk_at(tail)->index;
}

static bool records_linked(mp_ring_handle *ring, uint64_t chunk)
{
    if (mp_ring_enter_both(ring) != MP_OK)
        return true; // busy or damaged: not now
    bool linked = enclosed_locked(ring, chunk);
    mp_ring_leave_both(ring);
    return linked;
}

static bool chunk_linked(uint64_t offset, uint64_t state)
{
    (void)state;
    const struct mp_ring_chunk_shm *chunk = mp_ring_chunk_at(offset);
    uint64_t life = mp_load_acquire64(&mp_chunk_at(offset)->life);
    struct mp_ring_shm *shm = ring_of(life, chunk->ring_generation);
    if (shm == NULL)
        return false;
    if (chunk->role == MP_ROLE_LEDGER)
        return mp_ledger_has_chunk(shm, offset);
    mp_ring_handle ring = {.object.offset = life, .shm = shm};
    return chunk->role == MP_ROLE_RECORDS && records_linked(&ring, offset);
}

/* Make a chunk ours, forget it in the ring, then release it: a death on the way leaves a dead owner
 * and no way to it. */
static void release_hinted(uint64_t *hint)
{
    uint64_t chunk = mp_load_acquire64(hint);
    if (chunk == 0)
        return;
    mp_chunk_set_owner(chunk, mp_self());
    mp_store_release64(hint, 0);
    mp_chunk_release(chunk);
}

static void release_ledger(struct mp_ring_shm *shm)
{
    uint64_t chunk = shm->ledger;
    while (chunk != 0 && mp_ledger_has_chunk(shm, chunk)) {
        uint64_t next = mp_ring_chunk_at(chunk)->next;
        mp_chunk_set_owner(chunk, mp_self());
        mp_store_release64(&shm->ledger, next);
        mp_chunk_release(chunk);
        chunk = next;
    }
}

/* Nobody holds the queue any more. Takes everything out as a consumer would, so that a collector that
 * dies on the way leaves work for the next one, not damage. */
static void ring_finalize(uint64_t offset)
{
    mp_ring_handle ring = {.object.offset = offset, .shm = mp_chunk_payload(offset)};
    struct mp_ring_shm *shm = ring.shm;
    if (shm->limit == 0)
        return;                       // its maker died before it was one
    (void)mp_ring_discard_all(&ring); // damaged: the rest stays until the family ends
    if (mp_ring_chunk_belongs(offset, shm->spare))
        release_hinted(&shm->spare);
    uint64_t last = shm->head_chunk != 0 ? shm->head_chunk : shm->first;
    if (last == shm->tail_chunk && mp_ring_chunk_belongs(offset, last)) {
        mp_chunk_set_owner(last, mp_self());
        shm->first = shm->head_chunk = 0;
        release_hinted(&shm->tail_chunk);
    }
    release_ledger(shm);
}

static const struct mp_type_ops ring_ops = {.finalize = ring_finalize};
static const struct mp_type_ops chunk_ops = {.linked = chunk_linked};
static const struct mp_type_ops message_ops = {
    .finalize = mp_message_finalize,
    .linked = mp_message_linked,
};

void mp_ring_init(void)
{
    static uint32_t done; // several threads may do it at once: they store the same
    if (mp_load_acquire32(&done) != 0)
        return;
    mp_reclaim_register(MP_TYPE_RING, &ring_ops);
    mp_reclaim_register(MP_TYPE_RING_CHUNK, &chunk_ops);
    mp_reclaim_register(MP_TYPE_MESSAGE, &message_ops);
    mp_store_release32(&done, 1);
}
