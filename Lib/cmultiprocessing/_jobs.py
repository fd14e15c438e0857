# SPDX-License-Identifier: PSF-2.0
"""What a pool gives its callers: results to wait for, and iterators over results.

A job is made by a caller's thread and then belongs to the collector of its pool, which delivers the results of its
items, runs the callbacks, and completes it. A job that its pool's cache no longer has is complete: whoever takes it out
completes it, so that happens once, also when one thread terminates the pool while the collector is at work.
"""
from __future__ import annotations

import _thread
import itertools
import threading
import time
from collections import deque
from contextlib import suppress
from types import GenericAlias

from ._errors import ProcessError, TimeoutError

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

__all__ = ["ApplyResult", "AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult", "Stream"]

_numbers = itertools.count()


class Job:
    """What the collector of a pool knows of a job.

    Args:
        pool: kept alive until the job is complete.
    """

    #: The function, for messages; and kept, because shared objects in it must live as long as the job.
    function: Any = None
    #: Nobody wants results any more: tasks that were not begun are dropped.
    cancelled = False

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._job = next(_numbers)
        self._cache: dict[int, Any] = pool._cache
        # The caller's thread counts one, the collector the other.
        self._submitted = 0
        self._completed = 0
        self._sealed = False
        self._cache[self._job] = self

    def _claim(self) -> bool:
        """Whether the caller of this is the one to complete the job."""
        return self._cache.pop(self._job, None) is not None

    # By the collector.

    def _deliver(self, index: int, values: list[Any]) -> None:
        """Results of the items from `index` on."""
        raise NotImplementedError

    def _fail(self, index: int, count: int, error: BaseException) -> None:
        """`count` items from `index` on failed."""
        raise NotImplementedError

    def _task_done(self) -> None:
        """All items of one more task are settled."""
        self._completed += 1
        self._check_complete()

    def _check_complete(self) -> None:
        if self._sealed and self._completed == self._submitted:
            self._complete()

    def _complete(self) -> None:
        """There will be no more results."""
        raise NotImplementedError

    # By any thread.

    def _abort(self, error: BaseException) -> None:
        """The pool ends: complete the job with an error, without callbacks."""
        raise NotImplementedError

    def _lift(self) -> None:
        """Take all input now, whether or not somebody takes the results: the pool waits for the job."""


#: Seconds after which a sleeper looks again. A signal handler or a finalizer that ends a job between its own thread's
#: look and sleep wakes nobody.
_SLICE = 0.5


