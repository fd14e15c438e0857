# SPDX-License-Identifier: PSF-2.0
"""The fork server: started once, survives Ctrl-C and its own death, answers nobody but its own."""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
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
from cmultiprocessing._cmultiprocessing import SERVER_IDLE_MS

from tests.support.processes import descendants, info, wait_until

LIBRARY = str(Path(cmultiprocessing.__file__).resolve().parent.parent)  # where it is installed, or Lib


@pytest.fixture
def ctx(mp: ModuleType) -> Any:  # type: ignore[override]
    return mp.get_context("forkserver")


@pytest.fixture
def server(mp: ModuleType) -> Any:
    from cmultiprocessing import forkserver

    forkserver.ensure_running()
    return forkserver._forkserver


@pytest.fixture
def lone_server(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that keeps no children ready."""
    from cmultiprocessing import forkserver

    forkserver._forkserver._stop()
    monkeypatch.setattr(forkserver._forkserver, "_most_waiting", 0)
    forkserver.ensure_running()
    yield forkserver._forkserver
    forkserver._forkserver._stop()


def run(ctx: Any, target: Any, *args: Any) -> Any:
    process = ctx.Process(target=target, args=args)
    process.start()
    process.join()
    return process


def send_parent(connection: Any) -> None:
    connection.send(os.getppid())


def parent_of_a_child(ctx: Any) -> int:
    receiver, sender = ctx.Pipe(False)
    with receiver, sender:
        run(ctx, send_parent, sender)
        return int(receiver.recv())


def test_one_server_for_all(ctx: Any, server: Any) -> None:
    pid = server._forkserver_pid
    assert {parent_of_a_child(ctx) for _ in range(3)} == {pid}
    server.ensure_running()
    assert server._forkserver_pid == pid


def test_killed_server_is_replaced(ctx: Any, server: Any) -> None:
    for _ in range(3):
        pid = server._forkserver_pid
        os.kill(pid, signal.SIGKILL)
        assert run(ctx, os.getpid).exitcode == 0
        wait_until(lambda pid=pid: info(pid) is None or info(pid).state == "Z", 10.0, "it is dead")  # type: ignore[misc]
        server.ensure_running()  # one of its children may have been faster than the signal
        assert server._forkserver_pid != pid


def test_server_that_dies_during_the_request(ctx: Any, lone_server: Any) -> None:
    """It is stopped when the request comes, and killed before it can answer."""
    pid = lone_server._forkserver_pid
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    assert run(ctx, os.getpid).exitcode == 0
    assert lone_server._forkserver_pid != pid


def limit_places(pid: int, places: int) -> tuple[int, int]:
    """Leave a process room for so many descriptors more; returns its limits before."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    limit = next(n for n in range(1, 1000) if len(set(range(n)) - used) == places)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    return before


@pytest.mark.parametrize("places", [1])
def test_a_server_without_descriptors_refuses_and_goes_on(ctx: Any, lone_server: Any, places: int) -> None:
    """It takes two for a child before it forks; whose children it has is known to the server alone."""
    receiver, sender = ctx.Pipe(False)
    with receiver, sender:
        waits = ctx.Process(target=receiver.recv)
        waits.start()
        pid = lone_server._forkserver_pid
        wait_until(lambda: asleep(pid), 10.0, "the server has noted the child")
        before = limit_places(pid, places)
        try:
            with pytest.raises(OSError, match="fork server could not fork") as refused:
                ctx.Process(target=os.getpid).start()
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert refused.value.errno == errno.EMFILE
        assert run(ctx, os.getpid).exitcode == 0
        sender.send(None)
        waits.join()
    assert waits.exitcode == 0
    assert lone_server._forkserver_pid == pid


def asleep(pid: int) -> bool:
    """Whether a process has nothing to do; asked twice, so that a short rest does not count."""
    for _ in range(2):
        process = info(pid)
        if process is None or process.state != "S":
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("places", [0, 3])
def test_a_child_without_descriptors_refuses_and_goes_on(ctx: Any, server: Any, places: int) -> None:
    """It has no room for what comes with the request, and waits for the next one."""
    run(ctx, os.getpid)
    (pid,) = wait_for_ready(server, 1)
    before = limit_places(pid, places)
    refused = ctx.Process(target=os.getpid)
    if places == 0:
        # Not even for the pipe that a refusal goes through: the starter asks again, and in the end another server.
        refused.start()
        refused.join()
        assert refused.exitcode == 0
    else:
        with pytest.raises(OSError, match="fork server could not fork") as error:
            refused.start()
        assert error.value.errno == errno.EMFILE
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert run(ctx, os.getpid).pid == pid


def ready_children(server: Any) -> set[int]:
    """The children of the server that wait for work; only while no other is there."""
    return {child.pid for child in descendants(server._forkserver_pid) if asleep(child.pid)}


def wait_for_ready(server: Any, count: int) -> set[int]:
    """Wait until that many children wait."""
    wait_until(lambda: len(ready_children(server)) == count, 10.0, f"{count} children wait")
    return ready_children(server)


def test_threads_that_find_the_server_dead_replace_it_once(ctx: Any, server: Any) -> None:
    codes: list[int | None] = []
    barrier = threading.Barrier(5)

    def work() -> None:
        for _ in range(4):
            barrier.wait()
            codes.append(run(ctx, sys.exit, 3).exitcode)  # said by the child, whoever has died
            barrier.wait()  # the next server is not killed below a child that still runs

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        server.ensure_running()
        os.kill(server._forkserver_pid, signal.SIGKILL)
        barrier.wait()
        barrier.wait()
    for thread in threads:
        thread.join()
    assert codes == [3] * 16


def test_ctrl_c_does_not_end_the_server(ctx: Any, server: Any) -> None:
    pid = server._forkserver_pid
    run(ctx, os.getpid)  # it is up: its handler is in place
    os.kill(pid, signal.SIGINT)
    assert parent_of_a_child(ctx) == pid


def interrupt_oneself() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_children(ctx: Any, capfd: Any) -> None:
    assert run(ctx, interrupt_oneself).exitcode == 1
    assert "KeyboardInterrupt" in capfd.readouterr().err


def wait_for(connection: Any) -> None:
    connection.recv()


@pytest.mark.parametrize("end", ["in order", "killed"])
def test_child_outlives_its_server(ctx: Any, server: Any, end: str) -> None:
    """Its end is seen at once. An exit code it says itself; how it was killed nobody knows."""
    receiver, sender = ctx.Pipe(False)
    with receiver, sender:
        process = ctx.Process(target=wait_for, args=(receiver,))
        process.start()
        os.kill(server._forkserver_pid, signal.SIGKILL)
        process.join(0.1)
        assert process.exitcode is None
        if end == "killed":
            process.kill()
        sender.send("go on")
        process.join()
        assert process.exitcode == (255 if end == "killed" else 0)
        server.ensure_running()


def test_a_stranger_gets_no_child(ctx: Any, lone_server: Any) -> None:
    """A wrong key, and a message of a wrong size: descriptors closed, no process, and the server goes on."""
    from cmultiprocessing import _cmultiprocessing, forkserver

    run(ctx, os.getpid)
    pid = lone_server._forkserver_pid
    wait_until(lambda: asleep(pid), 10.0, "the server has noted the end")
    before = set(os.listdir(f"/proc/{pid}/fd"))
    family_fd, ticket = _cmultiprocessing.family_reserve()
    os.close(family_fd)
    traits = _cmultiprocessing.get_traits()
    request = forkserver.Request(b"", leash_fd=0, family_fd=0, ticket=ticket, traits=traits)
    for message in (request.message(bytes(32)), b"short", request.message(lone_server._key) + bytes(1 << 16)):
        read_end, write_end = os.pipe()
        _cmultiprocessing.packet_send(lone_server._control_fd, message, [write_end] * 4)
        os.close(write_end)
        if len(message) > 1 << 16:
            assert forkserver._requests.read_report(read_end) == (forkserver._requests.REFUSED, 0, errno.EMFILE)
        assert os.read(read_end, 1) == b""
        os.close(read_end)
    assert parent_of_a_child(ctx) == pid
    wait_until(lambda: set(os.listdir(f"/proc/{pid}/fd")) <= before, 5.0, "the server has no more descriptors")


def test_server_ends_with_the_program() -> None:
    code = textwrap.dedent(f"""
        import os, sys
        sys.path.insert(0, {LIBRARY!r})
        import cmultiprocessing as mp
        from cmultiprocessing import forkserver
        forkserver.ensure_running()
        print(forkserver._forkserver._forkserver_pid)
        if sys.argv[1] == "hard":
            os._exit(0)
    """)
    for how in ("hard", "orderly"):
        done = subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, timeout=30, check=True)
        assert done.stderr == ""
        pid = int(done.stdout)
        wait_until(lambda pid=pid: info(pid) is None, 10.0, "the server had ended")  # type: ignore[misc]


