# SPDX-License-Identifier: PSF-2.0
"""Contexts: the whole API with one start method each. The one place that joins all modules.

Modules are imported when their first object is made: `import cmultiprocessing` is to cost next to nothing.
"""
from __future__ import annotations

import os
import sys

from . import _default_context as _hooks
from . import _spawning, process
from ._errors import AuthenticationError as AuthenticationError
from ._errors import BufferTooShort as BufferTooShort
from ._errors import ProcessError as ProcessError
from ._errors import TimeoutError as TimeoutError
from ._spawning import assert_spawning as assert_spawning
from ._spawning import get_spawning_popen as get_spawning_popen
from ._spawning import set_spawning_popen as set_spawning_popen

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .connection import Connection
    from .queues import JoinableQueue, Queue, SimpleQueue
    from .synchronize import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore

__all__: list[str] = []


_synchronize: Any = None


def _load_synchronize() -> Any:
    """The module `synchronize`, kept for the next call."""
    global _synchronize
    from . import synchronize

    _synchronize = synchronize
    return synchronize


_sharedctypes: Any = None


def _load_sharedctypes() -> Any:
    """The module `sharedctypes`, kept for the next call."""
    global _sharedctypes
    from . import sharedctypes

    _sharedctypes = sharedctypes
    return sharedctypes


