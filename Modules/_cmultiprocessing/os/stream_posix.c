// SPDX-License-Identifier: PSF-2.0
#include "os/stream.h" // the contract

#include <errno.h>      // why a call failed
#include <fcntl.h>      // O_CLOEXEC
#include <limits.h>     // INT_MAX
#include <poll.h>       // readiness
#include <stdlib.h>     // lists for poll
#include <string.h>     // memcpy
#include <sys/ioctl.h>  // FIONREAD
#include <sys/socket.h> // sockets
#include <sys/uio.h>    // gathering
#include <unistd.h>     // read, close

/* One sleep lasts so long at most: a signal that arrives just before it is looked at then. */
#define SLICE (500 * (mp_time)MP_MILLISECOND)
/* Linux moves at most this many bytes per call. */
#define MOST_BYTES ((size_t)0x7ffff000)
/* poll() takes its list from the stack up to so many. */
enum { FEW = 64 };
/* Up to so many bytes are copied together before they are written: send() of one piece takes 170 ns less
 * than sendmsg() of two. */
enum { JOINED_MOST = 512 };

static mp_status failed(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return MP_WOULD_BLOCK;
    return errno == EINTR ? MP_INTERRUPTED : MP_SYSTEM;
}

/* What a read or a write says; end of file is a result. */
static mp_status moved(ssize_t bytes, size_t *count)
{
    if (bytes < 0)
        return failed();
    *count = (size_t)bytes;
    return bytes == 0 ? MP_CLOSED : MP_OK;
}

/* Is it ready now? Errors and hang-ups are: the call that follows says what they are. */
static bool is_ready(int file, short events)
{
    struct pollfd item = {.fd = file, .events = events};
    return poll(&item, 1, 0) > 0;
}

/* Not this kind of file: try the next one. */
static bool other_kind(ssize_t result)
{
    return result < 0 && (errno == ENOTSOCK || errno == EOPNOTSUPP || errno == ENOSYS ||
                          errno == ESPIPE || errno == EINVAL);
}

static mp_status read_other(int file, void *data, size_t size, size_t *got)
{
    if (!is_ready(file, POLLIN))
        return MP_WOULD_BLOCK;
    return moved(read(file, data, size), got);
}

mp_status mp_stream_read(mp_stream *stream, void *data, size_t size, size_t *got)
{
    mp_assert(size > 0);
    if (size > MOST_BYTES)
        size = MOST_BYTES;
    if (stream->kind == MP_STREAM_SOCKET) {
        ssize_t bytes = recv(stream->file, data, size, MSG_DONTWAIT);
        if (mp_likely(!other_kind(bytes)))
            return moved(bytes, got);
        stream->kind = MP_STREAM_PIPE;
    }
    if (stream->kind == MP_STREAM_PIPE) {
        struct iovec list = {data, size};
        ssize_t bytes = preadv2(stream->file, &list, 1, -1, RWF_NOWAIT);
        if (mp_likely(!other_kind(bytes)))
            return moved(bytes, got);
        stream->kind = MP_STREAM_OTHER;
    }
    return read_other(stream->file, data, size, got);
}

mp_status mp_stream_peek(mp_stream *stream, void *data, size_t size, size_t *got)
{
    if (stream->kind != MP_STREAM_SOCKET)
        return MP_MISUSE;
    ssize_t bytes = recv(stream->file, data, size, MSG_DONTWAIT | MSG_PEEK);
    if (!other_kind(bytes))
        return moved(bytes, got);
    stream->kind = MP_STREAM_PIPE;
    return MP_MISUSE;
}

bool mp_stream_available(int file, size_t *bytes)
{
    int count;
    if (ioctl(file, FIONREAD, &count) != 0 || count < 0)
        return false;
    *bytes = (size_t)count;
    return true;
}

/* Pieces as the kernel wants them; a short message goes together in `joined`. */
typedef struct gathered {
    struct iovec list[MP_STREAM_PIECES];
    size_t used;
    char joined[JOINED_MOST];
} gathered;

