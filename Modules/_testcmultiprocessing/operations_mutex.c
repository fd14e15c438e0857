// SPDX-License-Identifier: PSF-2.0
/* The internal mutex: never held by the dead, never taken from the living. */
#include "operations.h"

#include "shm/chunks.h" // a place for it
#include "shm/mutex.h"  // what is stepped through

enum { INSIDE = 0, HELD = 1, HELPER = 2 };

static uint64_t place;
static struct mp_mutex_shm *mutex;

static void setup(void)
{
    MUST(mp_chunk_take(MP_TYPE_BLOCK, sizeof *mutex, &place));
    mutex = mp_chunk_payload(place);
}

static mp_status lock_always(void)
{
    mp_status status;
    do
        status = mp_mutex_lock(mutex, MP_FOREVER);
    while (status == MP_INTERRUPTED);
    return status;
}

static mp_status lock_within(unsigned milliseconds)
{
    mp_status status;
    mp_time deadline = soon(milliseconds);
    do
        status = mp_mutex_lock(mutex, deadline);
    while (status == MP_INTERRUPTED);
    return status;
}

static void survive(void)
{
    int64_t inside = scene.shared->value[INSIDE];
    mp_status status = lock_within(SURVIVOR_MILLISECONDS);
    CHECK(status == MP_OK || status == MP_OWNER_DIED, "the mutex cannot be had: %d", (int)status);
    CHECK(inside != 1 || status == MP_OWNER_DIED, "its owner died inside, and nobody was told");
    CHECK(!scene.finished || status == MP_OK,
          "it was unlocked, and its owner counts as dead inside");
    if (status == MP_OK || status == MP_OWNER_DIED)
        mp_mutex_unlock(mutex);
    CHECK(mp_mutex_try(mutex) == MP_OK, "an unlocked mutex cannot be had");
    mp_mutex_unlock(mutex);
    mp_chunk_release(place);
}

static void alive(void)
{
    mp_status status = mp_mutex_try(mutex);
    CHECK(status != MP_OWNER_DIED, "taken from a process that is alive");
    CHECK(scene.shared->value[INSIDE] != 1 || status == MP_WOULD_BLOCK, "two are inside: %d",
          (int)status);
    if (status == MP_OK)
        mp_mutex_unlock(mutex);
}

static void run(void)
{
    mp_status status = lock_always();
    (void)status;
    scene.shared->value[INSIDE] = 1;
    scene.shared->value[INSIDE] = 2;
    mp_mutex_unlock(mutex);
}

/* ---- a dead owner before ---- */

static void hold(void)
{
    (void)lock_always();
}

static void setup_dead_owner(void)
{
    setup();
    helper_start(0, hold);
    helper_join(0, 1000);
}

static void survive_dead_owner(void)
{
    if (scene.ending == TRACE_STOP || scene.finished || scene.shared->value[INSIDE] != 0) {
        survive();
        return;
    }
    mp_status status = lock_within(SURVIVOR_MILLISECONDS);
    CHECK(status == MP_OWNER_DIED, "two owners died, and the mutex gave %d", (int)status);
    if (status == MP_OK || status == MP_OWNER_DIED)
        mp_mutex_unlock(mutex);
    mp_chunk_release(place);
}

/* ---- the driver holds it, the child sleeps ---- */

static void setup_held(void)
{
    setup();
    MUST(mp_mutex_try(mutex));
}

static bool unlock_once(void)
{
    if (scene.wakes == 1)
        mp_mutex_unlock(mutex);
    return scene.wakes < 2;
}

static void survive_held(void)
{
    if (scene.wakes == 0)
        mp_mutex_unlock(mutex);
    survive();
}

/* ---- another one sleeps while the child unlocks, or is the next in line ---- */

static void sleep_for_it(void)
{
    wait_value(HELD);
    mp_status status = lock_always();
    scene.shared->value[HELPER] = 1 + (int64_t)status;
    mp_mutex_unlock(mutex);
}

static void setup_sleeper(void)
{
    setup();
    helper_start(0, sleep_for_it);
}

static void prepare_hold_until_awaited(void)
{
    hold();
    scene.shared->value[HELD] = 1;
    while (!(mp_load_acquire32(&mutex->word) & MP_WAITERS))
        trace_nap(20);
}

static void run_unlock(void)
{
    mp_mutex_unlock(mutex);
}

static void survive_sleeper(void)
{
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[HELPER] != 0, "the sleeper did not get it");
    survive();
}

const struct operation operations_mutex[] = {
    {.name = "mutex", .setup = setup, .run = run, .alive = alive, .survive = survive},
    {.name = "mutex-dead-owner",
     .setup = setup_dead_owner,
     .run = run,
     .survive = survive_dead_owner},
    {.name = "mutex-sleep",
     .setup = setup_held,
     .run = run,
     .wake = unlock_once,
     .survive = survive_held},
    {.name = "mutex-wake",
     .setup = setup_sleeper,
     .prepare = prepare_hold_until_awaited,
     .run = run_unlock,
     .survive = survive_sleeper},
    {.name = NULL},
};
