// SPDX-License-Identifier: PSF-2.0
#include "os/packet.h" // the contract

#include <errno.h>      // errno
#include <string.h>     // memcpy
#include <sys/socket.h> // sendmsg
#include <sys/time.h>   // struct timeval
#include <sys/uio.h>    // struct iovec
#include <unistd.h>     // close

/* Room for descriptors and the sender's credentials, aligned as the kernel wants it. */
typedef union control_room {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(MP_PACKET_FILES * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
} control_room;

mp_status mp_packet_pair(int ends[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return MP_SYSTEM;
    // Before anything is sent: the kernel notes the sender at the sending.
    int on = 1;
    if (setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0 &&
        setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0)
        return MP_OK;
    int saved = errno;
    close(ends[0]);
    close(ends[1]);
    errno = saved;
    return MP_SYSTEM;
}

static void put_files(struct msghdr *header, control_room *room, const int *files, size_t count)
{
    header->msg_control = room->bytes;
    header->msg_controllen = CMSG_SPACE(count * sizeof(int));
    memset(room->bytes, 0, header->msg_controllen);
    struct cmsghdr *part = CMSG_FIRSTHDR(header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(part), files, count * sizeof(int));
}

mp_status mp_packet_send(int file, const void *bytes, size_t size, const int *files, size_t count)
{
    mp_assert(count <= MP_PACKET_FILES);
    control_room room;
    struct iovec part;
    memcpy(&part.iov_base, &bytes, sizeof bytes); // sendmsg does not write, but says so nowhere
    part.iov_len = size;
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0)
        put_files(&header, &room, files, count);
    if (sendmsg(file, &header, MSG_NOSIGNAL) >= 0)
        return MP_OK;
    return errno == EINTR ? MP_INTERRUPTED : MP_SYSTEM;
}

static void take_part(mp_packet *packet, struct cmsghdr *part)
{
    if (part->cmsg_level != SOL_SOCKET)
        return;
    size_t size = part->cmsg_len - CMSG_LEN(0);
    if (part->cmsg_type == SCM_RIGHTS) {
        packet->count = size / sizeof(int);
        memcpy(packet->files, CMSG_DATA(part), packet->count * sizeof(int));
    } else if (part->cmsg_type == SCM_CREDENTIALS) {
        struct ucred sender;
        memcpy(&sender, CMSG_DATA(part), sizeof sender);
        packet->sender = sender.uid;
    }
}

static mp_status receive(int file, mp_packet *packet, int flags)
{
    control_room room;
    struct iovec part = {.iov_base = packet->bytes, .iov_len = packet->room};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = room.bytes,
                            .msg_controllen = sizeof room.bytes};
    ssize_t size = recvmsg(file, &header, flags | MSG_CMSG_CLOEXEC | MSG_TRUNC);
    if (size < 0) {
        if (errno == EINTR)
            return MP_INTERRUPTED;
        if (errno == EAGAIN)
            return flags & MSG_DONTWAIT ? MP_WOULD_BLOCK : MP_TIMEOUT;
        return MP_SYSTEM;
    }
    packet->size = (size_t)size;
    packet->count = 0;
    packet->sender = UINT32_MAX;
    packet->complete = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(&header); at != NULL; at = CMSG_NXTHDR(&header, at))
        take_part(packet, at);
    return MP_OK;
}

mp_status mp_packet_receive(int file, mp_packet *packet)
{
    return receive(file, packet, 0);
}

mp_status mp_packet_try_receive(int file, mp_packet *packet)
{
    return receive(file, packet, MSG_DONTWAIT);
}

void mp_packet_drop(mp_packet *packet)
{
    for (size_t i = 0; i < packet->count; i++)
        close(packet->files[i]);
    packet->count = 0;
}

mp_status mp_packet_patience(int file, uint32_t milliseconds)
{
    struct timeval patience = {.tv_sec = milliseconds / 1000,
                               .tv_usec = (suseconds_t)(milliseconds % 1000) * 1000};
    if (setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0)
        return MP_OK;
    return MP_SYSTEM;
}
