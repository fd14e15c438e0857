# SPDX-License-Identifier: PSF-2.0
"""Lending descriptors to processes that run already. Not implemented yet."""
from __future__ import annotations

from ._later import missing_class, missing_function

__all__ = ["DupFd", "stop"]

DupFd = missing_class(__name__, "DupFd")
stop = missing_function(__name__, "stop")
