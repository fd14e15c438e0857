# SPDX-License-Identifier: PSF-2.0
"""Managers: objects that live in a server process, and proxies for them that can go anywhere.

Source: multiprocessing documentation, 'Managers'.
"""
from __future__ import annotations

import array
import queue
import threading

from . import _default_context, _errors, connection, pool, process, util
from ._later import missing
from ._manager_protocol import (
    RemoteError,
    Token,
    all_methods,
    convert_to_error,
    dispatch,
    known_types,
    listener_client,
    public_methods,
    rebuild_as_list,
    reduce_array,
)
from ._manager_proxies import (
    AcquirerProxy,
    ArrayProxy,
    AutoProxy,
    BarrierProxy,
    BaseListProxy,
    BasePoolProxy,
    BaseProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    MakeProxyType,
    NamespaceProxy,
    PoolProxy,
    RebuildProxy,
    ValueProxy,
    known_keys,
)
from ._manager_server import Server
from .dummy import Namespace

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, ClassVar, Self

__all__ = ["BaseManager", "SyncManager", "BaseProxy", "Token", "SharedMemoryManager"]

# Users see these names, and pickle them, as names of this module. A child that unpickles a proxy imports it, so that it
# has the types which that proxy makes of what methods return.
for _thing in (
    RemoteError, Token, Server, all_methods, convert_to_error, dispatch, public_methods, rebuild_as_list, reduce_array,
    AcquirerProxy, ArrayProxy, AutoProxy, BarrierProxy, BaseListProxy, BasePoolProxy, BaseProxy, ConditionProxy,
    DictProxy, EventProxy, IteratorProxy, ListProxy, MakeProxyType, NamespaceProxy, PoolProxy, RebuildProxy, ValueProxy,
):  # fmt: skip
    _thing.__module__ = __name__
del _thing

#: Seconds that a server has to answer when it is told to end; one that is stopped, or hangs, is terminated.
_LAST_PATIENCE = 5.0


class State:
    """What a manager is doing; its proxies share it."""

    __slots__ = ("value",)
    INITIAL = 0
    STARTED = 1
    SHUTDOWN = 2

    def __init__(self) -> None:
        self.value = self.INITIAL


_WHY_NOT = {
    State.INITIAL: "has not been started",
    State.STARTED: "has been started already",
    State.SHUTDOWN: "has been shut down",
}


