# SPDX-License-Identifier: PSF-2.0
"""Random SIGKILLs, SIGSTOPs and SIGCONTs among producers, consumers and lock holders.

Who has done what is kept in journals that need nothing of the library: shared anonymous memory, one word per fact, a
word is written before or after the call that it is about. Five seconds per test in everyday runs;
CMULTIPROCESSING_LONG_TESTS=1 makes it thirty, CMULTIPROCESSING_TORMENT any number. A failure names the seed:
CMULTIPROCESSING_SEED repeats the choices (not the schedule).
"""

from __future__ import annotations

import mmap
import os
import queue
import random
import signal
import struct
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.memory import MIB, family_bytes
from tests.support.processes import wait_until
from tests.support.scene import PATIENCE, Crew, scale

SECONDS = float(os.environ.get("CMULTIPROCESSING_TORMENT", scale(5, 30)))
SEED = int(os.environ.get("CMULTIPROCESSING_SEED", time.time_ns() % 2**32))
LARGEST = 2 * MIB
WARM = 64 * MIB  # some pages are kept on purpose


class Words:
    """Numbers in memory that forked children share; each is written by one process, in one store.

    `struct.pack_into` will not do: it clears the bytes and then writes them one by one, and whoever is killed in
    between leaves a number that nobody wrote. A memoryview of words copies eight bytes at once.
    """

    def __init__(self, count: int) -> None:
        self._map = mmap.mmap(-1, count * struct.calcsize("Q"))
        self._words = memoryview(self._map).cast("Q")

    def __getitem__(self, i: int) -> int:
        return self._words[i]

    def __setitem__(self, i: int, number: int) -> None:
        self._words[i] = number

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._map.close()


class Stage:
    """What all actors share."""

    def __init__(self, ctx: Any, q: Any, folder: Path) -> None:
        self.ctx, self.q, self.folder = ctx, q, folder
        self.noise = os.urandom(2 * LARGEST)
        self.stop = Words(2)  # 0: producers and holders; 1: consumers
        self.begun, self.done = Words(4096), Words(4096)  # per producer: items before put(), items after it
        self.taken = Words(4096)  # per consumer: items after get(), a sign of life
        self.guarded = Words(8)  # what the lock protects

    def close(self) -> None:
        """Give the memory back."""
        for words in (self.stop, self.begun, self.done, self.taken, self.guarded):
            words.close()

    def item(self, producer: int, number: int) -> tuple[int, int, bytes]:
        """The item that this producer puts as this number: 1 byte to 2 MB, many small ones, some large."""
        chance = random.Random(producer << 32 | number)
        size = int(2 ** chance.uniform(0, 11)) if chance.random() < 0.9 else int(2 ** chance.uniform(11, 21))
        start = chance.randrange(LARGEST)
        return producer, number, self.noise[start : start + size]


def produce(stage: Stage, me: int, many: int) -> None:
    number = stage.begun[me]
    while not stage.stop[0]:
        items = [stage.item(me, number + i) for i in range(many)]
        stage.begun[me] = number + many
        if many == 1:
            stage.q.put(items[0])
        else:
            stage.q.put_many(items)
        number += many
        stage.done[me] = number


