# SPDX-License-Identifier: PSF-2.0
"""Exit work, fork work, logging, and small help with descriptors.

Importing this module sets the hooks of `process`, and registers the exit work of this process.
"""
from __future__ import annotations

import atexit
import itertools
import os
import sys
import time
import weakref
from _thread import _local
from _thread import allocate_lock as _allocate_lock

from . import _log_records, process

# Known to other libraries by these names in this module.
from ._interpreter import args_from_interpreter_flags as _args_from_interpreter_flags  # noqa: F401
from ._interpreter import spawnv_passfds as spawnv_passfds
from .process import _close_stdin as _close_stdin
from .process import _flush_std_streams as _flush_std_streams
from .process import active_children, current_process

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

__all__ = [
    "sub_debug", "debug", "info", "sub_warning", "warn", "get_logger", "log_to_stderr", "get_temp_dir",
    "register_after_fork", "is_exiting", "Finalize", "ForkAwareThreadLock", "ForkAwareLocal", "close_all_fds_except",
    "SUBDEBUG", "SUBWARNING",
]  # fmt: skip

# Logging.

WARNING = 30
SUBWARNING = 25
INFO = 20
DEBUG = 10
SUBDEBUG = 5
NOTSET = 0

LOGGER_NAME = "multiprocessing"
DEFAULT_LOGGING_FORMAT = "[%(levelname)s/%(processName)s] %(message)s"

_logger: Any = None
_log_to_stderr = False


def _log(level: int, message: str, args: tuple[object, ...]) -> None:
    if _logger is not None:
        # The line that calls debug(), info() ... is the one to name, not these two frames.
        _logger.log(level, message, *args, stacklevel=3)


def sub_debug(msg: str, *args: object) -> None:
    """Log below DEBUG: what only the package's developers want to see."""
    _log(SUBDEBUG, msg, args)


def debug(msg: str, *args: object) -> None:
    """Log at DEBUG."""
    _log(DEBUG, msg, args)


def info(msg: str, *args: object) -> None:
    """Log at INFO."""
    _log(INFO, msg, args)


def warn(msg: str, *args: object) -> None:
    """Log at WARNING. Since 3.14."""
    _log(WARNING, msg, args)


def sub_warning(msg: str, *args: object) -> None:
    """Log between INFO and WARNING."""
    _log(SUBWARNING, msg, args)


def get_logger() -> Any:
    """The logger of the package; with the first call it begins to log.

    Source: multiprocessing documentation, 'Logging'.
    """
    global _logger
    if _logger is None:
        import logging

        logger = logging.getLogger(LOGGER_NAME)
        logger.propagate = False
        logging.addLevelName(SUBDEBUG, "SUBDEBUG")
        logging.addLevelName(SUBWARNING, "SUBWARNING")
        _log_records.watch(process.current_name)
        if process.parent_process() is None and not hasattr(current_process(), "_inheriting"):
            # The exit work of the main process, which comes last, is to be logged as well: see _at_main_exit.
            atexit.unregister(logging.shutdown)
        _logger = logger
        process.info_hook = info
    return _logger


def log_to_stderr(level: int | str | None = None) -> Any:
    """Have the package's logger print to stderr.

    Args:
        level: from here on; None leaves the level alone.

    Returns:
        The logger. Source: multiprocessing documentation, 'Logging'.
    """
    global _log_to_stderr
    import logging

    logger = get_logger()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(DEFAULT_LOGGING_FORMAT))
    logger.addHandler(handler)
    if level is not None:
        logger.setLevel(level)
    _log_to_stderr = True
    return logger


# Work after a fork.

_afterfork_registry: weakref.WeakValueDictionary[tuple[int, int, Callable[[Any], object]], Any]
_afterfork_registry = weakref.WeakValueDictionary()
_afterfork_counter = itertools.count()


def register_after_fork(obj: Any, func: Callable[[Any], object]) -> None:
    """Call `func(obj)` in every child that inherits `obj` by fork, in the order of registration.

    Args:
        obj: kept by weak reference.
        func: kept as long as obj lives.
    """
    _afterfork_registry[(next(_afterfork_counter), id(obj), func)] = obj


def _run_after_forkers() -> None:
    """Run what `register_after_fork` was given; one that fails does not stop the others."""
    for (_, _, func), obj in sorted(_afterfork_registry.items(), key=lambda item: item[0][0]):
        try:
            func(obj)
        except Exception as error:
            info("after forker raised exception %s", error)


# Finalizers and the end of a process.

_finalizer_registry: dict[tuple[int | None, int], Finalize] = {}
_finalizer_counter = itertools.count()


