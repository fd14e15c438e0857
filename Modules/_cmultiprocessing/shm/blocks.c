// SPDX-License-Identifier: PSF-2.0
#include "shm/blocks.h" // the contract

#include "os/os.h" // giving pages back

#include <string.h> // memset

/* Up to here writing zeros is cheaper than giving pages back and getting them again. */
#define WRITE_ZEROS (UINT64_C(128) << 10)

/* A large chunk may be a run that was used before. Nobody knows the object yet: a death in here
 * leaves a block that is freed without having been seen. */
static void clear(uint64_t offset, uint64_t size)
{
    char *bytes = mp_chunk_payload(offset);
    uint64_t head = MP_UNIT - MP_CHUNK_HEADER; // the rest of the unit that the header lies in
    uint64_t whole = (size - head) / MP_UNIT * MP_UNIT;
    if (size < WRITE_ZEROS || !mp_memory_punch(bytes + head, whole)) {
        memset(bytes, 0, size);
        return;
    }
    memset(bytes, 0, head);
    memset(bytes + head + whole, 0, size - head - whole);
}

mp_status mp_block_create(uint64_t size, mp_handle *handle)
{
    mp_status status = mp_object_create(MP_TYPE_BLOCK, size == 0 ? 1 : size, handle);
    if (status == MP_OK && size > MP_SMALL_LIMIT) // small chunks come zeroed
        clear(handle->offset, size);
    return status;
}
