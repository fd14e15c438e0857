# SPDX-License-Identifier: PSF-2.0
"""Wrong arguments, closed objects, foreign and damaged memory, and everything that can be refused.

The documented exception (or a clear one of ours), a message that names the object and the limit, and nothing lost.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import pickle
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from tests.support import apart
from tests.support.memory import MIB, status
from tests.support.processes import wait_sleeping
from tests.support.scene import PATIENCE, Crew, Notes, scale

SHARED = ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier")
SHARED += ("Queue", "JoinableQueue", "SimpleQueue")
METHODS = ("fork", "spawn", "forkserver")
NAN = float("nan")


def make(mp: Any, kind: str) -> Any:
    """One of each kind."""
    return mp.Barrier(2) if kind == "Barrier" else getattr(mp, kind)()


# --- wrong types and values ----------------------------------------------------------------------

Case = tuple[str, Callable[[Any], Any], Any]


def parameters(cases: list[Case]) -> list[Any]:
    """The cases as pytest wants them."""
    return [pytest.param(call, error, id=name) for name, call, error in cases]


CONSTRUCTIONS: list[Case] = [
    ("Semaphore('x')", lambda mp: mp.Semaphore("x"), TypeError),
    ("Semaphore(1.5)", lambda mp: mp.Semaphore(1.5), TypeError),
    ("Semaphore(2**31)", lambda mp: mp.Semaphore(2**31), (ValueError, OverflowError)),
    ("Semaphore(10**30)", lambda mp: mp.Semaphore(10**30), (ValueError, OverflowError)),
    ("BoundedSemaphore(None)", lambda mp: mp.BoundedSemaphore(None), TypeError),
    ("Queue('x')", lambda mp: mp.Queue("x"), TypeError),
    ("Queue(None)", lambda mp: mp.Queue(None), TypeError),
    ("Queue(1, 2, 3, 4)", lambda mp: mp.Queue(1, 2, 3, 4), TypeError),
    ("SimpleQueue(1)", lambda mp: mp.SimpleQueue(1), TypeError),
    ("Lock(1, 2, 3)", lambda mp: mp.Lock(1, 2, 3), TypeError),
    ("Event(1)", lambda mp: mp.Event(1), TypeError),
    ("Process(group=1)", lambda mp: mp.Process(group=1), AssertionError),
    ("Process(bogus=1)", lambda mp: mp.Process(bogus=1), TypeError),
    ("Process(args=3)", lambda mp: mp.Process(args=3), TypeError),
    ("Process(kwargs=3)", lambda mp: mp.Process(kwargs=3), TypeError),
    ("get_context('bogus')", lambda mp: mp.get_context("bogus"), ValueError),
]


@pytest.mark.parametrize(("build", "error"), parameters(CONSTRUCTIONS))
def test_wrong_construction(both: ModuleType, build: Callable[[Any], Any], error: Any) -> None:
    """What cannot be made is refused with the standard library's exception."""
    with pytest.raises(error):
        build(both)


OURS_ONLY: list[Case] = [
    ("BoundedSemaphore(-1)", lambda mp: mp.BoundedSemaphore(-1), ValueError),
    ("Semaphore(-1)", lambda mp: mp.Semaphore(-1), ValueError),
    ("Barrier(0)", lambda mp: mp.Barrier(0), ValueError),
    ("Barrier(-1)", lambda mp: mp.Barrier(-1), ValueError),
    ("Barrier('x')", lambda mp: mp.Barrier("x"), TypeError),
    ("Queue(1.5)", lambda mp: mp.Queue(1.5), TypeError),
    ("Semaphore(-1, robust=True)", lambda mp: mp.Semaphore(-1, robust=True), ValueError),
    ("Semaphore(2**31 - 1, robust=True)", lambda mp: mp.Semaphore(2**31 - 1, robust=True), ValueError),
    ("Condition(3)", lambda mp: mp.Condition(3), (TypeError, AttributeError)),
    ("get_many('x')", lambda mp: mp.Queue().get_many("x"), TypeError),
    ("get_many(-1)", lambda mp: mp.Queue().get_many(-1), ValueError),
    ("put_many(3)", lambda mp: mp.Queue().put_many(3), TypeError),
    ("put_many(None)", lambda mp: mp.Queue().put_many(None), TypeError),
    ("Event.wait(nan)", lambda mp: mp.Event().wait(NAN), ValueError),
    ("Lock.acquire(nan)", lambda mp: mp.Lock().acquire(True, NAN), ValueError),
    ("Semaphore(0).acquire(nan)", lambda mp: mp.Semaphore(0).acquire(True, NAN), ValueError),
    ("Queue.get(nan)", lambda mp: mp.Queue().get(True, NAN), ValueError),
    ("Queue.put(nan)", lambda mp: mp.Queue().put(1, True, NAN), ValueError),
    ("Barrier.wait(nan)", lambda mp: mp.Barrier(2).wait(NAN), ValueError),
    ("Lock.acquire(Lock)", lambda mp: mp.Lock().acquire(True, mp.Lock()), TypeError),
]


