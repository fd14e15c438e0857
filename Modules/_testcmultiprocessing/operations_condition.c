// SPDX-License-Identifier: PSF-2.0
/* Conditions and barriers: a notification wakes exactly as many living sleepers as it says, whoever
 * dies on either side; a barrier counts the living. */
#include "operations.h"

#include "shm/objects.h"    // a place for them
#include "sync/barrier.h"   // what is stepped through
#include "sync/condition.h" // what is stepped through
#include "sync/lock.h"      // the condition's lock

enum { WOKEN = 0, RESULT = 4, ACTION = 8, NOTIFIED = 9, SLEEPERS = 3 };

static mp_handle condition_object, lock_object, barrier_object;
static struct mp_condition_shm *condition;
static struct mp_lock_shm *lock;
static struct mp_barrier_shm *barrier;
static mp_spin_memory memory;
static unsigned sleepers; // how many helpers sleep

/* ---- conditions ---- */

static mp_status take_lock(mp_time deadline)
{
    mp_status status = mp_lock_try(lock);
    mp_lock_wait wait = {.lock = lock, .memory = &memory};
    while (status == MP_WOULD_BLOCK || status == MP_INTERRUPTED)
        status = mp_lock_acquire(&wait, deadline);
    return status;
}

static mp_status wait_condition(mp_time deadline)
{
    mp_condition_wait wait = {.condition = condition, .memory = &memory};
    (void)take_lock(MP_FOREVER);
    mp_status status = mp_condition_begin(&wait);
    (void)mp_lock_release(lock);
    while (status == MP_OK || status == MP_INTERRUPTED) {
        status = mp_condition_sleep(&wait, deadline);
        if (status != MP_INTERRUPTED)
            break;
    }
    (void)take_lock(MP_FOREVER);
    (void)mp_lock_release(lock);
    return status;
}

static void notify(uint32_t count)
{
    (void)take_lock(MP_FOREVER);
    while (mp_condition_notify(condition, count) == MP_INTERRUPTED)
        ;
    (void)mp_lock_release(lock);
}

static void sleep_as(unsigned number)
{
    mp_status status = wait_condition(MP_FOREVER);
    scene.shared->value[RESULT + number] = (int64_t)status;
    scene.shared->value[WOKEN + number] = 1;
}

static void sleep_as_0(void)
{
    sleep_as(0);
}

static void sleep_as_1(void)
{
    sleep_as(1);
}

static void sleep_as_2(void)
{
    sleep_as(2);
}

/* Start a helper that sleeps behind those that sleep already. */
static void add(void (*body)(void))
{
    uint32_t before = mp_condition_sleeping(condition);
    helper_start(sleepers, body);
    while (mp_condition_sleeping(condition) == before)
        trace_nap(20);
    helper_asleep(sleepers);
    sleepers++;
}

static void add_sleeper(void)
{
    static void (*const bodies[SLEEPERS])(void) = {sleep_as_0, sleep_as_1, sleep_as_2};
    add(bodies[sleepers]);
}

static void make(void)
{
    sleepers = 0;
    MUST(mp_object_create(MP_TYPE_CONDITION, sizeof *condition, &condition_object));
    MUST(mp_object_create(MP_TYPE_LOCK, sizeof *lock, &lock_object));
    condition = mp_object_payload(&condition_object);
    lock = mp_object_payload(&lock_object);
    mp_lock_init(lock, MP_LOCK_RECURSIVE);
}

static void drop(void)
{
    CHECK(mp_condition_sleeping(condition) == 0, "%u still sleep there",
          mp_condition_sleeping(condition));
    mp_object_release(&condition_object);
    mp_object_release(&lock_object);
}

/* Is some wake-up on its way: given to an entry whose owner has not used it? */
static bool wake_up_pending(void)
{
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (mp_sleeper_look(i, mp_offset_of(condition), &view) &&
            mp_sleeper_state(view.word) == MP_SLEEPER_NOTIFIED)
            return true;
    }
    return false;
}

static void must_wake(unsigned number)
{
    helper_join(number, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[WOKEN + number] == 1 && scene.shared->value[RESULT + number] == MP_OK,
          "sleeper %u was woken with %lld", number,
          (long long)scene.shared->value[RESULT + number]);
}

static void must_sleep(unsigned number)
{
    CHECK(scene.shared->value[WOKEN + number] == 0, "sleeper %u was woken too", number);
}

/* The oldest `gone` have been notified and wake up by themselves; the rest sleeps until we notify
 * them, one by one and in order. */
