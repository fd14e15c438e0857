// SPDX-License-Identifier: PSF-2.0
#include "sync/spin.h"

// Nanoseconds: what waking a sleeping virtual CPU costs at most; and, where spinning is the exception,
// long enough to be still there when the partner that was woken answers.
#define USUAL (50 * (mp_time)1000)
#define PROBE (100 * (mp_time)1000)
#define MOST_PAUSES 16U
#define PATIENCE 4U // spins in vain before spinning becomes the exception
#define RAREST 8U   // then one wait in 2^4, later one in 2^8, tries again

/* Spin in this wait? Where it was in vain lately (the partner has no CPU of its own, or takes long),
 * trying again costs more the more often it is done. */
static bool worth_trying(uint32_t misses, uint32_t waits)
{
    if (misses < PATIENCE)
        return true;
    uint32_t rare = misses < RAREST ? misses : RAREST;
    return (waits & ((1U << rare) - 1)) == 0;
}

bool mp_spin_promising(const mp_spin_memory *memory)
{
    return mp_load_relaxed32(&memory->misses) < PATIENCE && mp_spinning_pays();
}

mp_spin mp_spin_begin(mp_spin_memory *memory)
{
    mp_spin spin = {.pauses = 1, .end = 0};
    if (!mp_spinning_pays())
        return spin;
    uint32_t waits = mp_load_relaxed32(&memory->waits) + 1;
    mp_store_relaxed32(&memory->waits, waits);
    uint32_t misses = mp_load_relaxed32(&memory->misses);
    if (!worth_trying(misses, waits))
        return spin;
    // Counted as a miss until mp_spin_paid says otherwise.
    mp_store_relaxed32(&memory->misses, misses < RAREST ? misses + 1 : misses);
    mp_time length = misses < PATIENCE ? USUAL : PROBE;
    spin.end = mp_clock_now() + length;
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
