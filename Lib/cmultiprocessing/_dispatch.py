# SPDX-License-Identifier: PSF-2.0
"""How tasks reach the workers of a pool and results come back, and what a worker does with them.

Each place in a pool has an inbox, and all share one queue of events:

    collector ──task──> inbox of place 0 ──> worker ──┐
              ──task──> inbox of place 1 ──> worker ──┼──READY, VALUES, ERROR──> events ──> collector
                                            watcher ──┘  ENDED

A worker takes a task only when it has sent everything of the one before. So when it dies, whatever it died of:
what was assigned to it and is still in the inbox was not begun, and stays there for the next worker; what it had
finished is in the events, ahead of the watcher's ENDED; at most one task is left, and that is the one it was running.
Taking from an inbox and putting into the events are one store each: there is nothing in between.

This module knows nothing of pools and jobs. Other transports need the same classes: a link, and what it hands out.
"""
from __future__ import annotations

import itertools
import os
import select
import signal
import sys
import traceback
from queue import Empty, SimpleQueue
from time import perf_counter as clock

from . import queues, reduction

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = [
    "APPLY", "MAP", "STARMAP", "READY", "BROKEN", "VALUES", "ERROR", "ENDED", "WAKE", "ProcessLink", "ThreadLink",
    "work", "RemoteTraceback", "ExceptionWithTraceback", "MaybeEncodingError",
]  # fmt: skip

# What a task does with its function and its items.
APPLY, MAP, STARMAP = range(3)

# Events: (place, kind, sequence number of the task, how many items it settles, how many items the worker has taken on
# before it reports again, seconds that the items took, payload, description).
READY, BROKEN, VALUES, ERROR, ENDED, WAKE = range(6)

# A worker reports as soon as this time has passed, s: what it has finished by then cannot be lost with it.
_REPORT_AFTER = 0.0002
_MOST_ITEMS = 128
# Below the sixth: what the queue carries as it is, without a pickle.
_SCALARS = frozenset((int, float, str, bytes, bool, type(None)))


# Exceptions on their way.


class RemoteTraceback(Exception):
    """The traceback of a worker, as text: the `__cause__` of an exception that a task raised.

    Args:
        tb: the text.
    """

    def __init__(self, tb: str) -> None:
        self.tb = tb

    def __str__(self) -> str:
        return self.tb


class ExceptionWithTraceback:
    """An exception that takes its traceback along when it is pickled.

    Args:
        exc: the exception.
        tb: its traceback.
    """

    def __init__(self, exc: BaseException, tb: Any) -> None:
        self.exc = exc
        self.tb = f'\n"""\n{_describe(exc)}"""'
        # Frames cannot be pickled, and would keep the task's objects alive.
        self.exc.__traceback__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_exc, (self.exc, self.tb)


def rebuild_exc(exc: BaseException, tb: str) -> BaseException:
    """The exception in the parent, with the worker's traceback as its cause."""
    exc.__cause__ = RemoteTraceback(tb)
    return exc


def _describe(exc: BaseException) -> str:
    """The traceback of an exception, whatever its own methods do."""
    try:
        return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    except Exception as error:
        return f"{type(exc).__name__} (its traceback cannot be formatted: {type(error).__name__})\n"


class MaybeEncodingError(Exception):
    """The result of a task, or its exception, cannot be pickled.

    Args:
        exc: why.
        value: what.
    """

    def __init__(self, exc: object, value: object) -> None:
        self.exc = _safe_repr(exc)
        self.value = _safe_repr(value)
        super().__init__(self.exc, self.value)

    def __str__(self) -> str:
        return f"Error sending result: '{self.value}'. Reason: '{self.exc}'"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"


def _safe_repr(value: object) -> str:
    try:
        # What was unpickled is text already.
        return value if isinstance(value, str) else repr(value)
    except Exception as error:
        return f"<{type(value).__name__} object; its repr() raised {type(error).__name__}>"


# In a worker.


