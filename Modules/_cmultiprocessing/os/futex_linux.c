// SPDX-License-Identifier: PSF-2.0
/* futex(2) on words in shared memory: never FUTEX_PRIVATE_FLAG, other processes sleep there too. */
#include "core/atomic.h" // release
#include "os/os.h"       // the contract

#include <errno.h>       // EINTR, ETIMEDOUT
#include <limits.h>      // INT_MAX
#include <linux/futex.h> // operations
#include <sys/syscall.h> // SYS_futex
#include <time.h>        // struct timespec
#include <unistd.h>      // syscall

mp_status mp_futex_wait(uint32_t *word, uint32_t expected, mp_time deadline)
{
    struct timespec until;
    struct timespec *timeout = NULL;
    if (deadline != MP_FOREVER) {
        if (deadline < 0)
            deadline = 0;
        until.tv_sec = (time_t)(deadline / 1000000000);
        until.tv_nsec = (long)(deadline % 1000000000);
        timeout = &until;
    }
    // FUTEX_WAIT_BITSET takes an absolute time on the monotonic clock; FUTEX_WAIT a relative one.
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, timeout, NULL,
                          FUTEX_BITSET_MATCH_ANY);
    if (result == 0 || errno == EAGAIN)
        return MP_OK;
    return errno == ETIMEDOUT ? MP_TIMEOUT : MP_INTERRUPTED;
}

int mp_futex_wake(uint32_t *word, int count)
{
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
    return woken < 0 ? 0 : (int)woken;
}

/* FUTEX_WAKE_OP changes the second word, wakes sleepers of the first, and more of the second if a
 * comparison holds. Here both are the same word; the comparison (old value == 0) is false whenever
 * somebody may sleep, and one wake-up too many does no harm. */
static int change_and_wake(uint32_t *word, unsigned operation, unsigned operand, int count)
{
    unsigned code = FUTEX_OP(operation, operand, FUTEX_OP_CMP_EQ, 0U);
    // The kernel's store is a full barrier, but no sanitizer sees it: release here as well.
    (void)mp_fetch_or32(word, 0);
    long woken = syscall(SYS_futex, word, FUTEX_WAKE_OP, count, (void *)0, word, code);
    return woken < 0 ? 0 : (int)woken;
}

int mp_futex_clear_and_wake(uint32_t *word, int count)
{
    return change_and_wake(word, FUTEX_OP_SET, 0, count);
}

int mp_futex_add_and_wake(uint32_t *word, int count)
{
    return change_and_wake(word, FUTEX_OP_ADD, 1, count);
}
