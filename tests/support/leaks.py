# SPDX-License-Identifier: PSF-2.0
"""What a test leaves behind: processes, descriptors, threads, names in /dev/shm."""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import processes

KINDS = ("process", "zombie", "descriptor", "thread", "shm")
SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Leak:
    """One thing left behind: its kind (one of KINDS), its identity, and words for the report."""

    kind: str
    key: object
    text: str = field(compare=False)


def wait_for_leaks(before: frozenset[Leak], seconds: float) -> list[Leak]:
    """What is there now and was not before, after giving what is on its way out the time to go.

    Args:
        before: what `everything()` returned at the start.
        seconds: patience; none is needed where nothing leaks.
    """
    deadline = time.monotonic() + seconds
    gc.collect()
    while True:
        left = sorted(everything() - before, key=lambda leak: (leak.kind, leak.text))
        left = [leak for leak in left if leak.kind != "shm" or not _used_by_strangers(str(leak.key))]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
        gc.collect()


def everything() -> frozenset[Leak]:
    """All that counts, of this process and of the orphans beside it."""
    return frozenset([*_processes(), *_descriptors(), *_threads(), *_shm()])


def _processes() -> list[Leak]:
    """Descendants, and orphans that came back to the guardian (see guardian.py); it reaps the zombies among those."""
    me = os.getpid()
    found = []
    for process in processes.descendants(os.getppid() if guarded else me):
        zombie = process.state in "ZX"
        if process.pid == me or (zombie and process.parent != me):
            continue  # a zombie between two other processes is theirs to reap
        found.append(Leak("zombie" if zombie else "process", (process.pid, process.born), str(process)))
    return found


def _descriptors() -> list[Leak]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of listdir() itself
        found.append(Leak("descriptor", (int(name), target), f"{name} -> {target}"))
    return found


def _threads() -> list[Leak]:
    """Threads of the kernel's view, so that those started in C count too."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            kernel_name = Path(f"/proc/self/task/{task}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(Leak("thread", int(task), f"thread {task} ({names.get(int(task), kernel_name)})"))
    return found


def _shm() -> list[Leak]:
    return [Leak("shm", name, f"{SHM}/{name}") for name in os.listdir(SHM)]


def _used_by_strangers(name: str) -> bool:
    """Whether a process outside of this run has the entry mapped or open: then it is not a leak of ours."""
    ours = {process.pid for process in processes.descendants(os.getppid() if guarded else os.getpid())} | {os.getpid()}
    try:
        entry = os.stat(SHM / name)
    except FileNotFoundError:
        return True  # gone, thanks to somebody
    # By number: a semaphore of the C library is made under another name, which stays the one in maps.
    for process in processes.all_processes():
        if process.pid in ours:
            continue
        try:
            if any(_is_mapped(line, entry) for line in Path(f"/proc/{process.pid}/maps").read_bytes().splitlines()):
                return True
            if any(os.path.samestat(os.stat(fd), entry) for fd in Path(f"/proc/{process.pid}/fd").iterdir()):
                return True
        except OSError:
            continue  # it ended, or belongs to another user, who then cannot have our entry
    return False


def _is_mapped(line: bytes, entry: os.stat_result) -> bool:
    """Whether a line of /proc/PID/maps is about this file."""
    _, _, _, device, number, *_ = line.split(None, 5)
    return device == b"%02x:%02x" % (os.major(entry.st_dev), os.minor(entry.st_dev)) and int(number) == entry.st_ino


#: Set by conftest.py when a guardian stands above this process: then its other children are our orphans.
guarded = False


def clean_up(leaks: list[Leak]) -> None:
    """End leaked processes, so that each is reported once and burdens no other test."""
    for leak in leaks:
        if leak.kind not in ("process", "zombie"):
            continue
        pid, born = leak.key  # type: ignore[misc]
        process = processes.info(pid)
        if process is None or process.born != born:
            continue
        processes.kill([process])
        if process.parent == os.getpid():
            os.waitpid(pid, 0)
