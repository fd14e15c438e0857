# SPDX-License-Identifier: PSF-2.0
"""Where Unix sockets lie that nobody named: each in a directory of its own, mode 0700.

    <temporary directory>/cmp-xxxxxxxx/listener

The process that made the directory holds a lock (flock) on it for as long as it lives, or any process that inherited
the socket. The kernel drops the lock with the last of them, also at SIGKILL. So whoever makes a directory later can
tell those that were left behind, and removes them.
"""
from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_PATH", "PrivateDirectory"]

#: Bytes of a Unix socket's path: 108 with the final NUL.
MAX_PATH = 107
_PREFIX = "cmp-"
_NAME = "listener"
# "/cmp-xxxxxxxx/listener": mkdtemp adds eight characters.
_OWN_LENGTH = len(f"/{_PREFIX}") + 8 + len(f"/{_NAME}")
_ATTEMPTS = 10

_swept: set[str] = set()


class PrivateDirectory:
    """A directory for one socket, with the lock that says that it is in use.

    Raises:
        OSError: no directory is short enough and can be written to.
    """

    _lock = -1

    def __init__(self) -> None:
        problems = []
        for parent in _parents():
            try:
                self.path, self._lock = _make(parent)
            except OSError as error:
                problems.append(f"{parent}: {error.strerror}")
                continue
            #: Where the socket goes.
            self.socket_path = os.path.join(self.path, _NAME)
            _sweep_once(parent)
            return
        raise OSError(f"no directory for a socket can be made, paths are limited to {MAX_PATH} bytes ({problems})")

    def remove(self) -> None:
        """Remove it and the socket in it. What is gone already is no error."""
        _remove(self.path)
        self._unlock()

    def remove_with_content(self) -> None:
        """Remove it and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __del__(self) -> None:
        # In a process that was forked from the one that made it: the files are not its business.
        self._unlock()


def _parents() -> Iterator[str]:
    """Directories to try, the best first; those whose paths are too long are left out."""
    tried = set()
    for find in (tempfile.gettempdir, _runtime_directory, lambda: "/tmp", lambda: "/var/tmp", os.getcwd):
        try:
            parent = os.path.abspath(find() or "/tmp")
        except OSError:
            continue  # no usable temporary directory, or the working directory was removed
        if parent not in tried and len(os.fsencode(parent)) + _OWN_LENGTH <= MAX_PATH:
            tried.add(parent)
            yield parent


def _runtime_directory() -> str | None:
    return os.environ.get("XDG_RUNTIME_DIR")


def _make(parent: str) -> tuple[str, int]:
    """A new directory and the descriptor that holds its lock.

    Between the making and the lock a sweep may take it for one that was left behind: then another one is made.
    """
    for _ in range(_ATTEMPTS):
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        lock = _lock_directory(path)
        if lock is not None:
            return path, lock
    raise OSError(f"directories made in {parent} vanish at once")


def _lock_directory(path: str) -> int | None:
    """A descriptor that holds the lock of the directory `path`; None where somebody else holds it, or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Removed before the lock was ours: the lock is one on nothing.
        if os.path.samestat(os.fstat(fd), os.lstat(path)):
            return fd
    except OSError:
        pass  # locked by its owner, or gone
    os.close(fd)
    return None


def _remove(path: str) -> None:
    for remove, victim in ((os.unlink, os.path.join(path, _NAME)), (os.rmdir, path)):
        try:
            remove(victim)
        except OSError:
            pass  # gone already, or the user keeps something there: nothing that a close() could mend


def _sweep_once(parent: str) -> None:
    """Remove what killed processes of this user left in `parent`; once per process, listing it may take a while."""
    if parent in _swept:
        return
    _swept.add(parent)
    try:
        names = [name for name in os.listdir(parent) if name.startswith(_PREFIX)]
    except OSError:
        return  # writable, but not readable
    for name in names:
        _remove_if_left_behind(os.path.join(parent, name))


def _remove_if_left_behind(path: str) -> None:
    try:
        status = os.lstat(path)
    except OSError:
        return
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or stat.S_IMODE(status.st_mode) != 0o700:
        return
    lock = _lock_directory(path)
    if lock is not None:
        try:
            _remove(path)
        finally:
            os.close(lock)
