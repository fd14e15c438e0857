// SPDX-License-Identifier: PSF-2.0
/* Messages: items too large for a record, or with shared objects in them, in a chunk of their own.
 *
 *     mp_message_plan plan = {.tag = tag, .parts = 2, .sizes = sizes, .tickets = t, .pins = n};
 *     status = mp_message_make(ring, &plan, &offset);        // not under a mutex
 *     mp_message_write(offset, i, at, data, size);           // fill the parts
 *     ... put it; after a failure mp_message_drop(offset)
 *
 * The receiver, who owns it once it was taken:
 *     status = mp_message_open(ring, offset, &view);
 *     mp_message_read(&view, i, destination);                // copies, each part once
 *     mp_message_drop(offset);
 *
 * Whose it is at any instant: its owner's (alive), the queue's (its sequence lies between head and
 * tail), or the collector's. A maker that dies before the commit leaves a sequence outside. */
#ifndef MP_STRUCTURES_MESSAGE_H
#define MP_STRUCTURES_MESSAGE_H

#include "structures/ring.h" // handles

typedef struct mp_message_plan {
    uint32_t tag;
    uint32_t parts;
    const uint64_t *sizes; // of the parts
    const mp_object_ticket *tickets;
    uint32_t pins; // how many tickets; the message holds them from now on
} mp_message_plan;

/* Parts per message; what has more buffers sends the rest within the pickle. */
#define MP_PARTS_MAX 1024U
#define MP_PINS_MAX 65536U

typedef struct mp_message_view {
    uint64_t offset;
    uint32_t tag;
    uint32_t parts;
} mp_message_view;

/* MP_NO_MEMORY, MP_NO_SPACE, MP_TOO_LARGE, MP_INTERRUPTED as mp_chunk_take. */
mp_status mp_message_make(mp_ring_handle *ring, const mp_message_plan *plan, uint64_t *offset);

/* The same in a chunk of another type that belongs to another object (parcels.c). */
mp_status mp_message_make_for(uint32_t type, uint64_t home, uint32_t generation,
                              const mp_message_plan *plan, uint64_t *offset);

/* Address of a part of a message of ours, and its size. */
void *mp_message_part(uint64_t offset, uint32_t part, uint64_t *size);

/* Release a message of ours and what it pins. */
void mp_message_drop(uint64_t offset);

/* A message that was taken. MP_DAMAGED if it does not hold what it says. */
mp_status mp_message_open(uint64_t offset, mp_message_view *view);

/* Copy a part out. Where it is large its pages are given back as it goes: read each part once. */
void mp_message_read(const mp_message_view *view, uint32_t part, void *destination);

/* Give the whole pages from `from` to `to`, within a part of a message of ours, back to the kernel. */
void mp_message_punch(char *from, char *to);

/* ---- for ring.c ---- */

/* The count at which the message will be committed. Under put_mutex, before the commit. */
void mp_message_set_sequence(uint64_t offset, uint32_t count);

/* Is there a message for this ring at an offset read from shared memory? */
bool mp_message_belongs(uint64_t ring, uint64_t offset);

/* What the collector asks. */
bool mp_message_linked(uint64_t offset, uint64_t state);
void mp_message_finalize(uint64_t offset);

#endif
