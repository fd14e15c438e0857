// SPDX-License-Identifier: PSF-2.0
/* Semaphores, plain and robust, and events: counts are exact, no sleeper is forgotten. */
#include "operations.h"

#include "shm/objects.h"    // a place for them
#include "sync/event.h"     // what is stepped through
#include "sync/semaphore.h" // what is stepped through

enum { TAKEN = 0, HELPER = 1, WAITING = 2 };
enum { TOKENS = 3 };

static mp_handle handle;
static struct mp_semaphore_shm *semaphore;
static struct mp_event_shm *event;

static void make(uint32_t value, uint32_t max, uint32_t tokens)
{
    MUST(mp_object_create(MP_TYPE_SEMAPHORE, mp_semaphore_size(tokens), &handle));
    semaphore = mp_object_payload(&handle);
    mp_semaphore_init(semaphore, value, max, tokens);
}

static void setup_one(void)
{
    make(1, MP_SEMAPHORE_MAX, 0);
}

static void setup_none(void)
{
    make(0, MP_SEMAPHORE_MAX, 0);
}

static void setup_robust(void)
{
    make(TOKENS, MP_SEMAPHORE_MAX, TOKENS);
}

static mp_status acquire(mp_time deadline)
{
    mp_spin_memory memory = {0, 0};
    mp_semaphore_wait wait = {.semaphore = semaphore, .memory = &memory};
    mp_status status = mp_semaphore_try(semaphore);
    while (status == MP_WOULD_BLOCK || status == MP_INTERRUPTED)
        status = mp_semaphore_acquire(&wait, deadline);
    return status;
}

static void drop(void)
{
    mp_object_release(&handle);
}

/* Exactly `value` can be taken, and as many be given back. */
static void expect(uint32_t value)
{
    CHECK(mp_semaphore_value(semaphore) == value, "the value is %u, not %u",
          mp_semaphore_value(semaphore), value);
    for (uint32_t i = 0; i < value; i++)
        CHECK(acquire(soon(SURVIVOR_MILLISECONDS)) == MP_OK, "%u tokens, but only %u can be had",
              value, i);
    CHECK(mp_semaphore_try(semaphore) == MP_WOULD_BLOCK, "there is one too many");
    for (uint32_t i = 0; i < value; i++)
        CHECK(mp_semaphore_release(semaphore) == MP_OK, "it cannot be released");
    CHECK(mp_semaphore_value(semaphore) == value, "%u came back of %u",
          mp_semaphore_value(semaphore), value);
}

/* ---- plain: what a dead process took is gone ---- */

static void run_plain(void)
{
    (void)acquire(MP_FOREVER);
    scene.shared->value[TAKEN] = 1;
    (void)mp_semaphore_release(semaphore);
}

/* Another one takes it and gives it back while the child stands still. */
static void alive_plain(void)
{
    if (mp_semaphore_try(semaphore) == MP_OK)
        CHECK(mp_semaphore_release(semaphore) == MP_OK, "it cannot be released");
}

static void survive_plain(void)
{
    uint32_t value = mp_semaphore_value(semaphore);
    CHECK(value == 1 || (value == 0 && !scene.finished), "the value is %u", value);
    expect(value);
    drop();
}

/* ---- a helper sleeps for the token that the child gives ---- */

static void take_one(void)
{
    mp_status status = acquire(MP_FOREVER);
    scene.shared->value[HELPER] = 1 + (int64_t)status;
}

static void setup_awaited(void)
{
    setup_none();
    helper_start(0, take_one);
    helper_asleep(0);
}

static void setup_awaited_bounded(void)
{
    make(0, 1, 0);
    helper_start(0, take_one);
    helper_asleep(0);
}

static void run_release(void)
{
    (void)mp_semaphore_release(semaphore);
}

static void survive_awaited(void)
{
    /* Given: the word says so, or the helper has it already. Then it must get it without our help. */
    trace_nap(scene.finished ? 0 : 500);
    bool given =
        scene.finished || mp_semaphore_value(semaphore) != 0 || scene.shared->value[HELPER] != 0;
    if (!given)
        CHECK(mp_semaphore_release(semaphore) == MP_OK, "it cannot be released");
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[HELPER] == 1, "the sleeper did not get it");
    uint32_t value = mp_semaphore_value(semaphore);
    CHECK(value <= !given, "%u tokens too many", value);
    expect(value);
    drop();
}

/* ---- the child sleeps ---- */

static bool release_once(void)
{
    if (scene.wakes == 1)
        CHECK(mp_semaphore_release(semaphore) == MP_OK, "it cannot be released");
    return scene.wakes < 2;
}

static void run_take(void)
{
    (void)acquire(MP_FOREVER);
}

static void survive_sleep(void)
{
    uint32_t value = mp_semaphore_value(semaphore);
    CHECK(value == 0 || (scene.wakes == 1 && !scene.finished), "the value is %u", value);
    expect(value);
    drop();
}

/* Behind the child, which is woken and dies without taking the token, sleeps another one. */
static bool queue_another_and_release(void)
{
    if (scene.wakes == 1) {
        helper_start(0, take_one);
        helper_asleep(0);
        CHECK(mp_semaphore_release(semaphore) == MP_OK, "it cannot be released");
    }
    return scene.wakes < 2;
}

static void survive_next_in_line(void)
{
    if (scene.wakes == 0) {
        survive_sleep();
        return;
    }
    trace_nap(scene.finished ? 0 : 500);
    if (mp_semaphore_value(semaphore) == 0 && scene.shared->value[HELPER] == 0)
        CHECK(mp_semaphore_release(semaphore) == MP_OK, "it cannot be released");
    helper_join(0, SURVIVOR_MILLISECONDS);
    expect(mp_semaphore_value(semaphore) != 0);
    drop();
}

