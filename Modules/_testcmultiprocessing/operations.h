// SPDX-License-Identifier: PSF-2.0
/* Every table of operations, and what several of them share. */
#ifndef TESTCMP_OPERATIONS_H
#define TESTCMP_OPERATIONS_H

#include "os/os.h"   // deadlines
#include "stepper.h" // struct operation

extern const struct operation operations_toy[];
extern const struct operation operations_family[];
extern const struct operation operations_chunks[];
extern const struct operation operations_objects[];
extern const struct operation operations_mutex[];
extern const struct operation operations_lock[];
extern const struct operation operations_semaphore[];
extern const struct operation operations_condition[];
extern const struct operation operations_ring[];
extern const struct operation operations_blocks[];
extern const struct operation operations_parcels[];

/* A deadline this many milliseconds from now. */
mp_time soon(unsigned milliseconds);

/* The longest that a survivor may have to wait for what a dead process held. */
#define SURVIVOR_MILLISECONDS 1000

/* Nap until a shared value is not zero. For children and helpers, which the driver's watchdog ends. */
void wait_value(unsigned index);

#endif
