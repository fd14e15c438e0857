# SPDX-License-Identifier: PSF-2.0
"""Faults of the standard library's pools that users meet, which must not be here.

Each test is named after its number in the project's list of such faults; gh-N is an issue of CPython. What a test
promises in seconds is the promise itself; `within` allows twice that, and more under load.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import processes
from tests.support.memory import MIB
from tests.support.scene import PATIENCE, Notes, check_delay, kill_self, scale, state, within


def identity(x: Any) -> Any:
    return x


def write_pid_and_sleep(notes: Notes, index: int, seconds: float) -> int:
    notes.write(f"task{index}", os.getpid())
    time.sleep(seconds)
    return index


def running_in(notes: Notes, pid: int, tasks: int) -> list[int]:
    """Which tasks a worker has begun."""
    return [i for i in range(tasks) if notes.has(f"task{i}") and notes.read(f"task{i}") == pid]


# --- 1: a killed worker --------------------------------------------------------------------------


def test_item_01_a_killed_worker_costs_the_item_that_it_was_running(ctx: Any, notes: Notes) -> None:
    """The pool waits for ever for the task of a killed worker (gh-66587)."""
    with ctx.Pool(4) as pool:
        results = [pool.apply_async(write_pid_and_sleep, (notes, i, 1.0)) for i in range(8)]
        victim = notes.read("task1")
        mine = running_in(notes, victim, 8)
        begin = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        (lost,) = mine
        with pytest.raises(ctx_errors(pool).WorkerLostError) as caught:
            results[lost].get(PATIENCE)
        check_delay(time.monotonic() - begin, 1, "the result of the killed worker's task fails")
        assert (caught.value.pid, caught.value.signal, caught.value.index) == (victim, signal.SIGKILL, 0)
        assert [result.get(PATIENCE) for i, result in enumerate(results) if i != lost] == [
            i for i in range(8) if i != lost
        ]
        with within(1, "the next call works"):
            assert pool.apply(identity, (5,)) == 5
        assert len(pool._pool) == 4
        assert victim not in [worker.pid for worker in pool._pool]
    pool.join()


def ctx_errors(pool: Any) -> Any:
    """The module of a pool's errors."""
    return sys.modules[type(pool).__module__]


def kill_self_at(number: int, victim: int) -> int:
    if number == victim:
        kill_self()
    return number


def test_item_01_in_a_chunk_the_items_behind_are_run(ctx: Any) -> None:
    """One item of a chunk kills its worker: the iterator raises for that one and gives the others."""
    with ctx.Pool(2) as pool:
        got: list[Any] = []
        iterator = pool.imap(Killer(7), range(20), chunksize=10)
        while True:
            try:
                got.append(next(iterator))
            except StopIteration:
                break
            except ctx_errors(pool).WorkerLostError as error:
                got.append(("lost", error.index))
    pool.join()
    assert got[7] == ("lost", 7)
    lost = [value for value in got if isinstance(value, tuple)]
    # What the worker had finished in the last instant may go with it, nothing else.
    assert got == [("lost", i) if ("lost", i) in lost else i for i in range(20)]
    assert all(i <= 7 for _, i in lost)


class Killer:
    """A function that kills its process when it gets a certain number."""

    def __init__(self, victim: int) -> None:
        self.victim = victim

    def __call__(self, number: int) -> int:
        time.sleep(0.001)
        return kill_self_at(number, self.victim)


def count_run(folder: str, number: int) -> int:
    with open(f"{folder}/{number}", "a") as file:
        file.write("x")
    time.sleep(0.001)
    return number


@pytest.mark.watchdog(300)
def test_item_01_random_kills_under_load(mp: ModuleType, tmp_path: Path) -> None:
    """Workers are killed at random moments: every result comes or fails, no task is run twice, no zombie stays."""
    kills = scale(25, 1000)
    rng = random.Random(1)
    folder = str(tmp_path)
    done: list[tuple[int, Any]] = []
    lost = 0
    with mp.get_context("fork").Pool(3) as pool:
        for round_ in range(kills):
            numbers = range(round_ * 40, round_ * 40 + 40)
            results = [(i, pool.apply_async(count_run, (folder, i))) for i in numbers]
            time.sleep(rng.random() * 0.02)
            workers = list(pool._pool)
            pid = rng.choice(workers).pid if workers else None
            if pid is not None:
                with warnings.catch_warnings():
                    os.kill(pid, signal.SIGKILL)
            for i, result in results:
                try:
                    done.append((i, result.get(PATIENCE)))
                except mp.WorkerLostError:
                    lost += 1
        assert pool.map(identity, range(10)) == list(range(10))
    pool.join()
    assert all(i == value for i, value in done)
    assert len(done) + lost == 40 * kills
    assert lost <= kills
    # Empty: killed between open() and write().
    assert [path.name for path in tmp_path.iterdir() if path.read_text() not in ("", "x")] == []


