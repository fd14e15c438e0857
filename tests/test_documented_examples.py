# SPDX-License-Identifier: PSF-2.0
"""The programs in examples/ that show one documented thing each: they run, say what they should, and print no error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
METHODS = ["fork", "spawn", "forkserver"]


def run(name: str, *arguments: str) -> list[str]:
    """The lines that it prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


@pytest.mark.parametrize("method", METHODS)
def test_newtype(method: str) -> None:
    lines = run("newtype.py", method)
    assert lines[1:] == ["audited: 50", "squares: 0 1 4 9 16 25 36 49 64 81", "3 + 4 = 7"]
    assert 0 < int(lines[0].removeprefix("paid in: ")) <= 300


@pytest.mark.parametrize("method", METHODS)
def test_synchronize(method: str) -> None:
    assert run("synchronize.py", method) == [
        "value: still counted in: 0",
        "queue: got [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], and nothing after STOP",
        "condition: answered: True",
        "event: woken: 4",
        "semaphore: never more than two at once: True",
        "barrier: exit codes: [0, 0, 0]",
        "shared_numbers: 3.0 [0, 2, 4, 6, 8]",
        "exit_code: exit code: 3",
    ]


@pytest.mark.parametrize("method", METHODS)
def test_workers(method: str) -> None:
    lines = run("workers.py", method)
    assert lines[-1] == "30 answers, all right: True"
    assert any(line.startswith("factorial(9,) = 362880 (worker ") for line in lines)


@pytest.mark.parametrize("method", METHODS)
def test_wait(method: str) -> None:
    lines = run("wait.py", method)
    assert lines[-1] == "40 messages of 4 processes"


@pytest.mark.parametrize("method", METHODS)
def test_put_then_join(method: str) -> None:
    assert run("put_then_join.py", method, "20") == ["exit code 0; then got 20,000,000 characters"]
