// SPDX-License-Identifier: PSF-2.0
#include "sync/event.h"

#include "core/inject.h" // MP_INJECT
#include "shm/layout.h"  // MP_WAITERS
#include "sync/slice.h"  // how long to sleep

#define SET 1U
#define GENERATION 0x7ffffffeU

void mp_event_set(struct mp_event_shm *event)
{
    uint32_t seen = mp_load_relaxed32(&event->word);
    uint32_t set;
    do {
        if ((seen & SET) != 0)
            return;
        set = ((seen + SET + 1U) & GENERATION) | SET;
    } while (!mp_cas32(&event->word, &seen, set)); // SYNC: event
    MP_INJECT("event:before_wake");
    // Killed before the wake: each sleeper looks at the word when its slice is over.
    if ((seen & MP_WAITERS) != 0)
        (void)mp_futex_wake(&event->word, INT32_MAX);
}

void mp_event_clear(struct mp_event_shm *event)
{
    if (mp_event_is_set(event))
        (void)mp_fetch_and32(&event->word, ~SET);
}

static bool happened(const mp_event_wait *wait, uint32_t seen)
{
    return (seen & SET) != 0 || ((seen ^ wait->start) & GENERATION) != 0;
}

mp_status mp_event_begin(mp_event_wait *wait, struct mp_event_shm *event, mp_spin_memory *memory)
{
    *wait = (mp_event_wait){.event = event, .memory = memory};
    wait->start = mp_load_acquire32(&event->word); // SYNC: event
    return (wait->start & SET) != 0 ? MP_OK : MP_WOULD_BLOCK;
}

static bool spin_for(const mp_event_wait *wait)
{
    mp_spin spin = mp_spin_begin(wait->memory);
    while (mp_spin_again(&spin)) {
        if (happened(wait, mp_load_acquire32(&wait->event->word))) { // SYNC: event
            mp_spin_paid(wait->memory);
            return true;
        }
    }
    return false;
}

mp_status mp_event_sleep(mp_event_wait *wait, mp_time deadline)
{
    uint32_t *word = &wait->event->word;
    if (!wait->begun) {
        wait->begun = true;
        if (spin_for(wait))
            return MP_OK;
    }
    mp_time end = mp_slice_growing(&wait->round, deadline);
    uint32_t seen = mp_load_acquire32(word); // SYNC: event
    for (;;) {
        if (happened(wait, seen))
            return MP_OK;
        if ((seen & MP_WAITERS) == 0 && !mp_cas32(word, &seen, seen | MP_WAITERS))
            continue;
        mp_status status = mp_futex_wait(word, seen | MP_WAITERS, end);
        seen = mp_load_acquire32(word); // SYNC: event
        if (status != MP_OK && !happened(wait, seen))
            return status == MP_INTERRUPTED ? MP_INTERRUPTED : mp_slice_over(deadline);
    }
}