class _Outbox:
    """A worker's way to the events of its pool.

    Args:
        events: the queue.
        place: of the worker in the pool.
    """

    def __init__(self, events: Any, place: int) -> None:
        self._events = events
        self._place = place
        #: Whether Ctrl-C is for the function that runs now.
        self.interruptible = False

    def enter(self) -> None:
        """First thing in a worker."""

    def unpack_function(self, packed: Any) -> Callable[..., Any]:
        """The function of a task."""
        raise NotImplementedError

    def unpack(self, packed: Any) -> Any:
        """The items of a task."""
        raise NotImplementedError

    def pack_values(self, values: list[Any]) -> Any:
        """Results for the way back."""
        raise NotImplementedError

    def pack_error(self, error: BaseException) -> tuple[Any, str]:
        """An exception for the way back, and its description in case that it does not survive."""
        raise NotImplementedError

    def ready(self) -> None:
        """The worker is about to take tasks."""
        self._put(READY)

    def broken(self, error: BaseException) -> None:
        """The initializer failed."""
        payload, text = self.pack_error(error)
        self._put(BROKEN, payload=payload, text=text)

    def values(self, number: int, values: list[Any], ahead: int, took: float) -> None:
        """Items of a task are done.

        Args:
            number: of the task.
            values: their results.
            ahead: how many items will be run before the next report.
            took: seconds that they took.
        """
        try:
            self._put(VALUES, number, len(values), ahead, took, self.pack_values(values))
        except BaseException as error:
            # The queue is unchanged. Each by itself: one that cannot travel must not cost the others.
            if len(values) == 1:
                self.error(number, MaybeEncodingError(error, values[0]), 1, ahead, took)
                return
            for place, value in enumerate(values, 1):
                self.values(number, [value], ahead if place == len(values) else 1, took)

    def error(self, number: int, error: BaseException, count: int, ahead: int, took: float) -> None:
        """Items of a task failed. Arguments: as for values(); count: how many items."""
        payload, text = self.pack_error(error)
        self._put(ERROR, number, count, ahead, took, payload, text)

    def _put(
        self, kind: int, number: int = 0, count: int = 0, ahead: int = 1, took: float = 0.0,
        payload: Any = None, text: str = "",
    ) -> None:  # fmt: skip
        self._events.put((self._place, kind, number, count, ahead, took, payload, text))


class _ProcessOutbox(_Outbox):
    """The way from another process.

    Args:
        events: the queue.
        place: of the worker in the pool.
        blocked: signals that are blocked while the worker is started, and that its parent has not blocked itself.
    """

    def __init__(self, events: Any, place: int, blocked: set[int]) -> None:
        super().__init__(events, place)
        self._blocked = blocked
        self._last_function: tuple[Any, Any] = (None, None)

    def enter(self) -> None:
        """Signals are the worker's own: handlers of the parent are not run in it.

        SIGTERM ends it at once. Ctrl-C, which the terminal sends to all processes, interrupts a running task and
        nothing else: the worker lives, and the parent decides. Ignored signals stay ignored.
        """
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
            signal.signal(signal.SIGINT, self._on_interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._blocked)

    def _on_interrupt(self, _number: int, _frame: object) -> None:
        if self.interruptible:
            self.interruptible = False
            raise KeyboardInterrupt

    def unpack_function(self, packed: Any) -> Callable[..., Any]:
        """The function of a task. One that is pickled by its name is looked up once."""
        by_name, data = packed[:1], packed[1:]
        if by_name == b"n" and data == self._last_function[0]:
            return self._last_function[1]  # type: ignore[no-any-return]
        function = reduction.ForkingPickler.loads(data)
        if by_name == b"n":
            self._last_function = data, function
        return function  # type: ignore[no-any-return]

    def unpack(self, packed: Any) -> Any:
        """The items of a task."""
        return reduction.ForkingPickler.loads(packed)

    def pack_values(self, values: list[Any]) -> Any:
        """One scalar as it is, which is marked by a tuple's absence: pickles are bytes, so bytes are pickled."""
        if len(values) == 1 and type(values[0]) in _SCALARS and type(values[0]) is not bytes:
            return values[0]
        return bytes(reduction.ForkingPickler.dumps(values))

    def pack_error(self, error: BaseException) -> tuple[Any, str]:
        """Whatever the exception is, something arrives."""
        wrapped = ExceptionWithTraceback(error, error.__traceback__)
        try:
            return bytes(reduction.ForkingPickler.dumps(wrapped)), _headline(error) + wrapped.tb
        except BaseException as reason:
            stand_in = rebuild_exc(MaybeEncodingError(reason, error), wrapped.tb)
            kept = ExceptionWithTraceback.__new__(ExceptionWithTraceback)
            kept.exc, kept.tb = stand_in, wrapped.tb
            return bytes(reduction.ForkingPickler.dumps(kept)), _headline(error) + wrapped.tb


