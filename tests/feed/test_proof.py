"""Answers to requests: every proof of the vectors, and every request that gets none."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from covey.feed import flat_tree
from covey.feed.growth import MAX_PATH
from covey.feed.hashes import Node
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
from covey.feed.proof import InvalidRequest, NotAvailable, build
from covey.feed.tree import Batch
from covey.keys import KeyPair
from covey.wire.encoding import decode, encode
from tests.feed.plain_logs import PlainLog, ask, node_from
from tests.feed.test_tree import block_of
from tests.vectors_path import load_vectors

VECTORS = load_vectors("merkle")
PROOFS = [(tree, proof) for tree in VECTORS["trees"] for proof in tree["proofs"]]


def name_of(case: tuple[dict[str, Any], dict[str, Any]]) -> str:
    return f"{case[0]['length']}-{case[1]['description']}"


@cache
def nodes_of(length: int) -> dict[int, Node]:
    batch = Batch()
    for index in range(length):
        batch.append(block_of(index))
    return {node.index: node for node in batch.nodes}


def request_from(value: dict[str, Any], fork: int) -> Request:
    pairs = {name: tuple(part.values()) for name, part in value.items()}
    return ask(
        fork=fork,
        block=pairs.get("block"),
        hash_=pairs.get("hash"),
        seek=pairs.get("seek"),
        upgrade=pairs.get("upgrade"),
    )


def nodes_from(values: list[dict[str, Any]]) -> list[Node]:
    return [node_from(value) for value in values]


def data_from(value: dict[str, Any]) -> Data:
    """The proof of a vector as an answer to request 1."""
    block, hash_part, seek, upgrade = (value[name] for name in ("block", "hash", "seek", "upgrade"))
    signature = upgrade and upgrade["signature"] and bytes.fromhex(upgrade["signature"])
    return Data(
        1,
        value["fork"],
        block
        and BlockData(block["index"], bytes.fromhex(block["value"]), nodes_from(block["nodes"])),
        hash_part and HashData(hash_part["index"], nodes_from(hash_part["nodes"])),
        seek and SeekData(seek["bytes"], nodes_from(seek["nodes"])),
        upgrade
        and UpgradeData(
            upgrade["start"],
            upgrade["length"],
            nodes_from(upgrade["nodes"]),
            nodes_from(upgrade["additionalNodes"]),
            signature,
        ),
        None,
    )


@pytest.mark.parametrize("case", PROOFS, ids=name_of)
def test_the_proofs_of_the_vectors(case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    tree, proof = case
    answer = build(
        request_from(proof["request"], tree["fork"]),
        length=tree["length"],
        fork=tree["fork"],
        get_node=nodes_of(tree["length"]).get,
        get_block=block_of,
        signature=bytes.fromhex(tree["signature"]),
        manifest=None,
    )
    assert answer == data_from(proof["proof"])
    assert encode(data_codec, answer).hex() == proof["encodedDataMessage"]
    assert decode(data_codec, bytes.fromhex(proof["encodedDataMessage"])) == answer


@pytest.fixture
def log() -> PlainLog:
    return PlainLog.of(*[bytes([number]) * number for number in range(11)])


def test_another_fork_is_not_available(log: PlainLog) -> None:
    for fork in (1, 2):
        with pytest.raises(NotAvailable) as caught:
            log.build(ask(fork=fork, block=(0, 0)))
        assert caught.value.reason == 1


def test_a_block_that_is_not_held_is_not_available(log: PlainLog) -> None:
    del log.blocks[4]
    for block in (4, 11, 1 << 52):
        with pytest.raises(NotAvailable):
            log.build(ask(block=(block, 0)))


def test_the_manifest_alone_when_the_block_is_not_held(log: PlainLog) -> None:
    del log.blocks[4]
    answer = log.build(ask(block=(4, 1), upgrade=(5, 6), manifest=True))
    assert answer == Data(1, 0, None, None, None, None, log.manifest)


def test_the_manifest_when_it_is_asked_for(log: PlainLog) -> None:
    assert log.build(ask(upgrade=(0, 11), manifest=True)).manifest == log.manifest
    assert log.build(ask(upgrade=(0, 11))).manifest is None
    compat = PlainLog(compat=True)
    compat.append(b"one")
    assert compat.build(ask(upgrade=(0, 1), manifest=True)).manifest is None


def test_a_request_without_parts_gets_an_answer_without_parts(log: PlainLog) -> None:
    assert log.build(ask(identity=9)) == Data(9, 0, None, None, None, None, None)


def test_an_empty_log_has_nothing_to_prove() -> None:
    empty = Data(1, 0, None, None, None, None, None)
    assert PlainLog().build(ask(upgrade=(0, 1))) == empty
    assert PlainLog().build(ask(hash_=(0, 0), seek=(0, 0))) == empty
    with pytest.raises(NotAvailable):
        PlainLog().build(ask(block=(0, 0)))


@pytest.mark.parametrize("upgrade", [(0, 0), (11, 0), (3, 9), (12, 1), (0, 12), (0, (1 << 53) - 1)])
def test_an_upgrade_outside_the_log_is_invalid(log: PlainLog, upgrade: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        log.build(ask(upgrade=upgrade))
    assert caught.value.reason == 2


@pytest.mark.parametrize("levels", [4, MAX_PATH, MAX_PATH + 1, (1 << 53) - 1])
def test_more_levels_than_the_tree_has_are_invalid(log: PlainLog, levels: int) -> None:
    assert log.build(ask(block=(0, 3))).block is not None
    for request in (ask(block=(0, levels)), ask(hash_=(0, levels))):
        with pytest.raises(InvalidRequest):
            log.build(request)


@pytest.mark.parametrize("index", [15, 21, 22, 23, 1 << 52, (1 << 53) - 1])
def test_a_hash_outside_the_log_is_invalid(log: PlainLog, index: int) -> None:
    for request in (ask(hash_=(index, 0)), ask(hash_=(index, 0), upgrade=(3, 8))):
        with pytest.raises(InvalidRequest):
            log.build(request)


def test_a_block_beyond_the_upgrade_is_invalid(log: PlainLog) -> None:
    with pytest.raises(InvalidRequest):
        log.build(ask(block=(7, 0), upgrade=(2, 3)))


def test_a_node_on_the_edge_of_the_old_head_is_invalid(log: PlainLog) -> None:
    # Node 7 has blocks of the old head and of the new part below it.
    with pytest.raises(InvalidRequest):
        log.build(ask(hash_=(7, 0), upgrade=(5, 6), seek=(3, 0)))


def test_a_seek_with_a_block_beyond_the_old_head_is_invalid(log: PlainLog) -> None:
    with pytest.raises(InvalidRequest):
        log.build(ask(block=(7, 0), upgrade=(2, 9), seek=(3, 0)))


@pytest.mark.parametrize("offset", [0, 5, 28, (1 << 53) - 1])
def test_a_seek_outside_the_subtree_is_invalid(log: PlainLog, offset: int) -> None:
    # Blocks 4 to 7 have the bytes 6 to 27.
    assert log.build(ask(hash_=(8, 2), seek=(27, 0))).seek is not None
    with pytest.raises(InvalidRequest):
        log.build(ask(hash_=(8, 2), seek=(offset, 0)))


def test_a_seek_beyond_the_end_has_no_part_of_its_own(log: PlainLog) -> None:
    answer = log.build(ask(seek=(1000, 0), upgrade=(0, 11)))
    assert answer.seek is None
    assert answer.upgrade is not None


def test_a_seek_alone_has_no_answer(log: PlainLog) -> None:
    assert log.build(ask(seek=(3, 0))) == Data(1, 0, None, None, None, None, None)


def test_a_seek_with_padding_counts_what_is_left_of_each_block() -> None:
    padded = PlainLog.of(*[bytes(8 + number) for number in range(8)])
    plain = PlainLog.of(*[bytes(number) for number in range(8)])
    for offset in range(28):
        for parts in (ask(seek=(offset, 8), upgrade=(0, 8)), ask(seek=(offset, 8), hash_=(0, 3))):
            assert parts.seek is not None
            plainly = parts._replace(seek=parts.seek._replace(padding=0))
            assert seek_path(padded.build(parts)) == seek_path(plain.build(plainly))


def seek_path(data: Data) -> list[int] | None:
    return None if data.seek is None else [node.index for node in data.seek.nodes]


@pytest.mark.parametrize(
    ("missing", "request_"),
    [
        (8, ask(block=(5, 3))),
        (13, ask(block=(5, 3))),
        (10, ask(hash_=(10, 0))),
        (17, ask(upgrade=(6, 4))),
        (18, ask(upgrade=(6, 3))),
        (20, ask(seek=(1, 0), upgrade=(0, 11))),
        (7, ask(hash_=(8, 2), seek=(7, 0))),
    ],
)
def test_a_node_that_is_not_here_is_not_available(
    log: PlainLog, missing: int, request_: Request
) -> None:
    log.build(request_)
    del log.nodes[missing]
    with pytest.raises(NotAvailable):
        log.build(request_)


def test_a_seek_stops_where_the_nodes_end(log: PlainLog) -> None:
    for index in (8, 10):
        del log.nodes[index]
    seek = log.build(ask(seek=(7, 0), upgrade=(0, 11))).seek
    assert seek is not None
    assert [node.index for node in seek.nodes] == [9, 13, 3]


@pytest.mark.parametrize("missing", [1, 5])
@pytest.mark.parametrize("offset", range(1, 9))
def test_a_seek_does_not_go_below_nodes_of_which_one_is_not_here(
    log: PlainLog, missing: int, offset: int
) -> None:
    whole = seek_path(log.build(ask(seek=(offset, 0), upgrade=(0, 11))))
    del log.nodes[missing]
    path = seek_path(log.build(ask(seek=(offset, 0), upgrade=(0, 11))))
    assert whole is not None
    assert path == ([3, 11] if whole[0] < 7 and whole[0] != 3 else whole)


def test_a_seek_below_a_node_whose_place_is_not_known(log: PlainLog) -> None:
    del log.nodes[3]
    with pytest.raises(NotAvailable):
        log.build(ask(hash_=(8, 2), seek=(7, 0)))


def with_prologue(length: int, *signers: KeyPair) -> PlainLog:
    blocks = [bytes([number]) for number in range(length)]
    plain = Batch()
    for block in blocks:
        plain.append(block)
    manifest = Manifest(
        signers=tuple(Signer(pair.public_key) for pair in signers),
        prologue=Prologue(plain.tree_hash(), length),
    )
    log = PlainLog(manifest=manifest)
    log.append(*blocks)
    return log


def test_a_prologue_is_sent_whole_and_the_rest_as_additional_nodes() -> None:
    log = with_prologue(5, PlainLog().pair)
    log.append(b"more", b"of", b"it")
    for upgrade in ((0, 8), (0, 5), (0, 2), (3, 1)):
        part = log.build(ask(upgrade=upgrade)).upgrade
        assert part is not None
        assert part[:2] == (0, 5)
        assert [node.index for node in part.nodes] == [3, 8]
        assert [node.index for node in part.additional_nodes] == [10, 13]
        assert part.signature == log.signature
    after = log.build(ask(upgrade=(5, 3))).upgrade
    assert after is not None
    assert after[:2] == (5, 3)


def test_a_static_log_is_sent_without_a_signature() -> None:
    part = with_prologue(5).build(ask(upgrade=(0, 5))).upgrade
    assert part is not None
    assert (part.signature, [node.index for node in part.nodes]) == (None, [3, 8])


def test_roots_of_every_length_are_full(log: PlainLog) -> None:
    for start in range(11):
        for length in range(1, 12 - start):
            part = log.build(ask(upgrade=(start, length))).upgrade
            assert part is not None
            spans = [flat_tree.left_span(node.index) for node in part.nodes]
            assert spans == sorted(spans)
            assert all(span >= 2 * start for span in spans)
