// SPDX-License-Identifier: PSF-2.0
#include "shm/family.h" // the contract

#include "os/os.h"         // memory, fork
#include "shm/chunks.h"    // private state to drop in a child
#include "shm/processes.h" // slots

#include <errno.h>   // errno
#include <pthread.h> // the registry's lock
#include <stdlib.h>  // getenv
#include <string.h>  // memcpy

mp_family_handle mp_family = {.file = -1};

/* Guards mp_family and `pending`; held across a fork so that a child finds both whole. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;

/* What prepare_fork has made ready for the child that is about to be forked. */
static struct {
    int file;
    mp_owner owner;
} pending = {.file = -1};

static bool fork_handlers; // installed once per process tree; under registry_lock

static bool file_is_ours(int file)
{
    uint64_t device, inode, size;
    return mp_memory_identity(file, &device, &inode, &size) && device == mp_family.device &&
           inode == mp_family.inode;
}

/* Close a description of ours. Its number may have been closed and used again by the program. */
static void close_ours(int file)
{
    if (file_is_ours(file))
        mp_memory_close(file);
}

bool mp_family_has_file(void)
{
    return file_is_ours(mp_family.file);
}

/* Under registry_lock. A relative of the same user lends his descriptor of the same file. */
static bool borrow_file(void)
{
    uint32_t limit = mp_load_acquire32(&mp_family_shm()->slot_limit);
    for (uint32_t slot = 1; slot < limit && slot < MP_PROCESS_SLOTS; slot++) {
        const struct mp_process_shm *process = mp_process_at(slot);
        int file;
        if (process->in_use == 0 || process->pid == mp_process_id() ||
            mp_memory_borrow(process->pid, process->file, &file) != MP_OK)
            continue;
        if (file_is_ours(file)) {
            // Our slot's lock stays with the first description, which the anchor keeps.
            mp_family.file = file;
            if (*mp_family.self != MP_NOBODY)
                mp_process_at(mp_owner_slot(*mp_family.self))->file = (uint32_t)file;
            return true;
        }
        mp_memory_close(file);
    }
    return false;
}

bool mp_family_find_file(void)
{
    static uint64_t next_try; // ns; looking is not free, and mostly in vain where it failed once
    uint64_t now = (uint64_t)mp_clock_now();
    // A thread that forks holds the lock: nothing is known then, which means alive.
    if (now < mp_load_relaxed64(&next_try) || pthread_mutex_trylock(&registry_lock) != 0)
        return false;
    bool found = file_is_ours(mp_family.file) || borrow_file();
    if (!found)
        mp_store_relaxed64(&next_try, now + UINT64_C(1000) * MP_MILLISECOND);
    pthread_mutex_unlock(&registry_lock);
    return found;
}

/* ---- fork ---- */

/* Claim a slot through a description of its own, as a child of this process. */
static mp_status claim_child(bool forked, int *file, mp_owner *owner)
{
    if (!file_is_ours(mp_family.file) && !borrow_file()) {
        errno = EBADF;
        return MP_SYSTEM;
    }
    mp_status status = mp_memory_reopen(mp_family.file, file);
    if (status != MP_OK)
        return status;
    status = mp_process_claim(*file, *mp_family.self, forked, owner);
    if (status != MP_OK)
        mp_memory_close(*file);
    return status;
}

static void prepare_fork(void)
{
    pthread_mutex_lock(&registry_lock);
    mp_chunks_before_fork();
    pending.file = -1;
    if (mp_family.base == NULL || *mp_family.self == MP_NOBODY)
        return;
    // The child is in the table before it exists: an object retired meanwhile waits for it.
    // Without a slot (no descriptor left) it registers itself at its first use, or fails there.
    int file;
    mp_owner owner;
    if (claim_child(true, &file, &owner) == MP_OK) {
        pending.file = file;
        pending.owner = owner;
    }
}

static void parent_after_fork(void)
{
    // The child has the last copy now; if there is no child, this frees the slot.
    if (pending.file >= 0)
        mp_memory_close(pending.file);
    mp_chunks_after_fork(false);
    pthread_mutex_unlock(&registry_lock);
}

/* Become `owner` through `file`. */
static void settle(int file, mp_owner owner)
{
    mp_family.file = file;
    // Without the anchor a program that closes all descriptors would look dead: then better so.
    if (mp_memory_anchor(file, &mp_family.anchor) != MP_OK)
        mp_family.anchor = NULL;
    mp_process_at(mp_owner_slot(owner))->pid = mp_process_id();
    mp_process_at(mp_owner_slot(owner))->file = (uint32_t)file;
    *mp_family.self = owner;
}

static void child_after_fork(void)
{
    mp_chunks_after_fork(true);
    if (mp_family.base != NULL) {
        mp_family.anchor = NULL; // not mapped here
        if (pending.file >= 0) {
            // Our copy of the parent's description would keep his lock after his death.
            close_ours(mp_family.file);
            settle(pending.file, pending.owner);
        }
    }
    pthread_mutex_unlock(&registry_lock);
}

