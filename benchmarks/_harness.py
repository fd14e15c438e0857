# SPDX-License-Identifier: PSF-2.0
"""What a benchmark is, and the neutral ground on which the processes of one meet.

A `Case` measures the time of one operation; a `Check` looks at memory and descriptors.  Both get
the library as an argument and use nothing but its public names, so that the same lines run on
either library.

`race` is how anything between processes is timed.  Every participant warms up, all of them meet,
and then each does its work between two readings of the same clock::

    participant 0   start  warm up ──┐ t0 ─── put put put put put put ─── t1
    participant 1   start  warm up ──┴ t0 ── get get get get get get get ─── t1
                                     ^                                       ^
                                     the time is from the first t0 ── to ──  the last t1

So neither the start of a process nor its end is in the time.  They meet over a pipe and write their
times into anonymous shared memory, both made by the operating system: no library has to carry the
other's measurement.  The clock is CLOCK_MONOTONIC, which is the same for all processes.
"""

from __future__ import annotations

import importlib
import mmap
import os
import select
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

__all__ = [
    "Case",
    "Check",
    "Finding",
    "Timing",
    "Unavailable",
    "answer",
    "load",
    "race",
    "shared_cells",
]

PEERS = ("faster_fifo",)
WARM_UP = 10  # a warm-up does one tenth of the operations that are timed
LOOK_AT_CHILDREN = 0.5  # seconds


class Unavailable(Exception):
    """This cannot be measured here; the message says why."""


class Timing(NamedTuple):
    """What a case measured: `operations` took `seconds` together."""

    seconds: float
    operations: int


class Finding(NamedTuple):
    """One number that a check found.

    Attributes:
        what: what was counted.
        value: how much it was.
        unit: of the value: ``B``, ``MiB``, ``s``, ``%``, or empty for a count.
        at_most: the largest value allowed, or None.
        at_least: the smallest value allowed, or None.
    """

    what: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None


class Case(NamedTuple):
    """One row of the table of times.

    Attributes:
        name: as ``--match`` finds it.
        title: as the table shows it.
        section: the heading that it stands under.
        measure: called with the library and a number of operations.
        start: number of operations of the first, calibrating run, and with ``--quick``.
        most: never more operations than this, whatever time is left.
        goal: ratio that is to be reached, or None.
        limit: ratio that a bare prototype reached, as text, or empty.
        per: what one operation is.
        peers: other libraries that are shown beside it when they are installed.
    """

    name: str
    title: str
    section: str
    measure: Callable[[Any, int], Timing]
    start: int
    most: int
    goal: float | None = None
    limit: str = ""
    per: str = "operation"
    peers: tuple[str, ...] = ()


class Check(NamedTuple):
    """One entry of the table of memory and descriptors.

    Attributes:
        name: as ``--match`` finds it.
        title: as the table shows it.
        section: the heading that it stands under.
        measure: called with the library and a size; what the size means the title says.
        full: the size.
        quick: the size with ``--quick``.
    """

    name: str
    title: str
    section: str
    measure: Callable[[Any, int], list[Finding]]
    full: int
    quick: int


