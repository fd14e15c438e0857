# SPDX-License-Identifier: PSF-2.0
"""What dead processes left is given back, and nothing that somebody still needs, whoever collects."""

from __future__ import annotations

import os
import signal
from types import ModuleType
from typing import Any

SIZE = 100_000  # bytes: too large for a record, so the queue only names it


def put_and_die(queue: Any) -> None:
    queue.put(b"x" * SIZE)
    os.kill(os.getpid(), signal.SIGKILL)


def collect(lock: Any) -> None:
    """Make and drop shared objects until collections happen; no queue is known here."""
    import pickle

    import cmultiprocessing

    for _ in range(3000):
        pickle.dumps(cmultiprocessing.Lock())


def test_item_of_a_dead_producer_survives_a_process_that_knows_no_queue(mp: ModuleType) -> None:
    context = mp.get_context("spawn")
    queue = context.Queue()
    producer = context.Process(target=put_and_die, args=(queue,))
    producer.start()
    producer.join(30)
    assert producer.exitcode == -signal.SIGKILL
    stranger = context.Process(target=collect, args=(context.Lock(),))
    stranger.start()
    stranger.join(30)
    assert stranger.exitcode == 0
    assert queue.get(timeout=10) == b"x" * SIZE