/* A child whose slot was not claimed before the fork (a raw clone, no descriptor left). */
static mp_status register_late(void)
{
    int file;
    mp_owner owner;
    if (!file_is_ours(mp_family.file) && !borrow_file()) {
        errno = EBADF;
        return MP_SYSTEM;
    }
    int inherited = mp_family.file;
    mp_status status = mp_memory_reopen(inherited, &file);
    if (status != MP_OK)
        return status;
    // Its parent is unknown, so is what it inherited: it may know everything made so far.
    status = mp_process_claim(file, MP_NOBODY, false, &owner);
    if (status != MP_OK) {
        mp_memory_close(file);
        return status;
    }
    struct mp_process_shm *process = mp_process_at(mp_owner_slot(owner));
    for (int i = 0; i < MP_CHAIN; i++)
        process->chain[i] = process->birth;
    mp_store_release32(&process->links, MP_LINKS_OVERFLOW);
    mp_memory_close(inherited);
    mp_chunks_after_fork(true);
    settle(file, owner);
    return MP_OK;
}

/* ---- making and joining a family ---- */

static mp_status install_fork_handlers(void)
{
    if (fork_handlers)
        return MP_OK;
    mp_status status = mp_at_fork(prepare_fork, parent_after_fork, child_after_fork);
    fork_handlers = status == MP_OK;
    return status;
}

static uint64_t unit_count(uint64_t size)
{
    uint64_t units = (size - MP_UNITS_AT) / (MP_UNIT + sizeof(struct mp_unit_shm));
    return units - 1; // the heap begins at the next whole unit
}

static uint64_t heap_offset(uint64_t units)
{
    uint64_t end = MP_UNITS_AT + units * sizeof(struct mp_unit_shm);
    return (end + MP_UNIT - 1) / MP_UNIT * MP_UNIT;
}

static uint64_t configured_limit(void)
{
    const char *text = getenv("CMULTIPROCESSING_MEMORY_LIMIT");
    return text != NULL && text[0] >= '1' && text[0] <= '9' ? strtoull(text, NULL, 10) : UINT64_MAX;
}

static void write_header(uint64_t size)
{
    struct mp_family_shm *family = mp_family_shm();
    family->format = MP_FORMAT;
    mp_random_bytes(family->id, sizeof family->id);
    family->size = size;
    family->units = unit_count(size);
    family->heap = heap_offset(family->units);
    family->memory_limit = configured_limit();
    family->slot_limit = 1;
    mp_store_release64(&family->magic, MP_MAGIC); // SYNC: family ready
}

static mp_status remember_file(int file, uint64_t *size)
{
    return mp_memory_identity(file, &mp_family.device, &mp_family.inode, size) ? MP_OK : MP_SYSTEM;
}

static mp_status map_through(int file, uint64_t size, uint64_t least)
{
    void *base;
    mp_status status;
    do {
        status = mp_memory_map(file, size, &base);
        if (status == MP_OK) {
            mp_family.base = base;
            mp_family.mapped = size;
            return MP_OK;
        }
        size = size / 2 / MP_UNIT * MP_UNIT;
    } while (size >= least);
    return errno == ENOMEM ? MP_NO_SPACE : status;
}

/* Map as much of the file as the address space allows, at least `least`. A mapping keeps the description
 * that it was made through, and forked children inherit it: through the one whose lock says that this
 * process lives, it would seem to live as long as any child of it does. */
static mp_status map_some(int file, uint64_t size, uint64_t least)
{
    int other;
    mp_status status = mp_memory_reopen(file, &other);
    if (status != MP_OK)
        return status;
    status = map_through(other, size, least);
    int saved = errno;
    mp_memory_close(other);
    errno = saved;
    return status;
}

static void forget(void)
{
    if (mp_family.base != NULL)
        mp_memory_unmap(mp_family.base, mp_family.mapped);
    if (mp_family.self != NULL)
        mp_memory_unmap(mp_family.self, MP_UNIT);
    mp_family = (mp_family_handle){.file = -1};
}

#define LEAST_MEMORY (UINT64_C(32) << 20)

static mp_status create_file(uint64_t *size, int *file)
{
    mp_status status;
    // A process may be refused a large file (RLIMIT_FSIZE) or a large mapping (RLIMIT_AS).
    *size = mp_memory_total() / MP_UNIT * MP_UNIT * 2;
    do {
        status = mp_memory_create("cmultiprocessing", *size, file);
        if (status != MP_OK && errno != EFBIG && errno != EINVAL)
            return status;
        if (status == MP_OK) {
            void *probe;
            if (mp_memory_map(*file, *size, &probe) == MP_OK) {
                mp_memory_unmap(probe, *size);
                return MP_OK;
            }
            mp_memory_close(*file);
            status = MP_NO_SPACE;
        }
        *size = *size / 2 / MP_UNIT * MP_UNIT;
    } while (*size >= LEAST_MEMORY);
    return status;
}

