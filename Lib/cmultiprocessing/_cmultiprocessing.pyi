# SPDX-License-Identifier: PSF-2.0
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

_T = TypeVar("_T")

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

# --- synchronisation (documented on the types themselves) ---

SEM_VALUE_MAX: int

class Lock:
    """A non-recursive lock, shared between processes and threads.

    Args:
        ctx: accepted for compatibility; a lock works under every start method.
        robust: whether the lock is taken over from a holder that was killed (with OwnerDiedWarning). A holder that
            exits in order leaves it locked, as documented.
    """

    def __init__(self, *, ctx: object = None, robust: bool = True) -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock: True if it is held now, False if it could not be had within `timeout` seconds."""

    def release(self) -> None:
        """Let go of the lock, whoever holds it.

        Raises:
            ValueError: nobody holds it.
        """

    def locked(self) -> bool:
        """Whether the lock is held by anybody now."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, /) -> Self: ...
    @property
    def owner_died(self) -> bool:
        """Whether the lock was ever taken over from a process that was killed while it held it."""

    @property
    def _semlock(self) -> Self: ...
    @property
    def handle(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def maxvalue(self) -> int: ...
    @property
    def name(self) -> None: ...
    def _get_value(self) -> int: ...
    def _is_zero(self) -> bool: ...
    def _is_mine(self) -> bool: ...
    def _count(self) -> int: ...
    def _after_fork(self) -> None: ...

class RLock:
    """A recursive lock, shared between processes and threads. Taken over from a holder that was killed.

    Args:
        ctx: accepted for compatibility; a lock works under every start method.
    """

    def __init__(self, *, ctx: object = None) -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock once more: True if it is held now, False if it could not be had within `timeout` seconds."""

    def release(self) -> None:
        """Let go of the lock once.

        Raises:
            AssertionError: this thread does not hold it.
        """

    def locked(self) -> bool:
        """Whether the lock is held by anybody now."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, /) -> Self: ...
    @property
    def owner_died(self) -> bool:
        """Whether the lock was ever taken over from a process that was killed while it held it."""

    @property
    def _semlock(self) -> Self: ...
    @property
    def handle(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def maxvalue(self) -> int: ...
    @property
    def name(self) -> None: ...
    def _get_value(self) -> int: ...
    def _is_zero(self) -> bool: ...
    def _is_mine(self) -> bool: ...
    def _count(self) -> int: ...
    def _after_fork(self) -> None: ...

class Semaphore:
    """A counter that acquire() takes from and release() adds to, shared between processes.

    Args:
        value: the initial value, 0 to SEM_VALUE_MAX.
        ctx: accepted for compatibility; a semaphore works under every start method.
        robust: whether what a process acquired comes back when it is gone without having released it. At most 4096
            then.
    """

    def __init__(self, value: int = 1, *, ctx: object = None, robust: bool = False) -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take one off the value: True, or False if it was 0 for `timeout` seconds."""

    def release(self) -> None:
        """Add one to the value and wake one that waits.

        Raises:
            ValueError: the value is at its maximum already.
        """

    def get_value(self) -> int:
        """How many acquire() calls would succeed now."""

    def locked(self) -> bool:
        """Whether acquire() would have to wait."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, /) -> Self: ...
    @property
    def _semlock(self) -> Self: ...
    @property
    def handle(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def maxvalue(self) -> int: ...
    @property
    def name(self) -> None: ...
    def _get_value(self) -> int: ...
    def _is_zero(self) -> bool: ...
    def _after_fork(self) -> None: ...

class BoundedSemaphore(Semaphore):
    """A Semaphore whose value cannot be released above the initial one."""

class Condition:
    """A place to wait for notifications, shared between processes.

    The dead neither swallow a notification nor hold up who notifies.

    Args:
        lock: a Lock or RLock of this package; None: a new RLock.
        ctx: accepted for compatibility; a condition works under every start method.
    """

    def __init__(self, lock: Lock | RLock | None = None, *, ctx: object = None) -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the condition's lock."""

    def release(self) -> None:
        """Let go of the condition's lock."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait for a notification, take the lock again: True if notified within `timeout` seconds.

        Raises:
            AssertionError: this thread does not hold the lock.
        """

    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T:
        """Wait until predicate() is true, at most `timeout` seconds in all; its last value."""

    def notify(self, n: int = 1) -> None:
        """Wake the n that have waited longest and live, or all if they are fewer.

        Raises:
            AssertionError: this thread does not hold the lock.
        """

    def notify_all(self) -> None:
        """Wake all that wait."""

    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, lock: Lock | RLock, /) -> Self: ...
    @property
    def _lock(self) -> Lock | RLock: ...
    def _sleepers(self) -> int: ...

class Event:
    """A flag shared between processes that others can wait for.

    Args:
        ctx: accepted for compatibility; an event works under every start method.
    """

    def __init__(self, *, ctx: object = None) -> None: ...
    def is_set(self) -> bool:
        """Whether the flag is true."""

    def set(self) -> None:
        """Make the flag true, and wake all that wait for it."""

    def clear(self) -> None:
        """Make the flag false. Who waited when it was set goes on nevertheless."""

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the flag is, or was since the call began, true within `timeout` seconds."""

    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, /) -> Self: ...

class Barrier:
    """Lets a fixed number of threads, of any processes, wait for each other. Only the living count.

    Args:
        parties: how many.
        action: called without arguments by one of them before all go on.
        timeout: default of wait(), in seconds; None: for ever.
        ctx: accepted for compatibility; a barrier works under every start method.
    """

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: object = None,
    ) -> None: ...
    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have called wait(); an integer from 0 to parties - 1, another one for each.

        Raises:
            BrokenBarrierError: the barrier is broken or reset, or `timeout` seconds are over, which breaks it.
        """

    def reset(self) -> None:
        """Make the barrier empty and whole; who waits gets BrokenBarrierError."""

    def abort(self) -> None:
        """Break the barrier: who waits and who comes gets BrokenBarrierError."""

    @property
    def parties(self) -> int:
        """How many threads go on together."""

    @property
    def n_waiting(self) -> int:
        """How many living threads wait now."""

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken."""

    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, action: Callable[[], object] | None, timeout: float | None, /) -> Self: ...
