# SPDX-License-Identifier: PSF-2.0
"""Faults of the standard library's locks, conditions, events and barriers that users meet, which must not be here.

Each test is named after its number in the project's list of such faults; gh-N is an issue of CPython.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.support import processes
from tests.support.scene import PATIENCE, Crew, Notes, check_delay, kill_self, scale, state, stopped, within

LOCKS = ("Lock", "RLock")


# --- 2: a killed holder --------------------------------------------------------------------------


def hold(lock: Any, notes: Notes) -> None:
    lock.acquire()
    notes.write("held")
    while True:
        signal.pause()


def held_by_child(ctx: Any, crew: Crew, notes: Notes, lock: Any) -> Any:
    """A child that holds the lock until it is killed."""
    child = crew.start(ctx, hold, lock, notes)
    notes.read("held")
    return child


@pytest.mark.parametrize("kind", LOCKS)
def test_item_02_lock_of_a_killed_holder(mp: ModuleType, ctx: Any, crew: Crew, notes: Notes, kind: str) -> None:
    """A lock whose holder was killed stays locked for ever, and nobody is told why (gh-88304)."""
    lock = getattr(ctx, kind)()
    assert not lock.owner_died
    holder = held_by_child(ctx, crew, notes, lock)
    assert not lock.acquire(block=False)
    assert lock.locked()
    crew.kill(holder)
    with within(0.1, "taking over"), pytest.warns(mp.OwnerDiedWarning, match=kind):
        assert lock.acquire(timeout=PATIENCE)
    assert lock.owner_died
    assert not taken_elsewhere(ctx, crew, lock), "the lock was taken over and nevertheless is free"
    lock.release()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # reported once, not at each acquire
        with lock:
            assert lock.locked()
    assert not lock.locked()


FOUNDER_KILLED = """
import os, signal, sys, warnings
import cmultiprocessing as mp

lock = mp.Lock()
ready, heir = os.pipe()
if os.fork() == 0:
    os.close(heir)
    os.read(ready, 1)  # the end of file is its parent's death
    warnings.simplefilter("ignore", mp.OwnerDiedWarning)
    os.write(1, b"taken" if lock.acquire(timeout=float(sys.argv[1])) else b"lost")
    os._exit(0)
lock.acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_item_02_lock_of_a_killed_founder() -> None:
    """The first process of a family is killed: what its forked children inherited must not keep it alive."""
    command = [sys.executable, "-c", FOUNDER_KILLED, str(PATIENCE)]
    # The pipe ends with the heir, not with the process that was started.
    ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=4 * PATIENCE, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b"taken"


def exit_with_try(lock: Any) -> None:
    os._exit(10 + bool(lock.acquire(block=False)))


def taken_elsewhere(ctx: Any, crew: Crew, lock: Any) -> bool:
    """Whether another process can take the lock."""
    child = crew.start(ctx, exit_with_try, lock)
    child.join(PATIENCE)
    assert child.exitcode in (10, 11)
    return bool(child.exitcode == 11)


@pytest.mark.parametrize("kind", LOCKS)
def test_item_02_non_blocking_acquire_takes_over_too(mp: ModuleType, crew: Crew, notes: Notes, kind: str) -> None:
    """A program that only ever asks without waiting never gets the lock of a killed holder (gh-88304)."""
    ctx = mp.get_context("fork")
    lock = getattr(ctx, kind)()
    crew.kill(held_by_child(ctx, crew, notes, lock))
    with pytest.warns(mp.OwnerDiedWarning):
        assert lock.acquire(block=False)
    lock.release()


def acquire_and_note(lock: Any, notes: Notes, name: str) -> None:
    warnings.simplefilter("ignore")
    notes.write(f"{name}-begins")
    got = lock.acquire(timeout=PATIENCE)
    notes.write(name, [got, time.monotonic(), bool(getattr(lock, "owner_died", False))])
    lock.release()


