# SPDX-License-Identifier: PSF-2.0
"""Pools: what the documentation says about them, against the standard library's and ours; and what only ours has."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support import processes
from tests.support.scene import PATIENCE


def identity(x: Any) -> Any:
    return x


def square(x: int) -> int:
    return x * x


def keywords(a: int, *, b: int = 0) -> tuple[int, int]:
    return a, b


def raise_for_three(x: int) -> int:
    if x == 3:
        raise ValueError("three")
    return x


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def pool_module(package: ModuleType) -> Any:
    return sys.modules[f"{package.__name__}.pool"]


@pytest.fixture(params=["Pool", "ThreadPool"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pool(both: ModuleType, kind: str) -> Iterator[Any]:
    """A pool of either package, of processes and of threads."""
    made = both.Pool(3) if kind == "Pool" else importlib_pool(both).ThreadPool(3)
    yield made
    made.terminate()
    made.join()
    # pytest keeps the pool, and the standard library's would keep its pipes.
    last_state = made._state
    vars(made).clear()
    made._state = last_state


def importlib_pool(package: ModuleType) -> Any:
    import importlib

    return importlib.import_module(f"{package.__name__}.pool")


# --- calls, on both packages ---------------------------------------------------------------------


def test_apply(pool: Any) -> None:
    assert pool.apply(square, (5,)) == 25
    assert pool.apply(keywords, (1,), {"b": 2}) == (1, 2)
    assert pool.apply_async(keywords, [1], {"b": 3}).get(PATIENCE) == (1, 3)


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
def test_map(pool: Any, chunksize: int | None) -> None:
    assert pool.map(square, range(50), chunksize) == [x * x for x in range(50)]
    assert pool.map(square, iter(range(50)), chunksize) == [x * x for x in range(50)]
    assert pool.map(square, [], chunksize) == []
    assert pool.map_async(square, range(5), chunksize).get(PATIENCE) == [0, 1, 4, 9, 16]
    assert pool.starmap(pow, [(2, 3), (3, 2)], chunksize) == [8, 9]
    assert pool.starmap_async(pow, zip(range(9), range(9), strict=True)).get(PATIENCE) == [i**i for i in range(9)]


@pytest.mark.parametrize("chunksize", [1, 7])
def test_imap(pool: Any, chunksize: int) -> None:
    assert list(pool.imap(square, range(100), chunksize)) == [x * x for x in range(100)]
    assert sorted(pool.imap_unordered(square, iter(range(100)), chunksize)) == [x * x for x in range(100)]
    iterator = pool.imap(square, [])
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)


def test_imap_goes_on_after_an_item_that_failed(pool: Any) -> None:
    iterator = pool.imap(raise_for_three, range(6))
    assert [next(iterator) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(iterator)
    assert list(iterator) == [4, 5]


def test_timeouts(both: ModuleType, pool: Any) -> None:
    result = pool.apply_async(time.sleep, (0.5,))
    with pytest.raises(both.TimeoutError):
        result.get(0.05)
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    assert not result.ready()
    iterator = pool.imap(pid_after, [0.5])
    with pytest.raises(both.TimeoutError):
        iterator.next(0.05)
    assert isinstance(iterator.next(PATIENCE), int)
    result.wait(PATIENCE)
    assert result.ready()
    assert result.successful()
    assert result.get() is None


def test_callbacks(pool: Any) -> None:
    seen: list[Any] = []
    pool.apply_async(square, (3,), callback=seen.append, error_callback=seen.append).wait(PATIENCE)
    pool.map_async(square, [1, 2], callback=seen.append).wait(PATIENCE)
    pool.apply_async(raise_for_three, (3,), callback=seen.append, error_callback=seen.append).wait(PATIENCE)
    assert seen[:2] == [9, [1, 4]]
    assert isinstance(seen[2], ValueError)
    assert len(seen) == 3


def test_an_error_of_map_comes_after_all_items(pool: Any) -> None:
    result = pool.map_async(raise_for_three, range(10), chunksize=1)
    with pytest.raises(ValueError, match="three"):
        result.get(PATIENCE)
    assert not result.successful()
    assert pool.map(square, range(3)) == [0, 1, 4]


def failing_input() -> Iterator[int]:
    yield from range(5)
    raise LookupError("no more")


def test_input_that_raises(pool: Any) -> None:
    with pytest.raises(LookupError, match="no more"):
        pool.map(square, failing_input())
    iterator = pool.imap(square, failing_input())
    assert list(itertools.islice(iterator, 5)) == [0, 1, 4, 9, 16]
    with pytest.raises(LookupError, match="no more"):
        next(iterator)
    with pytest.raises(LookupError, match="no more"):
        list(pool.imap_unordered(square, failing_input()))
    with pytest.raises(TypeError):
        pool.map(square, 5)
    with pytest.raises(TypeError):
        next(pool.imap(square, 5))


def test_bad_arguments(both: ModuleType) -> None:
    module = importlib_pool(both)
    for make in (both.Pool, module.ThreadPool):
        for size in (0, -1):
            with pytest.raises(ValueError, match="at least 1"):
                make(size)
        with pytest.raises(TypeError, match="callable"):
            make(1, initializer="no")
    for tasks in (0, -1, 0.5, "12"):
        with pytest.raises(ValueError, match="maxtasksperchild"):
            both.Pool(1, maxtasksperchild=tasks)


def test_chunksize_is_checked(pool: Any) -> None:
    for chunksize in (0, -3):
        with pytest.raises(ValueError, match="Chunksize"):
            pool.imap(square, [1], chunksize)


def test_states(both: ModuleType, kind: str) -> None:
    pool = getattr(importlib_pool(both), kind)(2)
    with pytest.raises(ValueError, match="running"):
        pool.join()
    assert "state=RUN pool_size=2" in repr(pool)
    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)
    result = pool.map_async(square, range(100), chunksize=1)
    pool.close()
    for call in (pool.apply, pool.map_async, pool.imap):
        with pytest.raises(ValueError, match="not running"):
            call(square, [1])
    with pytest.raises(ValueError, match="not running"), pool:
        pass
    pool.join()
    assert result.get(0) == [x * x for x in range(100)]
    pool.close()
    pool.terminate()
    pool.join()


def remember(value: str) -> None:
    global _remembered
    _remembered = value


def recall(_x: object) -> str:
    return _remembered


_remembered = ""


def test_initializer(both_ctx: Any) -> None:
    with both_ctx.Pool(2, remember, ("something",)) as pool:
        assert pool.map(recall, range(10)) == ["something"] * 10
    pool.join()


def test_names_of_workers(both_ctx: Any) -> None:
    name = type(both_ctx).__name__.replace("Context", "PoolWorker")
    with both_ctx.Pool(3) as pool:
        assert all(worker.name.startswith(name) for worker in pool._pool)
        assert all(worker.daemon for worker in pool._pool)
        assert pool._processes == 3
        assert "RUN" in pool._state
    pool.join()


def test_maxtasksperchild(both_ctx: Any) -> None:
    with both_ctx.Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(os.getpid) for _ in range(5)]
    pool.join()
    assert len(set(pids)) == 3


def test_remote_traceback(both: ModuleType) -> None:
    with both.Pool(1) as pool, pytest.raises(ValueError, match="three") as caught:
        pool.apply(raise_for_three, (3,))
    pool.join()
    assert type(caught.value.__cause__) is pool_module(both).RemoteTraceback
    shown = "".join(traceback.format_exception(caught.value))
    assert 'raise ValueError("three")' in shown


def test_a_pool_is_not_kept_by_its_threads(both: ModuleType, kind: str) -> None:
    pool = getattr(importlib_pool(both), kind)(1)
    pool.map(square, range(3))
    pool.terminate()
    pool.join()
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None


def test_many_threads(pool: Any) -> None:
    wrong: list[int] = []

    def call(first: int) -> None:
        wrong.extend(i for i in range(first, first + 50) if pool.apply(square, (i,)) != i * i)

    threads = [threading.Thread(target=call, args=(n * 50,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_private_names(both: ModuleType) -> None:
    module = importlib_pool(both)
    assert module.mapstar((square, [1, 2])) == [1, 4]
    assert module.starmapstar((pow, [(2, 3)])) == [8]
    assert (module.RUN, module.CLOSE, module.TERMINATE) == ("RUN", "CLOSE", "TERMINATE")
    with pytest.raises(LookupError):
        module._helper_reraises_exception(LookupError())
    assert module.AsyncResult is module.ApplyResult
    assert module.ApplyResult[int]
    error = module.MaybeEncodingError(ValueError("why"), [1])
    assert (error.exc, error.value) == (repr(ValueError("why")), "[1]")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.exc, copy.value) == (error.exc, error.value)
    wrapped = pickle.loads(pickle.dumps(module.ExceptionWithTraceback(KeyError(1), None)))
    assert isinstance(wrapped, KeyError)
    assert isinstance(wrapped.__cause__, module.RemoteTraceback)


def test_number_left(pool: Any) -> None:
    result = pool.map_async(pid_after, [0.05] * 8, chunksize=2)
    assert 0 <= result._number_left <= 4
    result.wait(PATIENCE)
    assert result._number_left == 0


# --- subclasses ----------------------------------------------------------------------------------


def test_a_subclass_that_replaces_process(mp: ModuleType) -> None:
    """Programs have workers that are no daemons; they die with their parent all the same."""
    context = mp.get_context("fork")
    made = []

    class NoDaemon(context.Process):  # type: ignore[name-defined,misc]
        daemon = property(lambda self: False, lambda self, value: None)

    class NestedPool(mp.pool.Pool):  # type: ignore[name-defined,misc]
        @staticmethod
        def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:  # noqa: ARG004
            made.append(NoDaemon(*args, **kwds))
            return made[-1]

    with NestedPool(2, context=context) as pool:
        assert pool.apply(square, (3,)) == 9
        assert all(worker in made and not worker.daemon and worker._needs_leash() for worker in pool._pool)
    pool.join()


def pool_in_a_task(method: str) -> list[int]:
    import cmultiprocessing as mp

    with mp.get_context(method).Pool(2) as pool:
        found = pool.map(square, range(5))
    pool.join()
    return found


def test_a_pool_in_a_task(ctx: Any) -> None:
    with ctx.Pool(1) as pool:
        assert pool.apply(pool_in_a_task, ("fork",)) == [0, 1, 4, 9, 16]
    pool.join()


# --- only ours -----------------------------------------------------------------------------------


def put_and_count(queue: Any, lock: Any, x: int) -> int:
    with lock:
        queue.put(x)
    return x


def test_locks_and_queues_as_arguments(ctx: Any) -> None:
    queue, lock = ctx.Queue(), ctx.Lock()
    with ctx.Pool(2) as pool:
        pool.starmap(put_and_count, [(queue, lock, i) for i in range(20)])
        pool.apply(put_and_count, (ctx_queue := queue, lock, 20))
        assert sorted(ctx_queue.get_many(21, PATIENCE)) == list(range(21))
    pool.join()


def big(n: int) -> bytes:
    return b"x" * n


def test_big_arguments_and_results(mp: ModuleType) -> None:
    with mp.get_context("fork").Pool(2) as pool:
        for size in (1, 5000, 1 << 20, 1 << 25):
            assert pool.apply(big, (size,)) == b"x" * size
            assert pool.apply(len, (b"y" * size,)) == size
        assert pool.map(len, [b"z" * 100_000] * 50) == [100_000] * 50
    pool.join()


class Caller:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: int) -> int:
        self.calls += 1
        return self.calls


def test_a_callable_object_is_fresh_for_each_task(mp: ModuleType) -> None:
    """Only what is pickled by its name is looked up once: state must not leak from task to task."""
    with mp.get_context("fork").Pool(1) as pool:
        assert pool.map(Caller(), range(4), chunksize=1) == [1, 1, 1, 1]
        assert pool.map(Caller(), range(4), chunksize=4) == [1, 2, 3, 4]
    pool.join()


def stop_iterating(x: int) -> int:
    if x == 1:
        raise StopIteration
    return x


def test_a_task_that_raises_stop_iteration(mp: ModuleType) -> None:
    """In a map() of the worker it would look like the end of the input."""
    with mp.get_context("fork").Pool(1) as pool:
        with pytest.raises(StopIteration):
            pool.map(stop_iterating, range(5), chunksize=5)
        with pytest.raises(StopIteration):
            pool.apply(stop_iterating, (1,))
        assert pool.map(stop_iterating, [2, 3]) == [2, 3]
    pool.join()


def test_order_within_a_worker(mp: ModuleType) -> None:
    """Tasks are begun in the order in which they were submitted."""
    with mp.get_context("fork").Pool(1) as pool:
        results = [pool.apply_async(time.monotonic_ns) for _ in range(500)]
        begun = [result.get(PATIENCE) for result in results]
    pool.join()
    assert begun == sorted(begun)


def test_a_short_task_does_not_wait_behind_a_long_one(mp: ModuleType) -> None:
    """What was given to a worker ahead is taken back when that worker takes long."""
    with mp.get_context("fork").Pool(2) as pool:
        pool.map(square, range(1000), chunksize=1)
        long = pool.apply_async(time.sleep, (1.5,))
        begin = time.monotonic()
        short = [pool.apply_async(square, (i,)) for i in range(40)]
        assert [result.get(PATIENCE) for result in short] == [i * i for i in range(40)]
        assert time.monotonic() - begin < 1.4
        assert not long.ready()
    pool.join()


def test_a_dropped_result_does_not_stop_its_task(mp: ModuleType) -> None:
    with mp.get_context("fork").Pool(1) as pool:
        pool.apply_async(time.sleep, (0.05,))
        pool.imap_unordered(square, range(100))
        processes.wait_until(lambda: not pool._cache, PATIENCE, "all is done")
    pool.join()


def test_a_forked_child_leaves_the_pool_alone(mp: ModuleType) -> None:
    with mp.get_context("fork").Pool(2) as pool:
        child = mp.get_context("fork").Process(target=drop_pool, args=(pool,))
        child.start()
        child.join(PATIENCE)
        assert child.exitcode == 0
        child.close()
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    pool.join()


def drop_pool(pool: Any) -> None:
    pool.terminate()
    del pool
    gc.collect()


def test_dummy_pool(mp: ModuleType) -> None:
    import cmultiprocessing.dummy

    with cmultiprocessing.dummy.Pool(2) as pool:
        assert isinstance(pool, mp.pool.ThreadPool)
        assert pool.map(lambda x: x + 1, range(5)) == [1, 2, 3, 4, 5]
    pool.join()
