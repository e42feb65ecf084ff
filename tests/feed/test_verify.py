"""Answers verified: vectors, random logs and requests, and everything that lies."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import ProtocolError, VerifyError
from covey.feed import flat_tree
from covey.feed.growth import MAX_GROWTH, MAX_PATH
from covey.feed.hashes import Node, leaf_node, parent_node
from covey.feed.manifest import Manifest, Prologue, Signer
from covey.feed.messages import (
    BlockData,
    Data,
    HashData,
    Request,
    SeekData,
    UpgradeData,
    data_codec,
)
from covey.feed.proof import ProofError
from covey.feed.signatures import Authority
from covey.feed.tree import MAX_LENGTH, Batch
from covey.feed.verify import StaleProof, Verified, matches
from covey.keys import KeyPair
from covey.wire.codec import MAX_UINT
from covey.wire.encoding import decode, encode
from tests.feed.plain_logs import PAIR, PlainLog, ask, node_from
from tests.feed.test_proof import PROOFS, data_from, name_of, nodes_of, request_from, with_prologue
from tests.feed.test_tree import VECTORS, block_of

Scene = tuple[PlainLog, PlainLog, Request]


def check_truth(writer: PlainLog, verified: Verified) -> None:
    """Nothing but what the writer has, claims too but for their sizes."""
    for node in verified.nodes:
        assert writer.nodes[node.index] == node
    for node in verified.claimed:
        assert writer.nodes[node.index].hash == node.hash
    if verified.block is not None:
        assert writer.blocks[verified.block[0]] == verified.block[1]
    if verified.upgrade is not None:
        head = verified.upgrade
        assert (head.fork, head.length, head.roots) == (writer.fork, writer.length, writer.roots)
        assert head.byte_length == sum(map(len, writer.blocks.values()))
        assert set(head.roots) <= {*verified.nodes, *writer.nodes.values()}


def reader_of(tree: dict[str, Any], request: dict[str, Any]) -> PlainLog:
    """One that holds what the request of a vector says: a head, and the node it wants to reach."""
    pair = KeyPair.from_seed(bytes.fromhex(VECTORS["keyPairSeed"]))
    reader = PlainLog(pair)
    upgrade = request.get("upgrade")
    length = tree["length"] if upgrade is None else upgrade["start"]
    nodes = nodes_of(tree["length"])
    reader.roots = [nodes[index] for index in flat_tree.full_roots(length)]
    reader.nodes = {root.index: root for root in reader.roots}
    reader.length = length
    for part, factor in (("block", 2), ("hash", 1)):
        if part in request:
            top = factor * request[part]["index"]
            for _ in range(request[part]["nodes"]):
                top = flat_tree.parent(top)
            if flat_tree.right_span(top) < 2 * length:
                reader.nodes[top] = nodes[top]
    return reader


@pytest.mark.parametrize("case", PROOFS, ids=name_of)
def test_the_proofs_of_the_vectors_verify(case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    tree, proof = case
    reader = reader_of(tree, proof["request"])
    assert reader.authority.key.hex() == VECTORS["coreKey"]
    data = data_from(proof["proof"])
    assert matches(data, request_from(proof["request"], tree["fork"]))
    verified = reader.verify(data)
    nodes = nodes_of(tree["length"])
    for node in (*verified.nodes, *verified.claimed):
        assert nodes[node.index] == node
    if data.upgrade is not None:
        assert verified.upgrade is not None
        assert verified.upgrade.roots == [node_from(root) for root in tree["roots"]]
        assert verified.upgrade.byte_length == tree["byteLength"]
    if data.block is not None:
        assert verified.block == (data.block.index, block_of(data.block.index))


def draw_node(draw: Callable[..., Any], reader: PlainLog, length: int) -> tuple[int, int]:
    """A node of a tree of `length` blocks, and the levels that the reader lacks above it."""
    node = 2 * draw(st.integers(0, length - 1))
    for _ in range(draw(st.integers(0, 3))):
        above = flat_tree.parent(node)
        if flat_tree.right_span(above) >= 2 * length:
            break
        node = above
    levels = 0
    top = node
    if flat_tree.right_span(node) < 2 * reader.length:
        while top not in reader.nodes:
            levels += 1
            top = flat_tree.parent(top)
    return node, levels


def offset_below(writer: PlainLog, top: int) -> tuple[int, int]:
    first, last = flat_tree.left_span(top) >> 1, flat_tree.right_span(top) >> 1
    start = sum(len(writer.blocks[block]) for block in range(first))
    return start, sum(len(writer.blocks[block]) for block in range(first, last + 1))


@st.composite
def scenes(draw: Callable[..., Any]) -> Scene:
    """A writer, a reader that holds a part of its log, and a request that makes sense."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=40))
    blocks = [bytes([number]) * size for number, size in enumerate(sizes)]
    writer = PlainLog.of(*blocks)
    length = draw(st.integers(0, len(blocks)))
    reader = PlainLog()
    if length:
        older = PlainLog.of(*blocks[:length])
        reader.catch_up(older)
        reader.fetch(older, draw(st.sets(st.integers(0, length - 1), max_size=6)))
    upgrade = None
    end = length
    if length < len(blocks) and (length == 0 or draw(st.booleans())):
        end = draw(st.integers(length + 1, len(blocks)))
        upgrade = (length, end - length)
    kind = draw(st.sampled_from(["nothing", "block", "hash"]))
    block = hash_ = seek = None
    top = None
    if kind == "block":
        index = draw(st.integers(0, end - 1))
        block = (index, reader.missing(index))
        top = 2 * index if index < length else None
    elif kind == "hash":
        node, levels = draw_node(draw, reader, end)
        old = flat_tree.right_span(node) < 2 * length
        if not old and flat_tree.left_span(node) < 2 * length:
            kind = "nothing"  # it spans the old head's end: no upgrade goes through it
        else:
            hash_ = (node, levels)
            top = node if old else None
    if kind == "nothing" and upgrade is not None and draw(st.booleans()):
        seek = (draw(st.integers(0, sum(sizes[:end]) + 1)), 0)
    elif top is not None and draw(st.booleans()):
        for _ in range((block or hash_ or (0, 0))[1]):
            top = flat_tree.parent(top)
        start, size = offset_below(writer, top)
        if size:
            seek = (start + draw(st.integers(0, size - 1)), 0)
    return writer, reader, ask(block=block, hash_=hash_, seek=seek, upgrade=upgrade)


