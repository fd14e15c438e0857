# SPDX-License-Identifier: PSF-2.0
"""Contexts and the choice of the start method."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cmultiprocessing
import pytest


@pytest.fixture(autouse=True)
def start_method_as_before(mp: ModuleType) -> Any:
    before = mp.get_start_method(allow_none=True)
    yield
    mp.set_start_method(before, force=True)


def test_all_start_methods(mp: ModuleType) -> None:
    methods = mp.get_all_start_methods()
    assert sorted(methods) == ["fork", "forkserver", "spawn"]
    assert methods[0] == ("forkserver" if sys.version_info >= (3, 14) else "fork")


def test_default_is_settled_by_asking(mp: ModuleType) -> None:
    mp.set_start_method(None, force=True)
    assert mp.get_start_method(allow_none=True) is None
    assert mp.get_start_method() == mp.get_all_start_methods()[0]
    with pytest.raises(RuntimeError, match="context has already been set"):
        mp.set_start_method("spawn")


def test_choice(mp: ModuleType, start_method: str) -> None:
    mp.set_start_method(start_method, force=True)
    assert mp.get_start_method() == start_method
    assert mp.get_context() is mp.get_context(start_method)
    assert type(mp.get_context()).__name__.lower() == f"{start_method}context"
    with pytest.raises(ValueError, match="cannot find context for 'fork bomb'"):
        mp.set_start_method("fork bomb", force=True)
    with pytest.raises(ValueError, match="concrete context"):
        mp.get_context(start_method).set_start_method("fork")


def send_start_method(connection: Any) -> None:
    import cmultiprocessing

    connection.send(cmultiprocessing.get_start_method())


def test_a_child_goes_on_with_its_parents_method(mp: ModuleType, ctx: Any, start_method: str) -> None:
    mp.set_start_method("spawn", force=True)
    receiver, sender = ctx.Pipe(False)
    with receiver, sender:
        process = ctx.Process(target=send_start_method, args=(sender,))
        process.start()
        assert receiver.recv() == start_method
        process.join()


def test_default_process_uses_the_chosen_method(mp: ModuleType, start_method: str) -> None:
    mp.set_start_method(start_method, force=True)
    process = mp.Process(target=os.getpid)
    process.start()
    assert process._popen.method == start_method
    process.join()


def test_cpu_count(mp: ModuleType, monkeypatch: Any) -> None:
    assert mp.cpu_count() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    with pytest.raises(NotImplementedError):
        mp.cpu_count()


def test_exceptions_are_everywhere_the_same(mp: ModuleType) -> None:
    ctx = mp.get_context("spawn")
    for name in ("ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"):
        cls = getattr(mp, name)
        assert cls is getattr(ctx, name) is getattr(mp.context, name)
        assert cls.__module__ == "cmultiprocessing.context"
        assert issubclass(cls, mp.ProcessError)


def test_who_may_be_pickled_while_a_process_is_started(both: ModuleType) -> None:
    """Names that types of other libraries import from here, for their __getstate__()."""
    from importlib import import_module

    context = import_module(f"{both.__name__}.context")
    assert context.get_spawning_popen() is None
    with pytest.raises(RuntimeError):
        context.assert_spawning(both)
    context.set_spawning_popen(popen := object())
    try:
        context.assert_spawning(both)
        assert context.get_spawning_popen() is popen
    finally:
        context.set_spawning_popen(None)


def test_preload_is_checked(mp: ModuleType) -> None:
    with pytest.raises(TypeError, match="module_names must be a list of strings"):
        mp.set_forkserver_preload([1, 2])


def test_reducer_can_be_replaced(mp: ModuleType) -> None:
    original = mp.reducer
    assert original.__name__ == "cmultiprocessing.reduction"
    ctx = mp.get_context("fork")
    try:
        ctx.reducer = replacement = object()
        assert mp.context._default_context.reducer is replacement
    finally:
        ctx.reducer = original


def test_importing_the_package_imports_little() -> None:
    """The cost of the import is that of what it drags in."""
    code = "import sys, cmultiprocessing; print(*sorted(name for name in sys.modules if name.startswith('cmul')))"
    heavy = "; print([n for n in ('typing', 'socket', 'pickle', 'threading', 'signal') if n in sys.modules])"
    library = str(Path(cmultiprocessing.__file__).resolve().parent.parent)  # -S hides where it is installed
    done = subprocess.run(
        [sys.executable, "-S", "-c", code + heavy],
        env={**os.environ, "PYTHONPATH": library}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names, dragged = done.stdout.splitlines()
    assert "cmultiprocessing._cmultiprocessing" not in names.split()
    assert dragged == "[]"
