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

#endif
