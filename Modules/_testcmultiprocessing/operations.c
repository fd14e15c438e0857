// SPDX-License-Identifier: PSF-2.0
#include "operations.h"

#include "structures/parcels.h" // what the collector must know
#include "structures/ring.h"    // the same
#include "sync/condition.h"     // the same

const struct operation *const operation_tables[] = {
    operations_toy,   operations_family, operations_chunks,    operations_objects,
    operations_mutex, operations_lock,   operations_semaphore, operations_condition,
    operations_ring,  operations_blocks, operations_parcels,   NULL,
};

mp_time soon(unsigned milliseconds)
{
    return mp_clock_now() + (mp_time)milliseconds * MP_MILLISECOND;
}

void wait_value(unsigned index)
{
    while (scene.shared->value[index] == 0)
        trace_nap(20);
}

void operations_init(void)
{
    mp_ring_init();
    mp_parcels_init();
    mp_condition_setup();
}
