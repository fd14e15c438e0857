// SPDX-License-Identifier: PSF-2.0
#include "shm/mutex.h" // the contract

enum { SHORT_SPIN = 40, LONG_SPIN = 1500 };

/* Short: a mutex is held for a microsecond, so whoever sleeps here waits for a stopped or dead owner, and
 * a call with a deadline must find out in time that it has to give up. */
#define SLICE (10 * (mp_time)MP_MILLISECOND)

/* Take over from a dead owner: the word goes from his name to ours in one step, so that of several
 * that notice the death one wins and a rival's claim is never undone. */
static bool take_over(struct mp_mutex_shm *mutex, uint32_t seen)
{
    return mp_owner_dead(seen) && mp_cas32(&mutex->word, &seen, mp_self() | MP_WAITERS);
}

static bool spin(struct mp_mutex_shm *mutex, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        mp_pause();
        uint32_t seen = mp_load_relaxed32(&mutex->word);
        if (seen == 0 && mp_cas32(&mutex->word, &seen, mp_self())) // SYNC: mutex
            return true;
    }
    return false;
}

mp_status mp_mutex_try_slow(struct mp_mutex_shm *mutex)
{
    if (mp_spinning_pays() && spin(mutex, SHORT_SPIN))
        return MP_OK;
    uint32_t seen = mp_load_relaxed32(&mutex->word);
    if (seen == 0)
        return mp_cas32(&mutex->word, &seen, mp_self()) ? MP_OK : MP_WOULD_BLOCK;
    return take_over(mutex, seen) ? MP_OWNER_DIED : MP_WOULD_BLOCK;
}

/* Announce a sleeper. Returns the word to sleep on, or 0 if the mutex was taken instead. */
static uint32_t announce(struct mp_mutex_shm *mutex)
{
    uint32_t seen = mp_load_relaxed32(&mutex->word);
    for (;;) {
        if (seen == 0) {
            // Others may still sleep: who was asleep takes it with the flag.
            if (mp_cas32(&mutex->word, &seen, mp_self() | MP_WAITERS)) // SYNC: mutex
                return 0;
        } else if (seen & MP_WAITERS || mp_cas32(&mutex->word, &seen, seen | MP_WAITERS)) {
            return seen | MP_WAITERS;
        }
    }
}

mp_status mp_mutex_lock_slow(struct mp_mutex_shm *mutex, mp_time deadline)
{
    if (mp_spinning_pays() && spin(mutex, LONG_SPIN))
        return MP_OK;
    uint32_t seen = announce(mutex);
    if (seen == 0)
        return MP_OK;
    if (take_over(mutex, seen))
        return MP_OWNER_DIED;
    mp_time now = mp_clock_now();
    if (now >= deadline)
        return MP_TIMEOUT;
    bool last = deadline - now <= SLICE;
    mp_status status = mp_futex_wait(&mutex->word, seen, last ? deadline : now + SLICE);
    if (status == MP_OK) {
        // Woken, or the word changed: try at once, then let the caller look at signals.
        if (announce(mutex) == 0)
            return MP_OK;
    } else if (status == MP_TIMEOUT) {
        seen = mp_load_relaxed32(&mutex->word);
        if (seen != 0 && take_over(mutex, seen))
            return MP_OWNER_DIED;
        if (last)
            return MP_TIMEOUT;
    }
    return MP_INTERRUPTED;
}

mp_status mp_mutex_lock_briefly(struct mp_mutex_shm *mutex)
{
    mp_status status = mp_mutex_try(mutex);
    if (mp_likely(status != MP_WOULD_BLOCK))
        return status;
    mp_time end = mp_clock_now() + MP_MUTEX_GRACE;
    do
        status = mp_mutex_lock(mutex, end);
    while (status == MP_INTERRUPTED);
    return status;
}

mp_status mp_mutex_busy(mp_time *limit, mp_time deadline)
{
    mp_time now = mp_clock_now();
    if (*limit == 0)
        *limit = now + MP_MUTEX_GRACE;
    return now >= deadline && now >= *limit ? MP_TIMEOUT : MP_INTERRUPTED;
}

void mp_mutex_unlock_slow(struct mp_mutex_shm *mutex)
{
    mp_assert((mp_load_relaxed32(&mutex->word) & MP_OWNER_MASK) == mp_self());
    mp_futex_clear_and_wake(&mutex->word, 1);
}
