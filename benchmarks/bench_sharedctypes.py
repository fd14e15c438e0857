# SPDX-License-Identifier: PSF-2.0
"""Shared ctypes: reading, changing and making Value and Array.

All cases but the last run in one process, around a plain loop; nobody else wants the lock.  *Read*
and *index* are one attribute or item; *locked increment* is what the documentation tells people to
write.  A *slice* is one list of 1 000 floats.  *Created* objects are dropped one by one, as a loop
does it: with thousands kept, the standard library's heap would be measured.  In the last case
processes count together, and the number at the end proves that no addition was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from benchmarks._harness import WARM_UP, Case, Timing, race

__all__ = ["CASES"]

SLICE = 1000


def _loop(prepare: Callable[[Any], Callable[[int], None]]) -> Callable[[Any, int], Timing]:
    """A measurement of the loop that `prepare` makes for a library."""

    def measure(mp: Any, n: int) -> Timing:
        loop = prepare(mp)
        loop(max(n // WARM_UP, 1))
        begin = time.perf_counter()
        loop(n)
        return Timing(time.perf_counter() - begin, n)

    return measure


def _read(mp: Any) -> Callable[[int], None]:
    value = mp.Value("i", 7)

    def loop(times: int) -> None:
        for _ in repeat(None, times):
            value.value  # noqa: B018

    return loop


def _write(mp: Any) -> Callable[[int], None]:
    value = mp.Value("i", 7)

    def loop(times: int) -> None:
        for _ in repeat(None, times):
            value.value = 7

    return loop


def _increment(mp: Any) -> Callable[[int], None]:
    value = mp.Value("i", 0)

    def loop(times: int) -> None:
        before = value.value
        for _ in repeat(None, times):
            with value.get_lock():
                value.value += 1
        if value.value != before + times:
            raise AssertionError("additions were lost")

    return loop


def _index(mp: Any) -> Callable[[int], None]:
    array = mp.Array("i", range(SLICE))

    def loop(times: int) -> None:
        for _ in repeat(None, times):
            array[5]

    return loop


def _set_item(mp: Any) -> Callable[[int], None]:
    array = mp.Array("i", SLICE)

    def loop(times: int) -> None:
        for _ in repeat(None, times):
            array[5] = 7

    return loop


def _slice(mp: Any) -> Callable[[int], None]:
    array = mp.Array("d", range(SLICE))

    def loop(times: int) -> None:
        for _ in repeat(None, times):
            items = array[:]
        if items != list(range(SLICE)):
            raise AssertionError("the slice is wrong")

    return loop


def _create(name: str) -> Callable[[Any], Callable[[int], None]]:
    def prepare(mp: Any) -> Callable[[int], None]:
        maker = getattr(mp, name)

        def loop(times: int) -> None:
            for _ in repeat(None, times):
                maker("i", 7)

        return loop

    return prepare


def _create_array(mp: Any) -> Callable[[int], None]:
    def loop(times: int) -> None:
        for _ in repeat(None, times):
            mp.RawArray("d", SLICE)

    return loop


def _counting(processes: int) -> Callable[[Any, int], Timing]:
    """Each adds to the same Value: add() where there is one, else += under the lock."""

    def measure(mp: Any, n: int) -> Timing:
        value = mp.Value("q", 0)
        share = max(n // processes, WARM_UP)

        def loop(times: int) -> None:
            if hasattr(value, "add"):
                for _ in repeat(None, times):
                    value.add(1)
            else:
                for _ in repeat(None, times):
                    with value.get_lock():
                        value.value += 1

        seconds = race(
            mp, [(lambda: loop(share // WARM_UP), lambda: loop(share))] * processes
        )
        expected = (share + share // WARM_UP) * processes
        if value.value != expected:
            raise AssertionError(f"{expected - value.value} of {expected} additions were lost")
        return Timing(seconds, share * processes)

    return measure


def _case(
    name: str,
    title: str,
    measure: Callable[[Any, int], Timing],
    *,
    start: int = 1000,
    goal: float | None = None,
    limit: str = "",
    per: str = "access",
) -> Case:
    return Case(name, title, "Shared ctypes", measure, start, 10_000_000, goal, limit, per)


CASES = [
    _case("value-read", "Value.value read", _loop(_read), goal=2.5, limit="3"),
    _case("value-write", "Value.value written", _loop(_write)),
    _case("value-increment", "locked increment of a Value", _loop(_increment), goal=2.2,
          limit="2.8"),
    _case("array-index", "Array index", _loop(_index), goal=4, limit="6"),
    _case("array-set", "Array item written", _loop(_set_item)),
    _case("array-slice", "Array slice of 1 000 doubles", _loop(_slice), start=100, goal=1.5,
          per="slice"),
    _case("create-rawvalue", "create a RawValue", _loop(_create("RawValue")), start=200, goal=5,
          limit="10", per="object"),
    _case("create-value", "create a Value", _loop(_create("Value")), start=100, per="object"),
    _case("create-rawarray", "create a RawArray of 1 000 doubles", _loop(_create_array), start=100,
          per="object"),
    _case("value-2-counting", "Value counted up by 2 processes, add()", _counting(2),
          per="addition"),
]  # fmt: skip
