# SPDX-License-Identifier: PSF-2.0
"""Start a process with fork, and follow any child of this process to its end."""
from __future__ import annotations

import os
from _signal import SIGINT, SIGKILL, SIGTERM  # type: ignore[import-not-found]

from . import _cmultiprocessing, _log_records, _signals, process
from ._cmultiprocessing import Ending as Ending
from ._cmultiprocessing import OwnedDescriptor as OwnedDescriptor
from ._cmultiprocessing import wait_readable

__all__ = ["Popen"]

# Where somebody else took the exit status, nobody can know it. asyncio and the fork server say the same.
UNKNOWN_EXIT_CODE = 255


class Popen:
    """A child of this process, started with fork.

    The sentinel is a pidfd: ready exactly when the child can be reaped, and not kept busy by whoever the child started.
    """

    method = "fork"
    pid: int
    sentinel: int
    returncode: int | None = None
    finalizer: OwnedDescriptor | None = None
    _leash_end = -1
    _ending: Ending

    def __init__(self, process_obj: process.BaseProcess) -> None:
        _cmultiprocessing.flush_std_streams()
        self._launch(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """The number that a descriptor of the start arguments has in the child: the same, it is inherited."""
        return fd

    # Life.

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code, None while the process runs. Reaps it.

        Args:
            flag: os.WNOHANG, or 0 to wait for the end.
        """
        if self.returncode is None:
            if not flag:
                self._is_ready(None)
            self._reap()
        return self.returncode

    # Threads and signal handlers may come here while others are between any two instructions of it: what must not be
    # told or done twice is in Ending, and each of its methods is one step.
    def _reap(self) -> None:
        try:
            code = self._ending.reap()
        except ChildProcessError:
            code = self._status_elsewhere()
            if code is not None:
                self._ended(code)
            return
        if code is not None:  # else it may be known by now to a handler, who has noted it
            self.returncode = code

    def _status_elsewhere(self) -> int | None:
        """The exit code of a child that was not reaped here. A library's own waitpid() may know it."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            from . import util  # weakref and threading come with it, and every fork would pay for them

            util.sub_warning("exit status of process %s was taken by somebody else", self.pid)
            return UNKNOWN_EXIT_CODE
        return os.waitstatus_to_exitcode(status) if pid == self.pid else None

    def _ended(self, code: int) -> None:
        """Note the end, and give back what only a living child needs."""
        self.returncode = self._ending.note(code)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end.

        Args:
            timeout: seconds; None for ever.

        Returns:
            The exit code, None where it still runs.
        """
        if self.returncode is None and (timeout is None or timeout > 0) and not self._is_ready(timeout):
            return None
        return self.poll()

    def _is_ready(self, timeout: float | None) -> bool:
        """Whether the process can be reaped within `timeout` seconds."""
        return wait_readable(self.sentinel, timeout)

    def _send_signal(self, number: int) -> None:
        """Send a signal, unless the process was reaped: its id may be another's by now."""
        if self.poll() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # it ended just now
            except OSError:
                if self.wait(timeout=0.1) is None:
                    raise

    def interrupt(self) -> None:
        """Send SIGINT."""
        self._send_signal(SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send_signal(SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send_signal(SIGKILL)

    def close(self) -> None:
        """Close the sentinel."""
        if self.finalizer is not None:
            self.finalizer()

    # Start.

    def _launch(self, process_obj: process.BaseProcess) -> None:
        _cmultiprocessing.family_start()
        # It calls os.fork by that name, because debuggers and gevent replace it; the child does not come back here.
        self.pid, self.sentinel, self._leash_end = _cmultiprocessing.fork_child(
            process_obj._bootstrap, process_obj._needs_leash(), process._names, _signals.work_for_child()
        )
        self.finalizer = OwnedDescriptor(self.sentinel)
        self._ending = Ending(self.pid, self._leash_end)

    def _watch_child(self) -> None:
        """Follow the child of this process that has just been started; one that cannot be followed is ended."""
        self.sentinel = _cmultiprocessing.watch_child(self.pid)
        self.finalizer = OwnedDescriptor(self.sentinel)
        self._ending = Ending(self.pid, self._leash_end)


def _load_exit_work() -> None:
    """Exit work of a process that started others: not every one of them needs util in its life."""
    from . import util  # noqa: F401


_log_records.watch(process.current_name)
process.load_exit_work = _load_exit_work
