# SPDX-License-Identifier: PSF-2.0
"""Start a process with fork, and follow any child of this process to its end."""
from __future__ import annotations

import _thread
import os
import select
import signal
import sys

# By name, here and in process.py, what runs in a child: a look into a module that the parent never took makes the
# child write to the interpreter's table of attributes, and each page that it writes to has to be copied first.
from atexit import _clear as _clear_atexit

from . import _cmultiprocessing, _leash, _log_records, process, util
from .process import run_child

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["Popen"]

# Where somebody else took the exit status, nobody can know it. asyncio and the fork server say the same.
UNKNOWN_EXIT_CODE = 255


#: The longest time that select.poll takes, ms.
_LONGEST_POLL = 2**31 - 1


class OwnedDescriptor:
    """A descriptor that is closed together with its owner; calling it closes it before.

    Args:
        fd: the descriptor.

    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self) -> None:
        """Close it; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __reduce__(self) -> NoReturn:
        # In another process the number is another file, and this class would close it.
        raise TypeError("cannot pickle a started process: its descriptors are those of the process that started it")

    # os is gone when the interpreter is taken apart.
    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        if self._fd >= 0:
            _close(self._fd)


# One thread reaps, the others wait for that moment: nobody sees "ended" without the exit code. Never held while waiting
# for a process.
_reap_lock = _thread.RLock()


class Popen:
    """A child of this process, started with fork.

    The sentinel is a pidfd: ready exactly when the child can be reaped, and not kept busy by whoever the child started.
    """

    method = "fork"
    pid: int
    sentinel: int
    returncode: int | None = None
    finalizer: OwnedDescriptor | None = None
    _reaping = False
    _leash_end = -1

    def __init__(self, process_obj: process.BaseProcess) -> None:
        process._flush_std_streams()
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
            with _reap_lock:
                # A signal handler that comes here while its thread reaps has to wait for its next chance.
                if self.returncode is None and not self._reaping:
                    self._reaping = True
                    try:
                        self._reap()
                    finally:
                        self._reaping = False
        return self.returncode

    def _reap(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            util.sub_warning("exit status of process %s was taken by somebody else", self.pid)
            self._ended(UNKNOWN_EXIT_CODE)
            return
        if pid == self.pid:
            self._ended(os.waitstatus_to_exitcode(status))

    def _ended(self, returncode: int) -> None:
        """Note the end, and give back what only a living child needs."""
        self.returncode = returncode
        _leash.drop(self._leash_end)
        _cmultiprocessing.child_reaped()

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
        """Whether the sentinel gets ready within `timeout` seconds."""
        poll = select.poll()
        poll.register(self.sentinel, select.POLLIN)
        return bool(poll.poll(None if timeout is None else min(timeout * 1000, _LONGEST_POLL)))

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
        self._send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the sentinel."""
        if self.finalizer is not None:
            self.finalizer()

    # Start.

    def _launch(self, process_obj: process.BaseProcess) -> None:
        _cmultiprocessing.family_start()
        leash_end, self._leash_end = _leash.new()
        leashed = process_obj._needs_leash()
        bootstrap = process_obj._bootstrap
        try:
            self.pid = os.fork()  # by this name: debuggers and gevent replace it
        except BaseException:
            _leash.drop(self._leash_end)
            os.close(leash_end)
            raise
        if self.pid == 0:
            _be_the_child(bootstrap, leash_end, leashed)
        os.close(leash_end)
        self._watch_child()

    def _watch_child(self) -> None:
        """Follow the child of this process that has just been started; one that cannot be followed is ended."""
        try:
            try:
                self.sentinel = os.pidfd_open(self.pid)
            except ProcessLookupError:
                self.sentinel = _ready_descriptor()
        except BaseException:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            _leash.drop(self._leash_end)
            raise
        self.finalizer = OwnedDescriptor(self.sentinel)


def _be_the_child(bootstrap: Callable[..., int], leash_end: int, leashed: bool) -> NoReturn:
    try:
        if leashed:
            _leash.arm(leash_end)
        # What the parent registered is the parent's to run.
        _clear_atexit()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    run_child(bootstrap, leash_end)


def _ready_descriptor() -> int:
    """The sentinel of a child that is gone: SIGCHLD is ignored, and it has ended.

    A pipe without a writer is ready at once.
    """
    read_end, write_end = os.pipe()
    os.close(write_end)
    return read_end


_log_records.watch(process.current_name)
os.register_at_fork(after_in_child=_reap_lock._at_fork_reinit)  # type: ignore[attr-defined]
