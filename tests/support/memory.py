# SPDX-License-Identifier: PSF-2.0
"""How much memory and how many descriptors processes use, as the kernel counts them."""

from __future__ import annotations

import os
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def status(field: str, pid: int | str = "self") -> int:
    """A size from /proc/PID/status in bytes: VmRSS, VmHWM, RssAnon, RssShmem, VmSize ..."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * KIB
    raise LookupError(f"/proc/{pid}/status has no {field}")


def family_bytes() -> int:
    """Bytes that the kernel has allotted to the family's memory, summed over the memfds of this process.

    Raises:
        LookupError: this process has no memfd: no family, or it is kept in another way than this looks for it.
    """
    blocks: dict[tuple[int, int], int] = {}
    for name in os.listdir("/proc/self/fd"):
        link = f"/proc/self/fd/{name}"
        try:
            if os.readlink(link).startswith("/memfd:"):
                seen = os.stat(link)
                blocks[seen.st_dev, seen.st_ino] = seen.st_blocks * 512
        except FileNotFoundError:
            continue  # the descriptor of listdir() itself
    if not blocks:
        raise LookupError("this process has no memfd open")
    return sum(blocks.values())


def descriptors(pid: int | str = "self") -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd")) - (1 if pid == "self" else 0)


def mappings(pid: int | str = "self") -> int:
    """How many mappings a process has."""
    return len(Path(f"/proc/{pid}/maps").read_text().splitlines())


def forget_peak() -> None:
    """Let VmHWM begin anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def machine() -> int:
    """Bytes of memory that are available now."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    raise LookupError("/proc/meminfo has no MemAvailable")


def total() -> int:
    """Bytes of memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE
