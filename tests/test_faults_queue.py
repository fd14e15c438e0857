# SPDX-License-Identifier: PSF-2.0
"""Faults of the standard library's queues that users meet, which must not be here.

Each test is named after its number in the project's list of such faults; gh-N is an issue of CPython. What a test
promises in seconds is the promise itself; `within` allows twice that, and more under load.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import random
import signal
import time
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.support import processes
from tests.support.scene import PATIENCE, Crew, Notes, check_delay, kill_self, scale, stopped, within

MIB = 1 << 20
QUEUES = ("Queue", "JoinableQueue", "SimpleQueue")


def get_now(q: Any) -> Any:
    """An item that is there already, whichever kind of queue."""
    assert not q.empty()
    return q.get()


# --- 2: a killed reader --------------------------------------------------------------------------


def note_one_item(q: Any, notes: Notes, name: str) -> None:
    notes.write(f"{name}-begins")
    item = q.get()
    notes.write(name, [item, time.monotonic()])


@pytest.mark.parametrize("kind", QUEUES)
def test_item_02_killed_readers_do_not_poison_a_queue(ctx: Any, crew: Crew, notes: Notes, kind: str) -> None:
    """Readers killed while they wait in get() leave the queue locked for the others (gh-88304, gh-87971)."""
    q = getattr(ctx, kind)()
    readers = [crew.start(ctx, note_one_item, q, notes, f"reader{i}") for i in range(4)]
    for i, reader in enumerate(readers):
        notes.read(f"reader{i}-begins")
        processes.wait_sleeping(reader.pid)
    for reader in readers[:3]:
        crew.kill(reader)
    begin = time.monotonic()
    q.put("for the survivor")
    item, end = notes.read("reader3")
    assert item == "for the survivor"
    check_delay(end - begin, 0.1, "the survivor gets the item")
    crew.finish(readers[3])
    assert q.empty()


def put_one_item(q: Any, item: object, notes: Notes, name: str) -> None:
    notes.write(f"{name}-begins")
    q.put(item)
    notes.write(name, time.monotonic())


def test_item_02_killed_writers_do_not_poison_a_full_queue(ctx: Any, crew: Crew, notes: Notes) -> None:
    """Writers killed while they wait for room leave a full queue without the room for the others (gh-88304)."""
    q = ctx.Queue(1)
    q.put("first")
    writers = [crew.start(ctx, put_one_item, q, i, notes, f"writer{i}") for i in range(4)]
    for i, writer in enumerate(writers):
        notes.read(f"writer{i}-begins")
        processes.wait_sleeping(writer.pid)
    for writer in writers[:3]:
        crew.kill(writer)
    begin = time.monotonic()
    assert q.get() == "first"
    check_delay(notes.read("writer3") - begin, 0.1, "the survivor puts its item")
    crew.finish(writers[3])
    assert q.get(timeout=PATIENCE) == 3
    assert q.qsize() == 0


def take_and_hold(q: Any, notes: Notes, name: str) -> None:
    item = q.get()
    notes.write(name, item)
    signal.pause()


def test_item_02_item_of_a_killed_getter_counts_as_done(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """JoinableQueue.join() waits for ever for a task_done() of a process that was killed (gh-88304)."""
    ctx = mp.get_context("fork")
    q = ctx.JoinableQueue()
    q.put("taken")
    holder = crew.start(ctx, take_and_hold, q, notes, "taken")
    assert notes.read("taken") == "taken"
    joiner = crew.start(ctx, join_and_note, q, notes)
    notes.read("joining")
    processes.wait_sleeping(joiner.pid)
    assert not notes.has("joined")
    begin = time.monotonic()
    crew.kill(holder)
    check_delay(notes.read("joined") - begin, 1.0, "join() after the getter was killed")
    crew.finish(joiner)
    with pytest.raises(ValueError, match="task_done"):
        q.task_done()


def join_and_note(q: Any, notes: Notes) -> None:
    notes.write("joining")
    q.join()
    notes.write("joined", time.monotonic())


# --- 3: a writer killed within a message ---------------------------------------------------------


def write_large_items(q: Any, size: int, notes: Notes, name: str) -> None:
    item = bytes([1]) * size
    notes.write(name)
    while True:
        q.put(item)


def write_last_item(q: Any, size: int) -> None:
    q.put(bytes([2]) * size)


@pytest.mark.watchdog(3600 if scale(0, 1) else 120)
def test_item_03_writer_killed_within_a_message(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """A reader waits for ever, timeout or not, for the rest of a message whose writer was killed (gh-87971)."""
    ctx = mp.get_context("fork")
    q = ctx.Queue()
    size = 10 * MIB
    whole = bytes([1]) * size
    chance = random.Random(3)
    seen = 0
    for turn in range(scale(40, 10_000)):
        writer = crew.start(ctx, write_large_items, q, size, notes, f"turn{turn}")
        notes.read(f"turn{turn}")
        time.sleep(chance.uniform(0, 0.02))  # the kill point is random on purpose; a put takes about 5 ms
        crew.kill(writer)
        while True:
            begin = time.monotonic()
            try:
                item = q.get(timeout=0.05)
            except queue.Empty:
                check_delay(time.monotonic() - begin, 0.15, "get(timeout=0.05)")
                break
            assert item == whole, "part of an item"
            seen += 1
        assert q.qsize() == 0
        crew.finish(crew.start(ctx, write_last_item, q, size))
        assert q.get(timeout=0.5) == bytes([2]) * size
        crew.dismiss()
    assert seen > 0, "no writer ever completed a put: the kill points are not within the writing"


# --- 4: join before get --------------------------------------------------------------------------


def put_a_hundred(q: Any, size: int) -> None:
    for i in range(100):
        q.put((i, bytes([i]) * size))


@pytest.mark.parametrize("kind", QUEUES)
def test_item_04_join_before_get(ctx: Any, crew: Crew, kind: str) -> None:
    """A child that has put more than a pipe holds cannot be joined before its items are read (gh-78321, gh-73983)."""
    q = getattr(ctx, kind)()
    child = ctx.Process(target=put_a_hundred, args=(q, MIB))
    crew.enlist(child)
    child.join(PATIENCE)
    assert child.exitcode == 0
    for i in range(100):
        assert get_now(q) == (i, bytes([i]) * MIB)
    assert q.empty()


# --- 5: what cannot be pickled, and when pickling happens ----------------------------------------


class PicklesBadly:
    """Raises while it is pickled."""

    def __reduce__(self) -> Any:
        raise ArithmeticError("no pickle of this")


@pytest.mark.parametrize("kind", QUEUES)
def test_item_05_put_raises_where_it_is_called(mp: ModuleType, kind: str) -> None:
    """put() of what cannot be pickled prints a traceback somewhere and drops the item (gh-84376, gh-79423)."""
    q = getattr(mp, kind)()
    q.put("before")
    for bad, error in (
        (lambda: 0, (pickle.PicklingError, AttributeError)),
        (PicklesBadly(), ArithmeticError),
        ([b"x" * MIB, PicklesBadly()], ArithmeticError),
        (["in a list", (i for i in ())], TypeError),
    ):
        try:
            q.put(bad)  # this line is looked for
        except error as raised:
            lines = [frame.line for frame in traceback.extract_tb(raised.__traceback__)]
            assert "q.put(bad)  # this line is looked for" in lines
        else:
            pytest.fail(f"put({bad!r}) raised nothing")
        if hasattr(q, "qsize"):
            assert q.qsize() == 1
    assert get_now(q) == "before"
    assert q.empty()


def test_item_05_room_is_not_lost(mp: ModuleType) -> None:
    """A failed put() takes one place of a bounded queue for ever (gh-84376)."""
    q = mp.Queue(2)
    for _ in range(10):
        with pytest.raises(ArithmeticError):
            q.put(PicklesBadly())
    q.put_nowait(1)
    q.put_nowait(2)
    assert q.full()
    with pytest.raises(queue.Full):
        q.put_nowait(3)
    assert [q.get_nowait(), q.get_nowait()] == [1, 2]


def test_item_05_put_many_is_all_or_an_error_that_counts(mp: ModuleType) -> None:
    """put_many() with one bad item loses none of those that it did put, and puts nothing after the bad one."""
    q = mp.Queue()
    with pytest.raises(ArithmeticError):
        q.put_many([1, 2, PicklesBadly(), 4])
    left = [q.get_nowait() for _ in range(q.qsize())]
    assert left in ([], [1, 2])
    assert q.empty()


def test_item_05_pickled_in_put(mp: ModuleType) -> None:
    """What is changed after put() arrives changed (gh-109554)."""
    q = mp.Queue()
    for _ in range(10_000):
        item = [1]
        q.put(item)
        item.append(2)
        assert q.get(timeout=PATIENCE) == [1]


def test_item_05_feeder_error_hook(mp: ModuleType) -> None:
    """A subclass that overrides _on_queue_feeder_error() is told about the error instead (gh-74599)."""
    told = []

    class Hooked(mp.queues.Queue):  # type: ignore[misc, name-defined]
        def _on_queue_feeder_error(self, e: BaseException, obj: object) -> None:
            told.append((type(e), obj))

    q = Hooked(ctx=mp.get_context())
    bad = PicklesBadly()
    q.put(bad)
    processes.wait_until(lambda: bool(told), PATIENCE, "the hook is called")
    assert told == [(ArithmeticError, bad)]
    q.put("goes on")
    assert q.get(timeout=PATIENCE) == "goes on"


# --- 26: signal handlers and finalizers ----------------------------------------------------------


def use_everything(objects: dict[str, Any], counts: dict[str, int]) -> None:
    """One round of calls that may come at any moment, in a handler or a finalizer."""
    objects["event"].set()
    objects["event"].is_set()
    try:
        objects["queue"].put_nowait(1)
        counts["put"] += 1
    except queue.Full:
        counts["full"] += 1
    if objects["lock"].acquire(block=False):
        objects["lock"].release()
    if objects["rlock"].acquire(block=False):
        objects["rlock"].release()
    if objects["semaphore"].acquire(block=False):
        objects["semaphore"].release()
    with objects["condition"]:
        objects["condition"].notify_all()


def drain_some(objects: dict[str, Any], counts: dict[str, int]) -> None:
    for _ in range(3):
        try:
            objects["queue"].get_nowait()
        except queue.Empty:
            return
        counts["got"] += 1


def make_everything(ctx: Any) -> dict[str, Any]:
    return {
        "event": ctx.Event(),
        "queue": ctx.Queue(1000),
        "lock": ctx.Lock(),
        "rlock": ctx.RLock(),
        "semaphore": ctx.Semaphore(5),
        "condition": ctx.Condition(),  # on an RLock: the same thread may enter it again
    }


def interrupted_by_a_timer(objects: dict[str, Any], seconds: int, notes: Notes) -> None:
    counts = {"put": 0, "full": 0, "got": 0}
    inner = {"put": 0, "full": 0, "calls": 0}

    def on_alarm(signum: int, frame: object) -> None:
        inner["calls"] += 1
        use_everything(objects, inner)

    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        use_everything(objects, counts)
        drain_some(objects, counts)
    signal.setitimer(signal.ITIMER_REAL, 0, 0)
    notes.write("sums", [inner["calls"], counts["put"] + inner["put"], counts["got"], objects["queue"].qsize()])


@pytest.mark.watchdog(120)
def test_item_26_signal_handler_uses_the_same_objects(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """A signal handler that uses an object whose method it has interrupted never returns (gh-126434, gh-85772)."""
    ctx = mp.get_context("fork")
    seconds = scale(2, 10)
    child = crew.start(ctx, interrupted_by_a_timer, make_everything(ctx), seconds, notes)
    calls, put, got, left = notes.read("sums", seconds + PATIENCE)
    crew.finish(child)
    assert calls > 20 * seconds, "the handler hardly ran: nothing was tested"
    assert put - got == left


class UsesOnDeath:
    """Uses shared objects when it is collected; one in a cycle, so that the collector does it."""

    def __init__(self, objects: dict[str, Any], counts: dict[str, int]) -> None:
        self.me = self
        self.objects, self.counts = objects, counts

    def __del__(self) -> None:
        self.counts["calls"] += 1
        use_everything(self.objects, self.counts)


def interrupted_by_the_collector(objects: dict[str, Any], seconds: int, notes: Notes) -> None:
    counts = {"put": 0, "full": 0, "got": 0}
    inner = {"put": 0, "full": 0, "calls": 0}
    gc.set_threshold(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        UsesOnDeath(objects, inner)
        use_everything(objects, counts)
        objects["queue"].put(["a pickled list"], timeout=1)
        counts["put"] += 1
        drain_some(objects, counts)
        drain_some(objects, counts)
    gc.disable()
    notes.write("sums", [inner["calls"], counts["put"] + inner["put"], counts["got"], objects["queue"].qsize()])


@pytest.mark.watchdog(120)
def test_item_26_finalizer_uses_the_same_objects(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """A finalizer that uses an object whose method allocated memory never returns (gh-126434)."""
    ctx = mp.get_context("fork")
    seconds = scale(2, 10)
    child = crew.start(ctx, interrupted_by_the_collector, make_everything(ctx), seconds, notes)
    calls, put, got, left = notes.read("sums", seconds + PATIENCE)
    crew.finish(child)
    assert calls > 20 * seconds, "the finalizer hardly ran: nothing was tested"
    assert put - got == left


# --- 28: what put() has put is there -------------------------------------------------------------


@pytest.mark.parametrize("kind", QUEUES)
def test_item_28_after_put_the_item_is_there(mp: ModuleType, kind: str) -> None:
    """empty() says True and get_nowait() raises Empty for some time after put() (gh-87302, gh-77060)."""
    q = getattr(mp, kind)()
    for i in range(scale(20_000, 100_000)):
        q.put(i)
        assert not q.empty()
        if kind == "SimpleQueue":
            assert q.get() == i
        else:
            assert q.qsize() == 1
            assert q.get_nowait() == i
        assert q.empty()


def put_in_turn(q: Any, name: str, mine: Any, next_one: Any) -> None:
    while True:
        mine.acquire()
        q.put(name)
        next_one.release()


def test_item_28_order_between_processes(mp: ModuleType, crew: Crew) -> None:
    """Items arrive in another order than they were put in by processes that took turns (gh-142837)."""
    ctx = mp.get_context("fork")
    q = ctx.Queue()
    first, second, done = ctx.Semaphore(0), ctx.Semaphore(0), ctx.Semaphore(0)
    crew.start(ctx, put_in_turn, q, "A", first, second)
    crew.start(ctx, put_in_turn, q, "B", second, done)
    for _ in range(scale(300, 3000)):
        first.release()
        assert done.acquire(timeout=PATIENCE)
        assert [q.get_nowait(), q.get_nowait()] == ["A", "B"]


# --- 29: a producer that ends hard ---------------------------------------------------------------


def put_and_end(q: Any, items: list[Any], end: str) -> None:
    for item in items:
        q.put(item)
    if end == "killed":
        kill_self()
    os._exit(0)


@pytest.mark.parametrize("end", ["killed", "os._exit"])
@pytest.mark.parametrize("kind", QUEUES)
def test_item_29_item_survives_its_producer(ctx: Any, crew: Crew, kind: str, end: str) -> None:
    """An item is lost when its producer ends hard right after put()."""
    q = getattr(ctx, kind)()
    items = [None, 1, "text", (1, 2.5, "x"), {"a": [1]}, b"x" * 3000, b"y" * 5 * MIB, ["z" * MIB, 1]]
    child = crew.start(ctx, put_and_end, q, items, end)
    child.join(PATIENCE)
    assert child.exitcode == (-signal.SIGKILL if end == "killed" else 0)
    for item in items:
        assert get_now(q) == item
    assert q.empty()


def put_own_objects_and_die(q: Any, ctx: Any) -> None:
    lock, inner, event = ctx.Lock(), ctx.Queue(), ctx.Event()
    inner.put("from the dead")
    event.set()
    q.put([lock, inner, event])
    kill_self()


def test_item_29_shared_objects_survive_their_producer(ctx: Any, crew: Crew) -> None:
    """Locks and queues in an item are gone when the producer that made them was killed (gh-94765)."""
    q = ctx.Queue()
    child = crew.start(ctx, put_own_objects_and_die, q, ctx)
    child.join(PATIENCE)
    assert child.exitcode == -signal.SIGKILL
    lock, inner, event = q.get(timeout=PATIENCE)
    assert lock.acquire(timeout=PATIENCE)
    lock.release()
    assert event.is_set()
    assert inner.get(timeout=PATIENCE) == "from the dead"


def put_array_and_die(q: Any) -> None:
    numpy = pytest.importorskip("numpy")
    q.put(numpy.arange(MIB, dtype="i8"))
    kill_self()


def test_item_29_array_survives_its_producer(ctx: Any, crew: Crew) -> None:
    """An array is lost when its producer is killed right after put()."""
    numpy = pytest.importorskip("numpy")
    q = ctx.Queue()
    child = crew.start(ctx, put_array_and_die, q)
    child.join(PATIENCE)
    assert child.exitcode == -signal.SIGKILL
    assert (q.get(timeout=PATIENCE) == numpy.arange(MIB, dtype="i8")).all()


# --- 30: the end of a stream ---------------------------------------------------------------------


def shutdown_error(mp: ModuleType) -> type[BaseException]:
    """The documented class: the standard library's own where it exists."""
    error: type[BaseException] = mp.queues.ShutDown
    assert error is getattr(queue, "ShutDown", error)
    assert error is mp.ShutDown
    return error


