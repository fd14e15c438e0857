// SPDX-License-Identifier: PSF-2.0
#include "sync/barrier.h"

#include "core/inject.h" // MP_INJECT
#include "sync/slice.h"  // how long to sleep

/* Ticket of an entry that is claimed but not counted yet. */
#define NOT_ARRIVED UINT64_MAX

static uint64_t object_of(const struct mp_barrier_shm *barrier)
{
    return mp_offset_of(barrier);
}

static uint32_t state_of(uint32_t word)
{
    return word & MP_BARRIER_STATE;
}

static uint32_t generation_of(uint32_t word)
{
    return word & MP_BARRIER_GENERATION;
}

static uint32_t next_generation(uint32_t word)
{
    return (word + MP_BARRIER_STATE + 1) & MP_BARRIER_GENERATION;
}

/* ---- under the mutex ---- */

/* The entry at `index` if it waits in this generation. */
static bool look(const struct mp_barrier_shm *barrier, uint32_t index, uint32_t generation,
                 mp_sleeper_view *view)
{
    return mp_sleeper_look(index, object_of(barrier), view) &&
           mp_load_relaxed64(&view->sleeper->ticket) == generation;
}

/* Change generation and state, and tell whether somebody sleeps on the word. */
static bool switch_word_locked(struct mp_barrier_shm *barrier, uint32_t generation, uint32_t state)
{
    return (mp_exchange32(&barrier->word, generation | state) & MP_WAITERS) != 0; // SYNC: barrier
}

static void unlock_waking(struct mp_barrier_shm *barrier, bool wake)
{
    mp_mutex_unlock(&barrier->mutex);
    MP_INJECT("barrier:before_wake");
    // Killed before the wake: each sleeper looks at the word when its slice is over.
    if (wake)
        (void)mp_futex_wake(&barrier->word, INT32_MAX);
}

static bool break_locked(struct mp_barrier_shm *barrier)
{
    return switch_word_locked(barrier, generation_of(mp_load_relaxed32(&barrier->word)),
                              MP_BARRIER_BROKEN);
}

/* Who held the mutex was killed. It may have written indices without letting the generation go. */
static void repair_locked(struct mp_barrier_shm *barrier)
{
    uint32_t generation = generation_of(mp_load_relaxed32(&barrier->word));
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (look(barrier, i, generation, &view))
            mp_store_relaxed32(&view.sleeper->index, 0);
    }
}

static mp_status lock(struct mp_barrier_shm *barrier)
{
    mp_status status = mp_mutex_lock(&barrier->mutex, MP_FOREVER);
    if (status == MP_OWNER_DIED) {
        repair_locked(barrier);
        status = MP_OK;
    }
    return status;
}

/* How many wait in this generation. Whether they live is asked only when it matters: it costs a
 * system call each. The dead are taken out then. */
static uint32_t count_locked(const struct mp_barrier_shm *barrier, uint32_t generation)
{
    uint32_t limit = mp_sleeper_limit();
    uint32_t count = 0;
    mp_sleeper_view view;
    for (uint32_t i = 0; i < limit; i++)
        count += look(barrier, i, generation, &view);
    if (count < barrier->parties)
        return count;
    count = 0;
    for (uint32_t i = 0; i < limit; i++) {
        if (!look(barrier, i, generation, &view))
            continue;
        if (mp_owner_dead(view.owner))
            mp_sleeper_bury(&view);
        else
            count++;
    }
    return count;
}

/* Give each its index, the last one to arrive the last, then let the generation go. */
static bool release_locked(mp_barrier_wait *last)
{
    struct mp_barrier_shm *barrier = last->barrier;
    uint32_t index = 0;
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (look(barrier, i, last->generation, &view) && view.sleeper != last->place.sleeper)
            mp_store_relaxed32(&view.sleeper->index, ++index);
    }
    last->index = barrier->parties - 1;
    MP_INJECT("barrier:before_release");
    return switch_word_locked(barrier, next_generation(last->generation), MP_BARRIER_FILLING);
}

/* ---- arriving ---- */

static void leave(mp_barrier_wait *wait)
{
    if (wait->place.sleeper != NULL && wait->place.owner == mp_self())
        (void)mp_sleeper_leave(&wait->place); // nobody marks entries of a barrier
    wait->place.sleeper = NULL;
}

static bool runner_died(const struct mp_barrier_shm *barrier)
{
    return state_of(mp_load_acquire32(&barrier->word)) == MP_BARRIER_RUNNING &&
           mp_owner_dead(mp_load_relaxed32(&barrier->runner));
}

