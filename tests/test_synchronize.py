# SPDX-License-Identifier: PSF-2.0
"""Locks, semaphores, conditions, events and barriers: what is documented, and what we promise beyond.

What happens when processes are killed stands in test_faults_synchronize.py.
"""

from __future__ import annotations

import gc
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from tests.support.processes import wait_until as wait_until_within

KINDS = ("Lock", "RLock", "Semaphore", "BoundedSemaphore")
EVERYTHING: dict[str, tuple[Any, ...]] = {
    "Lock": (), "RLock": (), "Semaphore": (3,), "BoundedSemaphore": (3,), "Condition": (), "Event": (), "Barrier": (2,),
}  # fmt: skip


def wait_until(condition: Callable[[], bool]) -> None:
    wait_until_within(condition, 30.0, "what another thread does")


def make(package: Any, kind: str) -> Any:
    return getattr(package, kind)(*EVERYTHING[kind])


@contextmanager
def threads(*functions: Callable[[], object]) -> Iterator[None]:
    """Threads that run beside the block and end with it."""
    running = [threading.Thread(target=function) for function in functions]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        for thread in running:
            thread.join()


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """SIGINT in the main thread, from a timer."""
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


# --- Lock, RLock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_acquire_says_whether_it_is_held(both: ModuleType, kind: str) -> None:
    lock = make(both, kind)
    assert lock.acquire() is True
    found: list[bool] = []
    with threads(lambda: found.extend([lock.acquire(False), lock.acquire(block=False), lock.acquire(timeout=0)])):
        pass
    assert found == [False, False, False]
    assert lock.release() is None


def test_lock_is_not_recursive(both: ModuleType) -> None:
    lock = both.Lock()
    with lock:
        assert lock.acquire(False) is False
        assert lock.acquire(True, 0.01) is False


def test_lock_may_be_released_by_another_thread(both: ModuleType) -> None:
    lock = both.Lock()
    lock.acquire()
    with threads(lock.release):
        pass
    assert lock.acquire(False)
    lock.release()


def test_free_lock_cannot_be_released(both: ModuleType) -> None:
    with pytest.raises(ValueError, match="released too many times"):
        both.Lock().release()


def test_rlock_counts(both: ModuleType) -> None:
    lock = both.RLock()
    others: list[bool] = []
    for _ in range(3):
        assert lock.acquire()
    for _ in range(3):
        with threads(lambda: others.append(lock.acquire(False))):
            pass
        lock.release()
    assert others == [False, False, False]
    with pytest.raises(AssertionError, match="not owned by thread"):
        lock.release()


def test_rlock_of_another_thread_cannot_be_released(both: ModuleType) -> None:
    lock = both.RLock()
    errors: list[type[BaseException]] = []

    def release() -> None:
        try:
            lock.release()
        except AssertionError as error:
            errors.append(type(error))

    with lock, threads(release):
        pass
    assert errors == [AssertionError]


def test_locked(mp: ModuleType) -> None:
    for lock in (mp.Lock(), mp.RLock()):
        assert lock.locked() is False
        with lock:
            assert lock.locked() is True
        assert lock.locked() is False
    semaphore = mp.Semaphore(1)
    with semaphore:
        assert semaphore.locked()
    assert not semaphore.locked()


@pytest.mark.parametrize("timeout", [0.0, -1, -math.inf, 0.05, 10**-9])
def test_acquire_ends_by_its_deadline(both: ModuleType, timeout: float) -> None:
    if both.__name__ == "multiprocessing" and timeout == -math.inf:
        pytest.skip("the standard library refuses minus infinity on some versions")
    semaphore = both.Semaphore(0)
    begin = time.monotonic()
    assert semaphore.acquire(True, timeout) is False
    assert time.monotonic() - begin >= max(timeout, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**400, None], ids=["inf", "1e300", "10**400", "None"])
def test_timeouts_beyond_any_clock(mp: ModuleType, kind: str, timeout: float) -> None:
    lock = make(mp, kind)
    assert lock.acquire(timeout=timeout)
    lock.release()