def blocked_until_shutdown(call: Callable[..., Any], args: tuple[Any, ...], notes: Notes, name: str) -> None:
    notes.write(f"{name}-begins")
    try:
        call(*args)
        outcome = "returned"
    except BaseException as raised:  # what it is, is the question of the test
        outcome = type(raised).__name__
    notes.write(name, [outcome, time.monotonic()])


def method(q: Any, name: str, *args: Any) -> Any:
    return getattr(q, name)(*args)


def test_item_30_shutdown_ends_blocked_calls_in_every_process(ctx: Any, crew: Crew, notes: Notes) -> None:
    """Consumers and producers wait for ever when the others are gone: there is no shutdown() (gh-87971, gh-96471)."""
    empty, full = ctx.Queue(), ctx.Queue(1)
    full.put("stays")
    calls = [(empty, "get"), (empty, "get"), (empty, "get_many", 3), (full, "put", 1), (full, "put_many", [1, 2])]
    children = [
        crew.start(ctx, blocked_until_shutdown, method, call, notes, f"child{i}") for i, call in enumerate(calls)
    ]
    for i, child in enumerate(children):
        notes.read(f"child{i}-begins")
        processes.wait_sleeping(child.pid)
    begin = time.monotonic()
    empty.shutdown()
    full.shutdown()
    for i, child in enumerate(children):
        outcome, end = notes.read(f"child{i}")
        assert outcome == "ShutDown", calls[i]
        check_delay(end - begin, 0.1, f"{calls[i][1]}() raises ShutDown")
        crew.finish(child)


