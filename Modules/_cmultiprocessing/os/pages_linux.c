// SPDX-License-Identifier: PSF-2.0
/* proc_pid_maps(5), proc_pid_pagemap(5), madvise(2). */
#include "os/pages.h" // the contract

#include <errno.h>    // errno
#include <fcntl.h>    // open
#include <stdio.h>    // fopen
#include <stdlib.h>   // malloc
#include <string.h>   // memchr
#include <sys/mman.h> // madvise
#include <unistd.h>   // pread

#ifndef MADV_POPULATE_READ // of Linux 5.14; older C libraries do not know them
# define MADV_POPULATE_READ 22
# define MADV_POPULATE_WRITE 23
#endif

#define PRESENT (UINT64_C(1) << 63)
#define EXCLUSIVE (UINT64_C(1) << 56)

enum {
    PAGE = 4096,
    BATCH = 2048,                     // entries of pagemap read at once
    LARGEST_AREA = (64 << 20) / PAGE, // pages; larger ones are data of this process alone
    MOST_PAGES = (256 << 20) / PAGE   // looked at: nobody waits for more
};

struct reader {
    int pagemap;
    uint64_t *entries; // BATCH of them
    uint64_t budget;   // how many may still be read
};

static mp_status open_reader(struct reader *reader)
{
    if (sysconf(_SC_PAGESIZE) != PAGE) {
        errno = ENOTSUP;
        return MP_SYSTEM;
    }
    reader->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (reader->pagemap < 0)
        return MP_SYSTEM;
    reader->budget = MOST_PAGES;
    reader->entries = malloc(BATCH * sizeof *reader->entries);
    if (reader->entries != NULL)
        return MP_OK;
    close(reader->pagemap);
    return MP_NO_MEMORY;
}

static void close_reader(struct reader *reader)
{
    free(reader->entries);
    close(reader->pagemap);
}

/* How many entries from `start` on are there in reader->entries. */
static size_t read_entries(struct reader *reader, uint64_t start, uint64_t pages)
{
    if (pages > reader->budget)
        pages = reader->budget;
    size_t wanted = pages < BATCH ? (size_t)pages : BATCH;
    reader->budget -= wanted;
    ssize_t got = pread(reader->pagemap, reader->entries, wanted * sizeof(uint64_t),
                        (off_t)(start / PAGE * sizeof(uint64_t)));
    return got < 0 ? 0 : (size_t)got / sizeof(uint64_t);
}

static void add_page(mp_span_list *list, uint64_t address, uint32_t writable)
{
    mp_span *last = list->count > 0 ? &list->spans[list->count - 1] : NULL;
    if (last != NULL && last->start + (uint64_t)last->pages * PAGE == address &&
        last->writable == writable)
        last->pages++;
    else if (list->count < list->room)
        list->spans[list->count++] = (mp_span){address, 1, writable};
}

/* Add the pages of [start, start + pages) whose entries have all of `bits`. */
static void add_area(struct reader *reader, mp_span_list *list, mp_span area, uint64_t bits)
{
    for (uint64_t done = 0; done < area.pages;) {
        uint64_t start = area.start + done * PAGE;
        size_t count = read_entries(reader, start, area.pages - done);
        if (count == 0)
            return; // the area is gone, or enough was read
        for (size_t i = 0; i < count; i++) {
            if ((reader->entries[i] & bits) == bits)
                add_page(list, start + i * PAGE, area.writable);
        }
        done += count;
    }
}

/* Whether a line of maps is an area of interest: private, readable, no part of the kernel. */
static bool parse_line(const char *line, mp_span *area)
{
    // start-end access offset device inode      name
    char *at;
    uint64_t start = strtoull(line, &at, 16);
    if (*at != '-')
        return false;
    uint64_t end = strtoull(at + 1, &at, 16);
    if (at[0] != ' ' || strnlen(at, 5) < 5)
        return false;
    const char *access = at + 1;
    uint64_t pages = (end - start) / PAGE;
    if (access[0] != 'r' || access[3] != 'p' || end < start || pages > LARGEST_AREA ||
        strstr(access, " [v") != NULL)
        return false;
    *area = (mp_span){start, (uint32_t)pages, access[1] == 'w'};
    return true;
}

mp_status mp_pages_used(mp_span_list *list)
{
    struct reader reader;
    list->count = 0;
    mp_status status = open_reader(&reader);
    if (status != MP_OK)
        return status;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        int saved = errno;
        close_reader(&reader);
        errno = saved;
        return MP_SYSTEM;
    }
    char line[512]; // longer ones have a long name: their rest is no line of its own
    bool begins = true;
    while (fgets(line, sizeof line, maps) != NULL) {
        mp_span area;
        if (begins && parse_line(line, &area))
            add_area(&reader, list, area, area.writable ? PRESENT | EXCLUSIVE : PRESENT);
        begins = strchr(line, '\n') != NULL;
    }
    fclose(maps);
    close_reader(&reader);
    return MP_OK;
}

mp_status mp_pages_keep_common(mp_span_list *list)
{
    struct reader reader;
    mp_span_list kept = {.spans = malloc(list->room * sizeof *list->spans), .room = list->room};
    if (kept.spans == NULL)
        return MP_NO_MEMORY;
    mp_status status = open_reader(&reader);
    if (status == MP_OK) {
        for (size_t i = 0; i < list->count; i++)
            add_area(&reader, &kept, list->spans[i], list->spans[i].writable ? PRESENT : 0);
        memcpy(list->spans, kept.spans, kept.count * sizeof *kept.spans);
        list->count = kept.count;
        close_reader(&reader);
    }
    free(kept.spans);
    return status;
}

void mp_pages_fetch(const mp_span *spans, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        void *start =
            (void *)(uintptr_t)spans[i].start; // NOLINT: that is what an address in a list is
        int advice = spans[i].writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
        if (madvise(start, (size_t)spans[i].pages * PAGE, advice) != 0 && errno == EINVAL)
            return;
    }
}