@pytest.mark.parametrize("kind", KINDS)
def test_bad_timeouts(mp: ModuleType, kind: str) -> None:
    lock = make(mp, kind)
    with pytest.raises(TypeError):
        lock.acquire(timeout="soon")
    with pytest.raises(ValueError, match="NaN"):
        lock.acquire(timeout=math.nan)
    with pytest.raises(TypeError, match="unexpected keyword"):
        lock.acquire(wait=True)
    with pytest.raises(TypeError, match="multiple values"):
        lock.acquire(True, block=True)
    with pytest.raises(TypeError, match="at most 2"):
        lock.acquire(True, 1, 2)


def test_owner_died_is_false_at_first(mp: ModuleType) -> None:
    assert mp.Lock().owner_died is False
    assert mp.RLock().owner_died is False


# --- semaphores --------------------------------------------------------------------------------------


def test_semaphore_counts(both: ModuleType) -> None:
    semaphore = both.Semaphore(2)
    assert [semaphore.get_value(), semaphore.acquire(), semaphore.get_value()] == [2, True, 1]
    assert [semaphore.acquire(), semaphore.acquire(False), semaphore.get_value()] == [True, False, 0]
    for value in (1, 2, 3):
        assert semaphore.release() is None
        assert semaphore.get_value() == value


def test_bounded_semaphore_has_a_bound(both: ModuleType) -> None:
    semaphore = both.BoundedSemaphore(2)
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    with semaphore:
        assert semaphore.get_value() == 1
    assert semaphore.get_value() == 2


def test_no_limit_of_32767(mp: ModuleType) -> None:
    from cmultiprocessing.synchronize import SEM_VALUE_MAX

    assert SEM_VALUE_MAX == 2**31 - 1
    semaphore = mp.Semaphore(SEM_VALUE_MAX)
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    assert mp.BoundedSemaphore(100_000).get_value() == 100_000


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_bad_values(mp: ModuleType, kind: str) -> None:
    for value in (-1, 2**31, 2**70):
        with pytest.raises(ValueError, match="value must be between 0 and 2147483647"):
            getattr(mp, kind)(value)
    with pytest.raises(TypeError):
        getattr(mp, kind)("1")
    with pytest.raises(ValueError, match="between 0 and 4096"):
        getattr(mp, kind)(4097, robust=True)


def test_robust_semaphore_counts_like_any_other(mp: ModuleType) -> None:
    semaphore = mp.Semaphore(1, robust=True)
    assert semaphore.acquire()
    assert semaphore.acquire(timeout=0.01) is False
    semaphore.release()
    semaphore.release()
    assert semaphore.get_value() == 2
    bounded = mp.BoundedSemaphore(1, robust=True)
    with pytest.raises(ValueError, match="released too many times"):
        bounded.release()


def hand_off(mine: Any, other: Any, rounds: int) -> None:
    for _ in range(rounds):
        mine.acquire()
        other.release()


