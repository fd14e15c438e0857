# SPDX-License-Identifier: PSF-2.0
"""The tracker: a process that destroys named resources which a program that died has left behind.

Only what has a name needs it, so it is started by the first register() and by nothing else. It reads lines from a pipe
that every process of the program may write to, one write() per line:

    REGISTER:name:kind      destroy it at the end
    UNREGISTER:name:kind    do not
    PROBE:0:noop            is anybody there?

The pipe ends with the last process that has its other end, however that one ends. What is still registered then is
reported on stderr and destroyed, and the tracker's exit code is 1; it is 0 if nothing was left.
"""
from __future__ import annotations

import os
import sys
from _thread import RLock

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

__all__ = ["ensure_running", "register", "unregister"]

# A write of this size to a pipe is not mixed with those of others (POSIX's smallest PIPE_BUF).
_MAX_LINE = 512

# Ctrl-C and the end of a session are for the program: the tracker outlives it. SIGINT and SIGTERM have these numbers
# everywhere; importing signal costs every program, tracker or not.
_IGNORED = (2, 15)


def _unused(name: str) -> None:
    """A resource that needs no cleaning."""


#: How a resource of each kind is destroyed; programs take kinds out, or put their own in.
_CLEANUP_FUNCS: dict[str, Callable[[str], object]] = {"noop": _unused}
if sys.version_info >= (3, 13):
    _CLEANUP_FUNCS["dummy"] = _unused  # for tests; those of earlier versions take every other kind for a real one


class ResourceTracker:
    """This process's side of the tracker."""

    def __init__(self) -> None:
        self._renew()
        self._fd: int | None = None
        self._pid: int | None = None  # only if it is a child of this process
        self._exitcode: int | None = None
        self._hooked = False

    def _renew(self) -> None:
        """A lock that nobody holds: at first, and in a forked child, whose parent may have held the old one."""
        self._lock = RLock()
        self._sending = False
        self._lines: list[bytes] = []

    def _after_fork(self) -> None:
        """In a forked child: the pipe is inherited, the tracker is not its child."""
        self._renew()
        self._pid = None

    def getfd(self) -> int:
        """The descriptor of the pipe to the tracker, which is started unless it runs.

        Source: multiprocessing documentation, 'Contexts and start methods' (the resource tracker process).
        """
        self.ensure_running()
        assert self._fd is not None
        return self._fd

    def ensure_running(self) -> None:
        """Start the tracker unless it runs. One that died is replaced, with a UserWarning.

        Raises:
            OSError: no process, or no descriptor, can be had.
            RuntimeError: this interpreter cannot start programs (sys.executable is unknown).
        """
        with self._lock:
            if self._fd is not None and not self._check_alive():
                self._forget()
                self._launch()
                _warn("resource_tracker: process died unexpectedly, relaunching. Some resources might leak.")
            elif self._fd is None:
                self._launch()

    def _check_alive(self) -> bool:
        """Whether somebody still reads the pipe."""
        if self._fd is None:
            return False
        try:
            self._write(b"PROBE:0:noop\n")
        except OSError:
            return False
        return True

    def register(self, name: str, rtype: str) -> None:
        """Have `name` destroyed when the program ends.

        Args:
            name: at most about 500 characters of ASCII.
            rtype: a key of `_CLEANUP_FUNCS`.

        Raises:
            ValueError: the name is too long for one line, or has a newline or a character that is not ASCII.
            OSError: the tracker cannot be started.
        """
        self._send("REGISTER", name, rtype)

    def unregister(self, name: str, rtype: str) -> None:
        """It was destroyed, or is not to be. Arguments and exceptions are those of register()."""
        self._send("UNREGISTER", name, rtype)

    def _send(self, word: str, name: str, rtype: str) -> None:
        line = f"{word}:{name}:{rtype}\n".encode("ascii")
        if len(line) > _MAX_LINE:
            raise ValueError(f"name of {len(name)} characters is too long: the line may have {_MAX_LINE} bytes")
        if line.count(b"\n") > 1:
            raise ValueError(f"a name cannot have a line break: {name!r}")
        with self._lock:
            self._lines.append(line)
            # A finalizer may come here while its own thread is at it below: then that one sends this line, too.
            if not self._sending:
                self._sending = True
                try:
                    self._send_lines()
                finally:
                    self._sending = False

    def _send_lines(self) -> None:
        """Send what is to be sent, in order."""
        try:
            self.ensure_running()
            while self._lines:
                self._write(self._lines[0])
                del self._lines[0]
        except BaseException:
            self._lines.clear()
            raise

    def _write(self, line: bytes) -> None:
        assert self._fd is not None
        written = os.write(self._fd, line)
        assert written == len(line), "a pipe takes a short line as a whole or not at all"

    def _launch(self) -> None:
        """Start the process. Signals stay blocked in it until it ignores them: Ctrl-C is not for the tracker."""
        import signal

        from . import _interpreter

        executable = _interpreter.get_executable()
        if executable is None:
            raise RuntimeError("the resource tracker cannot be started: sys.executable is unknown")
        reader, writer = os.pipe()
        try:
            statement = f"from {__name__} import main; main({reader})"
            args: list[str | bytes] = [executable, *_interpreter.args_from_interpreter_flags(), "-c"]
            args.append(_interpreter.program(statement))
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
            try:
                self._pid = _interpreter.spawnv_passfds(executable, args, [reader])
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        self._fd, self._exitcode = writer, None
        if not self._hooked:
            self._hooked = True
            os.register_at_fork(after_in_child=self._after_fork)

    def _forget(self) -> int | None:
        """Close the pipe and reap the tracker if it is our child; its exit code if that is known."""
        fd, pid = self._fd, self._pid
        self._fd = self._pid = None
        if fd is not None:
            os.close(fd)
        if pid is None:
            return None
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None  # reaped by somebody else

    def _stop(self) -> None:
        """End the tracker and wait for it; `_exitcode` tells whether something was left (1) or not (0).

        One that was never needed has left nothing.
        """
        with self._lock:
            if self._fd is not None:
                self._exitcode = self._forget()
            elif self._exitcode is None:
                self._exitcode = 0


