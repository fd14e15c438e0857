// SPDX-License-Identifier: PSF-2.0
#include "shm/chunks.h" // the contract

#include "shm/reclaim.h" // when memory is short

#include <pthread.h> // the private lock
#include <stdlib.h>  // realloc
#include <string.h>  // memset

/* ---- size classes ---- */

enum { SMALLEST_SHIFT = 5, CLASSES = 7, STACK = 512 };

#define SLAB_BYTES (MP_SLAB_UNITS * MP_UNIT)

static_assert((1U << (SMALLEST_SHIFT + CLASSES - 1)) == MP_SMALL_LIMIT + MP_CHUNK_HEADER, "limit");

uint32_t mp_slab_chunk_size(uint32_t class)
{
    return 1U << (SMALLEST_SHIFT + class);
}

static uint32_t class_of(uint64_t bytes)
{
    uint32_t class = 0;
    while (mp_slab_chunk_size(class) < bytes)
        class ++;
    return class;
}

/* ---- private state of this process: which slabs are ours, which of their chunks are free ---- */

struct size_class {
    uint64_t *free;  // offsets of chunks whose state is FREE, in slabs of ours; STACK of them
    uint64_t *slabs; // first units
    uint32_t free_count;
    uint32_t slab_count, slab_room;
};

static uint64_t stacks[CLASSES][STACK];

/* The counts of all classes lie together, away from the stacks: a forked child empties its lists, and
 * each page that it writes to for that has to be copied. */
static struct {
    pthread_mutex_t lock; // held for a moment, never across a call that can block, but for a fork
    struct size_class classes[CLASSES];
} private = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .classes = {{.free = stacks[0]},
                {.free = stacks[1]},
                {.free = stacks[2]},
                {.free = stacks[3]},
                {.free = stacks[4]},
                {.free = stacks[5]},
                {.free = stacks[6]}},
};

static_assert(CLASSES == 7, "one stack each");

static _Thread_local struct mp_refusal refusal;

struct mp_refusal mp_chunk_refusal(void)
{
    return refusal;
}

static void forget_lists(void)
{
    for (int i = 0; i < CLASSES; i++) {
        private.classes[i].free_count = 0;
        private.classes[i].slab_count = 0;
    }
}

void mp_chunks_before_fork(void)
{
    pthread_mutex_lock(&private.lock);
}

void mp_chunks_after_fork(bool child)
{
    if (child)
        forget_lists();
    pthread_mutex_unlock(&private.lock);
}

/* ---- slabs ---- */

static uint64_t chunk_in(uint64_t unit, uint32_t class, uint32_t index)
{
    return mp_unit_offset(unit) + (uint64_t)index * mp_slab_chunk_size(class);
}

static uint32_t chunks_per_slab(uint32_t class)
{
    return (uint32_t)(SLAB_BYTES >> (SMALLEST_SHIFT + class));
}

static bool is_free_chunk(uint64_t offset)
{
    return mp_state_type(mp_load_acquire64(&mp_chunk_at(offset)->state)) == MP_TYPE_FREE;
}

bool mp_slab_is_empty(uint64_t unit)
{
    uint32_t class = mp_unit_class(mp_load_acquire64(&mp_unit_at(unit)->word));
    for (uint32_t i = 0; class < CLASSES && i < chunks_per_slab(class); i++) {
        if (!is_free_chunk(chunk_in(unit, class, i)))
            return false;
    }
    return true;
}

/* A new slab's headers: free, with generations that an old pickle does not name by chance. */
static void prepare_slab(uint64_t unit)
{
    uint64_t seed = (uint64_t)mp_clock_now() >> 4;
    // The finest stride serves every class; what lies between headers does not matter.
    for (uint64_t at = 0; at < SLAB_BYTES; at += 1U << SMALLEST_SHIFT)
        mp_store_relaxed64(&mp_chunk_at(mp_unit_offset(unit) + at)->state,
                           MP_STATE(MP_NOBODY, seed, MP_TYPE_FREE));
    for (uint32_t i = 1; i < MP_SLAB_UNITS; i++) {
        mp_store_relaxed32(&mp_unit_at(unit + i)->length, i);
        mp_store_release64(&mp_unit_at(unit + i)->word, MP_UNIT_WORD(MP_NOBODY, MP_UNIT_INSIDE, 0));
    }
}

