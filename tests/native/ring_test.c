// SPDX-License-Identifier: PSF-2.0
/* Queues from inside: words, chunks, messages and the ledger; threads over one mapping; damage; and what
 * the collector makes of the dead. */
#include "check.h" // CHECK

#include "core/inject.h"         // dying at named points
#include "shm/reclaim.h"         // the collector
#include "structures/ledger.h"   // task_done, join
#include "structures/message.h"  // large items
#include "structures/notifier.h" // descriptors
#include "structures/ring.h"     // queues

#include <poll.h>    // the notifier's descriptor
#include <pthread.h> // threads

#define THREADS 4
#define ROUNDS 20000U
#define TAG 9

static void make(mp_ring_handle *ring, uint32_t limit, bool joinable)
{
    CHECK(mp_family_enter() == MP_OK);
    CHECK(mp_ring_create(ring, limit, joinable) == MP_OK);
}

/* ---- blocking calls as the Python layer makes them ---- */

static mp_status put(mp_ring_handle *ring, const void *payload, uint32_t length, uint64_t message)
{
    mp_ring_item item = {.tag = TAG, .length = length, .payload = payload, .message = message};
    uint32_t round = 0;
    size_t done;
    mp_status status = mp_ring_put(ring, &item, 1, &done);
    while (status == MP_INTERRUPTED || status == MP_WOULD_BLOCK) {
        if (status == MP_WOULD_BLOCK)
            (void)mp_ring_wait_space(ring, MP_FOREVER, &round);
        status = mp_ring_put_slow(ring, &item, 1, &done);
    }
    CHECK(status != MP_OK || done == 1);
    return status;
}

static mp_status take(mp_ring_handle *ring, uint32_t most, mp_ring_batch *batch)
{
    uint32_t round = 0;
    mp_status status = mp_ring_take(ring, most, batch);
    while (status == MP_INTERRUPTED || status == MP_WOULD_BLOCK) {
        if (status == MP_WOULD_BLOCK)
            (void)mp_ring_wait_items(ring, MP_FOREVER, &round);
        status = mp_ring_take_slow(ring, most, batch);
    }
    return status;
}

static void put_number(mp_ring_handle *ring, uint64_t number)
{
    CHECK(put(ring, &number, sizeof number, 0) == MP_OK);
}

static uint64_t take_number(mp_ring_handle *ring)
{
    uint64_t bytes[(MP_INLINE_MAX + MP_GRANULE) / sizeof(uint64_t)];
    mp_ring_batch batch = {.bytes = bytes, .capacity = sizeof bytes};
    CHECK(take(ring, 1, &batch) == MP_OK);
    CHECK(batch.count == 1 && mp_record_tag(bytes[0]) == TAG);
    return bytes[1];
}

static uint64_t make_message(mp_ring_handle *ring, uint64_t size, char fill)
{
    uint64_t offset, room;
    mp_message_plan plan = {.tag = TAG, .parts = 1, .sizes = &size};
    CHECK(mp_message_make(ring, &plan, &offset) == MP_OK);
    void *part = mp_message_part(offset, 0, &room);
    CHECK(room == size);
    memset(part, fill, size);
    return offset;
}

/* ---- one process ---- */

static void words(void)
{
    uint64_t word = mp_word_make(MP_COUNT_MASK, 16 * MP_GRANULE, MP_RING_WAITERS);
    CHECK(mp_word_count(word) == MP_COUNT_MASK);
    CHECK(mp_word_position(word) == 16 * MP_GRANULE);
    CHECK(mp_word_count(mp_word_make(MP_COUNT_MASK + 1, 0, 0)) == 0);
    CHECK(mp_count_between(MP_COUNT_MASK, 1) == 2);
    CHECK(mp_record_room(0) == 16 && mp_record_room(8) == 16 && mp_record_room(9) == 32);
    uint64_t header = mp_record_header(5, MP_RECORD_LINK, 200);
    CHECK(mp_record_length(header) == 5 && mp_record_kind(header) == MP_RECORD_LINK);
    CHECK(mp_record_tag(header) == 200);
}

