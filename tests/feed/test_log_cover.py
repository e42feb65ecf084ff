"""The nodes that stand for what is not held, against what comes out block by block."""

from __future__ import annotations

import random

import pytest

from covey.feed import flat_tree
from covey.feed.bitfield import BitPages
from covey.feed.log_cover import cover, gap_around, idle_nodes, nodes_below, pieces


def bits_of(held: set[int]) -> BitPages:
    bits = BitPages()
    for block in held:
        bits.set(block, True)
    return bits


def blocks_below(node: int) -> range:
    return range(flat_tree.left_span(node) >> 1, (flat_tree.right_span(node) >> 1) + 1)


def test_a_cover_is_exact_and_has_no_siblings() -> None:
    for start in range(20):
        for end in range(start, 40):
            nodes = list(cover(start, end))
            assert [b for node in nodes for b in blocks_below(node)] == list(range(start, end))
            assert not any(flat_tree.sibling(node) in nodes for node in nodes)


def test_the_cover_of_a_whole_log_is_its_roots() -> None:
    for length in [*range(70), (1 << 52) - 1, 1 << 52]:
        assert list(cover(0, length)) == flat_tree.full_roots(length)


@pytest.mark.parametrize("seed", range(20))
def test_a_gap_reaches_to_the_next_held_blocks(seed: int) -> None:
    chance = random.Random(seed)
    length = chance.choice([50, 20_000])
    held = {chance.randrange(length) for _ in range(chance.randrange(6))}
    for _ in range(20):
        start = chance.randrange(length)
        end = chance.randrange(start, length + 1)
        low, high = gap_around(bits_of(held), start, end, length)
        assert low == max((block + 1 for block in held if block < start), default=0)
        assert high == min((block for block in held if block >= end), default=length)


def test_a_gap_in_an_enormous_log_is_found_at_once() -> None:
    bits = BitPages()
    bits.set_range(3, 1 << 51, True)
    assert gap_around(bits, 1 << 50, (1 << 51) + 5, 1 << 52) == (1 << 50, 1 << 52)
    bits.set_range(5, 1 << 51, False)
    assert gap_around(bits, 1 << 50, (1 << 50) + 1, 1 << 52) == (5, 1 << 52)


def test_nodes_below_are_all_but_the_node_itself() -> None:
    for node in range(70):
        below = [index for span in nodes_below(node) for index in range(*span)]
        whole = range(flat_tree.left_span(node), flat_tree.right_span(node) + 1)
        assert below == [index for index in whole if index != node]


@pytest.mark.parametrize("seed", range(20))
def test_nodes_for_blocks_on_their_way_stay_as_for_those_held(seed: int) -> None:
    chance = random.Random(seed)
    length = chance.randrange(2, 80)
    held = {chance.randrange(length) for _ in range(chance.randrange(length))}
    coming = {chance.randrange(length) for _ in range(chance.randrange(6))}
    start = chance.randrange(length)
    end = chance.randrange(start, length) + 1
    beside = {block for block in coming if not start <= block < end}
    found = idle_nodes(bits_of(held), start, end, length, coming)
    assert found == idle_nodes(bits_of(held | beside), start, end, length)


@pytest.mark.parametrize("seed", range(20))
def test_pieces_cover_the_log_in_order(seed: int) -> None:
    chance = random.Random(seed)
    length = chance.randrange(1, 80)
    held = {chance.randrange(length) for _ in range(chance.randrange(length))}
    found = list(pieces(bits_of(held), length))
    assert [b for node, _ in found for b in blocks_below(node)] == list(range(length))
    assert {node >> 1 for node, is_held in found if is_held} == held
    assert not any(set(blocks_below(node)) & held for node, is_held in found if not is_held)
