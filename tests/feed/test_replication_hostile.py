"""Every row of `hypercore.md` 10.4, hardened: the process lives and nothing unverified is kept."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from covey.errors import DecodeError, EncodeError, ProtocolError, VerifyError
from covey.feed.messages import (
    INVALID_REQUEST,
    MAX_BLOCK,
    MESSAGE_CODECS,
    NOT_AVAILABLE,
    BitfieldWords,
    BlockData,
    BlockRequest,
    Data,
    HashData,
    NoData,
    Range,
    Request,
    Sync,
    UpgradeData,
    UpgradeRequest,
    Want,
)
from covey.feed.replication_choices import MAX_BACKOFFS, MAX_INVALID_REQUESTS
from covey.feed.replication_events import InvalidData, InvalidRequest, ReplicationError
from covey.feed.replication_forks import MAX_SEARCHES
from covey.feed.replication_peer import (
    BITFIELD,
    CANCEL,
    DATA,
    MAX_UNASKED,
    NO_DATA,
    RANGE,
    REQUEST,
    SYNC,
    WANT,
)
from covey.feed.replication_server import MAX_QUEUED, MAX_QUEUED_WANTS
from covey.feed.replication_wants import MAX_ANY_WANTS, MAX_WANT_LENGTHS, MAX_WANTS
from covey.feed.replicator import MAX_SHUNNED, SHUN_TIME
from covey.wire.encoding import decode, encode
from tests.feed.replication_links import Link, Side, pass_time, run
from tests.feed.test_replicator import assert_same, numbered, sent

KEYS = (b"\x01" * 32, b"\x02" * 32)


def spoil_blocks(*indices: int) -> Any:
    """The other side sends these blocks with other bytes, each once."""
    left = set(indices)

    def change(_sender: Side, kind: int, message: Any) -> Any:
        if kind == DATA and message.block is not None and message.block.index in left:
            left.remove(message.block.index)
            return message._replace(block=message.block._replace(value=b"wrong"))
        return message

    return change


def pair_of(count: int = 8, **options: Any) -> tuple[Side, Side, Link]:
    """A writer, and a reader that knows its head."""
    writer, reader = Side.of(*numbered(count)), Side(**options)
    link = Link(writer, reader, keys=KEYS)
    run(link)
    return writer, reader, link


def test_a_wrong_block_is_not_kept_and_costs_one_chance() -> None:
    writer, reader, link = pair_of()
    link.drops = spoil_blocks(3)
    peer = link.peer_of(reader)
    got: list[Any] = []
    reader.replicator.want_block(3, done=got.append)
    run(link)
    assert [type(event.error) for event in reader.told(InvalidData)] == [VerifyError]
    probes = [m for m in sent(link, reader, REQUEST) if m.id == 0]
    assert [probe.upgrade for probe in probes] == [UpgradeRequest(0, 8)], "is there a conflict?"
    assert got == [b"block 3"], "its head is ours: it was asked again"
    assert (peer.failures, peer.paused) == (1, None)
    assert link.open
    assert_same_heads(reader, writer)


def assert_same_heads(reader: Side, writer: Side) -> None:
    """Same head; fewer blocks perhaps, but none that differs."""
    assert reader.log.tree_hash == writer.log.tree_hash
    assert all(writer.blocks[index] == data for index, data in reader.blocks.items())


def test_while_its_head_is_not_compared_it_is_asked_for_nothing_and_gets_no_block() -> None:
    _, reader, link = pair_of()
    reader.replicator.want_block(1)
    run(link)
    link.drops = spoil_blocks(3)
    reader.replicator.want_block(3)
    reader.replicator.handle_timer(0.0)
    link.step()
    link.drops = lambda _sender, _kind, _message: None
    link.step()
    peer = link.peer_of(reader)
    assert "did not verify" in str(peer.paused)
    reader.replicator.want_block(4)
    reader.replicator.handle_timer(0.0)
    assert peer.in_flight == 0
    link.inject(reader, REQUEST, Request(9, 0, block=BlockRequest(1, 0)))
    assert sent(link, reader, NO_DATA)[-1] == NoData(9, NOT_AVAILABLE)
    assert not sent(link, reader, DATA)


def test_the_second_failure_closes_the_channel_and_the_key_is_remembered() -> None:
    writer, reader, link = pair_of()
    link.drops = spoil_blocks(3, 4)
    for index in (3, 4):
        reader.replicator.want_block(index)
        run(link)
    assert not link.open
    (side, error) = link.errors[0]
    assert side is reader
    assert isinstance(error, ReplicationError)
    assert error.scope == "channel"
    assert reader.blocks == {3: b"block 3"}, "the second chance was used for it"
    assert reader.replicator.shunned(KEYS[0], reader.now)
    with pytest.raises(ReplicationError):
        Link(writer, reader, keys=KEYS)
    reader.now = SHUN_TIME - 1
    assert reader.replicator.shunned(KEYS[0], reader.now)
    assert not reader.replicator.shunned(KEYS[1], reader.now)
    reader.now = SHUN_TIME
    run(Link(writer, reader, keys=KEYS))
    assert sorted(reader.blocks) == [3, 4]


def test_a_failure_is_remembered_by_its_key_over_connections() -> None:
    writer, reader, link = pair_of()
    link.drops = spoil_blocks(3)
    reader.replicator.want_block(3)
    run(link)
    assert link.peer_of(reader).failures == 1
    link.cut()
    assert not reader.replicator.shunned(KEYS[0], 0.0)
    other = Link(writer, reader, keys=(b"\x03" * 32, KEYS[1]))
    assert other.peer_of(reader).failures == 0
    other.cut()
    link = Link(writer, reader, keys=KEYS)
    link.drops = spoil_blocks(4)
    reader.replicator.want_block(4)
    run(link)
    assert not link.open, "the second in all"
    assert reader.replicator.shunned(KEYS[0], 0.0)


def test_a_failure_does_not_count_for_ever() -> None:
    writer, reader, link = pair_of()
    link.drops = spoil_blocks(3)
    reader.replicator.want_block(3)
    run(link)
    link.cut()
    for now in (SHUN_TIME / 2, SHUN_TIME - 1):
        reader.now = now
        again = Link(writer, reader, keys=KEYS)
        assert again.peer_of(reader).failures == 1
        again.cut()
    reader.now = SHUN_TIME
    assert Link(writer, reader, keys=KEYS).peer_of(reader).failures == 0


@pytest.mark.parametrize("lasts", [SHUN_TIME / 3, 2 * SHUN_TIME])
def test_a_failure_is_not_counted_anew_by_later_connections(lasts: float) -> None:
    writer, reader, link = pair_of()
    link.drops = spoil_blocks(3)
    reader.replicator.want_block(3)
    run(link)
    link.cut()
    while reader.now < SHUN_TIME:
        again = Link(writer, reader, keys=KEYS)
        assert again.peer_of(reader).failures == 1
        reader.now += lasts
        again.cut()
    assert Link(writer, reader, keys=KEYS).peer_of(reader).failures == 0


def test_another_peer_gives_what_the_bad_one_did_not() -> None:
    writer, reader, link = pair_of()
    link.drops = spoil_blocks(*range(8))
    reader.replicator.want_range(0, None)
    other = Link(writer, reader)
    run(link, other)
    assert_same(reader, writer)


def test_so_many_keys_are_remembered() -> None:
    reader = Side()
    for number in range(MAX_SHUNNED + 1):
        key = number.to_bytes(32, "big")
        peer = reader.replicator.add_peer(lambda *_: True, remote_key=key, now=0.0)
        reader.replicator.peer_failed(peer, ReplicationError("bad", shun=True), 0.0)
    assert not reader.replicator.shunned(bytes(32), 0.0), "the oldest was forgotten"
    shunned = [
        number
        for number in range(MAX_SHUNNED + 1)
        if reader.replicator.shunned(number.to_bytes(32, "big"), 0.0)
    ]
    assert len(shunned) == MAX_SHUNNED


@pytest.mark.parametrize("reason", [NOT_AVAILABLE, INVALID_REQUEST])
def test_a_peer_without_data_is_paused_at_the_32nd_time(reason: int) -> None:
    _, reader, link = pair_of(100)
    link.drops = lambda sender, kind, message: (
        NoData(message.request, reason) if kind == DATA else message
    )
    reader.replicator.want_range(0, 100)
    peer = link.peer_of(reader)
    run(link)
    assert peer.paused is not None
    assert peer.backoffs >= MAX_BACKOFFS
    asked = [m for m in sent(link, reader, REQUEST) if m.block]
    assert len(asked) < 100
    assert len({m.block.index for m in asked}) == len(asked), "no block twice"
    assert not reader.blocks


def test_blocks_that_were_taken_back_meanwhile_do_not_count() -> None:
    writer, reader, link = pair_of(100)
    reader.replicator.want_range(0, 100)
    reader.replicator.handle_timer(0.0)
    writer.log.clear(0, 100)
    run(link)
    peer = link.peer_of(reader)
    assert len(sent(link, writer, NO_DATA)) > MAX_BACKOFFS
    assert (peer.backoffs, peer.paused) == (0, None)
    writer.log.append([b"more"])
    reader.replicator.want_block(100)
    run(link)
    assert reader.blocks == {100: b"more"}


def test_empty_answers_count_like_none() -> None:
    _, reader, link = pair_of(100)
    link.drops = lambda sender, kind, message: (
        Data(message.request, 0, None, None, None, None, None) if kind == DATA else message
    )
    reader.replicator.want_range(0, 100)
    run(link)
    assert link.peer_of(reader).paused is not None
    assert not reader.blocks


def test_senseless_requests_are_refused_late_and_end_the_connection_at_the_64th() -> None:
    writer, _, link = pair_of()
    senseless = Request(1, 0, upgrade=UpgradeRequest(3, 90))
    peer = link.peer_of(writer)
    for count in range(1, MAX_INVALID_REQUESTS):
        link.inject(writer, REQUEST, senseless._replace(id=count))
        assert link.open
    assert not sent(link, writer, NO_DATA)
    due = writer.replicator.next_timer()
    assert due == pytest.approx(0.2)
    for seconds, answered in ((0.2, 1), (0.5, 4), (1.0, 39), (4.9, 39), (5.0, 63)):
        writer.now = seconds
        writer.replicator.handle_timer(seconds)
        assert len(sent(link, writer, NO_DATA)) == answered, seconds
    assert {m.reason for m in sent(link, writer, NO_DATA)} == {INVALID_REQUEST}
    assert peer.invalid_requests == 63
    link.inject(writer, REQUEST, senseless._replace(id=64))
    (side, error) = link.errors[0]
    assert side is writer
    assert isinstance(error, ReplicationError)
    assert error.scope == "connection"
    assert not peer.active
    assert len(writer.told(InvalidRequest)) == 64


def test_answers_to_nothing_close_the_channel_at_the_64th() -> None:
    _, reader, link = pair_of()
    data = Data(77, 0, BlockData(0, b"x", []), None, None, None, None)
    for count in range(1, MAX_UNASKED):
        link.inject(reader, DATA, data._replace(request=1000 + count))
        assert link.peer_of(reader).unasked == count
    link.inject(reader, DATA, data)
    assert isinstance(link.errors[0][1], ReplicationError)
    assert not reader.blocks


def test_refusals_of_nothing_count_too() -> None:
    _, reader, link = pair_of()
    for _ in range(MAX_UNASKED):
        link.inject(reader, NO_DATA, NoData(500, 1))
    assert not link.open


def test_what_was_not_asked_for_in_an_answer_is_not_taken() -> None:
    _, reader, link = pair_of()
    other = BlockData(5, b"block 5", [])

    def swap(_sender: Side, kind: int, message: Any) -> Any:
        return message._replace(block=other) if kind == DATA and message.block else message

    link.drops = swap
    reader.replicator.want_block(3)
    reader.replicator.handle_timer(0.0)
    for _ in range(4):
        link.step()
    assert not reader.blocks
    assert not reader.log.staged_blocks
    assert link.peer_of(reader).unasked > 0
    run(link)
    assert not link.open, "it answers so for ever"


@pytest.mark.parametrize("upgraded", [True, False])
def test_a_history_that_does_not_fold_is_invalid_data_and_no_more(upgraded: bool) -> None:
    writer, reader, link = pair_of()
    upgrade = UpgradeData(0, 8, writer.log.roots[:0], [], b"x" * 64) if upgraded else None
    data = Data(0, 0, None, HashData(0, []), None, upgrade, None)
    link.inject(reader, DATA, data)
    peer = link.peer_of(reader)
    assert peer.unasked + peer.failures == 1
    assert link.open
    broken = UpgradeData(0, 8, writer.log.roots, [writer.log.roots[0]], writer.log.signature)
    link.inject(reader, DATA, Data(0, 0, None, None, None, broken, None))
    link.inject(reader, DATA, Data(0, 0, None, None, None, broken, None))
    assert not link.open
    assert isinstance(link.errors[0][1], ReplicationError)


def test_a_good_history_that_nobody_asked_for_is_counted() -> None:
    writer, reader, link = pair_of()
    history = UpgradeData(0, 8, writer.log.roots, [], writer.log.signature)
    for _ in range(MAX_UNASKED):
        link.inject(reader, DATA, Data(0, 0, None, None, None, history, None))
    assert not link.open, "each costs a signature"


def test_heads_near_the_end_of_numbers_cost_nothing() -> None:
    reader = Side()
    link = Link(Side(), reader)
    reader.replicator.want_range(0, None)
    for sync in (
        Sync(0, 1 << 52, 0, True, True, True, True, False),
        Sync(1 << 40, 1 << 52, 0, True, True, True, True, False),
        Sync((1 << 53) - 1, (1 << 53) - 1, 0, True, True, True, True, False),
        Sync(0, (1 << 53) - 1, 0, True, True, True, True, False),
    ):
        link.inject(reader, SYNC, sync)
        link.inject(reader, RANGE, Range(False, 0, 1 << 50))
        link.inject(reader, RANGE, Range(False, (1 << 53) - 2, 1))
        reader.work()
    peer = link.peer_of(reader)
    assert peer.claims.pieces < 10
    assert peer.in_flight < 10
    assert link.open
    with pytest.raises(DecodeError):
        decode(MESSAGE_CODECS[SYNC], b"\x07\x00\xff" + (1 << 53).to_bytes(8, "little") + b"\x00")


def test_a_peer_has_us_look_into_two_forks_at_most() -> None:
    reader = Side()
    link = Link(Side(), reader)
    for fork in range(1, 6):
        link.inject(reader, SYNC, Sync(fork, 10, 0, True, True, True, True, False))
        assert len(reader.replicator.downloads.forks.searches) <= MAX_SEARCHES
    assert sorted(reader.replicator.downloads.forks.searches) == [4, 5]


def test_blocks_above_the_bound_are_refused() -> None:
    value = bytes(MAX_BLOCK + 1)
    with pytest.raises(EncodeError):
        encode(MESSAGE_CODECS[DATA], Data(1, 0, BlockData(0, value, []), None, None, None, None))
    body = b"\x01\x01\x00\x00\xfe" + len(value).to_bytes(4, "little") + value + b"\x00"
    with pytest.raises(DecodeError):
        decode(MESSAGE_CODECS[DATA], body)


@pytest.mark.parametrize("start", [1, 31, 33])
def test_a_bitfield_off_the_word_is_refused(start: int) -> None:
    _, reader, link = pair_of()
    link.inject(reader, BITFIELD, BitfieldWords(start, b"\xff" * 4))
    assert isinstance(link.errors[0][1], ProtocolError)
    assert not link.open
    assert link.peer_of(reader) not in reader.replicator.peers


def test_so_many_requests_wait_for_a_full_channel() -> None:
    writer, reader, link = pair_of()
    link.end_of(reader).full = True
    for number in range(1, MAX_QUEUED + 2):
        link.inject(writer, REQUEST, Request(number, 0, block=BlockRequest(0, 0)))
        assert link.open
    assert len(link.peer_of(writer).requests) == MAX_QUEUED, "the first was answered"
    link.inject(writer, REQUEST, Request(9999, 0, block=BlockRequest(0, 0)))
    assert not link.open


def test_so_many_wants_wait_for_a_full_channel() -> None:
    writer, reader, link = pair_of()
    link.end_of(reader).full = True
    link.inject(writer, REQUEST, Request(1, 0, block=BlockRequest(0, 0)))
    for number in range(MAX_QUEUED_WANTS + 1):
        assert link.open
        link.inject(writer, WANT, Want(32 * number, 32, False))
    assert not link.open


def test_who_wants_too_much_wants_everything() -> None:
    for wants in (
        [Want(32 * number, 32, False) for number in range(MAX_WANTS + 1)],
        [Want(0, 32 << number, False) for number in range(MAX_WANT_LENGTHS + 1)],
        [Want(number, 1, True) for number in range(MAX_ANY_WANTS + 1)],
        [Want(1, 32, False)],
        [Want(0, 33, False)],
        [Want(0, 16, False)],
    ):
        writer, _, link = pair_of()
        for want in wants[:-1]:
            link.inject(writer, WANT, want)
        peer = link.peer_of(writer)
        assert not peer.remote_wants.everything
        link.inject(writer, WANT, wants[-1])
        assert peer.remote_wants.everything
        assert len(peer.remote_wants) <= 1
        assert peer.remote_wants.touches(1 << 40, (1 << 40) + 1)


def test_a_want_above_the_bound_is_ignored() -> None:
    writer, _, link = pair_of()
    before = len(link.trace)
    link.inject(writer, WANT, Want(0, 1 << 22, False))
    assert len(link.trace) == before
    assert len(link.peer_of(writer).remote_wants) == 0


@pytest.mark.parametrize("seed", range(60))
def test_any_messages_at_all_raise_only_protocol_errors(seed: int) -> None:
    random = Random(seed)
    writer, reader = Side.of(*numbered(20)), Side(seed=seed)
    link = Link(writer, reader)
    run(link)
    reader.replicator.want_range(0, None)
    numbers = (0, 1, 2, 3, 7, 8, 19, 20, 21, 64, 1 << 21, 1 << 50, (1 << 53) - 1)
    nodes = [*writer.log.roots, *(writer.records.nodes[index] for index in (0, 2, 4, 1))]

    def number() -> int:
        return random.choice(numbers)

    def some_nodes() -> list[Any]:
        return [random.choice(nodes) for _ in range(random.randrange(4))]

    def message() -> tuple[int, Any]:
        kind = random.randrange(10)
        flag = random.random() < 0.5
        match kind:
            case 0:
                flags = [random.random() < 0.7 for _ in range(5)]
                return kind, Sync(number(), number(), number(), *flags)
            case 1:
                part = BlockRequest(number(), number()) if flag else None
                upgrade = UpgradeRequest(number(), number()) if random.random() < 0.5 else None
                return kind, Request(
                    number(), 0, part, None, None, upgrade, flag, random.randrange(3)
                )
            case 3:
                block = BlockData(number(), b"block 1", some_nodes()) if flag else None
                upgrade_data = UpgradeData(
                    number(), number(), some_nodes(), some_nodes(), writer.log.signature
                )
                upgrade_or_none = upgrade_data if random.random() < 0.6 else None
                asked = random.choice((0, 1, 2, 3, 4, 5, 9))
                return kind, Data(asked, 0, block, None, None, upgrade_or_none, None)
            case 4:
                return kind, NoData(random.randrange(6), random.randrange(3))
            case 5 | 6:
                return kind, Want(number(), number(), flag)
            case 7:
                return kind, BitfieldWords(
                    number() & ~31, random.randbytes(4 * random.randrange(9))
                )
            case 8:
                return kind, Range(flag, number(), number())
        return RANGE, Range(False, 0, 20)

    for _ in range(300):
        if not link.open:
            link = Link(writer, reader)
        target = random.choice((writer, reader))
        kind, content = message()
        link.inject(target, kind, content)
        for side in (writer, reader):
            side.work()
    assert all(writer.blocks[index] == data for index, data in reader.blocks.items())
    if link.open:
        link.cut()
    link = Link(writer, reader)
    pass_time(700.0, link)
    assert_same(reader, writer)
    assert CANCEL == 2
