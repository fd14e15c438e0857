# SPDX-License-Identifier: PSF-2.0
"""Proof that both ends of a connection know the same key, in the messages of the standard library.

    one side                                     the other
    #CHALLENGE#{sha256}<40 random bytes>  ---->
                                          <----  {sha256}<HMAC-SHA256 of all that follows #CHALLENGE#>
    #WELCOME# or #FAILURE#                ---->

then the same with exchanged roles. That is the protocol of 3.12, spoken here on every version. Older peers send 20
bytes without a digest's name and answer with 16: the plain HMAC-MD5. MD5 is used for them only.

The protocol is written as steps, which do no input or output: a generator that yields a message to be sent, or None
where it needs the next message of the peer. So many handshakes can go on side by side (`_sessions`).
"""
from __future__ import annotations

import hmac
import os

from ._errors import AuthenticationError

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    Steps = Generator[bytes | None, bytes, Any]

__all__ = ["answer_challenge", "deliver_challenge"]

MESSAGE_LENGTH = 40
CHALLENGE = _CHALLENGE = b"#CHALLENGE#"
WELCOME = _WELCOME = b"#WELCOME#"
FAILURE = _FAILURE = b"#FAILURE#"

#: No message of a handshake is longer.
MAX_MESSAGE = 256
# What older peers send: a challenge, and an answer, neither naming a digest.
_MD5ONLY_MESSAGE_LENGTH = 20
_MD5_DIGEST_LEN = 16
_LEGACY_LENGTHS = (_MD5ONLY_MESSAGE_LENGTH, _MD5_DIGEST_LEN)
_ALLOWED_DIGESTS = frozenset({b"md5", b"sha256", b"sha384", b"sha3_256", b"sha3_384"})
_MAX_DIGEST_LEN = max(map(len, _ALLOWED_DIGESTS))


def check_key(authkey: object) -> bytes:
    """The key, if it is one.

    Raises:
        TypeError: it is not bytes.
    """
    if not isinstance(authkey, bytes):
        raise TypeError(f"authkey should be a byte string, not {type(authkey).__name__}")
    return authkey


def _split_digest(message: bytes) -> tuple[str, bytes]:
    """The digest that a challenge or an answer names, '' where an older peer names none, and the rest.

    Raises:
        AuthenticationError: it is neither.
    """
    if len(message) in _LEGACY_LENGTHS:
        return "", message
    end = message.find(b"}", 1, _MAX_DIGEST_LEN + 2)
    if message[:1] == b"{" and message[1:end] in _ALLOWED_DIGESTS:
        return message[1:end].decode("ascii"), message[end + 1 :]
    raise AuthenticationError(f"message of {len(message)} bytes names no digest that is supported")


def _create_response(authkey: bytes, message: bytes) -> bytes:
    """The answer to a challenge.

    Args:
        authkey: the key.
        message: what followed #CHALLENGE#.

    Raises:
        AuthenticationError: the challenge is malformed.
    """
    digest, _ = _split_digest(message)
    if not digest:
        return hmac.digest(authkey, message, "md5")
    return b"{%s}%s" % (digest.encode("ascii"), hmac.digest(authkey, message, digest))


def _verify_challenge(authkey: bytes, message: bytes, response: bytes) -> None:
    """Check an answer.

    Args:
        authkey: the key.
        message: what followed #CHALLENGE#.
        response: the peer's answer.

    Raises:
        AuthenticationError: whoever sent it does not know the key.
    """
    digest, proof = _split_digest(response)
    if not hmac.compare_digest(hmac.digest(authkey, message, digest or "md5"), proof):
        raise AuthenticationError("digest received was wrong")


def challenge_steps(authkey: bytes, digest_name: str = "sha256") -> Steps:
    """Have the peer prove that it knows the key."""
    message = b"{%s}%s" % (digest_name.encode("ascii"), os.urandom(MESSAGE_LENGTH))
    yield CHALLENGE + message
    response = yield None
    try:
        _verify_challenge(authkey, message, response)
    except AuthenticationError:
        yield FAILURE
        raise
    yield WELCOME


def answer_steps(authkey: bytes) -> Steps:
    """Prove to the peer that we know the key."""
    message = yield None
    if not message.startswith(CHALLENGE):
        raise AuthenticationError(f"expected a challenge, the peer sent {message[:20]!r}: does it use a key?")
    message = message[len(CHALLENGE) :]
    if len(message) < _MD5ONLY_MESSAGE_LENGTH:
        raise AuthenticationError(f"challenge too short: {len(message)} bytes")
    yield _create_response(authkey, message)
    if (yield None) != WELCOME:
        raise AuthenticationError("digest sent was rejected")


def server_steps(authkey: bytes) -> Steps:
    """Both proofs, as the side does that was connected to."""
    yield from challenge_steps(authkey)
    yield from answer_steps(authkey)


def client_steps(authkey: bytes) -> Steps:
    """Both proofs, as the side does that connected."""
    yield from answer_steps(authkey)
    yield from challenge_steps(authkey)


def _take(steps: Steps, connection: Any) -> None:
    """Take the steps with something that has send_bytes() and recv_bytes(), waiting for the peer for ever."""
    message = None
    while True:
        try:
            outgoing = steps.send(message)  # type: ignore[arg-type]  # the first one must be None
        except StopIteration:
            return
        if outgoing is None:
            message = connection.recv_bytes(MAX_MESSAGE)
        else:
            connection.send_bytes(outgoing)


def deliver_challenge(connection: Any, authkey: bytes, digest_name: str = "sha256") -> None:
    """Send a challenge, and wait for the answer.

    Args:
        connection: anything with send_bytes(data) and recv_bytes(maxlength).
        authkey: the key.
        digest_name: one of md5, sha256, sha384, sha3_256, sha3_384. Since 3.12, here on every version.

    Raises:
        AuthenticationError: the peer does not know the key.
        ValueError: the key is not bytes, or the digest is unknown.
    Source: multiprocessing documentation, 'Listeners and Clients'.
    """
    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)}")
    if digest_name.encode("ascii", "replace") not in _ALLOWED_DIGESTS:
        raise ValueError(f"unknown digest {digest_name!r}")
    _take(challenge_steps(authkey, digest_name), connection)


def answer_challenge(connection: Any, authkey: bytes) -> None:
    """Wait for a challenge, and answer it.

    Args:
        connection: anything with send_bytes(data) and recv_bytes(maxlength).
        authkey: the key.

    Raises:
        AuthenticationError: the peer rejected the answer, or sent no challenge.
        ValueError: the key is not bytes.
    Source: multiprocessing documentation, 'Listeners and Clients'.
    """
    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)}")
    _take(answer_steps(authkey), connection)
