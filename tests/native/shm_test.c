// SPDX-License-Identifier: PSF-2.0
/* Family memory from inside: processes, mutex, chunks, objects, collector. */
#include "check.h" // CHECK

#include "shm/mutex.h"     // bit patterns
#include "shm/objects.h"   // objects
#include "shm/processes.h" // liveness
#include "shm/reclaim.h"   // collections

#include <pthread.h>     // threads
#include <sched.h>       // SIGCHLD for clone
#include <sys/mman.h>    // memory shared beside the family
#include <sys/stat.h>    // st_blocks
#include <sys/syscall.h> // raw fork

static void enter(void)
{
    CHECK(mp_family_enter() == MP_OK);
}

/* A page that parent and children share, outside of the family. */
static void *shared_page(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    return page;
}

static uint64_t resident(void)
{
    struct stat status;
    CHECK(fstat(mp_family.file, &status) == 0);
    return (uint64_t)status.st_blocks * 512;
}

static void await(const uint32_t *word, uint32_t value)
{
    while (mp_load_acquire32(word) != value)
        usleep(100);
}

/* ---- processes ---- */

struct member {
    mp_owner owner;
    uint32_t told;
};

static void tell_and_wait(void *argument)
{
    struct member *member = argument;
    enter();
    member->owner = mp_self();
    mp_store_release32(&member->told, 1);
    for (;;)
        pause();
}

static void family_start_is_idempotent(void)
{
    enter();
    mp_owner self = mp_self();
    char *base = mp_family.base;
    CHECK(mp_family_start() == MP_OK && mp_family.base == base && mp_self() == self);
    CHECK(!mp_owner_dead(self) && !mp_owner_dead(MP_DISOWNED));
}

static void killed_is_dead_before_it_is_reaped(void)
{
    struct member *member = shared_page();
    enter();
    pid_t pid = start(tell_and_wait, member);
    await(&member->told, 1);
    CHECK(member->owner != mp_self() && !mp_owner_dead(member->owner));
    kill(pid, SIGSTOP);
    siginfo_t info;
    CHECK(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT) == 0);
    CHECK(!mp_owner_dead(member->owner)); // stopped is alive
    kill(pid, SIGKILL);
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
    CHECK(mp_owner_dead(member->owner)); // still a zombie
    reap(pid);
    CHECK(mp_owner_dead(member->owner));
}

static void tell_and_exec(void *argument)
{
    struct member *member = argument;
    enter();
    member->owner = mp_self();
    mp_store_release32(&member->told, 1);
    execl("/bin/sleep", "sleep", "100", (char *)NULL);
}

static void exec_is_dead(void)
{
    struct member *member = shared_page();
    enter();
    pid_t pid = start(tell_and_exec, member);
    await(&member->told, 1);
    while (!mp_owner_dead(member->owner))
        usleep(1000);
    kill(pid, SIGKILL);
    reap(pid);
}

static void close_everything(void *argument)
{
    enter();
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    tell_and_wait(argument);
}

static void closing_all_descriptors_is_not_death(void)
{
    struct member *member = shared_page();
    enter();
    pid_t pid = start(close_everything, member);
    await(&member->told, 1);
    CHECK(!mp_owner_dead(member->owner));
    kill(pid, SIGKILL);
    reap(pid);
    CHECK(mp_owner_dead(member->owner));
}

struct relatives {
    struct member watched;
    uint32_t seen_dead;
};

/* As a daemon does: close everything, then go on, start a child, and notice a death. */
static void daemon_and_parent(void *argument)
{
    struct relatives *relatives = argument;
    enter();
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    pid_t pid = start(tell_and_wait, &relatives->watched);
    await(&relatives->watched.told, 1);
    CHECK(relatives->watched.owner != mp_self() && !mp_owner_dead(relatives->watched.owner));
    kill(pid, SIGKILL);
    reap(pid);
    CHECK(mp_owner_dead(relatives->watched.owner));
    mp_store_release32(&relatives->seen_dead, 1);
}

