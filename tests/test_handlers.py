# SPDX-License-Identifier: PSF-2.0
"""Signal handlers, and what they raise, at every instruction of calls that follow a child."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support.between import happens, places

CODE = 5


def ended(ctx: Any) -> Any:
    """A process that nobody has asked yet, and that can be reaped."""
    from cmultiprocessing.connection import wait

    process = ctx.Process(target=sys.exit, args=(CODE,))  # a child need not import this module
    process.start()
    wait([process.sentinel])
    return process


@pytest.fixture(params=["fork", "forkserver"])  # spawn follows its children as fork does, and starts them slowly
def quick(request: pytest.FixtureRequest, mp: ModuleType) -> Any:
    """A context whose processes start in a few milliseconds."""
    return mp.get_context(request.param)


CALLS: dict[str, Callable[[Any], object]] = {
    "join": lambda process: process.join(),
    "join with a timeout": lambda process: process.join(30),
    "is_alive": lambda process: process.is_alive(),
    "exitcode": lambda process: process.exitcode,
    "terminate": lambda process: process.terminate(),
    "repr": repr,
    "close": lambda process: process.close(),
}


@pytest.mark.parametrize("asked", ["is_alive", "join", "exitcode"])
@pytest.mark.parametrize("name", CALLS)
def test_a_handler_asks_at_every_instruction(quick: Any, name: str, asked: str) -> None:
    """It gets an answer, the call that it interrupts goes on, and both know the exit code in the end."""
    for place in places():
        process = ended(quick)
        codes: list[int | None] = []

        def handler(process: Any = process, codes: list[int | None] = codes) -> None:
            with contextlib.suppress(ValueError):  # it is closed
                CALLS[asked](process)
                codes.append(process.exitcode)

        more = happens(place, handler, lambda process=process: CALLS[name](process))  # type: ignore[misc]
        assert codes in ([], [CODE]), place  # it has ended, and whoever asks is told how
        if name != "close":
            assert process.exitcode == CODE, place
            process.close()
        if not more:
            assert place > 10
            return


class Interrupt(BaseException):
    """What a handler raises."""


def interrupt() -> None:
    raise Interrupt


@pytest.mark.parametrize("name", CALLS)
def test_a_handler_raises_at_every_instruction(quick: Any, name: str) -> None:
    """What was known is not lost, and nothing stays locked, open or half closed."""
    for place in places():
        process = ended(quick)
        more = True
        with contextlib.suppress(Interrupt):
            more = happens(place, interrupt, lambda process=process: CALLS[name](process))  # type: ignore[misc]
        if name == "close":
            with contextlib.suppress(ValueError):
                assert process.exitcode == CODE, place
        else:
            process.join(30)
            assert process.exitcode == CODE, place
        process.close()
        if not more:
            return


@pytest.mark.parametrize("asked", ["is_alive", "join"])
def test_a_child_dies_at_every_instruction(quick: Any, asked: str) -> None:
    """It lives when it is asked first, is killed before the next instruction, and a handler asks before that one."""
    for place in places():
        process = quick.Process(target=time.sleep, args=(600,))
        process.start()

        def handler(process: Any = process) -> None:
            os.kill(process.pid, signal.SIGKILL)
            CALLS[asked](process)

        more = happens(place, handler, process.is_alive)
        if not more:
            process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, place
        process.close()
        if not more:
            assert place > 10
            return


@contextlib.contextmanager
def timer(handler: Callable[[], object], interval: float) -> Iterator[None]:
    """Call it again and again, in this thread."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["join", "is_alive", "exitcode", "terminate", "close"])
def test_a_handler_asks_all_the_time(ctx: Any, name: str) -> None:
    """While a child ends by itself, wherever its parent is then."""
    for _ in range(5):
        process = ctx.Process(target=sys.exit, args=(CODE,))  # a child need not import this module
        process.start()
        answers: list[tuple[int, bool]] = []  # how many there were when it was asked; whether it was alive

        def ask(process: Any = process, answers: list[tuple[int, bool]] = answers) -> None:
            before = len(answers)
            with contextlib.suppress(ValueError):  # closed
                answers.append((before, process.is_alive()))

        with timer(ask, 0.0002):
            if name in ("join", "close"):
                process.join()
            else:
                while process.is_alive():
                    if name != "terminate":
                        CALLS[name](process)
            if name in ("terminate", "close"):
                CALLS[name](process)
            else:
                assert process.exitcode == CODE
        process.close()
        # Once dead, always dead. A handler may interrupt another one, which got its answer before and notes it later.
        for before, alive in answers:
            assert not alive or all(was_alive for _, was_alive in answers[:before])


def test_a_handler_closes_a_listener_at_every_instruction(mp: ModuleType) -> None:
    """As a server's handler of SIGTERM does, while the server waits: that ends, with the documented error."""
    from cmultiprocessing.connection import Listener

    for place in places():
        listener = Listener()
        reception = listener._listener._reception
        more = True
        with contextlib.suppress(OSError):
            more = happens(
                place,
                listener.close,
                lambda reception=reception: reception.next(time.monotonic() + 0.001),  # type: ignore[misc]
            )
        listener.close()
        if not more:
            assert place > 10
            return


def test_a_handler_asks_for_threads_at_every_instruction(mp: ModuleType) -> None:
    from cmultiprocessing import dummy

    for place in places():
        answers: list[list[Any]] = []
        event = lambda answers=answers: answers.append(dummy.active_children())  # noqa: E731
        if not happens(place, event, dummy.active_children):
            assert place > 10
            return
        assert answers == [[]]


def test_a_handler_makes_a_proxy_at_every_instruction(mp: ModuleType) -> None:
    from cmultiprocessing.managers import BaseProxy, Token

    for place in places():
        address = f"nobody {place}"  # each time the first one

        def make(address: str = address) -> Any:
            return BaseProxy(Token("list", address, "1"), "pickle", authkey=b"key", incref=False)

        more = happens(place, make, make)
        BaseProxy._address_to_local.pop(address)
        if not more:
            assert place > 10
            return


def test_a_handler_completes_a_result_at_every_instruction(mp: ModuleType) -> None:
    """As the handler of SIGTERM of a program that waits for a pool's result does, with pool.terminate()."""
    from cmultiprocessing._jobs import _Done

    for place in places():
        done = _Done()
        answers: list[bool] = []

        def end(done: Any = done) -> None:
            done.wait(0)
            done.set()
            done.wait()

        more = happens(place, end, lambda done=done, answers=answers: answers.append(done.wait(0.001)))  # type: ignore[misc]
        assert answers[0] or place > 10, place
        if not more:
            assert answers == [False]
            return
