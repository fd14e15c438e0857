# SPDX-License-Identifier: PSF-2.0
"""Queue, JoinableQueue and SimpleQueue: documented behaviour on both libraries, and what only ours does.

Known faults of the standard library's queues have tests of their own (test_faults_queue.py); what deaths do to a queue
is stepped through in crash/.
"""

from __future__ import annotations

import copy
import copyreg
import gc
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from types import ModuleType
from typing import Any

import pytest

from tests.support import processes

try:
    import numpy  # here, not in a test: it starts threads
except ImportError:
    numpy = None  # type: ignore[assignment]

needs_numpy = pytest.mark.skipif(numpy is None, reason="numpy is not installed")

KINDS = ("Queue", "JoinableQueue", "SimpleQueue")
#: What has a record of its own, and what has a pickle: every border between the forms.
OBJECTS: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    10**40,
    1.5,
    float("inf"),
    "",
    "ascii",
    "latin é",
    "wide €",
    "wider 😀",
    "lone \ud800",
    b"",
    b"bytes",
    (),
    (1, 2.5, "text", b"bytes", None, True, False, "é", "€", "😀"),
    (1, (2,)),
    tuple(range(255)),
    tuple(range(256)),
    (10**40,),
    ("x" * 3000,),
    [1, [2]],
    {"key": {1, 2}},
    bytearray(b"mutable"),
    complex(1, 2),
    Ellipsis,
    int,
    len,
]
#: Lengths around the border between a record and a message, and of a message's pages.
LENGTHS = (2047, 2048, 2049, 4079, 4080, 65536, 1 << 20)


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


# --- objects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_objects_arrive_as_they_were(mp: ModuleType, kind: str) -> None:
    q = getattr(mp, kind)()
    for item in OBJECTS:
        q.put(item)
        assert same(q.get(), item), item
    assert q.empty()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "make", [bytes, lambda n: "a" * n, lambda n: "€" * n, lambda n: "😀" * n, lambda n: [b"x" * n]]
)
def test_long_objects_arrive_as_they_were(mp: ModuleType, make: Any, length: int) -> None:
    q = mp.Queue()
    item = make(length)
    q.put(item)
    q.put("after")
    assert same(q.get(), item)
    assert q.get() == "after"


class Int(int):
    """Not exactly an int."""


def test_subclasses_of_scalars_stay_what_they_are(mp: ModuleType) -> None:
    q = mp.Queue()
    q.put(Int(3))
    q.put((Int(4), 5))
    assert type(q.get()) is Int
    assert type(q.get()[0]) is Int


@needs_numpy
def test_what_arrives_is_private(mp: ModuleType) -> None:
    """Buffers come out of the band, writable, and belong to the receiver alone."""
    q = mp.Queue()
    array = numpy.arange(100_000.0)
    frozen = array[:5000].copy()
    frozen.flags.writeable = False
    fortran = numpy.asfortranarray(numpy.arange(10_000.0).reshape(100, 100))
    q.put([array, array, frozen, fortran, array[::2]])
    array[0] = -1
    one, again, cold, columns, strided = q.get()
    assert one is again
    assert one[0] == 0
    one[:] = 7
    assert array[1] == 1
    assert not cold.flags.writeable
    assert columns.flags.f_contiguous
    assert (columns == fortran).all()
    assert strided.shape == (50_000,)


@needs_numpy
def test_many_buffers_in_one_object(mp: ModuleType) -> None:
    q = mp.Queue()
    q.put([numpy.full(300, i) for i in range(1500)])
    assert [int(a[0]) for a in q.get()] == list(range(1500))


def test_a_million_items_without_a_limit(mp: ModuleType) -> None:
    q = mp.Queue()
    for i in range(200_000):
        q.put(i)
    assert q.qsize() == 200_000
    assert [q.get() for _ in range(200_000)] == list(range(200_000))
    assert q.empty()


