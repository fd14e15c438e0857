// SPDX-License-Identifier: PSF-2.0
#include "os/os.h" // the contract

#include <fcntl.h>   // O_CLOEXEC
#include <pthread.h> // the lock
#include <stdlib.h>  // realloc
#include <unistd.h>  // pipe2, close

/* Held across every fork, so that none comes between making a descriptor and listing it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    int *files; // the first `count` of `room`
    size_t count, room;
} listed; // under lock

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&lock);
}

static void in_child(void)
{
    // EBADF: the program closed all descriptors; gone is what we want.
    for (size_t i = 0; i < listed.count; i++)
        close(listed.files[i]);
    listed.count = 0;
    pthread_mutex_unlock(&lock);
}

/* Room for one more, and the handlers are there. */
static mp_status prepare_locked(void)
{
    static bool installed; // under lock
    if (!installed) {
        mp_status status = mp_at_fork(before_fork, after_fork, in_child);
        if (status != MP_OK)
            return status;
        installed = true;
    }
    if (listed.count < listed.room)
        return MP_OK;
    size_t room = listed.room ? listed.room * 2 : 64;
    int *files = realloc(listed.files, room * sizeof *files);
    if (files == NULL)
        return MP_NO_MEMORY;
    listed.files = files;
    listed.room = room;
    return MP_OK;
}

mp_status mp_private_pipe(int ends[2])
{
    pthread_mutex_lock(&lock);
    mp_status status = prepare_locked();
    if (status == MP_OK && pipe2(ends, O_CLOEXEC) != 0)
        status = MP_SYSTEM;
    if (status == MP_OK)
        listed.files[listed.count++] = ends[1];
    pthread_mutex_unlock(&lock);
    return status;
}

mp_status mp_private_keep(int file)
{
    pthread_mutex_lock(&lock);
    mp_status status = prepare_locked();
    if (status == MP_OK)
        listed.files[listed.count++] = file;
    pthread_mutex_unlock(&lock);
    return status;
}

void mp_private_close(int file)
{
    pthread_mutex_lock(&lock);
    // From the end: what was listed last is what most often goes first.
    for (size_t i = listed.count; i-- > 0;) {
        if (listed.files[i] == file) {
            listed.files[i] = listed.files[--listed.count];
            close(file);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}
