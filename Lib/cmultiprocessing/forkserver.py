# SPDX-License-Identifier: PSF-2.0
"""The fork server: a process without threads and with little memory, started once, whose children become ours.

A request is one message on a pair of Unix sockets that has no name: only who inherited an end can speak to the server.
It carries a random key and the sender's uid, both compared before anything else is looked at, and the descriptors that
the child needs, among them the sockets themselves: so children, and their children, use the same server.

    starter                        child, forked before, or because of the request
    ensure_running()
    request ---------------------> takes it
    <------------------ STARTED pid
    opens a pidfd
    <------------------ LEAVING exit code
    pidfd ready

The child itself says that it was started. A child that was killed before, and a server that was killed, say nothing,
and the pipe for reports ends: that is how the starter knows that it may ask again. The exit code of a child that was
killed comes from the server, in ENDED. What goes on at the other end is in
Modules/_cmultiprocessing/py/fork_server.c and served_child.c, the messages in _requests.py.

The server ends when nobody has the other end of its sockets any more.
"""
from __future__ import annotations

import _pickle as pickle
import _thread
import atexit
import gc
import os
import select
import signal
import sys

from . import _cmultiprocessing, _interpreter, _leash, _requests, process, reduction, resource_tracker, spawn
from ._requests import Request
from ._spawning import set_spawning_popen

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

__all__ = ["ensure_running", "get_inherited_fds", "connect_to_new_process", "set_forkserver_preload", "start_child"]

# A server that dies at each request is not asked for ever.
_ATTEMPTS = 10
# Nor is one asked for ever whose children die before they say that they were started.
_PATIENCE = 3
# The server ended as it was told to, when a module could not be imported.
_PRELOAD_FAILED = 78

_REACTIONS = ("ignore", "warn", "fail")

# What the server prepares for its children, too. All else is for each child: handlers of the logger, of which a second
# one doubles what is logged; a main module that travels by value; what other tools add, for whose unpickling they may
# have reasons.
_LASTING = frozenset((
    "authkey", "sys_path", "sys_argv", "orig_dir", "dir", "start_method", "alias", "strict_daemons", "log_to_stderr",
    "log_level", "environ", "init_main_from_name", "init_main_from_path",
))  # fmt: skip


