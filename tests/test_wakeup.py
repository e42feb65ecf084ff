"""What a wakeup shows: the behaviours of `wakeup.md` section 4, and the scenarios of section 9."""

from __future__ import annotations

import asyncio

import pytest

from covey.errors import ClosedError, UsageError
from covey.limits import Limits
from covey.wakeup import (
    Lookup,
    TopicCollected,
    Wakeup,
    WakeupHandlers,
    WakeupPeer,
    WakeupSession,
    WriterHead,
    topic_id,
)
from tests.wakeup_sides import CAPABILITY, HEAD, KEY, OTHER, Recorder, two_sides
from tests.wakeup_streams import cut, joined_streams, recorded_stream, settle

TOPIC = topic_id(CAPABILITY)


# The scenarios of the reference


async def test_a_side_that_knows_nothing_is_woken_with_the_topic_and_its_own_stream() -> None:
    woken: list[tuple[bytes, object]] = []
    right = Wakeup(lambda key, stream: woken.append((key, stream)))
    async with two_sides(right=right) as sides:
        sides.left.session(CAPABILITY)
        sides.join()
        await settle()
        assert woken == [(TOPIC, sides.right_stream)]


async def test_a_lookup_is_answered_and_activity_is_told_until_the_session_ends() -> None:
    asker, answerer = Recorder(), Recorder(answer=[HEAD])
    async with two_sides() as sides:
        sides.right.session(CAPABILITY, answerer.handlers())
        session = sides.left.session(CAPABILITY, asker.handlers())
        sides.join()
        await settle()
        session.broadcast_lookup()
        await settle()
        session.inactive()
        session.active()
        await settle()
        session.destroy()
        await settle()
        assert asker.told == [("peer-add",), ("peer-active",), ("announce", HEAD)]
        assert answerer.told == [
            *(("peer-add",), ("peer-active",), ("lookup", None)),
            *(("peer-inactive",), ("peer-active",), ("peer-inactive",)),
        ]


async def test_the_counters_through_a_life() -> None:
    async with two_sides() as sides:
        sides.left.add_stream(sides.left_stream.connection)
        session = sides.left.session(CAPABILITY)
        stats = sides.left.stats
        opened = stats.snapshot()
        assert (opened.sessions_opened, opened.topics_added, opened.peers_added) == (1, 1, 1)
        session.broadcast_lookup()
        [peer] = session.topic.pending_peers
        session.announce(peer, [HEAD])
        assert (stats.wire_lookup_tx, stats.wire_announce_tx, stats.wire_info_tx) == (1, 1, 0)
        session.destroy()
        assert (stats.sessions_closed, stats.wire_info_tx) == (1, 1)
        sides.left.destroy()
        assert (stats.topics_gcd, stats.peers_removed, stats.sessions_closed) == (1, 1, 1)
        assert opened.peers_removed == 0  # a snapshot stays as it was


# Opening


async def test_a_new_session_is_opened_on_every_stream_that_was_added() -> None:
    async with Wakeup() as wakeup:
        streams = [recorded_stream() for _ in range(3)]
        for stream, _ in streams:
            wakeup.add_stream(stream.connection)
        wakeup.session(CAPABILITY, WakeupHandlers(active=False))
        await settle()
        assert [len(pipe.take()) for _, pipe in streams] == [1, 1, 1]


async def test_a_stream_opens_the_active_topics_alone() -> None:
    async with Wakeup() as wakeup:
        wakeup.session(CAPABILITY, WakeupHandlers(active=False))
        active = wakeup.session(OTHER)
        stream, _ = recorded_stream()
        wakeup.add_stream(stream.connection)
        assert [channel.id for channel in stream.mux] == [active.topic.id]


async def test_adding_a_stream_twice_opens_nothing_new() -> None:
    async with Wakeup() as wakeup:
        stream, pipe = recorded_stream()
        wakeup.session(CAPABILITY)
        wakeup.add_stream(stream.connection)
        wakeup.add_stream(stream.connection)
        await settle()
        assert len(pipe.take()) == 1
        assert wakeup.stats.peers_added == 1


async def test_a_topic_that_becomes_active_is_opened_where_it_has_no_peer() -> None:
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY, WakeupHandlers(active=False))
        stream, _ = recorded_stream()
        wakeup.add_stream(stream.connection)
        assert not session.has_stream(stream)
        session.active()
        assert session.has_stream(stream)
        assert session.get_peer(stream) is session.topic.pending_peers[0]


