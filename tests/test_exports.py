# SPDX-License-Identifier: PSF-2.0
"""Our surface beside that of the standard library's package in the running version."""

from __future__ import annotations

import ast
import importlib
import inspect
import multiprocessing
import operator
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "Lib" / "cmultiprocessing"
ELSEWHERE = ("popen_spawn_win32",)  # cannot be imported on Linux; the file must be there all the same

#: Modules whose classes are whole. Grows with the library.
COMPLETE = (
    "connection", "context", "dummy", "dummy.connection", "heap", "process", "queues", "reduction", "resource_sharer",
    "sharedctypes", "synchronize",
)  # fmt: skip


def submodules(package: ModuleType) -> list[str]:
    """Names below a package, 'dummy.connection' and the like included."""
    prefix = package.__name__ + "."
    return [info.name.removeprefix(prefix) for info in pkgutil.walk_packages(package.__path__, prefix)]


STANDARD = sorted(name for name in submodules(multiprocessing) if name not in ELSEWHERE)


def pair(name: str) -> tuple[ModuleType, ModuleType]:
    """A module of the standard library and ours of that name."""
    dotted = f".{name}" if name else ""
    return importlib.import_module(f"multiprocessing{dotted}"), importlib.import_module(f"cmultiprocessing{dotted}")


def test_the_standard_library_was_found() -> None:
    assert {"queues", "synchronize", "dummy.connection"} <= set(STANDARD)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_modules_of_other_systems_are_files(name: str) -> None:
    """People list the folder and import what is there; CPython's own test removes this name from such a list."""
    (package,) = importlib.import_module("cmultiprocessing").__path__
    assert (Path(package) / f"{name}.py").is_file()


@pytest.mark.parametrize("name", ["", *STANDARD])
def test_exported_names_are_there(name: str) -> None:
    theirs, ours = pair(name)
    exported = set(getattr(theirs, "__all__", ()))
    assert exported - set(ours.__all__) == set()
    assert [word for word in sorted(exported) if not hasattr(ours, word)] == []


@pytest.mark.parametrize("name", ["", *STANDARD])
def test_all_is_truthful(name: str) -> None:
    _, ours = pair(name)
    assert len(ours.__all__) == len(set(ours.__all__))
    assert [word for word in ours.__all__ if not hasattr(ours, word)] == []


def test_package_exports_every_public_name() -> None:
    """As CPython's own test asks: a public thing that has no other home is in `__all__`."""
    ours = importlib.import_module("cmultiprocessing")
    public = {
        word
        for word, value in vars(ours).items()
        if not word.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", ours.__name__) == ours.__name__
    }
    assert public - set(ours.__all__) - {"SUBDEBUG", "SUBWARNING", "annotations"} == set()


@pytest.mark.parametrize(
    "name", ["process", "util", "spawn", "context", "popen_fork", "popen_spawn_posix"]
)
def test_private_names_are_there(name: str) -> None:
    """Other libraries use them; what a module merely imports is its own business."""
    theirs, ours = pair(name)
    wanted = {word for word, value in vars(theirs).items() if not isinstance(value, ModuleType)}
    assert [word for word in sorted(wanted) if not hasattr(ours, word)] == []


def exported_classes() -> list[tuple[str, str]]:
    return [
        (name, word)
        for name in COMPLETE
        for word, value in vars(importlib.import_module(f"multiprocessing.{name}")).items()
        if inspect.isclass(value) and value.__module__ == f"multiprocessing.{name}" and not word.startswith("_")
    ]


@pytest.mark.parametrize(("name", "word"), exported_classes(), ids=lambda value: value)
def test_public_attributes_of_classes_are_there(name: str, word: str) -> None:
    theirs, ours = pair(name)
    wanted = {attribute for attribute in dir(getattr(theirs, word)) if not attribute.startswith("_")}
    assert wanted - set(dir(getattr(ours, word))) == set()


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    """Those that may be given by name."""
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name != "self"
    }


def exported_callables() -> list[tuple[str, str]]:
    """Functions, classes and public methods in `__all__` of the standard library's modules."""
    found = []
    for name in ["", *STANDARD]:
        theirs, _ = pair(name)
        for word in getattr(theirs, "__all__", ()):
            if name == "shared_memory" or word == "SharedMemoryManager":
                continue  # not there yet
            thing = getattr(theirs, word)
            if callable(thing) and not word.startswith("_"):
                found.append((name, word))
            if inspect.isclass(thing):
                methods = [method for method in dir(thing) if not method.startswith("_")]
                found += [(name, f"{word}.{method}") for method in methods if callable(getattr(thing, method))]
    return found


@pytest.mark.parametrize(("name", "path"), exported_callables(), ids=lambda value: value)
def test_parameters_have_the_names_of_the_standard_librarys(name: str, path: str) -> None:
    """Programs give arguments by name; ours may have more, and demand none that theirs does not."""
    theirs, ours = (operator.attrgetter(path)(module) for module in pair(name))
    try:
        wanted = parameters(theirs)
    except ValueError:
        return  # a built-in exception
    there = parameters(ours)
    assert wanted.keys() - there.keys() == set()
    places = [word for word in there if word in wanted]
    assert places == list(wanted)
    demanded = {word for word, parameter in there.items() if parameter.default is parameter.empty}
    everything = inspect.signature(theirs).parameters
    assert demanded - {word for word, parameter in everything.items() if parameter.default is parameter.empty} == set()


def test_stub_and_extension_have_the_same_names() -> None:
    extension = importlib.import_module("cmultiprocessing._cmultiprocessing")
    tree = ast.parse((PACKAGE / "_cmultiprocessing.pyi").read_text())
    described = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    described |= {ast.unparse(node.target) for node in tree.body if isinstance(node, ast.AnnAssign)}
    there = {word for word in vars(extension) if not word.startswith("__")}
    assert {word for word in described if not word.startswith("_")} - there == set()
    assert there - described == set()


def test_submodules_need_no_import() -> None:
    """Programs rely on `import multiprocessing` having loaded what the standard library's modules import."""
    code = (
        "import cmultiprocessing as mp, sys\n"
        "print(mp.util.Finalize, mp.resource_tracker.register, mp.queues.Queue)\n"
        "print(hasattr(mp, 'nothing'), 'cmultiprocessing.managers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[1] == "False False"
