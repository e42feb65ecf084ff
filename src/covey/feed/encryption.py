"""Blocks that only readers with a key understand (`hypercore.md` section 12; hypercore 11.37.1).

The tree covers what is stored, so that whoever has no key can still serve and verify. There is no
tag: that a block is whole and its writer's is what the signature of the log says.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

from covey.errors import DecodeError, UsageError
from covey.feed.xsalsa20 import xsalsa20_xor
from covey.keys import KEY_SIZE, namespace
from covey.wire.session import Buffer

PADDING = 8
"""Bytes that a stored block is longer than its plaintext."""

_DEFAULT_ENCRYPTION = namespace("hypercore", 5)
_pack_number = struct.Struct("<Q").pack
_ZEROS = bytes(16)


class BlockCipher:
    """Encrypts and decrypts the blocks of one log. `repr` does not show its keys.

    A stored block is `PADDING` bytes, the hidden fork, and then the ciphertext; index and padding
    are the nonce. So one index must never be written twice on the same fork.
    """

    __slots__ = ("_blinding_key", "_block_key")

    def __init__(self, core_key: bytes, encryption_key: bytes, *, compat: bool = False) -> None:
        """`UsageError` when a key does not have 32 bytes.

        `compat`: the log is a compat one (`Authority.compat`), whose block key is made otherwise.
        """
        for key in (core_key, encryption_key):
            if len(key) != KEY_SIZE:
                raise UsageError(f"encryption takes keys of {KEY_SIZE} bytes, not {len(key)}")
        if compat:
            block_key = blake2b(encryption_key, digest_size=32, key=core_key).digest()
        else:
            secret = _DEFAULT_ENCRYPTION + core_key + encryption_key
            block_key = blake2b(secret, digest_size=32).digest()
        self._block_key = block_key
        self._blinding_key = blake2b(block_key, digest_size=32).digest()

    def encrypt(self, index: int, fork: int, plaintext: Buffer) -> bytes:
        """The stored bytes of block number `index` as it is written on `fork`."""
        number = _pack_number(index)
        padding = xsalsa20_xor(_pack_number(fork), number + _ZEROS, self._blinding_key)
        nonce = number + padding + _ZEROS[:8]
        return padding + xsalsa20_xor(bytes(plaintext), nonce, self._block_key)

    def decrypt(self, index: int, stored: Buffer) -> bytes:
        """The plaintext of block number `index`; garbage with a wrong key, for there is no tag.

        `DecodeError` when `stored` is shorter than the padding: its writer encrypted nothing.
        """
        if len(stored) < PADDING:
            raise DecodeError(f"an encrypted block has {PADDING} bytes or more, not {len(stored)}")
        data = bytes(stored)
        nonce = _pack_number(index) + data[:PADDING] + _ZEROS[:8]
        return xsalsa20_xor(data[PADDING:], nonce, self._block_key)
