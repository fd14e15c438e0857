# SPDX-License-Identifier: PSF-2.0
"""Start a process by asking the fork server, and follow it through what the server reports."""
from __future__ import annotations

import os

from . import _cmultiprocessing, _leash, forkserver, popen_fork, process, resource_tracker, spawn
from .popen_spawn_posix import write_start_data

__all__ = ["Popen"]


class _DupFd:
    """A descriptor that travels with the request; here is its place in the list."""

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        """The descriptor, now the caller's."""
        fds = forkserver.get_inherited_fds()
        assert fds is not None, "made for a child of the fork server"
        return fds[self.index]


class Popen(popen_fork.Popen):
    """A child of the fork server. The sentinel is the pipe through which its exit code comes."""

    method = "forkserver"
    DupFd = _DupFd

    def __init__(self, process_obj: process.BaseProcess) -> None:
        self._fds: list[int] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Send `fd` along, and say at which place."""
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj: process.BaseProcess) -> None:
        data = spawn.get_preparation_data(process_obj.name)
        # The server has those of the day it was started.
        data["environ"] = spawn.get_environment()
        data["umask"] = spawn.get_umask()
        _cmultiprocessing.family_start()
        lent: list[int] = []
        try:
            family_fd, ticket = _cmultiprocessing.family_reserve()
            lent.append(family_fd)
            data_fd = write_start_data(self, process_obj, data, ticket)
            lent.append(data_fd)
            leash_end, self._leash_end = _leash.new()
            lent.append(leash_end)
            request = forkserver.Request(
                data_fd=data_fd,
                leash_fd=leash_end,
                family_fd=family_fd,
                ticket=ticket,
                leashed=process_obj._needs_leash(),
                tracker_fd=resource_tracker.running_fd(),
                fds=self._fds,
            )
            self.pid, self.returncode, self.sentinel = forkserver.start_child(request)
            self.finalizer = popen_fork.OwnedDescriptor(self.sentinel)
        except BaseException:
            _leash.drop(self._leash_end)
            raise
        finally:
            for fd in lent:
                os.close(fd)

    def _reap(self) -> None:
        code = forkserver.read_exit_code(self.sentinel)
        if code is not None:
            self._ended(code)
