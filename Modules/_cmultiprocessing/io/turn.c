// SPDX-License-Identifier: PSF-2.0
#include "io/turn.h" // the contract

#include "core/atomic.h" // the word
#include "os/stream.h"   // mp_fork_count

#define TAKEN 1U
#define SLEEPERS 2U
/* As everywhere: a signal that arrives just before the sleep is looked at after so long. */
#define SLICE (500 * (mp_time)MP_MILLISECOND)

static uint32_t count_of_forks(void)
{
    return mp_fork_count() << 2;
}

static bool is_free(uint32_t word)
{
    return (word & TAKEN) == 0 || (word & ~(TAKEN | SLEEPERS)) != count_of_forks();
}

/* Who slept for it keeps the bit: others may sleep, too. */
static bool take(mp_turn *turn, uint32_t sleepers)
{
    uint32_t word = mp_load_relaxed32(&turn->word);
    while (is_free(word)) {
        if (mp_cas32(&turn->word, &word, count_of_forks() | TAKEN | sleepers))
            return true;
    }
    return false;
}

bool mp_turn_try(mp_turn *turn)
{
    return take(turn, 0);
}

mp_status mp_turn_wait(mp_turn *turn, mp_time deadline)
{
    while (!take(turn, SLEEPERS)) {
        uint32_t word = mp_load_relaxed32(&turn->word);
        if (is_free(word))
            continue;
        if ((word & SLEEPERS) == 0 && !mp_cas32(&turn->word, &word, word | SLEEPERS))
            continue;
        mp_time now = mp_clock_now();
        bool last = deadline - now <= SLICE;
        mp_status status =
            mp_futex_wait(&turn->word, word | SLEEPERS, last ? deadline : now + SLICE);
        if (status == MP_TIMEOUT)
            return last ? MP_TIMEOUT : MP_INTERRUPTED;
        if (status != MP_OK)
            return status;
    }
    return MP_OK;
}

void mp_turn_end(mp_turn *turn)
{
    if (mp_exchange32(&turn->word, 0) & SLEEPERS)
        (void)mp_futex_wake(&turn->word, 1);
}
