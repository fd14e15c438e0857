// SPDX-License-Identifier: PSF-2.0
/* Frames, turns and parcels, without an interpreter. */
#include "check.h"

#include "io/frames.h"          // under test
#include "io/turn.h"            // under test
#include "shm/reclaim.h"        // collections
#include "structures/parcels.h" // under test

#include <pthread.h> // threads_...
#include <unistd.h>  // write, close

static void heads(void)
{
    unsigned char head[MP_FRAME_HEAD_MAX];
    CHECK(mp_frame_head(0, head) == 4 && memcmp(head, "\0\0\0\0", 4) == 0);
    CHECK(mp_frame_head(0x01020304, head) == 4 && memcmp(head, "\1\2\3\4", 4) == 0);
    CHECK(mp_frame_head(0x7fffffff, head) == 4 && mp_frame_length(head) == 0x7fffffff);
    CHECK(mp_frame_head(0x80000000, head) == 12 && mp_frame_length(head) == -1);
    CHECK(memcmp(head + 4, "\0\0\0\0\x80\0\0\0", 8) == 0);
}

static void pair(bool duplex, mp_stream *reader, mp_stream *writer)
{
    int ends[2];
    enum mp_stream_kind kind;
    CHECK(mp_stream_pair(duplex, ends, &kind) == MP_OK);
    *reader = (mp_stream){ends[0], kind};
    *writer = (mp_stream){ends[1], kind};
}

static void close_pair(const mp_stream *reader, const mp_stream *writer)
{
    CHECK(mp_stream_close(reader->file) == MP_OK && mp_stream_close(writer->file) == MP_OK);
}

/* Byte by byte: wherever reading stops it goes on. */
static void reads_stop_anywhere_on(bool duplex)
{
    mp_stream reader, writer;
    pair(duplex, &reader, &writer);
    static const char wire[] = "\xff\xff\xff\xff\0\0\0\0\0\0\0\3abc\0\0\0\1d";
    mp_frame_in frame = {.kind = MP_FRAME_NONE};
    char body[8];
    size_t got = 0;
    int frames = 0;
    for (size_t i = 0; i < sizeof(wire) - 1; i++) {
        CHECK(mp_frame_read_head(&frame, &reader) != MP_OK ||
              mp_frame_read(&reader, body, frame.size, &got) == MP_WOULD_BLOCK);
        CHECK(write(writer.file, wire + i, 1) == 1);
        if (mp_frame_read_head(&frame, &reader) == MP_OK &&
            mp_frame_read(&reader, body, (size_t)frame.size, &got) == MP_OK) {
            CHECK(memcmp(body, frames == 0 ? "abc" : "d", got) == 0 &&
                  got == (frames == 0 ? 3 : 1));
            mp_frame_next(&frame);
            got = 0;
            frames++;
        }
    }
    CHECK(frames == 2);
    CHECK(mp_stream_close(writer.file) == MP_OK);
    CHECK(mp_frame_read_head(&frame, &reader) == MP_CLOSED && frame.have == 0);
    CHECK(mp_stream_close(reader.file) == MP_OK);
}

static void reads_stop_anywhere(void)
{
    reads_stop_anywhere_on(true);
    reads_stop_anywhere_on(false);
}

static void bad_heads(void)
{
    static const unsigned char bad[][4] = {{0xff, 0xff, 0xff, 0xfd}, {0x80, 0, 0, 0}};
    for (size_t i = 0; i < 2; i++) {
        mp_stream reader, writer;
        mp_frame_in frame = {.kind = MP_FRAME_NONE};
        pair(false, &reader, &writer);
        CHECK(write(writer.file, bad[i], 4) == 4);
        CHECK(mp_frame_read_head(&frame, &reader) == MP_DAMAGED);
        close_pair(&reader, &writer);
    }
}

