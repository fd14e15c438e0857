# SPDX-License-Identifier: PSF-2.0
"""Something that happens between two instructions of the package: a signal handler, a finalizer, an exception.

Python runs signal handlers and collections of garbage between bytecodes. A timer hits few places; here each of them is
visited, one per call, through the same hook that debuggers use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


def happens(place: int, event: Callable[[], object], call: Callable[[], object]) -> bool:
    """Run `call`, and `event` once, before the instruction number `place` of the package's Python code.

    What event raises, call raises from there.

    Returns:
        Whether call had so many instructions.
    """
    seen = 0

    def trace(frame: FrameType, kind: str, _: object) -> Any:
        nonlocal seen
        if not str(frame.f_globals.get("__name__")).startswith("cmultiprocessing"):
            return None
        frame.f_trace_opcodes = True
        if kind == "opcode":
            seen += 1
            if seen == place:
                event()
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 looks, when tracing begins, whether anybody wants that
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return seen >= place


def places(step: int = 1) -> Iterator[int]:
    """1, 2, 3 ... for `happens`, which says when it is enough; that there are some, and an end, is looked at here."""
    yield from range(1, 3000, step)
    raise AssertionError("3000 instructions, and no end")
