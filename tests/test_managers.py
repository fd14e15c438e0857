# SPDX-License-Identifier: PSF-2.0
"""Managers beyond CPython's own tests of them: keys, nested proxies, and what is left behind."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cmultiprocessing import connection, managers

from tests.support.processes import wait_until
from tests.support.scene import PATIENCE, within


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def manager(mp: ModuleType, request: Any) -> Iterator[Any]:
    """A manager with a key of its own."""
    manager = managers.SyncManager(authkey=b"another key", ctx=mp.get_context(request.param))
    manager.start()
    yield manager
    manager.shutdown()
    manager.join()


def append(proxy: Any, key: str, item: int) -> None:
    proxy[key].append(item)


def test_item_37_nested_proxies_know_the_key(mp: ModuleType, manager: Any) -> None:
    """In the parent, in a child, and in a child's child's answer."""
    d = manager.dict()
    d["list"] = manager.list([1])
    d["list"].append(2)
    child = manager._ctx.Process(target=append, args=(d, "list", 3))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert list(d["list"]) == [1, 2, 3]


def hammer(proxy: Any, me: int, rounds: int) -> None:
    for i in range(rounds):
        proxy[me] = i
        assert proxy[me] == i


def test_item_37_forked_children_have_connections_of_their_own(mp: ModuleType) -> None:
    ctx = mp.get_context("fork")
    with ctx.Manager() as manager:
        d = manager.dict()
        d["before"] = 1
        children = [ctx.Process(target=hammer, args=(d, i, 50)) for i in range(8)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * 8
        assert len(d) == 9


def test_item_36_nested_proxies_are_counted(manager: Any) -> None:
    """A proxy within a managed object holds its object, and lets it go with that one."""
    outer = manager.list()
    before = manager._number_of_objects()
    for _ in range(30):
        outer.append(manager.dict(a=1))
        gc.collect()
        assert outer[-1]["a"] == 1
        del outer[-1]
    gc.collect()
    wait_until(lambda: manager._number_of_objects() == before, PATIENCE, "all are let go")


def test_answers_that_cannot_be_pickled(manager: Any) -> None:
    namespace = manager.Namespace()
    namespace.x = 1
    q = manager.Queue()
    with pytest.raises(TypeError, match="cannot pickle"):
        q.put(threading.Lock())
    q.put(2)
    assert q.get() == 2
    assert str(namespace) == "Namespace(x=1)"


def test_errors_of_the_server_name_the_cause(manager: Any) -> None:
    d = manager.dict()
    with pytest.raises(KeyError, match="nothing"):
        d["nothing"]
    with pytest.raises(managers.RemoteError, match="has no public method"):
        managers.dispatch(manager._Client(manager.address, authkey=b"another key"), None, "__init__")
    with pytest.raises(managers.RemoteError, match="not in exposed"):
        d._callmethod("__class__")


def test_a_wrong_key_is_refused_and_the_next_client_served(mp: ModuleType, manager: Any) -> None:
    stranger = managers.BaseManager(manager.address, authkey=b"wrong")
    with pytest.raises(mp.AuthenticationError):
        stranger.connect()
    friend = managers.BaseManager(manager.address, authkey=b"another key")
    friend.connect()
    assert friend._number_of_objects() == 0


def test_a_killed_server_is_told(mp: ModuleType) -> None:
    with mp.get_context("fork").Manager() as manager:
        d = manager.dict()
        os.kill(manager._process.pid, signal.SIGKILL)
        wait_until(lambda: not manager._process.is_alive(), PATIENCE, "it is dead")
        with pytest.raises((EOFError, OSError)):
            d["x"] = 1


def test_a_stopped_server_does_not_hold_up_shutdown(mp: ModuleType) -> None:
    manager = managers.SyncManager(ctx=mp.get_context("fork"), shutdown_timeout=0.2)
    manager.start()
    os.kill(manager._process.pid, signal.SIGSTOP)
    with within(6, "shutdown()"):
        manager.shutdown()
    assert manager._process.exitcode == -signal.SIGKILL


def test_requests_that_are_none(mp: ModuleType, capfd: Any) -> None:
    """Who knows the key may still send nonsense: it is told so, the server prints nothing and serves the next one."""
    with mp.get_context("fork").Manager() as manager:
        d = manager.dict()
        for begin in ((), [(None, "accept_connection", ("me",), {})]):
            for nonsense in (b"no pickle", pickle.dumps(5), pickle.dumps((1, 2)), pickle.dumps((None, [], (), {}))):
                with connection.Client(manager.address, authkey=mp.current_process().authkey) as conn:
                    for request in begin:
                        conn.send(request)
                        assert conn.recv() == ("#RETURN", None)
                    conn.send_bytes(nonsense)
                    kind, text = conn.recv()
                    assert kind == "#TRACEBACK"
                    assert "Error" in text
        d["x"] = 1
        assert d["x"] == 1
    assert capfd.readouterr().err == ""


def test_proxies_in_a_child_that_imports_no_managers(mp: ModuleType, tmp_path: Path) -> None:
    """What methods return becomes the documented kind of proxy there, too."""
    program = tmp_path / "program.py"
    program.write_text(
        "import cmultiprocessing as mp, sys\n"
        "def iterate(d, q):\n"
        "    q.put(list(iter(d)))\n"
        "if __name__ == '__main__':\n"
        "    ctx = mp.get_context('spawn')\n"
        "    with ctx.Manager() as manager:\n"
        "        q = ctx.SimpleQueue()\n"
        "        d = manager.dict(a=1)\n"
        "        child = ctx.Process(target=iterate, args=(d, q))\n"
        "        child.start()\n"
        "        child.join()\n"
        "        print(child.exitcode, q.get() if not child.exitcode else None)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("0 ['a']\n", "")


def test_names_that_users_see() -> None:
    """In tracebacks and pickles they are names of the module in the documentation."""
    for thing in (managers.RemoteError, managers.Token, managers.ListProxy, managers.Server, managers.RebuildProxy):
        assert thing.__module__ == managers.__name__


def test_states(mp: ModuleType) -> None:
    manager = managers.SyncManager()
    with pytest.raises(AssertionError, match="not been started"):
        manager.dict()
    with manager:
        with pytest.raises(mp.ProcessError, match="started already"):
            manager.start()
        assert manager.dict(a=1).copy() == {"a": 1}
    with pytest.raises(mp.ProcessError, match="shut down"):
        manager.start()


def fail() -> None:
    raise ValueError("from the initializer")


def test_an_initializer_that_fails(mp: ModuleType, capfd: Any) -> None:
    manager = managers.SyncManager(ctx=mp.get_context("spawn"))
    with pytest.raises(EOFError):
        manager.start(fail)
    manager._process.join()
    assert "from the initializer" in capfd.readouterr().err


def test_proxies_in_a_proxy_that_came_from_elsewhere(mp: ModuleType) -> None:
    """A proxy without a manager, as children have them, makes proxies of what methods return."""
    ctx = mp.get_context("spawn")
    with ctx.Manager() as manager:
        d = manager.dict(a=1, b=2)
        q = ctx.SimpleQueue()
        child = ctx.Process(target=keys_of, args=(d, q))
        child.start()
        child.join()
        assert q.get() == ["a", "b"]


def keys_of(d: Any, q: Any) -> None:
    q.put(sorted(iter(d)))