@given(scenes())
def test_what_is_built_verifies(scene: Scene) -> None:
    writer, reader, request = scene
    data = writer.answer(request)
    assert data == writer.build(request)
    assert matches(data, request)
    verified = reader.take(data)
    check_truth(writer, verified)
    assert (verified.upgrade is None) == (request.upgrade is None)
    assert (verified.block is None) == (request.block is None)
    for index in (*verified.nodes, *verified.claimed):
        assert index.size == writer.nodes[index.index].size
    if request.block is not None:
        assert 2 * request.block.index in reader.nodes
    if request.hash is not None:
        known = {node.index for node in verified.claimed} | set(reader.nodes)
        assert request.hash.index in known
    for root in reader.roots:
        assert reader.nodes[root.index] == root


@given(scenes(), st.integers(), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_changes_nothing_that_counts(
    scene: Scene, position: int, mask: int
) -> None:
    writer, reader, request = scene
    wire = bytearray(encode(data_codec, writer.build(request)))
    wire[position % len(wire)] ^= mask
    try:
        data = decode(data_codec, bytes(wire))
        if not matches(data, request):
            return
        verified = reader.verify(data)
    except (ProtocolError, VerifyError):
        return
    check_truth(writer, verified)


def lists_of(data: Data) -> list[Any]:
    """The node lists of an answer that are not empty."""
    found: list[Any] = [
        part.nodes for part in (data.block, data.hash, data.seek, data.upgrade) if part
    ]
    if data.upgrade is not None:
        found.append(data.upgrade.additional_nodes)
    return [nodes for nodes in found if nodes]


def tampered(data: Data, change: str, chance: random.Random) -> bool:
    """Change a list of `data` in place; whether there was something to change."""
    lists = lists_of(data)
    if not lists:
        return False
    nodes = chance.choice(lists)
    at = chance.randrange(len(nodes))
    node = nodes[at]
    if change == "drop":
        del nodes[at]
    elif change == "swap":
        other = chance.randrange(len(nodes))
        nodes[at], nodes[other] = nodes[other], nodes[at]
        return at != other
    elif change == "repeat":
        nodes.insert(at, node)
    elif change == "append":
        index = flat_tree.sibling(flat_tree.parent(nodes[-1].index))
        nodes.append(Node(index, 1, bytes(32)))
    elif change == "hash":
        nodes[at] = node._replace(hash=bytes(32))
    elif change == "size":
        nodes[at] = node._replace(size=node.size + chance.choice([1, 1 << 40]))
    else:
        nodes[at] = node._replace(index=chance.choice([node.index + 2, 0, MAX_UINT]))
        return bool(nodes[at] != node)
    return True


CHANGES = ["drop", "swap", "repeat", "append", "hash", "size", "index"]


@given(scenes(), st.sampled_from(CHANGES), st.integers())
def test_a_changed_list_of_nodes_is_refused(scene: Scene, change: str, seed: int) -> None:
    writer, reader, request = scene
    data = decode(data_codec, encode(data_codec, writer.build(request)))
    unchanged = writer.build(request)
    if tampered(data, change, random.Random(seed)):
        try:
            verified = reader.verify(data)
        except VerifyError:
            return
        # A seek may begin with either of two siblings: that is the same proof.
        assert change == "swap"
        assert data.seek is not None
        assert verified._replace(claimed=()) == reader.verify(unchanged)._replace(claimed=())


@given(scenes(), scenes())
def test_the_answer_to_another_request_gives_nothing_wrong(one: Scene, two: Scene) -> None:
    writer, _, request = one
    other = PlainLog.of(*two[0].blocks.values())
    try:
        verified = two[1].verify(writer.build(request))
    except VerifyError:
        return
    if writer.blocks == other.blocks:
        check_truth(writer, verified)
    elif verified.upgrade is None:
        for node in verified.nodes:
            assert other.nodes[node.index] == node


@pytest.fixture
def writer() -> PlainLog:
    return PlainLog.of(*[bytes([number]) * (number + 1) for number in range(11)])


@pytest.fixture
def reader(writer: PlainLog) -> PlainLog:
    log = PlainLog()
    log.catch_up(PlainLog.of(*[writer.blocks[block] for block in range(8)]))
    return log


def test_the_path_of_a_block_ends_at_a_node_that_is_here(
    writer: PlainLog, reader: PlainLog
) -> None:
    verified = reader.take(writer.answer(ask(block=(2, 3))))
    assert [node.index for node in verified.nodes] == [4, 6, 5, 1, 3, 11]
    assert (verified.block, verified.upgrade) == ((2, b"\2\2\2"), None)
    assert reader.take(writer.answer(ask(block=(3, 0)))).nodes == []


def test_a_path_that_nothing_here_vouches_for(writer: PlainLog, reader: PlainLog) -> None:
    with pytest.raises(VerifyError, match="vouches"):
        reader.verify(writer.build(ask(block=(2, 1))))
    with pytest.raises(VerifyError, match="vouches"):
        reader.verify(writer.build(ask(hash_=(5, 0))))


def test_nodes_beyond_the_head_are_refused(writer: PlainLog, reader: PlainLog) -> None:
    reader.nodes |= writer.nodes
    for request in (ask(block=(9, 1)), ask(hash_=(17, 0)), ask(block=(8, 0), seek=(40, 0))):
        with pytest.raises(VerifyError, match="beyond the head"):
            reader.verify(writer.build(request))


def test_another_fork_is_refused(writer: PlainLog, reader: PlainLog) -> None:
    answer = writer.build(ask(block=(2, 3)))
    with pytest.raises(VerifyError, match="fork"):
        reader.verify(answer._replace(fork=1))


def test_a_block_that_no_log_has_is_refused(reader: PlainLog) -> None:
    for index in (MAX_LENGTH, MAX_UINT):
        block = BlockData(index, b"x", [])
        seek = SeekData(0, [Node(0, 1, bytes(32))])
        for data in (
            Data(1, 0, block, None, None, None, None),
            Data(1, 0, block, None, seek, None, None),
        ):
            with pytest.raises(VerifyError):
                reader.verify(data)


def long_path(length: int) -> list[Node]:
    path = []
    node = 0
    for _ in range(length):
        path.append(Node(flat_tree.sibling(node), 1, bytes(32)))
        node = flat_tree.parent(node)
    return path


def test_paths_are_not_folded_without_end(reader: PlainLog) -> None:
    path = long_path(MAX_PATH + 1)
    first = Node(0, 1, bytes(32))
    for data in (
        Data(1, 0, BlockData(0, b"x", path), None, None, None, None),
        Data(1, 0, BlockData(0, b"x", path), None, SeekData(0, [first]), None, None),
        Data(1, 0, None, HashData(0, [first, *path]), None, None, None),
        Data(1, 0, None, None, SeekData(0, [first, *path]), None, None),
    ):
        with pytest.raises(VerifyError, match="path of"):
            reader.verify(data)
    most = Data(1, 0, BlockData(0, b"x", path[:-1]), None, None, None, None)
    with pytest.raises(VerifyError, match="beyond the head"):
        reader.verify(most)


def test_upgrades_of_too_many_nodes_are_refused(writer: PlainLog) -> None:
    answer = writer.build(ask(upgrade=(0, 11)))
    assert answer.upgrade is not None
    many = [Node(22, 1, bytes(32))] * (MAX_GROWTH + 1)
    for upgrade in (
        answer.upgrade._replace(nodes=many),
        answer.upgrade._replace(additional_nodes=many),
    ):
        with pytest.raises(VerifyError, match="too many nodes"):
            PlainLog().verify(answer._replace(upgrade=upgrade))


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 0), (11, 0), (0, MAX_LENGTH + 1), (MAX_UINT, MAX_UINT), (0, MAX_LENGTH), (12, 3)],
)
def test_upgrades_that_no_log_can_have_are_refused(
    writer: PlainLog, start: int, length: int
) -> None:
    answer = writer.build(ask(upgrade=(0, 11)))
    assert answer.upgrade is not None
    upgrade = answer.upgrade._replace(start=start, length=length)
    with pytest.raises(VerifyError):
        PlainLog().verify(answer._replace(upgrade=upgrade))