def reference_or_ours(request: pytest.FixtureRequest, maxsize: int = 0) -> tuple[Any, type[BaseException]]:
    if request.param == "threads":
        if not hasattr(queue, "ShutDown"):
            pytest.skip("queue.Queue.shutdown() is there from 3.13 on")
        return queue.Queue, queue.ShutDown
    mp = request.getfixturevalue("mp")
    return mp.JoinableQueue, shutdown_error(mp)


@pytest.fixture(params=["threads", "ours"])
def any_queue(request: pytest.FixtureRequest) -> tuple[Any, type[BaseException]]:
    """queue.Queue, whose behaviour is the reference, and ours; with the class of ShutDown."""
    return reference_or_ours(request)


def test_item_30_shutdown_leaves_what_is_there(any_queue: tuple[Any, type[BaseException]]) -> None:
    """After shutdown() what was put can be taken, then get() raises; put() raises at once."""
    make, error = any_queue
    q = make()
    q.put(1)
    q.put(2)
    q.shutdown()
    q.shutdown()
    for put in (q.put, q.put_nowait):
        with pytest.raises(error):
            put(3)
    assert q.qsize() == 2
    assert q.get() == 1
    assert q.get_nowait() == 2
    q.task_done()
    q.task_done()
    q.join()
    for get in (q.get, q.get_nowait, lambda: q.get(timeout=0.01)):
        with pytest.raises(error):
            get()


