# SPDX-License-Identifier: PSF-2.0
"""What goes wrong with connections: dead peers, half messages, shared ends, mutated bytes, large messages."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import random
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cmultiprocessing
import pytest
from cmultiprocessing import _cmultiprocessing as native
from cmultiprocessing.connection import Connection, wait

from tests.support import apart
from tests.support.memory import descriptors, forget_peak, status
from tests.support.scene import scale

pytestmark = pytest.mark.usefixtures("mp")  # stops the fork server before the leaks are counted
MEBI = 1 << 20
METHODS = ["fork", "spawn", "forkserver"]
LONG = os.environ.get("CMULTIPROCESSING_LONG_TESTS", "") == "1"


def used_memory() -> int:
    """Bytes of shared memory that somebody uses, after a collection."""
    for _ in range(100):
        if native.family_collect():
            break
        time.sleep(0.01)
    statistics = native.family_statistics()
    return statistics["used"] - statistics["warm"]


def close_all(*connections: Any) -> None:
    for connection in connections:
        connection.close()


# --- item 31 -------------------------------------------------------------------------------------


def hold_until(connection: Any) -> None:
    connection.recv()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_item_31_end_of_file_although_a_sibling_runs(method: str) -> None:
    """A sibling that was never given the end does not keep it open; under fork it may use it as a global."""
    context = cmultiprocessing.get_context(method)
    receiver, sender = context.Pipe(False)
    release_receiver, release = context.Pipe(False)
    sibling = context.Process(target=hold_until, args=(release_receiver,))
    sibling.start()
    try:
        sender.close()
        assert receiver.poll(5)
        with pytest.raises(EOFError):
            receiver.recv(timeout=5)
    finally:
        release.send(None)
        sibling.join()
        close_all(receiver, release, release_receiver)


# --- item 38 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplex", [True, False])
def test_item_38_recv_has_a_timeout(duplex: bool) -> None:
    receiver, sender = cmultiprocessing.Pipe(duplex)
    with receiver, sender:
        for receive in (receiver.recv, receiver.recv_bytes):
            began = time.monotonic()
            with pytest.raises(cmultiprocessing.TimeoutError):
                receive(timeout=0.05)
            assert time.monotonic() - began >= 0.05
        with pytest.raises(cmultiprocessing.TimeoutError):
            receiver.recv(timeout=0)
        sender.send("there")
        assert receiver.recv(timeout=0) == "there"


@pytest.mark.parametrize("duplex", [True, False])
def test_item_38_a_timeout_in_the_middle_loses_nothing(duplex: bool) -> None:
    receiver, sender = cmultiprocessing.Pipe(duplex)
    message = struct.pack("!i", 300_000) + bytes(range(250)) * 1200
    with receiver, sender:
        for end in (2, 4, 5, 1000):
            os.write(sender.fileno(), message[: 2 if end == 2 else end][{2: 0, 4: 2, 5: 4, 1000: 5}[end] :])
            with pytest.raises(cmultiprocessing.TimeoutError):
                receiver.recv_bytes(timeout=0.01)
        thread = threading.Thread(target=sender._send, args=(message[1000:],))
        thread.start()
        assert receiver.recv_bytes(timeout=20) == message[4:]
        thread.join()


# --- item 51 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32 * 1024 - 1, 32 * 1024, MEBI, 70 * MEBI, 300 * MEBI])
def test_item_51_large_messages(size: int) -> None:
    receiver, sender = cmultiprocessing.Pipe(False)
    message = os.urandom(1000) * (size // 1000) + b"x" * (size % 1000)
    with receiver, sender:
        thread = threading.Thread(target=sender.send_bytes, args=(message,))
        thread.start()
        assert receiver.recv_bytes() == message
        thread.join()


@pytest.mark.skipif(not LONG, reason="takes 11 GiB and minutes: CMULTIPROCESSING_LONG_TESTS=1")
@pytest.mark.watchdog(600)
def test_item_51_five_gibibytes() -> None:
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if available < 16 << 30:
        pytest.skip(f"the machine has {available >> 30} GiB of memory, 16 are needed")
    receiver, sender = cmultiprocessing.Pipe(False)
    message = b"0123456789abcdef" * (5 << 26)
    with receiver, sender:
        thread = threading.Thread(target=sender.send_bytes, args=(message,))
        thread.start()
        got = receiver.recv_bytes()
        thread.join()
        assert len(got) == 5 << 30
        assert got == message


def test_item_51_buffers_travel_outside_of_the_pickle_when_no_slot_is_free() -> None:
    receiver, sender = cmultiprocessing.Pipe(False)
    with receiver, sender:
        arrays = [pickle.PickleBuffer(bytearray([i]) * 100_000) for i in range(20)]
        thread = threading.Thread(target=lambda: [sender.send((i, a)) for i, a in enumerate(arrays)])
        thread.start()
        time.sleep(0.2)
        for i in range(20):
            number, array = receiver.recv()
            assert (number, bytes(array)) == (i, bytes([i]) * 100_000)
        thread.join()


def large_value() -> dict[str, object]:
    """More than 64 MiB in a pickle: small things and large, which the unpickler asks for in different ways."""
    return {
        "bytes": bytes(range(32, 96)) * (MEBI // 4) + b"end",
        "array": bytearray(b"0123456789" * (2 * MEBI)),
        "text": "\N{SNOWMAN}text" * (4 * MEBI),
        "small": [(i, str(i), float(i), b"%d" % i) for i in range(50_000)],
        "number": 1 << 5000,
    }


def send_in_a_thread(sender: Any, *messages: bytes) -> threading.Thread:
    thread = threading.Thread(target=lambda: [sender.send_bytes(message) for message in messages])
    thread.start()
    return thread


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_item_51_large_pickles_are_used_up_by_unpickling(protocol: int, foreign: bool) -> None:
    """Whatever made them, with frames or without; what is cut off is an error as for small ones."""
    value = large_value()
    body = pickle.dumps(value, protocol)
    assert len(body) > 64 * MEBI
    receiver, sender = cmultiprocessing.Pipe(False)
    bare = Connection(os.dup(sender.fileno()), readable=False)
    with receiver, sender, bare:
        cut = body[: -MEBI // 2]
        with pytest.raises((EOFError, pickle.UnpicklingError)) as usual:
            pickle.loads(cut)
        thread = send_in_a_thread(bare if foreign else sender, body, cut, pickle.dumps("next"))
        assert receiver.recv() == value
        with pytest.raises(usual.type):
            receiver.recv()
        assert receiver.recv() == "next"
        thread.join()


def test_item_51_a_large_message_that_somebody_keeps_stays_as_it_is() -> None:
    class Keeping(Connection):
        def _recv_bytes(self, maxsize: int | None = None) -> bytes:
            self.kept = super()._recv_bytes(maxsize).getvalue()
            return self.kept

    receiver, sender = cmultiprocessing.Pipe(False)
    body = pickle.dumps([b"kept" * (20 * MEBI)])
    with Keeping(os.dup(receiver.fileno()), writable=False) as keeping, receiver, sender:
        thread = send_in_a_thread(sender, body)
        assert keeping.recv() == [b"kept" * (20 * MEBI)]
        assert keeping.kept == body
        thread.join()


# --- item 52 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplex", [True, False])
def test_item_52_threads_share_a_connection(duplex: bool) -> None:
    receiver, sender = cmultiprocessing.Pipe(duplex)
    threads, each, size = 16, 40, 10 * MEBI if LONG else 100_000
    got: list[bytes] = []

    def send(number: int) -> None:
        for _ in range(each):
            sender.send_bytes(bytes([number]) * size)

    def receive() -> None:
        for _ in range(threads * each // 2):
            got.append(receiver.recv_bytes()[:: size // 100])

    with receiver, sender:
        workers = [threading.Thread(target=send, args=(i,)) for i in range(threads)]
        workers += [threading.Thread(target=receive) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert all(len(set(message)) == 1 for message in got)
    assert sorted(message[0] for message in got) == sorted(list(range(threads)) * each)


def test_item_52_half_a_message_does_not_count() -> None:
    receiver, sender = cmultiprocessing.Pipe()
    with receiver, sender:
        os.write(sender.fileno(), struct.pack("!i", 10) + b"half")
        assert receiver.poll(0.05) is False
        assert wait([receiver], 0) == [receiver]  # of the descriptor, as documented
        timer = threading.Timer(0.1, os.write, (sender.fileno(), b"of it."))
        timer.start()
        assert receiver.poll(20) is True
        assert receiver.recv_bytes() == b"halfof it."
        timer.join()
        os.write(sender.fileno(), struct.pack("!i", 10) + b"half")
        sender.close()
        assert receiver.poll(5) is True
        with pytest.raises(OSError, match="end of file"):
            receiver.recv_bytes()


# --- item 54 -------------------------------------------------------------------------------------


def test_item_54_waiting_for_nothing_takes_no_time_of_the_cpu() -> None:
    began, cpu = time.monotonic(), time.process_time()
    assert wait([], 0.5) == []
    assert time.monotonic() - began >= 0.5
    assert time.process_time() - cpu < 0.25


def test_item_54_descriptors_above_1024() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5000:
        pytest.skip(f"at most {hard} descriptors are allowed")
    if soft != resource.RLIM_INFINITY and soft < 5000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (5000, hard))
    pipes = [cmultiprocessing.Pipe(False) for _ in range(2000)]
    try:
        receivers = [receiver for receiver, _ in pipes]
        assert max(receiver.fileno() for receiver in receivers) > 1024
        assert wait(receivers, 0) == []
        for place in (0, 1234, 1999):
            pipes[place][1].send(place)
        assert [receiver.recv() for receiver in wait(receivers)] == [0, 1234, 1999]
    finally:
        for pipe in pipes:
            close_all(*pipe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- deaths --------------------------------------------------------------------------------------


def send_and_die(sender: Any, how: str) -> None:
    for number in range(3):
        sender.send((number, bytes([number]) * MEBI))
    sender.send(cmultiprocessing.Lock())
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["killed", "ended"])
def test_what_was_sent_survives_its_sender(method: str, how: str) -> None:
    context = cmultiprocessing.get_context(method)
    receiver, sender = context.Pipe(False)
    process = context.Process(target=send_and_die, args=(sender, how))
    process.start()
    process.join()
    sender.close()
    native.family_collect()
    with receiver:
        for number in range(3):
            assert receiver.recv() == (number, bytes([number]) * MEBI)
        assert receiver.recv().acquire(block=False)
        with pytest.raises(EOFError):
            receiver.recv()


def sleep_for_ever(*_connections: Any) -> None:
    time.sleep(1000)


def test_a_killed_receiver_leaks_nothing() -> None:
    context = cmultiprocessing.get_context("fork")
    before = used_memory()
    for _ in range(3):
        receiver, sender = context.Pipe(False)
        process = context.Process(target=sleep_for_ever, args=(receiver,))
        process.start()
        for _ in range(3):
            sender.send_bytes(b"x" * MEBI)
        process.kill()
        process.join()
        close_all(receiver, sender)
        process.close()
    assert used_memory() - before < MEBI


def take_some_and_die(receiver: Any) -> None:
    for _ in range(100):
        receiver.recv_bytes()


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02])
def test_kills_in_the_middle_leave_nothing_behind(delay: float) -> None:
    """Sender and receiver are killed while they are at it; what is left is collected."""
    context = cmultiprocessing.get_context("fork")
    before = used_memory()
    receiver, sender = context.Pipe(False)
    message = b"x" * MEBI

    def send_on() -> None:
        while True:
            sender.send_bytes(message)

    processes = [context.Process(target=send_on), context.Process(target=take_some_and_die, args=(receiver,))]
    for process in processes:
        process.start()
    time.sleep(0.05 + delay)
    for process in processes:
        process.kill()
        process.join()
    close_all(receiver, sender)
    assert used_memory() - before < MEBI


def test_a_closed_reader_breaks_the_pipe_of_a_large_message() -> None:
    receiver, sender = cmultiprocessing.Pipe(False)
    before = used_memory()
    receiver.close()
    with pytest.raises(BrokenPipeError):
        sender.send_bytes(b"x" * MEBI)
    assert used_memory() - before < MEBI
    sender.close()


# --- ends that travel ------------------------------------------------------------------------------


def echo(connection: Any) -> None:
    # Not until the end of file: a forked child has a copy of the other end.
    while (message := connection.recv()) is not None:
        connection.send(message)


@pytest.mark.parametrize("method", METHODS)
def test_large_messages_both_ways(method: str) -> None:
    context = cmultiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=echo, args=(there,))
    process.start()
    there.close()
    for message in (b"y" * (3 * MEBI), [b"z" * 100_000] * 5, "small"):
        here.send(message)
        assert here.recv() == message
    here.send(None)
    here.close()
    process.join()
    assert process.exitcode == 0


def test_a_connection_of_the_bare_descriptor_understands_parcels() -> None:
    receiver, sender = cmultiprocessing.Pipe(False)
    bare = Connection(os.dup(receiver.fileno()), writable=False)
    with receiver, sender, bare:
        sender.send_bytes(b"p" * MEBI)
        assert bare.recv_bytes() == b"p" * MEBI


def test_an_end_that_may_leave_the_family_gets_plain_messages() -> None:
    from cmultiprocessing.reduction import ForkingPickler

    receiver, sender = cmultiprocessing.Pipe(False)
    with receiver, sender:
        loaded = ForkingPickler.loads(ForkingPickler.dumps(receiver))
        thread = threading.Thread(target=sender.send_bytes, args=(b"q" * MEBI,))
        thread.start()
        assert os.read(loaded.fileno(), 4) == struct.pack("!i", MEBI)
        rest = MEBI
        while rest:
            rest -= len(os.read(loaded.fileno(), rest))
        thread.join()
        loaded.close()
    from cmultiprocessing import resource_sharer

    resource_sharer.stop(timeout=5)


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("handle", [-1, 1 << 40])
def test_descriptors_that_are_none(handle: int) -> None:
    with pytest.raises(ValueError, match="invalid handle"):
        Connection(handle)


@pytest.mark.parametrize("handle", ["3", 1.5, None])
def test_handles_of_wrong_types(handle: Any) -> None:
    with pytest.raises(TypeError):
        Connection(handle)


def test_a_note_of_a_stranger_is_no_message() -> None:
    receiver, sender = cmultiprocessing.Pipe()
    with receiver, sender:
        os.write(sender.fileno(), struct.pack("!i", -2) + os.urandom(48))
        with pytest.raises(OSError, match="bad message length"):
            receiver.recv_bytes()


def test_a_file_cannot_be_polled_into_blocking(tmp_path: Any) -> None:
    path = tmp_path / "message"
    path.write_bytes(struct.pack("!i", 3) + b"abc")
    with Connection(os.open(path, os.O_RDONLY), writable=False) as connection:
        assert connection.poll()
        assert connection.recv_bytes() == b"abc"
        with pytest.raises(EOFError):
            connection.recv_bytes()


def mutated_note(random_: random.Random) -> bytes:
    """A note of this family, as a sender writes it, changed in some places but for the family."""
    receiver, sender = cmultiprocessing.Pipe(False)
    with receiver, sender:
        sender.send_bytes(b"x" * 40_000)
        note = bytearray(os.read(receiver.fileno(), 52))
    for _ in range(random_.randint(1, 4)):
        place = random_.choice([*range(4, 12), *range(20, len(note))])
        note[place] = random_.choice([0, 1, 0x7F, 0xFF, random_.randrange(256)])
    return bytes(note)


def mutated_frame(random_: random.Random) -> bytes:
    body = random_.randbytes(random_.randrange(40))
    length = random_.choice([len(body), len(body) + 1, 0, -1, -2, -3, 1 << 30, -(1 << 31), random_.getrandbits(31)])
    return struct.pack("!i", length) + body


@pytest.mark.watchdog(600)
def test_mutated_frames() -> None:
    """Neither a crash nor a hang nor growth: a message, EOFError or OSError."""
    random_ = random.Random(20_240_601)
    rounds = 1_000_000 if LONG else 3000
    before, seen = used_memory(), set()
    for number in range(rounds):
        one, other = socket.socketpair()
        frame = mutated_note(random_) if number % 2 else mutated_frame(random_)
        with one, Connection(other.detach()) as connection:
            one.sendall(frame)
            one.shutdown(socket.SHUT_WR)
            try:
                for _ in range(20):
                    connection.recv_bytes(random_.choice([None, 100]))
                    seen.add("message")
            except (EOFError, OSError) as error:
                seen.add(type(error).__name__)
    assert seen >= {"message", "OSError"}
    assert used_memory() - before < MEBI


# --- mutated streams, by every way to receive ------------------------------------------------------

HOSTILE = (0, 1, 3, 4, 100, 0xFFFF, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
#: What the interpreter itself cannot bear in a pickle. LONG_BINPUT has it write as much memory as four bytes ask for.
#: After a BYTEARRAY8 of more than there is it frees an object that it has not set up, and may say so on stderr.
#: GLOBAL, INST and STACK_GLOBAL import what has a name by chance.
TAMED = bytes.maketrans(b"r\x96ci\x93", b"NNNNN")
IN_PARTS = struct.pack("!i", -2) + struct.pack("=I", 2)


def half_of_the_family_id() -> int:
    """By which a note says that it is of this family."""
    receiver, sender = cmultiprocessing.Pipe(False)
    with receiver, sender:
        sender.send_bytes(b"x" * 40_000)
        return int(struct.unpack_from("=Q", os.read(receiver.fileno(), 52), 12)[0])


class Streams:
    """Makes streams of a good frame or none, and then of frames that nobody sends."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.family = half_of_the_family_id()

    def good(self) -> tuple[bytes, bytes]:
        """A pickle that loads as its own number of bytes, and its frame with a short or long head."""
        body = pickle.dumps(b"g" * self.choose.randrange(20), protocol=4)
        head = struct.pack("!i", len(body))
        return body, (struct.pack("!iQ", -1, len(body)) if self.choose.random() < 0.2 else head) + body

    def body(self) -> bytes:
        if self.choose.random() < 0.3:
            garbage = self.choose.randbytes(self.choose.randrange(40))
        else:
            value = self.choose.choice([None, 1 << 70, "text", [1, "x"], {"k": (1, b"v")}, bytearray(9), 2.5])
            changed = bytearray(pickle.dumps(value, protocol=self.choose.randrange(6)))
            for _ in range(self.choose.randrange(4)):
                changed[self.choose.randrange(len(changed))] = self.choose.randrange(256)
            garbage = bytes(changed)
        return garbage.translate(TAMED)

    def plain(self) -> bytes:
        body = self.body()
        return struct.pack("!i", len(body)) + body

    def wrong_length(self) -> bytes:
        body = self.body()
        near = len(body) + self.choose.choice([-1, 1, 2])
        length = self.choose.choice([*HOSTILE, near]) % (1 << 64)
        if self.choose.random() < 0.5:
            return struct.pack("!iQ", -1, length) + body
        return struct.pack("!I", length % (1 << 32)) + body

    def parts(self) -> bytes:
        """A message in parts as this family sends them, with sizes that are right, nearly right or hostile."""
        pieces = [self.body() for _ in range(self.choose.randrange(1, 5))]
        sizes = [len(piece) for piece in pieces]
        for _ in range(self.choose.choice((0, 0, 1, 1, 2))):
            sizes[self.choose.randrange(len(sizes))] = self.choose.choice(HOSTILE)
        count = self.choose.choice([len(sizes)] * 5 + [len(sizes) + 1, 0, 0xFFFF, 0xFFFFFFFF])
        total = (8 * len(sizes) + sum(sizes)) % (1 << 64)
        total = self.choose.choice([total] * 5 + list(HOSTILE))
        note = struct.pack("=IIQQQQII", 2, count, self.family, total, 0, 0, 0, 0)
        return struct.pack("!i", -2) + note + struct.pack(f"={len(sizes)}Q", *sizes) + b"".join(pieces)

    def parcel(self) -> bytes:
        """A parcel that lies nowhere, or in memory that holds something else."""
        place = self.choose.choice([0, 64, 4096, 65536, 1 << 20, 1 << 30, *HOSTILE]) + self.choose.choice([0, 8, 64])
        word = self.choose.choice([0, place, 1, *HOSTILE])
        numbers = [self.choose.choice([0, 1, 2, 15, 16, 0xFFFFFFFF]) for _ in range(2)]
        note = struct.pack("=IIQQQQII", 1, 0, self.family, 0, place % (1 << 64), word % (1 << 64), *numbers)
        return struct.pack("!i", -2) + note

    def stream(self) -> tuple[bytes | None, bytes]:
        """The pickle of its good frame, if it begins with one, and the bytes."""
        body, stream = self.good() if self.choose.random() < 0.5 else (None, b"")
        for _ in range(self.choose.choice((0, 1, 1, 1, 2))):
            kind = self.choose.choice((self.plain, self.wrong_length, self.wrong_length, self.parts, self.parcel))
            stream += kind()
        whole = len(stream)
        if self.choose.random() < 0.2:
            stream = stream[: self.choose.randrange(whole + 1)]
        return (body if len(stream) == whole else None), stream


