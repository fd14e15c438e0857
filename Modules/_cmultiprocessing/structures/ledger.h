// SPDX-License-Identifier: PSF-2.0
/* Who has taken items of a JoinableQueue and not yet called task_done() for them.
 *
 * One entry per process that has any: [owner:32][count:32]. A process that is killed takes its count
 * along, so an item whose getter died counts as done. Unfinished = items in the queue + the counts of
 * the living - task_done() calls that came early (for items still in the queue). */
#ifndef MP_STRUCTURES_LEDGER_H
#define MP_STRUCTURES_LEDGER_H

#include "structures/ring.h" // handles

/* Make sure that this process has an entry. MP_INTERRUPTED: the ledger is full, see mp_ledger_grow. */
mp_status mp_ledger_prepare(mp_ring_handle *ring);

/* Room for more entries. Not under a mutex. MP_OK, MP_NO_MEMORY, MP_NO_SPACE. */
mp_status mp_ledger_grow(mp_ring_handle *ring);

/* Under take_mutex, before the commit: `count` more are unfinished here.
 * MP_INTERRUPTED: somebody took the entry while it was 0; prepare again. */
mp_status mp_ledger_add(mp_ring_handle *ring, uint32_t count);

/* One item is done. MP_MISUSE: there is none unfinished. */
mp_status mp_ledger_done(mp_ring_handle *ring);

/* How many items are unfinished. Exact when it is 0: there was a moment with none. */
uint64_t mp_ledger_unfinished(const mp_ring_handle *ring);

/* Something may have become finished: wake those who join. */
void mp_ledger_announce(mp_ring_handle *ring);

/* One call of join(): begins as {0}. */
typedef struct mp_ledger_wait {
    uint32_t round; // slices slept
    uint32_t epoch; // of `joiners` at the beginning
} mp_ledger_wait;

/* Wait until nothing is unfinished, or until it once was since the wait began. Without the GIL.
 * MP_OK, MP_INTERRUPTED (a signal, or a slice is over), MP_TIMEOUT. */
mp_status mp_ledger_join(mp_ring_handle *ring, mp_time deadline, mp_ledger_wait *wait);

/* Does a chunk with MP_ROLE_LEDGER belong to the ring's ledger? */
bool mp_ledger_has_chunk(const struct mp_ring_shm *shm, uint64_t chunk);

#endif
