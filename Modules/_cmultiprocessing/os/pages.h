// SPDX-License-Identifier: PSF-2.0
/* Which pages of memory a forked process made its own, so that the next one gets them before it is in a
 * hurry.
 *
 * A forked process copies each page at the first write, and looks up each page of a library at the
 * first use: about a microsecond each, several hundred times. Processes that are forked from the same
 * one, and do similar things, need the same pages. So one of them lists them at its end
 * (mp_pages_used), the process that forks keeps those that it has itself (mp_pages_keep_common), and
 * each later one fetches them (mp_pages_fetch) while nobody waits for it. A list that is wrong costs
 * time, nothing else. */
#ifndef MP_OS_PAGES_H
#define MP_OS_PAGES_H

#include "core/base.h" // mp_status

typedef struct mp_span {
    uint64_t start; // address
    uint32_t pages;
    uint32_t writable; // 1: to be copied; 0: to be looked up
} mp_span;

typedef struct mp_span_list {
    mp_span *spans; // the caller's
    size_t room;
    size_t count;
} mp_span_list;

/* List the private pages that this process uses and shares with no other, and those of files that it
 * has looked up; the first ones if there is no room for all.  MP_NO_MEMORY.  MP_SYSTEM: no /proc. */
mp_status mp_pages_used(mp_span_list *list);

/* Take out of the list what is to be copied, but is not there in this process.  As above. */
mp_status mp_pages_keep_common(mp_span_list *list);

/* Copy and look up the listed pages now. Spans that are not there any more are left out; a kernel
 * before 5.14 leaves out all. */
void mp_pages_fetch(const mp_span *spans, size_t count);

#endif
