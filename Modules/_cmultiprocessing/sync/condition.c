// SPDX-License-Identifier: PSF-2.0
#include "sync/condition.h"

#include "core/inject.h" // MP_INJECT
#include "shm/chunks.h"  // offsets of chunks
#include "shm/reclaim.h" // finalize
#include "sync/slice.h"  // how long to sleep

/* What entries of the table name as their object. */
static uint64_t object_of(const struct mp_condition_shm *condition)
{
    return mp_offset_of(condition);
}

/* ---- who is there ---- */

/* The oldest living sleeper with a ticket below `bound`; dead ones on the way are buried. */
static bool find_oldest(uint64_t object, uint64_t bound, mp_sleeper_view *oldest)
{
    for (;;) {
        uint64_t lowest = bound;
        uint32_t limit = mp_sleeper_limit();
        for (uint32_t i = 0; i < limit; i++) {
            mp_sleeper_view view;
            if (!mp_sleeper_look(i, object, &view) ||
                mp_sleeper_state(view.word) != MP_SLEEPER_WAITING)
                continue;
            uint64_t ticket = mp_load_relaxed64(&view.sleeper->ticket);
            if (ticket < lowest) {
                lowest = ticket;
                *oldest = view;
            }
        }
        if (lowest == bound)
            return false;
        if (!mp_owner_dead(oldest->owner))
            return true;
        mp_sleeper_bury(oldest);
    }
}

/* Does a NOTIFIED entry say that it got the wake-up of the entry so named? */
static bool was_passed(uint64_t object, uint64_t name)
{
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (mp_sleeper_look(i, object, &view) &&
            mp_sleeper_state(view.word) == MP_SLEEPER_NOTIFIED &&
            mp_load_relaxed64(&view.sleeper->passed) == name)
            return true;
    }
    return false;
}

/* ---- marking; under the mutex ---- */

/* Spend a wake-up for tickets below `bound` on this entry. What it inherits from is written before
 * it is marked: whoever dies in between has given nothing away. */
static bool mark_locked(const mp_sleeper_view *view, uint64_t bound, uint64_t inherited)
{
    mp_store_relaxed64(&view->sleeper->bound, bound);
    mp_store_relaxed64(&view->sleeper->passed, inherited);
    return mp_sleeper_notify(view);
}

/* Give the wake-up of a NOTIFIED entry that will not use it to the next one that may have it.
 * Returns whom to wake, or NULL. Killed after the mark: was_passed() keeps it from being given twice. */
static struct mp_sleeper_shm *pass_on_locked(uint64_t object, const mp_sleeper_view *from)
{
    uint64_t name = mp_sleeper_name(from->sleeper, from->word);
    uint64_t bound = mp_load_relaxed64(&from->sleeper->bound);
    if (was_passed(object, name))
        return NULL;
    // Who got it settles this entry, then leaves his own: if he did so while we looked it shows here.
    mp_fence();
    if (mp_load_acquire32(&from->sleeper->word) != from->word)
        return NULL;
    // What it inherited ends here; only its own name must be looked for from now on.
    uint64_t inherited = mp_load_relaxed64(&from->sleeper->passed);
    if (inherited != 0)
        mp_sleeper_settle(inherited);
    mp_sleeper_view next;
    while (find_oldest(object, bound, &next)) {
        if (mark_locked(&next, bound, name)) {
            MP_INJECT("condition:passed");
            return next.sleeper;
        }
    }
    return NULL;
}

/* Pass on what was spent on the dead. */
static void tidy_locked(uint64_t object)
{
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (!mp_sleeper_look(i, object, &view) ||
            mp_sleeper_state(view.word) != MP_SLEEPER_NOTIFIED || !mp_owner_dead(view.owner))
            continue;
        struct mp_sleeper_shm *next = pass_on_locked(object, &view);
        mp_sleeper_bury(&view);
        if (next != NULL)
            mp_sleeper_wake(next); // never blocks; rare enough for a system call under the mutex
    }
}

