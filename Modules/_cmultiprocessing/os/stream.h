// SPDX-License-Identifier: PSF-2.0
/* Bytes through a descriptor: a try that does not block, and a sleep until trying again makes sense.
 *
 *     mp_stream stream = {.file = file};
 *     status = mp_stream_read(&stream, data, size, &got);      // the caller may hold the GIL
 *     if (status == MP_WOULD_BLOCK)
 *         status = mp_stream_wait(file, MP_STREAM_READ, deadline);
 *
 * Results of the tries:
 *     MP_OK           at least one byte was moved
 *     MP_WOULD_BLOCK  nothing can be moved now
 *     MP_CLOSED       reading: end of file
 *     MP_INTERRUPTED  a signal arrived; nothing was moved
 *     MP_SYSTEM       errno says why */
#ifndef MP_OS_STREAM_H
#define MP_OS_STREAM_H

#include "os/os.h" // mp_time

/* What it takes to try without blocking. Found out by the first calls that fail. */
enum mp_stream_kind {
    MP_STREAM_SOCKET = 0,
    MP_STREAM_PIPE, // or whatever else knows RWF_NOWAIT
    MP_STREAM_OTHER, // waits for readiness first; blocks all the same if another process is faster, or
                     // if it writes more than fits
};

typedef struct mp_stream {
    int file;
    enum mp_stream_kind kind;
} mp_stream;

typedef struct mp_piece {
    const void *data;
    size_t size;
} mp_piece;

/* Pieces that one call takes; what is beyond is for the next one. */
#define MP_STREAM_PIECES 16

enum mp_stream_event { MP_STREAM_READ = 1, MP_STREAM_WRITE = 2 };

/* Up to `size` bytes, size > 0. */
mp_status mp_stream_read(mp_stream *stream, void *data, size_t size, size_t *got);

/* The same without taking them: sockets only. MP_MISUSE: this is none. */
mp_status mp_stream_peek(mp_stream *stream, void *data, size_t size, size_t *got);

/* How many bytes are there to be read? False: the system cannot say. */
bool mp_stream_available(int file, size_t *bytes);

/* Has the other side closed, or failed? What it sent before may still be there to be read. */
bool mp_stream_hung_up(int file);

/* As many bytes of the pieces as there is room for, in one call. */
mp_status mp_stream_write(mp_stream *stream, const mp_piece *pieces, size_t count, size_t *put);

/* Sleep until reading (or writing) does not block, errors and hang-ups included. MP_OK, MP_TIMEOUT,
 * MP_INTERRUPTED (a signal; or the sleep was long and the caller should look around), MP_SYSTEM. */
mp_status mp_stream_wait(int file, enum mp_stream_event event, mp_time deadline);

/* Many at once. `ready` is written for each; a descriptor that is none counts as ready. MP_OK: at
 * least one is. MP_TIMEOUT, MP_INTERRUPTED, MP_NO_MEMORY, MP_SYSTEM: none. */
typedef struct mp_stream_item {
    int file;
    bool ready;
} mp_stream_item;

mp_status mp_stream_wait_many(mp_stream_item *items, size_t count, mp_time deadline);

/* Two connected ends, close-on-exec: stream sockets, or a pipe, where ends[0] reads and ends[1] writes.
 * (Half-closed sockets would be an alternative to pipes; they take three times as long.) */
mp_status mp_stream_pair(bool duplex, int ends[2], enum mp_stream_kind *kind);

/* MP_SYSTEM where close() says that it was none. Never blocks on EINTR. */
mp_status mp_stream_close(int file);

/* ---- forks ---- */

/* How often this process is the child of a fork since the library was loaded: a number that differs
 * between a process and its children. */
uint32_t mp_fork_count(void);

/* Begin to count. Idempotent; called before anything remembers a count. */
mp_status mp_fork_watch(void);

#endif
