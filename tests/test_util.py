# SPDX-License-Identifier: PSF-2.0
"""Finalizers, work after a fork, logging."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.programs import environment, run_program, run_python


@pytest.fixture
def util(mp: ModuleType) -> Any:
    from cmultiprocessing import util as module

    saved = module._finalizer_registry.copy()
    module._finalizer_registry.clear()
    yield module
    module._finalizer_registry.clear()
    module._finalizer_registry.update(saved)


class Thing:
    pass


def test_order_of_finalizers(util: Any) -> None:
    ran: list[str] = []
    thing, kept = Thing(), Thing()
    util.Finalize(thing, ran.append, args=("collected",))
    util.Finalize(kept, ran.append, args=("never: no priority",))
    for priority, word in ((1, "one"), (0, "zero a"), (0, "zero b"), (5, "five"), (-5, "minus five")):
        util.Finalize(None, ran.append, args=(word,), exitpriority=priority)
    del thing
    gc.collect()
    util._run_finalizers(0)
    assert ran == ["collected", "five", "one", "zero b", "zero a"]
    util._run_finalizers()
    assert ran[5:] == ["minus five"]
    assert not util._finalizer_registry


def test_a_finalizer_runs_once(util: Any) -> None:
    ran: list[int] = []
    thing = Thing()
    finalizer = util.Finalize(thing, lambda n, *, m: ran.append(n + m) or "result", args=(1,), kwargs={"m": 2})
    assert finalizer.still_active()
    assert repr(finalizer).startswith("<Finalize object, callback=<lambda>, args=(1,)")
    assert finalizer() == "result"
    assert finalizer() is None
    assert not finalizer.still_active()
    assert repr(finalizer) == "<Finalize object, dead>"
    del thing
    gc.collect()
    assert ran == [3]


def test_cancelled_finalizer(util: Any) -> None:
    ran: list[int] = []
    finalizer = util.Finalize(None, ran.append, args=(1,), exitpriority=1)
    finalizer.cancel()
    finalizer.cancel()
    util._run_finalizers()
    assert (ran, finalizer()) == ([], None)


def test_a_failing_finalizer_does_not_stop_the_others(util: Any, capfd: Any) -> None:
    ran: list[int] = []
    util.Finalize(None, ran.append, args=(1,), exitpriority=1)
    util.Finalize(None, lambda: 1 // 0, exitpriority=2)
    util._run_finalizers()
    assert ran == [1]
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_finalizer_arguments_are_checked(util: Any) -> None:
    with pytest.raises(ValueError, match="exitpriority cannot be None"):
        util.Finalize(None, print)
    with pytest.raises(TypeError, match="must be None or int"):
        util.Finalize(None, print, exitpriority="high")


def test_finalizers_are_made_and_run_by_many_threads(util: Any) -> None:
    stop, errors = threading.Event(), []

    def make() -> None:
        try:
            while not stop.is_set():
                thing = Thing()
                util.Finalize(thing, len, args=("",), exitpriority=1)
                del thing
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        util._run_finalizers(0)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_inherited_finalizers_do_not_run_in_children(mp: ModuleType, util: Any, capfd: Any) -> None:
    util.Finalize(None, os.write, args=(1, b"ran "), exitpriority=1)
    process = mp.get_context("fork").Process(target=print, args=("child",))
    process.start()
    process.join()
    assert capfd.readouterr().out == "child\n"


def test_after_fork(mp: ModuleType, util: Any, capfd: Any) -> None:
    first, second, gone = Thing(), Thing(), Thing()
    util.register_after_fork(first, lambda _: os.write(1, b"first "))
    util.register_after_fork(second, lambda _: os.write(1, b"second "))
    util.register_after_fork(gone, lambda _: os.write(1, b"gone "))
    del gone
    process = mp.get_context("fork").Process(target=os.write, args=(1, b"run"))
    process.start()
    process.join()
    assert capfd.readouterr().out == "first second run"


def use_lock(lock: Any, local: Any) -> None:
    assert not hasattr(local, "value")
    with lock:
        os.write(1, b"locked")


def test_objects_that_are_fresh_after_a_fork(mp: ModuleType, util: Any, capfd: Any) -> None:
    before = len(util._afterfork_registry)
    lock, local = util.ForkAwareThreadLock(), util.ForkAwareLocal()
    local.value = 1
    with lock:
        process = mp.get_context("fork").Process(target=use_lock, args=(lock, local))
        process.start()
        process.join()
    assert capfd.readouterr().out == "locked"
    assert process.exitcode == 0
    del lock, local, process
    gc.collect()
    assert len(util._afterfork_registry) == before


def test_close_all_fds_except(mp: ModuleType, util: Any) -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            util.close_all_fds_except([write_end])
            os.write(write_end, repr(sorted(map(int, os.listdir("/proc/self/fd")))[:1]).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(pid, 0)
    assert len(os.read(read_end, 99)) > 0
    os.close(read_end)


def test_a_replaced_spawnv_passfds_is_used(mp: ModuleType, util: Any, monkeypatch: Any, capfd: Any) -> None:
    original, calls = util.spawnv_passfds, []

    def own(path: bytes, args: list[str | bytes], passfds: Any) -> int:
        calls.append(path)
        return int(original(path, args, passfds))

    monkeypatch.setattr(util, "spawnv_passfds", own)
    process = mp.get_context("spawn").Process(target=print, args=("run",))
    process.start()
    process.join()
    assert (len(calls), capfd.readouterr().out) == (1, "run\n")


def test_temp_dir(mp: ModuleType, util: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mp.current_process()._config, "tempdir", None)  # an earlier test may have made one
    path = util.get_temp_dir()
    assert util.get_temp_dir() == path
    assert os.stat(path).st_mode & 0o777 == 0o700
    util._run_finalizers()
    assert not os.path.exists(path)


@pytest.mark.parametrize("kind", ["long", "read-only", "missing"])
def test_temp_dir_where_tmpdir_is_of_no_use(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "x".ljust(200 if kind == "long" else 1, "x")
    if kind != "missing":
        folder.mkdir(mode=0o500 if kind == "read-only" else 0o700)
    if kind == "read-only" and os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    code = (
        "import os; from cmultiprocessing import util; path = util.get_temp_dir()\n"
        "print(os.path.isdir(path), len(path) < 68, path.startswith(os.environ['TMPDIR']))"
    )
    assert run_python("-c", code, env=environment(TMPDIR=str(folder))) == (0, "True True False\n", "")


@pytest.mark.parametrize(
    ("address", "abstract"), [("\0x", True), (b"\0x", True), ("/x", False), (b"", False), (None, False)]
)
def test_abstract_addresses(util: Any, address: Any, abstract: bool) -> None:
    assert util.is_abstract_socket_namespace(address) is abstract
    with pytest.raises(TypeError):
        util.is_abstract_socket_namespace(3)


# --- logging -------------------------------------------------------------------------------------

RECORDS = """
import sys
{early}
import cmultiprocessing as mp

