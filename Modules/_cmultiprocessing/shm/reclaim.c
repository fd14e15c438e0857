// SPDX-License-Identifier: PSF-2.0
#include "shm/reclaim.h" // the contract

#include "shm/mutex.h"     // reclaim_mutex
#include "shm/objects.h"   // births, retirement
#include "shm/processes.h" // dead owners

#include <stdlib.h> // malloc, qsort
#include <string.h> // memset

enum { RETIRED_LIMIT = 64, RETIRED_UNITS_LIMIT = 256, REST_FACTOR = 50, DEATH_WEIGHT = 4 };

#define LONGEST_REST (UINT64_C(200) * MP_MILLISECOND)

static const struct mp_type_ops *type_ops[256]; // written before the first object, then constant

/* This process's last collection; written under reclaim_mutex, read by any thread: atomic. */
static struct {
    uint64_t end, took; // nanoseconds
    uint64_t survivors; // retired objects that it had to leave
} last;

void mp_reclaim_register(uint32_t type, const struct mp_type_ops *ops)
{
    type_ops[type & 0xffU] = ops;
}

void mp_reclaim_finalize(uint64_t offset, uint32_t type)
{
    const struct mp_type_ops *ops = type_ops[type & 0xffU];
    if (ops != NULL && ops->finalize != NULL)
        ops->finalize(offset);
}

/* ---- one collection's private memory ---- */

struct list {
    uint64_t *items;
    size_t count, room;
    bool failed; // out of private memory: the collection is given up
};

struct collection {
    mp_owner known_dead[64], known_alive[64]; // verdicts of this collection, by slot
    struct list candidates;                   // retired objects
    struct list marked;                       // objects that a reference or pin names
    struct list empty_slabs;
    uint64_t free_units, used_units, warm_bytes, orphan_slabs;
    uint64_t garbage; // a run that the sweep made ours, or 0; released after heap_mutex
    bool given_up;    // what was counted is not all
};

static void append(struct list *list, uint64_t item)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 256;
        uint64_t *items = realloc(list->items, room * sizeof *items);
        if (items == NULL) {
            list->failed = true;
            return;
        }
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = item;
}

/* Within a collection a process that was alive stays so, and the dead stay dead. */
static bool is_dead(struct collection *collection, mp_owner owner)
{
    uint32_t place = owner % 64;
    if (owner == MP_NOBODY || owner == MP_DISOWNED || collection->known_alive[place] == owner)
        return false;
    if (collection->known_dead[place] == owner)
        return true;
    bool dead = mp_owner_dead(owner);
    (dead ? collection->known_dead : collection->known_alive)[place] = owner;
    return dead;
}

/* ---- sweeping the dead ---- */

static void sweep_reference(uint64_t offset, uint64_t state)
{
    const struct mp_reference_shm *reference = mp_chunk_payload(offset);
    uint64_t object = mp_load_acquire64(&reference->object);
    if (mp_reachable(object, MP_CHUNK_HEADER) && object % sizeof(uint64_t) == 0)
        mp_object_touch_retired(object, reference->generation);
    (void)mp_chunk_release_if(offset, state);
}

/* Runs have pages to give back, which takes longer than a mutex may be held. */
static void release_swept(struct collection *collection, uint64_t offset, uint64_t state)
{
    if (!mp_chunk_is_run(offset))
        (void)mp_chunk_release_if(offset, state);
    else if (mp_chunk_claim_if(offset, state))
        collection->garbage = offset;
}

static void sweep_linked(struct collection *collection, uint64_t offset, uint64_t state)
{
    const struct mp_type_ops *ops = type_ops[mp_state_type(state)];
    if (ops != NULL && ops->linked != NULL && ops->linked(offset, state))
        return;
    mp_reclaim_finalize(offset, mp_state_type(state));
    release_swept(collection, offset, state);
}

