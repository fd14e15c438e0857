// SPDX-License-Identifier: PSF-2.0
/* Barrier: as many living threads as there are parties go on together.
 *
 *     mp_barrier_wait wait = {...};
 *     status = mp_barrier_arrive(&wait, deadline);       // again while MP_INTERRUPTED
 *     if (status == MP_OK && wait.runner) {
 *         ... run the action ...
 *         status = mp_barrier_finish(&wait, worked);     // again while MP_INTERRUPTED
 *     }
 *     ... MP_OK: wait.index; MP_BROKEN; or mp_barrier_cancel(&wait) to give up
 *
 * Who waits has an entry in the table of sleepers whose ticket is the generation it arrived at; they
 * all sleep on the barrier's word. Only entries of the living count. Letting a generation go is one
 * store to the word; what each wait() returns is written into the entries before. */
#ifndef MP_SYNC_BARRIER_H
#define MP_SYNC_BARRIER_H

#include "shm/mutex.h"    // arrivals among themselves
#include "sync/parking.h" // places
#include "sync/spin.h"    // mp_spin_memory

/* `word`, the futex: [waiters:1][generation:29][state:2].
 *
 *   FILLING   generation g waits for more parties
 *   RUNNING   all of generation g are there; `runner` runs the action
 *   BROKEN    generation g and whoever comes, until reset
 *
 * g ends by the word's going on to g + 1: with an index in the entry it was let go, without one it was
 * reset. Changed under the mutex only, but for the waiters bit, which sleepers set by CAS. */
struct mp_barrier_shm {
    struct mp_mutex_shm mutex;
    uint32_t word;
    uint32_t parties; // never changes
    uint32_t runner;  // mp_owner; means something while RUNNING
};

static_assert(sizeof(struct mp_barrier_shm) == 16, "ABI");
static_assert(offsetof(struct mp_barrier_shm, word) == 4, "ABI");

#define MP_BARRIER_FILLING 0U
#define MP_BARRIER_RUNNING 1U
#define MP_BARRIER_BROKEN 2U
#define MP_BARRIER_STATE 3U
#define MP_BARRIER_GENERATION 0x7ffffffcU

/* One wait of one thread. */
typedef struct mp_barrier_wait {
    struct mp_barrier_shm *barrier;
    mp_spin_memory *memory;
    mp_place place;
    uint32_t generation; // of the word, in its place
    uint32_t index;      // result: 0 .. parties - 1
    uint32_t round;
    bool action;  // the last one to arrive shall run one
    bool arrived; // counted; the rest is waiting
    bool begun;   // it spins before the first sleep only
    bool runner;  // result: run the action, then mp_barrier_finish
} mp_barrier_wait;

/* Arrive, and wait for the others: spin, then sleep for a slice. Call it without the GIL.
 * MP_OK: index is set, or runner. MP_BROKEN: was, or is now because the deadline passed.
 * MP_NO_SLOT. The place is left, but for the runner. MP_INTERRUPTED: call again, or cancel. */
mp_status mp_barrier_arrive(mp_barrier_wait *wait, mp_time deadline);

/* The runner's action is over: let all go, or break the barrier if it did not work.
 * MP_OK (index is set), MP_BROKEN, MP_INTERRUPTED: call again. Without the GIL. */
mp_status mp_barrier_finish(mp_barrier_wait *wait, bool worked);

/* Give up after MP_INTERRUPTED: not counted any more. Does not break the barrier. */
void mp_barrier_cancel(mp_barrier_wait *wait);

/* Who waits gets MP_BROKEN; then it is empty and whole. MP_OK, MP_INTERRUPTED. Without the GIL. */
mp_status mp_barrier_reset(struct mp_barrier_shm *barrier);

/* Who waits and who comes gets MP_BROKEN. MP_OK, MP_INTERRUPTED. Without the GIL. */
mp_status mp_barrier_abort(struct mp_barrier_shm *barrier);

/* How many living threads wait now; 0 when it is broken. */
uint32_t mp_barrier_waiting(const struct mp_barrier_shm *barrier);

static inline bool mp_barrier_is_broken(const struct mp_barrier_shm *barrier)
{
    return (mp_load_acquire32(&barrier->word) & MP_BARRIER_STATE) == MP_BARRIER_BROKEN;
}

#endif