static void a_closed_descriptor_is_borrowed(void)
{
    struct relatives *relatives = shared_page();
    enter();
    reap_clean(start(daemon_and_parent, relatives));
    CHECK(relatives->seen_dead == 1);
}

static void raw_fork_registers_itself(void)
{
    struct member *member = shared_page();
    enter();
    mp_owner self = mp_self();
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    CHECK(pid >= 0);
    if (pid == 0)
        tell_and_wait(member);
    await(&member->told, 1);
    CHECK(member->owner != self && !mp_owner_dead(member->owner));
    kill(pid, SIGKILL);
    reap(pid);
    CHECK(mp_owner_dead(member->owner) && !mp_owner_dead(self));
}

static void nothing(void *argument)
{
    (void)argument;
    enter();
}

static void slots_are_used_again(void)
{
    enter();
    for (int i = 0; i < 300; i++)
        reap_clean(start(nothing, NULL));
    CHECK(mp_family_shm()->slot_limit < 30);
}

/* ---- mutex ---- */

static mp_owner reserve_and_die(void)
{
    struct mp_ticket ticket;
    int file;
    CHECK(mp_family_reserve(&file, &ticket) == MP_OK);
    close(file); // nobody holds the slot any more: as if killed
    CHECK(mp_owner_dead(ticket.owner));
    return ticket.owner;
}

/* The name of a dead process does not come to mean another one while there are other names. */
static void spent_slots_rest(void)
{
    enter();
    mp_owner dead = reserve_and_die();
    uint32_t slot = mp_owner_slot(dead);
    mp_owner next = reserve_and_die();
    CHECK(mp_owner_slot(next) == slot && next != dead);
    for (uint32_t in_use = 0; in_use <= 1; in_use++) {
        mp_process_at(slot)->incarnation = 0xfffe;
        mp_process_at(slot)->in_use = in_use;
        CHECK(reserve_and_die() == (0xffffU << MP_SLOT_BITS | slot));
        mp_process_at(slot)->in_use = in_use;
        CHECK(mp_owner_slot(reserve_and_die()) != slot);
    }
    mp_family_shm()->slot_limit = MP_PROCESS_SLOTS;
    for (uint32_t other = 1; other < MP_PROCESS_SLOTS; other++) {
        if (other != mp_owner_slot(mp_self()))
            mp_process_at(other)->incarnation = 0xffff;
    }
    CHECK(reserve_and_die() >> MP_SLOT_BITS == 1);
}

static mp_status lock_always(struct mp_mutex_shm *mutex)
{
    mp_status status;
    do
        status = mp_mutex_lock(mutex, MP_FOREVER);
    while (status == MP_INTERRUPTED);
    return status;
}

static void lock_and_wait(void *argument)
{
    enter();
    CHECK(lock_always(argument) == MP_OK);
    for (;;)
        pause();
}

static void mutex_words(void)
{
    struct mp_mutex_shm *mutex = shared_page();
    enter();
    CHECK(mp_mutex_try(mutex) == MP_OK);
    CHECK(mutex->word == mp_self()); // locked, nobody sleeps
    mp_mutex_unlock(mutex);
    CHECK(mutex->word == 0);
    mutex->word = mp_self() | MP_WAITERS; // locked, somebody sleeps
    mp_mutex_unlock(mutex);
    CHECK(mutex->word == 0);
}

static void mutex_of_the_dead(void)
{
    struct mp_mutex_shm *mutex = shared_page();
    enter();
    pid_t pid = start(lock_and_wait, mutex);
    while (mp_load_acquire32(&mutex->word) == 0)
        usleep(100);
    CHECK(mp_mutex_try(mutex) == MP_WOULD_BLOCK);
    CHECK(mp_mutex_lock(mutex, mp_clock_now() + MP_MILLISECOND) == MP_TIMEOUT);
    kill(pid, SIGKILL);
    CHECK(lock_always(mutex) == MP_OWNER_DIED);
    CHECK((mutex->word & MP_OWNER_MASK) == mp_self());
    mp_mutex_unlock(mutex);
    reap(pid);
    CHECK(mp_mutex_try(mutex) == MP_OK);
}

