// SPDX-License-Identifier: PSF-2.0
#include "sync/parking.h"

#include "core/inject.h" // MP_INJECT

/* Where this thread slept last: most threads sleep at one place again and again. A hint. */
static _Thread_local uint32_t last_index;

static uint32_t next_free(uint32_t word)
{
    return MP_SLEEPER_FREE | ((word + 1) & MP_SLEEPER_EPOCH);
}

static bool claim_free(uint32_t index)
{
    uint32_t nobody = MP_NOBODY;
    struct mp_sleeper_shm *sleeper = mp_sleeper_at(index);
    return mp_load_relaxed32(&sleeper->owner) == MP_NOBODY &&
           mp_cas32(&sleeper->owner, &nobody, mp_self()); // SYNC: sleeper
}

/* Take the entry of a dead process, unless a wake-up was spent on it, which is for its object's other
 * sleepers to pass on. The word first: whoever dies in between leaves a free entry of a dead owner. */
static bool claim_dead(uint32_t index)
{
    struct mp_sleeper_shm *sleeper = mp_sleeper_at(index);
    mp_owner owner = mp_load_acquire32(&sleeper->owner);
    uint32_t word = mp_load_acquire32(&sleeper->word);
    if (owner == MP_NOBODY || mp_sleeper_state(word) == MP_SLEEPER_NOTIFIED ||
        !mp_owner_dead(owner))
        return false;
    if (mp_sleeper_state(word) == MP_SLEEPER_WAITING &&
        !mp_cas32(&sleeper->word, &word, next_free(word)))
        return false;
    return mp_cas32(&sleeper->owner, &owner, mp_self()); // SYNC: sleeper
}

/* An entry beyond all that were used. Raising the limit before the claim only makes scans longer. */
static bool claim_new(uint32_t *index)
{
    uint32_t *shared_limit = &mp_family_shm()->sleeper_limit;
    for (;;) {
        uint32_t limit = mp_load_acquire32(shared_limit);
        if (limit >= MP_SLEEPER_SLOTS)
            return false;
        if (!mp_cas32(shared_limit, &limit, limit + 1))
            continue;
        *index = limit;
        if (claim_free(limit))
            return true;
    }
}

/* Before the table doubles it is swept: entries of the dead cost a system call each to recognise. */
static bool worth_sweeping(uint32_t limit)
{
    return limit >= MP_SLEEPER_SLOTS || (limit & (limit - 1)) == 0;
}

static bool find(uint32_t *index)
{
    uint32_t limit = mp_sleeper_limit();
    *index = last_index;
    if (*index < limit && claim_free(*index))
        return true;
    for (*index = 0; *index < limit; ++*index) {
        if (claim_free(*index))
            return true;
    }
    for (*index = 0; worth_sweeping(limit) && *index < limit; ++*index) {
        if (claim_dead(*index))
            return true;
    }
    return claim_new(index);
}

mp_status mp_sleeper_claim(uint64_t object, uint64_t ticket, mp_place *place)
{
    uint32_t index;
    if (!find(&index))
        return MP_NO_SLOT;
    last_index = index;
    struct mp_sleeper_shm *sleeper = mp_sleeper_at(index);
    MP_INJECT("sleeper:claimed");
    // Only the owner writes a free entry.
    mp_store_relaxed64(&sleeper->object, object);
    mp_store_relaxed64(&sleeper->ticket, ticket);
    mp_store_relaxed64(&sleeper->bound, 0);
    mp_store_relaxed64(&sleeper->passed, 0);
    mp_store_relaxed32(&sleeper->index, 0);
    mp_store_relaxed32(&sleeper->asleep, 0);
    uint32_t epoch = mp_load_relaxed32(&sleeper->word) & MP_SLEEPER_EPOCH;
    *place = (mp_place){.sleeper = sleeper, .owner = mp_self(), .epoch = epoch};
    // A full barrier: whoever gives up its lock after this has shown its entry before.
    (void)mp_exchange32(&sleeper->word, MP_SLEEPER_WAITING | epoch); // SYNC: sleeper shown
    return MP_OK;
}

static void vacate(mp_place *place)
{
    // Killed before this: a free entry of a dead owner.
    mp_store_release32(&place->sleeper->owner, MP_NOBODY); // SYNC: sleeper
    place->sleeper = NULL;
}

bool mp_sleeper_leave(mp_place *place)
{
    uint32_t waiting = MP_SLEEPER_WAITING | place->epoch;
    if (!mp_cas32(&place->sleeper->word, &waiting, next_free(waiting)))
        return false;
    vacate(place);
    return true;
}

void mp_sleeper_acknowledge(mp_place *place)
{
    // Not a plain store: the one that our wake-up was passed on to may have settled it already.
    uint32_t notified = MP_SLEEPER_NOTIFIED | place->epoch;
    (void)mp_cas32(&place->sleeper->word, &notified, next_free(notified));
    vacate(place);
}

/* Dekker with mp_sleeper_wake: we say that we sleep, then the kernel looks at the word; the notifier
 * changes the word, then looks whether we sleep. */
mp_status mp_sleeper_sleep(const mp_place *place, mp_time end)
{
    if (mp_load_relaxed32(&place->sleeper->asleep) == 0)
        (void)mp_exchange32(&place->sleeper->asleep, 1);
    return mp_futex_wait(&place->sleeper->word, MP_SLEEPER_WAITING | place->epoch, end);
}

void mp_sleeper_wake(struct mp_sleeper_shm *sleeper)
{
    if (mp_load_acquire32(&sleeper->asleep) != 0)
        (void)mp_futex_wake(&sleeper->word, 1);
}

uint64_t mp_sleeper_name(const struct mp_sleeper_shm *sleeper, uint32_t word)
{
    uint64_t index = (uint64_t)(sleeper - mp_sleeper_at(0));
    return (index + 1) << 32 | (word & MP_SLEEPER_EPOCH);
}

void mp_sleeper_settle(uint64_t name)
{
    uint64_t index = (name >> 32) - 1;
    uint32_t notified = MP_SLEEPER_NOTIFIED | (uint32_t)(name & MP_SLEEPER_EPOCH);
    if (index < MP_SLEEPER_SLOTS)
        (void)mp_cas32(&mp_sleeper_at((uint32_t)index)->word, &notified, next_free(notified));
}

bool mp_sleeper_look(uint32_t index, uint64_t object, mp_sleeper_view *view)
{
    struct mp_sleeper_shm *sleeper = mp_sleeper_at(index);
    uint32_t word = mp_load_acquire32(&sleeper->word); // SYNC: sleeper shown
    if (mp_sleeper_state(word) == MP_SLEEPER_FREE || mp_load_relaxed64(&sleeper->object) != object)
        return false;
    view->sleeper = sleeper;
    view->word = word;
    view->owner = mp_load_relaxed32(&sleeper->owner);
    return true;
}

bool mp_sleeper_notify(const mp_sleeper_view *view)
{
    uint32_t word = view->word;
    uint32_t notified = MP_SLEEPER_NOTIFIED | (word & MP_SLEEPER_EPOCH);
    return mp_sleeper_state(word) == MP_SLEEPER_WAITING &&
           mp_cas32(&view->sleeper->word, &word, notified); // SYNC: notified
}

void mp_sleeper_bury(const mp_sleeper_view *view)
{
    uint32_t word = view->word;
    mp_owner owner = view->owner;
    if (mp_cas32(&view->sleeper->word, &word, next_free(word)))
        (void)mp_cas32(&view->sleeper->owner, &owner, MP_NOBODY); // SYNC: sleeper
}