def test_additional_nodes_beyond_the_largest_log_are_refused(writer: PlainLog) -> None:
    answer = writer.build(ask(upgrade=(0, 11)))
    assert answer.upgrade is not None
    for index in (MAX_UINT, MAX_UINT - 1, (1 << 52) - 1, 1 << 52):
        extra = [Node(index, 1, bytes(32))]
        upgrade = answer.upgrade._replace(additional_nodes=extra)
        with pytest.raises(VerifyError):
            PlainLog().verify(answer._replace(upgrade=upgrade))


def test_a_head_whose_size_is_not_a_number_any_more_is_refused() -> None:
    log = PlainLog()
    log.roots = [Node(0, MAX_UINT, bytes(32))]
    log.length = 1
    log.sign()
    assert log.signature is not None
    whole = UpgradeData(0, 1, log.roots, [], log.signature)
    fits = PlainLog().verify(Data(1, 0, None, None, None, whole, None))
    assert fits.upgrade is not None
    assert fits.upgrade.byte_length == MAX_UINT
    log.roots = [parent_node(log.roots[0], Node(2, 1, bytes(32)))]
    log.length = 2
    log.sign()
    parts = UpgradeData(
        0, 1, [Node(0, MAX_UINT, bytes(32))], [Node(2, 1, bytes(32))], log.signature
    )
    for upgrade in (parts, UpgradeData(0, 2, log.roots, [], log.signature)):
        with pytest.raises(VerifyError, match="bytes"):
            PlainLog().verify(Data(1, 0, None, None, None, upgrade, None))


