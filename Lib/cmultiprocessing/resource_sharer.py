# SPDX-License-Identifier: PSF-2.0
"""Lending descriptors to processes that run already.

    lender                                      borrower
    DupFd(fd): a copy is put on the shelf ----> (pickled: the lender's address and a ticket)
                                                detach(): connects, proves that it knows the process's key
               <------------------------------- (ticket, pid)
    the copy leaves the shelf ----------------> a descriptor of its own

The messages are those of the standard library. A thread stands at the shelf exactly while something is on it: a process
that lends nothing has neither thread nor socket. Strangers who connect and say nothing are in nobody's way.
"""
from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from itertools import count

from . import process, reduction, util
from ._authentication import server_steps
from ._listener import Client, SocketListener
from ._sessions import Session

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any

    from ._authentication import Steps

__all__ = ["DupFd", "stop"]

_PAUSE = 0.05  # seconds


class DupFd:
    """A descriptor that can be pickled, and taken once by whoever unpickles it.

    Args:
        fd: it is copied at once; the caller may close it.
    Source: multiprocessing.reduction.DupFd, which returns one of these.
    """

    def __init__(self, fd: int) -> None:
        self._id = _shelf.put(os.dup(fd))

    def detach(self) -> int:
        """Get the descriptor; it is the caller's. Once only.

        Raises:
            OSError: the lender has ended, or somebody else took it. EOFError: likewise.
        """
        address, ticket = self._id
        with Client(address, authkey=process.current_process().authkey) as connection:
            connection.send((ticket, os.getpid()))
            return reduction.recv_handle(connection)


class _Shelf:
    """What this process lends: descriptors by ticket, and the thread that hands them out."""

    def __init__(self) -> None:
        self._reset()
        util.register_after_fork(self, _Shelf._after_fork)

    def _reset(self) -> None:
        # Held for a moment only. Reentrant: a collection, and with it a DupFd, may come at any time.
        self._lock = _thread.RLock()
        self._tickets = count(1)
        self._lent: dict[int, int] = {}
        self._listener: SocketListener | None = None
        self._thread: threading.Thread | None = None

    def _after_fork(self) -> None:
        """In a forked child: what the parent lends is not lent by the child, whose copies would keep it open."""
        for fd in self._lent.values():
            os.close(fd)
        self._reset()

    def put(self, fd: int) -> tuple[Any, int]:
        """Lend a descriptor, which belongs to the shelf from now on.

        Returns:
            The address to ask at, and the ticket.
        """
        try:
            with self._lock:
                if self._listener is None:
                    self._open()
                assert self._listener is not None
                ticket = next(self._tickets)
                self._lent[ticket] = fd
                return self._listener._address, ticket
        except BaseException:
            os.close(fd)
            raise

    def _open(self) -> None:
        listener = SocketListener(None, "AF_UNIX", backlog=128, steps=_steps)
        thread = threading.Thread(target=self._serve, args=(listener,), name="resource sharer", daemon=True)
        # The thread inherits this mask: signals are for the program's own threads.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        except BaseException:
            listener.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._listener, self._thread = listener, thread

    def _serve(self, listener: SocketListener) -> None:
        """The thread: hand out until the shelf is empty, or stop() closes the listener."""
        try:
            while self._is_needed(listener):
                try:
                    session = listener._reception.next(None)
                except OSError as error:
                    if listener._reception.closed:
                        return
                    # No descriptor is left for another connection: giving one away makes room.
                    util.sub_warning("cannot accept a borrower: %s", error)
                    time.sleep(_PAUSE)
                except Exception as error:
                    util.sub_warning("somebody who is not to have descriptors asked for one: %r", error)
                else:
                    assert session is not None
                    with session.sock:
                        self._hand_out(session)
        finally:
            listener.close()

    def _is_needed(self, listener: SocketListener) -> bool:
        """Whether anything is lent. If not the shelf is closed under the same lock: put() opens the next one."""
        with self._lock:
            if self._listener is listener and not self._lent:
                self._listener = self._thread = None
            return self._listener is listener

    def _hand_out(self, session: Session) -> None:
        try:
            ticket, _ = reduction.ForkingPickler.loads(session.result)
            with self._lock:
                fd = self._lent.pop(ticket)
        except Exception as error:  # who knows the key may still ask for nonsense, or twice
            util.sub_warning("cannot lend a descriptor: %r", error)
            return
        try:
            session.sock.setblocking(False)  # a borrower who does not read waits for nothing of ours
            reduction.sendfds(session.sock, [fd])
        except OSError as error:
            util.sub_warning("the borrower of a descriptor is gone: %s", error)
        finally:
            os.close(fd)

    def stop(self, timeout: float | None) -> None:
        """Close the shelf: what the function of that name does."""
        with self._lock:
            listener, thread, lent = self._listener, self._thread, self._lent
            self._listener = self._thread = None
            self._lent = {}
        if listener is not None and thread is not None:
            listener.close()
            thread.join(timeout)
            if thread.is_alive():
                util.sub_warning("the thread that lends descriptors has not ended within %s seconds", timeout)
        for fd in lent.values():
            os.close(fd)


def _steps() -> Steps:
    """A borrower proves that it knows the key that this process has by now, then sends its ticket."""
    yield from server_steps(process.current_process().authkey)
    return (yield None)


_shelf = _Shelf()


def stop(timeout: float | None = None) -> None:
    """Stop lending: what was not taken yet is closed. The next DupFd begins anew.

    Args:
        timeout: seconds to wait for the thread to end; None for ever.
    """
    _shelf.stop(timeout)
