# SPDX-License-Identifier: PSF-2.0
"""The server of a manager: objects, and a thread for every connection that calls their methods."""
from __future__ import annotations

import sys
import threading
import time
import traceback

from . import _errors, process, util
from ._manager_protocol import (
    ERROR,
    GETVALUE,
    PROXY,
    RETURN,
    TRACEBACK,
    UNSERIALIZABLE,
    Token,
    listener_client,
    public_methods,
)

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["Server"]

# A connection that went on as a client's: its thread has nothing left to answer.
_SERVED = object()
# Out of descriptors, for one: try again, but not at full speed.
_ACCEPT_PAUSE = 0.05


class _Entry:
    """An object, what may be called on it, and how many proxies there are."""

    __slots__ = ("exposed", "method_to_typeid", "obj", "references")

    def __init__(self, obj: Any, exposed: frozenset[str], method_to_typeid: Mapping[str, str]) -> None:
        self.obj, self.exposed, self.method_to_typeid = obj, exposed, method_to_typeid
        self.references = 0


class Server:
    """Serves one manager's objects.

    Args:
        registry: typeid to (callable, exposed, method_to_typeid, proxytype).
        address: where to listen; None for an address that is free.
        authkey: what clients have to know.
        serializer: 'pickle' or 'xmlrpclib'.
    """

    #: What a client may ask of the server itself.
    public = (
        "shutdown", "create", "accept_connection", "get_methods", "debug_info", "number_of_objects", "dummy", "incref",
        "decref",
    )  # fmt: skip

    #: Methods that every object has, exposed or not.
    fallback_mapping: dict[str, Callable[[Any], Any]] = {"__str__": str, "__repr__": repr, GETVALUE: lambda obj: obj}

    def __init__(self, registry: Any, address: Any, authkey: bytes, serializer: str) -> None:
        if not isinstance(authkey, bytes):
            raise TypeError(f"the authentication key must be bytes, not {type(authkey).__name__}")
        self.registry = registry
        self.authkey = process.AuthenticationString(authkey)
        listener, _ = listener_client[serializer]
        self.listener = listener(address=address, backlog=128, authkey=self.authkey)
        self.address = self.listener.address
        self.stop_event = threading.Event()
        # Guards the entries. Reentrant: the garbage collector may drop a proxy while its thread is within.
        self.mutex = threading.RLock()
        self._entries: dict[str, _Entry] = {}

    def serve_forever(self) -> None:
        """Serve until a client asks for the end; then SystemExit(0) is raised."""
        process.current_process()._manager_server = self  # type: ignore[attr-defined]
        threading.Thread(target=self._accept, name="manager's listener", daemon=True).start()
        try:
            while not self.stop_event.wait(1):
                pass
        except (KeyboardInterrupt, SystemExit):
            pass  # the end is near, in order
        self.stop_event.set()
        sys.exit(0)

    def _accept(self) -> None:
        while not self.stop_event.is_set():
            try:
                conn = self.listener.accept()
            except _errors.AuthenticationError as error:
                util.debug("manager: a client was turned away: %s", error)
                continue
            except OSError as error:
                if self.stop_event.is_set() or self.listener._listener is None:
                    return
                util.info("manager: accept() failed: %s", error)
                time.sleep(_ACCEPT_PAUSE)
                continue
            threading.Thread(target=self.handle_request, args=(conn,), daemon=True).start()

    def handle_request(self, conn: Any) -> None:
        """A connection's life: one request for the server itself, which may turn it into a client's.

        Args:
            conn: closed at the end.
        """
        try:
            reply = self._answer(conn)
            if reply is not _SERVED:
                _send(conn, reply, TRACEBACK)
        except (EOFError, OSError) as error:
            util.debug("manager: a connection ended: %s", error)
        finally:
            conn.close()

    def _answer(self, conn: Any) -> Any:
        try:
            request = conn.recv()
        except (EOFError, OSError):
            raise  # there is nobody to be told
        except Exception:  # what cannot be unpickled here is the client's error
            return TRACEBACK, traceback.format_exc()
        try:
            _, name, args, kwds = request
            del request  # what it refers to belongs to the object now, or to nobody
            if name not in self.public:
                raise AttributeError(f"a manager's server has no public method {name!r}")
            result = getattr(self, name)(conn, *args, **kwds)
        except Exception:
            return TRACEBACK, traceback.format_exc()
        return result if result is _SERVED else (RETURN, result)

    # Requests for objects.

    def serve_client(self, conn: Any) -> None:
        """Call methods for a client until it goes.

        Args:
            conn: its connection.
        """
        util.debug("manager: thread %r serves a client", threading.current_thread().name)
        while not self.stop_event.is_set():
            try:
                request = conn.recv()
            except (EOFError, OSError):
                return
            except Exception:  # what cannot be unpickled here is the client's error
                reply = TRACEBACK, traceback.format_exc()
            else:
                reply = self._call(conn, request)
                del request  # what it refers to belongs to the object now, or to nobody
            _send(conn, reply, UNSERIALIZABLE)
            del reply

    def _call(self, conn: Any, request: Any) -> tuple[str, Any]:
        try:
            ident, name, args, kwds = request
            entry = self._entry(ident)
            if name not in entry.exposed:
                return self._call_fallback(entry, name)
        except Exception:
            return TRACEBACK, traceback.format_exc()
        try:
            result = getattr(entry.obj, name)(*args, **kwds)
        except Exception as error:
            # Without the traceback, whose frames have all this: the client could not use it.
            return ERROR, error.with_traceback(None)
        typeid = entry.method_to_typeid.get(name)
        if typeid is None:
            return RETURN, result
        try:
            new, exposed = self.create(conn, typeid, result)
        except Exception:
            return TRACEBACK, traceback.format_exc()
        return PROXY, (exposed, Token(typeid, self.address, new))

    def _call_fallback(self, entry: _Entry, name: str) -> tuple[str, Any]:
        function = self.fallback_mapping.get(name)
        if function is None:
            raise AttributeError(f"method {name!r} of {type(entry.obj)!r} object is not in exposed={entry.exposed!r}")
        return RETURN, function(entry.obj)

    def _entry(self, ident: str) -> _Entry:
        try:
            return self._entries[ident]
        except KeyError:
            raise KeyError(f"the manager has no object {ident!r} (any more)") from None

    # Requests for the server itself; the first argument of each is the connection.

    def create(self, c: Any, typeid: str, /, *args: Any, **kwds: Any) -> tuple[str, tuple[str, ...]]:
        """Make an object, or take over the one argument of a type without a callable.

        Args:
            c: who asks.
            typeid: the name it was registered under.
            args: for its callable.
            kwds: for its callable.

        Returns:
            Its ident, with one reference that is the asker's, and the names of the methods that may be called.

        Raises:
            KeyError: there is no such type.
            ValueError: no callable, and not exactly one argument.
        """
        callable, exposed, method_to_typeid, _ = self.registry[typeid]
        if callable is not None:
            obj = callable(*args, **kwds)
        elif kwds or len(args) != 1:
            raise ValueError(f"{typeid!r} has no callable: it takes exactly one object")
        else:
            (obj,) = args
        names = [*(public_methods(obj) if exposed is None else exposed), *(method_to_typeid or ())]
        ident = f"{id(obj):x}"  # the same object twice is one entry
        with self.mutex:
            entry = self._entries.get(ident)
            if entry is None:
                entry = self._entries[ident] = _Entry(obj, frozenset(names), method_to_typeid or {})
            entry.references += 1
        util.debug("manager: %r object with id %s", typeid, ident)
        return ident, tuple(names)

    def get_methods(self, c: Any, token: Token) -> set[str]:
        """Names of the methods that may be called on an object."""
        return set(self._entry(token.id).exposed)

    def accept_connection(self, c: Any, name: str) -> object:
        """Turn the connection into a client's, served by this thread from now on.

        Args:
            c: the connection.
            name: what the client calls the thread.
        """
        threading.current_thread().name = name
        c.send((RETURN, None))
        self.serve_client(c)
        return _SERVED

    def incref(self, c: Any, ident: str) -> None:
        """One more proxy. Raises KeyError: the object is gone."""
        with self.mutex:
            self._entry(ident).references += 1

    def decref(self, c: Any, ident: str) -> None:
        """One proxy less; the last one takes the object along. Raises KeyError: the object is gone."""
        with self.mutex:
            entry = self._entry(ident)
            entry.references -= 1
            if entry.references <= 0:
                del self._entries[ident]
        # Outside of the mutex: what the object does when it goes may take its time.
        del entry

    def debug_info(self, c: Any) -> str:
        """A line for each object: ident, references, and the beginning of its str()."""
        with self.mutex:
            entries = sorted(self._entries.items())
        lines = [f"  {ident}:       refcount={entry.references}\n    {str(entry.obj)[:75]}" for ident, entry in entries]
        return "\n".join(lines)

    def number_of_objects(self, c: Any) -> int:
        """How many objects there are."""
        return len(self._entries)

    def dummy(self, c: Any) -> None:
        """Nothing: somebody wants to know whether the server is there."""

    def shutdown(self, c: Any) -> object:
        """End, in order. The reply is sent first, because the process may be gone right afterwards."""
        c.send((RETURN, None))
        self.stop_event.set()
        return _SERVED


def _send(conn: Any, reply: tuple[str, Any], kind_of_failure: str) -> None:
    """Send a reply; if it cannot be pickled, say that instead. Raises OSError: the client is gone."""
    try:
        conn.send(reply)
    except OSError:
        raise
    except Exception:
        conn.send((kind_of_failure, traceback.format_exc()))