/* ---- chunks ---- */

static void chunk_sizes(void)
{
    enter();
    for (uint64_t size = 1; size < UINT64_C(40) << 20; size += size / 3 + 1) {
        uint64_t offset;
        CHECK(mp_chunk_take(MP_TYPE_BLOCK, size, &offset) == MP_OK);
        CHECK(mp_chunk_valid(offset, MP_TYPE_BLOCK) && !mp_chunk_valid(offset, MP_TYPE_LOCK));
        CHECK(!mp_chunk_valid(offset + 1, MP_TYPE_BLOCK));
        CHECK(mp_chunk_capacity(offset) >= size);
        CHECK(mp_state_owner(mp_chunk_at(offset)->state) == mp_self());
        unsigned char *bytes = mp_chunk_payload(offset);
        for (uint64_t i = 0; size <= MP_SMALL_LIMIT && i < size; i++)
            CHECK(bytes[i] == 0);
        memset(bytes, 0xff, size);
        mp_chunk_release(offset);
        CHECK(!mp_chunk_valid(offset, MP_TYPE_BLOCK));
    }
    uint64_t offset;
    CHECK(mp_chunk_take(MP_TYPE_BLOCK, UINT64_MAX, &offset) == MP_TOO_LARGE);
    CHECK(mp_chunk_take(MP_TYPE_BLOCK, UINT64_C(1) << 62, &offset) == MP_TOO_LARGE);
}

static void pages_go_back(void)
{
    enum { COUNT = 200 };
    uint64_t offsets[COUNT];
    enter();
    uint64_t before = resident();
    for (int i = 0; i < COUNT; i++) {
        CHECK(mp_chunk_take(MP_TYPE_BLOCK, 1 << 20, &offsets[i]) == MP_OK);
        memset(mp_chunk_payload(offsets[i]), 1, 1 << 20);
    }
    CHECK(resident() - before >= (uint64_t)COUNT << 20);
    for (int i = 0; i < COUNT; i++)
        mp_chunk_release(offsets[i]);
    CHECK(resident() - before <= UINT64_C(64) << 20); // what is kept warm
}

static void a_warm_run_is_used_again(void)
{
    uint64_t first, second;
    enter();
    CHECK(mp_chunk_take(MP_TYPE_BLOCK, 1 << 20, &first) == MP_OK);
    mp_chunk_release(first);
    CHECK(mp_chunk_take(MP_TYPE_BLOCK, 1 << 20, &second) == MP_OK);
    CHECK(first == second);
}

static void the_configured_limit_refuses(void)
{
    uint64_t offset;
    setenv("CMULTIPROCESSING_MEMORY_LIMIT", "10000000", 1);
    enter();
    CHECK(mp_chunk_take(MP_TYPE_BLOCK, 20000000, &offset) == MP_NO_MEMORY);
    struct mp_refusal refusal = mp_chunk_refusal();
    CHECK(refusal.wanted >= 20000000 && refusal.allowance.limit == 10000000);
    CHECK(strcmp(refusal.allowance.name, "CMULTIPROCESSING_MEMORY_LIMIT") == 0);
    for (int i = 0; i < 100; i++) { // what was released counts no more
        CHECK(mp_chunk_take(MP_TYPE_BLOCK, 5000000, &offset) == MP_OK);
        mp_chunk_release(offset);
    }
}

/* ---- objects ---- */

static void an_unshared_object_goes_at_once(void)
{
    mp_handle first, second;
    enter();
    CHECK(mp_object_create(MP_TYPE_LOCK, 48, &first) == MP_OK);
    uint64_t offset = first.offset;
    mp_object_release(&first);
    CHECK(mp_object_create(MP_TYPE_LOCK, 48, &second) == MP_OK);
    CHECK(second.offset == offset);
}

