# SPDX-License-Identifier: PSF-2.0
"""Listener and Client: addresses, keys, timeouts, and peers that use the standard library."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import interpreters
from tests.support.scene import within

FAMILIES = ("AF_INET", "AF_UNIX")
KEYS = (None, b"key", bytes(range(256)))
PEER = Path(__file__).parent / "support" / "standard_peer.py"


def connection_of(package: ModuleType) -> Any:
    return importlib.import_module(f"{package.__name__}.connection")


@pytest.fixture
def connection(mp: ModuleType) -> Any:
    return connection_of(mp)


@contextmanager
def meanwhile(function: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """A thread that calls the function; its result() is a future's."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function, *args, **kwargs)


# --- behaviour of both libraries -----------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", KEYS)
def test_connect_and_talk(both: ModuleType, family: str, key: bytes | None) -> None:
    module = connection_of(both)
    with module.Listener(family=family, authkey=key) as listener:
        with meanwhile(module.Client, listener.address, authkey=key) as future:
            with listener.accept() as here, future.result() as there:
                there.send({"number": 1729})
                assert here.recv() == {"number": 1729}
                here.send_bytes(b"back")
                assert there.recv_bytes() == b"back"
                expected = there_address(there) if family == "AF_INET" else ("", None, b"")
                assert listener.last_accepted == expected or listener.last_accepted in expected


def there_address(conn: Any) -> Any:
    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        return sock.getsockname()


def test_context_manager_closes(both: ModuleType) -> None:
    module = connection_of(both)
    with module.Listener() as listener:
        address = listener.address
        assert os.path.exists(address)
    assert not os.path.exists(address)
    with pytest.raises(OSError, match="listener is closed"):
        listener.accept()
    listener.close()
    with pytest.raises(OSError):
        module.Client(address)


@pytest.mark.parametrize("family", FAMILIES)
def test_address_in_use(both: ModuleType, family: str) -> None:
    module = connection_of(both)
    with module.Listener(family=family) as listener:
        with pytest.raises(OSError, match="in use"):
            module.Listener(listener.address, family)
        assert family != "AF_UNIX" or os.path.exists(listener.address)


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_key(both: ModuleType, family: str) -> None:
    module = connection_of(both)
    with module.Listener(family=family, authkey=b"right", backlog=5) as listener:
        with meanwhile(module.Client, listener.address, authkey=b"wrong") as future:
            with pytest.raises(both.AuthenticationError):
                listener.accept()
            with pytest.raises(both.AuthenticationError):
                future.result()
        with meanwhile(module.Client, listener.address, authkey=b"right") as future:
            with listener.accept() as here, future.result() as there:
                here.send(1)
                assert there.recv() == 1


def test_address_types(both: ModuleType) -> None:
    module = connection_of(both)
    assert module.address_type(("localhost", 0)) == "AF_INET"
    assert module.address_type("/some/path") == "AF_UNIX"
    assert module.address_type("\\\\.\\pipe\\name") == "AF_PIPE"
    for wrong in (5, ["localhost", 0]):
        with pytest.raises((ValueError, TypeError), match="unrecognized"):
            module.address_type(wrong)
    assert module.arbitrary_address("AF_INET") == ("localhost", 0)
    one, other = module.arbitrary_address("AF_UNIX"), module.arbitrary_address("AF_UNIX")
    assert one != other
    assert os.stat(os.path.dirname(one)).st_mode & 0o777 == 0o700
    assert set(module.families) == set(FAMILIES)


def test_pipes_of_another_system(both: ModuleType) -> None:
    module = connection_of(both)
    for make in (lambda: module.Listener(family="AF_PIPE"), lambda: module.Client("\\\\.\\pipe\\name")):
        with pytest.raises(ValueError, match="AF_PIPE"):
            make()


def test_unknown_families(connection: Any) -> None:
    for make in (lambda: connection.Listener(family="AF_X"), lambda: connection.Client("/nowhere", "AF_X")):
        with pytest.raises(ValueError, match="'AF_X' is not supported on this system"):
            make()
    with pytest.raises(ValueError):
        connection.arbitrary_address("AF_X")
    with pytest.raises(ValueError, match="None unrecognized"):
        connection.Client(None)


@pytest.mark.parametrize("key", ["text", 5, bytearray(b"key")])
def test_keys_of_other_types(mp: ModuleType, connection: Any, key: object) -> None:
    with pytest.raises(TypeError, match="authkey should be a byte string"):
        connection.Listener(authkey=key)
    with pytest.raises(TypeError, match="authkey should be a byte string"):
        connection.Client("/nowhere", authkey=key)
    for function in (connection.deliver_challenge, connection.answer_challenge):
        with pytest.raises(ValueError, match="must be bytes"):
            function(None, key)


