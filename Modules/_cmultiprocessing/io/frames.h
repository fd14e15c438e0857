// SPDX-License-Identifier: PSF-2.0
/* Messages as they travel on a descriptor: the standard library's format, and one of our own.
 *
 *     length, signed 32 bits, network order    what follows
 *     0 .. 2^31 - 1                            that many bytes
 *     -1                                       u64, network order, and that many bytes
 *     -2                                       struct mp_frame_note; then note.bytes bytes
 *     anything else                            nothing: no correct program sends it
 *
 * Notes are sent only between the ends of a Pipe() of one family (InternalDocs/connections.md); the
 * standard library would refuse one as it refuses any negative length.
 *
 * Receiving can stop at any byte (a deadline, a signal) and go on later:
 *     mp_frame_in frame = {0};
 *     while ((status = mp_frame_read_head(&frame, &stream)) == MP_WOULD_BLOCK) ... wait ...
 *     ... frame.kind, frame.size, frame.note ...
 *     status = mp_frame_read(&stream, room, size, &got);
 *     mp_frame_next(&frame); */
#ifndef MP_IO_FRAMES_H
#define MP_IO_FRAMES_H

#include "os/stream.h" // descriptors

enum mp_note_kind {
    MP_NOTE_PARCEL = 1, // the message lies in shared memory (structures/parcels.h)
    MP_NOTE_PARTS = 2,  // `parts` u64 sizes, then the parts: a pickle and its protocol 5 buffers
};

/* In the byte order of the machine: it never leaves it. */
struct mp_frame_note {
    uint32_t kind;
    uint32_t parts;
    uint64_t family; // first half of the family's id: a stranger does not know it
    uint64_t bytes;  // that follow
    uint64_t pipe;   // parcels: where and which
    uint64_t word;
    uint32_t generation;
    uint32_t slot;
};

static_assert(sizeof(struct mp_frame_note) == 48, "wire format");

#define MP_FRAME_HEAD_MAX (4 + sizeof(struct mp_frame_note))

/* Writes the head of a plain frame; returns its length, 4 or 12. */
size_t mp_frame_head(uint64_t size, unsigned char *head);

/* The same for a note. */
size_t mp_frame_note_head(const struct mp_frame_note *note, unsigned char *head);

enum mp_frame_kind {
    MP_FRAME_NONE = 0, // the head is not complete
    MP_FRAME_PLAIN,
    MP_FRAME_NOTE,
};

typedef struct mp_frame_in {
    enum mp_frame_kind kind;
    uint32_t have; // bytes of `head`
    unsigned char head[MP_FRAME_HEAD_MAX];
    uint64_t size; // bytes that follow the head
    struct mp_frame_note note;
} mp_frame_in;

/* Read the head, or go on reading it. MP_OK: kind and size are set. MP_WOULD_BLOCK, MP_INTERRUPTED,
 * MP_SYSTEM. MP_CLOSED: end of file; frame->have says whether in the middle. MP_DAMAGED: no head begins
 * like that; mp_frame_length says what it claims. */
mp_status mp_frame_read_head(mp_frame_in *frame, mp_stream *stream);

/* The first 32 bits of a head. */
int32_t mp_frame_length(const unsigned char *head);

/* Read on until *got == size. MP_OK, or why it stopped: MP_WOULD_BLOCK, MP_CLOSED, MP_INTERRUPTED,
 * MP_SYSTEM. */
mp_status mp_frame_read(mp_stream *stream, void *room, size_t size, size_t *got);

/* The frame was read: expect another one. */
void mp_frame_next(mp_frame_in *frame);

/* Write pieces in order; they are used up (shortened, skipped) as they are written. MP_OK: all are out.
 * Else why it stopped: MP_WOULD_BLOCK, MP_INTERRUPTED, MP_SYSTEM. */
typedef struct mp_frame_out {
    mp_piece *pieces;
    size_t count;
    bool begun; // something is out already
} mp_frame_out;

mp_status mp_frame_write(mp_frame_out *frame, mp_stream *stream);

#endif
