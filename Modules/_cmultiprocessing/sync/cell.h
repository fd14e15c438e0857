// SPDX-License-Identifier: PSF-2.0
/* Cells: numbers of the machine's types in shared memory, read and changed by one instruction each.
 *
 *     mp_number more = {.integer = 5};
 *     mp_number now = mp_cell_add(MP_CELL_INT32, address, more);
 *
 * A death before the instruction changes nothing, one after it leaves the whole new number; readers
 * never see half of one. Integers wrap around as C's unsigned ones do. Cells are aligned to their
 * size; what they order is their own value only, the lock beside them orders the rest. */
#ifndef MP_SYNC_CELL_H
#define MP_SYNC_CELL_H

#include "core/atomic.h" // loads, stores, CAS of each width

#include <string.h> // memcpy, to look at a float's bits

typedef enum mp_cell_kind {
    MP_CELL_NONE, // not a number that this file knows
    MP_CELL_INT8,
    MP_CELL_UINT8,
    MP_CELL_INT16,
    MP_CELL_UINT16,
    MP_CELL_INT32,
    MP_CELL_UINT32,
    MP_CELL_INT64,
    MP_CELL_UINT64,
    MP_CELL_FLOAT,
    MP_CELL_DOUBLE,
    MP_CELL_CHAR, // a byte that is a character; load and store only
    MP_CELL_BOOL, // a byte that is 0 or 1; load and store only
} mp_cell_kind;

/* Integers of every kind, sign-extended or not as their kind has it; FLOAT and DOUBLE use `real`. */
typedef union mp_number {
    uint64_t integer;
    double real;
} mp_number;

static inline bool mp_cell_is_real(mp_cell_kind kind)
{
    return kind == MP_CELL_FLOAT || kind == MP_CELL_DOUBLE;
}

/* Numbers that can be added to and exchanged. */
static inline bool mp_cell_is_number(mp_cell_kind kind)
{
    return kind >= MP_CELL_INT8 && kind <= MP_CELL_DOUBLE;
}

/* Bytes of a cell; 0 for MP_CELL_NONE. */
static inline uint32_t mp_cell_size(mp_cell_kind kind)
{
    static const uint8_t sizes[] = {0, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 1, 1};
    return sizes[kind];
}

/* The bits that stand for a number in a cell of this kind. */
static inline uint64_t mp_cell_encode(mp_cell_kind kind, mp_number number)
{
    if (kind == MP_CELL_FLOAT) {
        float narrow = (float)number.real;
        uint32_t bits;
        memcpy(&bits, &narrow, sizeof bits);
        return bits;
    }
    return number.integer; // of DOUBLE too: the union's bits
}

static inline mp_number mp_cell_decode(mp_cell_kind kind, uint64_t bits)
{
    mp_number number = {.integer = bits};
    switch (kind) {
    case MP_CELL_INT8: number.integer = (uint64_t)(int64_t)(int8_t)bits; break;
    case MP_CELL_INT16: number.integer = (uint64_t)(int64_t)(int16_t)bits; break;
    case MP_CELL_INT32: number.integer = (uint64_t)(int64_t)(int32_t)bits; break;
    case MP_CELL_FLOAT: {
        uint32_t low = (uint32_t)bits;
        float narrow;
        memcpy(&narrow, &low, sizeof narrow);
        number.real = (double)narrow;
        break;
    }
    case MP_CELL_UINT8:
    case MP_CELL_UINT16:
    case MP_CELL_UINT32:
    case MP_CELL_INT64:
    case MP_CELL_UINT64:
    case MP_CELL_DOUBLE:
    case MP_CELL_CHAR:
    case MP_CELL_BOOL:
    case MP_CELL_NONE: break;
    }
    return number;
}

static inline uint64_t mp_cell_load_bits(mp_cell_kind kind, const void *cell)
{
    switch (mp_cell_size(kind)) {
    case 1: return mp_load_relaxed8(cell);
    case 2: return mp_load_relaxed16(cell);
    case 4: return mp_load_relaxed32(cell);
    default: return mp_load_relaxed64(cell);
    }
}

static inline mp_number mp_cell_load(mp_cell_kind kind, const void *cell)
{
    return mp_cell_decode(kind, mp_cell_load_bits(kind, cell));
}

static inline void mp_cell_store(mp_cell_kind kind, void *cell, mp_number number)
{
    uint64_t bits = mp_cell_encode(kind, number);
    switch (mp_cell_size(kind)) {
    case 1: mp_store_relaxed8(cell, (uint8_t)bits); break;
    case 2: mp_store_relaxed16(cell, (uint16_t)bits); break;
    case 4: mp_store_relaxed32(cell, (uint32_t)bits); break;
    default: mp_store_relaxed64(cell, bits); break;
    }
}

/* Add; return what the cell holds then. */
mp_number mp_cell_add(mp_cell_kind kind, void *cell, mp_number more);

/* Store; return what the cell held before. */
mp_number mp_cell_exchange(mp_cell_kind kind, void *cell, mp_number desired);

/* Store `desired` if the cell holds `expected`, as == has it (0.0 is -0.0, NaN is nothing). */
bool mp_cell_compare_exchange(mp_cell_kind kind, void *cell, mp_number expected, mp_number desired);

#endif
