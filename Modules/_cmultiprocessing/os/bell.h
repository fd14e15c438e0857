// SPDX-License-Identifier: PSF-2.0
/* A descriptor that is readable while something holds, kept so by a native thread.
 *
 *     mp_bell_open(&bell, work, context, NULL); // starts a thread: work(context), signals blocked
 *     mp_bell_set(bell, is_ready, context);   // readable or not, as is_ready says under the bell's lock
 *     mp_bell_close(bell);                    // after work() was told to return: joins it
 *
 * The lock makes the last look the one that counts: whoever changes what is_ready looks at calls
 * mp_bell_set afterwards, and an older look cannot overtake it. */
#ifndef MP_OS_BELL_H
#define MP_OS_BELL_H

#include "core/base.h" // mp_status

typedef struct mp_bell mp_bell;

/* `shown`: NULL, or a word that is 1 only while the descriptor is readable, for other processes to see.
 * MP_SYSTEM with errno: no descriptor or no thread is left; MP_NO_MEMORY. */
mp_status mp_bell_open(mp_bell **result, void (*work)(void *context), void *context,
                       uint32_t *shown);

int mp_bell_descriptor(const mp_bell *bell);

/* Returns what is_ready said. */
bool mp_bell_set(mp_bell *bell, bool (*is_ready)(void *context), void *context);

void mp_bell_close(mp_bell *bell);

/* In a forked child, which has the descriptor but neither the thread nor a sane lock: close only. */
void mp_bell_abandon(mp_bell *bell);

#endif