class BaseManager:
    """A manager without types of its own.

    Args:
        address: where its server listens; None for an address that is free.
        authkey: what clients have to know; this process's key by default.
        serializer: 'pickle' or 'xmlrpclib'.
        ctx: the context that starts the server's process.
        shutdown_timeout: seconds that the server has for its end before it is terminated, and then to be killed.
            Since 3.11.

    Source: multiprocessing documentation, 'Managers'.
    """

    _registry: ClassVar[dict[str, tuple[Any, ...]]] = {}
    _Server: ClassVar[type[Server]] = Server

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        if authkey is None:
            authkey = process.current_process().authkey
        self._address = address
        self._authkey = process.AuthenticationString(authkey)
        self._state = State()
        self._serializer = serializer
        self._Listener, self._Client = listener_client[serializer]
        self._ctx = ctx or _default_context.get_context()
        self._shutdown_timeout = shutdown_timeout
        self._process: Any = None

    @property
    def address(self) -> Any:
        """Where the server listens, None before it does."""
        return self._address

    def _check(self, *states: int) -> None:
        if self._state.value not in states:
            raise _errors.ProcessError(f"the manager {_WHY_NOT[self._state.value]}")

    def get_server(self) -> Server:
        """A server to be run in this process, by its serve_forever(). Raises ProcessError: the manager is in use."""
        self._check(State.INITIAL)
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self) -> None:
        """Use a server that runs already, at the manager's address. Raises OSError, AuthenticationError."""
        conn = self._Client(self._address, authkey=self._authkey)
        try:
            dispatch(conn, None, "dummy")
        finally:
            conn.close()
        self._state.value = State.STARTED

    def start(self, initializer: Callable[..., Any] | None = None, initargs: Sequence[Any] = ()) -> None:
        """Start the server's process.

        Args:
            initializer: called there first.
            initargs: its arguments.

        Raises:
            ProcessError: the manager is in use.
            TypeError: the initializer cannot be called.
            EOFError: the process ended before it served; its traceback went to stderr.
        """
        self._check(State.INITIAL)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        reader, writer = connection.Pipe(duplex=False)
        server = (self._registry, self._address, self._authkey, self._serializer)
        self._process = self._ctx.Process(target=type(self)._run_server, args=(*server, writer, initializer, initargs))
        number = ":".join(str(i) for i in self._process._identity)
        self._process.name = f"{type(self).__name__}-{number}"
        try:
            self._process.start()
            writer.close()
            self._address = reader.recv()
        finally:
            writer.close()
            reader.close()
        self._state.value = State.STARTED
        self.shutdown = util.Finalize(
            self,
            type(self)._finalize_manager,
            args=(self._process, self._address, self._authkey, self._state, self._Client, self._shutdown_timeout),
            exitpriority=0,
        )

    @classmethod
    def _run_server(
        cls,
        registry: Any,
        address: Any,
        authkey: bytes,
        serializer: str,
        writer: Any,
        initializer: Callable[..., Any] | None = None,
        initargs: Sequence[Any] = (),
    ) -> None:
        """The server's process. Ctrl-C is for its clients: it ends with them."""
        _ignore_interrupts()
        if initializer is not None:
            initializer(*initargs)
        server = cls._Server(registry, address, authkey, serializer)
        with writer:
            writer.send(server.address)
        util.info("manager serving at %r", server.address)
        server.serve_forever()

    @staticmethod
    def _finalize_manager(
        process: Any, address: Any, authkey: bytes, state: State, client: Callable[..., Any], shutdown_timeout: float
    ) -> None:
        """End the server's process, with more and more emphasis."""
        if process.is_alive():
            util.info("sending shutdown message to manager")
            try:
                conn = client(address, authkey=authkey, timeout=_LAST_PATIENCE)
                try:
                    conn.send((None, "shutdown", (), {}))
                    if not conn.poll(_LAST_PATIENCE):
                        raise _errors.TimeoutError(f"no answer within {_LAST_PATIENCE} seconds")
                finally:
                    conn.close()
            except Exception as error:
                util.info("manager does not answer: %s", error)
            for end in (None, process.terminate, process.kill):
                if end is not None:
                    util.info("manager still alive after %s s: %s()", shutdown_timeout, end.__name__)
                    end()
                process.join(timeout=shutdown_timeout)
                if not process.is_alive():
                    break
        state.value = State.SHUTDOWN
        BaseProxy._address_to_local.pop(address, None)
        known_keys.pop(address, None)  # the next server at this address has its own

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the server's process, at most `timeout` seconds."""
        if self._process is not None:
            self._process.join(timeout)
            if not self._process.is_alive():
                self._process = None

    def _ask(self, request: str, *args: Any, **kwds: Any) -> Any:
        conn = self._Client(self._address, authkey=self._authkey)
        try:
            return dispatch(conn, None, request, args, kwds)
        finally:
            conn.close()

    def _create(self, typeid: str, /, *args: Any, **kwds: Any) -> tuple[Token, Any]:
        """Make an object in the server: its token and the names of its methods."""
        if self._state.value != State.STARTED:
            raise AssertionError(f"server not yet started: the manager {_WHY_NOT[self._state.value]}")
        ident, exposed = self._ask("create", typeid, *args, **kwds)
        return Token(typeid, self._address, ident), exposed

    def _debug_info(self) -> Any:
        """A text about the server's objects."""
        return self._ask("debug_info")

    def _number_of_objects(self) -> Any:
        """How many objects the server has."""
        return self._ask("number_of_objects")

    def __enter__(self) -> Self:
        if self._state.value == State.INITIAL:
            self.start()
        self._check(State.STARTED)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,
        proxytype: Any = None,
        exposed: Sequence[str] | None = None,
        method_to_typeid: Mapping[str, str] | None = None,
        create_method: bool = True,
    ) -> None:
        """Add a type.

        Args:
            typeid: its name.
            callable: makes the object, in the server; None in a manager that only connects.
            proxytype: a subclass of BaseProxy; AutoProxy by default.
            exposed: names of the methods that proxies may call; the proxytype's `_exposed_` or, without that, all
                public ones by default.
            method_to_typeid: which methods return proxies, and of which type.
            create_method: whether the manager gets a method named typeid.

        Source: multiprocessing documentation, 'Customized managers'.
        """
        if "_registry" not in cls.__dict__:
            cls._registry = dict(cls._registry)
        if proxytype is None:
            proxytype = AutoProxy
        exposed = exposed or getattr(proxytype, "_exposed_", None)
        method_to_typeid = method_to_typeid or getattr(proxytype, "_method_to_typeid_", None)
        for method, name in (method_to_typeid or {}).items():
            if not isinstance(method, str) or not isinstance(name, str):
                raise TypeError(f"method_to_typeid must map names to names, not {method!r} to {name!r}")
        cls._registry[typeid] = (callable, exposed, method_to_typeid, proxytype)
        if create_method:
            setattr(cls, typeid, _maker(typeid, proxytype))


