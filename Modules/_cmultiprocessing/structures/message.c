// SPDX-License-Identifier: PSF-2.0
#include "structures/message.h" // the contract

#include "os/os.h"         // giving pages back
#include "shm/processes.h" // dead owners

#include <string.h> // memcpy

static struct mp_message_shm *message_at(uint64_t offset)
{
    return mp_chunk_payload(offset);
}

static mp_object_ticket *tickets_of(struct mp_message_shm *message)
{
    return (mp_object_ticket *)(void *)(message + 1);
}

static uint64_t *sizes_of(struct mp_message_shm *message)
{
    return (uint64_t *)(void *)(tickets_of(message) + message->pins);
}

static uint64_t round_up(uint64_t size, uint64_t step)
{
    return (size + step - 1) & ~(step - 1);
}

/* Bytes from the chunk's header to the first part; parts are aligned as seen from the header. */
static uint64_t parts_at(uint32_t pins, uint32_t parts)
{
    uint64_t fixed = MP_CHUNK_HEADER + sizeof(struct mp_message_shm) +
                     pins * (uint64_t)sizeof(mp_object_ticket) + parts * (uint64_t)sizeof(uint64_t);
    return round_up(fixed, MP_PART_ALIGN);
}

static mp_status whole_size(const mp_message_plan *plan, uint64_t *size)
{
    *size = parts_at(plan->pins, plan->parts);
    for (uint32_t i = 0; i < plan->parts; i++) {
        if (plan->sizes[i] > mp_family_shm()->size)
            return MP_TOO_LARGE;
        *size += round_up(plan->sizes[i], MP_PART_ALIGN);
    }
    return *size <= mp_family_shm()->size ? MP_OK : MP_TOO_LARGE;
}

/* ---- memory that is warm ----
 *
 * Touching new pages costs about a nanosecond per byte, twice what copying costs. So who is far enough
 * ahead of the consumers waits a while for the memory of a message that they are just reading. */

#define AWAIT_FROM (UINT64_C(256) << 10) // bytes
#define AWAIT_STEP (MP_MILLISECOND / 50)
enum { AHEAD = 2, VAIN_MAX = 4 };

static uint32_t taken_count(const mp_ring_handle *ring)
{
    return mp_word_count(mp_load_acquire64(&ring->shm->head));
}

/* There are messages to be read, and since the last wait in vain somebody has read one. */
static bool worth_awaiting(const mp_ring_handle *ring, uint64_t size)
{
    return size >= AWAIT_FROM && mp_ring_size(ring) >= AHEAD &&
           taken_count(ring) != mp_load_relaxed32(&ring->patience.seen);
}

static bool await_warm(mp_ring_handle *ring, uint64_t size, uint64_t *offset)
{
    uint32_t never = 0; // nobody wakes us: a sleep with a deadline
    uint32_t vain = mp_load_relaxed32(&ring->patience.vain);
    mp_time now = mp_clock_now();
    mp_time end = now + (mp_time)(size / 2 >> vain);
    for (; now < end; now = mp_clock_now()) {
        (void)mp_futex_wait(&never, 0, now + AWAIT_STEP < end ? now + AWAIT_STEP : end);
        if (mp_chunk_take_warm(MP_TYPE_MESSAGE, size, offset))
            return true;
    }
    mp_store_relaxed32(&ring->patience.seen, taken_count(ring));
    mp_store_relaxed32(&ring->patience.vain, vain < VAIN_MAX ? vain + 1 : vain);
    return false;
}

static mp_status take_chunk(mp_ring_handle *ring, uint64_t size, uint64_t *offset)
{
    if (mp_chunk_take_warm(MP_TYPE_MESSAGE, size, offset) ||
        (worth_awaiting(ring, size) && await_warm(ring, size, offset))) {
        mp_store_relaxed32(&ring->patience.vain, 0);
        return MP_OK;
    }
    return mp_chunk_take(MP_TYPE_MESSAGE, size, offset);
}

/* What a new message says, in a chunk of `size` bytes that has just become ours. */
static void set_up(uint64_t offset, const mp_message_plan *plan, uint64_t size, uint64_t home,
                   uint32_t generation)
{
    // If we die before life is stored the chunk names nothing that it belongs to, or something of the past.
    struct mp_message_shm *message = message_at(offset);
    *message = (struct mp_message_shm){
        .ring_generation = generation,
        .sequence = MP_SEQUENCE_NONE,
        .tag = plan->tag,
        .parts = plan->parts,
        .size = size,
    };
    if (plan->pins != 0)
        memcpy(tickets_of(message), plan->tickets, plan->pins * sizeof(mp_object_ticket));
    message->pins = plan->pins;
    if (plan->parts != 0)
        memcpy(sizes_of(message), plan->sizes, plan->parts * sizeof(uint64_t));
    mp_store_release64(&mp_chunk_at(offset)->life, home);
}

mp_status mp_message_make(mp_ring_handle *ring, const mp_message_plan *plan, uint64_t *offset)
{
    uint64_t size;
    mp_assert(plan->parts <= MP_PARTS_MAX && plan->pins <= MP_PINS_MAX);
    mp_status status = whole_size(plan, &size);
    if (status == MP_OK)
        status = take_chunk(ring, size - MP_CHUNK_HEADER, offset);
    if (status == MP_OK)
        set_up(*offset, plan, size, ring->object.offset, ring->shm->generation);
    return status;
}

