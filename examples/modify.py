# SPDX-License-Identifier: PSF-2.0
"""A child changes ctypes objects in shared memory, and the parent sees it.

    python examples/modify.py                   # or: --start-method spawn

After the example in the multiprocessing documentation, 'The multiprocessing.sharedctypes module': a number with a lock
of its own, a number without one, and a text and an array of structures that share a lock, so that both can be changed
in one go.
"""

from __future__ import annotations

import argparse
from ctypes import Structure, c_double
from typing import Any

import cmultiprocessing as multiprocessing
from cmultiprocessing.sharedctypes import Array, Value


class Point(Structure):
    """A place in the plane."""

    _fields_ = [("x", c_double), ("y", c_double)]


def modify(number: Any, share: Any, text: Any, points: Any) -> None:
    """Square the numbers, shout the text."""
    number.value **= 2
    share.value **= 2
    with text.get_lock():  # the lock of the points, too
        text.value = text.value.upper()
        for point in points:
            point.x **= 2
            point.y **= 2


def main() -> None:
    """Make the objects, have a child change them, print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--start-method", choices=["fork", "spawn", "forkserver"], default="fork")
    context = multiprocessing.get_context(parser.parse_args().start_method)

    number = Value("i", 7)
    share = Value(c_double, 1.0 / 3.0, lock=False)
    text = Array("c", b"hello world", lock=context.RLock())
    points = Array(Point, [(1.875, -6.25), (-5.75, 2.0), (2.375, 9.5)], lock=text.get_lock())
    child = context.Process(target=modify, args=(number, share, text, points))
    child.start()
    child.join()

    print(number.value)
    print(share.value)
    print(text.value.decode())
    print([(point.x, point.y) for point in points])


if __name__ == "__main__":
    main()
