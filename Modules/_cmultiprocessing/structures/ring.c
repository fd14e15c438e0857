// SPDX-License-Identifier: PSF-2.0
#include "structures/ring.h" // the contract

#include "core/inject.h"          // kill points
#include "structures/ledger.h"    // unfinished items
#include "structures/message.h"   // what LINK records name
#include "structures/ring_walk.h" // chunks of a chain

#include "shm/mutex.h" // both sides

#include <limits.h> // INT_MAX
#include <string.h> // memcpy

/* ---- committing and waking ---- */

/* Move a word on by `count` commits. The mutex keeps other commits away; sleepers may set the waiters
 * bit and call-offs clear it, and it stays as they left it. Returns the word before. */
static uint64_t commit(uint64_t *word, uint64_t seen, uint32_t count, uint64_t position)
{
    uint64_t next;
    do
        next = mp_word_make(mp_word_count(seen) + count, position, seen & MP_RING_WAITERS);
    while (!mp_cas64(word, &seen, next)); // SYNC: ring commit
    return seen;
}

/* Clear the waiters bit, then wake everybody who fell asleep before that; who comes later finds
 * another value and does not sleep. A death in between costs the sleepers a slice. */
static void clear_waiters(uint64_t *word)
{
    uint64_t before = mp_fetch_and64(word, ~MP_RING_WAITERS);
    if (before & MP_RING_WAITERS)
        (void)mp_futex_wake(mp_word_futex(word), INT_MAX);
}

/* After a commit that saw the waiters bit: one sleeper for each item. The bit stays while it finds
 * any: others may sleep still. */
static void wake(uint64_t *word, uint32_t count)
{
    int most = count > INT_MAX ? INT_MAX : (int)count;
    if (mp_futex_wake(mp_word_futex(word), most) == 0)
        clear_waiters(word);
}

/* ---- the producers' side ---- */

enum { MP_RING_FEW = 64 };

/* The chunk behind one that a hint names, 0 if that is none of ours any more. */
static uint64_t chunk_after(const mp_ring_handle *ring, uint64_t chunk)
{
    if (chunk == 0)
        return ring->shm->first;
    return mp_ring_chunk_belongs(ring->object.offset, chunk) ? mp_ring_chunk_at(chunk)->next : 0;
}

/* After a death under put_mutex: tail_chunk and tail_end follow the commit, so they may be one behind. */
static mp_status repair_tail_locked(mp_ring_handle *ring)
{
    struct mp_ring_shm *shm = ring->shm;
    uint64_t position = mp_word_position(mp_load_acquire64(&shm->tail));
    if (position == 0) {
        shm->tail_chunk = 0;
        return MP_OK;
    }
    uint64_t chunk = shm->tail_chunk;
    if (!mp_ring_chunk_holds(ring->object.offset, chunk, position))
        chunk = chunk_after(ring, chunk);
    // Consumers may have left the chunk before the last and given it back: then they are in the last.
    if (!mp_ring_chunk_holds(ring->object.offset, chunk, position))
        chunk = mp_load_acquire64(&shm->head_chunk);
    if (!mp_ring_chunk_holds(ring->object.offset, chunk, position))
        return MP_DAMAGED;
    shm->tail_chunk = chunk;
    shm->tail_end = mp_ring_chunk_end(chunk);
    return MP_OK;
}

static bool has_space_locked(struct mp_ring_shm *shm, uint64_t tail, uint32_t *space)
{
    uint32_t count = mp_word_count(tail);
    uint32_t used = mp_count_between(mp_word_count(shm->seen_head), count);
    if (used >= shm->limit) {
        // Only now touch the consumers' line.
        shm->seen_head = mp_load_acquire64(&shm->head); // SYNC: ring commit
        used = mp_count_between(mp_word_count(shm->seen_head), count);
    }
    *space = used < shm->limit ? shm->limit - used : 0;
    return *space != 0;
}

static uint64_t item_length(const mp_ring_item *item)
{
    return item->message != 0 ? sizeof(uint64_t) : item->length;
}

