# SPDX-License-Identifier: PSF-2.0
"""Value, Queue, Condition, Event, Semaphore, Barrier, Array and a process that ends with an error, one after the other.

python examples/synchronize.py [fork|spawn|forkserver]
"""

from __future__ import annotations

import random
import sys
from typing import Any

import cmultiprocessing as multiprocessing
from cmultiprocessing.queues import Empty


def increment(running: Any, lock: Any) -> None:
    """A counter of running processes that never says more than there are."""
    with lock, running.get_lock():
        running.value += 1
    with running.get_lock():
        running.value -= 1


def try_value(ctx: Any) -> str:
    """Five processes count themselves in and out."""
    running, lock = ctx.Value("i", 0), ctx.RLock()
    _run(ctx, increment, [(running, lock)] * 5)
    return f"still counted in: {running.value}"


def produce(queue: Any) -> None:
    """Items in random order, then the end."""
    items = list(range(10))
    random.shuffle(items)
    for item in items:
        queue.put(item)
    queue.put("STOP")


def try_queue(ctx: Any) -> str:
    """Take until the end."""
    queue = ctx.Queue()
    process = ctx.Process(target=produce, args=(queue,))
    process.start()
    got = list(iter(queue.get, "STOP"))
    process.join()
    try:
        queue.get_nowait()
    except Empty:
        return f"got {sorted(got)}, and nothing after STOP"
    return "something came after STOP"


def wait_for_sign(condition: Any, state: Any) -> None:
    """Wait until the parent has set the state, then answer."""
    with condition:
        condition.wait_for(lambda: state.value == 1)
        state.value = 2
        condition.notify()


def try_condition(ctx: Any) -> str:
    """Ping and pong by a condition."""
    condition, state = ctx.Condition(), ctx.Value("i", 0, lock=False)
    process = ctx.Process(target=wait_for_sign, args=(condition, state))
    process.start()
    with condition:
        state.value = 1
        condition.notify()
        answered = condition.wait_for(lambda: state.value == 2, timeout=30)
    process.join()
    return f"answered: {answered}"


def wait_for_event(event: Any, answers: Any) -> None:
    """Say whether the event came."""
    answers.put(event.wait(30))


def try_event(ctx: Any) -> str:
    """One event wakes all who wait for it."""
    event, answers = ctx.Event(), ctx.SimpleQueue()
    processes = [ctx.Process(target=wait_for_event, args=(event, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    event.set()
    woken = sum(answers.get() for _ in processes)
    for process in processes:
        process.join()
    return f"woken: {woken}"


def use_desk(desks: Any, busy: Any, most: Any) -> None:
    """Use one of few desks, and note how many were in use at once."""
    with desks:
        with busy.get_lock():
            busy.value += 1
            most.value = max(most.value, busy.value)
        with busy.get_lock():
            busy.value -= 1


def try_semaphore(ctx: Any) -> str:
    """Eight processes, two desks."""
    desks, busy, most = ctx.Semaphore(2), ctx.Value("i", 0), ctx.Value("i", 0)
    _run(ctx, use_desk, [(desks, busy, most)] * 8)
    return f"never more than two at once: {most.value <= 2}"


def meet(barrier: Any, arrived: Any) -> None:
    """Nobody goes on before all are there."""
    with arrived.get_lock():
        arrived.value += 1
    barrier.wait(30)
    if arrived.value != barrier.parties:
        raise SystemExit("somebody was missing")


def try_barrier(ctx: Any) -> str:
    """Three processes meet."""
    exitcodes = _run(ctx, meet, [(ctx.Barrier(3), ctx.Value("i", 0))] * 3)
    return f"exit codes: {exitcodes}"


def scale(values: Any, numbers: Any, factor: int) -> None:
    """Change shared numbers in place."""
    values.value *= factor
    for i in range(len(numbers)):
        numbers[i] *= factor


def try_shared_numbers(ctx: Any) -> str:
    """A child changes what the parent sees."""
    value, numbers = ctx.Value("d", 1.5), ctx.Array("i", range(5))
    _run(ctx, scale, [(value, numbers, 2)])
    return f"{value.value} {numbers[:]}"


def fail() -> None:
    """End with an exit code of one's own."""
    sys.exit(3)


def try_exit_code(ctx: Any) -> str:
    """The parent learns how a child ended."""
    return f"exit code: {_run(ctx, fail, [()])[0]}"


def _run(ctx: Any, target: Any, arguments: list[tuple[Any, ...]]) -> list[int]:
    processes = [ctx.Process(target=target, args=args) for args in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


TRIALS = (
    try_value, try_queue, try_condition, try_event, try_semaphore, try_barrier, try_shared_numbers, try_exit_code,
)  # fmt: skip


def main() -> None:
    """Run all of them."""
    ctx = multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else None)
    for trial in TRIALS:
        print(f"{trial.__name__[4:]}: {trial(ctx)}", flush=True)


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