/* The first unit of the slab that the chunk lies in. */
static uint64_t slab_of(uint64_t offset)
{
    uint64_t unit = mp_unit_of(offset);
    const struct mp_unit_shm *run = mp_unit_at(unit);
    if (mp_unit_kind(mp_load_acquire64(&run->word)) == MP_UNIT_INSIDE)
        unit -= mp_unit_length(run) < MP_SLAB_UNITS ? mp_unit_length(run) : 0;
    return unit;
}

static bool remember_slab(struct size_class *sizes, uint64_t unit)
{
    if (sizes->slab_count == sizes->slab_room) {
        uint32_t room = sizes->slab_room ? sizes->slab_room * 2 : 8;
        uint64_t *slabs = realloc(sizes->slabs, room * sizeof *slabs);
        if (slabs == NULL)
            return false;
        sizes->slabs = slabs;
        sizes->slab_room = room;
    }
    sizes->slabs[sizes->slab_count++] = unit;
    return true;
}

/* Put the free chunks of a slab of ours on the list, as many as there is room for. */
static void list_free_locked(struct size_class *sizes, uint32_t class, uint64_t unit)
{
    for (uint32_t i = chunks_per_slab(class); i-- > 0;) {
        uint64_t offset = chunk_in(unit, class, i);
        if (!is_free_chunk(offset))
            continue;
        if (sizes->free_count == STACK) {
            // The rest is found by the next look.
            (void)mp_fetch_add32(&mp_unit_at(unit)->remote, 1);
            return;
        }
        sizes->free[sizes->free_count++] = offset;
    }
}

/* Look at the slabs of ours in which others released chunks. The list is empty. */
static bool rescan_locked(struct size_class *sizes, uint32_t class)
{
    for (size_t i = sizes->slab_count; i-- > 0 && sizes->free_count == 0;) {
        struct mp_unit_shm *slab = mp_unit_at(sizes->slabs[i]);
        if (mp_load_relaxed32(&slab->remote) != 0) {
            (void)mp_exchange32(&slab->remote, 0);
            list_free_locked(sizes, class, sizes->slabs[i]);
        }
    }
    return sizes->free_count != 0;
}

struct adoption {
    uint32_t class;
    uint64_t unit;
};

static void adopt_if_orphan(uint64_t unit, struct mp_unit_shm *run, void *argument)
{
    struct adoption *adoption = argument;
    uint64_t word = MP_UNIT_WORD(MP_DISOWNED, MP_UNIT_SLAB, adoption->class);
    if (adoption->unit == UINT64_MAX && mp_load_relaxed64(&run->word) == word &&
        mp_cas64(&run->word, &word, MP_UNIT_WORD(mp_self(), MP_UNIT_SLAB, adoption->class)))
        adoption->unit = unit;
}

/* A slab that a process left behind, or UINT64_MAX. */
static uint64_t adopt_slab(uint32_t class)
{
    struct mp_family_shm *family = mp_family_shm();
    struct adoption adoption = {class, UINT64_MAX};
    if (mp_load_relaxed32(&family->orphan_slabs) == 0)
        return UINT64_MAX;
    mp_run_walk(adopt_if_orphan, &adoption);
    if (adoption.unit != UINT64_MAX)
        (void)mp_fetch_add32(&family->orphan_slabs, (uint32_t)-1);
    else
        mp_store_relaxed32(&family->orphan_slabs, 0); // of other classes; a collection counts again
    return adoption.unit;
}

static void empty_warm(void);

/* A run; where memory is short, what can be spared is given back first. */
static mp_status take_units(uint64_t length, uint32_t kind, uint32_t class,
                            void (*prepare)(uint64_t unit), uint64_t *unit)
{
    mp_status status = mp_run_take(length, kind, class, prepare, unit, &refusal);
    if (status != MP_NO_MEMORY && status != MP_NO_SPACE)
        return status;
    empty_warm();
    (void)mp_reclaim_now();
    return mp_run_take(length, kind, class, prepare, unit, &refusal);
}

static mp_status new_slab(uint32_t class, uint64_t *unit)
{
    *unit = adopt_slab(class);
    if (*unit != UINT64_MAX)
        return MP_OK;
    return take_units(MP_SLAB_UNITS, MP_UNIT_SLAB, class, prepare_slab, unit);
}