class InBand:
    """Its buffer is one of protocol 5; written into the pickle when there are too many of them."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return bytearray, (pickle.PickleBuffer(self.data),)


def test_more_large_buffers_than_stay_outside(mp: ModuleType) -> None:
    """The pickler writes those of 64 KiB and more as they are, without a copy."""
    q = mp.Queue()
    data = bytearray(b"ab" * 35_000)
    q.put([InBand(data) for _ in range(1003)])
    arrived = q.get()
    assert len(arrived) == 1003
    assert all(item == data for item in arrived[-3:])


class Grows:
    """What is pickled after a bytearray makes it longer."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        self.data.extend(b"x" * 3_000_000)
        return int, ()


def test_a_bytearray_does_not_grow_beyond_its_room_while_it_is_pickled(mp: ModuleType) -> None:
    q = mp.Queue()
    data = bytearray(100_000)
    with pytest.raises(BufferError):
        q.put([data, Grows(data)])
    assert q.empty()
    data.extend(b"again free to grow")
    q.put([data, b"next"])
    assert q.get() == [data, b"next"]


# --- pickling --------------------------------------------------------------------------------------


class Refuses:
    def __reduce__(self) -> Any:
        raise AttributeError("no")


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class PutsWhilePickled:
    """Its reducer uses the queue that it is put into."""

    q: Any

    def __reduce__(self) -> Any:
        self.q.put(Point(1))
        return int, (7,)


def reduce_point(point: Point) -> Any:
    return Point, (point.x + 100,)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_pickled_raises_in_put(mp: ModuleType, kind: str) -> None:
    q = getattr(mp, kind)()
    for item in (Refuses(), lambda: 0, [1, Refuses()], threading.Lock()):
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
            q.put(item)
        assert q.empty()
    q.put("works")
    assert q.get() == "works"


def test_feeder_error_hook_of_a_subclass(mp: ModuleType) -> None:
    told = []

    class Told(mp.queues.Queue):  # type: ignore[name-defined,misc]
        @staticmethod
        def _on_queue_feeder_error(e: Exception, obj: Any) -> None:
            told.append((e, obj))

    q = Told(1, ctx=mp.get_context())
    bad = Refuses()
    assert q.put(bad) is None
    q.put_many([bad, "good"])
    assert [type(e) for e, _ in told] == [AttributeError, AttributeError]
    assert all(obj is bad for _, obj in told)
    assert q.get() == "good"
    with pytest.raises(queue.Empty):
        q.get_nowait()


def test_registered_reducers_are_used(mp: ModuleType) -> None:
    """As soon as they are registered, and in place of an older one."""
    q = mp.Queue()
    q.put(Point(1))
    extra = mp.reduction.ForkingPickler._extra_reducers
    try:
        mp.reduction.ForkingPickler.register(Point, reduce_point)
        q.put(Point(1))
        mp.reduction.ForkingPickler.register(Point, lambda p: (Point, (p.x + 1000,)))
        q.put(Point(1))
    finally:
        extra.pop(Point, None)
    copyreg.pickle(Point, reduce_point)  # type: ignore[arg-type]
    try:
        q.put(Point(1))
    finally:
        del copyreg.dispatch_table[Point]
    q.put(Point(1))
    assert [q.get().x for _ in range(5)] == [1, 101, 1001, 101, 1]


class Shouting(pickle.Pickler):
    """A pickler that changes scalars."""

    @classmethod
    def dumps(cls, obj: Any, protocol: int | None = None) -> bytes:  # noqa: ARG003
        return pickle.dumps(["shouted", obj])

    @staticmethod
    def loads(data: Any) -> Any:
        return pickle.loads(data)


