// SPDX-License-Identifier: PSF-2.0
#include "structures/notifier.h" // the contract

#include "os/bell.h"       // descriptor and thread
#include "shm/processes.h" // whether the watcher lives

#include <limits.h> // INT_MAX
#include <stdlib.h> // malloc

/* Private memory of this process. */
struct mp_notifier {
    mp_ring_handle ring; // a copy: the queue's object outlives the notifier
    mp_bell *bell;
    uint32_t process; // who has the thread: a fork copies the rest
    mp_owner owner;   // the same one's place in the family
    uint32_t stop;    // futex-ordered: stored, then the sleepers are called off
    uint32_t poke;    // futex: raised when this process may have emptied the ring
};

/* Something to take, or a queue that was shut down: whoever waits for the descriptor has to learn it. */
static bool is_ready(void *context)
{
    const mp_ring_handle *ring = &((mp_notifier *)context)->ring;
    return !mp_ring_empty(ring) || mp_ring_state(ring) != MP_RING_OPEN;
}

/* While the descriptor is readable: sleep until this process takes something, or look after 50 ms
 * whether others did. */
static void rest(mp_notifier *notifier, uint32_t seen)
{
    mp_time until = mp_clock_now() + 50 * (mp_time)MP_MILLISECOND;
    if (mp_load_acquire32(&notifier->stop) == 0)
        (void)mp_futex_wait(&notifier->poke, seen, until);
}

static void watch(void *context)
{
    mp_notifier *notifier = context;
    while (mp_load_acquire32(&notifier->stop) == 0) {
        uint32_t seen = mp_load_acquire32(&notifier->poke);
        if (mp_bell_set(notifier->bell, is_ready, notifier)) {
            rest(notifier, seen);
            continue;
        }
        mp_time until = mp_clock_now() + 500 * (mp_time)MP_MILLISECOND;
        (void)mp_ring_sleep_items(&notifier->ring, until, &notifier->stop);
    }
}

static void poke(mp_notifier *notifier)
{
    (void)mp_fetch_add32(&notifier->poke, 1);
    (void)mp_futex_wake(&notifier->poke, INT_MAX);
}

mp_status mp_notifier_open(mp_notifier **result, const mp_ring_handle *ring)
{
    mp_notifier *notifier = malloc(sizeof *notifier);
    if (notifier == NULL)
        return MP_NO_MEMORY;
    *notifier = (mp_notifier){.ring = *ring, .process = mp_process_id(), .owner = mp_self()};
    mp_store_release32(&ring->shm->watcher, notifier->owner);
    mp_status status = mp_bell_open(&notifier->bell, watch, notifier, &ring->shm->shown);
    if (status != MP_OK) {
        free(notifier);
        return status;
    }
    // What is there already shows at once, not when the thread first runs.
    (void)mp_bell_set(notifier->bell, is_ready, notifier);
    *result = notifier;
    return MP_OK;
}

static bool is_ours(const mp_notifier *notifier)
{
    return notifier->process == mp_process_id();
}

int mp_notifier_descriptor(const mp_notifier *notifier)
{
    return is_ours(notifier) ? mp_bell_descriptor(notifier->bell) : -1;
}

void mp_notifier_taken(mp_notifier *notifier)
{
    if (is_ours(notifier) && mp_ring_empty(&notifier->ring) &&
        !mp_bell_set(notifier->bell, is_ready, notifier))
        poke(notifier);
}

void mp_notifier_close(mp_notifier *notifier)
{
    if (is_ours(notifier)) {
        mp_owner watcher = notifier->owner;
        (void)mp_cas32(&notifier->ring.shm->watcher, &watcher, MP_NOBODY);
        mp_store_release32(&notifier->stop, 1);
        poke(notifier);
        mp_ring_call_off(&notifier->ring);
        mp_bell_close(notifier->bell);
    } else {
        mp_bell_abandon(notifier->bell);
    }
    free(notifier);
}

/* Is there an item that the watcher has not shown yet? */
static bool is_behind(const struct mp_ring_shm *ring)
{
    uint32_t watcher = mp_load_acquire32(&ring->watcher);
    if (watcher == MP_NOBODY || mp_load_acquire32(&ring->shown) != 0 || mp_owner_dead(watcher))
        return false;
    uint64_t head = mp_load_acquire64(&ring->head);
    return mp_word_count(head) != mp_word_count(mp_load_acquire64(&ring->tail));
}

void mp_notifier_linger(void)
{
    uint64_t offset = mp_family.told;
    mp_family.told = 0;
    if (offset == 0 || !mp_reachable(offset, sizeof(struct mp_ring_shm)))
        return;
    struct mp_ring_shm *ring = mp_at(offset);
    mp_time end = mp_clock_now() + 500 * (mp_time)MP_MILLISECOND;
    // The ring may be gone and its memory somebody else's: then what is read here means nothing, and
    // the worst of it is the delay.
    while (ring->generation == mp_family.told_generation && is_behind(ring)) {
        mp_time now = mp_clock_now();
        if (now >= end)
            break;
        (void)mp_futex_wait(&ring->shown, 0, now + MP_MILLISECOND / 20);
    }
}
