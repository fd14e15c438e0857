// SPDX-License-Identifier: PSF-2.0
/* The stepper on trial: a record whose commit comes last, and the same with planted faults.
 *
 * A check that cannot fail proves nothing: the tests demand that the first passes and that each fault
 * is found. */
#include "operations.h"

#include "core/atomic.h" // commit
#include "os/os.h"       // a child that sleeps
#include <string.h>      // memset
#include <sys/mman.h>    // shared with the child

#define WORDS 4

struct record {
    uint32_t committed;
    uint32_t futex;
    uint64_t word[WORDS];
};

static struct record *record;

static void toy_setup(void)
{
    if (record == NULL) {
        void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            stepper_abort(__FILE__, __LINE__, "mmap", -1);
        record = memory;
    }
    memset(record, 0, sizeof *record);
}

static void write_words(void)
{
    for (uint64_t i = 0; i < WORDS; i++)
        mp_store_relaxed64(&record->word[i], scene.run + i);
}

static void commit(void)
{
    mp_store_release32(&record->committed, 1);
}

static void toy_right(void)
{
    write_words();
    commit();
}

static void toy_commit_first(void)
{
    commit();
    write_words();
}

/* The commit is right, but one instruction of the payload comes behind it. */
static void toy_commit_early(void)
{
    for (uint64_t i = 0; i + 1 < WORDS; i++)
        mp_store_relaxed64(&record->word[i], scene.run + i);
    commit();
    mp_store_release64(&record->word[WORDS - 1], scene.run + WORDS - 1);
}

static void toy_never_commits(void)
{
    write_words();
}

static void toy_sleep_then_commit(void)
{
    while (mp_load_acquire32(&record->futex) == 0)
        (void)mp_futex_wait(&record->futex, 0, MP_FOREVER);
    toy_right();
}

static bool toy_wake(void)
{
    mp_store_release32(&record->futex, 1);
    mp_futex_wake(&record->futex, 1);
    return true;
}

static void toy_survive(void)
{
    bool committed = mp_load_acquire32(&record->committed) == 1;
    CHECK(committed || !scene.finished, "it returned without a commit");
    for (uint64_t i = 0; i < WORDS && committed; i++)
        CHECK(record->word[i] == scene.run + i, "committed, but word %u is missing", (unsigned)i);
}

static void toy_alive(void)
{
    CHECK(mp_load_acquire32(&record->committed) <= 1, "no such state");
}

#define TOY .setup = toy_setup, .survive = toy_survive, .outside = true, .no_heap = true

const struct operation operations_toy[] = {
    {.name = "toy-record", .run = toy_right, .alive = toy_alive, TOY},
    {.name = "toy-sleep", .run = toy_sleep_then_commit, .wake = toy_wake, TOY},
    {.name = "toy-fault-commit-first", .run = toy_commit_first, .fault = true, TOY},
    {.name = "toy-fault-commit-early", .run = toy_commit_early, .fault = true, TOY},
    {.name = "toy-fault-no-commit", .run = toy_never_commits, .fault = true, TOY},
    {.name = NULL},
};
