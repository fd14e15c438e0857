// SPDX-License-Identifier: PSF-2.0
/* Semaphore and BoundedSemaphore: a count in one atomic word, without an owner.
 *
 *     status = mp_semaphore_try(semaphore);
 *     if (status == MP_WOULD_BLOCK)
 *         ... mp_semaphore_acquire(&wait, deadline) until it is not MP_INTERRUPTED
 *     status = mp_semaphore_release(semaphore);
 *
 * A robust semaphore also names the holder of each token, so that the tokens of killed processes
 * come back; see struct mp_semaphore_shm. */
#ifndef MP_SYNC_SEMAPHORE_H
#define MP_SYNC_SEMAPHORE_H

#include "shm/processes.h" // owners of tokens
#include "sync/spin.h"     // mp_spin_memory

#define MP_SEMAPHORE_MAX 0x7fffffffU
#define MP_SEMAPHORE_TOKENS_MAX 4096U // of a robust one

/* `word`, the futex:
 *
 *   plain:   [waiters:1][value:31]      value 0: acquire sleeps
 *   robust:  [waiters:1][changes:31]    raised after each release; the value is in token[]
 *
 * A robust semaphore has `tokens` entries, each changed by one CAS:
 *
 *   0          there to be taken
 *   owner      held by that process; taken back when it is dead
 *   MP_NO_TOKEN  does not exist (yet): release() beyond the initial value makes one */
struct mp_semaphore_shm {
    uint32_t word;
    uint32_t max;    // the value that release must not exceed; never changes
    uint32_t tokens; // entries of token[]; 0: plain; never changes
    uint32_t reserved;
    uint32_t token[];
};

#define MP_NO_TOKEN MP_DISOWNED // never dead, never a process

static_assert(sizeof(struct mp_semaphore_shm) == 16, "ABI");
static_assert(offsetof(struct mp_semaphore_shm, max) == 4, "ABI");

/* Bytes of payload of a semaphore with so many tokens (0: plain). */
static inline uint64_t mp_semaphore_size(uint32_t tokens)
{
    return sizeof(struct mp_semaphore_shm) + tokens * sizeof(uint32_t);
}

/* In an object just made, which nobody else knows yet. value <= max <= MP_SEMAPHORE_MAX, and for
 * robust ones value <= tokens <= MP_SEMAPHORE_TOKENS_MAX. */
void mp_semaphore_init(struct mp_semaphore_shm *semaphore, uint32_t value, uint32_t max,
                       uint32_t tokens);

/* Do `tokens` and the chunk's size fit together? For semaphores that come out of a pickle. */
bool mp_semaphore_valid(const struct mp_semaphore_shm *semaphore, uint64_t capacity);

/* MP_OK, MP_WOULD_BLOCK. */
mp_status mp_semaphore_try(struct mp_semaphore_shm *semaphore);

/* One wait of one thread. */
typedef struct mp_semaphore_wait {
    struct mp_semaphore_shm *semaphore;
    mp_spin_memory *memory;
    uint32_t round;
    bool begun; // it spins before the first sleep only
    bool slept; // others may sleep too: keep the waiters bit
} mp_semaphore_wait;

/* Spin, then sleep for a slice. Call it without the GIL.
 * MP_OK, MP_TIMEOUT, MP_INTERRUPTED (look at signals, call again). */
mp_status mp_semaphore_acquire(mp_semaphore_wait *wait, mp_time deadline);

/* MP_OK, MP_MISUSE: the value is at its maximum. */
mp_status mp_semaphore_release(struct mp_semaphore_shm *semaphore);

/* How many acquires would succeed now. */
uint32_t mp_semaphore_value(const struct mp_semaphore_shm *semaphore);

#endif
