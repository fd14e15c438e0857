# SPDX-License-Identifier: PSF-2.0
"""Blocks of shared memory. A thin coat over the family's allocator: there are no arenas to look after.

A block lives as long as anything looks at it: the BufferWrapper itself, a memoryview, a ctypes object, a NumPy array,
a pickle on its way, or the same block in another process.
"""
from __future__ import annotations

from . import _cmultiprocessing

__all__ = ["BufferWrapper"]


class Arena:
    """One piece of shared memory.

    Args:
        size: bytes.
        fd: accepted for compatibility; -1, the piece has no descriptor of its own.

    Raises:
        ValueError: fd is a descriptor: memory of others cannot become part of the family's.

    Since 2.6; not documented there, but used.
    """

    def __init__(self, size: int, fd: int = -1) -> None:
        if fd != -1:
            raise ValueError(f"Arena: descriptor {fd} cannot be used, shared memory has one for all")
        self.size = size
        self.fd = fd
        self.buffer = BufferWrapper(size).create_memoryview()


class Heap:
    """Memory in portions, for programs that ask the standard library's heap. Every portion is an arena of its own.

    Args:
        size: accepted for compatibility: memory is not set aside.

    Since 2.6; not documented there, but used.
    """

    def __init__(self, size: int = 4096) -> None:
        self._size = size

    def malloc(self, size: int) -> tuple[Arena, int, int]:
        """A zeroed portion.

        Args:
            size: bytes.

        Returns:
            (arena, start, stop): the portion is arena.buffer[start:stop].

        Raises:
            ValueError: a negative size.
            OverflowError: larger than an address can say.
            MemoryLimitError: more than the machine or a control group has left.
        """
        return Arena(size), 0, size

    def free(self, block: tuple[Arena, int, int]) -> None:
        """Nothing: a portion is given back when nothing refers to its arena any more."""


#: Zeroed memory with the buffer interface: BufferWrapper(size).create_memoryview(). A native type.
BufferWrapper = _cmultiprocessing.load_block_type()
BufferWrapper._heap = Heap()  # may be assigned, as there; nothing is taken from it
