# SPDX-License-Identifier: PSF-2.0
"""Queues from inside: ring_test.c, plain, under ASan and UBSan, and, where threads share one, under TSan."""

from __future__ import annotations

import pytest

from tests.support import native

PROGRAM = "ring_test"
TESTS = native.tests_of(PROGRAM)


@pytest.mark.watchdog(400)
@pytest.mark.parametrize("flavour", ["plain", "address"])
@pytest.mark.parametrize("test", TESTS)
def test_ring(test: str, flavour: str) -> None:
    native.run(PROGRAM, flavour, test)


# ThreadSanitizer sees one process: what processes do to each other looks like a race to it.
@pytest.mark.watchdog(400)
@pytest.mark.parametrize("test", [test for test in TESTS if test.startswith("threads_")])
def test_ring_threads(test: str) -> None:
    native.run(PROGRAM, "thread", test)
