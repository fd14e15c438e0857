# SPDX-License-Identifier: PSF-2.0
"""Pickling for other processes: methods, partials, sockets, connections, and descriptors that travel along.

A reducer registered here is used by every pickle of this package, and by no other. Pickles that name modules of the
standard library's multiprocessing are understood: those names mean this package's modules.
"""
from __future__ import annotations

import _pickle as pickle  # the C half: all that is used here, without the Python half's import time
import copyreg
import functools
import io
import os
import sys
from abc import ABCMeta
from collections import ChainMap

from . import _spawning

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO, Any, ClassVar

__all__ = ["send_handle", "recv_handle", "ForkingPickler", "register", "dump", "DupFd", "sendfds", "recvfds"]

HAVE_SEND_HANDLE = True

_OURS = __name__.rpartition(".")[0]
_STANDARD = "multiprocessing"


class ForkingPickler(pickle.Pickler):
    """Pickler with the reducers of this package.

    Source: multiprocessing documentation has none; torch, numpy and loky rely on `register`, `dumps`, `loads`.
    """

    _extra_reducers: ClassVar[dict[type, Callable[[Any], Any]]] = {}
    _copyreg_dispatch: ClassVar[ChainMap[Any, Any]] = ChainMap(copyreg.dispatch_table)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _register_sockets()
        # One plain dict: the C pickler asks it about every object that is not a built-in one.
        self.dispatch_table = {**copyreg.dispatch_table, **_standard_reducers(), **self._extra_reducers}

    @classmethod
    def register(cls, type: type, reduce: Callable[[Any], Any]) -> None:
        """Pickle objects of exactly `type` with `reduce`, which returns what `__reduce__` would."""
        cls._extra_reducers[type] = reduce

    @classmethod
    def dumps(cls, obj: Any, protocol: int | None = None) -> memoryview:
        """Pickle `obj`.

        Args:
            obj: any object.
            protocol: None for the interpreter's default.

        Returns:
            The bytes, as a view.

        Raises:
            Exception: whatever its reducers raise; pickle.PicklingError where there is none.
        """
        buffer = io.BytesIO()
        cls(buffer, protocol).dump(obj)
        return buffer.getbuffer()

    @staticmethod
    def loads(
        data: Any, *, fix_imports: bool = True, encoding: str = "ASCII", errors: str = "strict", buffers: Any = None
    ) -> Any:
        """The object in a pickle.

        Args:
            data: bytes, or anything with the buffer interface.
            fix_imports: for pickles of Python 2, as those below; see pickle.loads().
            encoding: of their strings.
            errors: what to do with bytes that are not of that encoding.
            buffers: protocol 5 buffers, in order.
        """
        file = io.BytesIO(data)
        return Unpickler(file, fix_imports=fix_imports, encoding=encoding, errors=errors, buffers=buffers).load()


def _standard_reducers() -> dict[type, Callable[[Any], Any]]:
    """What the standard library's pickler knows, where a program uses it beside ours: its connections, for one."""
    module = _spawning.standard_module("reduction")
    reducers: dict[type, Callable[[Any], Any]] = {} if module is None else module.ForkingPickler._extra_reducers
    return reducers


register = ForkingPickler.register


class Unpickler(pickle.Unpickler):
    """Unpickler for which `multiprocessing.x` means this package's x, where x has that name."""

    def find_class(self, module: str, name: str) -> Any:
        """The global `name` of `module`."""
        if module == _STANDARD or module.startswith(_STANDARD + "."):
            ours = _OURS + module[len(_STANDARD) :]
            try:
                return super().find_class(ours, name)
            except (ImportError, AttributeError):
                pass  # the sender means a module that this package does not have
        return super().find_class(module, name)


def dump(obj: Any, file: IO[bytes], protocol: int | None = None) -> None:
    """Pickle `obj` into an open binary file."""
    ForkingPickler(file, protocol).dump(obj)


def load(file: IO[bytes]) -> Any:
    """The next object of an open binary file of pickles."""
    return Unpickler(file).load()


# Descriptors.

ACKNOWLEDGE = False  # sockets of one machine deliver in order: nothing to acknowledge
_MAXFDS = 253  # SCM_MAX_FD of Linux


