# SPDX-License-Identifier: PSF-2.0
"""Process objects, the current process, and what a child does from its first to its last instruction.

A child's life:

    start()  ->  Popen (fork | spawn | forkserver)  ->  [child] _bootstrap()  ->  run()  ->  exit code
                                                        leave(): finalizers, atexit, flush, family, os._exit

util registers exit work and logging in the hooks; this module does not import it, so that a child that needs neither
does not pay for them.
"""
from __future__ import annotations

import atexit
import io
import os
import sys
from _weakref import ref
from _weakrefset import WeakSet
from itertools import count

from ._spawning import get_spawning_popen

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, NoReturn

__all__ = ["BaseProcess", "current_process", "active_children", "parent_process"]

try:
    ORIGINAL_DIR: str | None = os.path.abspath(os.getcwd())
except OSError:
    ORIGINAL_DIR = None  # the working directory was removed

# The extension, once a process is started: the import of the package does without. A child finds it here.
_native: Any = None
_names = globals()
_NATIVE = f"{__name__.rpartition('.')[0]}._cmultiprocessing"

#: True brings the standard library's rule back: daemonic processes may not start children.
strict_daemons = False


# What util adds to the life of a process. None: there is nothing to do, and a child does not pay for it. A forked child
# pays in page faults: each function and object that it touches is a page to copy, and so is each name that it looks up
# in a type or a module for the first time. Therefore plain globals, and below functions where methods would be usual.

#: In a new child, before its own code: forget the parent's finalizers, tell objects that they were forked.
after_start_hook: Callable[[], None] | None = None
#: In a child whose run() has ended: finalizers, and the children that it started.
at_exit_hook: Callable[[], None] | None = None
#: The same at the end of the main process, and of those that it forked without this package.
at_main_exit_hook: Callable[[], None] | None = None
#: Set the two above; called where they are None and children are there.
load_exit_work: Callable[[], object] | None = None
#: Log at level INFO.
info_hook: Callable[..., None] | None = None


def _load_native() -> Any:
    """The extension."""
    global _native
    if _native is None:
        from . import _cmultiprocessing

        _native = _cmultiprocessing
    return _native


class AuthenticationString(bytes):
    """An authentication key: bytes that may be pickled for a child being started, and for nobody else."""

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            raise TypeError("an AuthenticationString is a secret: it can be pickled only to start a process")
        return AuthenticationString, (bytes(self),)


def current_process() -> BaseProcess:
    """The object of the process that this is. Source: multiprocessing documentation, 'Miscellaneous'."""
    return _current_process


def current_name() -> str:
    """The current process's name."""
    return _current_process._name


def parent_process() -> BaseProcess | None:
    """The object of the process that started this one, None in the main process. Since 3.8.

    Source: multiprocessing documentation, 'Miscellaneous'.
    """
    global _parent
    if isinstance(_parent, tuple):
        me = _current_process
        _parent = _ParentProcess(me._parent_name, me._parent_pid, *_parent)
    return _parent


def __getattr__(name: str) -> Any:
    """Names by which other libraries know things."""
    if name == "_parent_process":
        return parent_process()
    if name == "_exitcode_to_name":
        import signal

        return {-number.value: f"-{number.name}" for number in signal.Signals}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def active_children() -> list[BaseProcess]:
    """Children of this process that are alive. Those that have ended are reaped by the call.

    Source: multiprocessing documentation, 'Miscellaneous'.
    """
    _cleanup()
    return list(_children)


def _cleanup() -> None:
    """Reap the children that have ended."""
    for child in list(_children):
        popen = child._popen
        if popen is not None and popen.poll() is not None:
            _children.discard(child)


