// SPDX-License-Identifier: PSF-2.0
/* A descriptor of this process that is readable while a ring has items, or was shut down: for select()
 * and its kin.
 *
 * A thread of this process sleeps on the ring as a consumer would, so producers need to know nothing.
 * What this process takes itself mutes the descriptor before the take returns; what others take mutes
 * it within 50 ms. */
#ifndef MP_STRUCTURES_NOTIFIER_H
#define MP_STRUCTURES_NOTIFIER_H

#include "structures/ring.h" // what is watched

typedef struct mp_notifier mp_notifier;

/* MP_SYSTEM (errno), MP_NO_MEMORY. */
mp_status mp_notifier_open(mp_notifier **result, const mp_ring_handle *ring);

/* -1 in a forked child: the notifier is its parent's. */
int mp_notifier_descriptor(const mp_notifier *notifier);

/* After this process took something. */
void mp_notifier_taken(mp_notifier *notifier);

/* Ends the thread, without the GIL it may wait for; also right in a forked child. */
void mp_notifier_close(mp_notifier *notifier);

/* ---- the producer's side: who ends right after a put ----
 *
 * Whoever waits for a queue's descriptor and for the end of a process in one poll() has to see the item
 * first, or it takes an orderly end for a crash, as concurrent.futures does. A put into a watched ring
 * is remembered, and the process lingers before it ends until the descriptor shows the item. */

/* After a put. */
static inline void mp_notifier_note(const mp_ring_handle *ring)
{
    if (mp_unlikely(mp_load_relaxed32(&ring->shm->watcher) != MP_NOBODY)) {
        mp_family.told = mp_offset_of(ring->shm);
        mp_family.told_generation = ring->shm->generation;
    }
}

/* Before an orderly end: at most 500 ms, and only while the watcher lives and is behind. */
void mp_notifier_linger(void);

#endif