@pytest.mark.parametrize(("call", "error"), parameters(OURS_ONLY))
def test_wrong_values_of_ours(mp: ModuleType, call: Callable[[Any], Any], error: Any) -> None:
    """What the standard library lets through, or does not have, is refused with a clear exception."""
    with pytest.raises(error) as raised:
        call(mp)
    assert str(raised.value)


TIMED: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("Lock.acquire", lambda mp, timeout: mp.Lock().acquire(True, timeout)),
    ("RLock.acquire", lambda mp, timeout: mp.RLock().acquire(True, timeout)),
    ("Semaphore.acquire", lambda mp, timeout: mp.Semaphore(0).acquire(True, timeout)),
    ("Event.wait", lambda mp, timeout: mp.Event().wait(timeout)),
    ("Queue.get", lambda mp, timeout: mp.Queue().get(True, timeout)),
]


@pytest.mark.parametrize("timeout", ["x", [], object(), 1j], ids=["str", "list", "object", "complex"])
@pytest.mark.parametrize("call", [case[1] for case in TIMED], ids=[case[0] for case in TIMED])
def test_timeouts_are_numbers(both: ModuleType, call: Callable[[Any, Any], Any], timeout: object) -> None:
    """A timeout that is no number is a TypeError."""
    with pytest.raises(TypeError):
        call(both, timeout)


@pytest.mark.parametrize("maxsize", [0, -1, -(2**31), -(10**30)], ids=str)
def test_maxsize_of_zero_or_less_means_no_limit(mp: ModuleType, maxsize: int) -> None:
    """As documented for queue.Queue: zero or less is unbounded."""
    q = mp.Queue(maxsize)
    for i in range(5000):
        q.put_nowait(i)
    assert not q.full()
    assert q.qsize() == 5000
    assert [q.get_nowait() for _ in range(5000)] == list(range(5000))


def test_maxsize_beyond_any_memory(mp: ModuleType) -> None:
    """A limit that cannot be reached is one, or a clear refusal; never another limit."""
    for maxsize in (2**31 - 1, 2**31, 2**63, 10**30):
        try:
            q = mp.Queue(maxsize)
        except (ValueError, OverflowError) as error:
            words = str(error)
            assert "maxsize" in words
            continue
        q.put_nowait(1)
        assert not q.full()
        assert q.get_nowait() == 1


def test_released_too_often(both: ModuleType) -> None:
    """The documented errors of releasing what is not held."""
    with pytest.raises(ValueError, match="released too many times"):
        both.Lock().release()
    with pytest.raises(AssertionError, match="not owned"):
        both.RLock().release()
    bounded = both.BoundedSemaphore(2)
    with pytest.raises(ValueError, match="released too many times"):
        bounded.release()
    assert bounded.get_value() == 2
    with pytest.raises(AssertionError):
        both.Condition().notify()
    with pytest.raises(AssertionError):
        both.Condition().wait(0)
    q = both.JoinableQueue()
    q.put(1)
    q.get()
    q.task_done()
    with pytest.raises(ValueError, match="task_done"):
        q.task_done()
    q.close()
    q.join_thread()