class ForkServer:
    """This process's side of the fork server: the sockets, the key, and which modules it imports beforehand."""

    def __init__(self) -> None:
        self._lock = _thread.RLock()
        self._forkserver_pid: int | None = None  # only if it is a child of this process
        self._owner = 0  # which process that was
        self._control_fd = -1  # leads to the server
        self._key = b""
        self._inherited_fds: list[int] | None = None
        self._preload_modules: list[str] = ["__main__"]
        self._preload_on_error = "ignore"
        self._preload_failed = False
        self._silences = 0  # how often in a row the server that runs has not answered
        self._retired: list[int] = []  # servers that end when their last child has ended
        #: How many children the server keeps ready at most. Read when it is started.
        self._most_waiting = min(8, 2 * len(os.sched_getaffinity(0)))

    def set_forkserver_preload(self, modules_names: list[str], *, on_error: str = "ignore") -> None:
        """Have the server import modules when it starts, so that its children have them.

        A server that runs with other modules is let go: the next start makes a new one.

        Args:
            modules_names: full names; '__main__' is the program's main module.
            on_error: what a failed import means. 'ignore': nothing, the child that needs the module finds out;
                'warn': a traceback and an ImportWarning on stderr; 'fail': a traceback, and no process can be started.

        Raises:
            TypeError: not a list of strings.
            ValueError: on_error is none of the three.
        Source: multiprocessing documentation, 'Miscellaneous'; on_error is of 3.15, here on every version.
        """
        if not all(type(name) is str for name in modules_names):
            raise TypeError("module_names must be a list of strings")
        if on_error not in _REACTIONS:
            raise ValueError(f"on_error must be 'ignore', 'warn', or 'fail', not {on_error!r}")
        with self._lock:
            self._disown()
            changed = (self._preload_modules, self._preload_on_error) != (list(modules_names), on_error)
            self._preload_modules, self._preload_on_error = list(modules_names), on_error
            self._preload_failed = False
            if changed:
                self._retire()

    def get_inherited_fds(self) -> list[int] | None:
        """Descriptors that came with this process's start, None where it was not started by the server."""
        return self._inherited_fds

    def ensure_running(self) -> None:
        """Start the server unless one runs. One that died is replaced.

        Raises:
            EOFError: it must not run, since a module could not be imported.
        """
        with self._lock:
            self._disown()
            if self._retired:
                self._retired = [pid for pid in self._retired if _status_of(pid, os.WNOHANG) is None]
            if self._forkserver_pid is not None:
                status = _status_of(self._forkserver_pid, os.WNOHANG)
                if status is not None:
                    self._has_ended(status)
            if self._preload_failed:
                raise EOFError(
                    "the fork server ended: a module named in set_forkserver_preload(..., on_error='fail') could not "
                    "be imported, as the traceback on stderr shows"
                )
            if self._control_fd < 0:
                self._start()

    def _forget(self) -> None:
        """Let go of a server that is dead, or that is to end."""
        if self._control_fd >= 0:
            os.close(self._control_fd)
        self._control_fd = -1
        self._forkserver_pid = None

    def _has_ended(self, status: int) -> None:
        """The server is dead and reaped."""
        self._forget()
        self._preload_failed = os.waitstatus_to_exitcode(status) == _PRELOAD_FAILED

    def _retire(self) -> None:
        """Let go of a server that serves the children which it has to their end."""
        if self._forkserver_pid is not None:
            self._retired.append(self._forkserver_pid)
        self._forget()

    def _start(self) -> None:
        _cmultiprocessing.family_start()
        ours, theirs = _cmultiprocessing.packet_pair()
        key = os.urandom(_requests.KEY_SIZE)
        try:
            self._forkserver_pid = self._spawn_server(theirs, key)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._control_fd, self._key, self._silences = ours, key, 0

    def _spawn_server(self, control_fd: int, key: bytes) -> int:
        """Start the server's interpreter; what is not for everybody's eyes goes through an anonymous file."""
        data = {
            "preparation": _pickled(get_preparation_data("forkserver")),
            "key": key,
            "preload": self._preload_modules,
            "on_error": self._preload_on_error,
            "most_waiting": self._most_waiting,
        }
        family_fd, ticket = _cmultiprocessing.family_reserve()
        try:
            data_fd = os.memfd_create("fork server data")
            try:
                with open(data_fd, "wb", closefd=False) as file:
                    reduction.dump(data, file)
                os.lseek(data_fd, 0, os.SEEK_SET)
                statement = f"from {__name__} import main; main({control_fd}, {data_fd}, {family_fd}, {ticket.hex()!r})"
                executable = _interpreter.get_executable()
                if executable is None:
                    raise RuntimeError("no interpreter to run: sys.executable is empty, use set_executable()")
                options = _interpreter.args_from_interpreter_flags()
                command: list[str | bytes] = [executable, *options, "-c", _interpreter.program(statement)]
                # All names of the C library at once: each child would look up again what it is the first to call.
                more = {"LD_BIND_NOW": "1"}
                return _interpreter.spawnv_passfds(executable, command, (control_fd, data_fd, family_fd), more)
            finally:
                os.close(data_fd)
        finally:
            os.close(family_fd)

    def _stop(self) -> None:
        """End the server now; its children go on, exit codes of those that are killed stay unknown."""
        self._end(signal.SIGTERM)

    def _end(self, signal_number: int) -> None:
        """Let go of the server; end and reap it, and those before it, if they are this process's children."""
        with self._lock:
            self._disown()
            current, retired = self._forkserver_pid, self._retired
            self._retired = []
            self._forget()
            for pid in (*retired, *([] if current is None else [current])):
                try:
                    os.kill(pid, signal_number)
                except ProcessLookupError:
                    continue  # it has ended, and somebody reaped it
                status = _status_of(pid, 0)
                if pid == current and status is not None:
                    self._has_ended(status)

    def start_child(self, request: Request) -> tuple[int, int | None, int]:
        """Start a child.

        Args:
            request: what the child needs.

        Returns:
            Its pid; its exit code if it has ended already; the pipe through which reports come, which does not block.

        Raises:
            OSError: the server cannot fork, or dies each time that it is asked.
            EOFError: there is no server, since a module could not be imported.
        """
        for _ in range(_ATTEMPTS):
            status_r, status_w = os.pipe()
            try:
                try:
                    asked = self._send(request, status_w)
                finally:
                    os.close(status_w)
                report = _requests.read_report(status_r)
                if report is not None:
                    self._silences = 0  # where threads ask at a time, one too many or too few matters to nobody
                    return _first_report(*report, status_r)
            except BaseException:
                os.close(status_r)
                raise
            os.close(status_r)
            self._lost(asked)
        raise OSError(f"the fork server died {_ATTEMPTS} times when it was asked for a process")

    def connect_to_new_process(self, fds: list[int]) -> tuple[int, int]:
        """Have the server start a child whose start data the caller writes.

        Args:
            fds: descriptors that travel along, see `get_inherited_fds`.

        Returns:
            A descriptor that reports come through (kind, pid, value: see _requests.py), and one to write the pickled
            preparation data and process object to.

        """
        lent: list[int] = []  # the child's
        try:
            family_fd, ticket = _cmultiprocessing.family_reserve()
            lent.append(family_fd)
            leash_end, _ = _leash.new()
            lent.append(leash_end)
            data_r, data_w = os.pipe()
            lent.append(data_r)
            status_r, status_w = os.pipe()
            lent.append(status_w)
            traits = _cmultiprocessing.get_traits()
            request = Request(data_r, leash_fd=leash_end, family_fd=family_fd, ticket=ticket, traits=traits, fds=fds)
            self._send(request, status_w)
        finally:
            for fd in lent:
                os.close(fd)
        return status_r, data_w

    def _send(self, request: Request, status_w: int) -> int:
        """Send a request to the server that runs, and return the socket that leads to it."""
        with self._lock:  # no other thread closes the socket meanwhile
            self.ensure_running()
            control_fd = self._control_fd
            fds = request.descriptors(status_w, control_fd)
            try:
                _cmultiprocessing.packet_send(control_fd, request.message(self._key), fds)
            except ConnectionError:
                pass  # dead: nobody will answer
            return control_fd

    def _lost(self, asked: int) -> None:
        """Nobody answered. The server is dead, or the child that took the request, or neither is to be trusted.

        Args:
            asked: the socket that led to it; another thread may have started the next one.

        """
        with self._lock:
            if self._control_fd != asked:
                return
            self._silences += 1
            poll = select.poll()
            poll.register(asked, 0)
            if poll.poll(0) or self._silences > _PATIENCE:
                self._end(signal.SIGKILL)

    def _serve(self, control_fd: int, key: bytes) -> None:
        """In the server: have its children use it, too. Their end of the sockets gets this number."""
        self._control_fd = control_fd
        self._key = key
        self._inherited_fds = []

    def _adopt(self, tracker_fd: int, fds: list[int]) -> None:
        """In a child of the server: descriptors that came with the request."""
        self._inherited_fds = fds
        if tracker_fd >= 0:
            resource_tracker._resource_tracker._fd = tracker_fd

    def _disown(self) -> None:
        """In a forked child: the same server, but not this process's child. Under the lock.

        Here and not at the fork: there every child would pay for it.
        """
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._forkserver_pid = None
            self._retired = []


