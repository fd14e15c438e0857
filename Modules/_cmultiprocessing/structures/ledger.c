// SPDX-License-Identifier: PSF-2.0
#include "structures/ledger.h" // the contract

#include "shm/processes.h"        // the dead
#include "structures/ring_walk.h" // chunks

#include <limits.h> // INT_MAX

enum { ROUNDS = 8 }; // looks at a busy queue before an estimate will do

#define JOINER 1U // in `joiners`: somebody waits; the rest is an epoch

static uint64_t entry_make(mp_owner owner, uint32_t count)
{
    return (uint64_t)owner << 32 | count;
}

static mp_owner entry_owner(uint64_t word)
{
    return (mp_owner)(word >> 32);
}

static uint32_t entry_count(uint64_t word)
{
    return (uint32_t)word;
}

/* ---- walking ---- */

/* Visit the entries until `visit` says true; then return true. */
typedef bool (*entry_visit)(uint64_t *word, void *context);

/* Entries are claimed in order, and one that was ever claimed is never 0 again: nobody has any behind
 * the first that is 0. So a walk costs what there are processes, not what there is room for. */
static bool visit_entries(struct mp_ledger_entry_shm *entries, uint64_t count, entry_visit visit,
                          void *context)
{
    for (uint64_t i = 0; i < count; i++) {
        if (visit(&entries[i].word, context))
            return true;
        if (mp_load_acquire64(&entries[i].word) == 0)
            return false;
    }
    return false;
}

static uint64_t chunk_entries(uint64_t chunk, struct mp_ledger_entry_shm **entries)
{
    struct mp_ring_chunk_shm *header = mp_ring_chunk_at(chunk);
    *entries = (struct mp_ledger_entry_shm *)(void *)(header + 1);
    uint64_t capacity = mp_chunk_capacity(chunk) - sizeof(*header);
    return capacity / sizeof(struct mp_ledger_entry_shm);
}

/* Is there a chunk of this ledger, and one whose index is below `above`? Each names one of a lower
 * index, so that a walk through damaged memory ends, too. */
static bool is_ledger_chunk(const struct mp_ring_shm *shm, uint64_t chunk, uint64_t above)
{
    if (chunk == 0 || !mp_chunk_valid(chunk, MP_TYPE_RING_CHUNK) ||
        mp_chunk_capacity(chunk) < sizeof(struct mp_ring_chunk_shm))
        return false;
    const struct mp_ring_chunk_shm *header = mp_ring_chunk_at(chunk);
    return header->role == MP_ROLE_LEDGER && header->ring_generation == shm->generation &&
           header->index < above;
}

/* The chunk behind `chunk` (0: the first one), or 0. */
static uint64_t next_ledger_chunk(const struct mp_ring_shm *shm, uint64_t chunk)
{
    uint64_t next = chunk == 0 ? mp_load_acquire64(&shm->ledger) // SYNC: ledger chunk
                               : mp_ring_chunk_at(chunk)->next;
    uint64_t above = chunk == 0 ? UINT64_MAX : mp_ring_chunk_at(chunk)->index;
    return is_ledger_chunk(shm, next, above) ? next : 0;
}

static bool visit_ledger(const mp_ring_handle *ring, entry_visit visit, void *context)
{
    const struct mp_ring_shm *shm = ring->shm;
    struct mp_ledger_entry_shm *entries = (struct mp_ledger_entry_shm *)(void *)(ring->shm + 1);
    if (visit_entries(entries, ring->ledger_entries, visit, context))
        return true;
    for (uint64_t chunk = 0; (chunk = next_ledger_chunk(shm, chunk)) != 0;) {
        uint64_t count = chunk_entries(chunk, &entries);
        if (visit_entries(entries, count, visit, context))
            return true;
    }
    return false;
}

bool mp_ledger_has_chunk(const struct mp_ring_shm *shm, uint64_t chunk)
{
    for (uint64_t at = 0; (at = next_ledger_chunk(shm, at)) != 0;) {
        if (at == chunk)
            return true;
    }
    return false;
}

/* ---- taking ---- */