def test_a_path_whose_size_is_not_a_number_any_more_is_refused() -> None:
    reader = PlainLog()
    path = [Node(2, MAX_UINT, bytes(32))]
    top = parent_node(leaf_node(0, b"x"), path[0])
    reader.nodes[1] = top
    reader.length = 2
    with pytest.raises(VerifyError):
        reader.verify(Data(1, 0, BlockData(0, b"x", path), None, None, None, None))


def test_nodes_left_over_are_refused(writer: PlainLog, reader: PlainLog) -> None:
    answer = writer.build(ask(upgrade=(8, 3)))
    assert answer.upgrade is not None
    nodes = [*answer.upgrade.nodes, Node(22, 1, bytes(32))]
    with pytest.raises(VerifyError, match="left over"):
        reader.verify(answer._replace(upgrade=answer.upgrade._replace(nodes=nodes)))


def test_a_wrong_or_missing_signature_is_refused(writer: PlainLog, reader: PlainLog) -> None:
    answer = writer.build(ask(upgrade=(8, 3)))
    assert answer.upgrade is not None
    assert answer.upgrade.signature is not None
    for signature in (None, b"", answer.upgrade.signature[:40], reader.signature):
        with pytest.raises(VerifyError):
            reader.verify(answer._replace(upgrade=answer.upgrade._replace(signature=signature)))


