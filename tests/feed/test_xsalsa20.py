"""XSalsa20: published vectors, and both ways to it give the same bytes."""

from __future__ import annotations

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.feed import xsalsa20
from covey.feed.xsalsa20 import Cipher, best_cipher, direct_cipher, xor_composed, xsalsa20_xor

# The first 32 bytes of the stream in libsodium's test `stream3`.
KEY = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
STREAM = bytes.fromhex("eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880")
BYTES_32 = st.binary(min_size=32, max_size=32)
BYTES_24 = st.binary(min_size=24, max_size=24)


def ciphers() -> list[Cipher]:
    direct = direct_cipher()
    return [xor_composed, xsalsa20_xor, *([direct] if direct is not None else [])]


@pytest.mark.parametrize("cipher", ciphers())
def test_the_stream_of_the_published_vector(cipher: Cipher) -> None:
    for size in range(33):
        assert cipher(bytes(size), NONCE, KEY) == STREAM[:size]


@pytest.mark.parametrize("cipher", ciphers())
@given(data=st.binary(max_size=300), nonce=BYTES_24, key=BYTES_32)
def test_the_stream_is_that_of_a_secretbox_from_byte_32_on(
    cipher: Cipher, data: bytes, nonce: bytes, key: bytes
) -> None:
    covered = cipher(bytes(32) + data, nonce, key)
    box = nacl.bindings.crypto_secretbox(data, nonce, key)
    assert covered[32:] == box[16:]
    assert cipher(covered, nonce, key) == bytes(32) + data


@given(st.binary(max_size=200), BYTES_24, BYTES_32)
def test_every_way_gives_the_same_bytes(data: bytes, nonce: bytes, key: bytes) -> None:
    assert len({cipher(data, nonce, key) for cipher in ciphers()}) == 1


@pytest.mark.parametrize(("nonce", "key"), [(23, 32), (25, 32), (24, 31), (24, 33), (0, 0)])
def test_sizes_that_libsodium_would_read_past_are_refused(nonce: int, key: int) -> None:
    with pytest.raises(ValueError, match="24 bytes and a key 32"):
        xsalsa20_xor(b"data", bytes(nonce), bytes(key))


def test_without_the_symbol_the_composed_cipher_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xsalsa20, "direct_cipher", lambda: None)
    best_cipher.cache_clear()
    try:
        assert best_cipher() is xor_composed
        assert xsalsa20_xor(bytes(32), NONCE, KEY) == STREAM
    finally:
        best_cipher.cache_clear()


def test_a_library_without_the_symbol_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ctypes = pytest.importorskip("ctypes")
    monkeypatch.setattr(ctypes, "CDLL", lambda _path: object())
    assert direct_cipher() is None
