# SPDX-License-Identifier: PSF-2.0
"""Faults of the standard library that have to do with /dev/shm, memory limits and descriptors.

Each test is named after its number in the project's list of such faults; gh-N is an issue of CPython. What needs
limits of its own runs in an interpreter of its own (support/apart.py).
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import apart
from tests.support.memory import KIB, MIB, descriptors, mappings, total
from tests.support.scene import PATIENCE, scale

METHODS = ("fork", "spawn", "forkserver")


# --- 19 and 20: /dev/shm -------------------------------------------------------------------------


def answer(lock: Any, event: Any, condition: Any, barrier: Any, requests: Any, answers: Any) -> None:
    """A child that uses one of each."""
    with lock:
        event.set()
    with condition:
        condition.notify_all()
    barrier.wait(PATIENCE)
    answers.put(requests.get(timeout=PATIENCE)[::-1])


def use_all(method: str, size: int) -> dict[str, Any]:
    """Locks, queues and processes doing something; with a message of `size` bytes."""
    import cmultiprocessing as mp

    names = sorted(os.listdir("/dev/shm")) if os.path.exists("/dev/shm") else None
    ctx = mp.get_context(method)
    lock, event, condition, barrier = ctx.Lock(), ctx.Event(), ctx.Condition(), ctx.Barrier(2)
    requests, answers = ctx.Queue(), ctx.Queue()
    with condition:
        child = ctx.Process(target=answer, args=(lock, event, condition, barrier, requests, answers))
        child.start()
        woken = condition.wait(PATIENCE)
    barrier.wait(PATIENCE)
    message = b"a" * (size - 1) + b"z"
    requests.put(message)
    right = answers.get(timeout=PATIENCE) == message[::-1]
    child.join(PATIENCE)
    result = {"woken": woken, "set": event.is_set(), "right": right, "exitcode": child.exitcode, "shm": names}
    child.close()
    return result


def standard_lock() -> str:
    """What the standard library's lock does here."""
    import multiprocessing

    try:
        multiprocessing.Lock()
    except OSError as error:
        return type(error).__name__
    return "works"


def test_item_19_the_sandbox_has_no_dev_shm() -> None:
    """The sandbox of the next test is one in which the standard library fails (gh: AWS Lambda and others)."""
    assert apart.run(standard_lock, shm="absent") != "works"
    assert apart.run(standard_lock) == "works"


@pytest.mark.parametrize("method", METHODS)
def test_item_19_works_without_dev_shm(method: str) -> None:
    """Semaphores, and with them queues, cannot be made where there is no /dev/shm (AWS Lambda, some sandboxes)."""
    result = apart.run(use_all, method, 10 * KIB, shm="absent")
    assert result == {"woken": True, "set": True, "right": True, "exitcode": 0, "shm": None}


@pytest.mark.parametrize("method", METHODS)
def test_item_20_small_dev_shm_limits_nothing(method: str) -> None:
    """A small /dev/shm, as in containers, ends in a bus error or ENOSPC (gh-114390, gh-144281)."""
    result = apart.run(use_all, method, 64 * MIB, shm="8m")
    assert result == {"woken": True, "set": True, "right": True, "exitcode": 0, "shm": []}


def fill_until_refused(size: int, tries: int) -> dict[str, Any]:
    """Put until the limit refuses, take all out again, and do so again: what was refused, and what was lost."""
    import cmultiprocessing as mp

    q = mp.Queue()
    words, counts = "", []
    for _ in range(tries):
        count = 0
        try:
            while count < 1000:
                q.put(bytes([count % 251]) * size)
                count += 1
        except mp.MemoryLimitError as error:
            words = str(error)
        counts.append(count)
        assert q.qsize() == count
        for i in range(count):
            assert q.get_nowait() == bytes([i % 251]) * size
        assert q.empty()
    return {"words": words, "counts": counts}


