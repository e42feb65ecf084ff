"""Knowing a topic is proven for one connection and one role only, and nothing shows the secret."""

from __future__ import annotations

import pytest

from covey.errors import UsageError
from covey.wire.topic_proof import TopicSecret

HASH = bytes(range(64))


def test_the_proof_of_the_other_side_is_accepted() -> None:
    secret = TopicSecret.from_text("garden")
    proof = secret.prove(HASH, is_initiator=True)
    assert TopicSecret.from_text("garden").accepts(proof, HASH, is_initiator=False)


def test_a_reflected_proof_is_refused() -> None:
    secret = TopicSecret.from_text("garden")
    assert not secret.accepts(secret.prove(HASH, is_initiator=True), HASH, is_initiator=True)


def test_a_proof_of_another_connection_is_refused() -> None:
    secret = TopicSecret.from_text("garden")
    other = secret.prove(HASH[::-1], is_initiator=True)
    assert not secret.accepts(other, HASH, is_initiator=False)


def test_a_proof_of_another_topic_is_refused() -> None:
    proof = TopicSecret.from_text("gardens").prove(HASH, is_initiator=True)
    assert not TopicSecret.from_text("garden").accepts(proof, HASH, is_initiator=False)


@pytest.mark.parametrize("proof", [b"", b"x", bytes(31), bytes(33), bytes(32)])
def test_anything_else_is_refused(proof: bytes) -> None:
    assert not TopicSecret.from_text("garden").accepts(proof, HASH, is_initiator=False)


def test_the_discovery_name_is_not_the_topic_nor_the_key() -> None:
    secret = TopicSecret.from_text("garden")
    assert len(secret.discovery_name) == 32
    assert b"garden" not in secret.discovery_name
    assert secret.prove(HASH, is_initiator=True) != secret.discovery_name
    assert secret._key.hex() not in repr(secret)
    assert str(secret._key) not in repr(secret)


def test_an_empty_topic_is_refused() -> None:
    with pytest.raises(UsageError):
        TopicSecret.from_text("")
