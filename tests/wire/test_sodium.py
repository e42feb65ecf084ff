from __future__ import annotations

import builtins
import importlib.util
from types import ModuleType
from typing import Any

import pytest
from nacl import bindings

from covey.keys import KeyPair
from covey.wire import sodium

KEY, NONCE, DATA = bytes(range(32)), bytes(range(12)), bytes(64)


def without_pointers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A second copy of the module, loaded while PyNaCl hides its private part."""
    real_import = builtins.__import__

    def refuse(name: str, *args: Any) -> ModuleType:
        if name == "nacl" and args[2:3] == (("_sodium",),):
            raise ImportError("another layout")
        return real_import(name, *args)

    spec = importlib.util.find_spec("covey.wire.sodium")
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", refuse)
        spec.loader.exec_module(copy)
    return copy


@pytest.fixture(params=["pointers", "bindings"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if request.param == "pointers":
        assert sodium.lib is not None
        return sodium
    copy = without_pointers(monkeypatch)
    assert copy.lib is None
    assert copy.encrypt is bindings.crypto_aead_chacha20poly1305_ietf_encrypt
    return copy


@pytest.mark.parametrize("size", [0, 1, 32, 1000])
def test_both_ways_encrypt_and_decrypt_alike(either: ModuleType, size: int) -> None:
    plaintext = bytes(size)
    ciphertext = either.encrypt(plaintext, DATA, NONCE, KEY)
    expected = bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, DATA, NONCE, KEY)
    assert ciphertext == expected
    assert either.decrypt(ciphertext, DATA, NONCE, KEY) == plaintext


@pytest.mark.parametrize("size", [0, 32])
def test_both_ways_refuse_what_is_damaged_or_too_short(either: ModuleType, size: int) -> None:
    ciphertext = bytearray(either.encrypt(bytes(size), DATA, NONCE, KEY))
    with pytest.raises(either.CryptoError):
        either.decrypt(bytes(ciphertext), b"other data", NONCE, KEY)
    ciphertext[-1] ^= 1
    with pytest.raises(either.CryptoError):
        either.decrypt(bytes(ciphertext), DATA, NONCE, KEY)
    with pytest.raises(either.CryptoError):
        either.decrypt(bytes(15), DATA, NONCE, KEY)


def test_both_ways_multiply_alike_and_refuse_alike(either: ModuleType) -> None:
    point = KeyPair.from_seed(bytes(32)).public_key
    scalar = bytes([8]) + bytes(30) + bytes([64])
    expected = bindings.crypto_scalarmult_ed25519_noclamp(scalar, point)
    assert either.multiply(scalar, point) == expected
    for refused in (bytes(32), b"\1" + bytes(31), point[:31], point + b"\0"):
        with pytest.raises(either.CryptoError):
            either.multiply(scalar, refused)


def test_sizes_are_checked_before_a_pointer_is_handed_over() -> None:
    for nonce, key in ((NONCE[:11], KEY), (NONCE, KEY[:31])):
        with pytest.raises(ValueError, match="a nonce has 12 bytes"):
            sodium.encrypt(b"", b"", nonce, key)
        with pytest.raises(ValueError, match="a nonce has 12 bytes"):
            sodium.decrypt(bytes(16), b"", nonce, key)
    with pytest.raises(sodium.CryptoError, match="32 bytes"):
        sodium.multiply(bytes(31), bytes(32))
