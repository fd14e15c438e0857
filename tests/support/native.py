# SPDX-License-Identifier: PSF-2.0
"""Build the C programs in tests/native against the C layers below py/, and run their tests."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY = ROOT / "Modules" / "_cmultiprocessing"
PROGRAMS = ROOT / "tests" / "native"
BUILT = ROOT / "build" / "native"
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
    """Compile tests/native/PROGRAM.c and link it with the C layers, unless that was done since the last change."""
    source = PROGRAMS / f"{program}.c"
    inputs = [source, *PROGRAMS.glob("*.h"), *_library_inputs()]
    target = BUILT / f"{program}-{flavour}"
    if _is_older(target, inputs):
        objects = build_library(flavour)
        fresh = target.with_suffix(f".{os.getpid()}")
        _compile(flavour, f"-I{PROGRAMS}", source, *objects, "-o", fresh, "-lpthread", "-lm")
        fresh.replace(target)
    return target


def build_library(flavour: str) -> list[Path]:
    """Compile the C layers, once for all programs; the object files."""
    sources = [source for layer in LAYERS for source in sorted((LIBRARY / layer).glob("*.c"))]
    folder = BUILT / f"library-{flavour}"
    if _is_older(folder / "complete", _library_inputs()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _compile(flavour, "-c", *sources, cwd=folder)
        assert len(list(folder.glob("*.o"))) == len(sources), "two sources have one name"
        (folder / "complete").touch()
    return sorted(folder.glob("*.o"))


def _library_inputs() -> list[Path]:
    return [*LIBRARY.rglob("*.[ch]"), Path(__file__)]


def _is_older(target: Path, inputs: list[Path]) -> bool:
    return not target.exists() or target.stat().st_mtime_ns < max(path.stat().st_mtime_ns for path in inputs)


def _compile(flavour: str, *arguments: str | Path, cwd: Path | None = None) -> None:
    command = [*compiler(), *COMMON.split(), *FLAVOURS[flavour].split(), f"-I{LIBRARY}", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=300, cwd=cwd)


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
