// SPDX-License-Identifier: PSF-2.0
/* Locks, semaphores, conditions, events, barriers and cells from inside: bit patterns, and threads that meet
 * on them over one mapping. */
#include "check.h" // CHECK

#include "shm/objects.h"    // where they live
#include "sync/barrier.h"   // barriers
#include "sync/cell.h"      // numbers
#include "sync/condition.h" // conditions
#include "sync/event.h"     // events
#include "sync/lock.h"      // locks
#include "sync/semaphore.h" // semaphores

#include <pthread.h> // threads

#define SECOND (1000 * (mp_time)MP_MILLISECOND)
#define THREADS 4
#define ROUNDS 2000U

static void *make(uint32_t type, uint64_t size)
{
    mp_handle handle;
    CHECK(mp_family_enter() == MP_OK);
    CHECK(mp_object_create(type, size, &handle) == MP_OK);
    return mp_object_payload(&handle);
}

static struct mp_lock_shm *make_lock(uint32_t flags)
{
    struct mp_lock_shm *lock = make(MP_TYPE_LOCK, sizeof(struct mp_lock_shm));
    mp_lock_init(lock, flags);
    return lock;
}

static struct mp_semaphore_shm *make_semaphore(uint32_t value, uint32_t max, uint32_t tokens)
{
    struct mp_semaphore_shm *semaphore = make(MP_TYPE_SEMAPHORE, mp_semaphore_size(tokens));
    mp_semaphore_init(semaphore, value, max, tokens);
    return semaphore;
}

static mp_time soon(void)
{
    return mp_clock_now() + 20 * MP_MILLISECOND;
}

static mp_time late(void)
{
    return mp_clock_now() + 60 * SECOND;
}

/* ---- blocking calls as the Python layer makes them ---- */

static mp_status acquire_lock(struct mp_lock_shm *lock, mp_time deadline)
{
    mp_spin_memory memory = {0, 0};
    mp_lock_wait wait = {.lock = lock, .memory = &memory};
    mp_status status = mp_lock_try(lock);
    if (status == MP_WOULD_BLOCK) {
        do
            status = mp_lock_acquire(&wait, deadline);
        while (status == MP_INTERRUPTED);
    }
    return status;
}

static mp_status acquire_semaphore(struct mp_semaphore_shm *semaphore, mp_time deadline)
{
    mp_spin_memory memory = {0, 0};
    mp_semaphore_wait wait = {.semaphore = semaphore, .memory = &memory};
    mp_status status;
    do
        status = mp_semaphore_acquire(&wait, deadline);
    while (status == MP_INTERRUPTED);
    return status;
}

static mp_status wait_for_event(struct mp_event_shm *event, mp_time deadline)
{
    mp_spin_memory memory = {0, 0};
    mp_event_wait wait;
    mp_status status = mp_event_begin(&wait, event, &memory);
    if (status == MP_WOULD_BLOCK) {
        do
            status = mp_event_sleep(&wait, deadline);
        while (status == MP_INTERRUPTED);
    }
    return status;
}

static void notify(struct mp_condition_shm *condition, uint32_t count)
{
    mp_status status = mp_condition_try_notify(condition, count);
    while (status == MP_WOULD_BLOCK || status == MP_INTERRUPTED)
        status = mp_condition_notify(condition, count);
    CHECK(status == MP_OK);
}

static mp_status wait_at(struct mp_condition_shm *condition, struct mp_lock_shm *lock,
                         mp_time deadline)
{
    mp_spin_memory memory = {0, 0};
    mp_condition_wait wait = {.condition = condition, .memory = &memory};
    CHECK(mp_condition_begin(&wait) == MP_OK);
    uint32_t depth = mp_lock_release_all(lock);
    mp_status status;
    do
        status = mp_condition_sleep(&wait, deadline);
    while (status == MP_INTERRUPTED);
    CHECK(acquire_lock(lock, MP_FOREVER) == MP_OK);
    mp_lock_restore_depth(lock, depth);
    return status;
}

static mp_status meet(struct mp_barrier_shm *barrier, mp_time deadline, bool action,
                      mp_barrier_wait *wait)
{
    static _Thread_local mp_spin_memory memory;
    *wait = (mp_barrier_wait){.barrier = barrier, .memory = &memory, .action = action};
    mp_status status;
    do
        status = mp_barrier_arrive(wait, deadline);
    while (status == MP_INTERRUPTED);
    return status;
}