def test_semaphores_hand_off(ctx: Any) -> None:
    here, there = ctx.Semaphore(0), ctx.Semaphore(0)
    child = ctx.Process(target=hand_off, args=(there, here, 2000))
    child.start()
    for _ in range(2000):
        there.release()
        assert here.acquire(timeout=30)
    child.join()
    assert child.exitcode == 0
    assert (here.get_value(), there.get_value()) == (0, 0)


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore"])
def test_only_one_at_a_time(mp: ModuleType, kind: str) -> None:
    """Reading and writing back a file's number is not atomic; under the lock no addition is lost."""
    lock = getattr(mp, kind)()
    descriptor = os.memfd_create("number")
    os.write(descriptor, b"%8d" % 0)

    def add() -> None:
        for _ in range(500):
            with lock:
                number = int(os.pread(descriptor, 8, 0))
                os.pwrite(descriptor, b"%8d" % (number + 1), 0)

    context = mp.get_context("fork")
    children = [context.Process(target=add) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert int(os.pread(descriptor, 8, 0)) == 2000
    os.close(descriptor)


# --- Condition ---------------------------------------------------------------------------------------


def test_condition_without_its_lock(both: ModuleType) -> None:
    condition = both.Condition()
    for call in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(AssertionError):
            call()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_condition_lets_go_of_its_lock(both: ModuleType, kind: str) -> None:
    condition = both.Condition(make(both, kind))
    held: list[bool] = []

    def notify() -> None:
        with condition:
            held.append(True)
            condition.notify()

    with condition, threads(notify):
        assert condition.wait(30) is True
        assert held == [True]
        assert condition.acquire(False) is (kind == "RLock")
        if kind == "RLock":
            condition.release()


def test_condition_saves_the_depth(both: ModuleType) -> None:
    condition = both.Condition()
    with condition, condition, condition:
        assert condition.wait(0.01) is False
    with pytest.raises(AssertionError):
        condition.release()


def test_wait_for(both: ModuleType) -> None:
    condition = both.Condition()
    state: list[int] = []

    def work() -> None:
        for number in range(4):
            with condition:
                state.append(number)
                condition.notify()

    with condition:
        assert condition.wait_for(lambda: 0, 0.02) == 0
        with threads(work):
            assert condition.wait_for(lambda: len(state) == 4 and "all", 30) == "all"


def sleep_at(condition: Any, asleep: Any, woken: Any) -> None:
    with condition:
        asleep.release()
        condition.wait()
        woken.release()


def test_notify_wakes_exactly_so_many(ctx: Any) -> None:
    condition, asleep, woken = ctx.Condition(), ctx.Semaphore(0), ctx.Semaphore(0)
    children = [ctx.Process(target=sleep_at, args=(condition, asleep, woken)) for _ in range(4)]
    for child in children:
        child.start()
    for _ in children:
        assert asleep.acquire(timeout=60)
    with condition:
        assert condition._sleeping_count.get_value() == 4
        condition.notify(3)
    for _ in range(3):
        assert woken.acquire(timeout=60)
    assert woken.acquire(timeout=0.1) is False
    with condition:
        condition.notify(100)
    assert woken.acquire(timeout=60)
    for child in children:
        child.join()
    with condition:
        condition.notify_all()
        assert condition._sleeping_count.get_value() == 0


def test_late_sleepers_steal_nothing(mp: ModuleType) -> None:
    condition = mp.Condition()
    order: list[str] = []

    def sleep(name: str) -> None:
        with condition:
            order.append(f"{name} sleeps")
            assert condition.wait(30)
            order.append(f"{name} wakes")

    with threads(lambda: sleep("first")):
        wait_until(lambda: "first sleeps" in order)
        with condition:
            condition.notify()
            late = threading.Thread(target=sleep, args=("second",))
            late.start()
        wait_until(lambda: "first wakes" in order)
    wait_until(lambda: "second sleeps" in order)
    assert "second wakes" not in order
    with condition:
        condition.notify()
    late.join()


def test_condition_wants_one_of_our_locks(mp: ModuleType) -> None:
    for lock in (threading.Lock(), 3, mp.Semaphore()):
        with pytest.raises(TypeError, match="must be a Lock or RLock of this package"):
            mp.Condition(lock)


# --- Event -------------------------------------------------------------------------------------------


def test_event(both: ModuleType) -> None:
    event = both.Event()
    assert not event.is_set()
    assert event.wait(0.01) is False
    assert event.wait(timeout=0) is False
    with threads(event.set):
        assert event.wait() is True
    assert event.is_set()
    assert event.wait(0) is True
    event.clear()
    assert not event.is_set()


def test_event_wakes_all(ctx: Any) -> None:
    event = ctx.Event()
    children = [ctx.Process(target=event.wait) for _ in range(3)]
    for child in children:
        child.start()
    event.set()
    for child in children:
        child.join(60)
        assert child.exitcode == 0


def test_many_sets_are_seen_once_each(mp: ModuleType) -> None:
    """set() directly followed by clear() reaches whoever began to wait before."""
    event, ready = mp.Event(), mp.Semaphore(0)
    seen: list[bool] = []

    def wait() -> None:
        for _ in range(300):
            ready.release()
            seen.append(event.wait(30))

    with threads(wait):
        for round_ in range(300):
            ready.acquire()
            while len(seen) == round_:
                event.set()
                event.clear()
    assert seen == [True] * 300


# --- Barrier -----------------------------------------------------------------------------------------


def test_barrier_gives_each_another_index(mp: ModuleType) -> None:
    actions: list[int] = []
    barrier = mp.Barrier(3, action=lambda: actions.append(1))
    for round_ in range(20):
        indices: list[int] = []
        with threads(*[lambda: indices.append(barrier.wait(30))] * 2):  # noqa: B023
            indices.append(barrier.wait(30))
        assert sorted(indices) == [0, 1, 2]
        assert len(actions) == round_ + 1
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)


