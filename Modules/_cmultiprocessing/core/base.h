// SPDX-License-Identifier: PSF-2.0
/* The vocabulary of every layer: one status type, a few attributes, assertions.
 *
 * Everything below py/ returns an mp_status. The first group are results that a correct program
 * meets every day; the second group are refusals that py/errors.c turns into exceptions. */
#ifndef MP_CORE_BASE_H
#define MP_CORE_BASE_H

#include <assert.h>  // mp_assert, static_assert
#include <stdbool.h> // bool, in private memory only
#include <stddef.h>  // size_t, offsetof
#include <stdint.h>  // fixed-width integers, the only ones in shared memory

typedef enum mp_status {
    MP_OK = 0,
    MP_WOULD_BLOCK, // not now; nothing was changed
    MP_TIMEOUT,     // the deadline has passed; nothing was changed
    MP_INTERRUPTED, // look at pending signals and call again; the place in the queue is kept
    MP_OWNER_DIED,  // the lock is held now; its last owner was killed while it held it
    MP_CLOSED,      // shut down by a member of the family
    MP_BROKEN,      // the barrier is broken

    MP_MISUSE,    // released more often than acquired
    MP_NOT_OWNER, // only the owner may do this
    MP_STALE,     // the object that this handle names is gone
    MP_FOREIGN,   // the handle belongs to another family
    MP_DAMAGED,   // shared memory holds what no correct process wrote
    MP_NO_MEMORY, // the machine or a control group has no more memory to give
    MP_NO_SPACE,  // the address space reserved for the family is used up
    MP_NO_SLOT,   // a table of fixed size (processes, sleepers) is full
    MP_TOO_LARGE, // larger than any object can be
    MP_SYSTEM,    // a system call failed; errno says why
} mp_status;

#define MP_CACHE_LINE 64

#define mp_likely(x) __builtin_expect(!!(x), 1)
#define mp_unlikely(x) __builtin_expect(!!(x), 0)
#define mp_assert(x) assert(x)

#endif
