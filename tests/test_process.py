# SPDX-License-Identifier: PSF-2.0
"""Process objects and the life of a child, under every start method."""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.processes import info, wait_until
from tests.support.programs import run_program, run_python

ROOT = Path(__file__).resolve().parent.parent


def nothing() -> None:
    pass


def sleep_long() -> None:
    time.sleep(600)


def leave_with(code: Any) -> None:
    sys.exit(code)


def kill_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(600)


def raise_error() -> None:
    raise LookupError("a message to be found")


def hard_exit(code: int) -> None:
    os._exit(code)


def started(process: Any) -> Any:
    process.start()
    return process


# --- exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "args", "code"),
    [
        (nothing, (), 0),
        (leave_with, (None,), 0),
        (leave_with, (0,), 0),
        (leave_with, (3,), 3),
        (leave_with, (-1,), 255),
        (leave_with, (256 + 7,), 7),
        (leave_with, ("words",), 1),
        (leave_with, ((1, 2),), 1),
        (raise_error, (), 1),
        (hard_exit, (9,), 9),
        (kill_self, (signal.SIGKILL,), -signal.SIGKILL),
        (kill_self, (signal.SIGTERM,), -signal.SIGTERM),
    ],
)
def test_exit_code(ctx: Any, target: Any, args: tuple[Any, ...], code: int, capfd: Any) -> None:
    process = started(ctx.Process(target=target, args=args))
    process.join()
    assert process.exitcode == code
    assert not process.is_alive()
    process.close()


def test_traceback_and_text_of_exit_go_to_stderr(ctx: Any, capfd: Any) -> None:
    for target, args in ((raise_error, ()), (leave_with, ("some last words",))):
        process = started(ctx.Process(target=target, args=args, name="Unlucky"))
        process.join()
    printed = capfd.readouterr().err
    assert "Process Unlucky:\nTraceback (most recent call last):" in printed
    assert 'raise LookupError("a message to be found")' in printed
    assert printed.endswith("some last words\n")


# --- attributes ----------------------------------------------------------------------------------


def test_life_in_attributes(ctx: Any, mp: ModuleType) -> None:
    process = ctx.Process(target=sleep_long, name="sleeper", daemon=True)
    kind = type(process).__name__
    assert (process.pid, process.ident, process.exitcode, process.is_alive()) == (None, None, None, False)
    assert repr(process) == f"<{kind} name='sleeper' parent={os.getpid()} initial daemon>"
    with pytest.raises(ValueError, match="not started"):
        process.sentinel  # noqa: B018
    process.start()
    assert process.is_alive()
    assert process.pid == process.ident
    assert info(process.pid) is not None
    assert process in mp.active_children()
    assert repr(process) == f"<{kind} name='sleeper' pid={process.pid} parent={os.getpid()} started daemon>"
    assert process.join(0.01) is None
    assert process.exitcode is None
    with pytest.raises(ValueError, match="sleeper"):
        process.close()
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert repr(process).endswith("stopped exitcode=-SIGKILL daemon>")
    assert process not in mp.active_children()
    process.close()
    process.close()
    assert repr(process) == f"<{kind} name='sleeper' parent={os.getpid()} closed daemon>"
    for use in (process.start, process.join, process.is_alive, process.terminate, lambda: process.exitcode):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_names_count(mp: ModuleType) -> None:
    first, second = mp.Process(), mp.Process()
    head, _, number = first.name.rpartition("-")
    assert head == "Process"
    assert second.name == f"Process-{int(number) + 1}"
    assert mp.get_context("spawn").Process().name.startswith("SpawnProcess-")
    first.name = "renamed"
    assert first.name == "renamed"
    with pytest.raises(AssertionError, match="string"):
        first.name = 3


def send_name_of_grandchild(connection: Any) -> None:
    import cmultiprocessing

    grandchild = cmultiprocessing.Process(target=nothing)
    connection.send((cmultiprocessing.current_process().name, grandchild.name))


