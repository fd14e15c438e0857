# SPDX-License-Identifier: PSF-2.0
"""What the fork server does, and its children until they begin to be somebody's process.

    server   fork ----------------------------------> child: waits on the server's end of the sockets
    starter  request -------------------------------> one of the children that wait takes it
    child    TAKEN pid, status pipe ----------------> server: forks the next one, off the starter's way
    child    STARTED pid ---------------------------> starter
    child    LEAVING code, then its end ------------> starter, by its pidfd
    server   waitpid, ENDED code -------------------> starter, who needs it only for a child that was killed

The server takes no request itself, unless it cannot fork. It forks when a request waits and no child does, and it keeps
some children ready while there is demand. A child that waits

* dies with the server, by a signal of the kernel, and ends by itself when nobody is left who could ask, or when it was
  not asked for a while: an idle program has none after that time;
* has no descriptor but the standard streams, the server's sockets and the memory of the family;
* is nobody yet: environment, directory, sys.path, argv, umask, signal mask come with the request.

Killed at any moment: before TAKEN the status pipe, of which only the child has an end, is closed, so that the starter
asks again. After TAKEN the server reports the end as that of the starter's process.
"""
from __future__ import annotations

import atexit
import errno
import os
import select
import sys
from _signal import SIGINT  # type: ignore[import-not-found]
from _signal import signal as set_handler  # signal's own makes members of enums first, which is a page each
from time import monotonic

from . import _cmultiprocessing, _leash, _requests, process, resource_tracker, spawn

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

__all__ = ["IDLE_TIME", "Server"]

#: Seconds without a request after which a child that waits ends.
IDLE_TIME = 2.0

_PID_SIZE = 4
_MOST_SAID = 1 << 16
_PAGES = b"pages "  # begins that message, which is longer than a pid therefore


