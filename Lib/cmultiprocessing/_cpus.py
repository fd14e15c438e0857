# SPDX-License-Identifier: PSF-2.0
"""How many CPUs this process may use: what it is bound to, and what its control groups grant.

`cpu_count()` of the package stays the number of CPUs of the machine, as documented.
"""
from __future__ import annotations

import os
import sys

__all__ = ["usable_cpus"]

_CGROUPS = "/sys/fs/cgroup"
_OWN_CGROUP = "/proc/self/cgroup"


def usable_cpus() -> int:
    """At least 1. PYTHON_CPU_COUNT and -X cpu_count are obeyed on every version of Python."""
    asked = _asked_for()
    if asked is not None:
        return asked
    bound = len(os.sched_getaffinity(0))
    quota = _quota()
    return bound if quota is None else max(1, min(bound, quota))


def _asked_for() -> int | None:
    """What the user of the program says; None where he says nothing, or 'default', or nonsense."""
    text = sys._xoptions.get("cpu_count")
    if text is None and not sys.flags.ignore_environment:
        text = os.environ.get("PYTHON_CPU_COUNT")
    try:
        count = int(text) if isinstance(text, str) else 0
    except ValueError:
        return None
    return count if count > 0 else None


def _quota() -> int | None:
    """Whole CPUs that the narrowest of the control groups above this process grants; None where none limits it."""
    shares = [share for folder in _own_groups() for share in _shares(folder)]
    return max(1, round(min(shares))) if shares else None


def _own_groups() -> list[str]:
    """The folders of this process's control groups, from its own up to the root."""
    try:
        with open(_OWN_CGROUP) as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has no controllers in the line; version 1 is mounted below their names.
        root = f"{_CGROUPS}/{controllers}" if controllers else _CGROUPS
        parts = [part for part in path.split("/") if part]
        folders += ["/".join([root, *parts[:end]]) for end in range(len(parts), -1, -1)]
    return folders


def _shares(folder: str) -> list[float]:
    """CPUs that a control group grants: nothing, or one number."""
    try:
        with open(f"{folder}/cpu.max") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        try:
            with open(f"{folder}/cpu.cfs_quota_us") as first, open(f"{folder}/cpu.cfs_period_us") as second:
                quota, period = first.read(), second.read()
        except OSError:
            return []
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return []  # "max": no limit
    return [share] if share > 0 else []
