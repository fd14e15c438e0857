// SPDX-License-Identifier: PSF-2.0
/* A queue of records between processes: a chain of chunks, one word that commits a put and one that
 * commits a take (ring_shm.h draws it).
 *
 *     mp_ring_handle ring;
 *     status = mp_ring_create(&ring, 0, false);
 *     status = mp_ring_put(&ring, &item, 1, &done);       // quick: the caller may hold the GIL
 *     if (status == MP_INTERRUPTED)
 *         status = mp_ring_put_slow(&ring, &item, 1, &done);
 *     status = mp_ring_take(&ring, 1, &batch);
 *
 * Results of put and take, beside those that say so themselves:
 *     MP_OK           something was put or taken, and the store that says so has happened
 *     MP_WOULD_BLOCK  the queue is full, or empty
 *     MP_CLOSED       shut down
 *     MP_INTERRUPTED  the quick call needs more than a microsecond (a mutex, memory): make the slow
 *                     call. From the slow call: look at signals and call again, unless mp_mutex_busy
 *                     says that this took long enough
 *     MP_NO_MEMORY, MP_NO_SPACE   no room for the item; the queue is unchanged
 *     MP_DAMAGED      the memory of the queue holds what no correct process wrote
 *
 * A process may be killed anywhere in here. Before its commit nothing has happened; after it
 * everything has: what it leaves behind is repaired by the next one that takes the mutex. */
#ifndef MP_STRUCTURES_RING_H
#define MP_STRUCTURES_RING_H

#include "structures/ring_shm.h" // the words and records
#include "sync/spin.h"           // whether spinning pays

/* What waiting for warm memory (message.c) brought lately. Relaxed atomics: a guess that threads may
 * spoil. */
typedef struct mp_ring_patience {
    uint32_t seen; // count of head when it was last in vain
    uint32_t vain; // how often in a row
} mp_ring_patience;

/* The process's own half. Threads may share it. */
typedef struct mp_ring_handle {
    mp_handle object;
    struct mp_ring_shm *shm;
    uint32_t ledger_entries; // in the block; as checked when it was attached
    uint64_t ledger_entry;   // offset of the entry that this process used last, or 0
    mp_spin_memory for_items, for_space;
    mp_ring_patience patience;
} mp_ring_handle;

/* What is put: bytes that fit a record, or a message made by message.h. */
typedef struct mp_ring_item {
    uint32_t tag;
    uint32_t length; // <= MP_INLINE_MAX
    const void *payload;
    uint64_t message; // offset of a message, or 0
} mp_ring_item;

/* Where taken records go, as they lay in the queue: headers, payloads, padding. */
typedef struct mp_ring_batch {
    void *bytes;     // aligned to 8
    size_t capacity; // at least mp_record_room(MP_INLINE_MAX)
    size_t used;
    uint32_t count;
} mp_ring_batch;

/* Register what the collector must know. Once per process, before the first queue. */
void mp_ring_init(void);

/* limit: at most so many items, 1 .. MP_RING_ITEMS_MAX; 0 = as many as fit. */
mp_status mp_ring_create(mp_ring_handle *ring, uint32_t limit, bool joinable);
mp_status mp_ring_attach(mp_ring_handle *ring, const mp_object_ticket *ticket);
void mp_ring_release(mp_ring_handle *ring);

/* The same for callers that keep the object's handle themselves: make an object of MP_TYPE_RING and
 * mp_ring_bytes, then set it up; or attach one, then adopt it (MP_DAMAGED: it is no queue). */
uint64_t mp_ring_bytes(bool joinable);
void mp_ring_setup(mp_ring_handle *ring, const mp_handle *object, uint32_t limit, bool joinable);
mp_status mp_ring_adopt(mp_ring_handle *ring, const mp_handle *object);

/* Put items in order, as many as there is room for at once; `*done` says how many. The queue owns
 * the messages of those, the caller those of the rest. */
mp_status mp_ring_put(mp_ring_handle *ring, const mp_ring_item *items, size_t count, size_t *done);
mp_status mp_ring_put_slow(mp_ring_handle *ring, const mp_ring_item *items, size_t count,
                           size_t *done);

/* Take up to `most` records that are there. The process owns the messages that they link. In a
 * joinable queue they count as unfinished from here on. */
mp_status mp_ring_take(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch);
mp_status mp_ring_take_slow(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch);

uint32_t mp_ring_size(const mp_ring_handle *ring);
bool mp_ring_empty(const mp_ring_handle *ring);

/* Stop puts; `immediate`: drop what is in, too. Wakes everybody. Call it without the GIL;
 * MP_INTERRUPTED: again. */
mp_status mp_ring_shutdown(mp_ring_handle *ring, bool immediate);
/* enum mp_ring_closed. */
uint32_t mp_ring_state(const mp_ring_handle *ring);

/* ---- waiting ----
 *
 * Call them after MP_WOULD_BLOCK, without the GIL. Each returns MP_OK when it is worth trying again,
 * MP_INTERRUPTED when a signal arrived or the slice is over, MP_TIMEOUT. `*round` counts the slices;
 * 0 at first. */
mp_status mp_ring_wait_items(mp_ring_handle *ring, mp_time deadline, uint32_t *round);
mp_status mp_ring_wait_space(mp_ring_handle *ring, mp_time deadline, uint32_t *round);

/* Look for items for a few hundred nanoseconds; the caller may hold the GIL. */
bool mp_ring_glance_items(const mp_ring_handle *ring);

/* The same two sleeps for threads that somebody may call off: `*stop` is looked at after the sleep was
 * announced. mp_ring_call_off makes every sleeper look again. */
mp_status mp_ring_sleep_items(mp_ring_handle *ring, mp_time deadline, const uint32_t *stop);
void mp_ring_call_off(mp_ring_handle *ring);

/* The slice that a sleep may last: short at first, so that what was missed by a death is found soon. */
mp_time mp_ring_slice(uint32_t *round, mp_time deadline);

#endif
