# SPDX-License-Identifier: PSF-2.0
"""Every case and every check, in the order of the table."""

from __future__ import annotations

from benchmarks import (
    bench_connections,
    bench_memory,
    bench_pool,
    bench_process,
    bench_queues,
    bench_sharedctypes,
    bench_synchronize,
)
from benchmarks._harness import Case, Check

__all__ = ["entries", "find"]


def entries() -> list[Case | Check]:
    """All of them, in the order in which they are run and shown."""
    return [
        *bench_synchronize.CASES,
        *bench_queues.CASES,
        *bench_connections.CASES,
        *bench_sharedctypes.CASES,
        *bench_process.CASES,
        *bench_pool.CASES,
        *bench_memory.CHECKS,
    ]


def find(name: str) -> Case | Check:
    """The one of that name.

    Raises:
        KeyError: there is none.
    """
    for entry in entries():
        if entry.name == name:
            return entry
    raise KeyError(f"no benchmark is called {name!r}")
