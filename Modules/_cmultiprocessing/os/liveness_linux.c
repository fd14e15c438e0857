// SPDX-License-Identifier: PSF-2.0
/* Liveness by open file description locks (fcntl_locking(2), "Open file description locks").
 *
 * The kernel drops such a lock when the last reference to the description goes: at SIGKILL (before
 * the zombie stage), at exec, never by a mere close of another descriptor of the same file. */
#include "os/os.h" // the contract

#include <errno.h>  // EAGAIN
#include <fcntl.h>  // F_OFD_SETLK
#include <unistd.h> // SEEK_SET

static struct flock byte_lock(uint32_t slot, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1};
    return lock;
}

mp_status mp_liveness_hold(int file, uint32_t slot)
{
    struct flock lock = byte_lock(slot, F_WRLCK);
    if (fcntl(file, F_OFD_SETLK, &lock) == 0)
        return MP_OK;
    return errno == EAGAIN || errno == EACCES ? MP_WOULD_BLOCK : MP_SYSTEM;
}

enum mp_liveness mp_liveness_query(int file, uint32_t slot)
{
    struct flock lock = byte_lock(slot, F_WRLCK);
    if (fcntl(file, F_OFD_GETLK, &lock) != 0)
        return MP_LIVENESS_UNKNOWN;
    return lock.l_type == F_UNLCK ? MP_LIVENESS_FREE : MP_LIVENESS_HELD;
}

void mp_liveness_drop(int file, uint32_t slot)
{
    struct flock lock = byte_lock(slot, F_UNLCK);
    (void)fcntl(file, F_OFD_SETLK, &lock); // fails only if it was not held
}
