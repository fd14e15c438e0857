# SPDX-License-Identifier: PSF-2.0
"""Descriptors lent to processes that run already: connections and sockets in messages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support import interpreters, processes
from tests.support.scene import PATIENCE, within


@pytest.fixture
def sharer(mp: ModuleType) -> Iterator[Any]:
    from cmultiprocessing import resource_sharer

    yield resource_sharer
    resource_sharer.stop(PATIENCE)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def use_what_comes(channel: Any) -> None:
    """Receive connections and sockets, and say something through each."""
    while (thing := channel.recv()) is not None:
        if isinstance(thing, socket.socket):
            thing.sendall(b"through a socket")
        else:
            thing.send("through a connection")
        thing.close()
    channel.send("done")


def test_connections_and_sockets_through_a_pipe(ctx: Any, sharer: Any) -> None:
    here, there = ctx.Pipe()
    child = ctx.Process(target=use_what_comes, args=(there,))
    child.start()
    there.close()
    for _ in range(3):
        receiver, sender = ctx.Pipe(False)
        here.send(sender)
        sender.close()
        assert receiver.recv() == "through a connection"
        with pytest.raises(EOFError):
            receiver.recv()
        receiver.close()
    ours, theirs = socket.socketpair()
    with ours:
        here.send(theirs)
        theirs.close()
        assert ours.recv(99) == b"through a socket"
        assert ours.recv(99) == b""
    here.send(None)
    assert here.recv() == "done"
    here.close()
    child.join()
    assert child.exitcode == 0
    child.close()


def test_through_queues_and_nested(mp: ModuleType, sharer: Any) -> None:
    queue = mp.SimpleQueue()
    receiver, sender = mp.Pipe(False)
    queue.put({"deep": [sender]})
    sender.close()
    with queue.get()["deep"][0] as copy:
        copy.send(1)
    assert receiver.recv() == 1
    with pytest.raises(EOFError):
        receiver.recv()
    receiver.close()


def test_directions_travel_along(mp: ModuleType, sharer: Any) -> None:
    pickler = mp.reducer.ForkingPickler
    for end in mp.Pipe(False):
        with end, pickler.loads(pickler.dumps(end)) as copy:
            assert (copy.readable, copy.writable) == (end.readable, end.writable)


def test_no_thread_when_nothing_is_lent(mp: ModuleType, sharer: Any) -> None:
    """Forking a process with several threads makes Python 3.12 warn; and who lends nothing needs no socket."""
    read_end, write_end = os.pipe()
    assert "resource sharer" not in threads()
    lent = [sharer.DupFd(write_end) for _ in range(3)]
    assert threads().count("resource sharer") == 1
    for one in lent:
        os.close(one.detach())
    processes.wait_until(lambda: "resource sharer" not in threads(), PATIENCE, "the thread ends")
    assert sharer._shelf._listener is None
    again = sharer.DupFd(write_end)
    fd = again.detach()
    os.write(fd, b"x")
    assert os.read(read_end, 1) == b"x"
    for each in (fd, read_end, write_end):
        os.close(each)


def test_only_once(sharer: Any) -> None:
    read_end, write_end = os.pipe()
    kept, lent = sharer.DupFd(write_end), sharer.DupFd(read_end)
    os.close(lent.detach())
    with pytest.raises((EOFError, OSError)):
        lent.detach()
    os.close(kept.detach())
    processes.wait_until(lambda: sharer._shelf._listener is None, PATIENCE, "the shelf is empty")
    with pytest.raises((EOFError, OSError)):
        kept.detach()
    os.close(read_end)
    os.close(write_end)


def test_stop_closes_what_was_not_taken(sharer: Any) -> None:
    read_end, write_end = os.pipe()
    lent = sharer.DupFd(write_end)
    os.close(write_end)
    sharer.stop(PATIENCE)
    assert os.read(read_end, 1) == b""
    os.close(read_end)
    with pytest.raises(OSError):
        lent.detach()
    sharer.stop()


def test_signals_go_to_the_programs_own_threads(sharer: Any) -> None:
    read_end, write_end = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    lent = sharer.DupFd(write_end)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "resource sharer")
    with open(f"/proc/self/task/{thread.native_id}/status") as status:
        (blocked,) = (line.split()[1] for line in status if line.startswith("SigBlk"))
    assert int(blocked, 16) >> (signal.SIGINT - 1) & 1
    os.close(lent.detach())
    os.close(read_end)
    os.close(write_end)


def test_a_bad_descriptor_is_refused_at_once(sharer: Any) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        sharer.DupFd(44_977_608)
    assert sharer._shelf._listener is None


def test_a_wrong_key_gets_nothing(mp: ModuleType, sharer: Any) -> None:
    read_end, write_end = os.pipe()
    lent = sharer.DupFd(write_end)
    process = mp.current_process()
    right = process.authkey
    from cmultiprocessing.connection import Client

    with pytest.raises(mp.AuthenticationError):
        Client(lent._id[0], authkey=b"wrong")
    # The key may be changed meanwhile: both sides take the one of the moment.
    process.authkey = b"another"
    try:
        os.close(lent.detach())
    finally:
        process.authkey = right
    os.close(read_end)
    os.close(write_end)


def ask_nonsense(sharer: Any, request: Any) -> None:
    """With the right key."""
    from cmultiprocessing import current_process
    from cmultiprocessing.connection import Client

    address, _ = sharer._shelf._listener._address, None
    with Client(address, authkey=current_process().authkey) as conn:
        if isinstance(request, bytes):
            conn.send_bytes(request)
        else:
            conn.send(request)
        with pytest.raises((EOFError, OSError)):
            conn.recv_bytes()


@pytest.mark.parametrize("request_", [(77, 1), (None, 1), "text", (1,), (1, 2, 3), b"", b"no pickle", bytes(5000)])
def test_nonsense_of_those_who_know_the_key(mp: ModuleType, sharer: Any, request_: Any) -> None:
    read_end, write_end = os.pipe()
    lent = sharer.DupFd(write_end)
    ask_nonsense(sharer, request_)
    os.close(lent.detach())
    os.close(read_end)
    os.close(write_end)


def be_killed_borrowing(channel: Any) -> None:
    thing = channel.recv_bytes()
    channel.send(len(thing))
    time.sleep(99)


def test_a_borrower_that_dies(mp: ModuleType, sharer: Any) -> None:
    """It never takes what it got: others are served, and stop() closes the descriptor."""
    ctx = mp.get_context("fork")
    here, there = ctx.Pipe()
    child = ctx.Process(target=be_killed_borrowing, args=(there,))
    child.start()
    there.close()
    receiver, sender = ctx.Pipe(False)
    here.send(sender)
    here.recv()
    child.kill()
    child.join()
    child.close()
    pickler = mp.reducer.ForkingPickler
    with pickler.loads(pickler.dumps(sender)) as copy:
        copy.send(1)
    sender.close()
    assert receiver.recv() == 1
    assert not receiver.poll(0), "it is lent still"
    sharer.stop(PATIENCE)
    with within(1, "the end"), pytest.raises(EOFError):
        receiver.recv()
    here.close()
    receiver.close()


def see_nothing_lent(channel: Any) -> None:
    from cmultiprocessing import resource_sharer

    channel.send([len(resource_sharer._shelf._lent), resource_sharer._shelf._listener is None])
    time.sleep(99)


def test_forked_children_lend_nothing_of_their_parents(mp: ModuleType, sharer: Any) -> None:
    """Their copies would keep the other end from seeing the end of file."""
    ctx = mp.get_context("fork")
    here, there = ctx.Pipe()
    receiver, sender = ctx.Pipe(False)
    lent = sharer.DupFd(sender.fileno())
    child = ctx.Process(target=close_first_then_see, args=(sender, there))
    child.start()
    assert here.recv() == [0, True]
    sender.close()
    os.close(lent.detach())
    with within(1, "the end"), pytest.raises(EOFError):
        receiver.recv()
    child.kill()
    child.join()
    for thing in (child, here, there, receiver):
        thing.close()


def close_first_then_see(sender: Any, channel: Any) -> None:
    sender.close()
    see_nothing_lent(channel)


def lend_and_end() -> None:
    import cmultiprocessing as mp

    receiver, _ = mp.Pipe()
    mp.reducer.ForkingPickler.dumps(receiver)


def test_the_end_of_a_process_that_lends() -> None:
    code = (
        "import os, sys, tempfile\nfrom tests.test_resource_sharer import lend_and_end\nlend_and_end()\n"
        "from cmultiprocessing import resource_sharer\nprint(resource_sharer._shelf._listener._address)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.exists(os.path.dirname(done.stdout.strip()))


STANDARD = """
import sys
from multiprocessing import process, Pipe
from multiprocessing.connection import Listener
process.current_process().authkey = b"shared"
receiver, sender = Pipe(False)
with Listener(authkey=b"shared") as listener:
    print(listener.address, flush=True)
    with listener.accept() as conn:
        conn.send(sender)
        print(receiver.recv(), flush=True)
"""


@pytest.mark.parametrize("version", interpreters.VERSIONS)
def test_a_connection_lent_by_the_standard_library(mp: ModuleType, version: str) -> None:
    """The messages are its own: what it lends can be taken here."""
    if version not in interpreters.found():
        pytest.skip(f"no Python {version} on this machine")
    from cmultiprocessing.connection import Client

    process = mp.current_process()
    before = process.authkey
    process.authkey = b"shared"
    try:
        command = [interpreters.found()[version], "-I", "-c", STANDARD]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as them:
            assert them.stdout is not None
            with Client(them.stdout.readline().strip(), authkey=b"shared") as conn:
                with conn.recv() as sender:
                    sender.send("from us")
                assert them.stdout.readline() == "from us\n"
    finally:
        process.authkey = before