/* Mark everybody. Returns how many entries of the condition are in use, of the living or the dead. */
static uint32_t mark_all_locked(uint64_t object, uint64_t bound)
{
    uint32_t used = 0;
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (!mp_sleeper_look(i, object, &view))
            continue;
        used++;
        if (mp_sleeper_state(view.word) == MP_SLEEPER_WAITING)
            (void)mark_locked(&view, bound, 0);
    }
    return used;
}

static void wake_marked(uint64_t object)
{
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (mp_sleeper_look(i, object, &view) && mp_sleeper_state(view.word) == MP_SLEEPER_NOTIFIED)
            mp_sleeper_wake(view.sleeper);
    }
}

/* With the mutex held; lets go of it. Wakes come after, outside: a kill in between costs a slice. */
static void notify_holding(struct mp_condition_shm *condition, uint32_t count)
{
    uint64_t object = object_of(condition);
    uint64_t bound = mp_load_relaxed64(&condition->next_ticket);
    uint32_t sleepers = mp_load_acquire32(&condition->sleepers);
    tidy_locked(object);
    struct mp_sleeper_shm *only = NULL;
    uint32_t marked = 0;
    if (count >= sleepers && count > 1) {
        // Leavers take themselves off the count before they leave, and newcomers need the caller's
        // lock: nobody in the table means nobody but the dead in the count.
        if (mark_all_locked(object, bound) == 0)
            (void)mp_cas32(&condition->sleepers, &sleepers, 0);
        marked = count;
    }
    mp_sleeper_view oldest;
    while (marked < count && find_oldest(object, bound, &oldest)) {
        if (mark_locked(&oldest, bound, 0)) {
            only = oldest.sleeper;
            marked++;
        }
    }
    mp_mutex_unlock(&condition->mutex);
    MP_INJECT("condition:marked");
    if (count == 1 && only != NULL)
        mp_sleeper_wake(only);
    else if (count > 1)
        wake_marked(object);
}

mp_status mp_condition_try_notify(struct mp_condition_shm *condition, uint32_t count)
{
    if (count == 0 || mp_load_acquire32(&condition->sleepers) == 0)
        return MP_OK;
    // A dead notifier leaves nothing to repair: every mark is one CAS.
    if (mp_mutex_try(&condition->mutex) == MP_WOULD_BLOCK)
        return MP_WOULD_BLOCK;
    notify_holding(condition, count);
    return MP_OK;
}

mp_status mp_condition_notify(struct mp_condition_shm *condition, uint32_t count)
{
    mp_status status = mp_mutex_lock(&condition->mutex, MP_FOREVER);
    if (status != MP_OK && status != MP_OWNER_DIED)
        return status;
    notify_holding(condition, count);
    return MP_OK;
}

/* ---- sleeping ---- */

mp_status mp_condition_begin(mp_condition_wait *wait)
{
    struct mp_condition_shm *condition = wait->condition;
    uint64_t ticket = mp_fetch_add64(&condition->next_ticket, 1);
    (void)mp_fetch_add32(&condition->sleepers, 1);
    mp_status status = mp_sleeper_claim(object_of(condition), ticket, &wait->place);
    if (status != MP_OK)
        (void)mp_fetch_add32(&condition->sleepers, UINT32_MAX);
    return status;
}

/* Leave a NOTIFIED place that is not counted any more. The entry that its wake-up was inherited from is
 * settled first: while that entry stands, ours says that its wake-up was passed on. */
static void acknowledge(mp_condition_wait *wait)
{
    uint64_t inherited = mp_load_relaxed64(&wait->place.sleeper->passed);
    if (inherited != 0)
        mp_sleeper_settle(inherited);
    mp_sleeper_acknowledge(&wait->place);
}

/* The wake-up is used. */
static mp_status woken(mp_condition_wait *wait)
{
    (void)mp_fetch_add32(&wait->condition->sleepers, UINT32_MAX);
    acknowledge(wait);
    return MP_OK;
}