static void write_record(uint64_t position, const mp_ring_item *item)
{
    uint64_t *record = mp_at(position);
    if (item->message != 0) {
        record[0] = mp_record_header(sizeof(uint64_t), MP_RECORD_LINK, item->tag);
        record[1] = item->message;
        return;
    }
    record[0] = mp_record_header(item->length, MP_RECORD_INLINE, item->tag);
    if (item->length == sizeof(uint64_t))
        memcpy(&record[1], item->payload, sizeof(uint64_t)); // the size of a number: one move
    else if (item->length != 0)
        memcpy(&record[1], item->payload, item->length);
}

/* Write records behind `*position` as long as they fit before `end`. Nothing of it counts before the
 * commit; a message's sequence tells the collector at which count it was meant to be linked. */
static size_t write_records(const mp_ring_item *items, size_t count, uint32_t first_count,
                            uint64_t *position, uint64_t end)
{
    size_t done = 0;
    for (; done < count; done++) {
        uint64_t room = mp_record_room(item_length(&items[done]));
        if (*position > end || room > end - *position)
            break;
        if (items[done].message != 0)
            mp_message_set_sequence(items[done].message, first_count + (uint32_t)done);
        write_record(*position, &items[done]);
        *position += room;
    }
    return done;
}

/* A chunk to go on in: the spare one, or *fresh, which is used up. 0: there is none. */
static uint64_t next_chunk_locked(mp_ring_handle *ring, uint64_t *fresh)
{
    struct mp_ring_shm *shm = ring->shm;
    uint64_t chunk = *fresh;
    if (chunk != 0) {
        *fresh = 0;
        return chunk;
    }
    chunk = mp_load_acquire64(&shm->spare); // SYNC: ring spare
    if (chunk == 0 || !mp_ring_chunk_belongs(ring->object.offset, chunk))
        return 0;
    // Ours before it is nobody's: whoever dies in between leaves a dead owner or the spare entry.
    mp_chunk_set_owner(chunk, mp_self());
    mp_store_release64(&shm->spare, 0);
    return chunk;
}

/* Everything that makes `chunk` the next one, but for the commit. */
static void link_chunk_locked(mp_ring_handle *ring, uint64_t chunk, uint64_t tail_position)
{
    struct mp_ring_shm *shm = ring->shm;
    uint64_t before = shm->tail_chunk;
    mp_ring_chunk_at(chunk)->index = before != 0 ? mp_ring_chunk_at(before)->index + 1 : 1;
    if (before == 0) {
        mp_store_release64(&shm->first, chunk);
        return;
    }
    mp_ring_chunk_at(before)->next = chunk;
    *(uint64_t *)mp_at(tail_position) = mp_record_header(0, MP_RECORD_JUMP, 0);
}

/* Put under put_mutex. MP_INTERRUPTED: a chunk is needed, and *fresh is none. */
static mp_status put_locked(mp_ring_handle *ring, const mp_ring_item *items, size_t count,
                            size_t *done, uint64_t *fresh, uint64_t *before)
{
    struct mp_ring_shm *shm = ring->shm;
    if (shm->closed != MP_RING_OPEN)
        return MP_CLOSED;
    uint64_t tail = mp_load_relaxed64(&shm->tail);
    uint32_t space;
    if (!has_space_locked(shm, tail, &space))
        return MP_WOULD_BLOCK;
    if (count > space)
        count = space;
    uint64_t position = mp_word_position(tail);
    uint64_t end = shm->tail_end;
    uint64_t chunk = shm->tail_chunk;
    // Both are 0 before the first chunk.
    if (position != 0 ? !mp_ring_cursor_fits(chunk, position, end) : chunk != 0)
        return MP_DAMAGED;
    if (position == 0 || mp_record_room(item_length(&items[0])) > end - position) {
        chunk = next_chunk_locked(ring, fresh);
        if (chunk == 0)
            return MP_INTERRUPTED;
        link_chunk_locked(ring, chunk, position);
        position = chunk + MP_RECORDS_AT;
        end = mp_ring_chunk_end(chunk);
    }
    *done = write_records(items, count, mp_word_count(tail), &position, end);
    mp_assert(*done != 0);
    MP_INJECT("ring_put:before_commit");
    *before = commit(&shm->tail, tail, (uint32_t)*done, position);
    MP_INJECT("ring_put:after_commit");
    if (chunk != shm->tail_chunk) {
        shm->tail_chunk = chunk;
        shm->tail_end = end;
    }
    return MP_OK;
}

