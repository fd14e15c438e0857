// SPDX-License-Identifier: PSF-2.0
#include "census.h"

#include "stepper.h" // CHECK

#include "shm/chunks.h"    // headers
#include "shm/processes.h" // owners
#include "shm/reclaim.h"   // what is garbage goes first
#include <string.h>        // memset

enum { TYPES = 256, SIZE_CLASSES = 7, WARM_RUNS = MP_WARM_BINS * MP_WARM_DEPTH };

struct census {
    unsigned chunks[TYPES]; // small and large ones
    uint64_t run_units;     // of large chunks, but for warm ones
    unsigned warm_runs;
    unsigned warm_unlisted; // warm runs that no entry of the list names: nobody can find them again
    unsigned slabs;
    uint64_t walked; // units, to the frontier
};

static struct census before;

/* Few sleep at a time; the entries of the dead are used again before the table grows further. */
enum { SLEEPERS_EXPECTED = 64 };

static void count_chunk(struct census *census, uint64_t offset)
{
    uint64_t state = mp_load_acquire64(&mp_chunk_at(offset)->state);
    census->chunks[mp_state_type(state)]++;
}

static void count_slab(struct census *census, uint64_t unit, uint64_t word, uint64_t length)
{
    uint32_t class = mp_unit_class(word);
    mp_owner owner = mp_unit_owner(word);
    bool empty = mp_slab_is_empty(unit);
    census->slabs++;
    CHECK(class < SIZE_CLASSES && length == MP_SLAB_UNITS,
          "slab at unit %llu: class %u, %llu units", (unsigned long long)unit, class,
          (unsigned long long)length);
    CHECK(!mp_owner_dead(owner), "a dead process keeps the slab at unit %llu",
          (unsigned long long)unit);
    CHECK(owner != MP_DISOWNED || !empty,
          "the orphan slab at unit %llu is empty and not given back", (unsigned long long)unit);
    for (uint32_t size = mp_slab_chunk_size(class % SIZE_CLASSES), at = 0;
         at < MP_SLAB_UNITS * MP_UNIT; at += size)
        count_chunk(census, mp_unit_offset(unit) + at);
}

static void count_run(struct census *census, uint64_t unit, uint64_t length)
{
    uint64_t offset = mp_unit_offset(unit);
    uint64_t state = mp_load_acquire64(&mp_chunk_at(offset)->state);
    uint32_t type = mp_state_type(state);
    CHECK(type != MP_TYPE_FREE, "the run at unit %llu is used by nothing",
          (unsigned long long)unit);
    if (type == MP_TYPE_WARM) {
        census->warm_runs++;
        census->warm_unlisted += !mp_warm_is_listed(offset, state);
        return;
    }
    census->run_units += length;
    count_chunk(census, offset);
}

static void count(uint64_t unit, struct mp_unit_shm *run, void *argument)
{
    struct census *census = argument;
    uint64_t word = mp_load_acquire64(&run->word);
    census->walked = unit + run->length;
    switch (mp_unit_kind(word)) {
    case MP_UNIT_FREE: break;
    case MP_UNIT_SLAB: count_slab(census, unit, word, run->length); break;
    case MP_UNIT_RUN: count_run(census, unit, run->length); break;
    default:
        CHECK(false, "a run of kind %u at unit %llu", mp_unit_kind(word), (unsigned long long)unit);
    }
}

static void take_census(struct census *census)
{
    /* Twice: what was held only by garbage is garbage in the next collection. */
    for (int i = 0; i < 2; i++) {
        mp_status status = mp_reclaim_now();
        CHECK(status == MP_OK, "the collector gave %d", (int)status);
    }
    memset(census, 0, sizeof *census);
    mp_run_walk(count, census);
    // A walk that ends early met a length that cannot be.
    CHECK(census->walked == mp_family_shm()->frontier, "the walk ended at unit %llu of %llu",
          (unsigned long long)census->walked, (unsigned long long)mp_family_shm()->frontier);
}

/* Each place for a warm run names one, and each run has one place. */
static unsigned warm_places(void)
{
    const struct mp_family_shm *family = mp_family_shm();
    unsigned used = 0;
    for (int bin = 0; bin < MP_WARM_BINS; bin++)
        for (int i = 0; i < MP_WARM_DEPTH; i++)
            used += family->warm[bin][i] != 0;
    return used;
}

void census_begin(void)
{
    take_census(&before);
}

void census_check(void)
{
    struct census now;
    if (stepper_failed()) { // what the scene holds was not given back: count anew
        take_census(&before);
        return;
    }
    take_census(&now);
    for (unsigned type = 1; type < TYPES; type++)
        CHECK(now.chunks[type] == before.chunks[type], "chunks of type %u: %u, before %u", type,
              now.chunks[type], before.chunks[type]);
    CHECK(now.run_units == before.run_units, "units in large chunks: %llu, before %llu",
          (unsigned long long)now.run_units, (unsigned long long)before.run_units);
    CHECK(now.warm_unlisted == 0, "%u warm runs that nobody can find", now.warm_unlisted);
    CHECK(warm_places() == now.warm_runs, "%u places for warm runs are taken, by %u runs",
          warm_places(), now.warm_runs);
    CHECK(mp_family_shm()->sleeper_limit <= SLEEPERS_EXPECTED,
          "places to sleep are lost: %u were used", mp_family_shm()->sleeper_limit);
    // A process keeps one empty slab per class.
    CHECK(now.slabs <= before.slabs + SIZE_CLASSES, "slabs: %u, before %u", now.slabs,
          before.slabs);
    if (stepper_failed())
        before = now;
}