async def test_a_session_can_open_its_topic_on_one_stream_that_was_not_added() -> None:
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY, WakeupHandlers(active=False))
        stream, _ = recorded_stream()
        session.add_stream(stream)
        session.add_stream(stream)
        assert session.has_stream(stream)
        assert not wakeup.has_stream(stream.connection)
        assert wakeup.stats.peers_added == 1


async def test_the_first_session_fixes_the_capability_of_an_id() -> None:
    async with Wakeup() as wakeup:
        first = wakeup.session(CAPABILITY, WakeupHandlers(discovery_key=KEY))
        second = wakeup.session(OTHER, WakeupHandlers(discovery_key=KEY))
        assert first.topic is second.topic
        assert second.topic.capability == CAPABILITY


async def test_a_capability_of_another_size_needs_an_id_of_its_own() -> None:
    async with Wakeup() as wakeup:
        with pytest.raises(UsageError, match="discovery_key"):
            wakeup.session(bytes(16))
        assert wakeup.session(bytes(16), WakeupHandlers(discovery_key=KEY)).topic.id == KEY
    with pytest.raises(UsageError, match="32 bytes"):
        WakeupHandlers(discovery_key=bytes(31))


# Sides that meet


async def test_a_known_topic_is_answered_although_it_is_inactive() -> None:
    ours, theirs = Recorder(), Recorder()
    async with two_sides() as sides:
        sides.left.session(CAPABILITY, ours.handlers())
        sides.right.session(CAPABILITY, theirs.handlers(active=False))
        sides.join()
        await settle()
        assert ours.told == [("peer-add",)]
        assert theirs.told == [("peer-add",), ("peer-active",)]


async def test_a_session_made_when_woken_answers_and_hears_what_was_asked_meanwhile() -> None:
    ours, theirs = Recorder(), Recorder(answer=[HEAD])
    gate = asyncio.Event()

    async def on_wakeup(_key: bytes, _stream: object) -> None:
        await gate.wait()
        right.session(CAPABILITY, theirs.handlers())

    right = Wakeup(on_wakeup)
    async with two_sides(right=right) as sides:
        session = sides.left.session(CAPABILITY, ours.handlers())
        sides.join()
        session.broadcast_lookup(KEY)
        await settle()
        assert theirs.told == []
        gate.set()
        await settle()
        assert theirs.told == [("peer-add",), ("peer-active",), ("lookup", KEY)]
        assert ours.told[-1] == ("announce", HEAD)


@pytest.mark.parametrize("later", [False, True])
async def test_an_inactive_session_made_when_woken_answers_for_a_topic_that_was_left(
    later: bool,
) -> None:
    ours = Recorder()

    def make() -> None:
        right.session(CAPABILITY, WakeupHandlers(active=False))

    async def make_later() -> None:
        await asyncio.sleep(0)
        make()

    right = Wakeup(lambda _key, _stream: make_later() if later else make())
    async with two_sides(right=right) as sides:
        right.session(CAPABILITY, WakeupHandlers(active=False)).destroy()
        sides.left.session(CAPABILITY, ours.handlers())
        sides.join()
        await settle()
        assert ours.told == [("peer-add",)]


async def test_a_topic_that_nobody_wants_is_rejected_and_not_opened_again() -> None:
    async with two_sides() as sides:
        session = sides.left.session(CAPABILITY)
        sides.join()
        await settle()
        assert session.topic.pending_peers == session.peers == []
        assert sides.left.stats.peers_removed == 1
        assert not sides.left_stream.closed
        sides.right.session(CAPABILITY)  # which opens it, and is answered
        await settle()
        assert len(session.peers) == 1


async def test_remotes_that_wake_us_are_ours_for_a_topic_that_no_session_is_left_of() -> None:
    woken: list[bytes] = []
    right = Wakeup(lambda key, _stream: woken.append(key))
    async with two_sides(right=right) as sides:
        right.session(CAPABILITY).destroy()
        sides.left.session(CAPABILITY)
        sides.join()
        await settle()
        assert woken == [TOPIC]


async def test_several_topics_on_one_stream_are_independent() -> None:
    first, second = Recorder(), Recorder()
    async with two_sides() as sides:
        sides.left.session(CAPABILITY, first.handlers())
        sides.left.session(OTHER, second.handlers())
        sides.right.session(CAPABILITY)
        other = sides.right.session(OTHER)
        sides.join()
        await settle()
        other.broadcast_announce([HEAD])
        other.inactive()
        await settle()
        assert first.told == [("peer-add",), ("peer-active",)]
        assert second.told[2:] == [("announce", HEAD), ("peer-inactive",)]


