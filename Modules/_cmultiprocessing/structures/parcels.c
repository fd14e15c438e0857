// SPDX-License-Identifier: PSF-2.0
#include "structures/parcels.h" // the contract

#include "shm/processes.h" // dead senders
#include "shm/reclaim.h"   // registration

/* A field of a message that means something else in a parcel: who sent it. */
static uint32_t *sender_of(uint64_t offset)
{
    return &((struct mp_message_shm *)mp_chunk_payload(offset))->sequence;
}

/* ---- slot words ---- */

enum { GENERATION_BITS = 24, OFFSET_AT = 25, OFFSET_SHIFT = 4 };

#define SENT (UINT64_C(1) << GENERATION_BITS)
/* What lies beyond travels through the descriptor. */
#define OFFSET_LIMIT (UINT64_C(1) << (64 - OFFSET_AT + OFFSET_SHIFT))

static uint64_t word_of(uint64_t offset)
{
    uint64_t state = mp_load_relaxed64(&mp_chunk_at(offset)->state);
    return offset >> OFFSET_SHIFT << OFFSET_AT | mp_state_generation(state);
}

static uint64_t offset_in(uint64_t word)
{
    return word >> OFFSET_AT << OFFSET_SHIFT;
}

static uint32_t generation_in(uint64_t word)
{
    return (uint32_t)word & ((1U << GENERATION_BITS) - 1);
}

/* Does the word name a parcel of the pipe at `pipe`? Then `*state` is its header. */
static bool names_parcel(uint64_t pipe, uint64_t word, uint64_t *state)
{
    uint64_t offset = offset_in(word);
    if (word == 0 || !mp_chunk_valid(offset, MP_TYPE_PARCEL))
        return false;
    *state = mp_load_acquire64(&mp_chunk_at(offset)->state);
    const struct mp_message_shm *message = mp_chunk_payload(offset);
    const struct mp_pipe_shm *shm = mp_chunk_payload(pipe);
    return mp_state_type(*state) == MP_TYPE_PARCEL &&
           mp_state_generation(*state) == generation_in(word) &&
           mp_load_acquire64(&mp_chunk_at(offset)->life) == pipe &&
           message->ring_generation == shm->generation;
}

/* Is the parcel that the word names on its way: posted by somebody who lives, or sent? Not: taken, or
 * left by a sender who was killed before it was sent. */
static bool on_its_way(uint64_t word, uint64_t state)
{
    mp_owner owner = mp_state_owner(state);
    if (owner != mp_load_acquire32(sender_of(offset_in(word))))
        return false;
    return (word & SENT) != 0 || !mp_owner_dead(owner);
}

/* ---- pipes ---- */

mp_status mp_pipe_create(mp_pipe_handle *pipe)
{
    mp_status status = mp_object_create(MP_TYPE_PIPE, sizeof(struct mp_pipe_shm), &pipe->object);
    if (status != MP_OK)
        return status;
    pipe->shm = mp_object_payload(&pipe->object); // zeroed
    mp_store_release32(&pipe->shm->generation, pipe->object.generation);
    return MP_OK;
}

mp_status mp_pipe_attach(mp_pipe_handle *pipe, const mp_object_ticket *ticket)
{
    mp_status status = mp_object_attach(ticket, MP_TYPE_PIPE, &pipe->object);
    if (status == MP_OK)
        pipe->shm = mp_object_payload(&pipe->object);
    return status;
}

void mp_pipe_release(mp_pipe_handle *pipe)
{
    pipe->shm = NULL;
    mp_object_release(&pipe->object);
}

mp_status mp_pipe_find(mp_pipe_handle *pipe, uint64_t offset, uint32_t generation)
{
    if (!mp_chunk_valid(offset, MP_TYPE_PIPE))
        return MP_DAMAGED;
    uint64_t state = mp_load_acquire64(&mp_chunk_at(offset)->state);
    pipe->object = (mp_handle){.offset = offset, .generation = generation, .type = MP_TYPE_PIPE};
    pipe->shm = mp_chunk_payload(offset);
    bool same = mp_state_generation(state) == generation && pipe->shm->generation == generation;
    return same ? MP_OK : MP_DAMAGED;
}

/* ---- sending ---- */

mp_status mp_parcel_make(const mp_pipe_handle *pipe, const mp_message_plan *plan, uint64_t *offset)
{
    mp_status status = mp_message_make_for(MP_TYPE_PARCEL, pipe->object.offset,
                                           pipe->shm->generation, plan, offset);
    if (status == MP_OK)
        mp_store_release32(sender_of(*offset), mp_self());
    return status;
}

/* The first free slot, or MP_PARCEL_SLOTS; `*busy`: bytes on their way. */
static uint32_t free_slot(const mp_pipe_handle *pipe, uint32_t way, uint64_t *seen, uint64_t *busy)
{
    uint32_t found = MP_PARCEL_SLOTS;
    *busy = 0;
    for (uint32_t i = 0; i < MP_PARCEL_SLOTS; i++) {
        uint64_t state, word = mp_load_acquire64(&pipe->shm->slots[way][i]);
        if (names_parcel(pipe->object.offset, word, &state) && on_its_way(word, state)) {
            *busy += mp_chunk_capacity(offset_in(word));
        } else if (found == MP_PARCEL_SLOTS) {
            found = i;
            *seen = word;
        }
    }
    return found;
}

static bool fits(uint32_t slot, uint64_t busy, uint64_t size)
{
    return slot != MP_PARCEL_SLOTS && (busy == 0 || busy + size <= MP_PARCEL_BYTES);
}

