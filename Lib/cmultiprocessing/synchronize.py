# SPDX-License-Identifier: PSF-2.0
"""Locks, semaphores, conditions, events, barriers. Not implemented yet."""
from __future__ import annotations

from ._later import missing_class

__all__ = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"]

Lock = missing_class(__name__, "Lock")
RLock = missing_class(__name__, "RLock")
Semaphore = missing_class(__name__, "Semaphore")
BoundedSemaphore = missing_class(__name__, "BoundedSemaphore")
Condition = missing_class(__name__, "Condition")
Event = missing_class(__name__, "Event")
Barrier = missing_class(__name__, "Barrier")
