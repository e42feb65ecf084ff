from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from covey.discovery import Channel, FirstRound, PeerFound, Timing, topic_hash
from covey.errors import ClosedError, DiscoveryError, UsageError
from covey.limits import Limits
from tests.discovery.fakes import ListedSource, Pauses
from tests.vectors_path import load_vectors

TOPIC = topic_hash("swarm")


def collected(channel: Channel) -> list[PeerFound]:
    found: list[PeerFound] = []
    channel.subscribe(found.append)
    return found


# Topics


@pytest.mark.parametrize("case", load_vectors("discovery-swarm")["names"], ids=lambda c: c["topic"])
def test_topics_of_the_vectors(case: dict[str, Any]) -> None:
    assert topic_hash(bytes.fromhex(case["name_hex"])).hex() == case["topic"]


@pytest.mark.parametrize(
    "case", load_vectors("dns-discovery")["channels"], ids=lambda case: case["name"]
)
def test_channel_names_of_the_vectors(case: dict[str, Any]) -> None:
    assert topic_hash(bytes.fromhex(case["channel_hex"])).hex() == case["name"]


def test_a_text_name_is_utf_8() -> None:
    assert topic_hash("Grüße") == topic_hash("Grüße".encode())


def test_a_name_can_be_hashed_otherwise_or_not_at_all_and_is_cut_to_20_bytes() -> None:
    assert (
        topic_hash("swarm", lambda name: hashlib.sha256(name).digest())
        == (hashlib.sha256(b"swarm").digest()[:20])
    )
    assert topic_hash(b"k" * 32, False) == b"k" * 20
    assert topic_hash(b"short", False) == b"short"
    with pytest.raises(UsageError):
        topic_hash(b"", False)


# The scenarios of the reference's channel


async def test_join_and_leave_with_and_without_port_as_the_list_shows() -> None:
    async with Channel([ListedSource()]) as channel:
        channel.join("id", announce=False)
        assert channel.list() == [(b"id", 0)]
        channel.leave("id", port=0)
        channel.join("id", port=8080)
        assert channel.list() == [(b"id", 8080)]
        assert not channel.leave("id", port=0)
        assert channel.list() == [(b"id", 8080)]
        assert channel.leave("id", port=8080)
        assert channel.list() == []


async def test_join_with_a_callback_is_called_without_error() -> None:
    async with Channel([ListedSource()]) as channel:
        done = await channel.join("id", port=8080).first_round()
        assert done == FirstRound(("listed",), {})


# Joining and leaving


async def test_leave_without_port_ends_every_membership_of_the_name() -> None:
    source = ListedSource()
    async with Channel([source]) as channel:
        for member in (channel.join("id", announce=False), channel.join("id", port=8080)):
            await member.first_round()
        other = channel.join("other", port=1)
        await other.first_round()
        assert channel.leave(b"id")
        assert channel.list() == [(b"other", 1)]
        assert [entry for entry in source.diary if entry[0] == "leave"] == [
            ("leave", None),
            ("leave", 8080),
        ]
        assert not channel.leave("id")


async def test_a_lookup_only_join_can_be_left() -> None:
    pauses = Pauses()
    source = ListedSource()
    async with Channel([source], sleep=pauses) as channel:
        member = channel.join("id", port=8080, announce=False)
        await member.first_round()
        member.leave()
        member.leave()
        pauses.over()
        assert source.diary == [("open", None), ("round", None), ("leave", None)]


async def test_a_second_join_shares_the_first_round() -> None:
    source = ListedSource()
    source.gate = asyncio.Event()
    async with Channel([source]) as channel:
        first = channel.join("id", port=8080)
        second = channel.join("id", port=8080)
        assert first is second
        waiting = [asyncio.create_task(first.first_round()) for _ in range(2)]
        source.gate.set()
        assert await asyncio.gather(*waiting) == [FirstRound(("listed",), {})] * 2
        assert await second.first_round() == FirstRound(("listed",), {})
        assert source.diary.count(("round", 8080)) == 1


async def test_leaving_before_the_first_round_is_over_tells_who_waits() -> None:
    source = ListedSource()
    source.gate = asyncio.Event()
    async with Channel([source]) as channel:
        member = channel.join("id", port=8080)
        waiting = asyncio.create_task(member.first_round())
        await asyncio.sleep(0)
        channel.leave("id")
        with pytest.raises(ClosedError, match="left"):
            await waiting


@pytest.mark.parametrize("port", [None, 0, -1, 65536])
async def test_announcing_needs_a_port(port: int | None) -> None:
    async with Channel() as channel:
        with pytest.raises(UsageError, match="port"):
            channel.join("id", port=port)
        assert channel.list() == []


