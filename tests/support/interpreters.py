# SPDX-License-Identifier: PSF-2.0
"""The Python interpreters of this machine, for tests beside the standard library of other versions."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")


@functools.cache
def found() -> dict[str, str]:
    """Version -> an interpreter of it: this one, those in PATH, and those installed beside this one."""
    result: dict[str, str] = {}
    for program in [sys.executable, *_in_path(), *_beside()]:
        version = _version(program)
        if version in VERSIONS:
            result.setdefault(version, program)
    return result


def _in_path() -> list[str]:
    return [program for version in VERSIONS if (program := shutil.which(f"python{version}"))]


def _beside() -> list[str]:
    """Where a version manager keeps one prefix per version, these are siblings."""
    return [str(path) for path in sorted(Path(sys.base_prefix).parent.glob("*/bin/python3"))]


def _version(program: str) -> str | None:
    try:
        done = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    match = re.fullmatch(r"Python (\d+\.\d+)\.\d+\S*", done.stdout.strip())
    return match[1] if match else None
