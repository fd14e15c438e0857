# SPDX-License-Identifier: PSF-2.0
"""Windows is not supported; this module exists because tools look for its name."""
from __future__ import annotations

__all__: list[str] = []