static void sweep_chunk(struct collection *collection, uint64_t offset)
{
    uint64_t state = mp_load_acquire64(&mp_chunk_at(offset)->state);
    uint32_t type = mp_state_type(state);
    if (type == MP_TYPE_FREE || type == MP_TYPE_WARM)
        return;
    bool dead = is_dead(collection, mp_state_owner(state));
    if (type == MP_TYPE_PIN) {
        // A pickle outlives its sender, but not the process that it was meant for.
        const struct mp_reference_shm *pin = mp_chunk_payload(offset);
        bool unfinished = dead && mp_load_acquire64(&pin->object) == 0;
        if (unfinished || is_dead(collection, pin->target))
            sweep_reference(offset, state);
    } else if (type == MP_TYPE_REFERENCE) {
        if (dead)
            sweep_reference(offset, state);
    } else if (type < MP_TYPE_FIRST_OBJECT) {
        if (dead)
            sweep_linked(collection, offset, state);
    } else {
        if (dead && mp_load_relaxed64(&mp_chunk_at(offset)->life) == 0) {
            // Unborn (objects.c): its maker never got to know it. Not to be finalized, nor retired:
            // every process would count as one that may know an object so old.
            release_swept(collection, offset, state);
            return;
        }
        if (dead)
            mp_object_retire(offset, state);
        if (dead || mp_state_owner(state) == MP_DISOWNED)
            append(&collection->candidates, offset);
    }
}

static uint32_t chunk_count(uint32_t class)
{
    return (uint32_t)(MP_SLAB_UNITS * MP_UNIT / mp_slab_chunk_size(class));
}

static void sweep_slab(struct collection *collection, uint64_t unit, struct mp_unit_shm *run)
{
    uint64_t word = mp_load_acquire64(&run->word);
    uint32_t class = mp_unit_class(word);
    for (uint32_t i = 0; i < chunk_count(class); i++)
        sweep_chunk(collection, mp_unit_offset(unit) + (uint64_t)i * mp_slab_chunk_size(class));
    uint64_t orphan = MP_UNIT_WORD(MP_DISOWNED, MP_UNIT_SLAB, class);
    if (is_dead(collection, mp_unit_owner(word)) && mp_cas64(&run->word, &word, orphan))
        word = orphan;
    if (word == orphan) {
        collection->orphan_slabs++;
        append(&collection->empty_slabs, unit); // looked at again at the end
    }
}

static void sweep_run(struct collection *collection, uint64_t unit, struct mp_unit_shm *run)
{
    uint64_t offset = mp_unit_offset(unit);
    uint64_t word = mp_load_acquire64(&run->word);
    uint64_t state = mp_load_acquire64(&mp_chunk_at(offset)->state);
    if (mp_state_type(state) == MP_TYPE_WARM) {
        if (!mp_warm_is_listed(offset, state) && mp_warm_claim(offset, state))
            collection->garbage = offset;
        return;
    }
    // Whoever took or released it died between the descriptor's store and the header's.
    uint64_t mine = MP_UNIT_WORD(mp_self(), MP_UNIT_RUN, 0);
    if (mp_state_type(state) == MP_TYPE_FREE) {
        if (is_dead(collection, mp_unit_owner(word)) && mp_cas64(&run->word, &word, mine))
            collection->garbage = offset;
        return;
    }
    sweep_chunk(collection, offset);
}

static bool reachable_run(uint64_t unit, const struct mp_unit_shm *run)
{
    return mp_reachable(mp_unit_offset(unit), mp_unit_length(run) * MP_UNIT);
}

static void sweep_locked(struct collection *collection, uint64_t unit, struct mp_unit_shm *run)
{
    uint32_t kind = mp_unit_kind(mp_load_acquire64(&run->word));
    if (kind == MP_UNIT_FREE || kind == MP_UNIT_INSIDE || !reachable_run(unit, run))
        return; // mapped by others only: they sweep it
    if (kind == MP_UNIT_SLAB)
        sweep_slab(collection, unit, run);
    else
        sweep_run(collection, unit, run);
}

/* While heap_mutex is held a used run may become free, but nobody can take it again: what stands at
 * its beginning is a header, not somebody's data. Held for one run at a time. */
static void visit_sweep(uint64_t unit, struct mp_unit_shm *run, void *argument)
{
    struct mp_mutex_shm *mutex = &mp_family_shm()->heap_mutex;
    struct collection *collection = argument;
    if (collection->given_up)
        return;
    // Whoever holds it was stopped there: garbage can wait until he goes on.
    if (mp_mutex_lock_briefly(mutex) == MP_TIMEOUT) {
        collection->given_up = true;
        return;
    }
    sweep_locked(collection, unit, run);
    mp_mutex_unlock(mutex);
    if (collection->garbage != 0)
        mp_chunk_release(collection->garbage); // if we die before, it has a dead owner
    collection->garbage = 0;
}