def meet(barrier: Any, rounds: int) -> None:
    for _ in range(rounds):
        barrier.wait(60)


def test_barrier_between_processes(ctx: Any) -> None:
    barrier = ctx.Barrier(3)
    children = [ctx.Process(target=meet, args=(barrier, 200)) for _ in range(2)]
    for child in children:
        child.start()
    meet(barrier, 200)
    for child in children:
        child.join()
        assert child.exitcode == 0


def test_barrier_timeout_breaks_it(mp: ModuleType) -> None:
    barrier = mp.Barrier(2, timeout=0.02)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(30)
    barrier.reset()
    assert not barrier.broken
    with threads(lambda: barrier.wait(30)):
        barrier.wait(30)


@pytest.mark.parametrize("how", ["abort", "reset"])
def test_barrier_abort_and_reset(mp: ModuleType, how: str) -> None:
    barrier = mp.Barrier(3)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            barrier.wait(30)
        except threading.BrokenBarrierError as error:
            errors.append(error)

    with threads(wait, wait):
        wait_until(lambda: barrier.n_waiting == 2)
        getattr(barrier, how)()
    assert len(errors) == 2
    assert barrier.broken is (how == "abort")
    assert barrier.n_waiting == 0


def test_barrier_action_that_raises_breaks_it(mp: ModuleType) -> None:
    def fail() -> None:
        raise LookupError("action")

    barrier = mp.Barrier(2, fail)
    found: list[str] = []

    def wait() -> None:
        try:
            barrier.wait(30)
        except (LookupError, threading.BrokenBarrierError) as error:
            found.append(type(error).__name__)

    with threads(wait, wait):
        pass
    assert sorted(found) == ["BrokenBarrierError", "LookupError"]
    assert barrier.broken


def test_barrier_waits_while_an_action_runs(mp: ModuleType) -> None:
    """Who comes while the action of a full barrier runs belongs to the next round."""
    running, go_on = threading.Event(), threading.Event()

    def act() -> None:
        running.set()
        assert go_on.wait(30)
        running.clear()

    barrier = mp.Barrier(1, act)
    done: list[int] = []
    with threads(lambda: done.append(barrier.wait(30)), lambda: done.append(barrier.wait(30))):
        assert running.wait(30)
        time.sleep(0.02)
        assert done == []
        go_on.set()
    assert done == [0, 0]


def test_barrier_bad_values(mp: ModuleType) -> None:
    with pytest.raises(TypeError, match="parties"):
        mp.Barrier()
    with pytest.raises(ValueError, match="parties must be between 1 and"):
        mp.Barrier(0)
    with pytest.raises(TypeError):
        mp.Barrier(2, timeout="soon")


# --- signals -----------------------------------------------------------------------------------------


def blocked_calls(mp: ModuleType) -> dict[str, Callable[[], object]]:
    condition, lock = mp.Condition(), mp.Lock()
    lock.acquire()

    def wait_at_condition() -> None:
        with condition:
            condition.wait(60)

    return {
        "lock": lambda: lock.acquire(timeout=60),
        "semaphore": lambda: mp.Semaphore(0).acquire(timeout=60),
        "robust": lambda: mp.Semaphore(0, robust=True).acquire(timeout=60),
        "event": lambda: mp.Event().wait(60),
        "condition": wait_at_condition,
        "barrier": lambda: mp.Barrier(2).wait(60),
    }


@pytest.mark.parametrize("what", ["lock", "semaphore", "robust", "event", "condition", "barrier"])
def test_ctrl_c_interrupts_every_wait(mp: ModuleType, what: str) -> None:
    call = blocked_calls(mp)[what]
    with interrupted_after(0.05), pytest.raises(KeyboardInterrupt):
        call()