static void gather(gathered *self, const mp_piece *pieces, size_t count)
{
    size_t total = 0;
    self->used = 0;
    while (self->used < count && self->used < MP_STREAM_PIECES && total < MOST_BYTES) {
        const mp_piece *piece = &pieces[self->used];
        size_t size = piece->size < MOST_BYTES - total ? piece->size : MOST_BYTES - total;
        self->list[self->used] = (struct iovec){(void *)(uintptr_t)piece->data, size};
        total += size;
        self->used++;
    }
    mp_assert(total > 0);
    if (self->used == 1 || total > JOINED_MOST)
        return;
    char *end = self->joined;
    for (size_t i = 0; i < self->used; i++) {
        if (self->list[i].iov_len == 0)
            continue; // may have no address
        memcpy(end, self->list[i].iov_base, self->list[i].iov_len);
        end += self->list[i].iov_len;
    }
    self->list[0] = (struct iovec){self->joined, total};
    self->used = 1;
}

static ssize_t write_socket(int file, gathered *from)
{
    enum { FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };
    if (from->used == 1)
        return send(file, from->list[0].iov_base, from->list[0].iov_len, FLAGS);
    struct msghdr message = {.msg_iov = from->list, .msg_iovlen = from->used};
    return sendmsg(file, &message, FLAGS);
}

mp_status mp_stream_write(mp_stream *stream, const mp_piece *pieces, size_t count, size_t *put)
{
    gathered from;
    gather(&from, pieces, count);
    if (stream->kind == MP_STREAM_SOCKET) {
        ssize_t bytes = write_socket(stream->file, &from);
        if (mp_likely(!other_kind(bytes)))
            return moved(bytes, put);
        stream->kind = MP_STREAM_PIPE;
    }
    if (stream->kind == MP_STREAM_PIPE) {
        ssize_t bytes = pwritev2(stream->file, from.list, (int)from.used, -1, RWF_NOWAIT);
        if (mp_likely(!other_kind(bytes)))
            return moved(bytes, put);
        stream->kind = MP_STREAM_OTHER;
    }
    return moved(writev(stream->file, from.list, (int)from.used), put);
}

bool mp_stream_hung_up(int file)
{
    struct pollfd item = {.fd = file, .events = POLLRDHUP};
    return poll(&item, 1, 0) > 0;
}

/* ---- sleeping ---- */

/* What is left until the deadline or the end of the slice; `*last`: it is the deadline's. */
static struct timespec time_left(mp_time deadline, bool *last)
{
    mp_time left = SLICE;
    *last = false;
    if (deadline != MP_FOREVER) {
        mp_time now = mp_clock_now();
        mp_time until = deadline > now ? deadline - now : 0;
        *last = until <= SLICE;
        left = *last ? until : SLICE;
    }
    return (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
}

static mp_status sleep_on(struct pollfd *list, size_t count, mp_time deadline)
{
    bool last;
    struct timespec left = time_left(deadline, &last);
    int ready = ppoll(list, count, &left, NULL);
    if (ready > 0)
        return MP_OK;
    if (ready == 0)
        return last ? MP_TIMEOUT : MP_INTERRUPTED;
    return errno == EINTR ? MP_INTERRUPTED : MP_SYSTEM;
}

mp_status mp_stream_wait(int file, enum mp_stream_event event, mp_time deadline)
{
    struct pollfd item = {.fd = file, .events = event == MP_STREAM_READ ? POLLIN : POLLOUT};
    return sleep_on(&item, 1, deadline);
}

mp_status mp_stream_wait_many(mp_stream_item *items, size_t count, mp_time deadline)
{
    struct pollfd few[FEW];
    struct pollfd *list = count <= FEW ? few : malloc(count * sizeof *list);
    if (list == NULL)
        return MP_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        list[i] = (struct pollfd){.fd = items[i].file, .events = POLLIN};
    mp_status status = sleep_on(list, count, deadline);
    for (size_t i = 0; i < count; i++)
        items[i].ready = status == MP_OK && list[i].revents != 0;
    int error = errno;
    if (list != few)
        free(list);
    errno = error;
    return status;
}

/* ---- descriptors ---- */

mp_status mp_stream_pair(bool duplex, int ends[2], enum mp_stream_kind *kind)
{
    *kind = duplex ? MP_STREAM_SOCKET : MP_STREAM_PIPE;
    int result =
        duplex ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) : pipe2(ends, O_CLOEXEC);
    return result == 0 ? MP_OK : MP_SYSTEM;
}

mp_status mp_stream_close(int file)
{
    // Linux has closed it even if it says EINTR: again would close somebody else's.
    return close(file) == 0 || errno == EINTR ? MP_OK : MP_SYSTEM;
}