_resource_tracker = ResourceTracker()
register, unregister = _resource_tracker.register, _resource_tracker.unregister
ensure_running, getfd = _resource_tracker.ensure_running, _resource_tracker.getfd


def running_fd() -> int | None:
    """The pipe to the tracker, None if none was needed so far."""
    return _resource_tracker._fd


def _warn(text: str) -> None:
    import warnings

    warnings.warn(text, UserWarning, stacklevel=3)


# --- the tracker's own process -------------------------------------------------------------------


def main(fd: int) -> NoReturn:
    """The tracker's life: keep book until the pipe ends, then destroy what is left.

    Args:
        fd: the pipe's end to read from.
    """
    import signal

    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    # Whoever waits for the end of our starter's output is not to wait for us.
    for stream in (sys.stdin, sys.stdout):
        if stream is not None:
            stream.close()
    left: dict[str, dict[str, None]] = {kind: {} for kind in _CLEANUP_FUNCS}
    for line in _lines(fd):
        try:
            _note(left, line)
        except Exception:
            sys.excepthook(*sys.exc_info())
    leaked = {kind: list(names) for kind, names in left.items() if names}
    for kind, names in leaked.items():
        _destroy(kind, names)
    sys.exit(1 if leaked else 0)


def _lines(fd: int) -> Iterator[str]:
    with open(fd, "rb") as pipe:
        for line in pipe:
            yield line.decode("ascii").rstrip("\n")


def _note(left: dict[str, dict[str, None]], line: str) -> None:
    """Do what a line says. Names may have colons; words and kinds have none."""
    word, _, rest = line.partition(":")
    name, _, kind = rest.rpartition(":")
    if kind not in _CLEANUP_FUNCS:
        raise ValueError(f"resource of unknown kind {kind!r}: {name!r} cannot be tracked")
    if word == "REGISTER":
        left[kind][name] = None
    elif word == "UNREGISTER":
        left[kind].pop(name, None)  # destroying a thing twice is its owner's error, not ours to print
    elif word != "PROBE":
        raise ValueError(f"unknown message {line!r}")


def _destroy(kind: str, names: list[str]) -> None:
    import warnings

    warnings.warn(
        f"resource_tracker: There appear to be {len(names)} leaked {kind} objects to clean up at shutdown: {names}",
        UserWarning,
        stacklevel=1,
    )
    for name in names:
        try:
            _CLEANUP_FUNCS[kind](name)
        except Exception as error:
            warnings.warn(f"resource_tracker: {name!r}: {error}", UserWarning, stacklevel=1)