def receive_in_a_way(connection: Any, way: int, wait_for: float | None) -> bytes:
    """What one call receives, as the bytes of a message or of the object that it said."""
    if way == 0:
        received = connection.recv(timeout=wait_for)
        return received if isinstance(received, bytes) else b"an object"
    if way == 1:
        return bytes(connection.recv_bytes(timeout=wait_for))
    if way == 2:
        return bytes(connection.recv_bytes(100, timeout=wait_for))
    if wait_for is not None and not connection.poll(0):
        raise cmultiprocessing.TimeoutError
    room = bytearray(40)
    return bytes(room[: connection.recv_bytes_into(room)])


def receive_stream(streams: Streams, seen: dict[str, int]) -> None:
    """Write a stream, receive until that fails, and count how it ended."""
    good, stream = streams.stream()
    way = streams.choose.randrange(4)
    # Who keeps the connection open lets nobody wait for the rest who asks for a deadline. recv_bytes_into() has none.
    deadline = streams.choose.choice((None, 0)) if way != 3 else None
    one, other = socket.socketpair()
    with one, Connection(other.detach()) as connection:
        one.sendall(stream)
        if deadline is None:
            one.shutdown(socket.SHUT_WR)
        for turn in range(20):
            end = "message"
            try:
                received = receive_in_a_way(connection, way, deadline)
            except Exception as error:
                # Unpickling what somebody has changed may raise anything; it is the next frame's turn then.
                received, end = b"", type(error).__name__
            if turn == 0 and good is not None:
                expected = pickle.loads(good) if way == 0 else good
                assert (end, received) == ("message", expected), (end, way, stream)
            seen[end] = seen.get(end, 0) + 1
            # Bytes are unpickled only where they came in parts, to be put together again.
            if way != 0 and end != "message" and IN_PARTS not in stream:
                assert end in ("EOFError", "OSError", "BufferTooShort", "TimeoutError"), (end, stream)
            if end in ("EOFError", "OSError", "TimeoutError", "MemoryError"):
                break