/* From a mutex status to the right to go on. */
static mp_status enter_put(mp_ring_handle *ring, mp_status locked)
{
    if (mp_likely(locked == MP_OK))
        return MP_OK;
    if (locked != MP_OWNER_DIED)
        return MP_INTERRUPTED;
    mp_status status = repair_tail_locked(ring);
    if (status != MP_OK)
        mp_mutex_unlock(&ring->shm->put_mutex);
    return status;
}

static mp_status put_and_unlock(mp_ring_handle *ring, const mp_ring_item *items, size_t count,
                                size_t *done, uint64_t *fresh)
{
    struct mp_ring_shm *shm = ring->shm;
    uint64_t before = 0;
    mp_status status = put_locked(ring, items, count, done, fresh, &before);
    mp_mutex_unlock(&shm->put_mutex);
    if (status == MP_OK && mp_unlikely(before & MP_RING_WAITERS))
        wake(&shm->tail, (uint32_t)*done);
    return status;
}

mp_status mp_ring_put(mp_ring_handle *ring, const mp_ring_item *items, size_t count, size_t *done)
{
    uint64_t fresh = 0;
    *done = 0;
    mp_status status = enter_put(ring, mp_mutex_try(&ring->shm->put_mutex));
    return status == MP_OK ? put_and_unlock(ring, items, count, done, &fresh) : status;
}

/* How large the next chunk is to be: each costs a microsecond or two, and is given back as a whole when
 * it was read, so a few of them should hold the backlog. */
static uint64_t next_chunk_units(const mp_ring_handle *ring, const mp_ring_item *item)
{
    uint64_t room = mp_record_room(item_length(item));
    uint64_t backlog = mp_ring_size(ring) * room;
    if (backlog >= UINT64_C(2) << 20)
        return 256;
    if (backlog >= UINT64_C(256) << 10)
        return 64;
    return backlog != 0 || room > MP_RING_CHUNK_SMALL / MP_RING_FEW ? 16 : 1;
}

mp_status mp_ring_put_slow(mp_ring_handle *ring, const mp_ring_item *items, size_t count,
                           size_t *done)
{
    uint64_t fresh = 0;
    mp_status status;
    *done = 0;
    for (;;) {
        status = enter_put(ring, mp_mutex_lock(&ring->shm->put_mutex, MP_FOREVER));
        if (status != MP_OK)
            break;
        status = put_and_unlock(ring, items, count, done, &fresh);
        if (status != MP_INTERRUPTED)
            break;
        // Chunks are made outside of the mutex; somebody else may be faster, then ours goes back.
        status = mp_ring_chunk_make(ring, next_chunk_units(ring, &items[0]), &fresh);
        if (status != MP_OK)
            break;
    }
    if (fresh != 0)
        mp_chunk_release(fresh);
    return status;
}

/* ---- the consumers' side ---- */

/* After a death under take_mutex, as repair_tail_locked. */
static mp_status repair_head_locked(mp_ring_handle *ring)
{
    struct mp_ring_shm *shm = ring->shm;
    uint64_t position = mp_word_position(mp_load_acquire64(&shm->head));
    if (position == 0) {
        shm->head_chunk = 0;
        return MP_OK;
    }
    uint64_t chunk = shm->head_chunk;
    if (!mp_ring_chunk_holds(ring->object.offset, chunk, position))
        chunk = chunk_after(ring, chunk);
    if (!mp_ring_chunk_holds(ring->object.offset, chunk, position))
        return MP_DAMAGED;
    shm->head_chunk = chunk;
    shm->head_end = mp_ring_chunk_end(chunk);
    return MP_OK;
}

