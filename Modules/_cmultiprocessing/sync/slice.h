// SPDX-License-Identifier: PSF-2.0
/* How long one sleep may last before the sleeper looks again at the predicate and at who is alive.
 *
 * What a wake-up lost to a SIGKILL costs at most. Short where an owner is known, whose death nobody
 * announces; growing elsewhere, so that a long wait costs nothing. */
#ifndef MP_SYNC_SLICE_H
#define MP_SYNC_SLICE_H

#include "os/os.h" // mp_time

#define MP_OWNED_SLICE (50 * (mp_time)MP_MILLISECOND)

/* End of a sleep in front of something with an owner. */
static inline mp_time mp_slice_owned(mp_time deadline)
{
    mp_time end = mp_clock_now() + MP_OWNED_SLICE;
    return end < deadline ? end : deadline;
}

/* End of the sleep number *round (from 0, counted up here): 50, 100, 200, 400, 500, 500 ... ms. */
static inline mp_time mp_slice_growing(uint32_t *round, mp_time deadline)
{
    mp_time length = *round >= 4 ? 500 * (mp_time)MP_MILLISECOND : MP_OWNED_SLICE << *round;
    mp_time end = mp_clock_now() + length;
    *round += 1;
    return end < deadline ? end : deadline;
}

/* After a sleep that ended without news: has the caller's time passed, or only the slice? */
static inline mp_status mp_slice_over(mp_time deadline)
{
    return deadline != MP_FOREVER && mp_clock_now() >= deadline ? MP_TIMEOUT : MP_INTERRUPTED;
}

#endif