bool mp_parcel_room(const mp_pipe_handle *pipe, uint32_t way, uint64_t size)
{
    uint64_t seen, busy;
    uint32_t slot = free_slot(pipe, way, &seen, &busy);
    return fits(slot, busy, size);
}

mp_status mp_parcel_post(const mp_pipe_handle *pipe, uint32_t way, uint64_t offset,
                         mp_parcel_place *place)
{
    for (;;) {
        uint64_t seen = 0, busy;
        uint32_t slot = free_slot(pipe, way, &seen, &busy);
        if (!fits(slot, busy, mp_chunk_capacity(offset)) || offset >= OFFSET_LIMIT)
            return MP_WOULD_BLOCK;
        uint64_t word = word_of(offset);
        // From here on the parcel can be found. Until `sent` it is swept if we die.
        if (mp_cas64(&pipe->shm->slots[way][slot], &seen, word)) {
            *place = (mp_parcel_place){.slot = slot, .word = word};
            return MP_OK;
        }
    }
}

void mp_parcel_sent(const mp_pipe_handle *pipe, uint32_t way, const mp_parcel_place *place)
{
    // Fails where the receiver has it already: then there is nothing left to be said about it.
    uint64_t word = place->word;
    (void)mp_cas64(&pipe->shm->slots[way][place->slot], &word, word | SENT);
}

void mp_parcel_withdraw(const mp_pipe_handle *pipe, uint32_t way, const mp_parcel_place *place)
{
    uint64_t word = place->word;
    if (mp_cas64(&pipe->shm->slots[way][place->slot], &word, 0))
        mp_message_drop(offset_in(place->word));
}

/* ---- receiving ---- */

static void clear_slot(uint64_t *slot, uint64_t word)
{
    uint64_t seen = word;
    if (!mp_cas64(slot, &seen, 0) && seen == (word | SENT)) // the sender said so meanwhile
        (void)mp_cas64(slot, &seen, 0);
}

mp_status mp_parcel_take(const mp_pipe_handle *pipe, uint32_t way, const mp_parcel_place *place,
                         uint64_t *offset)
{
    uint64_t state;
    if (place->slot >= MP_PARCEL_SLOTS || way > 1 || (place->word & SENT) != 0)
        return MP_DAMAGED;
    uint64_t *slot = &pipe->shm->slots[way][place->slot];
    uint64_t seen = mp_load_acquire64(slot) & ~SENT;
    if (seen != place->word || !names_parcel(pipe->object.offset, place->word, &state) ||
        mp_state_owner(state) != mp_load_acquire32(sender_of(offset_in(place->word))))
        return MP_STALE;
    *offset = offset_in(place->word);
    // The delivery: whoever is killed after it takes the parcel along, and only that one.
    uint64_t ours = MP_STATE(mp_self(), mp_state_generation(state), MP_TYPE_PARCEL);
    if (!mp_cas64(&mp_chunk_at(*offset)->state, &state, ours))
        return MP_STALE;
    clear_slot(slot, place->word);
    return MP_OK;
}

/* ---- what the collector asks ---- */

/* The owner of this parcel is dead: is it on its way all the same? */
static bool parcel_linked(uint64_t offset, uint64_t state)
{
    uint64_t home = mp_load_acquire64(&mp_chunk_at(offset)->life);
    const struct mp_message_shm *message = mp_chunk_payload(offset);
    mp_pipe_handle pipe;
    if (mp_pipe_find(&pipe, home, message->ring_generation) != MP_OK)
        return false;
    for (uint32_t i = 0; i < 2 * MP_PARCEL_SLOTS; i++) {
        uint64_t word =
            mp_load_acquire64(&pipe.shm->slots[i / MP_PARCEL_SLOTS][i % MP_PARCEL_SLOTS]);
        if (offset_in(word) == offset && generation_in(word) == mp_state_generation(state))
            return on_its_way(word, state);
    }
    return false;
}

/* Make a parcel that nobody can receive any more ours, then release it: a death on the way leaves a dead
 * owner who is not the sender, or the slot as it was. */
static void drop_posted(uint64_t pipe, uint64_t *slot)
{
    uint64_t state, word = mp_load_acquire64(slot);
    uint64_t offset = offset_in(word);
    if (!names_parcel(pipe, word, &state) ||
        mp_state_owner(state) != mp_load_acquire32(sender_of(offset)))
        return;
    uint64_t ours = MP_STATE(mp_self(), mp_state_generation(state), MP_TYPE_PARCEL);
    if (mp_cas64(&mp_chunk_at(offset)->state, &state, ours)) {
        mp_store_release64(slot, 0);
        mp_message_drop(offset);
    }
}

/* No process has an end of this pipe any more. */
static void pipe_finalize(uint64_t offset)
{
    struct mp_pipe_shm *shm = mp_chunk_payload(offset);
    for (uint32_t i = 0; i < 2 * MP_PARCEL_SLOTS; i++)
        drop_posted(offset, &shm->slots[i / MP_PARCEL_SLOTS][i % MP_PARCEL_SLOTS]);
}

static const struct mp_type_ops pipe_ops = {.finalize = pipe_finalize};
static const struct mp_type_ops parcel_ops = {
    .finalize = mp_message_finalize,
    .linked = parcel_linked,
};

void mp_parcels_init(void)
{
    static uint32_t done; // several threads may do it at once: they store the same
    if (mp_load_acquire32(&done) != 0)
        return;
    mp_reclaim_register(MP_TYPE_PIPE, &pipe_ops);
    mp_reclaim_register(MP_TYPE_PARCEL, &parcel_ops);
    mp_store_release32(&done, 1);
}
