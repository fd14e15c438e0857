# SPDX-License-Identifier: PSF-2.0
"""Faults of the standard library that have to do with ctypes objects in shared memory.

Each test is named after its number in the project's list of such faults; gh-N is an issue of CPython.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import apart
from tests.support.memory import KIB, MIB, descriptors, family_bytes, status, total
from tests.support.scene import PATIENCE, Crew, Notes, kill_self, scale

METHODS = ("fork", "spawn", "forkserver")


class Pair(ctypes.Structure):
    _fields_ = [("left", ctypes.c_longlong), ("right", ctypes.c_longlong)]


# --- 2: killed holders ---------------------------------------------------------------------------


def take_and_die(value: Any) -> None:
    value.get_lock().acquire()
    kill_self()


def test_item_02_value_whose_lock_was_held_by_a_killed_process(ctx: Any, mp: ModuleType, crew: Crew) -> None:
    """A process killed within `with v.get_lock()` leaves a Value that nobody can read any more."""
    value = ctx.Value("i")
    for access in (lambda: value.value, lambda: value.add(1), lambda: setattr(value, "value", 5)):
        child = crew.start(ctx, take_and_die, value)
        child.join(PATIENCE)
        assert child.exitcode == -signal.SIGKILL
        with pytest.warns(mp.OwnerDiedWarning):
            access()
    assert value.value == 5
    assert value.get_lock().owner_died


def add_for_ever(counter: Any, marks: Any, mine: int) -> None:
    warnings.simplefilter("ignore")
    while True:
        with counter.get_lock():
            counter.value += 1
        counter.add(1)
        marks[mine] += 1


def test_item_02_counters_go_on_when_processes_are_killed(mp: ModuleType, crew: Crew) -> None:
    """Random SIGKILLs among processes that count together: nobody hangs, nothing but the last step of each is lost."""
    ctx = mp.get_context("fork")
    counter, marks = ctx.Value("q"), ctx.RawArray("q", 64)
    mortal = scale(12, 60)
    crowd = [crew.start(ctx, add_for_ever, counter, marks, i) for i in range(2)]
    for i in range(2, mortal):
        time.sleep(0.02)
        victim = crowd.pop(0)
        crew.kill(victim)
        crowd.append(crew.start(ctx, add_for_ever, counter, marks, i))
    for child in crowd:
        crew.kill(child)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reached = counter.value
    # Each round adds two and then makes a mark; whoever was killed did at most one round without a mark.
    assert sum(marks) > 0
    assert 2 * sum(marks) <= reached <= 2 * sum(marks) + 2 * mortal
    assert counter.add(1) == reached + 1


# --- 20: no bus error ----------------------------------------------------------------------------


def use_large(method: str, size: int) -> dict[str, Any]:
    """An array of `size` bytes, written by a child, every page of it."""
    import cmultiprocessing as mp

    ctx = mp.get_context(method)
    array = ctx.Array("B", size)
    child = ctx.Process(target=write_pages, args=(array,))
    child.start()
    child.join(PATIENCE)
    code = child.exitcode
    child.close()
    pages = bytes(memoryview(array.get_obj()).cast("B")[::4096])
    return {"exitcode": code, "right": pages == b"\7" * len(pages)}


def write_pages(array: Any) -> None:
    view = memoryview(array.get_obj()).cast("B")
    for i in range(0, len(view), 4096):
        view[i] = 7


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shm", ["8m", "absent"])
def test_item_20_small_dev_shm_limits_no_array(method: str, shm: str) -> None:
    """An Array larger than /dev/shm ends in a bus error or ENOSPC (gh-114390, gh-144281)."""
    result = apart.run(use_large, method, 64 * MIB, shm=shm)
    assert result == {"exitcode": 0, "right": True}


def refused(size: int, tries: int) -> dict[str, Any]:
    """Ask for what cannot be; what is there must stay, and small things go on."""
    import cmultiprocessing as mp
    from cmultiprocessing.heap import BufferWrapper

    stays, words = mp.Array("q", range(100)), set()
    for _ in range(tries):
        for make in (lambda: mp.RawArray("B", size), lambda: mp.Array("B", size), lambda: BufferWrapper(size)):
            try:
                make()
            except mp.MemoryLimitError as error:
                words.add(str(error))
            else:
                raise AssertionError(f"{size} bytes were not refused")
        small = mp.Value("i", 5)
        assert small.add(1) == 6
        assert stays[:] == list(range(100))
    return {"words": sorted(words), "rss": status("VmRSS")}


@pytest.mark.watchdog(240)
@pytest.mark.parametrize("limit", ["MemAvailable", "CMULTIPROCESSING_MEMORY_LIMIT"])
def test_item_20_more_than_memory_is_refused(limit: str) -> None:
    """Where memory ends there is a bus error at the first access, instead of an exception at the making (gh-114390)."""
    given: dict[str, Any] = {}
    too_large = 80 * MIB
    if limit == "MemAvailable":
        available = total() // 64 + 256 * MIB  # a part of the machine's memory is never taken
        too_large = available + MIB
        given["meminfo"] = f"MemTotal: {total() // KIB} kB\nMemFree: 0 kB\nMemAvailable: {available // KIB} kB\n"
    else:
        given["env"] = {limit: str(64 * MIB)}
    result = apart.run(refused, too_large, scale(50, 1000), **given)
    assert result["words"]
    for text in result["words"]:
        for word in (f"a shared block of {too_large} bytes", limit, "limit"):
            assert word in text, text


def fill_with_arrays(size: int) -> dict[str, Any]:
    """Take until the limit refuses, drop all, and again."""
    import cmultiprocessing as mp

    counts, words = [], ""
    for _ in range(3):
        kept = []
        try:
            while len(kept) < 1000:
                kept.append(mp.RawArray("B", size))
                ctypes.memset(kept[-1], 0xFF, size)
        except mp.MemoryLimitError as error:
            words = str(error)
        counts.append(len(kept))
        del kept
    return {"counts": counts, "words": words}


@pytest.mark.parametrize("size", [16, 3000, MIB])
def test_item_20_up_to_the_limit_and_again(size: int) -> None:
    """What was dropped at the limit can be taken again, whatever its size."""
    limit = (8 if size < KIB else 32) * MIB
    result = apart.run(fill_with_arrays, size if size > 16 else 2000, env={"CMULTIPROCESSING_MEMORY_LIMIT": str(limit)})
    first, *others = result["counts"]
    assert limit // 4 <= first * max(size, 2000) <= limit or first == 1000, result
    assert all(count >= first * 0.9 for count in others), result


def without_address_space(tries: int) -> str:
    """More than RLIMIT_AS leaves."""
    import cmultiprocessing as mp

    words = ""
    for _ in range(tries):
        try:
            mp.RawArray("B", 1 << 33)
        except MemoryError as error:
            words = f"{type(error).__name__}: {error}"
        else:
            raise AssertionError("8 GiB fit into 1 GiB")
    assert mp.Value("i", 5).value == 5
    return words


@pytest.mark.no_sanitizer
def test_item_20_address_space_ends() -> None:
    """The same where it is address space that is short."""
    words = apart.run(without_address_space, 20, limits={resource.RLIMIT_AS: 1 << 30})
    assert words.startswith("MemoryLimitError: a shared block of 8589934592 bytes"), words


# --- 32 and 33: other start methods, other roads, dead senders -----------------------------------


def use_value(value: Any, array: Any, pair: Any) -> None:
    with value.get_lock():
        value.value += 1
    array[1] = value.value
    pair.left, pair.right = 3, 4


def test_item_32_values_of_the_default_context(mp: ModuleType, ctx: Any, crew: Crew) -> None:
    """A Value of the default context cannot be given to a process of another start method (gh-77377)."""
    value, array, pair = mp.Value("i", 6), mp.Array("d", 2), mp.Value(Pair)
    crew.finish(crew.start(ctx, use_value, value, array, pair))
    assert (value.value, array[:], pair.left, pair.right) == (7, [0.0, 7.0], 3, 4)


def tell(value: Any, array: Any, raw: Any, notes: Notes) -> None:
    notes.write(f"seen {value.value}", [value.value, array[:], raw.left])


def make_process(ctx: Any, i: int, notes: Notes) -> Any:
    return ctx.Process(
        target=tell, args=(ctx.Value("i", i), ctx.Array("i", [i] * 1000), ctx.RawValue(Pair, i, 0), notes)
    )


def test_item_32_values_that_only_the_arguments_refer_to(ctx: Any, crew: Crew, notes: Notes) -> None:
    """A Value made for a child alone is gone before it has unpickled it (gh-94765)."""
    children = [crew.enlist(make_process(ctx, i, notes)) for i in range(3)]
    gc.collect()
    others = [ctx.Value("i", -1) for _ in range(200)]
    for i, child in enumerate(children):
        crew.finish(child)
        assert notes.read(f"seen {i}") == [i, [i] * 1000, i]
    del others


def send_values_and_die(q: Any, ctx: Any) -> None:
    value, array = ctx.Value("i", 77), ctx.Array("d", range(5000))
    q.put((value, array, value.get_lock(), ctx.RawArray(Pair, [(1, 2), (3, 4)])))
    kill_self()


def test_item_33_values_outlive_their_maker(ctx: Any, crew: Crew) -> None:
    """Values cannot be put in a queue; here they live as long as anybody has them, or the queue does."""
    q = ctx.Queue()
    child = crew.start(ctx, send_values_and_die, q, ctx)
    child.join(PATIENCE)
    assert child.exitcode == -signal.SIGKILL
    others = [ctx.Array("d", [-1.0] * 5000) for _ in range(5)] + [ctx.Value("i", -1) for _ in range(500)]
    value, array, lock, pairs = q.get(timeout=PATIENCE)
    assert value.value == 77
    assert array[:] == [float(i) for i in range(5000)]
    assert [(pair.left, pair.right) for pair in pairs] == [(1, 2), (3, 4)]
    with lock:
        assert value.add(1) == 78, "the lock is an RLock, and the Value's own"
        assert value.get_lock()._count() == 1
    del others


def hold_value(q: Any, notes: Notes, name: str) -> None:
    view = memoryview(q.get(timeout=PATIENCE).get_obj()).cast("B").cast("d")
    gc.collect()
    notes.write(name)
    notes.read("maker is dead")
    assert view[3] == 3.0
    view[3] = 3.0


def send_array_and_die(q: Any, ctx: Any, receivers: int, notes: Notes) -> None:
    array = ctx.Array("d", range(100))
    for _ in range(receivers):
        q.put(array)
    for i in range(receivers):
        notes.read(f"receiver{i}")
    kill_self()


def test_item_33_a_view_in_another_process_outlives_the_maker(ctx: Any, crew: Crew, notes: Notes) -> None:
    """What a receiver looks at stays, though the maker is dead and the receiver has only a memoryview left."""
    q = ctx.Queue()
    receivers = [crew.start(ctx, hold_value, q, notes, f"receiver{i}") for i in range(2)]
    maker = crew.start(ctx, send_array_and_die, q, ctx, len(receivers), notes)
    maker.join(PATIENCE)
    assert maker.exitcode == -signal.SIGKILL
    churn = [ctx.RawArray("d", [-1.0] * 100) for _ in range(1000)]
    notes.write("maker is dead")
    for receiver in receivers:
        crew.finish(receiver)
    del churn


# --- 55: memory comes back -----------------------------------------------------------------------


def churn(kind: str, rounds: int) -> list[dict[str, int]]:
    """Make and drop; usage after a tenth and at the end."""
    import cmultiprocessing as mp
    from cmultiprocessing import _cmultiprocessing as native
    from cmultiprocessing import heap

    makers = {
        "Value": lambda i: mp.Value("i", i),
        "Array": lambda i: mp.Array("d", 10 + i % 50),
        "large Array": lambda i: mp.RawArray("B", 10_000 + i % 5 * 100_000),
        "structure": lambda i: mp.Value(Pair, i, i),
        "BufferWrapper": lambda i: heap.BufferWrapper(100),
        "view": lambda i: memoryview(mp.RawArray("i", 10)),
    }
    make, seen = makers[kind], []
    for i in range(rounds):
        make(i)
        if i in (rounds // 10, rounds - 1):
            gc.collect()
            native.family_collect()
            seen.append({"family": family_bytes(), "private": status("RssAnon"), "descriptors": descriptors(),
                         "shm": len(os.listdir("/dev/shm"))})  # fmt: skip
    return seen


def check_flat(seen: list[dict[str, int]]) -> None:
    first, last = seen
    slack = {"family": 256 * KIB, "private": 512 * KIB}
    for name in first:
        assert last[name] <= first[name] * 1.02 + slack.get(name, 0), f"{name} grew from {first[name]} to {last[name]}"


@pytest.mark.no_sanitizer
@pytest.mark.watchdog(600)
@pytest.mark.parametrize("kind", ["Value", "Array", "large Array", "structure", "BufferWrapper", "view"])
def test_item_55_made_and_dropped(kind: str) -> None:
    """A million Values and Arrays made and dropped leave memory where it was."""
    rounds = scale(100_000, 1_000_000) // (20 if kind == "large Array" else 1)
    check_flat(apart.run(churn, kind, rounds, timeout=500))


def churn_through_children(method: str, rounds: int) -> list[dict[str, int]]:
    """Values given to a child each round, some of which are killed."""
    import cmultiprocessing as mp
    from cmultiprocessing import _cmultiprocessing as native

    ctx, seen = mp.get_context(method), []
    for i in range(rounds):
        value, array = ctx.Value("i", i), ctx.Array("d", 2000)
        child = ctx.Process(target=take_and_die if i % 3 == 0 else use_array, args=(value, array)[: 1 + (i % 3 > 0)])
        child.start()
        child.join(PATIENCE)
        assert child.exitcode == (-signal.SIGKILL if i % 3 == 0 else 0), child.exitcode
        child.close()
        del value, array, child
        if i in (rounds // 5, rounds - 1):
            gc.collect()
            native.family_collect()
            seen.append({"family": family_bytes(), "private": status("RssAnon"), "descriptors": descriptors()})
    return seen


def use_array(value: Any, array: Any) -> None:
    array[value.value] = 1.0


@pytest.mark.no_sanitizer
@pytest.mark.watchdog(600)
@pytest.mark.parametrize("method", METHODS)
def test_item_55_given_to_children(method: str) -> None:
    """The same for those that went to children, killed ones among them."""
    rounds = scale(300, 1500) if method == "fork" else scale(30, 300)
    check_flat(apart.run(churn_through_children, method, rounds, timeout=500))


def test_item_55_nothing_has_a_name(mp: ModuleType, ctx: Any, crew: Crew) -> None:
    """Arrays are files in a folder, and stay there when their maker is killed."""
    names = sorted(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else []
    array = ctx.Array("B", 10 * MIB)
    assert (sorted(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else []) == names
    del array