static void tickets_of_the_wrong_kind(void)
{
    mp_handle handle, other;
    mp_object_ticket ticket, bad;
    enter();
    CHECK(mp_object_create(MP_TYPE_LOCK, 48, &handle) == MP_OK);
    CHECK(mp_object_pin(&handle, MP_NOBODY, &ticket) == MP_OK);
    bad = ticket;
    bad.family++;
    CHECK(mp_object_attach(&bad, MP_TYPE_LOCK, &other) == MP_FOREIGN);
    bad = ticket;
    bad.generation++;
    CHECK(mp_object_attach(&bad, MP_TYPE_LOCK, &other) == MP_STALE);
    CHECK(mp_object_attach(&ticket, MP_TYPE_EVENT, &other) == MP_STALE);
    uint64_t wrong[] = {0,
                        1,
                        4096,
                        mp_family_shm()->heap + 8,
                        mp_family.mapped,
                        UINT64_MAX,
                        mp_family_shm()->heap + (UINT64_C(1) << 30)};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bad = ticket;
        bad.offset = wrong[i];
        mp_status status = mp_object_attach(&bad, MP_TYPE_LOCK, &other);
        CHECK(status == MP_STALE || status == MP_DAMAGED);
        bad = ticket;
        bad.pin = wrong[i];
        CHECK(mp_object_attach(&bad, MP_TYPE_LOCK, &other) == MP_OK);
        mp_object_release(&other);
    }
}

static bool is_there(const mp_object_ticket *ticket)
{
    return mp_chunk_valid(ticket->offset, MP_TYPE_LOCK) &&
           mp_state_generation(mp_chunk_at(ticket->offset)->state) == ticket->generation;
}

static void collect(void)
{
    CHECK(mp_reclaim_now() == MP_OK);
}

static void a_pin_keeps_the_object(void)
{
    mp_handle handle, other;
    mp_object_ticket ticket;
    enter();
    CHECK(mp_object_create(MP_TYPE_LOCK, 48, &handle) == MP_OK);
    CHECK(mp_object_pin(&handle, MP_NOBODY, &ticket) == MP_OK);
    mp_object_release(&handle);
    collect();
    CHECK(is_there(&ticket));
    CHECK(mp_object_attach(&ticket, MP_TYPE_LOCK, &other) == MP_OK);
    collect();
    CHECK(is_there(&ticket)); // the reference keeps it, the pin is gone
    mp_object_release(&other);
    collect();
    CHECK(!is_there(&ticket));
    CHECK(mp_object_attach(&ticket, MP_TYPE_LOCK, &other) == MP_STALE);
}

static void a_pin_may_be_dropped(void)
{
    mp_handle handle;
    mp_object_ticket ticket;
    enter();
    CHECK(mp_object_create(MP_TYPE_LOCK, 48, &handle) == MP_OK);
    CHECK(mp_object_pin(&handle, MP_NOBODY, &ticket) == MP_OK);
    mp_object_release(&handle);
    mp_object_unpin(&ticket);
    mp_object_unpin(&ticket); // twice is once
    collect();
    CHECK(!is_there(&ticket));
}

static void an_heir_keeps_the_object(void)
{
    struct member *member = shared_page();
    mp_handle handle;
    mp_object_ticket ticket;
    enter();
    CHECK(mp_object_create(MP_TYPE_LOCK, 48, &handle) == MP_OK);
    ticket.offset = handle.offset;
    ticket.generation = handle.generation;
    pid_t pid = start(tell_and_wait, member);
    await(&member->told, 1);
    mp_object_release(&handle);
    collect();
    CHECK(is_there(&ticket));
    reap_clean(start(nothing, NULL)); // a later child knows nothing of it
    kill(pid, SIGKILL);
    reap(pid);
    collect();
    CHECK(!is_there(&ticket));
}

static void make_pin_and_die(void *argument)
{
    mp_handle handle;
    enter();
    CHECK(mp_object_create(MP_TYPE_LOCK, 48, &handle) == MP_OK);
    CHECK(mp_object_pin(&handle, MP_NOBODY, argument) == MP_OK);
    kill(getpid(), SIGKILL);
}