class Server:
    """The loop. Whatever it has imported, its children have.

    Args:
        control_fd: the server's end of the sockets, owned.
        key: what every request begins with.
        most: how many children may wait for work.
        interrupt_handler: the children's handler of SIGINT.
        adopt: called in a child with what it needs to use the same server: control_fd, key, descriptors.
    """

    def __init__(
        self,
        control_fd: int,
        key: bytes,
        most: int,
        interrupt_handler: Any,
        adopt: Callable[[int, bytes, list[int]], None],
    ) -> None:
        self._control_fd = control_fd
        self._key = key
        self._most = most
        self._interrupt_handler = interrupt_handler
        self._adopt = adopt
        self._pid = os.getpid()
        self._wanted = 0  # how many children are to wait
        self._last_taken = -IDLE_TIME
        self._waiting: dict[int, int] = {}  # pid: pidfd
        self._places: list[int] = []  # one for each that waits: the status pipe of its starter will need it
        self._working: dict[int, tuple[int, int]] = {}  # pidfd: pid, status pipe
        self._taken_r, self._taken_w = _cmultiprocessing.packet_pair()
        self._spare = self._new_place()  # a refusal can be told when no descriptor is left
        _leash.keep_private(self._taken_r)
        self._taken = select.poll()
        self._taken.register(self._taken_r, select.POLLIN)
        self._poll = select.poll()
        self._poll.register(self._taken_r, select.POLLIN)
        self._asker = select.poll()  # for POLLHUP alone
        self._asker.register(control_fd, 0)
        self._hears = False  # whether it waits for requests, too
        self._is_let_go = False  # whether nobody can ask any more
        self._pages: bytes | None = None  # which its children need; None until one has told
        _cmultiprocessing.packet_patience(control_fd, int(IDLE_TIME * 1000))

    def serve(self) -> None:
        """Until nobody can ask any more."""
        while self._turn():
            # One after the other, and only while nothing else is to be done.
            while len(self._waiting) < self._wanted and not self._poll.poll(0):
                self._prepare_child(in_a_hurry=False)

    def _turn(self) -> bool:
        """Handle what happens next; False at the end."""
        self._hear(not self._waiting and not self._is_let_go)
        for fd, event in self._poll.poll():
            if fd == self._taken_r:
                self._hear_child()
            elif fd != self._control_fd:
                self._note_end(fd)
            elif event & select.POLLHUP:
                self._is_let_go = True
            elif not self._waiting:
                self._prepare_child(in_a_hurry=True)
        return not self._is_let_go or self._has_listeners()

    def _has_listeners(self) -> bool:
        """Whether somebody is there to hear how a child ends: the sockets of one that ends are closed before that."""
        poll = select.poll()
        pipes = [status_w for _, status_w in self._working.values() if status_w >= 0]
        for status_w in pipes:
            poll.register(status_w, 0)
        return len(poll.poll(0)) < len(pipes)

    def _hear(self, hear: bool) -> None:
        """While children wait, a request wakes one of them, and the server stays asleep."""
        if hear != self._hears:
            self._hears = hear
            if hear:
                self._poll.register(self._control_fd, select.POLLIN)
            else:
                self._poll.unregister(self._control_fd)

    def _new_place(self) -> int:
        """A descriptor that is there to be closed, when its place is needed and none may be left."""
        place = os.dup(self._control_fd)
        _leash.keep_private(place)
        return place

    def _keep_place(self) -> None:
        """Take a place back. Where that fails, an exit code of a child that is killed may stay unknown, no more."""
        try:
            self._places.append(self._new_place())
        except OSError:
            pass

    def _prepare_child(self, in_a_hurry: bool) -> None:
        """Fork a child that waits for work.

        Args:
            in_a_hurry: its work waits already.
        """
        # A child that cannot be followed must not come to be: both places that it takes here are taken before.
        places: list[int] = []
        try:
            places.append(self._new_place())
            places.append(self._new_place())
            pid = os.fork()  # by this name: debuggers replace it
        except OSError as error:
            for place in places:
                _leash.drop(place)
            self._wanted = len(self._waiting)  # until somebody asks again
            if in_a_hurry:
                self._refuse(error.errno or errno.EAGAIN)
            return
        if pid == 0:
            self._be_the_child(in_a_hurry)
        _leash.drop(places.pop())
        self._places += places
        pidfd = os.pidfd_open(pid)  # the one thread of this process: nobody else takes the place
        _leash.keep_private(pidfd)
        self._waiting[pid] = pidfd
        self._poll.register(pidfd, select.POLLIN)

    def _refuse(self, reason: int) -> None:
        """Answer the request that waits, for which there is no child."""
        _leash.drop(self._spare)
        packet = _cmultiprocessing.packet_try_receive(self._control_fd, _requests.ROOM)
        if packet is not None:
            message, fds, _, _ = packet
            if fds and _requests.is_genuine(message, self._key):
                _requests.report(fds[0], _requests.REFUSED, 0, reason)
            for fd in fds:
                os.close(fd)
        try:
            self._spare = self._new_place()
        except OSError:
            self._spare = -1  # its number is above a limit that somebody has lowered

    def _hear_child(self) -> None:
        """Take what a child says: that it has taken work, or at its end which pages it needed."""
        # What it says first comes with a descriptor, and for each child that waits there is a place. What it says later
        # does not, and then there may be none that wait.
        place = self._places.pop() if self._places else -1
        _leash.drop(place)
        packet = _cmultiprocessing.packet_receive(self._taken_r, _MOST_SAID)
        assert packet is not None
        data, fds, _, _ = packet
        if len(data) == _PID_SIZE:
            self._note_taken(int.from_bytes(data, sys.byteorder), fds)
        else:
            if place >= 0:
                self._keep_place()
            if self._pages is None:
                self._pages = _cmultiprocessing.pages_in_common(data[len(_PAGES) :])

    def _note_taken(self, pid: int, fds: tuple[int, ...]) -> None:
        """A child has work: follow it to its end, and have others wait while there is demand."""
        for fd in fds:
            _leash.keep_private(fd)
        self._working[self._waiting.pop(pid)] = pid, (fds[0] if fds else -1)
        now = monotonic()
        # The first one of a program may be its only one.
        wanted = self._wanted + 1 if now - self._last_taken < IDLE_TIME else 1
        self._wanted = min(wanted, self._most)
        self._last_taken = now

    def _note_end(self, pidfd: int) -> None:
        """A child has ended: one that worked, and its starter is told; or one that waited."""
        while self._taken.poll(0):
            self._hear_child()  # it may have taken its work just before
        self._poll.unregister(pidfd)
        pid, status_w = self._working.pop(pidfd, (0, -1))
        if not pid:
            pid = next(pid for pid, fd in self._waiting.items() if fd == pidfd)
            del self._waiting[pid]
            if self._places:
                _leash.drop(self._places.pop())
            # Where nobody is left who could ask, those forked now would end at once, and be forked again.
            if monotonic() - self._last_taken >= IDLE_TIME or self._asker.poll(0):
                self._wanted = 0
        if status_w >= 0:
            # Told before it is reaped: until then its pid is nobody else's.
            _requests.report(status_w, _requests.ENDED, pid, _exit_code(pid))
            _leash.drop(status_w)
        _reap(pid)
        _leash.drop(pidfd)

    # In a child.

    def _be_the_child(self, in_a_hurry: bool) -> NoReturn:
        try:
            try:
                _cmultiprocessing.follow_parent(self._pid)
            except ProcessLookupError:
                os._exit(1)  # the server died at the fork
            if self._pages is not None and not in_a_hurry:
                _cmultiprocessing.fetch_pages(self._pages)
            work = self._wait_for_work()
            self._begin(work)
            data, leash_fd = work.data, work.leash_fd
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        spawn._main(data, leash_fd)

    def _wait_for_work(self) -> _requests.Work:
        """Wait for a request; without one, this process ends."""
        while True:
            packet = _cmultiprocessing.packet_receive(self._control_fd, _requests.ROOM)
            if packet is None or (not packet[0] and not packet[1]):
                _cmultiprocessing.family_leave()
                os._exit(0)
            work = self._accept(*packet)
            if work is not None:
                return work

    def _accept(self, message: bytes, fds: tuple[int, ...], uid: int, complete: bool) -> _requests.Work | None:
        """The work in a message, None for one that is not to be obeyed."""
        if fds and _requests.is_genuine(message, self._key):
            if uid != os.geteuid():
                _requests.report(fds[0], _requests.REFUSED, 0, errno.EPERM)
            elif not complete:
                _requests.report(fds[0], _requests.REFUSED, 0, errno.EMFILE)  # not all of them have found a place
            elif len(fds) >= _requests.OWN_FDS:
                return _requests.unpack_work(message, fds)
        for fd in fds:
            os.close(fd)
        return None

    def _begin(self, work: _requests.Work) -> None:
        """Leave the server's likeness for the starter's."""
        _cmultiprocessing.unfollow_parent()
        pid = os.getpid()
        status_w = work.status_w
        try:
            _cmultiprocessing.packet_send(self._taken_w, pid.to_bytes(_PID_SIZE, sys.byteorder), (status_w,))
        except OSError:
            os._exit(1)  # the server is dead, and nobody would follow this process: the starter asks again
        _requests.report(status_w, _requests.STARTED, pid, 0)
        # Open to the end, so that a starter whose server died sees when this process ends.
        _leash.keep_private(status_w)
        learns = self._pages is None
        if learns:
            _leash.keep_private(self._taken_w)
        else:
            os.close(self._taken_w)
        os.close(self._control_fd)
        if work.leashed:
            _leash.arm(work.leash_fd)
        _cmultiprocessing.set_traits(work.traits)
        set_handler(SIGINT, self._interrupt_handler)
        _cmultiprocessing.family_join(work.family_fd, work.ticket)
        if work.tracker_fd is not None:
            resource_tracker._resource_tracker._fd = work.tracker_fd
        self._adopt(work.control_fd, self._key, work.fds)
        atexit._clear()

        def leaving(code: int) -> None:
            if os.getpid() == pid:  # not one that this process forked, and that ends as it does
                if learns:
                    self._tell_pages()
                _requests.report(status_w, _requests.LEAVING, pid, code)

        process.leaving_hook = leaving


    def _tell_pages(self) -> None:
        """Say which pages this child copied and looked up: the next ones get them before they have work."""
        try:
            said = _PAGES + _cmultiprocessing.pages_used()
            _cmultiprocessing.packet_send(self._taken_w, said, ())
        except OSError:
            pass  # without /proc, or without a server: nobody needs to know


def _exit_code(pid: int) -> int:
    """The exit code of a child that has ended, which is not reaped."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return _requests.UNKNOWN_EXIT_CODE  # a preloaded module has SIGCHLD ignored, or took it
    assert result is not None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # the same