def test_semaphore_overflows_clearly(mp: ModuleType) -> None:
    """A semaphore at its highest value refuses another release and keeps its value."""
    semaphore = mp.Semaphore(mp.synchronize.SEM_VALUE_MAX)
    with pytest.raises((ValueError, OverflowError)):
        semaphore.release()
    assert semaphore.get_value() == mp.synchronize.SEM_VALUE_MAX


# --- after close ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_queue_after_close(both: ModuleType, kind: str) -> None:
    """put() and get() of a closed queue raise ValueError; closing twice is allowed."""
    q = getattr(both, kind)()
    q.put(1)
    assert q.get(timeout=PATIENCE) == 1
    q.close()
    q.close()
    for call in (lambda: q.put(2), lambda: q.put_nowait(2), q.get, q.get_nowait):
        with pytest.raises(ValueError, match="closed"):
            call()
    q.join_thread()
    q.join_thread()


def test_put_many_and_get_many_after_close(mp: ModuleType) -> None:
    """The same for the calls that only we have."""
    q = mp.Queue()
    q.close()
    with pytest.raises(ValueError, match="closed"):
        q.put_many([1])
    with pytest.raises(ValueError, match="closed"):
        q.get_many(1)


def test_simple_queue_after_close(both: ModuleType) -> None:
    """A closed SimpleQueue raises."""
    q = both.SimpleQueue()
    q.put(1)
    q.close()
    for call in (lambda: q.put(2), q.get):
        with pytest.raises((ValueError, OSError), match="closed"):
            call()


def get_and_note(q: Any, notes: Notes) -> None:
    notes.write("got", q.get(timeout=PATIENCE))


def test_close_is_of_one_process(mp: ModuleType, crew: Crew, notes: Notes) -> None:
    """A queue that one process has closed goes on in the others, with all its items."""
    ctx = mp.get_context("fork")
    q = ctx.Queue()
    getter = crew.start(ctx, get_and_note, q, notes)
    wait_sleeping(getter.pid)
    q.put("put before close")
    q.close()
    assert notes.read("got") == "put before close"
    crew.finish(getter)


def do_nothing() -> None:
    pass


def wait_for_note(notes: Notes) -> None:
    notes.read("end")


def test_process_misused(both_ctx: Any, crew: Crew, notes: Notes) -> None:
    """The documented errors of a Process that is not yet, still, or no longer there."""
    process = both_ctx.Process(target=wait_for_note, args=(notes,))
    with pytest.raises(AssertionError, match="can only join a started process"):
        process.join()
    with pytest.raises((AttributeError, AssertionError, ValueError)):
        process.terminate()
    with pytest.raises(AssertionError):
        process.name = 3
    with pytest.raises(TypeError):
        process.authkey = "a str"
    crew.enlist(process)
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    with pytest.raises(AssertionError):
        process.daemon = True
    with pytest.raises(ValueError, match=r"(?i)cannot close"):
        process.close()
    with pytest.raises(TypeError):
        process.join("x")
    notes.write("end")
    process.join(PATIENCE)
    assert process.exitcode == 0
    process.close()
    for call in (process.join, process.is_alive, process.terminate, process.kill, process.start):
        with pytest.raises(ValueError, match="process object is closed"):
            call()
    for name in ("exitcode", "pid", "ident", "sentinel"):
        with pytest.raises(ValueError, match="process object is closed"):
            getattr(process, name)
    assert "closed" in repr(process)
    crew.forget(process)


# --- what cannot be pickled, or not unpickled ----------------------------------------------------


class RefusesToArrive:
    """Raises when it is unpickled."""

    def __init__(self, filler: bytes = b"") -> None:
        self.filler = filler

    def __setstate__(self, state: object) -> None:
        raise LookupError("not here")


@pytest.mark.parametrize("size", [0, MIB])
def test_item_that_cannot_be_unpickled(mp: ModuleType, size: int) -> None:
    """get() raises what unpickling raised; the item is gone and the queue goes on."""
    q = mp.Queue()
    q.put(RefusesToArrive(bytes(size)))
    q.put("next")
    with pytest.raises(LookupError, match="not here"):
        q.get(timeout=PATIENCE)
    assert q.qsize() == 1
    assert q.get(timeout=PATIENCE) == "next"


