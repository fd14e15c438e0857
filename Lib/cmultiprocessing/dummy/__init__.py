# SPDX-License-Identifier: PSF-2.0
"""The package's API on threads. Not implemented yet."""
from __future__ import annotations

from .._later import missing_class, missing_function
from . import connection

__all__ = [
    "Process", "current_process", "active_children", "freeze_support", "Lock", "RLock", "Semaphore", "BoundedSemaphore",
    "Condition", "Event", "Barrier", "Queue", "Manager", "Pipe", "Pool", "JoinableQueue",
]  # fmt: skip

Process = missing_class(__name__, "Process")
current_process = missing_function(__name__, "current_process")
active_children = missing_function(__name__, "active_children")
freeze_support = missing_function(__name__, "freeze_support")
Lock = missing_function(__name__, "Lock")
RLock = missing_function(__name__, "RLock")
Semaphore = missing_function(__name__, "Semaphore")
BoundedSemaphore = missing_function(__name__, "BoundedSemaphore")
Condition = missing_function(__name__, "Condition")
Event = missing_function(__name__, "Event")
Barrier = missing_function(__name__, "Barrier")
Queue = missing_function(__name__, "Queue")
JoinableQueue = missing_function(__name__, "JoinableQueue")
Manager = missing_function(__name__, "Manager")
Pipe = connection.Pipe
Pool = missing_function(__name__, "Pool")
Namespace = missing_class(__name__, "Namespace")
Value = missing_class(__name__, "Value")
Array = missing_function(__name__, "Array")
