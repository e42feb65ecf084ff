"""Names of topics and their hashes."""

from __future__ import annotations

from typing import Any

import pytest

from covey.discovery import Channel, StaticPeers, topic_hash
from covey.discovery.names import name_bytes
from covey.errors import UsageError
from tests.vectors_path import load_vectors

NO_NAMES: list[Any] = [5, None, 2.5, ["x"], bytearray(b"x"), memoryview(b"x")]


@pytest.mark.parametrize("case", load_vectors("discovery-swarm")["names"])
def test_names_are_hashed_as_the_reference_does(case: dict[str, Any]) -> None:
    assert topic_hash(bytes.fromhex(case["name_hex"])).hex() == case["topic"]


def test_the_hash_can_be_replaced_or_left_out() -> None:
    assert topic_hash("test").hex() == "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3"
    assert topic_hash(b"k" * 32, False) == b"k" * 20
    assert topic_hash(b"short", False) == b"short"
    assert topic_hash(b"x", lambda name: name * 30) == b"x" * 20


def test_a_hash_of_no_bytes_or_of_another_type_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        topic_hash("x", lambda _: b"")
    five: Any = 5
    with pytest.raises(TypeError, match="not int"):
        topic_hash("x", lambda _: five)


@pytest.mark.parametrize("name", NO_NAMES)
async def test_what_is_no_name_is_a_type_error_everywhere(name: Any) -> None:
    calls: list[Any] = [name_bytes, topic_hash]
    async with Channel() as channel:
        calls += [lambda name: channel.join(name, port=1), channel.leave]
        for call in calls:
            with pytest.raises(TypeError, match="str or bytes"):
                call(name)
        with pytest.raises(TypeError, match="str or bytes"):
            channel.join(name, announce=False)
        assert channel.list() == []


def test_the_names_of_static_peers_are_checked() -> None:
    wrong: Any = {5: [("10.0.0.1", 80)]}
    with pytest.raises(TypeError, match="str or bytes"):
        StaticPeers(wrong)
    with pytest.raises(UsageError, match="empty"):
        StaticPeers({"": [("10.0.0.1", 80)]})


@pytest.mark.parametrize("name", ["", b""])
async def test_an_empty_name_is_refused(name: str | bytes) -> None:
    async with Channel() as channel:
        with pytest.raises(UsageError, match="empty"):
            channel.join(name, announce=False)