/* ---- marking and freeing ---- */

static void mark_slab(struct collection *collection, uint64_t unit, uint32_t class)
{
    for (uint32_t i = 0; i < chunk_count(class); i++) {
        uint64_t offset = mp_unit_offset(unit) + (uint64_t)i * mp_slab_chunk_size(class);
        uint32_t type = mp_state_type(mp_load_acquire64(&mp_chunk_at(offset)->state));
        if (type != MP_TYPE_REFERENCE && type != MP_TYPE_PIN)
            continue;
        const struct mp_reference_shm *reference = mp_chunk_payload(offset);
        append(&collection->marked, mp_load_acquire64(&reference->object)); // SYNC: reference
    }
}

static void visit_mark(uint64_t unit, struct mp_unit_shm *run, void *argument)
{
    uint64_t word = mp_load_acquire64(&run->word);
    uint32_t class = mp_unit_class(word);
    // References fit the smallest class, and stand nowhere else.
    if (mp_unit_kind(word) == MP_UNIT_SLAB && class == 0 && reachable_run(unit, run))
        mark_slab(argument, unit, class);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static bool is_marked(const struct collection *collection, uint64_t offset)
{
    const struct list *marked = &collection->marked;
    return marked->count != 0 &&
           bsearch(&offset, marked->items, marked->count, sizeof offset, compare) != NULL;
}

/* Retired objects are freed by collectors only, one at a time: one that is retired now stays there. */
static bool is_retired(uint64_t state)
{
    return mp_state_owner(state) == MP_DISOWNED && mp_state_type(state) >= MP_TYPE_FIRST_OBJECT;
}

static void begin_mark(const struct collection *collection)
{
    for (size_t i = 0; i < collection->candidates.count; i++) {
        uint64_t offset = collection->candidates.items[i];
        if (is_retired(mp_load_acquire64(&mp_chunk_at(offset)->state)))
            mp_object_begin_mark(offset);
    }
    mp_fence(); // SYNC: reference
}

static bool free_candidate(const struct collection *collection, uint64_t offset)
{
    struct mp_chunk_shm *chunk = mp_chunk_at(offset);
    uint64_t state = mp_load_acquire64(&chunk->state);
    uint64_t life = mp_load_acquire64(&chunk->life); // SYNC: pinned since
    if (!is_retired(state))
        return true;
    if (is_marked(collection, offset) || mp_object_pinned_since(life) ||
        mp_processes_may_know(mp_object_birth(life), (uint32_t)(life >> 32)))
        return false;
    mp_reclaim_finalize(offset, mp_state_type(state));
    (void)mp_chunk_release_if(offset, state);
    return true;
}

/* Returns how many had to stay. */
static uint64_t free_candidates(struct collection *collection)
{
    uint64_t survivors = 0;
    begin_mark(collection);
    mp_run_walk(visit_mark, collection);
    if (collection->marked.failed)
        return collection->candidates.count;
    if (collection->marked.count != 0)
        qsort(collection->marked.items, collection->marked.count, sizeof(uint64_t), compare);
    for (size_t i = 0; i < collection->candidates.count; i++) {
        if (!free_candidate(collection, collection->candidates.items[i]))
            survivors++;
    }
    return survivors;
}

/* Orphan slabs that are empty now go back as runs. An adopter may be faster. */
static void release_empty_slabs(struct collection *collection)
{
    for (size_t i = 0; i < collection->empty_slabs.count; i++) {
        uint64_t unit = collection->empty_slabs.items[i];
        struct mp_unit_shm *run = mp_unit_at(unit);
        uint64_t word = mp_load_acquire64(&run->word);
        uint64_t mine = MP_UNIT_WORD(mp_self(), MP_UNIT_SLAB, mp_unit_class(word));
        if (mp_unit_kind(word) != MP_UNIT_SLAB || mp_unit_owner(word) != MP_DISOWNED ||
            !mp_slab_is_empty(unit) || !mp_cas64(&run->word, &word, mine))
            continue;
        mp_run_release(unit);
        collection->orphan_slabs--;
    }
}

static bool is_warm(uint64_t unit, const struct mp_unit_shm *run)
{
    uint64_t offset = mp_unit_offset(unit);
    if (mp_unit_kind(mp_load_acquire64(&run->word)) != MP_UNIT_RUN || !reachable_run(unit, run))
        return false;
    uint64_t state = mp_load_acquire64(&mp_chunk_at(offset)->state);
    return mp_state_type(state) == MP_TYPE_WARM && mp_warm_is_listed(offset, state);
}

/* After the collection: what it has freed counts as free. */
static void visit_count(uint64_t unit, struct mp_unit_shm *run, void *argument)
{
    struct collection *collection = argument;
    uint32_t kind = mp_unit_kind(mp_load_acquire64(&run->word));
    uint64_t length = mp_unit_length(run);
    if (kind == MP_UNIT_FREE || kind == MP_UNIT_INSIDE) {
        collection->free_units += length;
        return;
    }
    collection->used_units += length;
    if (is_warm(unit, run))
        collection->warm_bytes += length * MP_UNIT;
}

/* What deaths have made wrong. What others do meanwhile is lost to these counters: they are hints. */
static void correct_hints(struct mp_family_shm *family, const struct collection *collection)
{
    mp_store_relaxed64(&family->free_units, collection->free_units);
    mp_store_relaxed64(&family->used_units, collection->used_units);
    mp_store_relaxed64(&family->warm_bytes, collection->warm_bytes);
    mp_store_relaxed32(&family->orphan_slabs, (uint32_t)collection->orphan_slabs);
}

static void collect(void)
{
    struct mp_family_shm *family = mp_family_shm();
    struct collection collection;
    memset(&collection, 0, sizeof collection);
    mp_store_relaxed64(&family->retired, 0);
    mp_store_relaxed64(&family->retired_units, 0);
    mp_warm_refuse(true); // what nobody asked for is not what somebody will ask for next
    mp_warm_forget_stale();
    mp_run_walk(visit_sweep, &collection);
    mp_store_relaxed64(&last.survivors,
                       collection.candidates.count != 0 ? free_candidates(&collection) : 0);
    release_empty_slabs(&collection);
    mp_warm_refuse(false);
    if (!collection.given_up) {
        mp_run_walk(visit_count, &collection);
        correct_hints(family, &collection);
    }
    (void)mp_fetch_add64(&family->collections, 1);
    free(collection.candidates.items);
    free(collection.marked.items);
    free(collection.empty_slabs.items);
}

mp_status mp_reclaim_now(void)
{
    struct mp_mutex_shm *mutex = &mp_family_shm()->reclaim_mutex;
    mp_status status = mp_mutex_try(mutex);
    if (status != MP_OK && status != MP_OWNER_DIED)
        return MP_WOULD_BLOCK;
    uint64_t begin = (uint64_t)mp_clock_now();
    collect();
    uint64_t end = (uint64_t)mp_clock_now();
    mp_store_relaxed64(&last.end, end);
    mp_store_relaxed64(&last.took, end - begin);
    mp_mutex_unlock(mutex);
    mp_chunks_trim();
    return MP_OK;
}

void mp_reclaim_maybe(void)
{
    const struct mp_family_shm *family = mp_family_shm();
    uint64_t retired = mp_load_relaxed64(&family->retired);
    if (retired < RETIRED_LIMIT + mp_load_relaxed64(&last.survivors) &&
        mp_load_relaxed64(&family->retired_units) < RETIRED_UNITS_LIMIT)
        return;
    uint64_t rested = (uint64_t)mp_clock_now() - mp_load_relaxed64(&last.end);
    uint64_t rest = mp_load_relaxed64(&last.took) * REST_FACTOR;
    // On a busy machine a collection may take long without working long.
    if (rested >= (rest < LONGEST_REST ? rest : LONGEST_REST))
        (void)mp_reclaim_now();
}

void mp_reclaim_death(void)
{
    (void)mp_fetch_add64(&mp_family_shm()->retired, DEATH_WEIGHT);
    mp_reclaim_maybe();
}
