# SPDX-License-Identifier: PSF-2.0
"""A program that uses the standard library's multiprocessing only: one end of a connection whose other end is ours.

    python standard_peer.py listen|connect FAMILY KEY [ADDRESS]     (KEY in hexadecimal, - for none; ADDRESS as JSON)

It prints the address where it listens, then sends back what it receives until that is None. At the end it prints "bye",
or the name of the exception that ended it.
"""

import json
import multiprocessing
import sys
from multiprocessing.connection import Client, Listener


def echo(connection):
    """Send back: objects, or bytes after an announcement."""
    while (message := connection.recv()) is not None:
        if message == "bytes":
            connection.send_bytes(connection.recv_bytes())
        else:
            connection.send(message)


def main(role, family, key, *address):
    """One connection."""
    assert multiprocessing.__name__ == "multiprocessing"
    authkey = None if key == "-" else bytes.fromhex(key)
    if role == "listen":
        with Listener(family=family, authkey=authkey) as listener:
            print(json.dumps(listener.address), flush=True)
            with listener.accept() as connection:
                echo(connection)
    else:
        place = json.loads(address[0])
        with Client(tuple(place) if isinstance(place, list) else place, authkey=authkey) as connection:
            echo(connection)


try:
    main(*sys.argv[1:])
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    print("bye", flush=True)
