// SPDX-License-Identifier: PSF-2.0
#include "core/inject.h" // the hook's declaration

#ifdef MP_TESTING
mp_status (*mp_inject_hook)(const char *name);
#else
typedef int mp_inject_is_empty; // ISO C wants a declaration in every file
#endif