static void the_sender_may_be_dead(void)
{
    mp_object_ticket *ticket = shared_page();
    mp_handle handle;
    enter();
    reap(start(make_pin_and_die, ticket));
    collect();
    CHECK(mp_object_attach(ticket, MP_TYPE_LOCK, &handle) == MP_OK);
    collect();
    CHECK(is_there(ticket));
    mp_object_release(&handle);
    collect();
    CHECK(!is_there(ticket));
}

static void a_pin_ends_with_its_target(void)
{
    struct mp_ticket place;
    mp_object_ticket ticket;
    mp_handle handle;
    int file;
    enter();
    CHECK(mp_family_reserve(&file, &place) == MP_OK);
    CHECK(mp_object_create(MP_TYPE_LOCK, 48, &handle) == MP_OK);
    CHECK(mp_object_pin(&handle, place.owner, &ticket) == MP_OK);
    mp_object_release(&handle);
    collect();
    CHECK(is_there(&ticket));
    close(file); // as if the child had died before it took its start data
    collect();
    collect(); // the first one saw the pin beside the object
    CHECK(!is_there(&ticket));
}

static void rounds_leave_nothing(void)
{
    enter();
    collect();
    uint64_t used = 0;
    for (int i = 0; i < 600; i++) {
        mp_handle handle;
        mp_object_ticket *ticket = NULL;
        if (i == 200)
            used = resident();
        ticket = shared_page();
        CHECK(mp_object_create(MP_TYPE_EVENT, 48, &handle) == MP_OK);
        reap(start(make_pin_and_die, ticket));
        mp_object_unpin(ticket);
        mp_object_release(&handle);
        mp_reclaim_death();
        munmap(ticket, 4096);
    }
    collect();
    CHECK(resident() <= used + 65536);
}

/* ---- threads (TSan), processes ---- */

enum { PLACES = 64, ROUNDS = 3000 };

static void stand_in_the_heap(void *unused)
{
    (void)unused;
    lock_and_wait(&mp_family_shm()->heap_mutex);
}

/* Nobody waits for it without an end: whoever needs a run is told, the collector does it another time. */
static void a_process_stopped_in_the_heap(void)
{
    uint64_t offset;
    enter();
    struct mp_mutex_shm *mutex = &mp_family_shm()->heap_mutex;
    pid_t pid = start(stand_in_the_heap, NULL);
    while (mp_load_acquire32(&mutex->word) == 0)
        usleep(100);
    CHECK(kill(pid, SIGSTOP) == 0);
    mp_time begin = mp_clock_now();
    CHECK(mp_chunk_take(MP_TYPE_BLOCK, 1 << 20, &offset) == MP_INTERRUPTED);
    CHECK(mp_clock_now() - begin >= MP_MUTEX_GRACE);
    CHECK(mp_reclaim_now() == MP_OK);
    CHECK(kill(pid, SIGKILL) == 0);
    reap(pid);
    CHECK(mp_chunk_take(MP_TYPE_BLOCK, 1 << 20, &offset) == MP_OK);
    mp_chunk_release(offset);
}

/* Who holds the heap's mutex may have lost its CPU on a busy machine. */
static void take_always(uint64_t size, uint64_t *offset)
{
    mp_status status;
    do
        status = mp_chunk_take(MP_TYPE_MESSAGE, size, offset);
    while (status == MP_INTERRUPTED);
    CHECK(status == MP_OK);
}

static uint64_t *places;

