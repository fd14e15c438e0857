# SPDX-License-Identifier: PSF-2.0
"""Build the C programs in tests/native against the C layers below py/, and run their tests."""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY = ROOT / "Modules" / "_cmultiprocessing"
PROGRAMS = ROOT / "tests" / "native"
LAYERS = ("core", "os", "io", "shm", "sync", "structures")
COMMON = "-std=c11 -D_GNU_SOURCE -DMP_TESTING -UNDEBUG -g -Wall -Wextra -Wshadow -Wconversion"
FLAVOURS = {
    "plain": "-O2",
    "address": "-O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined",
    "thread": "-O1 -fsanitize=thread",
}


def compiler() -> list[str]:
    """The C compiler: CC, or the one that built the interpreter, or cc."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[:1]


def build(program: str, flavour: str) -> Path:
    """Compile tests/native/PROGRAM.c with the C layers, unless that was done since the last change."""
    sources = [PROGRAMS / f"{program}.c", *(s for layer in LAYERS for s in sorted((LIBRARY / layer).glob("*.c")))]
    inputs = [*sources, *PROGRAMS.glob("*.h"), *LIBRARY.rglob("*.h"), Path(__file__)]
    target = ROOT / "build" / "native" / f"{program}-{flavour}"
    if not target.exists() or target.stat().st_mtime_ns < max(path.stat().st_mtime_ns for path in inputs):
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}")
        arguments = [*COMMON.split(), *FLAVOURS[flavour].split(), f"-I{LIBRARY}", f"-I{PROGRAMS}"]
        subprocess.run(
            [*compiler(), *arguments, *map(str, sources), "-o", str(fresh), "-lpthread", "-lm"], check=True, timeout=300
        )
        fresh.replace(target)
    return target


def tests_of(program: str) -> list[str]:
    """The names of a program's tests."""
    done = subprocess.run([build(program, "plain")], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def run(program: str, flavour: str, test: str, timeout: float = 100) -> None:
    """Run one test; AssertionError with what it printed if it fails or does not end."""
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "TSAN_OPTIONS": "halt_on_error=1"}
    done = subprocess.run(
        [build(program, flavour), test], capture_output=True, text=True, timeout=timeout, env=environment
    )
    assert done.returncode == 0, f"{program} {test} ({flavour}) ended with {done.returncode}\n{done.stderr}"
