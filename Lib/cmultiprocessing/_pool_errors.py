# SPDX-License-Identifier: PSF-2.0
"""What a pool raises where the standard library's waits for ever; `pool` and the package re-export it."""
from __future__ import annotations

from ._errors import ProcessError

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any

__all__ = ["PoolTerminated", "RemoteTaskError", "WorkerLostError"]


class PoolTerminated(ProcessError):
    """The pool was terminated before the result was there. Not in the standard library, where the caller waits on."""


class RemoteTaskError(ProcessError):
    """Stands for an exception, or a result, of a pool's worker that cannot be unpickled in this process.

    Args:
        message: what it was, and why it could not be unpickled.

    Its `__cause__` is the worker's traceback. Not in the standard library, where the pool hangs.
    """


class WorkerLostError(ProcessError):
    """A worker of a pool ended while it ran this item; no other item is concerned.

    Args:
        message: all that is known, as a sentence.

    Attributes:
        pid: process id of the worker.
        exitcode: its exit code; minus the signal that killed it.
        signal: that signal, None where it was not killed by one.
        index: place of the item in the input of `map` and the like, 0 for `apply`.
    Not in the standard library, where the caller waits on.
    """

    pid: int | None = None
    exitcode: int | None = None
    index: int | None = None

    @property
    def signal(self) -> int | None:
        """The signal that killed the worker, None where it was another end."""
        return -self.exitcode if self.exitcode is not None and self.exitcode < 0 else None

    @classmethod
    def of(cls, process: Any, what: str, index: int | None) -> WorkerLostError:
        """Describe the end of a worker.

        Args:
            process: its process object; it has ended.
            what: what it was doing.
            index: of the item, None where there was none.
        """
        code = process.exitcode
        end = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        error = cls(f"pool worker {process.name} (pid {process.pid}) {end} {what}")
        error.pid, error.exitcode, error.index = process.pid, code, index
        return error


# Users see these classes, and pickle them, as names of the pool module.
for _class in (PoolTerminated, RemoteTaskError, WorkerLostError):
    _class.__module__ = f"{__package__}.pool"
del _class
