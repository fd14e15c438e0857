# SPDX-License-Identifier: PSF-2.0
"""Finalizers, work after a fork, logging."""

from __future__ import annotations

import gc
import os
import threading
from types import ModuleType
from typing import Any

import pytest


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


def test_temp_dir(mp: ModuleType, util: Any) -> None:
    path = util.get_temp_dir()
    assert util.get_temp_dir() == path
    assert os.stat(path).st_mode & 0o777 == 0o700
    util._run_finalizers()
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("address", "abstract"), [("\0x", True), (b"\0x", True), ("/x", False), (b"", False), (None, False)]
)
def test_abstract_addresses(util: Any, address: Any, abstract: bool) -> None:
    assert util.is_abstract_socket_namespace(address) is abstract
    with pytest.raises(TypeError):
        util.is_abstract_socket_namespace(3)