def test_item_30_immediate_shutdown_drops_what_is_there(any_queue: tuple[Any, type[BaseException]]) -> None:
    """After shutdown(immediate=True) the queue is empty, get() and put() raise, and join() does not wait."""
    make, error = any_queue
    q = make()
    for i in range(3):
        q.put(i)
    assert q.get() == 0
    q.shutdown(immediate=True)
    assert q.qsize() == 0
    assert q.empty()
    for call in (q.get, q.get_nowait, lambda: q.put(1)):
        with pytest.raises(error):
            call()
    q.task_done()
    q.join()


def test_item_30_full_queue_wakes_with_shutdown(any_queue: tuple[Any, type[BaseException]]) -> None:
    """A full queue that is shut down raises ShutDown in put(), not Full."""
    make, error = any_queue
    q = make(1)
    q.put(1)
    with pytest.raises(queue.Full):
        q.put(2, timeout=0.01)
    q.shutdown()
    with pytest.raises(error):
        q.put(2, timeout=PATIENCE)
    with pytest.raises(error):
        q.put_nowait(2)
    assert q.get() == 1


def shut_down_and_die(q: Any) -> None:
    q.shutdown()
    kill_self()


def test_item_30_shutdown_by_a_process_that_is_killed(mp: ModuleType, ctx: Any, crew: Crew) -> None:
    """A queue stays shut down whatever becomes of the process that did it."""
    q = ctx.Queue()
    q.put("left")
    child = crew.start(ctx, shut_down_and_die, q)
    child.join(PATIENCE)
    assert child.exitcode == -signal.SIGKILL
    assert q.get(timeout=PATIENCE) == "left"
    with pytest.raises(mp.queues.ShutDown):
        q.get(timeout=PATIENCE)