/* Take a free chunk off the list and make it ours: one step under the private lock, or a thread that
 * looks through the slab meanwhile would list it again. 0 if the list is empty. */
static uint64_t pop(uint32_t class, uint32_t type)
{
    struct size_class *sizes = &private.classes[class];
    uint64_t offset = 0;
    pthread_mutex_lock(&private.lock);
    if (sizes->free_count != 0 || rescan_locked(sizes, class)) {
        offset = sizes->free[--sizes->free_count];
        struct mp_chunk_shm *chunk = mp_chunk_at(offset);
        memset(chunk + 1, 0, mp_slab_chunk_size(class) - MP_CHUNK_HEADER);
        mp_store_relaxed64(&chunk->life, 0);
        uint32_t generation = mp_state_generation(mp_load_relaxed64(&chunk->state)) + 1;
        // Committed: until here the chunk is free for whoever owns the slab.
        mp_store_release64(&chunk->state, MP_STATE(mp_self(), generation, type));
    }
    pthread_mutex_unlock(&private.lock);
    return offset;
}

static mp_status refill(uint32_t class)
{
    uint64_t unit;
    mp_status status = new_slab(class, &unit);
    if (status != MP_OK)
        return status;
    struct size_class *sizes = &private.classes[class];
    pthread_mutex_lock(&private.lock);
    if (remember_slab(sizes, unit))
        list_free_locked(sizes, class, unit);
    else
        status = MP_NO_MEMORY; // the slab is swept when we are gone
    pthread_mutex_unlock(&private.lock);
    return status;
}

static mp_status take_small(uint32_t type, uint64_t size, uint64_t *offset)
{
    uint32_t class = class_of(size + MP_CHUNK_HEADER);
    while ((*offset = pop(class, type)) == 0) {
        mp_status status = refill(class);
        if (status != MP_OK)
            return status;
    }
    return MP_OK;
}

/* From `expected` to free, if it still is that. */
static bool release_small(uint64_t offset, uint64_t expected)
{
    struct mp_unit_shm *slab = mp_unit_at(slab_of(offset));
    uint64_t word = mp_load_acquire64(&slab->word);
    uint64_t free_state = MP_STATE(MP_NOBODY, mp_state_generation(expected), MP_TYPE_FREE);
    struct size_class *sizes = &private.classes[mp_unit_class(word) % CLASSES];
    bool ours = mp_unit_owner(word) == mp_self();
    if (ours)
        pthread_mutex_lock(&private.lock);
    bool released = mp_cas64(&mp_chunk_at(offset)->state, &expected, free_state);
    bool listed = released && ours && sizes->free_count < STACK;
    if (listed)
        sizes->free[sizes->free_count++] = offset;
    if (ours)
        pthread_mutex_unlock(&private.lock);
    if (released && !listed)
        (void)mp_fetch_add32(&slab->remote, 1);
    return released;
}

/* ---- runs ---- */

#define WARM_LIMIT (UINT64_C(56) << 20)

/* Runs come in sixteen lengths per power of two, so that a released one fits the next request; pages
 * that are never touched cost nothing. */
static uint64_t round_units(uint64_t units)
{
    uint64_t step = 1;
    while (units / step > 31)
        step *= 2;
    return (units + step - 1) / step * step;
}

/* Units of a run with so many bytes of payload. */
static uint64_t run_length(uint64_t size)
{
    return round_units((size + MP_CHUNK_HEADER + MP_UNIT - 1) / MP_UNIT);
}

static uint32_t warm_bin(uint64_t units)
{
    uint32_t bin = 63U - (uint32_t)__builtin_clzll(units);
    return bin < MP_WARM_BINS ? bin : MP_WARM_BINS - 1;
}

static bool is_run(uint64_t offset, uint64_t length)
{
    if (!mp_reachable(offset, MP_UNIT) || (offset - mp_family_shm()->heap) % MP_UNIT != 0)
        return false;
    const struct mp_unit_shm *run = mp_unit_at(mp_unit_of(offset));
    return mp_unit_kind(mp_load_acquire64(&run->word)) == MP_UNIT_RUN &&
           mp_unit_length(run) == length && mp_reachable(offset, length * MP_UNIT);
}