def sendfds(sock: Any, fds: Sequence[int]) -> None:
    """Send descriptors over a Unix socket.

    Args:
        sock: a connected stream socket.
        fds: at most 253, the kernel's limit for one message.

    Raises:
        ValueError: more than that.
        OSError: the peer is gone.
    """
    import array
    import socket

    if len(fds) > _MAXFDS:
        raise ValueError(f"cannot send {len(fds)} descriptors in one message: the kernel's limit is {_MAXFDS}")
    numbers = array.array("i", fds)
    sock.sendmsg([bytes([len(numbers) % 256])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])


def recvfds(sock: Any, size: int) -> list[int]:
    """Receive `size` descriptors that `sendfds` sent.

    Raises:
        EOFError: the peer closed the socket.
        RuntimeError: what came is something else.
    """
    import array
    import socket

    numbers = array.array("i")
    room = socket.CMSG_SPACE(size * numbers.itemsize)
    message, ancillary, flags, _ = sock.recvmsg(1, room)
    if not message and not ancillary:
        raise EOFError("the peer closed the socket before it sent descriptors")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    received = list(numbers)
    if len(received) == size and len(received) % 256 == message[0] and not flags & socket.MSG_CTRUNC:
        return received
    for fd in received:
        os.close(fd)
    raise RuntimeError(f"received {len(received)} items of ancdata, expected {size} descriptors")


def send_handle(conn: Any, handle: int, destination_pid: int | None) -> None:
    """Send a descriptor over a connection that is a Unix socket.

    Args:
        conn: anything with fileno().
        handle: the descriptor; it stays open here.
        destination_pid: not needed on this system.
    """
    import socket

    with socket.fromfd(conn.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sendfds(sock, [handle])


def recv_handle(conn: Any) -> int:
    """Receive a descriptor that `send_handle` sent; it belongs to the caller."""
    import socket

    with socket.fromfd(conn.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        return recvfds(sock, 1)[0]


def DupFd(fd: int) -> Any:
    """A picklable stand-in for a descriptor; detach() gives the receiver its own one.

    While a process is being started its Popen carries the descriptor, else a thread of this process lends it.
    """
    popen = _spawning.get_spawning_popen()
    if popen is not None:
        return popen.DupFd(popen.duplicate_for_child(fd))
    if _spawning.lend_descriptor is None:
        raise ValueError("SCM_RIGHTS appears not to be available")
    return _spawning.lend_descriptor(fd)


# Types that pickle refuses, or that mean something else in another process.


class _Methods:
    def bound(self) -> None:
        """Only its type is used."""


def _reduce_method(method: Any) -> tuple[Any, ...]:
    return getattr, (method.__self__, method.__func__.__name__)


def _reduce_method_descriptor(method: Any) -> tuple[Any, ...]:
    return getattr, (method.__objclass__, method.__name__)


def _reduce_partial(partial: functools.partial[Any]) -> tuple[Any, ...]:
    return _rebuild_partial, (partial.func, partial.args, partial.keywords or {})


def _rebuild_partial(func: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return functools.partial(func, *args, **keywords)


def _reduce_socket(sock: Any) -> tuple[Any, ...]:
    return _rebuild_socket, (DupFd(sock.fileno()), sock.family, sock.type, sock.proto)


def _rebuild_socket(lent: Any, family: int, type: int, proto: int) -> Any:
    import socket

    return socket.socket(family, type, proto, fileno=lent.detach())


register(type(_Methods().bound), _reduce_method)
register(type(list.append), _reduce_method_descriptor)
register(type(int.__add__), _reduce_method_descriptor)
register(functools.partial, _reduce_partial)


def _register_sockets() -> None:
    """Register sockets once there can be any: importing socket would cost more than all the rest of this module."""
    module = sys.modules.get("socket")
    if module is not None:
        ForkingPickler._extra_reducers.setdefault(module.socket, _reduce_socket)


class AbstractReducer(metaclass=ABCMeta):  # noqa: B024  abstract by name only, as documented
    """Base class of a replacement for this module, for `context.reducer = ...`.

    Since 3.6; multiprocessing documentation, 'Context objects'.
    """

    ForkingPickler = ForkingPickler
    register = staticmethod(register)
    dump = staticmethod(dump)
    send_handle = staticmethod(send_handle)
    recv_handle = staticmethod(recv_handle)
    sendfds = staticmethod(sendfds)
    recvfds = staticmethod(recvfds)
    DupFd = staticmethod(DupFd)
