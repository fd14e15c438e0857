# SPDX-License-Identifier: PSF-2.0
"""Proxies: objects here whose methods are called in a manager's server.

A process has, for each server and thread, one connection; it goes when the last proxy for that server does.
"""
from __future__ import annotations

import time

from . import _spawning, process, util
from ._manager_protocol import (
    GETVALUE,
    PROXY,
    RETURN,
    Token,
    convert_to_error,
    dispatch,
    known_types,
    listener_client,
)

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import GenericAlias
    from typing import Any, ClassVar, Self

__all__ = [
    "AcquirerProxy", "ArrayProxy", "AutoProxy", "BarrierProxy", "BaseListProxy", "BasePoolProxy", "BaseProxy",
    "ConditionProxy", "DictProxy", "EventProxy", "IteratorProxy", "ListProxy", "MakeProxyType", "NamespaceProxy",
    "PoolProxy", "RebuildProxy", "ValueProxy",
]  # fmt: skip


class _Held(dict[str, int]):
    """Which objects of a server this process has proxies for, and how many. A forked child starts with none."""

    def __init__(self) -> None:
        super().__init__()
        util.register_after_fork(self, dict.clear)

    def add(self, ident: str) -> None:
        self[ident] = self.get(ident, 0) + 1

    def discard(self, ident: str) -> None:
        left = self.get(ident, 0) - 1
        if left > 0:
            self[ident] = left
        else:
            self.pop(ident, None)

    __hash__ = object.__hash__  # type: ignore[assignment]  # a weak key
    __eq__ = object.__eq__


#: Keys of the servers that this process knows: a proxy that arrives within another one's answer has none of its own.
known_keys: dict[Any, bytes] = {}