static uint32_t next_generation(uint64_t state)
{
    return state != 0 ? mp_state_generation(state) + 1 : (uint32_t)(mp_clock_now() >> 4);
}

/* An entry names a warm run and its generation, so that the state to expect is known beforehand: what
 * lies at the offset of a stale entry may be somebody's data by now. */
static uint64_t warm_entry(uint64_t offset, uint32_t generation)
{
    return offset << 12 | (generation & 0xffffffU);
}

static uint64_t warm_offset(uint64_t entry)
{
    return entry >> 24 << 12;
}

static uint64_t warm_state(uint64_t entry)
{
    return MP_STATE(MP_NOBODY, entry, MP_TYPE_WARM);
}

static_assert(MP_UNIT == 1U << 12, "entries use the zero bits of a run's offset");

/* Does a place name a run that waits to be used again? */
static bool names_warm(uint64_t entry)
{
    uint64_t offset = warm_offset(entry);
    if (!mp_reachable(offset, MP_UNIT))
        return false;
    return is_run(offset, mp_unit_length(mp_unit_at(mp_unit_of(offset)))) &&
           mp_load_acquire64(&mp_chunk_at(offset)->state) == warm_state(entry);
}

/* Make a warm run ours: its state decides between rivals. */
static bool claim_warm(uint64_t offset, uint64_t state, uint32_t type)
{
    uint64_t length = mp_unit_length(mp_unit_at(mp_unit_of(offset)));
    if (!mp_cas64(&mp_chunk_at(offset)->state, &state,
                  MP_STATE(mp_self(), mp_state_generation(state) + 1, type)))
        return false;
    (void)mp_fetch_add64(&mp_family_shm()->warm_bytes, (uint64_t)0 - length * MP_UNIT);
    return true;
}

/* Take a warm run out of its place. The entry is only a hint: one that names nothing is cleared. */
static bool take_warm(uint64_t *place, uint64_t length, uint32_t type, uint64_t *offset)
{
    uint64_t entry = mp_load_acquire64(place);
    *offset = warm_offset(entry);
    if (entry == 0)
        return false;
    bool named = names_warm(entry);
    if (named && !is_run(*offset, length))
        return false;
    bool taken = named && claim_warm(*offset, warm_state(entry), type);
    (void)mp_cas64(place, &entry, 0);
    return taken;
}

/* The pages and the run go back to the heap. */
static void free_run(uint64_t offset, uint64_t unit)
{
    struct mp_unit_shm *run = mp_unit_at(unit);
    // If we die before the run is free, the collector must find a dead owner here.
    mp_store_release64(&run->word, MP_UNIT_WORD(mp_self(), MP_UNIT_RUN, 0));
    struct mp_chunk_shm *chunk = mp_chunk_at(offset);
    mp_store_release64(
        &chunk->state,
        MP_STATE(MP_NOBODY, mp_state_generation(mp_load_relaxed64(&chunk->state)), MP_TYPE_FREE));
    mp_run_release(unit);
}

static bool find_warm(uint64_t length, uint32_t type, uint64_t *offset)
{
    uint64_t *bin = mp_family_shm()->warm[warm_bin(length)];
    for (int i = 0; i < MP_WARM_DEPTH; i++) {
        if (take_warm(&bin[i], length, type, offset))
            return true;
    }
    return false;
}

static void empty_warm(void)
{
    for (int bin = 0; bin < MP_WARM_BINS; bin++) {
        for (int i = 0; i < MP_WARM_DEPTH; i++) {
            uint64_t *place = &mp_family_shm()->warm[bin][i];
            uint64_t offset = warm_offset(mp_load_acquire64(place));
            if (!mp_reachable(offset, MP_UNIT))
                continue;
            uint64_t unit = mp_unit_of(offset);
            if (take_warm(place, mp_unit_length(mp_unit_at(unit)), MP_TYPE_MESSAGE, &offset))
                free_run(offset, unit);
        }
    }
}

