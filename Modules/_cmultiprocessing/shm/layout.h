// SPDX-License-Identifier: PSF-2.0
/* The ABI of every byte that processes share. See InternalDocs/shared_memory_format.md.
 *
 *   offset      what
 *   0           struct mp_family_shm        who we are, the allocator's and the collector's state
 *   16 KiB      struct mp_process_shm[]     one entry per process slot; slot 0 is never used
 *   + 2 MiB     struct mp_sleeper_shm[]     one entry per thread that waits on a condition or barrier
 *   + 2 MiB     struct mp_unit_shm[]        one descriptor per unit (4 KiB) of the heap
 *   heap        units                       everything else: slabs of small chunks, runs
 *
 * Rules: fixed-width integers and offsets only; every field says who writes it; whatever is read
 * from here is compared with bounds before it is used; a change here changes MP_FORMAT. */
#ifndef MP_SHM_LAYOUT_H
#define MP_SHM_LAYOUT_H

#include "core/base.h" // fixed-width integers, static_assert

#define MP_MAGIC UINT64_C(0x31676e6973736563) // "cessing1"
#define MP_LAYOUT_VERSION 2

#define MP_UNIT UINT64_C(4096)
#define MP_PROCESS_SLOTS 32768U
#define MP_SLEEPER_SLOTS 32768U

/* ---- owners ----
 *
 * 31 bits that name one life of one process slot: [incarnation:16][slot:15]. Bit 31 is free for the
 * waiters flag of lock words. An owner is alive iff the slot still has that incarnation and the
 * kernel holds its lock (os.h, liveness). */
typedef uint32_t mp_owner;

#define MP_SLOT_BITS 15
#define MP_SLOT_MASK 0x7fffU
#define MP_OWNER_MASK 0x7fffffffU
#define MP_WAITERS 0x80000000U
#define MP_NOBODY ((mp_owner)0)
/* Slot 0 is never a process: a lock left locked by an orderly exit, a chunk without an owner. */
#define MP_DISOWNED ((mp_owner)(1U << MP_SLOT_BITS))

/* ---- internal mutex (shm/mutex.h) ----
 *
 *   word                       meaning
 *   0                          free
 *   owner                      locked, nobody sleeps
 *   owner | MP_WAITERS         locked, somebody may sleep on the word
 * Claim and ownership are one store. */
struct mp_mutex_shm {
    uint32_t word;
};

/* ---- processes ---- */

#define MP_CHAIN 4
#define MP_LINKS_PENDING 0xffffU  // being filled in: may know anything
#define MP_LINKS_OVERFLOW 0xfffeU // all count, and everything older than the last one

/* Written by the process that holds the kernel's lock on byte `slot`, or, before the child runs, by
 * its parent, who took that lock for it. Read by everybody. */
struct mp_process_shm {
    /* 16 bits used; raised by the claimer, after the kernel's lock was taken. At 0xffff the slot rests:
     * it is claimed again, as 1, only when no other slot is left. */
    uint32_t incarnation;
    uint32_t in_use;          // 1 from claim to orderly end; a hint for who looks for a free slot
    uint32_t pid;             // for messages only
    uint32_t parent;          // owner id of the parent
    uint32_t birth;           // family serial at which it was started
    uint32_t links;           // how many of chain[] count, or one of MP_LINKS_*
    uint32_t chain[MP_CHAIN]; // births of this process and of the ancestors it was forked from
    uint32_t file;            // its descriptor of the memfd, for relatives that closed theirs
    uint32_t reserved[5];
};

/* ---- sleepers (sync/parking.h) ----
 *
 * One entry per thread that waits where wake-ups are counted (Condition, Barrier).
 *   word: [state:2][epoch:30]; the epoch changes with each use so that a late wake cannot hit.
 * FREE -> (owner claims by CAS on `owner`) -> WAITING -> NOTIFIED -> FREE. */
struct mp_sleeper_shm {
    uint32_t word;   // futex; written by its owner and, under the object's mutex, by notifiers
    uint32_t owner;  // mp_owner; 0 = free. Claimed by CAS; cleared last
    uint64_t object; // offset of what it waits for; written before WAITING
    uint64_t ticket; // condition: order of arrival; barrier: generation it arrived at
    uint64_t bound;  // condition: the wake-up is for tickets below; under the object's mutex
    uint64_t passed; // condition: entry whose wake-up this one got; under the object's mutex
    uint32_t asleep; // 1 from before its first futex_wait; its owner's
    // Barrier: index + 1 that its wait() returns; under the object's mutex. Not in a field above: a
    // condition's notifier that was slow may still store there after the entry changed hands.
    uint32_t index;
    uint32_t reserved[4];
};

/* ---- heap ---- */

/* One per unit. Only the descriptor of a run's first unit counts; the rest hold stale words.
 * word: [owner:32][kind:8][size class:8][unused:16]; `length` in units is written before `word`. */
struct mp_unit_shm {
    uint64_t word;   // the committing store of allocation and release of a run
    uint32_t length; // of the run that begins here; written under heap_mutex
    uint32_t remote; // slabs: chunks released by others since the owner last looked (fetch_add)
};

enum mp_unit_kind {
    MP_UNIT_FREE = 0,
    MP_UNIT_SLAB = 1,   // chunks of one size class; `owner` allocates from it
    MP_UNIT_RUN = 2,    // one chunk of `length` units; `owner` is who took or releases it
    MP_UNIT_INSIDE = 3, // of a slab: `length` units after the slab's first
};

