// SPDX-License-Identifier: PSF-2.0
#include "core/atomic.h" // the flag
#include "os/stream.h"   // the contract

static uint32_t forks; // written by the only thread of a new child

static void in_child(void)
{
    forks++;
}

uint32_t mp_fork_count(void)
{
    return mp_load_relaxed32(&forks);
}

mp_status mp_fork_watch(void)
{
    static uint32_t watching;
    if (mp_load_acquire32(&watching) != 0)
        return MP_OK;
    if (mp_exchange32(&watching, 1) != 0)
        return MP_OK;
    mp_status status = mp_at_fork(NULL, NULL, in_child);
    if (status != MP_OK)
        mp_store_release32(&watching, 0);
    return status;
}
