# SPDX-License-Identifier: PSF-2.0
"""Faults of the standard library that have to do with the life of processes.

Each test is named after its number in the project's list of such faults; gh-N is an issue of CPython.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import run_program

METHODS = ("fork", "spawn", "forkserver")


def run(program: str, *arguments: str, folder: Path, code: int = 0) -> tuple[list[str], list[str]]:
    """Run a program; its lines on stdout and stderr."""
    done, out, err = run_program(program, *arguments, folder=folder)
    assert done == code, (done, out, err)
    return out.splitlines(), err.splitlines()


# --- 53: the order at the end --------------------------------------------------------------------

SIGNALLED_AT_EXIT = """
import atexit, os, sys
import cmultiprocessing as mp

def wait(event, word):
    event.wait()
    os.write(1, f"{word}\\n".encode())

def release(event, word):
    os.write(1, f"{word}\\n".encode())
    event.set()

def between(ctx, event):
    mine = ctx.Event()
    atexit.register(release, mine, "handler of the child")
    ctx.Process(target=wait, args=(mine, "grandchild")).start()
    release(event, "child")

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    event, middle = ctx.Event(), ctx.Event()
    atexit.register(release, event, "handler")  # before the first process, and before all that a start imports
    ctx.Process(target=wait, args=(event, "waiter")).start()
    ctx.Process(target=between, args=(ctx, middle)).start()
    middle.wait()
"""


@pytest.mark.parametrize("method", METHODS)
def test_item_53_handlers_run_before_children_are_waited_for(method: str, tmp_path: Path) -> None:
    """Handlers that tell the children to end run after they were waited for: for ever (gh-114220)."""
    lines, errors = run(SIGNALLED_AT_EXIT, method, folder=tmp_path)
    assert errors == []
    orders = (("handler", "waiter"), ("child", "handler of the child"), ("handler of the child", "grandchild"))
    for first, second in orders:
        assert lines.index(first) < lines.index(second), lines
    assert len(lines) == 5


AT_EXIT_IN_CHILDREN = """
import atexit, os, sys, threading, time
import cmultiprocessing as mp
from cmultiprocessing import util

def note(word):
    os.write(1, f"{word}\\n".encode())

def work(how):
    atexit.register(note, "atexit 1")
    atexit.register(note, "atexit 2")
    util.Finalize(None, note, args=("finalizer low",), exitpriority=-1)
    util.Finalize(None, note, args=("finalizer high",), exitpriority=1)
    threading.Thread(target=lambda: (time.sleep(0.1), note("thread"))).start()
    sys.stdout.write("flushed\\n")
    if how == "exit":
        sys.exit(3)
    if how == "error":
        raise LookupError("told")
    if how == "interrupt":
        raise KeyboardInterrupt

if __name__ == "__main__":
    child = mp.get_context(sys.argv[1]).Process(target=work, args=(sys.argv[2],))
    child.start()
    child.join()
    print(child.exitcode)
"""


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 3), ("error", 1), ("interrupt", 1)])
@pytest.mark.parametrize("method", METHODS)
def test_item_53_exit_work_of_children(method: str, how: str, code: int, tmp_path: Path) -> None:
    """Up to 3.12 children skip atexit (gh-83856). Here: finalizers, threads, atexit, whatever ends the child."""
    lines, errors = run(AT_EXIT_IN_CHILDREN, method, how, folder=tmp_path)
    ordered = [line for line in lines if line != "flushed"]
    assert ordered == ["finalizer high", "finalizer low", "thread", "atexit 2", "atexit 1", str(code)]
    assert "flushed" in lines
    if how in ("error", "interrupt"):
        assert errors[0].startswith("Process ")
        assert errors[1].startswith("Traceback")
    else:
        assert errors == []


STUBBORN = """
import signal, sys, time
import cmultiprocessing as mp
from cmultiprocessing import util

def live_on(connection):
    signal.signal(signal.SIGTERM, lambda *_: connection.send("no"))
    connection.send("ready")
    while True:
        time.sleep(60)

if __name__ == "__main__":
    util.DAEMON_PATIENCE = 0.3
    mp.log_to_stderr(util.SUBWARNING)
    ctx = mp.get_context(sys.argv[1])
    receiver, sender = ctx.Pipe(False)
    ctx.Process(target=live_on, args=(sender,), name="Stubborn", daemon=True).start()
    assert receiver.recv() == "ready"
"""


@pytest.mark.parametrize("method", METHODS)
def test_item_53_a_daemon_that_ignores_sigterm_does_not_hold_up_the_exit(method: str, tmp_path: Path) -> None:
    """The exit of the parent waits for it for ever."""
    _, errors = run(STUBBORN, method, folder=tmp_path)
    assert errors == ["[SUBWARNING/MainProcess] daemon Stubborn did not end: calling kill()"]


LOGGED = """
import atexit, logging, sys
import cmultiprocessing as mp

if __name__ == "__main__":
    atexit.register(lambda: mp.get_logger().info("the program's handler"))
    logger = mp.get_logger()
    logger.addHandler(logging.FileHandler(sys.argv[2], mode="w"))
    logger.setLevel(logging.DEBUG)
    child = mp.get_context(sys.argv[1]).Process(target=len, args=("",), daemon=False, name="Last")
    child.start()
"""


@pytest.mark.parametrize("method", METHODS)
def test_item_53_the_exit_work_is_logged(method: str, tmp_path: Path) -> None:
    """Also into a file that logging closes at the exit, and after the program's own handlers."""
    log = tmp_path / "log"
    assert run(LOGGED, method, str(log), folder=tmp_path) == ([], [])
    lines = log.read_text().splitlines()
    for first, second in (
        ("the program's handler", "process shutting down"),
        ("process shutting down", 'running all "atexit" finalizers with priority >= 0'),
        ('running all "atexit" finalizers with priority >= 0', 'running the remaining "atexit" finalizers'),
    ):
        assert lines.index(first) < len(lines) - 1 - lines[::-1].index(second), lines