static void writes_go_on_where_they_stopped(void)
{
    static char large[300000], back[300000];
    mp_stream reader, writer;
    pair(true, &reader, &writer);
    for (size_t i = 0; i < sizeof(large); i++)
        large[i] = (char)(i * 7);
    mp_piece pieces[] = {{"", 0}, {large, 100000}, {"", 0}, {large + 100000, 200000}};
    mp_frame_out frame = {.pieces = pieces, .count = 4};
    size_t got = 0;
    mp_status status;
    do {
        status = mp_frame_write(&frame, &writer);
        CHECK(status == MP_OK || status == MP_WOULD_BLOCK);
        mp_status read = mp_frame_read(&reader, back, sizeof(back), &got);
        CHECK(read == MP_OK || read == MP_WOULD_BLOCK);
    } while (status != MP_OK || got < sizeof(back));
    CHECK(memcmp(large, back, sizeof(back)) == 0);
    close_pair(&reader, &writer);
}

/* Short messages are copied together, up to a size that lies among these: nobody can tell. */
static void writes_of_any_size_on(bool duplex)
{
    char sent[700], back[sizeof(sent)];
    mp_stream reader, writer;
    pair(duplex, &reader, &writer);
    for (size_t i = 0; i < sizeof(sent); i++)
        sent[i] = (char)(i * 7);
    for (size_t size = 3; size <= sizeof(sent); size++) {
        mp_piece pieces[] = {{sent, 2}, {NULL, 0}, {sent + 2, size - 3}, {sent + size - 1, 1}};
        mp_frame_out frame = {.pieces = pieces, .count = 4};
        CHECK(mp_frame_write(&frame, &writer) == MP_OK && frame.count == 0);
        size_t got = 0;
        CHECK(mp_frame_read(&reader, back, size, &got) == MP_OK);
        CHECK(memcmp(sent, back, size) == 0);
        CHECK(mp_stream_available(reader.file, &got) && got == 0);
    }
    close_pair(&reader, &writer);
}

static void writes_of_any_size(void)
{
    writes_of_any_size_on(false);
    writes_of_any_size_on(true);
}

/* ---- turns ---- */

static mp_turn turn;
static uint32_t inside;

static void *take_turns(void *argument)
{
    for (int i = 0; i < 20000; i++) {
        if (!mp_turn_try(&turn))
            while (mp_turn_wait(&turn, MP_FOREVER) == MP_INTERRUPTED)
                ;
        CHECK(mp_fetch_add32(&inside, 1) == 0);
        CHECK(mp_fetch_add32(&inside, (uint32_t)-1) == 1);
        mp_turn_end(&turn);
    }
    return argument;
}

static void threads_take_turns(void)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, take_turns, NULL) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(turn.word == 0);
}

static void expect_free(void *argument)
{
    (void)argument;
    CHECK(mp_turn_try(&turn));
    CHECK(!mp_turn_try(&turn));
    mp_turn_end(&turn);
}

static void a_fork_frees_the_turn(void)
{
    CHECK(mp_fork_watch() == MP_OK);
    CHECK(mp_turn_try(&turn));
    CHECK(!mp_turn_try(&turn));
    CHECK(mp_turn_wait(&turn, mp_clock_now() + MP_MILLISECOND) == MP_TIMEOUT);
    reap_clean(start(expect_free, NULL));
    mp_turn_end(&turn);
}

/* ---- parcels ---- */

static mp_pipe_handle pipe_;

static void make_pipe(void)
{
    mp_parcels_init();
    CHECK(mp_family_enter() == MP_OK);
    CHECK(mp_pipe_create(&pipe_) == MP_OK);
}

static uint64_t make_parcel(uint64_t size)
{
    mp_message_plan plan = {.parts = 1, .sizes = &size};
    uint64_t parcel;
    CHECK(mp_parcel_make(&pipe_, &plan, &parcel) == MP_OK);
    memset(mp_message_part(parcel, 0, &size), 'p', size);
    return parcel;
}