def receive_streams(rounds: int) -> dict[str, Any]:
    """How often which end was met, and what grew from the first tenth of the rounds to the last."""
    streams, seen = Streams(51), dict[str, int]()
    before: dict[str, int] = {}
    forget_peak()
    for number in range(rounds):
        if number == rounds // 10:
            before = {"private": status("RssAnon"), "shared": used_memory(), "descriptors": descriptors()}
        receive_stream(streams, seen)
    after = {"private": status("RssAnon"), "shared": used_memory(), "descriptors": descriptors()}
    grew = {name: after[name] - before[name] for name in after}
    return {"seen": seen, "grew": grew, "peak": status("VmHWM") - status("VmRSS")}


@pytest.mark.no_sanitizer  # it ends the program where more memory is asked for than it has, and has memory of its own
@pytest.mark.watchdog(1500)
def test_mutated_streams_by_every_way_to_receive() -> None:
    """What came before the damage arrives; then an exception: no crash, nobody waits past a deadline, nothing grows."""
    rounds = scale(10_000, 1_000_000)
    limits = {resource.RLIMIT_DATA: 512 * MEBI}  # a pickle that asks for more must not end the machine instead
    result = apart.run(receive_streams, rounds, limits=limits, timeout=1400)
    seen, grew = result["seen"], result["grew"]
    for end in ("message", "EOFError", "OSError", "TimeoutError", "BufferTooShort", "UnpicklingError"):
        assert seen.get(end, 0) > rounds / 1000, (end, seen)
    assert grew["private"] < 2 * MEBI
    assert grew["shared"] < MEBI
    assert grew["descriptors"] == 0
    assert result["peak"] < 16 * MEBI, "memory was touched because a head asked for it"