static void every_length_crosses_every_border(void)
{
    static unsigned char payload[MP_INLINE_MAX];
    static uint64_t bytes[2 * MP_UNIT / sizeof(uint64_t)];
    mp_ring_batch batch = {.bytes = bytes, .capacity = sizeof bytes};
    mp_ring_handle ring;
    make(&ring, 0, false);
    for (uint32_t length = 0; length <= MP_INLINE_MAX; length++) {
        memset(payload, (int)length, length);
        CHECK(put(&ring, payload, length, 0) == MP_OK);
    }
    CHECK(mp_ring_size(&ring) == MP_INLINE_MAX + 1);
    for (uint32_t length = 0; length <= MP_INLINE_MAX;) {
        CHECK(take(&ring, UINT32_MAX, &batch) == MP_OK && batch.count != 0);
        const char *at = batch.bytes;
        for (uint32_t i = 0; i < batch.count; i++, length++) {
            const uint64_t *record = (const uint64_t *)(const void *)at;
            CHECK(mp_record_length(*record) == length);
            for (uint32_t k = 0; k < length; k++)
                CHECK((unsigned char)at[8 + k] == (unsigned char)length);
            at += mp_record_room(length);
        }
    }
    CHECK(mp_ring_empty(&ring));
    mp_ring_release(&ring);
}

static void limits_and_closing(void)
{
    mp_ring_handle ring;
    uint64_t bytes[MP_UNIT / sizeof(uint64_t)];
    mp_ring_batch batch = {.bytes = bytes, .capacity = sizeof bytes};
    uint64_t numbers[4] = {1, 2, 3, 4};
    mp_ring_item items[4];
    size_t done;
    make(&ring, 3, false);
    for (int i = 0; i < 4; i++)
        items[i] = (mp_ring_item){TAG, sizeof(uint64_t), &numbers[i], 0};
    CHECK(mp_ring_put_slow(&ring, items, 4, &done) == MP_OK && done == 3);
    CHECK(mp_ring_put(&ring, items, 1, &done) == MP_WOULD_BLOCK && done == 0);
    CHECK(mp_ring_shutdown(&ring, false) == MP_OK);
    CHECK(mp_ring_put(&ring, items, 1, &done) == MP_CLOSED);
    CHECK(take_number(&ring) == 1 && take_number(&ring) == 2 && take_number(&ring) == 3);
    CHECK(mp_ring_take(&ring, 1, &batch) == MP_CLOSED);
    mp_ring_release(&ring);
    make(&ring, 0, false);
    put_number(&ring, 1);
    CHECK(put(&ring, NULL, 0, make_message(&ring, 9000, 'm')) == MP_OK);
    CHECK(mp_ring_shutdown(&ring, true) == MP_OK);
    CHECK(mp_ring_empty(&ring) && mp_ring_take(&ring, 1, &batch) == MP_CLOSED);
    mp_ring_release(&ring);
}

static void damage_is_noticed(void)
{
    mp_ring_handle ring;
    uint64_t bytes[MP_UNIT / sizeof(uint64_t)];
    mp_ring_batch batch = {.bytes = bytes, .capacity = sizeof bytes};
    static const uint64_t headers[] = {
        0,
        UINT64_MAX,
        UINT64_C(0xffffffff) << 32 | 1U << 24,
        UINT64_C(8) << 32 | 77U << 24,
        UINT64_C(8) << 32 | (uint64_t)MP_RECORD_LINK << 24,
        (uint64_t)MP_RECORD_JUMP << 24,
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        make(&ring, 0, false);
        put_number(&ring, 0xffff0000ffff0000);
        uint64_t *record = mp_at(mp_word_position(ring.shm->tail) - MP_GRANULE);
        *record = headers[i];
        CHECK(mp_ring_take(&ring, 1, &batch) == MP_DAMAGED);
        CHECK(mp_ring_take_slow(&ring, 1, &batch) == MP_DAMAGED);
    }
    make(&ring, 0, false);
    put_number(&ring, 1);
    ring.shm->tail_end = UINT64_MAX / 2;
    size_t done;
    mp_ring_item item = {.tag = TAG};
    CHECK(mp_ring_put(&ring, &item, 1, &done) == MP_DAMAGED);
}