/* Count this thread in, with the mutex held; lets go of it. MP_WOULD_BLOCK: wait for the others.
 * MP_INTERRUPTED: another generation is running its action, wait for its end. */
static mp_status enter_holding(mp_barrier_wait *wait)
{
    struct mp_barrier_shm *barrier = wait->barrier;
    uint32_t word = mp_load_relaxed32(&barrier->word);
    wait->generation = generation_of(word);
    if (runner_died(barrier)) {
        unlock_waking(barrier, break_locked(barrier));
        return MP_BROKEN;
    }
    if (state_of(word) != MP_BARRIER_FILLING) {
        mp_mutex_unlock(&barrier->mutex);
        // Damaged memory may hold a state that is none of ours: as good as broken.
        return state_of(word) == MP_BARRIER_RUNNING ? MP_INTERRUPTED : MP_BROKEN;
    }
    // Counted from this store on.
    mp_store_relaxed64(&wait->place.sleeper->ticket, wait->generation);
    wait->arrived = true;
    if (count_locked(barrier, wait->generation) < barrier->parties) {
        mp_mutex_unlock(&barrier->mutex);
        return MP_WOULD_BLOCK;
    }
    if (!wait->action) {
        unlock_waking(barrier, release_locked(wait));
        leave(wait);
        return MP_OK;
    }
    wait->runner = true;
    mp_store_relaxed32(&barrier->runner, mp_self());
    (void)mp_fetch_or32(&barrier->word, MP_BARRIER_RUNNING);
    mp_mutex_unlock(&barrier->mutex);
    return MP_OK;
}

/* ---- waiting ---- */

/* Has it been decided what becomes of this wait? */
static bool is_decided(const mp_barrier_wait *wait, uint32_t word)
{
    return generation_of(word) != wait->generation || state_of(word) == MP_BARRIER_BROKEN;
}

/* The word has gone on or is broken: what does that mean for this wait? */
static mp_status outcome(mp_barrier_wait *wait, uint32_t word)
{
    uint32_t mark = mp_load_relaxed32(&wait->place.sleeper->index);
    leave(wait);
    if (generation_of(word) == wait->generation || mark == 0)
        return MP_BROKEN;
    wait->index = mark - 1;
    return MP_OK;
}

/* Whoever holds the mutex has it for a microsecond, unless he was stopped there. A wait whose deadline
 * passed a while ago ends all the same; the barrier is broken for this thread only. */
static mp_status busy(mp_barrier_wait *wait, mp_time deadline)
{
    if (deadline == MP_FOREVER || mp_clock_now() - MP_MUTEX_GRACE < deadline)
        return MP_INTERRUPTED;
    leave(wait);
    return MP_BROKEN;
}

/* The deadline passed: break the barrier, unless it was decided meanwhile. */
static mp_status time_out(mp_barrier_wait *wait, mp_time deadline)
{
    struct mp_barrier_shm *barrier = wait->barrier;
    mp_status status = lock(barrier);
    if (status != MP_OK)
        return busy(wait, deadline);
    uint32_t word = mp_load_acquire32(&barrier->word);
    if (wait->arrived && is_decided(wait, word)) {
        mp_mutex_unlock(&barrier->mutex);
        return outcome(wait, word);
    }
    unlock_waking(barrier, break_locked(barrier));
    leave(wait);
    return MP_BROKEN;
}

/* Sleep on the word until it is not `seen` any more, or `end`. *seen: what it is then. */
static mp_status sleep_on(struct mp_barrier_shm *barrier, uint32_t *seen, mp_time end)
{
    uint32_t word = *seen;
    if ((word & MP_WAITERS) == 0 && !mp_cas32(&barrier->word, &word, word | MP_WAITERS)) {
        *seen = word;
        return MP_OK;
    }
    mp_status status = mp_futex_wait(&barrier->word, word | MP_WAITERS, end);
    *seen = mp_load_acquire32(&barrier->word); // SYNC: barrier
    return status;
}

static bool spin_for(mp_barrier_wait *wait, uint32_t *word)
{
    mp_spin spin = mp_spin_begin(wait->memory);
    while (mp_spin_again(&spin)) {
        *word = mp_load_acquire32(&wait->barrier->word); // SYNC: barrier
        if (is_decided(wait, *word)) {
            mp_spin_paid(wait->memory);
            return true;
        }
    }
    return false;
}

/* After a slice without news. */
static mp_status look_around(mp_barrier_wait *wait, mp_status status, mp_time deadline)
{
    struct mp_barrier_shm *barrier = wait->barrier;
    if (status == MP_TIMEOUT && mp_slice_over(deadline) == MP_TIMEOUT)
        return time_out(wait, deadline);
    if (runner_died(barrier) && lock(barrier) == MP_OK) {
        bool died = runner_died(barrier); // still, now that nobody can change it
        unlock_waking(barrier, died && break_locked(barrier));
    }
    return MP_INTERRUPTED;
}

