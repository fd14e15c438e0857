// SPDX-License-Identifier: PSF-2.0
/* Queues: what was put is there, whole, once and in order; what was not is not; nobody is stuck.
 *
 * Items are numbers from 0 up. The driver puts some first, the child puts or takes some and dies, and
 * the driver goes on and takes everything. Item i is of the kind that `kind_of(i)` says. */
#include "operations.h"

#include "core/inject.h"        // planted faults
#include "shm/chunks.h"         // messages are chunks
#include "shm/reclaim.h"        // the collector finalizes queues
#include "structures/ledger.h"  // task_done, join
#include "structures/message.h" // large items
#include "structures/ring.h"    // what is stepped through
#include <string.h>             // names of injection points

enum { DONE = 0, STARTED = 1, HELPER = 2, TAKEN = 3, GOT = 8 };
enum { NUMBER = 8, WIDE = 1500, LETTER = 5000, PINNED = 5001 };
enum { BATCH = 1 << 20, MANY = 10, TAG = 7 };

static struct {
    mp_ring_handle ring;
    uint64_t before;      // items of `kind` that somebody put before the child
    uint64_t number;      // of the next item that anybody puts
    uint32_t kind;        // of the items that the child puts
    uint64_t first, last; // numbers that the child puts: [first, last)
    mp_handle object;     // what PINNED items hold
    uint64_t gone;        // items that were taken while the child stood still
} this;

static uint64_t batch_bytes[BATCH / sizeof(uint64_t)];

/* ---- items ---- */

static uint64_t word_of(uint64_t number, uint32_t i)
{
    return (scene.run << 32 | number) + i * UINT64_C(0x9e3779b97f4a7c15);
}

static uint32_t kind_of(uint64_t number)
{
    return number >= this.first - this.before && number < this.last ? this.kind : NUMBER;
}

static void fill(uint64_t *words, uint32_t bytes, uint64_t number)
{
    for (uint32_t i = 0; i < bytes / 8; i++)
        words[i] = word_of(number, i);
}

static mp_status make_letter(uint64_t number, bool pinned, mp_ring_item *item)
{
    uint64_t size = LETTER;
    mp_object_ticket ticket;
    mp_message_plan plan = {.tag = TAG, .parts = 1, .sizes = &size};
    mp_status status = MP_OK;
    if (pinned) {
        status = mp_object_pin(&this.object, MP_NOBODY, &ticket);
        plan.pins = 1;
        plan.tickets = &ticket;
    }
    if (status == MP_OK)
        status = mp_message_make(&this.ring, &plan, &item->message);
    if (status == MP_OK)
        fill(mp_message_part(item->message, 0, &size), LETTER, number);
    return status;
}

static mp_status make_item(uint64_t number, uint64_t *words, mp_ring_item *item)
{
    uint32_t kind = kind_of(number);
    *item = (mp_ring_item){.tag = TAG, .payload = words};
    if (kind >= LETTER)
        return make_letter(number, kind == PINNED, item);
    item->length = kind;
    fill(words, kind, number);
    return MP_OK;
}

static mp_status put_items(const mp_ring_item *items, size_t count)
{
    uint32_t round = 0;
    while (count != 0) {
        size_t done;
        mp_status status = mp_ring_put(&this.ring, items, count, &done);
        if (status == MP_INTERRUPTED)
            status = mp_ring_put_slow(&this.ring, items, count, &done);
        if (status == MP_WOULD_BLOCK)
            status = mp_ring_wait_space(&this.ring, MP_FOREVER, &round);
        if (status != MP_OK && status != MP_INTERRUPTED)
            return status;
        items += done;
        count -= done;
    }
    return MP_OK;
}

static mp_status put_one(uint64_t number)
{
    uint64_t words[LETTER / 8];
    mp_ring_item item;
    mp_status status = make_item(number, words, &item);
    return status == MP_OK ? put_items(&item, 1) : status;
}

/* ---- taking and looking ---- */

static uint64_t check_words(const uint64_t *words, uint32_t bytes)
{
    uint64_t number = words[0] - (scene.run << 32);
    CHECK(number < UINT32_MAX, "an item of another time: %#llx", (unsigned long long)words[0]);
    for (uint32_t i = 0; i < bytes / 8; i++)
        CHECK(words[i] == word_of(number, i), "item %llu is torn at word %u",
              (unsigned long long)number, i);
    return number;
}

