// SPDX-License-Identifier: PSF-2.0
/* The allocator. That nothing is lost or given twice is seen by the census after each run; here the
 * survivor allocates too, and writes into what it gets. */
#include "operations.h"

#include "core/inject.h"   // memory is refused
#include "shm/chunks.h"    // what is stepped through
#include "shm/processes.h" // the dead
#include "shm/objects.h"   // pins keep an orphan slab in use
#include "shm/reclaim.h"   // a collection, killed
#include <string.h>        // memset
#include <sys/wait.h>      // waitpid
#include <unistd.h>        // fork

enum { OFFSET = 0, STATE = 1 };

#define SMALL 100U
#define LARGE UINT64_C(70000)
#define HUGE (UINT64_C(49) << 20) // more than is ever kept warm

static uint64_t mine[MP_WARM_DEPTH + 1];

static uint64_t take(uint64_t size)
{
    uint64_t offset;
    MUST(mp_chunk_take(MP_TYPE_MESSAGE, size, &offset));
    return offset;
}

/* ---- the survivor: what it gets is its own ---- */

static void use_some(uint64_t size)
{
    enum { COUNT = 3 };
    uint64_t offset[COUNT];
    for (int i = 0; i < COUNT; i++) {
        offset[i] = take(size);
        unsigned char *bytes = mp_chunk_payload(offset[i]);
        for (uint64_t at = 0; size <= MP_SMALL_LIMIT && at < size; at++)
            CHECK(bytes[at] == 0, "byte %u of a new small chunk is %u", (unsigned)at, bytes[at]);
        memset(bytes, i + 1, size);
    }
    for (int i = 0; i < COUNT; i++) {
        const unsigned char *bytes = mp_chunk_payload(offset[i]);
        CHECK(bytes[0] == i + 1 && bytes[size - 1] == i + 1, "chunk %d was given twice", i);
        mp_chunk_release(offset[i]);
    }
}

static void survive_small(void)
{
    use_some(SMALL);
}

static void survive_large(void)
{
    use_some(LARGE);
}

/* ---- take ---- */

static void run_take_small(void)
{
    scene.shared->value[OFFSET] = (int64_t)take(SMALL);
}

static void run_take_large(void)
{
    scene.shared->value[OFFSET] = (int64_t)take(LARGE);
}

/* A process has slabs after its first chunk. */
static void prepare_slab_of_ours(void)
{
    mp_chunk_release(take(SMALL));
}

/* A slab whose owner left while a chunk in it is in use: the next process adopts it. */
static mp_handle pinned;
static mp_object_ticket pin;

static void pin_and_leave(void)
{
    mp_object_ticket made;
    MUST(mp_object_pin(&pinned, MP_NOBODY, &made));
    memcpy((void *)scene.shared->value, &made, sizeof made);
    mp_family_leave();
}

static void leave_orphan_slab(void)
{
    MUST(mp_object_create(MP_TYPE_BLOCK, sizeof(uint64_t), &pinned));
    helper_start(0, pin_and_leave);
    helper_join(0, 1000);
    memcpy(&pin, (void *)scene.shared->value, sizeof pin);
}

static void run_take_pin_sized(void)
{
    (void)take(sizeof(struct mp_reference_shm));
}

static void survive_orphan_slab(void)
{
    mp_handle handle;
    use_some(sizeof(struct mp_reference_shm));
    mp_status status = mp_object_attach(&pin, MP_TYPE_BLOCK, &handle);
    CHECK(status == MP_OK, "the pin in the adopted slab is lost: %d", (int)status);
    if (status == MP_OK)
        mp_object_release(&handle);
    mp_object_release(&pinned);
}