/* What the control block says about its chunks is any number. */
static void damaged_places_are_noticed(void)
{
    static const uint64_t places[] = {1, MP_UNIT, UINT64_MAX / 2, UINT64_MAX - 15, UINT64_MAX};
    uint64_t bytes[MP_UNIT / sizeof(uint64_t)];
    mp_ring_batch batch = {.bytes = bytes, .capacity = sizeof bytes};
    mp_ring_item item = {.tag = TAG};
    mp_ring_handle ring;
    size_t done;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        make(&ring, 0, false); // nothing was put yet
        ring.shm->tail_chunk = places[i];
        CHECK(mp_ring_put_slow(&ring, &item, 1, &done) == MP_DAMAGED);
        make(&ring, 0, false);
        put_number(&ring, 1);
        ring.shm->tail_chunk = places[i];
        CHECK(mp_ring_put_slow(&ring, &item, 1, &done) == MP_DAMAGED);
        CHECK(take_number(&ring) == 1);
        make(&ring, 0, false);
        put_number(&ring, 1);
        put_number(&ring, 2);
        CHECK(take_number(&ring) == 1);
        ring.shm->head_chunk = places[i];
        CHECK(mp_ring_take_slow(&ring, 1, &batch) == MP_DAMAGED);
        make(&ring, 0, false);
        put_number(&ring, 1);
        ring.shm->first = places[i];
        CHECK(mp_ring_take_slow(&ring, 1, &batch) == MP_DAMAGED);
    }
}

/* A chunk of a dead owner, and ends that are nowhere: the collector keeps the chunk. */
static void damaged_ends_are_no_garbage(void)
{
    mp_ring_handle ring;
    make(&ring, 0, false);
    put_number(&ring, 1);
    uint64_t chunk = ring.shm->tail_chunk;
    mp_chunk_set_owner(chunk, 0x7fff0001U); // nobody's
    ring.shm->first = UINT64_MAX / 2;
    CHECK(mp_reclaim_now() == MP_OK);
    CHECK(mp_chunk_valid(chunk, MP_TYPE_RING_CHUNK));
    ring.shm->first = chunk;
    CHECK(take_number(&ring) == 1);
}

/* A walk through the ledger ends, whatever its chunks say. */
static void a_damaged_ledger_ends(void)
{
    mp_ring_handle ring;
    make(&ring, 0, true);
    struct mp_ledger_entry_shm *entries = (void *)(ring.shm + 1);
    for (uint32_t i = 0; i < ring.ledger_entries; i++)
        entries[i].word = (uint64_t)mp_self() << 32 | 1;
    uint64_t all = ring.ledger_entries;
    CHECK(mp_ledger_grow(&ring) == MP_OK && mp_ledger_grow(&ring) == MP_OK);
    CHECK(mp_ledger_unfinished(&ring) == all);
    struct mp_ring_chunk_shm *newest = mp_chunk_payload(ring.shm->ledger);
    uint64_t older = newest->next;
    CHECK(mp_ledger_has_chunk(ring.shm, older));
    newest->next = ring.shm->ledger; // itself
    CHECK(!mp_ledger_has_chunk(ring.shm, older));
    CHECK(mp_ledger_unfinished(&ring) == all);
    newest->next = UINT64_MAX - 7;
    CHECK(mp_ledger_unfinished(&ring) == all);
    newest->next = older;
    ring.shm->ledger_entries = UINT32_MAX; // it was checked when the queue was attached
    CHECK(mp_ledger_unfinished(&ring) == all);
    mp_object_ticket ticket;
    mp_ring_handle other;
    CHECK(mp_object_pin(&ring.object, MP_NOBODY, &ticket) == MP_OK);
    CHECK(mp_ring_attach(&other, &ticket) == MP_DAMAGED);
}

/* ---- threads ---- */

struct traffic {
    mp_ring_handle ring;
    uint64_t sum, count; // atomic
};

static void *produce(void *argument)
{
    struct traffic *traffic = argument;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        if (i % 64 == 0) {
            uint64_t message = make_message(&traffic->ring, 3000, 'x');
            CHECK(put(&traffic->ring, NULL, 0, message) == MP_OK);
        }
        put_number(&traffic->ring, i);
    }
    return NULL;
}

