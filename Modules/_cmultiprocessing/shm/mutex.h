// SPDX-License-Identifier: PSF-2.0
/* The internal mutex: held for about a microsecond, recovered at once from a dead owner.
 *
 *     status = mp_mutex_lock(&queue->put_mutex, deadline);
 *     if (status == MP_OWNER_DIED)
 *         repair(queue);              // the lock is held; the data may be half changed
 *     else if (status != MP_OK)
 *         return status;
 *     ...
 *     mp_mutex_unlock(&queue->put_mutex);
 *
 * Under it: no Python, no allocation, no GIL, no system call that can block, no second signal check.
 * The bit patterns of the word stand in layout.h. Not recursive. */
#ifndef MP_SHM_MUTEX_H
#define MP_SHM_MUTEX_H

#include "os/os.h"         // deadlines
#include "shm/processes.h" // owners

/* Spin for at most about a microsecond. MP_OK, MP_OWNER_DIED (held too), MP_WOULD_BLOCK. */
mp_status mp_mutex_try_slow(struct mp_mutex_shm *mutex);

static inline mp_status mp_mutex_try(struct mp_mutex_shm *mutex)
{
    uint32_t expected = 0;
    if (mp_likely(mp_cas32(&mutex->word, &expected, mp_self()))) // SYNC: mutex
        return MP_OK;
    return mp_mutex_try_slow(mutex);
}

/* Spin, then sleep in slices of 10 ms that look whether the owner lives.
 * MP_OK, MP_OWNER_DIED (held too), MP_TIMEOUT, MP_INTERRUPTED (a signal, or a slice is over: the
 * caller looks at signals and calls again). Call it without the GIL. */
mp_status mp_mutex_lock_slow(struct mp_mutex_shm *mutex, mp_time deadline);

static inline mp_status mp_mutex_lock(struct mp_mutex_shm *mutex, mp_time deadline)
{
    uint32_t expected = 0;
    if (mp_likely(mp_cas32(&mutex->word, &expected, mp_self()))) // SYNC: mutex
        return MP_OK;
    return mp_mutex_lock_slow(mutex, deadline);
}

/* Whoever holds a mutex has it for a microsecond, unless he was stopped there (SIGSTOP, a debugger). So
 * long a call waits for it that must not wait, or whose deadline has passed, before it gives up. */
#define MP_MUTEX_GRACE (30 * (mp_time)MP_MILLISECOND)

/* The same for callers that cannot look at signals: until the grace is over.
 * MP_OK, MP_OWNER_DIED (held too), MP_TIMEOUT. */
mp_status mp_mutex_lock_briefly(struct mp_mutex_shm *mutex);

/* An operation with this deadline found a mutex busy for a slice. `*limit` is 0 before the first time.
 * MP_INTERRUPTED: look at signals and call again; MP_TIMEOUT: its deadline and the grace are over. */
mp_status mp_mutex_busy(mp_time *limit, mp_time deadline);

void mp_mutex_unlock_slow(struct mp_mutex_shm *mutex);

static inline void mp_mutex_unlock(struct mp_mutex_shm *mutex)
{
    uint32_t expected = mp_self();
    if (mp_unlikely(!mp_cas32(&mutex->word, &expected, 0))) // SYNC: mutex
        mp_mutex_unlock_slow(mutex);
}

#endif