# --- 33: shared objects as items -----------------------------------------------------------------


def use_objects_from(q: Any, notes: Notes) -> None:
    lock, semaphore, event, condition, barrier, answers = q.get(timeout=PATIENCE)
    assert not lock.acquire(block=False)
    assert semaphore.acquire(timeout=PATIENCE)
    assert not event.is_set()
    event.set()
    with condition:
        condition.notify_all()
    barrier.wait(PATIENCE)
    answers.put("done")


def test_item_33_shared_objects_travel_through_a_queue(ctx: Any, crew: Crew, notes: Notes) -> None:
    """Locks and queues cannot be put in a queue: "should only be shared between processes through inheritance"."""
    q = ctx.Queue()
    child = crew.start(ctx, use_objects_from, q, notes)  # it is there before the objects are
    lock, semaphore, event = ctx.Lock(), ctx.Semaphore(1), ctx.Event()
    condition, barrier, answers = ctx.Condition(), ctx.Barrier(2), ctx.Queue()
    lock.acquire()
    with condition:
        q.put((lock, semaphore, event, condition, barrier, answers))
        assert condition.wait(PATIENCE)
    barrier.wait(PATIENCE)
    assert event.is_set()
    assert answers.get(timeout=PATIENCE) == "done"
    assert not semaphore.acquire(block=False)
    crew.finish(child)
    lock.release()


