# SPDX-License-Identifier: PSF-2.0
"""The package's interface on threads: what is shared is simply the object itself.

Source: multiprocessing documentation, 'The multiprocessing.dummy module'.
"""
from __future__ import annotations

import array
import sys
from queue import Queue
from threading import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore

from .._threads import DummyProcess, active_children, current_process
from .connection import Pipe

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = [
    "Process", "current_process", "active_children", "freeze_support", "Lock", "RLock", "Semaphore", "BoundedSemaphore",
    "Condition", "Event", "Barrier", "Queue", "Manager", "Pipe", "Pool", "JoinableQueue",
]  # fmt: skip

Process = DummyProcess
JoinableQueue = Queue

# What a manager offers, and this module is one.
dict = dict
list = list


class Namespace:
    """Attributes, as many as one likes.

    Args:
        kwds: the first ones.
    """

    def __init__(self, /, **kwds: Any) -> None:
        self.__dict__.update(kwds)

    def __repr__(self) -> str:
        shown = sorted(f"{name}={value!r}" for name, value in self.__dict__.items() if not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(shown)})"


class Value:
    """A variable.

    Args:
        typecode: as for arrays; nothing is checked.
        value: the first value.
        lock: threads need none for this.
    """

    def __init__(self, typecode: Any, value: Any, lock: Any = True) -> None:
        self._typecode = typecode
        self._value = value

    @property
    def value(self) -> Any:
        """What it holds."""
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._typecode!r}, {self._value!r})>"


def Array(typecode: str, sequence: Iterable[Any], lock: Any = True) -> array.array[Any]:
    """An array.array.

    Args:
        typecode: its type.
        sequence: what is in it.
        lock: threads need none for this.
    """
    return array.array(typecode, sequence)


def Manager() -> Any:
    """This module: it offers what a manager does."""
    return sys.modules[__name__]


def shutdown() -> None:
    """Nothing: there is no manager to end."""


def freeze_support() -> None:
    """Nothing: a thread needs no program of its own."""


def Pool(
    processes: int | None = None, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
) -> Any:
    """A pool of threads, see pool.ThreadPool."""
    from ..pool import ThreadPool

    return ThreadPool(processes, initializer, initargs)
