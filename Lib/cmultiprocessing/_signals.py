# SPDX-License-Identifier: PSF-2.0
"""What a forked child must not inherit of its parent's signal handling.

Handlers written in Python are inherited by fork, as documented. But the file through which the interpreter tells of
signals (signal.set_wakeup_fd) is the parent's: with it a child's signals wake up the parent. And the handlers of an
asyncio event loop do nothing but use that file: a child that keeps them cannot be terminated.
"""
from __future__ import annotations

import sys
from _functools import partial  # type: ignore[import-not-found]  # not functools: that needs collections
from _signal import SIG_DFL, getsignal, set_wakeup_fd, signal, valid_signals  # type: ignore[import-not-found]

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["work_for_child"]

# A partial, because it is C: a forked child pays for the pages of what it runs.
_forget_file: Callable[[], object] = partial(set_wakeup_fd, -1)


def work_for_child() -> Callable[[], object] | None:
    """In the parent: what a child that is about to be forked has to do first, None where there is nothing.

    Whether there is a file cannot be asked without taking it away for a moment.
    """
    if "signal" not in sys.modules:
        return None
    asyncio = sys.modules.get("asyncio.unix_events")
    if asyncio is None:
        return _forget_file
    of_the_loop = [number for number in valid_signals() if getsignal(number) is asyncio._sighandler_noop]
    return partial(_leave_loop, of_the_loop) if of_the_loop else _forget_file


def _leave_loop(numbers: Iterable[int]) -> None:
    """In the child: signals that the parent's loop handles get their default action.

    Args:
        numbers: of these signals.
    """
    set_wakeup_fd(-1)
    for number in numbers:
        signal(number, SIG_DFL)
