# SPDX-License-Identifier: PSF-2.0
"""The workers of a pool, and the thread that gives them work: the collector.

Who may do what:

    any thread          appends to `incoming`, then wakes the collector; `terminate()`
    collector           all that concerns places, tasks and results; callbacks; starting workers in place of dead ones
    watcher             tells the collector that a process has ended, nothing else

So the collector's data need no lock, and an exception from a signal handler, which hits the main thread only, cannot
leave them half-changed. `_life` is for starting and ending processes, which two threads may want at once.

A worker is replaced by the collector, that is, not by the main thread: a pool whose owner sleeps in `get()`, or
computes, must go on. Under the start method fork that is a fork in a thread. It holds no lock of ours but `_life`,
which no child uses, and the locks below Python are safe across a fork; those of other libraries are what the fork
server is for.

A crew knows its pool weakly: a pool that is dropped is to be collected while its threads run.
"""
from __future__ import annotations

import os
import threading
import time
import traceback
from collections import deque
from queue import Empty
from weakref import ref

from . import util
from ._dispatch import BROKEN, ENDED, ERROR, READY, VALUES, stand_in
from ._pool_errors import PoolTerminated, WorkerLostError

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any

    from ._jobs import Job

__all__ = ["CLOSE", "INIT", "RUN", "TERMINATE", "Crew", "Task"]

INIT, RUN, CLOSE, TERMINATE = "INIT", "RUN", "CLOSE", "TERMINATE"

# A task that waits behind another one for so long is taken back, s.
_LATE = 0.02
# What waits in an inbox is to take about this time together, s: enough to cover the way to the collector and back.
_AHEAD = 0.001
_MOST_AHEAD = 16
# What terminate() leaves a worker between SIGTERM and SIGKILL, s.
_GRACE = 0.3
# After a Ctrl-C that came to a worker, s: no new task is begun before the main thread, which got it too, has decided.
_TRUCE = 0.1
# Workers killed one after the other before they were ready, per place, after which there is no point in going on.
_MOST_EARLY_KILLS = 8


class Task:
    """A part of a job: items that one worker runs, one after the other.

    Args:
        job: whose it is.
        kind: what to do with function and items: APPLY, MAP, STARMAP.
        function: packed.
        items: packed.
        index: of the first item, in the job.
        count: how many items.
        error: instead of a function and items: what all items fail with.
    """

    __slots__ = ("ahead", "count", "done", "error", "function", "index", "items", "job", "kind")

    def __init__(
        self, job: Job, kind: int, function: Any, items: Any, index: int, count: int,
        error: BaseException | None = None,
    ) -> None:  # fmt: skip
        self.job = job
        self.kind = kind
        self.function = function
        self.items = items
        self.index = index
        self.count = count
        self.error = error
        self.done = 0  # items that are settled
        self.ahead = 1  # items that a worker who has the task may have begun


class _Place:
    """A place in the crew: an inbox, and the worker that reads it now. Outlives its workers."""

    __slots__ = ("assigned", "depth", "failure", "inbox", "index", "process", "ready", "reported")

    def __init__(self, index: int, inbox: Any) -> None:
        self.index = index
        self.inbox = inbox
        self.process: Any = None  # None: vacant
        self.ready = False  # the worker has been initialized
        self.failure: BaseException | None = None  # or its initializer has failed
        self.assigned: dict[int, Task] = {}  # by number, oldest first
        self.depth = 1  # how many may be assigned
        self.reported = 0.0  # when the worker was heard of, or given a task while it had none

    def spare(self) -> int:
        """How many of its tasks its worker cannot have begun, at least."""
        return max(0, len(self.assigned) - self.ready)


