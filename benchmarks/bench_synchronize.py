# SPDX-License-Identifier: PSF-2.0
"""Locks, semaphores, events, conditions, barriers.

*Uncontended* cases run in one process, around a loop of the plainest kind; the loop's own 10 ns or
so are in the time of both libraries.  *Created* objects are kept until a batch is complete, and
only the making is timed, not the dropping.  Cases between processes are timed from the moment at
which all of them begin until the last has done its share; one operation is one hand-over, so a
round trip counts as two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from benchmarks._harness import WARM_UP, Case, Timing, race, shared_cells

__all__ = ["CASES"]

BATCH = 1000  # objects made between two droppings; the standard library maps a page for each


def _with(make: str) -> Callable[[Any, int], Timing]:
    def measure(mp: Any, n: int) -> Timing:
        lock = getattr(mp, make)()

        def loop(times: int) -> float:
            begin = time.perf_counter()
            for _ in repeat(None, times):
                with lock:
                    pass
            return time.perf_counter() - begin

        loop(n // WARM_UP)
        return Timing(loop(n), n)

    return measure


def _direct(mp: Any, n: int) -> Timing:
    lock = mp.Lock()

    def loop(times: int) -> float:
        begin = time.perf_counter()
        for _ in repeat(None, times):
            lock.acquire()
            lock.release()
        return time.perf_counter() - begin

    loop(n // WARM_UP)
    return Timing(loop(n), n)


def create(make: str, batch: int = BATCH) -> Callable[[Any, int], Timing]:
    """A measurement of making objects by calling the library's `make`, `batch` at a time."""

    def measure(mp: Any, n: int) -> Timing:
        maker = getattr(mp, make)

        def loop(times: int) -> float:
            seconds = 0.0
            while times > 0:
                size = min(batch, times)
                begin = time.perf_counter()
                kept = [maker() for _ in range(size)]
                seconds += time.perf_counter() - begin
                del kept
                times -= size
            return seconds

        loop(min(n, batch))
        return Timing(loop(n), n)

    return measure


def _contended(processes: int) -> Callable[[Any, int], Timing]:
    """Each adds 1 to the same number under the lock; the sum proves that it excluded."""

    def measure(mp: Any, n: int) -> Timing:
        lock = mp.Lock()
        number = shared_cells(1)
        share = max(n // processes, WARM_UP)

        def loop(times: int) -> None:
            for _ in repeat(None, times):
                with lock:
                    number[0] += 1

        seconds = race(
            mp, [(lambda: loop(share // WARM_UP), lambda: loop(share))] * processes
        )
        expected = (share + share // WARM_UP) * processes
        if number[0] != expected:
            raise AssertionError(f"{expected - number[0]} of {expected} additions were lost")
        return Timing(seconds, share * processes)

    return measure


def _semaphore_hand_off(mp: Any, n: int) -> Timing:
    here, there = mp.Semaphore(1), mp.Semaphore(0)
    rounds = max(n // 2, WARM_UP)

    def loop(mine: Any, other: Any, times: int) -> None:
        for _ in repeat(None, times):
            mine.acquire()
            other.release()

    def participant(mine: Any, other: Any) -> tuple[Callable[[], None], Callable[[], None]]:
        return lambda: loop(mine, other, rounds // WARM_UP), lambda: loop(mine, other, rounds)

    seconds = race(mp, [participant(here, there), participant(there, here)])
    return Timing(seconds, rounds * 2)


def _event_is_set(mp: Any, n: int) -> Timing:
    event = mp.Event()
    event.set()

    def loop(times: int) -> float:
        begin = time.perf_counter()
        for _ in repeat(None, times):
            event.is_set()
        return time.perf_counter() - begin

    loop(n // WARM_UP)
    return Timing(loop(n), n)


def _event_set_clear(mp: Any, n: int) -> Timing:
    event = mp.Event()

    def loop(times: int) -> float:
        begin = time.perf_counter()
        for _ in repeat(None, times):
            event.set()
            event.clear()
        return time.perf_counter() - begin

    loop(n // WARM_UP)
    return Timing(loop(n), n)


def _condition_ping_pong(mp: Any, n: int) -> Timing:
    condition = mp.Condition()
    turn = shared_cells(1)
    rounds = max(n // 2, WARM_UP)

    def loop(me: int, times: int) -> None:
        for _ in repeat(None, times):
            with condition:
                while turn[0] != me:
                    condition.wait()
                turn[0] = 1 - me
                condition.notify()

    def participant(me: int) -> tuple[Callable[[], None], Callable[[], None]]:
        return lambda: loop(me, rounds // WARM_UP), lambda: loop(me, rounds)

    seconds = race(mp, [participant(0), participant(1)])
    return Timing(seconds, rounds * 2)


def _barrier(mp: Any, n: int) -> Timing:
    barrier = mp.Barrier(2)
    rounds = max(n, WARM_UP)

    def loop(times: int) -> None:
        for _ in repeat(None, times):
            barrier.wait()

    seconds = race(mp, [(lambda: loop(rounds // WARM_UP), lambda: loop(rounds))] * 2)
    return Timing(seconds, rounds)


def _case(
    name: str,
    title: str,
    measure: Callable[[Any, int], Timing],
    *,
    start: int = 1000,
    most: int = 10_000_000,
    goal: float | None = None,
    limit: str = "",
    per: str = "pair",
) -> Case:
    return Case(name, title, "Synchronisation", measure, start, most, goal, limit, per)


CASES = [
    _case("with-lock", "with lock:, uncontended", _with("Lock"), goal=2.2, limit="2.6"),
    _case("with-rlock", "with rlock:, uncontended", _with("RLock"), goal=2.2, limit="2.6"),
    _case("acquire-release", "acquire() + release()", _direct, goal=1, limit="1.1"),
    _case("with-semaphore", "with semaphore:, uncontended", _with("Semaphore")),
    _case("create-lock", "create a Lock", create("Lock"), start=200, most=500_000,
          goal=50, limit="600", per="object"),
    _case("create-event", "create an Event", create("Event", 200), start=200, most=500_000,
          per="object"),
    _case("create-condition", "create a Condition", create("Condition", 200), start=200,
          most=500_000, per="object"),
    _case("lock-2-contending", "Lock, 2 processes contending", _contended(2)),
    _case("lock-4-contending", "Lock, 4 processes contending", _contended(4), goal=2),
    _case("semaphore-hand-off", "Semaphore hand-off, 2 processes", _semaphore_hand_off,
          goal=4, limit="7", per="hand-off"),
    _case("event-is-set", "Event.is_set()", _event_is_set, goal=8, limit="10", per="call"),
    _case("event-set-clear", "Event.set() + clear()", _event_set_clear, goal=8, limit="10"),
    _case("condition-ping-pong", "Condition ping-pong", _condition_ping_pong, goal=6,
          per="hand-over"),
    _case("barrier-2", "Barrier(2).wait()", _barrier, goal=20, per="meeting"),
]
