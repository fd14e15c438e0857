# SPDX-License-Identifier: PSF-2.0
"""What travels between a starter of processes, the fork server and its children.

A request is one message: a header, the start data unless they are large, and descriptors. Its answer, and all that is
to be known of the child later, comes through a pipe that the starter made for it, as reports of a fixed size.
"""
from __future__ import annotations

import os
import struct
from _operator import _compare_digest  # hmac's, without OpenSSL and what else hmac would bring into every child

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "KEY_SIZE", "ROOM", "INLINE_LIMIT", "MAX_MORE_FDS", "OWN_FDS", "Request", "Work", "unpack_work", "is_genuine",
    "STARTED", "LEAVING", "ENDED", "REFUSED", "UNKNOWN_EXIT_CODE", "report", "read_report",
]  # fmt: skip

KEY_SIZE = 32
_TICKET_SIZE = 32
_TRAITS_SIZE = 16

# key, leashed, has tracker, has a file with the start data, ticket, traits; the start data follow
_HEADER = struct.Struct(f"<{KEY_SIZE}s???{_TICKET_SIZE}s{_TRAITS_SIZE}s")

#: Start data up to this size, bytes, are part of the message; larger ones are a file of their own.
INLINE_LIMIT = 1 << 15
#: Bytes that a receiver has to have room for.
ROOM = _HEADER.size + INLINE_LIMIT

# Status pipe, leash, family, sockets.
OWN_FDS = 4
#: How many descriptors a request carries for others: what the kernel allows, without ours, tracker and start data.
MAX_MORE_FDS = 253 - OWN_FDS - 2

# kind, pid, exit code or errno
_REPORT = struct.Struct("<Bii")
#: The child runs. Says the child.
STARTED = 1
#: The child has done all that it had to do, and ends with this code. Says the child.
LEAVING = 2
#: The child has ended with this code. Says the server.
ENDED = 3
#: There is no child; the value is an errno. Says the child that should have been it, or the server.
REFUSED = 4

#: Where nobody who knows the exit code is alive. asyncio says the same.
UNKNOWN_EXIT_CODE = 255


class Request:
    """What a child needs. The descriptors stay the sender's.

    Args:
        data: the start data, or a descriptor of a file with them.
        leash_fd: gets ready when the starter dies.
        family_fd: descriptor of the place in the family that is reserved for the child.
        ticket: which place.
        traits: umask and signal mask, from get_traits().
        leashed: whether the child dies with its starter.
        tracker_fd: descriptor of the resource tracker, None if none runs.
        fds: what else travels along, at most MAX_MORE_FDS.

    Raises:
        ValueError: more descriptors than one message can carry.

    """

    def __init__(
        self,
        data: bytes | memoryview | int,
        *,
        leash_fd: int,
        family_fd: int,
        ticket: bytes,
        traits: bytes,
        leashed: bool = False,
        tracker_fd: int | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        if len(fds) > MAX_MORE_FDS:
            raise ValueError(f"too many fds: {len(fds)} in the start arguments, the limit is {MAX_MORE_FDS}")
        in_file = isinstance(data, int)
        self._rest = _HEADER.pack(b"", leashed, tracker_fd is not None, in_file, ticket, traits)[KEY_SIZE:]
        self._fds = [leash_fd, family_fd]
        self._more_fds = list(fds)
        if isinstance(data, int):
            self._more_fds.insert(0, data)
        else:
            self._rest += data
        if tracker_fd is not None:
            self._more_fds.insert(0, tracker_fd)

    def message(self, key: bytes) -> bytes:
        """Its bytes."""
        return key + self._rest

    def descriptors(self, status_w: int, control_fd: int) -> list[int]:
        """What travels with it."""
        return [status_w, control_fd, *self._fds, *self._more_fds]


class Work:
    """A request as its child sees it. The descriptors are the child's."""

    data: bytes | int  # the start data, or a file with them
    status_w: int
    control_fd: int
    leash_fd: int
    family_fd: int
    tracker_fd: int | None
    fds: list[int]
    ticket: bytes
    traits: bytes
    leashed: bool


def is_genuine(message: bytes, key: bytes) -> bool:
    """Whether a message is a request of somebody who knows the key."""
    return len(message) >= _HEADER.size and _compare_digest(message[:KEY_SIZE], key)


def unpack_work(message: bytes, fds: Sequence[int]) -> Work:
    """The request in a genuine message.

    Raises:
        ValueError: descriptors are missing.
    """
    work = Work()
    _, work.leashed, has_tracker, in_file, work.ticket, work.traits = _HEADER.unpack_from(message)
    work.status_w, work.control_fd, work.leash_fd, work.family_fd, *others = fds
    work.tracker_fd = others.pop(0) if has_tracker else None
    work.data = others.pop(0) if in_file else message[_HEADER.size :]
    work.fds = others
    return work


def report(status_w: int, kind: int, pid: int, value: int) -> None:
    """Tell the starter. It may be dead: then nobody is interested.

    Args:
        status_w: the pipe's end.
        kind: STARTED, LEAVING, ENDED or REFUSED.
        pid: the child.
        value: exit code or errno.
    """
    try:
        os.write(status_w, _REPORT.pack(kind, pid, value))
    except BrokenPipeError:
        pass


def read_report(status_r: int) -> tuple[int, int, int] | None:
    """The next report (kind, pid, value), None where the pipe ends. Waits for it unless the descriptor does not."""
    data = os.read(status_r, _REPORT.size)
    return _REPORT.unpack(data) if data else None
