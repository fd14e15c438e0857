// SPDX-License-Identifier: PSF-2.0
#include "os/os.h" // the contract

#include <time.h> // clock_gettime

mp_time mp_clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (mp_time)now.tv_sec * 1000000000 + now.tv_nsec;
}