def _status_of(pid: int, flags: int) -> int | None:
    """The status of a child that has ended, reaped; None where it runs. 0 where somebody else took it."""
    try:
        ended, status = os.waitpid(pid, flags)
    except ChildProcessError:
        return 0
    return status if ended else None


def _first_report(kind: int, pid: int, value: int, status_r: int) -> tuple[int, int | None, int]:
    """What start_child returns."""
    if kind == _requests.REFUSED:
        raise OSError(value, f"the fork server could not fork: {os.strerror(value)}")
    os.set_blocking(status_r, False)
    # ENDED: killed before it could say that it was started.
    return pid, (value if kind == _requests.ENDED else None), status_r


def get_preparation_data(name: str) -> dict[str, Any]:
    """What a child has to know before its process object can be unpickled.

    Of most children of a program the same: what the server has prepared is not prepared again. Hence not the name,
    which goes its own way.

    Args:
        name: the child's.

    """
    data = spawn.get_preparation_data(name)
    data.pop("name", None)
    data["environ"] = spawn.get_environment()  # the server has that of the day it was started
    return data


def _pickled(data: Any) -> bytes:
    """What is for a process that is being started, and may have the authentication key in it."""
    set_spawning_popen(data)
    try:
        return reduction.ForkingPickler.dumps(data).tobytes()
    finally:
        set_spawning_popen(None)


# In the server.


