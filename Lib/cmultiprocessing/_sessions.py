# SPDX-License-Identifier: PSF-2.0
"""Handshakes side by side: a stranger who is silent, slow or mad costs the others nothing.

    Reception(door)   accepts connections, and holds one
      Session         per peer whose steps are not all taken: what was received of a message, what is to be sent
        steps         the protocol, see `_authentication`

Nobody has a thread: whoever calls next() drives all sessions with one poll until one of them is through.
"""
from __future__ import annotations

import _thread
import collections
import errno
import os
import select
import socket
import struct
import time

from . import util

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._authentication import Steps

__all__ = ["Reception", "Session"]

_LENGTH = struct.Struct("!i")
#: A stranger makes us take this many bytes, for the message that he sends. Those of the protocol are shorter.
_MAX_MESSAGE = 4096
#: Peers whose handshake is under way; the one that came first has to go when another one comes.
_MAX_SESSIONS = 256
#: accept() fails with these for one connection, not for good (man 2 accept).
_ONE_CONNECTION = frozenset(
    {
        errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET,
        errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM, errno.ETIMEDOUT,
    }
)  # fmt: skip
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def milliseconds(deadline: float | None) -> float | None:
    """What is left until a moment of the monotonic clock, as poll() takes it: its int holds 24 days."""
    return None if deadline is None else min(max(0.0, deadline - time.monotonic()) * 1000, 1e9)


