// SPDX-License-Identifier: PSF-2.0
/* Coming into the family and leaving it: every death must leave a slot that can be used again. */
#include "operations.h"

#include "shm/family.h"    // what is stepped through
#include "shm/processes.h" // who is alive
#include <signal.h>        // kill
#include <string.h>        // memset
#include <sys/mman.h>      // munmap
#include <sys/wait.h>      // waitpid
#include <unistd.h>        // fork

enum { OWNER = 0, GRANDCHILD = 1 };

/* Of what these operations start, at most a handful lives at a time; probing for free slots may
 * pass over some. More means that slots are lost. */
enum { SLOTS_EXPECTED = 64 };

static struct mp_ticket ticket;
static int ticket_file = -1;

static void look_at_slots(void)
{
    int file;
    struct mp_ticket place;
    mp_status status = mp_family_reserve(&file, &place);
    CHECK(status == MP_OK, "no slot for a new process: %d", (int)status);
    if (status != MP_OK)
        return;
    CHECK(!mp_owner_dead(place.owner), "a reserved slot counts as dead");
    close(file);
    CHECK(mp_owner_dead(place.owner), "a slot that was given up counts as alive");
    uint32_t limit = mp_family_shm()->slot_limit;
    CHECK(limit <= SLOTS_EXPECTED, "slots are lost: %u were used", limit);
}

static void note_owner(void)
{
    scene.shared->value[OWNER] = mp_self();
}

static void survive(void)
{
    await_death((mp_owner)scene.shared->value[OWNER]);
    look_at_slots();
}

static void alive(void)
{
    if (scene.shared->value[OWNER] != 0)
        CHECK(!mp_owner_dead((mp_owner)scene.shared->value[OWNER]),
              "the process stands still and counts as dead");
}

/* ---- a child that the handlers did not see ---- */

static void enter(void)
{
    (void)mp_family_enter();
    note_owner();
}

/* ---- fork, in the process that forks ---- */

static void fork_one(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        scene.shared->value[GRANDCHILD] = getpid();
        _exit(0);
    }
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

/* For a moment the grandchild holds what its parent held: until its at-fork handler has run, or a
 * breakpoint that it inherited has ended it. */
static void survive_fork(void)
{
    pid_t pid = (pid_t)scene.shared->value[GRANDCHILD];
    for (int i = 0; pid != 0 && i < 1000 && kill(pid, 0) == 0; i++)
        trace_nap(100);
    survive();
}

/* ---- reserve: for a child yet to be started ---- */

static void reserve(void)
{
    int file;
    struct mp_ticket place;
    if (mp_family_reserve(&file, &place) == MP_OK)
        scene.shared->value[OWNER] = place.owner;
}

/* ---- join: take the reserved place ---- */

static void reserve_first(void)
{
    MUST(mp_family_reserve(&ticket_file, &ticket));
}

static void join(void)
{
    if (mp_family_join(ticket_file, &ticket) == MP_OK)
        note_owner();
}

/* Like a process that was not forked from a member: nothing is mapped. */
static void forget_family(void)
{
    munmap(mp_family.base, mp_family.mapped);
    memset(&mp_family, 0, sizeof mp_family);
    mp_family.file = -1;
}

static void alive_join(void)
{
    CHECK(!mp_owner_dead(ticket.owner), "the reserved place counts as dead");
}

static void survive_join(void)
{
    CHECK(!mp_owner_dead(ticket.owner) || scene.finished || scene.ending == TRACE_STOP,
          "the driver still has the reserved place");
    close(ticket_file);
    ticket_file = -1;
    await_death(ticket.owner);
    survive();
}

/* ---- leave ---- */

static void leave(void)
{
    mp_family_leave();
}

const struct operation operations_family[] = {
    {.name = "family-enter-late",
     .run = enter,
     .survive = survive,
     .alive = alive,
     .outside = true,
     .raw_fork = true},
    {.name = "family-fork",
     .prepare = note_owner,
     .run = fork_one,
     .survive = survive_fork,
     .alive = alive},
    {.name = "family-reserve", .run = reserve, .survive = survive},
    {.name = "family-join",
     .setup = reserve_first,
     .prepare = forget_family,
     .run = join,
     .survive = survive_join,
     .alive = alive_join,
     .outside = true,
     .raw_fork = true},
    {.name = "family-move",
     .setup = reserve_first,
     .run = join,
     .survive = survive_join,
     .alive = alive_join},
    {.name = "family-leave", .prepare = note_owner, .run = leave, .survive = survive},
    {.name = NULL},
};
