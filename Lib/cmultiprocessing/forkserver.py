# SPDX-License-Identifier: PSF-2.0
"""The fork server: a process without threads and with little memory, started once, that forks on request.

A request is one message on a pair of Unix sockets that has no name: only who inherited an end can speak to the server.
It carries a random key and the sender's uid, both compared before anything else is looked at, and the descriptors that
the child needs, among them the sockets themselves: so children, and their children, use the same server.

    starter                        server                          child
    ensure_running()
    request ---------------------> fork -------------------------> STARTED pid ---+
    <------------------------------------------------------------------------------+
                                   (pidfd ready) waitpid
    sentinel ready <-------------- ENDED pid, exit code

The child itself says that it was started: a server killed in between either has a child, which says so, or none, and
then the pipe ends. That is how the starter knows that it may ask the next server.

The server ends when nobody has the other end of its sockets any more.
"""
from __future__ import annotations

import _thread
import atexit
import errno
import gc
import hmac
import os
import select
import signal
import socket
import struct
import sys

from . import _cmultiprocessing, _interpreter, _leash, process, reduction, resource_tracker, spawn

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NoReturn

__all__ = ["ensure_running", "get_inherited_fds", "connect_to_new_process", "set_forkserver_preload", "start_child"]

_KEY_SIZE = 32
_MAX_TICKET = 64
# key, leashed, has tracker, ticket
_REQUEST = struct.Struct(f"<{_KEY_SIZE}s??{_MAX_TICKET + 1}p")
# Status pipe, start data, leash, family, sockets.
_OWN_FDS = 5
_MAX_FDS = 253  # of one message: the kernel's limit

# kind, pid, exit code or errno
_REPORT = struct.Struct("<Bii")
_STARTED, _ENDED, _REFUSED = 1, 2, 3

# A server that dies at each request is not asked for ever.
_ATTEMPTS = 10


