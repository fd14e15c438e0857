// SPDX-License-Identifier: PSF-2.0
/* Blocks (ctypes memory) made and dropped, and numbers in them read and changed under their lock. A
 * block is all zeros, also where its memory was used before; a number is the old or the new one, and
 * whoever comes next can go on. */
#include "operations.h"

#include "shm/blocks.h" // what is stepped through
#include "sync/cell.h"  // the same
#include "sync/lock.h"  // what accesses take

#include <string.h> // memset

/* Sizes of a small chunk, of one that is zeroed by writing, and of one whose pages are given back. */
enum { SMALL = 40, WRITTEN = 20000, PUNCHED = 300000 };

static mp_handle block;
static uint64_t size;

static char *bytes_of(const mp_handle *handle)
{
    return mp_object_payload(handle);
}

static void check_zeros(const mp_handle *handle)
{
    const char *bytes = bytes_of(handle);
    uint64_t dirty = 0;
    for (uint64_t i = 0; i < size; i++)
        dirty += bytes[i] != 0;
    CHECK(dirty == 0, "%llu of %llu bytes of a new block are not zero", (unsigned long long)dirty,
          (unsigned long long)size);
}

/* ---- blocks ---- */

/* What will be taken lies dirty in the list of warm runs, or of free chunks. */
static void make_dirty(uint64_t wanted)
{
    mp_handle used;
    size = wanted;
    MUST(mp_block_create(size, &used));
    memset(bytes_of(&used), 0xaa, size);
    mp_object_release(&used);
}

static void setup_small(void)
{
    make_dirty(SMALL);
}

static void setup_written(void)
{
    make_dirty(WRITTEN);
}

static void setup_punched(void)
{
    make_dirty(PUNCHED);
}

static void run_create(void)
{
    (void)mp_block_create(size, &block);
}

static void survive_create(void)
{
    mp_handle made;
    mp_status status = mp_block_create(size, &made);
    CHECK(status == MP_OK, "no block can be made: %d", (int)status);
    if (status != MP_OK)
        return;
    check_zeros(&made);
    mp_object_release(&made);
}

/* A planted fault: an object like any other, which nobody has zeroed. */
static void survive_unzeroed(void)
{
    mp_handle made;
    MUST(mp_object_create(MP_TYPE_BLOCK, size, &made));
    check_zeros(&made);
    mp_object_release(&made);
}

/* The child drops a block of its own. */
static void prepare_block(void)
{
    MUST(mp_block_create(size, &block));
    memset(bytes_of(&block), 0x55, size);
}

static void run_drop(void)
{
    mp_object_release(&block);
}

/* ---- numbers ---- */

enum { BEFORE = 41, AFTER = 42, INSIDE = 0 };

static mp_handle lock_object;
static struct mp_lock_shm *lock;
static mp_cell_kind kind;

static mp_number number(int64_t value)
{
    mp_number result;
    if (mp_cell_is_real(kind))
        result.real = (double)value;
    else
        result.integer = (uint64_t)value;
    return result;
}

static int64_t value_of(mp_number found)
{
    return mp_cell_is_real(kind) ? (int64_t)found.real : (int64_t)found.integer;
}

static void *cell(void)
{
    return bytes_of(&block);
}

static void make_cell(mp_cell_kind wanted)
{
    kind = wanted;
    MUST(mp_block_create(mp_cell_size(kind), &block));
    MUST(mp_object_create(MP_TYPE_LOCK, sizeof(struct mp_lock_shm), &lock_object));
    lock = mp_object_payload(&lock_object);
    mp_lock_init(lock, MP_LOCK_RECURSIVE);
    mp_cell_store(kind, cell(), number(BEFORE));
}

static void setup_int(void)
{
    make_cell(MP_CELL_INT32);
}

static void setup_byte(void)
{
    make_cell(MP_CELL_UINT8);
}

static void setup_double(void)
{
    make_cell(MP_CELL_DOUBLE);
}

static void setup_float(void)
{
    make_cell(MP_CELL_FLOAT);
}

/* As py/synchronized.c does it. */
static void enter(void)
{
    if (mp_lock_try(lock) != MP_OK)
        scene.shared->value[INSIDE] = -1;
}