class BaseProcess:
    """A process to be started, or one that was.

    Args:
        group: always None, as for threads.
        target: called by run() in the child; None does nothing.
        name: its name; by default its class and its place in the tree of processes, like Process-1:2.
        args: positional arguments of target.
        kwargs: keyword arguments of target.
        daemon: whether it ends with its parent; None inherits it from the current process.
    Source: multiprocessing documentation, 'Process and exceptions'.
    """

    _start_method: str | None = None
    _popen: Any
    _identity: tuple[int, ...]
    _config: dict[str, Any]

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        """Start it; what is returned has pid, sentinel, poll(), wait(), terminate() ..."""
        raise NotImplementedError("BaseProcess has no start method: use Process of a context")

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        if group is not None:
            raise AssertionError("group argument must be None for now")
        creator = _current_process
        self._identity = creator._identity + (next(_process_counter),)
        self._config = dict(creator._config)
        self._parent_pid: int | None = os.getpid()
        self._parent_name: str = creator.name
        self._popen = None
        self._closed = False
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._name = name or f"{type(self).__name__}-{':'.join(map(str, self._identity))}"
        if daemon is not None:
            self.daemon = daemon
        _dangling.data.add(ref(self, _dangling.data.discard))

    def _check_closed(self) -> None:
        if self._closed:
            raise ValueError("process object is closed")

    def _check_started(self, method: str) -> Any:
        """The Popen, if it is for this process to call `method`."""
        self._check_closed()
        if self._parent_pid != os.getpid():
            raise AssertionError(f"can only {method} a child process: {self._name!r} was started by another process")
        if self._popen is None:
            raise AssertionError(f"can only {method} a started process: {self._name!r} was not started")
        return self._popen

    def run(self) -> None:
        """What the process does; subclasses may override it. By default it calls the target."""
        if self._target:
            self._target(*self._args, **self._kwargs)

    def start(self) -> None:
        """Start the process. At most once per object.

        Raises:
            AssertionError: it was started before, or belongs to another process.
            OSError: the system refuses a process, a descriptor or memory.
            Exception: what pickling raises, where the start method needs the object pickled. No child is left then.
        """
        self._check_closed()
        if self._popen is not None:
            raise AssertionError("cannot start a process twice")
        if self._parent_pid != os.getpid():
            raise AssertionError("can only start a process object created by current process")
        if _parent is not None and _no_input.closed:
            _renew_no_input()
        if strict_daemons and _current_process._config.get("daemon"):
            raise AssertionError("daemonic processes are not allowed to have children")
        if _children:
            _cleanup()
        if _native is None:
            _load_native()
        if self._config.get("daemon") or _current_process._config.get("leashed"):
            self._config["leashed"] = True
        self._popen = self._Popen(self)
        self._sentinel = self._popen.sentinel
        # What the child does may refer to the process object itself: do not keep that cycle alive.
        del self._target, self._args, self._kwargs
        _children.add(self)

    def _needs_leash(self) -> bool:
        """Whether it must die when its parent dies: a daemon, and everything below a daemon. start() knows."""
        return "leashed" in self._config

    def interrupt(self) -> None:
        """Send SIGINT to the process. Since 3.14, here on every version."""
        self._check_started("interrupt").interrupt()

    def terminate(self) -> None:
        """Send SIGTERM to the process; nothing happens if it has ended."""
        self._check_started("terminate").terminate()

    def kill(self) -> None:
        """Send SIGKILL to the process; nothing happens if it has ended. Since 3.7."""
        self._check_started("kill").kill()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended.

        Args:
            timeout: seconds to wait at most; None waits for ever, negative is 0. `exitcode` tells which it was.
        """
        popen = self._popen
        if popen is None or self._parent_pid != os.getpid():
            self._check_started("join")
        if popen.wait(timeout) is not None:
            _children.discard(self)

    def is_alive(self) -> bool:
        """Whether it was started and has not ended. One that has ended is reaped."""
        self._check_closed()
        if self is _current_process:
            return True
        if self._parent_pid != os.getpid():
            raise AssertionError("can only test a child process")
        if self._popen is None:
            return False
        if self._popen.poll() is None:
            return True
        _children.discard(self)
        return False

    def close(self) -> None:
        """Give the resources of a process that has ended back at once. Since 3.7.

        Raises:
            ValueError: it still runs.
        """
        if self._popen is not None:
            if self._parent_pid != os.getpid():
                raise AssertionError(f"can only close a child process: {self._name!r} was started by another process")
            if self._popen.poll() is None:
                raise ValueError(f"cannot close {self._name!r} while it runs: first join() it, or terminate() it")
            _children.discard(self)
            self._popen.close()
            self._closed = True  # first: a handler that asks now is not to be told that nothing was started
            self.__dict__.pop("_sentinel", None)  # one that raised may have left it away
            self._popen = None
        self._closed = True

    @property
    def name(self) -> str:
        """The name: for people only, it need not be unique."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if isinstance(name, str):
            self._name = name
        else:
            raise AssertionError(f"name must be a string, not {type(name).__name__}")

    @property
    def daemon(self) -> bool:
        """Whether it ends with its parent. To be set before start()."""
        return bool(self._config.get("daemon", False))

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        if self._popen is not None:
            raise AssertionError("process has already started")
        self._config["daemon"] = daemonic

    @property
    def authkey(self) -> bytes:
        """The authentication key, inherited from the parent."""
        return self._config["authkey"]  # type: ignore[no-any-return]

    @authkey.setter
    def authkey(self, authkey: bytes) -> None:
        self._config["authkey"] = AuthenticationString(authkey)

    @property
    def exitcode(self) -> int | None:
        """None while it runs; the exit code; minus the signal that killed it; 255 where nobody can know.

        Nobody can know when another part of the program took the exit status with os.wait().
        """
        self._check_closed()
        if self is _current_process or self._popen is None or self._parent_pid != os.getpid():
            return None
        return self._popen.poll()  # type: ignore[no-any-return]

    @property
    def ident(self) -> int | None:
        """The process id, None before start()."""
        self._check_closed()
        if self is _current_process:
            return os.getpid()
        return None if self._popen is None else int(self._popen.pid)

    pid = ident

    @property
    def sentinel(self) -> int:
        """A descriptor that gets ready for reading when the process ends: for `connection.wait` and the like.

        Raises:
            ValueError: it was not started.
        """
        self._check_closed()
        try:
            return self._sentinel  # type: ignore[no-any-return]
        except AttributeError:
            raise ValueError("process not started") from None

    def _state(self) -> tuple[str, int | None]:
        """The word for repr(), and the exit code."""
        if self is _current_process:
            return "started", None
        if self._closed:
            return "closed", None
        if self._parent_pid != os.getpid():
            return "unknown", None
        if self._popen is None:
            return "initial", None
        code = self._popen.poll()
        return ("started" if code is None else "stopped"), code

    def __repr__(self) -> str:
        state, code = self._state()
        parts = [type(self).__name__, f"name={self._name!r}"]
        if self._popen is not None:
            parts.append(f"pid={self._popen.pid}")
        parts += [f"parent={self._parent_pid}", state]
        if code is not None:
            parts.append(f"exitcode={_describe_exit_code(code)}")
        if self.daemon:
            parts.append("daemon")
        return f"<{' '.join(parts)}>"

    # In the child.

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """Be this process: run() between getting ready and the exit work.

        Called in the child, through the instance: coverage tools replace it on the class.

        Args:
            parent_sentinel: descriptor that gets ready when the parent dies.

        Returns:
            The exit code.
        """
        code = 1
        native = _native or _load_native()
        try:
            native.become(_names, self, parent_sentinel)
            try:
                self._after_fork()
                if info_hook is not None:
                    info_hook("child process calling self.run()")
                self.run()
                code = 0
            finally:
                if at_exit_hook is None and _children and load_exit_work is not None:
                    load_exit_work()
                if at_exit_hook is not None:
                    at_exit_hook()
        except SystemExit as error:
            code = _exit_code_of(error)
        except BaseException:
            self._print_traceback()
        finally:
            native.join_threads()
            if info_hook is not None:
                info_hook("process exiting with exitcode %d", code)
        try:
            native.flush_std_streams()
        except OSError:
            code = code or 1  # what it printed is lost
            self._print_traceback()
        return code

    @staticmethod
    def _after_fork() -> None:
        """In the child: what objects of the parent, inherited by fork, have to do."""
        if after_start_hook is not None:
            after_start_hook()

    def _print_traceback(self) -> None:
        """Print the exception being handled; a broken stderr does not matter."""
        import traceback

        try:
            sys.stderr.write(f"Process {self.name}:\n")
            traceback.print_exc()
        except Exception:
            pass  # stderr is None, closed or full: nowhere left to say so