static uint64_t open_letter(uint64_t offset)
{
    static uint64_t words[LETTER / 8];
    mp_message_view view;
    mp_status status = mp_message_open(offset, &view);
    CHECK(status == MP_OK && view.parts == 1 && view.tag == TAG, "the message cannot be opened: %d",
          (int)status);
    if (status != MP_OK)
        return UINT64_MAX;
    mp_message_read(&view, 0, words);
    mp_message_drop(offset);
    return check_words(words, LETTER);
}

/* The number of a record that was taken. */
static uint64_t open_record(const uint64_t *record)
{
    uint64_t header = record[0];
    CHECK(mp_record_tag(header) == TAG, "a record with tag %u", mp_record_tag(header));
    if (mp_record_kind(header) == MP_RECORD_LINK)
        return open_letter(record[1]);
    return check_words(record + 1, mp_record_length(header));
}

static mp_status take_batch(uint32_t most, mp_ring_batch *batch, mp_time deadline)
{
    uint32_t round = 0;
    *batch = (mp_ring_batch){.bytes = batch_bytes, .capacity = sizeof batch_bytes};
    for (;;) {
        mp_status status = mp_ring_take(&this.ring, most, batch);
        if (status == MP_INTERRUPTED)
            status = mp_ring_take_slow(&this.ring, most, batch);
        if (status == MP_WOULD_BLOCK)
            status = mp_ring_wait_items(&this.ring, deadline, &round);
        else if (status != MP_INTERRUPTED)
            return status;
        if (status == MP_TIMEOUT)
            return status;
    }
}

/* Take what is there, in batches, and CHECK that it is the numbers from `from` up to `to`, but for
 * those of the child's that were not put or were taken: then `from` and `to` say so. */
static void take_and_check(uint64_t from, uint64_t to)
{
    while (from < to && !stepper_failed()) {
        mp_ring_batch batch;
        mp_status status = take_batch(3, &batch, soon(SURVIVOR_MILLISECONDS));
        CHECK(status == MP_OK, "item %llu of %llu cannot be taken: %d", (unsigned long long)from,
              (unsigned long long)to, (int)status);
        const char *at = batch.bytes;
        for (uint32_t i = 0; i < batch.count && !stepper_failed(); i++) {
            const uint64_t *record = (const uint64_t *)(const void *)at;
            uint64_t number = open_record(record);
            CHECK(number == from, "item %llu came, not %llu", (unsigned long long)number,
                  (unsigned long long)from);
            from++;
            at += mp_record_room(mp_record_length(record[0]));
        }
    }
    CHECK(mp_ring_empty(&this.ring) && mp_ring_size(&this.ring) == 0, "%u items too many",
          mp_ring_size(&this.ring));
}

/* ---- scenes ---- */

static void make(uint32_t limit, bool joinable, uint64_t before)
{
    this.number = this.first = this.last = this.gone = this.before = 0;
    this.kind = NUMBER;
    MUST(mp_ring_create(&this.ring, limit, joinable));
    for (; this.number < before; this.number++)
        MUST(put_one(this.number));
    this.first = this.last = this.number;
}

static void child_puts(uint32_t kind, uint32_t count)
{
    this.kind = kind;
    this.last = this.first + count;
}

static void finish(void)
{
    mp_ring_release(&this.ring);
}

/* Items [0, there) are in the queue, where `there` lies between what the driver put and that plus
 * what the child put. Then others go on: they put, and take everything. */
static void survive_puts(void)
{
    uint64_t there = mp_ring_size(&this.ring) + this.gone;
    CHECK(there >= this.first && there <= this.last, "%llu items, expected %llu to %llu",
          (unsigned long long)there, (unsigned long long)this.first, (unsigned long long)this.last);
    CHECK(!scene.finished || there == this.last, "put() returned, and the item is not there");
    this.last = there < this.last ? there : this.last;
    CHECK(put_one(there) == MP_OK, "nothing can be put any more");
    CHECK(put_one(there + 1) == MP_OK, "nothing can be put any more");
    CHECK(mp_ring_size(&this.ring) == there + 2 - this.gone, "the size is %u",
          mp_ring_size(&this.ring));
    take_and_check(this.gone, there + 2);
    finish();
}

/* While a producer stands still nobody sees half of anything, and a consumer takes the first item, if
 * there is one. */