/* False: notified meanwhile, and still counted. */
static bool leave(mp_condition_wait *wait)
{
    (void)mp_fetch_add32(&wait->condition->sleepers, UINT32_MAX);
    if (mp_sleeper_leave(&wait->place))
        return true;
    (void)mp_fetch_add32(&wait->condition->sleepers, 1);
    return false;
}

static bool spin_for(mp_condition_wait *wait)
{
    mp_spin spin = mp_spin_begin(wait->memory);
    while (mp_spin_again(&spin)) {
        if (mp_sleeper_notified(&wait->place)) {
            mp_spin_paid(wait->memory);
            return true;
        }
    }
    return false;
}

/* Between two slices: the wake-up of a dead one may be ours. */
static void look_for_dead(struct mp_condition_shm *condition)
{
    mp_status status = mp_mutex_try(&condition->mutex);
    if (status == MP_WOULD_BLOCK)
        return; // somebody is at it
    tidy_locked(object_of(condition));
    mp_mutex_unlock(&condition->mutex);
}

mp_status mp_condition_sleep(mp_condition_wait *wait, mp_time deadline)
{
    if (wait->place.owner != mp_self()) {
        // Forked by a signal handler during the wait: the place is the parent's.
        mp_status status = mp_condition_begin(wait);
        if (status != MP_OK)
            return status;
    }
    if (!wait->begun) {
        wait->begun = true;
        if (spin_for(wait))
            return woken(wait);
    }
    mp_time end = mp_slice_growing(&wait->round, deadline);
    mp_status status = MP_OK;
    while (!mp_sleeper_notified(&wait->place)) {
        if (status != MP_OK) {
            look_for_dead(wait->condition);
            if (status == MP_TIMEOUT)
                status = mp_slice_over(deadline);
            if (status == MP_INTERRUPTED)
                return MP_INTERRUPTED;
            if (leave(wait))
                return MP_TIMEOUT;
            break;
        }
        status = mp_sleeper_sleep(&wait->place, end);
    }
    return woken(wait);
}

mp_status mp_condition_cancel(mp_condition_wait *wait)
{
    struct mp_condition_shm *condition = wait->condition;
    if (wait->place.owner != mp_self() || leave(wait))
        return MP_OK;
    mp_status status = mp_mutex_lock(&condition->mutex, MP_FOREVER);
    if (status != MP_OK && status != MP_OWNER_DIED)
        return status;
    mp_sleeper_view own = {
        .sleeper = wait->place.sleeper,
        .word = MP_SLEEPER_NOTIFIED | wait->place.epoch,
        .owner = wait->place.owner,
    };
    struct mp_sleeper_shm *next = pass_on_locked(object_of(condition), &own);
    // Under the mutex: who got the wake-up may settle our entry at once, and a notifier who finds no
    // entry sets the count to 0. Taken off after that it would hide somebody who sleeps.
    (void)mp_fetch_add32(&condition->sleepers, UINT32_MAX);
    mp_mutex_unlock(&condition->mutex);
    if (next != NULL)
        mp_sleeper_wake(next);
    acknowledge(wait);
    return MP_OK;
}

uint32_t mp_condition_sleeping(const struct mp_condition_shm *condition)
{
    uint32_t count = 0;
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (mp_sleeper_look(i, object_of(condition), &view) &&
            mp_sleeper_state(view.word) == MP_SLEEPER_WAITING && !mp_owner_dead(view.owner))
            count++;
    }
    return count;
}

/* Nobody holds the condition any more: entries that the dead left there must not be found by what is
 * made at the same offset later. */
static void finalize(uint64_t offset)
{
    uint64_t object = offset + MP_CHUNK_HEADER;
    uint32_t limit = mp_sleeper_limit();
    for (uint32_t i = 0; i < limit; i++) {
        mp_sleeper_view view;
        if (mp_sleeper_look(i, object, &view) && mp_owner_dead(view.owner))
            mp_sleeper_bury(&view);
    }
}

void mp_condition_setup(void)
{
    static const struct mp_type_ops ops = {.finalize = finalize};
    mp_reclaim_register(MP_TYPE_CONDITION, &ops);
    mp_reclaim_register(MP_TYPE_BARRIER, &ops);
}
