# SPDX-License-Identifier: PSF-2.0
"""Start a process by asking the fork server, and follow it through what the server reports."""
from __future__ import annotations

import os
import signal
from time import monotonic

from . import _cmultiprocessing, _leash, _requests, forkserver, popen_fork, process, resource_tracker
from .popen_spawn_posix import write_start_data

__all__ = ["Popen"]


class _DupFd:
    """A descriptor that travels with the request; here is its place in the list."""

    def __init__(self, ind: int) -> None:
        self.ind = ind

    def detach(self) -> int:
        """The descriptor, now the caller's."""
        fds = forkserver.get_inherited_fds()
        assert fds is not None, "made for a child of the fork server"
        return fds[self.ind]


# Seconds that the server takes at most to say how a child was killed that is dead already, unless it is stopped.
_REAPING_TIME = 0.1


class Popen(popen_fork.Popen):
    """A child of the fork server.

    The sentinel is a pidfd, as elsewhere, so that the end is seen at once. The exit code comes through a pipe: from the
    child, which says it last of all; or, where the child was killed, from the server that reaps it.
    """

    method = "forkserver"
    DupFd = _DupFd
    _status_r = -1
    _status_owner: popen_fork.OwnedDescriptor | None = None

    def __init__(self, process_obj: process.BaseProcess) -> None:
        self._fds: list[int] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Send `fd` along, and say at which place."""
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj: process.BaseProcess) -> None:
        data = forkserver.get_preparation_data(process_obj.name)
        _cmultiprocessing.family_start()
        lent: list[int] = []
        try:
            family_fd, ticket = _cmultiprocessing.family_reserve()
            lent.append(family_fd)
            start_data, preparation_size = write_start_data(self, process_obj, data, ticket, _requests.INLINE_LIMIT)
            if isinstance(start_data, int):
                lent.append(start_data)
            leash_end, self._leash_end = _leash.new()
            lent.append(leash_end)
            request = _requests.Request(
                start_data,
                preparation_size=preparation_size,
                name=process_obj.name,
                leash_fd=leash_end,
                family_fd=family_fd,
                ticket=ticket,
                traits=_cmultiprocessing.get_traits(),
                leashed=process_obj._needs_leash(),
                tracker_fd=resource_tracker.running_fd(),
                fds=self._fds,
            )
            self.pid, code, self._status_r = forkserver.start_child(request)
            self._status_owner = popen_fork.OwnedDescriptor(self._status_r)
            self._ending = popen_fork.Ending(self.pid, self._leash_end, self._status_r, code)
            if code is None:
                self._watch()
            else:
                self._watch_the_dead()
        except BaseException:
            _leash.drop(self._leash_end)
            raise
        finally:
            for fd in lent:
                os.close(fd)

    def _watch(self) -> None:
        """Follow the child that has said its pid; one that cannot be followed is ended."""
        try:
            self.sentinel = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._watch_the_dead()
            return
        except BaseException:
            os.kill(self.pid, signal.SIGKILL)
            raise
        self.finalizer = popen_fork.OwnedDescriptor(self.sentinel)
        # The server says that a child has ended before it reaps it: if it did not yet, the pidfd is that child's.
        self._ending.listen(0)
        if self._ending.over:
            self.finalizer()
            self._watch_the_dead()

    def _watch_the_dead(self) -> None:
        """It was reaped before anybody could follow it. The pipe for its exit code ends, and so gets ready for good."""
        self._ending.listen(0)
        self._ending.give_up()  # what is not known by now: its server died first
        self.sentinel = self._status_r
        self.finalizer = self._status_owner

    def _is_ready(self, timeout: float | None) -> bool:
        """Whether the child ends within `timeout` seconds, and its exit code is known."""
        ending = self._ending
        if ending.over:
            return True
        begin = monotonic()
        if not super()._is_ready(timeout):
            return False
        if ending.listen(0):
            return True
        # Killed: the server says how, and may not have come to it yet.
        return ending.listen(None if timeout is None else max(timeout - (monotonic() - begin), _REAPING_TIME))

    def _reap(self) -> None:
        if self._is_ready(0):
            code = self._ending.told
            assert code is not None, "it is ready"
            self._ended(code)

    def close(self) -> None:
        """Close the sentinel and the pipe."""
        super().close()
        if self._status_owner is not None:
            self._status_owner()
