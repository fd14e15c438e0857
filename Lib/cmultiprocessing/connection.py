# SPDX-License-Identifier: PSF-2.0
"""Connections between processes, in the standard library's wire format, and waiting for many of them.

A message is its length as a signed 32-bit number in network order, then the bytes. From 2 GiB on the number is -1 and
an unsigned 64-bit length follows. A Connection never reads ahead: what it has not returned is still in the descriptor.
The work is done by the native types; InternalDocs/connections.md tells how.
"""
from __future__ import annotations

from . import reduction
from ._cmultiprocessing import Connection as Connection
from ._cmultiprocessing import Pipe, connection_setup, wait
from ._errors import AuthenticationError as AuthenticationError
from ._errors import BufferTooShort, TimeoutError  # noqa: F401  the native half looks them up here
from .reduction import ForkingPickler as _ForkingPickler  # noqa: F401  may be replaced; looked up at every send

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any

    from ._listener import Client, Listener

__all__ = ["Client", "Listener", "Pipe", "wait"]

BUFSIZE = 8192
CONNECTION_TIMEOUT = 20.0

families = ["AF_INET", "AF_UNIX"]

#: Base class of all connections in the standard library; here there is one kind, which may be subclassed.
_ConnectionBase = Connection

connection_setup(globals(), reduction._register_sockets)


def reduce_connection(conn: Connection) -> tuple[Any, ...]:
    """How a connection travels in a pickle: its descriptor is lent, and where it belongs to a Pipe() that is said."""
    lent = reduction.DupFd(conn.fileno())
    lane = conn._lane_ticket()
    if lane is None:
        return rebuild_connection, (lent, conn.readable, conn.writable)
    return rebuild_connection, (lent, conn.readable, conn.writable, lane)


def rebuild_connection(
    df: Any, readable: bool, writable: bool, lane: tuple[bytes, int] | None = None
) -> Connection:
    """The connection of a pickle.

    Args:
        df: what `reduction.DupFd` made.
        readable: whether it may be received from.
        writable: whether it may be sent to.
        lane: which end of which Pipe() it is.
    """
    conn = Connection(df.detach(), readable, writable)
    if lane is not None:
        conn._lane_attach(lane)
    return conn


reduction.register(Connection, reduce_connection)


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
