"""Manifests and the keys they hash to: every case of the vectors, hostile bytes, own mistakes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import DecodeError, EncodeError, UsageError, VerifyError
from covey.feed.manifest import (
    DEFAULT_NAMESPACE,
    MAX_LINKED,
    MAX_SIGNERS,
    Manifest,
    Prologue,
    Signer,
    check_manifest,
    default_manifest,
    is_compat,
    manifest_codec,
)
from covey.keys import KeyPair, discovery_key, namespace
from covey.wire.encoding import decode, encode
from tests.vectors_path import load_vectors

VECTORS = load_vectors("manifest-and-keys")
KEYS = st.binary(min_size=32, max_size=32)
SIGNERS = st.builds(Signer, KEYS, KEYS)
PUBLIC_KEY = bytes(range(32))


def manifest_of(case: dict[str, Any]) -> Manifest:
    """A manifest built by hand from the fields of a vector."""
    assert case["hash"] == "blake2b"
    prologue = case["prologue"]
    linked = case["linked"]
    user_data = case["userData"]
    return Manifest(
        version=case["version"],
        quorum=case["quorum"],
        allow_patch=case["allowPatch"],
        signers=tuple(
            Signer(bytes.fromhex(signer["publicKey"]), bytes.fromhex(signer["namespace"]))
            for signer in case["signers"]
        ),
        prologue=prologue and Prologue(bytes.fromhex(prologue["hash"]), prologue["length"]),
        linked=None if linked is None else tuple(map(bytes.fromhex, linked)),
        user_data=None if user_data is None else bytes.fromhex(user_data),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    signers = tuple(draw(st.lists(SIGNERS, min_size=1, max_size=4)))
    version = draw(st.integers(0, 3))
    modern = version >= 2
    prologue = st.builds(Prologue, KEYS, st.integers(0, (1 << 53) - 1))
    return Manifest(
        version=version,
        quorum=draw(st.none() | st.integers(0, len(signers))),
        signers=signers,
        allow_patch=draw(st.booleans()),
        prologue=draw(st.none() | prologue) if version else None,
        linked=tuple(draw(st.lists(KEYS, max_size=3))) if modern else None,
        user_data=draw(st.none() | st.binary()) if modern else None,
    )


@pytest.mark.parametrize("case", VECTORS["manifests"], ids=lambda case: case["description"])
def test_a_manifest_of_the_vectors(case: dict[str, Any]) -> None:
    encoded = bytes.fromhex(case["encoded"])
    manifest = manifest_of(case["manifest"])
    assert encode(manifest_codec, manifest) == encoded
    assert decode(manifest_codec, encoded) == manifest
    assert manifest.key.hex() == case["key"]
    assert discovery_key(manifest.key).hex() == case["discoveryKey"]
    check_manifest(manifest, bytes.fromhex(case["key"]))
    assert not is_compat(manifest, manifest.key)


@pytest.mark.parametrize("case", VECTORS["manifests"], ids=lambda case: case["description"])
def test_a_manifest_of_the_vectors_cut_short_does_not_decode(case: dict[str, Any]) -> None:
    encoded = bytes.fromhex(case["encoded"])
    for size in range(len(encoded)):
        with pytest.raises(DecodeError):
            decode(manifest_codec, encoded[:size])


@pytest.mark.parametrize("case", VECTORS["compat"], ids=lambda case: case["key"][:8])
def test_a_compat_key_of_the_vectors_is_that_of_its_signer(case: dict[str, str]) -> None:
    key = bytes.fromhex(case["key"])
    manifest = default_manifest(bytes.fromhex(case["publicKey"]))
    assert is_compat(manifest, key)
    check_manifest(manifest, key)
    assert discovery_key(key).hex() == case["discoveryKey"]


@pytest.mark.parametrize("case", VECTORS["keyPairs"], ids=lambda case: case["seed"][:8])
def test_a_key_pair_of_the_vectors(case: dict[str, str]) -> None:
    pair = KeyPair.from_seed(bytes.fromhex(case["seed"]))
    assert pair.public_key.hex() == case["publicKey"]
    assert pair.secret_key.hex() == case["secretKey"]


def test_the_namespaces_of_the_vectors() -> None:
    expected = VECTORS["namespaces"]
    names = ("tree", "replicateInitiator", "replicateResponder", "manifest", "defaultNamespace")
    for number, name in enumerate((*names, "defaultEncryption")):
        assert namespace(expected["name"], number).hex() == expected[name]
    assert DEFAULT_NAMESPACE.hex() == expected["defaultNamespace"]


def test_the_default_manifest_is_the_70_bytes_of_the_document() -> None:
    encoded = encode(manifest_codec, default_manifest(PUBLIC_KEY))
    assert encoded == bytes.fromhex("010000010100") + DEFAULT_NAMESPACE + PUBLIC_KEY


@pytest.mark.parametrize(
    ("signers", "quorum"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (MAX_SIGNERS, 513)]
)
def test_more_than_half_of_the_signers_is_the_default_quorum(signers: int, quorum: int) -> None:
    manifest = Manifest(signers=(Signer(PUBLIC_KEY),) * signers)
    assert manifest.quorum == manifest.required == quorum


@given(manifests())
def test_manifests_come_back_as_they_were_sent(manifest: Manifest) -> None:
    assert decode(manifest_codec, encode(manifest_codec, manifest)) == manifest


@given(st.binary(max_size=300), st.integers(0, 4))
def test_any_bytes_decode_or_raise_a_decode_error(data: bytes, version: int) -> None:
    try:
        manifest = decode(manifest_codec, bytes([version]) + data)
    except DecodeError:
        return
    written = encode(manifest_codec, manifest)
    assert decode(manifest_codec, written) == manifest


def test_a_manifest_of_another_log_is_refused() -> None:
    manifest = default_manifest(PUBLIC_KEY)
    check_manifest(manifest, manifest.key)
    with pytest.raises(VerifyError, match="another log"):
        check_manifest(default_manifest(PUBLIC_KEY, version=2), manifest.key)


def test_two_signers_are_not_compat_with_the_key_of_one() -> None:
    manifest = Manifest(signers=(Signer(PUBLIC_KEY), Signer(bytes(32))))
    with pytest.raises(VerifyError):
        check_manifest(manifest, PUBLIC_KEY)


def test_a_manifest_written_in_another_way_has_the_key_of_the_usual_one() -> None:
    usual = default_manifest(PUBLIC_KEY, version=0)
    signer = encode(manifest_codec, usual)[3:]
    as_multisig = bytes([0, 0, 2, 0, 1, 1]) + signer
    long_numbers = bytes([0, 0xFD, 0, 0, 0xFE, 1, 0, 0, 0]) + signer
    for other in (as_multisig, long_numbers, encode(manifest_codec, usual) + b"trailing"):
        assert decode(manifest_codec, other) == usual
        assert decode(manifest_codec, other).key == usual.key


def test_empty_parts_keep_their_flag_when_written_again() -> None:
    body = encode(manifest_codec, default_manifest(PUBLIC_KEY, version=2))[2:]
    with_both = bytes([2, 4 | 8]) + body + b"\0\0"
    manifest = decode(manifest_codec, with_both)
    assert (manifest.linked, manifest.user_data) == ((), b"")
    assert encode(manifest_codec, manifest) == with_both


def test_no_linked_keys_are_as_good_as_none() -> None:
    assert Manifest(version=2, linked=()) == Manifest(version=2)
    assert Manifest(version=2, user_data=b"") != Manifest(version=2)


def test_unknown_flags_are_ignored() -> None:
    encoded = bytearray(encode(manifest_codec, default_manifest(PUBLIC_KEY)))
    encoded[1] |= 0x70
    assert decode(manifest_codec, encoded) == default_manifest(PUBLIC_KEY)


def test_a_quorum_that_the_signers_cannot_reach_is_read_but_not_made() -> None:
    encoded = bytearray(encode(manifest_codec, default_manifest(PUBLIC_KEY)))
    encoded[3] = 9
    assert decode(manifest_codec, encoded).required == 9
    with pytest.raises(UsageError):
        Manifest(quorum=9, signers=(Signer(PUBLIC_KEY),))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x04" + bytes(80), "version"),
        (b"\xfd\x00\x01" + bytes(80), "version"),
        (b"\x01\x00\x01" + bytes(80), "hash"),
        (b"\x00\x01" + bytes(80), "hash"),
        (b"\x00\x00\x03" + bytes(80), "type"),
        (b"\x01\x00\x00\x01\x01\x01" + bytes(64), "kind of signature"),
        (b"\x00\x00\x01\x01" + bytes(64), "kind of signature"),
    ],
)
def test_what_is_not_known_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=f"unknown {message}"):
        decode(manifest_codec, data)


@pytest.mark.parametrize(
    "count", [b"\x02", b"\xfe\xff\xff\xff\x3f", b"\xff" + b"\xff" * 6 + b"\0\0"]
)
def test_a_count_beyond_the_bytes_is_refused_before_anything_is_made(count: bytes) -> None:
    for head in (b"\x01\x00\x00\x01", b"\x00\x00\x02\x00\x01", b"\x02\x04\x00\x00\x00"):
        with pytest.raises(DecodeError, match="out of bounds"):
            decode(manifest_codec, head + count + bytes(60))


@pytest.mark.parametrize(
    ("head", "size", "most"),
    [(b"\x01\x00\x00\x01", 65, MAX_SIGNERS), (b"\x02\x04\x00\x00\x00", 32, MAX_LINKED)],
)
def test_more_signers_or_links_than_allowed_are_refused(head: bytes, size: int, most: int) -> None:
    def body(count: int) -> bytes:
        return head + b"\xfd" + count.to_bytes(2, "little") + bytes(size * count)

    assert decode(manifest_codec, body(most))
    with pytest.raises(DecodeError, match="at most"):
        decode(manifest_codec, body(most + 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 4},
        {"version": -1},
        {"quorum": -1},
        {"quorum": 1},
        {"signers": (Signer(PUBLIC_KEY),) * (MAX_SIGNERS + 1)},
        {"version": 1, "linked": (PUBLIC_KEY,)},
        {"version": 1, "user_data": b"x"},
        {"version": 2, "linked": (b"short",)},
        {"version": 2, "linked": (PUBLIC_KEY,) * (MAX_LINKED + 1)},
        {"version": 0, "prologue": Prologue(PUBLIC_KEY, 1)},
        {"version": 0, "prologue": Prologue(PUBLIC_KEY, 0), "signers": (Signer(PUBLIC_KEY),)},
    ],
)
def test_a_manifest_that_cannot_be_is_not_made(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Manifest(**fields)


def test_parts_of_a_manifest_have_their_sizes() -> None:
    for size in (0, 31, 33):
        with pytest.raises(UsageError):
            Signer(bytes(size))
        with pytest.raises(UsageError):
            Signer(PUBLIC_KEY, bytes(size))
        with pytest.raises(UsageError):
            Prologue(bytes(size), 0)
    with pytest.raises(UsageError):
        Prologue(PUBLIC_KEY, -1)


def test_what_is_no_manifest_is_not_written() -> None:
    something: Any = {"version": 1}
    with pytest.raises(EncodeError):
        encode(manifest_codec, something)
