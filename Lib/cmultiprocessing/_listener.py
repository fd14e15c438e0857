# SPDX-License-Identifier: PSF-2.0
"""Listener and Client: connections between programs that know an address and, if they want, a key.

`connection` loads this module when one of its names is first asked for.
"""
from __future__ import annotations

import errno
import functools
import os
import select
import socket
import struct
import tempfile
import time

from . import _errors, _peers, process, util
from ._authentication import check_key, client_steps, server_steps
from ._sessions import Reception, Session, milliseconds
from ._socket_files import MAX_PATH, PrivateDirectory
from .connection import Connection

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._authentication import Steps

__all__ = ["Client", "Listener"]

default_family = "AF_UNIX"

#: Seconds that a peer has for the whole handshake.
HANDSHAKE_TIMEOUT = 5.0

_TIMEVAL = struct.Struct("ll")


# Addresses.


def address_type(address: Any) -> str:
    """The family of an address: a tuple is AF_INET, a string a path of AF_UNIX, bytes one without a file.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(address, tuple):
        return "AF_INET"
    if isinstance(address, str):
        return "AF_PIPE" if address.startswith("\\\\") else "AF_UNIX"
    if isinstance(address, bytes) and util.is_abstract_socket_namespace(address):
        return "AF_UNIX"
    raise ValueError(f"address type of {address!r} unrecognized")


def arbitrary_address(family: str) -> Any:
    """An address that is free: a port for the system to choose, or a path in a directory of this process, mode 0700.

    Raises:
        ValueError: the family is unknown here.
    """
    _check_family(family)
    if family == "AF_UNIX":
        return tempfile.mktemp(prefix="listener-", dir=_directory_for_sockets())
    return ("localhost" if family == "AF_INET" else "::1", 0)


def _directory_for_sockets() -> str:
    """The temporary directory of this process, or a private one where that has too long a name for sockets."""
    longest = len("/listener-") + 8
    usual = util.get_temp_dir()
    if len(os.fsencode(usual)) + longest <= MAX_PATH:
        return usual
    config = process.current_process()._config
    path: str | None = config.get("socketdir")
    if path is None or config.get("socketdir_pid") != os.getpid():
        directory = PrivateDirectory()
        util.Finalize(None, directory.remove_with_content, exitpriority=-100)
        path = directory.path
        config.update(socketdir=path, socketdir_pid=os.getpid())
    return path


def _check_family(family: str) -> None:
    """Raises ValueError for a family that this system does not have."""
    if family not in ("AF_INET", "AF_INET6", "AF_UNIX"):
        raise ValueError(f"family {family!r} is not supported on this system: use one of AF_INET, AF_INET6, AF_UNIX")


def _deadline_after(timeout: float | None) -> float | None:
    """The moment `timeout` seconds from now; negative is now."""
    return None if timeout is None else time.monotonic() + max(0.0, timeout)


# The side that waits to be connected to.


class SocketListener:
    """A listening socket with an address.

    Args:
        address: where to listen; None for a Unix socket that nobody has to name.
        family: 'AF_INET', 'AF_INET6' or 'AF_UNIX'.
        backlog: how many may wait to be accepted.
        authkey: what a peer has to know; None: nothing.
        handshake_timeout: seconds that a peer has to prove it; None for ever.
        steps: makes what a new peer has to go through, instead of the proof.

    Raises:
        OSError: the address is taken, malformed, or not of this machine.
    """

    def __init__(
        self,
        address: Any,
        family: str,
        backlog: int = 1,
        *,
        authkey: bytes | None = None,
        handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
        steps: Callable[[], Steps] | None = None,
    ) -> None:
        directory = PrivateDirectory() if address is None and family == "AF_UNIX" else None
        if address is None:
            address = arbitrary_address(family) if directory is None else directory.socket_path
        self._socket = socket.socket(getattr(socket, family))
        remove: Callable[[], None] = _nothing if directory is None else directory.remove
        try:
            self._socket.settimeout(None)
            if family != "AF_UNIX":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _bind(self._socket, address)
            if family == "AF_UNIX" and directory is None and not util.is_abstract_socket_namespace(address):
                remove = functools.partial(_remove_socket, os.path.abspath(address), _identity(address))
            self._socket.listen(backlog)
            self._address = self._socket.getsockname()
        except BaseException:
            self._socket.close()
            remove()
            raise
        self._family = family
        self._last_accepted: Any = None
        if authkey is not None:
            steps = functools.partial(server_steps, authkey)
        self._reception = Reception(self._socket, steps, handshake_timeout, None if directory is None else _is_own_user)
        # At close(), collection, or the end of the process that made it: not of one that was forked from it.
        self._unlink = util.Finalize(self, _close_door, args=(self._reception, remove), exitpriority=0)

    def accept(self, timeout: float | None = None) -> Connection:
        """The next connection.

        Args:
            timeout: seconds to wait for it; None for ever, negative is 0.

        Raises:
            AuthenticationError: the peer does not know the key.
            TimeoutError: cmultiprocessing's, when the time is over.
            OSError: the listener is closed.
        """
        # People set a timeout on this socket: then the error is the one that socket.accept() raises.
        usual = self._socket.gettimeout() if timeout is None else None
        session = self._reception.next(_deadline_after(timeout if usual is None else usual))
        if session is None:
            if usual is not None:
                raise TimeoutError("timed out") if usual else BlockingIOError("nobody is there")
            raise _errors.TimeoutError(f"no connection at {self._address!r} within {timeout} seconds")
        self._last_accepted = session.address
        return Connection(session.sock.detach())

    @property
    def dropped(self) -> int:
        """How many peers were sent away: too slow, gone before the end, of another user, or not of this protocol."""
        return self._reception.dropped

    def close(self) -> None:
        """Stop listening; the file of the socket is removed. A second time does nothing."""
        self._reception.close()
        self._unlink()


def _nothing() -> None:
    """What there is to remove for a socket without a file."""


def _close_door(reception: Reception, remove: Callable[[], None]) -> None:
    reception.close()
    remove()


def _bind(sock: socket.socket, address: Any) -> None:
    try:
        sock.bind(address)
    except OSError as error:
        if error.errno is None and isinstance(address, str):
            size = len(os.fsencode(address))
            raise OSError(f"{error}: {address!r} has {size} bytes, the limit is {MAX_PATH}") from None
        raise


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove_socket(path: str, identity: tuple[int, int]) -> None:
    """Remove the file of a socket, unless it is gone or is by now the socket of somebody else."""
    try:
        if _identity(path) == identity:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _is_own_user(sock: socket.socket) -> bool:
    """Sockets that the library names are for processes of this user only."""
    return _peers.peer_uid(sock) == os.geteuid()


class Listener:
    """Waits for connections at an address.

    Args:
        address: a tuple (host, port), a path, or an abstract name; None or empty for an arbitrary one.
        family: 'AF_INET', 'AF_UNIX', or 'AF_INET6', which must be named; None: that of the address, or 'AF_UNIX'.
        backlog: how many may wait to be accepted.
        authkey: bytes that a peer has to know; None: everybody may connect.
        handshake_timeout: seconds that a peer has to prove that it knows the key; None for ever. Ours.

    Raises:
        OSError: the address is taken, malformed, or not of this machine.
        TypeError: authkey is not bytes.
        ValueError: the family is unknown.

    The handshakes of all who want to connect go on side by side, while somebody is in accept(). Those who are too
    slow, vanish, or speak something else are dropped and counted.

    Source: multiprocessing documentation, 'Listeners and Clients'.
    """

    def __init__(
        self,
        address: Any = None,
        family: str | None = None,
        backlog: int = 1,
        authkey: bytes | None = None,
        *,
        handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
    ) -> None:
        if authkey is not None:
            check_key(authkey)
        family = family or (address_type(address) if address else default_family)
        _check_family(family)
        self._authkey = authkey
        self._listener: SocketListener | None = SocketListener(
            address or None, family, backlog, authkey=authkey, handshake_timeout=handshake_timeout
        )

    def _open(self) -> SocketListener:
        if self._listener is None:
            raise OSError("listener is closed")
        return self._listener

    def accept(self, timeout: float | None = None) -> Any:
        """Wait for a connection whose peer knows the key.

        Args:
            timeout: seconds; None for ever, negative is 0. Ours.

        Returns:
            A Connection.

        Raises:
            AuthenticationError: a peer has answered, but does not know the key. Those after it are not concerned.
            TimeoutError: cmultiprocessing's, when the time is over.
            OSError: the listener is closed, also by another thread meanwhile.
        """
        return self._open().accept(timeout)

    def close(self) -> None:
        """Stop listening. A second time does nothing."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    @property
    def address(self) -> Any:
        """Where it listens, to be given to Client."""
        return self._open()._address

    @property
    def last_accepted(self) -> Any:
        """Where the last accepted connection came from, None if that is unknown."""
        return self._open()._last_accepted

    @property
    def dropped(self) -> int:
        """How many were dropped: too slow, gone before the end, of another user, or not of this protocol. Ours."""
        return self._open().dropped

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


