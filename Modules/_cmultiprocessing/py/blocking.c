// SPDX-License-Identifier: PSF-2.0
#include "py/blocking.h"

mp_status mp_blocking_run(mp_blocking_call call, void *context, mp_time deadline)
{
    for (;;) {
        mp_status status;
        Py_BEGIN_ALLOW_THREADS;
        status = call(context, deadline);
        Py_END_ALLOW_THREADS;
        if (status != MP_INTERRUPTED)
            return status;
        if (PyErr_CheckSignals() < 0)
            return MP_INTERRUPTED;
    }
}