async def test_the_end_of_a_stream_removes_its_peers_and_forgets_it() -> None:
    ours = Recorder()
    async with two_sides() as sides:
        session = sides.left.session(CAPABILITY, ours.handlers())
        sides.right.session(CAPABILITY)
        sides.join()
        await settle()
        [peer] = session.peers
        cut(sides.left_stream)
        await settle()
        assert ours.told[2:] == [("peer-inactive",), ("peer-remove",)]
        assert peer.removed
        assert not peer.active
        assert session.peers == []
        assert not sides.left.has_stream(sides.left_stream.connection)


async def test_a_topic_whose_remote_closed_it_is_opened_again_by_the_remote() -> None:
    ours = Recorder()
    async with two_sides() as sides:
        session = sides.left.session(CAPABILITY, ours.handlers())
        theirs = sides.right.session(CAPABILITY)
        sides.join()
        await settle()
        theirs.peers[0].channel.close()
        await settle()
        assert session.peers == []
        theirs.inactive()
        theirs.active()
        await settle()
        assert len(session.peers) == 1
        assert ours.told[2:] == [
            *(("peer-inactive",), ("peer-remove",)),
            *(("peer-add",), ("peer-active",)),
        ]


# Sessions


async def test_handlers_run_newest_session_first_also_those_of_inactive_ones() -> None:
    order: list[str] = []
    async with two_sides() as sides:
        for name in ("old", "middle", "new"):

            def added(_peer: WakeupPeer, _session: WakeupSession, name: str = name) -> None:
                order.append(name)

            active = name != "new"
            sides.left.session(CAPABILITY, WakeupHandlers(on_peer_add=added, active=active))
        sides.right.session(CAPABILITY)
        sides.join()
        await settle()
        assert order == ["new", "middle", "old"]


async def test_a_session_made_later_finds_the_peers_and_is_not_told_of_them() -> None:
    late = Recorder()
    async with two_sides() as sides:
        sides.left.session(CAPABILITY)
        sides.right.session(CAPABILITY)
        sides.join()
        await settle()
        session = sides.left.session(CAPABILITY, late.handlers())
        await settle()
        assert late.told == []
        assert [peer.stream for peer in session.peers] == [sides.left_stream]


async def test_a_handler_may_destroy_its_own_session_or_another() -> None:
    told: list[str] = []
    async with two_sides() as sides:
        sessions: dict[str, WakeupSession] = {}

        def make(name: str, *victims: str) -> None:
            def added(_peer: WakeupPeer, _session: WakeupSession) -> None:
                told.append(name)
                for victim in victims:
                    sessions[victim].destroy()

            handlers = WakeupHandlers(on_peer_add=added, on_peer_active=added)
            sessions[name] = sides.left.session(CAPABILITY, handlers)

        make("a")
        make("b")
        make("c", "c", "b")
        sides.right.session(CAPABILITY)
        sides.join()
        await settle()
        assert told == ["c", "a", "a"]


async def test_only_a_change_of_the_topic_is_told() -> None:
    theirs = Recorder()
    async with two_sides() as sides:
        first, second = (sides.left.session(CAPABILITY) for _ in range(2))
        sides.right.session(CAPABILITY, theirs.handlers())
        sides.join()
        await settle()
        first.inactive()
        first.inactive()
        second.inactive()
        first.active()
        second.active()
        await settle()
        assert theirs.told[2:] == [("peer-inactive",), ("peer-active",)]
        assert sides.left.stats.wire_info_tx == 2
        assert sides.right.stats.wire_info_rx == 2


async def test_a_session_says_what_it_is() -> None:
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY)
        assert (session.is_active, session.destroyed) == (True, False)
        session.inactive()
        assert not session.is_active
        assert wakeup.get_sessions(CAPABILITY) == [session]
        assert wakeup.get_sessions(OTHER) == []
        wakeup.get_sessions(CAPABILITY).clear()
        session.topic.sessions.clear()
        assert wakeup.get_sessions(CAPABILITY) == [session]
        assert dict(wakeup.topics) == {TOPIC: session.topic}
        assert CAPABILITY.hex() not in repr(session)
        with pytest.raises(TypeError):
            wakeup.topics[KEY] = session.topic  # type: ignore[index]


