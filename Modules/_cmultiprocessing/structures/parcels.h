// SPDX-License-Identifier: PSF-2.0
/* Large messages between the two ends of a Pipe(): a parcel lies in shared memory, and a note about it
 * travels through the descriptor, in its order.
 *
 *     sender                                           receiver
 *     mp_parcel_make(pipe, &plan, &offset)             ... a note comes: its place
 *     ... fill its parts (message.h)                   status = mp_parcel_take(pipe, way, &place, &offset)
 *     mp_parcel_post(pipe, way, offset, &place)        ... read its parts
 *     ... write the note                               mp_message_drop(offset)
 *     mp_parcel_sent(pipe, way, &place)
 *
 * Who holds a parcel at any instant:
 *     before post        its sender: it is in no slot, and is swept when he dies
 *     posted, not sent   its sender: if he is killed before sent, the parcel is swept, and a note that got
 *                        out all the same is about nothing: the receiver passes over it (send() has not
 *                        returned)
 *     sent               the slot, whoever lives: it is collected with the pipe, when no process can
 *                        receive it any more
 *     taken              its receiver: the store that makes him the owner is the delivery
 * Slots are few. Where none is free the message travels through the descriptor, as any other. */
#ifndef MP_STRUCTURES_PARCELS_H
#define MP_STRUCTURES_PARCELS_H

#include "structures/message.h" // parcels are messages

enum { MP_PARCEL_SLOTS = 6 };

/* Object of MP_TYPE_PIPE. `generation` and the size never change. */
struct mp_pipe_shm {
    uint32_t generation; // of this object: parcels name it
    uint32_t foreign;    // 1: an end may have left the family; no parcels from then on
    /* Parcels towards end 0, and end 1: [offset / 16:39][sent:1][generation of the chunk:24]; 0: free.
     * Claimed by senders, who set `sent` when the note is out; cleared by receivers; all by CAS. A word
     * that names no parcel on its way is free, too. */
    uint64_t slots[2][MP_PARCEL_SLOTS];
};

static_assert(sizeof(struct mp_pipe_shm) == 8 + 16 * MP_PARCEL_SLOTS, "ABI");

/* Bytes on their way in one direction, unless it is only one parcel. */
#define MP_PARCEL_BYTES (UINT64_C(64) << 20)

/* The process's own half. */
typedef struct mp_pipe_handle {
    mp_handle object;
    struct mp_pipe_shm *shm;
} mp_pipe_handle;

typedef struct mp_parcel_place {
    uint32_t slot;
    uint64_t word;
} mp_parcel_place;

/* Register what the collector must know. Once per process, before the first object. */
void mp_parcels_init(void);

/* After mp_family_enter(). */
mp_status mp_pipe_create(mp_pipe_handle *pipe);
mp_status mp_pipe_attach(mp_pipe_handle *pipe, const mp_object_ticket *ticket);
void mp_pipe_release(mp_pipe_handle *pipe);

/* The pipe of a note that came through a descriptor of which nothing else is known. MP_DAMAGED: none.
 * Not held: used for one mp_parcel_take. */
mp_status mp_pipe_find(mp_pipe_handle *pipe, uint64_t offset, uint32_t generation);

/* As mp_message_make. */
mp_status mp_parcel_make(const mp_pipe_handle *pipe, const mp_message_plan *plan, uint64_t *offset);

/* Is a slot free for a parcel of this size? For waiting; post decides. */
bool mp_parcel_room(const mp_pipe_handle *pipe, uint32_t way, uint64_t size);

/* MP_WOULD_BLOCK: no slot is free, or too much is on its way. */
mp_status mp_parcel_post(const mp_pipe_handle *pipe, uint32_t way, uint64_t offset,
                         mp_parcel_place *place);

/* The note is out: from now on the parcel does not depend on us. */
void mp_parcel_sent(const mp_pipe_handle *pipe, uint32_t way, const mp_parcel_place *place);

/* The note could not be written: back to before post. */
void mp_parcel_withdraw(const mp_pipe_handle *pipe, uint32_t way, const mp_parcel_place *place);

/* MP_OK: `*offset` is ours. MP_STALE: its sender was killed before he had sent it, or somebody else took
 * it. MP_DAMAGED: the place is none. */
mp_status mp_parcel_take(const mp_pipe_handle *pipe, uint32_t way, const mp_parcel_place *place,
                         uint64_t *offset);

#endif
