# SPDX-License-Identifier: PSF-2.0
"""Queues between processes: what has been put is in shared memory, and stays there whoever dies.

`Queue`, `JoinableQueue` and `SimpleQueue` are thin: the work is done by the native classes that they inherit from.
There is no feeder thread. `put()` pickles in the caller and returns when the object is in the queue, complete; what
remains of the standard library's buffer and thread are names that other libraries use.

A queue may itself be put into a queue, or be an argument of a process of any start method.
"""
from __future__ import annotations

import sys
from queue import Empty, Full
from types import GenericAlias
from weakref import ref

from . import reduction
from ._cmultiprocessing import RingQueue, SimpleRingQueue, queue_setup

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any, Generic, Literal, TypeVar

    from .context import BaseContext

    T = TypeVar("T")

__all__ = ["Queue", "SimpleQueue", "JoinableQueue", "Empty", "Full", "ShutDown"]

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """The queue was shut down. `queue.ShutDown` of Python 3.13, on older ones."""


#: What pickles for queues, looked up at every put: it may be replaced, and have reducers registered.
_ForkingPickler = reduction.ForkingPickler

#: What used to end the feeder thread.
_sentinel = object()

queue_setup(globals(), reduction._register_sockets)


class _End:
    """One end of a queue, as if it were a connection.

    Args:
        queue: the queue; it lives as long as its end.
    """

    _which: Literal["reader", "writer"]

    def __init__(self, queue: SimpleRingQueue) -> None:
        self._queue = queue

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._queue, f"_{self._which}")

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether this process has closed this end."""
        closed: bool = getattr(self._queue, f"_{self._which}_closed")
        return closed

    def close(self) -> None:
        """Close this end for this process; the queue and other processes do not notice."""
        self._queue._close(self._which)


class _Reader(_End):
    """The end of a queue from which objects come: for `connection.wait`, select, and libraries that read it."""

    _which = "reader"
    readable = True
    writable = False

    def fileno(self) -> int:
        """A descriptor that is readable while the queue has objects; the first call starts a native thread.

        Raises:
            OSError: this end is closed, or no descriptor is left.
        """
        return self._queue._fileno()

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether there is an object, waiting for it at most `timeout` seconds (None: for ever)."""
        return self._queue._poll(timeout)

    def recv(self) -> Any:
        """The next object; waits for it."""
        return SimpleRingQueue.get(self._queue)

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """The next object as a pickle.

        Args:
            maxlength: the longest pickle to accept, in bytes.
        Raises:
            OSError: it is longer than that; the object is gone then.
        """
        data = bytes(_ForkingPickler.dumps(self.recv()))
        if maxlength is not None and len(data) > maxlength:
            raise OSError(f"bad message length: {len(data)} bytes, at most {maxlength} were asked for")
        return data


class _Writer(_End):
    """The end of a queue into which objects go."""

    _which = "writer"
    readable = False
    writable = True

    def fileno(self) -> int:
        """Not possible: nothing is written to a descriptor."""
        raise OSError("the writing end of a queue has no descriptor: objects go through shared memory")

    def send(self, obj: Any) -> None:
        """Put an object."""
        SimpleRingQueue.put(self._queue, obj)

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Put the object of a pickle, given as a bytes-like object or `size` bytes of one from `offset`."""
        view = memoryview(buf)[offset:]
        self.send(_ForkingPickler.loads(view if size is None else view[:size]))


class _Ends:
    """What all queues have in common: their two ends, and how they travel."""

    __class_getitem__: Any = classmethod(GenericAlias)

    @property
    def _reader(self) -> _Reader:
        end: _Reader = self._end("_reader_ref", _Reader)
        return end

    @property
    def _writer(self) -> _Writer:
        end: _Writer = self._end("_writer_ref", _Writer)
        return end

    def _end(self, name: str, kind: type[Any]) -> Any:
        # Weak: an end keeps its queue alive, not the other way round.
        reference = self.__dict__.get(name)
        end = None if reference is None else reference()
        if end is None:
            end = kind(self)
            self.__dict__[name] = ref(end)
        return end

    def __getstate__(self) -> Any:
        return (self._ticket(),)  # type: ignore[attr-defined]

    def __setstate__(self, state: Any) -> None:
        self._attach(state[0])  # type: ignore[attr-defined]


class Queue(_Ends, RingQueue, Generic[T] if TYPE_CHECKING else object):  # type: ignore[misc]
    """A queue that any number of processes put into and get from.

    Args:
        maxsize: how many objects it holds at most; 0 or less: as many as memory allows.
        ctx: accepted as the standard library has it.
    Raises:
        MemoryError: the limit of memory that its text names.

    What a process has put comes out in that order. Since 2.6; multiprocessing documentation, 'Pipes and Queues'.
    """

    #: concurrent.futures sets it; without a pipe there is nothing to ignore.
    _ignore_epipe = False

    def __init__(self, maxsize: int = 0, *, ctx: BaseContext | None = None) -> None:
        RingQueue.__init__(self, maxsize)

    def close(self) -> None:
        """This process will use the queue no more: its put() and get() raise ValueError.

        What was put stays for others. Since 2.6; multiprocessing documentation, 'Pipes and Queues'.
        """
        self._close("queue")

    def join_thread(self) -> None:
        """There is no thread: what was put is in the queue already.

        Raises:
            AssertionError: close() was not called.
        """
        if not self._closed:
            raise AssertionError(f"Queue {self!r} not closed")

    def cancel_join_thread(self) -> None:
        """There is no thread that the end of the process would wait for, and nothing that could get lost."""

    def get_no_wait(self) -> Any:
        """Another name of get_nowait(), as older documentation has it."""
        return self.get_nowait()

    def _terminate_broken(self) -> None:
        """For concurrent.futures: the processes that use the queue are being killed."""
        self._reader.close()
        self.close()

    @staticmethod
    def _on_queue_feeder_error(e: Exception, obj: Any) -> None:  # noqa: ARG004
        """Override it to be told about what cannot be pickled; then put() does not raise.

        Args:
            e: the exception.
            obj: what was put.
        """
        import traceback

        traceback.print_exception(type(e), e, e.__traceback__)


class JoinableQueue(Queue[T] if TYPE_CHECKING else Queue):  # type: ignore[misc]
    """A Queue that knows which of its objects have been worked on.

    Objects taken by a process that was killed before its task_done() count as done.
    Since 2.6; multiprocessing documentation, 'Pipes and Queues'.
    """

    def __init__(self, maxsize: int = 0, *, ctx: BaseContext | None = None) -> None:
        RingQueue.__init__(self, maxsize, joinable=True)

    task_done = RingQueue._task_done
    join = RingQueue._join


class SimpleQueue(_Ends, SimpleRingQueue, Generic[T] if TYPE_CHECKING else object):  # type: ignore[misc]
    """A queue with put(), get(), empty() and close().

    Since 2.6; multiprocessing documentation, 'Pipes and Queues'.
    """

    def __init__(self, *, ctx: BaseContext | None = None) -> None:
        SimpleRingQueue.__init__(self)

    def close(self) -> None:
        """This process will use the queue no more: everything else raises OSError. Since 3.9."""
        self._close("reader")
        self._close("writer")
