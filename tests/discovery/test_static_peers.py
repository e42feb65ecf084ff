from __future__ import annotations

import pytest

from covey.discovery import Channel, PeerFound, StaticPeers, topic_hash
from covey.errors import UsageError


async def found_by(source: StaticPeers, *names: str | bytes) -> list[PeerFound]:
    found: list[PeerFound] = []
    async with Channel([source]) as channel:
        channel.subscribe(found.append)
        for name in names:
            await channel.join(name, announce=False).first_round()
    return found


async def test_peers_of_a_name_are_found_for_that_name() -> None:
    peers: dict[bytes | str, list[tuple[str, int]]] = {
        "one": [("10.0.0.1", 80), ("peer.example", 81)],
        b"two": [("::1", 82)],
    }
    source = StaticPeers(peers)
    assert await found_by(source, b"one") == [
        PeerFound(b"one", topic_hash("one"), "10.0.0.1", 80, "static"),
        PeerFound(b"one", topic_hash("one"), "peer.example", 81, "static"),
    ]
    assert [peer.host for peer in await found_by(source, "two")] == ["::1"]
    assert await found_by(source, "three") == []


async def test_one_list_is_for_every_name() -> None:
    found = await found_by(StaticPeers([("10.0.0.1", 80)]), "one", "two")
    assert [(peer.name, peer.port) for peer in found] == [(b"one", 80), (b"two", 80)]


async def test_no_peers_is_a_source_that_finds_nothing() -> None:
    assert await found_by(StaticPeers(), "one") == []


async def test_after_leaving_and_closing_nothing_is_reported() -> None:
    source = StaticPeers([("10.0.0.1", 80)])
    assert len(await found_by(source, "one")) == 1
    assert len(await found_by(source, "one")) == 1  # opened anew by another channel


@pytest.mark.parametrize("peer", [("10.0.0.1", 0), ("10.0.0.1", 65536), ("", 80)])
def test_an_impossible_peer_is_refused_when_given(peer: tuple[str, int]) -> None:
    with pytest.raises(UsageError):
        StaticPeers([peer])
    with pytest.raises(UsageError):
        StaticPeers({"name": [peer]})


def test_the_source_shows_how_many_peers_it_has() -> None:
    assert repr(StaticPeers([("10.0.0.1", 80)])) == (
        "<StaticPeers 1 for every name, 0 for 0 names>"
    )
    assert repr(StaticPeers({"one": [("10.0.0.1", 80), ("10.0.0.2", 80)], "two": []})) == (
        "<StaticPeers 0 for every name, 2 for 2 names>"
    )
