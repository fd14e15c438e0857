# SPDX-License-Identifier: PSF-2.0
"""The tracker of named resources. Only `SharedMemory(name=...)` needs one; nothing else here has a name.

The tracker itself comes together with SharedMemory: until then the calls that would start it say so.
"""
from __future__ import annotations

from ._later import missing

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["ensure_running", "register", "unregister"]


def _unused(name: str) -> None:
    """A resource that needs no cleaning."""


#: How a resource of each kind is destroyed; programs take kinds out, or put their own in.
_CLEANUP_FUNCS: dict[str, Callable[[str], object]] = {"noop": _unused}


class ResourceTracker:
    """This process's side of the tracker."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._pid: int | None = None
        self._exitcode: int | None = None

    def getfd(self) -> int:
        """The pipe to the tracker. Not implemented yet."""
        raise missing(__name__, "ResourceTracker.getfd")

    def ensure_running(self) -> None:
        """Start the tracker unless it runs. Not implemented yet."""
        raise missing(__name__, "ResourceTracker.ensure_running")

    def register(self, name: str, rtype: str) -> None:
        """Have `name` destroyed when the program ends. Not implemented yet."""
        raise missing(__name__, "ResourceTracker.register")

    def unregister(self, name: str, rtype: str) -> None:
        """It was destroyed, or is not to be. Not implemented yet."""
        raise missing(__name__, "ResourceTracker.unregister")

    def _stop(self) -> None:
        """End the tracker of this process: there is none as long as nothing can start it."""


_resource_tracker = ResourceTracker()
register, unregister = _resource_tracker.register, _resource_tracker.unregister
ensure_running, getfd = _resource_tracker.ensure_running, _resource_tracker.getfd


def running_fd() -> int | None:
    """The pipe to the tracker, None if none was needed so far."""
    return _resource_tracker._fd


def main(fd: int) -> NoReturn:
    """The tracker's life. Not implemented yet."""
    raise missing(__name__, "main")