@pytest.mark.watchdog(240)
@pytest.mark.parametrize("limit", ["MemAvailable", "CMULTIPROCESSING_MEMORY_LIMIT", "memory.max"])
def test_item_20_memory_is_refused_not_taken_away(tmp_path: Path, limit: str) -> None:
    """Where memory ends there is a bus error, or the kernel kills somebody, instead of an exception (gh-114390)."""
    given: dict[str, Any] = {}
    too_large = 80 * MIB
    if limit == "MemAvailable":
        available = total() // 64 + 256 * MIB  # a part of the machine's memory is never taken
        too_large = available + MIB
        given["meminfo"] = f"MemTotal: {total() // KIB} kB\nMemFree: 0 kB\nMemAvailable: {available // KIB} kB\n"
    elif limit == "memory.max":
        group = tmp_path / "cgroup"
        group.mkdir()
        (group / "memory.max").write_text(f"{256 * MIB}\n")
        (group / "memory.current").write_text(f"{192 * MIB}\n")
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        path = Path("/sys/fs/cgroup") / own.removeprefix("0::").lstrip("/")
        if not path.is_dir():
            pytest.skip(f"{path}, the unified control group, is not there")
        given["mounts"] = {str(path): str(group)}
    else:
        given["env"] = {limit: str(64 * MIB)}
    if limit == "CMULTIPROCESSING_MEMORY_LIMIT":
        result = apart.run(fill_until_refused, MIB, scale(5, 20), **given)
        assert max(result["counts"]) <= 64
        assert min(result["counts"]) >= 32, "much less than the limit could be used"
    else:
        # The files do not change as memory is taken, so one item beyond what they allow is the test.
        result = apart.run(refused_at_once, too_large, scale(50, 1000), **given)
    for word in ("Queue", "put", limit, "bytes"):
        assert word in result["words"], result["words"]


def refused_at_once(size: int, tries: int) -> dict[str, Any]:
    """Try to put what cannot be: no try may lose what is there."""
    import cmultiprocessing as mp

    q = mp.Queue()
    q.put("stays")
    item, words = bytes(size), ""
    for _ in range(tries):
        try:
            q.put(item)
        except mp.MemoryLimitError as error:
            words = str(error)
        else:
            raise AssertionError(f"{size} bytes were not refused")
        assert q.qsize() == 1
        q.put("small ones go on")
        assert q.get_nowait() == "stays"
        assert q.get_nowait() == "small ones go on"
        q.put("stays")
    return {"words": words}


# --- 42: how many there may be -------------------------------------------------------------------


def make_many(locks: int, queues: int) -> dict[str, Any]:
    """Make and use so many, and count what they cost."""
    import cmultiprocessing as mp

    mp.Lock()
    before = {"descriptors": descriptors(), "mappings": mappings()}
    all_locks = [mp.Lock() for _ in range(locks)]
    all_queues = [mp.Queue() for _ in range(queues)]
    after = {"descriptors": descriptors(), "mappings": mappings()}
    for lock in all_locks:
        if not lock.acquire(block=False):
            raise AssertionError("two locks are one")
    for i, q in enumerate(all_queues):
        q.put(i)
    for lock in all_locks:
        lock.release()
    for i, q in enumerate(all_queues):
        if q.get_nowait() != i or not q.empty():
            raise AssertionError("two queues are one")
    return {name: after[name] - before[name] for name in before}


@pytest.mark.watchdog(240)
def test_item_42_100_000_locks_and_10_000_queues_with_1024_descriptors() -> None:
    """Locks and queues use up descriptors and mappings: ENOMEM at 65 270 locks, EMFILE at a few hundred queues."""
    more = apart.run(make_many, 100_000, 10_000, limits={resource.RLIMIT_NOFILE: 1024})
    assert more["descriptors"] <= 2
    assert more["mappings"] <= 200  # windows of the one mapping and Python's own arenas; not one each