def test_arguments_that_cannot_be_pickled(mp: ModuleType, crew: Crew) -> None:
    """start() raises, names the trouble, starts nothing, and the Process can be forgotten."""
    for method in ("spawn", "forkserver"):
        ctx = mp.get_context(method)
        process = ctx.Process(target=do_nothing, args=(lambda: 0,))
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError), match=r"lambda|pickle"):
            process.start()
        crew.finish(crew.start(ctx, do_nothing))
        assert not mp.active_children()


class RaisesLater:
    """An iterable that fails after some items."""

    def __iter__(self) -> Any:
        yield 1
        yield 2
        raise ArithmeticError("no third")


def test_put_many_of_an_iterable_that_fails(mp: ModuleType) -> None:
    """The error arrives; the queue has either none of the items or those before it, and counts them right."""
    q = mp.Queue()
    with pytest.raises(ArithmeticError):
        q.put_many(RaisesLater())
    count = q.qsize()
    assert [q.get_nowait() for _ in range(count)] in ([], [1, 2])
    assert q.empty()


# --- outside the family, stale, foreign, damaged -------------------------------------------------

LOADER = """
import pickle, sys, traceback
if sys.argv[1] == "own family":
    import cmultiprocessing
    keep = cmultiprocessing.Lock()
try:
    thing = pickle.load(sys.stdin.buffer)
except Exception as error:
    print(type(error).__name__, str(error).replace(chr(10), " "))
else:
    print("loaded", thing)
"""


@pytest.mark.parametrize("stranger", ["no family", "own family"])
@pytest.mark.parametrize("kind", SHARED)
def test_object_sent_outside_the_family(mp: ModuleType, kind: str, stranger: str) -> None:
    """An unrelated process that unpickles a shared object is told what to use instead."""
    thing = make(mp, kind)
    data = io.BytesIO()
    mp.reduction.ForkingPickler(data, pickle.HIGHEST_PROTOCOL).dump(thing)
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", LOADER, stranger],
        input=data.getvalue(),
        capture_output=True,
        timeout=PATIENCE,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    words = done.stdout.decode()
    assert done.stderr == b""
    assert words.split()[0] in ("RuntimeError", "ProcessError"), words
    assert "Manager" in words
    assert "SharedMemory(name=" in words


def test_unpickled_after_the_object_is_gone(mp: ModuleType) -> None:
    """A pickle that outlives its object gives the object or a clear error, and never another object."""
    pickles = [pickle.dumps(mp.Lock()) for _ in range(50)]
    for data in pickles:
        pickle.loads(data)
    others = [mp.Lock() for _ in range(200)]
    for data in pickles:
        try:
            lock = pickle.loads(data)
        except RuntimeError as error:
            words = str(error)
            assert "gone" in words
            continue
        with lock:
            assert not any(other.locked() for other in others)


def damage(value: object, chance: random.Random) -> object:
    """Bytes, alone or in a tuple, with some bits turned or the end missing; other things as they are."""
    if isinstance(value, tuple):
        return tuple(damage(part, chance) for part in value)
    if not isinstance(value, bytes) or not value:
        return value
    bits = bytearray(value)
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        bits[chance.randrange(len(bits))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.1:
        del bits[chance.randrange(len(bits)) :]
    return bytes(bits)


def unpickle_damaged(kind: str, seed: int, rounds: int) -> dict[str, int]:
    """Unpickle with a few bits of the pickle's own data changed, and use what comes out."""
    import cmultiprocessing as mp

    chance = random.Random(seed)
    outcomes: dict[str, int] = {}
    bystander = mp.Queue()
    bystander.put("unharmed")
    for _ in range(rounds):
        thing = make(mp, kind)
        function, arguments, *more = thing.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        damaged = [damage(argument, chance) for argument in arguments]
        state = damage(more[0], chance) if more else None
        try:
            other = function(*damaged)
            if state is not None:
                other.__setstate__(state)
            outcome = "object"
            repr(other)
        except Exception as error:
            outcome = type(error).__name__
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    if bystander.get(timeout=PATIENCE) != "unharmed":
        raise AssertionError("another object was harmed")
    return outcomes


@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "Condition", "Queue"])
def test_damaged_pickles_do_not_crash(kind: str) -> None:
    """A pickle with wrong bits gives an exception, never a crash, and harms no other object."""
    outcomes = apart.run(unpickle_damaged, kind, 1, scale(2000, 20_000))
    assert set(outcomes) <= {"object", "RuntimeError", "ValueError", "TypeError", "ProcessError", "UnpicklingError"}
    assert outcomes.get("RuntimeError", 0) > 100, outcomes


