# SPDX-License-Identifier: PSF-2.0
"""Pools of workers: processes, or threads with the same interface.

    Pool ── Crew (_crew.py): who works, who gets what, what happens when one dies
         ├─ jobs (_jobs.py): results and iterators
         └─ link (_dispatch.py): how tasks and results travel, and what a worker does with them

A worker that is killed costs the item that it was running and nothing else: that one raises WorkerLostError, and the
worker is replaced.
"""
from __future__ import annotations

import itertools
import signal
import sys
import threading
import warnings
from collections.abc import Sized
from weakref import ref

from . import _default_context, process, util
from ._cpus import usable_cpus
from ._crew import CLOSE, INIT, RUN, TERMINATE, Crew, Task
from ._dispatch import (
    APPLY,
    MAP,
    STARMAP,
    ExceptionWithTraceback,
    MaybeEncodingError,
    ProcessLink,
    RemoteTraceback,
    ThreadLink,
    rebuild_exc,
    work,
)
from ._jobs import ApplyResult, IMapIterator, IMapUnorderedIterator, MapResult, Stream, read_chunks
from ._jobs import AsyncResult as AsyncResult
from ._pool_errors import PoolTerminated, RemoteTaskError, WorkerLostError
from ._threads import DummyProcess

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, NoReturn, Self

    from ._jobs import Job

__all__ = ["Pool", "ThreadPool", "PoolTerminated", "RemoteTaskError", "WorkerLostError"]

# Users see these classes, and pickle them, as names of this module.
for _class in (ExceptionWithTraceback, MaybeEncodingError, RemoteTraceback):
    _class.__module__ = __name__
rebuild_exc.__module__ = __name__
del _class

#: Items read ahead by `imap`, in tasks per worker.
_WINDOW = 2
#: How many tasks per worker `map` cuts what is left of its input into; and the most items that one task has.
_SHARES = 4
_MOST_ITEMS = 4096
#: Input that can be read by any thread: reading neither blocks nor runs code of others. Some has to be copied first.
_COPIED = frozenset((list, dict, set))
_CONTAINERS = _COPIED | {tuple, range, str, bytes, frozenset}
#: Items per task grow up to this where the length of the input is not known.
_MOST_ITEMS_UNKNOWN = 512


def mapstar(args: tuple[Any, ...]) -> list[Any]:
    """`list(map(*args))`, by a name that other libraries know."""
    return list(map(*args))


def starmapstar(args: tuple[Any, ...]) -> list[Any]:
    """`list(itertools.starmap(*args))`, likewise."""
    return list(itertools.starmap(args[0], args[1]))


def _helper_reraises_exception(ex: BaseException) -> NoReturn:
    """Raise `ex`; a function of its own so that the exception is seen to be no task's."""
    raise ex


def worker(
    inqueue: Any,
    outqueue: Any,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasks: int | None = None,
    wrap_exception: bool = False,
) -> None:
    """What a worker does from its first to its last instruction.

    Args:
        inqueue: where its tasks come from.
        outqueue: where results go.
        initializer: called first.
        initargs: arguments of the initializer.
        maxtasks: tasks after which it leaves; None: no limit.
        wrap_exception: accepted as the standard library has it; what `outqueue` is decides.

    Raises:
        SystemExit: the initializer failed; the pool has been told.
    """
    outqueue.enter()
    try:
        if initializer is not None:
            initializer(*initargs)
    except BaseException as error:
        outqueue.broken(error)
        sys.exit(1)
    outqueue.ready()
    work(inqueue, outqueue, maxtasks)
    util.debug("worker exiting")


