// SPDX-License-Identifier: PSF-2.0
#include "sync/cell.h" // the contract

/* Store `desired` if the cell holds the bits `*expected`; else *expected is what it holds. */
static bool cas_bits(mp_cell_kind kind, void *cell, uint64_t *expected, uint64_t desired)
{
    uint8_t seen8 = (uint8_t)*expected;
    uint16_t seen16 = (uint16_t)*expected;
    uint32_t seen32 = (uint32_t)*expected;
    bool stored;
    switch (mp_cell_size(kind)) {
    case 1:
        stored = mp_cas8(cell, &seen8, (uint8_t)desired);
        *expected = seen8;
        return stored;
    case 2:
        stored = mp_cas16(cell, &seen16, (uint16_t)desired);
        *expected = seen16;
        return stored;
    case 4:
        stored = mp_cas32(cell, &seen32, (uint32_t)desired);
        *expected = seen32;
        return stored;
    default: return mp_cas64(cell, expected, desired);
    }
}

static mp_number add_integer(mp_cell_kind kind, void *cell, uint64_t more)
{
    uint64_t before;
    switch (mp_cell_size(kind)) {
    case 1: before = mp_fetch_add8(cell, (uint8_t)more); break;
    case 2: before = mp_fetch_add16(cell, (uint16_t)more); break;
    case 4: before = mp_fetch_add32(cell, (uint32_t)more); break;
    default: before = mp_fetch_add64(cell, more); break;
    }
    uint64_t sum = before + more; // what lies above the cell's width is cut off below
    uint32_t unused = 64 - 8 * mp_cell_size(kind);
    return mp_cell_decode(kind, sum << unused >> unused);
}

static mp_number add_real(mp_cell_kind kind, void *cell, double more)
{
    uint64_t seen = mp_cell_load_bits(kind, cell);
    uint64_t sum;
    do {
        mp_number number = mp_cell_decode(kind, seen);
        number.real += more;
        sum = mp_cell_encode(kind, number);
    } while (!cas_bits(kind, cell, &seen, sum));
    return mp_cell_decode(kind, sum);
}

mp_number mp_cell_add(mp_cell_kind kind, void *cell, mp_number more)
{
    mp_assert(mp_cell_is_number(kind));
    return mp_cell_is_real(kind) ? add_real(kind, cell, more.real)
                                 : add_integer(kind, cell, more.integer);
}

mp_number mp_cell_exchange(mp_cell_kind kind, void *cell, mp_number desired)
{
    mp_assert(mp_cell_is_number(kind));
    uint64_t bits = mp_cell_encode(kind, desired);
    uint64_t before;
    switch (mp_cell_size(kind)) {
    case 1: before = mp_exchange8(cell, (uint8_t)bits); break;
    case 2: before = mp_exchange16(cell, (uint16_t)bits); break;
    case 4: before = mp_exchange32(cell, (uint32_t)bits); break;
    default: before = mp_exchange64(cell, bits); break;
    }
    return mp_cell_decode(kind, before);
}

static bool same(mp_cell_kind kind, uint64_t seen, mp_number expected)
{
    mp_number number = mp_cell_decode(kind, seen);
    return mp_cell_is_real(kind) ? number.real == expected.real
                                 : number.integer == expected.integer;
}

bool mp_cell_compare_exchange(mp_cell_kind kind, void *cell, mp_number expected, mp_number desired)
{
    mp_assert(mp_cell_is_number(kind));
    // As a cell of this kind would hold it: what was stored as 0.1 in a float is found as 0.1.
    uint32_t unused = 64 - 8 * mp_cell_size(kind);
    uint64_t wanted = mp_cell_encode(kind, expected) << unused >> unused;
    expected = mp_cell_decode(kind, wanted);
    uint64_t bits = mp_cell_encode(kind, desired);
    uint64_t seen = mp_cell_load_bits(kind, cell);
    while (same(kind, seen, expected)) {
        if (cas_bits(kind, cell, &seen, bits))
            return true;
    }
    return false;
}
