# SPDX-License-Identifier: PSF-2.0
"""Let `multiprocessing` mean this package in the whole process, for programs that are not to be changed.

    python -m cmultiprocessing prog.py

Both names give the same module objects, so pickles, isinstance checks and patches work in both directions. Children
learn from their start data that the alias is on.
"""
from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    import importlib.machinery
    from typing import Any

__all__ = ["install", "is_installed"]

_NAME = "multiprocessing"
_OURS = __name__.rpartition(".")[0]


class _Finder:
    """Import hook: `multiprocessing.x` is the module object of this package's `x`."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        """The alias of `name`, None for every other module."""
        if name != _NAME and not name.startswith(_NAME + "."):
            return None
        import importlib.machinery

        return importlib.machinery.ModuleSpec(name, self, origin=_OURS + name[len(_NAME) :])  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Our module itself."""
        import importlib

        assert spec.origin is not None
        try:
            module = importlib.import_module(spec.origin)
        except ModuleNotFoundError as error:
            if error.name != spec.origin:
                raise
            raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name) from error
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; importlib put the alias's spec on it, which would give pickles the wrong name."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def is_installed() -> bool:
    """Whether `multiprocessing` means this package in this process."""
    return sys.modules.get(_NAME) is sys.modules[_OURS]


def install() -> None:
    """Make `multiprocessing` mean this package from now on. What was imported before keeps what it has."""
    if is_installed():
        return
    for name in [name for name in sys.modules if name == _NAME or name.startswith(_NAME + ".")]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Finder())
    __import__(_NAME)