static void alive_puts(void)
{
    uint64_t there = mp_ring_size(&this.ring);
    CHECK(there >= this.first && there <= this.last, "%llu items", (unsigned long long)there);
    mp_ring_batch batch = {.bytes = batch_bytes, .capacity = sizeof batch_bytes};
    mp_status status = mp_ring_take(&this.ring, 1, &batch);
    CHECK(status == (there == 0 ? MP_WOULD_BLOCK : MP_OK), "%llu items, and take gave %d",
          (unsigned long long)there, (int)status);
    if (status == MP_OK) {
        CHECK(open_record(batch.bytes) == 0, "another item than the first");
        this.gone = 1;
    }
}

static void run_put(void)
{
    for (uint64_t number = this.first; number < this.last; number++)
        (void)put_one(number);
}

static void run_put_many(void)
{
    uint64_t words[MANY][WIDE / 8 + 1];
    mp_ring_item items[MANY];
    for (uint64_t i = 0; i < this.last - this.first; i++)
        (void)make_item(this.first + i, words[i], &items[i]);
    (void)put_items(items, this.last - this.first);
}

/* ---- puts ---- */

static void setup_first(void)
{
    make(0, false, 0);
    child_puts(NUMBER, 1);
}

static void setup_put(void)
{
    make(0, false, 3);
    child_puts(NUMBER, 1);
}

static void setup_put_wide(void)
{
    make(0, false, 3);
    child_puts(WIDE, 1);
}

/* The chunk is nearly full: a record of 1500 bytes goes into the next one. */
static void setup_put_jump(void)
{
    make(0, false, 3 + (MP_RING_CHUNK_SMALL - 1600) / 16);
    child_puts(WIDE, 1);
}

/* The same, and a consumer has left a chunk behind that can be used again. */
static void setup_put_spare(void)
{
    mp_ring_batch batch;
    make(0, false, 0);
    /* Full and emptied twice: the second chunk is taken while the queue is empty, so it is small. */
    for (uint64_t i = 0; i < 2 * (MP_RING_CHUNK_SMALL / 16); i++) {
        MUST(put_one(i));
        MUST(take_batch(1, &batch, soon(0)));
    }
    for (uint64_t i = 0; i < 200; i++)
        MUST(put_one(i));
    this.first = this.number = 200;
    child_puts(WIDE, 2);
}

static void setup_put_letter(void)
{
    make(0, false, 3);
    child_puts(LETTER, 1);
}

static void setup_put_pinned(void)
{
    make(0, false, 3);
    MUST(mp_object_create(MP_TYPE_BLOCK, sizeof(uint64_t), &this.object));
    child_puts(PINNED, 1);
}

/* A pin that was made and not yet in a message when its maker died stays (see operations_objects.c). */
static void forgive_pin(uint64_t unit, struct mp_unit_shm *run, void *argument)
{
    uint64_t word = run->word;
    if (mp_unit_kind(word) != MP_UNIT_SLAB || mp_unit_class(word) != 0)
        return;
    for (uint64_t at = 0; at < MP_SLAB_UNITS * MP_UNIT; at += mp_slab_chunk_size(0)) {
        uint64_t offset = mp_unit_offset(unit) + at;
        const struct mp_reference_shm *pin = mp_chunk_payload(offset);
        uint64_t state = mp_chunk_at(offset)->state;
        if (mp_state_type(state) == MP_TYPE_PIN && pin->object == this.object.offset)
            *(unsigned *)argument += mp_chunk_release_if(offset, state);
    }
}

static void survive_pinned(void)
{
    bool there = mp_ring_size(&this.ring) + this.gone > this.first;
    unsigned left = 0;
    survive_puts();
    (void)mp_reclaim_now();
    mp_run_walk(forgive_pin, &left);
    CHECK(left == 0 || (left == 1 && !there), "%u pins left by items that are gone", left);
    mp_object_release(&this.object);
}

static void setup_put_many(void)
{
    make(0, false, 3);
    child_puts(WIDE, MANY);
}

/* ---- a bounded queue ---- */

static void setup_full(void)
{
    make(3, false, 3);
    child_puts(NUMBER, 1);
}

static bool take_one_first(void)
{
    if (scene.wakes == 1) {
        mp_ring_batch batch;
        CHECK(take_batch(1, &batch, soon(0)) == MP_OK, "nothing can be taken from a full queue");
    }
    return scene.wakes < 2;
}

static void survive_full(void)
{
    uint64_t from = scene.wakes != 0;
    uint64_t there = mp_ring_size(&this.ring) + from;
    CHECK(there == this.first || (there == this.last && from == 1), "%llu items",
          (unsigned long long)there);
    CHECK(!scene.finished || there == this.last, "put() returned, and the item is not there");
    this.last = there;
    take_and_check(from, there);
    CHECK(put_one(there) == MP_OK, "nothing can be put any more");
    take_and_check(there, there + 1);
    finish();
}

