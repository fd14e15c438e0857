// SPDX-License-Identifier: PSF-2.0
/* Every table of operations, and what several of them share. */
#ifndef TESTCMP_OPERATIONS_H
#define TESTCMP_OPERATIONS_H

#include "stepper.h" // struct operation

extern const struct operation operations_toy[];

#endif
