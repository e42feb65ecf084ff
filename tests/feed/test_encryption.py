"""Encrypted blocks: every case of the vectors, and what Node makes of other sizes and numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import DecodeError, UsageError
from covey.feed import encryption
from covey.feed.encryption import PADDING, BlockCipher
from covey.feed.xsalsa20 import Cipher, xor_composed, xsalsa20_xor
from tests.vectors_path import load_vectors

CASES = load_vectors("manifest-and-keys")["blockEncryption"]
OF_NODE = load_vectors("block-encryption")["cases"]
NUMBERS = st.integers(0, (1 << 53) - 1)
CORE_KEY, KEY = bytes(range(32)), bytes(range(32, 64))


def check(case: dict[str, Any], *, compat: bool) -> None:
    keys = (bytes.fromhex(case[name]) for name in ("coreKey", "encryptionKey"))
    cipher = BlockCipher(*keys, compat=compat)
    plaintext, stored = bytes.fromhex(case["plaintext"]), bytes.fromhex(case["stored"])
    assert cipher._block_key.hex() == case["blockKey"]
    assert cipher._blinding_key.hex() == case["blindingKey"]
    assert cipher.encrypt(case["index"], case["fork"], plaintext) == stored
    assert cipher.decrypt(case["index"], stored) == plaintext


@pytest.fixture(params=[xsalsa20_xor, xor_composed], ids=["best", "composed"], autouse=True)
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cipher:
    cipher: Cipher = request.param
    monkeypatch.setattr(encryption, "xsalsa20_xor", cipher)
    return cipher


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['index']}-{case['fork']}")
def test_a_block_of_the_vectors(case: dict[str, Any]) -> None:
    check(case, compat=False)


@pytest.mark.parametrize("number", range(len(OF_NODE)))
def test_a_block_that_node_encrypted(number: int) -> None:
    check(OF_NODE[number], compat=OF_NODE[number]["compat"])


def test_blocks_of_any_size_and_kind_come_back() -> None:
    cipher = BlockCipher(CORE_KEY, KEY)

    @given(NUMBERS, NUMBERS, st.binary(max_size=200))
    def comes_back(index: int, fork: int, plaintext: bytes) -> None:
        stored = cipher.encrypt(index, fork, memoryview(plaintext))
        assert len(stored) == PADDING + len(plaintext)
        assert cipher.decrypt(index, memoryview(stored)) == plaintext

    comes_back()


def test_no_two_blocks_have_the_same_key_stream() -> None:
    seen = {
        BlockCipher(core_key, key, compat=compat).encrypt(index, fork, bytes(40))
        for core_key in (CORE_KEY, KEY)
        for key in (CORE_KEY, KEY)
        for compat in (False, True)
        for index in (0, 1)
        for fork in (0, 1)
    }
    assert len(seen) == 32
    assert len({stored[PADDING:] for stored in seen}) == 32


@pytest.mark.parametrize("size", range(PADDING))
def test_a_block_shorter_than_its_padding_is_a_decode_error(size: int) -> None:
    with pytest.raises(DecodeError, match="8 bytes or more"):
        BlockCipher(CORE_KEY, KEY).decrypt(0, bytes(size))


def test_an_empty_block_is_its_padding() -> None:
    cipher = BlockCipher(CORE_KEY, KEY)
    stored = cipher.encrypt(7, 0, b"")
    assert (len(stored), cipher.decrypt(7, stored)) == (PADDING, b"")


def test_keys_of_another_size_are_refused() -> None:
    for sizes in ((31, 32), (32, 31), (33, 32), (32, 0)):
        with pytest.raises(UsageError, match="32 bytes"):
            BlockCipher(*map(bytes, sizes))


def test_a_cipher_shows_no_key() -> None:
    assert KEY.hex() not in repr(BlockCipher(CORE_KEY, KEY)) + str(BlockCipher(CORE_KEY, KEY))