/* ---- robust: what a dead process took comes back ---- */

static void alive_robust(void)
{
    uint32_t value = mp_semaphore_value(semaphore);
    CHECK(value == TOKENS || value == TOKENS - 1, "the value is %u", value);
    CHECK(scene.shared->value[TAKEN] == 0 || value >= TOKENS - 1,
          "a living process lost its token");
}

static void survive_robust(void)
{
    expect(TOKENS);
    drop();
}

static void take_all(void)
{
    for (int i = 0; i < TOKENS; i++)
        MUST(mp_semaphore_try(semaphore));
}

/* All tokens are held by a dead process. */
static void setup_robust_dead(void)
{
    setup_robust();
    helper_start(0, take_all);
    helper_join(0, 1000);
}

/* The child has all of them; then the helper, which waited for that, sleeps. */
static void take_one_later(void)
{
    wait_value(WAITING);
    take_one();
    (void)mp_semaphore_release(semaphore);
}

static void setup_robust_sleeper(void)
{
    setup_robust();
    helper_start(0, take_one_later);
}

static void prepare_take_all(void)
{
    take_all();
    scene.shared->value[WAITING] = 1;
    while (!(mp_load_acquire32(&semaphore->word) & MP_WAITERS))
        trace_nap(20);
}

static void survive_robust_sleeper(void)
{
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[HELPER] == 1, "the sleeper did not get a token");
    survive_robust();
}

/* ---- events ---- */

static void make_event(void)
{
    MUST(mp_object_create(MP_TYPE_EVENT, sizeof *event, &handle));
    event = mp_object_payload(&handle);
}

static mp_status wait_event(mp_time deadline)
{
    mp_spin_memory memory = {0, 0};
    mp_event_wait wait;
    mp_status status = mp_event_begin(&wait, event, &memory);
    while (status == MP_WOULD_BLOCK || status == MP_INTERRUPTED)
        status = mp_event_sleep(&wait, deadline);
    return status;
}

static void wait_for_event(void)
{
    mp_status status = wait_event(MP_FOREVER);
    scene.shared->value[HELPER] = 1 + (int64_t)status;
}

static void setup_event_awaited(void)
{
    make_event();
    helper_start(0, wait_for_event);
    helper_start(1, wait_for_event);
    helper_asleep(0);
    helper_asleep(1);
}

static void run_set(void)
{
    mp_event_set(event);
}

static void run_set_clear(void)
{
    mp_event_set(event);
    mp_event_clear(event);
}

static void check_event_works(void)
{
    mp_event_clear(event);
    CHECK(!mp_event_is_set(event), "it is set after a clear");
    CHECK(wait_event(soon(0)) == MP_TIMEOUT, "a wait for an event that is not set ends");
    mp_event_set(event);
    CHECK(mp_event_is_set(event), "it is not set after a set");
    CHECK(wait_event(soon(0)) == MP_OK, "a wait for an event that is set does not end");
}

static void survive_set(void)
{
    /* Set once, even if cleared since: both sleepers must notice without our help. */
    bool happened = (mp_load_acquire32(&event->word) & 0x7fffffffU) != 0;
    CHECK(happened || !scene.finished, "it was not set");
    if (!happened)
        mp_event_set(event);
    helper_join(0, SURVIVOR_MILLISECONDS);
    helper_join(1, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[HELPER] == 1, "a sleeper was not told");
    check_event_works();
    drop();
}

static bool set_once(void)
{
    if (scene.wakes == 1)
        mp_event_set(event);
    return scene.wakes < 2;
}

/* Set and cleared at once while the child stands still: if its wait had begun, that ends it. */
static void alive_event(void)
{
    mp_event_set(event);
    mp_event_clear(event);
}

static void survive_event(void)
{
    check_event_works();
    drop();
}

const struct operation operations_semaphore[] = {
    {.name = "semaphore",
     .setup = setup_one,
     .run = run_plain,
     .alive = alive_plain,
     .survive = survive_plain},
    {.name = "semaphore-wake",
     .setup = setup_awaited,
     .run = run_release,
     .survive = survive_awaited},
    {.name = "semaphore-wake-bounded",
     .setup = setup_awaited_bounded,
     .run = run_release,
     .survive = survive_awaited},
    {.name = "semaphore-sleep",
     .setup = setup_none,
     .run = run_take,
     .wake = release_once,
     .survive = survive_sleep},
    {.name = "semaphore-sleep-first-of-two",
     .setup = setup_none,
     .run = run_take,
     .wake = queue_another_and_release,
     .survive = survive_next_in_line},
    {.name = "semaphore-robust",
     .setup = setup_robust,
     .run = run_plain,
     .alive = alive_robust,
     .survive = survive_robust},
    {.name = "semaphore-robust-dead-holder",
     .setup = setup_robust_dead,
     .run = run_plain,
     .survive = survive_robust},
    {.name = "semaphore-robust-wake",
     .setup = setup_robust_sleeper,
     .prepare = prepare_take_all,
     .run = run_release,
     .survive = survive_robust_sleeper},
    {.name = "event-set", .setup = setup_event_awaited, .run = run_set, .survive = survive_set},
    {.name = "event-set-clear",
     .setup = setup_event_awaited,
     .run = run_set_clear,
     .survive = survive_set},
    {.name = "event-wait",
     .setup = make_event,
     .run = wait_for_event,
     .wake = set_once,
     .alive = alive_event,
     .survive = survive_event},
    {.name = NULL},
};
