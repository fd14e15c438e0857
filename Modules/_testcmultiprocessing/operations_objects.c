// SPDX-License-Identifier: PSF-2.0
/* Shared objects: made, pickled, unpickled, dropped. Whatever dies, the object lives as long as
 * somebody holds it, and not longer (the census sees that). */
#include "operations.h"

#include "shm/objects.h" // what is stepped through
#include "shm/reclaim.h" // what nobody holds goes
#include <string.h>      // memcpy

static mp_handle handle;
static mp_object_ticket ticket;
static uint64_t pin_state;

enum { TICKET = 8 }; // index of the first shared value that carries a ticket

static void make(void)
{
    MUST(mp_object_create(MP_TYPE_BLOCK, sizeof(uint64_t), &handle));
    *(uint64_t *)mp_object_payload(&handle) = scene.run;
}

static void check_content(const mp_handle *found)
{
    CHECK(*(const uint64_t *)mp_object_payload(found) == scene.run, "the object was used again");
}

static void nothing(void)
{
}

static void drop(void)
{
    check_content(&handle);
    mp_object_release(&handle);
}

/* ---- create, drop ---- */

static void run_create(void)
{
    mp_handle made;
    (void)mp_object_create(MP_TYPE_BLOCK, 40, &made);
}

static void run_drop(void)
{
    mp_object_release(&handle);
}

/* Once pickled, anybody may hold it: it cannot go at once. */
static void make_pickled(void)
{
    make();
    MUST(mp_object_pin(&handle, MP_NOBODY, &ticket));
    mp_object_unpin(&ticket);
}

/* ---- pin ---- */

static void run_pin(void)
{
    mp_object_ticket made;
    if (mp_object_pin(&handle, MP_NOBODY, &made) == MP_OK)
        memcpy((void *)&scene.shared->value[TICKET], &made, sizeof made);
}

/* A pin whose maker died before it could hand out the ticket stays: a pickle outlives its sender, and
 * nobody can know that this one never left. It is the one leak that is accepted: 32 bytes and the
 * object, for a kill within some twenty instructions. */
static void release_lost_pin(uint64_t unit, struct mp_unit_shm *run, void *argument)
{
    unsigned *lost = argument;
    uint64_t word = run->word;
    if (mp_unit_kind(word) != MP_UNIT_SLAB || mp_unit_class(word) != 0)
        return;
    for (uint64_t at = 0; at < MP_SLAB_UNITS * MP_UNIT; at += mp_slab_chunk_size(0)) {
        uint64_t offset = mp_unit_offset(unit) + at;
        const struct mp_reference_shm *pin = mp_chunk_payload(offset);
        uint64_t state = mp_chunk_at(offset)->state;
        if (mp_state_type(state) == MP_TYPE_PIN && pin->object == handle.offset)
            *lost += mp_chunk_release_if(offset, state);
    }
}

static void survive_pin(void)
{
    unsigned lost = 0;
    memcpy(&ticket, (void *)&scene.shared->value[TICKET], sizeof ticket);
    if (scene.finished) {
        mp_handle found;
        mp_status status = mp_object_attach(&ticket, MP_TYPE_BLOCK, &found);
        CHECK(status == MP_OK, "the pickle cannot be opened: %d", (int)status);
        if (status == MP_OK) {
            check_content(&found);
            mp_object_release(&found);
        }
    }
    mp_run_walk(release_lost_pin, &lost);
    CHECK(lost == 0 || (lost == 1 && !scene.finished), "%u pins left", lost);
    drop();
}

static void run_unpin(void)
{
    mp_object_unpin(&ticket);
}

static void make_and_pin(void)
{
    make();
    MUST(mp_object_pin(&handle, MP_NOBODY, &ticket));
    pin_state = mp_chunk_at(ticket.pin)->state;
}

static void survive_unpin(void)
{
    mp_object_unpin(&ticket);
    drop();
}

/* A pin for a certain process goes with that process. */
static void run_pin_for_self(void)
{
    mp_object_ticket made;
    (void)mp_object_pin(&handle, mp_self(), &made);
}

/* ---- attach ---- */

static void run_attach(void)
{
    mp_handle found;
    if (mp_object_attach(&ticket, MP_TYPE_BLOCK, &found) == MP_OK)
        scene.shared->value[0] = 1;
}

static void survive_attach(void)
{
    mp_handle found;
    mp_status status = mp_object_attach(&ticket, MP_TYPE_BLOCK, &found);
    CHECK(status == MP_OK, "the maker holds it, and it cannot be opened: %d", (int)status);
    if (status == MP_OK) {
        check_content(&found);
        mp_object_release(&found);
    }
    drop();
}

/* Only the pickle holds the object. */
static void make_pin_and_drop(void)
{
    make_and_pin();
    mp_object_release(&handle);
    (void)mp_reclaim_now();
}

static void survive_only_the_pin(void)
{
    mp_handle found;
    bool pinned = mp_chunk_at(ticket.pin)->state == pin_state;
    (void)mp_reclaim_now();
    mp_status status = mp_object_attach(&ticket, MP_TYPE_BLOCK, &found);
    CHECK(status == MP_OK || (!pinned && status == MP_STALE), "the pin %s, attach gave %d",
          pinned ? "stands" : "is gone", (int)status);
    CHECK(pinned || scene.shared->value[0] == 1 || !scene.finished,
          "the pickle was used up by nobody");
    if (status == MP_OK) {
        check_content(&found);
        mp_object_release(&found);
    }
}

/* While nobody stands still inside of the allocator: a mutex is not taken from the living, and what
 * cannot do without it waits for them. */
static void alive_only_the_pin(void)
{
    mp_handle found;
    if (mp_load_acquire32(&mp_family_shm()->heap_mutex.word) != 0)
        return;
    (void)mp_reclaim_now();
    mp_status status = mp_object_attach(&ticket, MP_TYPE_BLOCK, &found);
    CHECK(status == MP_OK, "somebody alive holds it, and attach gave %d", (int)status);
    if (status == MP_OK) {
        check_content(&found);
        mp_object_release(&found);
    }
}

/* ---- drop a reference ---- */

static void prepare_attach(void)
{
    MUST(mp_object_attach(&ticket, MP_TYPE_BLOCK, &handle));
}

const struct operation operations_objects[] = {
    {.name = "object-create", .run = run_create, .survive = nothing},
    {.name = "object-drop", .prepare = make, .run = run_drop, .survive = nothing},
    {.name = "object-drop-pickled", .prepare = make_pickled, .run = run_drop, .survive = nothing},
    {.name = "object-pin", .setup = make, .run = run_pin, .survive = survive_pin},
    {.name = "object-pin-for", .setup = make, .run = run_pin_for_self, .survive = drop},
    {.name = "object-unpin", .setup = make_and_pin, .run = run_unpin, .survive = survive_unpin},
    {.name = "object-attach", .setup = make_and_pin, .run = run_attach, .survive = survive_attach},
    {.name = "object-attach-last",
     .setup = make_pin_and_drop,
     .run = run_attach,
     .alive = alive_only_the_pin,
     .survive = survive_only_the_pin},
    {.name = "object-drop-reference",
     .setup = make_and_pin,
     .prepare = prepare_attach,
     .run = run_drop,
     .survive = survive_attach},
    {.name = "object-drop-last-reference",
     .setup = make_pin_and_drop,
     .prepare = prepare_attach,
     .run = run_drop,
     .survive = nothing},
    {.name = NULL},
};
