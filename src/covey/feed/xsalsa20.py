"""The XSalsa20 stream cipher: libsodium's own where it can be reached, else made of parts.

PyNaCl has libsodium's `crypto_stream_xsalsa20_xor` inside but gives no function for it. Where its
library shows the symbol, ctypes calls it (1 µs for a short message, 1.5 for 1 KiB). Elsewhere
the first 32 bytes of the key stream come from a Salsa20 core in Python (about 45 µs), and the rest
from `crypto_secretbox`, which uses them for its tag and goes on from there.

Source: Bernstein, "Salsa20 specification" (2005) and "Extending the Salsa20 nonce" (2011).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from struct import pack, unpack
from typing import Any, TypeAlias

import nacl.bindings

KEY_SIZE = 32
NONCE_SIZE = 24

Cipher: TypeAlias = Callable[[bytes, bytes, bytes], bytes]

_SIGMA = unpack("<4I", b"expand 32-byte k")
_HEAD = 32  # bytes of the key stream that a secretbox keeps for its tag
_TAG_SIZE = 16
# Four 32-bit words side by side in one int, 64 bits each, so that one addition does four.
_WORDS = 0xFFFFFFFF_00000000_FFFFFFFF_00000000_FFFFFFFF_00000000_FFFFFFFF
_LANE = (1 << 64) - 1
_TWO_LANES = (1 << 128) - 1
_THREE_LANES = (1 << 192) - 1


def xsalsa20_xor(data: bytes, nonce: bytes, key: bytes) -> bytes:
    """`data` with the key stream of `key` (32 bytes) and `nonce` (24) laid over it.

    The same call encrypts and decrypts. `ValueError` for other sizes.
    """
    if len(nonce) != NONCE_SIZE or len(key) != KEY_SIZE:  # libsodium would read past their ends
        raise ValueError(f"a nonce has {NONCE_SIZE} bytes and a key {KEY_SIZE}")
    return best_cipher()(data, nonce, key)


@cache
def best_cipher() -> Cipher:
    """What this system has: libsodium through ctypes, else the composed one."""
    return direct_cipher() or xor_composed


def direct_cipher() -> Cipher | None:
    """Libsodium's function out of PyNaCl's library; None where that does not show it."""
    try:
        import ctypes  # with the first encrypted log: it takes 2 ms that few programs need

        from nacl import _sodium

        function: Any = ctypes.CDLL(_sodium.__file__).crypto_stream_xsalsa20_xor
    except (ImportError, AttributeError, OSError):
        return None
    text = ctypes.c_char_p
    function.argtypes = (text, text, ctypes.c_ulonglong, text, text)
    make_buffer = ctypes.create_string_buffer

    def xor_directly(data: bytes, nonce: bytes, key: bytes) -> bytes:
        size = len(data)
        if not size:
            return b""
        out = make_buffer(size)
        function(out, data, size, nonce, key)
        return out.raw

    return xor_directly


def xor_composed(data: bytes, nonce: bytes, key: bytes) -> bytes:
    """The same out of a core of our own and `crypto_secretbox`."""
    head = data[:_HEAD]
    size = len(head)
    mask = int.from_bytes(_first_bytes(nonce, key)[:size], "little")
    start = (int.from_bytes(head, "little") ^ mask).to_bytes(size, "little")
    if len(data) <= _HEAD:
        return start
    box: bytes = nacl.bindings.crypto_secretbox(data[_HEAD:], nonce, key)
    return start + box[_TAG_SIZE:]


def _first_bytes(nonce: bytes, key: bytes) -> bytes:
    """Bytes 0 to 31 of the key stream."""
    mixed = _mix(unpack("<8I", key), unpack("<4I", nonce[:16]))
    inner = (mixed[0], mixed[5], mixed[10], mixed[15], *mixed[6:10])  # HSalsa20
    block = (*unpack("<2I", nonce[16:]), 0, 0)
    mixed = _mix(inner, block)
    before = (_SIGMA[0], *inner[:4], _SIGMA[1], *block[:2])
    words = zip(mixed[:8], before, strict=True)
    return pack("<8I", *[(word + old) & 0xFFFFFFFF for word, old in words])


def _mix(key: tuple[int, ...], block: tuple[int, ...]) -> list[int]:
    """The 16 words after 20 rounds of Salsa20, without the input added.

    The rows a, b, c and d are the diagonals of the matrix. Between the rounds the rows are turned
    by a word or more, so that columns become rows and back.
    """
    a = _join(_SIGMA)
    b = _join((key[3], block[3], key[7], key[2]))
    c = _join((block[2], key[6], key[1], block[1]))
    d = _join((key[5], key[0], block[0], key[4]))
    for _ in range(10):
        a, b, c, d = _quarter(a, b, c, d)
        b, d = d >> 64 | (d & _LANE) << 192, b >> 192 | (b & _THREE_LANES) << 64
        a, b, c, d = _quarter(a, b, c >> 128 | (c & _TWO_LANES) << 128, d)
        b, d = d >> 64 | (d & _LANE) << 192, b >> 192 | (b & _THREE_LANES) << 64
        c = c >> 128 | (c & _TWO_LANES) << 128
    words = [0] * 16
    words[0], words[5], words[10], words[15] = _split(a)
    words[4], words[9], words[14], words[3] = _split(b)
    words[8], words[13], words[2], words[7] = _split(c)
    words[12], words[1], words[6], words[11] = _split(d)
    return words


def _quarter(a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
    """Four quarter rounds at once, one in each of the four places."""
    total = (a + d) & _WORDS
    b ^= (total << 7 | total >> 25) & _WORDS
    total = (b + a) & _WORDS
    c ^= (total << 9 | total >> 23) & _WORDS
    total = (c + b) & _WORDS
    d ^= (total << 13 | total >> 19) & _WORDS
    total = (d + c) & _WORDS
    a ^= (total << 18 | total >> 14) & _WORDS
    return a, b, c, d


def _join(words: tuple[int, ...]) -> int:
    return words[0] | words[1] << 64 | words[2] << 128 | words[3] << 192


def _split(row: int) -> tuple[int, ...]:
    return unpack("<4Q", row.to_bytes(32, "little"))