class Session:
    """The steps that are taken with one peer, without ever waiting for it.

    Args:
        sock: connected to the peer; it stays the caller's.
        steps: yields messages to send, None to get the next one of the peer; what it returns is the result.
        address: where the peer is, as accept() said.
        deadline: when it is to be dropped, on the monotonic clock; for those who drive it.
    """

    def __init__(self, sock: socket.socket, steps: Steps, address: Any = None, deadline: float | None = None) -> None:
        self.sock = sock
        self.address = address
        self.deadline = deadline
        #: What to wait for before the next advance().
        self.events = select.POLLIN
        self.finished = False
        self.result: Any = None
        #: Whether the peer has said anything.
        self.heard = False
        self._steps = steps
        self._out = b""
        self._in = bytearray()
        self._wanted = _LENGTH.size
        self._begun = False

    def advance(self) -> bool:
        """Go on until the peer has to be waited for.

        Returns:
            Whether all steps are taken.

        Raises:
            AuthenticationError: what the steps raise.
            EOFError: the peer is gone.
            OSError: so it is, or it sent what is no message.
        """
        if not self._begun:
            self._begun = True
            self._take(None)
        while not self.finished:
            if not (self._send() if self._out else self._receive()):
                return False
        return True

    def _take(self, message: bytes | None) -> None:
        """The next step: it says what to send, that it wants a message, or that it was the last one."""
        try:
            outgoing = self._steps.send(message)  # type: ignore[arg-type]  # the first one must be None
        except StopIteration as end:
            self.finished, self.result = True, end.value
            return
        if outgoing is None:
            self._in.clear()
            self._wanted = _LENGTH.size
        else:
            self._out = _LENGTH.pack(len(outgoing)) + outgoing

    def _send(self) -> bool:
        """Send what can be sent; False when the peer does not take more."""
        try:
            sent = self.sock.send(self._out, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self.events = select.POLLOUT
            return False
        self._out = self._out[sent:]
        if not self._out:
            self._take(None)
        return True

    def _receive(self) -> bool:
        """Receive a part of a message, never a byte beyond it; False when there is nothing."""
        try:
            piece = self.sock.recv(self._wanted - len(self._in), socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.events = select.POLLIN
            return False
        if not piece:
            raise EOFError("the peer closed the connection during the handshake")
        self.heard = True
        self._in += piece
        if len(self._in) == _LENGTH.size:
            (size,) = _LENGTH.unpack(self._in)
            if not 0 <= size <= _MAX_MESSAGE:
                raise OSError(f"message of {size} bytes during the handshake, the limit is {_MAX_MESSAGE}")
            self._wanted = _LENGTH.size + size
        if len(self._in) == self._wanted:
            self._take(bytes(self._in[_LENGTH.size :]))
        return True


class Reception:
    """Accepts connections and has each take its steps, side by side.

    Any number of threads may call next(): one drives, the others wait for their turn. A forked child shares the door
    only, the peers that are inside stay with the parent.

    Args:
        door: a listening socket; it belongs to the reception.
        begin: makes the steps for a new peer; None where there are none.
        patience: seconds that a peer has for all steps; None for ever.
        admit: says whether a new peer may come in at all.
    """

    def __init__(
        self,
        door: socket.socket,
        begin: Callable[[], Steps] | None = None,
        patience: float | None = None,
        admit: Callable[[socket.socket], bool] | None = None,
    ) -> None:
        #: Whether close() was called.
        self.closed = False
        self.door = door
        #: How many were sent away: not admitted, too slow, gone before the end, or no peers of ours at all.
        self.dropped = 0
        self._begin = begin
        self._patience = patience
        self._admit = admit
        self._reset()
        util.register_after_fork(self, Reception._leave_to_parent)

    def _reset(self) -> None:
        self._lock = _thread.RLock()  # an RLock: a signal handler may close() while this thread waits
        self._bell = -1
        # Held while the bell is rung or closed: its number may mean another file right after. Reentrant, too.
        self._bell_lock = _thread.RLock()
        self._left_at = 0.0
        # By descriptor, in the order of their coming, which is that of their deadlines.
        self._sessions: dict[int, Session] = {}
        self._outcomes: collections.deque[Session | Exception] = collections.deque()

    def _leave_to_parent(self) -> None:
        """In a forked child: its copies of the peers' descriptors would keep them from seeing the end."""
        self._drop_all()
        if self._bell >= 0:
            os.close(self._bell)
        self._reset()

    def next(self, deadline: float | None) -> Session | None:
        """The next peer whose steps are all taken, None when the time is over.

        Args:
            deadline: on the monotonic clock; None for ever.

        Raises:
            AuthenticationError: a peer does not know the key.
            OSError: closed, or the system has no descriptor left.
        """
        if not self._lock.acquire(timeout=_remaining(deadline)):
            return None
        try:
            if self.closed:
                raise OSError("listener is closed")
            return self._drive(deadline)
        except Exception as error:
            if not self.closed:
                raise
            # A signal handler of this thread may have closed it between any two instructions.
            raise OSError("listener is closed") from error
        finally:
            if self.closed:
                self._drop_all()
            self._lock.release()

    def _drive(self, deadline: float | None) -> Session | None:
        # While nobody was here, no peer could go on: that time is not theirs.
        away = time.monotonic() - self._left_at
        for session in list(self._sessions.values()):
            if session.deadline is not None:
                session.deadline += away
        try:
            return self._first_outcome(deadline)
        finally:
            self._left_at = time.monotonic()

    def _first_outcome(self, deadline: float | None) -> Session | None:
        patient = True
        while True:
            if self._outcomes:
                outcome = self._outcomes.popleft()
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
            if not patient:
                return None
            # Also when the deadline is over: once it looks at what is there.
            patient = deadline is None or time.monotonic() < deadline
            self._wait(deadline)
            if self.closed:
                raise OSError("listener is closed")

    def _wait(self, deadline: float | None) -> None:
        """Wait for something to happen, and see to it."""
        poll = select.poll()
        poll.register(self.door, select.POLLIN)
        for fd, session in list(self._sessions.items()):
            poll.register(fd, session.events)
            if session.deadline is not None and (deadline is None or session.deadline < deadline):
                deadline = session.deadline
        ready = poll.poll(0)
        if not ready and (left := milliseconds(deadline)) != 0:
            ready = self._poll_with_bell(poll, left)
        if self.closed:
            return
        for fd, _ in ready:
            if fd in self._sessions:
                self._advance(self._sessions[fd])
        self._drop_late_ones()
        if any(fd == self.door.fileno() for fd, _ in ready):
            self._open_door()

    def _poll_with_bell(self, poll: select.poll, left: float | None) -> list[tuple[int, int]]:
        """Poll, also for close() of another thread: a descriptor that is closed meanwhile wakes nobody."""
        self._bell = os.eventfd(0)
        try:
            poll.register(self._bell, select.POLLIN)
            # From its milliseconds poll() takes off what a signal handler needed.
            return poll.poll(left)
        finally:
            with self._bell_lock:
                bell, self._bell = self._bell, -1
                os.close(bell)

    def _open_door(self) -> None:
        """Let in who is there. Without steps one at a time: the next may be for another process."""
        for _ in range(1 if self._begin is None else _MAX_SESSIONS):
            try:
                sock, address = _accept_now(self.door)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _ONE_CONNECTION:
                    self.dropped += 1
                    continue
                if error.errno in _NO_ROOM and self._sessions:
                    self._drop(next(iter(self._sessions.values())))
                    continue
                self._outcomes.append(error)
                return
            self._let_in(sock, address)

    def _let_in(self, sock: socket.socket, address: Any) -> None:
        if self._admit is not None and not self._admit(sock):
            sock.close()
            self.dropped += 1
            return
        if len(self._sessions) >= _MAX_SESSIONS:
            self._drop(next(iter(self._sessions.values())))
        deadline = None if self._patience is None else time.monotonic() + self._patience
        session = Session(sock, self._begin() if self._begin is not None else _no_steps(), address, deadline)
        self._sessions[sock.fileno()] = session
        self._advance(session)

    def _advance(self, session: Session) -> None:
        try:
            if session.advance():
                del self._sessions[session.sock.fileno()]
                self._outcomes.append(session)
        except (OSError, EOFError):
            self._drop(session)
        except Exception as error:  # the key is wrong: the caller wants to know
            self._expel(session)
            self._outcomes.append(error)

    def _drop_late_ones(self) -> None:
        now = time.monotonic()
        for session in list(self._sessions.values()):
            if session.deadline is None or session.deadline > now:
                break
            self._drop(session)

    def _drop(self, session: Session) -> None:
        self._expel(session)
        self.dropped += 1

    def _expel(self, session: Session) -> None:
        del self._sessions[session.sock.fileno()]
        session.sock.close()

    def _drop_all(self) -> None:
        for session in self._sessions.values():
            session.sock.close()
        for outcome in self._outcomes:
            if isinstance(outcome, Session):
                outcome.sock.close()
        self._sessions.clear()
        self._outcomes.clear()

    def close(self) -> None:
        """Close the door and send everybody away. Who waits in next() gets OSError. A second time does nothing."""
        self.closed = True
        patience = 0.0
        while not self._lock.acquire(timeout=patience):
            # The one who drives is in poll(), or about to go there: it rings until it is heard.
            self._ring()
            patience = 0.01
        try:
            self._ring()  # this is a signal handler of the thread that drives
            self._drop_all()
            self.door.close()
        finally:
            self._lock.release()

    def __del__(self) -> None:
        # In a process that was forked from the one that made it no finalizer does this.
        if not self.closed:
            self._drop_all()
            self.door.close()

    def _ring(self) -> None:
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)


def _remaining(deadline: float | None) -> float:
    """Seconds until a deadline, as a lock takes them: -1 for ever."""
    if deadline is None:
        return -1
    return min(max(0.0, deadline - time.monotonic()), _thread.TIMEOUT_MAX)


def _no_steps() -> Steps:
    return
    yield


def _accept_now(door: socket.socket) -> tuple[socket.socket, Any]:
    """accept() that never waits: another process that has the same door may be quicker.

    The timeout of the socket object itself is left alone, people set it.
    """
    same = socket.socket(door.family, door.type, door.proto, fileno=door.fileno())
    try:
        same.settimeout(0)
        sock, address = same.accept()
    finally:
        same.detach()
    if sock.gettimeout() is not None:
        sock.settimeout(None)  # socket.setdefaulttimeout() is not for connections
    return sock, address