async def test_a_topic_with_an_id_of_its_own_is_found_by_that_id() -> None:
    async with Wakeup() as wakeup:
        handlers = WakeupHandlers(discovery_key=KEY)
        session = wakeup.session(CAPABILITY, handlers)
        stream, _ = recorded_stream()
        wakeup.add_stream(stream.connection)
        assert wakeup.get_sessions(CAPABILITY) == []
        assert wakeup.get_sessions(CAPABILITY, handlers) == [session]
        assert not wakeup.has_stream(stream.connection, CAPABILITY)
        assert wakeup.has_stream(stream.connection, CAPABILITY, handlers)


# Messages


async def test_pending_peers_are_asked_first_and_are_not_announced_to_by_stream() -> None:
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY)
        stream, pipe = recorded_stream()
        other, _ = recorded_stream()
        wakeup.add_stream(stream.connection)
        await settle()
        pipe.take()
        assert session.lookup_by_stream(stream)
        assert not session.lookup_by_stream(other)
        assert not session.announce_by_stream(stream, [HEAD])
        assert not session.announce_by_stream(other, [HEAD])
        assert session.broadcast_announce([HEAD]) == 0
        assert wakeup.stats.wire_lookup_tx == 1
        assert wakeup.stats.wire_announce_tx == 0


async def test_everybody_is_told_at_once() -> None:
    recorders = [Recorder() for _ in range(5)]
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY)
        others = [Wakeup() for _ in recorders]
        for other, recorder in zip(others, recorders, strict=True):
            ours, theirs = joined_streams()
            other.session(CAPABILITY, recorder.handlers())
            wakeup.add_stream(ours.connection)
            other.add_stream(theirs.connection)
        await settle()
        assert session.broadcast_announce([HEAD, WriterHead(OTHER, 0)]) == 5
        session.broadcast_lookup(KEY)
        await settle()
        for recorder in recorders:
            assert recorder.told[2:] == [
                ("announce", HEAD, WriterHead(OTHER, 0)),
                ("lookup", KEY),
            ]
        for other in others:
            await other.close()


async def test_peers_are_removed_from_the_list_without_order() -> None:
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY)
        others = [Wakeup() for _ in range(3)]
        ends = [joined_streams() for _ in others]
        for other, (ours, theirs) in zip(others, ends, strict=True):
            other.session(CAPABILITY)
            wakeup.add_stream(ours.connection)
            other.add_stream(theirs.connection)
        await settle()
        cut(ends[0][0])
        await settle()
        assert [peer.stream for peer in session.peers] == [ends[2][0], ends[1][0]]
        for other in others:
            await other.close()


async def test_a_peer_has_room_for_what_the_user_keeps() -> None:
    ours = Recorder()
    async with two_sides() as sides:
        session = sides.left.session(CAPABILITY, ours.handlers())
        sides.left.add_stream(sides.left_stream.connection)
        [peer] = session.topic.pending_peers
        assert (peer.pending, peer.active, peer.removed) == (True, False, False)
        assert (peer.user_data, peer.clock) == (None, 0)
        peer.user_data, peer.clock = "mine", 7
        sides.right.session(CAPABILITY)
        sides.right.add_stream(sides.right_stream.connection)
        await settle()
        assert ours.peers == [peer, peer]
        assert (peer.pending, peer.active, peer.user_data, peer.clock) == (False, True, "mine", 7)
        assert peer.stream is sides.left_stream
        assert peer.topic is session.topic
        assert peer.channel.id == TOPIC
        await peer.channel.drain()


async def test_a_peer_of_another_topic_is_refused() -> None:
    async with Wakeup() as wakeup:
        stream, _ = recorded_stream()
        wakeup.add_stream(stream.connection)
        session, other = wakeup.session(CAPABILITY), wakeup.session(OTHER)
        [peer] = other.topic.pending_peers
        with pytest.raises(UsageError, match="another topic"):
            session.lookup(peer)
        with pytest.raises(UsageError, match="another topic"):
            session.announce(peer, [HEAD])


async def test_what_is_said_to_a_removed_peer_goes_nowhere_and_counts() -> None:
    async with two_sides() as sides:
        session = sides.left.session(CAPABILITY)
        sides.right.session(CAPABILITY)
        sides.join()
        await settle()
        [peer] = session.peers
        cut(sides.left_stream)
        await settle()
        assert not session.lookup(peer)
        assert not session.announce(peer, [HEAD])
        assert sides.left.stats.wire_lookup_tx == sides.left.stats.wire_announce_tx == 1