# --- signal handlers -----------------------------------------------------------------------------


@contextlib.contextmanager
def handling(handler: Callable[[], object]) -> Iterator[None]:
    """A handler that runs in the middle of the blocked call in this block."""
    usual = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


def test_a_signal_handler_receives_what_the_call_waits_for() -> None:
    """It takes the next message, and the call that it interrupted the one after it: nobody waits for himself."""
    receiver, sender = cmultiprocessing.Pipe(False)
    taken: list[object] = []

    def handler() -> None:
        sender.send("first")
        sender.send("second")
        taken.append(receiver.recv())

    with receiver, sender, handling(handler):
        assert receiver.recv() == "second"
    assert taken == ["first"]


def test_a_signal_handler_cannot_receive_in_the_middle_of_a_message() -> None:
    ours, theirs = socket.socketpair()
    with Connection(ours.detach()) as connection, theirs:
        theirs.sendall(struct.pack("!i", 4) + b"ab")

        def handler() -> None:
            with pytest.raises(RuntimeError, match="in the middle of receiving"):
                connection.recv_bytes()
            theirs.sendall(b"cd")

        with handling(handler):
            assert connection.recv_bytes() == b"abcd"


def test_a_signal_handler_sends_before_a_message_that_waits() -> None:
    """Of which nothing is out; of one that is out in part, the handler is told so and it goes on."""
    read_end, write_end = os.pipe()
    with Connection(read_end, writable=False) as receiver, Connection(write_end, readable=False) as sender:
        room = fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
        os.write(write_end, struct.pack("!i", room - 4) + bytes(room - 4))
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.extend(receiver.recv_bytes() for _ in range(4)))

        def handler() -> None:
            thread.start()
            sender.send_bytes(b"handler")

        def too_late() -> None:
            with pytest.raises(RuntimeError, match="in the middle of sending"):
                sender.send_bytes(b"handler")
            thread.start()

        with handling(handler):
            sender.send_bytes(b"interrupted")
        sender.send_bytes(b"last")
        thread.join(10)
        assert [bytes(message) for message in received[1:]] == [b"handler", b"interrupted", b"last"]
        thread = threading.Thread(target=lambda: received.append(receiver.recv_bytes()))
        with handling(too_late):
            sender.send_bytes(bytes(3 * room))
        thread.join(10)
        assert len(received[-1]) == 3 * room


