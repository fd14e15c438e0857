// SPDX-License-Identifier: PSF-2.0
#include "sync/lock.h"

#include <pthread.h> // the list of handles, private to this process

#include "core/inject.h" // MP_INJECT
#include "os/os.h"       // mp_at_fork
#include "sync/slice.h"  // how long to sleep

static uint32_t *futex_of(struct mp_lock_shm *lock)
{
    return (uint32_t *)(void *)&lock->word;
}

static bool is_free(uint64_t seen)
{
    return (uint32_t)seen == 0;
}

/* The lock is taken by the CAS before; a death from here on is found by the next one that asks. */
static mp_status claimed(struct mp_lock_shm *lock)
{
    lock->depth = 1;
    return MP_OK;
}

static mp_status enter_again(struct mp_lock_shm *lock)
{
    if (lock->depth == UINT32_MAX)
        return MP_TOO_LARGE;
    lock->depth++;
    return MP_OK;
}

/* Take the lock from the killed process that `seen` names. False: it lives, or somebody was faster.
 * With the waiters bit: who slept when the owner died may still sleep. */
static bool take_over(struct mp_lock_shm *lock, uint64_t seen)
{
    mp_owner owner = (mp_owner)seen & MP_OWNER_MASK;
    if ((lock->flags & MP_LOCK_FRAGILE) != 0 || !mp_owner_dead(owner))
        return false;
    if (!mp_cas64(&lock->word, &seen, mp_lock_mine() | MP_WAITERS)) // SYNC: lock
        return false;
    MP_INJECT("lock:taken_over");
    // Killed before this line we are the next dead owner, and the death is counted then.
    (void)mp_fetch_add32(&lock->died, 1);
    lock->depth = 1;
    return true;
}

mp_status mp_lock_try_slow(struct mp_lock_shm *lock, uint64_t seen)
{
    uint64_t mine = mp_lock_mine();
    while (is_free(seen)) {
        if (mp_cas64(&lock->word, &seen, mine)) // SYNC: lock
            return claimed(lock);
    }
    if ((lock->flags & MP_LOCK_RECURSIVE) != 0 && (seen & ~(uint64_t)MP_WAITERS) == mine)
        return enter_again(lock);
    return take_over(lock, seen) ? MP_OWNER_DIED : MP_WOULD_BLOCK;
}

/* Look at the lock while it may soon be free. */
static bool spin_for(mp_lock_wait *wait)
{
    struct mp_lock_shm *lock = wait->lock;
    uint64_t mine = mp_lock_mine();
    mp_spin spin = mp_spin_begin(wait->memory);
    while (mp_spin_again(&spin)) {
        uint64_t seen = mp_load_relaxed64(&lock->word);
        if (is_free(seen) && mp_cas64(&lock->word, &seen, mine)) { // SYNC: lock
            mp_spin_paid(wait->memory);
            return true;
        }
    }
    return false;
}

/* Take it if it is free, else announce that this thread sleeps. *seen is what the word says then. */
static mp_status take_or_announce(mp_lock_wait *wait, uint64_t *seen)
{
    struct mp_lock_shm *lock = wait->lock;
    uint64_t mine = mp_lock_mine() | (wait->slept ? MP_WAITERS : 0);
    *seen = mp_load_relaxed64(&lock->word);
    for (;;) {
        if (is_free(*seen)) {
            if (mp_cas64(&lock->word, seen, mine)) // SYNC: lock
                return claimed(lock);
        } else if ((*seen & MP_WAITERS) != 0) {
            return MP_WOULD_BLOCK;
        } else if (mp_cas64(&lock->word, seen, *seen | MP_WAITERS)) {
            *seen |= MP_WAITERS;
            return MP_WOULD_BLOCK;
        }
    }
}

mp_status mp_lock_acquire(mp_lock_wait *wait, mp_time deadline)
{
    struct mp_lock_shm *lock = wait->lock;
    if (!wait->begun) {
        wait->begun = true;
        if (spin_for(wait))
            return claimed(lock);
    }
    mp_time end = mp_slice_owned(deadline);
    for (;;) {
        uint64_t seen;
        if (take_or_announce(wait, &seen) == MP_OK)
            return MP_OK;
        MP_INJECT("lock:announced");
        mp_status status = mp_futex_wait(futex_of(lock), (uint32_t)seen, end);
        wait->slept = true;
        if (status == MP_OK)
            continue;
        if (take_over(lock, mp_load_relaxed64(&lock->word)))
            return MP_OWNER_DIED;
        if (status == MP_INTERRUPTED)
            return MP_INTERRUPTED; // whoever freed the lock in between is seen by the next call
        // The deadline may be the end: a lock that is free now is taken, its wake-up may have died.
        return take_or_announce(wait, &seen) == MP_OK ? MP_OK : mp_slice_over(deadline);
    }
}

