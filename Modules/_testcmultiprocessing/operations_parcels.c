// SPDX-License-Identifier: PSF-2.0
/* Large messages between the ends of a pipe: sent, taken. Whoever dies, what was sent arrives, and what
 * nobody can receive any more goes (the census sees that). */
#include "operations.h"

#include "shm/reclaim.h"        // what a dead sender left
#include "structures/parcels.h" // what is stepped through

static mp_pipe_handle ends;
static mp_parcel_place place;

enum { SIZE = 5000, WORD = 0, SLOT = 1 }; // bytes of a parcel; shared values that carry its place

static void make(void)
{
    mp_parcels_init();
    MUST(mp_pipe_create(&ends));
}

static void drop(void)
{
    mp_pipe_release(&ends);
}

static void make_one(uint64_t *parcel)
{
    uint64_t size = SIZE;
    mp_message_plan plan = {.parts = 1, .sizes = &size};
    MUST(mp_parcel_make(&ends, &plan, parcel));
    *(uint64_t *)mp_message_part(*parcel, 0, &size) = scene.run;
}

static void run_send(void)
{
    uint64_t parcel;
    mp_parcel_place made;
    make_one(&parcel);
    MUST(mp_parcel_post(&ends, 1, parcel, &made));
    scene.shared->value[SLOT] = (int64_t)made.slot;
    scene.shared->value[WORD] = (int64_t)made.word; // the note is out
    mp_parcel_sent(&ends, 1, &made);
}

/* Take the parcel of `place` as a receiver would. */
static mp_status take(void)
{
    uint64_t parcel, size;
    mp_status status = mp_parcel_take(&ends, 1, &place, &parcel);
    if (status == MP_OK) {
        CHECK(*(const uint64_t *)mp_message_part(parcel, 0, &size) == scene.run && size == SIZE,
              "another message arrived");
        mp_message_drop(parcel);
    }
    return status;
}

static void survive_send(void)
{
    place =
        (mp_parcel_place){(uint32_t)scene.shared->value[SLOT], (uint64_t)scene.shared->value[WORD]};
    (void)mp_reclaim_now();
    if (place.word != 0) {
        mp_status status = take();
        CHECK(status == MP_OK || (status == MP_STALE && !scene.finished),
              "what was sent is gone: %d", (int)status);
    }
    CHECK(mp_parcel_room(&ends, 1, MP_PARCEL_BYTES), "something is on its way for ever");
    drop();
}

static void make_and_send(void)
{
    uint64_t parcel;
    make();
    make_one(&parcel);
    MUST(mp_parcel_post(&ends, 1, parcel, &place));
    mp_parcel_sent(&ends, 1, &place);
}

static void run_take(void)
{
    (void)take();
}

static void survive_take(void)
{
    mp_status status = take();
    CHECK(status == MP_OK || status == MP_STALE, "the parcel is damaged: %d", (int)status);
    CHECK(status == MP_STALE || !scene.finished, "the same message arrived twice");
    (void)mp_reclaim_now();
    CHECK(mp_parcel_room(&ends, 1, MP_PARCEL_BYTES), "something is on its way for ever");
    drop();
}

/* After the last one who knows the pipe let go while a parcel was on its way: the census looks. */
static void nothing(void)
{
}

const struct operation operations_parcels[] = {
    {.name = "parcel-send", .setup = make, .run = run_send, .survive = survive_send},
    {.name = "parcel-take", .setup = make_and_send, .run = run_take, .survive = survive_take},
    {.name = "parcel-pipe-drop", .prepare = make_and_send, .run = drop, .survive = nothing},
    {.name = NULL},
};
