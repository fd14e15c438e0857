# SPDX-License-Identifier: PSF-2.0
"""What users of the standard library's fork server report, and whoever dies at a bad moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import cmultiprocessing
import pytest

from tests.support.processes import ProcessInfo, all_processes, descendants, wait_until
from tests.support.scene import state

LIBRARY = str(Path(cmultiprocessing.__file__).resolve().parent.parent)  # where it is installed, or Lib
_MARK = "CMULTIPROCESSING_TEST_MARK"


@pytest.fixture
def ctx(mp: ModuleType) -> Any:  # type: ignore[override]
    return mp.get_context("forkserver")


@pytest.fixture
def server(mp: ModuleType) -> Any:
    from cmultiprocessing import forkserver

    forkserver.ensure_running()
    return forkserver._forkserver


def run(ctx: Any, target: Any, *args: Any) -> Any:
    process = ctx.Process(target=target, args=args)
    process.start()
    process.join()
    return process


def ask(ctx: Any, function: Any) -> Any:
    """What a function returns in a child."""
    receiver, sender = ctx.Pipe(False)
    with receiver, sender:
        process = ctx.Process(target=answer, args=(function, sender))
        process.start()
        result = receiver.recv()
        process.join()
    return result


def answer(function: Any, connection: Any) -> None:
    connection.send(function())


def program(tmp_path: Path, source: str, *arguments: str, mark: str = "") -> subprocess.Popen[str]:
    """Run a script that uses the library."""
    path = tmp_path / "prog.py"
    path.write_text(textwrap.dedent(source))
    return subprocess.Popen(
        [sys.executable, str(path), *arguments],
        env={**os.environ, "PYTHONPATH": LIBRARY, _MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def marked(mark: str) -> list[ProcessInfo]:
    """Processes of a program and of all that it started, whoever is their parent now."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for process in all_processes():
        try:
            environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environ.split(b"\0"):
            found.append(process)
    return found


# 8. Starting is slow: the main module is imported again by every child.

HEAVY = """
    import sys
    sys.stderr.write(f"imported as {__name__}\\n")
    import cmultiprocessing as mp
    def work():
        pass
    if __name__ == "__main__":
        ctx = mp.get_context("forkserver")
        for _ in range(12):
            process = ctx.Process(target=work); process.start(); process.join()
            assert process.exitcode == 0
"""


def test_item_08_main_is_imported_once_for_all_children(tmp_path: Path) -> None:
    out, err = program(tmp_path, HEAVY).communicate(timeout=60)
    assert (out, err) == ("", "imported as __main__\nimported as __mp_main__\n")


def test_item_08_children_wait_ready(ctx: Any, server: Any) -> None:
    """A start takes a child that was forked before, and there are few of them."""
    for _ in range(12):
        ready = {child.pid for child in descendants(server._forkserver_pid)}
        process = run(ctx, os.getpid)
        assert process.exitcode == 0
        if process.pid in ready:
            break
        time.sleep(0.05)
    else:
        pytest.fail("no child was ready")
    assert len(descendants(server._forkserver_pid)) <= server._most_waiting + 1


def test_item_08_an_unpicklable_argument_says_what_to_do(ctx: Any) -> None:
    with pytest.raises(TypeError, match="lock") as error:
        ctx.Process(target=len, args=(threading.Lock(),), name="Worker").start()
    assert any("'Worker'" in note for note in error.value.__notes__)


def test_item_08_threads_start_at_the_same_time(ctx: Any, server: Any) -> None:
    codes: list[int | None] = []

    def work() -> None:
        codes.extend(run(ctx, sys.exit, 5).exitcode for _ in range(4))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [5] * 24


def test_item_08_an_idle_program_has_no_ready_children(ctx: Any, server: Any) -> None:
    for _ in range(4):
        run(ctx, os.getpid)
    wait_until(lambda: descendants(server._forkserver_pid) != [], 10.0, "some wait")
    wait_until(lambda: descendants(server._forkserver_pid) == [], 20.0, "they were given back")
    assert run(ctx, os.getpid).exitcode == 0


def open_files(pid: int | str = "self") -> list[str]:
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass  # the one that read the folder
    return names


def test_item_08_ready_children_hold_no_descriptors_of_the_program(ctx: Any, server: Any, tmp_path: Path) -> None:
    with open(tmp_path / "mine", "w"):
        seen = []
        while not seen:
            run(ctx, os.getpid)
            run(ctx, os.getpid)
            for child in descendants(server._forkserver_pid):
                with contextlib.suppress(FileNotFoundError, PermissionError):  # the one that ran is about to be reaped
                    seen.append(open_files(child.pid))
        assert not any("mine" in name for names in seen for name in names)
        assert not any("mine" in name for name in ask(ctx, open_files))


# 17. Orphans when the parent is killed.

DAEMONS = """
    import os, sys, time
    import cmultiprocessing as mp
    if __name__ == "__main__":
        ctx = mp.get_context("forkserver")
        print("begin", flush=True)
        for _ in range(1000):
            process = ctx.Process(target=time.sleep, args=(60,), daemon=True)
            process.start()
            time.sleep(0.01)
"""


