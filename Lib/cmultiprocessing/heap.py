# SPDX-License-Identifier: PSF-2.0
"""Blocks of shared memory for ctypes objects. Not implemented yet."""
from __future__ import annotations

from ._later import missing_class

__all__ = ["BufferWrapper"]

Arena = missing_class(__name__, "Arena")
Heap = missing_class(__name__, "Heap")
BufferWrapper = missing_class(__name__, "BufferWrapper")
