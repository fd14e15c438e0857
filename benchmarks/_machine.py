# SPDX-License-Identifier: PSF-2.0
"""What the head of a report says: the machine, the interpreter, the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
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
        "imported at its start": _imported_at_start(),
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


def _imported_at_start() -> str:
    """What a fresh interpreter imports by itself: every child pays for that, and for its at-fork hooks.

    Startup files (.pth) of site-packages may double the time of a start, here and there alike.
    """
    program = "import sys; print(len(sys.modules), *(m for m in ('threading', 'random') if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    count, *heavy = run.stdout.split()
    return f"{count} modules" + (f", with {' and '.join(heavy)}" if heavy else "")


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
