# SPDX-License-Identifier: PSF-2.0
"""Objects that live in a server process. Not implemented yet, but types can be registered."""
from __future__ import annotations

from ._later import missing, missing_class

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, ClassVar

__all__ = ["BaseManager", "SyncManager", "BaseProxy", "Token", "SharedMemoryManager"]


class RemoteError(Exception):
    """An exception in the server that has no better stand-in here; its text is the server's traceback."""


class BaseManager:
    """A manager without types of its own. It cannot be started yet."""

    _registry: ClassVar[dict[str, tuple[Any, ...]]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise missing(__name__, type(self).__name__)

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,
        proxytype: Any = None,
        exposed: Sequence[str] | None = None,
        method_to_typeid: Mapping[str, str] | None = None,
        create_method: bool = True,
    ) -> None:
        """Note a type that the manager's server is to offer.

        Args:
            typeid: its name.
            callable: makes the object in the server.
            proxytype: what clients use in its place.
            exposed: names of the methods that proxies may call.
            method_to_typeid: which methods return proxies, and of which type.
            create_method: whether the manager gets a method named typeid.
        """
        if "_registry" not in cls.__dict__:
            cls._registry = dict(cls._registry)
        cls._registry[typeid] = (callable, exposed, method_to_typeid, proxytype)
        if create_method:
            setattr(cls, typeid, _maker(typeid))


def _maker(typeid: str) -> Callable[..., Any]:
    def make(_self: BaseManager, *_args: Any, **_kwargs: Any) -> Any:
        raise missing(__name__, f"BaseManager.{typeid}")

    make.__name__ = typeid
    return make


class SyncManager(BaseManager):
    """A manager of the common types. It cannot be started yet."""

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Start the server. Not implemented yet."""
        raise missing(__name__, "SyncManager.start")


class SharedMemoryManager(BaseManager):
    """A manager of shared memory. It cannot be started yet."""


BaseProxy = missing_class(__name__, "BaseProxy")
Token = missing_class(__name__, "Token")