def _maker(typeid: str, proxytype: Any) -> Callable[..., Any]:
    def make(self: BaseManager, /, *args: Any, **kwds: Any) -> Any:
        util.debug("requesting creation of a shared %r object", typeid)
        token, exposed = self._create(typeid, *args, **kwds)
        proxy = proxytype(token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed)
        self._ask("decref", token.id)  # the reference that was ours until the proxy had its own
        return proxy

    make.__name__ = typeid
    make.__doc__ = f"Make a shared {typeid!r} object; arguments are those of its callable."
    return make


def _ignore_interrupts() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Value:
    """A variable of a manager.

    Args:
        typecode: kept for repr().
        value: the first value.
        lock: not needed.
    """

    def __init__(self, typecode: Any, value: Any, lock: Any = True) -> None:
        self._typecode = typecode
        self._value = value

    def get(self) -> Any:
        """Its value."""
        return self._value

    def set(self, value: Any) -> None:
        """Change its value."""
        self._value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._typecode!r}, {self._value!r})"

    value = property(get, set, doc="Its value.")


def Array(typecode: str, sequence: Any, lock: Any = True) -> array.array[Any]:
    """An array.array for a manager.

    Args:
        typecode: its type.
        sequence: what is in it.
        lock: not needed.
    """
    return array.array(typecode, sequence)


class SyncManager(BaseManager):
    """A manager of the common types.

    Source: multiprocessing documentation, 'Managers'.
    """


for _typeid, _callable, _proxytype in (
    ("Queue", queue.Queue, None),
    ("JoinableQueue", queue.Queue, None),
    ("Event", threading.Event, EventProxy),
    ("Lock", threading.Lock, AcquirerProxy),
    ("RLock", threading.RLock, AcquirerProxy),
    ("Semaphore", threading.Semaphore, AcquirerProxy),
    ("BoundedSemaphore", threading.BoundedSemaphore, AcquirerProxy),
    ("Condition", threading.Condition, ConditionProxy),
    ("Barrier", threading.Barrier, BarrierProxy),
    ("Pool", pool.Pool, PoolProxy),
    ("list", list, ListProxy),
    ("dict", dict, DictProxy),
    ("Value", Value, ValueProxy),
    ("Array", Array, ArrayProxy),
    ("Namespace", Namespace, NamespaceProxy),
):
    SyncManager.register(_typeid, _callable, _proxytype)
SyncManager.register("Iterator", proxytype=IteratorProxy, create_method=False)
SyncManager.register("AsyncResult", create_method=False)
known_types.update(SyncManager._registry)


class SharedMemoryManager(BaseManager):
    """A manager of shared memory. It cannot be made yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise missing(__name__, type(self).__name__)