def pass_many(count: int) -> dict[str, Any]:
    """Send so many objects to a child, use each there, get all of them back."""
    import cmultiprocessing as mp

    ctx = mp.get_context("fork")
    there, back = ctx.Queue(), ctx.Queue()
    child = ctx.Process(target=acquire_and_return, args=(there, back, count))
    child.start()
    locks = [mp.Lock() for _ in range(count)]
    for lock in locks:
        there.put(lock)
    returned = [back.get(timeout=PATIENCE) for _ in range(count)]
    child.join(PATIENCE)
    held = sum(not lock.acquire(block=False) for lock in locks)
    for lock in returned:
        lock.release()
    free = sum(lock.acquire(block=False) for lock in locks)
    code = child.exitcode
    child.close()
    return {"held": held, "free": free, "exitcode": code, "descriptors": descriptors() < 100}


def acquire_and_return(there: Any, back: Any, count: int) -> None:
    """Hand each lock back locked; an orderly exit leaves it so."""
    for _ in range(count):
        lock = there.get(timeout=PATIENCE)
        lock.acquire()
        back.put(lock)


@pytest.mark.watchdog(240)
def test_item_42_many_passed_objects_with_1024_descriptors() -> None:
    """Passed objects use up descriptors ("received 0 items of ancdata")."""
    count = scale(20_000, 100_000)
    result = apart.run(pass_many, count, limits={resource.RLIMIT_NOFILE: 1024})
    assert result == {"held": count, "free": count, "exitcode": 0, "descriptors": True}


def use_without_descriptors(method: str) -> dict[str, Any]:
    """Take every descriptor there is, then use what needs none and try what needs some."""
    import cmultiprocessing as mp

    ctx = mp.get_context(method)
    old = ctx.Queue()
    old.put("before")
    ctx.Lock()  # its module is loaded
    if method != "fork":  # what the first start loads is loaded, the fork server runs
        warm = ctx.Process(target=time.time)
        warm.start()
        warm.join()
        warm.close()
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        full = descriptors_without_listing()
    lock, q = ctx.Lock(), ctx.Queue()
    with lock:
        q.put(b"x" * MIB)
        q.put([lock, "pickled"])
    answers = [len(q.get_nowait()), q.get_nowait()[1], old.get_nowait()]
    child = ctx.Process(target=old.put, args=("from the child",))
    try:
        child.start()
        words = "started"
    except OSError as error:
        words = f"{error.errno} {error}"
    began = child.pid is not None
    for fd in taken:
        os.close(fd)
    if not began:
        child = ctx.Process(target=old.put, args=("from the child",))
        child.start()
    answers.append(old.get(timeout=PATIENCE))
    child.join(PATIENCE)
    code = child.exitcode
    child.close()
    return {"full": full, "answers": answers, "words": words, "exitcode": code}