@pytest.mark.parametrize("kind", LOCKS)
def test_item_02_waiters_get_the_lock_of_a_killed_holder(ctx: Any, crew: Crew, notes: Notes, kind: str) -> None:
    """Processes that already wait for a lock wait for ever when its holder, or a waiter, is killed (gh-88304)."""
    lock = getattr(ctx, kind)()
    holder = held_by_child(ctx, crew, notes, lock)
    waiters = [crew.start(ctx, acquire_and_note, lock, notes, f"waiter{i}") for i in range(3)]
    for i, waiter in enumerate(waiters):
        notes.read(f"waiter{i}-begins")
        processes.wait_sleeping(waiter.pid)
    crew.kill(waiters[0])
    begin = time.monotonic()
    crew.kill(holder)
    for i in (1, 2):
        got, end, owner_died = notes.read(f"waiter{i}")
        assert got
        assert owner_died
        check_delay(end - begin, 0.1, "a waiter has the lock")
    for waiter in waiters[1:]:
        crew.finish(waiter)


def hold_and_end(lock: Any, how: str) -> None:
    lock.acquire()
    if how == "os._exit":
        os._exit(0)
    if how == "terminated":
        kill_self(signal.SIGTERM)
    if how == "killed":
        kill_self()


@pytest.mark.parametrize("how", ["killed", "terminated", "os._exit"])
@pytest.mark.parametrize("kind", LOCKS)
def test_item_02_every_hard_end_counts(mp: ModuleType, crew: Crew, kind: str, how: str) -> None:
    """A holder that ends without Python's clean-up leaves the lock locked, whatever ended it (gh-88304)."""
    ctx = mp.get_context("fork")
    lock = getattr(ctx, kind)()
    crew.start(ctx, hold_and_end, lock, how).join(PATIENCE)
    with pytest.warns(mp.OwnerDiedWarning):
        assert lock.acquire(timeout=1)
    lock.release()


def test_item_02_orderly_exit_leaves_a_plain_lock_locked(ctx: Any, crew: Crew) -> None:
    """A plain Lock may be released by another process than its holder: an orderly exit does not free it."""
    lock = ctx.Lock()
    child = crew.start(ctx, hold_and_end, lock, "returned")
    crew.finish(child)
    assert not lock.acquire(block=False)
    assert not lock.acquire(timeout=0.3)  # several looks at who is alive
    assert not lock.owner_died
    lock.release()
    assert lock.acquire(block=False)
    lock.release()


