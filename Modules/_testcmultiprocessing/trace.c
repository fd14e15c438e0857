// SPDX-License-Identifier: PSF-2.0
#include "trace.h"

#include <errno.h>       // errno
#include <fcntl.h>       // open
#include <signal.h>      // SIGTRAP
#include <stddef.h>      // offsetof
#include <stdio.h>       // snprintf
#include <stdlib.h>      // exit codes
#include <string.h>      // strrchr
#include <sys/prctl.h>   // die with the driver
#include <sys/ptrace.h>  // the tracer
#include <sys/syscall.h> // SYS_execve
#include <sys/uio.h>     // struct iovec
#include <sys/user.h>    // registers
#include <sys/wait.h>    // waitpid
#include <time.h>        // nanosleep
#include <unistd.h>      // fork
#include <elf.h>         // NT_PRSTATUS

const char *const trace_ending_names[TRACE_ENDINGS] = {"kill", "zombie", "exec", "stop"};

/* ---- the processor ---- */

/* Two markers that a tracer notices: the operation runs between them. */
void trace_mark_begin(void);
void trace_mark_end(void);

#if defined(__x86_64__)

__asm__(".text\n"
        ".globl trace_mark_begin\n.type trace_mark_begin, @function\n"
        "trace_mark_begin:\n int3\n ret\n"
        ".globl trace_mark_end\n.type trace_mark_end, @function\n"
        "trace_mark_end:\n int3\n ret\n");

# define BREAKPOINT UINT64_C(0xcc)
# define BREAKPOINT_MASK UINT64_C(0xff)
# define BREAKPOINT_SIZE 1 // how far the program counter is behind a breakpoint that was hit

typedef struct user_regs_struct registers;

static uintptr_t registers_pc(const registers *r)
{
    return r->rip;
}

static void registers_set_pc(registers *r, uintptr_t pc)
{
    r->rip = pc;
}

static void registers_set_call(registers *r, long number, const void *a, const void *b,
                               const void *c)
{
    r->rax = (unsigned long long)number;
    r->orig_rax = (unsigned long long)-1; // no system call is to be restarted
    r->rdi = (uintptr_t)a;
    r->rsi = (uintptr_t)b;
    r->rdx = (uintptr_t)c;
}

bool trace_is_system_call(uintptr_t address)
{
    const unsigned char *code = (const unsigned char *)address;
    return code[0] == 0x0f && code[1] == 0x05;
}

__asm__(".text\n.globl trace_system_call\ntrace_system_call:\n syscall\n int3\n");

#elif defined(__aarch64__)

/* Exclusive loads and stores never succeed when stepped: build with -moutline-atomics (the default)
 * on a processor with LSE, where an atomic is one instruction. */
__asm__(".text\n"
        ".globl trace_mark_begin\n.type trace_mark_begin, %function\n"
        "trace_mark_begin:\n brk #0\n ret\n"
        ".globl trace_mark_end\n.type trace_mark_end, %function\n"
        "trace_mark_end:\n brk #0\n ret\n");

# define BREAKPOINT UINT64_C(0xd4200000)
# define BREAKPOINT_MASK UINT64_C(0xffffffff)
# define BREAKPOINT_SIZE 0

typedef struct user_regs_struct registers;

static uintptr_t registers_pc(const registers *r)
{
    return r->pc;
}

static void registers_set_pc(registers *r, uintptr_t pc)
{
    r->pc = pc;
}

static void registers_set_call(registers *r, long number, const void *a, const void *b,
                               const void *c)
{
    r->regs[8] = (unsigned long long)number;
    r->regs[0] = (uintptr_t)a;
    r->regs[1] = (uintptr_t)b;
    r->regs[2] = (uintptr_t)c;
}

bool trace_is_system_call(uintptr_t address)
{
    return *(const uint32_t *)address == 0xd4000001U;
}

__asm__(".text\n.globl trace_system_call\ntrace_system_call:\n svc #0\n brk #0\n");

#else
# error "the stepper knows x86-64 and aarch64"
#endif

void trace_system_call(void);

/* ---- what went wrong ---- */

static char lost[200];

const char *trace_lost(void)
{
    return lost;
}

static enum trace_stop lose(const char *what, int number)
{
    snprintf(lost, sizeof lost, "%s %d", what, number);
    return TRACE_LOST;
}

