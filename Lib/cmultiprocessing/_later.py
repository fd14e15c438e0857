# SPDX-License-Identifier: PSF-2.0
"""Names whose implementation is yet to come: they can be imported, and say so when they are used."""
from __future__ import annotations

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any

__all__ = ["missing", "missing_class"]


def missing(module: str, name: str) -> NotImplementedError:
    """The error that names what is missing.

    Args:
        module: full name of its module.
        name: its name there.
    """
    return NotImplementedError(f"{module}.{name} is not implemented yet")


def missing_class(module: str, name: str) -> Any:
    """A class that can be subclassed, and raises `missing` when an object of it is made."""

    def refuse(_self: object, *_args: Any, **_kwargs: Any) -> None:
        raise missing(module, name)

    return type(name, (), {"__init__": refuse, "__module__": module, "__doc__": "Not implemented yet."})