static void survive_notified(unsigned gone)
{
    mp_status status = take_lock(soon(SURVIVOR_MILLISECONDS));
    CHECK(status == MP_OK || status == MP_OWNER_DIED, "the lock cannot be had: %d", (int)status);
    (void)mp_lock_release(lock);
    for (unsigned i = 0; i < gone; i++)
        must_wake(i);
    for (unsigned i = gone; i < sleepers; i++)
        must_sleep(i);
    CHECK(mp_condition_sleeping(condition) == sleepers - gone, "%u sleep, not %u",
          mp_condition_sleeping(condition), sleepers - gone);
    for (unsigned i = gone; i < sleepers && !stepper_failed(); i++) {
        notify(1);
        must_wake(i);
        if (i + 1 < sleepers)
            must_sleep(i + 1);
    }
    drop();
}

/* ---- the notifier dies ---- */

static void setup_two(void)
{
    make();
    add_sleeper();
    add_sleeper();
}

static void setup_three(void)
{
    setup_two();
    add_sleeper();
}

static void run_notify(void)
{
    notify(1);
}

static void run_notify_two(void)
{
    notify(2);
}

static void run_notify_all(void)
{
    notify(UINT32_MAX);
}

static void survive_notify_up_to(unsigned count)
{
    unsigned gone = sleepers - mp_condition_sleeping(condition);
    CHECK(gone <= count, "%u were notified, not %u", gone, count);
    CHECK(gone == count || !scene.finished, "notify() returned, and %u of %u were notified", gone,
          count);
    survive_notified(gone);
}

static void survive_notify(void)
{
    survive_notify_up_to(1);
}

static void survive_notify_two(void)
{
    survive_notify_up_to(2);
}

/* All at once need not be in order. */
static void survive_notify_all(void)
{
    CHECK(mp_condition_sleeping(condition) == 0 || !scene.finished, "%u were not notified",
          mp_condition_sleeping(condition));
    notify(UINT32_MAX);
    for (unsigned i = 0; i < sleepers; i++)
        must_wake(i);
    drop();
}

static void alive_notify(void)
{
    CHECK(sleepers - mp_condition_sleeping(condition) <= 1, "more than one was notified");
}

/* The oldest sleeper is dead: it must not swallow the wake-up. */
static void setup_dead_and_living(void)
{
    make();
    add_sleeper();
    helper_kill(0);
    sleepers = 1;
    add_sleeper();
}

static void survive_notify_past_dead(void)
{
    bool given = mp_condition_sleeping(condition) == 0;
    CHECK(given || !scene.finished, "the wake-up went to the dead one");
    if (!given)
        notify(1);
    must_wake(1);
    drop();
}

/* The oldest sleeper died after it was notified: the child, who notifies once more, passes that wake-up
 * on to the second, unless the second finds it first, and wakes the third. */
static void setup_dead_notified(void)
{
    setup_three();
    helper_stop(0);
    notify(1);
    helper_kill(0);
}

static void survive_dead_notified(void)
{
    must_wake(1);
    bool given = mp_condition_sleeping(condition) == 0;
    CHECK(given || !scene.finished, "notify() returned, and nobody was notified");
    if (given) {
        must_wake(2);
    } else {
        must_sleep(2);
        notify(1);
        must_wake(2);
    }
    drop();
}

/* ---- the sleeper dies ---- */

static void run_wait(void)
{
    (void)wait_condition(MP_FOREVER);
}

static bool notify_once(void)
{
    CHECK(scene.shared->value[NOTIFIED] == 0 || mp_condition_sleeping(condition) == 0,
          "it was notified, and sleeps");
    if (scene.wakes == 1)
        notify(1);
    return scene.wakes < 2;
}

/* Notified while the child stands still: if it is a sleeper by then, that wakes it, and it must not
 * need another notification. */
static void alive_wait(void)
{
    mp_status status = mp_lock_try(lock);
    CHECK(status == MP_OK || status == MP_WOULD_BLOCK, "the lock gave %d", (int)status);
    if (status != MP_OK)
        return;
    scene.shared->value[NOTIFIED] = mp_condition_sleeping(condition) == 1;
    while (mp_condition_try_notify(condition, 1) == MP_WOULD_BLOCK)
        trace_nap(20);
    (void)mp_lock_release(lock);
}

static void survive_wait(void)
{
    mp_status status = take_lock(soon(SURVIVOR_MILLISECONDS));
    CHECK(status == MP_OK || status == MP_OWNER_DIED, "the lock cannot be had: %d", (int)status);
    (void)mp_lock_release(lock);
    CHECK(mp_condition_sleeping(condition) == 0, "the dead count as sleepers");
    sleepers = 0;
    add_sleeper();
    survive_notified(0);
}

/* Behind the child sleeps another one when the child is notified; if the child dies before it has
 * used the wake-up, the other one gets it, without anybody's help. */
static bool add_another_and_notify(void)
{
    if (scene.wakes == 1) {
        add_sleeper();
        notify(1);
    }
    return scene.wakes < 2;
}

