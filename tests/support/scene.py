# SPDX-License-Identifier: PSF-2.0
"""What the fault tests are staged with: actors that can be killed, notes that survive them, limits that are promises.

Nothing here uses the library under test but `context.Process`: a note is a file, so that a test of a broken queue
does not learn about it through a queue.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import processes

LONG = "CMULTIPROCESSING_LONG_TESTS"  # set to 1: the numbers of rounds that the requirements name
STRICT = "CMULTIPROCESSING_STRICT_DELAYS"  # set to 1: twice the promised times, on an idle machine
PATIENCE = 30.0  # seconds after which a test gives up waiting for something that is not timed
_HANG = 5.0  # seconds that a machine with much else to do may keep a process waiting


def scale(normal: int, full: int) -> int:
    """How many rounds: `normal` in everyday runs, `full` where the environment asks for long ones."""
    return full if os.environ.get(LONG) == "1" else normal


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Fail where the block takes much longer than promised: see check_delay()."""
    begin = time.monotonic()
    yield
    check_delay(time.monotonic() - begin, seconds, what)


def check_delay(took: float, promised: float, what: str) -> None:
    """Fail where `took` is so much more than the promised seconds that something must have hung."""
    allowed = 2 * promised
    if os.environ.get(STRICT) != "1":
        allowed += _HANG
    assert took <= allowed, f"{what}: took {took:.3f} s, promised within {promised} s, allowed {allowed:.3f} s"


class Notes:
    """Small messages between processes, as files that appear whole or not at all. Picklable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, value: object = None) -> None:
        """Leave a note; what JSON can say."""
        draft = self._folder / f".{name}.{os.getpid()}"
        draft.write_text(json.dumps(value))
        draft.rename(self._folder / name)

    def has(self, name: str) -> bool:
        """Whether the note is there."""
        return (self._folder / name).exists()

    def read(self, name: str, seconds: float = PATIENCE) -> Any:
        """The note, waiting until it is there."""
        processes.wait_until(lambda: self.has(name), seconds, f"the note {name!r} is written")
        return json.loads((self._folder / name).read_text())

    def path(self, name: str) -> Path:
        """Where the note is or will be."""
        return self._folder / name


class Crew:
    """Child processes of one test; whoever is left at its end is killed."""

    def __init__(self) -> None:
        self._members: list[Any] = []

    def start(self, ctx: Any, target: Callable[..., Any], *args: Any) -> Any:
        """Start `ctx.Process(target=target, args=args)`."""
        return self.enlist(ctx.Process(target=target, args=args))

    def enlist(self, process: Any) -> Any:
        """Start a Process that the test has made itself."""
        process.start()
        self._members.append(process)
        return process

    def kill(self, process: Any, signum: int = signal.SIGKILL) -> None:
        """Send a signal that ends the process, and reap it."""
        os.kill(process.pid, signum)
        process.join(PATIENCE)
        assert process.exitcode == -signum, f"{process} should have been ended by signal {signum}"

    def finish(self, process: Any, exitcode: int = 0) -> None:
        """Wait until a process has ended by itself, as it should."""
        process.join(PATIENCE)
        assert process.exitcode is not None, f"{process} hangs"
        assert process.exitcode == exitcode, f"{process} ended with {process.exitcode}, expected {exitcode}"

    def forget(self, process: Any) -> None:
        """Leave out a process that the test has closed itself."""
        self._members.remove(process)

    def dismiss(self) -> None:
        """Kill those that still run and reap all of them."""
        for process in self._members:
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)  # not reaped yet: the pid is still this process's
            process.join(PATIENCE)
            process.close()
        self._members.clear()


@contextmanager
def stopped(process: Any) -> Iterator[None]:
    """SIGSTOP a process for the length of the block."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        processes.wait_until(lambda: state(process.pid) in "TZ", PATIENCE, f"pid {process.pid} stops")
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def state(pid: int) -> str:
    """The kernel's letter for the state of a process, 'X' when it is gone."""
    seen = processes.info(pid)
    return "X" if seen is None else seen.state


def kill_self(signum: int = signal.SIGKILL) -> None:
    """End this process at once, without any clean-up."""
    os.kill(os.getpid(), signum)
    while True:
        signal.pause()  # not reached with SIGKILL
