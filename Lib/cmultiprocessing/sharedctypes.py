# SPDX-License-Identifier: PSF-2.0
"""ctypes objects in shared memory. Not implemented yet."""
from __future__ import annotations

from ._later import missing_function

__all__ = ["RawValue", "RawArray", "Value", "Array", "copy", "synchronized"]

RawValue = missing_function(__name__, "RawValue")
RawArray = missing_function(__name__, "RawArray")
Value = missing_function(__name__, "Value")
Array = missing_function(__name__, "Array")
copy = missing_function(__name__, "copy")
synchronized = missing_function(__name__, "synchronized")