def test_sockets_of_the_users_own(both: ModuleType, tmp_path: Path) -> None:
    module = connection_of(both)
    address = str(tmp_path / "socket")
    with module.Listener(address) as listener:
        assert listener.address == address
        with meanwhile(module.Client, address) as future, listener.accept() as here, future.result() as there:
            here.send(1)
            assert there.recv() == 1
    assert not os.path.exists(address)


def test_low_level_classes(both: ModuleType) -> None:
    module = connection_of(both)
    listener = module.SocketListener(module.arbitrary_address("AF_UNIX"), "AF_UNIX", 2)
    with module.SocketClient(listener._address) as there, listener.accept() as here:
        there.send("x")
        assert here.recv() == "x"
    listener.close()


def test_challenges_by_hand(both: ModuleType) -> None:
    module = connection_of(both)
    for key, other in ((b"same", b"same"), (b"one", b"other")):
        here, there = both.Pipe()
        with here, there, meanwhile(module.answer_challenge, there, other) as future:
            if key == other:
                module.deliver_challenge(here, key)
                assert future.result() is None
            else:
                with pytest.raises(both.AuthenticationError):
                    module.deliver_challenge(here, key)
                with pytest.raises(both.AuthenticationError):
                    future.result()


def test_xml(both: ModuleType) -> None:
    module = connection_of(both)
    value = [1, "two", {"three": 3.5}, None, True]
    with module.XmlListener(authkey=b"key") as listener:
        with meanwhile(module.XmlClient, listener.address, authkey=b"key") as future:
            here, there = listener.accept(), future.result()
            there.send(value)
            assert here.poll(5)
            assert here.recv_bytes().startswith(b"<params>")
            there.send(value)
            assert here.recv() == value
            here.close()
            there.close()


# --- what is ours --------------------------------------------------------------------------------


def test_ipv6_when_it_is_named(connection: Any) -> None:
    with connection.Listener(("::1", 0), "AF_INET6", authkey=b"key") as listener:
        with meanwhile(connection.Client, listener.address, "AF_INET6", authkey=b"key") as future:
            with listener.accept() as here, future.result() as there:
                here.send(6)
                assert there.recv() == 6
                assert listener.last_accepted[0] == "::1"


def test_abstract_names_of_the_users_own(connection: Any) -> None:
    name = f"\0cmultiprocessing-test-{os.getpid()}"
    with connection.Listener(name) as listener, connection.Client(listener.address) as there, listener.accept() as here:
        there.send(1)
        assert here.recv() == 1


@pytest.mark.parametrize("timeout", [0, -1, 0.1])
@pytest.mark.parametrize("key", [None, b"key"])
def test_accept_with_a_timeout(mp: ModuleType, connection: Any, timeout: float, key: bytes | None) -> None:
    with connection.Listener(authkey=key) as listener:
        began = time.monotonic()
        with within(max(timeout, 0) + 0.1, "accept"), pytest.raises(mp.TimeoutError, match="no connection at"):
            listener.accept(timeout=timeout)
        assert time.monotonic() - began >= timeout
        with meanwhile(connection.Client, listener.address, authkey=key) as future:
            with listener.accept(timeout=float("inf")), future.result():
                pass


def test_signals_while_the_backlog_is_full(connection: Any) -> None:
    """After a signal connect() reports success, although nobody has taken the connection."""
    handled = []
    before = signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        with connection.Listener(authkey=b"key", backlog=1) as listener:
            waiting = fill_backlog(listener.address)
            with meanwhile(accept_later, listener, handled) as future:
                with connection.Client(listener.address, authkey=b"key") as there, future.result() as here:
                    there.send(1)
                    assert here.recv() == 1
            for sock in waiting:
                sock.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def accept_later(listener: Any, handled: list[int]) -> Any:
    while len(handled) < 5:
        time.sleep(0.01)
    return listener.accept(timeout=30)


def test_a_timeout_set_on_the_socket(connection: Any) -> None:
    """Programs reach for listener._listener._socket, for want of a better way: they get what it used to raise."""
    with connection.Listener() as listener:
        listener._listener._socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            listener.accept()
        listener._listener._socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        with connection.Client(listener.address) as there, listener.accept() as here:
            there.send(1)
            assert here.recv() == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_default_timeouts_of_sockets_are_not_for_connections(connection: Any, family: str) -> None:
    socket.setdefaulttimeout(0.01)
    try:
        with connection.Listener(family=family, authkey=b"key") as listener:
            with meanwhile(connection.Client, listener.address, authkey=b"key") as future:
                with listener.accept() as here, future.result() as there:
                    assert os.get_blocking(here.fileno())
                    assert os.get_blocking(there.fileno())
    finally:
        socket.setdefaulttimeout(None)


