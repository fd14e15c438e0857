# SPDX-License-Identifier: PSF-2.0
r"""The process above the test run.

    guardian ---- pytest ---- what the tests start
        \___________________/
         orphans come back here

`stand_guard()` forks: the child goes on as pytest, the parent stays behind as guardian. It reaps orphans, so that a
test can tell a zombie of its own from somebody else's, and it ends a test that hangs, whatever state its interpreter
is in (the GIL held in C included):

* after the time limit it sends HANG_SIGNAL to pytest and to every descendant that handles it. faulthandler prints the
  tracebacks of all threads from the C handler; then, where the interpreter still runs, a Python handler makes the test
  fail and the run goes on;
* after the grace that follows it kills every descendant, pytest too, and exits with HANG_STATUS.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass

from tests.support import processes

HANG_SIGNAL = signal.SIGRTMAX - 1  # nothing else uses it
HANG_STATUS = 70
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Alarm:
    """A running test: its name, when it is called hung and when it is killed (monotonic clock, seconds)."""

    name: str
    hung_at: float
    kill_at: float


class Telephone:
    """pytest's end of the pipe to its guardian."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._owner = os.getpid()

    def arm(self, name: str, seconds: float, grace: float) -> None:
        """A test begins."""
        hung_at = time.monotonic() + seconds
        self._say({"name": name, "hung_at": hung_at, "kill_at": hung_at + grace})

    def disarm(self) -> None:
        """The test is over."""
        self._say(None)

    def _say(self, message: dict[str, object] | None) -> None:
        if os.getpid() == self._owner:  # a forked child that comes here must not change its parent's alarm
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")


def stand_guard() -> Telephone:
    """Fork; return in the child, stay in the parent until the child has ended."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:  # it died before the line above
            os._exit(HANG_STATUS)
        return Telephone(writing)
    os.close(writing)
    try:
        status = _Guardian(child, reading).run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = HANG_STATUS
    _end_all()
    os._exit(status)


def _end_all() -> None:
    """Kill every descendant and wait until none is left, ten seconds at most (what sleeps in a driver cannot die)."""
    deadline = time.monotonic() + 10
    while left := processes.descendants(os.getpid()):
        processes.kill(left)
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            pass  # those that are left are children of others: they come here, or the time runs out
        if time.monotonic() > deadline:
            print(f"guardian: cannot end {', '.join(map(str, left))}", file=sys.stderr, flush=True)
            return
        time.sleep(0.005)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")


class _Guardian:
    """The loop of the parent."""

    def __init__(self, child: int, telephone: int) -> None:
        self._child = child
        self._telephone = telephone
        self._unread = b""
        self._alarm: Alarm | None = None
        self._told = False  # the tracebacks of the present alarm were asked for
        self._status: int | None = None
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._woken, wake = os.pipe()
        self._watched = [telephone, self._woken]
        os.set_blocking(self._woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to pytest as well, which answers
        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._stop)

    def run(self) -> int:
        """Guard until pytest is gone; the exit status of the whole run."""
        self._reap()  # what ended before the handler stood
        while self._status is None:
            ready, _, _ = select.select(self._watched, [], [], self._patience())
            if self._telephone in ready:
                self._listen()
            if self._woken in ready:
                os.read(self._woken, 4096)
            self._reap()
            self._check_alarm()
        return self._status

    def _stop(self, signum: int, _frame: object) -> None:
        self._status = 128 + signum

    def _patience(self) -> float | None:
        if self._alarm is None:
            return None
        return max(0.0, (self._alarm.kill_at if self._told else self._alarm.hung_at) - time.monotonic())

    def _listen(self) -> None:
        chunk = os.read(self._telephone, 65536)
        if not chunk:  # pytest and all its children closed it; the end of pytest itself is seen by _reap
            self._watched.remove(self._telephone)
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self._alarm = None if message is None else Alarm(**message)
            self._told = False

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                code = os.waitstatus_to_exitcode(status)
                self._status = code if code >= 0 else 128 - code

    def _check_alarm(self) -> None:
        if self._alarm is None or self._status is not None:
            return
        now = time.monotonic()
        if not self._told and now >= self._alarm.hung_at:
            self._told = True
            self._ask_for_tracebacks()
        elif self._told and now >= self._alarm.kill_at:
            print(f"\nguardian: {self._alarm.name} hangs beyond recovery; killing the run", file=sys.stderr, flush=True)
            self._status = HANG_STATUS

    def _ask_for_tracebacks(self) -> None:
        """Children first: once pytest has heard, the test fails and they are gone."""
        assert self._alarm is not None
        tree = processes.descendants(os.getpid())
        print(f"\nguardian: {self._alarm.name} hangs; its processes:", file=sys.stderr)
        for process in tree:
            print(f"guardian:   {process}, child of {process.parent}", file=sys.stderr)
        sys.stderr.flush()
        for process in reversed(tree):
            if processes.catches(process.pid, HANG_SIGNAL):
                processes.send(process, HANG_SIGNAL)
                time.sleep(0.05)  # so that their tracebacks do not run into each other
