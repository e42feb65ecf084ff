"""The behaviour table of `networker.md` section 2, rows marked F: a flock that is told by hand.

The number in a test's name is that of the row.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from covey.conn.hub import Hub
from covey.errors import (
    ClosedError,
    ConnectError,
    CoveyError,
    DiscoveryError,
    ProtocolError,
    UsageError,
)
from covey.flock.candidates import CandidateState as State
from covey.flock.events import FlockError, HandshakeTimedOut, RedundantConnection
from covey.flock.policy import Cause
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.networker import Networker, Peer
from covey.networker import networker as networker_module
from tests.networker.support import (
    HOST,
    LARGE,
    OTHER_TOPIC,
    SMALL,
    THIRD,
    TOPIC,
    FakeFlock,
    FakeStore,
    Recorder,
    faked,
    quiet,
    stream_of,
    until,
)
from tests.waiting import Belongings, turns

CONNECTED = ["stream-opened", "peer-add", "handshake", "stream-processed"]
GONE = ["peer-remove", "stream-closed"]


# Rows 1 to 3: nothing before it is wanted


async def test_row_1_nothing_listens_before_listen_or_configure() -> None:
    before = Belongings()
    async with Networker(FakeStore(), discovery=False, host=HOST) as networker:
        assert networker.flock.addresses == ()
        assert await before.left() == []
        assert len(networker.public_key) == 32


async def test_row_1_a_key_pair_that_is_given_is_the_one_that_is_proven() -> None:
    async with quiet(key_pair=LARGE) as (networker, _):
        assert networker.key_pair is LARGE
        assert networker.flock.key_pair is LARGE
    async with quiet() as (first, _), quiet() as (second, _):
        assert first.public_key != second.public_key


async def test_row_1_a_given_flock_hears_nothing_before_either() -> None:
    flock = FakeFlock()
    async with Networker(FakeStore(), flock=flock.real):
        assert flock.calls == []


async def test_a_given_flock_takes_no_options_and_must_prove_a_key() -> None:
    with pytest.raises(UsageError):
        Networker(FakeStore(), flock=FakeFlock().real, key_pair=SMALL)
    with pytest.raises(UsageError):
        Networker(FakeStore(), flock=FakeFlock().real, host=HOST)
    keyless = FakeFlock()
    keyless.key_pair = None
    with pytest.raises(UsageError, match="key"):
        Networker(FakeStore(), flock=keyless.real)


async def test_row_1_a_hub_that_is_given_proves_its_own_key() -> None:
    async with Hub(key_pair=LARGE) as hub, quiet(hub=hub) as (networker, _):
        assert networker.public_key == LARGE.public_key


async def test_section_4_keep_alives_are_frequent_and_silence_is_an_end() -> None:
    async with quiet() as (first, _), quiet(limits=Limits(keep_alive=7.0)) as (second, _):
        assert (first.limits.keep_alive, first.limits.idle_timeout) == (5.0, 20.0)
        assert first.limits.idle_timeout > Limits().keep_alive, "other nodes of covey are alive"
        assert second.limits.keep_alive == 7.0


async def test_row_2_listening_twice_begins_once() -> None:
    async with faked() as (networker, flock, _):
        assert await networker.listen_on() == await networker.listen_on()
        assert flock.calls.count(("subscribe",)) == 1
    async with quiet() as (real, heard):
        place = await real.listen_on()
        assert await real.listen_on() == place
        assert heard.types == []


async def test_row_3_configure_listens_if_nobody_did() -> None:
    async with faked() as (networker, flock, _):
        await networker.configure(TOPIC)
        assert flock.calls == [("subscribe",), ("join", TOPIC, True, True)]
    async with quiet() as (real, _):
        await real.configure(TOPIC)
        assert len(real.flock.addresses) == 1


async def test_row_3_a_topic_may_be_hexadecimal_text() -> None:
    async with faked() as (networker, flock, _):
        await networker.configure(TOPIC.hex(), announce=False)
        assert flock.calls[-1] == ("join", TOPIC, False, True)
        assert networker.joined(TOPIC)
        assert networker.joined(TOPIC.hex())


@pytest.mark.parametrize("topic", [b"short", "notes", b"x" * 33])
async def test_row_3_a_topic_of_another_size_is_refused_before_anything_happens(topic: Any) -> None:
    async with faked() as (networker, flock, _):
        with pytest.raises(ValueError, match="topic"):
            await networker.configure(topic)
        assert flock.calls == []


# Rows 4 to 13: topics


async def test_row_4_joining_is_told_at_once_and_flushed_at_the_end() -> None:
    async with faked() as (networker, _, heard):
        await networker.configure(TOPIC)
        assert heard.take() == ["joined", "flushed"]
        assert networker.joined(TOPIC)
        assert networker.flushed(TOPIC)


async def test_row_4_the_candidates_that_were_found_are_waited_for() -> None:
    flock = FakeFlock()
    async with faked(flock=flock) as (networker, _, _heard):
        flock.shows((1, State.QUEUED), (2, State.CONNECTING), (3, State.WAITING))
        waiting = asyncio.create_task(networker.configure(TOPIC))
        await turns(5)
        assert not waiting.done()
        flock.shows((1, State.CONNECTING), (2, State.WAITING), (4, State.QUEUED))
        await turns(5)
        assert not waiting.done()
        flock.shows((1, State.CONNECTED), (2, State.QUEUED), (4, State.CONNECTING))
        await turns(5)
        assert waiting.done(), "not for one that was found later, nor for a second attempt"
        await waiting


async def test_row_4_candidates_of_other_topics_are_not_waited_for() -> None:
    flock = FakeFlock()
    async with faked(flock=flock) as (networker, _, _heard):
        flock.shows((1, State.CONNECTING), name=OTHER_TOPIC)
        await networker.configure(TOPIC)
        assert networker.flushed(TOPIC)


async def test_row_4_without_flush_it_returns_when_joined_and_flushes_behind() -> None:
    async with faked(flock=FakeFlock(quick=False)) as (networker, flock, heard):
        await networker.configure(TOPIC, flush=False)
        assert networker.joined(TOPIC)
        assert not networker.flushed(TOPIC)
        flock.rounds[0].set_result(None)
        await heard.seen("flushed")
        assert networker.flushed(TOPIC)


async def test_row_5_configuring_again_joins_again_each_time() -> None:
    async with faked() as (networker, flock, heard):
        for _ in range(3):
            await networker.configure(TOPIC)
        assert flock.joins() == 3
        assert heard.take() == ["joined", "flushed"] * 3


async def test_row_5_without_rejoin_and_change_it_returns_at_once_with_the_new_status() -> None:
    async with faked(flock=FakeFlock(quick=False)) as (networker, flock, heard):
        first = asyncio.create_task(networker.configure(TOPIC))
        await turns(3)
        await networker.configure(TOPIC, rejoin=False)
        assert not first.done()
        assert flock.joins() == 1
        assert heard.types == ["joined"]
        status = networker.status(TOPIC)
        assert status is not None
        assert not status.rejoin
        flock.rounds[0].set_result(None)
        await first


async def test_row_5_without_rejoin_but_changed_it_joins() -> None:
    async with faked() as (networker, flock, _):
        await networker.configure(TOPIC)
        await networker.configure(TOPIC, announce=False, rejoin=False)
        assert flock.calls[-2:] == [("join", TOPIC, True, True), ("join", TOPIC, False, True)]


async def test_row_6_with_neither_it_leaves_and_forgets() -> None:
    async with faked() as (networker, flock, _):
        await networker.configure(TOPIC)
        await networker.configure(TOPIC, announce=False, lookup=False)
        assert flock.calls[-1] == ("leave", TOPIC)
        assert not networker.joined(TOPIC)
        assert not networker.flushed(TOPIC)
        assert networker.status(TOPIC) is None


async def test_row_6_leaving_what_was_not_joined_asks_nothing_of_the_flock() -> None:
    async with faked() as (networker, flock, _):
        await networker.configure(TOPIC, announce=False, lookup=False)
        assert flock.calls == [("subscribe",)]


async def test_row_7_after_close_it_is_a_closed_error() -> None:
    async with faked() as (networker, _, _heard):
        await networker.configure(TOPIC)
        await networker.close()
        for use in (networker.configure(TOPIC), networker.listen_on(), networker.__aenter__()):
            with pytest.raises(ClosedError):
                await use
        for call in (networker.listen, lambda: networker.register_extension("chat")):
            with pytest.raises(ClosedError):
                call()
        assert not networker.joined(TOPIC)
        assert not networker.peers
        assert not networker.streams


async def test_row_9_joined_from_the_call_until_the_leave() -> None:
    async with faked(flock=FakeFlock(quick=False)) as (networker, flock, _):
        assert not networker.joined(TOPIC)
        waiting = asyncio.create_task(networker.configure(TOPIC))
        await asyncio.sleep(0)
        assert networker.joined(TOPIC), "before the flock has answered"
        assert not networker.joined(OTHER_TOPIC)
        await until(lambda: flock.rounds)
        flock.rounds[0].set_result(None)
        await waiting
        assert networker.joined(TOPIC)


async def test_row_10_flushed_is_taken_back_by_a_new_configure() -> None:
    async with faked() as (networker, flock, _):
        await networker.configure(TOPIC)
        flock.quick = False
        await networker.configure(TOPIC, flush=False)
        assert not networker.flushed(TOPIC)
        flock.rounds[-1].set_result(None)
        await until(lambda: networker.flushed(TOPIC))


async def test_row_10_that_nobody_could_be_asked_is_no_error() -> None:
    """The seed with a dead bootstrap: flushed after its timeouts."""
    async with faked(flock=FakeFlock(quick=False)) as (networker, flock, heard):
        waiting = asyncio.create_task(networker.configure(TOPIC))
        await until(lambda: flock.rounds)
        flock.rounds[0].set_exception(DiscoveryError("every source failed"))
        await waiting
        assert networker.flushed(TOPIC)
        assert heard.types == ["joined", "flushed"]


async def test_row_11_a_topic_left_before_its_flush_is_never_told_flushed() -> None:
    async with faked(flock=FakeFlock(quick=False)) as (networker, flock, heard):
        waiting = asyncio.create_task(networker.configure(TOPIC))
        await until(lambda: flock.rounds)
        await networker.configure(TOPIC, announce=False, lookup=False)
        await waiting  # as the seed's promise: it is over, without an error
        flock.rounds[0].set_result(None)
        await turns(5)
        assert heard.types == ["joined"]
        assert not networker.flushed(TOPIC)


async def test_row_11_left_and_joined_again_counts_anew() -> None:
    async with faked(flock=FakeFlock(quick=False)) as (networker, flock, heard):
        first = asyncio.create_task(networker.configure(TOPIC))
        await until(lambda: flock.rounds)
        await networker.configure(TOPIC, announce=False, lookup=False)
        second = asyncio.create_task(networker.configure(TOPIC))
        await until(lambda: len(flock.rounds) == 2)
        flock.rounds[0].set_result(None)
        await first
        await turns(5)
        assert not second.done()
        flock.rounds[1].set_result(None)
        await second
        assert heard.types == ["joined", "joined", "flushed"]


async def test_row_11_two_who_configure_at_once_wait_for_the_later_flush() -> None:
    async with faked(flock=FakeFlock(quick=False)) as (networker, flock, heard):
        first = asyncio.create_task(networker.configure(TOPIC))
        await until(lambda: flock.rounds)
        second = asyncio.create_task(networker.configure(TOPIC, announce=False))
        await until(lambda: len(flock.rounds) == 2)
        flock.rounds[1].set_result(None)
        await asyncio.gather(first, second)
        assert heard.types == ["joined", "joined", "flushed"]


async def test_row_11_who_waits_when_the_networker_closes_is_told() -> None:
    async with faked(flock=FakeFlock(quick=False)) as (networker, flock, _):
        waiting = asyncio.create_task(networker.configure(TOPIC))
        await until(lambda: flock.rounds)
        await networker.close()
        with pytest.raises(ClosedError):
            await waiting
        assert ("leave", TOPIC) in flock.calls


async def test_a_caller_that_is_cancelled_changes_nothing_for_others() -> None:
    async with faked(flock=FakeFlock(quick=False)) as (networker, flock, heard):
        waiting = asyncio.create_task(networker.configure(TOPIC))
        await until(lambda: flock.rounds)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        flock.rounds[0].set_result(None)
        await heard.seen("flushed")
        assert networker.joined(TOPIC)


async def test_a_join_that_fails_raises_and_leaves_nothing_joined() -> None:
    async with faked() as (networker, flock, _):
        flock.join_error = ConnectError("the port is taken")
        for flush in (True, False):
            with pytest.raises(ConnectError, match="taken"):
                await networker.configure(TOPIC, flush=flush)
            assert not networker.joined(TOPIC)
        flock.join_error = None
        await networker.configure(TOPIC)
        assert networker.flushed(TOPIC)


async def test_row_12_one_stuck_handshake_delays_and_its_close_releases() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        stuck = flock.opens(initiator=False)
        waiting = asyncio.create_task(networker.configure(TOPIC))
        await turns(5)
        assert not waiting.done()
        other = flock.connects(THIRD.public_key)
        await turns(5)
        assert not waiting.done(), "opened after the flush, and another one"
        stuck.cut(None, CloseReason.HANDSHAKE)
        await waiting
        assert len(heard.named("stream-processed")) == 2
        assert other.closed is False


async def test_row_12_a_handshake_that_succeeds_releases_after_peer_add() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        slow = flock.opens()
        waiting = asyncio.create_task(networker.configure(TOPIC))
        await turns(5)
        flock.completes(slow)
        await waiting
        assert heard.types == ["stream-opened", "joined", *CONNECTED[1:], "flushed"]


async def test_row_12_a_redundant_connection_counts_as_processed() -> None:
    async with faked() as (networker, flock, _):
        await networker.listen_on()
        slow = flock.opens()
        waiting = asyncio.create_task(networker.configure(TOPIC))
        await turns(5)
        flock.told(RedundantConnection(slow.real, slow.info, Cause.SIMULTANEOUS))
        await waiting


async def test_section_6_a_handshake_that_never_ends_does_not_hang_the_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert networker_module.FLUSH_PATIENCE == 10.0
    monkeypatch.setattr(networker_module, "FLUSH_PATIENCE", 0.01)
    async with faked() as (networker, flock, _):
        await networker.listen_on()
        flock.opens(initiator=False)
        flock.shows((1, State.CONNECTING))
        await networker.configure(TOPIC)
        assert networker.flushed(TOPIC)


async def test_row_13_the_status_is_what_was_configured_last() -> None:
    async with faked() as (networker, _, _heard):
        assert networker.status(TOPIC) is None
        assert networker.all_statuses() == []
        await networker.configure(TOPIC)
        await networker.configure(OTHER_TOPIC, lookup=False)
        status = networker.status(TOPIC)
        assert status is not None
        assert (status.topic, status.announce, status.lookup) == (TOPIC, True, True)
        assert [(one.topic, one.announce, one.lookup) for one in networker.all_statuses()] == [
            (TOPIC, True, True),
            (OTHER_TOPIC, True, False),
        ]


async def test_row_13_statuses_are_copies() -> None:
    async with faked() as (networker, _, _heard):
        await networker.configure(TOPIC)
        networker.all_statuses().clear()
        assert len(networker.all_statuses()) == 1
        with pytest.raises(AttributeError):
            networker.status(TOPIC).announce = False  # type: ignore[union-attr, misc]


# Rows 14 to 25: connections


async def test_row_14_a_stream_is_opened_for_each_connection_also_of_this_machine() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        connection = flock.connects(host=HOST, initiator=False)
        opened = heard.named("stream-opened")[0]
        assert opened.info.attempt == connection.attempt.id
        assert not opened.info.initiator
        assert stream_of(networker) is opened.stream


@pytest.mark.parametrize("host", [HOST, "::1"])
async def test_row_14_connections_of_this_machine_may_be_unwanted(host: str) -> None:
    store = FakeStore()
    async with faked(store=store, ignore_loopback=True) as (networker, flock, heard):
        await networker.listen_on()
        local = flock.connects(host=host, initiator=False)
        remote = flock.connects(LARGE.public_key, host="10.1.2.3")
        assert local.closed
        assert not remote.closed
        assert store.connections == [remote.real]
        assert heard.types == CONNECTED


async def test_row_15_the_order_of_events_of_a_handshake() -> None:
    store = FakeStore()
    order: list[str] = []
    async with faked(store=store) as (networker, flock, heard):
        await networker.listen_on()

        def look(event: Any) -> None:
            active = len(networker.peers), len(networker.streams), len(store.connections)
            order.append(f"{event.type} {active}")

        networker.subscribe(look)
        connection = flock.connects()
        assert heard.types == CONNECTED
        assert order == [
            "stream-opened (0, 0, 0)",
            "peer-add (1, 1, 1)",
            "handshake (1, 1, 1)",
            "stream-processed (1, 1, 1)",
        ]
        stream = stream_of(networker)
        assert stream.replication == f"replication of {connection.id}"
        assert stream.connection is connection.real
        assert stream.remote_public_key == LARGE.public_key
        assert stream.public_key == SMALL.public_key


async def test_row_15_a_connection_told_without_its_opening_opens_its_stream() -> None:
    """A shared hub may have made it before."""
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        other = FakeFlock()
        connection = other.opens()
        connection._flock = flock
        flock.completes(connection)
        flock.completes(connection)
        assert heard.types == CONNECTED


async def test_peers_that_a_given_flock_has_are_taken_over() -> None:
    flock = FakeFlock()
    connection = flock.connects()
    async with faked(flock=flock) as (networker, _, heard):
        await networker.listen_on()
        assert heard.types == CONNECTED
        connection.cut(None, CloseReason.REMOTE_END)
        await heard.seen("stream-closed")


@pytest.mark.parametrize("smaller", [True, False])
@pytest.mark.parametrize("second_dialled", [True, False])
async def test_row_16_a_second_connection_of_a_key_never_adds_its_peer_twice(
    smaller: bool, second_dialled: bool
) -> None:
    mine, theirs = (SMALL, LARGE) if smaller else (LARGE, SMALL)
    store = FakeStore()
    async with faked(store=store, flock=FakeFlock(mine)) as (networker, flock, heard):
        await networker.listen_on()
        first = flock.connects(theirs.public_key, initiator=not second_dialled)
        second = flock.connects(theirs.public_key, initiator=second_dialled)
        new_stays = smaller is second_dialled
        kept, lost = (second, first) if new_stays else (first, second)
        assert stream_of(networker).connection is kept.real
        assert lost.close_reason is CloseReason.REDUNDANT
        await heard.seen("stream-closed")
        names = [name for name in heard.types if name.startswith("peer")]
        assert names == (["peer-add", "peer-remove", "peer-add"] if new_stays else ["peer-add"])
        assert len(heard.named("stream-processed")) == 2
        assert (lost.real in store.connections) is new_stays


async def test_row_16_the_flock_replaces_a_connection_and_the_peer_is_removed_between() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        old = flock.connects(initiator=False)
        new = flock.opens(initiator=False)
        flock.told(RedundantConnection(old.real, old.info, Cause.SILENT))
        flock.completes(new)
        assert stream_of(networker).connection is new.real
        old.cut(None, CloseReason.REDUNDANT)
        await heard.seen("stream-closed")
        assert [name for name in heard.types if name.startswith("peer")] == [
            "peer-add",
            "peer-remove",
            "peer-add",
        ]
        assert heard.named("stream-closed")[0].finished_handshake


async def test_row_17_a_connection_to_oneself_is_closed_and_adds_nobody() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        connection = flock.connects(SMALL.public_key)
        assert connection.close_reason is CloseReason.SELF
        await heard.seen("stream-closed")
        assert heard.types == ["stream-opened", "stream-processed", "stream-closed"]
        assert networker.peers == frozenset()


async def test_row_18_one_peer_object_per_connection_in_all_events() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        connection = flock.connects(host="10.7.7.7")
        (peer,) = networker.peers
        assert isinstance(peer, Peer)
        assert (peer.remote_public_key, peer.type) == (LARGE.public_key, "tcp")
        assert peer.remote_address == ("10.7.7.7", 4000)
        assert peer.stream is stream_of(networker)
        assert peer.stream.peer is peer
        connection.cut(None, CloseReason.REMOTE_END)
        removed = await heard.seen("peer-remove")
        assert removed.peer is heard.named("peer-add")[0].peer is peer


async def test_row_20_a_peer_is_removed_once_and_only_if_it_was_added() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        flock.connects().cut(None, CloseReason.REMOTE_END)
        flock.opens(THIRD.public_key).cut(None, CloseReason.HANDSHAKE)
        await heard.seen("stream-closed", 2)
        assert len(heard.named("peer-add")) == len(heard.named("peer-remove")) == 1


async def test_row_20_extensions_do_not_reach_a_peer_that_is_being_removed() -> None:
    tried: list[str] = []
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        chat = networker.register_extension("chat")

        def removed(event: Any) -> None:
            if event.type == "peer-remove":
                with pytest.raises(ClosedError):
                    chat.send(b"too late", event.peer)
                tried.append("sent")

        networker.subscribe(removed)
        flock.connects().cut(None, CloseReason.REMOTE_END)
        await heard.seen("peer-remove")
        assert tried == ["sent"]


@pytest.mark.parametrize("finished", [True, False])
async def test_row_21_the_end_of_every_connection_is_told(finished: bool) -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        connection = flock.connects() if finished else flock.opens()
        flock.told(HandshakeTimedOut(connection.info))
        connection.cut(None, CloseReason.REMOTE_END)
        closed = await heard.seen("stream-closed")
        assert closed.finished_handshake is finished
        assert closed.stream is heard.named("stream-opened")[0].stream
        await turns(3)
        assert heard.types == (
            [*CONNECTED, *GONE]
            if finished
            else ["stream-opened", "stream-closed", "stream-processed"]
        )


@pytest.mark.parametrize(
    ("error", "reason", "told"),
    [
        (None, CloseReason.REMOTE_END, False),
        (None, CloseReason.LOCAL, False),
        (ClosedError("cut"), CloseReason.RESET, False),
        (ClosedError("silent"), CloseReason.TIMEOUT, False),
        (ProtocolError("rubbish"), CloseReason.PROTOCOL, True),
        (CoveyError("a handler failed"), CloseReason.ABORTED, True),
    ],
)
async def test_row_22_only_real_errors_are_replication_errors(
    error: CoveyError | None, reason: CloseReason, told: bool
) -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        flock.connects().cut(error, reason)
        await heard.seen("stream-closed")
        assert [event.error for event in heard.named("replication-error")] == [error] * told


@pytest.mark.parametrize("error", [CoveyError("the store is full"), RuntimeError("a bug")])
async def test_row_22_a_store_that_cannot_replicate_is_told_and_costs_that_connection(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore(error)
    async with faked(store=store) as (networker, flock, heard):
        await networker.listen_on()
        connection = flock.connects()
        assert connection.closed
        await heard.seen("stream-closed")
        assert heard.named("replication-error")[0].error is error
        assert heard.named("peer-add") == []
        assert len(heard.named("stream-processed")) == 1
        assert bool(caplog.records) is isinstance(error, RuntimeError)


async def test_row_22_a_connection_that_proves_no_key_cannot_replicate() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        assert flock.connects(None).closed
        assert "key" in str(heard.named("replication-error")[0].error)


async def test_row_23_what_the_flock_cannot_do_is_told_as_error() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()
        error = ConnectError("the port is taken")
        flock.told(FlockError(error))
        assert [event.error for event in heard.named("error")] == [error]


async def test_row_23_listening_that_fails_is_told_and_raised() -> None:
    async with quiet() as (first, _), quiet() as (second, heard):
        _, port = await first.listen_on()
        with pytest.raises(ConnectError):
            await second.listen_on(HOST, port)
        assert heard.types == ["error"]


async def test_row_24_the_store_gets_each_connection_once() -> None:
    store = FakeStore()
    async with faked(store=store) as (networker, flock, _):
        await networker.listen_on()
        connections = [flock.connects(pair.public_key) for pair in (LARGE, THIRD)]
        assert store.connections == [connection.real for connection in connections]


async def test_row_25_leaving_closes_no_connection() -> None:
    async with faked() as (networker, flock, _):
        await networker.configure(TOPIC)
        connection = flock.connects()
        await networker.configure(TOPIC, announce=False, lookup=False)
        assert not connection.closed
        assert len(networker.peers) == 1


async def test_a_listener_that_closes_the_connection_in_peer_add_is_no_trouble() -> None:
    async with faked() as (networker, flock, heard):
        await networker.listen_on()

        def close(event: Any) -> None:
            if event.type == "peer-add":
                event.peer.stream.connection.start_close()

        networker.subscribe(close)
        flock.connects()
        await heard.seen("stream-closed")
        assert heard.types == [*CONNECTED, *GONE]


# Rows 31 and 32: the end


async def test_row_31_close_ends_every_stream_and_tells_each_peer() -> None:
    async with faked() as (networker, flock, heard):
        await networker.configure(TOPIC)
        listener = networker.listen()
        connections = [flock.connects(pair.public_key) for pair in (LARGE, THIRD)]
        opening = flock.opens(initiator=False)
        extension = networker.register_extension("chat")
        await networker.close()
        assert extension.destroyed
        assert {one.close_reason for one in connections} == {CloseReason.SHUTDOWN}
        assert not networker.peers
        assert not networker.streams
        assert len(heard.named("peer-remove")) == 2
        assert len(heard.named("stream-closed")) == 3
        assert len(heard.named("stream-processed")) == 3
        told = [event.type async for event in listener]
        assert told[-1] in ("stream-closed", "stream-processed")
        assert ("close",) not in flock.calls, "a given flock stays open"
        assert ("leave", TOPIC) in flock.calls
        opening.cut(None, None)
        await turns(2)
        assert not flock._events._callbacks, "it hears nothing more"


async def test_row_31_close_may_be_called_again_and_by_many() -> None:
    async with faked() as (networker, flock, heard):
        await networker.configure(TOPIC)
        flock.connects()
        await asyncio.gather(networker.close(), networker.close())
        await networker.close()
        assert len(heard.named("peer-remove")) == 1


async def test_row_31_close_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert networker_module.CLOSE_TIME == 10.0
    monkeypatch.setattr(networker_module, "CLOSE_TIME", 0.01)
    flock = FakeFlock()
    flock.close_forever = True
    networker = Networker(FakeStore(), flock=flock.real)
    networker._owned = True  # as one that it made
    heard = Recorder(networker)
    await networker.listen_on()
    flock.connects()
    with caplog.at_level(logging.WARNING, "covey.networker"):
        async with asyncio.timeout(5):
            await networker.close()
    assert heard.types == [*CONNECTED, *GONE]
    assert "closing takes longer" in caplog.text


async def test_row_32_the_store_is_not_closed() -> None:
    store = FakeStore()
    async with faked(store=store) as (networker, flock, _):
        await networker.listen_on()
        flock.connects()
    assert not store.closed


async def test_what_it_is_says_what_it_does() -> None:
    async with faked() as (networker, flock, _):
        await networker.configure(TOPIC)
        flock.connects()
        assert repr(networker) == "<Networker 1 topics, 1 peers>"
        (peer,) = networker.peers
        assert peer.remote_public_key.hex()[:8] in repr(peer)
        assert repr(peer.stream) == "<PeerStream 10.0.0.2:4000 active>"
        await networker.close()
        assert repr(networker) == "<Networker closed>"
        assert KeyPair.generate().public_key != networker.public_key
