# SPDX-License-Identifier: PSF-2.0
"""Start a process in a fresh interpreter."""
from __future__ import annotations

import os

from . import _cmultiprocessing, _leash, popen_fork, process, reduction, resource_tracker, spawn, util
from ._spawning import set_spawning_popen

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Popen"]


class _DupFd:
    """A descriptor that the child inherits under the same number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        """The descriptor, now the caller's."""
        return self.fd


class _StartData:
    """What a pickler writes to: memory, or an anonymous file as soon as there is more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._fd = -1

    def write(self, data: bytes | memoryview) -> None:
        """Add to it."""
        self._size += len(data)
        if self._fd < 0 and self._size > self._limit:
            self._fd = os.memfd_create("start data")
            for part in self._parts:
                self._write_out(part)
        if self._fd < 0:
            self._parts.append(bytes(data))  # the pickler uses its buffer again
        else:
            self._write_out(data)

    def _write_out(self, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def tell(self) -> int:
        """How many bytes there are."""
        return self._size

    def result(self) -> bytes | int:
        """The bytes, or the file, positioned at its beginning; close-on-exec; the caller's."""
        if self._fd < 0:
            return b"".join(self._parts)
        os.lseek(self._fd, 0, os.SEEK_SET)
        return self._fd

    def drop(self) -> None:
        """Give the file back."""
        if self._fd >= 0:
            os.close(self._fd)


def write_start_data(
    popen: Any, process_obj: process.BaseProcess, data: dict[str, Any], ticket: bytes, limit: int = -1
) -> tuple[bytes | int, int]:
    """Pickle what a child has to know.

    Args:
        popen: collects the descriptors that come up while pickling.
        process_obj: the process.
        data: its preparation data.
        ticket: the child's place in the family; shared objects among the arguments live until it has taken them.
        limit: more bytes than that go into an anonymous file.

    Returns:
        The bytes, or the file, positioned at its beginning, close-on-exec; and how many bytes are the preparation data.

    Raises:
        Exception: whatever pickling raises, with a note of what was pickled for what.
    """
    written: Any = _StartData(limit)
    set_spawning_popen(popen)
    try:
        _cmultiprocessing.pin_target(ticket)
        reduction.dump(data, written)
        size = written.tell()
        reduction.dump(process_obj, written)
        return written.result(), size
    except BaseException as error:
        written.drop()
        if isinstance(error, Exception):
            error.add_note(
                f"while pickling {process_obj.name!r} for start method {popen.method!r}: its target, arguments and "
                "attributes must be picklable (functions and classes by their name in an importable module)"
            )
        raise
    finally:
        set_spawning_popen(None)
        _cmultiprocessing.pin_target(None)


class Popen(popen_fork.Popen):
    """A child of this process that runs an interpreter of its own."""

    method = "spawn"
    DupFd = _DupFd

    def __init__(self, process_obj: process.BaseProcess) -> None:
        self._fds: list[int] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Have the child inherit `fd`."""
        self._fds.append(fd)
        return fd

    def _launch(self, process_obj: process.BaseProcess) -> None:
        data = spawn.get_preparation_data(process_obj.name)
        _cmultiprocessing.family_start()
        lent: list[int] = []  # the child's copies: closed here whatever happens
        try:
            family_fd, ticket = _cmultiprocessing.family_reserve()
            lent.append(family_fd)
            data_fd, _ = write_start_data(self, process_obj, data, ticket)
            assert isinstance(data_fd, int)
            lent.append(data_fd)
            leash_end, self._leash_end = _leash.new()
            lent.append(leash_end)
            tracker_fd = resource_tracker.running_fd()
            if tracker_fd is not None:
                self._fds.append(tracker_fd)
            command = spawn.get_command_line(
                tracker_fd=tracker_fd,
                pipe_handle=data_fd,
                family_fd=family_fd,
                ticket=ticket.hex(),
                leash_fd=leash_end,
                leashed=int(process_obj._needs_leash()),
            )
            self.pid = util.spawnv_passfds(  # by this name: programs replace it
                command[0], command, {*self._fds, *lent})
            self._watch_child()
        except BaseException:
            _leash.drop(self._leash_end)
            raise
        finally:
            for fd in lent:
                os.close(fd)