def test_the_upgrade_takes_the_block_as_one_of_its_nodes(
    writer: PlainLog, reader: PlainLog
) -> None:
    verified = reader.take(writer.answer(ask(block=(9, 0), upgrade=(8, 3))))
    assert verified.block == (9, b"\x09" * 10)
    assert sorted(node.index for node in verified.nodes) == [16, 17, 18, 20]
    assert reader.length == 11


def test_an_old_block_beside_an_upgrade_is_held_against_what_is_here(
    writer: PlainLog, reader: PlainLog
) -> None:
    answer = writer.build(ask(block=(2, 3), upgrade=(8, 3)))
    assert answer.block is not None
    with pytest.raises(VerifyError):
        reader.verify(answer._replace(block=answer.block._replace(value=b"\2\2\3")))
    check_truth(writer, reader.take(answer))


def test_the_seek_part_is_folded_first_and_becomes_a_sibling_of_the_path(
    writer: PlainLog, reader: PlainLog
) -> None:
    answer = writer.build(ask(hash_=(0, 3), seek=(20, 0)))
    assert answer.seek is not None
    assert answer.hash is not None
    # The place in question is below node 11, which is therefore not in the path.
    assert [node.index for node in answer.hash.nodes] == [0, 2, 5]
    assert answer.seek.nodes[0].index >= 8
    for bad in (
        answer._replace(seek=None),
        answer._replace(seek=SeekData(20, answer.seek.nodes[:-1])),
        answer._replace(hash=HashData(0, answer.hash.nodes[:-1])),
    ):
        with pytest.raises(VerifyError):
            reader.verify(bad)
    verified = reader.take(answer)
    check_truth(writer, verified)
    assert {9, 13, 11, 3} & {node.index for node in verified.nodes}


def test_a_seek_that_ends_in_the_node_asked_for(writer: PlainLog, reader: PlainLog) -> None:
    seek = SeekData(0, [writer.nodes[0], writer.nodes[2]])
    path = HashData(1, [writer.nodes[5], writer.nodes[11]])
    verified = reader.verify(Data(1, 0, None, path, seek, None, None))
    check_truth(writer, verified)
    assert [node.index for node in verified.claimed] == [0, 2]


def moved(nodes: Sequence[Node]) -> list[Node]:
    """A byte goes from the second node to the first: their parent is the same."""
    first, second, *rest = nodes
    return [first._replace(size=first.size + 1), second._replace(size=second.size - 1), *rest]


