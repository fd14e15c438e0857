# SPDX-License-Identifier: PSF-2.0
"""What a manager's server and its clients say to one another, the standard library's words.

A request is (ident, method, args, keywords), a reply (kind, result). A connection whose first request is
"accept_connection" goes on with requests for objects; any other first request is for the server itself and the last.
"""
from __future__ import annotations

import array

from . import connection, reduction

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any

__all__ = ["RemoteError", "Token", "all_methods", "convert_to_error", "dispatch", "public_methods"]

RETURN, ERROR, TRACEBACK, PROXY, UNSERIALIZABLE = "#RETURN", "#ERROR", "#TRACEBACK", "#PROXY", "#UNSERIALIZABLE"
#: A method that every object has: the value itself, pickled.
GETVALUE = "#GETVALUE"

_RULE = "-" * 75

#: Serializer to listener and client.
listener_client: dict[str, tuple[Any, Any]] = {
    "pickle": (connection.Listener, connection.Client),
    "xmlrpclib": (connection.XmlListener, connection.XmlClient),
}
#: Types of every SyncManager: what a proxy that has no manager makes of an answer.
known_types: dict[str, tuple[Any, ...]] = {}


class RemoteError(Exception):
    """What went wrong in the server where no exception came across; its argument is the server's traceback."""

    def __str__(self) -> str:
        return f"\n{_RULE}\n{self.args[0]}{_RULE}"


class Token:
    """Where an object lives.

    Args:
        typeid: the name it was registered under.
        address: of the server.
        id: which of the server's objects.
    """

    __slots__ = ("address", "id", "typeid")

    def __init__(self, typeid: str, address: Any, id: str) -> None:
        self.typeid, self.address, self.id = typeid, address, id

    def __repr__(self) -> str:
        return f"{type(self).__name__}(typeid={self.typeid!r}, address={self.address!r}, id={self.id!r})"


def dispatch(c: Any, id: str | None, methodname: str, args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006
    """Make one request and wait for the reply.

    Args:
        c: a connection to the server.
        id: of the object; None for the server itself.
        methodname: what to call.
        args: positional arguments.
        kwds: keyword arguments; only read.

    Raises:
        Exception: what the call raised there; RemoteError where that cannot be told.
    """
    c.send((id, methodname, args, kwds))
    kind, result = c.recv()
    if kind == RETURN:
        return result
    try:
        raise convert_to_error(kind, result)
    finally:
        del result  # it is the exception, whose traceback has this frame


def convert_to_error(kind: str, result: Any) -> Exception:
    """The exception that a reply means.

    Args:
        kind: the reply's first half.
        result: its second half.

    Raises:
        TypeError: a traceback that is no text.
    """
    if kind == ERROR:
        error: Exception = result
        return error
    if kind not in (TRACEBACK, UNSERIALIZABLE):
        return ValueError(f"reply of unknown kind {kind!r}")
    if not isinstance(result, str):
        raise TypeError(f"the text of a {kind} reply is of type {type(result).__name__}")
    return RemoteError(result if kind == TRACEBACK else f"the reply cannot be sent: {result}\n")


def all_methods(obj: object) -> list[str]:
    """Names of all of an object's methods."""
    return [name for name in dir(obj) if callable(getattr(obj, name))]


def public_methods(obj: object) -> list[str]:
    """Names of an object's methods that do not begin with an underscore."""
    return [name for name in all_methods(obj) if not name.startswith("_")]


# Objects that methods return and pickle does not know.


def rebuild_as_list(obj: Any) -> tuple[type[list[Any]], tuple[list[Any]]]:
    """How a view of a dictionary is pickled: as a list."""
    return list, (list(obj),)


def reduce_array(obj: array.array[Any]) -> tuple[type[array.array[Any]], tuple[str, bytes]]:
    """How an array is pickled: typecode and bytes."""
    return array.array, (obj.typecode, obj.tobytes())


_sample: dict[Any, Any] = {}
for _view in (_sample.keys(), _sample.values(), _sample.items()):
    reduction.register(type(_view), rebuild_as_list)
reduction.register(array.array, reduce_array)
