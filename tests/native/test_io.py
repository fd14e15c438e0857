# SPDX-License-Identifier: PSF-2.0
"""Frames, turns and parcels from inside: plain, under ASan and UBSan, and, where threads share them, under TSan."""

from __future__ import annotations

import pytest

from tests.support import native

PROGRAM = "io_test"
TESTS = native.tests_of(PROGRAM)


@pytest.mark.watchdog(400)
@pytest.mark.parametrize("flavour", ["plain", "address"])
@pytest.mark.parametrize("test", TESTS)
def test_io(test: str, flavour: str) -> None:
    native.run(PROGRAM, flavour, test)


# ThreadSanitizer sees one process: what processes do to each other looks like a race to it.
@pytest.mark.watchdog(400)
@pytest.mark.parametrize("test", [test for test in TESTS if test.startswith("threads_")])
def test_io_threads(test: str) -> None:
    native.run(PROGRAM, "thread", test)