def test_handlers_run_while_a_call_waits(mp: ModuleType) -> None:
    """A handler may release what its thread is waiting for (PEP 475: the wait goes on otherwise)."""
    semaphore = mp.Semaphore(0)
    seen: list[int] = []

    def handler(number: int, frame: object) -> None:
        seen.append(number)
        if len(seen) == 3:
            semaphore.release()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        assert semaphore.acquire(timeout=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) >= 3


# --- pickles, life -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERYTHING)
def test_a_pickle_names_the_same_object(mp: ModuleType, kind: str) -> None:
    original = make(mp, kind)
    original.note = "kept"
    copy = pickle.loads(pickle.dumps(original))
    assert type(copy) is type(original)
    assert copy.note == "kept"
    if kind == "Event":
        original.set()
        assert copy.is_set()
    elif kind == "Barrier":
        original.abort()
        assert copy.broken
    else:
        with original:
            found: list[bool] = []
            with threads(lambda: found.append(copy.acquire(False))):
                pass
            assert found == [kind in ("Semaphore", "BoundedSemaphore")]


@pytest.mark.parametrize("kind", EVERYTHING)
def test_weak_references_attributes_and_cycles(mp: ModuleType, kind: str) -> None:
    thing = make(mp, kind)
    thing.itself = thing
    reference = weakref.ref(thing)
    del thing
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("kind", EVERYTHING)
def test_subclasses(mp: ModuleType, kind: str) -> None:
    from cmultiprocessing import synchronize

    base = getattr(synchronize, kind)

    class Named(base):  # type: ignore[misc, valid-type]
        def __init__(self, name: str) -> None:
            super().__init__(*EVERYTHING[kind], ctx=None)
            self.label = name

    named = Named("a name")
    assert named.label == "a name"
    assert isinstance(named, base)

    class Forgetful(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match=r"__init__\(\) was not called"):
        repr(Forgetful())
    with pytest.raises(RuntimeError, match=r"__init__\(\) called twice"):
        named.__init__("again")


def use_passed(thing: Any, kind: str, done: Any) -> None:
    if kind == "Event":
        thing.set()
    elif kind == "Barrier":
        thing.abort()
    else:
        assert thing.acquire(timeout=30)
        thing.release()
    done.release()


@pytest.mark.parametrize("kind", EVERYTHING)
def test_start_arguments(ctx: Any, kind: str) -> None:
    done = ctx.Semaphore(0)
    child = ctx.Process(target=use_passed, args=(make(ctx, kind), kind, done))
    child.start()
    assert done.acquire(timeout=60)
    child.join()
    assert child.exitcode == 0


def test_foreign_and_damaged_tickets(mp: ModuleType) -> None:
    from cmultiprocessing import _cmultiprocessing as native

    ticket = native.Lock().__reduce__()[1][1]
    for bad in (b"", b"x" * len(ticket), ticket[:-1]):
        with pytest.raises((ValueError, RuntimeError)):
            native.Lock._attach(bad)
    with pytest.raises(RuntimeError, match=r"gone|damaged"):
        native.Event._attach(native.Lock().__reduce__()[1][1])
    with pytest.raises(ValueError, match="not the ticket"):
        native.Lock._attach("text")


