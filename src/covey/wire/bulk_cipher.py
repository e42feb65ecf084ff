"""One large secretstream message through OpenSSL, when the package `cryptography` is there.

The same bytes as libsodium's `crypto_secretstream_xchacha20poly1305` (libsodium 1.0.18), composed
from ChaCha20 and Poly1305: block 0 of the key stream gives the Poly1305 key, block 1 hides the tag
byte, the message starts at block 2. OpenSSL needs several microseconds to begin and then runs at
about twice libsodium's rate, so it pays from `BULK_SIZE` bytes up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from struct import pack
from typing import Any, TypeAlias

BULK_SIZE = 16384
"""Message size in bytes from which OpenSSL is faster (measured: they are even at about 12 KiB)."""

Engine: TypeAlias = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]

_TWO_BLOCKS = bytes(128)


@cache
def bulk_engine() -> Engine | None:
    """`Cipher`, `ChaCha20` and `Poly1305` of `cryptography`, or None without it.

    Imported at the first large message: most programs that import covey never send one.
    """
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
        from cryptography.hazmat.primitives.poly1305 import Poly1305
    except ImportError:
        return None
    return Cipher, ChaCha20, Poly1305


class BulkCipher:
    """ChaCha20 and Poly1305 under one key; the caller keeps the nonce and the counter.

    ChaCha20 encrypts and decrypts alike, so one object serves either direction. `engine` is what
    `bulk_engine()` gave.
    """

    __slots__ = ("_context", "_key", "_make", "_poly1305")

    def __init__(self, key: bytes, engine: Engine) -> None:
        cipher, chacha20, self._poly1305 = engine
        self._key = key
        self._make: Callable[[bytes], Any] = lambda nonce: cipher(
            chacha20(key, nonce), None
        ).encryptor()
        self._context = self._make(bytes(16))

    @property
    def key(self) -> bytes:
        """The key this object was made with: after a rekey it is of no use any more."""
        return self._key

    def _start(self, nonce: bytes) -> tuple[Any, bytes]:
        """The key stream at block 2, and blocks 0 and 1."""
        context = self._context
        try:
            context.reset_nonce(bytes(4) + nonce)
        except AttributeError:  # cryptography before 43 makes a new context each time
            context = self._make(bytes(4) + nonce)
        return context, context.update(_TWO_BLOCKS)

    def _authenticator(self, key: bytes, tag_block: bytes, ciphertext: memoryview) -> bytes:
        size = len(ciphertext)
        poly1305 = self._poly1305(key)
        poly1305.update(tag_block)
        poly1305.update(ciphertext)
        # libsodium pads by size & 15, not up to the next 16 bytes, and keeps it for compatibility
        poly1305.update(bytes(size & 15) + pack("<QQ", 0, 64 + size))
        authenticator: bytes = poly1305.finalize()
        return authenticator

    def seal_into(
        self, nonce: bytes, message: bytes | memoryview, body: memoryview, tag: int
    ) -> bytes:
        """Write tag byte, ciphertext and authenticator to `body`; returns the authenticator."""
        context, blocks = self._start(nonce)
        tag_block = bytes([tag ^ blocks[64]]) + blocks[65:]
        ciphertext = body[1:-16]
        context.update_into(message, ciphertext)
        body[0] = tag_block[0]
        body[-16:] = authenticator = self._authenticator(blocks[:32], tag_block, ciphertext)
        return authenticator

    def open(self, nonce: bytes, body: memoryview) -> tuple[Any, int, bytes]:
        """The context that decrypts `body[1:-16]`, the tag, and the authenticator due at its end.

        The caller compares the authenticator before it decrypts.
        """
        context, blocks = self._start(nonce)
        tag_block = bytes(body[:1]) + blocks[65:]
        authenticator = self._authenticator(blocks[:32], tag_block, body[1:-16])
        return context, body[0] ^ blocks[64], authenticator
