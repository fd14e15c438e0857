# SPDX-License-Identifier: PSF-2.0
"""What the kernel knows about the other end of a socket."""
from __future__ import annotations

import os
import socket
import struct

__all__ = ["peer_uid", "was_accepted"]

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid

# sock_diag: a request for one Unix socket by its inode, showing the inode of its peer.
_NETLINK_SOCK_DIAG = 4
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_ANSWER_SIZE = 16  # struct unix_diag_msg
_ANY = 0xFFFFFFFF
_SHOW_PEER = 0x4
_PEER = 2
_ATTRIBUTE = struct.Struct("=HH")


def peer_uid(sock: socket.socket) -> int:
    """The user that connected, or that listened. Unix sockets only."""
    return int(_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])


def was_accepted(sock: socket.socket) -> bool | None:
    """Whether the peer has taken this connection out of its backlog.

    Args:
        sock: a connected stream socket.

    Returns:
        False: it still waits there. None: the kernel cannot know (another machine or name space, an odd system).
    """
    try:
        inode = _unix_peer_inode(sock) if sock.family == socket.AF_UNIX else _tcp_peer_inode(sock)
    except (OSError, ValueError, struct.error):
        return None
    return None if inode is None else inode != 0


def _unix_peer_inode(sock: socket.socket) -> int | None:
    """The inode of the other end: 0 until accept() has given it one."""
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ANY, os.fstat(sock.fileno()).st_ino, _SHOW_PEER, _ANY, _ANY)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(1)
        kernel.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, 1, 1, 0) + request)
        answer = kernel.recv(8192)
    length, kind, *_ = _HEADER.unpack_from(answer)
    position = _HEADER.size + _ANSWER_SIZE
    while kind == _SOCK_DIAG_BY_FAMILY and position + _ATTRIBUTE.size <= length:
        size, name = _ATTRIBUTE.unpack_from(answer, position)
        if name == _PEER:
            return int(struct.unpack_from("=I", answer, position + _ATTRIBUTE.size)[0])
        position += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return None


def _tcp_peer_inode(sock: socket.socket) -> int | None:
    """The inode of the other end, if that is on this machine: 0 until accept() has given it one."""
    pair = f"{_as_listed(sock, sock.getpeername())} {_as_listed(sock, sock.getsockname())}"
    with open("/proc/net/tcp" if sock.family == socket.AF_INET else "/proc/net/tcp6") as table:
        for line in table:
            fields = line.split()
            if f"{fields[1]} {fields[2]}" == pair:
                return int(fields[9])
    return None


def _as_listed(sock: socket.socket, address: tuple[str, int]) -> str:
    """An address as /proc/net/tcp shows it: words of 32 bits as numbers of this machine, then the port."""
    packed = socket.inet_pton(sock.family, address[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"{''.join(f'{word:08X}' for word in words)}:{address[1]:04X}"