/* ---- a consumer sleeps ---- */

static void take_one(void)
{
    mp_ring_batch batch;
    mp_status status = take_batch(1, &batch, MP_FOREVER);
    scene.shared->value[HELPER] = 1 + (int64_t)status;
    scene.shared->value[GOT] = (int64_t)open_record(batch.bytes);
}

static void setup_put_awaited(void)
{
    make(0, false, 0);
    child_puts(NUMBER, 1);
    helper_start(0, take_one);
    helper_asleep(0);
}

static void survive_put_awaited(void)
{
    trace_nap(scene.finished ? 0 : 500);
    bool put = scene.finished || mp_ring_size(&this.ring) != 0 || scene.shared->value[HELPER] != 0;
    if (!put)
        CHECK(put_one(0) == MP_OK, "nothing can be put any more");
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[HELPER] == 1 && scene.shared->value[GOT] == 0,
          "the sleeper got item %lld", (long long)scene.shared->value[GOT]);
    this.first = this.last = 0;
    survive_puts();
}

/* ---- takes ---- */

static void take_in_child(uint32_t most)
{
    mp_ring_batch batch;
    if (take_batch(most, &batch, MP_FOREVER) == MP_OK)
        scene.shared->value[TAKEN] = batch.count;
}

static void run_take(void)
{
    take_in_child(1);
}

static void run_take_many(void)
{
    take_in_child(MANY);
}

/* While a consumer stands still a producer puts one more. */
static void alive_take(void)
{
    uint64_t words[NUMBER / 8];
    mp_ring_item item;
    size_t done;
    MUST(make_item(this.number, words, &item));
    mp_status status = mp_ring_put(&this.ring, &item, 1, &done);
    if (status == MP_INTERRUPTED)
        status = mp_ring_put_slow(&this.ring, &item, 1, &done);
    CHECK(status == MP_OK, "nothing can be put beside a consumer: %d", (int)status);
    this.number += status == MP_OK;
}

/* The child took [0, n) in one step, or nothing; what is left comes in order. */
static void survive_takes_of(uint64_t one_step)
{
    uint64_t there = this.number;
    uint64_t left = mp_ring_size(&this.ring);
    CHECK(left == there || left == there - one_step, "%llu items are left of %llu",
          (unsigned long long)left, (unsigned long long)there);
    CHECK(!scene.finished || left == there - one_step, "it returned, and the item is still there");
    CHECK(put_one(there) == MP_OK, "nothing can be put any more");
    take_and_check(there - left, there + 1);
    finish();
}

static void survive_take(void)
{
    survive_takes_of(1);
}

static void survive_take_many(void)
{
    survive_takes_of(MANY);
}

static void setup_take(void)
{
    make(0, false, 3);
}

static void setup_take_last(void)
{
    make(0, false, 1);
}

static void setup_take_many(void)
{
    make(0, false, MANY + 3);
}

/* The next record is the first one of the next chunk. */
static void setup_take_jump(void)
{
    mp_ring_batch batch;
    uint64_t count = MP_RING_CHUNK_SMALL / 16;
    make(0, false, count + 5);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t chunk = this.ring.shm->head_chunk;
        uint64_t end = this.ring.shm->head_end;
        if (chunk != 0 && mp_word_position(this.ring.shm->head) + MP_GRANULE > end)
            break;
        MUST(take_batch(1, &batch, soon(0)));
    }
    scene.shared->value[STARTED] = (int64_t)(count + 5 - mp_ring_size(&this.ring));
}

static void survive_take_jump(void)
{
    uint64_t from = (uint64_t)scene.shared->value[STARTED];
    uint64_t left = mp_ring_size(&this.ring);
    CHECK(left == this.number - from || left == this.number - from - 1, "%llu items are left",
          (unsigned long long)left);
    CHECK(!scene.finished || left != this.number - from,
          "it returned, and the item is still there");
    CHECK(put_one(this.number) == MP_OK, "nothing can be put any more");
    take_and_check(this.number - left, this.number + 1);
    finish();
}

static void setup_take_letter(void)
{
    make(0, false, 0);
    child_puts(LETTER, 2);
    run_put();
    this.number = 2;
}

