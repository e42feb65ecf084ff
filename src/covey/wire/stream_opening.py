"""What the opening of a secret stream takes, apart from the stream (secret-stream.md section 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b

from covey.errors import UsageError
from covey.keys import KEY_SIZE, namespace
from covey.wire.noise import HASH_SIZE, HandshakeResult, HandshakeState, another_key

ID_SIZE = 32
EPHEMERAL_SEED_SIZE = 32


@cache
def _role_namespace(is_initiator: bool) -> bytes:
    return namespace("hyperswarm/secret-stream", 0 if is_initiator else 1)


def stream_id(handshake_hash: bytes, *, is_initiator: bool) -> bytes:
    """The 32 bytes that begin the header frame of that side (section 4)."""
    return blake2b(_role_namespace(is_initiator), digest_size=ID_SIZE, key=handshake_hash).digest()


def check_result(result: HandshakeResult, expected: bytes | None) -> None:
    """Values from a handshake done elsewhere must fit, and prove the key that was asked for."""
    if min(len(result.tx), len(result.rx)) < KEY_SIZE or len(result.hash) != HASH_SIZE:
        raise UsageError("handshake values are keys of at least 32 bytes and a hash of 64")
    if expected is not None and expected != result.remote_public_key:
        raise another_key(expected, result.remote_public_key)


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a stream may do before it has to, or while it waits for the remote.

    `handshake` was made ahead, is fresh, and is claimed by the one stream that gets it. `idle` is
    called once, by `work`, when there is nothing to do but wait: the moment to make the next
    handshake ahead.
    """

    handshake: HandshakeState
    idle: Callable[[], object]
