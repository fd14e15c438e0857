// SPDX-License-Identifier: PSF-2.0
#include "os/os.h" // the contract

#include <errno.h>      // errno
#include <pthread.h>    // pthread_atfork
#include <sys/random.h> // getrandom
#include <unistd.h>     // getpid

uint32_t mp_process_id(void)
{
    return (uint32_t)getpid();
}

void mp_random_bytes(void *bytes, size_t count)
{
    // Never fails for so few bytes once the kernel is up (getrandom(2)).
    for (size_t have = 0; have < count;) {
        ssize_t got = getrandom((char *)bytes + have, count - have, 0);
        if (got > 0)
            have += (size_t)got;
        else if (errno != EINTR)
            break;
    }
}

mp_status mp_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    int error = pthread_atfork(prepare, parent, child);
    if (error == 0)
        return MP_OK;
    errno = error;
    return MP_SYSTEM;
}
