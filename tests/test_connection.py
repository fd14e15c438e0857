# SPDX-License-Identifier: PSF-2.0
"""Connections: behaviour that both libraries show, and the bytes on the wire."""

from __future__ import annotations

import array
import os
import signal
import socket
import struct
import threading
import time
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(params=[True, False], ids=["duplex", "simplex"])
def pipe(both: ModuleType, request: pytest.FixtureRequest) -> Any:
    receiver, sender = both.Pipe(request.param)
    yield receiver, sender
    receiver.close()
    sender.close()


@pytest.mark.parametrize("value", [None, 1, "text", [1, (2,)], b"x" * 5_000, {"a": 1.5}])
def test_objects(pipe: Any, value: Any) -> None:
    receiver, sender = pipe
    sender.send(value)
    assert receiver.poll()
    assert receiver.recv() == value
    assert not receiver.poll(0)


def test_arguments_by_name(both: ModuleType, pipe: Any) -> None:
    receiver, sender = pipe
    sender.send(obj=1)
    sender.send_bytes(buf=b"abc", offset=1, size=1)
    assert receiver.poll(timeout=1)
    assert (receiver.recv(), receiver.recv_bytes(maxlength=1)) == (1, b"b")
    for wrong in ({}, {"object": 1}, {"obj": 1, "more": 2}):
        with pytest.raises(TypeError):
            sender.send(**wrong)
    with pytest.raises(TypeError):
        sender.send(1, obj=1)


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 3_000_000])
def test_bytes_of_any_size(pipe: Any, size: int) -> None:
    receiver, sender = pipe
    message = os.urandom(size)
    thread = threading.Thread(target=sender.send_bytes, args=(message,))
    thread.start()
    assert receiver.recv_bytes() == message
    thread.join()


def test_parts_of_buffers(pipe: Any) -> None:
    receiver, sender = pipe
    sender.send_bytes(array.array("i", [1, 2, 3]))
    into = array.array("i", [0] * 5)
    assert receiver.recv_bytes_into(into, 4) == 12
    assert into.tolist() == [0, 1, 2, 3, 0]
    sender.send_bytes(b"abcdef", 2)
    sender.send_bytes(b"abcdef", 2, 3)
    sender.send_bytes(b"abcdef", 6)
    assert [receiver.recv_bytes() for _ in range(3)] == [b"cdef", b"cde", b""]
    for arguments in ((b"ab", -1), (b"ab", 3), (b"ab", 0, -1), (b"ab", 1, 2)):
        with pytest.raises(ValueError, match=r"offset|size"):
            sender.send_bytes(*arguments)


def test_buffer_too_short(both: ModuleType, pipe: Any) -> None:
    receiver, sender = pipe
    sender.send_bytes(b"twelve bytes")
    with pytest.raises(both.BufferTooShort) as caught:
        receiver.recv_bytes_into(bytearray(5))
    assert caught.value.args == (b"twelve bytes",)


def test_too_long_message_ends_reading(both: ModuleType) -> None:
    receiver, sender = both.Pipe(False)
    with sender:
        sender.send_bytes(b"12345")
        assert receiver.recv_bytes(5) == b"12345"
        with pytest.raises(ValueError, match="negative maxlength"):
            receiver.recv_bytes(-1)
        sender.send_bytes(b"123456")
        with pytest.raises(OSError, match="bad message length"):
            receiver.recv_bytes(5)
        assert receiver.closed


def test_directions(both: ModuleType) -> None:
    receiver, sender = both.Pipe(False)
    assert (receiver.readable, receiver.writable) == (True, False)
    assert (sender.readable, sender.writable) == (False, True)
    with pytest.raises(OSError, match="read-only"):
        receiver.send(1)
    for use in (sender.recv, sender.recv_bytes, sender.poll):
        with pytest.raises(OSError, match="write-only"):
            use()
    with receiver, sender:
        pass
    assert receiver.closed
    receiver.close()
    for use in (receiver.recv, receiver.fileno, receiver.poll):
        with pytest.raises(OSError, match="handle is closed"):
            use()