class Finalize:
    """A callback that runs once: when called, when `obj` is collected, or at the end of the process.

    Args:
        obj: object to watch by weak reference; None for exit work only.
        callback: what to call; it must not refer to obj.
        args: its positional arguments.
        kwargs: its keyword arguments.
        exitpriority: int: also run at the exit of this process, higher first, equal ones last made first; None: not.

    Raises:
        TypeError: exitpriority is neither None nor int.
        ValueError: neither obj nor exitpriority is given: it would never run.
    """

    def __init__(
        self,
        obj: Any,
        callback: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        exitpriority: int | None = None,
    ) -> None:
        if exitpriority is not None and not isinstance(exitpriority, int):
            raise TypeError(f"Exitpriority ({exitpriority!r}) must be None or int, not {type(exitpriority)!r}")
        if obj is None and exitpriority is None:
            raise ValueError("Without object, exitpriority cannot be None")
        self._weakref = None if obj is None else weakref.ref(obj, self)
        self._callback: Callable[..., Any] | None = callback
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._key = (exitpriority, next(_finalizer_counter))
        self._pid = os.getpid()
        _finalizer_registry[self._key] = self

    def __call__(self, wr: object = None) -> Any:
        """Run the callback, unless it ran, was cancelled, or belongs to the process that this one was forked from."""
        # The one that takes it out of the registry runs it: threads and collections may come here at the same time.
        if _finalizer_registry.pop(self._key, None) is None:
            sub_debug("finalizer no longer registered")
            return None
        callback, args, kwargs = self._callback, self._args, self._kwargs
        self._forget()
        if self._pid != os.getpid() or callback is None:
            sub_debug("finalizer ignored because different process")
            return None
        sub_debug("finalizer calling %s with args %s and kwargs %s", callback, args, kwargs)
        return callback(*args, **kwargs)

    def cancel(self) -> None:
        """Never run the callback."""
        if _finalizer_registry.pop(self._key, None) is not None:
            self._forget()

    def _forget(self) -> None:
        """Drop the references that the callback needed."""
        self._weakref = None
        self._callback = None
        self._args = ()
        self._kwargs = {}

    def still_active(self) -> bool:
        """Whether the callback is yet to run."""
        return self._key in _finalizer_registry

    def __repr__(self) -> str:
        obj = self._weakref and self._weakref()
        if obj is None and self._callback is None:
            return f"<{type(self).__name__} object, dead>"
        details = {"args": self._args, "kwargs": self._kwargs, "exitpriority": self._key[0]}
        parts = [f", {name}={value}" for name, value in details.items() if value or value == 0]
        name = getattr(self._callback, "__name__", self._callback)
        return f"<{type(self).__name__} object, callback={name}{''.join(parts)}>"


def _run_finalizers(minpriority: int | None = None) -> None:
    """Run finalizers by falling priority, those of equal priority last made first.

    Args:
        minpriority: only those with this priority at least; None runs all that have one, then forgets the rest.
    """
    def due() -> list[tuple[int, int]]:
        keys = [(priority, number) for priority, number in list(_finalizer_registry) if priority is not None]
        return sorted(key for key in keys if minpriority is None or key[0] >= minpriority)

    # What a finalizer registers waits for the next call; what it cancels does not run.
    for key in reversed(due()):
        finalizer = _finalizer_registry.get(key)
        if finalizer is not None:
            _run_finalizer(finalizer)
    if minpriority is None:
        _finalizer_registry.clear()


def _run_finalizer(finalizer: Finalize) -> None:
    sub_debug("calling %s", finalizer)
    try:
        finalizer()
    except Exception:
        import traceback

        traceback.print_exc()


_exiting = False


def is_exiting() -> bool:
    """Whether the exit work of this process has begun."""
    return _exiting or _exiting is None


def _exit_function() -> None:
    """Exit work: finalizers of priority 0 and up; daemons are ended, others waited for; the other finalizers."""
    global _exiting
    if _exiting:
        return
    _exiting = True
    info("process shutting down")
    debug('running all "atexit" finalizers with priority >= 0')
    _run_finalizers(0)
    _end_children()
    debug('running the remaining "atexit" finalizers')
    _run_finalizers()


#: Seconds from the SIGTERM that daemons get at the exit of their parent to the SIGKILL for those that live on.
DAEMON_PATIENCE = 5.0


def _end_children() -> None:
    """Terminate daemonic children, then wait for all."""
    daemons = [child for child in active_children() if child.daemon]
    for child in daemons:
        info("calling terminate() for daemon %s", child.name)
        child._popen.terminate()
    deadline = time.monotonic() + DAEMON_PATIENCE
    for child in daemons:
        info("calling join() for process %s", child.name)
        child.join(deadline - time.monotonic())
        # A handler of SIGTERM that it inherited by fork may mean something else: this process would wait for ever.
        if child.exitcode is None:
            sub_warning("daemon %s did not end: calling kill()", child.name)
            child._popen.kill()
    for child in active_children():
        info("calling join() for process %s", child.name)
        child.join()