def use_scribbled_memory(seed: int) -> dict[str, int]:
    """Overwrite random words of the family's heap, then use objects with short timeouts."""
    import cmultiprocessing as mp

    chance = random.Random(seed)
    q, bounded, lock, event = mp.Queue(), mp.JoinableQueue(50), mp.Lock(), mp.Event()
    condition, semaphore, barrier = mp.Condition(), mp.Semaphore(3), mp.Barrier(2)
    for i in range(40):
        for one in (q, bounded):
            one.put(chance.choice([i, "text", b"x" * 3000, b"y" * 20_000, (1, 2.5), [lock]]))
    fd = next(int(n) for n in os.listdir("/proc/self/fd") if _is_memfd(n))
    size = os.fstat(fd).st_size
    ranges = _data_ranges(fd, size)
    with open(f"/proc/self/fd/{fd}", "r+b", buffering=0) as file:
        # The last ranges are the heap; the tables in front of it are left alone in half of the runs.
        usable = ranges if seed % 2 else ranges[-1:]
        for begin, end in usable:
            with mmap.mmap(file.fileno(), end - begin, offset=begin) as words:
                for _ in range(max(8, (end - begin) >> chance.choice([7, 10, 12]))):
                    place = chance.randrange(0, end - begin - 8, 8)
                    words[place : place + 8] = chance.choice(
                        [os.urandom(8), b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f\0\0\0\0", os.urandom(4) + bytes(4)]
                    )
    outcomes: dict[str, int] = {}
    calls: list[Callable[[], Any]] = []
    for one in (q, bounded):
        calls += [one.get_nowait, partial(one.get, timeout=0.01), partial(one.put, b"z" * 10_000, timeout=0.01)]
        calls += [partial(one.put_nowait, 1), one.qsize, one.empty, partial(one.get_many, 9, timeout=0.01)]
    calls += [lambda: lock.acquire(timeout=0.01), lock.release, lock.locked, event.set, event.is_set, event.clear]
    calls += [lambda: event.wait(0.01), lambda: semaphore.acquire(timeout=0.01), semaphore.release, mp.Lock, mp.Queue]
    calls += [lambda: barrier.wait(0.01), lambda: condition.acquire(timeout=0.01), lambda: condition.wait(0.01)]
    calls += [lambda: condition.notify_all(), lambda: condition.release(), lambda: pickle.loads(pickle.dumps(lock))]
    for _ in range(4):
        for call in calls:
            try:
                call()
                outcome = "fine"
            except Exception as error:
                outcome = type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def _is_memfd(name: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:")
    except FileNotFoundError:
        return False


def _data_ranges(fd: int, size: int) -> list[tuple[int, int]]:
    ranges, place = [], 0
    while place < size:
        try:
            begin = os.lseek(fd, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data beyond
                raise
            break
        place = os.lseek(fd, begin, os.SEEK_HOLE)
        ranges.append((begin, place))
    return ranges


@pytest.mark.watchdog(600)
def test_scribbled_memory_does_not_crash() -> None:
    """Random bytes all over the shared memory give exceptions; no crash, no endless loop."""
    crashes = []
    for seed in range(scale(16, 500)):
        try:
            apart.run(use_scribbled_memory, seed, timeout=30, any_stderr=True)
        except apart.EndedBadly as bad:
            crashes.append((seed, bad.status, bad.errors[-300:]))
        except subprocess.TimeoutExpired:
            crashes.append((seed, "hangs", ""))
    assert not crashes, crashes


# --- refused by the system -----------------------------------------------------------------------


def put_beyond_address_space(extra: int, size: int) -> dict[str, Any]:
    """With so much address space beyond what is used now, try to put an item that does not fit."""
    limit = status("VmSize") + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import cmultiprocessing as mp

    q = mp.Queue()
    q.put("stays")
    held: list[Any] = []
    words = ""
    item = bytes(size)
    try:
        while len(held) < 1000:
            q.put(item)
            held.append(None)
    except MemoryError as error:
        words = f"{type(error).__name__}: {error}"
    count = q.qsize()
    first = q.get_nowait()
    rest = [q.get_nowait() == item for _ in range(count - 1)]
    return {"words": words, "first": first, "put": len(held), "got": len(rest), "right": all(rest), "left": q.qsize()}


@pytest.mark.no_sanitizer
@pytest.mark.parametrize("extra", [64 * MIB, 256 * MIB])
def test_limited_address_space(extra: int) -> None:
    """RLIMIT_AS is met by reserving less; where that ends the message says so, and nothing is lost."""
    result = apart.run(put_beyond_address_space, extra, 4 * MIB)
    assert result["first"] == "stays"
    assert result["put"] == result["got"]
    assert result["right"]
    assert result["left"] == 0
    assert result["words"].startswith(("MemoryLimitError", "MemoryError")), result
    assert "RLIMIT_AS" in result["words"], result


def start_without_address_space() -> str:
    """Almost no address space at all."""
    import cmultiprocessing as mp

    limit = status("VmSize") + 2 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        mp.Lock()
    except (MemoryError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "works"


@pytest.mark.no_sanitizer
def test_no_address_space_at_all() -> None:
    """Where not even the tables fit, the first object says which limit is to be raised."""
    words = apart.run(start_without_address_space)
    assert "RLIMIT_AS" in words


def first_object_without_descriptors() -> dict[str, str]:
    """The first object of a process that has no descriptor left, and the one after some were closed."""
    import cmultiprocessing as mp

    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        result = {}
    try:
        mp.Queue()
        result["first"] = "works"
    except OSError as error:
        result["first"] = f"{errno.errorcode[error.errno or 0]}: {error}"
    for fd in taken:
        os.close(fd)
    q = mp.Queue()
    q.put(1)
    result["then"] = f"got {q.get()}"
    return result


def test_no_descriptor_for_the_first_object() -> None:
    """The family's memory needs descriptors, once: without one, EMFILE in words; with some, it works."""
    result = apart.run(first_object_without_descriptors, limits={resource.RLIMIT_NOFILE: 100})
    assert result["first"].startswith("EMFILE")
    assert "open files" in result["first"]
    assert result["then"] == "got 1"


def fork_really_refused(method: str) -> dict[str, Any]:
    """As another user who may have no further process."""
    import cmultiprocessing as mp

    ctx = mp.get_context(method)
    q = ctx.Queue()
    q.put("stays")
    first = ctx.Process(target=do_nothing)
    first.start()
    first.join()
    first.close()
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    if os.geteuid() == 0:  # the limit does not bind root
        os.setresuid(54_321, 54_321, 54_321)
    process = ctx.Process(target=do_nothing)
    try:
        process.start()
        words = "started"
    except OSError as error:
        words = f"{errno.errorcode[error.errno or 0]}: {error}"
    return {"words": words, "left": q.get_nowait(), "children": len(mp.active_children()), "pid": process.pid}


def test_fork_is_refused_by_the_system() -> None:
    """Where the limit of processes is reached start() raises what fork(2) says and leaves nothing half started."""
    result = apart.run(fork_really_refused, "fork")
    assert result["words"].startswith("EAGAIN"), result
    assert result["left"] == "stays"
    assert result["children"] == 0
    assert result["pid"] is None


def test_fork_is_refused(mp: ModuleType, crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused os.fork() comes out of start(), the Process is as before, and may be started later."""
    ctx = mp.get_context("fork")
    q = ctx.Queue()
    before = sorted(os.listdir("/proc/self/fd"))

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    process = ctx.Process(target=q.put, args=("it ran",))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        for _ in range(50):
            with pytest.raises(BlockingIOError):
                process.start()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert mp.active_children() == []
    assert process.pid is None
    crew.enlist(process)
    assert q.get(timeout=PATIENCE) == "it ran"
    crew.finish(process)


def test_spawn_is_refused(mp: ModuleType, crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused fork_exec comes out of start(); what was prepared for the child is given back."""
    import _posixsubprocess

    ctx = mp.get_context("spawn")
    q = ctx.Queue()
    crew.finish(crew.start(ctx, do_nothing))
    crew.dismiss()
    before = sorted(os.listdir("/proc/self/fd"))

    def refuse(*args: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    process = ctx.Process(target=q.put, args=("it ran",))
    with monkeypatch.context() as patch:
        patch.setattr(_posixsubprocess, "fork_exec", refuse)
        for _ in range(50):
            with pytest.raises(BlockingIOError):
                process.start()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert mp.active_children() == []
    crew.enlist(process)
    assert q.get(timeout=PATIENCE) == "it ran"
    crew.finish(process)


def refused_starts_then_slots(rounds: int) -> int:
    """Refused starts must not use up the places for processes."""
    import _posixsubprocess

    import cmultiprocessing as mp

    ctx = mp.get_context("spawn")
    real = _posixsubprocess.fork_exec

    def refuse(*args: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    _posixsubprocess.fork_exec = refuse
    refused = 0
    for _ in range(rounds):
        try:
            ctx.Process(target=do_nothing).start()
        except BlockingIOError:
            refused += 1
    _posixsubprocess.fork_exec = real
    child = ctx.Process(target=do_nothing)
    child.start()
    child.join()
    code = child.exitcode
    child.close()
    if code != 0:
        raise AssertionError(f"exit code {code}")
    return refused


@pytest.mark.watchdog(300)
def test_refused_starts_keep_no_places() -> None:
    """More refused starts than there are places for processes leave a place for one that is not refused."""
    rounds = scale(500, 40_000)
    assert apart.run(refused_starts_then_slots, rounds, timeout=280) == rounds


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_item_larger_than_the_limit(kind: str) -> None:
    """One item beyond the family's limit is refused with the size, the limit and the remedy; the rest stays."""
    result = apart.run(one_item_too_large, kind, env={"CMULTIPROCESSING_MEMORY_LIMIT": str(16 * MIB)})
    for word in ("put", str(16 * MIB), "CMULTIPROCESSING_MEMORY_LIMIT"):
        assert word in result["words"]
    assert any(int(number) >= 64 * MIB for number in result["words"].replace(",", " ").split() if number.isdigit())
    assert result["left"] == ["before", "after"]


def one_item_too_large(kind: str) -> dict[str, Any]:
    import cmultiprocessing as mp

    q = make(mp, kind)
    q.put("before")
    try:
        q.put(bytes(64 * MIB))
        words = "put"
    except mp.MemoryLimitError as error:
        words = str(error)
    q.put("after")
    return {"words": words, "left": [q.get(), q.get()]}


def objects_until_refused() -> dict[str, Any]:
    """Make locks until the limit refuses; those that were made go on."""
    import cmultiprocessing as mp

    locks: list[Any] = []
    words = ""
    try:
        while len(locks) < 10_000_000:
            locks.append(mp.Lock())
    except mp.MemoryLimitError as error:
        words = str(error)
    for lock in locks:
        with lock:
            pass
    count = len(locks)
    del locks[count // 2 :]
    again = [mp.Lock() for _ in range(count // 4)]
    return {"words": words, "count": count, "again": len(again)}


def test_objects_up_to_the_limit() -> None:
    """Making objects ends with an exception at the family's limit, and goes on when some were dropped."""
    result = apart.run(objects_until_refused, env={"CMULTIPROCESSING_MEMORY_LIMIT": str(16 * MIB)})
    assert "Lock" in result["words"]
    assert "CMULTIPROCESSING_MEMORY_LIMIT" in result["words"]
    assert result["count"] > 50_000
    assert result["again"] == result["count"] // 4
