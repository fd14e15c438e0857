// SPDX-License-Identifier: PSF-2.0
/* Lock and RLock: taken over from the killed, never from the living; no sleeper is forgotten. */
#include "operations.h"

#include "core/inject.h" // planted faults
#include "shm/objects.h" // a place for it
#include "sync/lock.h"   // what is stepped through
#include <string.h>      // memset

enum { INSIDE = 0, HELD = 1, HELPER = 2 };

static mp_handle object;
static mp_lock_handle handle;
static struct mp_lock_shm *lock;

static void make(uint32_t flags)
{
    memset(&handle, 0, sizeof handle);
    MUST(mp_object_create(MP_TYPE_LOCK, sizeof(struct mp_lock_shm), &object));
    lock = mp_object_payload(&object);
    handle.lock = lock;
    mp_lock_init(lock, flags);
}

static void setup_lock(void)
{
    make(0);
}

static void setup_rlock(void)
{
    make(MP_LOCK_RECURSIVE);
}

static void setup_fragile(void)
{
    make(MP_LOCK_FRAGILE);
}

static mp_status acquire(mp_time deadline)
{
    mp_spin_memory memory = {0, 0};
    mp_status status = mp_lock_try(lock);
    mp_lock_wait wait = {.lock = lock, .memory = &memory};
    if (status != MP_WOULD_BLOCK)
        return status;
    do
        status = mp_lock_acquire(&wait, deadline);
    while (status == MP_INTERRUPTED);
    return status;
}

static bool held(mp_status status)
{
    return status == MP_OK || status == MP_OWNER_DIED;
}

static void drop(void)
{
    mp_object_release(&object);
}

/* Take it, release it, and see that it is as good as new. */
static void use(void)
{
    mp_status status = acquire(soon(SURVIVOR_MILLISECONDS));
    int64_t inside = scene.shared->value[INSIDE];
    CHECK(held(status), "the lock cannot be had: %d", (int)status);
    CHECK(inside != 1 || status == MP_OWNER_DIED, "its owner died inside, and nobody was told");
    CHECK(!scene.finished || status == MP_OK,
          "it was released, and its owner counts as dead inside");
    CHECK(status != MP_OWNER_DIED || mp_lock_deaths(lock) >= 1, "no death was counted");
    CHECK(!held(status) || mp_lock_depth(lock) == 1, "taken once, held %u times",
          mp_lock_depth(lock));
    if (held(status))
        CHECK(mp_lock_release(lock) == MP_OK, "our lock cannot be released");
    CHECK(mp_lock_try(lock) == MP_OK, "a released lock cannot be had");
    CHECK(mp_lock_release(lock) == MP_OK, "our lock cannot be released");
    CHECK(mp_lock_owner(lock) == MP_NOBODY, "a released lock has an owner");
}

static void survive(void)
{
    use();
    drop();
}

static void alive(void)
{
    mp_status status = mp_lock_try(lock);
    CHECK(status != MP_OWNER_DIED, "taken from a process that is alive");
    CHECK(scene.shared->value[INSIDE] != 1 || status == MP_WOULD_BLOCK, "two are inside: %d",
          (int)status);
    if (held(status))
        (void)mp_lock_release(lock);
}

/* ---- nobody else ---- */

static void pass_through(void)
{
    scene.shared->value[INSIDE] = 1;
    scene.shared->value[INSIDE] = 2;
    (void)mp_lock_release(lock);
}

static void run_lock(void)
{
    if (held(acquire(MP_FOREVER)))
        pass_through();
}

static void run_rlock(void)
{
    (void)acquire(MP_FOREVER);
    (void)acquire(MP_FOREVER);
    scene.shared->value[INSIDE] = 1;
    scene.shared->value[INSIDE] = 2;
    (void)mp_lock_release(lock);
    (void)mp_lock_release(lock);
}

static void hold_twice(void)
{
    (void)acquire(MP_FOREVER);
    (void)acquire(MP_FOREVER);
}

static void run_release_all(void)
{
    (void)mp_lock_release_all(lock);
}

/* ---- robust=False ---- */

static void survive_fragile(void)
{
    mp_status status = mp_lock_try(lock);
    CHECK(status != MP_OWNER_DIED, "a lock with robust=False was taken over");
    CHECK(status == MP_OK || !scene.finished, "a released lock cannot be had: %d", (int)status);
    CHECK(scene.shared->value[INSIDE] != 1 || status == MP_WOULD_BLOCK, "two are inside");
    CHECK(mp_lock_release(lock) == MP_OK, "anybody may release it");
    scene.shared->value[INSIDE] = 0; // it is over
    use();
    drop();
}

static void run_fragile(void)
{
    if (mp_lock_try(lock) == MP_OK)
        pass_through();
}

/* ---- a dead owner before ---- */

static void hold(void)
{
    (void)acquire(MP_FOREVER);
}

static void setup_dead_owner(void)
{
    make(0);
    helper_start(0, hold);
    helper_join(0, 1000);
}

static void setup_dead_rowner(void)
{
    make(MP_LOCK_RECURSIVE);
    helper_start(0, hold_twice);
    helper_join(0, 1000);
}

static void survive_dead_owner(void)
{
    if (scene.ending != TRACE_STOP && !scene.finished && scene.shared->value[INSIDE] == 0) {
        mp_status status = acquire(soon(SURVIVOR_MILLISECONDS));
        CHECK(status == MP_OWNER_DIED, "two owners died, and the lock gave %d", (int)status);
        CHECK(mp_lock_depth(lock) == 1, "taken once, held %u times", mp_lock_depth(lock));
        CHECK(mp_lock_release(lock) == MP_OK, "our lock cannot be released");
    }
    use();
    drop();
}

/* ---- the driver holds it, the child sleeps ---- */