static uint64_t *own_entry(const mp_ring_handle *ring)
{
    uint64_t entry = mp_load_relaxed64(&ring->ledger_entry);
    if (entry == 0)
        return NULL;
    uint64_t *word = mp_at(entry);
    return entry_owner(mp_load_relaxed64(word)) == mp_self() ? word : NULL;
}

/* Claim an entry that nobody needs: never used, or 0, or of the dead (whose items count as done). */
static bool claim(uint64_t *word, void *context)
{
    uint64_t seen = mp_load_relaxed64(word);
    mp_owner owner = entry_owner(seen);
    if (owner != mp_self()) {
        if (entry_count(seen) != 0 && !mp_owner_dead(owner))
            return false;
        if (!mp_cas64(word, &seen, entry_make(mp_self(), 0)))
            return false;
    }
    *(uint64_t **)context = word;
    return true;
}

/* Never used before, or ours: keeps processes from taking each other's entries in turn. */
static bool claim_fresh(uint64_t *word, void *context)
{
    mp_owner owner = entry_owner(mp_load_relaxed64(word));
    return (owner == MP_NOBODY || owner == mp_self()) && claim(word, context);
}

mp_status mp_ledger_prepare(mp_ring_handle *ring)
{
    if (mp_likely(own_entry(ring) != NULL))
        return MP_OK;
    uint64_t *word = NULL;
    if (!visit_ledger(ring, claim_fresh, &word) && !visit_ledger(ring, claim, &word))
        return MP_INTERRUPTED;
    mp_store_relaxed64(&ring->ledger_entry, mp_offset_of(word));
    return MP_OK;
}

mp_status mp_ledger_grow(mp_ring_handle *ring)
{
    struct mp_ring_shm *shm = ring->shm;
    uint64_t chunk;
    mp_status status = mp_ring_chunk_make(ring, 1, &chunk);
    if (status != MP_OK)
        return status;
    struct mp_ring_chunk_shm *header = mp_ring_chunk_at(chunk);
    struct mp_ledger_entry_shm *entries;
    uint64_t count = chunk_entries(chunk, &entries);
    for (uint64_t i = 0; i < count; i++)
        entries[i].word = 0;
    header->role = MP_ROLE_LEDGER;
    uint64_t first = mp_load_acquire64(&shm->ledger);
    do {
        header->next = first;
        header->index =
            is_ledger_chunk(shm, first, UINT64_MAX) ? mp_ring_chunk_at(first)->index + 1 : 1;
    } while (!mp_cas64(&shm->ledger, &first, chunk)); // SYNC: ledger chunk
    return mp_ledger_prepare(ring);
}

mp_status mp_ledger_add(mp_ring_handle *ring, uint32_t count)
{
    uint64_t *word = own_entry(ring);
    if (word == NULL)
        return MP_INTERRUPTED;
    uint64_t seen = mp_load_relaxed64(word);
    do {
        if (entry_owner(seen) != mp_self())
            return MP_INTERRUPTED;
        // Who never calls task_done() gets that far in hours: the count must not run into the owner.
        if (count > UINT32_MAX - entry_count(seen))
            count = UINT32_MAX - entry_count(seen);
    } while (!mp_cas64(word, &seen, seen + count));
    return MP_OK;
}

/* ---- finishing ---- */

static bool decrement(uint64_t *word)
{
    uint64_t seen = mp_load_relaxed64(word);
    while (entry_count(seen) != 0) {
        if (mp_cas64(word, &seen, seen - 1))
            return true;
    }
    return false;
}

static bool decrement_own(uint64_t *word, void *context)
{
    (void)context;
    return entry_owner(mp_load_relaxed64(word)) == mp_self() && decrement(word);
}

/* task_done() for what another process got. */
static bool decrement_living(uint64_t *word, void *context)
{
    (void)context;
    uint64_t seen = mp_load_relaxed64(word);
    return entry_count(seen) != 0 && !mp_owner_dead(entry_owner(seen)) && decrement(word);
}

/* task_done() before get(): as many as there are items in the queue. */
static bool count_early(mp_ring_handle *ring)
{
    uint32_t seen = mp_load_relaxed32(&ring->shm->early);
    do {
        if (seen >= mp_ring_size(ring))
            return false;
    } while (!mp_cas32(&ring->shm->early, &seen, seen + 1));
    return true;
}

