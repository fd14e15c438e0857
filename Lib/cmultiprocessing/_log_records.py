# SPDX-License-Identifier: PSF-2.0
"""`%(processName)s` of log records, right in children of this package.

`logging` asks a module named multiprocessing, and knows no better than MainProcess where there is none. So the factory
of its records is wrapped: now, or when `logging` is imported, which a process that does not log is not made to do.
"""
from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["watch"]

_MAIN = "MainProcess"  # what logging writes where it does not know

_watching = False


def watch(name: Callable[[], str]) -> None:
    """Have records that name the main process ask `name`. Once per process; forked children inherit it.

    Args:
        name: returns the name of the current process.
    """
    global _watching
    if _watching:
        return
    _watching = True
    module = sys.modules.get("logging")
    if module is not None and hasattr(module, "setLogRecordFactory"):
        _wrap_factory(module, name)
    else:
        sys.meta_path.insert(0, _Finder(name))


def _wrap_factory(logging: Any, name: Callable[[], str]) -> None:
    make = logging.getLogRecordFactory()

    def make_record(*args: Any, **kwargs: Any) -> Any:
        record = make(*args, **kwargs)
        if record.processName == _MAIN:
            record.processName = name()
        return record

    logging.setLogRecordFactory(make_record)


class _Finder:
    """Notices the import of `logging`, and finds nothing itself.

    Args:
        name: see `watch`.
    """

    def __init__(self, name: Callable[[], str]) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the others find; for `logging` its loader wraps the factory afterwards."""
        if fullname != "logging":
            return None
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        for finder in list(sys.meta_path):
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                found: ModuleSpec = spec
                found.loader = _Loader(spec.loader, self._name)  # type: ignore[assignment]
                return found
        return None


class _Loader:
    """The loader of `logging`, and what is to be done when it is loaded.

    Args:
        loader: the one that was found; it stays the module's.
        name: see `watch`.
    """

    def __init__(self, loader: Any, name: Callable[[], str]) -> None:
        self._loader = loader
        self._name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run it, then wrap its factory."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _wrap_factory(module, self._name)