def test_client_with_a_timeout(mp: ModuleType, connection: Any) -> None:
    """Nobody accepts: with a key the challenge does not come; without one, the backlog gets full."""
    with connection.Listener(backlog=1) as listener:
        with within(0.4, "Client"), pytest.raises(mp.TimeoutError, match="in time"):
            connection.Client(listener.address, authkey=b"key", timeout=0.2)
        waiting = fill_backlog(listener.address)
        with within(0.4, "Client"), pytest.raises(mp.TimeoutError, match="in time"):
            connection.Client(listener.address, timeout=0.2)
        for sock in waiting:
            sock.close()


def fill_backlog(address: str) -> list[socket.socket]:
    """Connect until that is refused."""
    result = []
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        result.append(sock)
        try:
            sock.connect(address)
        except BlockingIOError:
            return result


@pytest.mark.parametrize("family", FAMILIES)
def test_a_listener_that_is_busy_is_waited_for(connection: Any, family: str) -> None:
    """It has not accepted yet, so its silence says nothing about its key."""
    with connection.Listener(family=family, authkey=b"key") as listener:
        with meanwhile(connection.Client, listener.address, authkey=b"key", handshake_timeout=0.1) as future:
            time.sleep(0.5)
            assert not future.done()
            with listener.accept(), future.result():
                pass


def test_time_between_accepts_is_not_the_peers(connection: Any) -> None:
    """Two come at once, the second is in the middle of the handshake while the first is served for long."""
    with connection.Listener(authkey=b"key", backlog=5, handshake_timeout=0.3) as listener:
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(connection.Client, listener.address, authkey=b"key") for _ in range(4)]
            for _ in range(4):
                listener.accept().close()
                time.sleep(0.4)
            for future in futures:
                future.result().close()
        assert listener.dropped == 0


def test_close_by_another_thread_ends_accept(connection: Any) -> None:
    for key in (None, b"key"):
        listener = connection.Listener(authkey=key)
        with meanwhile(listener.accept) as future:
            while listener._listener._reception._bell < 0:
                time.sleep(0.001)
            listener.close()
            with pytest.raises(OSError, match="listener is closed"):
                future.result(10)


def test_close_by_a_signal_handler_ends_accept(connection: Any) -> None:
    listener = connection.Listener(authkey=b"key")
    before = signal.signal(signal.SIGALRM, lambda *_: listener.close())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(OSError, match="listener is closed"):
            listener.accept()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_several_threads_accept(connection: Any) -> None:
    with connection.Listener(authkey=b"key", backlog=64) as listener, ThreadPoolExecutor(16) as pool:
        accepted = [pool.submit(listener.accept) for _ in range(8)]
        clients = [pool.submit(connection.Client, listener.address, authkey=b"key") for _ in range(8)]
        for future in [*accepted, *clients]:
            future.result(30).close()


def serve(listener: Any, count: int) -> None:
    for _ in range(count):
        with listener.accept() as here:
            here.send(os.getpid())


def test_a_forked_child_accepts_too(mp: ModuleType, connection: Any) -> None:
    """The file is the parent's: it is there until the parent closes it."""
    ctx = mp.get_context("fork")
    with connection.Listener(authkey=b"key") as listener:
        child = ctx.Process(target=serve, args=(listener, 3))
        child.start()
        for _ in range(3):
            with connection.Client(listener.address, authkey=b"key") as there:
                assert there.recv() == child.pid
        child.join()
        assert child.exitcode == 0
        assert os.path.exists(listener.address)
        with meanwhile(connection.Client, listener.address, authkey=b"key") as future:
            with listener.accept(), future.result():
                pass
    child.close()


def test_dropped_listeners_are_closed(connection: Any) -> None:
    """The net looks at the descriptors."""
    addresses = []
    for _ in range(10):
        addresses.append(connection.Listener(authkey=b"key").address)
    assert not any(map(os.path.exists, addresses))
    assert not any(map(os.path.exists, map(os.path.dirname, addresses)))


def test_the_file_of_somebody_else_is_left_alone(connection: Any, tmp_path: Path) -> None:
    """A new server may have taken the place of an old one."""
    address = str(tmp_path / "socket")
    old = connection.Listener(address)
    os.unlink(address)
    with connection.Listener(address):
        old.close()
        assert os.path.exists(address)