/* How many records there are; touches the producers' line only when it must. */
static uint32_t available_locked(struct mp_ring_shm *shm, uint64_t head)
{
    uint32_t count = mp_word_count(head);
    uint32_t there = mp_count_between(count, mp_word_count(shm->seen_tail));
    if (there == 0) {
        // Never behind head: whoever takes saw that tail. A death after this store harms nobody.
        shm->seen_tail = mp_load_acquire64(&shm->tail); // SYNC: ring commit
        there = mp_count_between(count, mp_word_count(shm->seen_tail));
    }
    return there;
}

/* Where the take stands; what moves on with the commit. */
struct cursor {
    uint64_t position, chunk, end;
    uint64_t left; // the chunk that this take leaves, or 0
};

/* Follow a JUMP, or enter the first chunk. What is left will be released: it must be ours, too. */
static mp_status jump(const mp_ring_handle *ring, struct cursor *cursor)
{
    uint64_t left = cursor->position == 0 ? 0 : cursor->chunk;
    if (left != 0 && !mp_ring_chunk_belongs(ring->object.offset, left))
        return MP_DAMAGED;
    uint64_t next = left == 0 ? mp_load_acquire64(&ring->shm->first) : mp_ring_chunk_at(left)->next;
    if (next == left || !mp_ring_chunk_belongs(ring->object.offset, next))
        return MP_DAMAGED;
    cursor->left = left;
    cursor->chunk = next;
    cursor->position = next + MP_RECORDS_AT;
    cursor->end = mp_ring_chunk_end(next);
    return MP_OK;
}

/* The record at the cursor, in bounds; jumps at most once, and only before the first record. */
static mp_status look(const mp_ring_handle *ring, struct cursor *cursor, uint32_t taken,
                      uint64_t *header)
{
    if (cursor->position == 0) {
        mp_status status = jump(ring, cursor);
        if (status != MP_OK)
            return status;
    }
    *header = *(const uint64_t *)mp_at(cursor->position);
    if (mp_record_kind(*header) == MP_RECORD_JUMP) {
        if (taken != 0)
            return MP_WOULD_BLOCK; // the rest is for the next take
        mp_status status = cursor->left == 0 ? jump(ring, cursor) : MP_DAMAGED;
        if (status != MP_OK)
            return status;
        *header = *(const uint64_t *)mp_at(cursor->position);
    }
    uint64_t room = mp_record_room(mp_record_length(*header));
    bool fits =
        mp_record_length(*header) <= MP_INLINE_MAX && room <= cursor->end - cursor->position;
    bool known = mp_record_kind(*header) == MP_RECORD_INLINE ||
                 (mp_record_kind(*header) == MP_RECORD_LINK &&
                  mp_record_length(*header) == sizeof(uint64_t));
    return fits && known ? MP_OK : MP_DAMAGED;
}

/* Copy one record out; a message that it links becomes ours before the commit, so that a death
 * leaves it either in the queue or with a dead owner outside. */
static mp_status copy_record(const mp_ring_handle *ring, uint64_t header, uint64_t position,
                             mp_ring_batch *batch)
{
    uint64_t room = mp_record_room(mp_record_length(header));
    uint64_t *record = (uint64_t *)(void *)((char *)batch->bytes + batch->used);
    const uint64_t *source = mp_at(position);
    record[0] = header;
    record[1] = source[1];
    if (room > MP_GRANULE)
        memcpy(record + 2, source + 2, (size_t)(room - MP_GRANULE));
    if (mp_record_kind(header) == MP_RECORD_LINK) {
        if (!mp_message_belongs(ring->object.offset, record[1]))
            return MP_DAMAGED;
        mp_chunk_set_owner(record[1], mp_self());
    }
    batch->used += (size_t)room;
    batch->count++;
    return MP_OK;
}

static mp_status copy_records(const mp_ring_handle *ring, uint32_t most, struct cursor *cursor,
                              mp_ring_batch *batch)
{
    uint64_t header;
    while (batch->count < most) {
        mp_status status = look(ring, cursor, batch->count, &header);
        if (status == MP_WOULD_BLOCK)
            break;
        if (status != MP_OK)
            return status;
        uint64_t room = mp_record_room(mp_record_length(header));
        if (room > batch->capacity - batch->used)
            break;
        status = copy_record(ring, header, cursor->position, batch);
        if (status != MP_OK)
            return status;
        cursor->position += room;
    }
    return MP_OK;
}

