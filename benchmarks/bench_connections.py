# SPDX-License-Identifier: PSF-2.0
"""Connections: how long a message takes from process to process, and what waiting for many costs.

Streams: a child sends, another receives, over ``Pipe(False)``.  They pass a tenth of the messages to
warm the memory, meet, and begin together; the time is from the first ``send()`` to the return of the
last ``recv()``, divided by the number of messages.  What arrives last is compared with what was sent.

Ping-pong: a child sends a number over ``Pipe()`` and waits for it to come back; one operation is the
whole round trip.

`connection.wait`: one process, so many pipes, a message in one of them; one operation is one call that
returns that one.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from importlib import import_module
from itertools import repeat
from typing import Any

from benchmarks._harness import WARM_UP, Case, Timing, Unavailable, race

__all__ = ["CASES"]

MEBI = 1 << 20
ARRAY_BYTES = 16 * MEBI

Same = Callable[[Any, Any], None]


def _same(got: Any, sent: Any) -> None:
    if got != sent:
        raise AssertionError(f"{sent!r:.60} was sent last, {got!r:.60} arrived")


def _stream(mp: Any, message: Any, n: int, same: Same = _same) -> Timing:
    receiver, sender = mp.Pipe(False)
    n = max(n, WARM_UP)

    def send(times: int) -> None:
        for _ in repeat(None, times):
            sender.send(message)

    def receive(times: int) -> None:
        got = None
        for _ in repeat(None, times):
            got = receiver.recv()
        same(got, message)

    seconds = race(mp, [
        (lambda: send(n // WARM_UP), lambda: send(n)),
        (lambda: receive(n // WARM_UP), lambda: receive(n)),
    ])
    return Timing(seconds, n)


def _messages(message: Any) -> Callable[[Any, int], Timing]:
    return lambda mp, n: _stream(mp, message, n)


def _arrays(mp: Any, n: int) -> Timing:
    try:
        import numpy
    except ImportError:
        raise Unavailable("NumPy is not installed") from None

    def same(got: Any, sent: Any) -> None:
        if not (got is not sent and numpy.array_equal(got, sent)):
            raise AssertionError("the array that arrived is not the one that was sent")

    return _stream(mp, numpy.arange(ARRAY_BYTES // 8, dtype=numpy.float64), n, same)


def _ping_pong(mp: Any, n: int) -> Timing:
    one, other = mp.Pipe()
    n = max(n, WARM_UP)

    def serve(times: int) -> None:
        for item in range(times):
            one.send(item)
            _same(one.recv(), item)

    def reply(times: int) -> None:
        for _ in repeat(None, times):
            other.send(other.recv())

    seconds = race(mp, [
        (lambda: serve(n // WARM_UP), lambda: serve(n)),
        (lambda: reply(n // WARM_UP), lambda: reply(n)),
    ])
    return Timing(seconds, n)


def _room_for(descriptors: int) -> None:
    """Raise the soft limit of descriptors as far as it is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < descriptors:
        raise Unavailable(f"at most {hard} descriptors are allowed, {descriptors} are needed")
    if soft != resource.RLIM_INFINITY and soft < descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))


def _wait(count: int) -> Callable[[Any, int], Timing]:
    def measure(mp: Any, n: int) -> Timing:
        wait = import_module(f"{mp.__name__}.connection").wait
        _room_for(2 * count + 100)
        pipes = [mp.Pipe(False) for _ in range(count)]
        receivers = [receiver for receiver, _ in pipes]
        pipes[count // 2][1].send(1)
        began = time.perf_counter()
        for _ in repeat(None, n):
            if wait(receivers) != [receivers[count // 2]]:
                raise AssertionError("another pipe than the one with a message is ready")
        seconds = time.perf_counter() - began
        for pipe in pipes:
            for end in pipe:
                end.close()
        return Timing(seconds, n)

    return measure


def _case(
    name: str,
    title: str,
    measure: Callable[[Any, int], Timing],
    *,
    start: int = 2000,
    most: int = 1_000_000,
    goal: float | None = None,
    limit: str = "",
    per: str = "message",
) -> Case:
    return Case(name, title, "Connections", measure, start, most, goal, limit, per)


CASES = [
    _case("pipe-ping-pong", "Pipe ping-pong, small", _ping_pong, start=500, most=500_000, goal=6,
          limit="11", per="round trip"),
    _case("pipe-stream", "Pipe stream, small", _messages(1), goal=2.5, limit="3"),
    _case("pipe-tuple", "Pipe stream, (int, str, float)", _messages((1, "measurement", 0.5))),
    _case("pipe-1kb", "Pipe stream, 1 kB bytes", _messages(b"x" * 1000)),
    _case("pipe-64kb", "Pipe stream, 64 kB bytes", _messages(b"x" * 64_000), start=200,
          most=20_000),
    _case("pipe-1mb", "Pipe stream, 1 MB bytes", _messages(b"x" * MEBI), goal=5, limit="15",
          start=20, most=2000),
    _case("pipe-array", "Pipe stream, 16 MB NumPy array", _arrays, goal=10, limit="25", start=10,
          most=60),
    _case("wait-100", "wait for 100 pipes, one ready", _wait(100), goal=8, limit="10", start=100,
          most=100_000, per="call"),
    _case("wait-2000", "wait for 2000 pipes, one ready", _wait(2000), goal=8, start=10, most=2000,
          per="call"),
]