def test_server_ends_soon_though_children_wait() -> None:
    """Whoever reads what the program prints waits for the last process that has its output open."""
    code = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {LIBRARY!r})
        import cmultiprocessing as mp
        ctx = mp.get_context("forkserver")
        if __name__ == "__main__":
            for _ in range(5):
                process = ctx.Process(target=int)
                process.start()
                process.join()
            print(time.monotonic())
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    took = time.monotonic() - float(done.stdout)
    assert took < SERVER_IDLE_MS / 2000, f"the end of the server took {took:.3f} s"


def start_another(connection: Any) -> None:
    import cmultiprocessing

    parent = os.getppid()
    assert parent_of_a_child(cmultiprocessing.get_context("forkserver")) == parent
    connection.send("same server")


def test_children_use_the_same_server(ctx: Any) -> None:
    receiver, sender = ctx.Pipe(False)
    with receiver, sender:
        assert run(ctx, start_another, sender).exitcode == 0
        assert receiver.recv() == "same server"


def test_forked_children_use_the_same_server(mp: ModuleType, server: Any) -> None:
    receiver, sender = mp.Pipe(False)
    with receiver, sender:
        run(mp.get_context("fork"), send_parent_of_child, sender)
        assert receiver.recv() == server._forkserver_pid


def send_parent_of_child(connection: Any) -> None:
    import cmultiprocessing

    connection.send(parent_of_a_child(cmultiprocessing.get_context("forkserver")))


