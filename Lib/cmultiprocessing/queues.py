# SPDX-License-Identifier: PSF-2.0
"""Queues. Not implemented yet."""
from __future__ import annotations

from ._later import missing_class

__all__ = ["Queue", "SimpleQueue", "JoinableQueue"]

Queue = missing_class(__name__, "Queue")
SimpleQueue = missing_class(__name__, "SimpleQueue")
JoinableQueue = missing_class(__name__, "JoinableQueue")
