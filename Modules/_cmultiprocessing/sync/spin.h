// SPDX-License-Identifier: PSF-2.0
/* Spin, then sleep: look at a word for about the time that one wake-up costs, with growing pauses
 * (a waiter that hammers the line slows the one it waits for), and learn whether it pays.
 *
 *     mp_spin spin = mp_spin_begin(&handle->spin);
 *     while (mp_spin_again(&spin)) {
 *         if (mp_load_acquire32(&word) != old) {
 *             mp_spin_paid(&handle->spin);
 *             return MP_OK;
 *         }
 *     }
 *     ... sleep ...
 * Without the GIL. */
#ifndef MP_SYNC_SPIN_H
#define MP_SYNC_SPIN_H

#include "core/atomic.h" // mp_pause
#include "os/os.h"       // clock

/* Private memory of one handle: how often spinning paid lately. Threads may race on it: a lost
 * update only spoils the guess. */
typedef struct mp_spin_memory {
    uint32_t misses; // spins in vain since the last that paid
    uint32_t waits;  // how often it was asked
} mp_spin_memory;

typedef struct mp_spin {
    uint32_t pauses; // before the next look
    mp_time end;     // 0: do not spin
} mp_spin;

mp_spin mp_spin_begin(mp_spin_memory *memory);

/* Would mp_spin_begin() spin in any case, because it paid lately? For a few looks before it, with the
 * GIL held; they call mp_spin_paid() too. */
bool mp_spin_promising(const mp_spin_memory *memory);

/* Pause, then say whether to look again. */
bool mp_spin_again(mp_spin *spin);

/* What was waited for came while spinning. One stroke of luck does not make it a habit again: where
 * CPUs are scarce it would be followed by as many spins in vain. */
static inline void mp_spin_paid(mp_spin_memory *memory)
{
    mp_store_relaxed32(&memory->misses, mp_load_relaxed32(&memory->misses) / 2);
}

#endif
