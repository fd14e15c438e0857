// SPDX-License-Identifier: PSF-2.0
/* Atomic access to shared words, with the ordering in the name. The only place that names orderings.
 *
 * Shared fields are plain fixed-width integers (no _Atomic in the layout, so that its size and
 * alignment are beyond doubt); they are read and written through these functions only. A release
 * and the acquire that pairs with it carry the same "SYNC: name" comment. */
#ifndef MP_CORE_ATOMIC_H
#define MP_CORE_ATOMIC_H

#include "core/base.h" // fixed-width integers

static_assert(__atomic_always_lock_free(8, 0), "shared words must be lock-free");
static_assert(__atomic_always_lock_free(4, 0), "shared words must be lock-free");
static_assert(__atomic_always_lock_free(2, 0), "shared words must be lock-free");
static_assert(__atomic_always_lock_free(1, 0), "shared words must be lock-free");

#define MP_DEFINE_ATOMICS(bits)                                                                    \
 static inline uint##bits##_t mp_load_relaxed##bits(const uint##bits##_t *p)                       \
 {                                                                                                 \
  return __atomic_load_n(p, __ATOMIC_RELAXED);                                                     \
 }                                                                                                 \
 static inline uint##bits##_t mp_load_acquire##bits(const uint##bits##_t *p)                       \
 {                                                                                                 \
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);                                                     \
 }                                                                                                 \
 static inline void mp_store_relaxed##bits(uint##bits##_t *p, uint##bits##_t value)                \
 {                                                                                                 \
  __atomic_store_n(p, value, __ATOMIC_RELAXED);                                                    \
 }                                                                                                 \
 static inline void mp_store_release##bits(uint##bits##_t *p, uint##bits##_t value)                \
 {                                                                                                 \
  __atomic_store_n(p, value, __ATOMIC_RELEASE);                                                    \
 }                                                                                                 \
 /* Full barrier on success; on failure *expected is what was found. */                            \
 static inline bool mp_cas##bits(uint##bits##_t *p, uint##bits##_t *expected,                      \
                                 uint##bits##_t desired)                                           \
 {                                                                                                 \
  return __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_SEQ_CST,                \
                                     __ATOMIC_ACQUIRE);                                            \
 }                                                                                                 \
 static inline uint##bits##_t mp_fetch_add##bits(uint##bits##_t *p, uint##bits##_t value)          \
 {                                                                                                 \
  return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);                                           \
 }                                                                                                 \
 static inline uint##bits##_t mp_fetch_or##bits(uint##bits##_t *p, uint##bits##_t value)           \
 {                                                                                                 \
  return __atomic_fetch_or(p, value, __ATOMIC_SEQ_CST);                                            \
 }                                                                                                 \
 static inline uint##bits##_t mp_fetch_and##bits(uint##bits##_t *p, uint##bits##_t value)          \
 {                                                                                                 \
  return __atomic_fetch_and(p, value, __ATOMIC_SEQ_CST);                                           \
 }                                                                                                 \
 static inline uint##bits##_t mp_exchange##bits(uint##bits##_t *p, uint##bits##_t value)           \
 {                                                                                                 \
  return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);                                          \
 }

MP_DEFINE_ATOMICS(8)
MP_DEFINE_ATOMICS(16)
MP_DEFINE_ATOMICS(32)
MP_DEFINE_ATOMICS(64)

/* Orders everything before against everything after, in all processes. */
static inline void mp_fence(void)
{
#if defined(__SANITIZE_THREAD__)
    // GCC's ThreadSanitizer does not know fences; a locked instruction is one on every target of ours.
    uint32_t nothing = 0;
    (void)__atomic_fetch_add(&nothing, 0, __ATOMIC_SEQ_CST);
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* One breath of a spin loop: lets the sibling hyperthread and the memory system work. */
static inline void mp_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

#endif