class Request:
    """What a child needs. The descriptors stay the sender's.

    Args:
        data_fd: file with the start data.
        leash_fd: gets ready when the starter dies.
        family_fd: descriptor of the place in the family that is reserved for the child.
        ticket: which place.
        leashed: whether the child dies with its starter.
        tracker_fd: descriptor of the resource tracker, None if none runs.
        fds: what else travels along.

    """

    def __init__(
        self,
        *,
        data_fd: int,
        leash_fd: int,
        family_fd: int,
        ticket: bytes,
        leashed: bool = False,
        tracker_fd: int | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        self.own_fds = [data_fd, leash_fd, family_fd]
        self.more_fds = [*([] if tracker_fd is None else [tracker_fd]), *fds]
        self.ticket = ticket
        self.leashed = leashed
        self.has_tracker = tracker_fd is not None

    def message(self, key: bytes) -> bytes:
        """Its bytes."""
        return _REQUEST.pack(key, self.leashed, self.has_tracker, self.ticket)


class ForkServer:
    """This process's side of the fork server: the sockets, the key, and which modules it imports beforehand."""

    def __init__(self) -> None:
        self._lock = _thread.RLock()
        self._forkserver_pid: int | None = None  # only if it is a child of this process
        self._socket: socket.socket | None = None
        self._adopted_fd = -1  # what _socket is to be made of
        self._key = b""
        self._inherited_fds: list[int] | None = None
        self._preload_modules: list[str] = ["__main__"]

    @property
    def _control(self) -> socket.socket | None:
        """The socket that leads to the server. Few children of the server need it: theirs is made when asked for."""
        if self._adopted_fd >= 0:
            self._control = socket.socket(fileno=self._adopted_fd)
        return self._socket

    @_control.setter
    def _control(self, control: socket.socket | None) -> None:
        self._socket, self._adopted_fd = control, -1

    def set_forkserver_preload(self, modules_names: list[str]) -> None:
        """Have the server import modules when it starts, so that its children have them.

        Args:
            modules_names: full names; '__main__' is the program's main module. Import errors are ignored.

        Raises:
            TypeError: not a list of strings.
        """
        if not all(type(name) is str for name in modules_names):
            raise TypeError("module_names must be a list of strings")
        self._preload_modules = modules_names

    def get_inherited_fds(self) -> list[int] | None:
        """Descriptors that came with this process's start, None where it was not started by the server."""
        return self._inherited_fds

    def ensure_running(self) -> None:
        """Start the server unless one runs. One that died is replaced."""
        with self._lock:
            if self._forkserver_pid is not None and _has_ended(self._forkserver_pid):
                self._forget()
            if self._control is None:
                self._start()

    def _forget(self) -> None:
        """Let go of a server that is dead, or that is to end."""
        if self._control is not None:
            self._control.close()
        self._control = None
        self._forkserver_pid = None

    def _start(self) -> None:
        _cmultiprocessing.family_start()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Here, not in the server: the kernel notes the sender at the sending, and that may be before the server runs.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        key = os.urandom(_KEY_SIZE)
        with theirs:
            try:
                self._forkserver_pid = self._spawn_server(theirs.fileno(), key)
            except BaseException:
                ours.close()
                raise
        self._control, self._key = ours, key

    def _spawn_server(self, control_fd: int, key: bytes) -> int:
        """Start the server's interpreter; what is not for everybody's eyes goes through an anonymous file."""
        data = {**spawn.get_preparation_data("forkserver"), "key": key, "preload": self._preload_modules}
        for name in ("authkey", "prepare_logging"):
            data.pop(name, None)  # each child gets its starter's
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
                return _interpreter.spawnv_passfds(executable, command, (control_fd, data_fd, family_fd))
            finally:
                os.close(data_fd)
        finally:
            os.close(family_fd)

    def _stop(self) -> None:
        """End the server now; its children go on, their exit codes stay unknown."""
        self._end(signal.SIGTERM)

    def _end(self, signal_number: int) -> None:
        """Let go of the server; end and reap it if it is this process's child."""
        with self._lock:
            pid = self._forkserver_pid
            self._forget()
            if pid is not None:
                try:
                    os.kill(pid, signal_number)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass  # it has ended, and somebody reaped it

    def start_child(self, request: Request) -> tuple[int, int | None, int]:
        """Have the server fork a child.

        Args:
            request: what the child needs.

        Returns:
            Its pid; its exit code if it has ended already; the descriptor through which that comes.

        Raises:
            OSError: the server cannot fork, or dies each time that it is asked.
            ValueError: more descriptors than one message can carry.
        """
        limit = _MAX_FDS - _OWN_FDS
        if len(request.more_fds) > limit:
            raise ValueError(f"too many fds: {len(request.more_fds)} in the start arguments, the limit is {limit}")
        for _ in range(_ATTEMPTS):
            status_r, status_w = os.pipe()
            try:
                try:
                    asked = self._send(request, status_w)
                finally:
                    os.close(status_w)
                report = _read_report(status_r)
                if report is not None:
                    return _first_report(*report, status_r)
            except BaseException:
                os.close(status_r)
                raise
            os.close(status_r)
            self._lost(asked)
        raise OSError(f"the fork server died {_ATTEMPTS} times when it was asked for a process")

    def connect_to_new_process(self, fds: list[int]) -> tuple[int, int]:
        """Have the server fork a child whose start data the caller writes.

        Args:
            fds: descriptors that travel along, see `get_inherited_fds`.

        Returns:
            A descriptor that reports come through (kind, pid, value: see `read_exit_code`), and one to write the
            pickled preparation data and process object to.

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
            request = Request(data_fd=data_r, leash_fd=leash_end, family_fd=family_fd, ticket=ticket, fds=fds)
            self._send(request, status_w)
        finally:
            for fd in lent:
                os.close(fd)
        return status_r, data_w

    def _send(self, request: Request, status_w: int) -> socket.socket:
        """Send a request to the server that runs, and return the socket that leads to it."""
        with self._lock:  # no other thread closes the socket meanwhile
            self.ensure_running()
            control = self._control
            assert control is not None
            fds = [status_w, *request.own_fds, control.fileno(), *request.more_fds]
            try:
                socket.send_fds(control, [request.message(self._key)], fds)
            except ConnectionError:
                pass  # dead: nobody will answer
            return control

    def _lost(self, asked: socket.socket) -> None:
        """The server that was asked did not answer: it is dead, or not to be trusted any more.

        Args:
            asked: the socket that led to it; another thread may have started the next one.

        """
        with self._lock:
            if self._control is asked:
                self._end(signal.SIGKILL)

    def _adopt(self, control_fd: int, key: bytes, fds: list[int]) -> None:
        """In a child of the server: use that server, too."""
        self._adopted_fd = control_fd
        self._key = key
        self._inherited_fds = fds

    def _after_fork(self) -> None:
        """In a forked child: the same server, but not this process's child."""
        self._lock = _thread.RLock()
        self._forkserver_pid = None


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _read_report(status_r: int) -> tuple[int, int, int] | None:
    """The next report of a child, None where the pipe ends."""
    data = os.read(status_r, _REPORT.size)
    return _REPORT.unpack(data) if data else None


def _first_report(kind: int, pid: int, value: int, status_r: int) -> tuple[int, int | None, int]:
    """What start_child returns."""
    if kind == _REFUSED:
        raise OSError(value, f"the fork server could not fork: {os.strerror(value)}")
    os.set_blocking(status_r, False)
    # ENDED: killed before it could say that it was started.
    return pid, (value if kind == _ENDED else None), status_r


def read_exit_code(status_r: int) -> int | None:
    """The exit code of a child of the server.

    Args:
        status_r: descriptor of `start_child`.

    Returns:
        The code; None while it runs; 255 where the server died before the child, so that nobody knows.
    """
    try:
        report = _read_report(status_r)
    except BlockingIOError:
        return None
    return 255 if report is None else report[2]


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
    interrupt_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    _cmultiprocessing.family_join(family_fd, bytes.fromhex(ticket))
    with open(data_fd, "rb") as file:
        data = reduction.load(file)
    key = data.pop("key")
    process._close_stdin()
    _preload(data.pop("preload"), data)
    gc.collect()
    gc.freeze()  # children share these pages: do not have their collector write to them
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    _Server(control, key, interrupt_handler).serve()
    os._exit(0)


def _preload(names: Iterable[str], data: dict[str, Any]) -> None:
    """Import the modules that every child would import. What fails here fails there again, and is shown there."""
    main_module = {name: data.pop(name) for name in list(data) if name.startswith("init_main_from_")}
    spawn.prepare(data)
    current = process.current_process()
    for name in names:
        if name == "__main__":
            current._inheriting = True  # type: ignore[attr-defined]
            try:
                spawn.prepare(main_module)
            except BaseException:
                pass  # without its guard, or by sys.exit(): each child says it, with the traceback
            finally:
                del current._inheriting  # type: ignore[attr-defined]
        else:
            try:
                __import__(name)
            except ImportError:
                pass  # as documented
            except Exception:
                sys.excepthook(*sys.exc_info())
    process._flush_std_streams()


class _Server:
    """The loop: requests in, exit codes out.

    Args:
        control: the server's end of the sockets.
        key: what every request begins with.
        interrupt_handler: the children's handler of SIGINT.
    """

    def __init__(self, control: socket.socket, key: bytes, interrupt_handler: Any) -> None:
        self._control = control
        self._key = key
        self._interrupt_handler = interrupt_handler
        self._children: dict[int, tuple[int, int]] = {}  # pidfd: pid, status pipe
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        _leash.keep_private(control.fileno())

    def serve(self) -> None:
        """Until nobody can ask any more."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    self._report_end(fd)
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        """Take one request; False at the end of file."""
        room = socket.CMSG_SPACE(_MAX_FDS * 4) + socket.CMSG_SPACE(12)
        message, ancillary, flags, _ = self._control.recvmsg(_REQUEST.size + 1, room, socket.MSG_CMSG_CLOEXEC)
        if not message and not ancillary:
            return False
        fds, uid = _split(ancillary)
        try:
            if not self._is_genuine(message) or not fds:
                pass  # not one of us: no answer
            elif uid != os.geteuid():
                _report(fds[0], _REFUSED, 0, errno.EPERM)
            elif flags & socket.MSG_CTRUNC:
                _report(fds[0], _REFUSED, 0, errno.EMFILE)  # not all of them have found a place here
            elif len(fds) >= _OWN_FDS:
                self._fork(message, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _is_genuine(self, message: bytes) -> bool:
        return len(message) == _REQUEST.size and hmac.compare_digest(message[:_KEY_SIZE], self._key)

    def _fork(self, message: bytes, fds: list[int]) -> None:
        status_w = fds[0]
        # A child that cannot be followed must not come to be: both places that it takes here are taken before.
        places: list[int] = []
        try:
            for _ in range(2):
                places.append(os.dup(status_w))
                _leash.keep_private(places[-1])
            pid = os.fork()
        except OSError as error:
            for place in places:
                _leash.drop(place)
            _report(status_w, _REFUSED, 0, error.errno or 0)
            return
        if pid == 0:
            self._be_the_child(message, fds)
        own_status_w, place = places
        _leash.drop(place)
        pidfd = os.pidfd_open(pid)  # the one thread of this process: nobody else takes the place
        _leash.keep_private(pidfd)
        self._children[pidfd] = pid, own_status_w
        self._poll.register(pidfd, select.POLLIN)

    def _be_the_child(self, message: bytes, fds: list[int]) -> NoReturn:
        try:
            key, leashed, has_tracker, ticket = _REQUEST.unpack(message)
            status_w, data_fd, leash_fd, family_fd, control_fd, *others = fds
            _report(status_w, _STARTED, os.getpid(), 0)
            # Open to the end, so that a starter whose server died sees when this process ends.
            _leash.keep_private(status_w)
            if leashed:
                _leash.arm(leash_fd)
            signal.signal(signal.SIGINT, self._interrupt_handler)
            _cmultiprocessing.family_join(family_fd, ticket)
            if has_tracker:
                resource_tracker._resource_tracker._fd = others.pop(0)
            _forkserver._adopt(control_fd, key, others)
            atexit._clear()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        spawn._main(data_fd, leash_fd)

    def _report_end(self, pidfd: int) -> None:
        pid, status_w = self._children[pidfd]
        _, status = os.waitpid(pid, 0)
        self._poll.unregister(pidfd)
        del self._children[pidfd]
        _report(status_w, _ENDED, pid, os.waitstatus_to_exitcode(status))
        _leash.drop(pidfd)
        _leash.drop(status_w)


def _report(status_w: int, kind: int, pid: int, value: int) -> None:
    """Tell the starter. It may be dead: then nobody is interested."""
    try:
        os.write(status_w, _REPORT.pack(kind, pid, value))
    except BrokenPipeError:
        pass


def _split(ancillary: list[tuple[int, int, bytes]]) -> tuple[list[int], int]:
    """The descriptors and the sender's uid of a message."""
    fds: list[int] = []
    uid = -1
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_RIGHTS:
            fds += [number for (number,) in struct.iter_unpack("i", data[: len(data) // 4 * 4])]
        elif kind == socket.SCM_CREDENTIALS:
            _, uid, _ = struct.unpack("iii", data)
    return fds, uid


_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
set_forkserver_preload = _forkserver.set_forkserver_preload
connect_to_new_process = _forkserver.connect_to_new_process
start_child = _forkserver.start_child
os.register_at_fork(after_in_child=_forkserver._after_fork)