@pytest.mark.parametrize("kind", QUEUES)
def test_item_33_a_queue_through_a_queue_through_a_queue(ctx: Any, kind: str) -> None:
    """Queues within queues keep what is in them, when nothing else refers to them any more."""
    outer = ctx.Queue()
    for i in range(50):
        middle, inner = ctx.Queue(), getattr(ctx, kind)()
        inner.put(("innermost", i))
        middle.put(inner)
        outer.put(middle)
        del middle, inner
        gc.collect()
    for i in range(50):
        assert outer.get_nowait().get_nowait().get() == ("innermost", i)


def test_item_33_a_queue_in_itself(ctx: Any) -> None:
    """A queue may be its own item; taking it out gives the same queue."""
    q = ctx.Queue()
    q.put(q)
    q.put("second")
    assert q.get(timeout=PATIENCE).get(timeout=PATIENCE) == "second"


def hold_object(q: Any, notes: Notes, name: str) -> None:
    lock = q.get(timeout=PATIENCE)
    notes.write(name)
    notes.read("maker is dead")
    assert lock.acquire(timeout=PATIENCE)
    lock.release()


def send_lock_and_die(q: Any, ctx: Any, receivers: int, notes: Notes) -> None:
    lock = ctx.Lock()
    for _ in range(receivers):
        q.put(lock)
    for i in range(receivers):
        notes.read(f"receiver{i}")
    kill_self()


def test_item_33_object_lives_until_its_last_holder(ctx: Any, crew: Crew, notes: Notes) -> None:
    """A lock is gone when the process that made it has ended, though others still use it (gh-94765)."""
    q = ctx.Queue()
    receivers = [crew.start(ctx, hold_object, q, notes, f"receiver{i}") for i in range(2)]
    maker = crew.start(ctx, send_lock_and_die, q, ctx, len(receivers), notes)
    maker.join(PATIENCE)
    assert maker.exitcode == -signal.SIGKILL
    churn = [ctx.Lock() for _ in range(1000)]  # would take the memory of the lock if it were free
    for lock in churn:
        lock.acquire()
    notes.write("maker is dead")
    for receiver in receivers:
        crew.finish(receiver)


