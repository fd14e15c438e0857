# SPDX-License-Identifier: PSF-2.0
"""Pools of worker processes. Not implemented yet."""
from __future__ import annotations

from ._later import missing_class

__all__ = ["Pool", "ThreadPool"]

Pool = missing_class(__name__, "Pool")
ThreadPool = missing_class(__name__, "ThreadPool")
AsyncResult = missing_class(__name__, "AsyncResult")