static void run_take_letter(void)
{
    mp_ring_batch batch;
    if (take_batch(1, &batch, MP_FOREVER) == MP_OK)
        (void)open_record(batch.bytes);
}

static void survive_take_letter(void)
{
    survive_takes_of(1);
}

/* The queue is empty: the child sleeps, and the driver puts. */
static void setup_empty(void)
{
    make(0, false, 0);
}

static bool put_once(void)
{
    if (scene.wakes == 1)
        CHECK(put_one(0) == MP_OK, "nothing can be put");
    return scene.wakes < 2;
}

static void survive_take_asleep(void)
{
    uint64_t put = scene.wakes != 0;
    uint64_t left = mp_ring_size(&this.ring);
    CHECK(left <= put && (!scene.finished || left == 0), "%llu items", (unsigned long long)left);
    CHECK(put_one(put) == MP_OK, "nothing can be put any more");
    take_and_check(put - left, put + 1);
    finish();
}

/* Behind the child, which is woken and dies before it takes, sleeps another consumer. */
static bool queue_another_and_put(void)
{
    if (scene.wakes == 1) {
        helper_start(0, take_one);
        helper_asleep(0);
        CHECK(put_one(0) == MP_OK, "nothing can be put");
    }
    return scene.wakes < 2;
}

static void survive_next_in_line(void)
{
    if (scene.wakes == 0) {
        survive_take_asleep();
        return;
    }
    trace_nap(scene.finished ? 0 : 500);
    bool taken = mp_ring_empty(&this.ring) && scene.shared->value[HELPER] == 0;
    if (taken)
        CHECK(put_one(1) == MP_OK, "nothing can be put any more");
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[GOT] == taken, "the next in line got item %lld",
          (long long)scene.shared->value[GOT]);
    this.first = this.last = 0;
    survive_puts();
}

/* A producer sleeps in front of a full queue while the child takes. */
static void put_the_third(void)
{
    mp_status status = put_one(2);
    scene.shared->value[HELPER] = 1 + (int64_t)status;
}

static void setup_take_awaited(void)
{
    make(2, false, 2);
    helper_start(0, put_the_third);
    helper_asleep(0);
}

static void survive_take_awaited(void)
{
    trace_nap(scene.finished ? 0 : 500);
    uint64_t from = 1;
    bool taken = scene.finished || mp_ring_size(&this.ring) < 2 || scene.shared->value[HELPER] != 0;
    if (!taken) {
        mp_ring_batch batch;
        CHECK(take_batch(1, &batch, soon(SURVIVOR_MILLISECONDS)) == MP_OK, "nothing can be taken");
        CHECK(stepper_failed() || open_record(batch.bytes) == 0, "another item than the first");
    }
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[HELPER] == 1, "the producer did not wake up");
    take_and_check(from, 3);
    finish();
}

/* ---- joinable queues ---- */

static void setup_joinable(void)
{
    make(0, true, 2);
}

static void run_take_and_finish(void)
{
    take_in_child(1);
    scene.shared->value[DONE] = 1;
    (void)mp_ledger_done(&this.ring);
}

static mp_status join_within(unsigned milliseconds)
{
    mp_ledger_wait wait = {0, 0};
    mp_status status;
    do
        status = mp_ledger_join(&this.ring, soon(milliseconds), &wait);
    while (status == MP_INTERRUPTED && mp_ledger_unfinished(&this.ring) == 0);
    return status;
}

/* Whatever the dead had taken counts as done. */
static void survive_joinable(void)
{
    uint64_t left = mp_ring_size(&this.ring);
    CHECK(left == 2 || left == 1, "%llu items are left", (unsigned long long)left);
    CHECK(mp_ledger_unfinished(&this.ring) == left, "%llu items unfinished, %llu in the queue",
          (unsigned long long)mp_ledger_unfinished(&this.ring), (unsigned long long)left);
    take_and_check(2 - left, 2);
    CHECK(mp_ledger_unfinished(&this.ring) == left, "%llu unfinished of %llu that we took",
          (unsigned long long)mp_ledger_unfinished(&this.ring), (unsigned long long)left);
    for (uint64_t i = 0; i < left; i++)
        CHECK(mp_ledger_done(&this.ring) == MP_OK, "task_done() is refused");
    CHECK(mp_ledger_done(&this.ring) == MP_MISUSE, "task_done() once too often is accepted");
    CHECK(mp_ledger_unfinished(&this.ring) == 0, "something is unfinished");
    CHECK(join_within(SURVIVOR_MILLISECONDS) == MP_OK, "join() does not end");
    finish();
}