static void *consume(void *argument)
{
    struct traffic *traffic = argument;
    uint64_t bytes[2 * MP_UNIT / sizeof(uint64_t)];
    mp_ring_batch batch = {.bytes = bytes, .capacity = sizeof bytes};
    for (;;) {
        mp_status status = take(&traffic->ring, 8, &batch);
        if (status == MP_CLOSED)
            return NULL;
        CHECK(status == MP_OK);
        const char *at = batch.bytes;
        for (uint32_t i = 0; i < batch.count; i++) {
            const uint64_t *record = (const uint64_t *)(const void *)at;
            if (mp_record_kind(record[0]) == MP_RECORD_LINK)
                mp_message_drop(record[1]);
            else
                (void)mp_fetch_add64(&traffic->sum, record[1]);
            (void)mp_fetch_add64(&traffic->count, 1);
            if (traffic->ring.shm->flags & MP_RING_JOINABLE)
                CHECK(mp_ledger_done(&traffic->ring) == MP_OK);
            at += mp_record_room(mp_record_length(record[0]));
        }
    }
}

static void run_traffic(uint32_t limit, bool joinable)
{
    struct traffic traffic = {.sum = 0};
    pthread_t producers[THREADS], consumers[THREADS];
    make(&traffic.ring, limit, joinable);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&producers[i], NULL, produce, &traffic) == 0);
        CHECK(pthread_create(&consumers[i], NULL, consume, &traffic) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(producers[i], NULL) == 0);
    if (joinable) {
        mp_ledger_wait wait = {0, 0};
        while (mp_ledger_join(&traffic.ring, MP_FOREVER, &wait) == MP_INTERRUPTED)
            continue;
        CHECK(mp_ledger_unfinished(&traffic.ring) == 0);
    }
    CHECK(mp_ring_shutdown(&traffic.ring, false) == MP_OK);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(consumers[i], NULL) == 0);
    CHECK(traffic.count == THREADS * (ROUNDS + ROUNDS / 64));
    CHECK(traffic.sum == (uint64_t)THREADS * ROUNDS * (ROUNDS + 1) / 2);
    mp_ring_release(&traffic.ring);
}

static void threads_share_a_queue(void)
{
    run_traffic(0, false);
}

static void threads_share_a_short_queue(void)
{
    run_traffic(5, false);
}

static void threads_finish_what_they_take(void)
{
    run_traffic(50, true);
}

static void *produce_slowly(void *argument)
{
    for (uint64_t i = 1; i <= 200; i++)
        put_number(argument, i);
    return NULL;
}

static void threads_ring_a_bell(void)
{
    mp_ring_handle ring;
    mp_notifier *notifier;
    pthread_t producer;
    make(&ring, 3, false);
    CHECK(mp_notifier_open(&notifier, &ring) == MP_OK);
    struct pollfd ready = {.fd = mp_notifier_descriptor(notifier), .events = POLLIN};
    CHECK(poll(&ready, 1, 0) == 0);
    CHECK(pthread_create(&producer, NULL, produce_slowly, &ring) == 0);
    for (uint64_t i = 1; i <= 200; i++) {
        CHECK(poll(&ready, 1, 60000) == 1);
        CHECK(!mp_ring_empty(&ring));
        CHECK(take_number(&ring) == i);
        mp_notifier_taken(notifier);
    }
    CHECK(poll(&ready, 1, 0) == 0);
    CHECK(pthread_join(producer, NULL) == 0);
    mp_notifier_close(notifier);
    mp_ring_release(&ring);
}

/* ---- the dead ---- */

static const char *deadly;

static mp_status die_there(const char *name)
{
    if (strcmp(name, deadly) == 0)
        CHECK(kill(getpid(), SIGKILL) == 0);
    return MP_OK;
}

static void put_and_die(void *ring)
{
    CHECK(mp_family_enter() == MP_OK);
    uint64_t message = make_message(ring, 5000, 'd');
    mp_inject_hook = die_there;
    (void)put(ring, NULL, 0, message);
}

