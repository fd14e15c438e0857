// SPDX-License-Identifier: PSF-2.0
/* Event: a flag, and a count of how often it was set, in one atomic word.
 *
 * Who waits remembers the count, so that set() directly followed by clear() is never missed. */
#ifndef MP_SYNC_EVENT_H
#define MP_SYNC_EVENT_H

#include "core/atomic.h" // the word
#include "sync/spin.h"   // mp_spin_memory

/* `word`, the futex: [waiters:1][generation:30][set:1]. set() raises the generation. */
struct mp_event_shm {
    uint32_t word;
    uint32_t reserved;
};

static_assert(sizeof(struct mp_event_shm) == 8, "ABI");

static inline bool mp_event_is_set(const struct mp_event_shm *event)
{
    return (mp_load_acquire32(&event->word) & 1U) != 0; // SYNC: event
}

void mp_event_set(struct mp_event_shm *event);
void mp_event_clear(struct mp_event_shm *event);

/* One wait of one thread. */
typedef struct mp_event_wait {
    struct mp_event_shm *event;
    mp_spin_memory *memory;
    uint32_t start; // the word when the wait began
    uint32_t round;
    bool begun; // it spins before the first sleep only
} mp_event_wait;

/* MP_OK: set already. MP_WOULD_BLOCK: *wait is ready for mp_event_sleep. */
mp_status mp_event_begin(mp_event_wait *wait, struct mp_event_shm *event, mp_spin_memory *memory);

/* Spin, then sleep for a slice. Call it without the GIL.
 * MP_OK: set now, or set in between. MP_TIMEOUT, MP_INTERRUPTED (look at signals, call again). */
mp_status mp_event_sleep(mp_event_wait *wait, mp_time deadline);

#endif
