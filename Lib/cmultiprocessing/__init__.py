# SPDX-License-Identifier: PSF-2.0
"""CPython's multiprocessing as a native library: the same API, and it goes on when a process is killed.

import cmultiprocessing as multiprocessing
"""
from __future__ import annotations

from . import context
from .context import AuthenticationError, BufferTooShort, Process, ProcessError
from .context import TimeoutError as TimeoutError
from .process import active_children, current_process, parent_process

_default = context._default_context

Array = _default.Array
Barrier = _default.Barrier
BoundedSemaphore = _default.BoundedSemaphore
Condition = _default.Condition
Event = _default.Event
JoinableQueue = _default.JoinableQueue
Lock = _default.Lock
Manager = _default.Manager
Pipe = _default.Pipe
Pool = _default.Pool
Queue = _default.Queue
RawArray = _default.RawArray
RawValue = _default.RawValue
RLock = _default.RLock
Semaphore = _default.Semaphore
SimpleQueue = _default.SimpleQueue
Value = _default.Value
allow_connection_pickling = _default.allow_connection_pickling
cpu_count = _default.cpu_count
freeze_support = _default.freeze_support
get_all_start_methods = _default.get_all_start_methods
get_context = _default.get_context
get_logger = _default.get_logger
get_start_method = _default.get_start_method
log_to_stderr = _default.log_to_stderr
set_executable = _default.set_executable
set_forkserver_preload = _default.set_forkserver_preload
set_start_method = _default.set_start_method

__all__ = [
    "Array", "AuthenticationError", "Barrier", "BoundedSemaphore", "BufferTooShort", "Condition", "Event",
    "JoinableQueue", "Lock", "Manager", "Pipe", "Pool", "Process", "ProcessError", "Queue", "RLock", "RawArray",
    "RawValue", "Semaphore", "SimpleQueue", "TimeoutError", "Value", "active_children", "allow_connection_pickling",
    "cpu_count", "current_process", "freeze_support", "get_all_start_methods", "get_context", "get_logger",
    "get_start_method", "log_to_stderr", "parent_process", "reducer", "set_executable", "set_forkserver_preload",
    "set_start_method",
]  # fmt: skip

# Levels of the logger that the logging module does not have.
SUBDEBUG = 5
SUBWARNING = 25


# Names of ours beside the standard library's, and the modules that have them.
_LATE = {
    "MemoryLimitError": "_cmultiprocessing",
    "OwnerDiedWarning": "_cmultiprocessing",
    "PoolTerminated": "pool",
    "RemoteTaskError": "pool",
    "ShutDown": "queues",
    "WorkerLostError": "pool",
}

# Programs name submodules that they have not imported themselves, because the standard library's import one another.
_SUBMODULES = {
    "connection", "dummy", "forkserver", "heap", "managers", "pool", "popen_fork", "popen_forkserver",
    "popen_spawn_posix", "queues", "reduction", "resource_sharer", "resource_tracker", "shared_memory",
    "sharedctypes", "spawn", "synchronize", "util",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Names whose modules are loaded when they are asked for."""
    if name == "reducer":
        return _default.reducer
    if name in _SUBMODULES or name in _LATE:
        from importlib import import_module

        module: object = import_module(f"{__name__}.{_LATE.get(name, name)}")
        return getattr(module, name) if name in _LATE else module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