static mp_status take_run(uint32_t type, uint64_t size, uint64_t *offset)
{
    if (size > UINT64_MAX / 2)
        return MP_TOO_LARGE;
    uint64_t length = run_length(size);
    if (find_warm(length, type, offset))
        return MP_OK;
    uint64_t unit;
    mp_status status = take_units(length, MP_UNIT_RUN, 0, NULL, &unit);
    if (status != MP_OK)
        return status;
    *offset = mp_unit_offset(unit);
    struct mp_chunk_shm *chunk = mp_chunk_at(*offset);
    mp_store_relaxed64(&chunk->life, 0);
    // Dying before this store leaves a run whose descriptor names a dead owner: swept.
    mp_store_release64(
        &chunk->state,
        MP_STATE(mp_self(), next_generation(mp_load_relaxed64(&chunk->state)), type));
    return MP_OK;
}

static _Thread_local bool give_all_back;

void mp_warm_refuse(bool refuse)
{
    give_all_back = refuse;
}

/* Keep the pages of a released run for the next one of its length. */
static bool keep_warm(uint64_t offset, uint64_t length)
{
    if (give_all_back)
        return false;
    struct mp_family_shm *family = mp_family_shm();
    uint64_t bytes = length * MP_UNIT;
    if (mp_load_relaxed64(&family->warm_bytes) + bytes > WARM_LIMIT)
        return false;
    uint64_t *bin = family->warm[warm_bin(length)];
    for (int i = 0; i < MP_WARM_DEPTH; i++) {
        uint64_t expected = 0;
        if (mp_load_relaxed64(&bin[i]) != 0)
            continue;
        struct mp_chunk_shm *chunk = mp_chunk_at(offset);
        uint32_t generation = mp_state_generation(mp_load_relaxed64(&chunk->state)) + 1;
        (void)mp_fetch_add64(&family->warm_bytes, bytes);
        mp_store_relaxed64(&chunk->life, 0); // an object made of it is unborn until it has a birth
        // Free from here on; without an entry (we die, or lose the place) a collection finds it.
        mp_store_release64(&chunk->state, MP_STATE(MP_NOBODY, generation, MP_TYPE_WARM));
        (void)mp_cas64(&bin[i], &expected, warm_entry(offset, generation));
        return true;
    }
    return false;
}

static void release_run(uint64_t offset, uint64_t unit)
{
    if (!keep_warm(offset, mp_unit_length(mp_unit_at(unit))))
        free_run(offset, unit);
}

/* ---- chunks ---- */

bool mp_chunk_is_run(uint64_t offset)
{
    const struct mp_unit_shm *run = mp_unit_at(mp_unit_of(offset));
    return mp_unit_kind(mp_load_acquire64(&run->word)) == MP_UNIT_RUN;
}

mp_status mp_chunk_take(uint32_t type, uint64_t size, uint64_t *offset)
{
    return size <= MP_SMALL_LIMIT ? take_small(type, size, offset) : take_run(type, size, offset);
}

bool mp_chunk_take_warm(uint32_t type, uint64_t size, uint64_t *offset)
{
    return size > MP_SMALL_LIMIT && size <= WARM_LIMIT && find_warm(run_length(size), type, offset);
}

void mp_chunk_release(uint64_t offset)
{
    if (mp_chunk_is_run(offset)) {
        release_run(offset, mp_unit_of(offset));
        return;
    }
    bool released = release_small(offset, mp_load_relaxed64(&mp_chunk_at(offset)->state));
    mp_assert(released);
    (void)released;
}

bool mp_chunk_claim_if(uint64_t offset, uint64_t expected)
{
    uint64_t ours = MP_STATE(mp_self(), mp_state_generation(expected), mp_state_type(expected));
    return mp_cas64(&mp_chunk_at(offset)->state, &expected, ours);
}

bool mp_chunk_release_if(uint64_t offset, uint64_t expected)
{
    if (mp_chunk_is_run(offset)) {
        // First make it ours, so that a rival sees another state; then release it as ours.
        if (!mp_chunk_claim_if(offset, expected))
            return false;
        release_run(offset, mp_unit_of(offset));
        return true;
    }
    return release_small(offset, expected);
}

void mp_chunk_set_owner(uint64_t offset, mp_owner owner)
{
    struct mp_chunk_shm *chunk = mp_chunk_at(offset);
    uint64_t state = mp_load_relaxed64(&chunk->state);
    mp_store_release64(&chunk->state,
                       MP_STATE(owner, mp_state_generation(state), mp_state_type(state)));
}