def test_end_of_file(pipe: Any) -> None:
    receiver, sender = pipe
    sender.send(1)
    sender.close()
    assert receiver.recv() == 1
    assert receiver.poll()
    with pytest.raises(EOFError):
        receiver.recv()


def test_other_end_closed(pipe: Any) -> None:
    receiver, sender = pipe
    receiver.close()
    with pytest.raises(BrokenPipeError):
        sender.send(1)


def test_truncated_message(both: ModuleType) -> None:
    receiver, sender = both.Pipe(False)
    with receiver:
        os.write(sender.fileno(), struct.pack("!i", 10) + b"half")
        sender.close()
        with pytest.raises(OSError, match="end of file"):
            receiver.recv_bytes()


def test_wire_format(both: ModuleType) -> None:
    receiver, sender = both.Pipe(False)
    with receiver, sender:
        sender.send_bytes(b"abc")
        assert os.read(receiver.fileno(), 99) == struct.pack("!i", 3) + b"abc"
        os.write(sender.fileno(), struct.pack("!iQ", -1, 3) + b"xyz")
        assert receiver.recv_bytes() == b"xyz"


def test_negative_length(mp: ModuleType) -> None:
    receiver, sender = mp.Pipe(False)
    with receiver, sender:
        os.write(sender.fileno(), struct.pack("!i", -5))
        with pytest.raises(OSError, match="bad message length -5"):
            receiver.recv_bytes()


def test_claimed_length_is_not_believed(mp: ModuleType) -> None:
    """A length of 2 GiB and no bytes after it: no memory is taken for it."""
    receiver, sender = mp.Pipe(False)
    with receiver:
        os.write(sender.fileno(), struct.pack("!iQ", -1, 1 << 60))
        sender.close()
        with pytest.raises((EOFError, OSError)):
            receiver.recv_bytes()


def test_handles_are_checked(mp: ModuleType) -> None:
    from cmultiprocessing.connection import Connection

    with pytest.raises(ValueError, match="invalid handle"):
        Connection(-1)
    with pytest.raises(ValueError, match="at least one"):
        Connection(44_977_608, readable=False, writable=False)
    connection = Connection(44_977_608)
    connection.poll()
    with pytest.raises(OSError, match="Bad file descriptor"):
        connection.recv()
    connection._handle = None


def test_collected_connections_are_closed(mp: ModuleType) -> None:
    """The net looks at the descriptors."""
    for _ in range(10):
        mp.Pipe()


# --- wait ----------------------------------------------------------------------------------------


def wait_of(package: ModuleType) -> Any:
    import importlib

    return importlib.import_module(f"{package.__name__}.connection").wait


def test_wait(both: ModuleType) -> None:
    wait = wait_of(both)
    (first, to_first), (second, to_second) = both.Pipe(), both.Pipe()
    one, other = socket.socketpair()
    with first, to_first, second, to_second, one, other:
        everything = [first, second.fileno(), one]
        assert wait(everything, 0) == []
        assert wait(everything, -1) == []
        to_first.send(1)
        other.send(b"x")
        assert wait(everything) == [first, one]
        to_second.close()
        assert wait(everything, 5) == everything
        assert wait([], 0.01) == []


def test_wait_keeps_its_deadline_through_signals(both: ModuleType) -> None:
    wait = wait_of(both)
    handled = []
    before = signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
    receiver, sender = both.Pipe()
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        began = time.monotonic()
        assert wait([receiver], 0.3) == []
        assert time.monotonic() - began >= 0.3
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        receiver.close()
        sender.close()
    assert len(handled) > 3


@pytest.mark.parametrize("timeout", [1e9, float("inf")])
def test_wait_for_very_long(mp: ModuleType, timeout: float) -> None:
    from cmultiprocessing.connection import wait

    receiver, sender = mp.Pipe()
    with receiver, sender:
        sender.send(1)
        assert wait([receiver], timeout) == [receiver]
        assert receiver.poll(timeout)