/* Take chunks, fill them, exchange them with whoever else is at it, check what was got. */
static void *churn(void *argument)
{
    uint32_t random = (uint32_t)(uintptr_t)argument * 7919U + 1U;
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 1103515245U + 12345U;
        uint64_t size = random % 5 ? 16 + (random >> 16) % 500 : 2000 + (random >> 16) % 60000;
        uint64_t offset;
        if ((random >> 20) % 500 == 0)
            (void)mp_reclaim_now();
        take_always(size, &offset);
        uint64_t *words = mp_chunk_payload(offset);
        words[0] = size / 8;
        for (uint64_t w = 1; w < size / 8; w++)
            words[w] = offset ^ random;
        uint64_t old = mp_exchange64(&places[(random >> 10) % PLACES], offset);
        if (old == 0)
            continue;
        words = mp_chunk_payload(old);
        CHECK(words[0] <= mp_chunk_capacity(old) / 8);
        for (uint64_t w = 2; w < words[0]; w++)
            CHECK(words[w] == words[1]);
        mp_chunk_release(old);
    }
    return NULL;
}

static void churn_in_threads(void *argument)
{
    pthread_t threads[4];
    enter();
    for (uintptr_t i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, churn, (void *)((uintptr_t)argument + i)) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static void threads_share_the_allocator(void)
{
    enter();
    places = shared_page();
    churn_in_threads((void *)(uintptr_t)1);
}

enum { CHURNERS = 3 };

/* Nobody ends before all are done: what the dead took is garbage, also where others still exchange it. */
static void churn_until_all_are_done(void *argument)
{
    churn_in_threads(argument);
    (void)mp_fetch_add64(&places[PLACES], 1);
    while (mp_load_acquire64(&places[PLACES]) < CHURNERS)
        usleep(1000);
}

static void processes_share_the_allocator(void)
{
    pid_t pids[CHURNERS];
    enter();
    places = shared_page();
    for (uintptr_t i = 0; i < CHURNERS; i++)
        pids[i] = start(churn_until_all_are_done, (void *)(10 * i + 1));
    for (int i = 0; i < CHURNERS; i++)
        reap_clean(pids[i]);
}

static void the_killed_leave_nothing(void)
{
    enter();
    places = shared_page();
    for (uintptr_t i = 0; i < 60; i++) {
        pid_t pid = start(churn_in_threads, (void *)(10 * i + 1));
        usleep((useconds_t)(i * 397 % 9000));
        kill(pid, SIGKILL);
        reap(pid);
        // What it put there is its own, and goes with it.
        memset(places, 0, PLACES * sizeof *places);
    }
    collect();
    collect();
    collect();
    // One slab per size class of ours may stay, and what is kept warm.
    uint64_t kept = mp_family_shm()->warm_bytes / MP_UNIT;
    CHECK(mp_family_shm()->used_units <= kept + 7 * MP_SLAB_UNITS);
}

int main(int argc, char **argv)
{
#define TEST(name)                                                                                 \
 {                                                                                                 \
#  name, name                                                                                      \
 }
    static const struct test tests[] = {
        TEST(family_start_is_idempotent),
        TEST(killed_is_dead_before_it_is_reaped),
        TEST(exec_is_dead),
        TEST(closing_all_descriptors_is_not_death),
        TEST(a_closed_descriptor_is_borrowed),
        TEST(raw_fork_registers_itself),
        TEST(slots_are_used_again),
        TEST(spent_slots_rest),
        TEST(mutex_words),
        TEST(mutex_of_the_dead),
        TEST(chunk_sizes),
        TEST(pages_go_back),
        TEST(a_warm_run_is_used_again),
        TEST(the_configured_limit_refuses),
        TEST(an_unshared_object_goes_at_once),
        TEST(tickets_of_the_wrong_kind),
        TEST(a_pin_keeps_the_object),
        TEST(a_pin_may_be_dropped),
        TEST(an_heir_keeps_the_object),
        TEST(the_sender_may_be_dead),
        TEST(a_pin_ends_with_its_target),
        TEST(rounds_leave_nothing),
        TEST(threads_share_the_allocator),
        TEST(a_process_stopped_in_the_heap),
        TEST(processes_share_the_allocator),
        TEST(the_killed_leave_nothing),
        {NULL, NULL},
    };
    return run_tests(tests, argc, argv);
}
