# SPDX-License-Identifier: PSF-2.0
"""A child that dies with its parent, and one that notices it.

The leash is a pipe. The parent keeps the write end and writes nothing; the child has the read end. When the parent
dies, however it dies, the kernel closes the write end. A child that only wants to know polls its end. One that has to
die arms it: O_ASYNC with F_SETSIG makes the kernel send SIGKILL at that moment, without a thread and at any
instruction of the child. (PR_SET_PDEATHSIG follows the thread that started the child, not the process.)

What must stay true: nobody but the parent has the write end. It is close-on-exec, and every forked child, also one of
a bare os.fork(), closes those that it inherited.
"""
from __future__ import annotations

import os
from _thread import RLock

__all__ = ["new", "drop", "keep_private", "arm"]

_SIGKILL = 9

# RLock: a signal handler may start a process while this thread makes a leash. Held during every fork.
_lock = RLock()

# Descriptors that forked children close. Written under _lock, so that no fork comes between making and adding one.
_private: set[int] = set()


def new() -> tuple[int, int]:
    """Make a leash.

    Returns:
        The child's end and the parent's end, both close-on-exec.

    Raises:
        OSError: no descriptors left.
    """
    with _lock:
        read_end, write_end = os.pipe()
        _private.add(write_end)
    return read_end, write_end


def keep_private(fd: int) -> None:
    """Have this process's forked children close `fd`."""
    with _lock:
        _private.add(fd)


def drop(fd: int) -> None:
    """Close a descriptor of `new` or `keep_private`; one that a fork closed already is left alone."""
    with _lock:
        if fd in _private:
            _private.discard(fd)
            os.close(fd)


def arm(read_end: int) -> None:
    """Die by SIGKILL when the parent dies. At once if it is dead.

    Args:
        read_end: the child's end. It stays open until this process ends.
    """
    import fcntl

    fcntl.fcntl(read_end, fcntl.F_SETSIG, _SIGKILL)
    fcntl.fcntl(read_end, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(read_end, fcntl.F_GETFL)
    fcntl.fcntl(read_end, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    # After arming, not before: a parent that dies between would be missed by both.
    try:
        os.read(read_end, 1)
    except BlockingIOError:
        return  # the parent lives
    os.kill(os.getpid(), _SIGKILL)


def _after_fork_in_child() -> None:
    _lock._at_fork_reinit()  # type: ignore[attr-defined]
    for fd in _private:
        try:
            os.close(fd)
        except OSError:
            pass  # the program closed all descriptors: gone is what we want
    _private.clear()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)