def test_grandchildren_count_below_their_parent(ctx: Any) -> None:
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = started(ctx.Process(target=send_name_of_grandchild, args=(sender,)))
        child, grandchild = receiver.recv()
        process.join()
    number = child.rpartition("-")[2]
    assert grandchild == f"Process-{number}:1"


def send_what_it_is(connection: Any, *args: Any, **kwargs: Any) -> None:
    import cmultiprocessing

    me, parent = cmultiprocessing.current_process(), cmultiprocessing.parent_process()
    assert parent is not None
    connection.send((args, kwargs, me.name, me.daemon, bytes(me.authkey), me.pid, parent.pid, parent.name,
                     parent.is_alive(), cmultiprocessing.active_children(), sys.stdin.read(), os.getcwd(),
                     sys.argv, os.environ.get("SET_LATE")))  # fmt: skip


def test_the_child_knows_who_it_is(ctx: Any, mp: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    # A fork server that runs already is to tell its children what has changed since.
    started(ctx.Process(target=nothing)).join()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SET_LATE", "yes")
    monkeypatch.setattr(sys, "argv", ["changed", "arguments"])
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = ctx.Process(target=send_what_it_is, args=(sender, 1, "two"), kwargs={"three": 3}, daemon=True)
        process.authkey = b"secret"
        process.start()
        seen = receiver.recv()
        process.join()
    assert seen == (
        (1, "two"), {"three": 3}, process.name, True, b"secret", process.pid, os.getpid(), mp.current_process().name,
        True, [], "", str(tmp_path), ["changed", "arguments"], "yes",
    )  # fmt: skip


def test_misuse(ctx: Any) -> None:
    process = ctx.Process(target=nothing)
    for use in (process.join, process.terminate, process.kill, process.interrupt):
        with pytest.raises(AssertionError, match="not started"):
            use()
    process.start()
    with pytest.raises(AssertionError, match="twice"):
        process.start()
    with pytest.raises(AssertionError, match="already started"):
        process.daemon = True
    process.join()
    with pytest.raises(AssertionError):
        ctx.Process(group=1)


def use_anothers(process: Any) -> None:
    import cmultiprocessing

    for name in ("start", "join", "terminate", "kill", "interrupt", "is_alive", "close"):
        with pytest.raises(AssertionError, match=r"child process|twice"):
            getattr(process, name)()
    assert process.exitcode is None
    assert " unknown>" in repr(process)
    me, parent = cmultiprocessing.current_process(), cmultiprocessing.parent_process()
    for name in ("start", "join", "terminate", "kill", "interrupt"):
        with pytest.raises(AssertionError):
            getattr(me, name)()
    assert parent is not None
    for name in ("start", "terminate", "kill", "interrupt"):
        with pytest.raises(AssertionError):
            getattr(parent, name)()


def test_only_the_parent_may_use_a_process(mp: ModuleType) -> None:
    """What a forked child inherits is its parent's; nothing of it works there, and nothing is harmed by trying."""
    ctx = mp.get_context("fork")
    sleeper = started(ctx.Process(target=sleep_long))
    asker = started(ctx.Process(target=use_anothers, args=(sleeper,)))
    asker.join()
    assert asker.exitcode == 0
    assert sleeper.is_alive()
    sleeper.kill()
    sleeper.join()
    assert sleeper.exitcode == -signal.SIGKILL
    for name in ("start", "join", "terminate", "kill", "interrupt"):
        with pytest.raises(AssertionError):
            getattr(mp.current_process(), name)()


def test_base_process_has_no_start_method(mp: ModuleType) -> None:
    from cmultiprocessing.process import BaseProcess

    with pytest.raises(NotImplementedError):
        BaseProcess(target=nothing).start()


def test_start_drops_the_target_and_the_object_can_be_collected(ctx: Any) -> None:
    class Argument:
        def __reduce__(self) -> Any:
            return int, (1,)

    argument = Argument()
    process = ctx.Process(target=print, args=(argument,), kwargs={"end": ""})
    seen = weakref.ref(argument)
    process.start()
    del argument
    assert seen() is None
    process.join()
    gone = weakref.ref(process)
    del process
    gc.collect()
    assert gone() is None


# --- stdin, umask --------------------------------------------------------------------------------

READER = """
import os, sys
import cmultiprocessing as mp

def read(connection, *arguments):
    connection.send((sys.stdin.read(), sys.stdin.fileno() > 2, os.read(sys.stdin.fileno(), 9)))

def read_below(connection, number):
    sys.stdin.close()
    child = mp.Process(target=read, args=(connection,))
    child.start()
    child.join()

def read_with_a_number(connection, number):
    connection.send(open(number).readline())

if __name__ == "__main__":
    receiver, sender = mp.get_context(sys.argv[1]).Pipe(duplex=False)
    for target in (read, read_below, read_with_a_number):
        child = mp.get_context(sys.argv[1]).Process(target=target, args=(sender, sys.stdin.fileno()))
        child.start()
        print(receiver.recv())
        child.join()
"""


def test_stdin_of_children(start_method: str, tmp_path: Path) -> None:
    """It is empty; one that closed its own gives its child another. Descriptor 0 is there for those who ask."""
    done = run_program(READER, start_method, folder=tmp_path, input="one line")
    assert done == (0, "('', True, b'')\n" * 2 + "one line\n", "")


def test_close_stdin_of_util(mp: ModuleType) -> None:
    code = "import sys; from cmultiprocessing import util; util._close_stdin(); print(repr(sys.stdin.read()))"
    assert run_python("-c", code, input="x") == (0, "''\n", "")


def send_umask(connection: Any) -> None:
    mask = os.umask(0)
    connection.send(mask)


def test_umask(ctx: Any) -> None:
    """The one of the moment of start(), also below a fork server that is older."""
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        for mask in (0o22, 0o27, 0o777, 0):
            before = os.umask(mask)
            try:
                process = started(ctx.Process(target=send_umask, args=(sender,)))
            finally:
                os.umask(before)
            assert receiver.recv() == mask
            process.join()


# --- waiting and signals -------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "number"), [("terminate", 15), ("kill", 9), ("interrupt", 2)])
def test_signals(ctx: Any, method: str, number: int, capfd: Any) -> None:
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = started(ctx.Process(target=say_and_sleep, args=(sender,)))
        receiver.recv()
        getattr(process, method)()
        process.join()
    # SIGINT is KeyboardInterrupt there, and that is an error like any other.
    assert process.exitcode == (1 if method == "interrupt" else -number)
    getattr(process, method)()  # it has ended: nothing happens


def say_and_sleep(connection: Any) -> None:
    connection.send("running")
    time.sleep(600)


def test_sentinel_gets_ready_when_the_process_has_ended(ctx: Any) -> None:
    from cmultiprocessing.connection import wait

    process = started(ctx.Process(target=sleep_long))
    assert wait([process.sentinel], timeout=0.05) == []
    process.kill()
    assert wait([process.sentinel]) == [process.sentinel]
    assert process.exitcode == -signal.SIGKILL  # at once: ready means that it can be reaped
    process.join()


def start_sleeper_and_leave(connection: Any) -> None:
    import cmultiprocessing

    grandchild = cmultiprocessing.get_context("fork").Process(target=sleep_long)
    grandchild.start()
    connection.send(grandchild.pid)
    os._exit(0)


def test_a_grandchild_does_not_keep_the_sentinel_busy(ctx: Any) -> None:
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = started(ctx.Process(target=start_sleeper_and_leave, args=(sender,)))
        grandchild = receiver.recv()
        try:
            process.join(30)
            assert process.exitcode == 0
        finally:
            os.kill(grandchild, signal.SIGKILL)


def test_threads_that_join_one_process_all_see_its_exit_code(ctx: Any) -> None:
    for _ in range(5):
        process = started(ctx.Process(target=leave_with, args=(5,)))
        codes: list[int | None] = []

        def join(process: Any = process, codes: list[int | None] = codes) -> None:
            process.join()
            codes.append(process.exitcode)

        threads = [threading.Thread(target=join) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == [5] * 6


def test_exit_status_taken_by_somebody_else(mp: ModuleType) -> None:
    """gh-130895: the process has ended, and nobody can know how."""
    process = started(mp.get_context("fork").Process(target=leave_with, args=(5,)))
    os.waitpid(process.pid, 0)
    assert not process.is_alive()
    process.join()
    assert process.exitcode == 255


def test_ignored_sigchld(mp: ModuleType) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = started(mp.get_context("fork").Process(target=nothing))
        process.join()
        assert not process.is_alive()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_handler_may_ask_while_its_thread_asks(ctx: Any) -> None:
    process = started(ctx.Process(target=sleep_long))
    before = signal.signal(signal.SIGALRM, lambda *_: process.is_alive())
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            assert process.is_alive()
        process.kill()
        process.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert process.exitcode == -signal.SIGKILL


# --- the end of a child --------------------------------------------------------------------------


def write_at_exit(path: str) -> None:
    from cmultiprocessing import util

    def note(word: str) -> None:
        with open(path, "a") as file:
            file.write(word + " ")

    atexit.register(note, "atexit")
    util.Finalize(None, note, args=("finalizer",), exitpriority=5)
    threading.Timer(0.05, note, args=("thread",)).start()


def write_at_exit_and_fail(path: str) -> None:
    write_at_exit(path)
    sys.exit(4)


@pytest.mark.parametrize(("target", "code"), [(write_at_exit, 0), (write_at_exit_and_fail, 4)])
def test_finalizers_threads_and_atexit_handlers_run(ctx: Any, target: Any, code: int, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    process = started(ctx.Process(target=target, args=(str(path),)))
    process.join()
    assert process.exitcode == code
    assert path.read_text().split() == ["finalizer", "thread", "atexit"]


def test_atexit_handlers_of_the_parent_do_not_run_in_a_forked_child(mp: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "note"
    atexit.register(path.write_text, "ran")
    try:
        started(mp.get_context("fork").Process(target=nothing)).join()
    finally:
        atexit.unregister(path.write_text)
    assert not path.exists()


class Broken(io.StringIO):
    def flush(self) -> None:
        raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize("stream", [None, "closed", "broken"])
def test_streams_that_cannot_be_flushed(mp: ModuleType, stream: str | None, monkeypatch: Any) -> None:
    replacement: Any = None
    if stream is not None:
        replacement = io.StringIO() if stream == "closed" else Broken()
        if stream == "closed":
            replacement.close()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, replacement)
        process = started(mp.get_context("fork").Process(target=nothing))
        process.join()
        assert process.exitcode == 0
        monkeypatch.undo()


def print_without_newline() -> None:
    sys.stdout.write("held back")


def test_what_was_printed_is_flushed(ctx: Any, capfd: Any) -> None:
    started(ctx.Process(target=print_without_newline)).join()
    assert capfd.readouterr().out == "held back"


def lose_output() -> None:
    sys.stdout = open("/dev/full", "w")  # noqa: SIM115
    sys.stdout.write("this is lost")


def test_lost_output_is_an_error(ctx: Any, capfd: Any) -> None:
    process = started(ctx.Process(target=lose_output))
    process.join()
    assert process.exitcode == 1
    assert "No space left" in capfd.readouterr().err


# --- pickling errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_cannot_be_pickled_is_an_error_of_start(mp: ModuleType, method: str) -> None:
    process = mp.get_context(method).Process(target=lambda: None, name="hopeless")
    with pytest.raises(Exception, match=r"pickle|local object") as caught:
        process.start()
    assert any("hopeless" in note and method in note for note in caught.value.__notes__)
    assert mp.active_children() == []
    assert process.pid is None


class FailsToUnpickle:
    def __reduce__(self) -> Any:
        return leave_with, ("could not be unpickled",)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_cannot_be_unpickled_is_an_error_of_the_child(mp: ModuleType, method: str, capfd: Any) -> None:
    process = started(mp.get_context(method).Process(target=print, args=(FailsToUnpickle(),)))
    process.join()
    assert process.exitcode == 1


# --- threads -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_threads_start_processes_side_by_side(ctx: Any) -> None:
    failures: list[Any] = []

    def work() -> None:
        for code in range(3):
            process = started(ctx.Process(target=leave_with, args=(code,)))
            process.join()
            if process.exitcode != code:
                failures.append(process)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_started_process_is_no_argument(both: ModuleType, method: str) -> None:
    """Numbers of descriptors mean something else in another process, which would close them."""
    ctx = both.get_context(method)
    started = ctx.Process(target=time.sleep, args=(0,))
    started.start()
    with pytest.raises(TypeError, match="cannot pickle"):
        ctx.Process(target=id, args=(started,)).start()
    started.join()
    assert started.exitcode == 0


# --- daemons and the death of parents ------------------------------------------------------------

PARENT = """
import os, sys, time
sys.path.insert(0, {root!r})
import cmultiprocessing as mp
from tests.test_process import daemon_with_child, sleep_long, tell
if __name__ == "__main__":
    ctx = mp.get_context({method!r})
    plain = ctx.Process(target=tell, args=("plain", sleep_long))
    plain.start()
    for name in ("first", "second"):
        ctx.Process(target=tell, args=(name, sleep_long), daemon=True).start()
    ctx.Process(target=tell, args=("family", daemon_with_child), daemon=True).start()
    time.sleep(600)
"""


def tell(name: str, then: Any) -> None:
    os.write(1, f"{name} {os.getpid()}\n".encode())
    then()


def daemon_with_child() -> None:
    import cmultiprocessing

    child = cmultiprocessing.Process(target=tell, args=("grandchild", sleep_long), daemon=False)
    child.start()
    child.join()


def lives(pid: int) -> bool:
    state = info(pid)
    return state is not None and state.state != "Z"


def read_pids(parent: subprocess.Popen[str], count: int) -> dict[str, int]:
    assert parent.stdout is not None
    lines = [parent.stdout.readline().split() for _ in range(count)]
    return {name: int(pid) for name, pid in lines}


def run_parent(method: str) -> subprocess.Popen[str]:
    code = PARENT.format(root=str(ROOT), method=method)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_daemons_and_all_below_them_die_with_their_parent(start_method: str, how: int) -> None:
    with run_parent(start_method) as parent:
        try:
            pids = read_pids(parent, 5)
            assert len(set(pids.values())) == 5
            parent.send_signal(how)
            parent.wait()
            doomed = [pids[name] for name in ("first", "second", "family", "grandchild")]
            # One second is the promise; the machine may be busy.
            wait_until(lambda: not any(map(lives, doomed)), 2.0, "the daemons had ended")
            assert lives(pids["plain"])  # it is nobody's daemon
        finally:
            parent.kill()
            if "pids" in locals():
                os.kill(pids["plain"], signal.SIGKILL)


def test_strict_daemons_may_not_start_children(mp: ModuleType) -> None:
    from cmultiprocessing import process as module

    module.strict_daemons = True
    try:
        child = started(mp.get_context("spawn").Process(target=expect_refusal, daemon=True))
        child.join()
    finally:
        module.strict_daemons = False
    assert child.exitcode == 0


def expect_refusal() -> None:
    import cmultiprocessing

    with pytest.raises(AssertionError, match="daemonic processes are not allowed to have children"):
        cmultiprocessing.Process(target=nothing).start()


def wait_for_parent(connection: Any) -> None:
    import cmultiprocessing

    parent = cmultiprocessing.parent_process()
    assert parent is not None
    assert parent.is_alive()
    parent.join(0.01)
    connection.send("waiting")
    parent.join()
    connection.send(("ended", parent.is_alive()))


def start_one_that_waits(connection: Any, method: str) -> None:
    import cmultiprocessing

    cmultiprocessing.get_context(method).Process(target=wait_for_parent, args=(connection,)).start()
    time.sleep(600)


def test_a_child_sees_its_parent_die(ctx: Any, start_method: str) -> None:
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        parent = started(ctx.Process(target=start_one_that_waits, args=(sender, start_method)))
        assert receiver.recv() == "waiting"
        parent.kill()
        parent.join()
        assert receiver.recv() == ("ended", False)


def test_raw_fork_does_not_end_its_siblings(mp: ModuleType) -> None:
    """A bare os.fork() has no children of its own, and its exit work must leave the parent's alone."""
    process = started(mp.get_context("fork").Process(target=sleep_long, daemon=True))
    pid = os.fork()
    if pid == 0:
        from cmultiprocessing import util

        code = 1
        try:
            util._exit_function()
            code = 0 if mp.active_children() == [] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert process.is_alive()
    process.terminate()
    process.join()


# --- resources -----------------------------------------------------------------------------------


def test_no_descriptor_left(mp: ModuleType, start_method: str) -> None:
    """The failed start leaves nothing; the net looks at the descriptors."""
    import resource

    ctx = mp.get_context(start_method)
    if start_method == "forkserver":
        started(ctx.Process(target=nothing)).join()  # the server itself needs descriptors, too
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    for spare in range(1, 6):
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, limits[1]))
        try:
            process = ctx.Process(target=nothing)
            try:
                process.start()
            except OSError:
                assert process.pid is None
            else:
                process.join()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("call", ["fork", "pidfd_open"])
def test_a_start_that_fails_leaves_nothing(mp: ModuleType, call: str, monkeypatch: Any) -> None:
    """The net looks for processes and descriptors."""

    def refuse(*args: Any) -> Any:
        raise OSError(11, f"{call} is refused")

    for method in ("fork", "spawn")[: 1 if call == "fork" else 2]:
        process = mp.get_context(method).Process(target=sleep_long)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)
            with pytest.raises(OSError, match="is refused"):
                process.start()
        assert (process.pid, process.exitcode, process.is_alive()) == (None, None, False)
        assert mp.active_children() == []