mp_status mp_message_make_for(uint32_t type, uint64_t home, uint32_t generation,
                              const mp_message_plan *plan, uint64_t *offset)
{
    uint64_t size;
    mp_assert(plan->parts <= MP_PARTS_MAX && plan->pins <= MP_PINS_MAX);
    mp_status status = whole_size(plan, &size);
    if (status == MP_OK && !mp_chunk_take_warm(type, size - MP_CHUNK_HEADER, offset))
        status = mp_chunk_take(type, size - MP_CHUNK_HEADER, offset);
    if (status == MP_OK)
        set_up(*offset, plan, size, home, generation);
    return status;
}

void *mp_message_part(uint64_t offset, uint32_t part, uint64_t *size)
{
    struct mp_message_shm *message = message_at(offset);
    const uint64_t *sizes = sizes_of(message);
    uint64_t at = parts_at(message->pins, message->parts);
    for (uint32_t i = 0; i < part; i++)
        at += round_up(sizes[i], MP_PART_ALIGN);
    *size = sizes[part];
    return mp_at(offset + at);
}

static void unpin(uint64_t offset)
{
    struct mp_message_shm *message = message_at(offset);
    const mp_object_ticket *tickets = tickets_of(message);
    // Tickets whose pickle was loaded have lost their pin: nothing happens to those.
    for (uint32_t i = 0; i < message->pins; i++)
        mp_object_unpin(&tickets[i]);
}

void mp_message_drop(uint64_t offset)
{
    unpin(offset);
    mp_chunk_release(offset);
}

mp_status mp_message_open(uint64_t offset, mp_message_view *view)
{
    struct mp_message_shm *message = message_at(offset);
    uint64_t capacity = mp_chunk_capacity(offset) + MP_CHUNK_HEADER;
    uint32_t parts = message->parts;
    if (parts > MP_PARTS_MAX || message->pins > MP_PINS_MAX ||
        parts_at(message->pins, parts) > capacity)
        return MP_DAMAGED;
    uint64_t end = parts_at(message->pins, parts);
    for (uint32_t i = 0; i < parts; i++) {
        uint64_t size = sizes_of(message)[i];
        if (size > capacity - end || round_up(size, MP_PART_ALIGN) > capacity - end)
            return MP_DAMAGED;
        end += round_up(size, MP_PART_ALIGN);
    }
    *view = (mp_message_view){.offset = offset, .tag = message->tag, .parts = parts};
    return MP_OK;
}

/* From this size on a message is read once and its pages are not worth keeping: giving them back
 * while copying keeps the peak at one copy. */
#define MP_PUNCH_FROM (UINT64_C(64) << 20)
#define MP_PUNCH_SLICE (UINT64_C(8) << 20)

void mp_message_punch(char *from, char *to)
{
    uint64_t first = round_up(mp_offset_of(from), MP_UNIT);
    uint64_t last = mp_offset_of(to) & ~(MP_UNIT - 1);
    if (last > first)
        (void)mp_memory_punch(mp_at(first), last - first);
}

void mp_message_read(const mp_message_view *view, uint32_t part, void *destination)
{
    uint64_t size;
    char *source = mp_message_part(view->offset, part, &size);
    if (size < MP_PUNCH_FROM) {
        memcpy(destination, source, size);
        return;
    }
    // The message's header lies in the first page, which is never punched: it begins before `source`.
    for (uint64_t at = 0; at < size; at += MP_PUNCH_SLICE) {
        uint64_t slice = size - at < MP_PUNCH_SLICE ? size - at : MP_PUNCH_SLICE;
        memcpy((char *)destination + at, source + at, slice);
        mp_message_punch(source + at, source + at + slice);
    }
}

void mp_message_set_sequence(uint64_t offset, uint32_t count)
{
    mp_store_release32(&message_at(offset)->sequence, count & MP_COUNT_MASK);
}

bool mp_message_belongs(uint64_t ring, uint64_t offset)
{
    if (!mp_chunk_valid(offset, MP_TYPE_MESSAGE) || mp_chunk_at(offset)->life != ring)
        return false;
    const struct mp_ring_shm *shm = mp_chunk_payload(ring);
    return message_at(offset)->ring_generation == shm->generation;
}

/* Asked for a message whose owner is dead, with its state as it was. A consumer makes it its own
 * before it commits, so if the queue moves on while we look, the state is another one already. */
bool mp_message_linked(uint64_t offset, uint64_t state)
{
    (void)state;
    uint64_t ring = mp_load_acquire64(&mp_chunk_at(offset)->life);
    if (!mp_chunk_valid(ring, MP_TYPE_RING) || !mp_message_belongs(ring, offset))
        return false;
    const struct mp_ring_shm *shm = mp_chunk_payload(ring);
    uint32_t sequence = mp_load_acquire32(&message_at(offset)->sequence);
    // Head first: what was in the queue then, and was not taken since, lies below the later tail.
    uint32_t head = mp_word_count(mp_load_acquire64(&shm->head));
    uint32_t tail = mp_word_count(mp_load_acquire64(&shm->tail));
    return sequence != MP_SEQUENCE_NONE &&
           mp_count_between(head, sequence) < mp_count_between(head, tail);
}

void mp_message_finalize(uint64_t offset)
{
    uint64_t state = mp_load_acquire64(&mp_chunk_at(offset)->state);
    mp_message_view view;
    // A consumer that has just made it its own still wants its pins.
    if (mp_owner_dead(mp_state_owner(state)) && mp_message_open(offset, &view) == MP_OK)
        unpin(offset);
}
