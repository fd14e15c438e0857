# SPDX-License-Identifier: PSF-2.0
"""The net itself: each kind of leak and hang is put before it, in a pytest of its own, and must be caught."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

LEAKS = {
    "process": "subprocess.Popen(['sleep', '1000'])",
    "zombie": """
        child = os.posix_spawn('/bin/true', ['true'], {})
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        """,
    "process (an orphan)": """
        subprocess.run(['sh', '-c', 'sleep 1000 >/dev/null 2>&1 &'], check=True)
        """,
    "process (stopped)": """
        os.kill(subprocess.Popen(['sleep', '1000']).pid, signal.SIGSTOP)
        """,
    "process (forked)": """
        if os.fork() == 0:
            signal.pause()
        """,
    "descriptor": "os.open('/dev/null', os.O_RDONLY)",
    "thread": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "shm": "open(f'/dev/shm/safety_net_{os.getpid()}', 'w').close()",
}

HANGS = {
    "in Python": "threading.Lock().acquire() and threading.Event().wait()",
    "in a system call": "os.read(os.pipe()[0], 1)",
    "computing": """
        while True:
            pass
        """,
}

# PyDLL does not release the GIL; a mutex that is locked twice is not woken by signals.
HANG_WITH_GIL = """
        library = ctypes.PyDLL(None)
        mutex = ctypes.create_string_buffer(64)
        subprocess.Popen(['sleep', '4242'])
        library.pthread_mutex_lock(mutex)
        library.pthread_mutex_lock(mutex)
        """


class Outcome:
    """What a nested pytest printed and how it ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.text = done.stderr + done.stdout
        self.status = done.returncode

    def count(self, what: str) -> int:
        """The number before a word ('passed', 'failed', 'error') in pytest's last line."""
        found = re.findall(rf"(\d+) {what}s?\b", self.text.splitlines()[-1] if self.text else "")
        return int(found[-1]) if found else 0


def run_inner(folder: Path, body: str, *options: str, before_test: str = "") -> Outcome:
    """Run two tests, `body` and one that is fine, under the net."""
    inner = folder / "test_inner.py"
    code = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    inner.write_text(
        "import ctypes, os, signal, subprocess, threading, pytest\n"
        "@pytest.fixture(scope='session', autouse=True)\n"
        "def quiet():\n    import warnings; warnings.simplefilter('ignore')\n"
        f"{before_test}\ndef test_subject():\n{code}\n\ndef test_fine():\n    assert os.getpid() > 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]
        + ["--leak-patience", "0.3", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder)]
        + [*options, str(inner)],
        cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
    )  # fmt: skip
    return Outcome(done)


def test_nothing_is_caught_where_nothing_leaks(tmp_path: Path) -> None:
    outcome = run_inner(tmp_path, "subprocess.run(['true'], check=True)")
    assert (outcome.status, outcome.count("passed")) == (0, 2), outcome.text


@pytest.mark.parametrize("kind", LEAKS)
def test_leak_is_caught(tmp_path: Path, kind: str) -> None:
    outcome = run_inner(tmp_path, LEAKS[kind])
    for name in Path("/dev/shm").glob("safety_net_*"):
        name.unlink()
    assert outcome.status == 1, outcome.text
    assert f"left behind: {kind.split()[0]} " in outcome.text, outcome.text
    assert (outcome.count("passed"), outcome.count("error")) == (2, 1), outcome.text


def test_allowed_leak_is_not_reported(tmp_path: Path) -> None:
    body, allow = LEAKS["descriptor"], "@pytest.mark.leaks('descriptor')"
    assert run_inner(tmp_path, body, before_test=allow).status == 0
    assert run_inner(tmp_path, body, before_test="@pytest.mark.leaks('thread')").status == 1


def test_leaked_processes_are_ended(tmp_path: Path) -> None:
    outcome = run_inner(tmp_path, "print('pid', subprocess.Popen(['sleep', '1000']).pid); assert 0")
    pid = re.search(r"^pid (\d+)$", outcome.text, re.MULTILINE)
    assert pid, outcome.text
    assert not Path(f"/proc/{pid[1]}").exists()


@pytest.mark.parametrize("kind", HANGS)
def test_hang_fails_the_test_and_the_run_goes_on(tmp_path: Path, kind: str) -> None:
    outcome = run_inner(tmp_path, HANGS[kind], "--watchdog", "1")
    assert outcome.status == 1, outcome.text
    assert (outcome.count("passed"), outcome.count("failed")) == (1, 1), outcome.text
    traceback = r'Current thread .*\n(.*\n)*?.*test_inner.py", line \d+ in test_subject'
    assert re.search(traceback, outcome.text), outcome.text


def test_marker_shortens_the_watchdog(tmp_path: Path) -> None:
    outcome = run_inner(tmp_path, HANGS["in Python"], before_test="@pytest.mark.watchdog(0.5)")
    assert (outcome.count("passed"), outcome.count("failed")) == (1, 1), outcome.text


def test_hang_with_the_gil_held_ends_the_run_and_its_children(tmp_path: Path) -> None:
    outcome = run_inner(tmp_path, HANG_WITH_GIL, "--watchdog", "1", "--watchdog-grace", "1")
    assert outcome.status == 70, outcome.text
    assert "hangs beyond recovery" in outcome.text
    assert re.search(r'test_inner.py", line \d+ in test_subject', outcome.text), outcome.text
    child = re.search(r"guardian:   pid (\d+) \(sleep 4242", outcome.text)
    assert child, outcome.text
    assert not Path(f"/proc/{child[1]}").exists()


def test_crash_is_not_success(tmp_path: Path) -> None:
    outcome = run_inner(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")
    assert outcome.status == 128 + 11, outcome.text


def test_stress_tests_run_on_request_only(tmp_path: Path) -> None:
    stress = "@pytest.mark.stress"
    assert run_inner(tmp_path, "pass", before_test=stress).count("passed") == 1
    assert run_inner(tmp_path, "pass", "--stress", before_test=stress).count("passed") == 2


def test_this_run_is_guarded() -> None:
    """The tests above start pytests of their own; this one is about the run that you see."""
    from tests.support import leaks, processes

    assert leaks.guarded
    parent = processes.info(os.getppid())
    assert parent is not None
    assert processes.command_line(os.getpid()) == processes.command_line(parent.pid)


def test_net_and_fixtures_agree(both_ctx: Any) -> None:
    """What either library keeps for later (tracker, fork server, family memory) does not count as left behind."""
    process = both_ctx.Process(target=os.getpid)
    process.start()
    process.join()
    assert process.exitcode == 0
    process.close()