class _Done:
    """Set once; any number of threads wait for it.

    No lock is held while Python code runs, as threading.Event does: a signal handler may wait here, or terminate the
    pool, while its own thread waits.
    """

    def __init__(self) -> None:
        self._flag = False
        self._waiters: deque[_thread.LockType] = deque()  # each is locked by its thread, and released by set()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._flag

    def set(self) -> None:
        """Set it, and wake those who wait."""
        self._flag = True
        while self._waiters:
            try:
                self._waiters.popleft().release()
            except IndexError:
                return  # another thread, or a handler, sets it too

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; whether it is.

        Args:
            timeout: seconds at most; None for ever.
        """
        if self._flag:
            return True
        waiter = _thread.allocate_lock()
        waiter.acquire()
        self._waiters.append(waiter)
        try:
            # After the entry, not before: who sets it in between sees the entry.
            if not self._flag:
                waiter.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), _thread.TIMEOUT_MAX))
        finally:
            with suppress(ValueError):  # it was woken
                self._waiters.remove(waiter)
        return self._flag


class ApplyResult(Job):
    """The result of `apply_async`, and base of that of `map_async`.

    Args:
        pool: the pool.
        callback: called with the result, in the collector's thread, before the result is ready.
        error_callback: called with the exception instead.
    Source: multiprocessing documentation, 'Process Pools', AsyncResult.
    """

    __class_getitem__: Any = classmethod(GenericAlias)

    _value: Any = None

    def __init__(
        self,
        pool: Any,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._event = _Done()
        self._results: list[Any] = []
        self._success = True
        self._callback = callback
        self._error_callback = error_callback
        super().__init__(pool)

    def ready(self) -> bool:
        """Whether the call has completed."""
        return self._event.is_set()

    def successful(self) -> bool:
        """Whether it completed without an exception.

        Raises:
            ValueError: it has not completed.
        """
        if not self._event.is_set():
            raise ValueError(f"{self!r} not ready")
        return self._success

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, at most `timeout` seconds; None: no limit."""
        self._event.wait(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The result; waits for it.

        Args:
            timeout: seconds to wait at most; None: no limit.

        Raises:
            TimeoutError: there was no result in time; the task goes on.
            WorkerLostError: the worker ended while it ran the task.
            PoolTerminated: the pool was terminated before.
            Exception: what the function raised, with the worker's traceback as its cause.
        """
        if not self._event.wait(timeout):
            raise TimeoutError(f"no result within {timeout} seconds")
        if self._success:
            return self._value
        try:
            raise self._value
        finally:
            del self  # the exception's traceback knows this frame, and this object the exception

    def _deliver(self, index: int, values: list[Any]) -> None:
        # Not yet the value: another thread may abort the job meanwhile.
        self._results = values

    def _fail(self, index: int, count: int, error: BaseException) -> None:
        if self._success:
            self._success = False
            self._value = error

    def _complete(self) -> None:
        if self.cancelled:
            self._abort(ProcessError("nobody waits for this result any more"))
        if not self._claim():
            return
        if self._success:
            self._value = self._outcome()
        callback = self._callback if self._success else self._error_callback
        if callback is not None:
            try:
                callback(self._value)
            except BaseException as error:
                self._success = False
                self._value = error
        self._finish()

    def _abort(self, error: BaseException) -> None:
        if self._claim():
            self._success = False
            self._value = error
            self._finish()

    def _outcome(self) -> Any:
        """What all items together give."""
        return self._results[0]

    def _finish(self) -> None:
        self._results = []
        self._pool = self._callback = self._error_callback = self.function = None
        self._event.set()


#: The name in the documentation.
AsyncResult = ApplyResult


class MapResult(ApplyResult):
    """The result of `map_async` and `starmap_async`: a list, in the order of the input.

    Args:
        pool: the pool.
        chunksize: items per task, where the caller chose it.
        callback: called with the list.
        error_callback: called with the exception of the first item that failed.
    """

    def __init__(
        self,
        pool: Any,
        chunksize: int | None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._chunksize = chunksize
        super().__init__(pool, callback, error_callback)

    @property
    def _number_left(self) -> int:
        """Tasks that are not done; progress bars read it."""
        return self._submitted - self._completed

    def _grow(self, count: int) -> None:
        """By the caller's thread, before it submits a task: room for the results of so many items."""
        self._results.extend([None] * count)

    def _deliver(self, index: int, values: list[Any]) -> None:
        self._results[index : index + len(values)] = values

    def _outcome(self) -> list[Any]:
        return self._results


# Iterators. The iterator is the caller's, the stream behind it is the pool's: so that an iterator that is dropped can
# say so.


class Stream(Job):
    """The results of `imap`, between who reads the input, the collector, and the caller's iterator.

    Args:
        pool: the pool.
        ordered: whether results come in the order of the input.
        chunksize: items per task.
        window: how many items may have been read whose results were not taken.

    The input is read by a thread, in wait_for_room(), or, where reading it can neither block nor run foreign code, by
    whoever takes results: read_by().
    """

    def __init__(self, pool: Any, ordered: bool, chunksize: int, window: int) -> None:
        lock = threading.RLock()
        self._arrival = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._ordered = ordered
        self._chunksize = chunksize
        # All that follows under the lock.
        self._window: float = max(window, chunksize)
        self._read = 0
        self._taken = 0
        self._there: dict[int, tuple[bool, Any]] = {}  # ordered: by index
        self._arrived: deque[tuple[bool, Any]] = deque()  # not ordered
        self._end: BaseException | None = None  # raised when all that is there was taken
        self._unheard = False  # nobody is left to take results
        self._reader: Callable[[], bool] | None = None
        super().__init__(pool)

    # Reading.

    def _wanted(self) -> bool:
        return not self.cancelled and self._end is None

    def _has_room(self, chunks: int = 1) -> bool:
        return self._read + chunks * self._chunksize - self._taken <= self._window

    def wait_for_room(self) -> bool:
        """By a thread that reads: wait until one more task may be read. False: no more are wanted."""
        with self._room:
            while self._wanted():
                if self._has_room():
                    self._read += self._chunksize
                    return True
                self._room.wait(_SLICE)
            return False

    def read_by(self, reader: Callable[[], bool]) -> None:
        """Have the input read by those who take results, as far as there is room.

        Args:
            reader: reads one task, and submits it. False: that was the end.
        """
        with self._room:
            self._reader = reader
            self._make_room()

    def _make_room(self) -> None:
        """Under the lock: there may be room."""
        if self._reader is None:
            # The reader sleeps; waking it for half the window costs half as much.
            if not self._wanted() or self._has_room(max(1, int(min(self._window, 64) / self._chunksize) // 2)):
                self._room.notify_all()
            return
        while self._wanted() and self._has_room():
            self._read += self._chunksize
            if not self._reader():
                self._reader = None
                return

    # By the collector.

    def _deliver(self, index: int, values: list[Any]) -> None:
        self._arrive(index, [(True, value) for value in values])

    def _fail(self, index: int, count: int, error: BaseException) -> None:
        self._arrive(index, [(False, error)] * count)

    def _arrive(self, index: int, results: list[tuple[bool, Any]]) -> None:
        with self._arrival:
            if self._unheard:
                return
            if self._ordered:
                self._there.update(enumerate(results, index))
                if self._taken not in self._there:
                    return
            else:
                self._arrived.extend(results)
            self._arrival.notify_all()

    def _complete(self) -> None:
        if self._claim():
            self._stop(StopIteration())

    def _abort(self, error: BaseException) -> None:
        if self._claim():
            self._stop(error)

    def _stop(self, end: BaseException) -> None:
        with self._arrival:
            self._end = self._end or end
            self._pool = self.function = None
            self._arrival.notify_all()
            self._room.notify_all()

    # By the caller.

    def take(self, timeout: float | None) -> tuple[bool, Any]:
        """The next result: whether it is a value, and the value or exception. The end, where there are no more."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._arrival:
            while True:
                if self._ordered and self._taken in self._there:
                    result = self._there.pop(self._taken)
                    break
                if self._arrived:
                    result = self._arrived.popleft()
                    break
                if self._end is not None:
                    return False, self._end
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"no result within {timeout} seconds")
                self._arrival.wait(_SLICE if left is None else min(left, _SLICE))
            self._taken += 1
            self._make_room()
            return result

    def _lift(self) -> None:
        with self._room:
            self._window = float("inf")
            self._make_room()

    def cancel(self) -> None:
        """Read no more input, drop what was not begun and what is there."""
        with self._room:
            self.cancelled = True
            self._fall_silent()
            if self._end is None:
                self._end = StopIteration()
            if self._reader is not None:
                self._reader()  # it finds out, and says that there are no more tasks
                self._reader = None
            self._room.notify_all()

    def drop(self) -> None:
        """The iterator is gone. Where nobody ever asked it, the function is run for its effects, to the last item."""
        if self._taken:
            self.cancel()
            return
        with self._room:
            self._fall_silent()
            self._lift()

    def _fall_silent(self) -> None:
        self._unheard = True
        self._there.clear()
        self._arrived.clear()


class IMapIterator:
    """The results of `imap`, in the order of the input.

    Args:
        stream: where they come from.

    An item that failed raises its exception, and the iterator goes on with the next one. At most a few items per worker
    are read ahead of what was taken; `join()` of the pool reads all. An iterator that is closed, or dropped after it
    was used, cancels what was not begun.
    Source: multiprocessing documentation, 'Process Pools', Pool.imap.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result; waits for it.

        Args:
            timeout: seconds to wait at most; None: no limit.

        Raises:
            TimeoutError: it was not there in time.
            StopIteration: there are no more.
            PoolTerminated: the pool was terminated before.
            Exception: what the function raised for this item.
        """
        success, value = self._stream.take(timeout)
        if success:
            return value
        try:
            raise value
        finally:
            del value, self  # the exception's traceback knows this frame

    def close(self) -> None:
        """Take no more results: what was not begun is dropped, and the input is not read any more."""
        self._stream.cancel()

    def __del__(self) -> None:
        self._stream.drop()


class IMapUnorderedIterator(IMapIterator):
    """The results of `imap_unordered`, as they come."""


def read_chunks(source: Iterator[Any], sizes: Iterator[int]) -> Iterator[list[Any]]:
    """Cut an input into pieces.

    Args:
        source: the input.
        sizes: of the pieces.
    """
    for size in sizes:
        chunk = list(itertools.islice(source, size))
        if not chunk:
            return
        yield chunk


for _class in (ApplyResult, MapResult, IMapIterator, IMapUnorderedIterator):
    _class.__module__ = f"{__package__}.pool"
del _class
