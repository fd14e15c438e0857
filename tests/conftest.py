# SPDX-License-Identifier: PSF-2.0
"""The net below every test, and the fixtures that say which library is tested and how it starts processes.

See README.md in this folder for how to use them.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from tests.support import guardian, leaks
from tests.support.scene import LONG, Crew, Notes

START_METHODS = ("fork", "spawn", "forkserver")

_telephone = pytest.StashKey[guardian.Telephone]()
_running: str | None = None  # the test that the watchdog guards
_runner = 0  # pid of pytest itself


# --- the watchdog --------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the net."""
    group = parser.getgroup("cmultiprocessing")
    group.addoption("--watchdog", type=float, default=60.0, help="seconds that a test may take (60)")
    group.addoption("--watchdog-grace", type=float, default=10.0, help="seconds from its failure to its death (10)")
    group.addoption("--leak-patience", type=float, default=3.0, help="seconds that what is ending may take (3)")
    group.addoption("--stress", action="store_true", help="run the tests marked stress too")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put the guardian above this process. Output is not captured here, so stderr is the real one."""
    if config.getoption("stress"):
        os.environ[LONG] = "1"
    config.stash[_telephone] = guardian.stand_guard()
    leaks.guarded = True
    # Below faulthandler, which chains to it: first the tracebacks, then the failure.
    signal.signal(guardian.HANG_SIGNAL, _on_hang)
    faulthandler.register(guardian.HANG_SIGNAL, file=os.dup(sys.__stderr__.fileno()), all_threads=True, chain=True)


def _on_hang(signum: int, frame: FrameType | None) -> None:
    """Fail the test that hangs; forked children inherit this handler and have nothing to fail."""
    if _running is not None and os.getpid() == _runner:
        pytest.fail(f"{_running} took longer than its watchdog allows (tracebacks on stderr)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Arm the watchdog from the first fixture to the last."""
    global _running, _runner
    marker = item.get_closest_marker("watchdog")
    seconds = marker.args[0] if marker else item.config.getoption("watchdog")
    telephone = item.config.stash[_telephone]
    _running, _runner = item.nodeid, os.getpid()
    telephone.arm(item.nodeid, seconds, item.config.getoption("watchdog_grace"))
    try:
        return (yield)
    finally:
        _running = None
        telephone.disarm()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the stress tests unless they are asked for."""
    if config.getoption("stress"):
        return
    left_out = [item for item in items if item.get_closest_marker("stress")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """What pytest keeps of thousands of tests is not searched for garbage after each of them: 60 ms every time."""
    gc.collect()
    gc.freeze()


# --- leaks ---------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, zombie, descriptor, thread or name in /dev/shm behind.

    Fixtures of wider scope are set up before this one, the test's own after it.
    """
    before = leaks.everything()
    yield
    allowed = {kind for marker in request.node.iter_markers("leaks") for kind in marker.args}
    if allowed - set(leaks.KINDS):
        pytest.fail(f"unknown kinds of leak: {sorted(allowed - set(leaks.KINDS))}")
    left = leaks.wait_for_leaks(before, request.config.getoption("leak_patience"))
    leaks.clean_up(left)
    reported = [leak for leak in left if leak.kind not in allowed]
    if reported:
        pytest.fail("left behind: " + "; ".join(f"{leak.kind} {leak.text}" for leak in reported), pytrace=False)


# --- which library, which start method -----------------------------------------------------------


@pytest.fixture(scope="session")
def ours() -> ModuleType:
    """The package, with the family memory made: it lives as long as this process."""
    package = importlib.import_module("cmultiprocessing")
    importlib.import_module("cmultiprocessing._cmultiprocessing").family_start()
    return package


@pytest.fixture(scope="session")
def stdlib() -> ModuleType:
    """The standard library's package, with its resource tracker running: that stays until this process ends."""
    package = importlib.import_module("multiprocessing")
    importlib.import_module("multiprocessing.resource_tracker").ensure_running()
    return package


@pytest.fixture
def mp(ours: ModuleType) -> Iterator[ModuleType]:
    """The package under test."""
    yield ours
    stop_fork_server(ours)


@pytest.fixture(params=START_METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    """Each start method in turn."""
    return str(request.param)


@pytest.fixture
def ctx(mp: ModuleType, start_method: str) -> Any:
    """A context of the package for each start method."""
    return mp.get_context(start_method)


@pytest.fixture(params=["stdlib", "ours"])
def both(request: pytest.FixtureRequest, stdlib: ModuleType, ours: ModuleType) -> Iterator[ModuleType]:
    """The standard library's package and ours in turn: behaviour that both must show, written once.

    Both are arguments so that what they keep for good is there before the leaks are counted.
    """
    package = stdlib if request.param == "stdlib" else ours
    yield package
    stop_fork_server(package)


@pytest.fixture
def both_ctx(both: ModuleType, start_method: str) -> Any:
    """A context of either package for each start method."""
    return both.get_context(start_method)


# --- what tests of faults are staged with (take them after `ctx`, so that they end before its fork server) ---------


@pytest.fixture
def crew() -> Iterator[Crew]:
    """Child processes; whoever is left is killed."""
    members = Crew()
    yield members
    members.dismiss()


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """Messages between processes that need nothing of the library."""
    return Notes(tmp_path)


def stop_fork_server(package: ModuleType) -> None:
    """End the fork server if a test has started one: it is meant to stay, and would look like a leak."""
    module = sys.modules.get(f"{package.__name__}.forkserver")
    if module is not None:
        module._forkserver._stop()
