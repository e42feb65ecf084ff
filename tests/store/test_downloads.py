"""Which ranges a list of blocks is."""

from __future__ import annotations

import pytest

from covey.store.downloads import runs_of


@pytest.mark.parametrize(
    ("blocks", "runs"),
    [
        ([], []),
        ([7], [(7, 8)]),
        ([3, 1, 2], [(1, 4)]),
        ([5, 5, 0, 9, 1, 8], [(0, 2), (5, 6), (8, 10)]),
        (range(1000), [(0, 1000)]),
    ],
)
def test_blocks_in_any_order_are_few_ranges(blocks: list[int], runs: list[tuple[int, int]]) -> None:
    assert runs_of(blocks) == runs