class BaseProxy:
    """An object in a manager's server.

    Args:
        token: which one.
        serializer: 'pickle' or 'xmlrpclib'.
        manager: the manager, if it is at hand: its registry tells which proxies answers become.
        authkey: the server's key; the manager's or this process's by default.
        exposed: names of the methods that may be called.
        incref: whether this proxy is to hold the object.
        manager_owned: whether it lives in the server itself, next to its object.

    Source: multiprocessing documentation, 'Proxy Objects'.
    """

    _address_to_local: ClassVar[dict[Any, tuple[util.ForkAwareLocal, _Held]]] = {}

    def __init__(
        self,
        token: Token,
        serializer: str,
        manager: Any = None,
        authkey: bytes | None = None,
        exposed: Sequence[str] | None = None,
        incref: bool = True,
        manager_owned: bool = False,
    ) -> None:
        local = self._address_to_local.get(token.address)
        if local is None:
            # One step, without a lock: a signal handler or a finalizer may make a proxy while its own thread does.
            local = self._address_to_local.setdefault(token.address, (util.ForkAwareLocal(), _Held()))
        self._tls, self._idset = local
        self._token = token
        self._id = token.id
        self._manager = manager
        self._serializer = serializer
        self._Client = listener_client[serializer][1]
        self._owned_by_manager = manager_owned
        self._close: Any = None
        self._authkey = _key_for(token.address, manager, authkey)
        if incref:
            self._incref()
        util.register_after_fork(self, BaseProxy._after_fork)

    def _connect(self) -> None:
        """Give this thread a connection."""
        from threading import current_thread

        name = process.current_process().name
        if current_thread().name != "MainThread":
            name += "|" + current_thread().name
        conn = self._Client(self._token.address, authkey=self._authkey)
        dispatch(conn, None, "accept_connection", (name,))
        self._tls.connection = conn

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006
        """Call a method of the object.

        Args:
            methodname: its name.
            args: positional arguments.
            kwds: keyword arguments; only read.

        Returns:
            What it returned; a proxy where the type was registered so.

        Raises:
            Exception: what it raised; RemoteError where the server could not call it.
        """
        conn = getattr(self._tls, "connection", None)
        if conn is None:
            self._connect()
            conn = self._tls.connection
        conn.send((self._id, methodname, args, kwds))
        kind, result = conn.recv()
        if kind == RETURN:
            return result
        if kind == PROXY:
            return self._proxy_for(*result)
        try:
            raise convert_to_error(kind, result)
        finally:
            del result

    def _proxy_for(self, exposed: Sequence[str], token: Token) -> Any:
        """The proxy for an answer. The server holds a reference for us until ours is counted."""
        token.address = self._token.address  # as we reach it
        registry = known_types if self._manager is None else self._manager._registry
        proxytype = registry[token.typeid][-1] if token.typeid in registry else AutoProxy
        proxy = proxytype(token, self._serializer, manager=self._manager, authkey=self._authkey, exposed=exposed)
        self._ask("decref", token.id)
        return proxy

    def _ask(self, request: str, *args: Any) -> Any:
        """Ask the server itself, through a connection of its own."""
        conn = self._Client(self._token.address, authkey=self._authkey)
        try:
            return dispatch(conn, None, request, args)
        finally:
            conn.close()

    def _getvalue(self) -> Any:
        """A copy of the object. Raises RemoteError: it cannot be pickled."""
        return self._callmethod(GETVALUE)

    def _incref(self) -> None:
        """Hold the object from now on."""
        if self._owned_by_manager:
            server = process.current_process()._manager_server  # type: ignore[attr-defined]
            server.incref(None, self._id)
            self._close = util.Finalize(self, _let_go_within, args=(server, self._id))
            return
        self._ask("incref", self._id)
        self._idset.add(self._id)
        state = self._manager and self._manager._state
        self._close = util.Finalize(
            self,
            _let_go,
            args=(self._token, self._authkey, state, self._tls, self._idset, self._Client),
            exitpriority=10,
        )

    def _after_fork(self) -> None:
        """A forked child's copy holds the object for itself. Its manager belongs to the parent."""
        self._manager = None
        if self._close is None:
            return
        self._close.cancel()
        try:
            self._incref()
        except Exception as error:
            # The server may be gone by now, and the child not want the proxy: the first call will say so.
            util.info("incref failed: %s", error)

    def __reduce__(self) -> tuple[Any, ...]:
        kwds: dict[str, Any] = {}
        if _spawning.get_spawning_popen() is not None:
            kwds["authkey"] = self._authkey
        if getattr(self, "_isauto", False):
            kwds["exposed"] = self._exposed_  # type: ignore[attr-defined]
            return RebuildProxy, (AutoProxy, self._token, self._serializer, kwds)
        return RebuildProxy, (type(self), self._token, self._serializer, kwds)

    def __deepcopy__(self, memo: Any) -> Any:
        return self._getvalue()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object, typeid {self._token.typeid!r} at {id(self):#x}>"

    def __str__(self) -> str:
        try:
            text: str = self._callmethod("__repr__")
        except Exception:
            return f"{repr(self)[:-1]}; '__str__()' failed>"
        return text


def _key_for(address: Any, manager: Any, authkey: bytes | None) -> process.AuthenticationString:
    """The key of the server at this address."""
    if authkey is None:
        authkey = manager._authkey if manager is not None else known_keys.get(address)
    if authkey is None:
        authkey = process.current_process().authkey
        return process.AuthenticationString(authkey)
    key = process.AuthenticationString(authkey)
    known_keys[address] = key
    return key


def _let_go_within(server: Any, ident: str) -> None:
    """A proxy within the server is gone."""
    server.decref(None, ident)


def _let_go(
    token: Token, authkey: bytes, state: Any, tls: Any, held: _Held, client: Callable[..., Any]
) -> None:
    """A proxy is gone: tell the server, unless that is known to be gone as well."""
    held.discard(token.id)
    if state is None or state.value == state.STARTED:
        try:
            util.debug("DECREF %r", token.id)
            conn = client(token.address, authkey=authkey)
            try:
                dispatch(conn, None, "decref", (token.id,))
            finally:
                conn.close()
        except Exception as error:
            util.debug("... decref failed: %s", error)
    else:
        util.debug("DECREF %r -- manager already shutdown", token.id)
    if not held and hasattr(tls, "connection"):
        tls.connection.close()
        del tls.connection


def RebuildProxy(func: Callable[..., Any], token: Token, serializer: str, kwds: dict[str, Any]) -> Any:
    """The proxy that a pickle means; in the server itself one that reaches its object as every client does.

    Args:
        func: makes it.
        token: which object.
        serializer: of its server.
        kwds: for func.
    """
    server = getattr(process.current_process(), "_manager_server", None)
    if server is not None and server.address == token.address:
        kwds = {**kwds, "manager_owned": True, "authkey": server.authkey}
    incref = kwds.pop("incref", True) and not getattr(process.current_process(), "_inheriting", False)
    return func(token, serializer, incref=incref, **kwds)


# Types of proxies.


def MakeProxyType(name: str, exposed: Sequence[str], _cache: dict[Any, type[BaseProxy]] = {}) -> type[BaseProxy]:  # noqa: B006
    """A class of proxies.

    Args:
        name: of the class.
        exposed: its methods.
    """
    key = (name, tuple(exposed))
    if key not in _cache:
        methods = {method: _forwarder(method) for method in exposed}
        _cache[key] = type(name, (BaseProxy,), {**methods, "_exposed_": tuple(exposed), "__module__": __name__})
    return _cache[key]


def _forwarder(name: str) -> Callable[..., Any]:
    def forward(self: BaseProxy, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    forward.__name__ = forward.__qualname__ = name
    return forward


def AutoProxy(
    token: Token,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Sequence[str] | None = None,
    incref: bool = True,
    manager_owned: bool = False,
) -> BaseProxy:
    """A proxy with the methods that the server says the object has. Arguments are those of BaseProxy."""
    key = _key_for(token.address, manager, authkey)
    if exposed is None:
        conn = listener_client[serializer][1](token.address, authkey=key)
        try:
            exposed = dispatch(conn, None, "get_methods", (token,))
        finally:
            conn.close()
    proxytype = MakeProxyType(f"AutoProxy[{token.typeid}]", tuple(sorted(exposed)))
    proxy = proxytype(token, serializer, manager=manager, authkey=key, incref=incref, manager_owned=manager_owned)
    proxy._isauto = True  # type: ignore[attr-defined]
    return proxy


def _generic(cls: type, item: Any) -> GenericAlias:
    from types import GenericAlias

    return GenericAlias(cls, item)


class IteratorProxy(BaseProxy):
    """A proxy for iterators and generators."""

    _exposed_ = ("__next__", "send", "throw", "close")

    def __iter__(self) -> Self:
        return self

    def __next__(self, *args: Any) -> Any:
        return self._callmethod("__next__", args)

    def send(self, *args: Any) -> Any:
        """Generator.send()."""
        return self._callmethod("send", args)

    def throw(self, *args: Any) -> Any:
        """Generator.throw()."""
        return self._callmethod("throw", args)

    def close(self, *args: Any) -> Any:
        """Generator.close()."""
        return self._callmethod("close", args)


class AcquirerProxy(BaseProxy):
    """A proxy for locks and semaphores. Who acquires is a thread of the server, one for each thread of a client."""

    _exposed_: tuple[str, ...] = ("acquire", "release", "locked")

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Acquire it; timeout in seconds."""
        args = (blocking,) if timeout is None else (blocking, timeout)
        acquired: bool = self._callmethod("acquire", args)
        return acquired

    def release(self) -> None:
        """Release it."""
        self._callmethod("release")

    def locked(self) -> bool:
        """Whether a lock is held. Since 3.14."""
        held: bool = self._callmethod("locked")
        return held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class ConditionProxy(AcquirerProxy):
    """A proxy for threading.Condition."""

    _exposed_ = ("acquire", "release", "locked", "wait", "notify", "notify_all")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be notified, at most `timeout` seconds; whether one was."""
        notified: bool = self._callmethod("wait", (timeout,))
        return notified

    def notify(self, n: int = 1) -> None:
        """Wake n of those who wait."""
        self._callmethod("notify", (n,))

    def notify_all(self) -> None:
        """Wake all who wait."""
        self._callmethod("notify_all")

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until predicate(), called here, is true; its last value.

        Args:
            predicate: called with the lock held.
            timeout: seconds for all of it.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            result = predicate()
            if result:
                return result
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return result
            self.wait(left)


class EventProxy(BaseProxy):
    """A proxy for threading.Event."""

    _exposed_ = ("is_set", "set", "clear", "wait")

    def is_set(self) -> bool:
        """Whether it is set."""
        answer: bool = self._callmethod("is_set")
        return answer

    def set(self) -> None:
        """Set it."""
        self._callmethod("set")

    def clear(self) -> None:
        """Clear it."""
        self._callmethod("clear")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most `timeout` seconds; whether it is."""
        answer: bool = self._callmethod("wait", (timeout,))
        return answer


class BarrierProxy(BaseProxy):
    """A proxy for threading.Barrier."""

    _exposed_ = ("__getattribute__", "wait", "abort", "reset")

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others, at most `timeout` seconds; our number among them."""
        number: int = self._callmethod("wait", (timeout,))
        return number

    def abort(self) -> None:
        """Break it."""
        self._callmethod("abort")

    def reset(self) -> None:
        """Make it whole again."""
        self._callmethod("reset")

    @property
    def parties(self) -> int:
        """How many it takes."""
        return self._attribute("parties")

    @property
    def n_waiting(self) -> int:
        """How many wait."""
        return self._attribute("n_waiting")

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(self._attribute("broken"))

    def _attribute(self, name: str) -> int:
        value: int = self._callmethod("__getattribute__", (name,))
        return value


class NamespaceProxy(BaseProxy):
    """A proxy for Namespace. Attributes that begin with an underscore are the proxy's own."""

    _exposed_ = ("__getattribute__", "__setattr__", "__delattr__")

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            return object.__getattribute__(self, key)
        return self._callmethod("__getattribute__", (key,))

    def __setattr__(self, key: str, value: Any) -> None:
        if key.startswith("_"):
            object.__setattr__(self, key, value)
        else:
            self._callmethod("__setattr__", (key, value))

    def __delattr__(self, key: str) -> None:
        if key.startswith("_"):
            object.__delattr__(self, key)
        else:
            self._callmethod("__delattr__", (key,))


class ValueProxy(BaseProxy):
    """A proxy for Value."""

    _exposed_ = ("get", "set")

    def get(self) -> Any:
        """Its value."""
        return self._callmethod("get")

    def set(self, value: Any) -> None:
        """Change its value."""
        self._callmethod("set", (value,))

    value = property(get, set, doc="Its value.")

    @classmethod
    def __class_getitem__(cls, item: Any) -> GenericAlias:
        return _generic(cls, item)


BaseListProxy = MakeProxyType(
    "BaseListProxy",
    (
        "__add__", "__contains__", "__delitem__", "__getitem__", "__len__", "__mul__", "__reversed__", "__rmul__",
        "__setitem__", "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
        "sort", "__imul__",
    ),
)


class ListProxy(BaseListProxy):  # type: ignore[misc, valid-type]
    """A proxy for list."""

    def __iadd__(self, value: Any) -> Self:
        self._callmethod("extend", (value,))
        return self

    def __imul__(self, value: Any) -> Self:
        self._callmethod("__imul__", (value,))
        return self

    @classmethod
    def __class_getitem__(cls, item: Any) -> GenericAlias:
        return _generic(cls, item)


_DICT_METHODS = (
    "__contains__", "__delitem__", "__getitem__", "__ior__", "__iter__", "__len__", "__or__", "__ror__", "__setitem__",
    "clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values",
)  # fmt: skip
_BaseDictProxy = MakeProxyType("_BaseDictProxy", _DICT_METHODS)


class DictProxy(_BaseDictProxy):  # type: ignore[misc, valid-type]
    """A proxy for dict."""

    _method_to_typeid_: ClassVar[dict[str, str]] = {"__iter__": "Iterator"}

    def __ior__(self, value: Any) -> Self:
        self._callmethod("update", (value,))
        return self

    @classmethod
    def __class_getitem__(cls, item: Any) -> GenericAlias:
        return _generic(cls, item)


ArrayProxy = MakeProxyType("ArrayProxy", ("__len__", "__getitem__", "__setitem__"))

BasePoolProxy = MakeProxyType(
    "BasePoolProxy",
    (
        "apply", "apply_async", "close", "imap", "imap_unordered", "join", "map", "map_async", "starmap",
        "starmap_async", "terminate",
    ),
)
BasePoolProxy._method_to_typeid_ = {  # type: ignore[attr-defined]
    "apply_async": "AsyncResult",
    "map_async": "AsyncResult",
    "starmap_async": "AsyncResult",
    "imap": "Iterator",
    "imap_unordered": "Iterator",
}


class PoolProxy(BasePoolProxy):  # type: ignore[misc, valid-type]
    """A proxy for Pool."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()


