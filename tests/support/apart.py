# SPDX-License-Identifier: PSF-2.0
"""Run a function of a test module in an interpreter of its own, with limits or a file system of its own.

    result = apart.run(count_locks, 100_000, limits={resource.RLIMIT_NOFILE: 1024})

The function must stand at the top level of its module, take and return what JSON can say. The interpreter treats
warnings as errors; a byte on its stderr or a bad end is a failure of the test.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE = 1, 4096, 1 << 14, 1 << 18


class EndedBadly(AssertionError):
    """The interpreter ended with another status than 0, or wrote to stderr."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        super().__init__(f"exit status {status}\n{output}\n{errors}")
        self.status = status
        self.errors = errors


def run(
    function: Callable[..., Any],
    *args: Any,
    limits: Mapping[int, int] | None = None,
    shm: str | None = None,
    meminfo: str | None = None,
    mounts: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    any_stderr: bool = False,
) -> Any:
    """Call function(*args) in a fresh interpreter and return its result.

    Args:
        function: of the top level of an importable module.
        args: for the function, by way of JSON.
        limits: RLIMIT constants and the soft and hard limit for each, set before anything is imported.
        shm: what /dev/shm shall be: "absent", or a size that mount(8) understands.
        meminfo: text that /proc/meminfo shall have.
        mounts: files or folders (values) to be seen at other places (keys).
        env: variables to be added to the environment.
        timeout: seconds, a detector of hangs.
        any_stderr: do not mind what it writes to stderr.

    Raises:
        EndedBadly: with the exit status (negative: the signal).
    """
    task = {
        "module": function.__module__,
        "function": function.__qualname__,
        "args": args,
        "path": sys.path,
        "limits": sorted((limits or {}).items()),
        "shm": shm,
        "meminfo": meminfo,
        "mounts": dict(mounts or {}),
    }
    if shm or meminfo or mounts:
        need_namespaces()
    environment = {**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-m", "tests.support.apart"]
    done = subprocess.run(
        command, input=json.dumps(task), env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode != 0 or (done.stderr and not any_stderr):
        raise EndedBadly(done.returncode, done.stdout[-2000:], done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


def need_namespaces() -> None:
    """Skip the test where this process may not have a mount namespace of its own."""
    probe = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x00020000) != 0)"
    if subprocess.run([sys.executable, "-c", probe], check=False).returncode != 0:
        pytest.skip("needs the right to make a mount namespace (root, or CAP_SYS_ADMIN)")


def _call(function: str, *args: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}{args}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    _call("mount", *words, ctypes.c_ulong(flags), os.fsencode(options))


def _without_shm() -> None:
    """A /dev with the usual devices and no shm."""
    new = "/mnt"  # covered within this namespace only
    _mount("none", new, "tmpfs", 0)
    for name in ("null", "zero", "urandom", "random", "tty"):
        Path(new, name).touch()
        _mount(f"/dev/{name}", f"{new}/{name}", None, MS_BIND)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        Path(new, name).symlink_to(target)
    _mount("none", new, None, MS_RDONLY | 32)  # 32: MS_REMOUNT; nobody makes /dev/shm again
    _mount(new, "/dev", None, MS_BIND | MS_REC)


def _change_file_system(task: Mapping[str, Any]) -> None:
    _call("unshare", CLONE_NEWNS)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    for place, source in task["mounts"].items():
        _mount(source, place, None, MS_BIND)
    if task["meminfo"]:
        _mount("none", "/mnt", "tmpfs", 0)
        Path("/mnt/meminfo").write_text(task["meminfo"])
        _mount("/mnt/meminfo", "/proc/meminfo", None, MS_BIND)
    if task["shm"] == "absent":
        _without_shm()
    elif task["shm"]:
        _mount("none", "/dev/shm", "tmpfs", 0, f"size={task['shm']}")


def _main() -> None:
    task = json.load(sys.stdin)
    sys.path[:] = task["path"]
    if task["shm"] or task["meminfo"] or task["mounts"]:
        _change_file_system(task)
    for which, limit in task["limits"]:
        resource.setrlimit(which, (limit, limit))
    function = getattr(importlib.import_module(task["module"]), task["function"])
    result = function(*task["args"])
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    _main()
