// SPDX-License-Identifier: PSF-2.0
/* What the machine and the control groups above this process still allow: memory and CPUs.
 *
 * Sources: proc(5) for MemAvailable, cgroups(7) and the kernel's "Control Group v2" document for
 * memory.max, memory.current and cpu.max; the version 1 names beside them. A file that is missing or
 * says "max" does not limit. */
#include "core/atomic.h" // the cached answer
#include "os/os.h"       // the contract

#include <fcntl.h>  // open
#include <sched.h>  // sched_getaffinity
#include <stdio.h>  // snprintf
#include <stdlib.h> // strtoull
#include <string.h> // strstr
#include <unistd.h> // read

enum { PATH_ROOM = 1024, TEXT_ROOM = 4096 };

/* Read the beginning of a small file as text. False if there is none. */
static bool read_text(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, room - 1);
    close(fd);
    if (got <= 0)
        return false;
    text[got] = '\0';
    return true;
}

/* The number in DIR/NAME, UINT64_MAX if there is none or it says "max". */
static uint64_t read_number(const char *directory, const char *name)
{
    char path[PATH_ROOM + 64];
    char text[64];
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path ||
        !read_text(path, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

static uint64_t available_memory(void)
{
    char text[TEXT_ROOM];
    if (!read_text("/proc/meminfo", text, sizeof text))
        return UINT64_MAX;
    const char *line = strstr(text, "MemAvailable:");
    return line ? strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024 : UINT64_MAX;
}

/* Where one kind of control group keeps its limits. */
struct hierarchy {
    const char *marker; // in /proc/self/cgroup, before the path
    const char *mount;
};

typedef void (*visitor)(const char *directory, void *argument);

/* Call `visit` for the group of this process and for every group above it. */
static void visit_groups(const struct hierarchy *hierarchy, visitor visit, void *argument)
{
    char text[TEXT_ROOM];
    if (!read_text("/proc/self/cgroup", text, sizeof text))
        return;
    const char *found = strstr(text, hierarchy->marker);
    if (found == NULL)
        return;
    const char *group = found + strlen(hierarchy->marker);
    char path[PATH_ROOM];
    int length =
        snprintf(path, sizeof path, "%s%.*s", hierarchy->mount, (int)strcspn(group, "\n"), group);
    if (length < 0 || length >= (int)sizeof path)
        return;
    size_t root = strlen(hierarchy->mount);
    for (;;) {
        visit(path, argument);
        char *slash = strrchr(path + root, '/');
        if (slash == NULL)
            return;
        *slash = '\0';
    }
}

static const struct hierarchy UNIFIED = {"0::", "/sys/fs/cgroup"};
static const struct hierarchy MEMORY_V1 = {":memory:", "/sys/fs/cgroup/memory"};
static const struct hierarchy CPU_V1 = {":cpu,cpuacct:", "/sys/fs/cgroup/cpu,cpuacct"};

/* What must stay untaken below a limit: a 128th, at least 32 MiB, but never more than a 16th. */
static uint64_t reserve_below(uint64_t limit)
{
    uint64_t part = limit / 128;
    uint64_t least = limit / 16 < UINT64_C(32) << 20 ? limit / 16 : UINT64_C(32) << 20;
    return part > least ? part : least;
}

static uint64_t above(uint64_t value, uint64_t floor)
{
    return value > floor ? value - floor : 0;
}

static void tighten(mp_memory_allowance *allowance, uint64_t limit, uint64_t left, const char *name)
{
    uint64_t usable = above(left, reserve_below(limit));
    if (usable < allowance->bytes)
        *allowance = (mp_memory_allowance){.bytes = usable, .limit = limit, .name = name};
}

/* The sum of some lines "NAME NUMBER" of DIR/memory.stat. */
static uint64_t read_statistics(const char *directory, const char *const *names)
{
    char path[PATH_ROOM + 64];
    char text[2 * TEXT_ROOM];
    uint64_t sum = 0;
    if (snprintf(path, sizeof path, "%s/memory.stat", directory) >= (int)sizeof path ||
        !read_text(path, text, sizeof text))
        return 0;
    for (; *names != NULL; names++) {
        // The name at the beginning of a line, with its blank.
        for (const char *at = strstr(text, *names); at != NULL; at = strstr(at + 1, *names)) {
            if (at == text || at[-1] == '\n') {
                sum += strtoull(at + strlen(*names), NULL, 10);
                break;
            }
        }
    }
    return sum;
}

/* A group's limit. What caches of files hold counts as used there, and is given up when needed. */
static void visit_memory(mp_memory_allowance *allowance, const char *directory,
                         const char *limit_name, const char *used_name, const char *const *caches)
{
    uint64_t limit = read_number(directory, limit_name);
    if (limit >= UINT64_C(1) << 60) // none; version 1 says so with a huge number
        return;
    uint64_t used = read_number(directory, used_name);
    uint64_t left =
        used == UINT64_MAX ? 0 : above(limit, above(used, read_statistics(directory, caches)));
    tighten(allowance, limit, left, limit_name);
}

static void visit_memory_unified(const char *directory, void *argument)
{
    static const char *const caches[] = {"inactive_file ", "active_file ", NULL};
    visit_memory(argument, directory, "memory.max", "memory.current", caches);
}

static void visit_memory_v1(const char *directory, void *argument)
{
    static const char *const caches[] = {"total_inactive_file ", "total_active_file ", NULL};
    visit_memory(argument, directory, "memory.limit_in_bytes", "memory.usage_in_bytes", caches);
}

mp_memory_allowance mp_memory_allowed(void)
{
    mp_memory_allowance allowance = {.bytes = UINT64_MAX, .limit = UINT64_MAX, .name = ""};
    tighten(&allowance, mp_memory_total(), available_memory(), "MemAvailable");
    visit_groups(&UNIFIED, visit_memory_unified, &allowance);
    visit_groups(&MEMORY_V1, visit_memory_v1, &allowance);
    return allowance;
}

static void visit_cpu_unified(const char *directory, void *argument)
{
    char path[PATH_ROOM + 64];
    char text[64];
    if (snprintf(path, sizeof path, "%s/cpu.max", directory) >= (int)sizeof path ||
        !read_text(path, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return;
    char *rest;
    uint64_t quota = strtoull(text, &rest, 10);
    uint64_t period = strtoull(rest, NULL, 10);
    if (quota <= period)
        *(bool *)argument = false;
}

static void visit_cpu_v1(const char *directory, void *argument)
{
    uint64_t quota = read_number(directory, "cpu.cfs_quota_us");
    if (quota != UINT64_MAX && quota <= read_number(directory, "cpu.cfs_period_us"))
        *(bool *)argument = false;
}

static bool more_than_one_cpu(void)
{
    cpu_set_t cpus;
    // Fails only where there are more CPUs than the set has room for.
    bool several = sched_getaffinity(0, sizeof cpus, &cpus) != 0 || CPU_COUNT(&cpus) > 1;
    if (several) {
        visit_groups(&UNIFIED, visit_cpu_unified, &several);
        visit_groups(&CPU_V1, visit_cpu_v1, &several);
    }
    return several;
}

/* Asking costs tens of microseconds and the answer changes rarely: kept for a second. */
bool mp_spinning_pays(void)
{
    static uint64_t kept; // [time in 2**30 ns, about seconds:62][unused:1][answer:1]; atomic
    uint64_t now = (uint64_t)mp_clock_now() >> 30;
    uint64_t known = mp_load_relaxed64(&kept);
    if (known >> 2 != now + 1) {
        known = (now + 1) << 2 | (more_than_one_cpu() ? 1U : 0U);
        mp_store_relaxed64(&kept, known);
    }
    return known & 1U;
}
