// SPDX-License-Identifier: PSF-2.0
/* The one allocator: objects, ring chunks, messages, ctypes memory.
 *
 * A chunk is a 16-byte header and its payload; offsets name the header. The header's state word
 * [owner][generation][type] is the only truth: taking, passing on and releasing a chunk is one store
 * to it, so a process that dies leaves a chunk free, owned by a dead process (swept by reclaim.h), or
 * linked to what it belongs to. Lists of free chunks are private memory, rebuilt from the headers.
 *
 *     uint64_t offset;
 *     status = mp_chunk_take(MP_TYPE_MESSAGE, size, &offset);
 *     char *payload = mp_chunk_payload(offset);
 *     ...
 *     mp_chunk_release(offset);
 *
 * Thread-safe within a process (a private lock, never held across a sleep). May run the collector
 * and ask the system for its limits: never call it under an internal mutex. */
#ifndef MP_SHM_CHUNKS_H
#define MP_SHM_CHUNKS_H

#include "shm/family.h" // addresses
#include "shm/heap.h"   // struct mp_refusal

#define MP_STATE(owner, generation, type)                                                          \
 ((uint64_t)(owner) << 32 | ((uint64_t)(generation)&0xffffffU) << 8 | (uint64_t)(type))

static inline mp_owner mp_state_owner(uint64_t state)
{
    return (mp_owner)(state >> 32);
}

static inline uint32_t mp_state_generation(uint64_t state)
{
    return (uint32_t)(state >> 8) & 0xffffffU;
}

static inline uint32_t mp_state_type(uint64_t state)
{
    return (uint32_t)state & 0xffU;
}

static inline struct mp_chunk_shm *mp_chunk_at(uint64_t offset)
{
    return mp_at(offset);
}

static inline void *mp_chunk_payload(uint64_t offset)
{
    return mp_family.base + offset + MP_CHUNK_HEADER;
}

/* A chunk with room for `size` bytes of payload, owned by this process. Payloads up to
 * MP_SMALL_LIMIT are zeroed, larger ones hold anything. Larger ones are runs of whole units and
 * begin at the start of a unit.
 * MP_NO_MEMORY (see mp_chunk_refusal), MP_NO_SPACE, MP_TOO_LARGE. MP_INTERRUPTED: a process was stopped
 * in the middle of the heap; look at signals and call again. */
mp_status mp_chunk_take(uint32_t type, uint64_t size, uint64_t *offset);

/* The same, but only a run whose pages are still with us from its last use. False: there is none now. */
bool mp_chunk_take_warm(uint32_t type, uint64_t size, uint64_t *offset);

#define MP_SMALL_LIMIT (2048U - 16U)

/* Release a chunk of this process, or one whose state this process alone may change. */
void mp_chunk_release(uint64_t offset);

/* Release a chunk only if its state still is `expected`: false when somebody was faster. */
bool mp_chunk_release_if(uint64_t offset, uint64_t expected);

/* Pass a chunk on: keep type and generation, change the owner. One store. */
void mp_chunk_set_owner(uint64_t offset, mp_owner owner);

/* Bytes of payload that the chunk at a validated offset has room for. */
uint64_t mp_chunk_capacity(uint64_t offset);

/* Is there a chunk of this type at an offset that came from outside? Bounds, alignment, header. */
bool mp_chunk_valid(uint64_t offset, uint32_t type);

/* What the last MP_NO_MEMORY of this thread was about. */
struct mp_refusal mp_chunk_refusal(void);

/* Around a fork: hold the private lock, so that a child finds the lists whole; in the child forget
 * them, for the slabs are the parent's. */
void mp_chunks_before_fork(void);
void mp_chunks_after_fork(bool child);

/* Return what this process keeps for itself: empty slabs, lists. Part of a collection. */
void mp_chunks_trim(void);

/* Does this thread give the pages of what it releases back to the kernel at once? */
void mp_warm_refuse(bool refuse);

/* Used by reclaim.c. Clear the places in the list of warm runs that name none: whoever took such a
 * run died before he cleared its place. */
void mp_warm_forget_stale(void);

/* Used by reclaim.c. Does a place name this warm run, whose header was `state`? Otherwise nobody can
 * find it - whoever released it died, or lost the place to a rival - and it is claimed, to be released
 * into the heap. */
bool mp_warm_is_listed(uint64_t offset, uint64_t state);
bool mp_warm_claim(uint64_t offset, uint64_t state);

/* Used by reclaim.c. Make a chunk ours if its state still is `expected`, to release it later. */
bool mp_chunk_claim_if(uint64_t offset, uint64_t expected);

/* Is the chunk a run of its own? Releasing such a one gives its pages back: not under a mutex. */
bool mp_chunk_is_run(uint64_t offset);

/* Used by reclaim.c. Release a slab whose chunks are all free, given by its first unit; the caller
 * owns the slab. */
bool mp_slab_is_empty(uint64_t unit);

/* How many chunks of which size a slab of this class has. */
uint32_t mp_slab_chunk_size(uint32_t class);
#define MP_SLAB_UNITS UINT64_C(4)

/* Orderly end: our slabs may be adopted by others. */
void mp_chunks_leave(void);

#endif