class BaseContext:
    """The API of the package, bound to a start method.

    Source: multiprocessing documentation, 'Contexts and start methods'.
    """

    AuthenticationError = AuthenticationError
    BufferTooShort = BufferTooShort
    ProcessError = ProcessError
    TimeoutError = TimeoutError

    active_children = staticmethod(process.active_children)
    current_process = staticmethod(process.current_process)
    parent_process = staticmethod(process.parent_process)

    _name: str
    Process: type[process.BaseProcess]

    def cpu_count(self) -> int:
        """The number of CPUs of the machine, which may be more than this process may use.

        Raises:
            NotImplementedError: the system does not say.
        """
        count = os.cpu_count()
        if count is None:
            raise NotImplementedError("cannot determine number of cpus")
        return count

    def Manager(self) -> Any:
        """A started SyncManager."""
        from .managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        """Two connected ends; not duplex: the first only receives, the second only sends."""
        from .connection import Pipe

        return Pipe(duplex)

    # Synchronisation objects work under every start method, so their types are not told the context. An import
    # statement in a function costs several times what making a lock does: the module is looked up once.

    def Lock(self, *, robust: bool = True) -> Lock:
        """A lock. robust=False: it stays locked when its owner is killed."""
        module = _synchronize or _load_synchronize()
        return module.Lock() if robust else module.Lock(robust=False)

    def RLock(self) -> RLock:
        """A lock that its owner may acquire again."""
        return (_synchronize or _load_synchronize()).RLock()

    def Condition(self, lock: Any = None) -> Condition:
        """A condition variable. lock: a Lock or RLock; None makes an RLock."""
        return (_synchronize or _load_synchronize()).Condition(lock)

    def Semaphore(self, value: int = 1, *, robust: bool = False) -> Semaphore:
        """A semaphore. robust=True: what killed processes hold comes back."""
        return (_synchronize or _load_synchronize()).Semaphore(value, robust=robust)

    def BoundedSemaphore(self, value: int = 1, *, robust: bool = False) -> BoundedSemaphore:
        """A semaphore that is never released above its first value."""
        return (_synchronize or _load_synchronize()).BoundedSemaphore(value, robust=robust)

    def Event(self) -> Event:
        """A flag to wait for."""
        return (_synchronize or _load_synchronize()).Event()

    def Barrier(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> Barrier:
        """A place where processes meet.

        Args:
            parties: how many.
            action: called by one of them when all are there.
            timeout: default of wait(), in seconds.

        """
        return (_synchronize or _load_synchronize()).Barrier(parties, action, timeout)

    def Queue(self, maxsize: int = 0) -> Queue:
        """A queue. maxsize: the number of items that fit; 0: bounded by memory only."""
        from .queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> JoinableQueue:
        """A queue with task_done() and join()."""
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> SimpleQueue:
        """A queue with put(), get(), empty() only."""
        from .queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> Any:
        """A pool of worker processes."""
        from .pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context())

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A ctypes object in shared memory, without a lock."""
        return (_sharedctypes or _load_sharedctypes()).raw_value(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A ctypes array in shared memory, without a lock."""
        return (_sharedctypes or _load_sharedctypes()).RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A ctypes object in shared memory. lock: True makes an RLock, False none, else the lock to use."""
        module = _sharedctypes or _load_sharedctypes()
        return module.Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A ctypes array in shared memory. lock: True makes an RLock, False none, else the lock to use."""
        module = _sharedctypes or _load_sharedctypes()
        return module.Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())

    def freeze_support(self) -> None:
        """In a child of a frozen program: be that child. Else nothing."""
        if getattr(sys, "frozen", False):
            from .spawn import freeze_support

            freeze_support()

    def get_logger(self) -> Any:
        """The logger of the package."""
        from .util import get_logger

        return get_logger()

    def log_to_stderr(self, level: int | str | None = None) -> Any:
        """Have the package's logger print to stderr; level: from here on."""
        from .util import log_to_stderr

        return log_to_stderr(level)

    def allow_connection_pickling(self) -> None:
        """Connections and sockets can be sent to other processes; here they always can."""
        from . import connection  # noqa: F401  registers its reducers

    def set_executable(self, executable: str | bytes | os.PathLike[str]) -> None:
        """Choose the interpreter that spawned children run."""
        from .spawn import set_executable

        set_executable(executable)

    def set_forkserver_preload(self, module_names: list[str], *, on_error: str = "ignore") -> None:
        """Have the fork server import modules when it starts. Raises TypeError if it is not a list of strings."""
        from .forkserver import set_forkserver_preload

        set_forkserver_preload(module_names, on_error=on_error)

    def get_context(self, method: str | None = None) -> Any:
        """The context of a start method; None for this one.

        Raises:
            ValueError: there is no such method.
        """
        if method is None:
            return self
        try:
            context = _concrete_contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None
        context._check_available()
        return context

    def get_start_method(self, allow_none: bool = False) -> str | None:
        """The start method's name."""
        return self._name

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """A context has one start method for good. Raises ValueError; the package's default can be set."""
        raise ValueError("cannot set start method of concrete context")

    @property
    def reducer(self) -> Any:
        """What pickles for other processes: the module `reduction`, or what replaces it."""
        return _reducer()

    @reducer.setter
    def reducer(self, reduction: Any) -> None:
        globals()["reduction"] = reduction

    def _check_available(self) -> None:
        """Raises ValueError where the system does not have the start method."""


class Process(process.BaseProcess):
    """A process of the default start method."""

    _start_method: str | None = None

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        return _default_context.get_context().Process._Popen(process_obj)


