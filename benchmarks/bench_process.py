# SPDX-License-Identifier: PSF-2.0
"""Starting processes, and importing the library.

*Start and join*: from before ``Process(...)`` until ``join()`` has returned, one process after the
other, whose target is a function of the operating system that takes no time.  The parent is the
small benchmark process; children that are spawned import it again, as they do with any program, and
it imports nothing.  The fork server runs already when the time begins.  *NumPy in __main__* is the
same from a script that imports NumPy at its top.

*Import*: the time of the import statement in a fresh interpreter, read by that interpreter before
and after, so that its own start is not in the time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks._harness import Case, Timing, Unavailable

__all__ = ["CASES"]

IMPORT = "import {library}"
FIRST_QUEUE = "import {library} as mp; q = mp.Queue(); q.put(1); q.get()"


def _start_join(start_method: str) -> Callable[[Any, int], Timing]:
    def measure(mp: Any, n: int) -> Timing:
        context = mp.get_context(start_method)

        def loop(times: int) -> float:
            begin = time.perf_counter()
            for _ in range(times):
                process = context.Process(target=os.getpid)
                process.start()
                process.join()
                if process.exitcode != 0:
                    raise RuntimeError(f"the child ended with {process.exitcode}")
            return time.perf_counter() - begin

        loop(2)
        return Timing(loop(n), n)

    return measure


HEAVY = """
import sys, time
import numpy
import {library} as mp

if __name__ == "__main__":
    context = mp.get_context("forkserver")
    for n in (3, int(sys.argv[1])):
        begin = time.perf_counter()
        for _ in range(n):
            process = context.Process(target=numpy.sqrt, args=(2.0,))
            process.start()
            process.join()
            if process.exitcode != 0:
                raise RuntimeError(f"the child ended with {{process.exitcode}}")
    print(time.perf_counter() - begin)
"""


def _start_join_heavy(mp: Any, n: int) -> Timing:
    """A script of its own, since it is the main module whose import counts."""
    import importlib.util
    import tempfile

    if importlib.util.find_spec("numpy") is None:
        raise Unavailable("NumPy is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "heavy.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(HEAVY.format(library=mp.__name__))
        return Timing(_seconds(mp, path, str(n)), n)


def _seconds(mp: Any, *arguments: str) -> float:
    """What a program of its own printed."""
    import subprocess  # not above: every child that is measured would copy what it imports

    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{mp.__name__}: {run.stderr.strip().splitlines()[-1:]}")
    return float(run.stdout)


def _import(statement: str) -> Callable[[Any, int], Timing]:
    def measure(mp: Any, n: int) -> Timing:
        program = (
            "from time import perf_counter as clock; begin = clock()\n"
            + statement.format(library=mp.__name__)
            + "\nprint(clock() - begin)"
        )

        _seconds(mp, "-c", program)
        return Timing(sum(_seconds(mp, "-c", program) for _ in range(n)), n)

    return measure


def _case(
    name: str,
    title: str,
    measure: Callable[[Any, int], Timing],
    *,
    start: int,
    most: int,
    goal: float | None = None,
    limit: str = "",
    per: str = "process",
) -> Case:
    return Case(name, title, "Processes", measure, start, most, goal, limit, per)


CASES = [
    _case("start-fork", "start + join, fork", _start_join("fork"), start=20, most=2000, goal=1.3,
          limit="1.5"),
    _case("start-spawn", "start + join, spawn", _start_join("spawn"), start=5, most=50, goal=1.2),
    _case("start-forkserver", "start + join, forkserver", _start_join("forkserver"), start=10,
          most=1000, goal=5, limit="10"),
    _case("start-forkserver-heavy", "start + join, forkserver, NumPy in __main__", _start_join_heavy, start=5,
          most=100, goal=10),
    _case("import", "import", _import(IMPORT), start=5, most=10, goal=1.5, per="import"),
    _case("import-queue", "import, first Queue, put, get", _import(FIRST_QUEUE), start=5, most=10,
          per="import"),
]