static void in_threads(int count, void *(*body)(void *), void *argument)
{
    pthread_t threads[16];
    CHECK(count <= 16);
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i], NULL, body, argument) == 0);
    for (int i = 0; i < count; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

/* ---- bit patterns ---- */

static uint32_t low(const struct mp_lock_shm *lock)
{
    return (uint32_t)mp_load_relaxed64(&lock->word);
}

static void lock_words(void)
{
    struct mp_lock_shm *lock = make_lock(0);
    CHECK(low(lock) == 0 && mp_lock_owner(lock) == MP_NOBODY);
    CHECK(mp_lock_try(lock) == MP_OK);
    CHECK(lock->word == mp_lock_mine());
    CHECK(lock->word >> 32 == mp_thread_number() && low(lock) == mp_self());
    CHECK(mp_lock_try(lock) == MP_WOULD_BLOCK);
    CHECK(acquire_lock(lock, soon()) == MP_TIMEOUT);
    CHECK(low(lock) ==
          (mp_self() | MP_WAITERS)); // whoever gave up leaves a bit that costs one wake
    CHECK(mp_lock_is_mine(lock));
    CHECK(mp_lock_release(lock) == MP_OK);
    CHECK(low(lock) == 0);
    CHECK(mp_lock_release(lock) == MP_MISUSE);
    CHECK(mp_lock_try(lock) == MP_OK); // the high half of a free word means nothing
    mp_lock_disown(lock);
    CHECK(low(lock) == MP_DISOWNED && !mp_lock_is_mine(lock));
    CHECK(mp_lock_try(lock) == MP_WOULD_BLOCK);
    CHECK(mp_lock_release(lock) == MP_OK && low(lock) == 0);
    CHECK(mp_lock_deaths(lock) == 0);
}

static void *try_lock(void *argument)
{
    CHECK(mp_lock_try(argument) == MP_WOULD_BLOCK);
    CHECK(mp_lock_release(argument) == MP_NOT_OWNER);
    return NULL;
}

static void recursive_lock_words(void)
{
    struct mp_lock_shm *lock = make_lock(MP_LOCK_RECURSIVE);
    CHECK(mp_lock_release(lock) == MP_NOT_OWNER);
    for (uint32_t depth = 1; depth <= 3; depth++) {
        CHECK(mp_lock_try(lock) == MP_OK);
        CHECK(mp_lock_depth(lock) == depth && lock->word == mp_lock_mine());
    }
    in_threads(1, try_lock, lock); // a sibling has another thread number
    CHECK(mp_lock_release(lock) == MP_OK && mp_lock_depth(lock) == 2);
    CHECK(mp_lock_release_all(lock) == 2 && low(lock) == 0 && lock->depth == 0);
    CHECK(mp_lock_try(lock) == MP_OK);
    lock->depth = UINT32_MAX;
    CHECK(mp_lock_try(lock) == MP_TOO_LARGE);
    mp_lock_disown(lock); // of plain locks only
    CHECK(mp_lock_is_mine(lock));
}

static void take_and_die(void *argument)
{
    CHECK(mp_family_enter() == MP_OK);
    CHECK(mp_lock_try(argument) == MP_OK);
    (void)kill(getpid(), SIGKILL);
}

static void lock_of_the_dead(void)
{
    static const uint32_t flags[] = {0, MP_LOCK_RECURSIVE, MP_LOCK_FRAGILE};
    for (int i = 0; i < 3; i++) {
        struct mp_lock_shm *lock = make_lock(flags[i]);
        CHECK(WIFSIGNALED(reap(start(take_and_die, lock))));
        bool robust = flags[i] != MP_LOCK_FRAGILE;
        CHECK(mp_lock_try(lock) == (robust ? MP_OWNER_DIED : MP_WOULD_BLOCK));
        CHECK(mp_lock_deaths(lock) == robust);
        if (robust) {
            CHECK(lock->word == (mp_lock_mine() | MP_WAITERS) && lock->depth == 1);
            CHECK(mp_lock_release(lock) == MP_OK && low(lock) == 0);
        }
    }
}

static void semaphore_words(void)
{
    struct mp_semaphore_shm *semaphore = make_semaphore(1, 2, 0);
    CHECK(mp_semaphore_try(semaphore) == MP_OK && semaphore->word == 0);
    CHECK(mp_semaphore_try(semaphore) == MP_WOULD_BLOCK);
    CHECK(acquire_semaphore(semaphore, soon()) == MP_TIMEOUT);
    CHECK(semaphore->word == MP_WAITERS);
    CHECK(mp_semaphore_release(semaphore) == MP_OK);
    CHECK(semaphore->word == 1); // nobody slept: the bit is gone
    CHECK(mp_semaphore_release(semaphore) == MP_OK && semaphore->word == 2);
    CHECK(mp_semaphore_release(semaphore) == MP_MISUSE && semaphore->word == 2);
    CHECK(mp_semaphore_value(semaphore) == 2);
}

/* However many tokens the memory says by now, nobody looks for them outside of the mapping. */
static void damaged_tokens_end(void)
{
    struct mp_semaphore_shm *semaphore = make_semaphore(1, 1, 1);
    CHECK(mp_semaphore_try(semaphore) == MP_OK && mp_semaphore_value(semaphore) == 0);
    semaphore->tokens = UINT32_MAX;
    CHECK(mp_semaphore_value(semaphore) < UINT32_MAX);
    CHECK(mp_semaphore_release(semaphore) == MP_OK && semaphore->token[0] == 0);
    CHECK(mp_semaphore_try(semaphore) == MP_OK && semaphore->token[0] == mp_self());
}

static void event_words(void)
{
    struct mp_event_shm *event = make(MP_TYPE_EVENT, sizeof(struct mp_event_shm));
    CHECK(!mp_event_is_set(event) && wait_for_event(event, soon()) == MP_TIMEOUT);
    CHECK(event->word == MP_WAITERS);
    mp_event_set(event);
    CHECK(event->word == 3); // generation 1, set
    mp_event_set(event);
    CHECK(event->word == 3);
    mp_event_clear(event);
    CHECK(event->word == 2);
    event->word = 0x7ffffffeU; // the last generation
    mp_event_set(event);
    CHECK(event->word == 1);
}

static void barrier_words(void)
{
    struct mp_barrier_shm *barrier = make(MP_TYPE_BARRIER, sizeof(struct mp_barrier_shm));
    mp_barrier_wait wait;
    barrier->parties = 1;
    CHECK(meet(barrier, late(), false, &wait) == MP_OK && wait.index == 0 && !wait.runner);
    CHECK(barrier->word == 4); // generation 1, filling
    CHECK(meet(barrier, late(), true, &wait) == MP_OK && wait.runner);
    CHECK(barrier->word == (4 | MP_BARRIER_RUNNING) && mp_barrier_waiting(barrier) == 1);
    CHECK(mp_barrier_finish(&wait, true) == MP_OK && barrier->word == 8);
    barrier->parties = 2;
    CHECK(meet(barrier, soon(), false, &wait) == MP_BROKEN);
    CHECK(mp_barrier_is_broken(barrier) && mp_barrier_waiting(barrier) == 0);
    CHECK(meet(barrier, late(), false, &wait) == MP_BROKEN);
    CHECK(mp_barrier_reset(barrier) == MP_OK && barrier->word == 12);
}

/* ---- passing on ---- */

static mp_condition_wait asleep_at(struct mp_condition_shm *condition, mp_spin_memory *memory)
{
    mp_condition_wait wait = {.condition = condition, .memory = memory};
    CHECK(mp_condition_begin(&wait) == MP_OK);
    return wait;
}

/* Who is notified and gives up passes it on to the oldest that slept then, and to nobody later. */
static void cancelled_wake_ups_are_passed_on(void)
{
    struct mp_condition_shm *condition = make(MP_TYPE_CONDITION, sizeof(*condition));
    mp_spin_memory memory = {0, 0};
    mp_condition_wait first = asleep_at(condition, &memory);
    mp_condition_wait second = asleep_at(condition, &memory);
    notify(condition, 1);
    mp_condition_wait third = asleep_at(condition, &memory);
    CHECK(mp_sleeper_notified(&first.place));
    CHECK(!mp_sleeper_notified(&second.place) && !mp_sleeper_notified(&third.place));
    CHECK(mp_condition_cancel(&first) == MP_OK);
    CHECK(mp_sleeper_notified(&second.place) && !mp_sleeper_notified(&third.place));
    CHECK(mp_condition_cancel(&second) == MP_OK); // the third slept later
    CHECK(!mp_sleeper_notified(&third.place));
    CHECK(mp_condition_sleeping(condition) == 1);
    CHECK(mp_condition_cancel(&third) == MP_OK);
    CHECK(mp_condition_sleeping(condition) == 0 && condition->sleepers == 0);
}

struct dying {
    struct mp_condition_shm *condition;
    uint32_t asleep;
};

static void sleep_until_killed(void *argument)
{
    struct dying *dying = argument;
    mp_spin_memory memory = {0, 0};
    CHECK(mp_family_enter() == MP_OK);
    (void)asleep_at(dying->condition, &memory);
    mp_store_release32(&dying->asleep, 1);
    for (;;)
        pause();
}

static void wake_ups_of_the_dead_are_passed_on(void)
{
    struct dying *dying = make(MP_TYPE_BLOCK, sizeof(struct dying));
    dying->condition = make(MP_TYPE_CONDITION, sizeof(struct mp_condition_shm));
    pid_t child = start(sleep_until_killed, dying);
    while (mp_load_acquire32(&dying->asleep) == 0)
        usleep(100);
    mp_spin_memory memory = {0, 0};
    mp_condition_wait second = asleep_at(dying->condition, &memory);
    notify(dying->condition, 1);
    CHECK(!mp_sleeper_notified(&second.place)); // the child was first
    mp_condition_wait third = asleep_at(dying->condition, &memory);
    CHECK(kill(child, SIGKILL) == 0);
    (void)reap(child);
    mp_status status;
    do
        status = mp_condition_sleep(&second, late()); // looks for the dead between its slices
    while (status == MP_INTERRUPTED);
    CHECK(status == MP_OK);
    CHECK(!mp_sleeper_notified(&third.place));
    CHECK(mp_condition_cancel(&third) == MP_OK);
}

static void dead_sleepers_swallow_nothing(void)
{
    struct dying *dying = make(MP_TYPE_BLOCK, sizeof(struct dying));
    dying->condition = make(MP_TYPE_CONDITION, sizeof(struct mp_condition_shm));
    pid_t child = start(sleep_until_killed, dying);
    while (mp_load_acquire32(&dying->asleep) == 0)
        usleep(100);
    CHECK(kill(child, SIGKILL) == 0);
    (void)reap(child);
    CHECK(mp_condition_sleeping(dying->condition) == 0);
    mp_spin_memory memory = {0, 0};
    mp_condition_wait wait = asleep_at(dying->condition, &memory);
    notify(dying->condition, 1);
    CHECK(mp_sleeper_notified(&wait.place));
    CHECK(mp_condition_sleep(&wait, late()) == MP_OK);
    notify(dying->condition, UINT32_MAX);
    CHECK(dying->condition->sleepers == 0); // the dead one is off the count
}

/* ---- threads ---- */

struct guarded {
    struct mp_lock_shm *lock;
    struct mp_semaphore_shm *semaphore;
    struct mp_condition_shm *condition;
    struct mp_event_shm *event;
    struct mp_barrier_shm *barrier;
    uint32_t plain; // guarded by the lock: ThreadSanitizer sees every access that it does not guard
    uint32_t indices[THREADS];
    uint32_t ticket; // atomic
};

static void *add_under_lock(void *argument)
{
    struct guarded *guarded = argument;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        CHECK(acquire_lock(guarded->lock, late()) == MP_OK);
        guarded->plain++;
        CHECK(mp_lock_release(guarded->lock) == MP_OK);
    }
    return NULL;
}

