# SPDX-License-Identifier: PSF-2.0
"""The default context for modules below context.py, which fills these hooks when it is imported."""
from __future__ import annotations

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["get_context", "forced", "install"]

_get: Callable[[], Any] | None = None

#: A start method that replaces whatever was chosen before: a spawned child goes on with its parent's. context.py takes
#: it, and puts None here, when somebody asks for a context; most children never do.
forced: str | None = None


def get_context() -> Any:
    """The context that module-level functions use: the one of the chosen, else of the default start method."""
    assert _get is not None, "context.py fills this when the package is imported"
    return _get()


def install(get: Callable[[], Any]) -> None:
    """Called once by context.py."""
    global _get
    _get = get