static void slots_fill_and_empty(void)
{
    mp_parcel_place places[MP_PARCEL_SLOTS], more;
    uint64_t parcel;
    make_pipe();
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < MP_PARCEL_SLOTS; i++) {
            CHECK(mp_parcel_room(&pipe_, 1, 50000));
            CHECK(mp_parcel_post(&pipe_, 1, make_parcel(50000), &places[i]) == MP_OK);
            if (i % 2)
                mp_parcel_sent(&pipe_, 1, &places[i]);
        }
        CHECK(!mp_parcel_room(&pipe_, 1, 50000) && mp_parcel_room(&pipe_, 0, 50000));
        parcel = make_parcel(50000);
        CHECK(mp_parcel_post(&pipe_, 1, parcel, &more) == MP_WOULD_BLOCK);
        mp_message_drop(parcel);
        for (uint32_t i = 0; i < MP_PARCEL_SLOTS; i++) {
            CHECK(mp_parcel_take(&pipe_, 0, &places[i], &parcel) == MP_STALE); // the other way
            CHECK(mp_parcel_take(&pipe_, 1, &places[i], &parcel) == MP_OK);
            mp_parcel_sent(&pipe_, 1, &places[i]); // too late: hits nothing
            mp_message_drop(parcel);
            CHECK(mp_parcel_take(&pipe_, 1, &places[i], &parcel) == MP_STALE);
        }
    }
    mp_pipe_release(&pipe_);
}

static void damaged_places(void)
{
    mp_parcel_place place, wrong;
    uint64_t parcel;
    make_pipe();
    CHECK(mp_parcel_post(&pipe_, 0, make_parcel(50000), &place) == MP_OK);
    wrong = (mp_parcel_place){MP_PARCEL_SLOTS, place.word};
    CHECK(mp_parcel_take(&pipe_, 0, &wrong, &parcel) == MP_DAMAGED);
    CHECK(mp_parcel_take(&pipe_, 2, &place, &parcel) == MP_DAMAGED);
    for (int bit = 0; bit < 64; bit++) {
        wrong = (mp_parcel_place){place.slot, place.word ^ UINT64_C(1) << bit};
        CHECK(mp_parcel_take(&pipe_, 0, &wrong, &parcel) != MP_OK);
    }
    mp_parcel_withdraw(&pipe_, 0, &place);
    CHECK(mp_parcel_take(&pipe_, 0, &place, &parcel) == MP_STALE);
    mp_pipe_release(&pipe_);
}

struct shared_place {
    mp_parcel_place place;
    bool sent;
};

static void post_and_die(void *argument)
{
    struct shared_place *shared = argument;
    CHECK(mp_family_enter() == MP_OK);
    CHECK(mp_parcel_post(&pipe_, 1, make_parcel(50000), &shared->place) == MP_OK);
    if (shared->sent)
        mp_parcel_sent(&pipe_, 1, &shared->place);
    kill(getpid(), SIGKILL);
}

static void what_a_killed_sender_leaves(void)
{
    uint64_t offset, parcel;
    make_pipe();
    CHECK(mp_chunk_take(MP_TYPE_BLOCK, sizeof(struct shared_place), &offset) == MP_OK);
    struct shared_place *shared = mp_chunk_payload(offset);
    for (int sent = 0; sent < 2; sent++) {
        shared->sent = sent != 0;
        CHECK(WIFSIGNALED(reap(start(post_and_die, shared))));
        CHECK(mp_reclaim_now() == MP_OK);
        CHECK(mp_parcel_take(&pipe_, 1, &shared->place, &parcel) == (sent ? MP_OK : MP_STALE));
        if (sent)
            mp_message_drop(parcel);
        CHECK(mp_parcel_room(&pipe_, 1, MP_PARCEL_BYTES)); // nothing is on its way
    }
    mp_chunk_release(offset);
    mp_pipe_release(&pipe_);
}

int main(int argc, char **argv)
{
#define TEST(name)                                                                                 \
 {                                                                                                 \
#  name, name                                                                                      \
 }
    static const struct test tests[] = {
        TEST(heads),
        TEST(reads_stop_anywhere),
        TEST(bad_heads),
        TEST(writes_go_on_where_they_stopped),
        TEST(writes_of_any_size),
        TEST(threads_take_turns),
        TEST(a_fork_frees_the_turn),
        TEST(slots_fill_and_empty),
        TEST(damaged_places),
        TEST(what_a_killed_sender_leaves),
        {NULL, NULL},
    };
    return run_tests(tests, argc, argv);
}