static void threads_exclude_each_other(void)
{
    static const uint32_t flags[] = {0, MP_LOCK_RECURSIVE};
    for (int i = 0; i < 2; i++) {
        struct guarded guarded = {.lock = make_lock(flags[i])};
        in_threads(THREADS, add_under_lock, &guarded);
        CHECK(guarded.plain == THREADS * ROUNDS && low(guarded.lock) == 0);
    }
}

static void *add_with_token(void *argument)
{
    struct guarded *guarded = argument;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        CHECK(acquire_semaphore(guarded->semaphore, late()) == MP_OK);
        guarded->plain++;
        CHECK(mp_semaphore_release(guarded->semaphore) == MP_OK);
    }
    return NULL;
}

static void threads_pass_tokens(void)
{
    static const uint32_t max[] = {1, MP_SEMAPHORE_MAX, 1};
    for (uint32_t i = 0; i < 3; i++) {
        struct guarded guarded = {.semaphore = make_semaphore(1, max[i], i == 2)};
        in_threads(THREADS, add_with_token, &guarded);
        CHECK(guarded.plain == THREADS * ROUNDS);
        CHECK(mp_semaphore_value(guarded.semaphore) == 1);
    }
}

/* Each waits until it is its turn: every wake-up must reach whoever can go on. */
static void *take_turns(void *argument)
{
    struct guarded *guarded = argument;
    uint32_t me = mp_fetch_add32(&guarded->ticket, 1);
    for (uint32_t i = 0; i < ROUNDS / 10; i++) {
        CHECK(acquire_lock(guarded->lock, late()) == MP_OK);
        while (guarded->plain % THREADS != me)
            CHECK(wait_at(guarded->condition, guarded->lock, late()) == MP_OK);
        guarded->plain++;
        notify(guarded->condition, UINT32_MAX);
        CHECK(mp_lock_release(guarded->lock) == MP_OK);
    }
    return NULL;
}

