// SPDX-License-Identifier: PSF-2.0
/* Blocks: objects that are nothing but zeroed bytes for a program to use (ctypes objects, arrays).
 *
 *     status = mp_block_create(size, &handle);
 *     char *bytes = mp_object_payload(&handle);
 *     ...
 *     mp_object_release(&handle);
 *
 * Pickled, opened (as MP_TYPE_BLOCK) and freed as every object is (objects.h). The size is the program's: a chunk
 * knows only how much room it has, which whoever opens a pickle compares. The bytes begin 16 bytes after a multiple of 32, which suits
 * every ctypes type. */
#ifndef MP_SHM_BLOCKS_H
#define MP_SHM_BLOCKS_H

#include "shm/objects.h" // handles

/* `size` bytes of zeros; 0 is one byte nobody uses.
 * MP_NO_MEMORY (see mp_chunk_refusal), MP_NO_SPACE, MP_TOO_LARGE. */
mp_status mp_block_create(uint64_t size, mp_handle *handle);

#endif