PRELOAD = """
import os, sys
import cmultiprocessing as mp
sys.stderr.write(f"main imported by {__name__}\\n")
def look():
    print("json" in sys.modules, "csv" in sys.modules, sys.modules["__main__"].__name__)
if __name__ == "__main__":
    mp.set_forkserver_preload(["__main__", "csv", "there.is.no.such.module"])
    ctx = mp.get_context("forkserver")
    for _ in range(2):
        process = ctx.Process(target=look); process.start(); process.join()
"""


def test_preload(tmp_path: Path) -> None:
    """The main module is imported once, by the server; a module that is missing does not matter."""
    (tmp_path / "prog.py").write_text(PRELOAD)
    done = subprocess.run(
        [sys.executable, tmp_path / "prog.py"],
        env={**os.environ, "PYTHONPATH": LIBRARY},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "False True __mp_main__\n" * 2
    assert done.stderr == "main imported by __main__\nmain imported by __mp_main__\n"


def output_of(tmp_path: Path, **sources: str) -> tuple[str, str]:
    """Run the program prog.py among other modules; what it printed to stdout and stderr."""
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
    done = subprocess.run(
        [sys.executable, tmp_path / "prog.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((LIBRARY, str(tmp_path)))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_what_the_main_module_adds_to_lists_is_there_once(tmp_path: Path) -> None:
    """The server imports it when sys.path and sys.argv are its starter's, which had all that added already."""
    source = """
        import sys
        import cmultiprocessing as mp
        sys.path.append("/no/such/place")
        sys.argv.append("more")
        def look():
            print(sys.path.count("/no/such/place"), sys.argv.count("more"))
        if __name__ == "__main__":
            for _ in range(2):
                process = mp.get_context("forkserver").Process(target=look); process.start(); process.join()
    """
    assert output_of(tmp_path, prog=source) == ("1 1\n" * 2, "")


def test_children_log_once(tmp_path: Path) -> None:
    """Whether or not a child is like the server."""
    source = """
        import logging, os
        import cmultiprocessing as mp
        def log():
            mp.get_logger().warning("said")
        if __name__ == "__main__":
            mp.log_to_stderr(logging.WARNING)
            for number in range(3):
                process = mp.get_context("forkserver").Process(target=log, name=f"child {number}")
                process.start(); process.join()
                os.environ["NUMBER"] = str(number)
    """
    said = "".join(f"[WARNING/child {number}] said\n" for number in range(3))
    assert output_of(tmp_path, prog=source) == ("", said)


@pytest.mark.parametrize("preload", [[], ["__main__"]])
def test_log_records_name_the_process(tmp_path: Path, preload: list[str]) -> None:
    """Whether or not there is anything to prepare in the child."""
    source = f"""
        import cmultiprocessing as mp
        def log():
            import logging
            logging.basicConfig(format="%(processName)s: %(message)s")
            logging.warning("said")
        if __name__ == "__main__":
            mp.set_forkserver_preload({preload})
            for number in range(2):
                process = mp.get_context("forkserver").Process(target=log, name=f"child {{number}}")
                process.start(); process.join()
    """
    assert output_of(tmp_path, prog=source) == ("", "child 0: said\nchild 1: said\n")


def test_what_other_tools_add_to_start_data_is_unpickled_in_each_child(tmp_path: Path) -> None:
    tool = """
        import os
        from cmultiprocessing import spawn
        unpickled_in = []
        class Stowaway:
            def __setstate__(self, state):
                unpickled_in.append(os.getpid())
        def with_stowaway(name, original=spawn.get_preparation_data):
            stowaway = Stowaway()
            stowaway.any = "state"
            return {**original(name), "stowaway": stowaway}
    """
    source = """
        import os
        import tool
        import cmultiprocessing as mp
        from cmultiprocessing import spawn
        def look():
            print(os.getpid() in tool.unpickled_in)
        if __name__ == "__main__":
            spawn.get_preparation_data = tool.with_stowaway
            for _ in range(2):
                process = mp.get_context("forkserver").Process(target=look); process.start(); process.join()
    """
    assert output_of(tmp_path, tool=tool, prog=source) == ("True\n" * 2, "")


def test_the_working_directory_may_be_made_anew(tmp_path: Path) -> None:
    """The server is in the old one of that name."""
    source = """
        import os, sys
        import cmultiprocessing as mp
        def look():
            print(os.path.samefile(os.getcwd(), sys.argv[0] + ".d"), flush=True)
        if __name__ == "__main__":
            directory = sys.argv[0] + ".d"
            for _ in range(3):
                os.mkdir(directory); os.chdir(directory)
                process = mp.get_context("forkserver").Process(target=look); process.start(); process.join()
                os.chdir("/"); os.rmdir(directory)
    """
    assert output_of(tmp_path, prog=source) == ("True\n" * 3, "")


def test_children_ignore_ctrl_c_where_a_preloaded_module_wants_it(tmp_path: Path) -> None:
    quiet = """
        import signal
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    """
    source = """
        import os, signal
        import cmultiprocessing as mp
        def interrupt():
            signal.raise_signal(signal.SIGINT)
            print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
        if __name__ == "__main__":
            mp.set_forkserver_preload(["quiet", "__main__"])
            process = mp.get_context("forkserver").Process(target=interrupt); process.start(); process.join()
    """
    assert output_of(tmp_path, quiet=quiet, prog=source) == ("True\n", "")


def test_sigpipe_that_kills_does_not_kill_the_server(tmp_path: Path) -> None:
    """It tells how a child ended to a starter that is dead."""
    source = """
        import os, signal, time
        import cmultiprocessing as mp
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        def outlive(parent, connection):
            while os.path.exists(f"/proc/{parent}"):
                time.sleep(0.01)
            connection.send(os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)
        def start(connection):
            mp.get_context("forkserver").Process(target=outlive, args=(os.getpid(), connection)).start()
            os._exit(0)
        if __name__ == "__main__":
            ctx = mp.get_context("forkserver")
            victim = ctx.Process(target=signal.pause); victim.start()
            receiver, sender = ctx.Pipe(False)
            starter = ctx.Process(target=start, args=(sender,)); starter.start(); starter.join()
            orphan = receiver.recv()
            while os.path.exists(f"/proc/{orphan}"):
                time.sleep(0.01)
            victim.kill(); victim.join()
            print(victim.exitcode)
    """
    assert output_of(tmp_path, prog=source) == ("-9\n", "")


def test_a_child_is_gone_before_the_server_can_follow_it(tmp_path: Path) -> None:
    """SIGCHLD is ignored, and so the system reaps it; the server stays."""
    slow = """
        import os, signal, time
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        def fork(original=os.fork):
            process = original()
            if process:
                time.sleep(0.3)
            return process
        os.fork = fork
    """
    source = """
        import cmultiprocessing as mp
        from cmultiprocessing import forkserver
        def work():
            pass
        if __name__ == "__main__":
            forkserver._forkserver._most_waiting = 0
            mp.set_forkserver_preload(["slow", "__main__"])
            servers = set()
            for _ in range(3):
                process = mp.get_context("forkserver").Process(target=work); process.start(); process.join()
                print(process.exitcode)
                servers.add(forkserver._forkserver._forkserver_pid)
            print(len(servers))
    """
    assert output_of(tmp_path, slow=slow, prog=source) == ("0\n0\n0\n1\n", "")


def test_the_server_runs_handlers_of_signals_that_came_while_it_was_busy(tmp_path: Path) -> None:
    """No system call was interrupted, and no Python code runs that would notice."""
    busy = """
        import ctypes, functools, os, signal
        def handle(number, frame):
            print("handled", flush=True)
        signal.signal(signal.SIGUSR1, handle)
        os.register_at_fork(after_in_parent=functools.partial(ctypes.CDLL(None)["raise"], int(signal.SIGUSR1)))
    """
    source = """
        import time
        import cmultiprocessing as mp
        def work():
            time.sleep(1)
            print("worked", flush=True)
        if __name__ == "__main__":
            from cmultiprocessing import forkserver
            forkserver._forkserver._most_waiting = 0
            mp.set_forkserver_preload(["busy", "__main__"])
            process = mp.get_context("forkserver").Process(target=work); process.start(); process.join()
    """
    assert output_of(tmp_path, busy=busy, prog=source) == ("handled\nworked\n", "")


def test_handlers_of_signals_end_the_server_and_those_that_wait_quietly(tmp_path: Path) -> None:
    """Those of the main module, which the server imports, when all processes of a group are sent SIGTERM."""
    source = """
        import os, signal, sys, time
        import cmultiprocessing as mp
        from cmultiprocessing import forkserver
        if __name__ != "__main__":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        def work():
            pass
        if __name__ == "__main__":
            for _ in range(2):
                process = mp.get_context("forkserver").Process(target=work); process.start(); process.join()
            server = forkserver._forkserver._forkserver_pid
            time.sleep(0.3)  # others begin to wait
            waiting = open(f"/proc/{server}/task/{server}/children").read().split()
            assert waiting
            for pid in waiting:
                os.kill(int(pid), signal.SIGTERM)
            time.sleep(0.1)
            os.kill(server, signal.SIGTERM)
            print(os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]))
    """
    assert output_of(tmp_path, prog=source) == ("7\n", "")


def test_a_program_has_process_objects_pickled_in_its_own_way(tmp_path: Path) -> None:
    """The server does without those of its own making."""
    source = """
        import threading
        import cmultiprocessing as mp
        from cmultiprocessing import process
        def init(self, *args, original=process.BaseProcess.__init__, **kwargs):
            original(self, *args, **kwargs)
            self.guard = threading.Lock()
        process.BaseProcess.__init__ = init
        class Process(mp.get_context("forkserver").Process):
            def __getstate__(self):
                return {name: value for name, value in vars(self).items() if name != "guard"}
        def work():
            print("worked")
        if __name__ == "__main__":
            for _ in range(3):
                process = Process(target=work); process.start(); process.join()
    """
    assert output_of(tmp_path, prog=source) == ("worked\n" * 3, "")


def test_a_rehearsal_that_fails_matters_to_nobody(tmp_path: Path) -> None:
    """Children that wait unpickle the example of a process; neither do they end then, nor is it shown."""
    source = """
        import os, time
        import cmultiprocessing as mp
        from cmultiprocessing import process
        def refuse(self, state, server=os.getpid()):
            if state["_target"] is os.getpid and os.getpid() != server:
                raise RuntimeError("this is a rehearsal")
            vars(self).update(state)
        process.BaseProcess.__setstate__ = refuse
        def work():
            print("worked")
        if __name__ == "__main__":
            for _ in range(3):
                process = mp.get_context("forkserver").Process(target=work); process.start(); process.join()
                time.sleep(0.1)  # others begin to wait
    """
    assert output_of(tmp_path, prog=source) == ("worked\n" * 3, "")


def test_too_many_descriptors(ctx: Any, mp: ModuleType) -> None:
    ends = [end for _ in range(150) for end in mp.Pipe()]
    try:
        with pytest.raises(ValueError, match="too many fds: 300 in the start arguments, the limit is 247"):
            ctx.Process(target=len, args=(ends,)).start()
        assert mp.active_children() == []
        assert run(ctx, len, ends[:247]).exitcode == 0
    finally:
        for end in ends:
            end.close()


def test_server_cannot_fork(ctx: Any, server: Any) -> None:
    """The starter gets the system's error. The refusal is written here: RLIMIT_NPROC does not bind root."""
    from cmultiprocessing import _requests, forkserver

    read_end, write_end = os.pipe()
    os.write(write_end, struct.pack("<Bii", _requests.REFUSED, 0, 11))
    report = _requests.read_report(read_end)
    assert report is not None
    with pytest.raises(BlockingIOError, match="fork server could not fork"):
        forkserver._first_report(*report, read_end)
    os.close(read_end)
    os.close(write_end)
