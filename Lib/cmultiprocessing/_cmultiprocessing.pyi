# SPDX-License-Identifier: PSF-2.0
class OwnerDiedWarning(RuntimeWarning):
    """A lock was taken over from a process that was killed while it held the lock."""

class MemoryLimitError(MemoryError):
    """The machine or a control group refuses the shared memory that an operation needs."""