async def test_a_lookup_says_nothing_or_a_hash() -> None:
    told: list[Lookup] = []

    def on_lookup(lookup: Lookup, _peer: WakeupPeer, _session: WakeupSession) -> None:
        told.append(lookup)

    async with two_sides() as sides:
        session = sides.left.session(CAPABILITY)
        sides.right.session(CAPABILITY, WakeupHandlers(on_lookup=on_lookup))
        sides.join()
        await settle()
        session.lookup(session.peers[0])
        session.lookup(session.peers[0], KEY)
        await settle()
        assert told == [Lookup(None), Lookup(KEY)]


# Collection


class Time:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_topic_that_nobody_needs_goes_after_five_ticks() -> None:
    events: list[object] = []
    async with Wakeup(gc_tick=0.005) as wakeup:
        wakeup.subscribe(events.append)
        stream, pipe = recorded_stream()
        wakeup.add_stream(stream.connection)
        listening = wakeup.listen()
        wakeup.session(CAPABILITY).destroy()
        async with asyncio.timeout(10):
            assert await anext(listening) == TopicCollected(TOPIC)
        assert not wakeup.topics
        assert events == [TopicCollected(TOPIC)]
        assert wakeup.stats.topics_gcd == wakeup.stats.peers_removed == 1
        await settle()
        assert pipe.take()[-1].hex().endswith("0301")  # the close of channel 1


async def test_the_timer_runs_only_while_there_is_something_to_collect() -> None:
    time = Time()
    async with Wakeup(clock=time, gc_tick=2.0) as wakeup:
        machine = wakeup._machine
        assert machine.next_timer() is None
        first, second = wakeup.session(CAPABILITY), wakeup.session(OTHER)
        first.destroy()
        assert machine.next_timer() == 1002.0
        time.now += 1.5
        second.destroy()
        assert machine.next_timer() == 1002.0
        machine.handle_timer(time.now)  # too early
        assert first.topic.idle_ticks == 0
        time.now = 1002.5
        machine.handle_timer(time.now)
        assert (first.topic.idle_ticks, second.topic.idle_ticks) == (1, 1)
        assert machine.next_timer() == 1004.5
        wakeup.session(CAPABILITY)
        wakeup.session(OTHER)
        assert machine.next_timer() is None


async def test_a_late_timer_counts_one_tick() -> None:
    time = Time()
    async with Wakeup(clock=time) as wakeup:
        topic = wakeup.session(CAPABILITY).topic
        topic.sessions[0].destroy()
        time.now += 3600
        wakeup._machine.handle_timer(time.now)
        assert topic.idle_ticks == 1


async def test_an_active_peer_keeps_a_topic_without_sessions() -> None:
    async with two_sides() as sides:
        session = sides.left.session(CAPABILITY)
        theirs = sides.right.session(CAPABILITY)
        sides.join()
        await settle()
        session.destroy()
        assert not session.topic.idle
        theirs.inactive()
        await settle()
        assert session.topic.idle
        theirs.active()
        await settle()
        assert not session.topic.idle


async def test_ticks_are_forgotten_only_when_the_topic_becomes_active() -> None:
    async with Wakeup() as wakeup:
        machine = wakeup._machine
        first = wakeup.session(CAPABILITY)
        first.destroy()
        for _ in range(4):
            machine.gc_step()
        second = wakeup.session(CAPABILITY, WakeupHandlers(active=False))
        assert second.topic is first.topic
        assert second.topic.idle_ticks == 4
        second.active()
        assert second.topic.idle_ticks == 0
        second.destroy()
        for _ in range(5):
            assert TOPIC in wakeup.topics
            machine.gc_step()
        assert TOPIC not in wakeup.topics
        again = wakeup.session(OTHER)
        assert again.topic.id in wakeup.topics


async def test_a_topic_that_comes_back_after_collection_is_a_new_one() -> None:
    async with Wakeup() as wakeup:
        stream, _ = recorded_stream()
        wakeup.add_stream(stream.connection)
        old = wakeup.session(CAPABILITY)
        old.destroy()
        for _ in range(5):
            wakeup._machine.gc_step()
        new = wakeup.session(CAPABILITY)
        assert new.topic is not old.topic
        assert new.has_stream(stream)
        assert (wakeup.stats.topics_added, wakeup.stats.topics_gcd) == (2, 1)