static bool finish_one(mp_ring_handle *ring)
{
    uint64_t *word = own_entry(ring);
    if (word != NULL && decrement(word))
        return true;
    return visit_ledger(ring, decrement_own, NULL) || visit_ledger(ring, decrement_living, NULL) ||
           count_early(ring);
}

/* Was there a moment since the last task_done() with something unfinished, by the shortest look? Then
 * it is for the task_done() that finishes that to announce it. Without this every task_done() in front
 * of a join() would read the whole ledger. */
static bool plainly_unfinished(const mp_ring_handle *ring)
{
    const struct mp_ring_shm *shm = ring->shm;
    if (mp_load_acquire32(&shm->early) != 0)
        return false;
    const uint64_t *word = own_entry(ring);
    // Counts that differ: there is an item, or one was put between the two loads.
    return (word != NULL && entry_count(mp_load_acquire64(word)) != 0) || !mp_ring_empty(ring);
}

mp_status mp_ledger_done(mp_ring_handle *ring)
{
    if (!finish_one(ring))
        return MP_MISUSE;
    // The count is down before the look at joiners, theirs is up before their look at the counts. A
    // death in between costs them a slice.
    if (mp_unlikely(mp_load_acquire32(&ring->shm->joiners) & JOINER) && !plainly_unfinished(ring))
        mp_ledger_announce(ring);
    return MP_OK;
}

static bool sum_living(uint64_t *word, void *context)
{
    uint64_t seen = mp_load_acquire64(word);
    if (entry_count(seen) != 0 && !mp_owner_dead(entry_owner(seen)))
        *(uint64_t *)context += entry_count(seen);
    return false;
}

uint64_t mp_ledger_unfinished(const mp_ring_handle *ring)
{
    struct mp_ring_shm *shm = ring->shm;
    for (uint32_t round = 0;; round++) {
        // Nothing was put or taken while the ledger was read, so its counts only went down: a sum of 0
        // was true at the end of the reading.
        uint64_t head = mp_load_acquire64(&shm->head) & ~MP_RING_WAITERS;
        uint64_t tail = mp_load_acquire64(&shm->tail) & ~MP_RING_WAITERS;
        uint64_t sum = mp_count_between(mp_word_count(head), mp_word_count(tail));
        (void)visit_ledger(ring, sum_living, &sum);
        uint64_t early = mp_load_acquire32(&shm->early);
        mp_fence();
        bool still = (mp_load_acquire64(&shm->head) & ~MP_RING_WAITERS) == head &&
                     (mp_load_acquire64(&shm->tail) & ~MP_RING_WAITERS) == tail;
        // Only a 0 must be exact: a queue that is always busy must not keep task_done() here for ever.
        if (still || (sum > early && round >= ROUNDS))
            return sum > early ? sum - early : 0;
    }
}

/* ---- joining ---- */

void mp_ledger_announce(mp_ring_handle *ring)
{
    uint32_t *joiners = &ring->shm->joiners;
    uint32_t seen = mp_load_acquire32(joiners);
    if (!(ring->shm->flags & MP_RING_JOINABLE) || !(seen & JOINER) ||
        mp_ledger_unfinished(ring) != 0)
        return;
    // The next epoch, without joiners: whoever is about to sleep on the old one does not.
    if (mp_cas32(joiners, &seen, (seen + 2) & ~JOINER))
        (void)mp_futex_wake(joiners, INT_MAX);
}

mp_status mp_ledger_join(mp_ring_handle *ring, mp_time deadline, mp_ledger_wait *wait)
{
    uint32_t *joiners = &ring->shm->joiners;
    uint32_t seen = mp_fetch_or32(joiners, JOINER) | JOINER;
    if (wait->round == 0)
        wait->epoch = seen;
    // Another epoch: it was finished since, even if somebody has put something again.
    if (seen != wait->epoch || mp_ledger_unfinished(ring) == 0)
        return MP_OK;
    mp_time until = mp_ring_slice(&wait->round, deadline);
    mp_status status = mp_futex_wait(joiners, seen, until);
    return status == MP_TIMEOUT && until >= deadline ? MP_TIMEOUT : MP_INTERRUPTED;
}