/* All chunks of our slab are taken; then another process releases one of them. */
static void prepare_full_slab(void)
{
    uint64_t offset = 0;
    for (int i = 0; i < 8; i++)
        offset = take(MP_SMALL_LIMIT);
    pid_t pid = fork();
    if (pid == 0) {
        mp_chunk_release(offset);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void run_take_largest_small(void)
{
    (void)take(MP_SMALL_LIMIT);
}

static void survive_largest_small(void)
{
    use_some(MP_SMALL_LIMIT);
}

/* No run of this length is warm: they are all taken. */
static void setup_cold(void)
{
    for (int i = 0; i <= MP_WARM_DEPTH; i++)
        mine[i] = take(LARGE);
}

static void survive_cold(void)
{
    use_some(LARGE);
    for (int i = 0; i <= MP_WARM_DEPTH; i++)
        mp_chunk_release(mine[i]);
}

static void setup_warm(void)
{
    mp_chunk_release(take(LARGE));
}

#ifdef MP_TESTING

/* The system refuses more memory: what is kept warm is given back, garbage is collected. */
static mp_status refuse(const char *name)
{
    return strcmp(name, "heap:allowed") == 0 ? MP_NO_MEMORY : MP_OK;
}

static void prepare_refusal(void)
{
    mp_inject_hook = refuse;
}

static void run_take_refused(void)
{
    uint64_t offset;
    if (mp_chunk_take(MP_TYPE_MESSAGE, HUGE, &offset) == MP_NO_MEMORY)
        scene.shared->value[STATE] = 1;
}

static void survive_refused(void)
{
    CHECK(!scene.finished || scene.shared->value[STATE] == 1, "memory was not refused");
    use_some(LARGE);
}

#endif

/* ---- release ---- */

static void prepare_small(void)
{
    mine[0] = take(SMALL);
}

static void prepare_large(void)
{
    mine[0] = take(LARGE);
}

static void prepare_huge(void)
{
    mine[0] = take(HUGE);
}

static void run_release(void)
{
    mp_chunk_release(mine[0]);
}

static void run_release_if(void)
{
    (void)mp_chunk_release_if(mine[0], mp_chunk_at(mine[0])->state);
}

/* All places for warm runs of this length are taken. */
static void setup_warm_places_full(void)
{
    setup_cold();
    for (int i = 0; i < MP_WARM_DEPTH; i++)
        mp_chunk_release(mine[i]);
}

static void prepare_take_over(void)
{
    mp_chunk_set_owner(mine[MP_WARM_DEPTH], mp_self());
}

static void run_release_beside_warm(void)
{
    mp_chunk_release(mine[MP_WARM_DEPTH]);
}

/* A chunk of the driver's, in the driver's slab, released by another process. */
static void setup_drivers_chunk(void)
{
    mine[0] = take(SMALL);
    scene.shared->value[STATE] = (int64_t)mp_chunk_at(mine[0])->state;
}

static void survive_drivers_chunk(void)
{
    if (mp_chunk_at(mine[0])->state == (uint64_t)scene.shared->value[STATE]) {
        CHECK(!scene.finished, "it was not released");
        mp_chunk_release(mine[0]);
    }
    use_some(SMALL);
}

/* ---- pass on ---- */

static void setup_heir(void)
{
    scene.shared->value[STATE] = mp_self();
}

static void prepare_gift(void)
{
    mine[0] = take(SMALL);
    scene.shared->value[OFFSET] = (int64_t)mine[0];
}

static void run_pass_on(void)
{
    mp_chunk_set_owner(mine[0], (mp_owner)scene.shared->value[STATE]);
}

static void survive_gift(void)
{
    uint64_t offset = (uint64_t)scene.shared->value[OFFSET];
    mp_owner owner = mp_state_owner(mp_chunk_at(offset)->state);
    if (owner == mp_self())
        mp_chunk_release(offset);
    else
        CHECK(!scene.finished && mp_owner_dead(owner), "the chunk belongs to %#x", owner);
    use_some(SMALL);
}

/* ---- collect, trim ---- */

static void leave_garbage(void)
{
    mp_handle handle;
    mp_object_ticket made;
    for (int i = 0; i < 3; i++) {
        (void)take(SMALL);
    }
    (void)take(LARGE);
    (void)take(HUGE);
    MUST(mp_object_create(MP_TYPE_BLOCK, SMALL, &handle));
    MUST(mp_object_pin(&handle, mp_self(), &made));
    MUST(mp_object_attach(&made, MP_TYPE_BLOCK, &handle));
}

static void setup_garbage(void)
{
    helper_start(0, leave_garbage);
    helper_join(0, 1000);
}

static void run_collect(void)
{
    (void)mp_reclaim_now();
}

static void prepare_own_garbage(void)
{
    uint64_t offset[40];
    for (int i = 0; i < 40; i++)
        offset[i] = take(MP_SMALL_LIMIT);
    for (int i = 0; i < 40; i++)
        mp_chunk_release(offset[i]);
}

static void run_trim(void)
{
    mp_chunks_trim();
}

static void survive_garbage(void)
{
    use_some(SMALL);
    use_some(LARGE);
}

const struct operation operations_chunks[] = {
    {.name = "chunk-take-first", .run = run_take_small, .survive = survive_small},
    {.name = "chunk-take-listed",
     .prepare = prepare_slab_of_ours,
     .run = run_take_small,
     .survive = survive_small},
    {.name = "chunk-take-adopt",
     .setup = leave_orphan_slab,
     .run = run_take_pin_sized,
     .survive = survive_orphan_slab},
    {.name = "chunk-take-rescan",
     .prepare = prepare_full_slab,
     .run = run_take_largest_small,
     .survive = survive_largest_small},
    {.name = "chunk-take-run", .setup = setup_cold, .run = run_take_large, .survive = survive_cold},
    {.name = "chunk-take-warm",
     .setup = setup_warm,
     .run = run_take_large,
     .survive = survive_large},
#ifdef MP_TESTING
    {.name = "chunk-take-refused",
     .setup = setup_warm,
     .prepare = prepare_refusal,
     .run = run_take_refused,
     .survive = survive_refused},
#endif
    {.name = "chunk-release-small",
     .prepare = prepare_small,
     .run = run_release,
     .survive = survive_small},
    {.name = "chunk-release-if",
     .prepare = prepare_small,
     .run = run_release_if,
     .survive = survive_small},
    {.name = "chunk-release-remote",
     .setup = setup_drivers_chunk,
     .run = run_release,
     .survive = survive_drivers_chunk},
    {.name = "chunk-release-warm",
     .prepare = prepare_large,
     .run = run_release,
     .survive = survive_large},
    {.name = "chunk-release-if-warm",
     .prepare = prepare_large,
     .run = run_release_if,
     .survive = survive_large},
    {.name = "chunk-release-beside-warm",
     .setup = setup_warm_places_full,
     .prepare = prepare_take_over,
     .run = run_release_beside_warm,
     .survive = survive_large},
    {.name = "chunk-release-huge",
     .prepare = prepare_huge,
     .run = run_release,
     .survive = survive_large},
    {.name = "chunk-pass-on",
     .setup = setup_heir,
     .prepare = prepare_gift,
     .run = run_pass_on,
     .survive = survive_gift},
    {.name = "reclaim-now", .setup = setup_garbage, .run = run_collect, .survive = survive_garbage},
    {.name = "chunks-trim",
     .prepare = prepare_own_garbage,
     .run = run_trim,
     .survive = survive_garbage},
    {.name = NULL},
};
