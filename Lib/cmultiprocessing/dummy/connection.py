# SPDX-License-Identifier: PSF-2.0
"""Connections between threads: each direction is a queue, and objects go through it as they are."""
from __future__ import annotations

import time
from queue import Queue

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Client", "Listener", "Pipe"]

families = [None]


class Connection:
    """One end of a connection.

    Args:
        _in: where what is received comes from.
        _out: where what is sent goes to.
    """

    def __init__(self, _in: Queue[Any], _out: Queue[Any]) -> None:
        self._in = _in
        self._out = _out
        self.send = self.send_bytes = _out.put
        self.recv = self.recv_bytes = _in.get

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether there is something to receive.

        Args:
            timeout: seconds to wait for it; None for ever, negative is 0.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._in.not_empty:
            while not self._in._qsize():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._in.not_empty.wait(left)
            # put() wakes one thread per object; this one takes none away.
            self._in.not_empty.notify()
            return True

    def close(self) -> None:
        """Nothing: a queue needs no closing."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Two connected ends. Between threads both directions work, whatever `duplex` says."""
    one: Queue[Any] = Queue()
    other: Queue[Any] = Queue()
    return Connection(one, other), Connection(other, one)


class Listener:
    """Waits for connections of other threads.

    Args:
        address: does not matter; `address` is what Client needs.
        family: does not matter.
        backlog: how many may wait to be accepted; 0 or less: any number.
    """

    def __init__(self, address: Any = None, family: Any = None, backlog: int = 1) -> None:
        self._backlog_queue: Queue[tuple[Queue[Any], Queue[Any]]] | None = Queue(backlog)

    def accept(self) -> Connection:
        """Wait for a connection.

        Raises:
            OSError: the listener is closed.
        """
        if self._backlog_queue is None:
            raise OSError("listener is closed")
        return Connection(*self._backlog_queue.get())

    def close(self) -> None:
        """Accept no more."""
        self._backlog_queue = None

    @property
    def address(self) -> Any:
        """What to give to Client."""
        return self._backlog_queue

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def Client(address: Queue[tuple[Queue[Any], Queue[Any]]]) -> Connection:
    """Connect to a listener.

    Args:
        address: of the listener.
    """
    to_listener: Queue[Any] = Queue()
    from_listener: Queue[Any] = Queue()
    address.put((to_listener, from_listener))
    return Connection(from_listener, to_listener)
