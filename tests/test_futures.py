# SPDX-License-Identifier: PSF-2.0
"""concurrent.futures on this package's contexts, in programs that give only one of the two names to it.

The executor's own queue class is the standard library's then: it crosses to our processes with our locks in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cmultiprocessing import connection

PROGRAM = """
import os, sys, time
import cmultiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

def square(x):
    return x * x

def name():
    import cmultiprocessing
    return type(cmultiprocessing.current_process()).__name__

def die():
    os.kill(os.getpid(), 9)

def main():
    ctx = cmultiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(2, mp_context=ctx, initializer=square, initargs=(1,)) as executor:
        assert list(executor.map(square, range(100), chunksize=7)) == [x * x for x in range(100)]
        print(executor.submit(name).result())
        big = os.urandom(3 << 20)
        assert executor.submit(bytes, big).result() == big
    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        executor.submit(square, 2).result()
        try:
            executor.submit(die).result(timeout=20)
        except BrokenProcessPool:
            print("broken")

if __name__ == "__main__":
    main()
"""


def put_and_end(q: Any, i: int) -> None:
    q.put(i)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_an_item_shows_before_its_producer_ends(mp: ModuleType, method: str) -> None:
    """Who waits for the queue's descriptor and the process's end takes an end without an item for a crash."""
    ctx = mp.get_context(method)
    q = ctx.SimpleQueue()
    q._reader.fileno()
    # Processes that keep every CPU busy: the thread that shows the item has to wait for its turn.
    busy = [ctx.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in busy:
        process.start()
    try:
        for i in range(15):
            child = ctx.Process(target=put_and_end, args=(q, i))
            child.start()
            ready = connection.wait([q._reader.fileno(), child.sentinel], 60)
            assert q._reader.fileno() in ready, f"round {i}: it ended, and its item did not show"
            assert q.get() == i
            child.join()
    finally:
        for process in busy:
            process.kill()
            process.join()


def spin() -> None:
    while True:
        pass


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_item_58_executor_without_an_alias(tmp_path: Path, method: str) -> None:
    """ProcessPoolExecutor(mp_context=ours): results, initializer, large results; a killed worker breaks it at once."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), method], capture_output=True, text=True, timeout=100, check=False
    )
    expected = {"fork": "ForkProcess", "spawn": "SpawnProcess", "forkserver": "ForkServerProcess"}[method]
    assert done.stdout.split() == [expected, "broken"], done.stderr
    assert done.stderr == ""
    assert done.returncode == 0
