# SPDX-License-Identifier: PSF-2.0
"""Faults of the standard library that have to do with the life of processes.

Each test is named after its number in the project's list of such faults; gh-N is an issue of CPython.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.processes import wait_until
from tests.support.programs import environment, run_program, run_python
from tests.support.scene import PATIENCE, scale

METHODS = ("fork", "spawn", "forkserver")
ROOT = Path(__file__).resolve().parent.parent


def run(program: str, *arguments: str, folder: Path, code: int = 0) -> tuple[list[str], list[str]]:
    """Run a program; its lines on stdout and stderr."""
    done, out, err = run_program(program, *arguments, folder=folder)
    assert done == code, (done, out, err)
    return out.splitlines(), err.splitlines()


@contextmanager
def marked_program(program: str, *arguments: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a program, know all that comes from it by a mark in the environment, and kill what is left in the end."""
    path = folder / "prog.py"
    path.write_text(program)
    mark = f"CMP_TEST_MARK={os.getpid()}-{time.monotonic_ns()}"
    name, _, value = mark.partition("=")
    command = [sys.executable, str(path), *arguments]
    env = environment(**{name: value}, TMPDIR=str(folder))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=folder) as parent:
        try:
            yield parent, mark
        finally:
            parent.kill()
            for pid in alive(mark):
                # It may end by itself meanwhile: the fork server does, since nobody is left who could ask it.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def alive(mark: str) -> list[int]:
    """Living processes whose environment holds a mark; forked children keep the one of their first ancestor."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and mark.encode() in Path(f"/proc/{name}/environ").read_bytes():
                seen = processes.info(int(name))
                if seen is not None and seen.state != "Z":
                    found.append(int(name))
        except OSError:
            pass  # gone meanwhile
    return found


# --- 6: fork from a parent with threads ----------------------------------------------------------

THREADED = """
import importlib, logging, sys, threading, time, warnings
import cmultiprocessing as mp
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # the interpreter's own, since 3.12

stop = threading.Event()
queue, noise = mp.Queue(), mp.Queue()
logger = logging.getLogger("noise")
logger.addHandler(logging.NullHandler())

def pause():
    return stop.wait(0.0005)  # or eight threads keep the main one from the interpreter

def log():
    while not pause():
        logger.error("words %d", 1)

def import_modules():
    while not pause():
        try:
            importlib.import_module("this_does_not_exist")
        except ImportError:
            pass

def use_queue():
    while not pause():
        noise.put((1, "text", b"x" * 5000))
        noise.get()

def use_locks():
    lock, event, condition = mp.Lock(), mp.Event(), mp.Condition()
    while not pause():
        with lock, condition:
            event.set()
            condition.notify_all()

def child(number):
    import colorsys, graphlib
    logger.error("words of a child")
    use = mp.Queue()
    use.put(number)
    with mp.Lock():
        queue.put(use.get())

if __name__ == "__main__":
    rounds = int(sys.argv[1])
    threads = [threading.Thread(target=target) for target in (log, import_modules, use_queue, use_locks) * 2]
    for thread in threads:
        thread.start()
    for number in range(rounds):
        process = mp.Process(target=child, args=(number,))
        process.start()
        assert queue.get(timeout=30) == number
        process.join(30)
        assert process.exitcode == 0, process
    stop.set()
    for thread in threads:
        thread.join()
    print("done")
"""


@pytest.mark.watchdog(590)
def test_item_06_fork_from_a_parent_with_threads(tmp_path: Path) -> None:
    """A lock that another thread holds at the fork stays locked in the child for ever (gh-84559, gh-50970)."""
    rounds = scale(40, 1000)
    assert run_program(THREADED, str(rounds), folder=tmp_path, seconds=550) == (0, "done\n", "")


# --- 11: helpers ---------------------------------------------------------------------------------

HELPERS = """
import gc, os, signal, sys
import cmultiprocessing as mp

def work(queue, lock, event):
    with lock:
        queue.put(os.getpid())
    event.wait()

class Cycle:
    def __init__(self):
        self.self, self.queue, self.lock, self.process = self, mp.Queue(), mp.Lock(), mp.Process()
        self.queue.put(self.lock)

if __name__ == "__main__":
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    ctx = mp.get_context(sys.argv[1])
    queue, lock, event = ctx.Queue(), ctx.Lock(), ctx.Event()
    children = [ctx.Process(target=work, args=(queue, lock, event)) for _ in range(2)]
    for child in children:
        child.start()
    pids = {queue.get(timeout=30) for _ in children}
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        others = set(map(int, file.read().split())) - pids
    print(len(others))
    event.set()
    for child in children:
        child.join()
    gc.set_threshold(1)
    for _ in range(200):
        Cycle()
    gc.set_threshold(700)
    gc.collect()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    pid = os.fork()
    if pid == 0:
        os.close(1), os.close(2)
        signal.sigtimedwait([signal.SIGUSR1], 20)  # outlives its parent
        os._exit(0)
    print(pid)