static mp_status create_family(void)
{
    uint64_t size;
    int file;
    mp_owner owner;
    void *page;
    mp_status status = create_file(&size, &file);
    if (status != MP_OK)
        return status;
    if ((status = remember_file(file, &size)) != MP_OK ||
        (status = mp_memory_wiped_page(&page)) != MP_OK)
        goto fail;
    mp_family.self = page;
    if ((status = map_some(file, size, size)) != MP_OK)
        goto fail;
    mp_family.file = file;
    write_header(size);
    if ((status = mp_process_claim(file, MP_NOBODY, false, &owner)) != MP_OK ||
        (status = install_fork_handlers()) != MP_OK)
        goto fail;
    settle(file, owner);
    return MP_OK;
fail:;
    int saved = errno;
    forget();
    mp_memory_close(file);
    errno = saved;
    return status;
}

mp_status mp_family_start(void)
{
    pthread_mutex_lock(&registry_lock);
    mp_status status = mp_family.base == NULL ? create_family() : MP_OK;
    pthread_mutex_unlock(&registry_lock);
    return status;
}

mp_status mp_family_enter_slow(void)
{
    mp_status status = MP_OK;
    pthread_mutex_lock(&registry_lock);
    if (mp_family.base == NULL)
        status = create_family();
    else if (*mp_family.self == MP_NOBODY)
        status = register_late();
    pthread_mutex_unlock(&registry_lock);
    return status;
}

mp_status mp_family_reserve(int *file, struct mp_ticket *ticket)
{
    mp_owner owner;
    mp_status status = mp_family_enter();
    if (status != MP_OK)
        return status;
    pthread_mutex_lock(&registry_lock);
    status = claim_child(false, file, &owner);
    pthread_mutex_unlock(&registry_lock);
    if (status != MP_OK)
        return status;
    memset(ticket, 0, sizeof *ticket);
    memcpy(ticket->family, mp_family_shm()->id, sizeof ticket->family);
    ticket->format = MP_FORMAT;
    ticket->owner = owner;
    return MP_OK;
}

static bool header_fits(const struct mp_ticket *ticket, uint64_t size)
{
    const struct mp_family_shm *family = mp_family_shm();
    return mp_load_acquire64(&family->magic) == MP_MAGIC && // SYNC: family ready
           family->format == MP_FORMAT && family->size == size &&
           family->units == unit_count(size) && family->heap == heap_offset(family->units) &&
           memcmp(family->id, ticket->family, sizeof family->id) == 0;
}

static mp_status attach(int file, const struct mp_ticket *ticket)
{
    uint64_t size;
    void *page;
    mp_status status = remember_file(file, &size);
    if (status != MP_OK)
        return status;
    if (size < MP_UNITS_AT + 2 * MP_UNIT)
        return MP_FOREIGN;
    if ((status = mp_memory_wiped_page(&page)) != MP_OK)
        goto fail;
    mp_family.self = page;
    if ((status = map_some(file, size, MP_UNITS_AT + size / 128)) != MP_OK)
        goto fail;
    status = MP_FOREIGN;
    if (!header_fits(ticket, size))
        goto fail;
    if ((status = install_fork_handlers()) != MP_OK)
        goto fail;
    settle(file, ticket->owner);
    return MP_OK;
fail:
    forget();
    return status;
}

/* A forked child of the fork server leaves the place it was forked into for the reserved one, and
 * keeps knowing what it inherited. */
static mp_status move(int file, const struct mp_ticket *ticket)
{
    struct mp_process_shm *to = mp_process_at(mp_owner_slot(ticket->owner));
    mp_owner old = *mp_family.self;
    if (!file_is_ours(file))
        return MP_FOREIGN;
    if (old != MP_NOBODY) {
        struct mp_process_shm *from = mp_process_at(mp_owner_slot(old));
        mp_store_release32(&to->links, MP_LINKS_PENDING);
        mp_process_inherit(to, from);
        mp_chunks_leave();
        mp_store_release32(&from->in_use, 0);
    }
    if (mp_family.anchor != NULL)
        mp_memory_unanchor(mp_family.anchor);
    close_ours(mp_family.file);
    settle(file, ticket->owner);
    return MP_OK;
}

mp_status mp_family_join(int file, const struct mp_ticket *ticket)
{
    mp_status status;
    pthread_mutex_lock(&registry_lock);
    uint32_t slot = mp_owner_slot(ticket->owner);
    if (ticket->format != MP_FORMAT || slot == 0)
        status = MP_FOREIGN;
    else if (mp_family.base == NULL)
        status = attach(file, ticket);
    else if (memcmp(mp_family_shm()->id, ticket->family, sizeof ticket->family) == 0)
        status = move(file, ticket);
    else
        status = MP_MISUSE;
    pthread_mutex_unlock(&registry_lock);
    return status;
}

void mp_family_leave(void)
{
    pthread_mutex_lock(&registry_lock);
    if (mp_family.base != NULL && *mp_family.self != MP_NOBODY) {
        mp_owner owner = *mp_family.self;
        mp_chunks_leave();
        mp_store_release32(&mp_process_at(mp_owner_slot(owner))->in_use, 0);
        if (file_is_ours(mp_family.file))
            mp_liveness_drop(mp_family.file, mp_owner_slot(owner));
        *mp_family.self = MP_NOBODY;
    }
    pthread_mutex_unlock(&registry_lock);
}