# --- 7: Ctrl-C -----------------------------------------------------------------------------------


CTRL_C = """
import os, signal, sys, time
import {package} as mp

def task(x):
    time.sleep(60)

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    with ctx.Pool(4) as pool:
        pool.apply(abs, (1,))
        print(*[w.pid for w in pool._pool], flush=True)
        if sys.argv[2] == "caught":
            try:
                pool.map(task, range(8))
            except KeyboardInterrupt:
                print(pool.apply(abs, (-5,)), flush=True)
        else:
            pool.map(task, range(8))
"""


def start_script(script: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "always::ResourceWarning", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def first_line(program: subprocess.Popen[str]) -> list[int]:
    """The workers' process ids, which a script prints."""
    assert program.stdout is not None
    return [int(pid) for pid in program.stdout.readline().split()]


@pytest.mark.parametrize("what", ["caught", "uncaught"])
def test_item_07_ctrl_c(start_method: str, tmp_path: Path, what: str) -> None:
    """Ctrl-C, which the terminal sends to the whole group, prints a wall of tracebacks and hangs (bpo-8296)."""
    script = tmp_path / "script.py"
    script.write_text(CTRL_C.format(package="cmultiprocessing"))
    with start_script(script, start_method, what) as program:
        workers = first_line(program)
        assert len(workers) == 4
        time.sleep(0.3)
        begin = time.monotonic()
        os.killpg(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=PATIENCE)
        check_delay(time.monotonic() - begin, 1.5, "the program ends")
    if what == "caught":
        assert (out, err, program.returncode) == ("5\n", "", 0)
    else:
        assert err.count("Traceback") == 1, err
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert program.returncode == -signal.SIGINT
    processes.wait_until(lambda: all(state(pid) == "X" for pid in workers), PATIENCE, "the workers are gone")


# --- 12: not closed ------------------------------------------------------------------------------


def test_item_12_a_pool_in_a_dropped_cycle(ctx: Any) -> None:
    """A pool that is dropped without close() leaks its workers (gh-79559)."""
    pool = ctx.Pool(2)
    pool.map(identity, range(4))
    pids = [worker.pid for worker in pool._pool]
    cycle = [pool]
    cycle.append(cycle)
    del pool, cycle
    begin = time.monotonic()
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        gc.collect()
    check_delay(time.monotonic() - begin, 1, "the pool is ended")
    # Killed; the fork server says so to us first, and reaps them then.
    processes.wait_until(lambda: all(state(pid) == "X" for pid in pids), PATIENCE, "the workers are reaped")


UNCLOSED = """
import sys, time
import {package} as mp

def task(x):
    time.sleep(60)

if __name__ == "__main__":
    pool = mp.get_context(sys.argv[1]).Pool(2)
    pool.map(abs, range(4))
    pool.map_async(task, range(10))
    print(*[w.pid for w in pool._pool], flush=True)
"""


def test_item_12_a_pool_at_exit(start_method: str, tmp_path: Path) -> None:
    """A global pool with tasks hangs the exit (gh-82682)."""
    script = tmp_path / "script.py"
    script.write_text(UNCLOSED.format(package="cmultiprocessing"))
    with start_script(script, start_method) as program:
        workers = first_line(program)
        begin = time.monotonic()
        _, err = program.communicate(timeout=PATIENCE)
        check_delay(time.monotonic() - begin, 1, "the program ends")
    assert program.returncode == 0
    assert len(workers) == 2
    assert all(state(pid) == "X" for pid in workers)
    assert err.count("ResourceWarning") <= 1
    assert "Traceback" not in err


# --- 13: terminate() at any moment ---------------------------------------------------------------


@pytest.mark.watchdog(300)
def test_item_13_terminate_at_random_moments(mp: ModuleType) -> None:
    """terminate() hangs, or leaves results that nobody ever completes (gh-78178, gh-73945, gh-96995)."""
    rng = random.Random(3)
    for _ in range(scale(30, 2000)):
        pool = mp.get_context("fork").Pool(3)
        results = [pool.apply_async(identity, (i,)) for i in range(200)]
        mapped = pool.map_async(time.sleep, [0.001] * 500)
        streamed = pool.imap(identity, itertools.count())
        time.sleep(rng.random() * 0.03)
        with within(1, "terminate() returns"):
            pool.terminate()
        with within(1, "all results are there"):
            for result in [*results, mapped]:
                try:
                    result.get(PATIENCE)
                except mp.PoolTerminated:
                    continue
        with pytest.raises(mp.PoolTerminated):
            list(streamed)
        pool.join()


def test_item_13_terminate_from_another_thread_and_a_handler(ctx: Any) -> None:
    """terminate() while another thread waits for a result, and in a signal handler."""
    pool = ctx.Pool(2)
    pool.apply(identity, (1,))
    timer = threading.Timer(0.2, pool.terminate)
    timer.start()
    begin = time.monotonic()
    with pytest.raises(ctx_errors(pool).PoolTerminated):
        pool.map(time.sleep, [60] * 4)
    check_delay(time.monotonic() - begin - 0.2, 1, "map() ends")
    pool.join()
    timer.join()

    pool = ctx.Pool(2)
    pool.apply(identity, (1,))
    before = signal.signal(signal.SIGALRM, lambda *_: pool.terminate())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(ctx_errors(pool).PoolTerminated):
            pool.map(time.sleep, [60] * 4)
    finally:
        signal.signal(signal.SIGALRM, before)
    pool.join()


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_item_13_workers_that_ignore_sigterm_or_are_stopped(ctx: Any) -> None:
    with ctx.Pool(2, initializer=ignore_sigterm) as pool:
        pool.apply(identity, (1,))
        pids = [worker.pid for worker in pool._pool]
        os.kill(pids[0], signal.SIGSTOP)
        begin = time.monotonic()
    check_delay(time.monotonic() - begin, 1, "the pool is terminated")
    pool.join()
    # Killed; the fork server says so to us first, and reaps them then.
    processes.wait_until(lambda: all(state(pid) == "X" for pid in pids), PATIENCE, "the workers are reaped")


# --- 14: what cannot be unpickled ----------------------------------------------------------------


class TwoArguments(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Unloadable:
    """An object that is pickled, and whose unpickling raises."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __setstate__(self, loaded: dict[str, Any]) -> None:
        raise loaded["error"]("cannot be loaded")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("cannot be pickled")


def raise_two_arguments() -> None:
    raise TwoArguments(3, "the text")


def raise_unpicklable() -> None:
    error = ValueError("with something")
    error.extra = Unpicklable()  # type: ignore[attr-defined]
    raise error


def test_item_14_exceptions_that_cannot_be_unpickled(ctx: Any) -> None:
    """An exception whose __init__ has two arguments hangs the pool (gh-79492, gh-103061)."""
    with ctx.Pool(2) as pool:
        with within(1, "get() raises"), pytest.raises(ctx_errors(pool).RemoteTaskError, match="the text") as caught:
            pool.apply(raise_two_arguments)
        assert "TwoArguments" in str(caught.value)
        assert "raise TwoArguments(3" in str(caught.value.__cause__)
        with pytest.raises(ctx_errors(pool).MaybeEncodingError, match="with something"):
            pool.apply(raise_unpicklable)
        assert pool.map(identity, range(100)) == list(range(100))
    pool.join()


@pytest.mark.parametrize("error", [ImportError, OSError, SystemExit, KeyboardInterrupt])
def test_item_14_results_and_arguments_that_cannot_be_unpickled(mp: ModuleType, error: type[BaseException]) -> None:
    with mp.get_context("fork").Pool(2) as pool:
        with within(1, "get() raises"), pytest.raises(error, match="cannot be loaded"):
            pool.apply(identity, (Unloadable(error),))
        with within(1, "get() raises"), pytest.raises(mp.RemoteTaskError, match="cannot be loaded"):
            pool.apply(Unloadable, (error,))
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            pool.apply(identity, (Unpicklable(),))
        with pytest.raises(mp.pool.MaybeEncodingError, match="cannot be pickled"):
            pool.apply(Unpicklable)
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            pool.apply(functools.partial(identity, Unpicklable()))
        assert pool.map(identity, range(100)) == list(range(100))
    pool.join()


def test_item_14_one_bad_item_does_not_cost_the_others(mp: ModuleType) -> None:
    items = [1, Unpicklable(), 2, Unpicklable(), 3]
    with mp.get_context("fork").Pool(2) as pool:
        iterator = pool.imap(type_name, items, chunksize=5)
        got = []
        for _ in items:
            try:
                got.append(next(iterator))
            except RuntimeError as error:
                got.append(str(error))
    pool.join()
    assert got == ["int", "cannot be pickled", "int", "cannot be pickled", "int"]


def type_name(x: object) -> str:
    return type(x).__name__


# --- 15: SystemExit, KeyboardInterrupt, os._exit -------------------------------------------------


def raise_it(error: BaseException) -> None:
    raise error


def test_item_15_a_task_that_exits(ctx: Any) -> None:
    """sys.exit() in a task hangs the pool (bpo PR 101081)."""
    with ctx.Pool(2) as pool:
        with within(1, "get() raises"), pytest.raises(SystemExit) as caught:
            pool.apply(sys.exit, (3,))
        assert caught.value.code == 3
        with within(1, "get() raises"), pytest.raises(KeyboardInterrupt):
            pool.apply(raise_it, (KeyboardInterrupt("mine"),))
        with within(1, "get() raises"), pytest.raises(ctx_errors(pool).WorkerLostError) as lost:
            pool.apply(os._exit, (7,))
        assert (lost.value.exitcode, lost.value.signal) == (7, None)
        assert pool.map(identity, range(10)) == list(range(10))
    pool.join()


# --- 16: a broken initializer --------------------------------------------------------------------


def fail_to_begin(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")
    raise LookupError("no way to begin")


@pytest.mark.parametrize("size", [1, 4])
def test_item_16_a_failing_initializer(ctx: Any, tmp_path: Path, size: int) -> None:
    """Workers are started again and again for ever (gh-87472, gh-78962)."""
    path = tmp_path / "starts"
    pool = ctx.Pool(size, initializer=fail_to_begin, initargs=(str(path),))
    for call in (lambda: pool.apply(identity, (1,)), lambda: pool.map(identity, range(10))):
        with pytest.raises(LookupError, match="no way to begin") as caught:
            call()
        assert "fail_to_begin" in str(caught.value.__cause__)
    with pytest.raises(LookupError):
        list(pool.imap(identity, range(10)))
    pool.close()
    pool.join()
    assert len(path.read_text()) <= 2 * size


def test_item_16_an_initializer_that_ends_the_process(mp: ModuleType) -> None:
    pool = mp.get_context("fork").Pool(2, initializer=os._exit, initargs=(9,))
    with pytest.raises(mp.WorkerLostError, match="before it was ready") as caught:
        pool.apply(identity, (1,))
    assert caught.value.exitcode == 9
    pool.terminate()
    pool.join()


# --- 17: the parent is killed --------------------------------------------------------------------


ORPHANS = """
import os, signal, sys, time
import {package} as mp

def task(x):
    time.sleep(60)

if __name__ == "__main__":
    pool = mp.get_context(sys.argv[1]).Pool(3)
    pool.map(abs, range(4))
    pool.map_async(task, range(10))
    print(*[w.pid for w in pool._pool], flush=True)
    time.sleep(60)
"""


def test_item_17_workers_die_with_their_parent(start_method: str, tmp_path: Path) -> None:
    """Workers survive a parent that is killed (gh-80180, gh-111873)."""
    script = tmp_path / "script.py"
    script.write_text(ORPHANS.format(package="cmultiprocessing"))
    with start_script(script, start_method) as program:
        workers = first_line(program)
        begin = time.monotonic()
        program.kill()
        program.wait(PATIENCE)
    processes.wait_until(lambda: all(state(pid) in "XZ" for pid in workers), PATIENCE, "the workers are gone")
    check_delay(time.monotonic() - begin, 1, "the workers are gone")
    assert len(workers) == 3


# --- 21 and 22: input that is read as it is needed -----------------------------------------------


class Counted:
    """Endless input that counts what was read."""

    def __init__(self) -> None:
        self.read = 0
        self.closed = False

    def items(self) -> Iterator[int]:
        try:
            for i in itertools.count():
                self.read += 1
                yield i
        finally:
            self.closed = True


@pytest.mark.parametrize("chunksize", [1, 5])
def test_item_21_imap_reads_a_little_ahead(mp: ModuleType, chunksize: int) -> None:
    """imap() reads all its input at once (gh-64192)."""
    for name in ("imap", "imap_unordered"):
        source = Counted()
        with mp.get_context("fork").Pool(2) as pool:
            iterator = getattr(pool, name)(identity, source.items(), chunksize)
            for taken in range(1, 200):
                next(iterator)
                assert source.read - taken <= 2 * 2 * chunksize
            reference = weakref.ref(iterator._stream)
            iterator.close()
            with pytest.raises(StopIteration):
                next(iterator)
            del iterator
            processes.wait_until(lambda s=source: s.closed, PATIENCE, "the input is closed")
            processes.wait_until(lambda p=pool: not p._cache, PATIENCE, "the job is forgotten")
            gc.collect()
            assert reference() is None
            assert pool.apply(identity, (5,)) == 5
        pool.join()


def test_item_21_buffersize(mp: ModuleType) -> None:
    source = Counted()
    with mp.get_context("fork").Pool(2) as pool:
        iterator = pool.imap(identity, source.items(), buffersize=3)
        processes.wait_until(lambda: source.read == 3, PATIENCE, "three items are read")
        time.sleep(0.05)
        assert source.read == 3
        assert next(iterator) == 0
        processes.wait_until(lambda: source.read == 4, PATIENCE, "one more is read")
        with pytest.raises(ValueError, match="buffersize"):
            pool.imap(identity, [], buffersize=0)
    pool.join()


def test_item_21_join_reads_the_rest(mp: ModuleType) -> None:
    """A program that takes results after join(), or never, works as it always did."""
    with mp.get_context("fork").Pool(2) as pool:
        iterator = pool.imap(identity, range(500))
        pool.imap_unordered(identity, range(500))
        pool.close()
        pool.join()
        assert list(iterator) == list(range(500))


def test_item_22_map_does_not_copy_its_input(mp: ModuleType) -> None:
    """map() makes a list of its input first (bpo-34134)."""
    import tracemalloc

    count = scale(300_000, 10_000_000)
    with mp.get_context("fork").Pool(2) as pool:
        pool.map(is_odd, iter(range(1000)))
        tracemalloc.start()
        try:
            result = pool.map(is_odd, iter(range(count)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    pool.join()
    assert result == [bool(i % 2) for i in range(count)]
    # The result is eight bytes per item; a list of the input would be 36 more.
    assert peak <= 8 * count * 1.2 + 20 * count * 0.5 + 8 * MIB


def is_odd(x: int) -> bool:
    return bool(x % 2)


def wait_for(seconds: float) -> None:
    time.sleep(seconds)


def test_item_22_one_long_task_does_not_hold_up_those_behind_it(mp: ModuleType) -> None:
    """A chunk with a long task is finished long after all others."""
    with mp.get_context("fork").Pool(4) as pool:
        pool.map(wait_for, [0.0] * 50)
        items = [0.002] * 500
        items[100] = 0.2
        begin = time.monotonic()
        pool.map(wait_for, items)
        took = time.monotonic() - begin
    pool.join()
    check_delay(took, 1.2 * sum(items) / 4, "map()")


# --- 23: maxtasksperchild ------------------------------------------------------------------------


@pytest.mark.watchdog(600)
def test_item_23_maxtasksperchild_with_many_threads(mp: ModuleType) -> None:
    """Pools with maxtasksperchild lose tasks and hang (gh-91315, gh-82980, gh-79448)."""
    each = scale(4, 500)
    wrong: list[Any] = []
    with mp.get_context("fork").Pool(4, maxtasksperchild=1) as pool:

        def submit(first: int) -> None:
            results = [(i, pool.apply_async(identity, (i,))) for i in range(first, first + each)]
            wrong.extend(i for i, result in results if result.get(PATIENCE * 10) != i)

        threads = [threading.Thread(target=submit, args=(n * each,)) for n in range(scale(20, 100))]
        before = len(os.listdir("/proc/self/fd"))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        processes.wait_until(lambda: len(pool._pool) == 4, PATIENCE, "the last workers are replaced")
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    pool.join()
    assert wrong == []


# --- 24: callbacks -------------------------------------------------------------------------------


def raise_in_callback(_value: object) -> None:
    raise LookupError("the callback failed")


def test_item_24_a_callback_that_raises(mp: ModuleType) -> None:
    """A callback that raises ends the thread that handles results (gh-83371)."""
    with mp.get_context("fork").Pool(2) as pool:
        for call in (
            lambda: pool.apply_async(identity, (1,), callback=raise_in_callback),
            lambda: pool.map_async(identity, [1, 2], callback=raise_in_callback),
            lambda: pool.apply_async(sys.exit, (1,), error_callback=raise_in_callback),
        ):
            with pytest.raises(LookupError, match="the callback failed"):
                call().get(PATIENCE)
        assert pool.map(identity, range(10)) == list(range(10))
    pool.join()


def test_item_24_terminate_in_a_callback(ctx: Any) -> None:
    """terminate() in a callback hangs (gh-87129)."""
    pool = ctx.Pool(2)
    pool.apply(identity, (1,))
    begin = time.monotonic()
    first = pool.apply_async(identity, (1,), callback=lambda _: pool.terminate())
    others = pool.map_async(time.sleep, [60, 60, 60])
    assert first.get(PATIENCE) == 1
    with pytest.raises(ctx_errors(pool).PoolTerminated):
        others.get(PATIENCE)
    pool.join()
    check_delay(time.monotonic() - begin, 2, "the pool ends")


# --- 44: signal handlers -------------------------------------------------------------------------


def test_item_44_workers_have_no_handlers_of_their_parent(mp: ModuleType, start_method: str) -> None:
    """Workers run the parent's SIGTERM handler, and do not end (gh-96995)."""
    calls: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        for number in before:
            signal.signal(number, lambda number, _: calls.append(number))
        wakeup = signal.set_wakeup_fd(write_end)
        for _ in range(5):
            pool = mp.get_context(start_method).Pool(3)
            begin = time.monotonic()
            pool.terminate()
            check_delay(time.monotonic() - begin, 1, "a new pool is terminated")
            pool.join()
        with mp.get_context(start_method).Pool(2) as pool:
            assert pool.apply(signal.getsignal, (signal.SIGTERM,)) == signal.SIG_DFL
            begin = time.monotonic()
        check_delay(time.monotonic() - begin, 1, "the pool is terminated")
        pool.join()
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
    os.set_blocking(read_end, False)
    with pytest.raises(BlockingIOError):
        os.read(read_end, 1)
    os.close(read_end)
    os.close(write_end)
    assert calls == []


# --- 45: how many workers ------------------------------------------------------------------------


SIZE = "import {package} as mp; p = mp.Pool(); print(len(p._pool)); p.terminate(); p.join()"


def default_size(environment: dict[str, str], *prefix: str) -> int:
    code = SIZE.format(package="cmultiprocessing")
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return int(done.stdout)


def test_item_45_affinity_and_environment() -> None:
    """The default size is the number of the machine's CPUs, whatever a process may use (gh-70879, gh-109595)."""
    cpu = min(os.sched_getaffinity(0))
    assert default_size({}, "taskset", "-c", str(cpu)) == 1
    assert default_size({"PYTHON_CPU_COUNT": "3"}) == 3
    assert default_size({}) <= len(os.sched_getaffinity(0))


def test_item_45_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a control group grants counts, that of any group above too (gh-149452)."""
    from cmultiprocessing import _cpus

    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    monkeypatch.setattr(_cpus, "_CGROUPS", str(tmp_path))
    monkeypatch.setattr(_cpus, "_OWN_CGROUP", str(own))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    assert _cpus.usable_cpus() == 8
    (group / "cpu.max").write_text("max 100000\n")
    assert _cpus.usable_cpus() == 8
    (tmp_path / "a" / "cpu.max").write_text("200000 100000\n")
    assert _cpus.usable_cpus() == 2
    (group / "cpu.max").write_text("50000 100000\n")
    assert _cpus.usable_cpus() == 1