"""


@pytest.mark.parametrize("method", METHODS)
def test_item_11_no_helpers(method: str, tmp_path: Path) -> None:
    """Here only the fork server is a process that the user has not started.

    The tracker: a zombie, dead-locks in finalizers, changed signal masks, exits that wait for raw forks (gh-88887,
    gh-146313, gh-109593, gh-127586).
    """
    path = tmp_path / "prog.py"
    path.write_text(HELPERS)
    with open(tmp_path / "out", "w") as out:  # no pipe: the end of the program is not that of its output
        command = [sys.executable, str(path), method]
        code = subprocess.run(command, stdout=out, stderr=out, timeout=50, env=environment(), check=False).returncode
    helpers, raw = map(int, (tmp_path / "out").read_text().split())
    assert lives(raw), "the program waited for it"
    os.kill(raw, signal.SIGUSR1)
    assert code == 0
    assert helpers == (1 if method == "forkserver" else 0)


INIT = """
import os, sys, time
import cmultiprocessing as mp

def zombies():
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                count += file.read().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has just been reaped
    return count

if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        child = mp.get_context(sys.argv[1]).Process(target=len, args=("",))
        child.start()
        child.join()
        assert child.exitcode == 0
    end = time.monotonic() + 20
    while zombies() and time.monotonic() < end:
        time.sleep(0.01)  # the fork server reaps its children right after it has told their end
    print(os.getpid(), zombies())
"""


@pytest.mark.parametrize("method", METHODS)
def test_item_11_no_zombies_where_nobody_else_reaps(method: str, tmp_path: Path) -> None:
    """As the first process of a container, which is everybody's last parent."""
    path = tmp_path / "prog.py"
    path.write_text(INIT)
    isolated = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not make a pid namespace here")
    command = [*isolated, sys.executable, str(path), method, str(scale(20, 1000))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=PATIENCE * 4, check=False)
    assert (done.stdout, done.stderr) == ("1 0\n", "")


# --- 17: orphans ---------------------------------------------------------------------------------

STARTER = """
import os, sys
import cmultiprocessing as mp

def live(path):
    import time
    time.sleep(600)

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    warm = ctx.Process(target=print, args=("warm",), kwargs=dict(flush=True)); warm.start(); warm.join()
    while True:
        ctx.Process(target=live, args=(ctx.Queue(),), daemon=True).start()
"""


@pytest.mark.watchdog(3000)
@pytest.mark.parametrize("method", METHODS)
def test_item_17_parents_killed_while_they_start_children(method: str, tmp_path: Path) -> None:
    """Daemons live on when their parent is killed (gh-80180); here no process and no file is left."""
    generator = random.Random(17)
    shared = set(os.listdir("/dev/shm"))
    for _ in range(scale(15, 1000)):
        with marked_program(STARTER, method, folder=tmp_path) as (parent, mark):
            assert parent.stdout is not None
            assert parent.stdout.readline() == "warm\n"
            time.sleep(generator.uniform(0, 0.03))
            parent.kill()
            parent.wait()
            wait_until(lambda mark=mark: alive(mark) == [], 10.0, "the daemons had ended")  # type: ignore[misc]
        assert sorted(os.listdir(tmp_path)) == ["prog.py"]
    assert {name for name in set(os.listdir("/dev/shm")) - shared if name.startswith(("psm_", "pym-", "mp"))} == set()


PLAIN = """
import os, sys
import cmultiprocessing as mp

def live(path):
    print("running", flush=True)
    mp.parent_process().join()
    with open(path, "w") as file:
        file.write("survived")

if __name__ == "__main__":
    child = mp.get_context(sys.argv[1]).Process(target=live, args=(sys.argv[2],))
    child.start()
    import time
    time.sleep(600)
"""


@pytest.mark.parametrize("method", METHODS)
def test_item_17_children_that_are_no_daemons_survive(method: str, tmp_path: Path) -> None:
    """They are to finish their work."""
    note = tmp_path / "note"
    with marked_program(PLAIN, method, str(note), folder=tmp_path) as (parent, mark):
        assert parent.stdout is not None
        assert parent.stdout.readline() == "running\n"
        parent.kill()
        parent.wait()
        wait_until(lambda: alive(mark) == [], PATIENCE, "the child had ended by itself")
    assert note.read_text() == "survived"


# --- 18: daemons with children -------------------------------------------------------------------

