// SPDX-License-Identifier: PSF-2.0
#include "sync/semaphore.h"

#include "core/inject.h" // MP_INJECT
#include "sync/slice.h"  // how long to sleep

void mp_semaphore_init(struct mp_semaphore_shm *semaphore, uint32_t value, uint32_t max,
                       uint32_t tokens)
{
    semaphore->word = tokens == 0 ? value : 0;
    semaphore->max = max;
    semaphore->tokens = tokens;
    for (uint32_t i = 0; i < tokens; i++)
        semaphore->token[i] = i < value ? 0 : MP_NO_TOKEN;
}

bool mp_semaphore_valid(const struct mp_semaphore_shm *semaphore, uint64_t capacity)
{
    return capacity >= sizeof(*semaphore) && semaphore->tokens <= MP_SEMAPHORE_TOKENS_MAX &&
           mp_semaphore_size(semaphore->tokens) <= capacity;
}

/* `tokens` was compared with the chunk when the semaphore was attached, but others can still write to
 * it: whatever it says by now, a walk does not leave the mapping. */
static uint32_t token_count(const struct mp_semaphore_shm *semaphore)
{
    uint64_t room = (mp_family.mapped - mp_offset_of(semaphore->token)) / sizeof(uint32_t);
    uint64_t most = room < MP_SEMAPHORE_TOKENS_MAX ? room : MP_SEMAPHORE_TOKENS_MAX;
    uint32_t tokens = mp_load_relaxed32(&semaphore->tokens);
    return tokens < most ? tokens : (uint32_t)most;
}

/* ---- plain ---- */

/* Take one if there is one. `keep`: MP_WAITERS when others may sleep besides the caller.
 * *seen is what the word says when there is none. */
static bool take(struct mp_semaphore_shm *semaphore, uint32_t keep, uint32_t *seen)
{
    *seen = mp_load_relaxed32(&semaphore->word);
    while ((*seen & MP_SEMAPHORE_MAX) != 0) {
        if (mp_cas32(&semaphore->word, seen, (*seen - 1) | keep)) // SYNC: semaphore
            return true;
    }
    return false;
}

/* Add one to a word whose waiters bit is set. With nobody holding an upper bound the addition and the
 * wake are one step; a bounded value needs a CAS, and a kill between it and the wake costs a slice. */
static bool give_waking(struct mp_semaphore_shm *semaphore, uint32_t seen)
{
    int woken;
    if (semaphore->max == MP_SEMAPHORE_MAX && (seen & MP_SEMAPHORE_MAX) == 0) {
        woken = mp_futex_add_and_wake(&semaphore->word, 1); // SYNC: semaphore
    } else {
        if (!mp_cas32(&semaphore->word, &seen, seen + 1)) // SYNC: semaphore
            return false;
        MP_INJECT("semaphore:before_wake");
        woken = mp_futex_wake(&semaphore->word, 1);
    }
    // Nobody slept: the next release need not ask. Only the very word of this release: who announces
    // itself later does so in front of value 0, and finds the word changed if it is not asleep yet.
    uint32_t left = seen + 1;
    if (woken == 0)
        (void)mp_cas32(&semaphore->word, &left, left & ~MP_WAITERS);
    return true;
}

static mp_status give(struct mp_semaphore_shm *semaphore)
{
    uint32_t seen = mp_load_relaxed32(&semaphore->word);
    for (;;) {
        if ((seen & MP_SEMAPHORE_MAX) >= semaphore->max)
            return MP_MISUSE;
        if ((seen & MP_WAITERS) == 0) {
            if (mp_cas32(&semaphore->word, &seen, seen + 1)) // SYNC: semaphore
                return MP_OK;
        } else if (give_waking(semaphore, seen)) {
            return MP_OK;
        } else {
            seen = mp_load_relaxed32(&semaphore->word);
        }
    }
}

/* ---- robust ---- */

static bool change_token(uint32_t *token, uint32_t from, uint32_t to)
{
    return mp_load_relaxed32(token) == from && mp_cas32(token, &from, to); // SYNC: token
}

/* A free token, else one whose holder was killed. */
static bool take_token(struct mp_semaphore_shm *semaphore)
{
    mp_owner self = mp_self();
    uint32_t count = token_count(semaphore);
    for (uint32_t i = 0; i < count; i++) {
        if (change_token(&semaphore->token[i], 0, self))
            return true;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t holder = mp_load_relaxed32(&semaphore->token[i]);
        if (holder != 0 && holder != MP_NO_TOKEN && holder != self && mp_owner_dead(holder) &&
            change_token(&semaphore->token[i], holder, self))
            return true;
    }
    return false;
}

