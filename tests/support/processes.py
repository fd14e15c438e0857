# SPDX-License-Identifier: PSF-2.0
"""Processes as /proc shows them, and waiting for things that other processes do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessInfo:
    """One process. `born` (clock ticks since boot) tells two users of one pid apart."""

    pid: int
    parent: int
    state: str
    name: str
    born: int

    def __str__(self) -> str:
        """How a message names the process."""
        return f"pid {self.pid} ({command_line(self.pid) or self.name}, state {self.state})"


def info(pid: int) -> ProcessInfo | None:
    """What /proc says about a process; None when it is gone (a zombie is still there)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # of every process, twice in every test: no Path
            text = file.read().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold blanks and parentheses: it ends at the last one.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return ProcessInfo(pid, int(fields[1]), fields[0], head.partition("(")[2], int(fields[19]))


def command_line(pid: int) -> str:
    """The arguments of a process, '' for a zombie or a process that is gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()[:200]


def all_processes() -> list[ProcessInfo]:
    """Every process of the machine."""
    found = (info(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def descendants(pid: int) -> list[ProcessInfo]:
    """Children, grandchildren and so on of a process, parents first."""
    children: dict[int, list[ProcessInfo]] = {}
    for process in all_processes():
        children.setdefault(process.parent, []).append(process)
    found: list[ProcessInfo] = []
    level = children.get(pid, [])
    while level:
        found += level
        level = [child for process in level for child in children.get(process.pid, [])]
    return found


def same_process(seen: ProcessInfo) -> bool:
    """Whether a process seen earlier is still there, as itself and not as a new user of its pid."""
    now = info(seen.pid)
    return now is not None and now.born == seen.born


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (signum - 1) & 1)


def send(process: ProcessInfo, signum: int) -> None:
    """Signal a process if it is still the one that was seen."""
    if same_process(process):
        try:
            os.kill(process.pid, signum)
        except ProcessLookupError:
            return  # It ended between the two lines, which is what the caller was after.


def kill(processes: list[ProcessInfo]) -> None:
    """SIGKILL each of them, stopped ones too."""
    for process in processes:
        send(process, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look every few milliseconds until a condition holds.

    Args:
        condition: what must become true.
        seconds: patience; only a test that is about to fail waits that long.
        what: for the message.

    Raises:
        TimeoutError: it did not become true.
    """
    deadline = time.monotonic() + seconds
    pause = 0.001
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain until {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def wait_sleeping(pid: int, seconds: float = 10.0) -> None:
    """Wait until every thread of a process sleeps in the kernel: it has reached its blocking call.

    A process that polls sleeps as well, so this proves no more than that it does not compute.
    """

    def sleeping() -> bool:
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
            states = [Path(f"/proc/{pid}/task/{task}/stat").read_text().rpartition(")")[2].split()[0] for task in tasks]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return all(state == "S" for state in states)

    wait_until(sleeping, seconds, f"pid {pid} sleeps")
