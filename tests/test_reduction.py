# SPDX-License-Identifier: PSF-2.0
"""Pickling for other processes."""

from __future__ import annotations

import copyreg
import functools
import io
import os
import pickle
import socket
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def reduction(mp: ModuleType) -> Any:
    return mp.reducer


class Registered:
    def __init__(self, value: int) -> None:
        self.value = value

    def method(self, more: int) -> int:
        return self.value + more


def test_methods_and_partials(reduction: Any) -> None:
    pickler = reduction.ForkingPickler
    assert pickler.loads(pickler.dumps(Registered(1).method))(2) == 3
    assert pickler.loads(pickler.dumps([1, 2].index))(2) == 1
    assert pickler.loads(pickler.dumps(list.append)) is list.append
    partial = pickler.loads(pickler.dumps(functools.partial(int, "11", base=2)))
    assert partial() == 3


def test_registered_reducers_are_ours_alone(reduction: Any) -> None:
    pickler = reduction.ForkingPickler
    pickler.register(Registered, lambda thing: (int, (thing.value,)))
    try:
        assert pickler.loads(pickler.dumps(Registered(7))) == 7
        assert pickle.loads(pickle.dumps(Registered(7))).value == 7
    finally:
        del pickler._extra_reducers[Registered]


def test_copyreg_is_honoured(reduction: Any) -> None:
    copyreg.pickle(Registered, lambda thing: (str, (str(thing.value),)))
    try:
        assert reduction.ForkingPickler.loads(reduction.ForkingPickler.dumps(Registered(7))) == "7"
    finally:
        del copyreg.dispatch_table[Registered]


def test_names_of_the_standard_library_are_ours(reduction: Any, mp: ModuleType) -> None:
    loads = reduction.ForkingPickler.loads
    for module in ("multiprocessing", "multiprocessing.context"):
        assert loads(f"c{module}\nProcessError\n.".encode()) is mp.ProcessError
    with pytest.raises((ImportError, AttributeError)):
        loads(b"cmultiprocessing.nowhere\nthing\n.")


def test_dump_and_load_follow_each_other(reduction: Any) -> None:
    file = io.BytesIO()
    for value in (1, "two", [3]):
        reduction.dump(value, file)
    file.seek(0)
    assert [reduction.load(file) for _ in range(3)] == [1, "two", [3]]


def test_buffers(reduction: Any) -> None:
    out: list[pickle.PickleBuffer] = []
    data = pickle.dumps(pickle.PickleBuffer(b"large"), 5, buffer_callback=out.append)
    assert bytes(reduction.ForkingPickler.loads(data, buffers=out)) == b"large"


def test_descriptors_over_a_socket(reduction: Any) -> None:
    one, other = socket.socketpair()
    with one, other:
        read_end, write_end = os.pipe()
        reduction.send_handle(one, write_end, None)
        os.close(write_end)
        received = reduction.recv_handle(other)
        os.write(received, b"x")
        assert os.read(read_end, 1) == b"x"
        reduction.sendfds(one, [read_end, received])
        copies = reduction.recvfds(other, 2)
        for fd in (read_end, received, *copies):
            os.close(fd)
        one.send(b"\x01")
        with pytest.raises(RuntimeError, match="received 0 items of ancdata"):
            reduction.recvfds(other, 1)
        with pytest.raises(ValueError, match="limit is 253"):
            reduction.sendfds(one, [0] * 254)
        one.close()
        with pytest.raises(EOFError):
            reduction.recvfds(other, 1)


def talk(connection: Any, sock: socket.socket) -> None:
    connection.send(sock.recv(9))
    sock.send(b"from child")


def test_connections_and_sockets_as_arguments(ctx: Any) -> None:
    ours, theirs = socket.socketpair()
    receiver, sender = ctx.Pipe(False)
    with ours, theirs, receiver, sender:
        ours.send(b"to child")
        process = ctx.Process(target=talk, args=(sender, theirs))
        process.start()
        assert receiver.recv() == b"to child"
        assert ours.recv(99) == b"from child"
        process.join()


def test_secrets_are_only_for_children(mp: ModuleType, reduction: Any) -> None:
    with pytest.raises(TypeError, match="secret"):
        reduction.ForkingPickler.dumps(mp.current_process().authkey)


def test_abstract_reducer(reduction: Any) -> None:
    class Reducer(reduction.AbstractReducer):  # type: ignore[misc,name-defined]
        pass

    assert Reducer().ForkingPickler is reduction.ForkingPickler
    file = io.BytesIO()
    Reducer().dump(1, file)
    assert pickle.loads(file.getvalue()) == 1
