// SPDX-License-Identifier: PSF-2.0
#include "os/os.h" // the contract

#include <errno.h>        // EINTR
#include <fcntl.h>        // fcntl, seals
#include <stdio.h>        // snprintf
#include <sys/mman.h>     // memfd_create, mmap
#include <sys/resource.h> // RLIMIT_FSIZE
#include <sys/stat.h>     // fstat
#include <sys/sysinfo.h>  // sysinfo
#include <unistd.h>       // ftruncate, close

#define PAGE 4096U

mp_status mp_memory_create(const char *label, uint64_t size, int *file)
{
    int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return MP_SYSTEM;
    // A sealed file cannot shrink under a mapping, so an access below its size never gets SIGBUS.
    if (ftruncate(fd, (off_t)size) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return MP_SYSTEM;
    }
    *file = fd;
    return MP_OK;
}

static mp_status open_again(const char *path, int *other)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return MP_SYSTEM;
    *other = fd;
    return MP_OK;
}

mp_status mp_memory_reopen(int file, int *other)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return open_again(path, other);
}

mp_status mp_memory_borrow(uint32_t process, uint32_t number, int *other)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/fd/%u", process, number);
    return open_again(path, other);
}

void mp_memory_close(int file)
{
    close(file);
}

bool mp_memory_identity(int file, uint64_t *device, uint64_t *inode, uint64_t *size)
{
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0)
        return false;
    *device = (uint64_t)status.st_dev;
    *inode = (uint64_t)status.st_ino;
    *size = (uint64_t)status.st_size;
    return true;
}

mp_status mp_memory_map(int file, uint64_t size, void **address)
{
    void *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (mapping == MAP_FAILED)
        return MP_SYSTEM;
    (void)madvise(mapping, size, MADV_DONTDUMP); // advice: a core dump may only be larger
    *address = mapping;
    return MP_OK;
}

void mp_memory_unmap(void *address, uint64_t size)
{
    munmap(address, size);
}

mp_status mp_memory_anchor(int file, void **address)
{
    void *mapping = mmap(NULL, PAGE, PROT_NONE, MAP_SHARED, file, 0);
    if (mapping == MAP_FAILED)
        return MP_SYSTEM;
    if (madvise(mapping, PAGE, MADV_DONTFORK) != 0) {
        munmap(mapping, PAGE);
        return MP_SYSTEM;
    }
    *address = mapping;
    return MP_OK;
}

void mp_memory_unanchor(void *address)
{
    munmap(address, PAGE);
}

mp_status mp_memory_wiped_page(void **page)
{
    void *mapping = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        return MP_SYSTEM;
    if (madvise(mapping, PAGE, MADV_WIPEONFORK) != 0) {
        munmap(mapping, PAGE);
        return MP_SYSTEM;
    }
    *page = mapping;
    return MP_OK;
}

bool mp_memory_punch(void *address, uint64_t size)
{
    // Fails only for memory that is not shared, or under memory pressure; then the pages stay.
    return madvise(address, size, MADV_REMOVE) == 0;
}

void mp_memory_discard(void *address, uint64_t size)
{
    uintptr_t first = ((uintptr_t)address + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    uintptr_t last = ((uintptr_t)address + size) & ~(uintptr_t)(PAGE - 1);
    // Refused for locked memory: it stays as it is, and the peak is higher.
    if (last > first)
        (void)madvise((void *)first, last - first, MADV_DONTNEED);
}

uint64_t mp_memory_total(void)
{
    struct sysinfo info;
    if (sysinfo(&info) != 0)
        return UINT64_C(1) << 32;
    return (uint64_t)info.totalram * info.mem_unit;
}
