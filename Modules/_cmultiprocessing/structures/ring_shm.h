// SPDX-License-Identifier: PSF-2.0
/* What queues look like in shared memory: part of the ABI, beside shm/layout.h.
 *
 *   MP_TYPE_RING         struct mp_ring_shm [+ struct mp_ledger_entry_shm[]]   the control block
 *   MP_TYPE_RING_CHUNK   struct mp_ring_chunk_shm, records                     a chain of them
 *   MP_TYPE_MESSAGE      struct mp_message_shm, pins, sizes, data              one large record
 *
 * A record is a granule-aligned 8-byte header and its payload. Records lie in order in the chain;
 * [head.position, tail.position) is the queue. */
#ifndef MP_STRUCTURES_RING_SHM_H
#define MP_STRUCTURES_RING_SHM_H

#include "shm/objects.h" // tickets, which messages keep

/* ---- head and tail ----
 *
 * One word says how many items were ever put (tail) or taken (head), modulo 2^27, and where the next
 * record is. One store to it commits a put or a take.
 *
 *   bits  63..37   count
 *   bit   36       waiters: somebody may sleep on the upper half (consumers on tail, producers on head)
 *   bits  35..0    position: offset of the next record in granules; 0 before the first chunk
 * The upper half changes with every commit and is the futex word. */
#define MP_GRANULE_SHIFT 4
#define MP_GRANULE (UINT64_C(1) << MP_GRANULE_SHIFT)
#define MP_COUNT_SHIFT 37
#define MP_COUNT_MASK ((UINT32_C(1) << 27) - 1)
#define MP_RING_WAITERS (UINT64_C(1) << 36)
#define MP_POSITION_MASK (MP_RING_WAITERS - 1)
/* As many items fit into any queue: the difference of two counts must stay unambiguous. */
#define MP_RING_ITEMS_MAX (MP_COUNT_MASK - 1)

static inline uint32_t mp_word_count(uint64_t word)
{
    return (uint32_t)(word >> MP_COUNT_SHIFT);
}

static inline uint64_t mp_word_position(uint64_t word)
{
    return (word & MP_POSITION_MASK) << MP_GRANULE_SHIFT;
}

static inline uint64_t mp_word_make(uint32_t count, uint64_t position, uint64_t waiters)
{
    return (uint64_t)(count & MP_COUNT_MASK) << MP_COUNT_SHIFT | waiters |
           position >> MP_GRANULE_SHIFT;
}

/* How many commits lie between two counts. */
static inline uint32_t mp_count_between(uint32_t from, uint32_t to)
{
    return (to - from) & MP_COUNT_MASK;
}

/* ---- records ---- */

enum mp_record_kind {
    MP_RECORD_INLINE = 1, // payload: the item
    MP_RECORD_LINK = 2,   // payload: u64 offset of a MP_TYPE_MESSAGE chunk
    MP_RECORD_JUMP = 3,   // no payload: the next record is the first one of the next chunk
};

/* [length:32][kind:8][tag:8][0:16]; length in bytes, of the payload; the tag is the codec's. */
static inline uint64_t mp_record_header(uint32_t length, uint32_t kind, uint32_t tag)
{
    return (uint64_t)length << 32 | (uint64_t)kind << 24 | (uint64_t)tag << 16;
}

static inline uint32_t mp_record_length(uint64_t header)
{
    return (uint32_t)(header >> 32);
}

static inline uint32_t mp_record_kind(uint64_t header)
{
    return (uint32_t)(header >> 24) & 0xffU;
}

static inline uint32_t mp_record_tag(uint64_t header)
{
    return (uint32_t)(header >> 16) & 0xffU;
}

#define MP_RECORD_HEADER UINT64_C(8)

/* Bytes that a record of `length` takes up in a chunk. */
static inline uint64_t mp_record_room(uint64_t length)
{
    return (MP_RECORD_HEADER + length + MP_GRANULE - 1) & ~(MP_GRANULE - 1);
}

/* Longer payloads travel as messages: copying one takes less than the microsecond that a mutex may
 * be held. */
#define MP_INLINE_MAX UINT64_C(2048)

/* ---- chunks ---- */

/* Small while consumers keep up, larger the longer the backlog is. Whole units: the payload of a chunk
 * of so many. */
#define MP_RING_CHUNK_UNITS(units) ((units)*MP_UNIT - MP_CHUNK_HEADER)
#define MP_RING_CHUNK_SMALL MP_RING_CHUNK_UNITS(1)

enum mp_ring_chunk_role {
    MP_ROLE_RECORDS = 1,
    MP_ROLE_LEDGER = 2,
};

/* Written by its owner before it is linked; `index` and `next` under put_mutex, before the tail is
 * committed. The chunk header's life is the offset of the ring. */
struct mp_ring_chunk_shm {
    uint32_t ring_generation; // of the ring: an older ring may have had the same offset
    uint32_t role;
    uint64_t next;  // offset of the next chunk; valid once a JUMP was committed in this one
    uint64_t index; // 1, 2, 3 ... in the order of the chain; 0 = never linked
    uint64_t size;  // bytes from the chunk's header to its end
};