# The end


async def test_the_end_closes_the_channels_and_tells_every_session_newest_first() -> None:
    told: list[str] = []
    async with two_sides() as sides:
        for name in "abc":

            def ended(_session: WakeupSession, name: str = name) -> None:
                told.append(name)

            sides.left.session(CAPABILITY, WakeupHandlers(on_destroy=ended))
        theirs = Recorder()
        sides.right.session(CAPABILITY, theirs.handlers())
        sides.join()
        await settle()
        sessions = sides.left.get_sessions(CAPABILITY)
        sides.left.destroy()
        sides.left.destroy()
        await settle()
        assert told == ["c", "b", "a"]
        assert theirs.told[-2:] == [("peer-inactive",), ("peer-remove",)]
        assert all(session.destroyed for session in sessions)
        for session in sessions:
            session.destroy()
        assert sides.left.stats.sessions_closed == 3


async def test_after_the_end_nothing_is_opened_or_answered() -> None:
    woken: list[bytes] = []
    left = Wakeup(lambda key, _stream: woken.append(key))
    async with two_sides(left=left) as sides:
        session = left.session(CAPABILITY)
        sides.join()
        await settle()
        await left.close()
        await left.close()
        sides.right.session(CAPABILITY)
        await settle()
        assert woken == []
        assert sides.right.stats.peers_removed == 1  # rejected
        with pytest.raises(ClosedError):
            left.session(CAPABILITY)
        with pytest.raises(ClosedError):
            left.add_stream(sides.left_stream.connection)
        assert left.closed
        assert not left.topics
        assert left.get_sessions(CAPABILITY) == []
        assert session.peers == []


async def test_a_destroyed_session_does_nothing_and_is_told_nothing() -> None:
    ours = Recorder()
    async with two_sides() as sides:
        keeps, session = (
            sides.left.session(CAPABILITY),
            sides.left.session(CAPABILITY, ours.handlers()),
        )
        theirs = sides.right.session(CAPABILITY)
        sides.join()
        await settle()
        [peer] = session.peers
        session.destroy()
        session.destroy()
        before = sides.left.stats.snapshot()
        told = list(ours.told)
        theirs.broadcast_lookup()
        session.active()
        session.inactive()
        assert not session.lookup(peer)
        assert not session.announce(peer, [HEAD])
        session.broadcast_lookup()
        assert session.broadcast_announce([HEAD]) == 0
        session.add_stream(sides.left_stream)
        assert (session.peers, session.get_peer(sides.left_stream)) == ([], None)
        assert sides.left.stats.snapshot() == before
        await settle()
        sides.left.destroy()
        assert ours.told == told
        assert keeps.destroyed
        assert keeps.topic.is_active


async def test_a_closed_stream_is_refused() -> None:
    async with Wakeup() as wakeup:
        stream, pipe = recorded_stream()
        assert stream.mux is not None
        pipe.close()
        session = wakeup.session(CAPABILITY)
        with pytest.raises(ClosedError):
            wakeup.add_stream(stream.connection)
        with pytest.raises(ClosedError):
            session.add_stream(stream)
        assert not wakeup.has_stream(stream.connection)


async def test_looking_for_a_stream_makes_no_muxer() -> None:
    async with Wakeup() as wakeup:
        stream, _ = recorded_stream()
        wakeup.session(CAPABILITY)
        assert not wakeup.has_stream(stream.connection)
        assert not wakeup.has_stream(stream.connection, CAPABILITY)
        assert stream.muxes_made == 0


@pytest.mark.parametrize("tick", [0, -1.0])
async def test_ticks_take_time(tick: float) -> None:
    with pytest.raises(UsageError, match="gc_tick"):
        Wakeup(gc_tick=tick)


async def test_the_streams_of_one_process_are_not_limited_by_each_other() -> None:
    limits = Limits(wakeup_burst=1, wakeups_per_second=0)
    woken: list[object] = []
    async with Wakeup(lambda _key, stream: woken.append(stream), limits=limits) as wakeup:
        for _ in range(3):
            ours, theirs = joined_streams()
            wakeup.add_stream(ours.connection)
            async with Wakeup() as other:
                other.add_stream(theirs.connection)
                other.session(CAPABILITY)
                await settle()
        assert len(woken) == 3
