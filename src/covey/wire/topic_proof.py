"""Knowing a topic, and proving it to a peer without telling it.

A topic that two people agree on is often short, so it is stretched with Argon2id before anything
is derived from it: what travels in clear (the discovery name) and what a peer sees (the proof)
give a guesser nothing cheaper than one Argon2id run for each guess.

A proof is bound to the handshake hash of one connection and to the role of the side that makes
it: it is worthless on any other connection, and cannot be reflected.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

from nacl.pwhash import argon2id

from covey.errors import UsageError
from covey.keys import namespace

PROOF_SIZE = 32
_SALT = namespace("covey/topic", 0)[: argon2id.SALTBYTES]
_DISCOVERY = namespace("covey/topic", 1)
_PROOF = (namespace("covey/topic", 2), namespace("covey/topic", 3))  # responder, initiator


@lru_cache(maxsize=64)
def _stretch(text: str) -> bytes:
    return argon2id.kdf(
        32,
        text.encode(),
        _SALT,
        opslimit=argon2id.OPSLIMIT_INTERACTIVE,
        memlimit=argon2id.MEMLIMIT_INTERACTIVE,
    )


@dataclass(frozen=True, slots=True)
class TopicSecret:
    """What follows from a topic: a public `discovery_name` (32 bytes) and the secret of proofs."""

    discovery_name: bytes
    _key: bytes = field(repr=False)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Stretch a topic; takes some 0.1 s and 64 MiB the first time for each text.

        Raises `UsageError` for an empty topic.
        """
        if not text:
            raise UsageError("a topic needs at least one character")
        key = _stretch(text)
        name = hashlib.blake2b(_DISCOVERY, key=key, digest_size=32).digest()
        return cls(name, key)

    def prove(self, handshake_hash: bytes, *, is_initiator: bool) -> bytes:
        """The 32-byte proof of one side of the connection with this 64-byte handshake hash."""
        return hashlib.blake2b(
            _PROOF[is_initiator] + handshake_hash, key=self._key, digest_size=PROOF_SIZE
        ).digest()

    def accepts(self, proof: bytes, handshake_hash: bytes, *, is_initiator: bool) -> bool:
        """Whether `proof` is what the *remote* side, of the other role than ours, must show."""
        expected = self.prove(handshake_hash, is_initiator=not is_initiator)
        return hmac.compare_digest(expected, proof)