static void alive_joinable(void)
{
    uint64_t unfinished = mp_ledger_unfinished(&this.ring);
    CHECK(unfinished == 2 || scene.shared->value[TAKEN] == 1 || mp_ring_size(&this.ring) == 2 ||
              unfinished == 1,
          "%llu unfinished", (unsigned long long)unfinished);
}

/* A helper sleeps in join(); the child finishes the last item, or dies and by that finishes it. */
static void join_forever(void)
{
    mp_ledger_wait wait = {0, 0};
    mp_status status;
    wait_value(TAKEN);
    do
        status = mp_ledger_join(&this.ring, MP_FOREVER, &wait);
    while (status == MP_INTERRUPTED);
    scene.shared->value[HELPER] = 1 + (int64_t)status;
}

static void setup_join(void)
{
    make(0, true, 1);
    helper_start(0, join_forever);
}

static void prepare_join(void)
{
    take_in_child(1);
    while (!(mp_load_acquire32(&this.ring.shm->joiners) & 1U))
        trace_nap(20);
    trace_nap(300);
}

static void run_done(void)
{
    (void)mp_ledger_done(&this.ring);
}

static void alive_join(void)
{
    CHECK(mp_ledger_unfinished(&this.ring) <= 1, "too much is unfinished");
}

static void survive_join(void)
{
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[HELPER] == 1, "join() did not end");
    CHECK(mp_ledger_unfinished(&this.ring) == 0, "something is unfinished");
    finish();
}

/* ---- shutdown ---- */

static void setup_shutdown(void)
{
    make(0, false, 0);
    child_puts(LETTER, 2);
    run_put();
}

static void run_shutdown(void)
{
    while (mp_ring_shutdown(&this.ring, false) == MP_INTERRUPTED)
        ;
}

static void run_shutdown_now(void)
{
    while (mp_ring_shutdown(&this.ring, true) == MP_INTERRUPTED)
        ;
}

static void survive_shutdown(void)
{
    if (mp_ring_state(&this.ring) == MP_RING_OPEN) {
        CHECK(!scene.finished, "it is not shut down");
        run_shutdown();
    }
    CHECK(put_one(9) == MP_CLOSED, "something can be put into a queue that was shut down");
    take_and_check(0, 2);
    mp_ring_batch batch;
    CHECK(take_batch(1, &batch, soon(0)) == MP_CLOSED, "an empty queue that was shut down is open");
    finish();
}

static void survive_shutdown_now(void)
{
    mp_ring_batch batch;
    CHECK(mp_ring_state(&this.ring) == MP_RING_CLOSED || !scene.finished, "it is not shut down");
    run_shutdown_now(); // who comes next finishes what the dead one began
    CHECK(put_one(9) == MP_CLOSED, "something can be put into a queue that was shut down");
    CHECK(take_batch(1, &batch, soon(0)) == MP_CLOSED, "something can be taken");
    CHECK(mp_ring_size(&this.ring) == 0, "%u items are left", mp_ring_size(&this.ring));
    finish();
}

/* A helper sleeps in get() of an empty queue when it is shut down. */
static void take_until_closed(void)
{
    mp_ring_batch batch;
    mp_status status = take_batch(1, &batch, MP_FOREVER);
    scene.shared->value[HELPER] = 1 + (int64_t)status;
}

static void setup_shutdown_awaited(void)
{
    make(0, false, 0);
    helper_start(0, take_until_closed);
    helper_asleep(0);
}

static void survive_shutdown_awaited(void)
{
    if (mp_ring_state(&this.ring) == MP_RING_OPEN)
        run_shutdown();
    helper_join(0, SURVIVOR_MILLISECONDS);
    CHECK(scene.shared->value[HELPER] == 1 + MP_CLOSED, "the sleeper got %lld",
          (long long)scene.shared->value[HELPER] - 1);
    finish();
}

/* ---- making and dropping queues ---- */

static void nothing(void)
{
}

static void run_create(void)
{
    mp_ring_handle ring;
    (void)mp_ring_create(&ring, 5, true);
}

/* A queue that only the child knows, with items, large items and what they hold. */
static void prepare_full_queue(void)
{
    make(0, true, 300);
    MUST(mp_object_create(MP_TYPE_BLOCK, sizeof(uint64_t), &this.object));
    child_puts(PINNED, 2);
    run_put();
    mp_ring_batch batch;
    MUST(take_batch(1, &batch, soon(0)));
}