def _after_start() -> None:
    """In a child: finalizers of the parent are not its business; the rest is told about the fork."""
    global _exiting
    _exiting = False
    _finalizer_registry.clear()
    # Its len() is Python code, which every child would pay for.
    if _afterfork_registry.data:  # type: ignore[attr-defined]
        _run_after_forkers()


def _at_exit() -> None:
    """In a child: the exit work, if there is any."""
    if process._children and not all(child.daemon for child in process._children):
        # As in the main process: the program's own handlers may be what tells the children to end.
        process._load_native().join_threads()
        process.run_atexit_handlers()
    if _finalizer_registry or process._children or _logger is not None:
        _exit_function()


def _at_main_exit() -> None:
    """In the main process: the exit work, then the end of logging."""
    _exit_function()
    if _logger is not None:
        import logging

        logging.shutdown()


process.after_start_hook = _after_start
process.at_exit_hook = _at_exit
process.at_main_exit_hook = _at_main_exit


# Objects that are fresh again after a fork.


class ForkAwareThreadLock:
    """A lock between threads that is free in a forked child, whoever held it at the fork."""

    def __init__(self) -> None:
        self._use_new_lock()
        register_after_fork(self, ForkAwareThreadLock._use_new_lock)

    def _use_new_lock(self) -> None:
        self._lock = _allocate_lock()
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *args: object) -> None:
        self._lock.release()


class ForkAwareLocal(_local):
    """Thread-local attributes that a forked child does not inherit."""

    def __init__(self) -> None:
        register_after_fork(self, lambda obj: obj.__dict__.clear())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


# Files and descriptors.


def prepare_logging(data: dict[str, Any]) -> None:
    """In a spawned child: log as the parent does. It travels in the start data by its name.

    Args:
        data: the preparation data.
    """
    if data["log_level"] is not None:
        get_logger().setLevel(data["log_level"])
    if data["log_to_stderr"]:
        log_to_stderr()


def get_temp_dir() -> str:
    """A directory, mode 0700, that lives as long as this process; made by the first call.

    In $TMPDIR or where else `tempfile` puts things; elsewhere if no Unix socket could be made there (a path of at most
    107 bytes, for which 40 are left).
    """
    config = current_process()._config
    path: str | None = config.get("tempdir")
    if path is None:
        path = _make_temp_dir()
        info("created temp directory %s", path)
        # Late: what still lives in it is closed by finalizers of higher priority.
        Finalize(None, _remove_temp_dir, args=(path,), exitpriority=-100)
        config["tempdir"] = path
    return path


def _make_temp_dir() -> str:
    import tempfile

    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) > 107 - 40 - len("/pymp-12345678"):
        for parent in ("/tmp", "/var/tmp"):
            try:
                return tempfile.mkdtemp(prefix="pymp-", dir=parent)
            except OSError:
                pass  # not there, or read-only: the next one, in the end the usual one
    return tempfile.mkdtemp(prefix="pymp-", dir=usual)


def _remove_temp_dir(path: str) -> None:
    """Remove the directory, also where a child removed parts of it at the same time."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    # A forked child inherits the name, not the directory's life.
    current_process()._config["tempdir"] = None


#: Whether there are Unix sockets without a file. They are open to every user of the machine: programs may ask for one
#: by its name, the package itself never makes one.
abstract_sockets_supported = True


def _platform_supports_abstract_sockets() -> bool:
    """Whether there are, see above."""
    return abstract_sockets_supported


def is_abstract_socket_namespace(address: str | bytes | None) -> bool:
    """Whether a Unix socket address is one without a file."""
    if not address:
        return False
    if not isinstance(address, (str, bytes)):
        raise TypeError(f"address type of {address!r} unrecognized")
    return address[0] in (0, "\0")


def close_fds(*fds: int) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


try:
    MAXFD = os.sysconf("SC_OPEN_MAX")
except (ValueError, OSError):
    MAXFD = 256


def close_all_fds_except(fds: Iterable[int]) -> None:
    """Close all descriptors of this process but these."""
    bounds = [-1, *sorted(fds), MAXFD]
    for low, high in itertools.pairwise(bounds):
        os.closerange(low + 1, high)


def _cleanup_tests() -> None:
    """End the helpers and run the finalizers that a test left; CPython's tests call it."""
    process._cleanup()
    for name, singleton in (("forkserver", "_forkserver"), ("resource_tracker", "_resource_tracker")):
        module = sys.modules.get(f"{__package__}.{name}")
        if module is not None:
            getattr(module, singleton)._stop()
    _run_finalizers()
