// SPDX-License-Identifier: PSF-2.0
#include "os/os.h" // the contract

#include <errno.h>       // EAGAIN
#include <fcntl.h>       // F_SETSIG
#include <pthread.h>     // pthread_sigmask
#include <signal.h>      // kill
#include <sys/syscall.h> // pidfd_open
#include <sys/wait.h>    // waitpid
#include <unistd.h>      // pipe2, read, close

int mp_ready_descriptor(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    close(ends[1]);
    return ends[0];
}

mp_status mp_child_reap(uint32_t process, int *code)
{
    int status;
    pid_t reaped;
    do {
        reaped = waitpid((pid_t)process, &status, WNOHANG);
    } while (reaped < 0 && errno == EINTR);
    if (reaped <= 0)
        return reaped == 0 ? MP_WOULD_BLOCK : MP_SYSTEM;
    *code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
    return MP_OK;
}

void mp_child_end(uint32_t process)
{
    kill((pid_t)process, SIGKILL);
    waitpid((pid_t)process, NULL, 0);
}

int mp_child_open(uint32_t process)
{
    return (int)syscall(SYS_pidfd_open, (pid_t)process, 0U); // glibc knows it since 2.36
}

int mp_child_exit_code(uint32_t process, int unknown)
{
    siginfo_t end;
    int result;
    do
        result = waitid(P_PID, (id_t)process, &end, WEXITED | WNOWAIT);
    while (result != 0 && errno == EINTR);
    if (result != 0)
        return unknown; // ECHILD: SIGCHLD is ignored here, or somebody waits for all children
    return end.si_code == CLD_EXITED ? end.si_status : -end.si_status;
}

void mp_pipe_tell(int file, const void *bytes, size_t size)
{
    sigset_t broken, before;
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken, &before);
    ssize_t written;
    do
        written = write(file, bytes, size);
    while (written < 0 && errno == EINTR);
    // It is this thread's, and stays for as long as it is blocked, even where it is ignored.
    if (written < 0 && errno == EPIPE && sigismember(&before, SIGPIPE) == 0)
        (void)sigtimedwait(&broken, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

mp_status mp_leash_arm(int file)
{
    if (fcntl(file, F_SETSIG, SIGKILL) != 0 || fcntl(file, F_SETOWN, getpid()) != 0)
        return MP_SYSTEM;
    int flags = fcntl(file, F_GETFL);
    if (flags < 0 || fcntl(file, F_SETFL, flags | O_ASYNC | O_NONBLOCK) != 0)
        return MP_SYSTEM;
    // After arming, not before: a parent that dies between would be missed by both.
    char byte;
    if (read(file, &byte, 1) < 0)
        return errno == EAGAIN ? MP_OK : MP_SYSTEM;
    kill(getpid(), SIGKILL);
    return MP_OK;
}