def test_item_17_a_killed_starter_leaves_nothing(tmp_path: Path) -> None:
    """Daemons, the server, and children that wait: all are gone soon, at whatever moment of a start it was killed."""
    chance = random.Random(17)
    for number in range(6):
        mark = f"item17-{os.getpid()}-{number}"
        starter = program(tmp_path, DAEMONS, mark=mark)
        assert starter.stdout is not None and starter.stdout.readline() == "begin\n"
        time.sleep(chance.uniform(0.0, 0.5))
        starter.kill()
        wait_until(lambda mark=mark: marked(mark) == [], 10.0, "all are gone")  # type: ignore[misc]
        assert starter.communicate() == ("", "")


SURVIVOR = """
    import os, sys, time
    import cmultiprocessing as mp
    def survive(path):
        while os.path.exists(path + ".wait"):
            time.sleep(0.01)
        open(path, "w").close()
    if __name__ == "__main__":
        process = mp.get_context("forkserver").Process(target=survive, args=(sys.argv[1],), daemon=False)
        process.start()
        print("begin", flush=True)
        process.join()
"""


def test_item_17_children_that_are_no_daemons_survive(tmp_path: Path) -> None:
    path = tmp_path / "done"
    Path(f"{path}.wait").touch()
    mark = f"item17-{os.getpid()}-survivor"
    starter = program(tmp_path, SURVIVOR, str(path), mark=mark)
    assert starter.stdout is not None and starter.stdout.readline() == "begin\n"
    starter.kill()
    starter.wait()
    time.sleep(0.1)
    Path(f"{path}.wait").unlink()
    wait_until(path.exists, 10.0, "the child has done its work")
    wait_until(lambda: marked(mark) == [], 10.0, "all are gone")
    starter.communicate()


# 48. Details.


def likeness() -> dict[str, Any]:
    return {
        "environ": os.environ.get("ITEM_48"),
        "lost": "ITEM_48_LOST" in os.environ,
        "cwd": os.getcwd(),
        "path": sys.path[-1],
        "argv": sys.argv[-1],
        "umask": os.umask(0o22),
        "blocked": sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }


def test_item_48_a_child_is_like_its_starter_is_now(
    ctx: Any, server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Children that wait since before the change as well."""
    monkeypatch.setenv("ITEM_48_LOST", "1")
    before_umask, before_mask = os.umask(0o22), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        for number in range(6):
            ask(ctx, likeness)
            here = tmp_path / str(number)
            here.mkdir()
            os.environ.pop("ITEM_48_LOST", None)
            monkeypatch.setenv("ITEM_48", f"value {number}")
            monkeypatch.chdir(here)
            monkeypatch.setattr(sys, "path", [*sys.path, f"/no/such/{number}"])
            monkeypatch.setattr(sys, "argv", ["prog", f"argument {number}"])
            os.umask(number)
            signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR1} if number % 2 else set())
            assert ask(ctx, likeness) == {
                "environ": f"value {number}",
                "lost": False,
                "cwd": str(here),
                "path": f"/no/such/{number}",
                "argv": f"argument {number}",
                "umask": number,
                "blocked": [int(signal.SIGUSR1)] if number % 2 else [],
            }
    finally:
        os.umask(before_umask)
        signal.pthread_sigmask(signal.SIG_SETMASK, before_mask)


def grandparent() -> tuple[int, int]:
    parent = os.getppid()
    return parent, ask(cmultiprocessing.get_context("forkserver"), os.getppid)


def test_item_48_grandchildren_use_the_same_server(ctx: Any, server: Any) -> None:
    pid = server._forkserver_pid
    assert ask(ctx, grandparent) == (pid, pid)


def test_item_48_the_next_start_works_when_the_server_was_killed(ctx: Any, server: Any) -> None:
    for _ in range(4):
        os.kill(server._forkserver_pid, signal.SIGKILL)
        assert ask(ctx, os.getppid) > 1
        server.ensure_running()


def test_item_48_a_server_whose_starter_blocked_sigterm_can_be_ended(ctx: Any, server: Any) -> None:
    server._stop()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        server.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert ask(ctx, likeness)["blocked"] == []
    server._stop()


PRELOAD = """
    import sys
    import cmultiprocessing as mp
    def work():
        print("worked", flush=True)
    if __name__ == "__main__":
        mp.set_forkserver_preload(["no_such_module_48"], on_error=sys.argv[1])
        ctx = mp.get_context("forkserver")
        for _ in range(3):
            process = ctx.Process(target=work)
            try:
                process.start()
            except EOFError as error:
                print(error)
            else:
                process.join()
"""


@pytest.mark.parametrize("on_error", ["ignore", "warn", "fail"])
def test_item_48_preload_errors(tmp_path: Path, on_error: str) -> None:
    """Reported once, with a traceback, not by each child."""
    out, err = program(tmp_path, PRELOAD, on_error).communicate(timeout=60)
    if on_error == "fail":
        assert out.count("could not be imported") == 3
    else:
        assert out == "worked\n" * 3
    told = 0 if on_error == "ignore" else 1
    assert err.count("Traceback (most recent call last)") == told
    assert err.count("ModuleNotFoundError: No module named 'no_such_module_48'") == told
    assert err.count("ImportWarning: ") == (1 if on_error == "warn" else 0)
    if on_error == "ignore":
        assert err == ""


def test_item_48_on_error_is_one_of_three(mp: ModuleType) -> None:
    with pytest.raises(ValueError, match="on_error must be 'ignore', 'warn', or 'fail'"):
        mp.set_forkserver_preload([], on_error="often")


def has_module() -> bool:
    return "this" in sys.modules or "__hello__" in sys.modules


def test_item_48_another_set_of_modules_gets_another_server(ctx: Any, mp: ModuleType, server: Any) -> None:
    """Children of the first one go on, and their ends are seen."""
    receiver, sender = ctx.Pipe(False)
    with receiver, sender:
        old = ctx.Process(target=receiver.recv)
        old.start()
        pid = server._forkserver_pid
        try:
            mp.set_forkserver_preload(["__main__", "__hello__"])
            assert ask(ctx, has_module) is True
            assert server._forkserver_pid != pid
            old.terminate()
            old.join()
            assert old.exitcode == -signal.SIGTERM
            wait_until(lambda: state(pid) in "XZ", 10.0, "the first server has ended")
        finally:
            mp.set_forkserver_preload(["__main__"])


def test_item_48_32_threads_start_while_the_environment_changes(ctx: Any, server: Any) -> None:
    errors: list[BaseException] = []
    codes: list[int | None] = []
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            os.environ[f"ITEM_48_{number % 50}"] = "x" * (number % 7)
            os.environ.pop(f"ITEM_48_{(number + 25) % 50}", None)
            if number % 100 == 0:
                time.sleep(0.001)

    def start() -> None:
        try:
            codes.append(run(ctx, sys.exit, 6).exitcode)
        except BaseException as error:
            errors.append(error)

    changer = threading.Thread(target=change)
    changer.start()
    threads = [threading.Thread(target=start) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    changer.join()
    for name in [name for name in os.environ if name.startswith("ITEM_48_")]:
        del os.environ[name]
    assert errors == []
    assert codes == [6] * 32


# Deaths at any moment.


def test_children_that_wait_are_killed_while_processes_are_started(ctx: Any, server: Any) -> None:
    """A start that meets a dying one takes another: no error, and whoever ran to its end says so."""
    stop = threading.Event()
    server.ensure_running()
    pid = server._forkserver_pid
    started: set[int] = set()
    chance = random.Random(4)

    def kill() -> None:
        while not stop.is_set():
            for child in descendants(pid):
                if child.pid not in started and chance.random() < 0.3:
                    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself just now
                        os.kill(child.pid, signal.SIGKILL)
            had = len(started)
            time.sleep(chance.uniform(0.0, 0.01))
            wait_until(lambda: len(started) > had or stop.is_set(), 30.0, "a start has succeeded")  # noqa: B023

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        codes = []
        for _ in range(60):
            process = ctx.Process(target=sys.exit, args=(7,))
            process.start()
            started.add(process.pid)
            process.join()
            codes.append(process.exitcode)
    finally:
        stop.set()
        killer.join()
    assert set(codes) <= {7, -signal.SIGKILL}  # a child may have got its work after the killer has looked
    assert codes.count(7) > 20
    assert server._forkserver_pid == pid


def test_servers_are_killed_while_processes_are_started(ctx: Any, server: Any) -> None:
    """Every process runs, and says how it ended; the dead servers' children that waited are gone."""
    chance = random.Random(5)
    server.ensure_running()
    # Whatever other tests have left running on purpose, such as the standard library's tracker.
    others = {child.pid for child in descendants(os.getpid())} - {
        server._forkserver_pid, *(child.pid for child in descendants(server._forkserver_pid))
    }  # fmt: skip
    dead: list[int] = []
    codes: list[int | None] = []
    stop = threading.Event()

    def kill() -> None:
        while not stop.is_set():
            had = len(codes)
            wait_until(lambda: len(codes) > had or stop.is_set(), 30.0, "a start has succeeded")  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.02))
            pid = server._forkserver_pid
            if pid is not None and pid not in dead:
                dead.append(pid)
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for _ in range(20):
            codes.append(run(ctx, sys.exit, 8).exitcode)
    finally:
        stop.set()
        killer.join()
    assert codes == [8] * 20
    assert dead

    def strangers() -> set[int]:
        # One that was let go because an earlier test had other modules loaded is reaped by the next start.
        ours = {server._forkserver_pid, *server._retired}
        ours |= {child.pid for pid in ours for child in descendants(pid or 0)}
        return {child.pid for child in descendants(os.getpid())} - ours - others

    wait_until(lambda: not strangers(), 10.0, "nobody of the dead servers is left")