static void run_drop(void)
{
    mp_ring_release(&this.ring);
}

static void setup_dead_queue(void)
{
    helper_start(0, prepare_full_queue);
    helper_join(0, 1000);
}

static void run_collect(void)
{
    (void)mp_reclaim_now();
}

static void setup_dead_spare(void)
{
    helper_start(0, setup_put_spare);
    helper_join(0, 1000);
}

/* ---- deaths in what repairs a death: the child is the one that finds what a helper left ---- */

/* More unfinished items than the ledger has entries for: the child makes room for more. */
static void setup_full_ledger(void)
{
    make(0, true, 2);
    struct mp_ledger_entry_shm *entries = (void *)(this.ring.shm + 1);
    for (uint32_t i = 0; i < this.ring.shm->ledger_entries; i++)
        entries[i].word = (uint64_t)mp_self() << 32 | 1;
}

static void empty_ledger(void)
{
    struct mp_ledger_entry_shm *entries = (void *)(this.ring.shm + 1);
    for (uint32_t i = 0; i < this.ring.shm->ledger_entries; i++)
        entries[i].word = 0;
}

static void survive_full_ledger(void)
{
    empty_ledger();
    survive_joinable();
}

#ifdef MP_TESTING

static void put_and_die(const char *point)
{
    die_at(point);
    (void)put_one(this.first);
}

static void put_and_die_before(void)
{
    put_and_die("ring_put:before_commit");
}

static void put_and_die_after(void)
{
    put_and_die("ring_put:after_commit");
}

static void setup_put_after_death(void (*death)(void), uint64_t committed)
{
    setup_put_jump();
    helper_start(0, death);
    helper_must_die(0);
    this.before = committed;
    this.first += committed;
    this.last += committed;
}

static void setup_put_repair_before(void)
{
    setup_put_after_death(put_and_die_before, 0);
}

static void setup_put_repair_after(void)
{
    setup_put_after_death(put_and_die_after, 1);
}

static void take_and_die_before(void)
{
    die_at("ring_take:before_commit");
    run_take();
}

static void take_and_die_after(void)
{
    die_at("ring_take:after_commit");
    run_take();
}

static void setup_take_repair_before(void)
{
    setup_take_jump();
    helper_start(0, take_and_die_before);
    helper_must_die(0);
}

static void setup_take_repair_after(void)
{
    setup_take_jump();
    helper_start(0, take_and_die_after);
    helper_must_die(0);
    scene.shared->value[STARTED]++;
}

#endif

/* ---- planted faults: they must be found ---- */

#ifdef MP_TESTING

/* Where the record is that the put in progress writes, and one of its words. */
static uint64_t *torn_word;
static uint64_t torn_value;

/* As if the store of the item's last word came behind the one that commits it. */
static mp_status write_after_commit(const char *name)
{
    if (strcmp(name, "ring_put:before_commit") == 0) {
        torn_word = (uint64_t *)mp_at(mp_word_position(this.ring.shm->tail)) + 1;
        torn_value = *torn_word;
        mp_store_release64(torn_word, 0);
    } else if (strcmp(name, "ring_put:after_commit") == 0) {
        mp_store_release64(torn_word, torn_value);
    }
    return MP_OK;
}

static void prepare_write_after_commit(void)
{
    mp_inject_hook = write_after_commit;
}

/* As if a message were made the consumer's own behind the store that takes it out of the queue. */
static uint64_t early_message;

static mp_status own_after_commit(const char *name)
{
    if (strcmp(name, "ring_take:before_commit") == 0) {
        uint64_t *record = mp_at(mp_word_position(this.ring.shm->head));
        if (mp_word_position(this.ring.shm->head) == 0)
            record = mp_at(this.ring.shm->first + MP_RECORDS_AT);
        early_message = record[1];
        mp_chunk_set_owner(early_message, (mp_owner)scene.shared->value[STARTED]);
    } else if (strcmp(name, "ring_take:after_commit") == 0) {
        mp_chunk_set_owner(early_message, mp_self());
    }
    return MP_OK;
}

static void prepare_own_after_commit(void)
{
    mp_inject_hook = own_after_commit;
}

static void setup_own_after_commit(void)
{
    setup_take_letter();
    scene.shared->value[STARTED] = mp_self();
}

#endif

#define PUT .run = run_put, .alive = alive_puts, .survive = survive_puts
#define TAKE .run = run_take, .alive = alive_take, .survive = survive_take

