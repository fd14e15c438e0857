# SPDX-License-Identifier: PSF-2.0
"""A Process that is a thread: what `dummy` offers, and pools of threads use."""
from __future__ import annotations

import threading
import weakref

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

__all__ = ["DummyProcess", "active_children", "current_process"]

#: The thread that this is, under the name that it has for processes.
current_process = threading.current_thread

# The threads that each thread has started. Those of a thread that is gone are gone with it.
_children: weakref.WeakKeyDictionary[threading.Thread, set[DummyProcess]] = weakref.WeakKeyDictionary()
# Reentrant: a signal handler or a finalizer may come here while its own thread does.
_lock = threading.RLock()


class DummyProcess(threading.Thread):
    """A thread with the interface of a process.

    Args:
        group: always None.
        target: called by run(); None does nothing.
        name: its name.
        args: positional arguments of target.
        kwargs: keyword arguments of target.
        daemon: whether the program may end without it; None inherits it from the current thread.
    Source: multiprocessing documentation, 'The multiprocessing.dummy module'.
    """

    _pid: int | None = None

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        super().__init__(group, target, name, args, kwargs, daemon=daemon)
        self._parent = current_process()
        self._start_called = False

    def start(self) -> None:
        """Start the thread. Once only, and by the thread that made it.

        Raises:
            RuntimeError: it was started before, or belongs to another thread.
        """
        if self._parent is not current_process():
            raise RuntimeError(f"parent is {self._parent.name!r}, current process is {current_process().name!r}")
        super().start()
        self._start_called = True
        with _lock:
            _children.setdefault(self._parent, set()).add(self)

    @property
    def exitcode(self) -> int | None:
        """None before start() and while it runs; then 0, whatever happened in it."""
        return 0 if self._start_called and not self.is_alive() else None


def active_children() -> list[DummyProcess]:
    """Threads that this thread has started, and that are alive."""
    with _lock:
        children = _children.setdefault(current_process(), set())
        children -= {child for child in list(children) if not child.is_alive()}
        return list(children)