def _describe_exit_code(code: int) -> str:
    """-15 as '-SIGTERM', others as they are."""
    if code >= 0:
        return str(code)
    import signal

    try:
        return f"-{signal.Signals(-code).name}"
    except ValueError:
        return str(code)


def _exit_code_of(error: SystemExit) -> int:
    """What sys.exit(...) means; its text goes to stderr."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    try:
        sys.stderr.write(f"{error.code}\n")
    except Exception:
        pass  # stderr is None, closed or full: nowhere left to say so
    return 1


def _flush_std_streams() -> None:
    """Write out what stdout and stderr hold; streams that are missing or closed do not matter."""
    _load_native().flush_std_streams()


class _NoInput(io.RawIOBase):
    """Reads like /dev/null, which is opened only if somebody wants the descriptor."""

    name = os.devnull
    mode = "rb"
    _fd: int | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, _buffer: object) -> int:
        """The end."""
        return 0

    def fileno(self) -> int:
        """A descriptor of /dev/null. It lives as long as the process, like those of the standard streams."""
        if self._fd is None:
            self._fd = os.open(os.devnull, os.O_RDONLY)
        return self._fd


def _renew_no_input() -> None:
    """Make an empty stdin for children: this process is one, and has closed its own."""
    global _no_input
    _no_input = io.TextIOWrapper(io.BufferedReader(_NoInput()), encoding="utf-8")


# An empty stdin for children: they must not take input that is meant for their parent. Made once, in the parent: a
# forked child has only to take it.
_no_input: io.TextIOWrapper
_renew_no_input()


def _close_stdin() -> None:
    """Make sys.stdin empty, as it is in children. Other libraries call it in processes of their own."""
    if sys.stdin is not None:
        sys.stdin = _no_input


def _leave_family() -> None:
    """Tell the family, if there is one, that this process ends in good order: its locks are not those of a victim."""
    native = sys.modules.get(_NATIVE)
    if native is not None:
        native.family_leave()


def run_atexit_handlers() -> None:
    """In a child: what its program registered. Since 3.13, here on every version."""
    atexit.unregister(_at_main_exit)  # that is the rest of a child's life
    atexit._run_exitfuncs()


def _run_late_handlers() -> None:
    """In a child, at its very end: the atexit handlers, and what they printed."""
    run_atexit_handlers()
    _flush_std_streams()


def leave(code: int) -> NoReturn:
    """The orderly end of a child after _bootstrap: atexit handlers, flush, then the family is told, then the end."""
    _load_native().leave(code, _names)
    raise AssertionError("leave() came back")


class _ParentProcess(BaseProcess):
    """The parent, as its child knows it. Only what a child can do is there."""

    def __init__(self, name: str, pid: int | None, sentinel: int | None) -> None:
        self._name = name
        self._pid = pid
        self._identity = ()
        self._closed = False
        self._popen = None
        self._parent_pid = None
        self._sentinel = sentinel
        self._config = {}

    def is_alive(self) -> bool:
        """Whether the parent is alive."""
        return not self._has_ended(0)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the parent has ended, at most `timeout` seconds."""
        self._has_ended(timeout)

    def _has_ended(self, timeout: float | None) -> bool:
        import select

        poll = select.poll()
        poll.register(self._sentinel, select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(0.0, timeout) * 1000))

    @property
    def ident(self) -> int | None:
        """The parent's process id."""
        return self._pid

    pid = ident