const struct operation operations_ring[] = {
    {.name = "ring-create", .run = run_create, .survive = nothing},
    {.name = "ring-put-first", .setup = setup_first, PUT},
    {.name = "ring-put", .setup = setup_put, PUT},
    {.name = "ring-put-wide", .setup = setup_put_wide, PUT},
    {.name = "ring-put-jump", .setup = setup_put_jump, PUT},
    {.name = "ring-put-spare", .setup = setup_put_spare, PUT},
    {.name = "ring-put-letter", .setup = setup_put_letter, PUT},
    {.name = "ring-put-pinned",
     .setup = setup_put_pinned,
     .run = run_put,
     .alive = alive_puts,
     .survive = survive_pinned},
    {.name = "ring-put-many",
     .setup = setup_put_many,
     .run = run_put_many,
     .survive = survive_puts},
    {.name = "ring-put-full",
     .setup = setup_full,
     .run = run_put,
     .wake = take_one_first,
     .survive = survive_full},
    {.name = "ring-put-wake",
     .setup = setup_put_awaited,
     .run = run_put,
     .survive = survive_put_awaited},
    {.name = "ring-take", .setup = setup_take, TAKE},
    {.name = "ring-take-last", .setup = setup_take_last, TAKE},
    {.name = "ring-take-many",
     .setup = setup_take_many,
     .run = run_take_many,
     .alive = alive_take,
     .survive = survive_take_many},
    {.name = "ring-take-jump",
     .setup = setup_take_jump,
     .run = run_take,
     .alive = alive_take,
     .survive = survive_take_jump},
    {.name = "ring-take-letter",
     .setup = setup_take_letter,
     .run = run_take_letter,
     .alive = alive_take,
     .survive = survive_take_letter},
    {.name = "ring-take-sleep",
     .setup = setup_empty,
     .run = run_take,
     .wake = put_once,
     .survive = survive_take_asleep},
    {.name = "ring-take-sleep-first-of-two",
     .setup = setup_empty,
     .run = run_take,
     .wake = queue_another_and_put,
     .survive = survive_next_in_line},
    {.name = "ring-take-wake",
     .setup = setup_take_awaited,
     .run = run_take,
     .survive = survive_take_awaited},
    {.name = "ring-joinable",
     .setup = setup_joinable,
     .run = run_take_and_finish,
     .alive = alive_joinable,
     .survive = survive_joinable},
    {.name = "ring-join",
     .setup = setup_join,
     .prepare = prepare_join,
     .run = run_done,
     .alive = alive_join,
     .survive = survive_join},
    {.name = "ring-shutdown",
     .setup = setup_shutdown,
     .run = run_shutdown,
     .survive = survive_shutdown},
    {.name = "ring-shutdown-now",
     .setup = setup_shutdown,
     .run = run_shutdown_now,
     .survive = survive_shutdown_now},
    {.name = "ring-shutdown-wake",
     .setup = setup_shutdown_awaited,
     .run = run_shutdown,
     .survive = survive_shutdown_awaited},
    {.name = "ring-drop", .prepare = prepare_full_queue, .run = run_drop, .survive = nothing},
    {.name = "ring-collect", .setup = setup_dead_queue, .run = run_collect, .survive = nothing},
    {.name = "ring-collect-spare",
     .setup = setup_dead_spare,
     .run = run_collect,
     .survive = nothing},
    {.name = "ring-ledger-grow",
     .setup = setup_full_ledger,
     .run = run_take_and_finish,
     .survive = survive_full_ledger},
#ifdef MP_TESTING
    {.name = "ring-put-repair-before", .setup = setup_put_repair_before, PUT},
    {.name = "ring-put-repair-after", .setup = setup_put_repair_after, PUT},
    {.name = "ring-take-repair-before",
     .setup = setup_take_repair_before,
     .run = run_take,
     .survive = survive_take_jump},
    {.name = "ring-take-repair-after",
     .setup = setup_take_repair_after,
     .run = run_take,
     .survive = survive_take_jump},
    {.name = "ring-fault-write-after-commit",
     .setup = setup_put,
     .prepare = prepare_write_after_commit,
     .run = run_put,
     .survive = survive_puts,
     .fault = true},
    {.name = "ring-fault-own-after-commit",
     .setup = setup_own_after_commit,
     .prepare = prepare_own_after_commit,
     .run = run_take_letter,
     .survive = survive_take_letter,
     .fault = true},
#endif
    {.name = NULL},
};
