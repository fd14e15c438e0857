// SPDX-License-Identifier: PSF-2.0
/* A forked child that runs one instruction at a time.
 *
 *     pid_t pid;
 *     if (trace_start(false, prepare, body, &pid) != TRACE_STOPPED) ...
 *     while ((stop = trace_step(pid, nobody)) == TRACE_STOPPED)
 *         uintptr_t at = trace_pc(pid);
 *     trace_end(pid, TRACE_KILL);
 *
 * The child is a fork of the driver, so an address means the same in both; it stands between the two
 * markers of trace.c. All that depends on the processor is in trace.c. */
#ifndef TESTCMP_TRACE_H
#define TESTCMP_TRACE_H

#include <stdbool.h>   // bool
#include <stdint.h>    // uintptr_t
#include <sys/types.h> // pid_t

enum trace_stop {
    TRACE_STOPPED, // before an instruction of the operation
    TRACE_DONE,    // the operation has returned
    TRACE_LOST,    // the child ended or crashed; trace_lost() says how
};

/* How a child ends. */
enum trace_ending {
    TRACE_KILL,   // SIGKILL, and its parent takes notice
    TRACE_ZOMBIE, // SIGKILL, and nobody takes notice before the survivors are done
    TRACE_EXEC,   // it becomes another program: the process lives, what it was is gone
    TRACE_STOP,   // it stands still, alive, and goes on when the survivors had their turn
    TRACE_ENDINGS,
};

extern const char *const trace_ending_names[TRACE_ENDINGS];

/* Called when the child sleeps in a system call; may make it go on. False: nothing to be done. */
typedef bool trace_waker(void);

/* Fork (`raw`: without at-fork handlers), and run `prepare` and then `body` in the child up to the
 * begin marker between them. */
enum trace_stop trace_start(bool raw, void (*prepare)(void), void (*body)(void), pid_t *pid);

/* One instruction. A system call counts as one; `waker` is asked whenever it sleeps in it. */
enum trace_stop trace_step(pid_t pid, trace_waker *waker);

/* Go on to `address`. TRACE_DONE when the operation returns without passing there. */
enum trace_stop trace_run_to(pid_t pid, uintptr_t address, trace_waker *waker);

/* Go on until the operation returns. */
enum trace_stop trace_run(pid_t pid, trace_waker *waker);

/* Begin the system call in front of which the child stands, and return once it sleeps in it.
 * False: it does not sleep; the child stands behind the call. */
bool trace_fall_asleep(pid_t pid);

/* Is the instruction at this address a system call? */
bool trace_is_system_call(uintptr_t address);

uintptr_t trace_pc(pid_t pid);

/* End the child; TRACE_STOP only leaves it where it is. */
void trace_end(pid_t pid, enum trace_ending ending);

/* Take notice of a child that was ended as ZOMBIE or EXEC. */
void trace_bury(pid_t pid);

/* Why the last TRACE_LOST: a sentence. */
const char *trace_lost(void);

/* Does a process sleep in the kernel? (Not: does it stand in front of a tracer.) */
bool trace_asleep(pid_t pid);

/* Sleep for this many microseconds. */
void trace_nap(unsigned microseconds);

#endif
