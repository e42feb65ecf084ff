"""Arithmetic of the flat tree: all vectors, and its laws on numbers of any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.feed import flat_tree
from tests.vectors_path import load_vectors

VECTORS = load_vectors("merkle")["flatTree"]
NODES = st.integers(0, 1 << 60)


@pytest.mark.parametrize("case", VECTORS["nodes"], ids=lambda case: str(case["index"]))
def test_a_node_of_the_vectors(case: dict[str, object]) -> None:
    node = case["index"]
    assert isinstance(node, int)
    children = flat_tree.children(node)
    assert case == {
        "index": flat_tree.index(flat_tree.depth(node), flat_tree.offset(node)),
        "depth": flat_tree.depth(node),
        "offset": flat_tree.offset(node),
        "parent": flat_tree.parent(node),
        "sibling": flat_tree.sibling(node),
        "leftSpan": flat_tree.left_span(node),
        "rightSpan": flat_tree.right_span(node),
        "children": None if children is None else list(children),
    }


@pytest.mark.parametrize("case", VECTORS["fullRoots"], ids=lambda case: str(case["length"]))
def test_full_roots_of_the_vectors(case: dict[str, int | list[int]]) -> None:
    assert isinstance(length := case["length"], int)
    assert flat_tree.full_roots(length) == case["fullRoots"]


@given(NODES)
def test_every_node_is_named_by_depth_and_offset(node: int) -> None:
    level = flat_tree.depth(node)
    place = flat_tree.offset(node)
    assert flat_tree.index(level, place) == node
    assert flat_tree.parent(node) == flat_tree.index(level + 1, place >> 1)
    assert flat_tree.sibling(node) == flat_tree.index(level, place ^ 1)
    assert flat_tree.left_span(node) == node - (2**level - 1)
    assert flat_tree.right_span(node) == node + (2**level - 1)


@given(NODES)
def test_parents_siblings_and_children_agree(node: int) -> None:
    other = flat_tree.sibling(node)
    assert flat_tree.sibling(other) == node
    assert flat_tree.children(flat_tree.parent(node)) == (min(node, other), max(node, other))
    children = flat_tree.children(node)
    assert (children is None) == (node % 2 == 0)
    if children is not None:
        assert [flat_tree.parent(child) for child in children] == [node, node]


@given(NODES, st.integers(-300, 300))
def test_a_node_contains_what_its_span_does(node: int, distance: int) -> None:
    other = max(0, node + distance)
    inside = flat_tree.left_span(node) <= other <= flat_tree.right_span(node)
    assert flat_tree.contains(node, other) == inside
    assert flat_tree.contains(flat_tree.parent(node), node)
    assert not flat_tree.contains(node, flat_tree.parent(node))


@given(st.integers(0, 1 << 53))
def test_full_roots_cover_every_leaf_once_and_get_smaller(length: int) -> None:
    roots = flat_tree.full_roots(length)
    edge = 0
    for root in roots:
        assert flat_tree.left_span(root) == edge
        edge = flat_tree.right_span(root) + 2
    assert edge == 2 * length
    assert len(roots) == length.bit_count()
    depths = [flat_tree.depth(root) for root in roots]
    assert depths == sorted(set(depths), reverse=True)
