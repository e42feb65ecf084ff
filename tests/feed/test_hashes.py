"""Leaf, parent and tree hashes: every case of the vectors, and nodes on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import DecodeError, EncodeError
from covey.feed import flat_tree
from covey.feed.hashes import (
    EMPTY_TREE_HASH,
    Node,
    leaf_node,
    node_codec,
    parent_node,
    tree_hash,
)
from covey.wire.encoding import array, decode, encode
from tests.vectors_path import load_vectors

VECTORS = load_vectors("merkle")
UINT = st.integers(0, (1 << 53) - 1)
NODES = st.builds(Node, UINT, UINT, st.binary(min_size=32, max_size=32))


def node_of(case: dict[str, Any]) -> Node:
    return Node(case["index"], case["size"], bytes.fromhex(case["hash"]))


def proof_nodes(proof: dict[str, Any]) -> list[Node]:
    parts = [proof[name] for name in ("block", "hash", "seek", "upgrade") if proof[name]]
    lists = [part.get(name, []) for part in parts for name in ("nodes", "additionalNodes")]
    return [node_of(node) for nodes in lists for node in nodes]


@pytest.mark.parametrize("case", VECTORS["leaves"], ids=lambda case: str(case["index"]))
def test_a_leaf_of_the_vectors(case: dict[str, Any]) -> None:
    block = case["index"] // 2
    expected = node_of(case)
    assert leaf_node(block, bytes.fromhex(case["data"])) == expected
    assert leaf_node(block, memoryview(bytearray.fromhex(case["data"]))) == expected


def test_the_nodes_of_the_small_tree_grow_from_its_blocks() -> None:
    small = VECTORS["smallTree"]
    leaves = [leaf_node(i, bytes.fromhex(block)) for i, block in enumerate(small["blocks"])]
    nodes = {leaf.index: leaf for leaf in leaves}
    for case in sorted(small["nodes"], key=lambda case: flat_tree.depth(case["index"])):
        if children := flat_tree.children(case["index"]):
            left, right = (nodes[child] for child in children)
            nodes[case["index"]] = parent_node(left, right)
            assert parent_node(right, left) == parent_node(left, right)
        assert nodes[case["index"]] == node_of(case)
    roots = [nodes[index] for index in flat_tree.full_roots(len(leaves))]
    assert tree_hash(roots).hex() == small["treeHash"]


@pytest.mark.parametrize("case", VECTORS["trees"], ids=lambda case: case["description"])
def test_the_roots_of_the_vectors_have_the_tree_hash(case: dict[str, Any]) -> None:
    roots = [node_of(root) for root in case["roots"]]
    assert [root.index for root in roots] == flat_tree.full_roots(case["length"])
    assert sum(root.size for root in roots) == case["byteLength"]
    assert tree_hash(roots).hex() == case["treeHash"]


def test_the_empty_tree_has_the_hash_of_the_vectors() -> None:
    assert EMPTY_TREE_HASH.hex() == VECTORS["emptyTreeHash"]


@pytest.mark.parametrize("case", VECTORS["trees"], ids=lambda case: case["description"])
def test_nodes_in_the_proofs_of_the_vectors_are_written_as_there(case: dict[str, Any]) -> None:
    for proof in case["proofs"]:
        message = bytes.fromhex(proof["encodedDataMessage"])
        for node in proof_nodes(proof["proof"]):
            written = encode(node_codec, node)
            assert written in message
            assert decode(node_codec, written) == node


@given(st.lists(NODES, max_size=4))
def test_nodes_come_back_as_they_were_sent(nodes: list[Node]) -> None:
    assert decode(array(node_codec), encode(array(node_codec), nodes)) == nodes


@given(NODES)
def test_a_node_cut_short_does_not_decode(node: Node) -> None:
    written = encode(node_codec, node)
    for size in range(len(written)):
        with pytest.raises(DecodeError):
            decode(node_codec, written[:size])


def test_more_nodes_than_bytes_allow_are_refused_before_any_is_made() -> None:
    with pytest.raises(DecodeError, match="out of bounds"):
        decode(array(node_codec), b"\xfd\xe8\x03" + bytes(34 * 999))


def test_a_node_number_that_node_cannot_hold_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode(node_codec, b"\xff" + (1 << 53).to_bytes(8, "little") + b"\0" + bytes(32))


@pytest.mark.parametrize(
    "node",
    [
        Node(0, 0, bytes(31)),
        Node(0, 0, bytes(33)),
        Node(-1, 0, bytes(32)),
        Node(0, 1 << 53, bytes(32)),
    ],
)
def test_a_node_that_does_not_fit_is_not_written(node: Node) -> None:
    with pytest.raises(EncodeError):
        encode(node_codec, node)
