// SPDX-License-Identifier: PSF-2.0
#include "os/packet.h" // the contract

#include <errno.h>     // ESRCH
#include <fcntl.h>     // open
#include <pthread.h>   // pthread_sigmask
#include <signal.h>    // sigset_t
#include <stdlib.h>    // strtoul
#include <string.h>    // strstr
#include <sys/prctl.h> // PR_SET_PDEATHSIG
#include <sys/stat.h>  // umask
#include <unistd.h>    // read

enum { SIGNALS = 64 };

/* umask() tells only what it replaces, and a file that another thread makes between two calls would be
 * open to everybody. The kernel has told in "status" since 4.7. */
static mp_status read_umask(uint32_t *result)
{
    char text[256]; // the second line, behind a name of at most 64 characters
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return MP_SYSTEM;
    ssize_t size = read(file, text, sizeof text - 1);
    int saved = errno;
    close(file);
    errno = saved;
    if (size < 0)
        return MP_SYSTEM;
    text[size] = '\0';
    const char *found = strstr(text, "\nUmask:");
    if (found == NULL) {
        errno = ENODATA;
        return MP_SYSTEM;
    }
    *result = (uint32_t)strtoul(found + sizeof "\nUmask:" - 1, NULL, 8);
    return MP_OK;
}

mp_status mp_traits_get(mp_traits *traits)
{
    sigset_t blocked;
    *traits = (mp_traits){0};
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    for (int number = 1; number <= SIGNALS; number++) {
        if (sigismember(&blocked, number) == 1)
            traits->blocked |= UINT64_C(1) << (number - 1);
    }
    return read_umask(&traits->umask);
}

void mp_traits_set(const mp_traits *traits)
{
    sigset_t blocked;
    sigemptyset(&blocked);
    for (int number = 1; number <= SIGNALS; number++) {
        if (traits->blocked & UINT64_C(1) << (number - 1))
            sigaddset(&blocked, number); // refuses those that belong to the C library
    }
    pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    umask((mode_t)traits->umask);
}

mp_status mp_parent_follow(uint32_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return MP_SYSTEM;
    // After that, not before: a parent that dies between would be missed by both.
    if ((uint32_t)getppid() == parent)
        return MP_OK;
    errno = ESRCH;
    return MP_SYSTEM;
}

void mp_parent_unfollow(void)
{
    (void)prctl(PR_SET_PDEATHSIG, 0); // cannot fail
}