class Pool:
    """Worker processes that run functions.

    Args:
        processes: how many; None: as many CPUs as this process may use.
        initializer: called in each worker when it starts. Where it fails in all of them, its exception is what all
            results raise.
        initargs: arguments of the initializer.
        maxtasksperchild: tasks after which a worker is replaced; None: never.
        context: the context whose Process is used.

    Raises:
        ValueError: fewer than 1 process or task.
        TypeError: initializer is not callable.
        OSError: no process can be started; none is left then.

    Since 2.6; multiprocessing documentation, 'Process Pools'. To be closed, or terminated; a `with` block terminates.
    """

    _wrap_exception = True

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """A process object for a worker; subclasses replace it."""
        return ctx.Process(*args, **kwds)

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        # First, for __del__: nothing is to be closed yet.
        self._state = INIT
        if processes is None:
            processes = usable_cpus()
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild < 1):
            raise ValueError(f"maxtasksperchild must be a positive int or None, not {maxtasksperchild!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._ctx = context or _default_context.get_context()
        self._processes = processes
        self._initializer = initializer
        self._initargs = initargs
        self._maxtasksperchild = maxtasksperchild
        self._setup_queues()
        self._crew = crew = Crew(processes, self._link, maxtasksperchild)
        crew.pool = ref(self)
        self._cache = crew.cache
        self._pool = crew.processes
        self._open()

    def _open(self) -> None:
        """Start the workers, then the threads; on failure leave nothing behind."""
        crew = self._crew
        try:
            self._repopulate_pool()
            crew.begin(type(self).__name__)
        except BaseException:
            for started in crew.processes:
                if hasattr(started, "terminate"):
                    started.terminate()
            for started in crew.processes:
                started.join()
            crew.link.discard()
            raise
        self._result_handler = crew.collector
        self._worker_handler = crew.watcher
        self._terminate = util.Finalize(self, crew.terminate, exitpriority=15)
        self._state = RUN

    def _setup_queues(self) -> None:
        """Make what tasks and results travel through."""
        # A forked or spawned child is born with these signals blocked, and takes them when it can handle them. The fork
        # server is not to inherit that.
        direct = getattr(self._ctx.Process, "_start_method", None) in ("fork", "spawn")
        self._link: Any = ProcessLink(frozenset((signal.SIGINT, signal.SIGTERM)) if direct else frozenset())

    def _repopulate_pool(self) -> None:
        """Start a worker for each place that has none."""
        crew = self._crew
        hire = []
        for place in crew.vacancies():
            started = self.Process(
                self._ctx,
                target=worker,
                args=(
                    place.inbox,
                    crew.link.outbox(place.index),
                    self._initializer,
                    self._initargs,
                    self._maxtasksperchild,
                    self._wrap_exception,
                ),
            )
            started.name = started.name.replace("Process", "PoolWorker")
            started.daemon = True
            if isinstance(started, process.BaseProcess):
                # Also where a subclass has no daemons: workers die with their parent.
                started._config["leashed"] = True
            hire.append((place, started))
        crew.employ(hire)

    def __repr__(self) -> str:
        cls = type(self)
        size = len(self.__dict__.get("_pool", ()))
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={size}>"

    def __del__(self, _warn: Any = warnings.warn, _running: str = RUN) -> None:
        if self._state == _running and self._crew.owned():
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    # Single calls.

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """Call `func(*args, **kwds)` in a worker and wait for the result. Raises what the call raises."""
        return self._wait(self.apply_async(func, args, kwds))

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> ApplyResult:
        """Have `func(*args, **kwds)` called in a worker.

        Args:
            func: the function; it, and its arguments, are pickled now.
            args: its positional arguments.
            kwds: its keyword arguments.
            callback: called with the result; it must not block: it holds up all results of the pool. What it raises
                becomes the error of the result.
            error_callback: called with the exception instead.

        Returns:
            The result to wait for. What cannot be pickled is its error.

        Raises:
            ValueError: the pool was closed.
        """
        self._check_running()
        result = ApplyResult(self, callback, error_callback)
        with _Submission(self, result, func, APPLY) as submission:
            submission.add([(tuple(args), dict(kwds or {}))])
        return result

    def _wait(self, result: ApplyResult) -> Any:
        """What a call that waits returns. After Ctrl-C nobody can ask for it: what was not begun is dropped."""
        try:
            return result.get()
        except BaseException:
            if not result.ready():
                result.cancelled = True
                self._crew.wake()
            raise

    # Many calls.

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """`list(map(func, iterable))` with the calls in workers. Waits.

        Args:
            func: called with each item.
            iterable: the items; all are read now.
            chunksize: items per task; None: many while there are many, one at a time towards the end.

        Raises:
            Exception: what the first call that failed raised; all are made anyway.
        """
        return self._wait(self.map_async(func, iterable, chunksize))  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """Like map(), but returns a result to wait for, whose callbacks are called with the list or the exception."""
        return self._map_async(func, iterable, MAP, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Like map(), but each item is the arguments of a call. Since 3.3."""
        return self._wait(self.starmap_async(func, iterable, chunksize))  # type: ignore[no-any-return]

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """Like map_async(), but each item is the arguments of a call. Since 3.3."""
        return self._map_async(func, iterable, STARMAP, chunksize, callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        kind: int,
        chunksize: int | None,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> MapResult:
        self._check_running()
        if chunksize is not None:
            _check_chunksize(chunksize)
            sizes: Iterator[int] = itertools.repeat(chunksize)
        elif isinstance(iterable, Sized):
            sizes = _falling_sizes(len(iterable), self._processes)
        else:
            sizes = _growing_sizes(self._processes)
        source = iter(iterable)
        result = MapResult(self, chunksize, callback, error_callback)
        with _Submission(self, result, func, kind) as submission:
            for chunk in read_chunks(source, sizes):
                result._grow(len(chunk))
                submission.add(chunk)
        return result

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1, *, buffersize: int | None = None
    ) -> IMapIterator:
        """`map(func, iterable)` with the calls in workers: an iterator over the results, in order.

        Args:
            func: called with each item.
            iterable: the items; read by a thread, a little ahead of the results that are taken.
            chunksize: items per task.
            buffersize: how many items are read ahead; None: 2 tasks per worker. Since 3.15, here on every version.

        Raises:
            ValueError: the pool was closed; chunksize or buffersize is less than 1.
        """
        return IMapIterator(self._stream(func, iterable, chunksize, buffersize, ordered=True))

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1, *, buffersize: int | None = None
    ) -> IMapUnorderedIterator:
        """Like imap(), with the results as they come."""
        return IMapUnorderedIterator(self._stream(func, iterable, chunksize, buffersize, ordered=False))

    def _stream(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int, buffersize: int | None, ordered: bool
    ) -> Stream:
        self._check_running()
        _check_chunksize(chunksize)
        if buffersize is None:
            buffersize = _WINDOW * self._processes * chunksize
        elif buffersize < 1:
            raise ValueError(f"buffersize must be 1+ or None, not {buffersize!r}")
        stream = Stream(self, ordered, chunksize, buffersize)
        reader = _Reader(self, stream, func, iterable, chunksize)
        try:
            if type(iterable) in _CONTAINERS:
                stream.read_by(reader)
            else:
                threading.Thread(target=reader.read_all, daemon=True).start()
        except BaseException:
            stream.cancel()
            reader.end()
            raise
        return stream

    # The end.

    def close(self) -> None:
        """Take no more tasks. The workers leave when all are done."""
        util.debug("closing pool")
        if self._state == RUN:
            self._state = CLOSE
            self._crew.close()

    def terminate(self) -> None:
        """End the workers at once, within a second. Results that are not there raise PoolTerminated."""
        util.debug("terminating pool")
        self._state = TERMINATE
        # Not the finalizer: it runs once, and another thread that runs it may not have ended.
        self._crew.terminate()

    def join(self) -> None:
        """Wait until the workers have left. The input of every `imap` is read to its end for that.

        Raises:
            ValueError: the pool was neither closed nor terminated.
        """
        util.debug("joining pool")
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self._crew.lift()
        self._crew.join()


class ThreadPool(Pool):
    """A pool whose workers are threads of this process: functions and results are not pickled.

    Args:
        processes: how many threads; None: as many as there are usable CPUs.
        initializer: called in each thread when it starts.
        initargs: arguments of the initializer.

    terminate() cannot end a function that runs; the thread leaves when it returns. Since 3.2; multiprocessing
    documentation, 'Process Pools', ThreadPool.
    """

    _wrap_exception = False

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:  # noqa: ARG004  as that of Pool
        """A thread for a worker."""
        return _WorkerThread(*args, **kwds)

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        Pool.__init__(self, processes, initializer, initargs)

    def _setup_queues(self) -> None:
        self._link = ThreadLink()


class _WorkerThread(DummyProcess):
    """A thread that tells its pool when it ends. Arguments are those of DummyProcess."""

    def run(self) -> None:
        """Be a worker."""
        outbox = self._args[1]  # type: ignore[attr-defined]
        try:
            super().run()
        except SystemExit:
            pass  # the initializer failed, and the pool knows
        finally:
            outbox.left()


class _Submission:
    """The tasks of one job, from its first to its last. What goes wrong on the way is the job's error, or its end.

    Args:
        pool: the pool.
        job: the job.
        function: of all its tasks.
        kind: APPLY, MAP or STARMAP.
    """

    def __init__(self, pool: Pool, job: Job, function: Callable[..., Any], kind: int) -> None:
        self._crew = pool._crew
        self.job = job
        self._function = function
        self._packed: Any = None
        self._kind = kind
        self._index = 0

    def __enter__(self) -> Self:
        try:
            self.job.function = self._function
            self._packed = self._crew.link.pack_function(self._function)
        except Exception:
            pass  # each item will say so: pack_function is tried again there
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: object) -> None:
        if error is None:
            self._crew.seal(self.job)
        else:
            self.give_up()

    def give_up(self) -> None:
        """The caller gets an exception instead of the job: nobody will ask for what was submitted."""
        self.job.cancelled = True
        self._crew.seal(self.job)

    def add(self, items: list[Any]) -> None:
        """One more task."""
        link = self._crew.link
        try:
            if self._packed is None:
                self._packed = link.pack_function(self._function)
            packed = link.pack(items)
        except Exception as error:
            if len(items) > 1 and self._packed is not None:
                # One that cannot be pickled must not cost the others.
                for item in items:
                    self.add([item])
            else:
                self.fail(error, len(items))
            return
        self._submit(Task(self.job, self._kind, self._packed, packed, self._index, len(items)))

    def fail(self, error: BaseException, count: int = 1) -> None:
        """Items that no worker sees."""
        self._submit(Task(self.job, self._kind, None, None, self._index, count, error))

    def _submit(self, task: Task) -> None:
        self._index += task.count
        self._crew.submit(task)


class _Reader:
    """Reads the input of an imap(), a task at a time.

    Args:
        pool: the pool.
        stream: the job.
        function: of all its tasks.
        iterable: the input.
        chunksize: items per task.
    """

    def __init__(
        self, pool: Pool, stream: Stream, function: Callable[..., Any], iterable: Iterable[Any], chunksize: int
    ) -> None:
        self._stream = stream
        self._submission = _Submission(pool, stream, function, MAP).__enter__()
        # What the caller does to a list later is not to change the input.
        self._iterable = tuple(iterable) if type(iterable) in _COPIED else iterable
        self._source: Iterator[Any] | None = None
        self._chunksize = chunksize
        self._ended = False

    def __call__(self) -> bool:
        """Read one task, and submit it. False: that was the end, or nobody wants more."""
        try:
            if self._source is None:
                self._source = iter(self._iterable)
            chunk = [] if self._stream.cancelled else list(itertools.islice(self._source, self._chunksize))
            if chunk:
                self._submission.add(chunk)
                return True
        except BaseException as error:
            self._submission.fail(error)
            self.end()
            raise
        self.end()
        return False

    def read_all(self) -> None:
        """By a thread of its own: read as far as there is room, to the end. What reading raises is the last result."""
        try:
            while self._stream.wait_for_room() and self():
                pass
        except BaseException:
            return  # the stream has it
        self.end()

    def end(self) -> None:
        """There are no more tasks."""
        if not self._ended:
            self._ended = True
            self._iterable = self._source = None  # type: ignore[assignment]
            self._submission.__exit__(None, None, None)


def _check_chunksize(chunksize: int) -> None:
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")


def _falling_sizes(length: int, processes: int) -> Iterator[int]:
    """Items per task where the length is known: a share of what is left, so that all workers end at the same time."""
    left = length
    while True:
        size = max(1, min(_MOST_ITEMS, left // (_SHARES * processes)))
        yield size
        left -= size


def _growing_sizes(processes: int) -> Iterator[int]:
    """Items per task where the length is not known: each worker gets something at once, and many later."""
    size = 1
    while True:
        for _ in range(_SHARES * processes):
            yield size
        size = min(2 * size, _MOST_ITEMS_UNKNOWN)