def test_long_paths_are_named(connection: Any) -> None:
    path = "/tmp/" + "x" * 200
    with pytest.raises(OSError, match="has 205 bytes, the limit is 107"):
        connection.Listener(path)


def test_old_challenges_and_answers(mp: ModuleType, connection: Any) -> None:
    import hmac

    message = b"is-twenty-bytes-long"
    assert connection._create_response(b"key", message) == hmac.digest(b"key", message, "md5")
    modern = b"{sha256}" + message * 2
    assert connection._create_response(b"key", modern) == b"{sha256}" + hmac.digest(b"key", modern, "sha256")
    for answer in (hmac.digest(b"key", modern, "md5"), connection._create_response(b"key", modern)):
        connection._verify_challenge(b"key", modern, answer)
        with pytest.raises(mp.AuthenticationError):
            connection._verify_challenge(b"another key", modern, answer)
    for nonsense in (b"", b"{}", b"{sha256}", b"{sha512}" + bytes(64), b"{sha256", bytes(17), b"{md5}" + bytes(15)):
        with pytest.raises(mp.AuthenticationError):
            connection._verify_challenge(b"key", modern, nonsense)
    with pytest.raises(ValueError, match="sha1"):
        connection.deliver_challenge(None, b"key", "sha1")


# --- the standard library at the other end -------------------------------------------------------


def peer(version: str, *arguments: str) -> subprocess.Popen[str]:
    command = [interpreters.found()[version], "-I", str(PEER), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def need(version: str) -> None:
    if version not in interpreters.found():
        pytest.skip(f"no Python {version} on this machine")


def converse(conn: Any) -> None:
    for value in (None, 0, 1.5, "text", b"bytes", [1, (2, {3})], {"key": "x" * 100_000}):
        if value is not None:
            conn.send(value)
            assert conn.recv() == value
    for size in (0, 1, 16_384, 16_385, 3_000_000):
        conn.send("bytes")
        conn.send_bytes(bytes(size))
        assert conn.recv_bytes() == bytes(size)
    conn.send(None)


@pytest.mark.parametrize("version", interpreters.VERSIONS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", [None, b"some key"])
def test_the_standard_library_connects(connection: Any, version: str, family: str, key: bytes | None) -> None:
    need(version)
    with connection.Listener(family=family, authkey=key) as listener:
        with peer(version, "connect", family, "-" if key is None else key.hex(), json.dumps(listener.address)) as them:
            with listener.accept(timeout=30) as conn:
                converse(conn)
            assert said(them) == "bye"


@pytest.mark.parametrize("version", interpreters.VERSIONS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", [None, b"some key"])
def test_the_standard_library_listens(connection: Any, version: str, family: str, key: bytes | None) -> None:
    need(version)
    with peer(version, "listen", family, "-" if key is None else key.hex()) as them:
        place = json.loads(said(them))
        address = tuple(place) if isinstance(place, list) else place
        with connection.Client(address, authkey=key, timeout=30) as conn:
            converse(conn)
        assert said(them) == "bye"


def test_an_empty_key_is_a_key(connection: Any) -> None:
    """To Listeners of the standard library only since 3.13; its clients always thought so."""
    with connection.Listener(authkey=b"") as listener:
        for version, program in interpreters.found().items():
            with peer(version, "connect", "AF_UNIX", "", json.dumps(listener.address)) as them:
                with listener.accept(timeout=30) as conn:
                    converse(conn)
                assert said(them) == "bye", program
        with meanwhile(connection.Client, listener.address, authkey=b"") as future:
            with listener.accept(), future.result():
                pass


@pytest.mark.parametrize("version", interpreters.VERSIONS)
def test_the_standard_library_has_another_key(mp: ModuleType, connection: Any, version: str) -> None:
    need(version)
    with connection.Listener(authkey=b"ours") as listener:
        with peer(version, "connect", "AF_UNIX", b"theirs".hex(), json.dumps(listener.address)) as them:
            with pytest.raises(mp.AuthenticationError, match="digest received was wrong"):
                listener.accept(timeout=30)
            assert said(them) == "AuthenticationError"
    with peer(version, "listen", "AF_UNIX", b"theirs".hex()) as them:
        address = json.loads(said(them))
        with pytest.raises(mp.AuthenticationError, match="digest sent was rejected"):
            connection.Client(address, authkey=b"ours", timeout=30)
        assert said(them) == "AuthenticationError"


def test_this_interpreter_was_found() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in interpreters.found()