static void setup_held(void)
{
    make(0);
    MUST(mp_lock_try(lock));
}

static bool release_once(void)
{
    if (scene.wakes == 1)
        CHECK(mp_lock_release(lock) == MP_OK, "our lock cannot be released");
    return scene.wakes < 2;
}

static void survive_held(void)
{
    if (scene.wakes == 0)
        CHECK(mp_lock_release(lock) == MP_OK, "our lock cannot be released");
    use();
    drop();
}

/* The next in line, behind the child, which is woken and dies. */
static void take_in_turn(void)
{
    mp_status status = acquire(MP_FOREVER);
    scene.shared->value[HELPER] = 1 + (int64_t)status;
    (void)mp_lock_release(lock);
}

static bool queue_another_and_release(void)
{
    if (scene.wakes == 1) {
        helper_start(0, take_in_turn);
        helper_asleep(0);
        CHECK(mp_lock_release(lock) == MP_OK, "our lock cannot be released");
    }
    return scene.wakes < 2;
}

static void survive_next_in_line(void)
{
    if (scene.wakes != 0) {
        helper_join(0, SURVIVOR_MILLISECONDS);
        scene.shared->value[INSIDE] = 0; // the helper was told
        use();
        drop();
        return;
    }
    survive_held();
}

/* ---- another one sleeps while the child releases ---- */

static void sleep_for_it(void)
{
    wait_value(HELD);
    take_in_turn();
}

static void setup_sleeper(void)
{
    make(0);
    helper_start(0, sleep_for_it);
}

static void prepare_hold_until_awaited(void)
{
    hold();
    scene.shared->value[HELD] = 1;
    while (!(mp_load_acquire64(&lock->word) & MP_WAITERS))
        trace_nap(20);
}

static void run_release(void)
{
    (void)mp_lock_release(lock);
}

static void survive_sleeper(void)
{
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[HELPER] != 0, "the sleeper did not get it");
    survive();
}

/* ---- the child releases what the driver holds ---- */

static void setup_foreign(void)
{
    make(0);
    MUST(mp_lock_try(lock));
    scene.shared->value[HELD] = 1;
    helper_start(0, sleep_for_it);
    helper_asleep(0);
}

static void survive_foreign(void)
{
    if (mp_lock_owner(lock) == mp_self()) {
        CHECK(!scene.finished, "it was not released");
        CHECK(mp_lock_release(lock) == MP_OK, "our lock cannot be released");
    }
    survive_sleeper();
}

/* ---- an orderly end ---- */

static void prepare_listed(void)
{
    mp_lock_list(&handle);
    hold();
}

static void run_leave(void)
{
    mp_lock_leave();
    mp_family_leave();
}

/* Left locked by who left in order, taken over from who was killed before. */
static void survive_left(void)
{
    mp_status status = mp_lock_try(lock);
    CHECK(held(status) || status == MP_WOULD_BLOCK, "a lock that was left gave %d", (int)status);
    CHECK(!scene.finished || status == MP_WOULD_BLOCK, "its owner left in order, and it gave %d",
          (int)status);
    CHECK(mp_lock_release(lock) == MP_OK, "it cannot be released");
    use();
    drop();
}

static void alive_left(void)
{
    CHECK(mp_lock_try(lock) == MP_WOULD_BLOCK, "taken from a process that is alive");
}

/* ---- planted faults: they must be found ---- */

#ifdef MP_TESTING

/* As if the lock were claimed first and its owner named in a store of its own. */
static mp_status name_owner_later(const char *name)
{
    if (strcmp(name, "lock:taken_over") == 0) {
        mp_store_release64(&lock->word, MP_DISOWNED);
        mp_store_release64(&lock->word, mp_lock_mine());
    }
    return MP_OK;
}

static void prepare_name_owner_later(void)
{
    mp_inject_hook = name_owner_later;
}

#endif

const struct operation operations_lock[] = {
    {.name = "lock", .setup = setup_lock, .run = run_lock, .alive = alive, .survive = survive},
    {.name = "rlock", .setup = setup_rlock, .run = run_rlock, .alive = alive, .survive = survive},
    {.name = "rlock-release-all",
     .setup = setup_rlock,
     .prepare = hold_twice,
     .run = run_release_all,
     .survive = survive},
    {.name = "lock-fragile",
     .setup = setup_fragile,
     .run = run_fragile,
     .alive = alive,
     .survive = survive_fragile},
    {.name = "lock-dead-owner",
     .setup = setup_dead_owner,
     .run = run_lock,
     .survive = survive_dead_owner},
    {.name = "rlock-dead-owner",
     .setup = setup_dead_rowner,
     .run = run_rlock,
     .survive = survive_dead_owner},
    {.name = "lock-sleep",
     .setup = setup_held,
     .run = run_lock,
     .wake = release_once,
     .survive = survive_held},
    {.name = "lock-sleep-first-of-two",
     .setup = setup_held,
     .run = run_lock,
     .wake = queue_another_and_release,
     .survive = survive_next_in_line},
    {.name = "lock-wake",
     .setup = setup_sleeper,
     .prepare = prepare_hold_until_awaited,
     .run = run_release,
     .survive = survive_sleeper},
    {.name = "lock-release-foreign",
     .setup = setup_foreign,
     .run = run_release,
     .survive = survive_foreign},
    {.name = "lock-leave",
     .setup = setup_lock,
     .prepare = prepare_listed,
     .run = run_leave,
     .alive = alive_left,
     .survive = survive_left},
#ifdef MP_TESTING
    {.name = "lock-fault-name-owner-later",
     .setup = setup_dead_owner,
     .prepare = prepare_name_owner_later,
     .run = run_lock,
     .survive = survive_dead_owner,
     .fault = true},
#endif
    {.name = NULL},
};
