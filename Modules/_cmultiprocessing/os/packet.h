// SPDX-License-Identifier: PSF-2.0
/* Messages with descriptors between related processes, and what a forked child does not take from the
 * process that asked for it: what the fork server (Lib/cmultiprocessing/forkserver.py) needs.
 *
 *     int ends[2];
 *     mp_packet_pair(ends);                         // unnamed: only who inherits an end can speak
 *     mp_packet_send(ends[0], bytes, size, files, count);
 *     ...
 *     mp_packet packet = {.bytes = buffer, .room = sizeof buffer};
 *     mp_packet_receive(ends[1], &packet);          // one of all that wait gets it whole
 *     mp_packet_drop(&packet);                      // closes the descriptors that nobody took */
#ifndef MP_OS_PACKET_H
#define MP_OS_PACKET_H

#include "core/base.h" // mp_status

#define MP_PACKET_FILES 253 // of one message: the kernel's limit

typedef struct mp_packet {
    void *bytes;
    size_t room; // set by the caller: what `bytes` can hold
    size_t size; // of the message, which may be larger than room; 0 at the end of file
    int files[MP_PACKET_FILES]; // the receiver's now, close-on-exec
    size_t count;               // of files
    uint32_t sender;            // user id, as the kernel noted it at the sending
    bool complete;              // all of it fits, and for all of its descriptors a place was left
} mp_packet;

/* Two connected sockets that keep messages whole, close-on-exec; both learn who sends.
 * MP_SYSTEM: no descriptor is left. */
mp_status mp_packet_pair(int ends[2]);

/* Send one message with copies of `count` descriptors; waits for room.
 * MP_INTERRUPTED: nothing was sent.  MP_SYSTEM: EPIPE or ECONNRESET when nobody can receive it. */
mp_status mp_packet_send(int file, const void *bytes, size_t size, const int *files, size_t count);

/* Wait for a message, at most as long as mp_packet_patience allows. Where several processes wait, one
 * gets it. size 0 without descriptors: the end, nobody can send any more.
 * MP_TIMEOUT.  MP_INTERRUPTED.  MP_SYSTEM. */
mp_status mp_packet_receive(int file, mp_packet *packet);

/* The same without waiting: MP_WOULD_BLOCK. */
mp_status mp_packet_try_receive(int file, mp_packet *packet);

/* Close its descriptors. */
void mp_packet_drop(mp_packet *packet);

/* How long, in ms, mp_packet_receive waits, in every process that shares this end. */
mp_status mp_packet_patience(int file, uint32_t milliseconds);

/* ---- what is inherited from the process that forks, but belongs to the one that asks ---- */

typedef struct mp_traits {
    uint64_t blocked; // signals: bit n - 1 is signal n
    uint32_t umask;
    uint32_t reserved;
} mp_traits;

/* Those of the calling thread. Nothing is changed, not even for an instant. MP_SYSTEM: no /proc. */
mp_status mp_traits_get(mp_traits *traits);
void mp_traits_set(const mp_traits *traits);

/* Be killed when the thread that forked this process ends. MP_SYSTEM (ESRCH): `parent` is gone. */
mp_status mp_parent_follow(uint32_t parent);
void mp_parent_unfollow(void);

#endif
