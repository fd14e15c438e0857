# SPDX-License-Identifier: PSF-2.0
"""The package's interface on threads, beside the standard library's."""

from __future__ import annotations

import array
import importlib
import queue
import threading
import time
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def dummy(both: ModuleType) -> Any:
    return importlib.import_module(f"{both.__name__}.dummy")


def test_processes(dummy: Any) -> None:
    release = threading.Event()
    done: list[Any] = []

    def work(number: int, *, more: int) -> None:
        release.wait(30)
        done.append((number, more, dummy.current_process()))

    process = dummy.Process(target=work, args=(1,), kwargs={"more": 2}, name="worker")
    assert process.exitcode is None
    assert isinstance(process, dummy.DummyProcess)
    assert dummy.active_children() == []
    process.daemon = True
    process.start()
    assert process.is_alive()
    assert process.exitcode is None
    assert dummy.active_children() == [process]
    release.set()
    process.join()
    assert process.exitcode == 0
    assert dummy.active_children() == []
    assert done == [(1, 2, process)]
    assert process.name == "worker"
    with pytest.raises(RuntimeError):
        process.start()


def test_processes_are_started_by_who_made_them(dummy: Any) -> None:
    process = dummy.Process(target=print)
    raised: list[Any] = []

    def start() -> None:
        try:
            process.start()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_children_of_each_thread(dummy: Any) -> None:
    release = threading.Event()
    seen: list[Any] = []

    def inner() -> None:
        child = dummy.Process(target=release.wait)
        child.start()
        seen.append(dummy.active_children() == [child])
        release.set()
        child.join()

    outer = dummy.Process(target=inner)
    outer.start()
    outer.join()
    assert seen == [True]


def test_synchronisation_and_queues(dummy: Any) -> None:
    for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"):
        with getattr(dummy, name)():
            pass
    assert not dummy.Event().is_set()
    assert dummy.Barrier(1).wait() == 0
    assert isinstance(dummy.Queue(), queue.Queue)
    joinable = dummy.JoinableQueue()
    joinable.put(1)
    joinable.get()
    joinable.task_done()
    joinable.join()
    with pytest.raises(queue.Empty):
        joinable.get_nowait()


def test_values_arrays_namespaces(dummy: Any) -> None:
    value = dummy.Value("i", 3)
    value.value += 1
    assert value.value == 4
    assert repr(value) == "<Value('i', 4)>"
    assert dummy.Array("d", [1, 2], lock=False) == array.array("d", [1, 2])
    namespace = dummy.Namespace(one=1, _hidden=2)
    namespace.two = 2
    assert repr(namespace) == "Namespace(one=1, two=2)"
    manager = dummy.Manager()
    assert manager is dummy
    assert manager.dict(a=1) == {"a": 1}
    assert manager.list((1,)) == [1]
    manager.shutdown()
    dummy.freeze_support()


def test_pool(dummy: Any) -> None:
    with dummy.Pool(2) as pool:
        assert pool.map(len, ["a", "bb"]) == [1, 2]


def test_pipes(dummy: Any) -> None:
    one, other = dummy.Pipe()
    thing = object()
    with one, other:
        assert not other.poll()
        one.send(thing)
        assert other.poll()
        assert other.recv() is thing
        other.send_bytes(b"x")
        assert one.recv_bytes() == b"x"
        began = time.monotonic()
        assert one.poll(0.05) is False
        assert time.monotonic() - began >= 0.05
        assert one.poll(-1) is False


def test_listener_and_client(dummy: Any) -> None:
    module = dummy.connection
    with module.Listener(backlog=2) as listener:
        there = module.Client(listener.address)
        here = listener.accept()
        there.send(1)
        assert here.recv() == 1
        here.send(2)
        assert there.recv() == 2
    assert module.families == [None]
    assert listener.address is None


def test_poll_waits_for_what_comes(mp: ModuleType) -> None:
    from cmultiprocessing import dummy

    one, other = dummy.Pipe()
    threads = [threading.Thread(target=one.poll, args=(None,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    other.send(1)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert one.recv() == 1


def test_a_closed_listener(mp: ModuleType) -> None:
    from cmultiprocessing.dummy.connection import Listener

    listener = Listener()
    listener.close()
    with pytest.raises(OSError, match="listener is closed"):
        listener.accept()