/* In front of every chunk. 16 bytes.
 * state: [owner:32][generation:24][type:8]. One store takes, passes on or releases a chunk.
 * life: objects: [retired serial:32][flags:2][birth serial:30] (objects.c); ring chunks and messages:
 * offset of their queue.
 * An object whose owner is MP_DISOWNED is retired: its maker let go of it. */
struct mp_chunk_shm {
    uint64_t state;
    uint64_t life;
};

#define MP_CHUNK_HEADER ((uint64_t)sizeof(struct mp_chunk_shm))

enum mp_type {
    MP_TYPE_FREE = 0,
    MP_TYPE_REFERENCE, // struct mp_reference_shm: its owner holds an object that it did not make
    MP_TYPE_PIN,       // struct mp_reference_shm: a pickle on its way
    MP_TYPE_MESSAGE,   // payload of a large record (ring.h)
    MP_TYPE_RING_CHUNK,
    MP_TYPE_PARCEL, // a large message between the ends of a pipe (parcels.h)
    MP_TYPE_WARM,   // a released run whose pages are kept; its state is taken by CAS
    MP_TYPE_FIRST_OBJECT = 16,
    MP_TYPE_LOCK = MP_TYPE_FIRST_OBJECT,
    MP_TYPE_SEMAPHORE,
    MP_TYPE_CONDITION,
    MP_TYPE_EVENT,
    MP_TYPE_BARRIER,
    MP_TYPE_RING,
    MP_TYPE_BLOCK, // raw shared memory (ctypes)
    MP_TYPE_PIPE,  // what both ends of a Pipe() share
    MP_TYPE_LIMIT,
};

struct mp_reference_shm {
    uint64_t object;     // offset of the object's chunk
    uint32_t generation; // of the object
    uint32_t target;     // pins: owner id of the process it is meant for; 0 = anybody
};

/* ---- the family ---- */

#define MP_WARM_BINS 24
#define MP_WARM_DEPTH 64

struct mp_family_shm {
    uint64_t magic;  // stored last, with release (SYNC: family ready)
    uint64_t format; // MP_FORMAT
    uint64_t id[2];  // random; part of every pickle
    uint64_t size;   // of the file; never changes
    uint64_t units;  // number of unit descriptors; never changes
    uint64_t heap;   // offset of unit 0; never changes
    uint64_t
        memory_limit; // bytes the family may use (CMULTIPROCESSING_MEMORY_LIMIT); never changes

    /* Raised by fetch_add for each process started. Read where an object is made and retired. */
    uint32_t serial;
    uint32_t slot_limit;    // one more than the highest slot ever claimed; only grows
    uint32_t sleeper_limit; // one more than the highest sleeper entry ever claimed; only grows
    uint32_t slot_hint;     // where to look first
    uint64_t reserved1[6];

    struct mp_mutex_shm heap_mutex; // guards frontier, rover and every unit word's FREE -> used
    uint32_t reserved2;
    uint64_t frontier;   // units below it were used once; under heap_mutex
    uint64_t rover;      // where the next search begins; under heap_mutex, a hint
    uint64_t free_units; // below the frontier; atomic, a hint
    uint64_t used_units; // atomic, a hint; for statistics
    uint64_t granted; // bytes that may still be touched before the limits are asked again; a hint
    uint64_t reserved3[2];

    struct mp_mutex_shm reclaim_mutex; // one collector at a time
    uint32_t orphan_slabs;             // slabs without an owner, a hint
    uint64_t retired;                  // objects retired since the last collection; atomic, a hint
    uint64_t retired_units;            // their large memory, in units; atomic, a hint
    uint64_t collections;              // statistics
    uint64_t warm_bytes;               // kept in warm runs; atomic, a hint
    uint64_t reserved4[3];

    /* Hints to chunks of type MP_TYPE_WARM by size: [offset / 4 KiB:40][generation:24]; may be stale. */
    uint64_t warm[MP_WARM_BINS][MP_WARM_DEPTH];
};

#define MP_PROCESSES_AT (4 * MP_UNIT)
#define MP_SLEEPERS_AT                                                                             \
 (MP_PROCESSES_AT + MP_PROCESS_SLOTS * (uint64_t)sizeof(struct mp_process_shm))
#define MP_UNITS_AT (MP_SLEEPERS_AT + MP_SLEEPER_SLOTS * (uint64_t)sizeof(struct mp_sleeper_shm))

static_assert(sizeof(struct mp_mutex_shm) == 4, "ABI");
static_assert(sizeof(struct mp_process_shm) == 64, "ABI");
static_assert(sizeof(struct mp_sleeper_shm) == 64, "ABI");
static_assert(sizeof(struct mp_unit_shm) == 16, "ABI");
static_assert(sizeof(struct mp_chunk_shm) == 16, "ABI");
static_assert(sizeof(struct mp_reference_shm) == 16, "ABI");
static_assert(offsetof(struct mp_family_shm, serial) == 64, "ABI");
static_assert(offsetof(struct mp_family_shm, heap_mutex) == 128, "ABI");
static_assert(offsetof(struct mp_family_shm, reclaim_mutex) == 192, "ABI");
static_assert(offsetof(struct mp_family_shm, warm) == 256, "ABI");
static_assert(sizeof(struct mp_family_shm) <= MP_PROCESSES_AT, "ABI");

/* Two builds that disagree about the layout refuse each other. */
#define MP_FORMAT                                                                                  \
 ((uint64_t)MP_LAYOUT_VERSION | (uint64_t)sizeof(struct mp_family_shm) << 16 |                     \
  (uint64_t)MP_TYPE_LIMIT << 32 | MP_UNIT << 40)

#endif
