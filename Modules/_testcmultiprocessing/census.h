// SPDX-License-Identifier: PSF-2.0
/* The heap, counted: what is there after an operation must be what was there before. */
#ifndef TESTCMP_CENSUS_H
#define TESTCMP_CENSUS_H

/* Remember what the heap holds now. */
void census_begin(void);

/* Collect, count, and CHECK that the heap is sound and holds what it held. */
void census_check(void);

#endif
