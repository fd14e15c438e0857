# SPDX-License-Identifier: PSF-2.0
"""Worker processes that take tasks, functions with arguments, from one queue and put results into another.

python examples/workers.py [fork|spawn|forkserver]
"""

from __future__ import annotations

import math
import sys
from typing import Any

import cmultiprocessing as multiprocessing

WORKERS = 4


def work(tasks: Any, results: Any) -> None:
    """A worker's life: until it is told to stop."""
    for number, function, arguments in iter(tasks.get, "STOP"):
        results.put((number, function(*arguments), multiprocessing.current_process().name))


def product(a: int, b: int) -> int:
    """A task."""
    return a * b


def factorial(n: int) -> int:
    """Another one."""
    return math.factorial(n)


def main() -> None:
    """Tasks go in, results come out in any order."""
    ctx = multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else None)
    tasks, results = ctx.Queue(), ctx.Queue()
    jobs: list[tuple[Any, tuple[int, ...]]] = [(product, (i, 7)) for i in range(20)]
    jobs += [(factorial, (i,)) for i in range(10)]
    for number, (function, arguments) in enumerate(jobs):
        tasks.put((number, function, arguments))

    workers = [ctx.Process(target=work, args=(tasks, results), name=f"worker {i}") for i in range(WORKERS)]
    for worker in workers:
        worker.start()
    answers = {}
    for _ in jobs:
        number, answer, who = results.get()
        answers[number] = answer
        print(f"{jobs[number][0].__name__}{jobs[number][1]} = {answer} ({who})")
    for _ in workers:
        tasks.put("STOP")
    for worker in workers:
        worker.join()
    right = all(answers[number] == function(*arguments) for number, (function, arguments) in enumerate(jobs))
    print(f"{len(answers)} answers, all right: {right}")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
