# SPDX-License-Identifier: PSF-2.0
"""Pools: how long one call takes.

The pool has two workers and is made, and has done something, before the time begins.  *One at a
time*: ``apply()`` after ``apply()``, each waits for its result.  *Burst*: all ``apply_async()``
first, then every result is asked for.  *map*: one call for all items, with the default chunk size;
one operation is one item.  *imap*: the iterator to its end, one item per task.

Functions and items are small: the time is the pool's, not the function's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks._harness import Case, Timing

__all__ = ["CASES"]

WORKERS = 2


def _with_pool(run: Callable[[Any, int], object]) -> Callable[[Any, int], Timing]:
    def measure(mp: Any, n: int) -> Timing:
        with mp.Pool(WORKERS) as pool:
            run(pool, max(10, n // 10))
            begin = time.perf_counter()
            run(pool, n)
            took = time.perf_counter() - begin
        pool.join()
        return Timing(took, n)

    return measure


def _check(got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"the pool gave {got!r:.60}, not {wanted!r:.60}")


def _apply(pool: Any, n: int) -> None:
    for i in range(n):
        _check(pool.apply(abs, (-i,)), i)


def _burst(pool: Any, n: int) -> None:
    results = [pool.apply_async(abs, (-i,)) for i in range(n)]
    _check(sum(result.get() for result in results), n * (n - 1) // 2)


def _map(pool: Any, n: int) -> None:
    _check(sum(pool.map(abs, range(n))), n * (n - 1) // 2)


def _imap(pool: Any, n: int) -> None:
    _check(sum(pool.imap(abs, range(n))), n * (n - 1) // 2)


def _make(mp: Any, n: int) -> Timing:
    begin = time.perf_counter()
    for _ in range(n):
        with mp.Pool(WORKERS) as pool:
            pool.apply(abs, (1,))
        pool.join()
    return Timing(time.perf_counter() - begin, n)


def _case(name: str, title: str, measure: Callable[[Any, int], Timing], *, start: int, most: int, per: str) -> Case:
    return Case(name, title, "Pools", measure, start, most, None, "", per)


CASES = [
    _case("pool-apply", "apply, one at a time", _with_pool(_apply), start=200, most=20_000, per="call"),
    _case("pool-burst", "apply_async, burst", _with_pool(_burst), start=500, most=50_000, per="call"),
    _case("pool-map", "map of small items", _with_pool(_map), start=10_000, most=2_000_000, per="item"),
    _case("pool-imap", "imap of small items", _with_pool(_imap), start=500, most=50_000, per="item"),
    _case("pool-make", "make, use once, terminate", _make, start=5, most=200, per="pool"),
]
