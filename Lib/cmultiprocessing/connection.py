# SPDX-License-Identifier: PSF-2.0
"""Connections between processes, in the standard library's wire format, and waiting for many of them.

A message is its length as a signed 32-bit number in network order, then the bytes. From 2 GiB on the number is -1 and
an unsigned 64-bit length follows. A Connection never reads ahead: what it has not returned is still in the descriptor.
"""
from __future__ import annotations

import os
import select
import struct
import time

from . import _errors, reduction
from .reduction import ForkingPickler as _ForkingPickler

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ._listener import Client, Listener

__all__ = ["Client", "Listener", "Pipe", "wait"]

BUFSIZE = 8192
CONNECTION_TIMEOUT = 20.0
_LENGTH = struct.Struct("!i")
_LONG_LENGTH = struct.Struct("!Q")
_MAX_SHORT = 0x7FFFFFFF
# Linux moves at most this many bytes per call.
_MAX_IO = 0x7FFFF000

families = ["AF_INET", "AF_UNIX"]


class _ConnectionBase:
    """What all connections share: checks, and objects on top of bytes.

    Args:
        handle: a descriptor; the connection owns it from now on.
        readable: whether it may be received from.
        writable: whether it may be sent to.
    """

    _handle: int | None = None

    def __init__(self, handle: Any, readable: bool = True, writable: bool = True) -> None:
        number = handle.__index__()
        if number < 0:
            raise ValueError(f"invalid handle: {number}")
        if not readable and not writable:
            raise ValueError("at least one of `readable` and `writable` must be True")
        self._handle = number
        self._readable = readable
        self._writable = writable

    def __del__(self) -> None:
        if self._handle is not None:
            self._close()

    def _close(self) -> None:
        raise NotImplementedError

    def _send_bytes(self, data: memoryview) -> None:
        raise NotImplementedError

    def _recv_bytes(self, maxlength: int | None = None) -> bytearray | None:
        raise NotImplementedError

    def _poll(self, timeout: float | None) -> bool:
        raise NotImplementedError

    def _check_closed(self) -> None:
        if self._handle is None:
            raise OSError("handle is closed")

    def _check_readable(self) -> None:
        if not self._readable:
            raise OSError("connection is write-only")

    def _check_writable(self) -> None:
        if not self._writable:
            raise OSError("connection is read-only")

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._handle is None

    @property
    def readable(self) -> bool:
        """Whether it may be received from."""
        return self._readable

    @property
    def writable(self) -> bool:
        """Whether it may be sent to."""
        return self._writable

    def fileno(self) -> int:
        """The descriptor. Raises OSError once closed."""
        self._check_closed()
        assert self._handle is not None
        return self._handle

    def close(self) -> None:
        """Close it; a second time does nothing."""
        if self._handle is not None:
            try:
                self._close()
            finally:
                self._handle = None

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send bytes as one message.

        Args:
            buf: bytes, or anything with the buffer interface.
            offset: position in bytes of the first one to send.
            size: number of bytes; None for all from offset on.

        Raises:
            ValueError: offset or size is negative or leads out of the buffer.
            OSError: closed, read-only, or the other end is closed.
        """
        self._check_closed()
        self._check_writable()
        view = memoryview(buf)
        if view.itemsize != 1 or view.ndim != 1:
            view = view.cast("B")
        self._send_bytes(_part(view, offset, len(view) if size is None else offset + size))

    def send(self, obj: Any) -> None:
        """Send an object, pickled. Raises what pickling raises, and OSError."""
        self._check_closed()
        self._check_writable()
        self._send_bytes(_ForkingPickler.dumps(obj))

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """The next message.

        Args:
            maxlength: a longer message raises OSError, and the connection can be read no more.

        Raises:
            EOFError: nothing is left, and the other end is closed.
            OSError: closed, write-only.
            ValueError: maxlength is negative.
        """
        self._check_closed()
        self._check_readable()
        if (maxlength or 0) < 0:
            raise ValueError(f"negative maxlength: {maxlength}")
        message = self._recv_bytes(maxlength)
        if message is None:
            self._close_reading()
            raise OSError("bad message length")
        return bytes(message)

    def _close_reading(self) -> None:
        """After a message that was refused the next bytes are no frame: the stream is of no use any more."""
        if self._writable:
            self._readable = False
        else:
            self.close()

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """Receive the next message into a writable buffer.

        Args:
            buf: where it goes.
            offset: position in bytes.

        Returns:
            Its length in bytes.

        Raises:
            BufferTooShort: it does not fit; `args[0]` is the message.
            ValueError: offset is negative or beyond the buffer.
        """
        self._check_closed()
        self._check_readable()
        with memoryview(buf) as whole, whole.cast("B") as view:
            room = _part(view, offset, len(view))
            message = self._recv_bytes()
            assert message is not None
            if len(message) > len(room):
                raise _errors.BufferTooShort(bytes(message))
            room[: len(message)] = message
            return len(message)

    def recv(self) -> Any:
        """The next object. Raises EOFError when nothing is left and the other end is closed."""
        self._check_closed()
        self._check_readable()
        message = self._recv_bytes()
        assert message is not None
        return _ForkingPickler.loads(message)

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether there is something to receive, end of file included.

        Args:
            timeout: seconds to wait for it; None for ever.
        """
        self._check_closed()
        self._check_readable()
        return self._poll(timeout)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _part(view: memoryview, start: int, end: int) -> memoryview:
    """view[start:end], but bounds that lead out of it are errors."""
    if start < 0:
        raise ValueError("offset is negative")
    if start > len(view):
        raise ValueError("buffer length < offset")
    if end < start:
        raise ValueError("size is negative")
    if end > len(view):
        raise ValueError("buffer length < offset + size")
    return view[start:end]


