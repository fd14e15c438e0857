# SPDX-License-Identifier: PSF-2.0
"""What the head of a report says: the machine, the interpreter, the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time

__all__ = ["describe"]


def describe(subject: str, baseline: str) -> dict[str, str]:
    """Machine and versions, as text by name, in the order in which they are shown.

    Args:
        subject: name of the library that is looked at.
        baseline: name of the library that it is compared with.
    """
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()) or "unknown",
        "python": f"{sys.implementation.name} {platform.python_version()} ({platform.python_compiler()})",
        subject: _version(subject),
        baseline: _version(baseline),
        "numpy": _version("numpy"),
        "faster_fifo": _version("faster-fifo"),
        "load before": load,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model", "CPU part"):
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _version(name: str) -> str:
    if name in sys.stdlib_module_names:
        return f"of Python {platform.python_version()}"
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        module = importlib.import_module(name)
    except ImportError:
        return "not installed"
    return str(getattr(module, "__version__", "of this folder"))
