// SPDX-License-Identifier: PSF-2.0
/* What the layers above need from the operating system: one contract for every platform.
 *
 * The only folder with system calls or platform #ifdefs: NAME_linux.c is what a port replaces.
 * Times are nanoseconds on the monotonic clock; a deadline is absolute. */
#ifndef MP_OS_OS_H
#define MP_OS_OS_H

#include "core/base.h" // mp_status

/* ---- clock ---- */

typedef int64_t mp_time;

#define MP_FOREVER INT64_MAX // a deadline that never comes
#define MP_MILLISECOND 1000000

mp_time mp_clock_now(void);

/* ---- futex: sleep while a shared 32-bit word has a value ---- */

/* Sleep while *word == expected, until woken or until the deadline.
 * MP_OK: woken, or the word has another value (look at it again).
 * MP_TIMEOUT: the deadline passed.  MP_INTERRUPTED: a signal arrived. */
mp_status mp_futex_wait(uint32_t *word, uint32_t expected, mp_time deadline);

/* Wake up to `count` sleepers; returns how many slept. */
int mp_futex_wake(uint32_t *word, int count);

/* Store 0 into *word and wake up to `count` of its sleepers, in one step that no SIGKILL can split. */
int mp_futex_clear_and_wake(uint32_t *word, int count);

/* Add 1 to *word and wake up to `count` of its sleepers, in one step that no SIGKILL can split. */
int mp_futex_add_and_wake(uint32_t *word, int count);

/* May another CPU change a word while this one spins? Affinity and control group quota decide. */
bool mp_spinning_pays(void);

/* ---- liveness: a process lives while the kernel holds its lock on one byte of a file ---- */

/* Take the lock on byte `slot` through `file` (an open file description of this process alone).
 * MP_OK, or MP_WOULD_BLOCK when a living process has it. */
mp_status mp_liveness_hold(int file, uint32_t slot);

enum mp_liveness { MP_LIVENESS_FREE, MP_LIVENESS_HELD, MP_LIVENESS_UNKNOWN };

/* Is the lock on byte `slot` held by any other open file description than `file`? */
enum mp_liveness mp_liveness_query(int file, uint32_t slot);

/* Let go of byte `slot` held through `file`, for every process that shares the description. */
void mp_liveness_drop(int file, uint32_t slot);

/* ---- memory ---- */

/* A new anonymous file of `size` sparse bytes, sealed against shrinking, close-on-exec. */
mp_status mp_memory_create(const char *label, uint64_t size, int *file);

/* Another open file description of the same file, close-on-exec. */
mp_status mp_memory_reopen(int file, int *other);

/* The same of a file that another process of this user has open under this number. */
mp_status mp_memory_borrow(uint32_t process, uint32_t number, int *other);

void mp_memory_close(int file);

/* Which file is it? False when the descriptor is closed. */
bool mp_memory_identity(int file, uint64_t *device, uint64_t *inode, uint64_t *size);

/* Map the first `size` bytes shared, excluded from core dumps. */
mp_status mp_memory_map(int file, uint64_t size, void **address);
void mp_memory_unmap(void *address, uint64_t size);

/* Map one page that keeps the open file description of `file` alive while this process lives,
 * whatever happens to its descriptors, and that a forked child does not have. */
mp_status mp_memory_anchor(int file, void **address);
void mp_memory_unanchor(void *address);

/* One private page that a forked child sees as zeros. */
mp_status mp_memory_wiped_page(void **page);

/* Give the pages of [address, address + size) of a shared mapping back to the kernel; they read as
 * zeros afterwards. Page aligned. False: the kernel refused, they stay as they are. */
bool mp_memory_punch(void *address, uint64_t size);

/* The same for the whole pages within [address, address + size) of private memory, as malloc gives it. */
void mp_memory_discard(void *address, uint64_t size);

/* Bytes of memory of the machine, and of address space that this process may still reserve. */
uint64_t mp_memory_total(void);

/* What the machine and every control group above still allow, less a reserve so that whoever else
 * lives under the same limit keeps breathing. */
typedef struct mp_memory_allowance {
    uint64_t bytes;   // how much may still be taken
    uint64_t limit;   // the limit that binds
    const char *name; // "MemAvailable" or "memory.max"
} mp_memory_allowance;

mp_memory_allowance mp_memory_allowed(void);

/* ---- this process ---- */

uint32_t mp_process_id(void);
void mp_random_bytes(void *bytes, size_t count);

/* prepare, parent and child run around every fork(2) of libc in this process. */
mp_status mp_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

/* ---- descriptors that forked children do not keep ---- */

/* A pipe, both ends close-on-exec; every forked child closes the write end, ends[1].
 * MP_SYSTEM: no descriptor is left.  MP_NO_MEMORY. */
mp_status mp_private_pipe(int ends[2]);

/* Have every forked child close `file`. MP_NO_MEMORY. */
mp_status mp_private_keep(int file);

/* Close `file` if it is one of those; one that a fork closed already is left alone. */
void mp_private_close(int file);

/* ---- children of this process ---- */

/* A descriptor, close-on-exec, that is always ready for reading: a pipe without a writer. -1: none is left. */
int mp_ready_descriptor(void);

/* Reap a child that has ended, without waiting. MP_OK: *code is its exit code, or minus the signal that
 * killed it. MP_WOULD_BLOCK: it runs. MP_SYSTEM: errno; ECHILD: no child, or reaped by somebody else. */
mp_status mp_child_reap(uint32_t process, int *code);

/* Kill a child and reap it. */
void mp_child_end(uint32_t process);

/* A descriptor, close-on-exec, that is ready for reading when a child, which is not reaped, has ended.
 * -1: none is left. */
int mp_child_open(uint32_t process);

/* The exit code of a child that has ended, minus the signal that killed it; `unknown` where somebody
 * else took it. The child is not reaped: its number is nobody else's yet. */
int mp_child_exit_code(uint32_t process, int unknown);

/* Write at most PIPE_BUF bytes, all or nothing, to a pipe that perhaps nobody reads; no SIGPIPE comes of
 * that, whatever the program has that signal do. */
void mp_pipe_tell(int file, const void *bytes, size_t size);

/* Have the kernel kill this process, at any instruction, when no process has the other end of the
 * pipe `file` any more; at once if that is so now. `file` stays open until this process ends. */
mp_status mp_leash_arm(int file);

#endif