def work():
    import logging
    logging.basicConfig(format="%(processName)s %(message)s")
    logging.getLogger("anybody's").warning("words")
    assert logging.__loader__ is logging.__spec__.loader
    assert type(logging.__loader__).__module__ == "_frozen_importlib_external", logging.__loader__
    assert not [finder for finder in sys.meta_path if "cmultiprocessing" in type(finder).__module__]

if __name__ == "__main__":
    child = mp.get_context(sys.argv[1]).Process(target=work, name="Child")
    child.start()
    child.join()
    assert child.exitcode == 0
    if sys.argv[2] == "renamed":
        mp.current_process().name = "Renamed"
    work()
"""


@pytest.mark.parametrize("early", ["", "import logging", "import multiprocessing"])
def test_records_of_all_loggers_name_the_process(start_method: str, early: str, tmp_path: Path) -> None:
    """Without an alias logging would look for it in the standard library's package, and find MainProcess."""
    for main in ("MainProcess", "Renamed"):
        code, _, errors = run_program(RECORDS.format(early=early), start_method, main.lower(), folder=tmp_path)
        assert (code, errors) == (0, f"Child words\n{main} words\n")


def test_a_child_of_the_standard_library_keeps_its_name(tmp_path: Path) -> None:
    program = (
        "import logging, multiprocessing\nimport cmultiprocessing as mp\n"
        "def work(): logging.basicConfig(format='%(processName)s %(message)s'); logging.warning('words')\n"
        "if __name__ == '__main__':\n"
        "    child = mp.Process(target=len, args=('',)); child.start(); child.join()\n"
        "    child = multiprocessing.get_context('fork').Process(target=work, name='Theirs')\n"
        "    child.start(); child.join()\n"
    )
    assert run_program(program, folder=tmp_path)[2] == "Theirs words\n"


