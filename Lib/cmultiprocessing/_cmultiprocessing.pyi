# SPDX-License-Identifier: PSF-2.0
class OwnerDiedWarning(RuntimeWarning):
    """A lock was taken over from a process that was killed while it held the lock."""

class MemoryLimitError(MemoryError):
    """The machine or a control group refuses the shared memory that an operation needs."""

def pin_target(ticket: bytes | None, /) -> None:
    """Say for which process this thread pickles shared objects from now on; None: for anybody.

    Args:
        ticket: what `family_reserve` returned for the process.
    """

def _rebuild(type: type, ticket: bytes, /, *extra: object) -> object:
    """Unpickle a shared object."""