/* The chunk that was left is empty and ours. Keep a small one at hand for the producers; after the
 * commit only, or it would be used twice. Returns what to release after the unlock, or 0. */
static uint64_t keep_spare_locked(struct mp_ring_shm *shm, uint64_t chunk)
{
    bool small = mp_ring_chunk_at(chunk)->size == MP_RING_CHUNK_SMALL + MP_CHUNK_HEADER;
    if (!small || mp_load_relaxed64(&shm->spare) != 0)
        return chunk;
    mp_store_release64(&shm->spare, chunk); // SYNC: ring spare
    return 0;
}

/* Copy what is there and fits; nothing is taken yet. MP_WOULD_BLOCK: empty. */
static mp_status copy_locked(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch,
                             uint64_t head, struct cursor *cursor)
{
    struct mp_ring_shm *shm = ring->shm;
    uint32_t there = available_locked(shm, head);
    if (there == 0)
        return MP_WOULD_BLOCK;
    *cursor = (struct cursor){mp_word_position(head), shm->head_chunk, shm->head_end, 0};
    if (cursor->position != 0 && !mp_ring_cursor_fits(cursor->chunk, cursor->position, cursor->end))
        return MP_DAMAGED;
    return copy_records(ring, there < most ? there : most, cursor, batch);
}

/* What happens to a taken chunk and to producers that wait, after the unlock. */
struct aftermath {
    uint64_t before; // the head that was replaced
    uint64_t left;   // chunk to release, or 0
};

static void commit_take_locked(mp_ring_handle *ring, uint32_t count, uint64_t head,
                               const struct cursor *cursor, struct aftermath *aftermath)
{
    struct mp_ring_shm *shm = ring->shm;
    // Before the commit: if we die after it, the collector finds a dead owner outside of the queue.
    if (cursor->left != 0)
        mp_chunk_set_owner(cursor->left, mp_self());
    MP_INJECT("ring_take:before_commit");
    aftermath->before = commit(&shm->head, head, count, cursor->position);
    MP_INJECT("ring_take:after_commit");
    if (cursor->chunk != shm->head_chunk) {
        shm->head_chunk = cursor->chunk;
        shm->head_end = cursor->end;
    }
    if (cursor->left != 0)
        aftermath->left = keep_spare_locked(shm, cursor->left);
}

static mp_status take_locked(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch,
                             struct aftermath *aftermath)
{
    struct mp_ring_shm *shm = ring->shm;
    struct cursor cursor;
    if (mp_unlikely(mp_load_acquire32(&shm->closed) == MP_RING_CLOSED))
        return MP_CLOSED;
    uint64_t head = mp_load_relaxed64(&shm->head);
    mp_status status = copy_locked(ring, most, batch, head, &cursor);
    if (status == MP_OK && shm->flags & MP_RING_JOINABLE)
        status = mp_ledger_add(ring, batch->count); // before the commit: never both gone and done
    if (status == MP_OK)
        commit_take_locked(ring, batch->count, head, &cursor, aftermath);
    return status;
}

static mp_status enter_take(mp_ring_handle *ring, mp_status locked)
{
    if (mp_likely(locked == MP_OK))
        return MP_OK;
    if (locked != MP_OWNER_DIED)
        return MP_INTERRUPTED;
    mp_status status = repair_head_locked(ring);
    if (status != MP_OK)
        mp_mutex_unlock(&ring->shm->take_mutex);
    return status;
}

static void settle(mp_ring_handle *ring, uint32_t count, const struct aftermath *aftermath)
{
    if (mp_unlikely(aftermath->before & MP_RING_WAITERS))
        wake(&ring->shm->head, count);
    if (aftermath->left != 0)
        mp_chunk_release(aftermath->left);
}

static mp_status take_and_unlock(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch)
{
    struct mp_ring_shm *shm = ring->shm;
    struct aftermath aftermath = {0, 0};
    mp_status status = take_locked(ring, most, batch, &aftermath);
    mp_mutex_unlock(&shm->take_mutex);
    if (status == MP_OK) {
        settle(ring, batch->count, &aftermath);
        return MP_OK;
    }
    batch->count = 0;
    batch->used = 0;
    // An empty queue into which nothing can be put any more stays empty.
    if (status == MP_WOULD_BLOCK && mp_ring_state(ring) != MP_RING_OPEN && mp_ring_empty(ring))
        return MP_CLOSED;
    return status;
}