class Connection(_ConnectionBase):
    """A connection over a pipe or a socket.

    Source: multiprocessing documentation, 'Connection objects'.
    """

    # Bound here: they are needed while the interpreter is taken apart.
    def _close(self, _close: Any = os.close) -> None:
        assert self._handle is not None
        _close(self._handle)

    def _send(self, data: Any) -> None:
        """Write all of it."""
        handle = self.fileno()
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view[:_MAX_IO]) :]

    def _recv(self, size: int) -> bytearray:
        """Read exactly `size` bytes.

        Raises:
            EOFError: there is nothing at all.
            OSError: it ends in the middle.
        """
        handle = self.fileno()
        # Grown as data comes: a length is a claim of the other side, not a reason to take that much memory.
        data = bytearray()
        while len(data) < size:
            piece = os.read(handle, min(size - len(data), 1 << 20))
            if not piece:
                if not data:
                    raise EOFError
                raise OSError("got end of file during message")
            data += piece
        return data

    def _send_bytes(self, data: memoryview) -> None:
        size = len(data)
        head = _LENGTH.pack(size) if size <= _MAX_SHORT else _LENGTH.pack(-1) + _LONG_LENGTH.pack(size)
        if size <= 16384:
            self._send(head + bytes(data))  # one write: small messages of several threads do not mix
        else:
            self._send(head)
            self._send(data)

    def _recv_bytes(self, maxlength: int | None = None) -> bytearray | None:
        (size,) = _LENGTH.unpack(self._recv(_LENGTH.size))
        if size == -1:
            (size,) = _LONG_LENGTH.unpack(self._recv(_LONG_LENGTH.size))
        if size < 0:
            raise OSError(f"bad message length {size}")
        if maxlength is not None and size > maxlength:
            return None
        return self._recv(size)

    def _poll(self, timeout: float | None) -> bool:
        return bool(wait([self], timeout))


def _reduce_connection(connection: Connection) -> tuple[Any, ...]:
    lent = reduction.DupFd(connection.fileno())
    return _rebuild_connection, (lent, connection.readable, connection.writable)


def _rebuild_connection(lent: Any, readable: bool, writable: bool) -> Connection:
    return Connection(lent.detach(), readable, writable)


reduction.register(Connection, _reduce_connection)


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Two connected ends.

    Args:
        duplex: both send and receive; else the first only receives, the second only sends.
    Source: multiprocessing documentation, 'Pipes and Queues'.
    """
    if duplex:
        import socket

        one, other = socket.socketpair()
        return Connection(one.detach()), Connection(other.detach())
    read_end, write_end = os.pipe()
    return Connection(read_end, writable=False), Connection(write_end, readable=False)


def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Those of the objects that are ready for reading.

    Args:
        object_list: connections, sockets, sentinels: descriptors and objects with fileno().
        timeout: seconds to wait for the first; None for ever, negative is 0.

    Returns:
        The ready ones in their order; empty when the time is over. End of file counts as ready.
    Since 3.3; multiprocessing documentation, 'connection.wait'.
    """
    objects = list(object_list)
    poll = select.poll()
    descriptors = [item if isinstance(item, int) else item.fileno() for item in objects]
    for fd in descriptors:
        poll.register(fd, select.POLLIN)
    deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        # poll takes an int of milliseconds: a wait of months is done in pieces.
        ready = {fd for fd, _ in poll.poll(None if left is None else min(left * 1000, 1e9))}
        if ready or left == 0.0 or (left is not None and left * 1000 < 1e9):
            return [item for item, fd in zip(objects, descriptors, strict=True) if fd in ready]


# Listener, Client and the handshake: loaded when one of them is first asked for, because most programs only use Pipe().

_LATER = {
    **dict.fromkeys(
        [
            "Client", "ConnectionWrapper", "HANDSHAKE_TIMEOUT", "Listener", "SocketClient", "SocketListener",
            "XmlClient", "XmlListener", "_xml_dumps", "_xml_loads", "address_type", "arbitrary_address",
            "default_family",
        ],
        "_listener",
    ),
    **dict.fromkeys(
        [
            "CHALLENGE", "FAILURE", "MESSAGE_LENGTH", "WELCOME", "_ALLOWED_DIGESTS", "_CHALLENGE", "_FAILURE",
            "_LEGACY_LENGTHS", "_MAX_DIGEST_LEN", "_MD5ONLY_MESSAGE_LENGTH", "_MD5_DIGEST_LEN", "_WELCOME",
            "_create_response", "_verify_challenge", "answer_challenge", "deliver_challenge",
        ],
        "_authentication",
    ),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(f".{module}", __package__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
