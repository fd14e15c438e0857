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

def family_start() -> None:
    """Make the memory that this process and its children share, if this process is in none.

    Raises:
        OSError: no descriptor or no address space is left.
    """

def family_reserve() -> tuple[int, bytes]:
    """Claim a place for a child that does not inherit this process's memory.

    Returns:
        (descriptor, ticket): hand the descriptor to the child, then close it; the ticket goes with the
        start data to `family_join` in the child.

    Raises:
        OSError: no descriptor or no place in the table of processes is left.
    """

def family_join(descriptor: int, ticket: bytes, /) -> None:
    """Take the place that `family_reserve` claimed in the parent; owns the descriptor.

    Raises:
        ValueError: the ticket is damaged.
        RuntimeError: it belongs to another family, or to another build of this package.
    """

def family_leave() -> None:
    """This process ends in order: what it still holds locked stays locked."""

def child_reaped() -> None:
    """A child was reaped: a good moment to give back what dead processes owned."""

def family_collect() -> bool:
    """Give back now what nobody holds any more; False when another process is at it."""

def family_statistics() -> dict[str, int]:
    """Counters about the shared memory, sizes in bytes; empty before there is any."""