def test_sizes_that_nothing_proves_are_claims(writer: PlainLog, reader: PlainLog) -> None:
    answer = writer.build(ask(hash_=(4, 3)))
    assert answer.hash is not None
    verified = reader.take(answer._replace(hash=HashData(4, moved(answer.hash.nodes))))
    assert [node.index for node in verified.claimed] == [4, 6]
    assert [node.index for node in verified.nodes] == [5, 1, 3, 11]
    check_truth(writer, verified)
    # With the node above proven, a block proves the sizes of both.
    check_truth(writer, reader.take(writer.answer(ask(block=(2, 1)))))
    assert reader.nodes[6] == writer.nodes[6]
    # Beside a node that is here, a size cannot be claimed any more.
    again = writer.build(ask(hash_=(4, 3)))
    assert again.hash is not None
    assert reader.verify(again).claimed == []
    with pytest.raises(VerifyError):
        reader.verify(again._replace(hash=HashData(4, moved(again.hash.nodes))))


def test_sizes_that_an_upgrade_only_claims(writer: PlainLog) -> None:
    answer = writer.build(ask(upgrade=(0, 9)))
    assert answer.upgrade is not None
    assert [node.index for node in answer.upgrade.nodes] == [7, 16]
    assert [node.index for node in answer.upgrade.additional_nodes] == [18, 20]
    sixteen, eighteen = moved([writer.nodes[16], writer.nodes[18]])
    upgrade = answer.upgrade._replace(
        nodes=[writer.nodes[7], sixteen], additional_nodes=[eighteen, writer.nodes[20]]
    )
    verified = PlainLog().take(answer._replace(upgrade=upgrade))
    assert [node.index for node in verified.claimed] == [16, 18]
    assert [node.index for node in verified.nodes] == [7, 17, 20]
    check_truth(writer, verified)


def test_whoever_stores_claims_gets_them_mended_by_the_block(
    writer: PlainLog, reader: PlainLog
) -> None:
    answer = writer.build(ask(hash_=(4, 3)))
    assert answer.hash is not None
    verified = reader.take(answer._replace(hash=HashData(4, moved(answer.hash.nodes))))
    reader.nodes.update((node.index, node) for node in verified.claimed)
    mended = reader.take(writer.answer(ask(block=(2, 0))))
    assert mended.nodes == [writer.nodes[4], writer.nodes[6]]
    with pytest.raises(VerifyError):
        reader.verify(Data(1, 0, None, HashData(4, moved([*mended.nodes])[:1]), None, None, None))


def test_an_answer_that_is_no_news_any_more_keeps_its_nodes_only(
    writer: PlainLog, reader: PlainLog
) -> None:
    late = PlainLog.of(*[writer.blocks[block] for block in range(10)])
    answer = late.answer(ask(block=(9, 0), upgrade=(8, 2)))
    bare = late.answer(ask(upgrade=(8, 2)))
    reader.take(answer)
    assert reader.length == 10
    again = reader.take(answer)
    assert (again.upgrade, again.block) == (None, (9, b"\x09" * 10))
    assert reader.verify(bare) == Verified([], None, None, None)
    reader.catch_up(writer)
    old = reader.verify(answer)
    assert old.upgrade is None
    check_truth(writer, old)


def test_a_late_answer_that_cannot_be_checked_any_more_is_stale(
    writer: PlainLog, reader: PlainLog
) -> None:
    late = PlainLog.of(*[writer.blocks[block] for block in range(10)])
    answer = late.answer(ask(block=(9, 0), upgrade=(8, 2)))
    reader.catch_up(writer)
    del reader.nodes[17]
    with pytest.raises(StaleProof):
        reader.verify(answer)


def test_an_upgrade_from_a_head_before_ours_is_stale(writer: PlainLog) -> None:
    reader = PlainLog.of(*[writer.blocks[block] for block in range(9)])
    answer = writer.answer(ask(upgrade=(8, 3)))
    with pytest.raises(StaleProof):
        reader.verify(answer)
    with pytest.raises(StaleProof):
        reader.verify(writer.answer(ask(upgrade=(4, 7))))