@pytest.mark.parametrize("begun", [b"\0\0", struct.pack("!i", 100) + b"x", struct.pack("!i", 1 << 16) + b"x"])
def test_poll_between_the_pieces_of_a_message(begun: bytes) -> None:
    """After a timeout in the middle: nothing while nothing comes, and the end of file when it does."""
    ours, theirs = socket.socketpair()
    with Connection(ours.detach()) as connection:
        theirs.sendall(begun)
        with pytest.raises(cmultiprocessing.TimeoutError):
            connection.recv(timeout=0.05)
        assert not connection.poll()
        assert not connection.poll(0.05)
        theirs.close()
        assert connection.poll()
        assert connection.poll(None)
        with pytest.raises(OSError, match="end of file during message"):
            connection.recv()


@pytest.mark.parametrize("pickled", [b"\x80\x04(K\x01tK\x02t.", b"\x80\x04K\x01K\x02(\x86.", b"\x80\x04(."])
def test_marks_of_a_damaged_pickle(pickled: bytes) -> None:
    """What the unpickler refuses is refused where small pickles are read without it."""
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(pickled)
    receiver, sender = cmultiprocessing.Pipe(False)
    with receiver, sender:
        sender.send_bytes(pickled)
        with pytest.raises(pickle.UnpicklingError):
            receiver.recv()