# The side that connects.


def Client(
    address: Any,
    family: str | None = None,
    authkey: bytes | None = None,
    *,
    timeout: float | None = None,
    handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
) -> Any:
    """Connect to a Listener.

    Args:
        address: where it listens.
        family: 'AF_INET', 'AF_UNIX', or 'AF_INET6', which must be named; None: that of the address.
        authkey: the key, bytes; None: the listener wants none.
        timeout: seconds for all of it, also while the listener has not accepted yet; None for ever. Ours.
        handshake_timeout: seconds that a listener which has accepted may be silent, before it is taken for one that
            has no key; None for ever. Ours.

    Returns:
        A Connection.

    Raises:
        AuthenticationError: the listener does not know the key, or asks for none.
        TimeoutError: cmultiprocessing's, when the time is over.
        OSError: nobody listens there; EOFError: the listener closed the connection during the handshake.
        TypeError: authkey is not bytes. ValueError: the address or the family is unknown.
    Source: multiprocessing documentation, 'Listeners and Clients'.
    """
    if authkey is not None:
        check_key(authkey)
    family = family or address_type(address)
    _check_family(family)
    deadline = _deadline_after(timeout)
    sock = _connect(address, family, deadline)
    try:
        if authkey is not None:
            _shake_hands(Session(sock, client_steps(authkey), address), handshake_timeout, deadline)
        return Connection(sock.detach())
    except BaseException:
        sock.close()
        raise