/* Takes its place without the lock, which the driver holds. */
static void sleep_late(void)
{
    mp_condition_wait wait = {.condition = condition, .memory = &memory};
    mp_status status = mp_condition_begin(&wait);
    while (status == MP_OK) {
        status = mp_condition_sleep(&wait, MP_FOREVER);
        if (status == MP_OK)
            break;
        status = status == MP_INTERRUPTED ? MP_OK : status;
    }
    scene.shared->value[RESULT + 1] = (int64_t)status;
    scene.shared->value[WOKEN + 1] = 1;
}

/* And one that comes later than the wake-up: it never steals it. The lock is held until it sleeps, so
 * that the child does not go on before. */
static bool add_two_around_notify(void)
{
    if (scene.wakes == 1) {
        add_sleeper();
        (void)take_lock(MP_FOREVER);
        notify(1);
        add(sleep_late);
        (void)mp_lock_release(lock);
    }
    return scene.wakes < 2;
}

static void survive_passed_on(void)
{
    if (scene.wakes == 0) {
        survive_wait();
        return;
    }
    bool pending = wake_up_pending();
    CHECK(!pending || !scene.finished, "wait() returned, and its wake-up is still to be used");
    /* The helper may have got it already. */
    survive_notified(pending || mp_condition_sleeping(condition) < sleepers ? 1 : 0);
}

/* ---- leaving ---- */

static void run_wait_in_vain(void)
{
    (void)wait_condition(0);
}

static void run_cancel(void)
{
    mp_condition_wait wait = {.condition = condition, .memory = &memory};
    if (mp_condition_begin(&wait) == MP_OK)
        while (mp_condition_cancel(&wait) == MP_INTERRUPTED)
            ;
}

/* ---- barriers of two ---- */

static mp_status arrive(bool action, uint32_t *index, mp_time deadline)
{
    mp_barrier_wait wait = {.barrier = barrier, .memory = &memory, .action = action};
    mp_status status;
    do
        status = mp_barrier_arrive(&wait, deadline);
    while (status == MP_INTERRUPTED);
    if (status == MP_OK && wait.runner) {
        scene.shared->value[ACTION]++;
        do
            status = mp_barrier_finish(&wait, true);
        while (status == MP_INTERRUPTED);
    }
    *index = wait.index;
    return status;
}

static void arrive_as_helper(void)
{
    uint32_t index = UINT32_MAX;
    mp_status status = arrive(false, &index, MP_FOREVER);
    scene.shared->value[RESULT] = (int64_t)status;
    scene.shared->value[RESULT + 1] = index;
    scene.shared->value[WOKEN] = 1;
}

static void make_barrier(void)
{
    MUST(mp_object_create(MP_TYPE_BARRIER, sizeof *barrier, &barrier_object));
    barrier = mp_object_payload(&barrier_object);
    barrier->parties = 2;
}

static void setup_barrier_awaited(void)
{
    make_barrier();
    helper_start(0, arrive_as_helper);
    helper_asleep(0);
}

static void run_arrive(void)
{
    uint32_t index;
    scene.shared->value[RESULT + 2] = (int64_t)arrive(false, &index, MP_FOREVER);
}

static void run_arrive_with_action(void)
{
    uint32_t index;
    scene.shared->value[RESULT + 2] = (int64_t)arrive(true, &index, MP_FOREVER);
}

static void helper_must_get(mp_status expected)
{
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[WOKEN] == 1 && scene.shared->value[RESULT] == (int64_t)expected,
          "the other party got %lld, not %d", (long long)scene.shared->value[RESULT],
          (int)expected);
}

/* Two new parties pass. */
static void use_barrier(void)
{
    uint32_t index = UINT32_MAX;
    CHECK(mp_barrier_waiting(barrier) == 0, "%u wait at an empty barrier",
          mp_barrier_waiting(barrier));
    scene.shared->value[WOKEN] = 0;
    helper_start(0, arrive_as_helper);
    mp_status status = arrive(false, &index, soon(SURVIVOR_MILLISECONDS));
    CHECK(status == MP_OK && index < 2, "the next round gave %d, index %u", (int)status, index);
    helper_must_get(MP_OK);
    CHECK(stepper_failed() || scene.shared->value[RESULT + 1] == 1 - (int64_t)index,
          "two got the same index");
    mp_object_release(&barrier_object);
}

static void survive_arrive(void)
{
    uint32_t index;
    bool gone = (mp_load_acquire32(&barrier->word) & MP_BARRIER_GENERATION) != 0;
    CHECK(gone || !scene.finished, "it returned, and the generation was not let go");
    if (!gone) {
        mp_status status = arrive(false, &index, soon(SURVIVOR_MILLISECONDS));
        CHECK(status == MP_OK, "two living parties were there, and one got %d", (int)status);
    }
    helper_must_get(MP_OK);
    use_barrier();
}