class Crew:
    """Workers, and what they have to do.

    Args:
        size: how many workers.
        link: how tasks reach them.
        most_tasks: tasks after which a worker leaves; None: no limit.
    """

    def __init__(self, size: int, link: Any, most_tasks: int | None) -> None:
        self.state = INIT
        self.cache: dict[int, Any] = {}  # jobs that are not complete, by number
        self.processes: list[Any] = []
        self.pool: ref[Any] | None = None
        self.link = link
        self.collector: threading.Thread | None = None
        self.watcher: threading.Thread | None = None
        #: New tasks, and jobs that will have no more of them.
        self._incoming: deque[Task | Job] = deque()
        self._owner = os.getpid()
        self._life = threading.RLock()
        # The collector's.
        self._places = [_Place(index, link.inbox()) for index in range(size)]
        self._pending: deque[Task] = deque()
        self._numbers = 0
        self._single = most_tasks is not None  # what is assigned ahead would only wait for the next worker
        self._dismissed = False
        self._truce = 0.0  # no task is begun before this time
        self._failed_starts = 0
        self._early_kills = 0
        self._broken: BaseException | None = None

    # By any thread.

    def submit(self, task: Task) -> None:
        """Have a task done."""
        task.job._submitted += 1
        self._tell(task)

    def seal(self, job: Job) -> None:
        """There will be no more tasks of a job."""
        job._sealed = True
        self._tell(job)

    def _tell(self, news: Task | Job) -> None:
        self._incoming.append(news)
        self.wake()
        if self.collector is None or self.state == TERMINATE:
            # It may have looked for the last time before that.
            job = news.job if isinstance(news, Task) else news
            job._abort(_terminated())

    def wake(self) -> None:
        """Have the collector look at what is new."""
        # Each time: a flag that says "one is on its way" would stay set where Ctrl-C comes between flag and wake-up.
        self.link.wake()

    def close(self) -> None:
        """End when all is done."""
        if self.state == RUN:
            self.state = CLOSE
        self.wake()

    def lift(self) -> None:
        """Let all jobs read their input: somebody waits for their end, and may not be taking results."""
        for job in list(self.cache.values()):
            job._lift()

    def owned(self) -> bool:
        """Whether this is the process that made the crew, not a forked child of it."""
        return self._owner == os.getpid()

    def join(self) -> None:
        """Wait until all have left."""
        for thread in (self.collector, self.watcher):
            if thread is not None:
                thread.join()
        for process in list(self.processes):
            process.join()
        # Their descriptors go with them, though others may keep the pool.
        self.processes.clear()

    def terminate(self) -> None:
        """End now: the workers are ended, jobs fail. Returns when that is done, within a second.

        From any thread, a callback, a signal handler, a finalizer; more than once.
        """
        if not self.owned():
            return  # a forked child's copy
        with self._life:
            self.state = TERMINATE
            self._end_workers()
        self.wake()
        for job in list(self.cache.values()):
            job._abort(_terminated())
        collector = self.collector
        if collector is not None and collector is not threading.current_thread():
            # A callback that does not return must not hold this up.
            collector.join(_GRACE)

    def _end_workers(self) -> None:
        """Under _life: first SIGTERM, to whoever is left SIGKILL."""
        workers = [process for process in self.processes if hasattr(process, "terminate")]
        for process in workers:
            process.terminate()
        for place in self._places:
            self.link.release(place.inbox)
        deadline = time.monotonic() + _GRACE
        for process in workers:
            process.join(max(0.0, deadline - time.monotonic()))
        for process in workers:
            if process.is_alive():
                process.kill()
                process.join(_GRACE)

    # Starting.

    def vacancies(self) -> list[_Place]:
        """Places without a worker."""
        return [place for place in self._places if place.process is None]

    def employ(self, hire: list[tuple[_Place, Any]]) -> None:
        """Start workers.

        Args:
            hire: places and the processes to start for them.

        Raises:
            Exception: what starting one raised. The others work.
        """
        started = []
        with self._life:
            if self.state == TERMINATE:
                return
            try:
                for place, process in hire:
                    self.link.start(process)
                    self.processes.append(process)
                    started.append((place, process))
            finally:
                if self.state != INIT or len(started) == len(hire):
                    for place, process in started:
                        place.process, place.ready = process, False
                        self.link.follow(process, place.index)

    def begin(self, name: str) -> None:
        """Start the threads. After the first workers, which are forked without them."""
        self.state = RUN
        self.collector = threading.Thread(target=self._collect, name=f"{name}-collector", daemon=True)
        if self.link.watch is not None:
            self.watcher = threading.Thread(target=self.link.watch, name=f"{name}-watcher", daemon=True)
            self.watcher.start()
        self.collector.start()

    # The collector's thread.

    def _collect(self) -> None:
        try:
            while not self._finished():
                for event in self.link.take(self._patience()):
                    self._handle(*event)
                    if self.state == TERMINATE:
                        return
                event = None  # no result may live on here until the next one comes
                self._take_incoming()
                self._feed()
        except BaseException as error:
            # Nobody would notice otherwise, and everybody would wait.
            traceback.print_exc()
            self._broken = error
        finally:
            self._leave()

    def _leave(self) -> None:
        """The collector ends: in good order, after terminate(), or by a fault of its own."""
        with self._life:
            if any(place.process is not None for place in self._places):
                self.state = TERMINATE
                self._end_workers()
                for place in self._places:
                    place.process = None
            elif self.state != TERMINATE:
                self.state = TERMINATE
        for job in list(self.cache.values()):
            job._abort(self._broken or _terminated())
        self._incoming.clear()
        self._pending.clear()
        self.link.stop()

    def _finished(self) -> bool:
        if self.state == TERMINATE:
            return True
        if self.state == CLOSE and not self.cache and not self._incoming and not self._dismissed:
            self._dismissed = True
            for place in self._places:
                place.inbox.put(None)
        return self._dismissed and all(place.process is None for place in self._places)

    def _patience(self) -> float | None:
        """How long nothing may happen: only tasks that wait behind others need looking after."""
        if self._truce:
            return max(0.001, self._truce - time.monotonic())
        return _LATE if any(place.spare() for place in self._places) else None

    def _handle(
        self, index: int, kind: int, number: int, count: int, ahead: int, took: float, payload: Any, text: str
    ) -> None:
        place = self._places[index]
        if kind == VALUES:
            self._on_values(place, number, count, ahead, took, payload)
        elif kind == ERROR:
            self._on_error(place, number, count, ahead, took, payload, text)
        elif kind == READY:
            place.ready = True
            place.reported = time.monotonic()
            self._failed_starts = self._early_kills = 0
        elif kind == BROKEN:
            place.failure = self.link.unpack_error(payload, text)
        elif kind == ENDED and place.process is not None:
            self._on_ended(place)

    def _on_values(self, place: _Place, number: int, count: int, ahead: int, took: float, payload: Any) -> None:
        task = place.assigned[number]
        index = task.index + task.done
        try:
            values = self.link.unpack_values(payload)
            if len(values) != count:
                raise ValueError(f"{len(values)} results of {count} items")
        except BaseException as reason:
            task.job._fail(index, count, stand_in("result", "", reason))
        else:
            task.job._deliver(index, values)
        self._settle(place, number, task, count, ahead, took)

    def _on_error(
        self, place: _Place, number: int, count: int, ahead: int, took: float, payload: Any, text: str
    ) -> None:
        task = place.assigned[number]
        error = self.link.unpack_error(payload, text)
        if isinstance(error, KeyboardInterrupt):
            self._truce = time.monotonic() + _TRUCE
        task.job._fail(task.index + task.done, count, error)
        self._settle(place, number, task, count, ahead, took)

    def _settle(self, place: _Place, number: int, task: Task, count: int, ahead: int, took: float) -> None:
        """Items of a task are done; perhaps all."""
        place.reported = time.monotonic()
        task.done += count
        task.ahead = ahead
        if task.done >= task.count:
            del place.assigned[number]
            if not self._single:
                place.depth = 1 + min(_MOST_AHEAD, int(_AHEAD / max(took, 1e-6)))
            task.job._task_done()

    # Ends of workers.

    def _on_ended(self, place: _Place) -> None:
        process, ready = place.process, place.ready
        self.link.forget(process)
        process.join()
        with self._life:
            place.process, place.ready = None, False
            self.processes.remove(process)
        util.debug("worker %s ended with exit code %s", process.name, process.exitcode)
        self._take_stock(place, process)
        if not ready:
            self._note_failed_start(place, process)
        if not self._dismissed:
            self._replace()

    def _take_stock(self, place: _Place, process: Any) -> None:
        """What the dead worker had taken and not settled: at most one task."""
        begun = list(place.assigned.items())[: len(place.assigned) - place.inbox.qsize()]
        for number, task in begun:
            del place.assigned[number]
            index, count = task.index + task.done, min(task.ahead, task.count - task.done)
            what = _name_items(task.job, index, count)
            for lost in range(index, index + count):
                task.job._fail(lost, 1, WorkerLostError.of(process, what, lost))
            task.done += count
            task.ahead = 1
            if task.done < task.count:
                self._pending.appendleft(task)  # the items behind were not begun
            else:
                task.job._task_done()

    def _note_failed_start(self, place: _Place, process: Any) -> None:
        """A worker ended before it could take a task. When that is the rule, the pool is broken."""
        error = place.failure or WorkerLostError.of(process, "before it was ready", None)
        if place.failure is None and (process.exitcode or 0) < 0:
            self._early_kills += 1
        else:
            self._failed_starts += 1
        place.failure = None
        size = len(self._places)
        if self._failed_starts >= size or self._early_kills >= _MOST_EARLY_KILLS * size:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """No worker can be started: all jobs fail with the reason, those of the future too."""
        self._broken = error
        self._pending.clear()
        for job in list(self.cache.values()):
            job._abort(error)

    def _replace(self) -> None:
        """Have the pool fill its vacancies, unless that is in vain."""
        pool = None if self.pool is None else self.pool()
        if pool is None or self._broken is not None or self.state == TERMINATE:
            return
        try:
            pool._repopulate_pool()
        except Exception as error:
            # No memory, no process ids: others may still work, or work again.
            util.sub_warning("cannot start a worker: %s", error)
            self._failed_starts += 1
            if self._failed_starts >= len(self._places) and not self.processes:
                self._break(error)

    # Giving work.

    def _take_incoming(self) -> None:
        incoming = self._incoming
        while incoming:
            news = incoming.popleft()
            if not isinstance(news, Task):
                news._check_complete()
            elif self._broken is not None:
                news.job._abort(self._broken)
            elif news.error is not None:
                news.job._fail(news.index, news.count, news.error)
                news.job._task_done()
            else:
                self._pending.append(news)

    def _feed(self) -> None:
        """Give tasks to those who have the fewest; take back what waits in vain."""
        if self._truce:
            if time.monotonic() < self._truce:
                return
            self._truce = 0.0
        self._take_back_late()
        deepest = max([place.depth for place in self._places])
        for level in range(deepest if self._pending else 0):
            free = [place for place in self._places if len(place.assigned) == level < place.depth and place.process]
            free.sort(key=_readiness)
            for place in free:
                while self._pending and not self._give(place, self._pending.popleft()):
                    pass  # that one needs no worker any more
        if not self._pending:
            self._share()

    def _give(self, place: _Place, task: Task) -> bool:
        """Assign a task. False: it is settled without a worker."""
        if task.job.cancelled:
            task.job._task_done()
            return False
        self._numbers += 1
        if not place.assigned:
            place.reported = time.monotonic()
        try:
            place.inbox.put((self._numbers, task.kind, task.function, task.items, task.done, task.count))
        except BaseException as error:
            task.job._fail(task.index + task.done, task.count - task.done, error)
            task.job._task_done()
            return False
        place.assigned[self._numbers] = task
        return True

    def _share(self) -> None:
        """Nothing is pending: whoever has nothing to do gets what others have not begun."""
        idle = [place for place in self._places if place.ready and not place.assigned]
        for place in idle:
            richest = max(self._places, key=_Place.spare)
            task = self._take_back(richest)
            if task is None:
                return
            self._give(place, task)

    def _take_back_late(self) -> None:
        """A task that takes long must not hold up those behind it."""
        now = time.monotonic()
        for place in self._places:
            if place.ready and place.spare() and now - place.reported > _LATE:
                place.depth = 1
                late = []
                while (task := self._take_back(place)) is not None:
                    late.append(task)
                self._pending.extendleft(reversed(late))

    def _take_back(self, place: _Place) -> Task | None:
        """The oldest task of a place that its worker has not taken, if there is one."""
        if not place.spare():
            return None
        try:
            number = place.inbox.get_nowait()[0]
        except Empty:
            return None
        return place.assigned.pop(number)


def _readiness(place: _Place) -> bool:
    return not place.ready


def _terminated() -> PoolTerminated:
    return PoolTerminated("the pool was terminated before the result was there")


def _name_items(job: Job, index: int, count: int) -> str:
    """For messages: what was running."""
    name = getattr(job.function, "__qualname__", None) or repr(job.function)
    items = f"item {index}" if count == 1 else f"items {index} to {index + count - 1}"
    return f"while it ran {name}() on {items}"
