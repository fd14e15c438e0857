# SPDX-License-Identifier: PSF-2.0
"""A server at an address, and clients that know the key: the documentation's Listener and Client example.

    python examples/listener.py server                 prints where it listens
    python examples/listener.py client ADDRESS         in another terminal, as often as you like

ADDRESS is a path, or host:port if the server was started with --port. Either side may also be a program that uses the
standard library's multiprocessing: try --library multiprocessing.

`python examples/listener.py demo` does both, the server as a child process.
"""

from __future__ import annotations

import argparse
import array
import importlib
from typing import Any

KEY = b"secret password"


def serve_one(listener: Any) -> None:
    """What the documentation's server says to a client."""
    with listener.accept() as conn:
        print("connection accepted from", listener.last_accepted or "this machine")
        conn.send([2.25, None, "junk", float])
        conn.send_bytes(b"hello")
        conn.send_bytes(array.array("i", [42, 1729]))


def talk(conn: Any) -> None:
    """What its client expects."""
    print(conn.recv())
    print(conn.recv_bytes())
    numbers = array.array("i", [0, 0, 0, 0, 0])
    print(conn.recv_bytes_into(numbers))
    print(numbers)


def connect(library: Any, address: Any) -> None:
    """Be a client."""
    with library.connection.Client(address, authkey=KEY) as conn:
        talk(conn)


def serve(library: Any, address: Any, clients: int) -> None:
    """Be a server for so many clients, or until Ctrl-C where that is 0."""
    with library.connection.Listener(address, authkey=KEY, backlog=16) as listener:
        place = listener.address
        print("listening at", place if isinstance(place, str) else f"{place[0]}:{place[1]}", flush=True)
        served = 0
        while not clients or served < clients:
            try:
                serve_one(listener)
                served += 1
            except library.AuthenticationError as error:
                print("refused:", error)
            except ConnectionError as error:
                print("a client went away:", error)


def demo(library: Any) -> None:
    """Server and client in two processes."""
    with library.connection.Listener(authkey=KEY) as listener:
        client = library.Process(target=connect, args=(library, listener.address))
        client.start()
        serve_one(listener)
        client.join()


class Named:
    """A library by its name: modules cannot be pickled for a spawned child, this can."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        importlib.import_module(f"{self.name}.connection")
        return getattr(importlib.import_module(self.name), attribute)

    def __reduce__(self) -> Any:
        return Named, (self.name,)


def parse_address(text: str) -> Any:
    """A path, or host:port."""
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon and port.isdecimal() and "/" not in host else text


def main() -> None:
    """Be what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", default="cmultiprocessing", help="the package to use (cmultiprocessing)")
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server", help="wait for clients")
    server.add_argument("--port", type=int, help="listen on this TCP port of localhost, 0 for any; else at a path")
    server.add_argument("--clients", type=int, default=0, help="end after so many (0: never)")
    client = roles.add_parser("client", help="connect to a server")
    client.add_argument("address", help="where it listens")
    roles.add_parser("demo", help="both")
    options = parser.parse_args()
    library = Named(options.library)
    if options.role == "server":
        try:
            serve(library, None if options.port is None else ("localhost", options.port), options.clients)
        except KeyboardInterrupt:
            pass
    elif options.role == "client":
        connect(library, parse_address(options.address))
    else:
        demo(library)


if __name__ == "__main__":
    main()
