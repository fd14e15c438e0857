// SPDX-License-Identifier: PSF-2.0
#include "sync/thread.h"

_Thread_local uint32_t mp_thread_own_number;

/* How many threads of this process, and of the ancestors it was forked from, have a number. */
static uint32_t numbered;

uint32_t mp_thread_number_slow(void)
{
    mp_thread_own_number = mp_fetch_add32(&numbered, 1) + 1;
    return mp_thread_own_number;
}