def SocketClient(address: Any) -> Connection:
    """Connect to a SocketListener, without a handshake."""
    return Connection(_connect(address, address_type(address), None).detach())


def _too_late(address: Any) -> _errors.TimeoutError:
    return _errors.TimeoutError(f"no connection to {address!r} in time")


def _connect(address: Any, family: str, deadline: float | None) -> socket.socket:
    sock = socket.socket(getattr(socket, family))
    try:
        sock.settimeout(None)
        if family == "AF_UNIX":
            _connect_unix(sock, address, deadline)
        else:
            sock.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
            sock.connect(address)
            sock.settimeout(None)
    except BaseException as error:
        sock.close()
        if isinstance(error, TimeoutError) and deadline is not None:
            raise _too_late(address) from None
        raise
    return sock


def _connect_unix(sock: socket.socket, address: Any, deadline: float | None) -> None:
    """Where the backlog is full a Unix socket that must not wait is refused at once: this one waits, until deadline."""
    while True:
        if deadline is not None:
            left = max(deadline - time.monotonic(), 1e-3)  # zero would be for ever
            _limit_sends(sock, left)
        try:
            sock.connect(address)
            # After a signal connect() may report success without one.
            sock.getpeername()
        except BlockingIOError:
            raise TimeoutError from None
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                continue
            raise
        break
    if deadline is not None:
        _limit_sends(sock, 0)


def _limit_sends(sock: socket.socket, seconds: float) -> None:
    """Have connect() and sends fail after a while; 0: never."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6)))


def _shake_hands(session: Session, patience: float | None, deadline: float | None) -> None:
    """Take all steps of a client.

    A listener that has not accepted yet is busy, and may be as long as the caller likes. One that has accepted and
    says nothing is not going to: it has no key. Once it has spoken, it is waited for as before; and so it is where
    nobody knows whether it has accepted, on another machine for one.
    """
    poll = select.poll()
    while not session.advance():
        doubt = None if session.heard else _deadline_after(patience)
        poll.register(session.sock, session.events)
        if poll.poll(milliseconds(min((end for end in (doubt, deadline) if end is not None), default=None))):
            continue
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise _too_late(session.address)
        # Where the kernel cannot tell, it may be busy: the standard library waits, too.
        if doubt is not None and now >= doubt and _peers.was_accepted(session.sock):
            raise _errors.AuthenticationError(
                f"the listener at {session.address!r} sent no challenge within {patience} seconds: "
                "it seems to use no key"
            )


# The same with XML instead of pickles, for peers that are not trusted to send those.


class ConnectionWrapper:
    """A connection with other ways to turn objects into bytes.

    Args:
        conn: the connection.
        dumps: object to bytes.
        loads: bytes to object.
    """

    def __init__(self, conn: Any, dumps: Callable[[Any], bytes], loads: Callable[[bytes], Any]) -> None:
        self._conn = conn
        self._dumps = dumps
        self._loads = loads
        # What it does not change is the connection's own.
        for name in ("fileno", "close", "poll", "recv_bytes", "send_bytes"):
            setattr(self, name, getattr(conn, name))

    def send(self, obj: Any) -> None:
        """Send an object."""
        self._conn.send_bytes(self._dumps(obj))

    def recv(self) -> Any:
        """The next object."""
        return self._loads(self._conn.recv_bytes())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._conn.close()


def _xml_dumps(obj: Any) -> bytes:
    import xmlrpc.client

    return xmlrpc.client.dumps((obj,), allow_none=True).encode("utf-8")


def _xml_loads(data: bytes) -> Any:
    import xmlrpc.client

    (obj,), _ = xmlrpc.client.loads(data.decode("utf-8"))
    return obj


class XmlListener(Listener):
    """A Listener whose connections send objects as XML-RPC does."""

    def accept(self, timeout: float | None = None) -> Any:
        """Wait for a connection, see Listener.accept()."""
        return ConnectionWrapper(super().accept(timeout), _xml_dumps, _xml_loads)


def XmlClient(*args: Any, **kwds: Any) -> ConnectionWrapper:
    """A Client whose connection sends objects as XML-RPC does."""
    return ConnectionWrapper(Client(*args, **kwds), _xml_dumps, _xml_loads)


# Their home, for users and in pickles, is the module that everybody imports.
for _thing in (
    address_type, arbitrary_address, Client, ConnectionWrapper, Listener, SocketClient, SocketListener, XmlClient,
    XmlListener, _xml_dumps, _xml_loads,
):  # fmt: skip
    _thing.__module__ = f"{__package__}.connection"
del _thing