static void take_and_die(void *ring)
{
    CHECK(mp_family_enter() == MP_OK);
    mp_inject_hook = die_there;
    (void)take_number(ring);
}

static void die_at(const char *name, void (*body)(void *), mp_ring_handle *ring)
{
    deadly = name;
    int status = reap(start(body, ring));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK(mp_reclaim_now() == MP_OK);
}

static void the_commit_decides(void)
{
    mp_ring_handle ring;
    uint64_t bytes[MP_UNIT / sizeof(uint64_t)];
    mp_ring_batch batch = {.bytes = bytes, .capacity = sizeof bytes};
    make(&ring, 0, false);
    die_at("ring_put:before_commit", put_and_die, &ring);
    CHECK(mp_ring_empty(&ring));
    die_at("ring_put:after_commit", put_and_die, &ring);
    CHECK(mp_ring_size(&ring) == 1);
    die_at("ring_take:before_commit", take_and_die, &ring);
    CHECK(mp_ring_size(&ring) == 1);
    CHECK(take(&ring, 1, &batch) == MP_OK && mp_record_kind(bytes[0]) == MP_RECORD_LINK);
    mp_message_view view;
    char copy[5000];
    CHECK(mp_message_open(bytes[1], &view) == MP_OK && view.parts == 1);
    mp_message_read(&view, 0, copy);
    for (size_t i = 0; i < sizeof copy; i++)
        CHECK(copy[i] == 'd');
    mp_message_drop(bytes[1]);
    put_number(&ring, 7);
    put_number(&ring, 8);
    die_at("ring_take:after_commit", take_and_die, &ring);
    CHECK(mp_ring_size(&ring) == 1 && take_number(&ring) == 8);
    mp_ring_release(&ring);
}

static struct mp_ring_shm *dying_ring;

/* After the commit that went on to a large chunk's successor, before tail_chunk says so. */
static mp_status die_at_jump(const char *name)
{
    const struct mp_ring_shm *shm = dying_ring;
    uint64_t position = mp_word_position(shm->tail);
    bool behind = shm->tail_chunk != 0 && (position < shm->tail_chunk || position > shm->tail_end);
    if (strcmp(name, "ring_put:after_commit") == 0 && behind &&
        shm->tail_end - shm->tail_chunk > MP_UNIT)
        CHECK(kill(getpid(), SIGKILL) == 0);
    return MP_OK;
}

static void put_until_death(void *argument)
{
    mp_ring_handle *ring = argument;
    CHECK(mp_family_enter() == MP_OK);
    dying_ring = ring->shm;
    mp_inject_hook = die_at_jump;
    for (uint64_t number = 0;; number++)
        put_number(ring, number);
}

static void a_tail_left_behind_is_found(void)
{
    mp_ring_handle ring;
    make(&ring, 0, false);
    int status = reap(start(put_until_death, &ring));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    uint32_t count = mp_ring_size(&ring);
    for (uint32_t number = 0; number < count; number++)
        CHECK(take_number(&ring) == number);
    // What it still points to was given back, and is something else now.
    uint64_t message = make_message(&ring, 16 * MP_UNIT - 256, 'x');
    CHECK(message == ring.shm->tail_chunk);
    put_number(&ring, 7);
    CHECK(take_number(&ring) == 7);
    mp_message_drop(message);
    mp_ring_release(&ring);
}

int main(int argc, char **argv)
{
#define TEST(name)                                                                                 \
 {                                                                                                 \
#  name, name                                                                                      \
 }
    static const struct test tests[] = {
        TEST(words),
        TEST(every_length_crosses_every_border),
        TEST(limits_and_closing),
        TEST(damage_is_noticed),
        TEST(damaged_places_are_noticed),
        TEST(damaged_ends_are_no_garbage),
        TEST(a_damaged_ledger_ends),
        TEST(the_commit_decides),
        TEST(a_tail_left_behind_is_found),
        TEST(threads_share_a_queue),
        TEST(threads_share_a_short_queue),
        TEST(threads_finish_what_they_take),
        TEST(threads_ring_a_bell),
        {NULL, NULL},
    };
    return run_tests(tests, argc, argv);
}