static mp_status wait_for_others(mp_barrier_wait *wait, mp_time deadline)
{
    struct mp_barrier_shm *barrier = wait->barrier;
    uint32_t word;
    if (wait->place.owner != mp_self())
        return MP_BROKEN; // forked by a signal handler during the wait: the parent is the party
    if (!wait->begun) {
        wait->begun = true;
        if (spin_for(wait, &word))
            return outcome(wait, word);
    }
    mp_time end = mp_slice_growing(&wait->round, deadline);
    word = mp_load_acquire32(&barrier->word); // SYNC: barrier
    while (!is_decided(wait, word)) {
        mp_status status = sleep_on(barrier, &word, end);
        if (status != MP_OK && !is_decided(wait, word))
            return look_around(wait, status, deadline);
    }
    return outcome(wait, word);
}

/* An action is being run for a full generation: wait for its end without being counted. */
static mp_status wait_for_runner(mp_barrier_wait *wait, mp_time deadline)
{
    uint32_t word = mp_load_acquire32(&wait->barrier->word); // SYNC: barrier
    mp_time end = mp_slice_growing(&wait->round, deadline);
    while (state_of(word) == MP_BARRIER_RUNNING) {
        mp_status status = sleep_on(wait->barrier, &word, end);
        if (status != MP_OK && state_of(word) == MP_BARRIER_RUNNING)
            return look_around(wait, status, deadline);
    }
    return MP_INTERRUPTED;
}

mp_status mp_barrier_arrive(mp_barrier_wait *wait, mp_time deadline)
{
    struct mp_barrier_shm *barrier = wait->barrier;
    if (wait->arrived)
        return wait_for_others(wait, deadline);
    if (wait->place.sleeper == NULL || wait->place.owner != mp_self()) {
        mp_status status = mp_sleeper_claim(object_of(barrier), NOT_ARRIVED, &wait->place);
        if (status != MP_OK)
            return status;
    }
    mp_status status = lock(barrier);
    if (status != MP_OK)
        return busy(wait, deadline);
    status = enter_holding(wait);
    if (status == MP_INTERRUPTED)
        return wait_for_runner(wait, deadline);
    if (status == MP_WOULD_BLOCK)
        return deadline <= mp_clock_now() ? time_out(wait, deadline)
                                          : wait_for_others(wait, deadline);
    if (status == MP_BROKEN)
        leave(wait);
    return status;
}

mp_status mp_barrier_finish(mp_barrier_wait *wait, bool worked)
{
    struct mp_barrier_shm *barrier = wait->barrier;
    if (wait->place.owner != mp_self())
        return MP_BROKEN; // forked by the action
    mp_status status = lock(barrier);
    if (status != MP_OK)
        return status;
    uint32_t word = mp_load_relaxed32(&barrier->word);
    bool ours = generation_of(word) == wait->generation && state_of(word) == MP_BARRIER_RUNNING;
    bool wake = false;
    if (ours)
        wake = worked ? release_locked(wait) : break_locked(barrier);
    unlock_waking(barrier, wake);
    leave(wait);
    return ours && worked ? MP_OK : MP_BROKEN;
}

void mp_barrier_cancel(mp_barrier_wait *wait)
{
    leave(wait);
}

/* ---- from outside ---- */

mp_status mp_barrier_reset(struct mp_barrier_shm *barrier)
{
    mp_status status = lock(barrier);
    if (status != MP_OK)
        return status;
    // The entries of this generation have no index: who waits learns that it was reset.
    uint32_t word = mp_load_relaxed32(&barrier->word);
    unlock_waking(barrier, switch_word_locked(barrier, next_generation(word), MP_BARRIER_FILLING));
    return MP_OK;
}

mp_status mp_barrier_abort(struct mp_barrier_shm *barrier)
{
    mp_status status = lock(barrier);
    if (status != MP_OK)
        return status;
    unlock_waking(barrier, break_locked(barrier));
    return MP_OK;
}

uint32_t mp_barrier_waiting(const struct mp_barrier_shm *barrier)
{
    uint32_t word = mp_load_acquire32(&barrier->word);
    if (state_of(word) == MP_BARRIER_BROKEN)
        return 0;
    uint32_t count = 0;
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (look(barrier, i, generation_of(word), &view) && !mp_owner_dead(view.owner))
            count++;
    }
    return count;
}
