// SPDX-License-Identifier: PSF-2.0
/* The stepper: kill a process after every instruction of an operation, and see what the others find.
 *
 * For each instruction: `setup` makes a fresh scene in the driver, a forked child runs `run` up to
 * that instruction and is ended there, and `survive` - in the driver, another member of the family -
 * uses what the child left, checks it with CHECK and gives everything back. Then the stepper compares
 * the heap with what it was before. See InternalDocs/crash_recovery.md.
 *
 * An operation is an entry of a table:
 *
 *     const struct operation operations_thing[] = {
 *         {.name = "thing-take", .setup = make, .run = take, .survive = look},
 *         {.name = NULL},
 *     };
 */
#ifndef TESTCMP_STEPPER_H
#define TESTCMP_STEPPER_H

#include "core/base.h" // mp_status
#include "trace.h"     // how a process ends

struct operation {
    const char *name;
    void (*setup)(void);   // in the driver
    void (*prepare)(void); // in the child, not stepped; NULL: enter the family only
    void (*run)(void);     // in the child, stepped
    bool (*wake)(void);    // in the driver, when the child sleeps in `run`; NULL: it never sleeps
    void (*alive)(void); // in the driver while the child stands still, alive: nobody may take over
    void (*survive)(void); // in the driver, after the end of the child
    bool outside;          // the child does not enter the family by itself before `run`
    bool raw_fork;         // forked behind the back of the at-fork handlers
    bool fault;            // a planted fault: run on request only, and expected to fail
    bool no_heap;          // does not use the heap, which is therefore not compared
};

extern const struct operation *const operation_tables[];

/* Called once in the driver, before the first operation. */
void operations_init(void);

/* ---- what an operation may know about the run ---- */

enum { HELPERS = 4 };

/* Shared with the child and with helpers; zeroed before each setup. */
struct scene_shared {
    volatile int64_t value[32];
    volatile uint32_t child; // who the child is in the family; 0: not in it when it began
    volatile uint32_t helper[HELPERS];
};

struct scene {
    struct scene_shared *shared;
    enum trace_ending ending;
    bool finished;  // the operation returned before its process ended
    unsigned wakes; // how often `wake` was called
    uint64_t run;   // different in each run
};

extern struct scene scene;

/* Fail unless the process that was this member of the family soon counts as dead. It does at once, but
 * for a moment when somebody looks at it in /proc while it dies: that keeps its memory map, and with
 * it the file whose lock says that it lives. */
void await_death(uint32_t owner);

/* ---- checks ---- */

void stepper_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Has this run failed already? What follows the first failure is noise. */
bool stepper_failed(void);

#define CHECK(condition, ...)                                                                      \
 do {                                                                                              \
  if (!(condition))                                                                                \
   stepper_fail(__FILE__, __LINE__, __VA_ARGS__);                                                  \
 } while (0)

/* For setup and prepare: without it the run means nothing. */
#define MUST(expression)                                                                           \
 do {                                                                                              \
  mp_status must_status = (expression);                                                            \
  if (must_status != MP_OK)                                                                        \
   stepper_abort(__FILE__, __LINE__, #expression, (int)must_status);                               \
 } while (0)

__attribute__((noreturn)) void stepper_abort(const char *file, int line, const char *what,
                                             int status);

/* ---- helpers: other processes of the family, not traced ---- */

/* Fork a helper that enters the family, runs `body` and exits. */
void helper_start(unsigned number, void (*body)(void));

/* Wait until a helper sleeps in the kernel. */
void helper_asleep(unsigned number);

/* Fail the run unless the helper has ended by itself within this time. */
void helper_join(unsigned number, unsigned milliseconds);

/* SIGSTOP: it does not run any more, and is alive. */
void helper_stop(unsigned number);

/* SIGKILL and take notice. */
void helper_kill(unsigned number);

/* Take notice of a helper that kills itself. */
void helper_must_die(unsigned number);

#ifdef MP_TESTING
/* In a helper: die at this injection point. */
void die_at(const char *point);
#endif

#endif