/* The driver cannot go on: its own tools fail. */
static void give_up(const char *what)
{
    fprintf(stderr, "stepper: %s: %s\n", what, strerror(errno));
    _exit(2);
}

/* ---- registers and memory ---- */

static registers get_registers(pid_t pid)
{
    registers r;
    struct iovec place = {&r, sizeof r};
    if (ptrace(PTRACE_GETREGSET, pid, (void *)NT_PRSTATUS, &place) != 0)
        give_up("cannot read registers");
    return r;
}

static void set_registers(pid_t pid, registers *r)
{
    struct iovec place = {r, sizeof *r};
    if (ptrace(PTRACE_SETREGSET, pid, (void *)NT_PRSTATUS, &place) != 0)
        give_up("cannot write registers");
}

uintptr_t trace_pc(pid_t pid)
{
    registers r = get_registers(pid);
    return registers_pc(&r);
}

static bool peek(pid_t pid, uintptr_t address, uint64_t *word)
{
    errno = 0;
    long value = ptrace(PTRACE_PEEKTEXT, pid, (void *)address, NULL);
    *word = (uint64_t)value;
    return errno == 0;
}

static bool poke(pid_t pid, uintptr_t address, uint64_t word)
{
    return ptrace(PTRACE_POKETEXT, pid, (void *)address, (void *)word) == 0;
}

/* ---- waiting ---- */

void trace_nap(unsigned microseconds)
{
    struct timespec time = {microseconds / 1000000, (long)(microseconds % 1000000) * 1000};
    nanosleep(&time, NULL);
}

bool trace_asleep(pid_t pid)
{
    char path[64];
    char text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    if (got <= 0)
        return false;
    text[got] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end != NULL && name_end[1] == ' ' && name_end[2] == 'S';
}

static bool stopped_by_child_signal;

static enum trace_stop classify(int status)
{
    if (WIFEXITED(status))
        return lose("the traced process exited with code", WEXITSTATUS(status));
    if (WIFSIGNALED(status))
        return lose("the traced process was ended by signal", WTERMSIG(status));
    stopped_by_child_signal = WSTOPSIG(status) == SIGCHLD;
    if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGCHLD)
        return lose("the operation raised signal", WSTOPSIG(status));
    return TRACE_STOPPED;
}

/* Wait for the next stop; whenever the child sleeps in the kernel, ask the waker. */
static enum trace_stop wait_stop(pid_t pid, trace_waker *waker)
{
    int status;
    bool wakeable = waker != NULL;
    for (unsigned round = 0;; round++) {
        pid_t got = waitpid(pid, &status, wakeable ? WNOHANG : 0);
        if (got == pid)
            return classify(status);
        if (got < 0 && errno != EINTR)
            give_up("cannot wait for the traced process");
        if (!wakeable || round < 20)
            continue;
        trace_nap(50);
        /* Looked at twice: it may have slept for another reason, such as the lock of its memory map. */
        if (trace_asleep(pid) && waitpid(pid, &status, WNOHANG) == 0) {
            trace_nap(100);
            if (trace_asleep(pid))
                wakeable = waker();
        }
    }
}

/* A signal that the operation does not care about stops it before its next instruction: again. */
static enum trace_stop go_on(pid_t pid, enum __ptrace_request how, trace_waker *waker)
{
    enum trace_stop stop;
    do {
        stopped_by_child_signal = false;
        if (ptrace(how, pid, NULL, NULL) != 0)
            give_up("cannot let the traced process go on");
        stop = wait_stop(pid, waker);
    } while (stopped_by_child_signal);
    return stop;
}

/* ---- the child ---- */

static void child_main(void (*prepare)(void), void (*body)(void))
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prepare();
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        give_up("cannot be traced");
    trace_mark_begin();
    body();
    trace_mark_end();
    _exit(0);
}

