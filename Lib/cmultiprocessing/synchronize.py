# SPDX-License-Identifier: PSF-2.0
"""Locks, semaphores, conditions, events and barriers that processes share: native types.

Every class takes ``ctx`` by keyword, as the standard library's do; one object works under every start method.
"""
from __future__ import annotations

from ._cmultiprocessing import Lock, RLock
from ._later import missing_class

__all__ = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"]

Semaphore = missing_class(__name__, "Semaphore")
BoundedSemaphore = missing_class(__name__, "BoundedSemaphore")
Condition = missing_class(__name__, "Condition")
Event = missing_class(__name__, "Event")
Barrier = missing_class(__name__, "Barrier")