def descriptors_without_listing() -> bool:
    """Whether none is left."""
    try:
        os.close(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return True
    return False


@pytest.mark.parametrize("method", METHODS)
def test_item_42_no_descriptors_left(method: str) -> None:
    """Without a free descriptor nothing can be made; with us only starting a process needs some, and says so."""
    result = apart.run(use_without_descriptors, method, limits={resource.RLIMIT_NOFILE: 128})
    assert result["full"]
    assert result["answers"] == [MIB, "pickled", "before", "from the child"]
    assert result["exitcode"] == 0
    assert "Too many open files" in result["words"]


def test_item_42_semaphores_beyond_32767(mp: ModuleType) -> None:
    """A semaphore or a bounded queue cannot count beyond 32 767 on some systems (multiprocess#66)."""
    semaphore = mp.Semaphore(1_000_000)
    assert semaphore.get_value() == 1_000_000
    q = mp.Queue(100_000)
    q.put_many(range(100_000))
    assert q.full()
    assert q.qsize() == 100_000
    assert q.get_many(100_000, timeout=PATIENCE)[-1] == 99_999 or q.qsize() > 0
    assert mp.synchronize.SEM_VALUE_MAX >= 2**31 - 1


# --- a process stopped in the middle of the allocator --------------------------------------------

PROCESSES_AT, PROCESS_SIZE, PROCESS_SLOTS = 16 * KIB, 64, 64  # shm/layout.h; as many slots as are looked at
HEAP_MUTEX_AT = 128


def _family_memory() -> mmap.mmap:
    """The first pages of this process's family memory."""
    for name in os.listdir("/proc/self/fd"):
        link = f"/proc/self/fd/{name}"
        if os.path.islink(link) and os.readlink(link).startswith("/memfd:cmultiprocessing"):
            return mmap.mmap(int(name), PROCESSES_AT + PROCESS_SIZE * PROCESS_SLOTS)
    raise AssertionError("no descriptor of the family's memory")


def _owner_of(memory: mmap.mmap, pid: int) -> int:
    """What a mutex says that is held by the process `pid`."""
    for slot in range(1, PROCESS_SLOTS):
        entry = memory[PROCESSES_AT + PROCESS_SIZE * slot :][:12]
        incarnation, in_use, found = struct.unpack("=III", entry)
        if in_use and found == pid:
            return int(incarnation << 15 | slot)
    raise AssertionError(f"pid {pid} is not in the table of processes")


def stand_by(ready: Any, done: Any) -> None:
    ready.set()
    done.wait(PATIENCE)


def use_a_stopped_heap() -> dict[str, Any]:
    """The heap's mutex names a process that lives and does nothing: what the others do."""
    import queue as exceptions

    import cmultiprocessing as mp

    ctx = mp.get_context("fork")
    q, ready, done = ctx.Queue(), ctx.Event(), ctx.Event()
    _receiver, sender = ctx.Pipe(False)
    child = ctx.Process(target=stand_by, args=(ready, done))
    child.start()
    assert ready.wait(PATIENCE)
    large = bytes(3 * MIB)
    q.put("before")
    result: dict[str, Any] = {}

    def timed(name: str, call: Callable[[], Any]) -> None:
        begin = time.monotonic()
        try:
            outcome = call()
        except (exceptions.Full, exceptions.Empty, KeyboardInterrupt) as error:
            outcome = type(error).__name__
        result[name] = [outcome, time.monotonic() - begin]

    def make_locks() -> None:
        kept = []
        while True:
            kept.append(ctx.Lock())

    with _family_memory() as memory:
        word = struct.pack("=I", _owner_of(memory, child.pid))
        memory[HEAP_MUTEX_AT : HEAP_MUTEX_AT + 4] = word
        timed("put_nowait", lambda: q.put_nowait(large))
        timed("put", lambda: q.put(large, timeout=0.3))
        timed("put_many", lambda: q.put_many([1, large], timeout=0.3))
        timed("get", q.get)
        timed("get many's", q.get)
        timed("get_nowait", q.get_nowait)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        timed("locks", make_locks)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        timed("pipe", lambda: sender.send_bytes(large))
        # As the owner's unlock would do it, but that nobody is woken: sleepers look again after a slice.
        memory[HEAP_MUTEX_AT : HEAP_MUTEX_AT + 4] = bytes(4)
        timed("put afterwards", lambda: q.put(large, timeout=PATIENCE))
        timed("get afterwards", lambda: len(q.get(timeout=PATIENCE)))
    done.set()
    child.join(PATIENCE)
    child.close()
    return result


def test_a_process_stopped_in_the_heap() -> None:
    """Who needs memory then waits no longer than its deadline, and Ctrl-C ends the wait; the rest goes on."""
    result = apart.run(use_a_stopped_heap)
    outcomes = {name: outcome for name, (outcome, _) in result.items()}
    assert outcomes == {
        "put_nowait": "Full", "put": "Full", "put_many": "Full", "get": "before", "get many's": 1,
        "get_nowait": "Empty", "locks": "KeyboardInterrupt",
        "pipe": "KeyboardInterrupt", "put afterwards": None, "get afterwards": 3 * MIB,
    }  # fmt: skip
    # The deadlines are what was promised: 30 ms of patience with a mutex beyond them, and a busy machine.
    assert result["put_nowait"][1] < 1 and result["get_nowait"][1] < 1
    assert 0.3 <= result["put"][1] < 2 and 0.3 <= result["put_many"][1] < 2
