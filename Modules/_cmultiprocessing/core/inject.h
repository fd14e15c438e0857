// SPDX-License-Identifier: PSF-2.0
/* Named injection points: places where a test can kill, stop or fail a process.
 *
 *     MP_INJECT("ring_put:before_commit");
 *
 * Empty unless the code is built with MP_TESTING; then a test sets mp_inject_hook, which is called
 * with the name of every point that is passed. MP_INJECT_FAIL is an expression: the status that the
 * hook asks for, MP_OK without one. */
#ifndef MP_CORE_INJECT_H
#define MP_CORE_INJECT_H

#include "core/base.h" // mp_status

#ifdef MP_TESTING
extern mp_status (*mp_inject_hook)(const char *name);
# define MP_INJECT_FAIL(name) (mp_inject_hook ? mp_inject_hook(name) : MP_OK)
# define MP_INJECT(name) ((void)MP_INJECT_FAIL(name))
#else
# define MP_INJECT_FAIL(name) MP_OK
# define MP_INJECT(name) ((void)0)
#endif

#endif