enum trace_stop trace_start(bool raw, void (*prepare)(void), void (*body)(void), pid_t *pid)
{
    *pid = raw ? _Fork() : fork();
    if (*pid < 0)
        give_up("fork");
    if (*pid == 0)
        child_main(prepare, body);
    enum trace_stop stop = wait_stop(*pid, NULL);
    if (stop != TRACE_STOPPED)
        return stop;
    if (ptrace(PTRACE_SETOPTIONS, *pid, NULL, (void *)PTRACE_O_EXITKILL) != 0)
        give_up("PTRACE_O_EXITKILL");
    registers r = get_registers(*pid);
    if (registers_pc(&r) == (uintptr_t)trace_mark_begin) { // where a breakpoint is not stepped over
        registers_set_pc(&r, registers_pc(&r) + 4);
        set_registers(*pid, &r);
    }
    return TRACE_STOPPED;
}

enum trace_stop trace_step(pid_t pid, trace_waker *waker)
{
    uintptr_t before = trace_pc(pid);
    if (before == (uintptr_t)trace_mark_end)
        return TRACE_DONE;
    enum trace_stop stop =
        go_on(pid, PTRACE_SINGLESTEP, trace_is_system_call(before) ? waker : NULL);
    if (stop == TRACE_STOPPED && trace_pc(pid) == (uintptr_t)trace_mark_end)
        return TRACE_DONE;
    return stop;
}

enum trace_stop trace_run_to(pid_t pid, uintptr_t address, trace_waker *waker)
{
    uint64_t original;
    if (trace_pc(pid) == address)
        return TRACE_STOPPED;
    if (!peek(pid, address, &original) ||
        !poke(pid, address, (original & ~BREAKPOINT_MASK) | BREAKPOINT))
        return lose("no breakpoint can be set, errno", errno);
    enum trace_stop stop = go_on(pid, PTRACE_CONT, waker);
    if (stop != TRACE_STOPPED)
        return stop;
    registers r = get_registers(pid);
    uintptr_t hit = registers_pc(&r) - BREAKPOINT_SIZE;
    registers_set_pc(&r, hit);
    set_registers(pid, &r);
    if (!poke(pid, address, original))
        give_up("cannot remove a breakpoint");
    if (hit == (uintptr_t)trace_mark_end)
        return TRACE_DONE;
    return hit == address ? TRACE_STOPPED : lose("stopped elsewhere, signal", SIGTRAP);
}

enum trace_stop trace_run(pid_t pid, trace_waker *waker)
{
    if (trace_pc(pid) == (uintptr_t)trace_mark_end)
        return TRACE_DONE;
    enum trace_stop stop = go_on(pid, PTRACE_CONT, waker);
    return stop == TRACE_STOPPED ? TRACE_DONE : stop;
}

bool trace_fall_asleep(pid_t pid)
{
    int status;
    if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0)
        give_up("cannot step");
    for (unsigned round = 0; round < 200; round++) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return false;
        trace_nap(50);
        if (round >= 4 && trace_asleep(pid))
            return true;
    }
    return false;
}

/* ---- endings ---- */

static void become_another_program(pid_t pid)
{
    static const char program[] = "/proc/self/exe";
    static const char *const arguments[] = {"stepper", "--nothing", NULL};
    static const char *const environment[] = {NULL};
    registers r = get_registers(pid);
    registers_set_call(&r, SYS_execve, program, arguments, environment);
    registers_set_pc(&r, (uintptr_t)trace_system_call);
    set_registers(pid, &r);
    enum trace_stop stop = go_on(pid, PTRACE_CONT, NULL); // stops at its first instruction
    if (stop != TRACE_STOPPED || trace_pc(pid) == (uintptr_t)trace_system_call + 2)
        give_up("the traced process cannot exec");
}

static void kill_unseen(pid_t pid)
{
    siginfo_t how;
    if (kill(pid, SIGKILL) != 0)
        give_up("kill");
    /* The stop after a step may come first: wait for the death only. */
    while (waitid(P_PID, (id_t)pid, &how, WEXITED | WNOWAIT) != 0)
        if (errno != EINTR)
            give_up("waitid");
}

void trace_end(pid_t pid, enum trace_ending ending)
{
    switch (ending) {
    case TRACE_KILL:
        kill_unseen(pid);
        trace_bury(pid);
        break;
    case TRACE_ZOMBIE: kill_unseen(pid); break;
    case TRACE_EXEC: become_another_program(pid); break;
    case TRACE_STOP:
    case TRACE_ENDINGS: break;
    }
}

void trace_bury(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, __WALL) == pid)
        if (WIFEXITED(status) || WIFSIGNALED(status))
            return;
}
