# SPDX-License-Identifier: PSF-2.0
"""Locks, semaphores, conditions, events and barriers that processes share: native types.

Every class takes ``ctx`` by keyword, as the standard library's do; one object works under every start method. What
libraries reach for in the standard library's private ``_semlock`` (``_is_mine``, ``_count``, ``_get_value``,
``_is_zero``, ``handle``, ``kind``, ``maxvalue``, ``name``) the locks and semaphores answer themselves.
"""
from __future__ import annotations

from abc import ABC

from . import _cmultiprocessing
from ._cmultiprocessing import (
    SEM_VALUE_MAX,
    Barrier,
    BoundedSemaphore,
    Event,
    Lock,
    OwnerDiedWarning,
    RLock,
    Semaphore,
)

__all__ = [
    "Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier",
    "OwnerDiedWarning", "RECURSIVE_MUTEX", "SEMAPHORE", "SEM_VALUE_MAX",
]  # fmt: skip

RECURSIVE_MUTEX = 0
SEMAPHORE = 1


class SemLock(ABC):  # noqa: B024  (nothing to override: others register)
    """What locks and semaphores of the standard library derive from; here for isinstance() only.

    There is no semaphore with a name in the system behind them.
    """


for _native in (Lock, RLock, Semaphore):
    SemLock.register(_native)


class _Reading:
    """A number of a condition, in the shape of the standard library's internal semaphores."""

    def __init__(self, value: int) -> None:
        self._value = value

    def get_value(self) -> int:
        """The number when it was read."""
        return self._value


class Condition(_cmultiprocessing.Condition):
    """A place to wait for notifications; the native type and three numbers that programs look at.

    Args:
        lock: a Lock or RLock of this package; None: a new RLock.
        ctx: accepted for compatibility.

    Since 2.6; documented in threading, 'Condition objects'.
    """

    @property
    def _sleeping_count(self) -> _Reading:
        """How many living threads wait and are not notified."""
        return _Reading(self._sleepers())

    @property
    def _woken_count(self) -> _Reading:
        """How many of those are awake: none, who wakes is not counted any more."""
        return _Reading(0)

    @property
    def _wait_semaphore(self) -> _Reading:
        """How many notifications nobody has taken: none, each is given to a sleeper."""
        return _Reading(0)
