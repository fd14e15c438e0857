# SPDX-License-Identifier: PSF-2.0
"""Exceptions of the whole package; `cmultiprocessing.context` and `cmultiprocessing` re-export them."""
from __future__ import annotations

__all__ = ["ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"]


class ProcessError(Exception):
    """Base class of the package's own exceptions.

    Since multiprocessing 2.6; multiprocessing documentation, 'Exceptions'.
    """


class BufferTooShort(ProcessError):
    """The buffer given to `Connection.recv_bytes_into` is smaller than the message.

    `args[0]` is the whole message, as bytes. Since 2.6; multiprocessing documentation, 'Exceptions'.
    """


class TimeoutError(ProcessError):
    """A method with a timeout ran out of it. Not the built-in TimeoutError.

    Since 2.6; multiprocessing documentation, 'Exceptions'.
    """


class AuthenticationError(ProcessError):
    """The peer does not know the authentication key. Since 2.6; multiprocessing documentation, 'Exceptions'."""


# Users see these classes, and pickle them, as names of the context module.
for _class in (ProcessError, BufferTooShort, TimeoutError, AuthenticationError):
    _class.__module__ = f"{__package__}.context"
del _class