GENERATIONS = """
import os, sys, time
import cmultiprocessing as mp

def live(depth, method):
    os.write(1, f"{depth} {os.getpid()}\\n".encode())
    if depth:
        for daemon in (False, True):
            mp.get_context(method).Process(target=live, args=(depth - 1, method), daemon=daemon).start()
    time.sleep(600)

if __name__ == "__main__":
    mp.get_context(sys.argv[1]).Process(target=live, args=(2, sys.argv[1]), daemon=True).start()
    time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["parent", "daemon"])
@pytest.mark.parametrize("method", METHODS)
def test_item_18_daemons_have_children_that_die_with_them(method: str, victim: str, tmp_path: Path) -> None:
    """Daemons may not start processes: who needs it, leaves orphans (pebble#31, simpletransformers#1247 and others)."""
    with marked_program(GENERATIONS, method, folder=tmp_path) as (parent, mark):
        assert parent.stdout is not None
        lines = [parent.stdout.readline().split() for _ in range(7)]
        pids = [int(pid) for _, pid in lines]
        daemon = int(next(pid for depth, pid in lines if depth == "2"))
        assert len(set(pids)) == 7
        os.kill(parent.pid if victim == "parent" else daemon, signal.SIGKILL)
        # One second is the promise; the machine may be busy.
        wait_until(lambda: not any(map(lives, pids)), 3.0, "all below the daemon had ended")
        assert victim == "parent" or lives(parent.pid)
        parent.kill()
        wait_until(lambda: alive(mark) == [], PATIENCE, "nothing was left, no server either")


def lives(pid: int) -> bool:
    seen = processes.info(pid)
    return seen is not None and seen.state != "Z"


STRICT = """
import sys
import cmultiprocessing as mp
import cmultiprocessing.process

def start_one(method):
    child = mp.get_context(method).Process(target=print, args=("started",), kwargs={"flush": True})
    try:
        child.start()
    except AssertionError as error:
        print(error, flush=True)
    else:
        child.join()

if __name__ == "__main__":
    for strict in (True, False):
        cmultiprocessing.process.strict_daemons = strict
        child = mp.get_context(sys.argv[1]).Process(target=start_one, args=(sys.argv[1],), daemon=True)
        child.start()
        child.join()
"""


@pytest.mark.parametrize("method", METHODS)
def test_item_18_strict_mode(method: str, tmp_path: Path) -> None:
    """The standard library's rule, for programs that rely on it."""
    lines, errors = run(STRICT, method, folder=tmp_path)
    assert (lines, errors) == (["daemonic processes are not allowed to have children", "started"], [])


# --- 43: who reaps -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_item_43_exit_status_taken_elsewhere(mp: Any, method: str) -> None:
    """The child counts as alive for ever (gh-130895, gh-92881). Children of the fork server are not this process's."""
    for ask in ("is_alive", "join", "exitcode", "sentinel", "active_children", "terminate", "repr"):
        child = mp.get_context(method).Process(target=sys.exit, args=(5,))
        child.start()
        assert os.waitpid(child.pid, 0)[1] == 5 << 8
        if ask == "join":
            assert child.join() is None
        elif ask == "exitcode":
            assert child.exitcode == 255
        elif ask == "sentinel":
            assert mp.connection.wait([child.sentinel], PATIENCE) == [child.sentinel]
        elif ask == "active_children":
            assert child not in mp.active_children()
        elif ask == "terminate":
            child.terminate()
        elif ask == "repr":
            assert "stopped exitcode=255" in repr(child)
        assert not child.is_alive()
        child.join(0)
        assert child.exitcode == 255
        child.close()


def test_item_43_a_thread_that_reaps_everything(mp: Any) -> None:
    """As an init process or a supervisor does: join() returns all the same, and there is always an exit code."""
    ctx, stop = mp.get_context("fork"), threading.Event()

    def reap() -> None:
        while not stop.is_set():
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pass  # there is none just now

    reaper = threading.Thread(target=reap)
    codes = set()
    reaper.start()
    try:
        for _ in range(scale(30, 500)):
            child = start_quietly(ctx.Process(target=os._exit, args=(5,)))
            child.join(PATIENCE)
            codes.add(child.exitcode)
            assert not child.is_alive()
            child.close()
    finally:
        stop.set()
        reaper.join()
    assert codes <= {5, 255}
    assert 255 in codes


def start_quietly(child: Any) -> Any:
    """Start it; the interpreter's own warning about fork and threads (since 3.12) is no fault of the library."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
        child.start()
    return child


@pytest.mark.watchdog(590)
@pytest.mark.parametrize("method", METHODS)
def test_item_43_threads_that_join_see_the_exit_code(mp: Any, method: str) -> None:
    """One thread reaps, and another sees the end without the code: None (gh-130895, gh-148318)."""
    ctx = mp.get_context(method)
    count = scale({"fork": 100, "spawn": 10, "forkserver": 20}[method], {"fork": 10_000}.get(method, 1000))
    rounds, seen, current = threading.Barrier(9), [], []

    def join() -> None:
        for number in range(count):
            rounds.wait(PATIENCE)
            child = current[0]
            child.join()
            code = child.exitcode
            if code != number % 7 or child.is_alive():
                seen.append((number, code))
            rounds.wait(PATIENCE)

    threads = [threading.Thread(target=join) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for number in range(count):
            current[:] = [start_quietly(ctx.Process(target=os._exit, args=(number % 7,)))]
            rounds.wait(PATIENCE)
            rounds.wait(PATIENCE)
            current[0].close()
    except BaseException:
        rounds.abort()
        raise
    finally:
        for thread in threads:
            thread.join()
    assert seen == []


# --- 44: signal handlers -------------------------------------------------------------------------

HANDLERS = """
import asyncio, os, signal, sys, time
import cmultiprocessing as mp

def wait(connection):
    connection.send([str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1)])
    time.sleep(600)

