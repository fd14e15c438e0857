# SPDX-License-Identifier: PSF-2.0
"""Connections between threads. Not implemented yet."""
from __future__ import annotations

from .._later import missing_class, missing_function

__all__ = ["Client", "Listener", "Pipe"]

Client = missing_function(__name__, "Client")
Pipe = missing_function(__name__, "Pipe")
Listener = missing_class(__name__, "Listener")