/* Our own token, else a living process's (tokens may be released elsewhere), else a new one. */
static bool free_token(struct mp_semaphore_shm *semaphore)
{
    mp_owner self = mp_self();
    uint32_t count = token_count(semaphore);
    for (uint32_t i = 0; i < count; i++) {
        if (change_token(&semaphore->token[i], self, 0))
            return true;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t holder = mp_load_relaxed32(&semaphore->token[i]);
        if (holder != 0 && holder != MP_NO_TOKEN && !mp_owner_dead(holder) &&
            change_token(&semaphore->token[i], holder, 0))
            return true;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (change_token(&semaphore->token[i], MP_NO_TOKEN, 0))
            return true;
    }
    return false;
}

static uint32_t free_tokens(const struct mp_semaphore_shm *semaphore)
{
    uint32_t count = token_count(semaphore);
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t holder = mp_load_acquire32(&semaphore->token[i]);
        if (holder == 0 || (holder != mp_self() && mp_owner_dead(holder)))
            left++;
    }
    return left;
}

/* After a token was freed: whoever read the word before looked at the tokens before. */
static void announce_token(struct mp_semaphore_shm *semaphore)
{
    uint32_t seen = mp_load_relaxed32(&semaphore->word);
    while (!mp_cas32(&semaphore->word, &seen, (seen + 1) & ~MP_WAITERS))
        ;
    if ((seen & MP_WAITERS) != 0)
        (void)mp_futex_wake(&semaphore->word, INT32_MAX);
}

/* ---- both ---- */

static bool try_take(struct mp_semaphore_shm *semaphore, uint32_t keep, uint32_t *seen)
{
    if (mp_likely(semaphore->tokens == 0))
        return take(semaphore, keep, seen);
    *seen = mp_load_acquire32(&semaphore->word); // before the tokens are looked at
    return take_token(semaphore);
}

mp_status mp_semaphore_try(struct mp_semaphore_shm *semaphore)
{
    uint32_t seen;
    return try_take(semaphore, 0, &seen) ? MP_OK : MP_WOULD_BLOCK;
}

static bool spin_for(mp_semaphore_wait *wait)
{
    uint32_t seen;
    mp_spin spin = mp_spin_begin(wait->memory);
    while (mp_spin_again(&spin)) {
        // Robust ones look only when something was released: a look costs more than a breath.
        if (wait->semaphore->tokens == 0 && take(wait->semaphore, 0, &seen)) {
            mp_spin_paid(wait->memory);
            return true;
        }
    }
    return false;
}

mp_status mp_semaphore_acquire(mp_semaphore_wait *wait, mp_time deadline)
{
    struct mp_semaphore_shm *semaphore = wait->semaphore;
    if (!wait->begun) {
        wait->begun = true;
        if (spin_for(wait))
            return MP_OK;
    }
    // Holders of robust tokens are owners whose death nobody announces.
    mp_time end = semaphore->tokens == 0 ? mp_slice_growing(&wait->round, deadline)
                                         : mp_slice_owned(deadline);
    for (;;) {
        uint32_t seen;
        if (try_take(semaphore, wait->slept ? MP_WAITERS : 0, &seen))
            return MP_OK;
        if ((seen & MP_WAITERS) == 0 && !mp_cas32(&semaphore->word, &seen, seen | MP_WAITERS))
            continue;
        MP_INJECT("semaphore:announced");
        mp_status status = mp_futex_wait(&semaphore->word, seen | MP_WAITERS, end);
        wait->slept = true;
        if (status == MP_OK)
            continue;
        if (try_take(semaphore, MP_WAITERS, &seen))
            return MP_OK;
        return status == MP_INTERRUPTED ? MP_INTERRUPTED : mp_slice_over(deadline);
    }
}

mp_status mp_semaphore_release(struct mp_semaphore_shm *semaphore)
{
    if (mp_likely(semaphore->tokens == 0))
        return give(semaphore);
    if (!free_token(semaphore))
        return MP_MISUSE;
    announce_token(semaphore);
    return MP_OK;
}

uint32_t mp_semaphore_value(const struct mp_semaphore_shm *semaphore)
{
    if (semaphore->tokens != 0)
        return free_tokens(semaphore);
    return mp_load_acquire32(&semaphore->word) & MP_SEMAPHORE_MAX;
}