static mp_status prepare_take(mp_ring_handle *ring, mp_ring_batch *batch)
{
    batch->count = 0;
    batch->used = 0;
    return ring->shm->flags & MP_RING_JOINABLE ? mp_ledger_prepare(ring) : MP_OK;
}

mp_status mp_ring_take(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch)
{
    mp_status status = prepare_take(ring, batch);
    if (status == MP_OK)
        status = enter_take(ring, mp_mutex_try(&ring->shm->take_mutex));
    return status == MP_OK ? take_and_unlock(ring, most, batch) : status;
}

mp_status mp_ring_take_slow(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch)
{
    mp_status status = prepare_take(ring, batch);
    if (status == MP_INTERRUPTED)
        status = mp_ledger_grow(ring);
    if (status == MP_OK)
        status = enter_take(ring, mp_mutex_lock(&ring->shm->take_mutex, MP_FOREVER));
    return status == MP_OK ? take_and_unlock(ring, most, batch) : status;
}

mp_status mp_ring_take_anyway(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch)
{
    struct mp_ring_shm *shm = ring->shm;
    struct aftermath aftermath = {0, 0};
    struct cursor cursor;
    batch->count = 0;
    batch->used = 0;
    mp_status status = enter_take(ring, mp_mutex_lock(&shm->take_mutex, MP_FOREVER));
    if (status != MP_OK)
        return status;
    uint64_t head = mp_load_relaxed64(&shm->head);
    status = copy_locked(ring, most, batch, head, &cursor);
    if (status == MP_OK)
        commit_take_locked(ring, batch->count, head, &cursor, &aftermath);
    mp_mutex_unlock(&shm->take_mutex);
    if (status == MP_OK)
        settle(ring, batch->count, &aftermath);
    return status;
}

mp_status mp_ring_enter_both(mp_ring_handle *ring)
{
    mp_status status = enter_put(ring, mp_mutex_try(&ring->shm->put_mutex));
    if (status != MP_OK)
        return status;
    status = enter_take(ring, mp_mutex_try(&ring->shm->take_mutex));
    if (status != MP_OK)
        mp_mutex_unlock(&ring->shm->put_mutex);
    return status;
}

void mp_ring_leave_both(mp_ring_handle *ring)
{
    mp_mutex_unlock(&ring->shm->take_mutex);
    mp_mutex_unlock(&ring->shm->put_mutex);
}

/* ---- looking ---- */

uint32_t mp_ring_size(const mp_ring_handle *ring)
{
    uint64_t head = mp_load_acquire64(&ring->shm->head);
    uint64_t tail = 0;
    // The two words at one moment: head did not move while tail was read. Head first, so that the
    // difference is never negative when it moves all the time.
    for (int i = 0; i < 8; i++) {
        tail = mp_load_acquire64(&ring->shm->tail);
        uint64_t again = mp_load_acquire64(&ring->shm->head);
        if (mp_word_count(again) == mp_word_count(head))
            break;
        head = again;
        tail = mp_load_acquire64(&ring->shm->tail);
    }
    return mp_count_between(mp_word_count(head), mp_word_count(tail));
}

bool mp_ring_empty(const mp_ring_handle *ring)
{
    uint64_t head = mp_load_acquire64(&ring->shm->head);
    return mp_word_count(head) == mp_word_count(mp_load_acquire64(&ring->shm->tail));
}

uint32_t mp_ring_state(const mp_ring_handle *ring)
{
    return mp_load_acquire32(&ring->shm->closed);
}

/* ---- waiting ---- */

mp_time mp_ring_slice(uint32_t *round, mp_time deadline)
{
    static const mp_time slices[] = {50, 100, 200, 500};
    uint32_t last = sizeof slices / sizeof slices[0] - 1;
    mp_time end = mp_clock_now() + slices[*round < last ? *round : last] * MP_MILLISECOND;
    (*round)++;
    return end < deadline ? end : deadline;
}