async def test_leaving_one_port_keeps_the_results_of_another() -> None:
    """The reference loses them."""
    source = ListedSource()
    async with Channel([source]) as channel:
        found = collected(channel)
        for port in (1, 2):
            await channel.join("swarm", port=port).first_round()
        channel.leave("swarm", port=1)
        source.find(TOPIC)
        assert [peer.name for peer in found] == [b"swarm"]


# Rounds


async def test_rounds_follow_early_and_then_each_interval_with_a_random_part() -> None:
    pauses = Pauses()
    source = ListedSource()
    async with Channel([source], sleep=pauses, random=lambda: 0.5) as channel:
        channel.join("id", port=8080)
        for count in range(1, 6):
            await pauses.arrived(count)
            pauses.over()
        await pauses.arrived(6)
        assert pauses.asked == [1.0, 2.0, 65.0, 65.0, 65.0, 65.0]
        assert source.diary.count(("round", 8080)) == 6


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 60.0), (1.0, 70.0)])
def test_the_random_part_keeps_a_round_between_60_and_70_seconds(
    chance: float, pause: float
) -> None:
    assert next(Timing().pauses(lambda: chance)) == pause


async def test_a_failed_round_is_followed_by_the_next() -> None:
    pauses = Pauses()
    source = ListedSource(failure=DiscoveryError("no network"))
    async with Channel([source], sleep=pauses) as channel:
        member = channel.join("id", port=8080)
        with pytest.raises(DiscoveryError, match="no network"):
            await member.first_round()
        source.failure = None
        await pauses.arrived(1)
        pauses.over()
        await pauses.arrived(2)
        assert source.diary.count(("round", 8080)) == 2
        with pytest.raises(DiscoveryError):
            await member.first_round()


async def test_a_source_that_cannot_be_opened_is_opened_again_at_the_next_round() -> None:
    pauses = Pauses()
    source = ListedSource()
    source.open_failure = OSError("no such device")
    async with Channel([source], sleep=pauses) as channel:
        with pytest.raises(DiscoveryError, match="no such device") as caught:
            await channel.join("id", port=8080).first_round()
        assert caught.value.__cause__ is source.open_failure
        source.open_failure = None
        await pauses.arrived(1)
        pauses.over()
        await pauses.arrived(2)
        assert source.diary == [("open", None), ("open", None), ("round", 8080)]


async def test_a_source_that_breaks_is_logged_and_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pauses = Pauses()
    source = ListedSource(failure=ZeroDivisionError("a bug"))
    async with Channel([source], sleep=pauses) as channel:
        with pytest.raises(DiscoveryError, match="a bug") as caught:
            await channel.join("id", port=8080).first_round()
        assert caught.value.__cause__ is source.failure
        await pauses.arrived(1)
        pauses.over()
        await pauses.arrived(2)
    assert "source listed failed" in caplog.text


async def test_the_first_round_succeeds_when_one_source_does() -> None:
    good, bad = ListedSource("good"), ListedSource("bad", failure=DiscoveryError("down"))
    async with Channel([bad, good]) as channel:
        done = await channel.join("id", port=8080).first_round()
        assert done.succeeded == ("good",)
        assert list(done.failed) == ["bad"]


async def test_the_first_round_tells_what_every_source_said_and_the_last_error_when_all_fail() -> (
    None
):
    first = ListedSource("first", failure=DiscoveryError("first"))
    last = ListedSource("last", failure=DiscoveryError("last"))
    last.gate = asyncio.Event()
    async with Channel([last, first]) as channel:
        waiting = asyncio.create_task(channel.join("id", port=8080).first_round())
        await asyncio.sleep(0)
        last.gate.set()
        with pytest.raises(DiscoveryError, match="first: first; last: last") as caught:
            await waiting
        assert caught.value.__cause__ is last.failure


async def test_everybody_who_waits_for_the_first_round_gets_an_error_of_their_own() -> None:
    source = ListedSource(failure=DiscoveryError("no network"))
    async with Channel([source]) as channel:
        member = channel.join("id", port=8080)
        told = await asyncio.gather(
            *(member.first_round() for _ in range(3)), return_exceptions=True
        )
        assert len({id(error) for error in told}) == 3
        assert {error.__cause__ for error in told if isinstance(error, DiscoveryError)} == {
            source.failure
        }
        source.gate = asyncio.Event()
        other = channel.join("other", port=8080)
        waiting = [asyncio.create_task(other.first_round()) for _ in range(3)]
        await asyncio.sleep(0)
        other.leave()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert len({id(error) for error in told if isinstance(error, ClosedError)}) == 3


