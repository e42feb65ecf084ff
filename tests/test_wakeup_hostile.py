"""What a stranger, or a handler that fails, may do to a wakeup: `wakeup.md` section 7."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from covey.errors import CoveyError, UsageError
from covey.limits import Limits
from covey.wakeup import (
    OpensLimited,
    Wakeup,
    WakeupFailed,
    WakeupHandlers,
    WakeupPeer,
    WakeupSession,
    WrongCapability,
    capability_proof,
    topic_id,
)
from covey.wire.encoding import encode, encode_uint
from covey.wire.wakeup_messages import Handshake, Info, Lookup, handshake_codec, info_codec
from tests.wakeup_sides import CAPABILITY, HEAD, KEY, OTHER, Recorder, two_sides
from tests.wakeup_streams import joined_streams, recorded_stream, settle

TOPIC = topic_id(CAPABILITY)
HASH = b"\x05" * 64
OPEN, REJECT, CLOSE = 1, 2, 3


class Remote:
    """A remote that writes frames as it likes, to a stream of which we are the initiator."""

    def __init__(self, wakeup: Wakeup, limits: Limits | None = None) -> None:
        self.stream, self.pipe = recorded_stream(
            initiator=True, handshake_hash=HASH, limits=limits, auto_batch=False
        )
        self._channels = 0
        wakeup.add_stream(self.stream.connection)

    def open(
        self, topic: bytes = TOPIC, capability: bytes = CAPABILITY, *, active: bool = True
    ) -> int:
        """Open a topic with the proof of `capability`; gives the number of the channel."""
        self._channels += 1
        proof = capability_proof(capability, HASH, is_initiator=False)
        handshake = encode(handshake_codec, Handshake(proof, active))
        self.send(
            b"\x00\x01" + encode_uint(self._channels) + b"\x06wakeup" + b"\x20" + topic + handshake
        )
        return self._channels

    def close(self, channel: int) -> None:
        self.send(b"\x00\x03" + encode_uint(channel))

    def say(self, channel: int, kind: int, payload: bytes) -> None:
        self.send(encode_uint(channel) + bytes([kind]) + payload)

    def send(self, frame: bytes) -> None:
        self.pipe.receive(frame)

    def answers(self, kind: int) -> int:
        """How many control frames of that kind were written since the last call."""
        return sum(frame[:2] == bytes([0, kind]) for frame in self.pipe.take())


LOOKUP = b"\x00"
ANNOUNCE = b"\x01" + KEY + b"\x05"
INFO = {flag: encode(info_codec, Info(flag)) for flag in (True, False)}


# Proofs


async def test_what_came_before_a_wrong_proof_was_seen_reaches_nobody() -> None:
    """The bypass of the reference: kept messages of a channel that its open callback closed."""
    ours = Recorder()
    async with Wakeup() as wakeup:
        events: list[object] = []
        wakeup.subscribe(events.append)
        session = wakeup.session(CAPABILITY, ours.handlers(active=False))
        remote = Remote(wakeup)
        channel = remote.open(capability=OTHER)
        remote.say(channel, 0, LOOKUP)
        remote.say(channel, 1, ANNOUNCE)
        remote.say(channel, 2, INFO[True])
        await settle()
        assert ours.told == []
        assert session.topic.active_peers == 0
        assert session.topic.pending_peers == session.peers == []
        counts = wakeup.stats.snapshot()
        assert counts.wire_lookup_rx == counts.wire_announce_rx == counts.wire_info_rx == 0
        assert not remote.stream.closed
        assert events == [WrongCapability(TOPIC, remote.stream.connection)]
        session.destroy()
        assert session.topic.idle  # nothing of it keeps the topic from being collected


async def test_a_reflected_proof_is_wrong() -> None:
    ours = Recorder()
    async with Wakeup() as wakeup:
        wakeup.session(CAPABILITY, ours.handlers())
        remote = Remote(wakeup)
        await settle()
        [frame] = remote.pipe.take()  # our own open, sent back as it is
        remote.send(frame)
        await settle()
        assert ours.told == []
        assert remote.answers(CLOSE) == 1


async def test_the_proof_of_another_connection_is_wrong() -> None:
    ours = Recorder()
    async with two_sides() as sides:
        sides.left.session(CAPABILITY, ours.handlers())
        sides.right.session(CAPABILITY)
        sides.right_stream.handshake_hash = b"\x09" * 64
        sides.join()
        await settle()
        assert ours.told == []
        assert not sides.left_stream.closed


async def test_a_remote_that_shows_one_wrong_proof_after_the_other_is_answered_no_more() -> None:
    limits = Limits(wakeup_burst=4, wakeups_per_second=0)
    async with Wakeup(limits=limits) as wakeup:
        wakeup.session(CAPABILITY, WakeupHandlers(active=False))
        other = wakeup.session(OTHER, WakeupHandlers(active=False))
        remote = Remote(wakeup)
        for _ in range(20):
            channel = remote.open(capability=KEY)
            await settle()
            remote.close(channel)
        assert wakeup.stats.peers_added == 4
        remote.open(other.topic.id, OTHER)
        await settle()
        assert other.peers == []
        assert len(remote.stream.mux._channels) == 0
        assert not remote.stream.closed


# Opens of topics that are unknown


async def test_opens_of_unknown_topics_are_asked_about_so_often_and_then_rejected() -> None:
    limits = Limits(wakeup_burst=10, wakeups_per_second=0)
    woken: list[bytes] = []
    async with Wakeup(lambda key, _: woken.append(key), limits=limits) as wakeup:
        events: list[object] = []
        wakeup.subscribe(events.append)
        remote = Remote(wakeup)
        for number in range(1000):
            remote.open(number.to_bytes(32, "big"))
        await settle()
        assert len(woken) == 10
        assert remote.answers(REJECT) == 1000
        assert events == [OpensLimited(remote.stream.connection)]
        assert not wakeup.topics
        assert wakeup.stats.peers_added == 0


async def test_what_is_known_is_answered_also_for_a_remote_that_opened_too_much() -> None:
    limits = Limits(wakeup_burst=1, wakeups_per_second=0)
    async with Wakeup(lambda _key, _stream: None, limits=limits) as wakeup:
        session = wakeup.session(CAPABILITY, WakeupHandlers(active=False))
        remote = Remote(wakeup)
        for number in range(50):
            remote.open(number.to_bytes(32, "big"))
        remote.open()
        await settle()
        assert len(session.peers) == 1


async def test_only_so_many_callbacks_are_under_way_for_one_connection_and_for_all() -> None:
    running = 0
    most = 0
    gate = asyncio.Event()

    async def on_wakeup(_key: bytes, _stream: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await gate.wait()
        finally:
            running -= 1

    limits = Limits(wakeup_callbacks=2)
    async with Wakeup(on_wakeup, limits=limits) as wakeup:
        remotes = [Remote(wakeup) for _ in range(20)]
        for number in range(10):
            remotes[0].open(number.to_bytes(32, "big"))
        await settle()
        assert most == 2
        for remote in remotes[1:]:
            remote.open(KEY)
            remote.open(OTHER)
        await settle()
        assert most == 8 * 2
        gate.set()
        await settle(200)
        assert running == 0
        assert remotes[0].answers(REJECT) == 10


async def test_a_flood_of_opens_leaves_nothing_behind() -> None:
    async with Wakeup(lambda _key, _stream: None) as wakeup:
        session = wakeup.session(CAPABILITY, WakeupHandlers(active=False))
        remote = Remote(wakeup)

        async def flood(rounds: int) -> None:
            for number in range(rounds):
                channel = remote.open(number.to_bytes(32, "big"))
                channel = remote.open()
                remote.say(channel, 0, LOOKUP)
                await settle(4)
                remote.close(channel)
                remote.pipe.take()
            await settle()

        await flood(50)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await flood(500)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert session.topic.pending_peers == session.peers == []
        assert grown < 100_000


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
async def test_an_id_that_is_no_topic_wakes_nobody(key: bytes) -> None:
    woken: list[bytes] = []
    async with Wakeup(lambda key, _: woken.append(key)) as wakeup:
        remote = Remote(wakeup)
        handshake = encode(handshake_codec, Handshake(bytes(32), active=True))
        remote.send(b"\x00\x01\x01\x06wakeup" + encode_uint(len(key)) + key + handshake)
        await settle()
        assert woken == []
        assert remote.answers(REJECT) == 1
        assert not remote.stream.closed


# Messages


@pytest.mark.parametrize("count", [65537, 1 << 20, (1 << 53) - 1])
async def test_an_announce_of_too_much_ends_its_stream_alone(count: int) -> None:
    ours = Recorder()
    async with Wakeup() as wakeup:
        wakeup.session(CAPABILITY, ours.handlers())
        remote, other = Remote(wakeup), Remote(wakeup)
        channels = [each.open() for each in (remote, other)]
        await settle()
        remote.say(channels[0], 1, encode_uint(count) + bytes(33 * 1000))
        await settle()
        assert remote.stream.closed
        assert not other.stream.closed
        assert ("announce",) not in {event[:1] for event in ours.told}


@pytest.mark.parametrize(("kind", "payload"), [(0, b"\x01"), (1, b"\x01"), (2, b"")])
async def test_a_message_that_does_not_decode_ends_its_stream(kind: int, payload: bytes) -> None:
    ours = Recorder()
    async with Wakeup() as wakeup:
        wakeup.session(CAPABILITY, ours.handlers())
        remote = Remote(wakeup)
        channel = remote.open()
        await settle()
        remote.say(channel, kind, payload)
        await settle()
        assert remote.stream.closed
        assert ours.told[2:] == [("peer-inactive",), ("peer-remove",)]


async def test_messages_of_unknown_types_and_for_removed_peers_are_ignored() -> None:
    ours = Recorder()
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY, ours.handlers())
        remote = Remote(wakeup)
        channel = remote.open()
        await settle()
        remote.say(channel, 3, b"anything")
        [peer] = session.peers
        peer.channel.close()
        told = list(ours.told)
        for kind, payload in enumerate((LOOKUP, ANNOUNCE, INFO[True])):
            remote.say(channel, kind, payload)
        peer.topic.received_lookup(peer, Lookup())
        peer.topic.received_announce(peer, [HEAD])
        peer.topic.received_info(peer, Info(True))
        await settle()
        assert ours.told == told
        assert session.topic.active_peers == 0
        assert wakeup.stats.wire_info_rx == 0


async def test_a_remote_that_flaps_is_followed_and_costs_no_memory() -> None:
    ours = Recorder()
    seen = 0

    def count(_peer: WakeupPeer, _session: WakeupSession) -> None:
        nonlocal seen
        seen += 1

    handlers = ours.handlers(on_peer_active=count, on_peer_inactive=count)
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY, handlers)
        remote = Remote(wakeup)
        channel = remote.open()
        await settle()

        def flap(times: int) -> None:
            for number in range(times):
                remote.say(channel, 2, INFO[number % 2 == 1])

        flap(100)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        flap(20_000)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert seen == 20_101
        assert session.topic.active_peers == 1
        assert grown < 50_000


async def test_a_remote_that_flapped_keeps_no_topic_from_being_collected() -> None:
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY)
        remote = Remote(wakeup)
        channel = remote.open()
        await settle()
        session.destroy()
        for number in range(10_001):
            remote.say(channel, 2, INFO[number % 2 == 1])
        assert session.topic.idle
        assert wakeup._timer is not None
        for _ in range(5):
            wakeup._machine.gc_step()
        assert not wakeup.topics


@pytest.mark.parametrize(
    "payload", [LOOKUP, ANNOUNCE, INFO[False]], ids=["lookup", "announce", "info"]
)
async def test_a_flood_behind_a_slow_handler_closes_that_channel_alone(payload: bytes) -> None:
    gate = asyncio.Event()
    calls = 0

    async def slow(*_: object) -> None:
        nonlocal calls
        calls += 1
        await gate.wait()

    limits = Limits(channel_backlog=10_000)
    kind = {LOOKUP: 0, ANNOUNCE: 1, INFO[False]: 2}[payload]
    async with Wakeup(limits=limits) as wakeup:
        handlers = WakeupHandlers(on_lookup=slow, on_announce=slow, on_peer_inactive=slow)
        session = wakeup.session(CAPABILITY, handlers)
        other = wakeup.session(OTHER)
        remote = Remote(wakeup, limits)
        channel = remote.open()
        remote.open(other.topic.id, OTHER)
        await settle()
        for _ in range(1000):
            remote.say(channel, kind, payload)
        await settle()
        assert calls == 1
        assert session.peers == []
        assert len(other.peers) == 1
        assert not remote.stream.closed
        gate.set()


# Handlers


def failing(later: bool) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise ValueError("it fails")

    async def fail_later(*_: object) -> None:
        await asyncio.sleep(0)
        fail()

    return fail_later if later else fail


WHERE = (
    *("on_peer_add", "on_peer_active", "on_peer_inactive", "on_lookup", "on_announce"),
    *("on_peer_remove",),
)


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
@pytest.mark.parametrize("where", WHERE)
async def test_a_handler_that_fails_is_told_and_ends_its_stream_alone(
    where: str, later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    others = Recorder()
    async with Wakeup() as wakeup:
        events: list[Any] = []
        wakeup.subscribe(events.append)
        wakeup.session(CAPABILITY, others.handlers())
        only: dict[str, Any] = {where: failing(later)}
        session = wakeup.session(CAPABILITY, WakeupHandlers(**only))
        remote, quiet = Remote(wakeup), Remote(wakeup)
        channel = remote.open()
        if where not in ("on_peer_add", "on_peer_active", "on_peer_remove"):
            quiet.open()
        await settle()
        if not remote.stream.closed:
            for kind, payload in enumerate((LOOKUP, ANNOUNCE, INFO[False])):
                remote.say(channel, kind, payload)
            await settle()
            if where == "on_peer_remove":
                remote.close(channel)
                await settle()
        assert remote.stream.closed
        assert not quiet.stream.closed
        [failure] = [event for event in events if isinstance(event, WakeupFailed)]
        assert str(failure.error) == "it fails"
        assert failure.where == where
        assert failure.session is session
        assert failure.stream is remote.stream.connection
        assert isinstance(remote.stream.close_error, CoveyError)
        assert others.told[-1] == ("peer-remove",)
        assert "failed" in caplog.text


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
async def test_an_on_wakeup_that_fails_is_told_and_ends_its_stream_alone(
    later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Wakeup(failing(later)) as wakeup:
        events: list[Any] = []
        wakeup.subscribe(events.append)
        remote, quiet = Remote(wakeup), Remote(wakeup)
        remote.open()
        await settle()
        assert remote.stream.closed
        assert not quiet.stream.closed
        [failure] = events
        assert (failure.session, failure.where) == (None, "on_wakeup")
        assert failure.stream is remote.stream
        assert "on_wakeup of a wakeup failed" in caplog.text


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
async def test_an_on_destroy_that_fails_is_told(
    later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Any] = []
    async with Wakeup() as wakeup:
        wakeup.subscribe(events.append)
        remote = Remote(wakeup)
        wakeup.session(CAPABILITY, WakeupHandlers(on_destroy=failing(later)))
    [failure] = events
    assert (failure.where, failure.stream) == ("on_destroy", None)
    assert not remote.stream.closed
    assert "on_destroy of a wakeup failed" in caplog.text


async def test_the_calls_for_one_peer_keep_their_order_and_do_not_hold_up_another() -> None:
    told: list[tuple[str, object]] = []
    gates: dict[object, asyncio.Event] = {}

    async def added(peer: WakeupPeer, _session: WakeupSession) -> None:
        gate = gates[peer.stream] = asyncio.Event()
        await gate.wait()
        told.append(("add", peer.stream))

    def tell(what: str) -> Any:
        return lambda *rest: told.append((what, rest[-2].stream))

    handlers = WakeupHandlers(
        on_peer_add=added,
        on_peer_active=tell("active"),
        on_lookup=tell("lookup"),
        on_announce=tell("announce"),
        on_peer_inactive=tell("inactive"),
        on_peer_remove=tell("remove"),
    )
    async with Wakeup() as wakeup:
        wakeup.session(CAPABILITY, handlers)
        first, second = Remote(wakeup), Remote(wakeup)
        for remote in (first, second):
            channel = remote.open()
            await settle()
            remote.say(channel, 1, ANNOUNCE)
            remote.say(channel, 0, LOOKUP)
            remote.say(channel, 2, INFO[False])
            remote.close(channel)
            await settle()
        assert told == []
        gates[second.stream].set()
        await settle()
        wanted = ["add", "active", "announce", "lookup", "inactive", "remove"]
        assert told == [(what, second.stream) for what in wanted]
        gates[first.stream].set()
        await settle()
        assert told[6:] == [(what, first.stream) for what in wanted]


async def test_a_peer_that_comes_again_while_the_handlers_of_the_last_run_is_met_again() -> None:
    gate = asyncio.Event()
    told: list[tuple[str, WakeupPeer]] = []

    async def on_lookup(_lookup: Lookup, peer: WakeupPeer, _session: WakeupSession) -> None:
        await gate.wait()
        told.append(("lookup", peer))

    handlers = WakeupHandlers(
        on_lookup=on_lookup,
        on_peer_add=lambda peer, _: told.append(("add", peer)),
        on_peer_remove=lambda peer, _: told.append(("remove", peer)),
    )
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY, handlers)
        remote = Remote(wakeup)
        channel = remote.open()
        await settle()
        remote.say(channel, 0, LOOKUP)
        remote.close(channel)
        remote.open()
        await settle()
        gate.set()
        await settle()
        old, new = told[0][1], told[1][1]
        assert told == [("add", old), ("add", new), ("lookup", old), ("remove", old)]
        assert session.get_peer(remote.stream) is new
        assert session.peers == [new]


# The end


async def test_the_end_waits_for_handlers_and_cancels_those_that_do_not_end() -> None:
    told: list[str] = []

    async def forever(*_: object) -> None:
        told.append("begins")
        try:
            await asyncio.Event().wait()
        finally:
            told.append("cancelled")

    limits = Limits(close_timeout=0.02)
    handlers = WakeupHandlers(on_lookup=forever, on_peer_remove=lambda *_: told.append("removed"))
    async with Wakeup(forever, limits=limits) as wakeup:
        wakeup.session(CAPABILITY, handlers)
        remote = Remote(wakeup)
        remote.say(remote.open(), 0, LOOKUP)
        remote.open(OTHER)
        await settle()
        assert told == ["begins", "begins"]
    assert sorted(told[2:]) == ["cancelled", "cancelled", "removed"]
    assert told[-1] == "removed"
    assert len(wakeup._tasks) == 0


@pytest.mark.parametrize("where", ["on_lookup", "on_wakeup", "on_destroy"])
async def test_a_handler_may_close_the_wakeup_it_is_called_by(where: str) -> None:
    closed = asyncio.Event()

    async def close(*_: object) -> None:
        await wakeup.close()
        closed.set()

    only: dict[str, Any] = {} if where == "on_wakeup" else {where: close}
    wakeup = Wakeup(close if where == "on_wakeup" else None)
    async with asyncio.timeout(5):
        wakeup.session(CAPABILITY, WakeupHandlers(**only))
        remote = Remote(wakeup)
        remote.say(remote.open(), 0, LOOKUP)
        if where == "on_wakeup":
            remote.open(OTHER)
        await settle()
        if where == "on_destroy":
            wakeup.destroy()
        await closed.wait()
        await wakeup.close()
    assert wakeup.closed
    assert not remote.stream.closed


async def test_a_second_wakeup_on_a_connection_is_refused_until_the_first_is_closed() -> None:
    woken: list[bytes] = []
    async with Wakeup() as first, Wakeup(lambda key, _: woken.append(key)) as second:
        ours, theirs = joined_streams()
        async with Wakeup() as remote:
            session = first.session(CAPABILITY, WakeupHandlers(active=False))
            first.add_stream(ours.connection)
            with pytest.raises(UsageError, match=r"networker\.wakeup"):
                second.add_stream(ours.connection)
            assert not second.has_stream(ours.connection)
            await second.close()
            remote.add_stream(theirs.connection)
            remote.session(CAPABILITY)
            await settle()
            assert len(session.peers) == 1  # the end of the other one has not silenced it
            await first.close()
            async with Wakeup(lambda key, _: woken.append(key)) as third:
                third.add_stream(ours.connection)
                remote.session(OTHER)
                await settle()
                assert woken == [topic_id(OTHER)]


async def test_the_end_leaves_the_callback_of_another_registered() -> None:
    asked: list[bytes | None] = []
    async with Wakeup() as wakeup:
        remote = Remote(wakeup)
        remote.stream.mux.pair("wakeup", asked.append)
    remote.open()
    await settle()
    assert asked == [TOPIC]