class _MainProcess(BaseProcess):
    """The process that nobody of this package started."""

    def __init__(self) -> None:
        self._name = "MainProcess"
        self._identity = ()
        self._closed = False
        self._popen = None
        self._parent_pid = None
        self._config = {"authkey": AuthenticationString(os.urandom(32)), "semprefix": "/mp"}

    def close(self) -> None:
        """Nothing: the main process has nothing to give back."""


class _Dangling(WeakSet[BaseProcess]):
    """A WeakSet whose members put themselves into `data`, and are taken out of it, without running Python code.

    That happens at any time, so iterating needs a copy.
    """

    data: set[ref[BaseProcess]]

    def __iter__(self) -> Iterator[BaseProcess]:
        for member in list(self.data):
            process = member()
            if process is not None:
                yield process


# In a child: its parent, or, until somebody asks for that, its sentinel.
_parent: _ParentProcess | tuple[int | None] | None = None
_process_counter = count(1)
_children: set[BaseProcess] = set()
# Every process object there is, for tests that look for those left behind.
_dangling = _Dangling()
_current_process: BaseProcess = _MainProcess()


# A forked process has no children, however it was forked: at its exit it must not end its siblings.
os.register_at_fork(after_in_child=_children.clear)

def _at_main_exit() -> None:
    """The last exit handler of a process that nobody of this package started."""
    try:
        if at_main_exit_hook is None and _children and load_exit_work is not None:
            load_exit_work()
        if at_main_exit_hook is not None:
            at_main_exit_hook()
    finally:
        _leave_family()


# Registered with the first import, so that it runs after what the program registers later: that may be what tells the
# children to end, and they are waited for here.
atexit.register(_at_main_exit)
