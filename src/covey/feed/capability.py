"""Proof of knowing a log's key, bound to one connection (`hypercore.md` section 6)."""

from __future__ import annotations

from hashlib import blake2b

from covey.keys import namespace

_INITIATOR = namespace("hypercore", 1)
_RESPONDER = namespace("hypercore", 2)


def capability(handshake_hash: bytes, key: bytes, *, is_initiator: bool) -> bytes:
    """The 32 bytes by which the sender of a channel handshake shows that it knows `key`.

    `handshake_hash` is the 64-byte hash of the Noise handshake, `is_initiator` the Noise role of
    the *sender*: a mirrored capability does not fit. Compare with `hmac.compare_digest`.
    """
    role = _INITIATOR if is_initiator else _RESPONDER
    return blake2b(role + key, digest_size=32, key=handshake_hash).digest()
