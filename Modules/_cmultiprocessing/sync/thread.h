// SPDX-License-Identifier: PSF-2.0
/* Which thread of this process is calling, as a number that is never used again.
 *
 * Not the kernel's thread id (asking costs a system call, and it is used again) nor the address of
 * the thread's descriptor (used again, and the same in forked siblings): a dead thread's recursive
 * lock must not look like mine. Means something only together with the owner id of its process. */
#ifndef MP_SYNC_THREAD_H
#define MP_SYNC_THREAD_H

#include "core/atomic.h" // mp_likely, integers

extern _Thread_local uint32_t mp_thread_own_number; // 0 before the first call in this thread

uint32_t mp_thread_number_slow(void);

/* 1 and up. */
static inline uint32_t mp_thread_number(void)
{
    uint32_t number = mp_thread_own_number;
    return mp_likely(number != 0) ? number : mp_thread_number_slow();
}

#endif
