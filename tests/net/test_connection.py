"""What a connection promises its user."""

from __future__ import annotations

import asyncio

import pytest

from covey.errors import ClosedError, CoveyError, LimitError, ProtocolError, UsageError
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.wire.session import Buffer
from tests.net.endpoints import RawPeer, collect, dialling, joined, listening, receive, turns, until

SMALL = Limits(read_backlog=64 * 1024, write_backlog=64 * 1024)


class Consumer:
    """A consumer that writes everything down."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.told: list[object] = []
        self.changed = asyncio.Event()

    def messages_received(self, messages: list[bytes]) -> None:
        self.messages += messages
        self.changed.set()

    def writable(self) -> None:
        self.told.append("writable")
        self.changed.set()

    def pipe_ended(self) -> None:
        self.told.append("ended")
        self.changed.set()

    def pipe_closed(self, error: CoveyError | None) -> None:
        self.told.append(("closed", error))
        self.changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.messages) < count:
                self.changed.clear()
                await self.changed.wait()

    async def until_told(self, what: str) -> None:
        async with asyncio.timeout(10):
            while what not in str(self.told):
                self.changed.clear()
                await self.changed.wait()


async def test_both_sides_describe_the_same_connection() -> None:
    async with joined() as (ours, theirs):
        assert ours.initiator
        assert not theirs.initiator
        assert ours.handshake_hash == theirs.handshake_hash
        assert len(ours.handshake_hash or b"") == 64
        assert (ours.type, ours.handshake) == ("tcp", "noise")
        assert theirs.remote_address[0] == "127.0.0.1"
        assert theirs.address.key == theirs.remote_key
        assert theirs.address.port == theirs.remote_address[1]
        assert ours.id != theirs.id
        assert ours.attempt.address is ours.address
        assert ours.remote_id is None


async def test_messages_keep_their_boundaries_and_order_both_ways() -> None:
    async with joined() as (ours, theirs):
        sent = [bytes([n]) * (n * 977 + 1) for n in range(60)]
        for message in sent:
            await ours.send(message)
            await theirs.send(message)
        await ours.end()
        await theirs.end()
        assert await collect(theirs) == sent
        assert await collect(ours) == sent


async def test_counters_count_messages_and_bytes_on_the_wire() -> None:
    async with joined() as (ours, theirs):
        before = ours.bytes_written
        await ours.send(b"x" * 100)
        assert await receive(theirs) == b"x" * 100
        assert ours.messages_written == theirs.messages_read == 1
        assert ours.bytes_written - before == 120
        assert theirs.bytes_read == ours.bytes_written


async def test_messages_that_came_before_the_first_use_are_kept() -> None:
    async with joined() as (ours, theirs):
        consumer = Consumer()
        await ours.send(b"early")
        await ours.send(b"bird")
        await ours.end()
        await until(lambda: theirs.messages_read == 2)
        theirs.attach(consumer)
        assert consumer.messages == []  # not before the caller has had its turn
        await consumer.until(2)
        await consumer.until_told("ended")
        assert consumer.messages == [b"early", b"bird"]


async def test_unread_messages_pause_the_socket_and_a_reader_resumes_it() -> None:
    async with joined(limits=SMALL) as (ours, theirs):
        blocks = 400

        async def flood() -> None:
            for n in range(blocks):
                await ours.send(n.to_bytes(4, "big") * 4096)
            await ours.end()

        sender = asyncio.create_task(flood())
        seen = -1
        while seen != theirs.messages_read:  # until nothing moves any more
            seen = theirs.messages_read
            await turns(50)
        assert not sender.done()  # the sender waits for the reader
        assert theirs.messages_read * 16384 < SMALL.read_backlog + 600_000
        got = await collect(theirs)
        assert [int.from_bytes(block[:4], "big") for block in got] == list(range(blocks))
        await sender


async def test_tiny_unread_messages_fill_the_backlog_too() -> None:
    async with joined(limits=Limits(read_backlog=4096)) as (ours, theirs):
        ours.write_messages([b"x"] * 20_000)
        await until(lambda: theirs._reading_paused)
        before = theirs.messages_read
        await turns(20)
        assert theirs.messages_read == before < 20_000
        async for _message in theirs:
            if theirs.messages_read == 20_000:
                break


async def test_send_waits_for_a_peer_that_never_reads_and_memory_stays_bounded() -> None:
    async with listening(limits=SMALL) as side:
        peer = await RawPeer.connect(side.port)
        await peer.shake()
        ours = await side.next()
        sent = 0

        async def pour() -> None:
            nonlocal sent
            while True:
                await ours.send(bytes(16384))
                sent += 1

        sender = asyncio.create_task(pour())
        before = -1
        while before != sent:
            before = sent
            await turns(50)
        assert not sender.done()
        assert not ours.drained
        transport = ours._shell._transport
        assert transport is not None
        assert transport.get_write_buffer_size() <= SMALL.write_backlog + 16384 + 20
        sender.cancel()
        await asyncio.wait([sender])
        before = transport.get_write_buffer_size()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await ours.send(b"not one more")
        assert transport.get_write_buffer_size() == before  # a cancelled send sent nothing
        ours.abort()
        peer.close()


async def test_a_sender_that_never_has_to_wait_lets_others_run() -> None:
    async with joined() as (ours, theirs):
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        reader = asyncio.create_task(collect(theirs))
        for _ in range(2000):
            await ours.send(b"small")
        assert turns >= 10
        task.cancel()
        await ours.end()
        assert len(await reader) == 2000


async def test_half_close_lets_the_answer_through() -> None:
    async with joined() as (ours, theirs):
        await ours.send(b"question")
        await ours.end()
        assert await collect(theirs) == [b"question"]
        assert not theirs.closed
        await theirs.send(b"answer after your end")
        await theirs.end()
        assert await collect(ours) == [b"answer after your end"]
        async with asyncio.timeout(10):
            await ours.wait_closed()
            await theirs.wait_closed()
        assert ours.close_reason is CloseReason.LOCAL
        assert theirs.close_reason is CloseReason.REMOTE_END
        assert ours.close_error is None


async def test_end_waits_until_everything_has_left() -> None:
    async with joined(limits=SMALL) as (ours, theirs):
        ours.write_messages([bytes(1 << 20)] * 8)
        reader = asyncio.create_task(collect(theirs))
        await ours.end()
        assert ours.drained
        assert sum(map(len, await reader)) == 8 << 20
        with pytest.raises(ClosedError, match="ended its half"):
            await ours.send(b"more")


async def test_close_delivers_what_was_sent_before() -> None:
    async with joined() as (ours, theirs):
        reader = asyncio.create_task(collect(theirs))
        for _ in range(64):
            ours.write_messages([bytes(65536)])
        await theirs.send(b"unread at the other end")
        await ours.close()
        assert sum(map(len, await reader)) == 64 * 65536
        assert theirs.close_error is None
        assert ours.close_reason is CloseReason.LOCAL


async def test_close_gives_up_on_a_peer_that_reads_nothing() -> None:
    limits = Limits(close_timeout=0.05)
    async with listening(limits=limits) as side:
        peer = await RawPeer.connect(side.port)
        await peer.shake()
        ours = await side.next()
        while ours.drained:
            ours.write_messages([bytes(1 << 20)])
        async with asyncio.timeout(5):
            await ours.close()
        assert ours.closed
        peer.close()


async def test_everything_raises_closed_error_after_close() -> None:
    async with joined() as (ours, _theirs):
        await ours.close("enough")
        await ours.close()
        assert ours.closed
        assert ours.close_text == "enough"
        assert ours.close_reason is CloseReason.LOCAL
        with pytest.raises(ClosedError, match="enough"):
            await ours.send(b"x")
        with pytest.raises(ClosedError):
            ours.write_messages([b"x"])
        with pytest.raises(ClosedError):
            aiter(ours)
        with pytest.raises(ClosedError):
            await ours.end()
        with pytest.raises(ClosedError):
            _ = ours.mux
        with pytest.raises(ClosedError):
            ours.attach(Consumer())
        await ours.wait_closed()


async def test_a_reason_given_to_close_is_kept() -> None:
    async with joined() as (ours, _theirs):
        await ours.close(CloseReason.REDUNDANT)
        assert ours.close_reason is CloseReason.REDUNDANT


async def test_close_ends_an_iteration_under_way() -> None:
    async with joined() as (ours, _theirs):
        reader = asyncio.create_task(collect(ours))
        await asyncio.sleep(0)
        await ours.close()
        assert await reader == []


async def test_abort_keeps_its_error_and_wakes_everybody() -> None:
    async with joined() as (ours, theirs):
        reader = asyncio.create_task(collect(ours))
        await asyncio.sleep(0)
        error = ProtocolError("a channel broke the rules")
        ours.abort(error)
        with pytest.raises(ClosedError) as caught:
            await reader
        assert caught.value.__cause__ is error
        assert ours.close_error is error
        assert ours.close_reason is CloseReason.PROTOCOL
        await ours.wait_closed()
        assert await collect(theirs) == []


async def test_abort_wakes_a_waiting_sender() -> None:
    async with joined(limits=SMALL) as (ours, _theirs):
        ours.write_messages([bytes(8 << 20)])
        assert not ours.drained
        sender = asyncio.create_task(ours.send(b"x"))
        await asyncio.sleep(0)
        ours.abort(ProtocolError("over"))
        with pytest.raises(ClosedError):
            await sender


async def test_a_reset_raises_closed_error_with_its_cause_after_what_came_before() -> None:
    async with listening() as side:
        peer = await RawPeer.connect(side.port)
        await peer.shake()
        ours = await side.next()
        await peer.send(b"last words")
        assert await receive(ours) == b"last words"
        peer.sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER 0: close resets
        peer.close()
        with pytest.raises(ClosedError) as caught:
            await receive(ours)
        assert isinstance(caught.value.__cause__, ClosedError)
        assert isinstance(caught.value.__cause__.__cause__, ConnectionResetError)
        assert ours.close_reason is CloseReason.RESET


@pytest.mark.parametrize("how", ["close", "end"])
async def test_a_reset_that_nobody_has_seen_yet_does_not_come_out_of_the_end(how: str) -> None:
    async with listening() as side:
        peer = await RawPeer.connect(side.port)
        await peer.shake()
        ours = await side.next()
        await ours.send(bytes(1024))
        peer.sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER 0: close resets
        peer.close()
        if how == "end":
            await ours.send(bytes(1024))
            ours.end()
            await ours.wait_closed()
            assert ours.close_reason is CloseReason.RESET
        else:
            await ours.close()
            assert ours.close_reason is CloseReason.LOCAL


async def test_close_callbacks_run_once_and_late_ones_too() -> None:
    async with joined() as (ours, _theirs):
        called: list[Connection] = []
        ours.on_close(called.append)
        ours.on_close(lambda _: 1 // 0)  # logged, changes nothing
        ours.on_close(called.append)
        await ours.close()
        ours.abort(ProtocolError("too late"))
        assert called == [ours, ours]
        assert ours.close_error is None
        ours.on_close(called.append)
        await asyncio.sleep(0)
        assert len(called) == 3


async def test_iterating_and_attaching_exclude_each_other() -> None:
    async with joined() as (ours, theirs):
        aiter(ours)
        with pytest.raises(UsageError, match="iteration"):
            _ = ours.mux
        with pytest.raises(UsageError):
            ours.attach(Consumer())
        theirs.attach(Consumer())
        with pytest.raises(UsageError, match="muxer"):
            aiter(theirs)
        with pytest.raises(UsageError):
            theirs.attach(Consumer())


async def test_one_reader_at_a_time() -> None:
    async with joined() as (ours, _theirs):
        first = asyncio.create_task(collect(ours))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="one reader"):
            await receive(ours)
        first.cancel()
        await asyncio.wait([first])


async def test_a_cancelled_reader_loses_no_message() -> None:
    async with joined() as (ours, theirs):
        reader = asyncio.create_task(receive(ours))
        await asyncio.sleep(0)
        await theirs.send(b"kept")
        reader.cancel()
        await asyncio.wait([reader])
        assert await receive(ours) == b"kept"


async def test_a_paused_consumer_gets_nothing_until_it_resumes() -> None:
    async with joined() as (ours, theirs):
        consumer = Consumer()
        theirs.attach(consumer)
        await ours.send(b"one")
        await consumer.until(1)
        theirs.pause_reading()
        await ours.send(b"two")
        await turns(20)
        assert consumer.messages == [b"one"]
        theirs.resume_reading()
        await consumer.until(2)
        assert consumer.messages == [b"one", b"two"]


async def test_a_consumer_may_pause_from_within_a_delivery() -> None:
    async with joined() as (ours, theirs):

        class Pausing(Consumer):
            def messages_received(self, messages: list[bytes]) -> None:
                super().messages_received(messages)
                theirs.pause_reading()

        consumer = Pausing()
        theirs.attach(consumer)
        await ours.send(b"one")
        await consumer.until(1)
        await ours.send(b"two")
        theirs.resume_reading()
        await consumer.until(2)


async def test_a_consumer_is_told_of_room_end_and_close_in_order() -> None:
    async with joined(limits=SMALL) as (ours, theirs):
        consumer = Consumer()
        ours.attach(consumer)
        messages: list[Buffer] = [bytes(1 << 20)] * 8
        assert not ours.write_messages(messages)
        reader = asyncio.create_task(collect(theirs))
        await consumer.until_told("writable")
        assert ours.drained
        await theirs.end()
        await consumer.until_told("ended")
        await ours.close()
        await reader
        assert consumer.told == ["writable", "ended", ("closed", None)]
        assert ours.close_reason is CloseReason.REMOTE_END


async def test_a_message_too_large_for_a_frame_is_refused_and_nothing_else_happens() -> None:
    async with joined() as (ours, theirs):
        with pytest.raises(LimitError):
            await ours.send(bytes(32 << 20))
        await ours.send(b"still alive")
        assert await receive(theirs) == b"still alive"


async def test_plain_connections_have_raw_chunks_an_id_and_no_muxer() -> None:
    async with (
        listening(handshake="plain", id=b"A" * 32) as side,
        dialling(id=b"B" * 32) as dialler,
    ):
        ours = await dialler.dial(side.address(handshake="plain"))
        theirs = await side.next()
        assert (ours.remote_id, theirs.remote_id) == (b"A" * 32, b"B" * 32)
        assert ours.remote_key is None
        assert str(theirs.address).endswith("~plain")
        with pytest.raises(UsageError, match="no muxer"):
            _ = ours.mux
        await ours.send(b"raw ")
        await ours.send(b"bytes")
        await ours.end()
        assert b"".join(await collect(theirs)) == b"raw bytes"


async def test_the_muxer_is_made_once() -> None:
    async with joined() as (ours, _theirs):
        assert ours.mux is ours.mux
        with pytest.raises(UsageError):
            aiter(ours)


async def test_a_connection_is_closed_at_the_end_of_its_block() -> None:
    async with joined() as (ours, theirs):
        async with ours as same:
            assert same is ours
            await ours.send(b"the last word")
        assert ours.closed
        assert ours.close_reason is CloseReason.LOCAL
        assert await collect(theirs) == [b"the last word"]
        with pytest.raises(ZeroDivisionError):
            async with theirs:
                raise ZeroDivisionError
        assert theirs.closed