/* Offset of the first record of a chunk, and what must stay free at its end for the JUMP. */
#define MP_RECORDS_AT (MP_CHUNK_HEADER + (uint64_t)sizeof(struct mp_ring_chunk_shm))
#define MP_RECORDS_TAIL MP_GRANULE

/* ---- messages ---- */

/* Built by its owner before the record that links it. The header's life is the offset of the ring.
 * Behind it: `pins` tickets, `parts` sizes (u64), then the parts, each aligned to MP_PART_ALIGN. */
struct mp_message_shm {
    uint32_t ring_generation;
    uint32_t sequence; // count at which it is committed; under put_mutex, before the commit
    uint32_t tag;      // the codec's
    uint32_t pins;
    uint32_t parts;
    uint32_t reserved;
    uint64_t size; // bytes of the whole payload
};

#define MP_SEQUENCE_NONE UINT32_MAX
#define MP_PART_ALIGN UINT64_C(64)

/* ---- the control block ---- */

enum mp_ring_flag {
    MP_RING_JOINABLE = 1, // a ledger follows the block
};

enum mp_ring_closed {
    MP_RING_OPEN = 0,
    MP_RING_DRAINING = 1, // no more puts; what is in may be taken
    MP_RING_CLOSED = 2,   // nothing more
};

/* The chunk header takes the first 16 bytes of the first cache line. */
struct mp_ring_shm {
    /* Cold: written rarely, read by everybody. */
    uint32_t limit;      // maxsize, or MP_RING_ITEMS_MAX; never changes
    uint32_t flags;      // never changes
    uint32_t generation; // of the ring's chunk; never changes
    uint32_t closed;     // enum mp_ring_closed; only grows; under put_mutex
    uint64_t first;      // the first chunk ever; under put_mutex, before the first commit
    uint32_t watcher; // owner id of the last process that made a descriptor of it; CAS by that one
    uint32_t reserved0;
    uint64_t reserved7[2]; // up to the end of the line

    /* The producers' line: under put_mutex, but for the waiters bit of tail. */
    struct mp_mutex_shm put_mutex;
    uint32_t reserved1;
    uint64_t tail;
    uint64_t tail_chunk; // holds tail.position; follows the commit, so a death leaves it behind
    uint64_t tail_end;   // records end here; goes with tail_chunk
    uint64_t seen_head;  // a head of the past: head is there or further
    uint64_t reserved2[3];

    /* The consumers' line: under take_mutex, but for the waiters bit of head. */
    struct mp_mutex_shm take_mutex;
    uint32_t reserved3;
    uint64_t head;
    uint64_t head_chunk; // holds head.position; follows the commit
    uint64_t head_end;
    uint64_t seen_tail; // a tail of the past, not behind head
    uint64_t reserved4[3];

    /* An empty small chunk: consumers under take_mutex store it where 0 was, producers under
     * put_mutex store 0. Its owner may be dead. */
    uint64_t spare;
    uint32_t joiners;        // futex: [epoch:31][somebody waits in join():1]
    uint32_t early;          // task_done() calls for items that are still in the queue
    uint64_t ledger;         // the first chunk of more ledger entries, or 0; only grows
    uint32_t ledger_entries; // in this block; never changes
    uint32_t shown; // 1 while the watcher's descriptor is readable; by the watcher alone, a hint
    uint64_t reserved6[4];
};

/* How many items a process has taken and not yet reported by task_done(): [owner:32][count:32].
 * Claimed (where the count is 0 or the owner dead) and changed by CAS. */
struct mp_ledger_entry_shm {
    uint64_t word;
};

static_assert(sizeof(struct mp_ring_chunk_shm) == 32, "ABI");
static_assert(MP_RECORDS_AT % MP_GRANULE == 0, "records lie on granules");
static_assert(sizeof(struct mp_message_shm) == 32, "ABI");
static_assert(sizeof(mp_object_ticket) == 32, "ABI");
static_assert(MP_CHUNK_HEADER + offsetof(struct mp_ring_shm, put_mutex) == 64, "ABI");
static_assert(MP_CHUNK_HEADER + offsetof(struct mp_ring_shm, take_mutex) == 128, "ABI");
static_assert(MP_CHUNK_HEADER + offsetof(struct mp_ring_shm, spare) == 192, "ABI");
static_assert(MP_CHUNK_HEADER + sizeof(struct mp_ring_shm) == 256, "ABI");
static_assert(MP_INLINE_MAX + MP_RECORD_HEADER + MP_GRANULE < MP_RING_CHUNK_SMALL - MP_RECORDS_AT,
              "a record fits the smallest chunk");

static inline uint32_t *mp_word_futex(uint64_t *word)
{
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the upper half is the second one");
    return (uint32_t *)(void *)word + 1;
}

#endif
