// SPDX-License-Identifier: PSF-2.0
#include "io/frames.h" // the contract

#include <string.h> // memcpy

enum { SHORT_HEAD = 4, LONG_HEAD = 12 };
enum { LENGTH_LONG = -1, LENGTH_NOTE = -2 };

#define SHORT_MAX UINT64_C(0x7fffffff)

static void put_big_endian(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--) {
        at[i] = (unsigned char)value;
        value >>= 8;
    }
}

static uint64_t get_big_endian(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

int32_t mp_frame_length(const unsigned char *head)
{
    return (int32_t)(uint32_t)get_big_endian(head, SHORT_HEAD);
}

size_t mp_frame_head(uint64_t size, unsigned char *head)
{
    if (size <= SHORT_MAX) {
        put_big_endian(head, size, SHORT_HEAD);
        return SHORT_HEAD;
    }
    put_big_endian(head, (uint32_t)LENGTH_LONG, SHORT_HEAD);
    put_big_endian(head + SHORT_HEAD, size, 8);
    return LONG_HEAD;
}

size_t mp_frame_note_head(const struct mp_frame_note *note, unsigned char *head)
{
    put_big_endian(head, (uint32_t)LENGTH_NOTE, SHORT_HEAD);
    memcpy(head + SHORT_HEAD, note, sizeof(*note));
    return MP_FRAME_HEAD_MAX;
}

/* ---- reading ---- */

mp_status mp_frame_read(mp_stream *stream, void *room, size_t size, size_t *got)
{
    while (*got < size) {
        size_t more;
        mp_status status = mp_stream_read(stream, (char *)room + *got, size - *got, &more);
        if (status != MP_OK)
            return status;
        *got += more;
    }
    return MP_OK;
}

static mp_status read_up_to(mp_frame_in *frame, mp_stream *stream, size_t size)
{
    size_t got = frame->have;
    mp_status status = mp_frame_read(stream, frame->head, size, &got);
    frame->have = (uint32_t)got;
    return status;
}

static mp_status read_long(mp_frame_in *frame, mp_stream *stream)
{
    mp_status status = read_up_to(frame, stream, LONG_HEAD);
    if (status != MP_OK)
        return status;
    frame->size = get_big_endian(frame->head + SHORT_HEAD, 8);
    if (frame->size > INT64_MAX)
        return MP_DAMAGED;
    frame->kind = MP_FRAME_PLAIN;
    return MP_OK;
}

static mp_status read_note(mp_frame_in *frame, mp_stream *stream)
{
    mp_status status = read_up_to(frame, stream, MP_FRAME_HEAD_MAX);
    if (status != MP_OK)
        return status;
    memcpy(&frame->note, frame->head + SHORT_HEAD, sizeof(frame->note));
    frame->size = frame->note.bytes;
    if (frame->size > INT64_MAX)
        return MP_DAMAGED;
    frame->kind = MP_FRAME_NOTE;
    return MP_OK;
}

mp_status mp_frame_read_head(mp_frame_in *frame, mp_stream *stream)
{
    if (frame->kind != MP_FRAME_NONE)
        return MP_OK;
    if (frame->have < SHORT_HEAD) {
        mp_status status = read_up_to(frame, stream, SHORT_HEAD);
        if (status != MP_OK)
            return status;
    }
    int32_t length = mp_frame_length(frame->head);
    if (mp_likely(length >= 0)) {
        frame->size = (uint64_t)length;
        frame->kind = MP_FRAME_PLAIN;
        return MP_OK;
    }
    switch (length) {
    case LENGTH_LONG: return read_long(frame, stream);
    case LENGTH_NOTE: return read_note(frame, stream);
    default: return MP_DAMAGED;
    }
}

void mp_frame_next(mp_frame_in *frame)
{
    frame->kind = MP_FRAME_NONE;
    frame->have = 0;
}

/* ---- writing ---- */

/* `bytes` of the pieces are out. */
static void use_up(mp_frame_out *frame, size_t bytes)
{
    while (frame->count != 0 && bytes >= frame->pieces->size) {
        bytes -= frame->pieces->size;
        frame->pieces++;
        frame->count--;
    }
    if (frame->count != 0) {
        frame->pieces->data = (const char *)frame->pieces->data + bytes;
        frame->pieces->size -= bytes;
    }
}

mp_status mp_frame_write(mp_frame_out *frame, mp_stream *stream)
{
    use_up(frame, 0); // empty pieces at the front: nothing to be written is no write
    while (frame->count != 0) {
        size_t bytes;
        mp_status status = mp_stream_write(stream, frame->pieces, frame->count, &bytes);
        if (status != MP_OK)
            return status;
        frame->begun = true;
        use_up(frame, bytes);
    }
    return MP_OK;
}
