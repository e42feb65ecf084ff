"""Key pairs, discovery keys, namespaces and signatures (hypercore-crypto 3.7)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Self

import nacl.bindings
import nacl.exceptions

SEED_SIZE = 32
KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key pair. `repr` and comparison never show the secret half.

    `public_key` is the 32-byte point, `seed` the 32 secret bytes it comes from, `secret_key` the
    64 bytes `seed || public_key` that libsodium and the Node packages call by that name.
    """

    public_key: bytes
    seed: bytes = field(repr=False, compare=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The pair that belongs to 32 secret bytes; `ValueError` for another size."""
        if len(seed) != SEED_SIZE:
            raise ValueError(f"a key pair comes from {SEED_SIZE} bytes, not {len(seed)}")
        public_key, _ = nacl.bindings.crypto_sign_seed_keypair(bytes(seed))
        return cls(public_key, bytes(seed))

    @classmethod
    def generate(cls) -> Self:
        """A new random pair."""
        return cls.from_seed(os.urandom(SEED_SIZE))

    @property
    def secret_key(self) -> bytes:
        """The 64 bytes `seed || public_key`."""
        return self.seed + self.public_key

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return nacl.bindings.crypto_sign(message, self.secret_key)[:64]


def verify(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether `signature` is `public_key`'s over `message`."""
    if len(signature) != 64 or len(public_key) != KEY_SIZE:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + message, public_key)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


def discovery_key(public_key: bytes) -> bytes:
    """The 32 bytes under which a log is found without telling its key."""
    return hashlib.blake2b(b"hypercore", digest_size=32, key=public_key).digest()


def namespace(name: str, index: int) -> bytes:
    """BLAKE2b-256 of (BLAKE2b-256 of `name`, then the byte `index`): a 32-byte domain separator."""
    inner = hashlib.blake2b(name.encode(), digest_size=32).digest()
    return hashlib.blake2b(inner + bytes([index]), digest_size=32).digest()
