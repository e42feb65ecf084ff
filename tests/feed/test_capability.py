"""The proof of knowing a key: every case of the vectors, and what it is bound to."""

from __future__ import annotations

import pytest

from covey.feed.capability import capability
from tests.vectors_path import load_vectors

CASES = load_vectors("manifest-and-keys")["capabilities"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["initiator"][:8])
def test_a_capability_of_the_vectors(case: dict[str, str]) -> None:
    handshake_hash = bytes.fromhex(case["handshakeHash"])
    key = bytes.fromhex(case["key"])
    for role in ("initiator", "responder"):
        made = capability(handshake_hash, key, is_initiator=role == "initiator")
        assert made.hex() == case[role]


def test_a_capability_is_bound_to_role_key_and_connection() -> None:
    made = {
        capability(bytes([hash_byte]) * 64, bytes([key_byte]) * 32, is_initiator=is_initiator)
        for hash_byte in (1, 2)
        for key_byte in (3, 4)
        for is_initiator in (True, False)
    }
    assert len(made) == 8
