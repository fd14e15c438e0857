# SPDX-License-Identifier: PSF-2.0
"""Named blocks of shared memory. Not implemented yet."""
from __future__ import annotations

from ._later import missing_class

__all__ = ["SharedMemory", "ShareableList"]

SharedMemory = missing_class(__name__, "SharedMemory")
ShareableList = missing_class(__name__, "ShareableList")
