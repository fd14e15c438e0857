// SPDX-License-Identifier: PSF-2.0
#include "sync/spin.h"

#define SPIN_TIME (30 * ((mp_time)MP_MILLISECOND / 1000)) // a wake-up of a sleeping virtual CPU: 25 to 50 us
#define MOST_PAUSES 16U
#define PATIENCE 4U // spins in vain before spinning becomes the exception
#define PROBE 16U   // then one wait in so many tries again

mp_spin mp_spin_begin(mp_spin_memory *memory)
{
    mp_spin spin = {.pauses = 1, .end = 0};
    if (!mp_spinning_pays())
        return spin;
    uint32_t waits = mp_load_relaxed32(&memory->waits) + 1;
    mp_store_relaxed32(&memory->waits, waits);
    uint32_t misses = mp_load_relaxed32(&memory->misses);
    if (misses >= PATIENCE && waits % PROBE != 0)
        return spin;
    // Counted as a miss until mp_spin_paid says otherwise.
    mp_store_relaxed32(&memory->misses, misses + 1);
    spin.end = mp_clock_now() + SPIN_TIME;
    return spin;
}

bool mp_spin_again(mp_spin *spin)
{
    if (spin->end == 0)
        return false;
    for (uint32_t i = 0; i < spin->pauses; i++)
        mp_pause();
    if (spin->pauses < MOST_PAUSES) {
        spin->pauses *= 2;
        return true;
    }
    return mp_clock_now() < spin->end;
}
