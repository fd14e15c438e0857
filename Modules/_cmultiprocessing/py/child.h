// SPDX-License-Identifier: PSF-2.0
/* The fixed parts of a child's life, for the ways in which one begins. */
#ifndef MP_PY_CHILD_H
#define MP_PY_CHILD_H

#include "py/state.h" // names

/* What goes through the pipe between a child of the fork server, the server, and who asked for the child
 * (Lib/cmultiprocessing/_requests.py says who sends what). */
typedef enum mp_report_kind {
    MP_REPORT_STARTED = 1,
    MP_REPORT_LEAVING = 2,
    MP_REPORT_ENDED = 3,
    MP_REPORT_REFUSED = 4,
} mp_report_kind;

/* A report: kind (one byte), process, exit code or errno (each int32_t), no padding. */
#define MP_REPORT_SIZE 9
#define MP_REPORT_PROCESS_AT 1
#define MP_REPORT_VALUE_AT 5

/* Where nobody who knows the exit code is alive. asyncio says the same. */
#define MP_UNKNOWN_EXIT_CODE 255

/* Nobody may be there to read it: then nobody is interested. */
void mp_report(int status_file, mp_report_kind kind, int32_t process, int32_t value);

/* Write out what stdout and stderr hold. -1 with an exception set: it is lost. */
int mp_child_flush(mp_state *state);

/* os.fork, by the name that programs replace. -1 with an exception set. */
long mp_child_fork(mp_state *state);

/* bootstrap(parent_sentinel=leash). Returns the exit code; nothing that it raises gets out. */
long mp_child_run(mp_state *state, PyObject *bootstrap, int leash);

/* The orderly end of this process. names: those of the module process. */
_Noreturn void mp_child_leave(mp_state *state, long code, PyObject *names);

#endif
