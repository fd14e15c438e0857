// SPDX-License-Identifier: PSF-2.0
/* The one memory of a process tree, and this process's place in it.
 *
 * A family is a process tree that shares one sparse memfd, made by its first process before the
 * first object or child. Forked children inherit the mapping; spawned ones get the descriptor.
 *
 *     if ((status = mp_family_enter()) != MP_OK)   // once at the top of every operation in py/
 *         return status;
 *     struct thing_shm *thing = mp_at(offset);
 *
 * mp_family is the registry of this process: the only mutable global of the library. It is written
 * while the process is set up (under a lock), and by the forked child's at-fork handler. */
#ifndef MP_SHM_FAMILY_H
#define MP_SHM_FAMILY_H

#include "core/atomic.h" // self
#include "shm/layout.h"  // what is in the memory

typedef struct mp_family_handle {
    char *base;      // address of offset 0; NULL before the family exists
    uint64_t mapped; // how many bytes of it this process can reach
    /* The open file description that holds this process's kernel lock; also used for queries. */
    int file;
    void *anchor;   // keeps that description alive if the program closes all descriptors
    mp_owner *self; // in a page that a fork wipes: 0 = not registered
    uint64_t device, inode;
    /* Hint: the watched ring that this process put into last, see structures/notifier.h. */
    uint64_t told;
    uint32_t told_generation;
} mp_family_handle;

extern mp_family_handle mp_family;

/* Make the family if this process is in none. Idempotent, thread-safe.
 * MP_SYSTEM (errno), MP_NO_SPACE (no address space), MP_NO_SLOT. */
mp_status mp_family_start(void);

/* Slow half of mp_family_enter: start, or register a forked child that has no slot yet. */
mp_status mp_family_enter_slow(void);

/* Every operation begins with this: the family exists and this process has a slot in it. */
static inline mp_status mp_family_enter(void)
{
    if (mp_likely(mp_family.base != NULL && *mp_family.self != MP_NOBODY))
        return MP_OK;
    return mp_family_enter_slow();
}

/* The descriptor is not the family's memory any more: the program has closed it, as daemons do with
 * all they find. Borrow a relative's. False if there is none; then nobody can be declared dead. */
bool mp_family_find_file(void);

/* Does mp_family.file still lead to the family's memory? */
bool mp_family_has_file(void);

/* This process's owner id. After mp_family_enter only. */
static inline mp_owner mp_self(void)
{
    mp_assert(*mp_family.self != MP_NOBODY);
    return *mp_family.self;
}

/* A place for a child that does not inherit the mapping (spawn, fork server). */
struct mp_ticket {
    uint64_t family[2];
    uint64_t format;
    mp_owner owner; // of the child to be
    uint32_t reserved;
};

/* Claim a slot for a child yet to be started. `*file` is its open file description: hand it to the
 * child (it is close-on-exec), then close it here. When the last copy is closed the slot is free. */
mp_status mp_family_reserve(int *file, struct mp_ticket *ticket);

/* In the child: map the family behind `file` and take the reserved place. Owns `file` afterwards.
 * A forked child of a fork server leaves the server's family place for the reserved one.
 * MP_FOREIGN: not a family of this format. MP_MISUSE: this process already made objects elsewhere. */
mp_status mp_family_join(int file, const struct mp_ticket *ticket);

/* Orderly end: the slot may be used again at once, and plain locks stay as they are
 * (sync/lock.h disowns them first). The process counts as gone afterwards. */
void mp_family_leave(void);

static inline struct mp_family_shm *mp_family_shm(void)
{
    return (struct mp_family_shm *)(void *)mp_family.base;
}

/* Address of a trusted offset (one that this process made or validated). */
static inline void *mp_at(uint64_t offset)
{
    mp_assert(offset < mp_family.mapped);
    return mp_family.base + offset;
}

static inline uint64_t mp_offset_of(const void *address)
{
    return (uint64_t)((const char *)address - mp_family.base);
}

/* Does [offset, offset + size) lie in the heap and within what this process has mapped? For every
 * offset that comes out of shared memory or a pickle. */
static inline bool mp_reachable(uint64_t offset, uint64_t size)
{
    return offset >= mp_family_shm()->heap && size <= mp_family.mapped &&
           offset <= mp_family.mapped - size;
}

#endif