def test_an_upgrade_from_a_head_before_ours_serves_where_the_roots_are_the_same(
    writer: PlainLog,
) -> None:
    reader = PlainLog.of(*[writer.blocks[block] for block in range(10)])
    answer = writer.answer(ask(upgrade=(0, 11)))
    assert answer.upgrade is not None
    assert [node.index for node in answer.upgrade.nodes] == [7, 17, 20]
    last = answer.upgrade._replace(nodes=answer.upgrade.nodes[-1:])
    check_truth(writer, reader.take(answer._replace(upgrade=last)))
    assert reader.length == 11


def test_an_upgrade_from_beyond_our_head_is_refused(writer: PlainLog, reader: PlainLog) -> None:
    with pytest.raises(VerifyError) as caught:
        reader.verify(writer.build(ask(upgrade=(9, 2))))
    assert not isinstance(caught.value, StaleProof)


def test_an_answer_without_parts_proves_nothing(reader: PlainLog) -> None:
    assert reader.verify(Data(1, 0, None, None, None, None, None)) == Verified([], None, None, None)
    empty = SeekData(3, [])
    assert reader.verify(Data(1, 0, None, None, empty, None, None)).nodes == []
    with pytest.raises(VerifyError):
        reader.verify(Data(1, 0, None, HashData(3, []), None, None, None))


def test_the_manifest_comes_with_the_first_head(writer: PlainLog) -> None:
    reader = PlainLog()
    reader.authority = Authority(writer.manifest.key, None)
    without = writer.build(ask(upgrade=(0, 11)))
    with pytest.raises(VerifyError):
        reader.verify(without)
    answer = writer.answer(ask(upgrade=(0, 11), manifest=True))
    other = Manifest(signers=(Signer(KeyPair.from_seed(bytes(32)).public_key),))
    with pytest.raises(VerifyError):
        reader.verify(answer._replace(manifest=other))
    alone = reader.verify(answer._replace(upgrade=None))
    assert (alone.manifest, alone.nodes) == (writer.manifest, [])
    assert reader.take(answer).manifest == writer.manifest
    assert reader.verify(writer.answer(ask(block=(1, 3), manifest=True))).manifest is None


def test_a_compat_log_needs_no_manifest() -> None:
    writer = PlainLog(compat=True)
    writer.append(b"one", b"two")
    reader = PlainLog(compat=True)
    answer = writer.answer(ask(upgrade=(0, 2)))
    named = reader.verify(answer._replace(manifest=writer.manifest))
    assert named.manifest is None
    assert named.upgrade is not None
    reader.take(answer)
    assert reader.length == 2
    with pytest.raises(VerifyError):
        reader.verify(
            PlainLog.of(b"one", b"two", b"three").build(ask(upgrade=(2, 1), manifest=True))
        )


def prologue_reader(writer: PlainLog) -> PlainLog:
    return PlainLog(manifest=writer.manifest)


def test_a_prologue_is_taken_whole() -> None:
    writer = with_prologue(5, PAIR)
    reader = prologue_reader(writer)
    reader.take(writer.answer(ask(upgrade=(0, 5))))
    assert (reader.length, reader.signature) == (5, None)
    writer.append(b"more", b"of", b"it")
    for log in (reader, prologue_reader(writer)):
        verified = log.take(writer.answer(ask(upgrade=(log.length, 8 - log.length))))
        check_truth(writer, verified)
        assert log.length == 8


def test_heads_inside_a_prologue_or_beside_it_are_refused() -> None:
    writer = with_prologue(5, PAIR)
    reader = prologue_reader(writer)
    writer.append(b"more", b"of", b"it")
    plain = PlainLog.of(*writer.blocks.values())
    signed = plain.authority
    for length in (1, 3, 4):
        answer = plain.build(ask(upgrade=(0, length)))
        with pytest.raises(VerifyError, match="prologue"):
            reader.verify(answer)
    other = PlainLog(manifest=writer.manifest)
    other.authority = signed
    other.append(*[b"%d" % number for number in range(8)])
    other.authority = writer.authority
    other.sign()
    answer = other.build(ask(upgrade=(0, 8)))
    with pytest.raises(VerifyError, match="prologue"):
        reader.verify(answer)


