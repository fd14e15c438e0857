# SPDX-License-Identifier: PSF-2.0
"""examples/listener.py: alone, as two programs, and beside the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent.parent / "examples" / "listener.py"
TALK = """[2.25, None, 'junk', <class 'float'>]
b'hello'
8
array('i', [42, 1729, 0, 0, 0])
"""


def run(*arguments: str) -> str:
    command = [sys.executable, "-W", "error", str(PROGRAM), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_demo() -> None:
    output = run("demo")
    assert "connection accepted from this machine\n" in output
    assert TALK in output


@pytest.mark.parametrize("port", [(), ("--port", "0")])
@pytest.mark.parametrize(
    ("server", "client"),
    [
        ("cmultiprocessing", "cmultiprocessing"),
        ("cmultiprocessing", "multiprocessing"),
        ("multiprocessing", "cmultiprocessing"),
    ],
)
def test_two_programs(port: tuple[str, ...], server: str, client: str) -> None:
    command = [sys.executable, str(PROGRAM), "--library", server, "server", "--clients", "2", *port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("listening at ").strip()
        for _ in range(2):
            assert run("--library", client, "client", address) == TALK
        rest, _ = process.communicate(timeout=60)
        assert rest.count("connection accepted from") == 2
        assert process.returncode == 0