def main(control_fd: int, data_fd: int, family_fd: int, ticket: str) -> NoReturn:
    """All of the server's life.

    Args:
        control_fd: the server's end of the sockets.
        data_fd: file with the key, the modules to import and the preparation data.
        family_fd: descriptor of the place in the family that is reserved for this process.
        ticket: which place, in hexadecimal.
    """
    # Ctrl-C is meant for those who started children, and for the children.
    _ignore_interrupts()
    # Whatever the thread that started it blocked: each child gets the mask of the thread that starts it.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _cmultiprocessing.family_join(family_fd, bytes.fromhex(ticket))
    with open(data_fd, "rb") as file:
        data = reduction.load(file)
    key, most_waiting = data.pop("key"), data.pop("most_waiting")
    # As the children's: they use this server while they want the same modules.
    _forkserver._preload_modules, _forkserver._preload_on_error = data.pop("preload"), data.pop("on_error")
    process._close_stdin()
    preparation: bytes = data.pop("preparation")
    everything = _preload(_forkserver._preload_modules, _forkserver._preload_on_error, preparation)
    spawn.know_environment()
    # A child that is not yet its process is somebody who unpickles its process.
    process.current_process()._inheriting = True  # type: ignore[attr-defined]
    atexit._clear()  # what is registered here is not for children
    example = _example()
    gc.collect()
    gc.freeze()  # children share these pages: do not have their collector write to them
    os.set_inheritable(control_fd, False)
    _ignore_interrupts()
    _forkserver._serve(control_fd, key)
    known = preparation if everything else None
    directory = os.fsencode(spawn._working_directory() or "")
    server_pid = os.getpid()
    try:
        work = _cmultiprocessing.fork_server(
            control_fd, key, most_waiting, known, directory, process._names, pickle.loads, example, _forkserver._adopt
        )
    except BaseException as error:
        if os.getpid() == server_pid and isinstance(error, SystemExit):
            os._exit(process._exit_code_of(error))  # said a handler of a signal
        sys.excepthook(*sys.exc_info())
        if os.getpid() == server_pid:
            os._exit(1)
        process.leave(1)
    if work is None:
        _cmultiprocessing.family_leave()
        os._exit(0)
    spawn._main(*work)


def _ignore_interrupts() -> None:
    _cmultiprocessing.ignore_interrupts(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)


def _example() -> bytes | None:
    """A process object, pickled. Unpickled once, so that all names that are looked up on the way have been.

    None where the program has process objects made, or pickled, in a way of its own that does not fit this one. It is
    nobody's process: what is wrong with those that are, their starter or their child will say.
    """
    context = sys.modules[f"{__package__}.context"]
    try:
        example = _pickled(context.ForkServerProcess(target=os.getpid))
        pickle.loads(example)
    except Exception:
        return None
    return example


def _preload(names: Iterable[str], on_error: str, preparation: bytes) -> bool:
    """Import the modules that every child would import.

    Args:
        names: of the modules.
        on_error: what a failed import means.
        preparation: pickled preparation data.

    Returns:
        Whether a child with the same data has nothing to prepare.

    """
    data = reduction.ForkingPickler.loads(preparation)
    lasts = data.keys() <= _LASTING
    main_module = {name: data.pop(name) for name in list(data) if name.startswith("init_main_from_")}
    imported = not main_module
    data.pop("prepare_logging", None)
    # Copies: modules that add to sys.path add to the list itself.
    spawn.prepare({name: list(value) if isinstance(value, list) else value for name, value in data.items()})
    for name in names:
        if name == "__main__":
            try:
                _import_main(main_module)
                imported = True
            except BaseException as error:
                # Without its guard, or by sys.exit(): each child says it, with the traceback.
                _import_failed(name, error, on_error)
        else:
            try:
                __import__(name)
            except ImportError as error:
                _import_failed(name, error, on_error)
            except Exception as error:
                # Not the module that is missing, as 'ignore' is for: shown once, here.
                _import_failed(name, error, "warn" if on_error == "ignore" else on_error)
    __import__(f"{__package__}.context")  # the class of every process object is there
    data.pop("main_by_value", None)
    spawn.prepare(data)  # the modules may have changed directory, environment, sys.path ...
    process._flush_std_streams()
    return lasts and imported


def _import_main(main_module: dict[str, Any]) -> None:
    current = process.current_process()
    current._inheriting = True  # type: ignore[attr-defined]
    try:
        spawn.prepare(main_module)
    finally:
        del current._inheriting  # type: ignore[attr-defined]


def _import_failed(name: str, error: BaseException, on_error: str) -> None:
    """What on_error wants."""
    if on_error == "ignore":
        return
    sys.excepthook(type(error), error, error.__traceback__)
    if on_error == "fail":
        process._flush_std_streams()
        os._exit(_PRELOAD_FAILED)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always", ImportWarning)
        warnings.warn(f"fork server: could not import {name!r} beforehand: {error}", ImportWarning, stacklevel=2)


_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
set_forkserver_preload = _forkserver.set_forkserver_preload
connect_to_new_process = _forkserver.connect_to_new_process
start_child = _forkserver.start_child
os.register_at_fork(after_in_child=_forkserver._lock._at_fork_reinit)  # type: ignore[attr-defined]
