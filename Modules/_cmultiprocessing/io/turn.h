// SPDX-License-Identifier: PSF-2.0
/* Whose turn it is among the threads of a process that share one end of a connection: a whole frame is
 * sent, or received, in one turn. In private memory; a forked child, where the thread whose turn it was
 * does not exist, finds it free.
 *
 *     if (!mp_turn_try(&turn))
 *         status = mp_turn_wait(&turn, deadline);       // without the GIL
 *     ...
 *     mp_turn_end(&turn); */
#ifndef MP_IO_TURN_H
#define MP_IO_TURN_H

#include "os/os.h" // mp_time

/* word: [fork count:30][somebody may sleep:1][taken:1]. A taken word of another fork count is that of a
 * thread of the parent process: free. */
typedef struct mp_turn {
    uint32_t word;
} mp_turn;

/* May be called with the GIL held. */
bool mp_turn_try(mp_turn *turn);

/* MP_OK: it is ours. MP_TIMEOUT. MP_INTERRUPTED: look at signals and call again. */
mp_status mp_turn_wait(mp_turn *turn, mp_time deadline);

void mp_turn_end(mp_turn *turn);

#endif