static void threads_take_turns(void)
{
    struct guarded guarded = {
        .lock = make_lock(MP_LOCK_RECURSIVE),
        .condition = make(MP_TYPE_CONDITION, sizeof(struct mp_condition_shm)),
    };
    in_threads(THREADS, take_turns, &guarded);
    CHECK(guarded.plain == THREADS * (ROUNDS / 10));
    CHECK(guarded.condition->sleepers == 0);
}

static void *consume_one_each(void *argument)
{
    struct guarded *guarded = argument;
    for (uint32_t i = 0; i < ROUNDS / 10; i++) {
        CHECK(acquire_lock(guarded->lock, late()) == MP_OK);
        while (guarded->plain == 0)
            CHECK(wait_at(guarded->condition, guarded->lock, late()) == MP_OK);
        guarded->plain--;
        CHECK(mp_lock_release(guarded->lock) == MP_OK);
    }
    return NULL;
}

static void *produce(void *argument)
{
    struct guarded *guarded = argument;
    for (uint32_t i = 0; i < THREADS * (ROUNDS / 10); i++) {
        CHECK(acquire_lock(guarded->lock, late()) == MP_OK);
        guarded->plain++;
        notify(guarded->condition, 1);
        CHECK(mp_lock_release(guarded->lock) == MP_OK);
    }
    return NULL;
}