def test_a_replaced_pickler_sees_every_object(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    q = mp.Queue()
    monkeypatch.setattr(mp.queues, "_ForkingPickler", Shouting)
    q.put(1)
    q.put(b"x" * 5000)
    assert q.get() == ["shouted", 1]
    assert q.get() == ["shouted", b"x" * 5000]
    monkeypatch.undo()
    q.put(1)
    assert q.get() == 1


def test_a_patched_pickler_sees_every_object(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    q = mp.Queue()
    q.put(1)
    monkeypatch.setattr(mp.queues._ForkingPickler, "dumps", Shouting.dumps)
    q.put(2)
    monkeypatch.undo()
    q.put(3)
    assert [q.get() for _ in range(3)] == [1, ["shouted", 2], 3]


def test_a_reducer_may_put_into_the_same_queue(mp: ModuleType) -> None:
    q = mp.Queue()
    item = PutsWhilePickled()
    item.q = q
    q.put(item)
    assert q.get().x == 1
    assert q.get() == 7


CHANGES_ITSELF = """
import cmultiprocessing as mp
from cmultiprocessing.reduction import ForkingPickler

q, other = mp.Queue(), mp.Queue()
usual = ForkingPickler.__init__

def init(self, *args):
    usual(self, *args)
    ForkingPickler.changed = True
    other.put(1)  # looks at the class again

ForkingPickler.__init__ = init
for _ in range(3):
    q.put([1])
    assert q.get() == [1]
"""


def test_a_pickler_that_changes_its_class_while_it_is_made() -> None:
    # Freed memory is overwritten then: its use is seen.
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    subprocess.run([sys.executable, "-c", CHANGES_ITSELF], env=environment, timeout=50, check=True)


class FailsToLoad:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_what_cannot_be_unpickled_raises_in_get_and_is_gone(mp: ModuleType) -> None:
    q = mp.Queue()
    q.put(FailsToLoad())
    q.put([FailsToLoad(), b"x" * 5000])
    q.put("next")
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            q.get()
    assert q.get() == "next"


def test_objects_do_not_outlive_their_use(mp: ModuleType) -> None:
    """Neither the queue nor its pickler keeps what went through."""
    q = mp.Queue()
    item = Point(1)
    gone = weakref.ref(item)
    q.put(item)
    q.put([item, b"x" * 5000])
    del item
    assert gone() is None
    arrived = q.get()
    gone = weakref.ref(arrived)
    del arrived
    assert gone() is None


# --- timeouts and limits ---------------------------------------------------------------------------


def test_maxsize_and_timeouts(both: ModuleType) -> None:
    q = both.Queue(2)
    q.put(1)
    q.put(2, True, None)
    for call in (
        lambda: q.put(3, False),
        lambda: q.put(3, block=False, timeout=5),
        lambda: q.put_nowait(3),
        lambda: q.put(3, timeout=0),
        lambda: q.put(3, True, -1),
        lambda: q.put(3, timeout=0.05),
    ):
        with pytest.raises(queue.Full):
            call()
    assert q.full()
    assert q.qsize() == 2
    assert [q.get(timeout=30), q.get(timeout=30)] == [1, 2]
    for call in (
        lambda: q.get(False),
        lambda: q.get(block=False, timeout=5),
        lambda: q.get_nowait(),
        lambda: q.get(timeout=0),
        lambda: q.get(True, -1),
        lambda: q.get(timeout=0.05),
    ):
        with pytest.raises(queue.Empty):
            call()
    assert not q.full()
    q.close()
    q.join_thread()


def test_a_timeout_is_a_deadline(mp: ModuleType) -> None:
    q = mp.Queue(1)
    begin = time.monotonic()
    with pytest.raises(queue.Empty):
        q.get(timeout=0.3)
    assert time.monotonic() - begin >= 0.3
    q.put(1)
    begin = time.monotonic()
    with pytest.raises(queue.Full):
        q.put(2, timeout=0.3)
    assert time.monotonic() - begin >= 0.3


@pytest.mark.parametrize("timeout", ["soon", [], float("nan")])
def test_wrong_timeouts(mp: ModuleType, timeout: Any) -> None:
    q = mp.Queue()
    with pytest.raises((TypeError, ValueError)):
        q.get(timeout=timeout)
    with pytest.raises((TypeError, ValueError)):
        q.put(1, timeout=timeout)
    assert q.empty()


def test_huge_timeouts_and_sizes(mp: ModuleType) -> None:
    q = mp.Queue(2**40)
    q.put(1, timeout=1e300)
    assert q.get(timeout=float("inf")) == 1
    assert not q.full()
    assert not mp.Queue(-5).full()
    with pytest.raises(TypeError):
        mp.Queue("many")


class Size:
    """An integer as numpy has them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __le__(self, other: int) -> bool:
        return self.value <= other


def test_maxsize_is_anything_that_is_an_integer(both: ModuleType) -> None:
    q = both.Queue(Size(2))
    q.put(1)
    q.put(2)
    assert q.full()
    assert [q.get(), q.get()] == [1, 2]
    q.close()
    q.join_thread()
    with pytest.raises(TypeError):
        both.Queue(2.5)


def test_wrong_arguments(mp: ModuleType) -> None:
    q = mp.Queue()
    for call in (
        lambda: q.put(),
        lambda: q.put(1, True, 1, 1),
        lambda: q.put(1, blocking=True),
        lambda: q.put(1, True, block=True),
        lambda: q.get(True, 1, 1),
        lambda: q.get(item=1),
        lambda: q.put_many(1),
        lambda: q.put_many(),
        lambda: q.get_many(),
        lambda: q.get_many("x"),
        lambda: mp.SimpleQueue().get(1),
        lambda: mp.SimpleQueue().put(1, False),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError, match="max must be"):
        q.get_many(0)
    assert q.empty()


def test_a_queue_without_init(mp: ModuleType) -> None:
    q = mp.queues.Queue.__new__(mp.queues.Queue)
    for call in (
        lambda: q.put(1),
        q.get,
        q.qsize,
        q.empty,
        q.full,
        q.shutdown,
        lambda: q._poll(1),
        lambda: q._fileno(),
    ):
        with pytest.raises(RuntimeError, match="__init__"):
            call()
    with pytest.raises(RuntimeError, match="__init__"):
        pickle.dumps(q)


# --- closing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[:2])
def test_closed_queues(both: ModuleType, kind: str) -> None:
    q = getattr(both, kind)()
    with pytest.raises(AssertionError):
        q.join_thread()
    q.cancel_join_thread()
    q.close()
    q.close()
    q.join_thread()
    for call in (lambda: q.put(1), q.get, lambda: q.put_nowait(1), q.get_nowait):
        with pytest.raises(ValueError, match="is closed"):
            call()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_empty_of_a_closed_queue(mp: ModuleType, kind: str) -> None:
    """As in 3.13: of one that this process has used it raises."""
    unused = getattr(mp, kind)()
    unused.close()
    assert unused.empty()
    used = getattr(mp, kind)()
    used.put(1)
    used.close()
    with pytest.raises(OSError, match="is closed"):
        used.empty()


def test_closed_simple_queue(both: ModuleType) -> None:
    q = both.SimpleQueue()
    q.close()
    q.close()
    assert q._reader.closed
    assert q._writer.closed
    for call in (lambda: q.put(1), q.get, q.empty):
        with pytest.raises(OSError, match="is closed"):
            call()


def put_and_close(q: Any) -> None:
    q.put("from the child")
    q.close()
    q.join_thread()


def test_closing_concerns_one_process(ctx: Any) -> None:
    q = ctx.Queue()
    child = ctx.Process(target=put_and_close, args=(q,))
    child.start()
    child.join()
    assert q.get(timeout=30) == "from the child"
    q.put(1)
    assert q.get() == 1


# --- joining ---------------------------------------------------------------------------------------


def test_task_done_too_often(both: ModuleType) -> None:
    q = both.JoinableQueue()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()
    q.put(1)
    q.get()
    q.task_done()
    q.join()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()
    q.close()
    q.join_thread()


def test_task_done_may_come_early(mp: ModuleType) -> None:
    """It counts objects that were put, whether or not they were taken."""
    q = mp.JoinableQueue()
    q.put(1)
    q.put(2)
    q.task_done()
    q.task_done()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()
    q.join()
    assert [q.get(), q.get()] == [1, 2]
    q.join()
    q.put(3)
    assert q._unfinished() == 1


def work(q: Any) -> None:
    for _ in iter(q.get, None):
        q.task_done()
    q.task_done()


def test_join_waits_for_others(ctx: Any) -> None:
    q = ctx.JoinableQueue()
    workers = [ctx.Process(target=work, args=(q,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in range(3):
        for i in range(100):
            q.put(i)
        q.join()
        assert q.empty()
    for _ in workers:
        q.put(None)
    q.join()
    for worker in workers:
        worker.join()


def take_and_hang(q: Any, taken: Any) -> None:
    q.get()
    q.get()
    taken.set()
    signal.pause()


def test_objects_of_a_killed_getter_count_as_done(ctx: Any) -> None:
    q, taken = ctx.JoinableQueue(), ctx.Event()
    child = ctx.Process(target=take_and_hang, args=(q, taken))
    child.start()
    q.put(1)
    q.put(2)
    assert taken.wait(30)
    assert q._unfinished() == 2
    child.kill()
    child.join()
    q.join()


def test_a_ledger_of_many_processes(mp: ModuleType) -> None:
    """More processes hold unfinished objects than have entries in the queue's own block."""
    ctx = mp.get_context("fork")
    q, done = ctx.JoinableQueue(), ctx.Event()
    children = [ctx.Process(target=take_and_wait, args=(q, done)) for _ in range(260)]
    for child in children:
        child.start()
    try:
        q.put_many(range(260))
        processes.wait_until(q.empty, 30, "each child has taken one")
        assert q._unfinished() == 260
        done.set()
        q.join()
    finally:
        done.set()
        for child in children:
            child.join()
            child.close()


def take_and_wait(q: Any, done: Any) -> None:
    q.get()
    done.wait()
    q.task_done()


# --- many at a time --------------------------------------------------------------------------------


def test_put_many_and_get_many(mp: ModuleType) -> None:
    q = mp.Queue()
    items = [*OBJECTS, *(b"x" * n for n in LENGTHS), *range(1000)]
    q.put_many(iter(items))
    assert q.qsize() == len(items)
    got = q.get_many(10)
    assert len(got) == 10
    got += q.get_many(10**9)
    assert all(map(same, got, items))
    assert len(got) == len(items)
    with pytest.raises(queue.Empty):
        q.get_many(5, timeout=0.01)
    q.put_many([])
    assert q.empty()


def test_put_many_into_a_full_queue_says_how_many_went_in(mp: ModuleType) -> None:
    q = mp.Queue(5)
    with pytest.raises(queue.Full) as raised:
        q.put_many(range(8), timeout=0.05)
    assert raised.value.put_count == 5
    assert q.get_many(9) == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError) as failed:
        q.put_many(1 // i for i in (1, 1, 0, 1))
    assert failed.value.put_count == q.qsize() == 2


def test_get_many_goes_on_behind_what_cannot_be_unpickled(mp: ModuleType) -> None:
    q = mp.Queue()
    q.put_many([1, FailsToLoad(), 3])
    with pytest.raises(ValueError, match="invalid literal") as raised:
        q.get_many(10)
    assert raised.value.got == [1, 3]
    assert q.empty()


# --- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_reader_and_writer(mp: ModuleType, kind: str) -> None:
    q = getattr(mp, kind)()
    reader, writer = q._reader, q._writer
    assert q._reader is reader
    assert not reader.poll()
    assert not reader.poll(0.01)
    writer.send({"a": 1})
    assert reader.poll()
    assert reader.recv() == {"a": 1}
    writer.send_bytes(pickle.dumps([1, 2]))
    assert pickle.loads(reader.recv_bytes()) == [1, 2]
    q.put("x" * 100)
    with pytest.raises(OSError, match="bad message length"):
        reader.recv_bytes(10)
    assert q.empty()
    reader.close()
    assert reader.closed
    with pytest.raises(OSError, match="is closed"):
        reader.poll()
    with pytest.raises(OSError, match="is closed"):
        q.get()


def test_the_descriptor_is_readable_while_there_are_items(mp: ModuleType) -> None:
    q = mp.SimpleQueue()
    fd = q._reader.fileno()
    assert q._reader.fileno() == fd
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    for _ in range(200):
        assert not poll.poll(0)
        q.put(1)
        q.put(2)
        assert poll.poll(30_000)
        q.get()
        assert poll.poll(30_000)
        q.get()


@pytest.mark.parametrize("immediate", [False, True])
def test_a_queue_that_was_shut_down_is_ready(mp: ModuleType, immediate: bool) -> None:
    """Else who waits for its descriptor would never learn it."""
    q = mp.Queue()
    reader = q._reader
    before = select.poll()
    before.register(reader, select.POLLIN)
    assert before.poll(0) == []
    assert not reader.poll()
    q.shutdown(immediate)
    assert before.poll(5000)
    assert reader.poll()
    assert reader.poll(5)
    with pytest.raises(mp.queues.ShutDown):
        q.get()
    assert before.poll(0)


def put_after(q: Any, go: Any, items: list[Any]) -> None:
    go.wait()
    for item in items:
        q.put(item)


def test_connection_wait(ctx: Any) -> None:
    """On a queue that others put into, beside a process's sentinel."""
    import cmultiprocessing.connection as connection

    q, go = ctx.SimpleQueue(), ctx.Event()
    child = ctx.Process(target=put_after, args=(q, go, [1, 2]))
    child.start()
    reader = q._reader
    assert connection.wait([reader, child.sentinel], timeout=0.05) == []
    go.set()
    assert reader in connection.wait([reader])
    assert [reader.recv(), reader.recv()] == [1, 2]
    child.join()
    assert connection.wait([reader, child.sentinel], timeout=30) == [child.sentinel]


def test_a_forked_child_has_a_descriptor_of_its_own(mp: ModuleType) -> None:
    ctx = mp.get_context("fork")
    q, answers = ctx.Queue(), ctx.Queue()
    q._reader.fileno()
    child = ctx.Process(target=poll_in_child, args=(q, answers))
    child.start()
    assert answers.get(timeout=30) == []
    q.put(1)
    assert answers.get(timeout=30) == 1
    child.join()


def poll_in_child(q: Any, answers: Any) -> None:
    poll = select.poll()
    poll.register(q._reader.fileno(), select.POLLIN)
    answers.put(poll.poll(50))
    poll.poll()
    answers.put(q.get())


def test_descriptors_and_threads_go_with_the_queue(mp: ModuleType) -> None:
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for _ in range(5):
        q = mp.Queue()
        q._reader.fileno()
        del q
        gc.collect()
    assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before


# --- travelling ------------------------------------------------------------------------------------


class Named(list):  # type: ignore[type-arg]
    """Something else that travels along."""


def echo(q: Any, answers: Any) -> None:
    for item in iter(q.get, None):
        answers.put(item)


def test_queues_travel_through_queues(ctx: Any) -> None:
    outer, q, answers = ctx.Queue(), ctx.Queue(), ctx.SimpleQueue()
    outer.put((q, answers, Named([1])))
    child = ctx.Process(target=run_from_queue, args=(outer,))
    child.start()
    q.put("there and back")
    q.put(None)
    assert answers.get() == "there and back"
    child.join()


def run_from_queue(outer: Any) -> None:
    q, answers, _ = outer.get()
    echo(q, answers)


def test_a_queue_in_itself(mp: ModuleType) -> None:
    q = mp.Queue()
    q.put(q)
    other = q.get()
    other.put(1)
    assert q.get() == 1
    assert copy.copy(q).empty()


def test_subclass_state_travels(mp: ModuleType) -> None:
    q = Labelled("label", ctx=mp.get_context())
    carrier = mp.Queue()
    carrier.put(q)
    arrived = carrier.get()
    assert type(arrived) is Labelled
    assert arrived.label == "label"
    q.put(5)
    assert arrived.get() == 5


def make_labelled() -> type[Any]:
    import cmultiprocessing.queues as queues

    class LabelledQueue(queues.Queue):  # type: ignore[type-arg]
        def __init__(self, label: str, *, ctx: Any) -> None:
            self.label = label
            super().__init__(ctx=ctx)

        def __getstate__(self) -> Any:
            return super().__getstate__(), self.label

        def __setstate__(self, state: Any) -> None:
            super().__setstate__(state[0])
            self.label = state[1]

    LabelledQueue.__qualname__ = LabelledQueue.__name__ = "Labelled"
    return LabelledQueue


Labelled = make_labelled()


def test_foreign_tickets(mp: ModuleType) -> None:
    for ticket in (b"", b"x" * 32, b"\0" * 32):
        q = mp.queues.Queue.__new__(mp.queues.Queue)
        with pytest.raises((ValueError, RuntimeError)):
            q.__setstate__((ticket,))
        with pytest.raises(RuntimeError):
            q.put(1)
    with pytest.raises(RuntimeError, match="already"):
        mp.Queue().__setstate__((b"\0" * 32,))


def test_a_dropped_queue_drops_what_is_in_it(mp: ModuleType) -> None:
    """Memory and pinned objects: making, filling and dropping leaves things as they were."""
    from cmultiprocessing import _cmultiprocessing as native

    def use() -> None:
        q = mp.Queue()
        q.put_many([b"x" * 100_000, mp.Lock(), mp.Queue(), *range(1000)])

    for _ in range(20):
        use()
    native.family_collect()
    before = native.family_statistics()["used"]
    for _ in range(300):
        use()
    native.family_collect()
    assert native.family_statistics()["used"] <= before + (1 << 20)


# --- concurrency -----------------------------------------------------------------------------------


def produce(q: Any, name: int, count: int) -> None:
    for i in range(count):
        q.put((name, i) if i % 50 else (name, i, b"x" * 5000))


def consume(q: Any, results: Any) -> None:
    last: dict[int, int] = {}
    count = 0
    for item in iter(q.get, None):
        assert last.get(item[0], -1) < item[1]
        last[item[0]] = item[1]
        count += 1
    results.put(count)


def test_many_producers_and_consumers_keep_each_ones_order(ctx: Any) -> None:
    q, results = ctx.Queue(100), ctx.Queue()
    producers = [ctx.Process(target=produce, args=(q, i, 1000)) for i in range(3)]
    consumers = [ctx.Process(target=consume, args=(q, results)) for _ in range(3)]
    for process in producers + consumers:
        process.start()
    for process in producers:
        process.join()
    for _ in consumers:
        q.put(None)
    assert sum(results.get(timeout=60) for _ in consumers) == 3000
    for process in consumers:
        process.join()


def test_threads_share_a_queue(mp: ModuleType) -> None:
    q, total = mp.Queue(10), []

    def take() -> None:
        total.extend(iter(q.get, None))

    takers = [threading.Thread(target=take) for _ in range(3)]
    putters = [threading.Thread(target=lambda: [q.put(i) for i in range(500)]) for _ in range(3)]
    for thread in takers + putters:
        thread.start()
    for thread in putters:
        thread.join()
    for _ in takers:
        q.put(None)
    for thread in takers:
        thread.join()
    assert sorted(total) == sorted(list(range(500)) * 3)


@pytest.mark.parametrize("call", ["get", "put", "join", "poll"])
def test_a_signal_interrupts_every_wait(mp: ModuleType, call: str) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(*args: object) -> None:
        raise Interrupt

    q = mp.JoinableQueue(1)
    if call != "get" and call != "poll":
        q.put(1)
    waits = {"get": q.get, "put": lambda: q.put(2), "join": q.join, "poll": lambda: q._poll(None)}
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupt):
            waits[call]()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert q.qsize() == (0 if call in ("get", "poll") else 1)


def test_a_signal_handler_may_use_the_queue(mp: ModuleType) -> None:
    q = mp.Queue()
    old = signal.signal(signal.SIGALRM, lambda *args: q.put("from the handler"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert q.get(timeout=30) == "from the handler"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


# --- shapes ----------------------------------------------------------------------------------------


def test_names_and_shapes(mp: ModuleType) -> None:
    queues = mp.queues
    assert queues.Queue[int].__origin__ is queues.Queue
    assert queues.SimpleQueue[int].__origin__ is queues.SimpleQueue
    assert isinstance(mp.Queue(), queues.Queue)
    assert isinstance(mp.JoinableQueue(), queues.Queue)
    assert not isinstance(mp.SimpleQueue(), queues.Queue)
    assert not hasattr(mp.Queue(), "task_done")
    assert not hasattr(mp.SimpleQueue(), "qsize")
    assert queues.Full is queue.Full
    assert queues.Empty is queue.Empty
    assert issubclass(queues.ShutDown, Exception)
    q = mp.Queue(3)
    assert q._maxsize == 3
    q.anything = 1
    assert weakref.ref(q)() is q
    q.put(1)
    assert q.get_no_wait() == 1