def _headline(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


class _ThreadOutbox(_Outbox):
    """The way from another thread: objects travel as they are."""

    def unpack_function(self, packed: Any) -> Callable[..., Any]:
        """The function of a task."""
        return packed  # type: ignore[no-any-return]

    def unpack(self, packed: Any) -> Any:
        """The items of a task."""
        return packed

    def pack_values(self, values: list[Any]) -> Any:
        """The results."""
        return values

    def pack_error(self, error: BaseException) -> tuple[Any, str]:
        """The exception, with its traceback as it is."""
        return error, ""

    def left(self) -> None:
        """The thread ends: nobody else would notice."""
        self._put(ENDED)


def work(inbox: Any, outbox: _Outbox, most_tasks: int | None) -> None:
    """Take tasks and run them, until told to leave.

    Args:
        inbox: of the worker's place.
        outbox: where results go.
        most_tasks: leave after so many; None: no limit.
    """
    finished = 0
    while most_tasks is None or finished < most_tasks:
        task = inbox.get()
        if task is None:
            break
        _run(task, outbox)
        del task  # what it refers to must not live until the next one comes
        finished += 1


def _run(task: tuple[Any, ...], outbox: _Outbox) -> None:
    """Run the items of a task from the one that is next, and report."""
    number, kind, function, items, start, count = task
    try:
        function = outbox.unpack_function(function)
        items = outbox.unpack(items)
    except BaseException as error:
        outbox.error(number, error, count - start, 0, 0.0)
        return
    ahead = 1
    while start < count:
        values: list[Any] = []
        piece = items if count == 1 else items[start : start + ahead]
        began = clock()
        failure = _run_piece(kind, function, piece, values, outbox)
        took = clock() - began
        done = len(values)
        start += done
        if failure is None:
            ahead = _next_piece(ahead, took, count - start)
        elif done:
            ahead = 1
        if done:
            outbox.values(number, values, ahead, took)
        if failure is not None:
            start += 1
            ahead = min(1, count - start)
            outbox.error(number, failure, 1, ahead, took)


def _next_piece(ahead: int, took: float, left: int) -> int:
    """How many items to run before the next report: what takes about _REPORT_AFTER, growing carefully."""
    fitting = int(ahead * _REPORT_AFTER / took) if took > 0 else _MOST_ITEMS
    return min(left, max(1, min(fitting, 4 * ahead, _MOST_ITEMS)))


def _run_piece(
    kind: int, function: Callable[..., Any], items: Sequence[Any], values: list[Any], outbox: _Outbox
) -> BaseException | None:
    """Run items until one fails. The results are appended to `values`. Returns the exception of the one that failed."""
    try:
        outbox.interruptible = True
        if kind == APPLY:
            args, kwargs = items[0]
            values.append(function(*args, **kwargs))
        else:
            values.extend(map(function, items) if kind == MAP else itertools.starmap(function, items))
        outbox.interruptible = False
    except BaseException as error:
        outbox.interruptible = False
        # Ctrl-C between the last item and here is too late to hit one.
        return error if len(values) < len(items) else None
    # A function that raises StopIteration ends map() without an exception.
    return None if len(values) == len(items) else StopIteration()


# In the parent.


class ProcessLink:
    """Tasks and results between processes, through queues in shared memory, and a watcher of the workers' ends.

    Args:
        shield: signals to block while a worker is started.
    """

    wraps_exceptions = True

    def __init__(self, shield: frozenset[int]) -> None:
        self.events = queues.Queue()
        self._shield = shield
        # Sentinel -> place. The watcher reads it, whoever starts and reaps workers changes it; no step is more
        # than one operation of the dictionary.
        self._places: dict[int, int] = {}
        self._epoll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._stop, select.EPOLLIN)

    def inbox(self) -> Any:
        """A new inbox."""
        return queues.Queue()

    def outbox(self, place: int) -> _Outbox:
        """What the worker at a place is given."""
        already = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return _ProcessOutbox(self.events, place, set(self._shield - already))

    def start(self, process: Any) -> None:
        """Start a worker. Signals that it cannot handle yet wait until it can."""
        if not self._shield:
            process.start()
            return
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._shield)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def follow(self, process: Any, place: int) -> None:
        """From now on the end of this process is an event."""
        self._places[process.sentinel] = place
        self._epoll.register(process.sentinel, select.EPOLLIN | select.EPOLLONESHOT)

    def forget(self, process: Any) -> None:
        """The process has ended, and its sentinel is about to be closed."""
        if self._places.pop(process.sentinel, None) is not None and not self._epoll.closed:
            self._epoll.unregister(process.sentinel)

    def watch(self) -> None:
        """The watcher's thread: report workers that end, until stop()."""
        try:
            while True:
                for fd, _ in self._epoll.poll():
                    if fd == self._stop:
                        return
                    place = self._places.get(fd)
                    if place is not None:
                        self.events.put((place, ENDED, 0, 0, 0, 0.0, None, ""))
        finally:
            self._epoll.close()
            os.close(self._stop)

    def stop(self) -> None:
        """End watch(), which must have been started, or will be."""
        os.eventfd_write(self._stop, 1)

    def discard(self) -> None:
        """Instead of watch() and stop(), where no worker could be started."""
        self._epoll.close()
        os.close(self._stop)

    def release(self, inbox: Any) -> None:
        """Nothing: a process that waits can be ended."""

    def wake(self) -> None:
        """Make take() return."""
        self.events.put((0, WAKE, 0, 0, 0, 0.0, None, ""))

    def take(self, timeout: float | None) -> list[tuple[Any, ...]]:
        """Events, oldest first; none after `timeout` seconds (None: no limit)."""
        try:
            return self.events.get_many(64, timeout)
        except Empty:
            return []

    def pack_function(self, function: Callable[..., Any]) -> Any:
        """A function for the way to a worker; 'n' before the pickle of one that is known by its name."""
        data = bytes(reduction.ForkingPickler.dumps(function))
        return (b"n" if _has_name(function) else b"v") + data

    def pack(self, items: Any) -> Any:
        """Items for the way to a worker."""
        return bytes(reduction.ForkingPickler.dumps(items))

    def unpack_values(self, payload: Any) -> list[Any]:
        """Results of a worker. Runs any code."""
        if type(payload) is not bytes:
            return [payload]
        return reduction.ForkingPickler.loads(payload)  # type: ignore[no-any-return]

    def unpack_error(self, payload: Any, text: str) -> BaseException:
        """The exception of a worker, or what stands for it. Runs any code."""
        try:
            error = reduction.ForkingPickler.loads(payload)
        except BaseException as reason:
            return stand_in("exception", text, reason)
        return error if isinstance(error, BaseException) else stand_in("exception", text, TypeError(repr(error)))



