# SPDX-License-Identifier: PSF-2.0
"""Messages from several processes in the order in which they come: `connection.wait`.

python examples/wait.py [fork|spawn|forkserver]
"""

from __future__ import annotations

import sys
from typing import Any

import cmultiprocessing as multiprocessing
from cmultiprocessing.connection import wait

WRITERS, MESSAGES = 4, 10


def write(connection: Any) -> None:
    """Send some messages, then close: the reader sees the end."""
    for i in range(MESSAGES):
        connection.send((i, multiprocessing.current_process().name))
    connection.close()


def main() -> None:
    """Read until every writer has closed its end."""
    ctx = multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else None)
    readers = []
    for _ in range(WRITERS):
        reader, writer = ctx.Pipe(duplex=False)
        readers.append(reader)
        process = ctx.Process(target=write, args=(writer,))
        process.start()
        # This process must not have that end open, or the end of the messages would never be seen.
        writer.close()

    count = 0
    while readers:
        for reader in wait(readers):
            try:
                print(*reader.recv())  # type: ignore[union-attr]
                count += 1
            except EOFError:
                reader.close()  # type: ignore[union-attr]
                readers.remove(reader)
    print(f"{count} messages of {WRITERS} processes")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