uint64_t mp_chunk_capacity(uint64_t offset)
{
    uint64_t unit = slab_of(offset);
    const struct mp_unit_shm *run = mp_unit_at(unit);
    uint64_t word = mp_load_acquire64(&run->word);
    if (mp_unit_kind(word) == MP_UNIT_RUN)
        return mp_unit_length(run) * MP_UNIT - MP_CHUNK_HEADER;
    return mp_slab_chunk_size(mp_unit_class(word) % CLASSES) - MP_CHUNK_HEADER;
}

bool mp_chunk_valid(uint64_t offset, uint32_t type)
{
    if (!mp_reachable(offset, 1U << SMALLEST_SHIFT) || offset % (1U << SMALLEST_SHIFT) != 0)
        return false;
    if (mp_unit_of(offset) >= mp_load_acquire64(&mp_family_shm()->frontier))
        return false;
    uint64_t unit = slab_of(offset);
    const struct mp_unit_shm *run = mp_unit_at(unit);
    uint64_t word = mp_load_acquire64(&run->word);
    uint64_t within = offset - mp_unit_offset(unit);
    if (mp_unit_kind(word) == MP_UNIT_RUN) {
        if (within != 0 || !mp_reachable(offset, mp_unit_length(run) * MP_UNIT))
            return false;
    } else if (mp_unit_kind(word) != MP_UNIT_SLAB || mp_unit_class(word) >= CLASSES ||
               within % mp_slab_chunk_size(mp_unit_class(word)) != 0) {
        return false;
    }
    return mp_state_type(mp_load_acquire64(&mp_chunk_at(offset)->state)) == type;
}

/* ---- giving back ---- */

void mp_warm_forget_stale(void)
{
    for (int bin = 0; bin < MP_WARM_BINS; bin++) {
        for (int i = 0; i < MP_WARM_DEPTH; i++) {
            uint64_t *place = &mp_family_shm()->warm[bin][i];
            uint64_t entry = mp_load_acquire64(place);
            if (entry != 0 && !names_warm(entry))
                (void)mp_cas64(place, &entry, 0);
        }
    }
}

bool mp_warm_is_listed(uint64_t offset, uint64_t state)
{
    uint64_t entry = warm_entry(offset, mp_state_generation(state));
    uint32_t bin = warm_bin(mp_unit_length(mp_unit_at(mp_unit_of(offset))));
    for (int i = 0; i < MP_WARM_DEPTH; i++) {
        if (mp_load_acquire64(&mp_family_shm()->warm[bin][i]) == entry)
            return true;
    }
    return false;
}

bool mp_warm_claim(uint64_t offset, uint64_t state)
{
    return claim_warm(offset, state, MP_TYPE_MESSAGE);
}

static void trim_class_locked(struct size_class *sizes, uint32_t class)
{
    bool kept_one = false;
    uint32_t kept = 0;
    sizes->free_count = 0;
    for (size_t i = 0; i < sizes->slab_count; i++) {
        uint64_t unit = sizes->slabs[i];
        if (kept_one && mp_slab_is_empty(unit)) {
            mp_run_release(unit);
            continue;
        }
        kept_one = kept_one || mp_slab_is_empty(unit);
        sizes->slabs[kept++] = unit;
        (void)mp_exchange32(&mp_unit_at(unit)->remote, 0);
        list_free_locked(sizes, class, unit);
    }
    sizes->slab_count = kept;
}

void mp_chunks_trim(void)
{
    pthread_mutex_lock(&private.lock);
    for (uint32_t class = 0; class < CLASSES; class ++)
        trim_class_locked(&private.classes[class], class);
    pthread_mutex_unlock(&private.lock);
}

void mp_chunks_leave(void)
{
    pthread_mutex_lock(&private.lock);
    for (uint32_t class = 0; class < CLASSES; class ++) {
        struct size_class *sizes = &private.classes[class];
        for (size_t i = 0; i < sizes->slab_count; i++) {
            mp_store_release64(&mp_unit_at(sizes->slabs[i])->word,
                               MP_UNIT_WORD(MP_DISOWNED, MP_UNIT_SLAB, class));
            (void)mp_fetch_add32(&mp_family_shm()->orphan_slabs, 1);
        }
    }
    forget_lists();
    pthread_mutex_unlock(&private.lock);
}
