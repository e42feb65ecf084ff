"""Growing a tree and reading from it: vectors, and offsets and seeks against plain sums."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.feed import flat_tree
from covey.feed.hashes import EMPTY_TREE_HASH, Node
from covey.feed.tree import (
    MAX_LENGTH,
    Batch,
    byte_offset,
    byte_range,
    cut_nodes,
    missing_nodes,
    roots_of,
    seek,
    seek_span,
)
from tests.feed.plain_logs import PlainLog, node_from
from tests.vectors_path import load_vectors

VECTORS = load_vectors("merkle")
SMALL = VECTORS["smallTree"]
SIZES = st.lists(st.integers(0, 40), max_size=70)


def block_of(index: int) -> bytes:
    """A block of the main log of the vectors, whose description gives the formula."""
    salt = VECTORS["blockSalt"]
    size = (1 if index % 3 else 0) + index * 13 % 97
    return bytes((index * 31 + k * 7 + salt) % 251 for k in range(size))


def grown(sizes: list[int]) -> tuple[Batch, dict[int, Node]]:
    batch = Batch()
    for size in sizes:
        batch.append(bytes(size))
    return batch, {node.index: node for node in batch.nodes}


@pytest.mark.parametrize("case", VECTORS["trees"], ids=lambda case: str(case["length"]))
def test_a_tree_grows_to_the_roots_and_the_hash_of_the_vectors(case: dict[str, Any]) -> None:
    log = PlainLog.of(*map(block_of, range(case["length"])))
    assert log.roots == [node_from(root) for root in case["roots"]]
    assert sum(root.size for root in log.roots) == case["byteLength"]
    batch = Batch(log.roots, log.length, case["fork"])
    assert batch.tree_hash().hex() == case["treeHash"]
    assert batch.byte_length == case["byteLength"]


def test_the_leaves_of_the_vectors() -> None:
    batch = Batch()
    for leaf in VECTORS["leaves"]:
        node = batch.append(bytes.fromhex(leaf["data"]))
        assert (node.index, node.size, node.hash.hex()) == (
            leaf["index"],
            leaf["size"],
            leaf["hash"],
        )


def test_every_node_of_the_small_tree() -> None:
    batch = Batch()
    for block in SMALL["blocks"]:
        batch.append(bytes.fromhex(block))
    assert sorted(batch.nodes) == sorted(node_from(node) for node in SMALL["nodes"])
    assert batch.tree_hash().hex() == SMALL["treeHash"]


@pytest.mark.parametrize("case", SMALL["missingNodes"], ids=lambda case: str(case["block"]))
def test_the_levels_missing_to_a_peer_that_stores_only_roots(case: dict[str, Any]) -> None:
    for length, expected in enumerate(case["maxMissingNodes"]):
        roots = flat_tree.full_roots(length)
        assert missing_nodes(case["block"], length, roots.__contains__) == expected


def test_a_block_whose_leaf_is_here_lacks_no_level() -> None:
    assert missing_nodes(2, 8, {4, 7}.__contains__) == 0
    assert missing_nodes(2, 8, {5, 7}.__contains__) == 1
    assert missing_nodes(8, 8, set[int]().__contains__) == 0
    assert missing_nodes(MAX_LENGTH - 1, MAX_LENGTH, set[int]().__contains__) == 53


def test_an_empty_batch() -> None:
    batch = Batch()
    assert (batch.roots, batch.nodes, batch.length, batch.byte_length) == ([], [], 0, 0)
    assert batch.tree_hash() == EMPTY_TREE_HASH


@given(SIZES, st.integers(0, 69))
def test_a_batch_goes_on_from_any_head(sizes: list[int], at: int) -> None:
    whole, nodes = grown(sizes)
    at = min(at, len(sizes))
    roots = roots_of(at, nodes.get)
    assert roots is not None
    rest = Batch(roots, at, 7)
    leaves = [rest.append(bytes(size)) for size in sizes[at:]]
    assert [leaf.index for leaf in leaves] == [2 * block for block in range(at, len(sizes))]
    assert (rest.roots, rest.length, rest.fork) == (whole.roots, whole.length, 7)
    assert rest.byte_length == whole.byte_length == sum(sizes)
    older, _ = grown(sizes[:at])
    assert {*rest.nodes, *older.nodes} == set(whole.nodes)


def test_roots_that_are_not_here() -> None:
    _, nodes = grown([1] * 7)
    assert [node.index for node in roots_of(7, nodes.get) or ()] == [3, 9, 12]
    assert roots_of(8, nodes.get) is None
    assert roots_of(0, nodes.get) == []


@given(SIZES)
def test_the_place_of_every_block_in_bytes(sizes: list[int]) -> None:
    batch, nodes = grown(sizes)
    starts = list(accumulate(sizes, initial=0))
    for block, start in enumerate(starts):
        assert byte_offset(block, batch.roots, nodes.get) == start
    for block, size in enumerate(sizes):
        assert byte_range(block, batch.roots, nodes.get) == (starts[block], size)
    assert byte_range(len(sizes), batch.roots, nodes.get) is None
    assert byte_offset(len(sizes) + 1, batch.roots, nodes.get) is None


def test_a_place_that_takes_a_missing_node() -> None:
    batch, nodes = grown([3] * 8)
    del nodes[1]
    assert byte_offset(2, batch.roots, nodes.get) is None
    assert byte_range(3, batch.roots, nodes.get) is None
    assert byte_offset(1, batch.roots, nodes.get) == 3
    assert byte_offset(4, batch.roots, nodes.get) == 12


def seek_plainly(sizes: list[int], offset: int) -> set[tuple[int, int]]:
    """Blocks that may be named for an offset: empty ones share their place with the next."""
    starts = list(accumulate(sizes, initial=0))
    found = {(block, 0) for block, start in enumerate(starts) if start == offset}
    for block, size in enumerate(sizes):
        if starts[block] < offset < starts[block] + size:
            found.add((block, offset - starts[block]))
    return found


@given(SIZES, st.integers(0, 3), st.data())
def test_seeking_finds_the_block_of_every_byte(
    sizes: list[int], padding: int, data: st.DataObject
) -> None:
    batch, nodes = grown([size + padding for size in sizes])
    total = sum(sizes)
    for offset in {0, total, data.draw(st.integers(0, total))}:
        found = seek(offset, batch.roots, nodes.get, padding=padding)
        assert found in seek_plainly(sizes, offset) | {(0, 0)}
        assert found != (0, 0) or offset == 0
        span = seek_span(offset, batch.roots, nodes.get, padding=padding)
        assert found is not None
        block = found[0]
        assert span == (block, block + (block < len(sizes)))
    assert seek(total + 1, batch.roots, nodes.get, padding=padding) is None
    assert seek_span(total + 1, batch.roots, nodes.get, padding=padding) is None


def test_seeking_without_the_nodes_says_where_it_must_be() -> None:
    batch, nodes = grown([10] * 13)
    sparse = {index: nodes[index] for index in (7, 19, 24, 3, 11)}
    assert seek(55, batch.roots, sparse.get) is None
    assert seek_span(55, batch.roots, sparse.get) == (4, 8)
    assert seek_span(85, batch.roots, sparse.get) == (8, 12)
    assert seek(120, batch.roots, sparse.get) == (12, 0)
    assert seek(130, batch.roots, sparse.get) == (13, 0)
    assert seek_span(130, batch.roots, sparse.get) == (13, 13)
    sparse[9] = nodes[9]
    assert seek_span(55, batch.roots, sparse.get) == (4, 6)
    sparse[8] = nodes[8]
    assert seek(55, batch.roots, sparse.get) == (5, 5)


@given(st.integers(0, 70), st.integers(0, 70))
def test_cut_nodes_are_those_of_the_longer_tree_alone(length: int, more: int) -> None:
    _, longer = grown([1] * (length + more))
    _, shorter = grown([1] * length)
    left = {index for index in longer if index < 2 * length} - set(cut_nodes(length))
    assert left == set(shorter)
