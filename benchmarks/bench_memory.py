# SPDX-License-Identifier: PSF-2.0
"""Memory and descriptors: not how fast, but how much.

*Resident* is what the kernel counts as resident for the process (private and shared pages), so it
includes the Python objects that stand for the locks and queues.  What a family of processes holds
is the sum of their anonymous pages and of the blocks of every memfd that they have open or mapped:
a page of shared memory counts once, whether or not it is mapped anywhere at the moment.

Every check runs once on each library, in an interpreter of its own, with at most 1024 descriptors.
Where a library cannot do what the check asks for, the number that it reached is shown.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks._harness import Check, Finding, Unavailable, race

__all__ = ["CHECKS"]

KIBI, MEBI, GIBI = 1 << 10, 1 << 20, 1 << 30
DESCRIPTORS = 1024
IDLE_QUEUE = 4 * KIBI  # bytes resident, at most
BACK_WITHIN = 1.0  # seconds
KEPT_WARM = 64 * MEBI  # bytes that may stay for the next burst
DRIFT = 2.0  # per cent
OVERHEAD = 1.2  # times the size of a message, on each side
ROOM = 16 * GIBI  # bytes of memory below which the very large message is left out


def _limit_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _status(pid: int | str, field: str) -> int:
    """A size from /proc/PID/status in bytes; 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            found = re.search(rf"^{field}:\s+(\d+) kB$", file.read(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) * KIBI if found else 0


def _meminfo(field: str) -> int:
    with open("/proc/meminfo") as file:
        found = re.search(rf"^{field}:\s+(\d+) kB$", file.read(), re.MULTILINE)
    if not found:
        raise Unavailable(f"/proc/meminfo does not tell {field}")
    return int(found[1]) * KIBI


def _memfd_bytes(pids: Iterable[int]) -> int:
    """What all memfds hold that these processes have open or mapped, each counted once."""
    files: dict[int, int] = {}
    for pid in pids:
        for folder in (f"/proc/{pid}/fd", f"/proc/{pid}/map_files"):
            try:
                entries = os.listdir(folder)
            except OSError:  # the process is gone, or only its descriptors may be read
                continue
            for entry in entries:
                path = os.path.join(folder, entry)
                try:
                    if os.readlink(path).startswith("/memfd:"):
                        state = os.stat(path)
                        files[state.st_ino] = state.st_blocks * 512
                except OSError:  # closed or unmapped since it was listed
                    continue
    return sum(files.values())


def _held(pids: Iterable[int]) -> int:
    pids = list(pids)
    return sum(_status(pid, "RssAnon") for pid in pids) + _memfd_bytes(pids)


def _idle(make: str, per_object: float | None) -> Callable[[Any, int], list[Finding]]:
    def measure(mp: Any, number: int) -> list[Finding]:
        _limit_descriptors()
        maker = getattr(mp, make)
        kept = [maker()]  # what the first one costs is not what the next ones cost
        resident, descriptors = _status("self", "VmRSS"), _descriptors()
        try:
            kept.extend(maker() for _ in range(number))
        except OSError as error:
            print(f"{make}: stopped at {len(kept)}: {error}")
        made = len(kept) - 1
        try:
            used = _descriptors() - descriptors
        except OSError:  # not one is left to read /proc with
            used = DESCRIPTORS - descriptors
        findings = [
            Finding("made", made, at_least=number),
            Finding("descriptors", used, at_most=DESCRIPTORS - descriptors),
        ]
        if made == number:
            grown = _status("self", "VmRSS") - resident
            findings.append(Finding("resident, each", grown / made, "B", at_most=per_object))
        return findings

    return measure


def _burst(mp: Any, mebibytes: int) -> list[Finding]:
    """Put it all, then let another process drain it, then see when the pages are gone."""
    if _meminfo("MemAvailable") < 3 * mebibytes * MEBI:
        raise Unavailable(f"needs {3 * mebibytes} MiB of available memory")
    queue, drained, over = mp.Queue(), mp.Semaphore(0), mp.Semaphore(0)
    block = os.urandom(MEBI)
    pids = [os.getpid()]
    state = {"before": 0, "most": 0, "last": 0, "since": 0.0, "after": -1.0, "ended": 0}

    def produce() -> None:
        for _ in range(mebibytes):
            queue.put(block)
        over.acquire()

    def consume() -> None:
        if mebibytes > 1:
            while queue.qsize() < mebibytes:
                time.sleep(0.01)
        for _ in range(mebibytes):
            if queue.get() != block:
                raise AssertionError("a block arrived damaged")
        drained.release()
        over.acquire()

    def begin(started: list[int]) -> None:
        pids.extend(started)
        time.sleep(0.2)  # they have imported nothing; their start is over
        state["before"] = _held(pids)

    def watch() -> None:
        if state["ended"]:
            return
        now, state["last"] = time.monotonic(), _held(pids)
        state["most"] = max(state["most"], state["last"])
        if not state["since"]:
            if drained.acquire(False):
                state["since"] = now
            return
        if state["after"] < 0 and state["last"] <= state["before"] + KEPT_WARM:
            state["after"] = now - state["since"]
        if now - state["since"] > 2 * BACK_WITHIN:
            state["ended"] = 1
            over.release()
            over.release()

    def nothing() -> None:
        pass

    def put_one() -> None:
        queue.put(block)

    def get_one() -> None:
        queue.get()

    race(mp, [(put_one, produce), (get_one, consume)], watch, 0.02, begin)
    return [
        Finding("held in the burst", (state["most"] - state["before"]) / MEBI, "MiB"),
        Finding("kept 2 s later", (state["last"] - state["before"]) / MEBI, "MiB",
                at_most=KEPT_WARM / MEBI),
        Finding("given back after", state["after"] if state["after"] >= 0 else float("inf"), "s",
                at_most=BACK_WITHIN),
    ]


def _take(_: Any) -> None:
    """What the child of a round does with the queue that it is passed: nothing."""


def _make_pass_drop(mp: Any, rounds: int) -> list[Finding]:
    _limit_descriptors()

    def go(times: int) -> None:
        for _ in range(times):
            queue = mp.Queue()
            process = mp.Process(target=_take, args=(queue,))
            process.start()
            process.join()
            if process.exitcode != 0:
                raise RuntimeError(f"the child ended with {process.exitcode}")
        del queue, process
        gc.collect()

    go(max(rounds // 10, 10))
    held, descriptors = _held([os.getpid()]), _descriptors()
    go(rounds)
    grown = _held([os.getpid()]) - held
    return [
        Finding("more memory", 100 * grown / held, "%", at_most=DRIFT),
        Finding("more descriptors", _descriptors() - descriptors, at_most=0),
    ]


def _large_message(mp: Any, mebibytes: int) -> list[Finding]:
    size = mebibytes * MEBI
    if size > 4 * GIBI and _meminfo("MemTotal") < ROOM:
        raise Unavailable(f"needs {ROOM // GIBI} GiB of memory")
    # The message, a copy under way, the copy that arrives; the standard library's receiver has two.
    needed = (4.2 if mp.__name__ == "multiprocessing" else 3.2) * size
    if _meminfo("MemAvailable") < needed:
        raise Unavailable(f"needs {needed / GIBI:.1f} GiB of available memory")
    queue = mp.Queue()
    pids: list[int] = []
    before: dict[int, int] = {}
    most: dict[int, int] = {}
    shared = [0, 0]  # before, most
    message: list[bytes] = []

    def make() -> None:
        message.append(b"m" * size)

    def produce() -> None:
        time.sleep(0.3)  # so that the parent sees what the processes hold before
        queue.put(message[0])
        queue.put("sent")

    def consume() -> None:
        got = queue.get()
        if len(got) != size or got[:: size // 1000].strip(b"m"):
            raise AssertionError("the message arrived damaged")
        if queue.get() != "sent":
            raise AssertionError("the second item was lost")

    def watch() -> None:
        now = {pid: _status(pid, "RssAnon") for pid in pids}
        held = _memfd_bytes(pids)
        if not before:
            before.update(now)
            shared[:] = held, held
        for pid in pids:
            most[pid] = max(most.get(pid, 0), now[pid])
        shared[1] = max(shared[1], held)

    seconds = race(mp, [(make, produce), (lambda: None, consume)], watch, 0.01, pids.extend)
    sender, receiver = ((most[pid] - before[pid]) / size for pid in pids)
    sender += (shared[1] - shared[0]) / size
    return [
        Finding("extra at the sender", sender, "x its size", at_most=OVERHEAD),
        Finding("extra at the receiver", receiver, "x its size", at_most=OVERHEAD),
        Finding("took", seconds - 0.3, "s"),
    ]


def _check(
    name: str, title: str, measure: Callable[[Any, int], list[Finding]], full: int, quick: int
) -> Check:
    return Check(name, title, "Memory and descriptors", measure, full, quick)


CHECKS = [
    _check("memory-locks", "100 000 locks, 1 024 descriptors", _idle("Lock", None), 100_000, 200),
    _check("memory-queues", "10 000 idle queues, 1 024 descriptors", _idle("Queue", IDLE_QUEUE),
           10_000, 50),
    _check("memory-burst", "burst of 1 GiB, drained", _burst, 1024, 64),
    _check("memory-rounds", "10 000 rounds of make, pass to a child, drop", _make_pass_drop,
           10_000, 20),
    _check("memory-5gib", "message of 5 GiB", _large_message, 5 * 1024, 64),
]
