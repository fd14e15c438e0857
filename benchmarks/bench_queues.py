# SPDX-License-Identifier: PSF-2.0
"""Queues: how long one item takes from process to process.

Throughput cases: every producer and consumer is a child.  They pass a tenth of the items to warm
the memory, meet, and begin together; the time is from the first ``put()`` to the return of the last
``get()``, divided by the number of items.  The queue is the plain ``Queue()`` without ``maxsize``
except where the title names one.  What arrives last is compared with what was sent; between several
producers and consumers the sum of all items is.

Ping-pong: a child sends an item through one queue and waits for it to come back through another;
one operation is the whole round trip.  *Consumer asleep*: the producer rests a millisecond before
each ``put()``, so that the consumer sleeps, and sends the time; one operation is the time from
before ``put()`` until ``get()`` has returned in the other process.

`faster_fifo`, where it is installed, is shown beside the rows that it has an answer for.  It is
given its own default size (1 MB), 64 MiB where an item needs it, and the standard library's processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

from benchmarks._harness import WARM_UP, Case, Timing, Unavailable, race, shared_cells
from benchmarks.bench_synchronize import create

__all__ = ["CASES"]

MEBI = 1 << 20
ARRAY_BYTES = 16 * MEBI
MANY = 100  # items in one put_many() or get_many()
REST = 0.001  # seconds that the producer rests before it wakes a sleeping consumer

Items = Callable[[int], Iterable[Any]]  # n -> n items


def _queue(mp: Any, maxsize: int = 0, largest: int = 0) -> Any:
    if hasattr(mp, "peer"):
        return mp.peer.Queue(64 * MEBI) if largest > 10_000 else mp.peer.Queue()
    return mp.Queue(maxsize)


def _integers(n: int) -> Iterable[int]:
    return range(n)


def _tuples(n: int) -> Iterable[tuple[int, str, float]]:
    return zip(range(n), repeat("measurement"), repeat(0.5))


def _bytes_of(size: int) -> Items:
    def items(n: int) -> Iterable[bytes]:
        return repeat(b"x" * size, n)

    return items


def _dicts(n: int) -> Iterable[dict[str, object]]:
    return ({"index": i, "name": "measurement", "values": [1, 2, 3]} for i in range(n))


def _same(got: Any, sent: Any) -> None:
    if got != sent:
        raise AssertionError(f"{sent!r:.60} was put last, {got!r:.60} arrived")


def _one_to_one(items: Items, maxsize: int = 0, largest: int = 0) -> Callable[[Any, int], Timing]:
    return lambda mp, n: _stream(mp, _queue(mp, maxsize, largest), items, n)


def _stream(
    mp: Any, queue: Any, items: Items, n: int, same: Callable[[Any, Any], None] = _same
) -> Timing:
    """Pass `n` items from one child to another."""
    n = max(n, WARM_UP)

    def produce(times: int) -> None:
        put = queue.put
        for item in items(times):
            put(item)

    def consume(times: int) -> None:
        get = queue.get
        item = None
        for _ in repeat(None, times):
            item = get()
        *_, last = items(times)
        same(item, last)

    seconds = race(mp, [
        (lambda: produce(n // WARM_UP), lambda: produce(n)),
        (lambda: consume(n // WARM_UP), lambda: consume(n)),
    ])
    return Timing(seconds, n)


def _several(producers: int, consumers: int) -> Callable[[Any, int], Timing]:
    def measure(mp: Any, n: int) -> Timing:
        queue = _queue(mp)
        n = max(n, WARM_UP * producers * consumers)
        n -= n % (WARM_UP * producers * consumers)
        sums = shared_cells(consumers)

        def produce(times: int) -> None:
            put = queue.put
            for item in range(times):
                put(item)

        def consume(place: int, times: int) -> None:
            get = queue.get
            total = 0
            for _ in repeat(None, times):
                total += get()
            sums[place] += total

        def producer(share: int) -> tuple[Callable[[], None], Callable[[], None]]:
            return lambda: produce(share // WARM_UP), lambda: produce(share)

        def consumer(place: int, share: int) -> tuple[Callable[[], None], Callable[[], None]]:
            return lambda: consume(place, share // WARM_UP), lambda: consume(place, share)

        seconds = race(mp, [
            *(producer(n // producers) for _ in range(producers)),
            *(consumer(place, n // consumers) for place in range(consumers)),
        ])
        share = n // producers
        _same(sum(sums), producers * (sum(range(share)) + sum(range(share // WARM_UP))))
        return Timing(seconds, n)

    return measure


def _arrays(maxsize: int) -> Callable[[Any, int], Timing]:
    def measure(mp: Any, n: int) -> Timing:
        try:
            import numpy
        except ImportError:
            raise Unavailable("NumPy is not installed") from None
        array = numpy.arange(ARRAY_BYTES // 8, dtype=numpy.float64)

        def same(got: Any, sent: Any) -> None:
            if not (got is not sent and numpy.array_equal(got, sent)):
                raise AssertionError("the array that arrived is not the one that was put")

        queue = _queue(mp, maxsize, ARRAY_BYTES)
        return _stream(mp, queue, lambda times: repeat(array, times), n, same)

    return measure


def _ping_pong(make: str) -> Callable[[Any, int], Timing]:
    def measure(mp: Any, n: int) -> Timing:
        there, back = (_queue(mp) if make == "Queue" else getattr(mp, make)() for _ in range(2))
        n = max(n, WARM_UP)

        def serve(times: int) -> None:
            for item in range(times):
                there.put(item)
                _same(back.get(), item)

        def reply(times: int) -> None:
            for _ in repeat(None, times):
                back.put(there.get())

        seconds = race(mp, [
            (lambda: serve(n // WARM_UP), lambda: serve(n)),
            (lambda: reply(n // WARM_UP), lambda: reply(n)),
        ])
        return Timing(seconds, n)

    return measure


def _asleep(mp: Any, n: int) -> Timing:
    queue = _queue(mp)
    n = max(n, WARM_UP)
    nanoseconds = shared_cells(1)

    def produce(times: int) -> None:
        for _ in repeat(None, times):
            time.sleep(REST)
            queue.put(time.perf_counter_ns())

    def consume(times: int) -> None:
        total = 0
        for _ in repeat(None, times):
            sent = queue.get()
            total += time.perf_counter_ns() - sent
        nanoseconds[0] = total

    race(mp, [
        (lambda: produce(n // WARM_UP), lambda: produce(n)),
        (lambda: consume(n // WARM_UP), lambda: consume(n)),
    ])
    return Timing(nanoseconds[0] / 1e9, n)


def _joinable(mp: Any, n: int) -> Timing:
    queue = mp.JoinableQueue()
    n = max(n, WARM_UP)

    def produce(times: int) -> None:
        put = queue.put
        for item in range(times):
            put(item)
        queue.join()

    def consume(times: int) -> None:
        get, task_done = queue.get, queue.task_done
        item = None
        for _ in repeat(None, times):
            item = get()
            task_done()
        _same(item, times - 1)

    seconds = race(mp, [
        (lambda: produce(n // WARM_UP), lambda: produce(n)),
        (lambda: consume(n // WARM_UP), lambda: consume(n)),
    ])
    return Timing(seconds, n)


def _many(mp: Any, n: int) -> Timing:
    """In hundreds where the library can; else one by one, which is what it has instead."""
    queue = _queue(mp)
    n = max(n - n % (MANY * WARM_UP), MANY * WARM_UP)
    whole = hasattr(queue, "put_many")

    def produce(times: int) -> None:
        for first in range(0, times, MANY):
            items = list(range(first, first + MANY))
            if whole:
                queue.put_many(items)
            else:
                for item in items:
                    queue.put(item)

    def consume(times: int) -> None:
        left = times
        item = None
        while left > 0:
            items = queue.get_many(min(left, MANY)) if whole else [queue.get()]
            left -= len(items)
            item = items[-1]
        _same(item, times - 1)

    if whole and hasattr(mp, "peer"):
        peers_get_many = queue.get_many  # its first argument is something else
        queue.get_many = lambda limit: peers_get_many(max_messages_to_get=limit)
    seconds = race(mp, [
        (lambda: produce(n // WARM_UP), lambda: produce(n)),
        (lambda: consume(n // WARM_UP), lambda: consume(n)),
    ])
    return Timing(seconds, n)


def _simple(mp: Any, n: int) -> Timing:
    return _stream(mp, mp.SimpleQueue(), _integers, n)


def _case(
    name: str,
    title: str,
    measure: Callable[[Any, int], Timing],
    *,
    start: int = 2000,
    most: int = 5_000_000,
    goal: float | None = None,
    limit: str = "",
    per: str = "item",
    peers: tuple[str, ...] = ("faster_fifo",),
) -> Case:
    return Case(name, title, "Queues", measure, start, most, goal, limit, per, peers)


CASES = [
    _case("create-queue", "create a Queue", create("Queue", 50), start=50, most=100_000, goal=20,
          per="object", peers=()),
    _case("queue-int", "Queue 1 to 1, small ints", _one_to_one(_integers), goal=20, limit="40"),
    _case("queue-tuple", "Queue 1 to 1, (int, str, float)", _one_to_one(_tuples), goal=8,
          limit="13"),
    _case("queue-1kb", "Queue 1 to 1, 1 kB bytes", _one_to_one(_bytes_of(1000)), goal=12,
          limit="28", most=2_000_000),
    _case("queue-dict", "Queue 1 to 1, small dicts", _one_to_one(_dicts)),
    _case("queue-4to4", "Queue 4 to 4, small ints", _several(4, 4), goal=10, limit="22"),
    _case("queue-1to4", "Queue 1 to 4, small ints", _several(1, 4)),
    _case("queue-4to1", "Queue 4 to 1, small ints", _several(4, 1)),
    _case("queue-64kb", "Queue 1 to 1, 64 kB bytes", _one_to_one(_bytes_of(64_000), 0, 64_000),
          start=200, most=20_000),
    _case("queue-1mb", "Queue 1 to 1, 1 MB bytes", _one_to_one(_bytes_of(MEBI), 0, MEBI), goal=15,
          limit="30", start=20, most=2000),
    _case("queue-1mb-bounded", "Queue(4) 1 to 1, 1 MB bytes", _one_to_one(_bytes_of(MEBI), 4, MEBI),
          start=20, most=2000, peers=()),
    _case("queue-array", "Queue 1 to 1, 16 MB NumPy array", _arrays(0), goal=12, limit="20",
          start=10, most=60),
    _case("queue-array-bounded", "Queue(4) 1 to 1, 16 MB NumPy array", _arrays(4), start=10,
          most=200, peers=()),
    _case("queue-ping-pong", "Queue ping-pong", _ping_pong("Queue"), goal=25, limit="40 to 170",
          start=500, most=500_000, per="round trip"),
    _case("queue-asleep", "Queue, consumer asleep", _asleep, start=100, most=300, per="wake-up"),
    _case("queue-many", "Queue put_many, get_many of 100 ints", _many),
    _case("simplequeue-int", "SimpleQueue 1 to 1, small ints", _simple, goal=15, limit="35",
          peers=()),
    _case("simplequeue-ping-pong", "SimpleQueue ping-pong", _ping_pong("SimpleQueue"), start=500,
          most=500_000, per="round trip", peers=()),
    _case("joinablequeue", "JoinableQueue put, get, task_done", _joinable, goal=12, limit="35",
          peers=()),
]