enum { GLANCES = 4 };

static void pause_times(uint32_t count)
{
    while (count-- > 0)
        mp_pause();
}

bool mp_ring_glance_items(const mp_ring_handle *ring)
{
    if (!mp_spinning_pays())
        return false;
    // Growing pauses: whoever hammers the producers' line slows them threefold.
    for (uint32_t i = 0, length = 2; i < GLANCES; i++, length *= 2) {
        pause_times(length);
        if (!mp_ring_empty(ring))
            return true;
    }
    return false;
}

static bool has_space(const struct mp_ring_shm *shm)
{
    uint64_t head = mp_load_acquire64(&shm->head);
    uint64_t tail = mp_load_acquire64(&shm->tail);
    return mp_count_between(mp_word_count(head), mp_word_count(tail)) < shm->limit;
}

/* Spin for about as long as a sleep and a wake-up would cost. */
static bool spin(const mp_ring_handle *ring, bool (*ready)(const mp_ring_handle *ring),
                 mp_spin_memory *memory)
{
    mp_spin turn = mp_spin_begin(memory);
    while (mp_spin_again(&turn)) {
        if (ready(ring)) {
            mp_spin_paid(memory);
            return true;
        }
    }
    return false;
}

static bool items_ready(const mp_ring_handle *ring)
{
    return !mp_ring_empty(ring) || mp_ring_state(ring) != MP_RING_OPEN;
}

static bool space_ready(const mp_ring_handle *ring)
{
    return has_space(ring->shm) || mp_ring_state(ring) != MP_RING_OPEN;
}

/* Announce a sleeper on a word that has the value `seen`. False: it has moved on. */
static bool announce(uint64_t *word, uint64_t *seen)
{
    if (*seen & MP_RING_WAITERS)
        return true;
    uint64_t announced = *seen | MP_RING_WAITERS;
    if (!mp_cas64(word, seen, announced))
        return false;
    *seen = announced;
    return true;
}

/* Sleep on a word while it is `seen`. `stop` is looked at after the announcement: whoever stores it
 * clears the waiters bit afterwards (clear_waiters), so that one of the two sees the other. */
static mp_status sleep_on(uint64_t *word, uint64_t seen, const uint32_t *stop, mp_time until)
{
    if (!announce(word, &seen) || mp_load_acquire32(stop) != 0)
        return MP_OK;
    return mp_futex_wait(mp_word_futex(word), (uint32_t)(seen >> 32), until);
}

mp_status mp_ring_sleep_items(mp_ring_handle *ring, mp_time deadline, const uint32_t *stop)
{
    struct mp_ring_shm *shm = ring->shm;
    uint64_t tail = mp_load_acquire64(&shm->tail);
    if (mp_word_count(mp_load_acquire64(&shm->head)) != mp_word_count(tail))
        return MP_OK;
    return sleep_on(&shm->tail, tail, stop, deadline);
}

void mp_ring_call_off(mp_ring_handle *ring)
{
    clear_waiters(&ring->shm->tail);
    clear_waiters(&ring->shm->head);
}

/* A sleep of one slice: its end is an interruption, the deadline's end is a timeout. */
static mp_status slept(mp_status status, mp_time until, mp_time deadline)
{
    if (status == MP_TIMEOUT && until < deadline)
        return MP_INTERRUPTED;
    return status;
}

mp_status mp_ring_wait_items(mp_ring_handle *ring, mp_time deadline, uint32_t *round)
{
    if (*round == 0 && spin(ring, items_ready, &ring->for_items))
        return MP_OK;
    mp_time until = mp_ring_slice(round, deadline);
    return slept(mp_ring_sleep_items(ring, until, &ring->shm->closed), until, deadline);
}

