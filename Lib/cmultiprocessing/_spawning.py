# SPDX-License-Identifier: PSF-2.0
"""What this thread is starting right now, and how a descriptor is lent to a process that is not being started."""
from __future__ import annotations

import sys
from _thread import _local  # threading.local without importing threading

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["get_spawning_popen", "set_spawning_popen", "assert_spawning", "standard_module"]

_tls = _local()

#: Filled by context.py: gives an object with detach(), for a descriptor pickled outside of a start.
lend_descriptor: Callable[[int], Any] | None = None


def get_spawning_popen() -> Any:
    """The Popen whose start data this thread is pickling, or None. Since 3.4; used by reducers of user types."""
    return getattr(_tls, "spawning_popen", None)


def set_spawning_popen(popen: Any) -> None:
    """Set what `get_spawning_popen` returns in this thread.

    Args:
        popen: the Popen that is being launched, None when it is done.
    """
    _tls.spawning_popen = popen
    context = standard_module("context")
    if context is not None:
        context.set_spawning_popen(popen)


def standard_module(name: str) -> Any:
    """The standard library's `multiprocessing.<name>` where the program has loaded it, None else.

    Not every program gives both names to this package: concurrent.futures, for one, has a queue whose class is the
    standard library's, and hands it to the processes of whatever context it was given.

    Args:
        name: of a submodule.
    """
    module = sys.modules.get(f"multiprocessing.{name}")
    return None if module is sys.modules.get(f"{__package__}.{name}") else module


def assert_spawning(obj: object) -> None:
    """Refuse to pickle `obj` unless it is part of the start data of a process.

    Args:
        obj: what is being pickled; only its type is named in the message.

    Raises:
        RuntimeError: this thread is not starting a process.
    """
    if get_spawning_popen() is None:
        raise RuntimeError(
            f"{type(obj).__name__} objects can only be sent to a process while it is being started, "
            "as arguments of Process: they are shared by inheritance"
        )