def set_event_from(connection: Any) -> None:
    event, q = connection.recv()
    event.set()
    q.put("through a pipe")


def test_item_33_shared_objects_travel_through_a_pipe(ctx: Any, crew: Crew) -> None:
    """Events and queues cannot be sent through a Connection."""
    try:
        here, there = ctx.Pipe()
    except NotImplementedError as missing:
        pytest.skip(f"Pipe comes later: {missing}")
    child = crew.start(ctx, set_event_from, there)
    there.close()
    event, q = ctx.Event(), ctx.Queue()
    here.send((event, q))
    assert event.wait(PATIENCE)
    assert q.get(timeout=PATIENCE) == "through a pipe"
    crew.finish(child)
    here.close()


# --- 47: timeouts --------------------------------------------------------------------------------


def use_queue_for_ever(q: Any) -> None:
    """Keeps about half of the places of the queue taken."""
    large = b"l" * 100_000
    while True:
        for i in range(5):
            q.put(i)
        q.put(large)
        for _ in range(6):
            q.get()


@pytest.mark.watchdog(120)
@pytest.mark.parametrize("maxsize", [0, 8])
def test_item_47_timeouts_hold_while_peers_are_stopped(mp: ModuleType, crew: Crew, maxsize: int) -> None:
    """get(timeout) and put(timeout) wait for a peer that was stopped in the middle of its own call (gh-87971)."""
    ctx = mp.get_context("fork")
    q = ctx.Queue(maxsize)
    peer = crew.start(ctx, use_queue_for_ever, q)
    for _ in range(scale(100, 1000)):
        with stopped(peer):
            for call in (lambda: q.get(timeout=0.02), lambda: q.put("mine", timeout=0.02)):
                begin = time.monotonic()
                try:
                    call()
                except (queue.Empty, queue.Full):
                    check_delay(time.monotonic() - begin, 0.07, "a call with timeout=0.02 beside a stopped peer")
            with within(0.05, "non-blocking calls beside a stopped peer"):
                for call in (q.get_nowait, lambda: q.put_nowait("mine")):
                    try:
                        call()
                    except (queue.Empty, queue.Full):
                        continue
    crew.kill(peer)
    while q.qsize():
        q.get(timeout=PATIENCE)


NO_WAIT = {"0": 0, "0.0": 0.0, "-1": -1, "-1.5": -1.5, "-inf": float("-inf"), "-1e300": -1e300, "-10**400": -(10**400)}
FOR_EVER = {"inf": float("inf"), "1e300": 1e300, "1e10": 1e10, "10**400": 10**400, "None": None}


@pytest.mark.parametrize("timeout", NO_WAIT.values(), ids=NO_WAIT)
def test_item_47_zero_and_negative_do_not_wait(mp: ModuleType, timeout: float) -> None:
    """A timeout of zero or less never waits and is no error."""
    q = mp.Queue(1)
    with within(0.05, "get() of an empty queue"), pytest.raises(queue.Empty):
        q.get(timeout=timeout)
    q.put(1, timeout=timeout)
    with within(0.05, "put() into a full queue"), pytest.raises(queue.Full):
        q.put(2, timeout=timeout)
    with within(0.05, "put_many() into a full queue"), pytest.raises(queue.Full):
        q.put_many([2], timeout=timeout)
    assert q.get(timeout=timeout) == 1
    with within(0.05, "get_many() of an empty queue"), pytest.raises(queue.Empty):
        q.get_many(3, timeout=timeout)


@pytest.mark.parametrize("timeout", FOR_EVER.values(), ids=FOR_EVER)
def test_item_47_endless_timeouts(mp: ModuleType, crew: Crew, notes: Notes, timeout: float) -> None:
    """A timeout beyond what the clock can say is an error, or overflows to one that is over at once."""
    ctx = mp.get_context("fork")
    q = ctx.Queue(1)
    getter = crew.start(ctx, get_with_timeout, q, timeout, notes)
    notes.read("begins")
    processes.wait_sleeping(getter.pid)
    assert not notes.has("got")
    q.put("x", timeout=timeout)
    assert notes.read("got") == "x"
    crew.finish(getter)


def get_with_timeout(q: Any, timeout: float, notes: Notes) -> None:
    notes.write("begins")
    notes.write("got", q.get(timeout=timeout))
