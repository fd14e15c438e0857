# SPDX-License-Identifier: PSF-2.0
"""What travels between a starter of processes, the fork server and its children.

A request is one message: a head, the start data unless they are large, and descriptors; what becomes of it in a child
is in Modules/_cmultiprocessing/py/served_child.c. Its answer, and all that is to be known of the child later, comes
through a pipe that the starter made for it, as reports of a fixed size.
"""
from __future__ import annotations

import os
import struct

from ._cmultiprocessing import REQUEST_DATA_MOST, REQUEST_OWN_FILES, request_head

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "KEY_SIZE", "INLINE_LIMIT", "MAX_MORE_FDS", "Request",
    "STARTED", "LEAVING", "ENDED", "REFUSED", "read_report",
]  # fmt: skip

KEY_SIZE = 32

#: How many descriptors a request carries for others: what the kernel allows, without ours, tracker and start data.
MAX_MORE_FDS = 253 - REQUEST_OWN_FILES - 2

_LONGEST_NAME = 256  # characters; of a longer one the child has that much until it has its process object

#: Start data up to this size, bytes, are part of the message; larger ones are a file of their own.
INLINE_LIMIT = REQUEST_DATA_MOST - 4 * _LONGEST_NAME

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


class Request:
    """What a child needs. The descriptors stay the sender's.

    Args:
        data: the start data, or a descriptor of a file with them.
        preparation_size: how many bytes of the start data come before the process object.
        name: the process's.
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
        preparation_size: int = 0,
        name: str = "",
        leashed: bool = False,
        tracker_fd: int | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        if len(fds) > MAX_MORE_FDS:
            raise ValueError(f"too many fds: {len(fds)} in the start arguments, the limit is {MAX_MORE_FDS}")
        in_file = isinstance(data, int)
        self._fds = [leash_fd, family_fd]
        if tracker_fd is not None:
            self._fds.append(tracker_fd)
        if isinstance(data, int):
            self._fds.append(data)
            data, preparation_size = b"", 0
        self._fds += fds
        encoded = name[:_LONGEST_NAME].encode("utf-8", "surrogatepass")
        head = request_head(leashed, tracker_fd is not None, in_file, encoded, preparation_size, traits, ticket)
        self._rest = head + data

    def message(self, key: bytes) -> bytes:
        """Its bytes."""
        return key + self._rest

    def descriptors(self, status_w: int, control_fd: int) -> list[int]:
        """What travels with it."""
        return [status_w, control_fd, *self._fds]


def read_report(status_r: int) -> tuple[int, int, int] | None:
    """The next report (kind, pid, value), None where the pipe ends. Waits for it unless the descriptor does not."""
    data = os.read(status_r, _REPORT.size)
    return _REPORT.unpack(data) if data else None