def load(library: str) -> Any:
    """The library of that name, set to start processes by fork.

    A peer has queues only and is given the standard library's processes.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise Unavailable(f"{library}: {error}") from None
    if library in PEERS:
        context = importlib.import_module("multiprocessing").get_context("fork")
        return SimpleNamespace(__name__=library, Process=context.Process, peer=module)
    module.set_start_method("fork")
    return module


def answer(
    entry: Case | Check, library: str, operations: int, seconds: float | None
) -> dict[str, Any]:
    """What the runner prints: the result of one measurement, or of one calibration.

    Args:
        entry: what is measured.
        library: name of the library.
        operations: how many operations, or the size of a check.
        seconds: None to measure; else find the number of operations that takes this long.
    """
    module = load(library)
    if isinstance(entry, Check):
        return {"findings": [finding._asdict() for finding in entry.measure(module, operations)]}
    if seconds is not None:
        return {"operations": _calibrated(entry, module, seconds)}
    return entry.measure(module, operations)._asdict()


def _calibrated(case: Case, module: Any, seconds: float) -> int:
    operations = case.start
    while True:
        timing = case.measure(module, operations)
        wanted = timing.operations * seconds / max(timing.seconds, 1e-9)
        if timing.seconds >= seconds / 4 or operations >= case.most:
            return int(min(max(wanted, 1), case.most))
        # At most tenfold: a short run is too rough a guide to leap further.
        operations = int(min(max(wanted, operations + 1), operations * 10, case.most))


def shared_cells(number: int) -> memoryview:
    """`number` 64-bit integers, all 0, in memory shared with the children forked after this."""
    return memoryview(mmap.mmap(-1, number * 8)).cast("q")


class _Ground:
    """Where the participants of a race meet: a pipe to each direction and a pair of times each."""

    def __init__(self, participants: int) -> None:
        self._participants = participants
        self._times = memoryview(mmap.mmap(-1, participants * 16)).cast("d")
        self._said_read, self._said = os.pipe()
        self._gate, self._gate_write = os.pipe()

    def take_part(
        self, place: int, warm_up: Callable[[], object], work: Callable[[], object]
    ) -> None:
        """In a child: everything that it does."""
        warm_up()
        os.write(self._said, b"r")
        os.read(self._gate, 1)
        self._times[2 * place] = time.perf_counter()
        work()
        self._times[2 * place + 1] = time.perf_counter()
        os.write(self._said, b"e")

    def run(self, processes: Sequence[Any], watch: Callable[[], None] | None, pause: float) -> float:
        """In the parent: let them begin together, wait for all, return the seconds."""
        self._hear(processes, None, LOOK_AT_CHILDREN)
        os.write(self._gate_write, b"g" * self._participants)
        self._hear(processes, watch, pause)
        return max(self._times[1::2]) - min(self._times[0::2])

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in (self._said_read, self._said, self._gate, self._gate_write):
            os.close(descriptor)

    def _hear(
        self, processes: Sequence[Any], watch: Callable[[], None] | None, pause: float
    ) -> None:
        """Wait until each has said a byte; one that died says nothing, and is noticed."""
        heard = 0
        while heard < self._participants:
            ready, _, _ = select.select([self._said_read], [], [], pause)
            if ready:
                heard += len(os.read(self._said_read, self._participants - heard))
            for process in processes:
                if process.exitcode not in (None, 0):
                    raise RuntimeError(f"{process.name} ended with {process.exitcode}")
            if watch is not None:
                watch()


def race(
    mp: Any,
    participants: Sequence[tuple[Callable[[], object], Callable[[], object]]],
    watch: Callable[[], None] | None = None,
    pause: float = LOOK_AT_CHILDREN,
    began: Callable[[list[int]], None] | None = None,
) -> float:
    """Run participants in a process each and time them together.

    Args:
        mp: the library whose `Process` runs them.
        participants: for each what it does to warm up, and what is timed.
        watch: called here every `pause` seconds while they work.
        pause: seconds between two looks at them.
        began: called here with the pids of the participants when they are started.

    Returns:
        Seconds from the first one's beginning until the last one's end.

    Raises:
        RuntimeError: one of them failed; its traceback is on standard error.
    """
    ground = _Ground(len(participants))
    processes = [
        mp.Process(target=ground.take_part, args=(place, *participant), daemon=True)
        for place, participant in enumerate(participants)
    ]
    started = []
    try:
        for process in processes:
            process.start()
            started.append(process)
        if began is not None:
            began([process.pid for process in processes])
        seconds = ground.run(processes, watch, pause)
        for process in processes:
            process.join()
        return seconds
    finally:
        for process in started:
            if process.is_alive():
                process.kill()
            process.join()
        ground.close()
