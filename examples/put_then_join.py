# SPDX-License-Identifier: PSF-2.0
"""Join a process before its items are taken from the queue: the documentation of the standard library warns that this
dead-locks, and here it works, because put() has returned only when the item is in shared memory.

    python examples/put_then_join.py [fork|spawn|forkserver] [megabytes]
"""

from __future__ import annotations

import sys
from typing import Any

import cmultiprocessing as multiprocessing


def put(queue: Any, size: int) -> None:
    """One large item, far more than a pipe holds."""
    queue.put("X" * size)


def main() -> None:
    """The order that is a dead-lock elsewhere."""
    ctx = multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else None)
    size = int(sys.argv[2] if len(sys.argv) > 2 else 100) * 1_000_000
    queue = ctx.Queue()
    process = ctx.Process(target=put, args=(queue, size))
    process.start()
    process.join()
    print(f"exit code {process.exitcode}; then got {len(queue.get()):,} characters")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