/* Who runs the action dies in it: the barrier breaks for the others. */
static void survive_action(void)
{
    uint32_t word = mp_load_acquire32(&barrier->word);
    if ((word & MP_BARRIER_STATE) == MP_BARRIER_RUNNING) {
        CHECK(!scene.finished, "it returned, and the action still runs");
        helper_must_get(MP_BROKEN);
        CHECK(mp_barrier_is_broken(barrier), "the runner died, and the barrier is not broken");
        CHECK(mp_barrier_reset(barrier) == MP_OK, "it cannot be reset");
        use_barrier();
        return;
    }
    CHECK(scene.shared->value[ACTION] == 1 || !scene.finished, "the action ran %lld times",
          (long long)scene.shared->value[ACTION]);
    survive_arrive();
}

#ifdef MP_TESTING

/* The last party died when it had given the others their indices, and before it let them go. */
static void arrive_and_die(void)
{
    uint32_t index;
    die_at("barrier:before_release");
    (void)arrive(false, &index, MP_FOREVER);
}

static void setup_barrier_repair(void)
{
    setup_barrier_awaited();
    helper_start(1, arrive_and_die);
    helper_must_die(1);
}

#endif

static bool arrive_once(void)
{
    uint32_t index;
    if (scene.wakes == 1) {
        mp_status status = arrive(false, &index, soon(SURVIVOR_MILLISECONDS));
        CHECK(status == MP_OK && index == 1, "the last party got %d, index %u", (int)status, index);
    }
    return scene.wakes < 2;
}

static void survive_arrived_first(void)
{
    use_barrier(); // the dead one does not count
}

static void run_reset(void)
{
    while (mp_barrier_reset(barrier) == MP_INTERRUPTED)
        ;
}

static void run_abort(void)
{
    while (mp_barrier_abort(barrier) == MP_INTERRUPTED)
        ;
}

static void survive_reset(void)
{
    bool gone = (mp_load_acquire32(&barrier->word) & MP_BARRIER_GENERATION) != 0;
    CHECK(gone || !scene.finished, "it was not reset");
    if (!gone)
        run_reset();
    helper_must_get(MP_BROKEN);
    use_barrier();
}

static void survive_abort(void)
{
    bool broken = mp_barrier_is_broken(barrier);
    CHECK(broken || !scene.finished, "it was not aborted");
    if (!broken)
        run_abort();
    helper_must_get(MP_BROKEN);
    run_reset();
    use_barrier();
}

const struct operation operations_condition[] = {
    {.name = "condition-notify",
     .setup = setup_two,
     .run = run_notify,
     .alive = alive_notify,
     .survive = survive_notify},
    {.name = "condition-notify-two",
     .setup = setup_three,
     .run = run_notify_two,
     .survive = survive_notify_two},
    {.name = "condition-notify-all",
     .setup = setup_three,
     .run = run_notify_all,
     .survive = survive_notify_all},
    {.name = "condition-notify-past-dead",
     .setup = setup_dead_and_living,
     .run = run_notify,
     .survive = survive_notify_past_dead},
    {.name = "condition-notify-repair",
     .setup = setup_dead_notified,
     .run = run_notify,
     .survive = survive_dead_notified},
    {.name = "condition-wait",
     .setup = make,
     .run = run_wait,
     .wake = notify_once,
     .alive = alive_wait,
     .survive = survive_wait},
    {.name = "condition-wait-first-of-two",
     .setup = make,
     .run = run_wait,
     .wake = add_another_and_notify,
     .survive = survive_passed_on},
    {.name = "condition-wait-between",
     .setup = make,
     .run = run_wait,
     .wake = add_two_around_notify,
     .survive = survive_passed_on},
    {.name = "condition-wait-in-vain",
     .setup = make,
     .run = run_wait_in_vain,
     .survive = survive_wait},
    {.name = "condition-cancel", .setup = make, .run = run_cancel, .survive = survive_wait},
    {.name = "barrier-last",
     .setup = setup_barrier_awaited,
     .run = run_arrive,
     .survive = survive_arrive},
    {.name = "barrier-action",
     .setup = setup_barrier_awaited,
     .run = run_arrive_with_action,
     .survive = survive_action},
#ifdef MP_TESTING
    {.name = "barrier-repair",
     .setup = setup_barrier_repair,
     .run = run_arrive,
     .survive = survive_arrive},
#endif
    {.name = "barrier-first",
     .setup = make_barrier,
     .run = run_arrive,
     .wake = arrive_once,
     .survive = survive_arrived_first},
    {.name = "barrier-reset",
     .setup = setup_barrier_awaited,
     .run = run_reset,
     .survive = survive_reset},
    {.name = "barrier-abort",
     .setup = setup_barrier_awaited,
     .run = run_abort,
     .survive = survive_abort},
    {.name = NULL},
};