class DefaultContext(BaseContext):
    """The package itself: the context whose start method can be chosen, once."""

    Process = Process

    def __init__(self, context: BaseContext) -> None:
        self._default_context = context
        self._chosen: BaseContext | None = None
        self._process = process._current_process

    @property
    def _actual_context(self) -> BaseContext | None:
        """The chosen context, None where none was chosen. A child goes on with the method that it was started by."""
        if process._current_process is not self._process:
            self._process = process._current_process
            if self._process._start_method is not None:
                self._actual_context = _concrete_contexts[self._process._start_method]
        if _hooks.forced is not None:
            self._actual_context = _concrete_contexts[_hooks.forced]
        return self._chosen

    @_actual_context.setter
    def _actual_context(self, context: BaseContext | None) -> None:
        self._chosen = context
        _hooks.forced = None

    def get_context(self, method: str | None = None) -> Any:
        """The context of a start method; None for the chosen one, which is settled by asking."""
        if method is not None:
            return super().get_context(method)
        if self._actual_context is None:
            self._actual_context = self._default_context
        return self._actual_context

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Choose the start method.

        Args:
            method: 'fork', 'spawn' or 'forkserver'. With force, None goes back to "not chosen yet".
            force: even if it was chosen before.

        Raises:
            RuntimeError: it was chosen before.
            ValueError: there is no such method.
        """
        if self._actual_context is not None and not force:
            raise RuntimeError("context has already been set")
        if method is None and force:
            self._actual_context = None
        else:
            self._actual_context = self.get_context(method)

    def get_start_method(self, allow_none: bool = False) -> str | None:
        """The chosen start method.

        Args:
            allow_none: give None where none was chosen, instead of settling for the default.
        """
        if self._actual_context is None and allow_none:
            return None
        return self.get_context()._name

    def get_all_start_methods(self) -> list[str]:
        """The start methods of this system, the default first."""
        default = self._default_context._name
        return [default, *(name for name in ("fork", "spawn", "forkserver") if name != default)]


# Modules that start processes, by name. Each is imported with the first process and kept: an import statement in a
# function costs more than all else that the parent does between two processes. Its Popen is looked up for each process,
# freezers replace it.
_popen_modules: dict[str, Any] = {}


def _load_popen(name: str) -> Any:
    """Import a module that starts processes, and keep it for the next one."""
    import importlib

    module = _popen_modules[name] = importlib.import_module(name, __package__)
    return module


class ForkProcess(process.BaseProcess):
    """A process started by fork: it goes on with a copy of all that its parent has."""

    _start_method = "fork"

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        return (_popen_modules.get(".popen_fork") or _load_popen(".popen_fork")).Popen(process_obj)


class SpawnProcess(process.BaseProcess):
    """A process that begins as a fresh interpreter."""

    _start_method = "spawn"

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        return (_popen_modules.get(".popen_spawn_posix") or _load_popen(".popen_spawn_posix")).Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        """It was not forked: nothing is inherited."""


class ForkServerProcess(process.BaseProcess):
    """A process forked from the fork server, which has no threads and little memory."""

    _start_method = "forkserver"

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        return (_popen_modules.get(".popen_forkserver") or _load_popen(".popen_forkserver")).Popen(process_obj)


class ForkContext(BaseContext):
    """Start method fork."""

    _name = "fork"
    Process = ForkProcess


class SpawnContext(BaseContext):
    """Start method spawn."""

    _name = "spawn"
    Process = SpawnProcess


class ForkServerContext(BaseContext):
    """Start method forkserver."""

    _name = "forkserver"
    Process = ForkServerProcess


_concrete_contexts: dict[str, BaseContext] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
# As in the interpreter's own library: fork while that was the default there.
_default_context = DefaultContext(_concrete_contexts["forkserver" if sys.version_info >= (3, 14) else "fork"])


def _force_start_method(method: str) -> None:
    """Have the package use a start method, whatever was chosen before. Other libraries call it."""
    _default_context._actual_context = _concrete_contexts[method]


def _lend_descriptor(fd: int) -> Any:
    """What reduction.DupFd gives when no process is being started."""
    from .resource_sharer import DupFd

    return DupFd(fd)


def _reducer() -> Any:
    """The module reduction, unless a program put something else in its place."""
    if "reduction" not in globals():
        from . import reduction

        globals()["reduction"] = reduction
    return globals()["reduction"]


def __getattr__(name: str) -> Any:
    """`context.reduction`, imported when asked for; `_tls` by which other libraries know the thread's start."""
    if name == "reduction":
        return _reducer()
    if name == "_tls":
        return _spawning._tls
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_hooks.install(_default_context.get_context)
_spawning.lend_descriptor = _lend_descriptor