def test_item_02_orderly_exit_frees_an_rlock(mp: ModuleType, ctx: Any, crew: Crew) -> None:
    """An RLock can be released by its holder alone: when that one is gone in whatever way, it is free."""
    lock = ctx.RLock()
    crew.finish(crew.start(ctx, hold_and_end, lock, "returned"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mp.OwnerDiedWarning)
        assert lock.acquire(timeout=1)
    lock.release()


def test_item_02_robust_false_never_takes_over(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """Lock(robust=False) is as the standard library's: it stays locked when its holder was killed."""
    ctx = mp.get_context("fork")
    lock = ctx.Lock(robust=False)
    crew.kill(held_by_child(ctx, crew, notes, lock))
    assert not lock.acquire(block=False)
    assert not lock.acquire(timeout=0.3)
    lock.release()


@pytest.mark.parametrize("kind", LOCKS)
def test_item_02_warning_as_error_leaves_the_lock_free(mp: ModuleType, crew: Crew, notes: Notes, kind: str) -> None:
    """Where the warning of the take-over is an error, the lock must not stay locked behind it."""
    ctx = mp.get_context("fork")
    lock = getattr(ctx, kind)()
    crew.kill(held_by_child(ctx, crew, notes, lock))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(mp.OwnerDiedWarning):
            lock.acquire(timeout=PATIENCE)
    assert lock.owner_died
    assert taken_elsewhere(ctx, crew, lock)


@pytest.mark.parametrize("kind", LOCKS)
def test_item_02_with_statement_takes_over(mp: ModuleType, crew: Crew, notes: Notes, kind: str) -> None:
    """The with statement hangs on a lock whose holder was killed (gh-88304)."""
    ctx = mp.get_context("fork")
    lock = getattr(ctx, kind)()
    crew.kill(held_by_child(ctx, crew, notes, lock))
    with pytest.warns(mp.OwnerDiedWarning), lock:
        assert lock.locked()
    assert not lock.locked()


@pytest.mark.parametrize("kind", LOCKS)
def test_item_02_a_stopped_holder_is_not_dead(mp: ModuleType, crew: Crew, notes: Notes, kind: str) -> None:
    """Nobody takes a lock from a holder that is merely stopped."""
    ctx = mp.get_context("fork")
    lock = getattr(ctx, kind)()
    holder = held_by_child(ctx, crew, notes, lock)
    with stopped(holder):
        assert not lock.acquire(timeout=0.3)
        assert not lock.acquire(block=False)
    assert not lock.owner_died


def test_item_02_a_dead_thread_of_a_live_process_is_not_a_dead_owner(mp: ModuleType) -> None:
    """Nobody takes a lock from a process that lives, though the thread that took it has ended."""
    lock = mp.Lock()
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    assert not lock.acquire(timeout=0.2)
    lock.release()


def test_item_02_unreaped_holder_is_dead(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """A killed holder that nobody has waited for yet, a zombie, still blocks the lock."""
    ctx = mp.get_context("fork")
    lock = ctx.Lock()
    holder = held_by_child(ctx, crew, notes, lock)
    os.kill(holder.pid, signal.SIGKILL)
    processes.wait_until(lambda: processes.info(holder.pid).state == "Z", PATIENCE, "the holder is a zombie")  # type: ignore[union-attr]
    with pytest.warns(mp.OwnerDiedWarning), within(0.1, "taking over from a zombie"):
        assert lock.acquire(timeout=PATIENCE)
    lock.release()


def exec_something_else(lock: Any, notes: Notes) -> None:
    lock.acquire()
    notes.write("held")
    os.execv("/bin/sleep", ["/bin/sleep", "60"])


def test_item_02_a_holder_that_became_another_program_is_dead(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """A holder that replaced itself by another program (exec) keeps the lock for ever."""
    ctx = mp.get_context("fork")
    lock = ctx.Lock()
    holder = crew.start(ctx, exec_something_else, lock, notes)
    notes.read("held")
    processes.wait_until(lambda: processes.command_line(holder.pid).startswith("/bin/sleep"), PATIENCE, "exec is done")
    with pytest.warns(mp.OwnerDiedWarning):
        assert lock.acquire(timeout=PATIENCE)
    lock.release()
    crew.kill(holder)


def test_item_02_nested_rlock_of_a_killed_holder(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """An RLock that a killed process held several times needs one release of its new owner."""
    ctx = mp.get_context("fork")
    lock = ctx.RLock()
    child = crew.start(ctx, hold_twice, lock, notes)
    notes.read("held")
    crew.kill(child)
    with pytest.warns(mp.OwnerDiedWarning):
        assert lock.acquire(timeout=PATIENCE)
    lock.release()
    with pytest.raises(AssertionError):
        lock.release()
    assert taken_elsewhere(ctx, crew, lock)


def hold_twice(lock: Any, notes: Notes) -> None:
    lock.acquire()
    hold(lock, notes)


def test_item_02_tokens_of_killed_processes(ctx: Any, crew: Crew, notes: Notes) -> None:
    """Tokens of a Semaphore(robust=True) that killed processes held come back; the live ones keep theirs."""
    semaphore = ctx.Semaphore(3, robust=True)
    assert semaphore.acquire(block=False)
    holders = [crew.start(ctx, hold_semaphore, semaphore, notes, f"holder{i}") for i in range(2)]
    for i in range(2):
        notes.read(f"holder{i}")
    assert not semaphore.acquire(block=False)
    crew.kill(holders[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with within(0.1, "the token comes back"):
            assert semaphore.acquire(timeout=PATIENCE)
        assert not semaphore.acquire(timeout=0.2), "a live holder lost its token"
        crew.kill(holders[1])
        assert semaphore.acquire(timeout=PATIENCE)
        assert not semaphore.acquire(block=False)
    for _ in range(3):
        semaphore.release()
    assert semaphore.get_value() == 3


def hold_semaphore(semaphore: Any, notes: Notes, name: str) -> None:
    semaphore.acquire()
    notes.write(name)
    while True:
        signal.pause()


def test_item_02_plain_semaphore_has_no_owner(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """Tokens of a plain Semaphore may be given back by anybody: a killed holder's stay away, waiters are unharmed."""
    ctx = mp.get_context("fork")
    semaphore = ctx.Semaphore(1)
    holder = crew.start(ctx, hold_semaphore, semaphore, notes, "holder")
    notes.read("holder")
    waiters = [crew.start(ctx, acquire_and_note, semaphore, notes, f"waiter{i}") for i in range(3)]
    for i, waiter in enumerate(waiters):
        notes.read(f"waiter{i}-begins")
        processes.wait_sleeping(waiter.pid)
    crew.kill(holder)
    crew.kill(waiters[0])
    assert not semaphore.acquire(timeout=0.2)
    semaphore.release()
    for i in (1, 2):
        assert notes.read(f"waiter{i}")[0]
        crew.finish(waiters[i])
    assert semaphore.get_value() == 1


# --- 25: a killed waiter -------------------------------------------------------------------------


def wait_for(what: str, thing: Any, notes: Notes, name: str) -> None:
    if what == "Event":
        notes.write(f"{name}-begins")
        result = thing.wait(PATIENCE)
    else:
        with thing:
            notes.write(f"{name}-begins")
            result = thing.wait(PATIENCE)
    notes.write(name, [result, time.monotonic()])


def wake_all(what: str, thing: Any) -> None:
    if what == "Event":
        thing.set()
    else:
        with thing:
            thing.notify_all()


@pytest.mark.parametrize("what", ["Event", "Condition"])
def test_item_25_killed_waiter_blocks_nobody(ctx: Any, crew: Crew, notes: Notes, what: str) -> None:
    """set() and notify_all() wait for ever for a sleeper that was killed, and is_set() after them (gh-75158)."""
    thing = getattr(ctx, what)()
    waiters = [crew.start(ctx, wait_for, what, thing, notes, f"waiter{i}") for i in range(3)]
    for i, waiter in enumerate(waiters):
        notes.read(f"waiter{i}-begins")
        processes.wait_sleeping(waiter.pid)
    crew.kill(waiters[1])
    begin = time.monotonic()
    with within(0.05, "waking all"):
        wake_all(what, thing)
    if what == "Event":
        assert thing.is_set()
    for i in (0, 2):
        result, end = notes.read(f"waiter{i}")
        assert result
        check_delay(end - begin, 0.1, "the others wake up")
        crew.finish(waiters[i])


def test_item_25_killed_waiter_does_not_swallow_a_notify(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """notify(1) wakes nobody when the oldest sleeper was killed (gh-75158)."""
    ctx = mp.get_context("fork")
    condition = ctx.Condition()
    waiters = []
    for i in range(3):  # one after the other, so that their order is known
        waiters.append(crew.start(ctx, wait_for, "Condition", condition, notes, f"waiter{i}"))
        notes.read(f"waiter{i}-begins")
        with condition:  # it has let go of the lock: it is in the table
            pass
    crew.kill(waiters[0])
    with condition:
        condition.notify()
    assert notes.read("waiter1")[0]
    assert not notes.has("waiter2")
    with condition:
        condition.notify(5)
    assert notes.read("waiter2")[0]
    crew.finish(waiters[1])
    crew.finish(waiters[2])


def test_item_25_notified_and_killed_before_it_ran(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """A wake-up given to a sleeper that is killed before it can act on it is passed on to the next."""
    ctx = mp.get_context("fork")
    condition = ctx.Condition()
    waiters = []
    for i in range(2):
        waiters.append(crew.start(ctx, wait_for, "Condition", condition, notes, f"waiter{i}"))
        notes.read(f"waiter{i}-begins")
        with condition:
            pass
    os.kill(waiters[0].pid, signal.SIGSTOP)  # so that it cannot act on it
    processes.wait_until(lambda: state(waiters[0].pid) == "T", PATIENCE, "the oldest sleeper is stopped")
    with condition:
        condition.notify()
    assert not notes.has("waiter1")
    crew.kill(waiters[0])
    assert notes.read("waiter1")[0]
    crew.finish(waiters[1])


def wait_at_barrier(barrier: Any, notes: Notes, name: str) -> None:
    notes.write(f"{name}-begins")
    try:
        outcome: Any = barrier.wait()
    except threading.BrokenBarrierError:
        outcome = "broken"
    notes.write(name, outcome)


def test_item_25_barrier_with_a_dead_waiter_times_out(ctx: Any, crew: Crew, notes: Notes) -> None:
    """Barrier.wait(timeout) does not end in time when a waiter was killed (gh-123899)."""
    barrier = ctx.Barrier(3)
    waiters = [crew.start(ctx, wait_at_barrier, barrier, notes, f"waiter{i}") for i in range(2)]
    for i, waiter in enumerate(waiters):
        notes.read(f"waiter{i}-begins")
        processes.wait_sleeping(waiter.pid)
    crew.kill(waiters[0])
    begin = time.monotonic()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(timeout=1)
    took = time.monotonic() - begin
    assert took >= 0.99
    check_delay(took, 1.1, "wait(timeout=1)")
    assert notes.read("waiter1") == "broken"
    crew.finish(waiters[1])
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken


def test_item_25_dead_waiter_is_not_counted(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """A barrier opens with one party missing, because the killed one still counts (gh-123899)."""
    ctx = mp.get_context("fork")
    barrier = ctx.Barrier(3)
    dead = crew.start(ctx, wait_at_barrier, barrier, notes, "dead")
    notes.read("dead-begins")
    processes.wait_until(lambda: barrier.n_waiting == 1, PATIENCE, "it waits")
    crew.kill(dead)
    processes.wait_until(lambda: barrier.n_waiting == 0, PATIENCE, "it counts no more")
    waiters = [crew.start(ctx, wait_at_barrier, barrier, notes, f"waiter{i}") for i in range(2)]
    processes.wait_until(lambda: barrier.n_waiting == 2, PATIENCE, "two wait")
    assert not notes.has("waiter0")
    assert not notes.has("waiter1")
    mine = barrier.wait(PATIENCE)
    assert sorted([mine, notes.read("waiter0"), notes.read("waiter1")]) == [0, 1, 2]
    for waiter in waiters:
        crew.finish(waiter)


def die_in_the_action(barrier: Any, notes: Notes) -> None:
    notes.write("arrives")
    barrier.wait()


def test_item_25_killed_while_it_runs_the_action(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """A barrier whose last party is killed while it runs the action keeps the others for ever."""
    ctx = mp.get_context("fork")
    barrier = ctx.Barrier(2, action=kill_self)
    waiter = crew.start(ctx, wait_at_barrier, barrier, notes, "waiter")
    processes.wait_until(lambda: barrier.n_waiting == 1, PATIENCE, "it waits")
    victim = crew.start(ctx, die_in_the_action, barrier, notes)
    victim.join(PATIENCE)
    assert victim.exitcode == -signal.SIGKILL
    assert notes.read("waiter") == "broken"
    crew.finish(waiter)
    assert barrier.broken


# --- 27: lost and wrong wake-ups -----------------------------------------------------------------


def wait_again_and_again(event: Any, stop: Any, notes: Notes) -> None:
    rounds = 0
    while not stop.is_set():
        if not event.wait(PATIENCE):
            notes.write("waits", f"wait() returned False in round {rounds}")
            return
        rounds += 1
    notes.write("waits", rounds)


@pytest.mark.watchdog(300)
def test_item_27_set_and_clear_is_not_missed(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """Event.wait() returns False though set() was called, because clear() followed (gh-95826)."""
    ctx = mp.get_context("fork")
    event, stop = ctx.Event(), ctx.Event()
    waiter = crew.start(ctx, wait_again_and_again, event, stop, notes)
    for _ in range(scale(20_000, 100_000)):
        event.set()
        event.clear()
    processes.wait_sleeping(waiter.pid)
    event.set()  # one that it cannot miss
    event.clear()
    stop.set()
    event.set()
    rounds = notes.read("waits")
    assert isinstance(rounds, int), rounds
    assert rounds >= 1
    crew.finish(waiter)


def sleep_in_rounds(condition: Any, ready: Any, phase: Any, woken: tuple[Any, Any], again: Any) -> None:
    while True:
        with condition:
            ready.release()
            condition.wait()
            woken[phase.get_value()].release()
        again.acquire()


@pytest.mark.watchdog(600)
def test_item_27_notify_wakes_exactly_so_many(mp: ModuleType, crew: Crew) -> None:
    """notify(k) with n sleepers wakes min(k, n) of them, never fewer, never more."""
    ctx = mp.get_context("fork")
    sleepers = 7
    condition, ready, phase = ctx.Condition(), ctx.Semaphore(0), ctx.Semaphore(0)
    woken, again = (ctx.Semaphore(0), ctx.Semaphore(0)), ctx.Semaphore(0)
    for _ in range(sleepers):
        crew.start(ctx, sleep_in_rounds, condition, ready, phase, woken, again)
    for turn in range(scale(500, 100_000)):
        count = turn % (sleepers + 3)
        expected = min(count, sleepers)
        for _ in range(sleepers):
            assert ready.acquire(timeout=PATIENCE)
        with condition:  # nobody holds it, so all of them sleep
            if count:
                condition.notify(count)
        for _ in range(expected):
            assert woken[0].acquire(timeout=PATIENCE), f"notify({count}) woke fewer than {expected}"
        with condition:
            assert woken[0].get_value() == 0, f"notify({count}) woke more than {expected}"
            phase.release()
            condition.notify_all()
        for _ in range(sleepers - expected):
            assert woken[1].acquire(timeout=PATIENCE), "notify_all() forgot a sleeper"
        with condition:
            assert woken[0].get_value() == woken[1].get_value() == 0
        assert phase.acquire(block=False)
        for _ in range(sleepers):
            again.release()


# --- 32: contexts mixed, objects dropped early ---------------------------------------------------


def use_lock_event_queue(lock: Any, event: Any, q: Any) -> None:
    with lock:
        event.set()
    q.put("from the child")


def test_item_32_objects_of_the_default_context(mp: ModuleType, ctx: Any, crew: Crew) -> None:
    """A lock of the default context cannot be given to a process of another start method (gh-77377)."""
    lock, event, q = mp.Lock(), mp.Event(), mp.Queue()
    child = crew.start(ctx, use_lock_event_queue, lock, event, q)
    assert q.get(timeout=PATIENCE) == "from the child"
    assert event.is_set()
    crew.finish(child)


def make_process(ctx: Any, q: Any) -> Any:
    return ctx.Process(target=use_lock_event_queue, args=(ctx.Lock(), ctx.Event(), q))


def test_item_32_objects_that_only_the_arguments_refer_to(ctx: Any, crew: Crew) -> None:
    """Objects made for a child alone are gone before it has unpickled them (gh-94765)."""
    q = ctx.Queue()
    children = [crew.enlist(make_process(ctx, q)) for _ in range(3)]
    assert [q.get(timeout=PATIENCE) for _ in children] == ["from the child"] * 3
    for child in children:
        crew.finish(child)


def pass_on(ctx: Any, lock: Any, event: Any, q: Any, notes: Notes) -> None:
    child = ctx.Process(target=use_lock_event_queue, args=(lock, event, q))
    child.start()
    child.join()
    notes.write("passed on", child.exitcode)


@pytest.mark.parametrize("second", ["fork", "spawn", "forkserver"])
def test_item_32_objects_of_a_grandparent(mp: ModuleType, ctx: Any, crew: Crew, notes: Notes, second: str) -> None:
    """Objects reach a grandchild whatever the start method of each generation (gh-77377)."""
    lock, event, q = ctx.Lock(), ctx.Event(), ctx.Queue()
    child = crew.start(ctx, pass_on, mp.get_context(second), lock, event, q, notes)
    assert q.get(timeout=2 * PATIENCE) == "from the child"
    assert notes.read("passed on") == 0
    assert event.is_set()
    crew.finish(child)


# --- 47: timeouts --------------------------------------------------------------------------------


def blocking_calls(ctx: Any) -> dict[str, Callable[[float], Any]]:
    """A call with a timeout of every object, each of which cannot succeed, all of them in front of a stopped peer."""
    event, condition, barrier, empty = ctx.Event(), ctx.Condition(), ctx.Barrier(2), ctx.Semaphore(0)

    def wait_on_condition(timeout: float) -> Any:
        with condition:
            return condition.wait(timeout)

    def wait_for_on_condition(timeout: float) -> Any:
        with condition:
            return condition.wait_for(lambda: False, timeout)

    def wait_at_barrier_once(timeout: float) -> Any:
        try:
            return barrier.wait(timeout)
        except threading.BrokenBarrierError:
            barrier.reset()
            return False

    return {
        "Event.wait": event.wait,
        "Condition.wait": wait_on_condition,
        "Condition.wait_for": wait_for_on_condition,
        "Barrier.wait": wait_at_barrier_once,
        "Semaphore.acquire": lambda timeout: empty.acquire(timeout=timeout),
    }


CALLS = ("Event.wait", "Condition.wait", "Condition.wait_for", "Barrier.wait", "Semaphore.acquire")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("timeout", [0.1, 0, -1, float("-inf")], ids=str)
def test_item_47_timeouts_are_deadlines(mp: ModuleType, name: str, timeout: float) -> None:
    """A call with a timeout returns late, or refuses a negative one."""
    call = blocking_calls(mp)[name]
    begin = time.monotonic()
    assert not call(timeout)
    took = time.monotonic() - begin
    assert took >= max(timeout, 0) - 0.001
    check_delay(took, max(timeout, 0) + 0.05, f"{name}({timeout})")


@pytest.mark.parametrize("kind", LOCKS)
def test_item_47_lock_of_a_stopped_holder(mp: ModuleType, crew: Crew, notes: Notes, kind: str) -> None:
    """acquire(timeout) of a lock whose holder is stopped ends in time."""
    ctx = mp.get_context("fork")
    lock = getattr(ctx, kind)()
    holder = held_by_child(ctx, crew, notes, lock)
    with stopped(holder):
        for timeout in (0.1, 0, -1):
            begin = time.monotonic()
            assert not lock.acquire(timeout=timeout)
            check_delay(time.monotonic() - begin, max(timeout, 0) + 0.05, f"acquire(timeout={timeout})")


def wake_for_ever(event: Any, condition: Any, semaphore: Any) -> None:
    while True:
        event.set()
        event.clear()
        with condition:
            condition.notify_all()
        semaphore.release()
        semaphore.acquire()


def test_item_47_waits_beside_stopped_wakers(mp: ModuleType, crew: Crew) -> None:
    """A wait with a timeout hangs when the process that was about to wake it is stopped within its call."""
    ctx = mp.get_context("fork")
    event, condition, semaphore = ctx.Event(), ctx.Condition(), ctx.Semaphore(0)
    peer = crew.start(ctx, wake_for_ever, event, condition, semaphore)
    for _ in range(scale(60, 1000)):
        with stopped(peer):
            for call in (lambda: event.wait(0.02), lambda: semaphore.acquire(timeout=0.02), event.is_set):
                begin = time.monotonic()
                call()
                check_delay(time.monotonic() - begin, 0.07, "a call with timeout=0.02 beside a stopped peer")
            with within(0.05, "acquire() of a lock that a stopped peer may hold"):
                if condition.acquire(timeout=0.01):
                    condition.notify_all()
                    condition.release()
        if semaphore.acquire(block=False):
            semaphore.release()


def test_item_47_join_of_a_stopped_child(ctx: Any, crew: Crew, notes: Notes) -> None:
    """Process.join(timeout) of a stopped child ends in time."""
    child = crew.start(ctx, pause_for_ever, notes)
    notes.read("child")
    with stopped(child):
        for timeout in (0.1, 0, -1):
            begin = time.monotonic()
            assert child.join(timeout) is None
            check_delay(time.monotonic() - begin, max(timeout, 0) + 0.05, f"join({timeout})")
            assert child.exitcode is None
            assert child.is_alive()


def pause_for_ever(notes: Notes) -> None:
    notes.write("child")
    while True:
        signal.pause()
