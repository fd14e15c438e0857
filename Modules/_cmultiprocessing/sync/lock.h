// SPDX-License-Identifier: PSF-2.0
/* Lock and RLock: one atomic word that says who holds it, recovered from owners that were killed.
 *
 *     status = mp_lock_try(lock);
 *     if (status == MP_WOULD_BLOCK) {
 *         mp_lock_wait wait = {.lock = lock, .memory = &handle->spin};
 *         do
 *             status = mp_lock_acquire(&wait, deadline);
 *         while (status == MP_INTERRUPTED);
 *     }
 *     ...                                     // MP_OK or MP_OWNER_DIED: held
 *     status = mp_lock_release(lock);
 *
 * Taking, passing on and freeing are one store each, and the store that takes names the taker: no
 * instant at which a dead process holds it namelessly. */
#ifndef MP_SYNC_LOCK_H
#define MP_SYNC_LOCK_H

#include "shm/processes.h" // owners
#include "sync/spin.h"     // mp_spin_memory
#include "sync/thread.h"   // which thread

/* `word`, low half (the futex):
 *
 *   0                                free; the high half means nothing then
 *   owner                            held, nobody sleeps
 *   owner | MP_WAITERS               held, somebody may sleep on the low half
 *   MP_DISOWNED [| MP_WAITERS]       left locked by an orderly exit: stays so until it is released
 *
 * High half: the thread of the owner that took it (sync/thread.h), part of the same store, so that
 * no thread can take its sibling's recursive lock for its own. */
struct mp_lock_shm {
    uint64_t word;  // by CAS; freed with sleepers by FUTEX_WAKE_OP on the low half
    uint32_t flags; // MP_LOCK_*; never changes
    uint32_t depth; // recursive: how often held; the holder's, 0 while free
    uint32_t died;  // how often it was taken over from a killed owner; atomic, only grows
    uint32_t reserved;
};

static_assert(sizeof(struct mp_lock_shm) == 24, "ABI");
static_assert(offsetof(struct mp_lock_shm, word) == 0, "ABI");
static_assert(offsetof(struct mp_lock_shm, died) == 16, "ABI");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the futex is the low half of the word");

enum {
    MP_LOCK_RECURSIVE = 1, // RLock: only its holder releases it
    MP_LOCK_FRAGILE = 2,   // robust=False: never taken over
};

/* A process's own half. While it is listed, mp_lock_leave() finds the lock. */
typedef struct mp_lock_handle {
    struct mp_lock_shm *lock;
    mp_spin_memory spin;
    struct mp_lock_handle *next;
    struct mp_lock_handle **link; // what points to this one; NULL: not listed
} mp_lock_handle;

/* In an object just made, which nobody else knows yet. */
static inline void mp_lock_init(struct mp_lock_shm *lock, uint32_t flags)
{
    lock->flags = flags;
}

/* What `word` says when this thread holds the lock and nobody sleeps. */
static inline uint64_t mp_lock_mine(void)
{
    return (uint64_t)mp_thread_number() << 32 | mp_self();
}

/* Continue after the fast path met `seen`. */
mp_status mp_lock_try_slow(struct mp_lock_shm *lock, uint64_t seen);

/* MP_OK, MP_OWNER_DIED (held too), MP_WOULD_BLOCK; MP_TOO_LARGE: taken 2^32 - 1 times already. */
static inline mp_status mp_lock_try(struct mp_lock_shm *lock)
{
    uint64_t seen = 0;
    if (mp_unlikely(!mp_cas64(&lock->word, &seen, mp_lock_mine()))) // SYNC: lock
        return mp_lock_try_slow(lock, seen);
    lock->depth = 1;
    return MP_OK;
}

/* One wait of one thread. */
typedef struct mp_lock_wait {
    struct mp_lock_shm *lock;
    mp_spin_memory *memory;
    bool begun; // it spins before the first sleep only
    bool slept; // others may sleep too: take the lock with the waiters bit
} mp_lock_wait;

/* Spin, then sleep for a slice. Call it without the GIL.
 * MP_OK, MP_OWNER_DIED (held too), MP_TIMEOUT, MP_INTERRUPTED (look at signals, call again). */
mp_status mp_lock_acquire(mp_lock_wait *wait, mp_time deadline);

mp_status mp_lock_release_slow(struct mp_lock_shm *lock);

/* MP_OK; MP_MISUSE: not held by anybody (Lock); MP_NOT_OWNER: not held by this thread (RLock). */
static inline mp_status mp_lock_release(struct mp_lock_shm *lock)
{
    uint64_t mine = mp_lock_mine();
    if (mp_likely(mp_load_relaxed64(&lock->word) == mine && lock->depth == 1)) {
        lock->depth = 0;
        if (mp_likely(mp_cas64(&lock->word, &mine, 0))) // SYNC: lock
            return MP_OK;
        lock->depth = 1; // somebody came to sleep; the lock is still ours
    }
    return mp_lock_release_slow(lock);
}

/* Does this thread hold it? */
static inline bool mp_lock_is_mine(const struct mp_lock_shm *lock)
{
    return (mp_load_relaxed64(&lock->word) & ~(uint64_t)MP_WAITERS) == mp_lock_mine();
}

/* Who holds it; MP_NOBODY: it is free. */
static inline mp_owner mp_lock_owner(const struct mp_lock_shm *lock)
{
    return (mp_owner)mp_load_acquire64(&lock->word) & MP_OWNER_MASK;
}

/* How often this thread holds it. */
static inline uint32_t mp_lock_depth(const struct mp_lock_shm *lock)
{
    return mp_lock_is_mine(lock) ? lock->depth : 0;
}

static inline uint32_t mp_lock_deaths(const struct mp_lock_shm *lock)
{
    return mp_load_acquire32(&lock->died);
}

/* Let go of a held recursive lock at once, and take it back as deep as it was: for conditions.
 * mp_lock_restore_depth is called by the holder. */
uint32_t mp_lock_release_all(struct mp_lock_shm *lock);

static inline void mp_lock_restore_depth(struct mp_lock_shm *lock, uint32_t depth)
{
    lock->depth = depth;
}

/* If this process holds it: leave it locked, but as nobody's, so that this process's end does not
 * count as a death of its owner. Plain locks only. */
void mp_lock_disown(struct mp_lock_shm *lock);

/* List a handle; take it off the list (disown its lock then, nobody else will). */
void mp_lock_list(mp_lock_handle *handle);
void mp_lock_unlist(mp_lock_handle *handle);

/* Orderly end of this process, before mp_family_leave(): disown every listed lock. */
void mp_lock_leave(void);

#endif