class _BrokenTiming(Timing):
    """Fails, or ends, where it should tell the first pause."""

    def __init__(self, failure: Exception | None) -> None:
        object.__setattr__(self, "failure", failure)

    def pauses(self, random: Callable[[], float]) -> Iterator[float]:
        failure: Exception | None = getattr(self, "failure")  # noqa: B009  slots of the parent
        if failure is not None:
            raise failure
        return iter(())


@pytest.mark.parametrize("failure", [ZeroDivisionError("no such pause"), None])
async def test_a_source_whose_timing_fails_or_ends_keeps_nobody_waiting(
    failure: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    source = ListedSource()
    source.timing = _BrokenTiming(failure)
    async with Channel([source]) as channel, asyncio.timeout(5):
        with pytest.raises(DiscoveryError, match="no such pause" if failure else "no more rounds"):
            await channel.join("id", port=8080).first_round()
    assert ("the rounds of source listed ended" in caplog.text) == (failure is not None)


async def test_a_source_that_cannot_even_tell_its_timing_keeps_nobody_waiting() -> None:
    class Broken(ListedSource):
        def __getattribute__(self, name: str) -> Any:
            if name == "timing":
                raise ZeroDivisionError("no timing")
            return super().__getattribute__(name)

    async with Channel([Broken()]) as channel, asyncio.timeout(5):
        with pytest.raises(DiscoveryError, match="no timing"):
            await channel.join("id", port=8080).first_round()


async def test_a_membership_shows_what_it_is_and_how_far() -> None:
    source = ListedSource()
    source.gate = asyncio.Event()
    async with Channel([source]) as channel:
        member = channel.join("id", port=8080)
        assert repr(member) == "<discovery.Membership b'id', port 8080, waiting for listed>"
        source.gate.set()
        await member.first_round()
        assert repr(member).endswith("port 8080, 1 answered, 0 failed>")
        source.gate.clear()
        lookup = channel.join("id", announce=False)
        lookup.leave()
        assert repr(lookup) == "<discovery.Membership b'id', lookup only, left>"


async def test_with_no_source_the_first_round_is_over_at_once_and_says_so() -> None:
    async with Channel() as channel:
        assert await channel.join("id", port=8080).first_round() == FirstRound((), {})


# Sources one by one


async def test_a_source_switched_off_is_not_asked() -> None:
    one, two = ListedSource("one"), ListedSource("two")
    async with Channel([one, two]) as channel:
        channel.set_source("one", False)
        assert channel.sources == {"one": False, "two": True}
        done = await channel.join("id", port=8080).first_round()
        assert done.succeeded == ("two",)
        assert ("round", 8080) not in one.diary


async def test_a_source_switched_on_later_joins_in() -> None:
    pauses = Pauses()
    source = ListedSource()
    async with Channel([source], sleep=pauses) as channel:
        channel.set_source("listed", False)
        assert await channel.join("id", port=8080).first_round() == FirstRound((), {})
        channel.set_source("listed", True)
        channel.set_source("listed", True)
        await pauses.arrived(1)
        assert source.diary.count(("round", 8080)) == 1


async def test_a_source_switched_off_withdraws_closes_and_reports_nothing_more() -> None:
    pauses = Pauses()
    source = ListedSource()
    async with Channel([source], sleep=pauses) as channel:
        found = collected(channel)
        await channel.join("swarm", port=8080).first_round()
        channel.set_source("listed", False)
        source.find(TOPIC)
        assert found == []
        channel.set_source("listed", True)  # it is closed before it is opened again
        await pauses.arrived(2)
        assert source.diary == [
            ("open", None),
            ("round", 8080),
            ("leave", 8080),
            ("close", None),
            ("open", None),
            ("round", 8080),
        ]


async def test_the_first_round_does_not_wait_for_a_source_that_was_switched_off() -> None:
    slow = ListedSource("slow")
    slow.gate = asyncio.Event()
    async with Channel([slow]) as channel:
        waiting = asyncio.create_task(channel.join("id", port=8080).first_round())
        await asyncio.sleep(0)
        channel.set_source("slow", False)
        assert await waiting == FirstRound((), {})


async def test_an_unknown_source_cannot_be_switched_and_names_are_unique() -> None:
    async with Channel([ListedSource()]) as channel:
        with pytest.raises(UsageError, match="listed"):
            channel.set_source("dht", True)
    with pytest.raises(UsageError, match="two sources"):
        Channel([ListedSource(), ListedSource()])


# Results


async def test_a_peer_is_told_with_its_name_topic_and_source() -> None:
    source = ListedSource()
    async with Channel([source]) as channel:
        await channel.join("swarm", port=8080).first_round()
        with channel.listen() as events:
            source.find(TOPIC, "10.0.0.1", 80)
            found = PeerFound(b"swarm", TOPIC, "10.0.0.1", 80, "listed")
            assert await anext(events) == found
            assert found.type == "peer"


async def test_a_peer_is_told_again_only_after_a_while_by_whichever_source() -> None:
    now = 0.0
    clock: Callable[[], float] = lambda: now  # noqa: E731
    one, two = ListedSource("one"), ListedSource("two")
    async with Channel([one, two], clock=clock, repeat_after=45.0) as channel:
        found = collected(channel)
        await channel.join("swarm", port=8080).first_round()
        one.find(TOPIC)
        one.find(TOPIC)
        two.find(TOPIC)
        now = 44.9
        two.find(TOPIC)
        assert [peer.source for peer in found] == ["one"]
        one.find(TOPIC, port=81)
        one.find(TOPIC, host="10.0.0.2")
        assert len(found) == 3
        now = 45.0
        two.find(TOPIC)
        assert found[-1].source == "two"


async def test_only_joined_names_get_peers() -> None:
    source = ListedSource()
    async with Channel([source]) as channel:
        found = collected(channel)
        await channel.join("swarm", port=8080).first_round()
        source.find(topic_hash("other"))
        channel.leave("swarm")
        source.find(TOPIC)
        assert found == []


async def test_a_name_joined_again_hears_of_its_peers_anew() -> None:
    source = ListedSource()
    async with Channel([source]) as channel:
        found = collected(channel)
        for _ in range(2):
            await channel.join("swarm", port=8080).first_round()
            source.find(TOPIC)
            channel.leave("swarm")
        assert len(found) == 2


async def test_two_names_of_one_topic_both_hear_of_a_peer() -> None:
    source = ListedSource()
    async with Channel([source]) as channel:
        found = collected(channel)
        await channel.join("swarm", port=1).first_round()
        await channel.join(TOPIC, port=1, hash=False).first_round()
        source.find(TOPIC)
        assert [peer.name for peer in found] == [b"swarm", TOPIC]


async def test_remembered_peers_of_a_topic_are_bounded() -> None:
    source = ListedSource()
    async with Channel([source], limits=Limits(max_candidates=8)) as channel:
        await channel.join("swarm", port=8080).first_round()
        for port in range(1, 1000):
            source.find(TOPIC, port=port)
        assert len(channel._told[TOPIC]) == 8


# The end


async def test_closing_leaves_every_name_closes_every_source_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    source, mute = ListedSource("one"), ListedSource("mute")
    mute.gate = asyncio.Event()
    channel = Channel([source, mute])
    events = channel.listen()
    member = channel.join("id", port=8080)
    await asyncio.sleep(0)
    await asyncio.gather(channel.close(), channel.close())
    await channel.close()
    assert asyncio.all_tasks() == before
    assert source.diary[-2:] == [("leave", 8080), ("close", None)]
    assert mute.diary[-1] == ("close", None)
    with pytest.raises(StopAsyncIteration):
        await anext(events)
    with pytest.raises(ClosedError):
        await member.first_round()


async def test_closing_right_after_joining_and_leaving_is_quiet() -> None:
    before = asyncio.all_tasks()
    async with Channel([ListedSource()]) as channel:
        channel.join("id", port=8080)
        channel.leave("id")
        channel.set_source("listed", False)
        channel.set_source("listed", True)
        channel.join("id", port=8080)
    assert asyncio.all_tasks() == before


async def test_after_close_nothing_can_be_asked_of_it() -> None:
    channel = Channel([ListedSource()])
    await channel.close()
    for call in (
        lambda: channel.join("id", port=1),
        lambda: channel.leave("id"),
        lambda: channel.set_source("listed", False),
        lambda: channel.subscribe(print),
    ):
        with pytest.raises(ClosedError):
            call()


async def test_a_source_that_fails_to_leave_or_close_hinders_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, other = ListedSource(), ListedSource("other")

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(source, "leave", fail)
    monkeypatch.setattr(source, "close", fail)
    async with Channel([source, other]) as channel:
        await channel.join("id", port=8080).first_round()
    assert other.diary[-1] == ("close", None)
    assert "failed to leave" in caplog.text
    assert "failed to close" in caplog.text