def test_names_of_levels_and_format(mp: ModuleType, util: Any) -> None:
    import logging

    assert (mp.SUBDEBUG, mp.SUBWARNING) == (util.SUBDEBUG, util.SUBWARNING) == (5, 25)
    assert (util.LOGGER_NAME, util.DEFAULT_LOGGING_FORMAT) == (
        "multiprocessing", "[%(levelname)s/%(processName)s] %(message)s",
    )  # fmt: skip
    logger = mp.get_logger()
    assert logger is util.get_logger() is logging.getLogger("multiprocessing")
    assert not logger.propagate
    assert [logging.getLevelName(level) for level in (5, 25)] == ["SUBDEBUG", "SUBWARNING"]


def test_the_line_that_logs_is_named(mp: ModuleType, util: Any) -> None:
    import io
    import logging

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(filename)s %(funcName)s %(message)s"))
    logger = mp.get_logger()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(util.SUBDEBUG)
    try:
        for log in (util.sub_debug, util.debug, util.info, util.sub_warning, util.warn):
            log("%s %d", "words", 1)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    place = "test_util.py test_the_line_that_logs_is_named words 1"
    levels = ("SUBDEBUG", "DEBUG", "INFO", "SUBWARNING", "WARNING")
    assert stream.getvalue().splitlines() == [f"{level} {place}" for level in levels]


def send_levels(connection: Any) -> None:
    from cmultiprocessing import util

    logger = util.get_logger()
    connection.send((logger.level, logger.getEffectiveLevel(), len(logger.handlers)))


def test_the_level_travels(mp: ModuleType, start_method: str, util: Any) -> None:
    import logging

    ctx = mp.get_context(start_method)
    logger = mp.get_logger()
    before = logger.level
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        try:
            for level in (logging.ERROR, util.SUBDEBUG):
                logger.setLevel(level)
                child = ctx.Process(target=send_levels, args=(sender,))
                child.start()
                assert receiver.recv()[1] == level
                child.join()
        finally:
            logger.setLevel(before)


def test_documented_lines_at_their_levels(start_method: str, tmp_path: Path) -> None:
    program = (
        "import sys, cmultiprocessing as mp\n"
        "if __name__ == '__main__':\n"
        "    mp.log_to_stderr('DEBUG')\n"
        "    ctx = mp.get_context(sys.argv[1])\n"
        "    ctx.Process(target=len, args=('',), name='Logger').start()\n"
        "    ctx.Process(target=__import__('time').sleep, args=(60,), name='Daemon', daemon=True).start()\n"
    )
    lines = run_program(program, start_method, folder=tmp_path)[2].splitlines()
    for line in (
        "[INFO/Logger] child process calling self.run()",
        "[INFO/Logger] process shutting down",
        '[DEBUG/Logger] running all "atexit" finalizers with priority >= 0',
        '[DEBUG/Logger] running the remaining "atexit" finalizers',
        "[INFO/Logger] process exiting with exitcode 0",
        "[INFO/MainProcess] process shutting down",
        "[INFO/MainProcess] calling terminate() for daemon Daemon",
        "[INFO/MainProcess] calling join() for process Daemon",
        '[DEBUG/MainProcess] running the remaining "atexit" finalizers',
    ):
        assert lines.count(line) == 1, (line, lines)