def consume(stage: Stage, me: int, many: int, joinable: bool) -> None:
    """Takes items, compares each byte, and writes down whose they were, in one write() each time."""
    journal = os.open(stage.folder / f"journal{me}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while True:
        try:
            items = [stage.q.get(timeout=0.2)] if many == 1 else stage.q.get_many(many, timeout=0.2)
        except queue.Empty:
            if stage.stop[1]:
                return
            continue
        os.write(journal, b"".join(struct.pack("=QQ", producer, number) for producer, number, _ in items))
        for producer, number, text in items:
            if (producer, number, text) != stage.item(producer, number):
                (stage.folder / f"torn-{producer}-{number}").write_bytes(text)
            if joinable:
                stage.q.task_done()
        stage.taken[me] += len(items)


def hold(stage: Stage, me: int, lock: Any) -> None:
    """Enters and leaves the lock; two words that only its holder changes are equal unless one died within."""
    warnings.simplefilter("ignore")
    guarded = stage.guarded
    while not stage.stop[0]:
        if not lock.acquire(timeout=PATIENCE):
            (stage.folder / f"hang-{me}").write_text("a lock was not to be had")
            return
        guarded[0] = me
        value = guarded[1]
        guarded[1] = value + 1
        guarded[2] = guarded[2] + 1
        if guarded[0] != me or guarded[1] != value + 1:
            (stage.folder / f"together-{me}").write_text("two processes were within one lock")
        lock.release()


class Director:
    """Starts the actors, torments them, and starts others for those that were killed."""

    def __init__(self, stage: Stage, crew: Crew, seed: int) -> None:
        self.stage, self.crew = stage, crew
        self.chance = random.Random(seed)
        self.actors: list[tuple[Any, Any, tuple[Any, ...], int]] = []
        self.numbers = {produce: 0, consume: 0, hold: 0}
        self.kills = {produce: 0, consume: 0, hold: 0}
        self.risk = 0  # how many items killed consumers may have had in their hands

    def engage(self, role: Any, *args: Any) -> None:
        """Start an actor with a number of its own."""
        me = self.numbers[role] = self.numbers[role] + 1
        process = self.crew.start(self.stage.ctx, role, self.stage, me, *args)
        self.actors.append((process, role, args, me))

    def torment(self, seconds: float) -> None:
        """Kill and stop at random."""
        end = time.monotonic() + seconds
        stopped: list[tuple[float, int]] = []
        while time.monotonic() < end:
            time.sleep(self.chance.uniform(0, 0.02))
            for due, pid in [entry for entry in stopped if entry[0] <= time.monotonic()]:
                os.kill(pid, signal.SIGCONT)
                stopped.remove((due, pid))
            process, role, args, me = actor = self.chance.choice(self.actors)
            if self.chance.random() < 0.5:
                if process.pid not in [pid for _, pid in stopped]:
                    os.kill(process.pid, signal.SIGSTOP)
                    stopped.append((time.monotonic() + self.chance.uniform(0.001, 0.3), process.pid))
                continue
            assert process.exitcode is None, f"actor {me} ({role.__name__}) ended by itself: {process.exitcode}"
            self.crew.kill(process)
            stopped = [entry for entry in stopped if entry[1] != process.pid]
            self.actors.remove(actor)
            self.kills[role] += 1
            if role is consume:
                self.risk += args[0]
            self.engage(role, *args)
        for _, pid in stopped:
            os.kill(pid, signal.SIGCONT)

    def curtain(self) -> None:
        """Let producers and holders end, then, when all is taken, the consumers."""
        self.stage.stop[0] = 1
        for process, role, _, _ in self.actors:
            if role is not consume:
                self.crew.finish(process)
        wait_until(lambda: self.stage.q.qsize() <= 5, PATIENCE, "consumers have taken nearly all")
        self.stage.stop[1] = 1
        for process, role, _, _ in self.actors:
            if role is consume:
                self.crew.finish(process)


def read_journals(stage: Stage) -> list[list[tuple[int, int]]]:
    """What each consumer got, in its order."""
    files = sorted(stage.folder.glob("journal*"))
    return [list(struct.iter_unpack("=QQ", file.read_bytes())) for file in files]


def check_items(director: Director, rest: list[tuple[int, int]]) -> str:
    """No item twice, none invented, order kept, none lost but in the hands of killed consumers; what was seen."""
    stage = director.stage
    journals = [*read_journals(stage), rest]
    for journal in journals:
        last: dict[int, int] = {}
        for producer, number in journal:
            assert last.get(producer, -1) < number, f"producer {producer}: {number} came after {last[producer]}"
            last[producer] = number
    got = [entry for journal in journals for entry in journal]
    assert len(got) == len(set(got)), "an item came twice"
    invented = [(producer, number) for producer, number in got if number >= stage.begun[producer]]
    assert not invented
    put = {(producer, n) for producer in range(1, director.numbers[produce] + 1) for n in range(stage.done[producer])}
    lost = sorted(put - set(got))
    kills = ", ".join(f"{count} x {role.__name__}" for role, count in director.kills.items())
    words = f"{len(got)} items; killed: {kills}; {len(lost)} items lost of at most {director.risk}"
    assert len(lost) <= director.risk, f"{words}: {lost[:20]}"
    return words


def problems(stage: Stage) -> list[str]:
    """What the actors have complained about."""
    return sorted(path.name for path in stage.folder.iterdir() if not path.name.startswith("journal"))


@pytest.fixture
def seed() -> int:
    """The seed, printed so that a failure shows it."""
    print(f"CMULTIPROCESSING_SEED={SEED}")
    return SEED


CASES = {
    "unbounded": ("Queue", 0, 1),
    "bounded": ("Queue", 20, 1),
    "many at a time": ("Queue", 50, 5),
    "joinable": ("JoinableQueue", 20, 1),
}


@pytest.mark.watchdog(SECONDS + 120)
@pytest.mark.parametrize("case", CASES)
def test_random_kills(mp: ModuleType, crew: Crew, tmp_path: Path, seed: int, case: str) -> None:
    """Killed and stopped processes: no hang, no torn item, none lost or doubled, order kept, qsize() exact."""
    kind, maxsize, many = CASES[case]
    ctx = mp.get_context("fork")
    q = getattr(ctx, kind)(maxsize)
    locks = [ctx.Lock(), ctx.RLock()]
    before = family_bytes()
    stage = Stage(ctx, q, tmp_path)
    director = Director(stage, crew, seed)
    for _ in range(3):
        director.engage(produce, many)
    for _ in range(4):
        director.engage(consume, many, kind == "JoinableQueue")
    for _ in range(3):
        director.engage(hold, locks[0])
    director.torment(SECONDS)
    director.curtain()

    left = q.qsize()
    rest = []
    while not q.empty():
        producer, number, text = q.get_nowait()
        assert (producer, number, text) == stage.item(producer, number)
        rest.append((producer, number))
        if kind == "JoinableQueue":
            q.task_done()
    assert len(rest) == left, "qsize() was not exact"
    assert q.qsize() == 0
    assert problems(stage) == []
    print(check_items(director, rest))
    assert all(director.kills.values()), "not every role had its deaths: nothing was tested"
    if kind == "JoinableQueue":
        q.join()
    check_locks_work(locks)
    mp._cmultiprocessing.family_collect()
    wait_until(lambda: family_bytes() - before < WARM, PATIENCE, "what the dead had taken is swept")
    stage.close()


def check_locks_work(locks: list[Any]) -> None:
    for lock in locks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert lock.acquire(timeout=PATIENCE)
        lock.release()
        assert lock.acquire(block=False)
        lock.release()


# --- sleepers and those who wake them ------------------------------------------------------------


def sleep_on_condition(stage: Stage, me: int, condition: Any) -> None:
    warnings.simplefilter("ignore")
    while not stage.stop[0]:
        with condition:
            condition.wait(0.5)
        stage.taken[me] += 1


def wake_condition(stage: Stage, me: int, condition: Any, event: Any, semaphore: Any) -> None:
    warnings.simplefilter("ignore")
    while not stage.stop[0]:
        with condition:
            condition.notify(1 + me % 3)
        event.set()
        event.clear()
        semaphore.release()


def sleep_on_event(stage: Stage, me: int, event: Any, semaphore: Any) -> None:
    while not stage.stop[0]:
        event.wait(0.5)
        semaphore.acquire(timeout=0.5)
        stage.taken[1024 + me] += 1


@pytest.mark.watchdog(SECONDS + 120)
def test_random_kills_of_sleepers(mp: ModuleType, crew: Crew, tmp_path: Path, seed: int) -> None:
    """Killed and stopped processes around Condition, Event and Semaphore: the others go on and end when asked."""
    ctx = mp.get_context("fork")
    condition, event, semaphore = ctx.Condition(), ctx.Event(), ctx.Semaphore(0)
    stage = Stage(ctx, None, tmp_path)
    director = Director(stage, crew, seed)
    director.numbers = {sleep_on_condition: 0, wake_condition: 0, sleep_on_event: 0}
    director.kills = dict(director.numbers)
    for _ in range(4):
        director.engage(sleep_on_condition, condition)
    for _ in range(3):
        director.engage(wake_condition, condition, event, semaphore)
    for _ in range(3):
        director.engage(sleep_on_event, event, semaphore)
    director.torment(SECONDS)
    stage.stop[0] = 1
    for process, _, _, _ in director.actors:
        crew.finish(process)
    assert all(director.kills.values())
    check_locks_work([condition])
    with condition:
        condition.notify_all()
        assert not condition.wait(0.05), "a wake-up was left over"
    event.set()
    assert event.is_set()
    stage.close()


# --- barriers ------------------------------------------------------------------------------------


def meet(stage: Stage, me: int, barrier: Any) -> None:
    warnings.simplefilter("ignore")
    while not stage.stop[0]:
        try:
            barrier.wait(1)
        except Exception as error:
            if type(error).__name__ != "BrokenBarrierError":
                raise
            if not stage.stop[0]:
                barrier.reset()
        stage.taken[me] += 1


@pytest.mark.watchdog(SECONDS + 120)
def test_random_kills_at_a_barrier(mp: ModuleType, crew: Crew, tmp_path: Path, seed: int) -> None:
    """Killed and stopped parties of a Barrier: the others meet again or are told that it is broken."""
    ctx = mp.get_context("fork")
    barrier = ctx.Barrier(3)
    stage = Stage(ctx, None, tmp_path)
    director = Director(stage, crew, seed)
    director.numbers, director.kills = {meet: 0}, {meet: 0}
    for _ in range(3):
        director.engage(meet, barrier)
    director.torment(SECONDS)
    assert director.kills[meet]
    stage.stop[0] = 1
    for process, _, _, _ in director.actors:
        crew.finish(process)
    assert sum(stage.taken[i] for i in range(1024)) > 10
    stage.close()