def _has_name(function: Any) -> bool:
    """Whether a function is what its module has under its name: then a pickle holds the name only."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in (getattr(function, "__qualname__", None) or "<unnamed>").split("."):
        found = getattr(found, part, None)
    return found is function


def stand_in(what: str, text: str, reason: BaseException) -> BaseException:
    """What a caller gets instead of something that cannot be unpickled.

    Args:
        what: 'exception' or 'result'.
        text: its description.
        reason: what unpickling it raised.
    """
    from ._pool_errors import RemoteTaskError

    headline, _, tb = text.partition("\n")
    named = f" {headline}" if headline else ""
    error = RemoteTaskError(f"{what}{named} of a worker cannot be unpickled here: {_headline(reason)}")
    return rebuild_exc(error, f"\n{tb}") if tb else error


class ThreadLink:
    """Tasks and results between threads."""

    wraps_exceptions = False

    def __init__(self) -> None:
        self.events: SimpleQueue[tuple[Any, ...]] = SimpleQueue()

    def inbox(self) -> Any:
        """A new inbox."""
        return SimpleQueue()

    def outbox(self, place: int) -> _Outbox:
        """What the worker at a place is given."""
        return _ThreadOutbox(self.events, place)

    def start(self, process: Any) -> None:
        """Start a worker."""
        process.start()

    def follow(self, process: Any, place: int) -> None:
        """A thread says itself that it ends."""

    def forget(self, process: Any) -> None:
        """Nothing was noted."""

    watch: Callable[[], None] | None = None

    def stop(self) -> None:
        """There is no watcher."""

    discard = stop

    def release(self, inbox: Any) -> None:
        """A thread cannot be ended: drop what it has not begun, and let it leave."""
        try:
            while True:
                inbox.get_nowait()
        except Empty:
            inbox.put(None)

    def wake(self) -> None:
        """Make take() return."""
        self.events.put((0, WAKE, 0, 0, 0, 0.0, None, ""))

    def take(self, timeout: float | None) -> list[tuple[Any, ...]]:
        """Events, oldest first; none after `timeout` seconds (None: no limit)."""
        try:
            return [self.events.get(timeout=timeout)]
        except Empty:
            return []

    def pack_function(self, function: Callable[..., Any]) -> Any:
        """As it is."""
        return function

    def pack(self, items: Any) -> Any:
        """As they are."""
        return items

    def unpack_values(self, payload: Any) -> list[Any]:
        """As they are."""
        return payload  # type: ignore[no-any-return]

    def unpack_error(self, payload: Any, text: str) -> BaseException:
        """As it is."""
        return payload  # type: ignore[no-any-return]