/* Free a lock that this process holds. Only sleepers change the word meanwhile, and only to announce
 * themselves, so that the plain store of the futex operation hits what it is meant for. */
static void free_own(struct mp_lock_shm *lock, uint64_t seen)
{
    lock->depth = 0;
    while ((seen & MP_WAITERS) == 0) {
        if (mp_cas64(&lock->word, &seen, 0)) // SYNC: lock
            return;
    }
    (void)mp_futex_clear_and_wake(futex_of(lock), 1); // SYNC: lock
}

/* Free a plain lock that another process took: it may be taken over from a dead owner at the same
 * moment, so only what was seen may be freed. A kill before the wake costs a sleeper its slice. */
static mp_status free_foreign(struct mp_lock_shm *lock, uint64_t seen)
{
    do {
        if (is_free(seen))
            return MP_MISUSE;
    } while (!mp_cas64(&lock->word, &seen, 0)); // SYNC: lock
    if ((seen & MP_WAITERS) != 0)
        (void)mp_futex_wake(futex_of(lock), 1);
    return MP_OK;
}

mp_status mp_lock_release_slow(struct mp_lock_shm *lock)
{
    uint64_t seen = mp_load_relaxed64(&lock->word);
    if ((lock->flags & MP_LOCK_RECURSIVE) == 0) {
        if (((mp_owner)seen & MP_OWNER_MASK) != mp_self())
            return free_foreign(lock, seen);
    } else if ((seen & ~(uint64_t)MP_WAITERS) != mp_lock_mine()) {
        return MP_NOT_OWNER;
    } else if (lock->depth > 1) {
        lock->depth--;
        return MP_OK;
    }
    free_own(lock, seen);
    return MP_OK;
}

uint32_t mp_lock_release_all(struct mp_lock_shm *lock)
{
    uint32_t depth = lock->depth;
    free_own(lock, mp_load_relaxed64(&lock->word));
    return depth;
}

void mp_lock_disown(struct mp_lock_shm *lock)
{
    uint64_t seen = mp_load_relaxed64(&lock->word);
    while (((mp_owner)seen & MP_OWNER_MASK) == mp_self() &&
           (lock->flags & MP_LOCK_RECURSIVE) == 0) {
        if (mp_cas64(&lock->word, &seen, MP_DISOWNED | (seen & MP_WAITERS)))
            return;
    }
}

/* ---- the list ---- */

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static mp_lock_handle *listed;

/* A forked child must not inherit the mutex from a thread that it does not have. */
static void before_fork(void)
{
    (void)pthread_mutex_lock(&list_mutex);
}

static void after_fork(void)
{
    (void)pthread_mutex_unlock(&list_mutex);
}

static void watch_forks(void)
{
    // Refused for want of memory: only a fork beside a thread that makes a lock could notice.
    (void)mp_at_fork(before_fork, after_fork, after_fork);
}

void mp_lock_list(mp_lock_handle *handle)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, watch_forks);
    (void)pthread_mutex_lock(&list_mutex);
    handle->next = listed;
    handle->link = &listed;
    if (listed != NULL)
        listed->link = &handle->next;
    listed = handle;
    (void)pthread_mutex_unlock(&list_mutex);
}

void mp_lock_unlist(mp_lock_handle *handle)
{
    (void)pthread_mutex_lock(&list_mutex);
    *handle->link = handle->next;
    if (handle->next != NULL)
        handle->next->link = handle->link;
    handle->link = NULL;
    (void)pthread_mutex_unlock(&list_mutex);
}

void mp_lock_leave(void)
{
    (void)pthread_mutex_lock(&list_mutex);
    for (mp_lock_handle *handle = listed; handle != NULL; handle = handle->next)
        mp_lock_disown(handle->lock);
    (void)pthread_mutex_unlock(&list_mutex);
}
