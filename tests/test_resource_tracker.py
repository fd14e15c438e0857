# SPDX-License-Identifier: PSF-2.0
"""The tracker of named resources: one process, started by the first name, that cleans up after the program's death."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.processes import wait_until
from tests.support.scene import PATIENCE

# Kinds are looked up in the tracker's own process: a program that has kinds of its own imports them there.
PROGRAM = """
import os, sys
from cmultiprocessing import resource_tracker
{body}
"""


def run(body: str, *args: str) -> subprocess.CompletedProcess[str]:
    code = PROGRAM.format(body=textwrap.dedent(body))
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def tracker(mp: ModuleType) -> Iterator[Any]:
    """A tracker of the test's own, stopped afterwards."""
    tracker = mp.resource_tracker.ResourceTracker()
    yield tracker
    tracker._stop()


def test_nothing_starts_it_unasked() -> None:
    body = """
    import cmultiprocessing as mp
    q, lock = mp.Queue(), mp.Lock()
    p = mp.get_context("spawn").Process(target=print)
    p.start(); p.join()
    print(resource_tracker._resource_tracker._pid, p.exitcode)
    """
    done = run(f"if __name__ == '__main__':\n{textwrap.indent(textwrap.dedent(body), '    ')}")
    assert done.stdout.split() == ["None", "0"], done
    assert done.stderr == ""


@pytest.mark.parametrize("cleaned", [True, False])
def test_exit_code_tells_whether_something_was_left(tracker: Any, capfd: Any, cleaned: bool) -> None:
    tracker.register("somename", "noop")
    assert tracker._check_alive()
    assert tracker._exitcode is None
    if cleaned:
        tracker.unregister("somename", "noop")
        tracker.unregister("somename", "noop")  # once too often: no traceback
    tracker._stop()
    assert tracker._exitcode == (0 if cleaned else 1)
    err = capfd.readouterr().err
    assert ("1 leaked noop objects to clean up at shutdown" in err) is not cleaned


def test_a_tracker_never_needed_has_left_nothing(tracker: Any) -> None:
    tracker._stop()
    assert tracker._exitcode == 0


@pytest.mark.parametrize("name", ["a" * 512, "one\ntwo", "\u00e9"])
def test_names_that_do_not_fit_a_line(tracker: Any, name: str) -> None:
    with pytest.raises(ValueError):
        tracker.register(name, "noop")
    assert tracker._pid is None, "nothing was started for it"


def test_names_with_colons(tracker: Any) -> None:
    tracker.register("a:b:c", "noop")
    tracker.unregister("a:b:c", "noop")
    tracker._stop()
    assert tracker._exitcode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_leave_it_alone(tracker: Any, number: int) -> None:
    tracker.ensure_running()
    os.kill(tracker._pid, number)
    tracker.register("name", "noop")
    tracker.unregister("name", "noop")
    tracker._stop()
    assert tracker._exitcode == 0


def test_mask_is_as_before(tracker: Any) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        tracker.ensure_running()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_a_killed_one_is_replaced(tracker: Any) -> None:
    tracker.ensure_running()
    first = tracker._pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not tracker._check_alive(), PATIENCE, "its end of the pipe is closed")
    with pytest.warns(UserWarning, match="resource_tracker: process died unexpectedly"):
        tracker.ensure_running()
    assert tracker._pid not in (None, first)
    with pytest.raises(ChildProcessError):
        os.waitpid(first, os.WNOHANG)  # no zombie is left
    tracker._stop()
    assert tracker._exitcode == 0


def test_item_11_finalizers_may_use_it_at_any_moment(tracker: Any) -> None:
    """The garbage collector runs a finalizer while its thread is within register() (gh-109593, gh-131788)."""

    class Named:
        def __init__(self, name: str) -> None:
            self.name, self.cycle = name, self

        def __del__(self) -> None:
            tracker.unregister(self.name, "noop")

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for i in range(300):
            tracker.register(f"name{i}", "noop")
            Named(f"name{i}")
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    tracker._stop()
    assert tracker._exitcode == 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_use_the_same_one(mp: ModuleType, method: str) -> None:
    ctx = mp.get_context(method)
    mp.resource_tracker.ensure_running()
    try:
        reader, writer = ctx.Pipe(False)
        child = ctx.Process(target=look, args=(writer,))
        child.start()
        writer.close()
        pid, alive = reader.recv()
        child.join()
        reader.close()
        assert pid is None, "it is not the child's child"
        assert alive
    finally:
        mp.resource_tracker._resource_tracker._stop()


def look(writer: Any) -> None:
    from cmultiprocessing.resource_tracker import _resource_tracker, ensure_running

    ensure_running()
    writer.send((_resource_tracker._pid, _resource_tracker._check_alive()))


def test_item_10_a_killed_program_is_cleaned_up_after(tmp_path: Path) -> None:
    """All processes of a program are killed: what it named is destroyed, and reported once."""
    left = tmp_path / "left"
    left.write_text("x")
    # Kinds of one's own: the tracker is a fresh interpreter, so the program's module puts them there by way of site.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nfrom cmultiprocessing import resource_tracker\n"
        "resource_tracker._CLEANUP_FUNCS['file'] = os.unlink\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    code = PROGRAM.format(
        body=f"resource_tracker.register({str(left)!r}, 'file'); resource_tracker.register('/no/such', 'file')\n"
        "if os.fork() == 0:\n    pass\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=path), stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert not left.exists()
    assert "There appear to be 2 leaked file objects to clean up at shutdown" in done.stderr
    assert "resource_tracker: '/no/such': [Errno 2]" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_kinds_are_reported(tracker: Any, capfd: Any) -> None:
    tracker.register("name", "no such kind")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.register("other", "noop")
        tracker.unregister("other", "noop")
    tracker._stop()
    assert tracker._exitcode == 0
    assert "unknown kind 'no such kind'" in capfd.readouterr().err
