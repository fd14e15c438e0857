// SPDX-License-Identifier: PSF-2.0
/* Who sleeps where: one table of sleepers in family memory, for conditions and barriers, where a
 * wake-up is counted and must reach somebody who lives.
 *
 *     status = mp_sleeper_claim(object, ticket, &place);      // WAITING: others can see it
 *     ... sleep on *mp_sleeper_word(&place) ...
 *     if (!mp_sleeper_leave(&place))
 *         ... it was notified meanwhile ...
 *
 * An entry's word is its only truth; each step is one store or CAS to it (layout.h):
 *
 *     [FREE epoch]  owner 0           anybody may claim the entry: CAS on `owner`
 *     [FREE epoch]  owner dead        died while claiming or leaving: may be claimed as well
 *     [WAITING epoch]                 `object`, `ticket` hold; a dead one is as good as free
 *     [NOTIFIED epoch]                somebody's wake-up was spent on it; a dead one passes it on
 *
 * The epoch grows whenever an entry becomes free, so that a CAS meant for one sleeper never hits the
 * next one of the same place. */
#ifndef MP_SYNC_PARKING_H
#define MP_SYNC_PARKING_H

#include "os/os.h"         // deadlines
#include "shm/family.h"    // the table
#include "shm/processes.h" // owners

#define MP_SLEEPER_STATE 0xc0000000U
#define MP_SLEEPER_EPOCH 0x3fffffffU
#define MP_SLEEPER_FREE 0U
#define MP_SLEEPER_WAITING 0x40000000U
#define MP_SLEEPER_NOTIFIED 0x80000000U

/* A sleeper's own note of where it sleeps; private memory. */
typedef struct mp_place {
    struct mp_sleeper_shm *sleeper; // NULL: nowhere
    mp_owner owner;                 // who claimed it: a forked child has no place of its own
    uint32_t epoch;
} mp_place;

static inline struct mp_sleeper_shm *mp_sleeper_at(uint32_t index)
{
    return (struct mp_sleeper_shm *)(void *)(mp_family.base + MP_SLEEPERS_AT) + index;
}

/* Entries below this index were used once: as far as a scan must look. */
static inline uint32_t mp_sleeper_limit(void)
{
    uint32_t limit = mp_load_acquire32(&mp_family_shm()->sleeper_limit);
    return limit < MP_SLEEPER_SLOTS ? limit : MP_SLEEPER_SLOTS;
}

/* Claim an entry and show it as WAITING at `object` with `ticket`. MP_OK, MP_NO_SLOT. */
mp_status mp_sleeper_claim(uint64_t object, uint64_t ticket, mp_place *place);

/* Leave an entry that is still WAITING. False: it was notified before; it is NOTIFIED still. */
bool mp_sleeper_leave(mp_place *place);

/* Leave a NOTIFIED entry. */
void mp_sleeper_acknowledge(mp_place *place);

/* Sleep on the entry's word while it is WAITING, at most until `end`. As mp_futex_wait. */
mp_status mp_sleeper_sleep(const mp_place *place, mp_time end);

/* Is the entry NOTIFIED by now? */
static inline bool mp_sleeper_notified(const mp_place *place)
{
    return mp_load_acquire32(&place->sleeper->word) ==
           (MP_SLEEPER_NOTIFIED | place->epoch); // SYNC: notified
}

/* What somebody saw of an entry; for those who look at other people's entries. */
typedef struct mp_sleeper_view {
    struct mp_sleeper_shm *sleeper;
    uint32_t word;
    mp_owner owner;
} mp_sleeper_view;

/* The entry at `index`, if it is in use at `object`. The fields of the entry (ticket, ...) hold as
 * long as the word does not change: what is decided by them is committed by a CAS on the word. */
bool mp_sleeper_look(uint32_t index, uint64_t object, mp_sleeper_view *view);

static inline uint32_t mp_sleeper_state(uint32_t word)
{
    return word & MP_SLEEPER_STATE;
}

/* From WAITING to NOTIFIED. False: it left meanwhile. The caller wakes it afterwards. */
bool mp_sleeper_notify(const mp_sleeper_view *view);

/* Wake whoever sleeps on the entry's word; no system call when it does not sleep. */
void mp_sleeper_wake(struct mp_sleeper_shm *sleeper);

/* A name for one use of one entry, never 0, for `passed`; and the end of a NOTIFIED use so named, by
 * the one who got its wake-up: the entry is free then as soon as its owner left, or is dead. */
uint64_t mp_sleeper_name(const struct mp_sleeper_shm *sleeper, uint32_t word);
void mp_sleeper_settle(uint64_t name);

/* Free the entry of a dead owner. Nothing happens if somebody was faster. */
void mp_sleeper_bury(const mp_sleeper_view *view);

#endif
