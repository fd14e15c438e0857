# SPDX-License-Identifier: PSF-2.0
"""A child that dies with its parent, and one that notices it.

The leash is a pipe. The parent keeps the write end and writes nothing; the child has the read end. When the parent
dies, however it dies, the kernel closes the write end. A child that only wants to know polls its end. One that has to
die arms it: O_ASYNC with F_SETSIG makes the kernel send SIGKILL at that moment, without a thread and at any
instruction of the child. (PR_SET_PDEATHSIG follows the thread that started the child, not the process.)

What must stay true: nobody but the parent has the write end. It is close-on-exec, and every forked child, also one of
a bare fork() in C, closes those that it inherited.
"""
from __future__ import annotations

from ._cmultiprocessing import leash_arm as arm
from ._cmultiprocessing import private_close as drop
from ._cmultiprocessing import private_keep as keep_private
from ._cmultiprocessing import private_pipe as new

__all__ = ["new", "drop", "keep_private", "arm"]
