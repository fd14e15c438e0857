// SPDX-License-Identifier: PSF-2.0
#include "os/bell.h" // the contract

#include "core/atomic.h" // shown

#include <errno.h>       // for MP_SYSTEM
#include <pthread.h>     // the thread
#include <signal.h>      // signals belong to Python's threads
#include <stdlib.h>      // malloc
#include <sys/eventfd.h> // the descriptor
#include <unistd.h>      // read, write, close

struct mp_bell {
    pthread_mutex_t lock; // guards rung and the counter of the descriptor
    pthread_t thread;
    int descriptor;
    bool rung;
    void (*work)(void *context);
    void *context;
    uint32_t *shown;
};

static void *run(void *argument)
{
    struct mp_bell *bell = argument;
    bell->work(bell->context);
    return NULL;
}

static int start_without_signals(struct mp_bell *bell)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&bell->thread, NULL, run, bell);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

mp_status mp_bell_open(mp_bell **result, void (*work)(void *context), void *context,
                       uint32_t *shown)
{
    struct mp_bell *bell = malloc(sizeof *bell);
    if (bell == NULL)
        return MP_NO_MEMORY;
    *bell = (struct mp_bell){.work = work, .context = context, .shown = shown};
    bell->descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell->descriptor < 0) {
        free(bell);
        return MP_SYSTEM;
    }
    pthread_mutex_init(&bell->lock, NULL);
    *result = bell; // before the thread runs: it uses it
    int error = start_without_signals(bell);
    if (error != 0) {
        close(bell->descriptor);
        free(bell);
        *result = NULL;
        errno = error;
        return MP_SYSTEM;
    }
    return MP_OK;
}

int mp_bell_descriptor(const mp_bell *bell)
{
    return bell->descriptor;
}

static void ring_or_mute(struct mp_bell *bell, bool ready)
{
    uint64_t count = 1;
    if (bell->shown != NULL && !ready)
        mp_store_release32(bell->shown, 0); // before it is so, and 1 after it is
    // Neither can block or fail: the counter is 0 or 1, as rung says.
    ssize_t moved = ready ? write(bell->descriptor, &count, sizeof count)
                          : read(bell->descriptor, &count, sizeof count);
    (void)moved;
    bell->rung = ready;
    if (bell->shown != NULL && ready)
        mp_store_release32(bell->shown, 1);
}

bool mp_bell_set(mp_bell *bell, bool (*is_ready)(void *context), void *context)
{
    pthread_mutex_lock(&bell->lock);
    bool ready = is_ready(context);
    if (ready != bell->rung)
        ring_or_mute(bell, ready);
    pthread_mutex_unlock(&bell->lock);
    return ready;
}

void mp_bell_close(mp_bell *bell)
{
    pthread_join(bell->thread, NULL);
    mp_bell_abandon(bell);
}

void mp_bell_abandon(mp_bell *bell)
{
    close(bell->descriptor);
    free(bell);
}
