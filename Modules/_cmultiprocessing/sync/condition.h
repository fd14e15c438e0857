// SPDX-License-Identifier: PSF-2.0
/* Condition: wakes exactly those that slept before.
 *
 * Used with a lock of the caller's, held around everything but the sleep:
 *
 *     mp_condition_wait wait = {...};
 *     status = mp_condition_begin(&wait);        // lock held: visible to notifiers from here on
 *     ... release the lock ...
 *     status = mp_condition_sleep(&wait, deadline);    // again while MP_INTERRUPTED
 *     ... or mp_condition_cancel(&wait) to give up ...
 *     ... take the lock again ...
 *
 * A notification marks entries of the table of sleepers, oldest tickets first, the dead left out.
 * Who dies after it was marked and before it woke up is found by the others (in their slices, or at
 * the next notification), and its wake-up is passed on to the oldest one that slept already when the
 * notification came. Passing on survives deaths too: the receiver names the entry that it inherits
 * from before it is marked, and settles it before it leaves. */
#ifndef MP_SYNC_CONDITION_H
#define MP_SYNC_CONDITION_H

#include "shm/mutex.h"    // notifiers among themselves
#include "sync/parking.h" // places
#include "sync/spin.h"    // mp_spin_memory

struct mp_condition_shm {
    struct mp_mutex_shm mutex; // notifying and passing on
    uint32_t sleepers;    // at least as many as sleep; atomic; the dead are taken off by a scan
    uint64_t next_ticket; // atomic
};

static_assert(sizeof(struct mp_condition_shm) == 16, "ABI");
static_assert(offsetof(struct mp_condition_shm, next_ticket) == 8, "ABI");

/* One wait of one thread. */
typedef struct mp_condition_wait {
    struct mp_condition_shm *condition;
    mp_spin_memory *memory;
    mp_place place;
    uint32_t round;
    bool begun; // it spins before the first sleep only
} mp_condition_wait;

/* Take a place among the sleepers. MP_OK, MP_NO_SLOT. */
mp_status mp_condition_begin(mp_condition_wait *wait);

/* Spin, then sleep for a slice. Call it without the GIL.
 * MP_OK: notified; MP_TIMEOUT: not in time. The place is left in both cases.
 * MP_INTERRUPTED: look at signals, call again, or cancel. */
mp_status mp_condition_sleep(mp_condition_wait *wait, mp_time deadline);

/* Leave the place after MP_INTERRUPTED; a notification that came meanwhile goes to the next one.
 * MP_OK, MP_INTERRUPTED: call again. Call it without the GIL. */
mp_status mp_condition_cancel(mp_condition_wait *wait);

/* Wake the `count` oldest sleepers that live, or all if they are fewer. The caller holds the lock of
 * the condition. `deadline` MP_NO_WAIT semantics do not apply: the internal mutex is held for
 * microseconds. MP_OK; MP_WOULD_BLOCK from mp_condition_try_notify, MP_INTERRUPTED from
 * mp_condition_notify (call it without the GIL, again after signals). */
mp_status mp_condition_try_notify(struct mp_condition_shm *condition, uint32_t count);
mp_status mp_condition_notify(struct mp_condition_shm *condition, uint32_t count);

/* How many living threads sleep there and are not notified. */
uint32_t mp_condition_sleeping(const struct mp_condition_shm *condition);

/* Teach the collector about conditions; once, before the first. */
void mp_condition_setup(void);

#endif