static void threads_get_one_wake_up_each(void)
{
    struct guarded guarded = {
        .lock = make_lock(0),
        .condition = make(MP_TYPE_CONDITION, sizeof(struct mp_condition_shm)),
    };
    pthread_t producer;
    CHECK(pthread_create(&producer, NULL, produce, &guarded) == 0);
    in_threads(THREADS, consume_one_each, &guarded);
    CHECK(pthread_join(producer, NULL) == 0);
    CHECK(guarded.plain == 0);
}

static void *wait_and_see(void *argument)
{
    struct guarded *guarded = argument;
    CHECK(wait_for_event(guarded->event, late()) == MP_OK);
    CHECK(guarded->plain == 1); // written before set()
    return NULL;
}

static void *write_and_set(void *argument)
{
    struct guarded *guarded = argument;
    usleep(1000);
    guarded->plain = 1;
    mp_event_set(guarded->event);
    return NULL;
}

static void threads_see_what_was_set(void)
{
    for (int i = 0; i < 20; i++) {
        struct guarded guarded = {.event = make(MP_TYPE_EVENT, sizeof(struct mp_event_shm))};
        pthread_t writer;
        CHECK(pthread_create(&writer, NULL, write_and_set, &guarded) == 0);
        in_threads(THREADS, wait_and_see, &guarded);
        CHECK(pthread_join(writer, NULL) == 0);
    }
}

static void *meet_often(void *argument)
{
    struct guarded *guarded = argument;
    for (uint32_t i = 0; i < ROUNDS / 10; i++) {
        mp_barrier_wait wait;
        CHECK(meet(guarded->barrier, late(), i % 2 == 1, &wait) == MP_OK);
        if (wait.runner) {
            guarded->plain++; // nobody else runs now
            CHECK(mp_barrier_finish(&wait, true) == MP_OK);
        }
        CHECK(wait.index < THREADS);
        (void)mp_fetch_add32(&guarded->indices[wait.index], 1);
    }
    return NULL;
}

static void threads_meet(void)
{
    struct guarded guarded = {.barrier = make(MP_TYPE_BARRIER, sizeof(struct mp_barrier_shm))};
    guarded.barrier->parties = THREADS;
    in_threads(THREADS, meet_often, &guarded);
    CHECK(guarded.plain == ROUNDS / 20);
    for (int i = 0; i < THREADS; i++)
        CHECK(guarded.indices[i] == ROUNDS / 10); // each index once in each round
}

