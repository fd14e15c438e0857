# SPDX-License-Identifier: PSF-2.0
"""Programs that a test runs in an interpreter of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cmultiprocessing

LIBRARY = str(Path(cmultiprocessing.__file__).resolve().parent.parent)  # where it is installed, or Lib


def environment(**more: str) -> dict[str, str]:
    """The environment in which the package is found from everywhere."""
    path = [LIBRARY, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **more}


def run_python(*arguments: str | Path, seconds: float = 50, **options: Any) -> tuple[int, str, str]:
    """Run the interpreter.

    Args:
        arguments: of its command line.
        seconds: how long it may take.
        options: of subprocess.run.

    Returns:
        Exit code, stdout, stderr.
    """
    options.setdefault("env", environment())
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, **options)
    return done.returncode, done.stdout, done.stderr


def run_program(text: str, *arguments: str | Path, folder: Path, **options: Any) -> tuple[int, str, str]:
    """Write a program into a folder, and run it there; see `run_python`."""
    path = folder / "prog.py"
    path.write_text(text)
    return run_python(path, *arguments, cwd=folder, **options)
