# SPDX-License-Identifier: PSF-2.0
"""CPython's multiprocessing as a native library."""
from __future__ import annotations

__all__: list[str] = []