mp_status mp_ring_wait_space(mp_ring_handle *ring, mp_time deadline, uint32_t *round)
{
    struct mp_ring_shm *shm = ring->shm;
    if (*round == 0 && spin(ring, space_ready, &ring->for_space))
        return MP_OK;
    mp_time until = mp_ring_slice(round, deadline);
    uint64_t head = mp_load_acquire64(&shm->head);
    uint64_t tail = mp_load_acquire64(&shm->tail);
    if (mp_count_between(mp_word_count(head), mp_word_count(tail)) < shm->limit)
        return MP_OK;
    return slept(sleep_on(&shm->head, head, &shm->closed, until), until, deadline);
}

/* ---- shutting down ---- */

static mp_status close_puts(mp_ring_handle *ring, uint32_t state)
{
    struct mp_ring_shm *shm = ring->shm;
    mp_status status = enter_put(ring, mp_mutex_lock(&shm->put_mutex, MP_FOREVER));
    if (status != MP_OK)
        return status;
    // Under the mutex: no put commits after shutdown() has returned.
    if (shm->closed < state)
        mp_store_release32(&shm->closed, state);
    mp_mutex_unlock(&shm->put_mutex);
    return MP_OK;
}

mp_status mp_ring_shutdown(mp_ring_handle *ring, bool immediate)
{
    mp_status status = close_puts(ring, immediate ? MP_RING_CLOSED : MP_RING_DRAINING);
    if (status != MP_OK)
        return status;
    mp_ring_call_off(ring);
    if (immediate)
        status = mp_ring_discard_all(ring);
    mp_ledger_announce(ring);
    return status;
}

/* ---- making ---- */

static void bind(mp_ring_handle *ring, const mp_handle *object)
{
    *ring = (mp_ring_handle){
        .object = *object,
        .shm = mp_object_payload(object),
    };
}

uint64_t mp_ring_bytes(bool joinable)
{
    return joinable ? MP_SMALL_LIMIT : sizeof(struct mp_ring_shm);
}

void mp_ring_setup(mp_ring_handle *ring, const mp_handle *object, uint32_t limit, bool joinable)
{
    mp_ring_init();
    bind(ring, object);
    struct mp_ring_shm *shm = ring->shm;
    uint64_t room = mp_ring_bytes(joinable) - sizeof(*shm);
    shm->ledger_entries = (uint32_t)(room / sizeof(struct mp_ledger_entry_shm));
    ring->ledger_entries = shm->ledger_entries;
    shm->flags = joinable ? MP_RING_JOINABLE : 0;
    shm->generation = object->generation;
    // Last: without a limit it is no queue yet, and its maker is dead.
    mp_store_release32(&shm->limit, limit == 0 ? MP_RING_ITEMS_MAX : limit);
}

mp_status mp_ring_create(mp_ring_handle *ring, uint32_t limit, bool joinable)
{
    mp_handle object;
    mp_status status = mp_object_create(MP_TYPE_RING, mp_ring_bytes(joinable), &object);
    if (status == MP_OK)
        mp_ring_setup(ring, &object, limit, joinable);
    return status;
}

mp_status mp_ring_adopt(mp_ring_handle *ring, const mp_handle *object)
{
    mp_ring_init();
    bind(ring, object);
    const struct mp_ring_shm *shm = ring->shm;
    uint64_t capacity = mp_chunk_capacity(object->offset);
    if (capacity < sizeof(*shm))
        return MP_DAMAGED;
    bool ready = shm->generation == object->generation && mp_load_acquire32(&shm->limit) != 0;
    // Read once, checked, and never again: what others may write to later must not lead out of the block.
    ring->ledger_entries = shm->ledger_entries;
    bool fits =
        ring->ledger_entries <= (capacity - sizeof(*shm)) / sizeof(struct mp_ledger_entry_shm);
    return fits && ready ? MP_OK : MP_DAMAGED;
}

mp_status mp_ring_attach(mp_ring_handle *ring, const mp_object_ticket *ticket)
{
    mp_handle object;
    mp_status status = mp_object_attach(ticket, MP_TYPE_RING, &object);
    if (status != MP_OK)
        return status;
    status = mp_ring_adopt(ring, &object);
    if (status != MP_OK)
        mp_ring_release(ring);
    return status;
}

void mp_ring_release(mp_ring_handle *ring)
{
    if (ring->object.offset != 0)
        mp_object_release(&ring->object);
    ring->shm = NULL;
}