/* ---- cells ---- */

static mp_number cell_number(mp_cell_kind kind, int64_t value)
{
    mp_number number;
    if (mp_cell_is_real(kind))
        number.real = (double)value;
    else
        number.integer = (uint64_t)value;
    return number;
}

static int64_t cell_value(mp_cell_kind kind, mp_number number)
{
    return mp_cell_is_real(kind) ? (int64_t)number.real : (int64_t)number.integer;
}

/* What is added, and what a cell of each kind then holds. */
static void cell_words(void)
{
    static const struct {
        mp_cell_kind kind;
        int64_t before, more, after;
    } rows[] = {
        {MP_CELL_INT8, 127, 1, -128},
        {MP_CELL_UINT8, 255, 2, 1},
        {MP_CELL_INT16, -32768, -1, 32767},
        {MP_CELL_UINT16, 0, -1, 65535},
        {MP_CELL_INT32, INT32_MAX, 1, INT32_MIN},
        {MP_CELL_UINT32, 5, -6, UINT32_MAX},
        {MP_CELL_INT64, INT64_MAX, 1, INT64_MIN},
        {MP_CELL_UINT64, 0, -1, -1},
        {MP_CELL_FLOAT, 3, -5, -2},
        {MP_CELL_DOUBLE, 3, -5, -2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mp_cell_kind kind = rows[i].kind;
        uint64_t *words = make(MP_TYPE_BLOCK, 3 * sizeof(uint64_t));
        words[0] = words[2] = UINT64_MAX; // neighbours
        mp_cell_store(kind, &words[1], cell_number(kind, rows[i].before));
        CHECK(cell_value(kind, mp_cell_load(kind, &words[1])) == rows[i].before);
        mp_number sum = mp_cell_add(kind, &words[1], cell_number(kind, rows[i].more));
        CHECK(cell_value(kind, sum) == rows[i].after);
        CHECK(cell_value(kind, mp_cell_load(kind, &words[1])) == rows[i].after);
        mp_number other = cell_number(kind, rows[i].before);
        CHECK(!mp_cell_compare_exchange(kind, &words[1], other, cell_number(kind, 1)));
        CHECK(mp_cell_compare_exchange(kind, &words[1], sum, cell_number(kind, 1)));
        CHECK(cell_value(kind, mp_cell_exchange(kind, &words[1], other)) == 1);
        CHECK(words[0] == UINT64_MAX && words[2] == UINT64_MAX &&
              words[1] >> 8 >> (8 * mp_cell_size(kind) - 8) == 0);
    }
}

struct counted {
    mp_cell_kind kind;
    void *cell;
};

static void *add_often(void *argument)
{
    struct counted *counted = argument;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        (void)mp_cell_add(counted->kind, counted->cell, cell_number(counted->kind, 3));
        (void)mp_cell_add(counted->kind, counted->cell, cell_number(counted->kind, -1));
    }
    return NULL;
}

static void threads_add(void)
{
    static const mp_cell_kind kinds[] = {MP_CELL_INT16, MP_CELL_INT32, MP_CELL_UINT64,
                                         MP_CELL_FLOAT, MP_CELL_DOUBLE};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct counted counted = {kinds[i], make(MP_TYPE_BLOCK, sizeof(uint64_t))};
        in_threads(THREADS, add_often, &counted);
        CHECK(cell_value(kinds[i], mp_cell_load(kinds[i], counted.cell)) == THREADS * 2 * ROUNDS);
    }
}

int main(int argc, char **argv)
{
#define TEST(name)                                                                                 \
 {                                                                                                 \
#  name, name                                                                                      \
 }
    static const struct test tests[] = {
        TEST(lock_words),
        TEST(recursive_lock_words),
        TEST(lock_of_the_dead),
        TEST(semaphore_words),
        TEST(damaged_tokens_end),
        TEST(event_words),
        TEST(barrier_words),
        TEST(cancelled_wake_ups_are_passed_on),
        TEST(wake_ups_of_the_dead_are_passed_on),
        TEST(dead_sleepers_swallow_nothing),
        TEST(threads_exclude_each_other),
        TEST(threads_pass_tokens),
        TEST(threads_take_turns),
        TEST(threads_get_one_wake_up_each),
        TEST(threads_see_what_was_set),
        TEST(threads_meet),
        TEST(cell_words),
        TEST(threads_add),
        {NULL, NULL},
    };
    return run_tests(tests, argc, argv);
}