def check(ctx):
    receiver, sender = ctx.Pipe(False)
    child = ctx.Process(target=wait, args=(sender,))
    child.start()
    handlers = receiver.recv()
    began = time.monotonic()
    child.terminate()
    child.join(20)
    return handlers, child.exitcode

async def in_a_loop(ctx):
    called = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, called.append, "term")
    loop.add_signal_handler(signal.SIGUSR1, called.append, "usr1")
    print(*check(ctx))
    await asyncio.sleep(0.1)
    print(called)
    os.kill(os.getpid(), signal.SIGTERM)  # those of the parent are untouched
    await asyncio.sleep(0.1)
    print(called)

def plain(ctx):
    # A parent with handlers in Python and a file that tells of signals, but without a loop.
    calls = []
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append(os.getpid()))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.set_wakeup_fd(writer)
    receiver, sender = ctx.Pipe(False)
    child = ctx.Process(target=wait, args=(sender,))
    child.start()
    receiver.recv()
    child.terminate()
    child.join(0.3)
    child.kill()
    child.join()
    try:
        print(calls, os.read(reader, 99))
    except BlockingIOError:
        print(calls, "nothing", child.exitcode)

if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    asyncio.run(in_a_loop(ctx))
    plain(ctx)
"""


@pytest.mark.parametrize("method", METHODS)
def test_item_44_handlers_of_the_parent(method: str, tmp_path: Path) -> None:
    """Signals of a child are handled by its parent's event loop, and the child lives on (gh-96995, dagster#25749).

    Plain handlers in Python are inherited by fork, as documented; but the parent hears nothing of the child's signals.
    """
    lines, errors = run(HANDLERS, method, folder=tmp_path)
    assert errors == []
    assert lines[0] == "['0', '0'] -15"
    assert lines[1:3] == ["[]", "['term']"]
    assert lines[3] == f"[] nothing {-9 if method == 'fork' else -15}"


# --- 50: the main module -------------------------------------------------------------------------
# What has no file to be imported from: test_by_value.py.

GUARDLESS = """
import sys
import cmultiprocessing as mp
print("imported", flush=True)
if sys.argv[2:]:
    mp.set_start_method(sys.argv[1])
child = mp.get_context(sys.argv[1]).Process(target=print, args=("run",))
child.start()
child.join()
sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("more", [[], ["global"]])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_item_50_missing_guard(method: str, more: list[str], tmp_path: Path) -> None:
    """One clear error, and no process that starts processes that start processes (gh-116403, gh-132898)."""
    with marked_program(GUARDLESS, method, *more, folder=tmp_path) as (parent, mark):
        out, _ = parent.communicate(timeout=PATIENCE)
        assert parent.returncode == 1
        wait_until(lambda: alive(mark) == [], PATIENCE, "all had ended")
    # The fork server imports it once for all, the child again: that is where the error belongs.
    assert out.count("imported") == (2 if method == "spawn" else 3)
    assert "run" not in out
    code, _, err = run_program(GUARDLESS, method, *more, folder=tmp_path)
    assert code == 1
    assert err.count("Traceback") == 1
    if more:  # asked for twice, which is the first error here
        assert "RuntimeError: context has already been set" in err
    else:
        assert "RuntimeError: A process cannot be started while this child process still imports" in err
        assert "if __name__ == '__main__':" in err


@pytest.mark.parametrize("method", METHODS)
def test_item_50_statement_on_the_command_line(method: str) -> None:
    program = (
        "import sys, cmultiprocessing as mp\n"
        "def work(queue): queue.put('ran')\n"
        "queue = mp.Queue(); child = mp.get_context(sys.argv[1]).Process(target=work, args=(queue,))\n"
        "child.start(); print(queue.get(timeout=30)); child.join(); print(child.exitcode)"
    )
    assert run_python("-c", program, method) == (0, "ran\n0\n", "")


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
