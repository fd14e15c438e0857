# SPDX-License-Identifier: PSF-2.0
"""Build the stepper (Modules/_testcmultiprocessing) and run it.

It is a program of its own, linked with the C sources below py/: no interpreter is in the way of its ptrace. It is built
twice: `release` as an installed extension is, because the order of its instructions is what is tested, and `debug` with
assertions and injection points, by which faults are planted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY = ROOT / "Modules" / "_cmultiprocessing"
SOURCES = ROOT / "Modules" / "_testcmultiprocessing"
LAYERS = ("core", "os", "io", "shm", "sync", "structures")
COMMON = "-std=c11 -D_GNU_SOURCE -g -fno-omit-frame-pointer -Wall -Wextra -Wshadow -Wconversion -Werror"
FLAVOURS = {
    "release": "-O2 -DNDEBUG",
    "debug": "-Og -UNDEBUG -DMP_TESTING",
}


@dataclass
class Report:
    """What a run of the stepper over one operation said."""

    operation: str
    summary: dict[str, Any] = field(default_factory=dict)  # empty if it did not come to its end
    failures: list[dict[str, Any]] = field(default_factory=list)
    returncode: int = 0
    stderr: str = ""

    def tried(self) -> float:
        """The part of the instructions met last that the process was ended at."""
        return float(self.summary["addresses_tried"]) / max(1, self.summary["addresses"])

    def line(self) -> str:
        """A line of a table."""
        if not self.summary:
            return f"{self.operation}: no summary, exit code {self.returncode}"
        s = self.summary
        return (
            f"{s['operation']:30} {s['ending']:6} {s['instructions']:6} instructions, {s['addresses']:5} different, "
            f"{s['addresses_tried']:5} tried, {s['kills']:5} ends, {s['failures']} failures, {s['seconds']:6.2f} s"
            f"{'' if s['complete'] else ' (stopped early)'}"
        )

    def __str__(self) -> str:
        lines = [
            f"{f['failure']}, {f['ending']} after instruction {f['instruction']} [{f['where']}]: {f['what']}"
            for f in self.failures
        ]
        return "\n".join([*lines, self.line(), f"exit code {self.returncode}", self.stderr])


def compiler() -> list[str]:
    """The C compiler: CC, or the one that built the interpreter, or cc."""
    wanted = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shlex.split(wanted)[:1]


def objects_of(flavour: str, folder: Path) -> list[Path]:
    """Compile what is out of date; return all objects."""
    arguments = [*compiler(), *COMMON.split(), *FLAVOURS[flavour].split(), f"-I{LIBRARY}", f"-I{SOURCES}"]
    stamp = hashlib.sha256(" ".join(arguments).encode()).hexdigest()[:12]
    headers = max(path.stat().st_mtime_ns for top in (LIBRARY, SOURCES) for path in top.rglob("*.h"))
    folders = [SOURCES, *(LIBRARY / layer for layer in LAYERS)]
    sources = [path for each in folders for path in sorted(each.glob("*.c"))]

    def compiled(source: Path) -> Path:
        target = folder / f"{source.parent.name}_{source.stem}.{stamp}.o"
        if not target.exists() or target.stat().st_mtime_ns < max(headers, source.stat().st_mtime_ns):
            subprocess.run([*arguments, "-c", str(source), "-o", str(target)], check=True, timeout=120)
        return target

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compiled, sources))


def build(flavour: str = "release") -> Path:
    """The program, built if it is out of date.

    Linked with -z now: the dynamic linker's lazy binding is not what is stepped through.
    """
    folder = ROOT / "build" / "stepper" / flavour
    folder.mkdir(parents=True, exist_ok=True)
    objects = objects_of(flavour, folder)
    program = folder / "stepper"
    if not program.exists() or program.stat().st_mtime_ns < max(path.stat().st_mtime_ns for path in objects):
        link = [*compiler(), *map(str, objects), "-o", str(program), "-Wl,-z,now", "-rdynamic", "-pthread", "-ldl"]
        subprocess.run(link, check=True, timeout=120)
    return program


def names(program: Path) -> tuple[list[str], list[str]]:
    """Names of the operations, and of the planted faults."""
    done = subprocess.run([program, "--list"], capture_output=True, text=True, timeout=10, check=True)
    lines = done.stdout.splitlines()
    faults = [line.split()[0] for line in lines if "planted fault" in line]
    return [line for line in lines if "planted fault" not in line], faults


def run(program: Path, *arguments: object, limit: float = 100) -> Report:
    """Step one operation, the last argument.

    The exit code says whether it found failures (1), gave up (2) or a survivor hung (3).
    """
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=limit, check=False)
    report = Report(str(arguments[-1]), returncode=done.returncode, stderr=done.stderr)
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        if "failure" in entry:
            report.failures.append(entry)
        else:
            report.summary = entry
    return report