def test_replaced_fork_is_used(mp: ModuleType, monkeypatch: Any) -> None:
    """Debuggers and gevent put their own in its place, and coverage tools their own _bootstrap."""
    from cmultiprocessing.process import BaseProcess

    calls: list[str] = []
    fork, bootstrap = os.fork, BaseProcess._bootstrap

    def own_bootstrap(self: Any, *args: Any, **kwargs: Any) -> int:
        return bootstrap(self, *args, **kwargs) + 40

    monkeypatch.setattr(os, "fork", lambda: calls.append("fork") or fork())
    monkeypatch.setattr(BaseProcess, "_bootstrap", own_bootstrap)
    process = started(mp.get_context("fork").Process(target=leave_with, args=(2,)))
    process.join()
    assert (calls, process.exitcode) == (["fork"], 42)


def test_start_and_join_leave_nothing_behind(ctx: Any) -> None:
    process = started(ctx.Process(target=nothing))
    process.join()
    del process
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        process = started(ctx.Process(target=nothing))
        process.join()
    del process
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


# --- the family ----------------------------------------------------------------------------------


def end_with_lock(lock: Any, code: int | None) -> None:
    lock.acquire()
    if code is not None:
        os._exit(code)


def test_an_orderly_end_is_not_a_death(ctx: Any) -> None:
    """A plain lock may be released by another process: it stays locked, unless its owner was killed."""
    lock = ctx.Lock()
    started(ctx.Process(target=end_with_lock, args=(lock, None))).join()
    assert not lock.acquire(timeout=0.2)
    lock = ctx.Lock()
    started(ctx.Process(target=end_with_lock, args=(lock, 0))).join()
    with pytest.warns(RuntimeWarning, match="killed"):
        assert lock.acquire(timeout=10)
    lock.release()