static void leave(void)
{
    if (mp_lock_release(lock) != MP_OK)
        scene.shared->value[INSIDE] = -1;
}

static void run_set(void)
{
    enter();
    mp_cell_store(kind, cell(), number(AFTER));
    leave();
}

static void run_add(void)
{
    enter();
    (void)mp_cell_add(kind, cell(), number(AFTER - BEFORE));
    leave();
}

static void run_exchange(void)
{
    enter();
    (void)mp_cell_exchange(kind, cell(), number(AFTER));
    leave();
}

static void run_compare_exchange(void)
{
    enter();
    (void)mp_cell_compare_exchange(kind, cell(), number(BEFORE), number(AFTER));
    leave();
}

/* A planted fault: two stores where one is enough. */
static void run_clear_first(void)
{
    enter();
    mp_cell_store(kind, cell(), number(0));
    mp_fence();
    mp_cell_store(kind, cell(), number(AFTER));
    leave();
}

static void alive_cell(void)
{
    int64_t seen = value_of(mp_cell_load(kind, cell()));
    CHECK(seen == BEFORE || seen == AFTER, "a reader saw %lld", (long long)seen);
}

static mp_status acquire(void)
{
    mp_spin_memory memory = {0, 0};
    mp_lock_wait wait = {.lock = lock, .memory = &memory};
    mp_status status = mp_lock_try(lock);
    while (status == MP_WOULD_BLOCK || status == MP_INTERRUPTED)
        status = mp_lock_acquire(&wait, soon(SURVIVOR_MILLISECONDS));
    return status;
}

static void survive_cell(void)
{
    CHECK(scene.shared->value[INSIDE] == 0, "the child could not use its lock");
    mp_status status = acquire();
    CHECK(status == MP_OK || status == MP_OWNER_DIED, "the lock cannot be had: %d", (int)status);
    int64_t seen = value_of(mp_cell_load(kind, cell()));
    CHECK(seen == AFTER || (seen == BEFORE && !scene.finished), "the number is %lld",
          (long long)seen);
    CHECK(value_of(mp_cell_add(kind, cell(), number(1))) == seen + 1, "it cannot be added to");
    CHECK(mp_cell_compare_exchange(kind, cell(), number(seen + 1), number(7)), "it is another");
    CHECK(value_of(mp_cell_exchange(kind, cell(), number(0))) == 7, "it is another");
    CHECK(mp_lock_release(lock) == MP_OK, "our lock cannot be released");
    mp_object_release(&block);
    mp_object_release(&lock_object);
}

#define CELL_OPERATION(operation_name, set_up, operation)                                          \
 {                                                                                                 \
  .name = (operation_name), .setup = (set_up), .run = (operation), .alive = alive_cell,            \
  .survive = survive_cell                                                                          \
 }

const struct operation operations_blocks[] = {
    {.name = "block-create", .setup = setup_small, .run = run_create, .survive = survive_create},
    {.name = "block-create-written",
     .setup = setup_written,
     .run = run_create,
     .survive = survive_create},
    {.name = "block-create-punched",
     .setup = setup_punched,
     .run = run_create,
     .survive = survive_create},
    {.name = "block-drop",
     .setup = setup_small,
     .prepare = prepare_block,
     .run = run_drop,
     .survive = survive_create},
    {.name = "block-drop-large",
     .setup = setup_written,
     .prepare = prepare_block,
     .run = run_drop,
     .survive = survive_create},
    CELL_OPERATION("value-set", setup_int, run_set),
    CELL_OPERATION("value-add", setup_int, run_add),
    CELL_OPERATION("value-add-byte", setup_byte, run_add),
    CELL_OPERATION("value-add-double", setup_double, run_add),
    CELL_OPERATION("value-exchange", setup_float, run_exchange),
    CELL_OPERATION("value-compare-exchange", setup_double, run_compare_exchange),
    {.name = "block-fault-not-zeroed",
     .setup = setup_written,
     .run = run_create,
     .survive = survive_unzeroed,
     .fault = true},
    {.name = "value-fault-clear-first",
     .setup = setup_int,
     .run = run_clear_first,
     .survive = survive_cell,
     .fault = true},
    {.name = NULL},
};