def test_a_static_log_needs_no_signature_and_takes_no_other() -> None:
    writer = with_prologue(5)
    reader = prologue_reader(writer)
    answer = writer.answer(ask(upgrade=(0, 5), block=(3, 0)))
    assert answer.upgrade is not None
    check_truth(writer, reader.take(answer))
    longer = Batch(writer.roots, 5)
    longer.append(b"six")
    bad = answer.upgrade._replace(additional_nodes=[longer.nodes[0]], signature=bytes(68))
    with pytest.raises(VerifyError):
        prologue_reader(writer).verify(answer._replace(upgrade=bad))
    assert Prologue(bytes(32), 5) != writer.manifest.prologue


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        (ask(identity=2, block=(1, 0)), ask(block=(1, 0))),
        (ask(fork=1, block=(1, 0)), ask(block=(1, 0))),
        (ask(block=(1, 0)), ask(block=(2, 0))),
        (ask(upgrade=(0, 11)), ask(block=(2, 0))),
        (ask(hash_=(1, 0)), ask(hash_=(3, 0))),
        (ask(block=(1, 0)), ask(hash_=(3, 0))),
        (ask(block=(1, 0)), ask(upgrade=(0, 11))),
        (ask(seek=(9, 0), upgrade=(0, 11)), ask(seek=(8, 0), upgrade=(0, 11))),
        (ask(upgrade=(0, 11)), ask(seek=(8, 0), upgrade=(0, 11))),
        (ask(upgrade=(0, 11)), ask(upgrade=(0, 11), manifest=True)),
    ],
)
def test_an_answer_with_something_that_was_not_asked_for(
    writer: PlainLog, request_: Request, data: Request
) -> None:
    answer = writer.build(data)
    assert matches(answer, data)
    assert not matches(answer, request_)


NUMBERS = st.one_of(
    st.integers(0, 24), st.sampled_from([1 << 31, (1 << 52) - 1, 1 << 52, MAX_UINT - 1, MAX_UINT])
)
SOME_NODES = st.lists(
    st.builds(Node, NUMBERS, NUMBERS, st.sampled_from([bytes(32), bytes([1]) * 32])), max_size=4
)
ANSWERS = st.builds(
    Data,
    st.just(1),
    st.just(0),
    st.none() | st.builds(BlockData, NUMBERS, st.just(b"x"), SOME_NODES),
    st.none() | st.builds(HashData, NUMBERS, SOME_NODES),
    st.none() | st.builds(SeekData, NUMBERS, SOME_NODES),
    st.none() | st.builds(UpgradeData, NUMBERS, NUMBERS, SOME_NODES, SOME_NODES, st.none()),
    st.none(),
)
PAIRS = st.none() | st.tuples(NUMBERS, NUMBERS)
REQUESTS = st.builds(
    ask, block=PAIRS, hash_=PAIRS, seek=PAIRS, upgrade=PAIRS, manifest=st.booleans()
)


@given(ANSWERS, st.integers(0, 12))
def test_any_answer_is_refused_or_gives_nothing_wrong(data: Data, length: int) -> None:
    reader = PlainLog.of(*[bytes([number]) for number in range(length)])
    try:
        verified = reader.verify(data)
    except VerifyError:
        return
    assert verified.upgrade is None
    check_truth(reader, verified)


@given(REQUESTS, st.integers(0, 12))
def test_any_request_is_refused_or_gets_an_answer_that_fits(request_: Request, length: int) -> None:
    writer = PlainLog.of(*[bytes([number]) * (number + 8) for number in range(length)])
    try:
        data = writer.answer(request_)
    except ProofError:
        return
    assert matches(data, request_)
    for part in lists_of(data):
        assert len(part) <= MAX_PATH
        for node in part:
            assert writer.nodes[node.index] == node