def test_a_pickle_outside_of_the_family(mp: ModuleType) -> None:
    data = pickle.dumps(mp.Lock())
    program = "import pickle, sys; pickle.loads(bytes.fromhex(sys.argv[1]))"
    result = subprocess.run([sys.executable, "-c", program, data.hex()], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "RuntimeError" in result.stderr
    assert "Manager" in result.stderr
    assert "SharedMemory(name=...)" in result.stderr


# --- repr, private names -------------------------------------------------------------------------------


def leave_unless_foreign(lock: Any) -> None:
    sys.exit(repr(lock) != "<Lock(owner=SomeOtherProcess)>")


def test_repr_of_locks(both: ModuleType) -> None:
    lock, rlock = both.Lock(), both.RLock()
    assert (repr(lock), repr(rlock)) == ("<Lock(owner=None)>", "<RLock(None, 0)>")
    seen: list[str] = []

    def look() -> None:
        seen.extend([repr(lock), repr(rlock)])

    def hold() -> None:
        with lock, rlock:
            look()

    with lock, rlock, rlock:
        assert (repr(lock), repr(rlock)) == ("<Lock(owner=MainProcess)>", "<RLock(MainProcess, 2)>")
        thread = threading.Thread(target=look, name="T")
        thread.start()
        thread.join()
        child = both.get_context("fork").Process(
            target=lambda: sys.exit(repr(lock) != "<Lock(owner=SomeOtherProcess)>")
        )
        child.start()
        child.join()
        assert child.exitcode == 0
    thread = threading.Thread(target=hold, name="T")
    thread.start()
    thread.join()
    assert seen == [
        "<Lock(owner=SomeOtherThread)>",
        "<RLock(SomeOtherThread, nonzero)>",
        "<Lock(owner=MainProcess|T)>",
        "<RLock(MainProcess|T, 1)>",
    ]


def test_repr_of_the_others(both: ModuleType) -> None:
    assert repr(both.Semaphore(3)) == "<Semaphore(value=3)>"
    assert repr(both.BoundedSemaphore(3)) == "<BoundedSemaphore(value=3, maxvalue=3)>"
    assert repr(both.Condition()) == "<Condition(<RLock(None, 0)>, 0)>"
    event = both.Event()
    assert repr(event).startswith("<Event at 0x")
    assert repr(event).endswith(" unset>")


def test_repr_of_barriers(mp: ModuleType) -> None:
    barrier = mp.Barrier(2)
    assert repr(barrier).endswith(": waiters=0/2>")
    barrier.abort()
    assert repr(barrier).endswith(": broken>")


def test_names_that_libraries_use(mp: ModuleType) -> None:
    from cmultiprocessing import synchronize

    lock, rlock, semaphore = mp.Lock(), mp.RLock(), mp.Semaphore(2)
    with rlock, lock:
        assert (rlock._semlock._is_mine(), rlock._semlock._count()) == (True, 1)
        assert (lock._semlock._get_value(), lock._semlock._is_zero()) == (0, True)
    assert (lock._semlock._get_value(), rlock._semlock._count()) == (1, 0)
    assert (semaphore._semlock._get_value(), semaphore._semlock._is_zero()) == (2, False)
    assert rlock._semlock.kind == synchronize.RECURSIVE_MUTEX
    assert lock._semlock.kind == semaphore._semlock.kind == synchronize.SEMAPHORE
    assert (lock._semlock.maxvalue, mp.BoundedSemaphore(7)._semlock.maxvalue) == (1, 7)
    assert lock._semlock.name is None
    assert all(isinstance(thing, synchronize.SemLock) for thing in (lock, rlock, semaphore, mp.BoundedSemaphore()))
    assert not isinstance(mp.Event(), synchronize.SemLock)
    assert lock._semlock.handle != rlock._semlock.handle
    assert lock._semlock._after_fork() is None


def test_handlers_may_call_any_method_at_any_time(mp: ModuleType) -> None:
    """An itimer at 1 kHz whose handler does what the interrupted thread does, for a second; then in finalizers."""
    event, condition, semaphore, lock = mp.Event(), mp.Condition(), mp.Semaphore(1), mp.RLock()
    calls = 0

    def use_everything() -> None:
        event.set()
        assert event.is_set() or event.wait(0) in (True, False)
        event.clear()
        with condition:
            condition.notify_all()
            condition.wait(0)
        with lock:
            repr(lock)
        if semaphore.acquire(False):
            semaphore.release()
        mp.Lock()

    def handler(number: int, frame: object) -> None:
        nonlocal calls
        calls += 1
        use_everything()

    class Finalized:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            use_everything()

    before = signal.signal(signal.SIGALRM, handler)
    threshold = gc.get_threshold()
    gc.set_threshold(20)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            Finalized()
            use_everything()
            event.wait(0.0005)
            with condition:
                condition.wait(0.0005)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.set_threshold(*threshold)
    assert calls > 10
    assert semaphore.get_value() == 1
